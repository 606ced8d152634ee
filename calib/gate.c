/* gate.c - gates: made from grids, moved by Adam, decided.
 *
 * The loops over weights are plain multiplications and additions, without calls and branches, so that compilers make
 * vectors of them; exponential and logarithm are Cephes' (Moshier) in that form, good to about 1e-7, and the same on
 * every machine because nothing in them is contracted. */
#include "calib/gate.h"

#include <math.h>
#include <stdlib.h>

#include "core/bits.h"
#include "quant/rectified_sigmoid.h"

static const float STRETCH = (float)HT_GATE_STRETCH, OFFSET = (float)HT_GATE_OFFSET;

/* ---- functions ---- */

/* e^x for |x| < 87; beyond, that of the end. */
static inline float plain_exp(float x)
{
    x = x < 87.0f ? x : 87.0f;
    x = x > -87.0f ? x : -87.0f;
    float shifted = x * 1.44269504f + 12582912.0f, n = shifted - 12582912.0f;
    float r = (x - n * 0.693359375f) + n * 2.12194440e-4f;
    float p = 1.9875691500e-4f * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * (r * r) + r + 1.0f;
    return p * ht_float_of((ht_bits_of(shifted) << 23) + 0x3f800000);
}

/* ln x, x positive and normal: x = 2^e m, m in [sqrt(1/2), sqrt(2)). */
static inline float plain_log(float x)
{
    int32_t bits = (int32_t)ht_bits_of(x), e = (bits - 0x3f3504f3) >> 23;
    float m = ht_float_of((uint32_t)bits - ((uint32_t)e << 23)) - 1.0f, z = m * m;
    float p = 7.0376836292e-2f * m - 1.1514610310e-1f;
    p = p * m + 1.1676998740e-1f;
    p = p * m - 1.2420140846e-1f;
    p = p * m + 1.4249322787e-1f;
    p = p * m - 1.6668057665e-1f;
    p = p * m + 2.0000714765e-1f;
    p = p * m - 2.4999993993e-1f;
    p = p * m + 3.3333331174e-1f;
    return (m * z * p - 0.5f * z) + m + (float)e * 0.693147181f;
}

static inline float clip(float x)
{
    x = x > 0.0f ? x : 0.0f;
    return x < 1.0f ? x : 1.0f;
}

static inline float sigmoid(float v)
{
    return 1.0f / (1.0f + plain_exp(-v));
}

/* ---- making ---- */

typedef struct choice {
    ht_neighbours n;
    double h;
} choice;

/* Between the neighbours of y. */
static choice choose_about(const ht_grid *grid, float y)
{
    choice c = {ht_grid_neighbours(grid, y), 0};
    if (c.n.high != c.n.low)
        c.h = ((double)y - (double)c.n.low) / ((double)c.n.high - (double)c.n.low);
    return c;
}

/* Between a code and the next one on the side where y is. */
static choice choose_from(const ht_grid *grid, float y, uint8_t code, double confidence)
{
    float value = ht_grid_decode(grid, code);
    choice up = {ht_grid_neighbours(grid, value), 1 - confidence};
    choice down = {ht_grid_neighbours(grid, nextafterf(value, -INFINITY)), confidence};
    if (value <= grid->lowest || (y >= value && value < grid->highest))
        return up;
    return down;
}

static void make_gate(ht_gates *g, size_t at, const ht_block *block, float w, uint8_t code, double confidence)
{
    float y = w / block->scale;
    if (block->scale == 0) { /* a block of zeros */
        g->below[at] = g->above[at] = code;
        return;
    }
    choice c = confidence > 0 ? choose_from(&block->grid, y, code, confidence) : choose_about(&block->grid, y);
    g->below[at] = c.n.below;
    g->above[at] = c.n.above;
    g->low[at] = c.n.low * block->scale;
    g->step[at] = c.n.high * block->scale - g->low[at];
    g->v[at] = (float)ht_gate_logit(c.h);
}

typedef struct part_walk {
    ht_format_sizes sizes;
    ht_matrix matrix;
    uint8_t *codes; /* a row; malloc */
} part_walk;

static ht_status open_walk(const ht_layer *layer, int p, part_walk *walk)
{
    *walk = (part_walk){.matrix = ht_layer_matrix(layer, p)};
    ht_status status = ht_format_measure(&layer->format, &walk->matrix, &walk->sizes);
    if (!status && !(walk->codes = malloc(walk->matrix.in + 1)))
        status = ht_fail(HT_ERR_MEMORY, "%s: out of memory for a row of codes", layer->name);
    return status;
}

/* Where input k of part p and output `row` lies among the weights [out][taps][in]. */
static size_t weight_at(const ht_layer *layer, int p, size_t row, size_t k)
{
    size_t count = (size_t)layer->part[p].count, in = (size_t)ht_layer_inputs(layer);
    return (row * (size_t)ht_layer_taps(layer) + k / count) * in + (size_t)layer->part[p].begin + k % count;
}

