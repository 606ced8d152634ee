/* integer.c - packing the weights of conv2d and linear in integers; cpu/integer.h draws the layout. */
#include "cpu/integer.h"

#include <string.h>

static int64_t round_up(int64_t n, int64_t to)
{
    return (n + to - 1) / to * to;
}

static void find_parts(ht_integer_product *p, const ht_layer *layer, int64_t step)
{
    p->parts = layer->parts;
    for (int i = 0; i < layer->parts; i++) {
        ht_integer_part *part = &p->part[i];
        part->depth = layer->part[i].count * ht_layer_taps(layer);
        part->stored = round_up(part->depth, step);
        part->begin = p->stored;
        part->block = layer->format.block ? layer->format.block : part->stored;
        part->segment = p->segments;
        p->stored += part->stored;
        p->segments += part->stored / part->block;
    }
}

ht_integer_product ht_integer_product_of(const ht_op *op, int n, const void *packed, const ht_integer_layout *layout)
{
    ht_integer_product p = {.w = ht_window_of(op, n), .panel = layout->panel};
    find_parts(&p, op->layer, layout->step);
    p.nibbles = op->layer->format.grid.bits == 4;
    p.padded = round_up(p.w.cols, layout->lanes);
    p.panels = (p.padded + p.panel - 1) / p.panel;
    if (packed) {
        p.values = packed;
        p.bias = (const float *)((const char *)packed + 64);
        p.sums = (const int32_t *)(p.bias + p.padded);
        p.scales = (const float *)(p.sums + p.segments * p.padded);
        p.weights = (const uint8_t *)(p.scales + p.segments * p.padded);
    }
    return p;
}

size_t ht_integer_bytes(const ht_op *op, const ht_integer_layout *layout)
{
    ht_integer_product p = ht_integer_product_of(op, 1, NULL, layout);
    return ht_round64(64 + (size_t)p.padded * ((size_t)(1 + 2 * p.segments) * sizeof(float)) +
                      ((size_t)(p.padded * p.stored) >> p.nibbles));
}

const char *ht_integer_refuses(const ht_op *op, const ht_integer_layout *layout)
{
    const ht_layer *layer = op->layer;
    if (layer->format.block % layout->step)
        return layout->step == 64 ? "the weights' blocks are no multiple of 64"
                                  : "the weights' blocks are no multiple of 8";
    for (int i = 0; i < layer->parts; i++)
        if (layer->part[i].count * ht_layer_taps(layer) > HT_INTEGER_DEPTH)
            return "sums of more than 65536 inputs may leave 32 bits";
    return NULL;
}

/* ---- packing ---- */

/* Where the rows of one column lie. */
typedef struct column {
    uint8_t *weights; /* of its panel, at its first k */
    int64_t row;      /* bytes from four k to the next four */
    bool nibbles;
} column;

static void put(const column *c, int64_t k, uint8_t code, int8_t value)
{
    if (c->nibbles)
        c->weights[k / 8 * c->row + k % 4] |= (uint8_t)(code << (k & 4));
    else
        c->weights[k / 4 * c->row + k % 4] = (uint8_t)value;
}

/* A part of one column: its weights, their sums and scales. */
static void pack_column(const ht_integer_product *p, const ht_layer *layer, int i, int64_t n, const int8_t *values,
                        const column *to)
{
    const ht_integer_part *part = &p->part[i];
    const uint8_t *codes = layer->part[i].weight.codes + n * (p->nibbles ? (part->depth + 1) / 2 : part->depth);
    int32_t *sums = (int32_t *)(p->sums + part->segment * p->padded + n);
    float *scales = (float *)(p->scales + part->segment * p->padded + n);
    for (int64_t b = 0; b < part->stored / part->block; b++) {
        int64_t end = (b + 1) * part->block < part->depth ? (b + 1) * part->block : part->depth;
        int32_t sum = 0;
        for (int64_t k = b * part->block; k < end; k++) {
            uint8_t code = p->nibbles ? (uint8_t)(codes[k / 2] >> k % 2 * 4 & 15) : codes[k];
            put(to, part->begin + k, code, values[code]);
            sum += values[code];
        }
        sums[b * p->padded] = sum;
        scales[b * p->padded] = ht_integer_scale(layer, i, n, b);
    }
}

void ht_integer_pack(const ht_op *op, const ht_integer_layout *layout, void *packed)
{
    ht_integer_product p = ht_integer_product_of(op, 1, packed, layout);
    const ht_grid *grid = &op->layer->format.grid;
    int8_t values[256];
    memset(packed, 0, ht_integer_bytes(op, layout));
    for (int code = 0; code < 256; code++)
        values[code] = (int8_t)(ht_grid_decode(grid, (uint8_t)code) / grid->unit);
    memcpy(packed, values, 16);
    if (op->in[HT_IN_BIAS])
        ht_convert_weight(op->in[HT_IN_BIAS], (float *)((char *)packed + 64));
    for (int64_t n = 0; n < p.w.cols; n++) {
        int64_t panel = n / p.panel;
        column to = {(uint8_t *)packed + (ht_integer_weights(&p, panel, 0) - (const uint8_t *)packed) + n % p.panel * 4,
                     ht_integer_width(&p, panel) * 4, p.nibbles};
        for (int i = 0; i < p.parts; i++)
            pack_column(&p, op->layer, i, n, values, &to);
    }
}
