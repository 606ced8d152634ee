/* integer.h - conv2d and linear in integers: how weights are packed, for the fast kernels of every instruction set.
 *
 *     out[m][n] = sum_k a[m][k] w[n][k],  a codes of 8 bits, w whole weights of 8 or 4 bits       cpu/reference.h
 *
 * The sum falls into segments, each with scales of its own: the parts of the layer, and in a part the blocks of its
 * weights' format. Of a segment a kernel makes S in int32, which is exact, then adds it to the float32 sum.
 *
 *     k stored      a part's k, filled up with weights of 0 to a multiple of `step`; the second part after the first
 *     packed        values[16] s8    what the codes of 4 bits stand for, in 64 bytes
 *                   bias             [padded] f32
 *                   sums             [segments][padded] s32     W = sum of w
 *                   scales           [segments][padded] f32     scale * unit
 *                   weights          [panel][k / 4][width][4] s8: four k of a column lie together, as the multiply-
 *                                    and-add instructions (vpdpbusd, tdpbusd) take them.  width is `panel` columns,
 *                                    fewer in the last panel, a multiple of `lanes`
 *
 *                       k 0..3 |n0 n0 n0 n0|n1 n1 n1 n1|n2 ...        one row: 4 width bytes
 *                       k 4..7 |n0 n0 n0 n0|n1 n1 n1 n1|n2 ...
 *
 *     4 bits        two rows a row, codes as the format has them: k 0..3 in the low nibbles, k 4..7 in the high ones.
 *                   A kernel looks them up in `values` a panel at a time, once a block of rows, and then multiplies
 *                   as with 8 bits: the table serves int4 and the FP4 grids alike. */
#ifndef HT_CPU_INTEGER_H
#define HT_CPU_INTEGER_H

#include "cpu/reference.h"
#include "cpu/window.h"

typedef struct ht_integer_layout {
    int panel, lanes; /* columns of a panel; a multiple of which they are padded to */
    int step;         /* a multiple of 8: to which k of a part is padded, and which divides blocks */
} ht_integer_layout;

typedef struct ht_integer_part {
    int64_t depth, stored, begin; /* k; the same padded; stored k before this part */
    int64_t block, segment;       /* k of a segment; number of the first */
} ht_integer_part;

typedef struct ht_integer_product {
    ht_window w;
    int parts;
    ht_integer_part part[2];
    bool nibbles;                  /* weights of 4 bits */
    int64_t stored, segments;      /* of all parts */
    int64_t panel, panels, padded; /* columns of a panel; panels; columns with padding */
    const int8_t *values;          /* what follows is NULL before packing */
    const float *bias, *scales;
    const int32_t *sums;
    const uint8_t *weights;
} ht_integer_product;

ht_integer_product ht_integer_product_of(const ht_op *op, int n, const void *packed, const ht_integer_layout *layout);
size_t ht_integer_bytes(const ht_op *op, const ht_integer_layout *layout);
void ht_integer_pack(const ht_op *op, const ht_integer_layout *layout, void *packed);
const char *ht_integer_refuses(const ht_op *op, const ht_integer_layout *layout);

static inline int64_t ht_integer_width(const ht_integer_product *p, int64_t panel)
{
    int64_t left = p->padded - panel * p->panel;
    return left < p->panel ? left : p->panel;
}

/* Weights of a panel from stored k on. */
static inline const uint8_t *ht_integer_weights(const ht_integer_product *p, int64_t panel, int64_t k)
{
    return p->weights + ((panel * p->panel * p->stored + k * ht_integer_width(p, panel)) >> p->nibbles);
}

#endif
