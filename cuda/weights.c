/* weights.c - weights of a product in the device's order (cuda/module.h): by input, tap and channel, each tap's
 * channels filled up with zeros to the kernel's step; and of quantized ones the scales of their segments.
 *
 * A rotation is a product as well, with a matrix of powers of two: it needs no kernel of its own. */
#include <stdlib.h>
#include <string.h>

#include "cuda/program.h"
#include "quant/rotate.h"

static const char *name_of(const ht_op *op)
{
    return op->in[HT_IN_WEIGHT] ? op->in[HT_IN_WEIGHT]->name : ht_op_kind_name(op->kind);
}

/* The window of a product, without the number of images. */
static ht_cuda_window window_of(const ht_op *op)
{
    const ht_value *x = op->in[HT_IN_X], *x2 = op->in[HT_IN_X2], *out = op->out;
    ht_cuda_window w = {.cols = ht_cuda_channels(out),
                        .c = {ht_cuda_channels(x), x2 ? ht_cuda_channels(x2) : 0},
                        .kernel_w = 1,
                        .kernel_h = 1,
                        .stride = 1,
                        .upsample = 1,
                        .h = 1};
    w.rows_per_image = ht_cuda_rows_of(out, 1) / ht_cuda_images(out, 1);
    w.w = w.out_w = (int)w.rows_per_image;
    if (op->kind == HT_OP_conv2d) {
        w.kernel_w = op->attrs.kernel;
        w.kernel_h = op->attrs.kernel_height;
        w.stride = op->attrs.stride;
        w.pad_top = op->attrs.pad_top;
        w.pad_left = op->attrs.pad_left;
        w.upsample = op->attrs.upsample;
        w.h = (int)x->shape[1];
        w.w = (int)x->shape[2];
        w.out_w = (int)out->shape[2];
    }
    return w;
}

/* ---- the way through k on the device ---- */

typedef struct order {
    const ht_op *op;
    int taps, c[2], padded[2]; /* channels of an input; on the device */
    int64_t stored;
} order;

static order order_of(const ht_op *op, const ht_cuda_product *p, int step)
{
    order o = {.op = op, .taps = p->window.kernel_w * p->window.kernel_h};
    for (int i = 0; i < 2; i++) {
        o.c[i] = p->window.c[i];
        o.padded[i] = (o.c[i] + step - 1) / step * step;
        o.stored += (int64_t)o.taps * o.padded[i];
    }
    return o;
}

/* Where tap and channel ch of input i are in a row of the device's. */
static int64_t stored_at(const order *o, int i, int tap, int ch)
{
    return (i ? (int64_t)o->taps * o->padded[0] : 0) + (int64_t)tap * o->padded[i] + ch;
}

/* ---- weights that are numbers ---- */

/* Rows of floats or halves from the checkpoint's [cols][in][taps]. */
static ht_status fill_numbers(const ht_op *op, const order *o, int cols, bool half, void *to)
{
    size_t in = (size_t)(o->c[0] + o->c[1]), taps = (size_t)o->taps, depth = in * taps;
    const ht_tensor *t = op->in[HT_IN_WEIGHT]->data;
    float *row = malloc(depth * sizeof *row);
    if (!row)
        return ht_fail(HT_ERR_MEMORY, "%s: out of memory", t->name);
    for (int n = 0; n < cols; n++) {
        if (op->layer)
            ht_layer_values(op->layer, (size_t)n * depth, depth, row);
        else
            ht_convert_to_f32(t->dtype, t->data, (size_t)n * depth, depth, row);
        for (size_t ch = 0; ch < in; ch++)
            for (size_t tap = 0; tap < taps; tap++) {
                int second = (int)ch >= o->c[0];
                int64_t at = n * o->stored + stored_at(o, second, (int)tap, (int)ch - (second ? o->c[0] : 0));
                float v = row[ch * taps + tap];
                if (half)
                    ((uint16_t *)to)[at] = ht_f16_from_f32(v);
                else
                    ((float *)to)[at] = v;
            }
    }
    free(row);
    return HT_OK;
}

/* The rotation of op, row after row: of a symmetric matrix these are its columns. */
static ht_status fill_rotation(const ht_op *op, const order *o, int cols, bool half, void *to)
{
    float *row = malloc((size_t)cols * sizeof *row);
    if (!row)
        return ht_fail(HT_ERR_MEMORY, "out of memory for a rotation of %d channels", cols);
    for (int n = 0; n < cols; n++) {
        for (int k = 0; k < cols; k++)
            row[k] = (float)(k == n);
        ht_rotate((size_t)cols, op->attrs.count, row);
        for (int k = 0; k < cols; k++)
            if (half)
                ((uint16_t *)to)[n * o->stored + k] = ht_f16_from_f32(row[k]);
            else
                ((float *)to)[n * o->stored + k] = row[k];
    }
    free(row);
    return HT_OK;
}

/* ---- weights that are codes ---- */

