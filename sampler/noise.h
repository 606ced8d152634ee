/* noise.h - the normal numbers that sampling draws, image by image, from the generator that the caller chose. */
#ifndef HT_SAMPLER_NOISE_H
#define HT_SAMPLER_NOISE_H

#include "core/arena.h"
#include "core/error.h"
#include "core/rng.h"

/* Draws come in turns: turn 0 the images to start from, turn 1 + i the noise of step i.  Turns that take nothing are
 * left out; with HT_RNG_TORCH_* the others must come in order, each once, for each is one torch.randn of all. */
typedef struct ht_noise {
    ht_rng rng;
    uint64_t seed;
    size_t channels, pixels, images; /* images: how many a turn covers, HT_RNG_TORCH_* only */
    uint32_t turn;
    bool steps_twice;
    ht_mt19937 torch_cpu;
    ht_torch_cuda_rng torch_cuda;
    float *drawn; /* [images, channels, pixels]; with HT_RNG_PHILOX one image */
} ht_noise;

/* Memory from the arena.  images: of the whole torch.randn. */
ht_status ht_noise_open(ht_arena *arena, ht_rng rng, uint64_t seed, const size_t shape[3],
                        ht_noise *noise); /* shape: images, channels, pixels */

/* Turns after the first are of twice as many images, of which the second half is not used: diffusers' DiTPipeline steps
 * both halves of a guided batch.  Of HT_RNG_PHILOX nothing changes. */
ht_status ht_noise_steps_twice(ht_arena *arena, ht_noise *noise);

/* Go to a turn; then the noise of image `index`, channels last. */
void ht_noise_turn(ht_noise *noise, uint32_t turn);
/* One image's worth that is drawn for all, [1, channels, pixels] of torch, between turns; `which` tells such draws of
 * HT_RNG_PHILOX apart.  out: channels last. */
void ht_noise_shared(ht_noise *noise, uint32_t which, float *out);
void ht_noise_image(ht_noise *noise, uint64_t index, float *out);

#endif
