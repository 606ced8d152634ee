/* format.h - number formats for weights and activations: a grid of values, a scale for every block of them, and how
 * both are stored.
 *
 * A weight is [out][in], row-major; a convolution's in is its kernel's k, in the order kernels walk it.  Quantizing is
 * two steps, so that rounding methods can take the second one over:
 *
 *     ht_format f;  ht_quantized q;  ht_scale_options o = {.method = HT_SCALE_MSE};
 *     ht_format_find("int4_g64", &f);
 *     ht_quantized_alloc(arena, &f, &matrix, &q);
 *     ht_format_scales(&f, &matrix, &o, &q);           scales (and zero points)
 *     ht_format_encode(&f, &matrix, &q);               nearest codes; or AdaRound's, GPTQ's, ...
 *     ht_format_dequantize(&f, &q, &matrix, values);
 *
 * A rounding method asks ht_format_block for the grid and scale of a block, ht_grid_neighbours for the two codes that a
 * weight lies between, and ends with ht_codes_pack. */
#ifndef HT_QUANT_FORMAT_H
#define HT_QUANT_FORMAT_H

#include <stdbool.h>

#include "core/arena.h"
#include "core/dtype.h"
#include "core/error.h"
#include "quant/grid.h"

typedef struct ht_format {
    char name[24];
    ht_grid grid;    /* of formats with a zero point: that at zero point 0 */
    int block;       /* values that share a scale, along in; 0: the whole output channel */
    ht_dtype scale;  /* HT_F32; HT_F8_E8M0 (OCP MX); HT_F8_E4M3, times one float32 of the whole tensor (NVFP4) */
    bool asymmetric; /* every block has a zero point */
    bool simulated;  /* for research: quantize and dequantize only, no kernel computes in it and no file holds it */
} ht_format;

/* Row i of the table of formats; NULL after the last. */
const ht_format *ht_format_at(int i);

/* A format of the table, or one to simulate: int2 .. int8, uint2 .. uint8 (with a zero point), fp<bits>_e<E>m<M> (bits
 * = 1 + E + M <= 8, E >= 1), each also with _g<block>.  Any other name: HT_ERR_ARGUMENT, listing those of the table. */
ht_status ht_format_find(const char *name, ht_format *format);

/* ---- weights ---- */

typedef struct ht_matrix {
    const char *name; /* of the layer, for messages */
    const float *values;
    size_t out, in;
} ht_matrix;

/* Row r of the codes begins at codes + r * row_bytes.  4-bit codes lie two a byte, low nibble first, an odd row's last
 * high nibble 0; all others are a byte each.  The scale and zero point of block b of row r are number r * blocks + b.
 */
typedef struct ht_quantized {
    uint8_t *codes;
    void *scales;       /* of the format's scale dtype */
    uint8_t *zeros;     /* NULL unless the format is asymmetric */
    float tensor_scale; /* 1 unless the scale dtype is HT_F8_E4M3 */
} ht_quantized;

typedef struct ht_format_sizes {
    size_t blocks;    /* a row */
    size_t row_bytes; /* of codes, a row */
    size_t code_bytes, scale_count, scale_bytes;
} ht_format_sizes;

/* HT_ERR_SHAPE, naming layer, inputs and block, if rows do not divide into whole blocks; HT_ERR_ARGUMENT if there is
 * nothing or a size overflows.  matrix->values is not looked at. */
ht_status ht_format_measure(const ht_format *format, const ht_matrix *matrix, ht_format_sizes *sizes);

/* Zeroed buffers in the arena. */
ht_status ht_quantized_alloc(ht_arena *arena, const ht_format *format, const ht_matrix *matrix, ht_quantized *q);

typedef enum ht_scale_method {
    HT_SCALE_STANDARD,   /* as OCP MX 1.0 section 6.3 computes it (which clips), or NVFP4; else min-max */
    HT_SCALE_MINMAX,     /* the smallest scale that clips nothing */
    HT_SCALE_PERCENTILE, /* min-max after both ends are cut at a percentile of |w| in the block */
    HT_SCALE_MSE,        /* the candidate with the least sum of importance * |w - q(w)|^2 */
    HT_SCALE_L2_4,       /* of importance * |w - q(w)|^2.4, as Q-Diffusion (arXiv:2302.04304) searches */
    HT_SCALE_METHODS
} ht_scale_method;