/* A part's codes and what they stand for. */
static uint8_t code_of(const ht_layer *layer, int part, int64_t n, int64_t k)
{
    int64_t depth = layer->part[part].count * ht_layer_taps(layer);
    const uint8_t *codes = layer->part[part].weight.codes;
    return layer->format.grid.bits == 4 ? (uint8_t)(codes[n * ((depth + 1) / 2) + k / 2] >> k % 2 * 4 & 15)
                                        : codes[n * depth + k];
}

/* The part that input i belongs to, and k of a tap and channel in it. */
static int64_t part_k(const order *o, int i, int tap, int ch, int *part)
{
    const ht_layer *layer = o->op->layer;
    *part = i && layer->parts == 2;
    return (int64_t)tap * layer->part[*part].count + ch + (i && !*part ? o->c[0] : 0);
}

/* Whole numbers of S8 and S4, whose sums are exact, and the bytes themselves of E4M3 and F4. */
typedef struct meanings {
    int8_t whole[256];
} meanings;

static meanings meanings_of(const ht_format *f)
{
    meanings m = {{0}};
    if (!ht_grid_is_integer(&f->grid))
        return m;
    for (int c = 0; c < 1 << f->grid.bits; c++)
        m.whole[c] = (int8_t)(ht_grid_decode(&f->grid, (uint8_t)c) / f->grid.unit);
    return m;
}

static void fill_codes(const order *o, const ht_cuda_product *p, uint8_t *to)
{
    const ht_layer *layer = o->op->layer;
    meanings m = meanings_of(&layer->format);
    for (int n = 0; n < p->window.cols; n++)
        for (int i = 0; i < 2; i++)
            for (int tap = 0; tap < o->taps; tap++)
                for (int ch = 0; ch < o->c[i]; ch++) {
                    int part;
                    int64_t k = part_k(o, i, tap, ch, &part);
                    uint8_t code = code_of(layer, part, n, k);
                    to[n * o->stored + stored_at(o, i, tap, ch)] =
                        p->format == HT_CUDA_W_S8 ? (uint8_t)m.whole[code] : code;
                }
}

/* Segments in the device's order: number of the one that tap and channel of input i are in. */
static int64_t segment_at(const order *o, const ht_cuda_product *p, int i, int tap, int ch)
{
    if (!p->block)
        return i && p->parts == 2;
    int64_t before = i ? (int64_t)o->taps * (o->c[0] / p->block) : 0;
    return before + (int64_t)tap * (o->c[i] / p->block) + ch / p->block;
}

static int64_t segments_of(const order *o, const ht_cuda_product *p)
{
    return p->block ? (int64_t)o->taps * (o->c[0] / p->block + o->c[1] / p->block) : p->parts;
}

static void fill_scales(const order *o, const ht_cuda_product *p, int padded, float *scales, int32_t *sums)
{
    const ht_layer *layer = o->op->layer;
    meanings m = meanings_of(&layer->format);
    bool whole = p->format == HT_CUDA_W_S8 || p->format == HT_CUDA_W_S4;
    float unit = whole ? layer->format.grid.unit : 1;
    for (int n = 0; n < p->window.cols; n++)
        for (int i = 0; i < 2; i++)
            for (int tap = 0; tap < o->taps; tap++)
                for (int ch = 0; ch < o->c[i]; ch++) {
                    int part;
                    int64_t k = part_k(o, i, tap, ch, &part), at = segment_at(o, p, i, tap, ch) * padded + n;
                    int64_t depth = layer->part[part].count * ht_layer_taps(layer),
                            block = layer->format.block ? layer->format.block : depth;
                    if (k % block == 0)
                        scales[at] = ht_format_block(&layer->format, &layer->part[part].weight,
                                                     (size_t)(n * (depth / block) + k / block))
                                         .scale *
                                     unit;
                    if (whole)
                        sums[at] += m.whole[code_of(layer, part, n, k)];
                }
}

/* ---- all of it ---- */

static ht_cuda_weights format_of(const ht_program *p, const ht_op *op)
{
    ht_cuda_dtype x = p->dtypes[op->in[HT_IN_X]->id];
    bool nibbles = op->layer && op->layer->format.grid.bits == 4;
    switch (x) {
    case HT_CUDA_U8:
        return nibbles ? HT_CUDA_W_S4 : HT_CUDA_W_S8;
    case HT_CUDA_E4M3:
        return nibbles ? HT_CUDA_W_F4 : HT_CUDA_W_E4M3;
    case HT_CUDA_F16:
        return HT_CUDA_W_F16;
    default:
        return HT_CUDA_W_F32;
    }
}

