/* cuda_product.c - products of the module for GPUs against a plain reference of their own, and their speed.
 *
 *     cuda_product MODULE [--seed N] [--cases N] [--pretend CAPABILITY MULTIPROCESSORS] [--bench]
 *
 * The reference makes each segment's sum in whole numbers, exactly, and all else in float32 in the order of
 * cpu/reference.h: integer products must be equal to it bit for bit.  Products of floats are made in double beside the
 * sum of magnitudes A: of float32 chains of k products the error is below k 2^-23 A (a sum that is truncated instead of
 * rounded counted in); the tensor cores' sums of FP8 keep 13 bits below the largest term, so that a step of 32 products
 * loses at most 33 2^-13 of it, of which we grant 2^-10 A a step.  Outputs are compared as what value - bound and value
 * + bound become.  The first image alone must give the bits that it has in the batch. */
#include <dlfcn.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/cuda_products.h"

enum { SAMPLED_ROWS = 48, CASES = 400 };

/* ---- the reference ---- */

static float number(const uint8_t *from, int64_t i, int dtype)
{
    uint16_t h;
    float f;
    if (dtype == HT_CUDA_F32) {
        memcpy(&f, from + 4 * i, 4);
        return f;
    }
    memcpy(&h, from + (dtype == HT_CUDA_F16 ? 2 * i : 0), dtype == HT_CUDA_F16 ? 2 : 1);
    return dtype == HT_CUDA_F16 ? half_value(h) : dtype == HT_CUDA_E4M3 ? e4m3_value(from[i]) : (float)from[i];
}

static float weight_number(const ht_cuda_product *p, const uint8_t *weights, int64_t i)
{
    switch (p->format) {
    case HT_CUDA_W_F32:
        return number(weights, i, HT_CUDA_F32);
    case HT_CUDA_W_F16:
        return number(weights, i, HT_CUDA_F16);
    case HT_CUDA_W_E4M3:
        return e4m3_value(weights[i]);
    case HT_CUDA_W_F4:
        return e4m3_value((uint8_t)p->values[weights[i] & 15]);
    default:
        return (float)whole_weight(p, weights[i]);
    }
}

/* Row m of the input in the stored order, less the zero point; and each k's segment. */
static void gather(const product_case *c, const ht_cuda_product *p, const buffers *b, int64_t m, float *to,
                   int64_t *segments)
{
    const ht_cuda_window *w = &p->window;
    int64_t image = m / w->rows_per_image, at = m % w->rows_per_image, k = 0;
    int taps = w->kernel_w * w->kernel_h;
    for (int input = 0; input < 2; input++)
        for (int tap = 0; tap < taps; tap++) {
            int y = (int)(at / w->out_w) * w->stride - w->pad_top + tap / w->kernel_w;
            int x = (int)(at % w->out_w) * w->stride - w->pad_left + tap % w->kernel_w;
            int inside = y >= 0 && x >= 0 && y < w->h * w->upsample && x < w->w * w->upsample;
            int64_t pixel = (image * w->h + y / w->upsample) * w->w + x / w->upsample;
            float zero = is_integer(c) ? scale_at(c, p, b->x_scale[p->parts == 2 ? input : 0], m)[1] : 0;
            for (int ch = 0; ch < b->padded[input]; ch++, k++) {
                segments[k] = segment_of(p, input, tap, ch);
                to[k] = inside && segments[k] >= 0 ? number(b->x[input], pixel * w->c[input] + ch, c->x) - zero : 0;
            }
        }
}

/* Sum of row x and column n, and a bound of what a kernel may be off by. */
static float sum_of(const product_case *c, const ht_cuda_product *p, const buffers *b, const float *x,
                    const int64_t *segments, int64_t m, int64_t n, double *bound)
{
    float value = 0;
    double exact = 0, all = 0;
    for (int64_t k = 0; k < b->stored;) {
        int64_t segment = segments[k], length = 0;
        double sum = 0, magnitude = 0;
        if (segment < 0) {
            k++;
            continue;
        }
        for (; k < b->stored && (segments[k] == segment || segments[k] < 0); k++) {
            double product = segments[k] < 0 ? 0 : (double)x[k] * weight_number(p, b->weights, n * b->stored + k);
            sum += product;
            magnitude += fabs(product);
            length++;
        }
        if (!is_codes(c)) {
            exact += sum;
            *bound = (double)(length + 8) * 0x1p-23 * magnitude;
            continue;
        }
        int64_t first = p->block ? (int64_t)p->window.kernel_w * p->window.kernel_h * p->window.c[0] / p->block : 1;
        float step = scale_at(c, p, b->x_scale[p->parts == 2 && segment >= first], m)[0];
        float factor = step * b->weight_scales[segment * b->cols_padded + n];
        value = fmaf((float)sum, factor, value);
        exact += sum * factor;
        all += magnitude * factor;
        *bound = is_integer(c) ? 0 : all * ((double)(b->stored / 32 + 2) * 0x1p-10 + (double)b->segments * 0x1p-23);
    }
    return is_integer(c) ? value : (float)exact;
}

