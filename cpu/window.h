/* window.h - conv2d and linear as one matrix product: what its rows, depth and columns are.
 *
 * out[m][n] = sum_k a[m][k] w[n][k].  A row m is an output pixel (image, y, x), a column n an output channel, and k
 * runs over the taps of the window row by row and within a tap over the input channels, X before X2.  A linear layer is
 * a window of one tap over an image of one row. */
#ifndef HT_CPU_WINDOW_H
#define HT_CPU_WINDOW_H

#include "cpu/cpu.h"

typedef struct ht_window {
    int64_t rows, rows_per_image, depth, cols;
    int64_t c[2]; /* channels of X and X2 */
    int kernel, stride, pad_top, pad_left, upsample;
    int64_t h, w; /* of X as it lies in memory */
    int64_t out_w;
} ht_window;

static inline ht_window ht_window_of(const ht_op *op, int n)
{
    const ht_value *x = op->in[HT_IN_X], *x2 = op->in[HT_IN_X2], *weight = op->in[HT_IN_WEIGHT];
    ht_window w = {.rows = ht_rows(op->out, n),
                   .depth = ht_value_count(weight) / weight->shape[0],
                   .cols = weight->shape[0],
                   .c = {ht_channels(x), x2 ? ht_channels(x2) : 0},
                   .kernel = 1,
                   .stride = 1,
                   .upsample = 1};
    w.rows_per_image = w.rows / (op->out->batched ? n : op->out->shape[0]);
    w.h = 1;
    w.w = w.out_w = w.rows_per_image;
    if (op->kind == HT_OP_conv2d) {
        w.kernel = op->attrs.kernel;
        w.stride = op->attrs.stride;
        w.pad_top = op->attrs.pad_top;
        w.pad_left = op->attrs.pad_left;
        w.upsample = op->attrs.upsample;
        w.h = x->shape[1];
        w.w = x->shape[2];
        w.out_w = op->out->shape[2];
    }
    return w;
}

/* Where tap (ky, kx) of output pixel m of an image lies in X, as an index of a pixel; -1: in the padding. */
static inline int64_t ht_window_pixel(const ht_window *w, int64_t m, int ky, int kx)
{
    int64_t y = m / w->out_w * w->stride - w->pad_top + ky, x = m % w->out_w * w->stride - w->pad_left + kx;
    if (y < 0 || x < 0 || y >= w->h * w->upsample || x >= w->w * w->upsample)
        return -1;
    return y / w->upsample * w->w + x / w->upsample;
}

#endif