const char *ht_scale_method_name(ht_scale_method method); /* "standard", "minmax", "percentile", "mse", "l2.4" */
int ht_scale_method_find(const char *name);               /* the ht_scale_method, or -1 */

/* Scales that are alike but for powers of two, so that a kernel can widen FP4 to FP8 by adding to exponents: a float32
 * for the tensor, then shifts (ZeroQuant-FP, arXiv:2307.09782, section 4). */
typedef enum ht_scale_powers {
    HT_POWERS_FREE,
    HT_POWERS_EACH,   /* every scale is a power of two (its M1) */
    HT_POWERS_TENSOR, /* every scale is a power of two times that of the tensor (its M2) */
    HT_SCALE_POWERS
} ht_scale_powers;

const char *ht_scale_powers_name(ht_scale_powers powers); /* "free", "each", "tensor" */
int ht_scale_powers_find(const char *name);               /* the ht_scale_powers, or -1 */

typedef struct ht_scale_options {
    ht_scale_method method;
    double percentile;       /* in (0, 100]; 0 means 99.9.  Between two values: linear interpolation, as numpy */
    const float *importance; /* [in], at least 0: of every input, e.g. E[x^2]; NULL: all 1 */
    ht_scale_powers powers;  /* of float32 scales; others are as their formats have them */
} ht_scale_options;

/* Scales of all blocks, zero points, tensor_scale.  HT_ERR_ARGUMENT, naming layer and index, for a weight that is NaN,
 * infinite or not below 2^126; that of ht_format_measure.  options NULL: all zero.  q->codes is not touched.
 *
 * Candidates of the two searches; the first of equals wins, min-max before all:
 *
 *     float32   p % of min-max, p = 100 .. 21; on grids with exponents p = 150 .. 21, since the largest weight may do
 *               better one binade lower (arXiv:2512.02010).  Two's complement, which has one value more below than
 *               above, is tried mirrored too: such a scale is negative.  With a zero point both ends shrink together,
 *               as in Q-Diffusion.
 *     E8M0      the standard's, twice and half of it.
 *     E4M3      all codes from 50 % to 150 % of largest / highest, both rounded.
 *
 * With powers, each scale then becomes one of the allowed ones near it, by |w - q(w)|^2 unless the method is l2.4; the
 * tensor's is searched too.  All are so close to the largest that the values fit E4M3 together: format.h's grids have
 * room for 11 octaves (E3M0) to 15 (E1M2). */
ht_status ht_format_scales(const ht_format *format, const ht_matrix *matrix, const ht_scale_options *options,
                           ht_quantized *q);

/* Codes nearest to the weights on the scales that q has. */
ht_status ht_format_encode(const ht_format *format, const ht_matrix *matrix, ht_quantized *q);

/* Both. */
ht_status ht_format_quantize(const ht_format *format, const ht_matrix *matrix, const ht_scale_options *options,
                             ht_quantized *q);

/* values[out][in] = value(code) * scale, where with a tensor scale the two scales are multiplied first. */
ht_status ht_format_dequantize(const ht_format *format, const ht_quantized *q, const ht_matrix *shape, float *values);

/* What a file must satisfy: every scale is finite, every code a number.  HT_ERR_FORMAT, naming layer and index. */
ht_status ht_format_check(const ht_format *format, const ht_quantized *q, const ht_matrix *shape);

/* ---- parts ---- */

/* The values w of a block with code c: w = ht_grid_decode(&grid, c) * scale. */
typedef struct ht_block {
    ht_grid grid; /* with the block's zero point */
    float scale;  /* float32, with the tensor's multiplied in; negative: the grid is mirrored */
} ht_block;

/* Number i of [out][blocks]. */
ht_block ht_format_block(const ht_format *format, const ht_quantized *q, size_t i);

/* Min-max of values between low and high: the smallest float32 scale, at least FLT_MIN, and the zero point.  What
 * activations take. */
ht_block ht_format_block_of_range(const ht_format *format, float low, float high);

/* n codes, a byte each, to and from the row that stores them. */
void ht_codes_pack(const ht_format *format, size_t n, const uint8_t *codes, uint8_t *row);
void ht_codes_unpack(const ht_format *format, size_t n, const uint8_t *row, uint8_t *codes);

#endif