static float finish(const product_case *c, const ht_cuda_product *p, const buffers *b, int64_t m, int64_t n, float v)
{
    v += b->bias[n];
    if (c->row)
        v += b->row[(c->row == 2 ? m / p->window.rows_per_image * c->cols : 0) + n];
    if (c->residual)
        v += number(b->residual, m * c->cols + n, c->residual == 2 ? HT_CUDA_F16 : HT_CUDA_F32);
    v *= p->scale;
    return p->relu && v < 0 ? 0 : v;
}

/* As a number that grows with v: the element that v becomes. */
static float stored_value(const product_case *c, const ht_cuda_product *p, const buffers *b, int64_t m, float v)
{
    const float *s = scale_at(c, p, b->out_scale, m);
    if (c->out == HT_CUDA_F32)
        return v;
    if (c->out == HT_CUDA_F16)
        return half_value(half_of(v));
    if (c->out == HT_CUDA_E4M3)
        return e4m3_value(e4m3_of(v / s[0]));
    float y = rintf(v * (1 / s[0])) + s[1];
    y = y > 0 ? y : 0;
    return (float)(uint8_t)(y < p->codes.levels ? y : p->codes.levels);
}

static int check_row(const product_case *c, const ht_cuda_product *p, const buffers *b, int64_t m)
{
    float *x = zeroed((size_t)b->stored * 4);
    int64_t *segments = zeroed((size_t)b->stored * 8);
    int wrong = 0;
    gather(c, p, b, m, x, segments);
    for (int64_t n = 0; n < c->cols; n++) {
        double bound = 0;
        float sum = sum_of(c, p, b, x, segments, m, n, &bound), v = finish(c, p, b, m, n, sum);
        float slack = (float)(bound * p->scale * 1.001);
        if (!is_integer(c)) /* roundings of the epilogue */
            slack += 8 * 0x1p-24f * (fabsf(sum) + 4) * 2;
        float low = stored_value(c, p, b, m, v - slack), high = stored_value(c, p, b, m, v + slack);
        float found = number(b->out, m * c->cols + n, c->out);
        if (!(found >= low && found <= high) && !wrong++)
            printf("FAILED %s: out[%lld][%lld] = %.9g, want %.9g (%.9g .. %.9g)\n", gpu->product_name(p), (long long)m,
                   (long long)n, found, v, low, high);
    }
    free(x);
    free(segments);
    return wrong;
}

/* The first image alone. */
static int check_alone(const product_case *c, ht_cuda_product p, const buffers *b)
{
    size_t bytes = (size_t)(p.window.rows_per_image * c->cols) * bytes_of(c->out);
    uint8_t *alone = zeroed(bytes), *poison = zeroed(bytes);
    p.window.rows = p.window.rows_per_image;
    memset(poison, 0xff, bytes);
    must(gpu->upload(p.out.data, poison, bytes), "upload");
    must(gpu->product(&p), "product");
    must(gpu->download(alone, p.out.data, bytes), "download");
    int wrong = memcmp(alone, b->out, bytes) != 0;
    if (wrong)
        printf("FAILED %s: the first image alone has other bits\n", gpu->product_name(&p));
    free(alone);
    free(poison);
    return wrong;
}

static int check(const product_case *c, int *ran, const char **name)
{
    ht_cuda_product p = product_of(c);
    buffers b;
    int wrong = 0;
    state = c->seed * 7919 + 17;
    prepare(c, &p, &b);
    *name = gpu->product_name(&p);
    must(gpu->upload(p.out.data, b.out, b.out_bytes + CANARY), "upload");
    must(gpu->product(&p), "product");
    must(gpu->download(b.out, p.out.data, b.out_bytes + CANARY), "download");
    for (int i = 0; i < CANARY; i++)
        wrong |= b.out[b.out_bytes + (size_t)i] != 0xff;
    if (wrong)
        printf("FAILED %s: wrote past the output\n", *name);
    for (int64_t i = 0; i < p.window.rows && !wrong; i++) {
        int64_t m = p.window.rows <= SAMPLED_ROWS ? i
                    : i < SAMPLED_ROWS / 2        ? below((int)p.window.rows)
                                                  : p.window.rows - SAMPLED_ROWS + i;
        if (m >= p.window.rows)
            break;
        wrong += check_row(c, &p, &b, m);
    }
    if (!wrong && c->images > 1)
        wrong += check_alone(c, p, &b);
    if (wrong)
        print_case(c);
    ++*ran;
    discard(&p, &b);
    return wrong != 0;
}

