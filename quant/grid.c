/* grid.c - rounding to the values of a number format, and their codes.
 *
 * One rounding serves all grids.  In the binade of y, values are 2^-mantissa_bits of it apart, but never closer than
 * `unit`: that is where subnormals are, and an integer grid is all subnormal.  Adding 2^23 steps to |y| and taking them
 * away leaves |y| rounded to a multiple of the step, by the addition's own round to nearest even (Dekker 1971); both
 * are exact otherwise, as |y| < 2^22 steps.  Saturating first changes nothing, since both ends are on the grid.  No
 * branches, so the loops vectorize.
 *
 * Sources: IEEE 754-2019 sections 3.4 and 4.3.1; OCP 8-bit Floating Point Specification 1.0; OCP Microscaling
 * Formats 1.0, section 5.3 (E2M1, E3M2, E2M3, INT8 with its implied 2^-6). */
#include "quant/grid.h"

#include <math.h>

#include "core/bits.h"

/* 2^k, k a normal float's exponent */
static inline float power_of_2(int k)
{
    return ht_float_of((uint32_t)(k + 127) << 23);
}

/* ---- values ---- */

static inline float round_to_grid(const ht_grid *g, float y)
{
    uint32_t sign = ht_bits_of(y) & 0x80000000;
    float magnitude = ht_float_of(ht_bits_of(y) ^ sign);
    float limit = sign ? -g->lowest : g->highest;
    magnitude = magnitude < limit ? magnitude : limit;
    float step = ht_float_of(ht_bits_of(magnitude) & 0x7f800000) * power_of_2(-g->mantissa_bits);
    step = step > g->unit ? step : g->unit;
    float magic = step * 0x1p23f;
    magnitude = (magnitude + magic) - magic;
    return ht_float_of(ht_bits_of(magnitude) | sign);
}

float ht_grid_round(const ht_grid *grid, float y)
{
    return round_to_grid(grid, y);
}

void ht_grid_simulate(const ht_grid *grid, float scale, size_t n, const float *x, float *out)
{
    const ht_grid g = *grid; /* a copy: out may alias what it points to, for all the compiler knows */
    for (size_t i = 0; i < n; i++)
        out[i] = round_to_grid(&g, x[i] / scale) * scale;
}

ht_grid ht_grid_with_zero(const ht_grid *grid, int zero)
{
    ht_grid g = *grid;
    g.zero = zero;
    g.lowest = -(float)zero * g.unit;
    g.highest = (float)((1 << g.bits) - 1 - zero) * g.unit;
    return g;
}

/* ---- codes of values ---- */

static inline unsigned code_mask(const ht_grid *g)
{
    return (1u << g->bits) - 1;
}

/* Of |value|, which is on a float grid: exponent and mantissa, without the sign. */
static inline unsigned magnitude_code(const ht_grid *g, float value)
{
    uint32_t x = ht_bits_of(value) & 0x7fffffff;
    uint32_t first_normal = ht_bits_of(g->unit) + ((uint32_t)g->mantissa_bits << 23);
    if (x < first_normal)
        return (unsigned)(ht_float_of(x) / g->unit);
    return ((x - first_normal) >> (23 - g->mantissa_bits)) + (1u << g->mantissa_bits);
}

static inline uint8_t code_of(const ht_grid *g, float value)
{
    if (g->exponent_bits == 0)
        return (uint8_t)((unsigned)((int)(value / g->unit) + g->zero) & code_mask(g));
    return (uint8_t)(magnitude_code(g, value) | (ht_bits_of(value) >> 31) << (g->bits - 1));
}

uint8_t ht_grid_encode(const ht_grid *grid, float y)
{
    return code_of(grid, round_to_grid(grid, y));
}

void ht_grid_encode_array(const ht_grid *grid, float scale, size_t n, const float *x, uint8_t *codes)
{
    const ht_grid g = *grid;
    for (size_t i = 0; i < n; i++)
        codes[i] = code_of(&g, round_to_grid(&g, x[i] / scale));
}

static float decode_integer(const ht_grid *g, unsigned code)
{
    int value = (int)code - g->zero;
    if ((float)value * g->unit > g->highest) /* two's complement; with a zero point no value is above */
        value -= 1 << g->bits;
    return (float)value * g->unit;
}

float ht_grid_decode(const ht_grid *grid, uint8_t code)
{
    unsigned c = code & code_mask(grid);
    if (grid->exponent_bits == 0)
        return decode_integer(grid, c);
    unsigned rest = c & (code_mask(grid) >> 1), hidden = 1u << grid->mantissa_bits;
    unsigned exponent = rest >> grid->mantissa_bits, mantissa = rest & (hidden - 1);
    float magnitude = exponent ? ldexpf((float)(mantissa + hidden), (int)exponent - 1) : (float)mantissa;
    magnitude *= grid->unit;
    if (magnitude > grid->highest)
        magnitude = NAN;
    return c == rest ? magnitude : -magnitude;
}

/* ---- neighbours ---- */

/* Codes in the order of their values are steps apart: the place of a value on the grid, 0 for 0. */
static int place_of(const ht_grid *g, float value)
{
    if (g->exponent_bits == 0)
        return (int)(value / g->unit);
    int magnitude = (int)magnitude_code(g, value);
    return value < 0 ? -magnitude : magnitude;
}

static uint8_t code_at(const ht_grid *g, int place)
{
    if (g->exponent_bits == 0)
        return (uint8_t)((unsigned)(place + g->zero) & code_mask(g));
    return (uint8_t)(place < 0 ? (unsigned)-place | 1u << (g->bits - 1) : (unsigned)place);
}

ht_neighbours ht_grid_neighbours(const ht_grid *grid, float y)
{
    float nearest = round_to_grid(grid, y);
    int place = place_of(grid, nearest);
    int below = y < grid->lowest || y >= nearest ? place : place - 1;
    int above = y < grid->lowest || y >= grid->highest ? below : below + 1;
    ht_neighbours n = {code_at(grid, below), code_at(grid, above), 0, 0};
    n.low = ht_grid_decode(grid, n.below);
    n.high = ht_grid_decode(grid, n.above);
    return n;
}
