/* reference_quantized.c - the scalar kernels of quantized layers: their inputs' scales, codes, products of integers,
 * and the second moments of inputs that rounding needs.  cpu/reference.h states what they compute. */
#include <float.h>
#include <math.h>
#include <string.h>

#include "cpu/reference.h"
#include "cpu/window.h"

/* ---- scales ---- */

static void input_scale(const ht_call *c, const ht_team *team)
{
    const ht_input_table *t = c->op->attrs.table;
    int row = c->in[HT_IN_X] ? ht_input_group(t, c->in[HT_IN_X][0]) : 0;
    if (team->thread)
        return;
    c->out[0] = t->step[row];
    c->out[1] = t->zero[row];
}

/* As ht_format_block_of_range has it. */
static void input_range(const ht_call *c, const ht_team *team)
{
    const ht_value *x = c->op->in[HT_IN_X];
    int64_t i, end, rows = ht_rows(c->op->out, c->n), count = ht_rows(x, c->n) * ht_channels(x) / rows;
    float levels = c->op->attrs.codes->grid.highest;
    ht_team_share(team, rows, &i, &end);
    for (; i < end; i++) {
        const float *v = c->in[HT_IN_X] + i * count;
        float low = 0, high = 0;
        for (int64_t k = 0; k < count; k++) {
            low = v[k] < low ? v[k] : low;
            high = v[k] > high ? v[k] : high;
        }
        float step = (high - low) / levels;
        step = step > FLT_MIN ? step : FLT_MIN;
        float zero = rintf(-low / step);
        c->out[2 * i] = step;
        c->out[2 * i + 1] = zero < levels ? zero : levels;
    }
}

/* ---- codes ---- */

static void quantize(const ht_call *c, const ht_team *team)
{
    const ht_value *x = c->op->in[HT_IN_X];
    const ht_grid *grid = &c->op->attrs.codes->grid;
    int64_t i, end, width = ht_channels(x), rows = ht_rows(x, c->n),
                    per_image = rows / (x->batched ? c->n : x->shape[0]);
    ht_team_share(team, rows, &i, &end);
    for (; i < end; i++) {
        const float *scale = ht_scale_of(c, HT_IN_SCALE, i, per_image), *v = c->in[HT_IN_X] + i * width;
        if (c->op->out->dtype != HT_U8) {
            ht_grid_simulate(grid, scale[0], (size_t)width, v, c->out + i * width);
            continue;
        }
        uint8_t *codes = (uint8_t *)c->out + i * width;
        for (int64_t k = 0; k < width; k++)
            codes[k] = ht_code_of(v[k], 1 / scale[0], scale[1], grid->highest);
    }
}

/* ---- conv2d, linear in integers ---- */

int64_t ht_integer_block(const ht_layer *layer, int p)
{
    return layer->format.block ? layer->format.block : layer->part[p].count * ht_layer_taps(layer);
}

static int64_t part_depth(const ht_layer *layer, int p)
{
    return layer->part[p].count * ht_layer_taps(layer);
}

int ht_integer_weight(const ht_layer *layer, int p, int64_t n, int64_t k)
{
    const ht_grid *grid = &layer->format.grid;
    size_t depth = (size_t)part_depth(layer, p), at = (size_t)k;
    const uint8_t *codes = layer->part[p].weight.codes;
    uint8_t code = grid->bits == 4 ? (uint8_t)(codes[(size_t)n * ((depth + 1) / 2) + at / 2] >> at % 2 * 4 & 15)
                                   : codes[(size_t)n * depth + at];
    return (int)(ht_grid_decode(grid, code) / grid->unit);
}

float ht_integer_scale(const ht_layer *layer, int p, int64_t n, int64_t block)
{
    int64_t blocks = part_depth(layer, p) / ht_integer_block(layer, p);
    return ht_format_block(&layer->format, &layer->part[p].weight, (size_t)(n * blocks + block)).scale *
           layer->format.grid.unit;
}