static int channels(int block, int odd)
{
    return block ? block * (1 + below(block < 64 ? 8 : 3)) : odd ? 1 + below(70) : 16 * (1 + below(14));
}

static product_case draw_case(uint64_t seed)
{
    static const int blocks[] = {0, 0, 0, 16, 32, 64, 128};
    product_case c = {.seed = seed, .kernel_w = 1, .kernel_h = 1, .stride = 1, .upsample = 1, .parts = 1};
    state = seed * 1000003 + 5;
    for (int i = 0; i < 8; i++)
        draw();
    int odd = !below(6), linear = !below(3), large = !below(16);
    c.format = below(6);
    c.x = c.format <= HT_CUDA_W_F16 ? (below(4) ? c.format : below(2)) : is_integer(&c) ? HT_CUDA_U8 : HT_CUDA_E4M3;
    c.block = is_codes(&c) ? blocks[below(7)] : 0;
    c.images = 1 + below(9);
    c.c[0] = channels(c.block, odd);
    c.c[1] = below(3) ? 0 : channels(c.block, odd);
    c.parts = c.c[1] && is_codes(&c) ? 1 + below(2) : 1;
    c.cols = below(4) ? 8 * (1 + below(40)) : 1 + below(200);
    c.h = linear ? 1 : 1 + below(14);
    c.w = linear ? 1 + below(200) : 1 + below(14);
    if (large) { /* enough tiles for the larger sizes */
        c.h = linear ? 1 : 40 + below(25);
        c.w = linear ? 2000 + below(3000) : 40 + below(25);
        c.cols = 8 * (20 + below(60));
        c.images = 1 + below(3);
        c.c[0] = c.block ? c.block : odd ? 1 + below(20) : 16 * (1 + below(6));
    }
    if (!linear) {
        c.kernel_w = below(3) ? 3 : 1 + below(4);
        c.kernel_h = below(3) ? c.kernel_w : 1 + below(4);
        c.stride = large ? 1 : 1 + !below(3);
        c.upsample = large ? 1 : 1 + !below(4) + !below(12);
        c.pad_top = below(c.kernel_h + 1);
        c.pad_left = below(c.kernel_w + 1);
        c.pad_bottom = c.kernel_h + below(2);
        c.pad_right = c.kernel_w + below(2);
    } else if (!below(5))
        c.w = 1; /* one row per image */
    c.table = below(2);
    c.scales = below(3);
    c.row = below(3);
    c.residual = below(3);
    c.relu = !below(4);
    c.out = below(4);
    return c;
}

/* ---- speed ---- */

typedef struct bench_shape {
    const char *name;
    int images, h, w, c, cols, kernel;
} bench_shape;

enum { LAUNCHES = 20, REPEATS = 5, COLD_BYTES = 64 << 20 };

