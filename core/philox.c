/* philox.c - Philox4x32-10, torch's CUDA generator on it, and Halftone's own streams.
 *
 * Philox (Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011) is a function of a
 * counter and a key, so any value of any stream can be had without the ones before it.
 *
 * PyTorch on CUDA uses it through curand.  A draw is a launch of blocks of 256 threads, no more threads than values and
 * no more than the GPU holds at once.  Thread t makes 16 bytes (4 floats or 2 doubles) from each Philox block of
 * subsequence t and puts them a whole launch apart; it repeats that until the draw is filled.  The key is the seed; the
 * counter is the generator's offset / 4 in its low half, t in the high one; the offset moves on by 4 a repeat.  Checked
 * with torch 2.11 on an H100 (tests/goldens/rng).
 *
 * Halftone's own: key = seed, counter = (k / 4, draw, index).  A block's words make two Box-Muller pairs, computed in
 * double with core/elementary.h and rounded once, so that the bits are the same everywhere. */
#include <math.h>
#include <string.h>

#include "core/elementary.h"
#include "core/rng.h"

enum { CUDA_BLOCK = 256, CUDA_MAX_BLOCKS = 132 * 2048 / CUDA_BLOCK };

void ht_philox4x32(const uint32_t counter[4], const uint32_t key[2], uint32_t out[4])
{
    uint32_t c0 = counter[0], c1 = counter[1], c2 = counter[2], c3 = counter[3], k0 = key[0], k1 = key[1];
    for (int round = 0; round < 10; round++) {
        uint64_t a = (uint64_t)0xd2511f53u * c0, b = (uint64_t)0xcd9e8d57u * c2;
        c0 = (uint32_t)(b >> 32) ^ c1 ^ k0;
        c1 = (uint32_t)b;
        c2 = (uint32_t)(a >> 32) ^ c3 ^ k1;
        c3 = (uint32_t)a;
        k0 += 0x9e3779b9u;
        k1 += 0xbb67ae85u;
    }
    out[0] = c0, out[1] = c1, out[2] = c2, out[3] = c3;
}

/* counter and key as two 64-bit numbers and one, low words first */
static void philox(uint64_t counter_low, uint64_t counter_high, uint64_t key, uint32_t out[4])
{
    uint32_t c[4] = {(uint32_t)counter_low, (uint32_t)(counter_low >> 32), (uint32_t)counter_high,
                     (uint32_t)(counter_high >> 32)};
    ht_philox4x32(c, (uint32_t[2]){(uint32_t)key, (uint32_t)(key >> 32)}, out);
}

/* ---- torch's CUDA generator ---- */

/* What one thread makes of one Philox block: sixteen bytes of values. */
typedef union values {
    unsigned char bytes[16];
    float f32[4];
    double f64[2];
} values;

typedef void distribution(const uint32_t x[4], values *v);

/* curand: uniform in (0,1], then torch maps 1 to 0. */
static void uniform_f32(const uint32_t x[4], values *v)
{
    for (int i = 0; i < 4; i++) {
        float u = (float)x[i] * 0x1p-32f + 0x1p-33f;
        v->f32[i] = u == 1 ? 0 : u;
    }
}

/* curand's Box-Muller gives the sine first, and takes both from the GPU's special function unit (__sincosf), which
 * wants turns rounded to float and is then up to 2^-20.9 off (seen; documented: 2^-21.2 on [-pi,pi] and more outside).
 * Every rounding before it is done here as there; the unit's own error is not imitated. */
static void normal_f32(const uint32_t x[4], values *v)
{
    static const float TO_ANGLE = 0x1.921fb6p-30f, TO_TURNS = 0x1.45f306p-3f; /* 2 pi / 2^32, 1 / (2 pi) */
    for (int i = 0; i < 4; i += 2) {
        double sine, cosine;
        float u = (float)x[i] * 0x1p-32f + 0x1p-33f;
        float angle = fmaf((float)x[i + 1], TO_ANGLE, TO_ANGLE / 2);
        float r = sqrtf(-2 * (float)ht_log((double)u));
        ht_sincos_turns((double)(angle * TO_TURNS), &sine, &cosine);
        v->f32[i] = r * (float)sine;
        v->f32[i + 1] = r * (float)cosine;
    }
}

static double uniform_53(uint32_t low, uint32_t high)
{
    uint64_t bits = low ^ (uint64_t)high << 21;
    return (double)bits * 0x1p-53 + 0x1p-54;
}

static void normal_f64(const uint32_t x[4], values *v)
{
    double sine, cosine, r = sqrt(-2 * ht_log(uniform_53(x[0], x[1])));
    ht_sincos_turns(uniform_53(x[2], x[3]), &sine, &cosine);
    v->f64[0] = r * sine;
    v->f64[1] = r * cosine;
}

static void deal(ht_torch_cuda_rng *g, size_t n, distribution *draw, size_t value_size, void *out)
{
    size_t per_thread = sizeof(values) / value_size, threads = (n + CUDA_BLOCK - 1) / CUDA_BLOCK * CUDA_BLOCK;
    if (threads > CUDA_BLOCK * CUDA_MAX_BLOCKS)
        threads = CUDA_BLOCK * CUDA_MAX_BLOCKS;
    for (size_t base = 0; base < n; base += per_thread * threads) {
        for (size_t t = 0; t < threads && base + t < n; t++) {
            uint32_t x[4];
            values v;
            philox(g->offset / 4, t, g->seed, x);
            draw(x, &v);
            for (size_t i = 0, at = base + t; i < per_thread && at < n; i++, at += threads)
                memcpy((char *)out + at * value_size, v.bytes + i * value_size, value_size);
        }
        g->offset += 4;
    }
}

void ht_torch_cuda_rand(ht_torch_cuda_rng *g, size_t n, float *out)
{
    deal(g, n, uniform_f32, sizeof *out, out);
}

void ht_torch_cuda_randn(ht_torch_cuda_rng *g, size_t n, float *out)
{
    deal(g, n, normal_f32, sizeof *out, out);
}

void ht_torch_cuda_randn_f64(ht_torch_cuda_rng *g, size_t n, double *out)
{
    deal(g, n, normal_f64, sizeof *out, out);
}

/* ---- Halftone's own ---- */

/* (x + 1/2) / 2^32 is exact and never 0 or 1, and the largest value drawn is sqrt(2 log 2^33) = 6.8. */
static void normal_block(const uint32_t x[4], float v[4])
{
    for (int i = 0; i < 4; i += 2) {
        double sine, cosine, r = sqrt(-2 * ht_log((x[i] + 0.5) * 0x1p-32));
        ht_sincos_turns((x[i + 1] + 0.5) * 0x1p-32, &sine, &cosine);
        v[i] = (float)(r * cosine);
        v[i + 1] = (float)(r * sine);
    }
}

void ht_image_randn(uint64_t seed, uint64_t index, uint32_t draw, size_t n, float *out)
{
    for (size_t k = 0; k < n; k += 4) {
        uint32_t x[4];
        float v[4];
        philox((uint64_t)(uint32_t)(k / 4) | (uint64_t)draw << 32, index, seed, x);
        normal_block(x, v);
        memcpy(out + k, v, (n - k < 4 ? n - k : 4) * sizeof *v);
    }
}
