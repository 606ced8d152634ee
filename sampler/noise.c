/* noise.c - the normal numbers that sampling draws.
 *
 * Trap: every generator's order is that of the libraries, [n,c,h,w], so the same seed gives the image that their users
 * know; here activations are channels last. */
#include "sampler/noise.h"

ht_status ht_noise_open(ht_arena *arena, ht_rng rng, uint64_t seed, const size_t shape[3], ht_noise *noise)
{
    *noise = (ht_noise){.rng = rng, .seed = seed, .images = shape[0], .channels = shape[1], .pixels = shape[2]};
    size_t image, count = 0, bytes;
    bool fits = ht_mul_size(noise->channels, noise->pixels, &image);
    fits = fits && ht_mul_size(image, rng == HT_RNG_PHILOX ? 1 : noise->images, &count) &&
           ht_mul_size(count, sizeof(float), &bytes);
    if (rng != HT_RNG_PHILOX && rng != HT_RNG_TORCH_CPU && rng != HT_RNG_TORCH_CUDA)
        return ht_fail(HT_ERR_ARGUMENT, "rng is %d; wanted philox, torch-cpu or torch-cuda", (int)rng);
    if (!fits)
        return ht_fail(HT_ERR_MEMORY, "out of memory: one torch draw for %zu images", noise->images);
    noise->drawn = ht_alloc(arena, bytes);
    if (!noise->drawn)
        return HT_ERR_MEMORY;
    ht_mt19937_seed(&noise->torch_cpu, seed);
    noise->torch_cuda = (ht_torch_cuda_rng){.seed = seed};
    return HT_OK;
}

ht_status ht_noise_steps_twice(ht_arena *arena, ht_noise *noise)
{
    size_t count;
    if (noise->rng == HT_RNG_PHILOX)
        return HT_OK;
    if (!ht_mul_size(noise->images * noise->channels * noise->pixels, 2 * sizeof(float), &count))
        return ht_fail(HT_ERR_MEMORY, "out of memory: one torch draw for twice %zu images", noise->images);
    noise->drawn = ht_alloc(arena, count);
    noise->steps_twice = true;
    return noise->drawn ? HT_OK : HT_ERR_MEMORY;
}

void ht_noise_turn(ht_noise *noise, uint32_t turn)
{
    size_t count = noise->images * noise->channels * noise->pixels * (turn && noise->steps_twice ? 2 : 1);
    noise->turn = turn;
    if (noise->rng == HT_RNG_TORCH_CPU)
        ht_mt19937_randn(&noise->torch_cpu, count, noise->drawn);
    else if (noise->rng == HT_RNG_TORCH_CUDA)
        ht_torch_cuda_randn(&noise->torch_cuda, count, noise->drawn);
}

static void to_channels_last(const ht_noise *noise, const float *from, float *out)
{
    for (size_t p = 0; p < noise->pixels; p++)
        for (size_t c = 0; c < noise->channels; c++)
            out[p * noise->channels + c] = from[c * noise->pixels + p];
}

void ht_noise_image(ht_noise *noise, uint64_t index, float *out)
{
    size_t count = noise->channels * noise->pixels;
    const float *from = noise->drawn;
    if (noise->rng == HT_RNG_PHILOX)
        ht_image_randn(noise->seed, index, noise->turn, count, noise->drawn);
    else
        from += (size_t)index * count;
    to_channels_last(noise, from, out);
}

void ht_noise_shared(ht_noise *noise, uint32_t which, float *out)
{
    size_t count = noise->channels * noise->pixels;
    if (noise->rng == HT_RNG_PHILOX)
        ht_image_randn(noise->seed, UINT64_MAX, which, count, noise->drawn);
    else if (noise->rng == HT_RNG_TORCH_CPU)
        ht_mt19937_randn(&noise->torch_cpu, count, noise->drawn);
    else
        ht_torch_cuda_randn(&noise->torch_cuda, count, noise->drawn);
    to_channels_last(noise, noise->drawn, out);
}
