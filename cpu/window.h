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
    int64_t c[2];                                          /* channels of X and X2 */
    int kernel, taps, stride, pad_top, pad_left, upsample; /* kernel: the width; taps: width times height */
    int64_t h, w;                                          /* of X as it lies in memory */
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
                   .taps = 1,
                   .stride = 1,
                   .upsample = 1};
    w.rows_per_image = w.rows / (op->out->batched ? n : op->out->shape[0]);
    w.h = 1;
    w.w = w.out_w = w.rows_per_image;
    if (op->kind == HT_OP_conv2d) {
        w.kernel = op->attrs.kernel;
        w.taps = op->attrs.kernel * op->attrs.kernel_height;
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

/* The windows of a gram: those of a convolution with its attributes, or rows of a linear layer (kernel 1 and no image).
 */
static inline ht_window ht_window_of_gram(const ht_op *op, int n)
{
    const ht_value *x = op->in[HT_IN_X], *x2 = op->in[HT_IN_X2];
    const ht_attrs *a = &op->attrs;
    ht_window w = {.c = {ht_channels(x), x2 ? ht_channels(x2) : 0},
                   .kernel = a->kernel,
                   .taps = a->kernel * a->kernel,
                   .stride = a->stride,
                   .pad_top = a->pad_top,
                   .pad_left = a->pad_left,
                   .upsample = a->upsample,
                   .h = 1,
                   .w = ht_rows(x, n) / (x->batched ? n : x->shape[0])};
    if (x->ndim == 4) {
        w.h = x->shape[1];
        w.w = x->shape[2];
    }
    w.depth = (w.c[0] + w.c[1]) * a->kernel * a->kernel;
    w.out_w = (w.w * a->upsample + a->pad_left + a->pad_right - a->kernel) / a->stride + 1;
    w.rows_per_image = ((w.h * a->upsample + a->pad_top + a->pad_bottom - a->kernel) / a->stride + 1) * w.out_w;
    w.rows = w.rows_per_image * (x->batched ? n : x->shape[0]);
    w.cols = w.depth;
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

/* The input under a tap, channel ch of X | X2, of row m; 0 in the padding. */
static inline float ht_window_input(const ht_call *c, const ht_window *w, int64_t m, int64_t tap, int64_t ch)
{
    int64_t image = m / w->rows_per_image;
    int64_t pixel = ht_window_pixel(w, m % w->rows_per_image, (int)(tap / w->kernel), (int)(tap % w->kernel));
    if (pixel < 0)
        return 0;
    int part = ch >= w->c[0];
    const float *x = c->in[part ? HT_IN_X2 : HT_IN_X];
    return x[(image * w->h * w->w + pixel) * w->c[part] + ch - (part ? w->c[0] : 0)];
}

#endif
