/* mt19937.c - torch's CPU generator and the distributions it draws.
 *
 * The generator is Matsumoto and Nishimura's (ACM TOMACS 8, 1998) with their initialization of 2002.  How PyTorch turns
 * its words into numbers was learned from draws of torch 2.15 (tests/goldens/rng/torch-cpu), and is stated at each
 * function. Normals are Box-Muller pairs; the logarithm and the angle functions are core/elementary.h's, rounded to the
 * dtype where PyTorch's arithmetic is in the dtype. */
#include <math.h>

#include "core/elementary.h"
#include "core/rng.h"

enum { N = 624, M = 397, BLOCK = 16 };

static const double TWO_PI = 0x1.921fb54442d18p2;

void ht_mt19937_seed(ht_mt19937 *g, uint64_t seed)
{
    *g = (ht_mt19937){.next = N};
    g->state[0] = (uint32_t)seed;
    for (uint32_t i = 1; i < N; i++)
        g->state[i] = 1812433253u * (g->state[i - 1] ^ g->state[i - 1] >> 30) + i;
}

static void advance(uint32_t s[N])
{
    for (int i = 0; i < N; i++) {
        uint32_t y = (s[i] & 0x80000000u) | (s[(i + 1) % N] & 0x7fffffffu);
        s[i] = s[(i + M) % N] ^ y >> 1 ^ (y & 1 ? 0x9908b0dfu : 0);
    }
}

uint32_t ht_mt19937_u32(ht_mt19937 *g)
{
    if (g->next == N) {
        advance(g->state);
        g->next = 0;
    }
    uint32_t y = g->state[g->next++];
    y ^= y >> 11;
    y ^= y << 7 & 0x9d2c5680u;
    y ^= y << 15 & 0xefc60000u;
    return y ^ y >> 18;
}

uint64_t ht_mt19937_u64(ht_mt19937 *g)
{
    uint64_t high = ht_mt19937_u32(g);
    return high << 32 | ht_mt19937_u32(g);
}

/* As many low bits as the significand holds: the value is exact and 1 is never drawn. */
void ht_mt19937_rand(ht_mt19937 *g, size_t n, float *out)
{
    for (size_t i = 0; i < n; i++)
        out[i] = (float)(ht_mt19937_u32(g) & 0xffffff) * 0x1p-24f;
}

void ht_mt19937_rand_f64(ht_mt19937 *g, size_t n, double *out)
{
    for (size_t i = 0; i < n; i++)
        out[i] = (double)(ht_mt19937_u64(g) & 0x1fffffffffffff) * 0x1p-53;
}

/* The remainder favours small values a little, as PyTorch's does. */
int64_t ht_mt19937_randint(ht_mt19937 *g, int64_t lo, int64_t hi)
{
    uint64_t range = (uint64_t)hi - (uint64_t)lo;
    uint64_t r = range >> 32 ? ht_mt19937_u64(g) : ht_mt19937_u32(g);
    return (int64_t)((uint64_t)lo + r % range);
}

void ht_mt19937_randperm(ht_mt19937 *g, size_t n, int64_t *out)
{
    for (size_t i = 0; i < n; i++)
        out[i] = (int64_t)i;
    for (size_t i = 0; i + 1 < n; i++) {
        size_t j = i + ht_mt19937_u32(g) % (n - i);
        int64_t swapped = out[i];
        out[i] = out[j];
        out[j] = swapped;
    }
}

/* Draws of fewer than 16, whatever their dtype: pairs in double from two double uniforms.  The second of a pair waits
 * in the generator for the next small draw; large draws in between leave it there. */
static double small_normal(ht_mt19937 *g)
{
    double u[2], sine, cosine;
    if (g->has_spare) {
        g->has_spare = 0;
        return g->spare;
    }
    ht_mt19937_rand_f64(g, 2, u);
    double r = sqrt(-2 * ht_log(1 - u[1]));
    ht_sincos_turns(u[0], &sine, &cosine);
    g->spare = r * sine;
    g->has_spare = 1;
    return r * cosine;
}

/* Sixteen uniforms become sixteen normals in place: value j and j + 8 are a pair. */
static void normalize(float x[BLOCK])
{
    for (int j = 0; j < BLOCK / 2; j++) {
        double sine, cosine;
        float r = sqrtf(-2 * (float)ht_log((double)(1 - x[j])));
        float theta = (float)TWO_PI * x[j + 8];
        ht_sincos_turns((double)theta / TWO_PI, &sine, &cosine);
        x[j] = r * (float)cosine;
        x[j + 8] = r * (float)sine;
    }
}

static void normalize_f64(double x[BLOCK])
{
    for (int j = 0; j < BLOCK / 2; j++) {
        double sine, cosine, r = sqrt(-2 * ht_log(1 - x[j]));
        ht_sincos_turns(x[j + 8], &sine, &cosine);
        x[j] = r * cosine;
        x[j + 8] = r * sine;
    }
}

/* n >= 16 normals from `uniforms` uniforms (n, or n rounded down to whole blocks): block by block, and if n is no
 * multiple of 16 the last sixteen values are drawn anew, over the end of the last block. */
static void large_normal(ht_mt19937 *g, size_t n, size_t uniforms, float *out)
{
    ht_mt19937_rand(g, uniforms, out);
    for (size_t i = 0; i + BLOCK <= n; i += BLOCK)
        normalize(out + i);
    if (n % BLOCK) {
        ht_mt19937_rand(g, BLOCK, out + n - BLOCK);
        normalize(out + n - BLOCK);
    }
}

void ht_mt19937_randn(ht_mt19937 *g, size_t n, float *out)
{
    if (n >= BLOCK)
        large_normal(g, n, n, out);
    else
        for (size_t i = 0; i < n; i++)
            out[i] = (float)small_normal(g);
}

/* The 16-bit types draw block by block, so nothing for a partial block: from there on the stream differs from
 * float32's. */
void ht_mt19937_randn_half(ht_mt19937 *g, size_t n, float *out)
{
    if (n >= BLOCK)
        large_normal(g, n, n / BLOCK * BLOCK, out);
    else
        ht_mt19937_randn(g, n, out);
}

void ht_mt19937_randn_f64(ht_mt19937 *g, size_t n, double *out)
{
    if (n < BLOCK) {
        for (size_t i = 0; i < n; i++)
            out[i] = small_normal(g);
        return;
    }
    ht_mt19937_rand_f64(g, n, out);
    for (size_t i = 0; i + BLOCK <= n; i += BLOCK)
        normalize_f64(out + i);
    if (n % BLOCK) {
        ht_mt19937_rand_f64(g, BLOCK, out + n - BLOCK);
        normalize_f64(out + n - BLOCK);
    }
}
