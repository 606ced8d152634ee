/* grid.h - the values that one code of a number format can take, before the scale: integers, small floats.
 * A weight or activation w with scale s is on the grid at y = w / s.  Everything is float32 arithmetic with stated
 * rounding, so codes are the same on every machine. */
#ifndef HT_QUANT_GRID_H
#define HT_QUANT_GRID_H

#include <stddef.h>
#include <stdint.h>

/* A code is the bit pattern in the low `bits` bits of a byte: two's complement for integers, the offset from `lowest`
 * for integers with a zero point, sign-exponent-mantissa for floats (bias 2^(exponent_bits - 1) - 1, subnormals, no
 * infinities). */
typedef struct ht_grid {
    int bits;              /* 2 .. 8 */
    int exponent_bits;     /* 0: integers */
    int mantissa_bits;     /* of a float; an integer has `bits`, so that its step is the same everywhere */
    float unit;            /* the step around zero, a power of two */
    float lowest, highest; /* what encoding saturates at; lowest <= 0 <= highest */
    int zero;              /* the code of 0; not 0 only for integers with a zero point */
} ht_grid;

/* The value nearest to y; ties go to the even multiple of the local step, which is IEEE 754's roundTiesToEven (with no
 * mantissa bits, where both neighbours are powers of two, the larger).  Saturates.  The sign of y stays, on float grids
 * that of zero too.  y is a number. */
float ht_grid_round(const ht_grid *grid, float y);

/* The code of that value.  Never -0 on integer grids, never a code above `highest` or below `lowest`, never NaN's. */
uint8_t ht_grid_encode(const ht_grid *grid, float y);

/* The value of a code; bits above `bits` are ignored.  NaN for codes that are NaN or infinite (E4M3, E5M2); a code that
 * the encoder does not use (-8 in NVINT4, -128 in MXINT8) has its value. */
float ht_grid_decode(const ht_grid *grid, uint8_t code);

/* The two codes to choose between when y is rounded: low <= y < high with nothing in between; high - low is the local
 * step. At or above the highest value, and below the lowest, there is no choice: both are that end, step 0. */
typedef struct ht_neighbours {
    uint8_t below, above;
    float low, high;
} ht_neighbours;

ht_neighbours ht_grid_neighbours(const ht_grid *grid, float y);

/* An integer grid with its zero moved to the code `zero`: values -zero .. 2^bits - 1 - zero. */
ht_grid ht_grid_with_zero(const ht_grid *grid, int zero);

/* out[i] = round(x[i] / scale) * scale, what is left of x after quantizing.  scale is not 0 (below 0 the grid is
 * mirrored). out may be x. */
void ht_grid_simulate(const ht_grid *grid, float scale, size_t n, const float *x, float *out);

/* codes[i] = encode(x[i] / scale), a byte each. */
void ht_grid_encode_array(const ht_grid *grid, float scale, size_t n, const float *x, uint8_t *codes);

#endif