static ht_status make_part(const ht_layer *layer, int p, const float *weights, double confidence, ht_gates *gates)
{
    const ht_quantized *q = &layer->part[p].weight;
    part_walk walk;
    ht_status status = open_walk(layer, p, &walk);
    if (status)
        return status;
    size_t in = walk.matrix.in, length = layer->format.block ? (size_t)layer->format.block : in;
    for (size_t row = 0; row < walk.matrix.out; row++) {
        ht_codes_unpack(&layer->format, in, q->codes + row * walk.sizes.row_bytes, walk.codes);
        for (size_t k = 0; k < in; k++) {
            ht_block block = ht_format_block(&layer->format, q, row * walk.sizes.blocks + k / length);
            size_t at = weight_at(layer, p, row, k);
            make_gate(gates, at, &block, weights[at], walk.codes[k], confidence);
        }
    }
    free(walk.codes);
    return HT_OK;
}

ht_status ht_gates_make(ht_arena *arena, const ht_layer *layer, const float *weights, double confidence,
                        ht_gates *gates)
{
    size_t n = (size_t)(ht_layer_outputs(layer) * ht_layer_taps(layer) * ht_layer_inputs(layer));
    float *floats = ht_alloc_array(arena, n, 5 * sizeof *floats);
    uint8_t *codes = ht_alloc_array(arena, n, 2);
    ht_status status = HT_OK;
    if (!floats || !codes)
        return HT_ERR_MEMORY;
    *gates = (ht_gates){n, floats, floats + n, floats + 2 * n, floats + 3 * n, floats + 4 * n, codes, codes + n};
    for (int p = 0; !status && p < layer->parts; p++)
        status = make_part(layer, p, weights, confidence, gates);
    return status;
}

/* ---- moving ---- */

void ht_gates_weights(const ht_gates *g, size_t begin, size_t end, float *weights)
{
    const float *low = g->low, *step = g->step, *v = g->v;
    for (size_t i = begin; i < end; i++)
        weights[i] = low[i] + step[i] * clip(sigmoid(v[i]) * STRETCH + OFFSET);
}

enum { CHUNK = 256 }; /* weights at a time: each loop does one thing */

/* The gradient by v of a chunk: the loss's, and -weight beta |2h - 1|^(beta - 1) sign(2h - 1) 2 of the other term. */
static void gradient_by_v(const ht_gates *g, const ht_gate_step *s, const float *gradient, size_t at, size_t n,
                          float *by_v)
{
    float pull = (float)(-2 * s->weight * s->beta), power = (float)(s->beta - 1);
    const float *v = g->v + at, *step = g->step + at;
    float open[CHUNK], d[CHUNK]; /* dh / dv, 0 where h is clipped; 2 h - 1 */
    for (size_t i = 0; i < n; i++) {
        float sig = sigmoid(v[i]), raw = sig * STRETCH + OFFSET, h = clip(raw);
        open[i] = h == raw ? STRETCH * sig * (1.0f - sig) : 0.0f;
        d[i] = 2.0f * h - 1.0f;
        by_v[i] = gradient[at + i] * step[i] * open[i];
    }
    for (size_t i = 0; pull != 0 && i < n; i++) {
        float a = fabsf(d[i]);
        float p = plain_exp(power * plain_log(a > 1e-6f ? a : 1e-6f));
        by_v[i] += pull * (d[i] < 0.0f ? -p : p) * open[i];
    }
}

void ht_gates_move(const ht_gates *g, const ht_gate_step *s, const float *gradient, size_t begin, size_t end,
                   float *weights)
{
    double t = (double)s->number;
    float rate = (float)(s->rate / (1 - ht_pow(0.9, t))), spread = (float)(1 / sqrt(1 - ht_pow(0.999, t)));
    float by_v[CHUNK], root[CHUNK];
    for (size_t at = begin, n; at < end; at += n) {
        n = end - at < CHUNK ? end - at : CHUNK;
        float *mean = g->mean + at, *square = g->square + at, *v = g->v + at;
        gradient_by_v(g, s, gradient, at, n, by_v);
        for (size_t i = 0; i < n; i++) {
            mean[i] = 0.9f * mean[i] + 0.1f * by_v[i];
            square[i] = 0.999f * square[i] + 0.001f * (by_v[i] * by_v[i]);
        }
        for (size_t i = 0; i < n; i++)
            root[i] = sqrtf(square[i]);
        for (size_t i = 0; i < n; i++)
            v[i] -= rate * mean[i] / (root[i] * spread + 1e-8f);
        ht_gates_weights(g, at, at + n, weights);
    }
}

/* ---- deciding ---- */

ht_status ht_gates_decide(const ht_gates *gates, const ht_layer *layer, int64_t *changed)
{
    *changed = 0;
    for (int p = 0; p < layer->parts; p++) {
        part_walk walk;
        ht_status status = open_walk(layer, p, &walk);
        if (status)
            return status;
        for (size_t row = 0; row < walk.matrix.out; row++) {
            uint8_t *stored = layer->part[p].weight.codes + row * walk.sizes.row_bytes;
            ht_codes_unpack(&layer->format, walk.matrix.in, stored, walk.codes);
            for (size_t k = 0; k < walk.matrix.in; k++) {
                size_t at = weight_at(layer, p, row, k);
                uint8_t code = gates->v[at] >= 0 ? gates->above[at] : gates->below[at];
                *changed += code != walk.codes[k];
                walk.codes[k] = code;
            }
            ht_codes_pack(&layer->format, walk.matrix.in, walk.codes, stored);
        }
        free(walk.codes);
    }
    return HT_OK;
}
