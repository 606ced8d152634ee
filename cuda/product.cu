/* product.cu - products' part of the module's table: which family serves one, its layout, and laying it out. */
#include <cstring>

#include "cuda/product.h"

static __device__ unsigned counters[HT_PICK_COUNTERS];

enum { NO_STEP = 1, SIMT_STEP = 4, ROWS_STEP = 8, DEPTH_OF_INTEGERS = 1 << 16, SIDE = 1 << 15 };

static struct {
    int capability, multiprocessors;
} pretended;

/* For tests alone: kernels for an older device than this, tiles as for one of that size.  0: this device. */
extern "C" __attribute__((visibility("default"))) void ht_cuda_pretend(int capability, int multiprocessors)
{
    pretended.capability = capability;
    pretended.multiprocessors = multiprocessors;
}

static int capability(void)
{
    static int cached;
    int device, major, minor;
    if (pretended.capability)
        return pretended.capability;
    if (!cached && cudaGetDevice(&device) == cudaSuccess &&
        cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device) == cudaSuccess &&
        cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device) == cudaSuccess)
        cached = 10 * major + minor;
    return cached;
}

static int is_narrow(ht_cuda_weights format)
{
    return format == HT_CUDA_W_S4 || format == HT_CUDA_W_F4;
}

static int is_codes(ht_cuda_weights format)
{
    return format != HT_CUDA_W_F32 && format != HT_CUDA_W_F16;
}

/* Nibbles of two's complement need no table. */
static int is_plain_int4(const ht_cuda_product *p)
{
    for (int i = 0; i < 16; i++)
        if (p->values[i] != (i < 8 ? i : i - 16))
            return 0;
    return p->format == HT_CUDA_W_S4;
}

static int is_refused(const ht_cuda_product *p)
{
    const ht_cuda_window *w = &p->window;
    int integers = p->format == HT_CUDA_W_S8 || p->format == HT_CUDA_W_S4;
    ht_cuda_dtype x = p->x.dtype;
    if (is_codes(p->format) ? x != (integers ? HT_CUDA_U8 : HT_CUDA_E4M3) : x != HT_CUDA_F32 && x != HT_CUDA_F16)
        return 1;
    if (w->c[0] < 1 || w->c[1] < 0 || w->upsample < 1 || w->stride < 1 || w->cols < 1)
        return 1;
    if (is_codes(p->format) && (p->parts < 1 || p->parts > 2 || (p->parts == 2 && !w->c[1])))
        return 1;
    if (is_codes(p->format) && p->block) {
        if (p->block != 16 && p->block != 32 && p->block != 64 && p->block != 128)
            return 1;
        if (w->c[0] % p->block || w->c[1] % p->block)
            return 1;
    }
    return integers && (int64_t)w->kernel_w * w->kernel_h * (w->c[0] + w->c[1]) > DEPTH_OF_INTEGERS;
}

static ht_family family_of(const ht_plan *plan)
{
    const ht_cuda_product *p = &plan->p;
    int whole = plan->bytes[0] % 16 == 0 && plan->bytes[1] % 16 == 0;
    if (!is_codes(p->format)) {
        if (plan->flat && p->window.rows_per_image == 1 && !p->window.c[1])
            return HT_FAMILY_ROWS;
        return p->format == HT_CUDA_W_F16 && p->x.dtype == HT_CUDA_F16 && whole ? HT_FAMILY_MMA : HT_FAMILY_SIMT;
    }
    int fp8 = p->format == HT_CUDA_W_E4M3 || p->format == HT_CUDA_W_F4;
    return whole && (!fp8 || capability() >= 89) ? HT_FAMILY_MMA : HT_FAMILY_PLAIN;
}

static void tiles_of(ht_plan *plan)
{
    const ht_cuda_window *w = &plan->p.window;
    ht_pick_shape shape = {};
    shape.rows = w->rows;
    shape.rows_per_image = w->rows_per_image;
    shape.groups = plan->groups;
    shape.stages = plan->stages;
    shape.folds = plan->segments > 1;
    shape.hopper = capability() == 90 && ht_product_has_wgmma();
    shape.multiprocessors = pretended.multiprocessors ? pretended.multiprocessors : ht_cuda_multiprocessors();
    plan->pick = ht_pick_product(&shape);
    int groups, rows;
    ht_pick_tile_size(plan->pick.tile, &groups, &rows);
    plan->group_tiles = (plan->groups + groups - 1) / groups;
    plan->tiles = (w->rows + rows - 1) / rows * plan->group_tiles;
}

