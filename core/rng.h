/* rng.h - random numbers that PyTorch users know: a seed gives the noise that torch.randn gives. */
#ifndef HT_CORE_RNG_H
#define HT_CORE_RNG_H

#include <stddef.h>
#include <stdint.h>

/* torch's CPU generator: mt19937 (Matsumoto and Nishimura 1998), seeded with the low 32 bits of the seed. */
typedef struct ht_mt19937 {
    uint32_t state[624];
    int next;
    int has_spare;  /* the second normal of a pair waits for the next small draw */
    double spare;
} ht_mt19937;

void ht_mt19937_seed(ht_mt19937 *g, uint64_t seed);
uint32_t ht_mt19937_u32(ht_mt19937 *g);
uint64_t ht_mt19937_u64(ht_mt19937 *g);                          /* two draws, the first in the high half */
void ht_mt19937_randn(ht_mt19937 *g, size_t n, float *out);      /* torch.randn(n, generator=g): within 1e-6, its log and cos are vectorized */
void ht_mt19937_randn_f64(ht_mt19937 *g, size_t n, double *out); /* dtype=torch.float64 */
void ht_mt19937_rand(ht_mt19937 *g, size_t n, float *out);       /* torch.rand: uniform in [0,1) */

/* Philox4x32-10 (Salmon et al., SC 2011). */
void ht_philox4x32(const uint32_t counter[4], const uint32_t key[2], uint32_t out[4]);

/* torch's CUDA generator: Philox streams dealt to the threads of a grid-stride launch, offset moved on after each draw.  The grid depends on
 * the GPU for large draws; the constants are an H100's (132 multiprocessors of 2048 threads), and draws of up to 256 blocks' threads are the same on all. */
typedef struct ht_torch_cuda_rng {
    uint64_t seed, offset;
} ht_torch_cuda_rng;

void ht_torch_cuda_randn(ht_torch_cuda_rng *g, size_t n, float *out);

/* Halftone's own: one stream an image.  Value k of draw `draw` of image `index` is a function of (seed, index, draw, k) alone.
 * n standard normals by Box-Muller in the same arithmetic on every machine. */
void ht_image_randn(uint64_t seed, uint64_t index, uint32_t draw, size_t n, float *out);

#endif