static int compare_floats(const void *a, const void *b)
{
    float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

/* Microseconds of a launch: the median of replays of a graph of LAUNCHES, whose weights are that many copies, so that
 * they come from memory as in a network. */
static float time_of(ht_cuda_product *p, const void *packed, size_t bytes)
{
    void *copies[LAUNCHES];
    int count = (int)(COLD_BYTES / (bytes + 1)) + 1;
    count = count < LAUNCHES ? count : LAUNCHES;
    for (int i = 0; i < count; i++)
        copies[i] = to_device(packed, bytes);
    ht_cuda_recording *recording;
    p->weights = copies[0];
    must(gpu->product(p), "product"); /* what is done once is done before recording */
    must(gpu->record(), "record");
    for (int i = 0; i < LAUNCHES; i++) {
        p->weights = copies[i % count];
        must(gpu->product(p), "product");
    }
    must(gpu->recorded(&recording), "recorded");
    float times[REPEATS];
    for (int i = -1; i < REPEATS; i++) {
        must(gpu->mark(0), "mark");
        must(gpu->replay(recording), "replay");
        must(gpu->mark(1), "mark");
        must(gpu->elapsed(&times[i < 0 ? 0 : i]), "elapsed");
    }
    gpu->forget(recording);
    for (int i = 0; i < count; i++)
        gpu->free(copies[i]);
    qsort(times, REPEATS, sizeof *times, compare_floats);
    return times[REPEATS / 2] * 1000 / LAUNCHES;
}

static void *noise(size_t bytes, int dtype)
{
    size_t n = bytes / bytes_of(dtype), some = n < 1 << 20 ? n : 1 << 20;
    uint8_t *host = zeroed(bytes);
    fill(host, some, dtype);
    for (size_t at = some * bytes_of(dtype); at < bytes; at += some * bytes_of(dtype))
        memcpy(host + at, host, bytes - at < some * bytes_of(dtype) ? bytes - at : some * bytes_of(dtype));
    void *device = to_device(host, bytes);
    free(host);
    return device;
}

static void bench(const bench_shape *s, int format, int block, int out, double peak)
{
    product_case c = {.images = s->images,
                      .h = s->h,
                      .w = s->w,
                      .c = {s->c, 0},
                      .cols = s->cols,
                      .kernel_w = s->kernel,
                      .kernel_h = s->kernel,
                      .stride = 1,
                      .upsample = 1,
                      .format = format,
                      .x = format == HT_CUDA_W_F16                            ? HT_CUDA_F16
                           : format == HT_CUDA_W_S8 || format == HT_CUDA_W_S4 ? HT_CUDA_U8
                                                                              : HT_CUDA_E4M3,
                      .parts = 1,
                      .block = block,
                      .out = out};
    c.pad_top = c.pad_left = c.pad_bottom = c.pad_right = s->kernel / 2;
    ht_cuda_product p = product_of(&c);
    ht_cuda_layout l;
    must(gpu->product_layout(&p, &l), "product_layout");
    size_t k = (size_t)(s->kernel * s->kernel * s->c), rows = (size_t)p.window.rows, cols = (size_t)s->cols;
    size_t padded = (cols + (size_t)l.col_step - 1) / (size_t)l.col_step * (size_t)l.col_step;
    size_t segments = block ? k / (size_t)block : 1;
    float scale[] = {0.01f, 128};
    uint8_t *packed = zeroed(l.bytes);
    int weights_dtype = format == HT_CUDA_W_F16 ? HT_CUDA_F16 : format == HT_CUDA_W_E4M3 ? HT_CUDA_E4M3 : HT_CUDA_U8;
    fill(packed, l.bytes / bytes_of(weights_dtype), weights_dtype); /* any bytes are packed weights */
    p.x.data = noise((size_t)s->images * (size_t)s->h * (size_t)s->w * (size_t)s->c * bytes_of(c.x), c.x);
    p.weight_scales = noise(segments * padded * 4, HT_CUDA_F32);
    p.weight_sums = noise(segments * padded * 4, HT_CUDA_U8);
    p.bias = noise(cols * 4, HT_CUDA_F32);
    p.x_scale[0].data = p.codes.scale.data = to_device(scale, sizeof scale);
    p.out.data = gpu->alloc(rows * cols * 4);
    size_t workspace = gpu->product_workspace(&p);
    p.workspace = gpu->alloc(workspace);
    float us = time_of(&p, packed, l.bytes);
    double tops = 2.0 * (double)rows * (double)cols * (double)k / us * 1e-6;
    printf("%-34s %-5s block %-3d out %-4s %8.1f us %7.0f TOP/s %5.1f %%  %s%s\n", s->name, format_names[format], block,
           dtype_names[out], us, tops, 100 * tops / peak, gpu->product_name(&p), workspace ? " split" : "");
    const void *device[] = {p.x.data,          p.weight_scales, p.weight_sums, p.bias,
                            p.x_scale[0].data, p.out.data,      p.workspace};
    for (size_t i = 0; i < sizeof device / sizeof *device; i++)
        gpu->free((void *)(uintptr_t)device[i]);
    free(packed);
}

static void bench_all(void)
{
    static const bench_shape shapes[] = {
        {"conv3x3 64x64 320->320 n=2", 2, 64, 64, 320, 320, 3},
        {"conv3x3 32x32 640->640 n=2", 2, 32, 32, 640, 640, 3},
        {"conv3x3 16x16 1280->1280 n=2", 2, 16, 16, 1280, 1280, 3},
        {"conv3x3 8x8 1280->1280 n=2", 2, 8, 8, 1280, 1280, 3},
        {"linear 8192x320->2560", 2, 1, 4096, 320, 2560, 1},
        {"linear 2048x640->5120", 2, 1, 1024, 640, 5120, 1},
        {"linear 512x1280->10240", 2, 1, 256, 1280, 10240, 1},
        {"linear 512x1152->4608 (DiT-XL)", 2, 1, 256, 1152, 4608, 1},
        {"linear 512x4608->1152 (DiT-XL)", 2, 1, 256, 4608, 1152, 1},
        {"linear 8192x320->320", 2, 1, 4096, 320, 320, 1},
    };
    double peaks[6] = {0};
    for (int f = HT_CUDA_W_F16; f <= HT_CUDA_W_E4M3; f++)
        if (f != HT_CUDA_W_S4)
            peaks[f] = gpu->peak((ht_cuda_weights)f) * 1e-12;
    peaks[HT_CUDA_W_S4] = peaks[HT_CUDA_W_S8];
    peaks[HT_CUDA_W_F4] = peaks[HT_CUDA_W_E4M3];
    printf("measured peak: f16 %.0f, int8 %.0f, e4m3 %.0f TOP/s\n", peaks[HT_CUDA_W_F16], peaks[HT_CUDA_W_S8],
           peaks[HT_CUDA_W_E4M3]);
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        for (int f = HT_CUDA_W_F16; f <= HT_CUDA_W_F4; f++)
            bench(&shapes[i], f, 0, HT_CUDA_F16, peaks[f]);
        bench(&shapes[i], HT_CUDA_W_S8, 0, HT_CUDA_U8, peaks[HT_CUDA_W_S8]);
        bench(&shapes[i], HT_CUDA_W_S4, 64, HT_CUDA_F16, peaks[HT_CUDA_W_S8]);
    }
}