static int plan_of(const ht_cuda_product *p, ht_plan *plan)
{
    const ht_cuda_window *w = &p->window;
    if (is_refused(p))
        return HT_CUDA_REFUSED;
    memset(plan, 0, sizeof *plan);
    plan->p = *p;
    plan->taps = w->kernel_w * w->kernel_h;
    plan->element = p->x.dtype == HT_CUDA_F32 ? 4 : p->x.dtype == HT_CUDA_F16 ? 2 : 1;
    plan->flat = plan->taps == 1 && w->stride == 1 && w->upsample == 1 && !w->pad_top && !w->pad_left &&
                 (int64_t)w->h * w->w == w->rows_per_image;
    plan->bytes[0] = w->c[0] * plan->element;
    plan->bytes[1] = w->c[1] * plan->element;
    plan->family = family_of(plan);
    int step = plan->family == HT_FAMILY_MMA    ? HT_UNIT / plan->element
               : plan->family == HT_FAMILY_SIMT ? SIMT_STEP
               : plan->family == HT_FAMILY_ROWS ? ROWS_STEP
                                                : NO_STEP;
    for (int i = 0; i < 2; i++)
        plan->padded[i] = (w->c[i] + step - 1) / step * step * plan->element;
    plan->k_stored = (int64_t)plan->taps * (plan->padded[0] + plan->padded[1]) / plan->element;
    plan->plain_int4 = is_plain_int4(p);
    plan->segments = !is_codes(p->format) ? 1 : p->block ? plan->taps * (w->c[0] + w->c[1]) / p->block : p->parts;
    plan->cols_padded = w->cols;
    if (plan->family != HT_FAMILY_MMA)
        return HT_CUDA_OK;
    int64_t images = w->rows_per_image ? w->rows / w->rows_per_image : 0;
    if (!plan->flat && (w->h * w->upsample >= SIDE || w->w * w->upsample >= SIDE))
        return HT_CUDA_REFUSED;
    if (images * w->h * w->w >= INT32_MAX || w->rows >= INT32_MAX)
        return HT_CUDA_REFUSED;
    plan->unit_bytes = HT_UNIT_CODES / (is_narrow(p->format) ? 2 : 1);
    plan->groups = (w->cols + HT_GROUP - 1) / HT_GROUP;
    plan->cols_padded = plan->groups * HT_GROUP;
    plan->units[0] = plan->taps * (plan->padded[0] / HT_UNIT);
    plan->units[1] = plan->taps * (plan->padded[1] / HT_UNIT);
    plan->stages = (plan->units[0] + plan->units[1] + 1) / 2;
    tiles_of(plan);
    return plan->pick.splits > 1 && plan->tiles > HT_PICK_COUNTERS ? HT_CUDA_REFUSED : HT_CUDA_OK;
}

int ht_cuda_product_layout(const ht_cuda_product *p, ht_cuda_layout *layout)
{
    ht_plan plan;
    int error = plan_of(p, &plan);
    if (error)
        return error;
    int wide = p->format == HT_CUDA_W_F32 ? 4 : p->format == HT_CUDA_W_F16 ? 2 : 1;
    layout->channel_step = plan.family == HT_FAMILY_MMA    ? HT_UNIT / plan.element
                           : plan.family == HT_FAMILY_SIMT ? SIMT_STEP
                           : plan.family == HT_FAMILY_ROWS ? ROWS_STEP
                                                           : NO_STEP;
    layout->col_step = plan.family == HT_FAMILY_MMA ? HT_GROUP : 1;
    layout->bytes = plan.family == HT_FAMILY_MMA
                        ? (size_t)plan.groups * (size_t)plan.stages * 2 * (size_t)plan.unit_bytes
                        : (size_t)p->window.cols * (size_t)plan.k_stored * (size_t)wide;
    return HT_CUDA_OK;
}

/* Four codes, or two halves, of column n of a group: bytes 4 `word` .. of its depth. */
static void pack_word(const ht_plan *plan, uint8_t *group, int n, int64_t word, const uint8_t *from)
{
    int64_t step = word / 8;
    int in_step = (int)(word % 8), second = n & 1, fragment = n % 8 / 2, lane = n / 8 * 4 + in_step % 4;
    uint8_t *at = group + step * (plan->unit_bytes / 2) + fragment * (plan->unit_bytes / 8);
    if (!is_narrow(plan->p.format)) {
        memcpy(at + lane * 16 + (in_step / 4 * 2 + second) * 4, from, 4);
        return;
    }
    at += lane * 8 + in_step / 4 * 4;
    for (int i = 0; i < 4; i++) {
        int nibble = plan->plain_int4 ? 2 * i + second : 4 * second + i;
        at[nibble / 2] |= (uint8_t)((from[i] & 15) << nibble % 2 * 4);
    }
}

