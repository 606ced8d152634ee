/* reference.h - the scalar kernels, the order of every sum, and what the fast kernels share with them. */
#ifndef HT_CPU_REFERENCE_H
#define HT_CPU_REFERENCE_H

#include <math.h>

#include "cpu/cpu.h"

/* The scalar kernel of every operation. */
#define OP(name, ...) extern const ht_kernel ht_ref_##name;
#include "graph/ops.def"
#undef OP

/* A weight in float32, in the checkpoint's order. */
void ht_convert_weight(const ht_value *v, float *out);
/* n weights of a product from element `first` on, dequantized if its layer is quantized. */
void ht_product_weights(const ht_op *op, size_t first, size_t n, float *out);

/* conv2d and linear:  out[m][n] = (chain + bias[n]) + row[n] + residual[m][n], times scale, and 0 instead if it is
 * below and the activation is ReLU; chain = fmaf(a[m][k],
 * w[n][k], chain) from 0 over k in the order of cpu/window.h, padding taken in as zeros. */

/* conv2d and linear in integers, part by part of the layer and within a part block by block of its weights' scales:
 *
 *     sum = fmaf((float)(S - zero W), step (scale unit), sum) from 0;     S = sum of codes w, W = sum of w
 *
 * over the block's k, where w are the weights as whole multiples of their grid's unit, and codes in the padding are
 * `zero`.  S, W and their difference are exact.  Then bias, row, residual and scale as above.  k of a part is tap *
 * channels + channel; a layer of one part that reads X and X2 takes the channels of both within a tap. */
enum { HT_INTEGER_DEPTH = 1 << 16 }; /* inputs of a part for which 255 * 128 * depth stays below 2^31 */

/* What a float becomes as a code: clamp(round(x inv) + zero), 0 .. levels, to nearest even; NaN is 0. */
static inline uint8_t ht_code_of(float x, float inv, float zero, float levels)
{
    float y = rintf(x * inv) + zero;
    y = y > 0 ? y : 0;
    return (uint8_t)(y < levels ? y : levels);
}

/* A layer's weight k of part p and output n as a whole number, and its blocks. */
int ht_integer_weight(const ht_layer *layer, int p, int64_t n, int64_t k);
float ht_integer_scale(const ht_layer *layer, int p, int64_t n, int64_t block); /* scale * unit */
int64_t ht_integer_block(const ht_layer *layer, int p);                         /* k that share one */

/* ReLU lets NaN and -0 through. */
static inline float ht_relu_f32(float x)
{
    return x < 0 ? 0 : x;
}

/* Element i of the output, as a code if the operation makes codes. */
static inline void ht_store(const ht_call *c, int64_t i, float v)
{
    const float *scale = c->in[HT_IN_OUT_SCALE];
    if (scale)
        ((uint8_t *)c->out)[i] = ht_code_of(v, 1 / scale[0], scale[1], c->op->attrs.codes->grid.highest);
    else
        c->out[i] = v;
}

/* Step and zero point (two floats) that serve row m of a product or image: in[slot] is [1,2], [n,2] or
 * [n,tokens,2]. */
static inline const float *ht_scale_of(const ht_call *c, int slot, int64_t row, int64_t rows_per_image)
{
    const ht_value *v = c->op->in[slot];
    return c->in[slot] + 2 * (!v->batched ? 0 : v->ndim == 3 ? row : row / rows_per_image);
}

/* group_norm.  Positions are cut into chunks of HT_NORM_CHUNK; per chunk and channel a sum s and, around the chunk's
 * mean, a sum of squares q, both chains in float32; per group these join in double, chunk by chunk and within a chunk
 * channel by channel: mean = sum s / N;  var = sum (q + count (s / count - mean)^2) / N.       (Chan, Golub, LeVeque
 * 1983, eq. 2.1, for many parts at once) Then y = fmaf(x, a, b), a = weight / sqrt(var + eps), b = bias - mean a, made
 * in double and rounded once, and the activation. */
enum { HT_NORM_CHUNK = 64 };

typedef struct ht_norm_size {
    int64_t positions, chunks, channels, group; /* of one image; group: channels of a group */
    int64_t c[2];                               /* channels of X and X2 */
} ht_norm_size;

ht_norm_size ht_norm_size_of(const ht_op *op);
size_t ht_group_norm_bytes(const ht_op *op); /* weight[channels], bias[channels] */
void ht_group_norm_pack(const ht_op *op, void *packed);
size_t ht_group_norm_shared(const ht_op *op); /* for all images: s, q [chunks][channels], then a, b [channels] */
float *ht_norm_sums(const ht_norm_size *z, void *shared, int64_t image); /* s; q follows after chunks * channels */
float *ht_norm_scales(const ht_norm_size *z, const ht_call *c, void *shared,
                      int64_t image); /* a; b follows after channels */
/* a and b of one group from s and q. */
void ht_norm_join(const ht_norm_size *z, const ht_call *c, void *shared, int64_t image, int64_t group);

/* attention, a head of an image at a time: s[j] = chain over channels of q k[j], times scale, with what is added to the
 * score of key j as one fmaf, and then what is added by distance; p[j] = exp(s[j] - max s);
 * the sum of p in HT_SOFTMAX_LANES chains, lane j % LANES, joined in halves (lane l with l + 8, then 4, 2, 1); out =
 * chain over j of p[j] v[j], divided by the sum.  Causal: query t takes the largest, exp and the sum of keys 0 .. t,
 * and p[j] = 0 of those after it.  Of a quantized model p is then rounded, and the sum multiplied, as quant/softmax.h
 * says. */
enum { HT_SOFTMAX_LANES = 16 };

static inline float ht_join_lanes(float lanes[HT_SOFTMAX_LANES])
{
    for (int half = HT_SOFTMAX_LANES / 2; half; half /= 2)
        for (int l = 0; l < half; l++)
            lanes[l] += lanes[l + half];
    return lanes[0];
}

/* layer_norm: the sum s of a token's channels in HT_SOFTMAX_LANES chains as above, mean = s / n; the sum q of (x -
 * mean)^2 likewise, chains of fmaf, r = 1 / sqrt(q / n + eps); y = fmaf((x - mean) r, weight, bias).  All in float32.
 */

/* The sum of a row's (x - mean)^2, or of x if mean is NULL, in that order. */
float ht_row_sum(const float *x, int64_t n, const float *mean);

/* modulate: mean and r as those; y = fmaf((x - mean) r, 1 + scale, shift).  rms_norm: q as there around 0, y = x r
 * weight.  gate: fmaf(x, row, residual). */

/* What is added to scores by distance, in float32. */
size_t ht_attention_bytes(const ht_op *op);
void ht_attention_pack(const ht_op *op, void *packed);

size_t ht_rms_norm_bytes(const ht_op *op); /* weight[channels] */
void ht_rms_norm_pack(const ht_op *op, void *packed);

/* p[j] = exp(p[j] - max p); their sum in that order. */
float ht_softmax_sum(float *p, int64_t n);

#endif