static int open_module(const char *path, void **library)
{
    *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (!*library) {
        printf("%s\n", dlerror());
        return 1;
    }
    const ht_cuda_module *(*get)(void);
    void *symbol = dlsym(*library, "ht_cuda_module_get");
    memcpy(&get, &symbol, sizeof get);
    gpu = symbol ? get() : NULL;
    ht_cuda_device device;
    if (!gpu || gpu->version != HT_CUDA_VERSION || gpu->devices() < 1) {
        printf("SKIPPED: %s\n", gpu ? gpu->error() : "not the module");
        return 1;
    }
    must(gpu->open(0, &device), "open");
    printf("%s, compute capability %d.%d, %d multiprocessors\n", device.name, device.major, device.minor,
           device.multiprocessors);
    return 0;
}

int main(int argc, char **argv)
{
    uint64_t seed = 1;
    int cases = CASES, benches = 0, wrong = 0, ran = 0, capability = 0, multiprocessors = 0;
    void *library;
    for (int i = 2; i < argc; i++)
        if (!strcmp(argv[i], "--bench"))
            benches = 1;
        else if (!strcmp(argv[i], "--seed") && i + 1 < argc)
            seed = strtoull(argv[++i], NULL, 10);
        else if (!strcmp(argv[i], "--cases") && i + 1 < argc)
            cases = atoi(argv[++i]);
        else if (!strcmp(argv[i], "--pretend") && i + 2 < argc) {
            capability = atoi(argv[++i]);
            multiprocessors = atoi(argv[++i]);
        }
    if (argc < 2 || open_module(argv[1], &library))
        return argc < 2;
    setvbuf(stdout, NULL, _IOLBF, 0);
    void (*pretend)(int capability, int multiprocessors);
    void *pretends = dlsym(library, "ht_cuda_pretend");
    memcpy(&pretend, &pretends, sizeof pretend);
    if (pretends)
        pretend(capability, multiprocessors);
    struct {
        const char *name;
        int ran, wrong;
    } kernels[64] = {{0}};
    for (int i = 0; i < cases && wrong < 12; i++) {
        const char *name;
        product_case c = draw_case(seed + (uint64_t)i);
        int bad = check(&c, &ran, &name), k = 0;
        while (kernels[k].name && strcmp(kernels[k].name, name))
            k++;
        kernels[k].name = name;
        kernels[k].ran++;
        kernels[k].wrong += bad;
        wrong += bad;
    }
    for (int k = 0; kernels[k].name; k++)
        printf("%-36s %4d cases, %d wrong\n", kernels[k].name, kernels[k].ran, kernels[k].wrong);
    printf("%d products, %d wrong\n", ran, wrong);
    if (benches)
        bench_all();
    gpu->close();
    return wrong != 0;
}
