/* doubles.h - operations of a graph in double precision, one by one as they are defined: what gradients are checked
 * against by differences. */
#ifndef HT_TESTS_DOUBLES_H
#define HT_TESTS_DOUBLES_H

#include <math.h>

#include "tests/graphs.h"

typedef struct doubles {
    double *of[256]; /* by value id */
} doubles;

static inline double at4(const double *x, const int64_t *s, int64_t n, int64_t y, int64_t xx, int64_t c)
{
    return y < 0 || xx < 0 || y >= s[1] || xx >= s[2] ? 0 : x[((n * s[1] + y) * s[2] + xx) * s[3] + c];
}

static inline void conv_in_double(const ht_op *op, const double *x, const double *w, const double *b, double *y)
{
    const int64_t *s = op->out->shape, *xs = op->in[HT_IN_X]->shape, k = op->attrs.kernel;
    for (int64_t i = 0; i < ht_value_count(op->out); i++) {
        int64_t o = i % s[3], xx = i / s[3] % s[2], yy = i / s[3] / s[2] % s[1], n = i / s[3] / s[2] / s[1];
        y[i] = b ? b[o] : 0;
        for (int64_t t = 0; t < k * k; t++)
            for (int64_t c = 0; c < xs[3]; c++)
                y[i] +=
                    w[(o * k * k + t) * xs[3] + c] * at4(x, xs, n, yy * op->attrs.stride - op->attrs.pad_top + t / k,
                                                         xx * op->attrs.stride - op->attrs.pad_left + t % k, c);
    }
}

static inline void norm_in_double(const ht_op *op, const double *x, double *y)
{
    const float *w = op->in[HT_IN_WEIGHT]->data->data, *b = op->in[HT_IN_BIAS]->data->data;
    int64_t c = ht_channels(op->out), images = op->out->shape[0], p = ht_value_count(op->out) / c / images;
    int64_t group = c / op->attrs.groups;
    for (int64_t n = 0; n < images; n++)
        for (int64_t g = 0; g < op->attrs.groups; g++) {
            double mean = 0, var = 0, count = (double)(p * group);
            for (int64_t i = 0; i < p * group; i++)
                mean += x[(n * p + i / group) * c + g * group + i % group] / count;
            for (int64_t i = 0; i < p * group; i++)
                var += pow(x[(n * p + i / group) * c + g * group + i % group] - mean, 2) / count;
            for (int64_t i = 0; i < p * group; i++) {
                int64_t ch = g * group + i % group, e = (n * p + i / group) * c + ch;
                y[e] = (x[e] - mean) / sqrt(var + (double)op->attrs.eps) * (double)w[ch] + (double)b[ch];
            }
        }
}

static inline void layer_norm_in_double(const ht_op *op, const double *x, double *y)
{
    const float *w = op->in[HT_IN_WEIGHT]->data->data, *b = op->in[HT_IN_BIAS]->data->data;
    int64_t c = ht_channels(op->out);
    for (int64_t r = 0; r < ht_value_count(op->out) / c; r++, x += c, y += c) {
        double mean = 0, var = 0;
        for (int64_t i = 0; i < c; i++)
            mean += x[i] / (double)c;
        for (int64_t i = 0; i < c; i++)
            var += pow(x[i] - mean, 2) / (double)c;
        for (int64_t i = 0; i < c; i++)
            y[i] = (x[i] - mean) / sqrt(var + (double)op->attrs.eps) * (double)w[i] + (double)b[i];
    }
}

static inline void heads_in_double(const ht_op *op, const double *a, const double *b, double *y)
{
    int64_t heads = op->attrs.heads, wa = ht_channels(op->in[HT_IN_X]), wb = ht_channels(op->in[HT_IN_X2]);
    int64_t rows = op->out->shape[1], wo = ht_channels(op->out), ra = op->in[HT_IN_X]->shape[1],
            rb = op->in[HT_IN_X2]->shape[1];
    for (int64_t i = 0; i < ht_value_count(op->out); i++) {
        int64_t n = i / wo / rows, r = i / wo % rows, h = i % wo / (wo / heads), c = i % wo % (wo / heads);
        const double *pa = a + n * ra * wa + h * (wa / heads), *pb = b + n * rb * wb + h * (wb / heads);
        y[i] = 0;
        if (op->kind == HT_OP_scores)
            for (int64_t k = 0; k < wa / heads; k++)
                y[i] += pa[r * wa + k] * pb[c * wb + k] * (double)op->attrs.scale;
        else
            for (int64_t k = 0; k < rb; k++)
                y[i] += (op->kind == HT_OP_mix ? pa[r * wa + k] : pa[k * wa + r]) * pb[k * wb + c] *
                        (double)op->attrs.scale;
    }
}

