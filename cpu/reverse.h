/* reverse.h - the order of sums in the operations that reverse mode needs, and what their kernels share.
 *
 *     conv2d_by      as conv2d (cpu/reference.h)
 *     conv2d_dx      dx[m][i] = chain over taps, last first, and within a tap over output channels, of dy w; taps that
 * no output has are taken in as zeros: a convolution of dy with the weights turned round conv2d_dw      dw[o][k] =
 * chain over windows, image by image and row by row, of dy[m][o] a[m][k] scores         chain over the head's channels,
 * times scale;     mix, mix_t: chain over tokens, times scale softmax        as attention's, divided by its sum
 *
 * Chains are of fmaf, from 0. */
#ifndef HT_CPU_REVERSE_H
#define HT_CPU_REVERSE_H

#include <float.h>

#include "cpu/math.h"
#include "cpu/reference.h"
#include "cpu/window.h"
#include "graph/reverse.h"

/* The operation of the product kernels that computes conv2d_by, or conv2d_dx of stride 1: conv2d_dx reads the gradient
 * and has the weights' inputs as outputs.  Values that are not the graph's stand beside it. */
typedef struct ht_product_like {
    ht_op op;
    ht_value weight;
} ht_product_like;

static inline void ht_product_like_make(const ht_op *op, ht_product_like *like)
{
    const ht_value *w = op->in[HT_IN_WEIGHT];
    like->op = (ht_op){.kind = HT_OP_conv2d, .out = op->out, .attrs = op->attrs};
    like->op.attrs.scale = 1;
    like->op.in[HT_IN_X] = op->in[HT_IN_X];
    like->weight = *w;
    if (op->kind == HT_OP_conv2d_dx) {
        like->op.in[HT_IN_X] = op->in[HT_IN_GRADIENT];
        like->op.attrs.pad_top = op->attrs.kernel - 1 - op->attrs.pad_top;
        like->op.attrs.pad_left = op->attrs.kernel - 1 - op->attrs.pad_left;
        like->weight.shape[0] = w->shape[3];
        like->weight.shape[3] = w->shape[0];
    }
    like->op.in[HT_IN_WEIGHT] = &like->weight;
}

/* The windows that conv2d_dw sums over. */
static inline ht_window ht_window_of_dw(const ht_op *op, int n)
{
    const ht_value *x = op->in[HT_IN_X], *dy = op->in[HT_IN_GRADIENT];
    return (ht_window){.rows = ht_rows(dy, n),
                       .rows_per_image = dy->shape[1] * dy->shape[2],
                       .depth = ht_channels(x) * op->attrs.kernel * op->attrs.kernel,
                       .cols = ht_channels(dy),
                       .c = {ht_channels(x), 0},
                       .kernel = op->attrs.kernel,
                       .taps = op->attrs.kernel * op->attrs.kernel,
                       .stride = op->attrs.stride,
                       .pad_top = op->attrs.pad_top,
                       .pad_left = op->attrs.pad_left,
                       .upsample = 1,
                       .h = x->shape[1],
                       .w = x->shape[2],
                       .out_w = dy->shape[2]};
}

/* dy sigmoid(x) (1 + x (1 - sigmoid(x))) */
static inline float ht_silu_dx_f32(float x, float dy)
{
    float s = 1.0f / (1.0f + ht_exp_f32(-x));
    return dy * (s * (1.0f + x * (1.0f - s)));
}

/* p / sum; what is too small for a normal number is 0, since sums of subnormal numbers take a hundred times as long. */
static inline float ht_probability(float p, float sum)
{
    p /= sum;
    return p < FLT_MIN ? 0.0f : p;
}

/* One head of scores, mix, mix_t: out[row][col] = scale * chain over k of a[row][k] b[k][col]; strides in elements. */
typedef struct ht_head {
    int64_t rows, cols, depth;
    const float *a, *b;
    float *out;
    int64_t a_row, a_k, b_k, b_col, out_row;
    float scale;
} ht_head;

static inline ht_head ht_head_of(const ht_call *c, int64_t unit)
{
    const ht_op *op = c->op;
    const ht_value *x = op->in[HT_IN_X], *x2 = op->in[HT_IN_X2];
    int64_t heads = op->attrs.heads, image = unit / heads, head = unit % heads;
    int64_t xw = ht_channels(x), x2w = ht_channels(x2), ow = ht_channels(op->out);
    ht_head h = {.rows = op->out->shape[1],
                 .cols = ow / heads,
                 .a = c->in[HT_IN_X] + image * x->shape[1] * xw + head * (xw / heads),
                 .b = c->in[HT_IN_X2] + image * x2->shape[1] * x2w + head * (x2w / heads),
                 .out = c->out + image * op->out->shape[1] * ow + head * (ow / heads),
                 .out_row = ow,
                 .scale = op->attrs.scale};
    bool by_channel = op->kind == HT_OP_scores, turned = op->kind == HT_OP_mix_t;
    h.depth = by_channel ? xw / heads : x2->shape[1];
    h.a_row = turned ? 1 : xw;
    h.a_k = turned ? xw : 1;
    h.b_k = by_channel ? 1 : x2w;
    h.b_col = by_channel ? x2w : 1;
    return h;
}

#endif