/* The code under input k of part p at output row m; -1 in the padding. */
static int code_at(const ht_call *c, const ht_window *w, int64_t m, int p, int64_t k)
{
    const ht_layer *layer = c->op->layer;
    int64_t image = m / w->rows_per_image, tap = k / layer->part[p].count, channel = k % layer->part[p].count;
    int slot = p;
    if (layer->parts == 1 && channel >= w->c[0]) {
        slot = 1;
        channel -= w->c[0];
    }
    int64_t pixel = ht_window_pixel(w, m % w->rows_per_image, (int)(tap / w->kernel), (int)(tap % w->kernel));
    if (pixel < 0)
        return -1;
    return ht_codes_in(c, slot ? HT_IN_X2 : HT_IN_X)[(image * w->h * w->w + pixel) * w->c[slot] + channel];
}

static float integer_sum(const ht_call *c, const ht_window *w, int64_t m, int64_t n)
{
    const ht_layer *layer = c->op->layer;
    float sum = 0;
    for (int p = 0; p < layer->parts; p++) {
        const float *scale = ht_scale_of(c, p ? HT_IN_SCALE2 : HT_IN_SCALE, m, w->rows_per_image);
        int64_t depth = part_depth(layer, p), block = ht_integer_block(layer, p);
        for (int64_t b = 0; b < depth / block; b++) {
            int64_t s = 0;
            for (int64_t k = b * block; k < (b + 1) * block; k++) {
                int code = code_at(c, w, m, p, k);
                if (code >= 0) /* in the padding code and zero point are the same */
                    s += (code - (int)scale[1]) * (int64_t)ht_integer_weight(layer, p, n, k);
            }
            sum = fmaf((float)s, scale[0] * ht_integer_scale(layer, p, n, b), sum);
        }
    }
    return sum;
}

static size_t bias_bytes(const ht_op *op)
{
    return ht_round64((size_t)ht_channels(op->out) * sizeof(float));
}

static void bias_pack(const ht_op *op, void *packed)
{
    memset(packed, 0, bias_bytes(op));
    if (op->in[HT_IN_BIAS])
        ht_convert_weight(op->in[HT_IN_BIAS], packed);
}

static void integer_product(const ht_call *c, const ht_team *team)
{
    ht_window w = ht_window_of(c->op, c->n);
    const float *bias = c->packed;
    int64_t m, end;
    ht_team_share(team, w.rows, &m, &end);
    for (; m < end; m++)
        for (int64_t n = 0; n < w.cols; n++) {
            float v = integer_sum(c, &w, m, n) + bias[n];
            if (c->in[HT_IN_ROW])
                v += ht_row_of(c->in[HT_IN_ROW], c->op->in[HT_IN_ROW], m / w.rows_per_image)[n];
            if (c->in[HT_IN_RESIDUAL])
                v += c->in[HT_IN_RESIDUAL][m * w.cols + n];
            ht_store(c, m * w.cols + n, v * c->op->attrs.scale);
        }
}

/* ---- second moments ---- */

/* Of windows 0, count, 2 count, ... of all images; sums are chains of fmaf over windows in their order. */
static void gram(const ht_call *c, const ht_team *team)
{
    ht_window w = ht_window_of_gram(c->op, c->n);
    int64_t i, end, channels = w.c[0] + w.c[1];
    ht_team_share(team, w.depth, &i, &end);
    for (; i < end; i++)
        for (int64_t j = 0; j < w.depth; j++) {
            float sum = 0;
            for (int64_t m = 0; m < w.rows; m += c->op->attrs.count)
                sum = fmaf(ht_window_input(c, &w, m, i / channels, i % channels),
                           ht_window_input(c, &w, m, j / channels, j % channels), sum);
            c->out[i * w.depth + j] = sum;
        }
}

const ht_kernel ht_ref_input_scale = {.name = "input_scale_scalar", .op = HT_OP_input_scale, .run = input_scale};
const ht_kernel ht_ref_input_range = {.name = "input_range_scalar", .op = HT_OP_input_range, .run = input_range};
const ht_kernel ht_ref_quantize = {.name = "quantize_scalar", .op = HT_OP_quantize, .run = quantize};
const ht_kernel ht_ref_gram = {.name = "gram_f32_scalar", .op = HT_OP_gram, .run = gram};
const ht_kernel ht_ref_integer_product = {.name = "product_i8_scalar",
                                          .op = HT_OP_conv2d,
                                          .arithmetic = HT_IN_INTEGERS,
                                          .packed = bias_bytes,
                                          .pack = bias_pack,
                                          .run = integer_product};