static inline void softmax_in_double(const ht_op *op, const double *x, double *y)
{
    int64_t width = ht_channels(op->out) / op->attrs.heads;
    for (int64_t r = 0; r < ht_value_count(op->out) / width; r++) {
        double sum = 0;
        for (int64_t j = 0; j < width; j++)
            sum += y[r * width + j] = exp(x[r * width + j]);
        for (int64_t j = 0; j < width; j++)
            y[r * width + j] /= sum;
    }
}

/* Operations of which every output element is made of a few input elements. */
static inline double element(const ht_op *op, const double *x, const double *x2, const double *row, const double *shift,
                             int64_t i)
{
    const int64_t *s = op->out->shape, *xs = op->in[HT_IN_X]->shape;
    int64_t c = ht_channels(op->out), cx = ht_channels(op->in[HT_IN_X]), r = i / c, k = i % c;
    int64_t n = r / (ht_value_count(op->out) / s[0] / c), y = op->out->ndim == 4 ? r / s[2] % s[1] : 0, xx = r % s[2];
    switch (op->kind) {
    case HT_OP_silu:
        return x[i] / (1 + exp(-x[i]));
    case HT_OP_geglu:
        return x[r * cx + k] * x[r * cx + c + k] * erfc(-x[r * cx + c + k] * sqrt(0.5)) / 2;
    case HT_OP_affine:
        return x[i] * (double)op->attrs.scale + (double)op->attrs.shift;
    case HT_OP_add:
        return x[i] + x2[i];
    case HT_OP_add_row:
        return x[i] + row[(op->in[HT_IN_ROW]->batched ? n * c : 0) + k];
    case HT_OP_scale_shift:
        return x[i] * (1 + row[n * c + k]) + shift[n * c + k];
    case HT_OP_slice:
        return x[r * cx + op->attrs.begin + k];
    case HT_OP_concat:
        return k < cx ? x[r * cx + k] : x2[r * (c - cx) + k - cx];
    case HT_OP_upsample:
        return at4(x, xs, n, y / 2, xx / 2, k);
    case HT_OP_avg_pool:
        return (at4(x, xs, n, 2 * y, 2 * xx, k) + at4(x, xs, n, 2 * y + 1, 2 * xx, k) +
                at4(x, xs, n, 2 * y, 2 * xx + 1, k) + at4(x, xs, n, 2 * y + 1, 2 * xx + 1, k)) /
               4;
    case HT_OP_reshape:
        return x[i];
    default:
        fail_msg("the test has no %s in double", ht_op_kind_name(op->kind));
        return 0;
    }
}

static inline void compute(const ht_op *op, doubles *d)
{
    const double *in[HT_INPUTS] = {NULL};
    double *y = d->of[op->out->id];
    for (int i = 0; i < HT_INPUTS; i++)
        in[i] = op->in[i] ? d->of[op->in[i]->id] : NULL;
    if (op->kind == HT_OP_conv2d_by)
        conv_in_double(op, in[HT_IN_X], in[HT_IN_WEIGHT], in[HT_IN_BIAS], y);
    else if (op->kind == HT_OP_group_norm)
        norm_in_double(op, in[HT_IN_X], y);
    else if (op->kind == HT_OP_layer_norm)
        layer_norm_in_double(op, in[HT_IN_X], y);
    else if (op->kind == HT_OP_scores || op->kind == HT_OP_mix || op->kind == HT_OP_mix_t)
        heads_in_double(op, in[HT_IN_X], in[HT_IN_X2], y);
    else if (op->kind == HT_OP_softmax)
        softmax_in_double(op, in[HT_IN_X], y);
    else
        for (int64_t i = 0; i < ht_value_count(op->out); i++)
            y[i] = element(op, in[HT_IN_X], in[HT_IN_X2], in[HT_IN_ROW], in[HT_IN_RESIDUAL], i);
}

#endif