static void describe(const ht_program *p, const ht_op *op, ht_cuda_product *q)
{
    const ht_format *f = op->layer ? &op->layer->format : NULL;
    *q = (ht_cuda_product){.window = window_of(op),
                           .format = format_of(p, op),
                           .parts = op->layer ? op->layer->parts : 1,
                           .scale = ht_op_is_product(op) ? op->attrs.scale : 1,
                           .relu = op->attrs.activation == HT_ACT_RELU};
    q->x.dtype = q->x2.dtype = p->dtypes[op->in[HT_IN_X]->id];
    q->out.dtype = p->dtypes[op->out->id];
    if (q->format == HT_CUDA_W_F32 || q->format == HT_CUDA_W_F16)
        return;
    q->block = f->block;
    for (int c = 0; f->grid.bits == 4 && c < 16; c++) {
        float v = ht_grid_decode(&f->grid, (uint8_t)c);
        q->values[c] =
            q->format == HT_CUDA_W_S4 ? (signed char)(v / f->grid.unit) : (signed char)ht_f8_e4m3_from_f32(v);
    }
}

static size_t element_bytes(ht_cuda_weights format)
{
    return format == HT_CUDA_W_F32 ? 4 : format == HT_CUDA_W_F16 ? 2 : 1;
}

static ht_status keep_weights(ht_program *p, ht_cuda_step *s, const order *o, const ht_cuda_layout *layout)
{
    ht_cuda_product *q = &s->product;
    size_t bytes, count;
    ht_status status = HT_OK;
    if (!ht_mul_size((size_t)q->window.cols, (size_t)o->stored, &count) ||
        !ht_mul_size(count, element_bytes(q->format), &bytes))
        return ht_fail(HT_ERR_MEMORY, "%s: weights are larger than memory can be", name_of(s->op));
    void *from = calloc(bytes, 1), *to = calloc(layout->bytes, 1);
    if (!from || !to) {
        status = ht_fail(HT_ERR_MEMORY, "%s: out of memory for its weights", name_of(s->op));
        goto done;
    }
    if (s->op->kind == HT_OP_rotate)
        status = fill_rotation(s->op, o, q->window.cols, q->format == HT_CUDA_W_F16, from);
    else if (q->format == HT_CUDA_W_F32 || q->format == HT_CUDA_W_F16)
        status = fill_numbers(s->op, o, q->window.cols, q->format == HT_CUDA_W_F16, from);
    else
        fill_codes(o, q, from);
    if (!status) {
        p->module->product_pack(q, from, to);
        q->weights = ht_cuda_keep(p, to, layout->bytes);
        status = q->weights ? HT_OK : HT_ERR_MEMORY;
    }
done:
    free(from);
    free(to);
    return status;
}

static ht_status keep_scales(ht_program *p, ht_cuda_step *s, const order *o, const ht_cuda_layout *layout)
{
    ht_cuda_product *q = &s->product;
    int padded = (q->window.cols + layout->col_step - 1) / layout->col_step * layout->col_step;
    size_t count = (size_t)(segments_of(o, q) * padded);
    float *scales = calloc(count, sizeof *scales);
    int32_t *sums = calloc(count, sizeof *sums);
    if (scales && sums) {
        fill_scales(o, q, padded, scales, sums);
        q->weight_scales = ht_cuda_keep(p, scales, count * sizeof *scales);
        q->weight_sums = ht_cuda_keep(p, sums, count * sizeof *sums);
    }
    bool room = scales && sums;
    free(scales);
    free(sums);
    if (!room)
        return ht_fail(HT_ERR_MEMORY, "%s: out of memory for its scales", name_of(s->op));
    return q->weight_scales && q->weight_sums ? HT_OK : HT_ERR_MEMORY;
}

static ht_status keep_bias(ht_program *p, ht_cuda_step *s)
{
    const ht_value *bias = s->op->in[HT_IN_BIAS];
    size_t n = bias ? (size_t)ht_value_count(bias) : 0;
    float *values = bias ? malloc(n * sizeof *values) : NULL;
    if (!bias)
        return HT_OK;
    if (!values)
        return ht_fail(HT_ERR_MEMORY, "%s: out of memory", bias->name);
    ht_convert_to_f32(bias->data->dtype, bias->data->data, 0, n, values);
    s->product.bias = ht_cuda_keep(p, values, n * sizeof *values);
    free(values);
    return s->product.bias ? HT_OK : HT_ERR_MEMORY;
}

ht_status ht_cuda_prepare_product(ht_program *p, ht_cuda_step *s)
{
    ht_cuda_product *q = &s->product;
    ht_cuda_layout layout;
    describe(p, s->op, q);
    const char *name = name_of(s->op);
    if (q->block && (q->window.c[0] % q->block || q->window.c[1] % q->block))
        return ht_fail(HT_ERR_UNSUPPORTED, "%s: the CUDA kernels want scales of %d inputs within %d and %d channels",
                       name, q->block, q->window.c[0], q->window.c[1]);
    if (p->module->product_layout(q, &layout))
        return ht_fail(HT_ERR_UNSUPPORTED, "%s: there is no CUDA kernel for this product; --backend cpu has one", name);
    order o = order_of(s->op, q, layout.channel_step);
    ht_status status = keep_weights(p, s, &o, &layout);
    if (!status && q->format != HT_CUDA_W_F32 && q->format != HT_CUDA_W_F16)
        status = keep_scales(p, s, &o, &layout);
    return status ? status : keep_bias(p, s);
}
