/* draw.c - NumPy's permutation: Fisher-Yates from the end, whose draws below a bound are 32-bit numbers under the mask
 * of the bound's bits, drawn anew while they are above it. */
#include "eval/draw.h"

static uint32_t draw_to(ht_mt19937 *rng, uint32_t most)
{
    uint32_t mask = most, value;
    if (!most)
        return 0;
    for (int shift = 1; shift < 32; shift *= 2)
        mask |= mask >> shift;
    do
        value = ht_mt19937_u32(rng) & mask;
    while (value > most);
    return value;
}

void ht_draw_permutation(ht_mt19937 *rng, int64_t n, int64_t *out)
{
    for (int64_t i = 0; i < n; i++)
        out[i] = i;
    for (int64_t i = n - 1; i > 0; i--) {
        int64_t j = draw_to(rng, (uint32_t)i), kept = out[i];
        out[i] = out[j];
        out[j] = kept;
    }
}