void ht_cuda_product_pack(const ht_cuda_product *p, const void *from, void *to)
{
    ht_plan plan;
    ht_cuda_layout layout;
    if (plan_of(p, &plan) || ht_cuda_product_layout(p, &layout))
        return;
    if (plan.family != HT_FAMILY_MMA) {
        memcpy(to, from, layout.bytes);
        return;
    }
    memset(to, 0, layout.bytes);
    int64_t row = plan.k_stored * plan.element, group = (int64_t)plan.stages * 2 * plan.unit_bytes;
    for (int n = 0; n < p->window.cols; n++)
        for (int64_t word = 0; word < row / 4; word++)
            pack_word(&plan, (uint8_t *)to + n / HT_GROUP * group, n % HT_GROUP, word,
                      (const uint8_t *)from + n * row + word * 4);
}

const char *ht_cuda_product_name(const ht_cuda_product *p)
{
    static const char *const formats[][HT_TILES] = {
        {"", "", "", "", ""},
        {"product_f16_mma_64x64", "product_f16_mma_128x128", "product_f16_wgmma_128x128", "product_f16_wgmma_128x192",
         "product_f16_wgmma_128x256"},
        {"product_w8a8_mma_64x64", "product_w8a8_mma_128x128", "product_w8a8_wgmma_128x128",
         "product_w8a8_wgmma_128x192", "product_w8a8_wgmma_128x256"},
        {"product_w4a8_mma_64x64", "product_w4a8_mma_128x128", "product_w4a8_wgmma_128x128",
         "product_w4a8_wgmma_128x192", "product_w4a8_wgmma_128x256"},
        {"product_e4m3_mma_64x64", "product_e4m3_mma_128x128", "product_e4m3_wgmma_128x128",
         "product_e4m3_wgmma_128x192", "product_e4m3_wgmma_128x256"},
        {"product_f4_e4m3_mma_64x64", "product_f4_e4m3_mma_128x128", "product_f4_e4m3_wgmma_128x128",
         "product_f4_e4m3_wgmma_128x192", "product_f4_e4m3_wgmma_128x256"},
    };
    ht_plan plan;
    if (plan_of(p, &plan))
        return "refused";
    switch (plan.family) {
    case HT_FAMILY_PLAIN:
        return "product_codes_plain";
    case HT_FAMILY_SIMT:
        return "product_f32_simt_64x64";
    case HT_FAMILY_ROWS:
        return "product_f32_rows";
    default:
        return formats[p->format][plan.pick.tile];
    }
}

size_t ht_cuda_product_workspace(const ht_cuda_product *p)
{
    ht_plan plan;
    int groups, rows;
    if (plan_of(p, &plan) || plan.family != HT_FAMILY_MMA || plan.pick.splits < 2)
        return 0;
    ht_pick_tile_size(plan.pick.tile, &groups, &rows);
    return (size_t)plan.tiles * (size_t)plan.pick.splits * (size_t)groups * HT_GROUP * (size_t)rows * sizeof(float);
}

int ht_cuda_product_run(const ht_cuda_product *p)
{
    ht_plan plan;
    int error = plan_of(p, &plan);
    if (error || p->window.rows < 1)
        return error;
    if (plan.family == HT_FAMILY_PLAIN)
        return ht_product_launch_plain(&plan);
    if (plan.family == HT_FAMILY_SIMT)
        return ht_product_launch_simt(&plan);
    if (plan.family == HT_FAMILY_ROWS)
        return ht_product_launch_rows(&plan);
    static void *address;
    if (!address && (error = ht_cuda_check(cudaGetSymbolAddress(&address, counters))))
        return error;
    plan.counters = (unsigned *)address;
    switch (p->format) {
    case HT_CUDA_W_F16:
        return ht_product_launch_f16(&plan);
    case HT_CUDA_W_S8:
        return ht_product_launch_s8(&plan);
    case HT_CUDA_W_S4:
        return ht_product_launch_s4(&plan);
    case HT_CUDA_W_E4M3:
        return ht_product_launch_e4m3(&plan);
    default:
        return ht_product_launch_f4(&plan);
    }
}
