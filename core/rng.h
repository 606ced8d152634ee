/* rng.h - random numbers that PyTorch users know: a seed gives the noise that torch.randn gives. */
#ifndef HT_CORE_RNG_H
#define HT_CORE_RNG_H

#include <stddef.h>
#include <stdint.h>

/* torch's CPU generator: mt19937 (Matsumoto and Nishimura 1998), seeded with the low 32 bits of the seed. */
typedef struct ht_mt19937 {
    uint32_t state[624];
    int next;
    int has_spare; /* the second normal of a pair waits for the next small draw */
    double spare;
} ht_mt19937;

void ht_mt19937_seed(ht_mt19937 *g, uint64_t seed);
uint32_t ht_mt19937_u32(ht_mt19937 *g);
uint64_t ht_mt19937_u64(ht_mt19937 *g); /* two draws, the first in the high half */

/* torch.randn(n, generator=g).  float32 within 1e-6 (PyTorch's own log and cos are vectorized), float64 within 1e-14;
 * _half is what dtype=torch.float16 or bfloat16 draws, not yet rounded to the type: above 16 it ends otherwise, if n is
 * no multiple of 16. */
void ht_mt19937_randn(ht_mt19937 *g, size_t n, float *out);
void ht_mt19937_randn_f64(ht_mt19937 *g, size_t n, double *out);
void ht_mt19937_randn_half(ht_mt19937 *g, size_t n, float *out);

/* Equal to PyTorch's: torch.rand(n), uniform in [0,1); one value of torch.randint(lo, hi), lo < hi; torch.randperm(n),
 * n < 2^32. */
void ht_mt19937_rand(ht_mt19937 *g, size_t n, float *out);
void ht_mt19937_rand_f64(ht_mt19937 *g, size_t n, double *out);
int64_t ht_mt19937_randint(ht_mt19937 *g, int64_t lo, int64_t hi);
void ht_mt19937_randperm(ht_mt19937 *g, size_t n, int64_t *out);

/* Philox4x32-10 (Salmon et al., SC 2011). */
void ht_philox4x32(const uint32_t counter[4], const uint32_t key[2], uint32_t out[4]);

/* torch's CUDA generator: Philox streams dealt to the threads of a grid-stride launch, offset moved on after each draw.
 * A launch has at most as many threads as the GPU holds at once; the constants are an H100's (132 multiprocessors of
 * 2048 threads).  Draws of no more values than a GPU holds threads are the same on all: up to 40960 values on a T4,
 * 270336 on an H100. */
typedef struct ht_torch_cuda_rng {
    uint64_t seed, offset; /* offset 0: a fresh torch.Generator("cuda").manual_seed(seed) */
} ht_torch_cuda_rng;

/* torch.randn(n, generator=g, device="cuda"): float32 within 4e-6 (the GPU's fast sine is that coarse; rounded, it is
 * also what float16 and bfloat16 draw), float64 within 1e-14.  torch.rand: equal, uniform in [0,1). */
void ht_torch_cuda_randn(ht_torch_cuda_rng *g, size_t n, float *out);
void ht_torch_cuda_randn_f64(ht_torch_cuda_rng *g, size_t n, double *out);
void ht_torch_cuda_rand(ht_torch_cuda_rng *g, size_t n, float *out);

/* Halftone's own: one stream an image.  Value k of draw `draw` of image `index` is a function of (seed, index, draw, k)
 * alone.  n < 2^34 standard normals by Box-Muller in the same arithmetic, so the same bits, on every machine. */
void ht_image_randn(uint64_t seed, uint64_t index, uint32_t draw, size_t n, float *out);

#endif
