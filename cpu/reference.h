/* reference.h - the scalar kernels, the order of every sum, and what the fast kernels share with them. */
#ifndef HT_CPU_REFERENCE_H
#define HT_CPU_REFERENCE_H

#include "cpu/cpu.h"

/* The scalar kernel of every operation. */
#define OP(name, ...) extern const ht_kernel ht_ref_##name;
#include "graph/ops.def"
#undef OP

/* A weight in float32, in the checkpoint's order. */
void ht_convert_weight(const ht_value *v, float *out);

/* conv2d and linear:  out[m][n] = (chain + bias[n]) + row[n] + residual[m][n], times scale; chain = fmaf(a[m][k],
 * w[n][k], chain) from 0 over k in the order of cpu/window.h, padding taken in as zeros. */

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

/* attention, a head of an image at a time: s[j] = chain over channels of q k[j], times scale; p[j] = exp(s[j] - max s);
 * the sum of p in HT_SOFTMAX_LANES chains, lane j % LANES, joined in halves (lane l with l + 8, then 4, 2, 1); out =
 * chain over j of p[j] v[j], divided by the sum. */
enum { HT_SOFTMAX_LANES = 16 };

#endif
