/* latents.c - pictures of latents and back: z = latents / scaling_factor + shift_factor, and for the other way a draw
 * from the encoder's Gaussian (arXiv:2112.10752, appendix G), as diffusers' pipelines have it.
 *
 * Trap: the logarithm of the variance is clamped to -30 .. 20. */
#include "sampler/latents.h"

#include <math.h>
#include <string.h>

#include "core/elementary.h"

struct ht_latents {
    ht_arena *arena;
    ht_model *model;
    ht_session_options options;
    int h, w;
    ht_coding *coding[2]; /* by ht_direction */
    int compiled[2][2];   /* for so many latents: height, width */
    float *z, *moments;
};

ht_status ht_latents_open(ht_model *autoencoder, const ht_session_options *options, int h, int w, ht_latents **out)
{
    const ht_autoencoder_info *info = &autoencoder->coding;
    size_t count, bytes;
    ht_arena *arena = ht_arena_create();
    ht_latents *l = arena ? ht_alloc(arena, sizeof *l) : NULL;
    if (!l) {
        ht_arena_free(arena);
        return HT_ERR_MEMORY;
    }
    *l = (ht_latents){.arena = arena, .model = autoencoder, .h = h, .w = w};
    l->options =
        (ht_session_options){.batch = 1, .threads = options->threads, .backend = options->backend, .isa = options->isa};
    if (ht_mul_size((size_t)h * (size_t)w, (size_t)info->latent_channels, &count) && ht_mul_size(count, 2, &bytes)) {
        l->z = ht_alloc_array(arena, count, sizeof *l->z);
        l->moments = ht_alloc_array(arena, bytes, sizeof *l->moments);
    }
    if (!l->z || !l->moments) {
        ht_latents_close(l);
        return ht_fail(HT_ERR_MEMORY, "out of memory for latents of %dx%d", w, h);
    }
    *out = l;
    return HT_OK;
}

void ht_latents_close(ht_latents *l)
{
    if (!l)
        return;
    ht_coding_close(l->coding[HT_DECODE]);
    ht_coding_close(l->coding[HT_ENCODE]);
    ht_arena_free(l->arena);
}

static ht_status need(ht_latents *l, ht_direction direction, int h, int w)
{
    int factor = direction == HT_ENCODE ? l->model->coding.factor : 1;
    ht_session_options o = l->options;
    o.height = h * factor;
    o.width = w * factor;
    if (l->coding[direction] && l->compiled[direction][0] == h && l->compiled[direction][1] == w)
        return HT_OK;
    ht_coding_close(l->coding[direction]); /* before the other takes its memory */
    l->coding[direction] = NULL;
    l->compiled[direction][0] = h;
    l->compiled[direction][1] = w;
    return ht_coding_open(l->model, direction, &o, &l->coding[direction]);
}

ht_latents_size ht_latents_size_of(const ht_latents *l)
{
    const ht_autoencoder_info *info = &l->model->coding;
    return (ht_latents_size){l->h, l->w, info->latent_channels, info->out_channels, info->factor};
}

ht_status ht_latents_decode_part(ht_latents *l, int h, int w, const float *latents, float *picture)
{
    const ht_autoencoder_info *info = &l->model->coding;
    size_t n = (size_t)h * (size_t)w * (size_t)info->latent_channels;
    ht_status status = need(l, HT_DECODE, h, w);
    if (status)
        return status;
    for (size_t i = 0; i < n; i++)
        l->z[i] = latents[i] / info->scaling_factor + info->shift_factor;
    status = ht_coding_run(l->coding[HT_DECODE], 1, l->z);
    return status ? status : ht_coding_read(l->coding[HT_DECODE], 0, picture);
}

ht_status ht_latents_decode(ht_latents *l, const float *latents, float *picture)
{
    return ht_latents_decode_part(l, l->h, l->w, latents, picture);
}

/* mean + exp(log variance / 2) noise; the moments of a pixel are its means, then its log variances. */
static void draw(size_t pixels, size_t channels, const float *moments, const float *noise, float *z)
{
    for (size_t p = 0; p < pixels; p++)
        for (size_t c = 0; c < channels; c++) {
            float mean = moments[2 * p * channels + c], log_variance = moments[(2 * p + 1) * channels + c];
            log_variance = fminf(fmaxf(log_variance, -30), 20);
            z[p * channels + c] = mean + (float)ht_exp(0.5 * (double)log_variance) * noise[p * channels + c];
        }
}

ht_status ht_latents_encode(ht_latents *l, const float *picture, const float *noise, float *latents)
{
    const ht_autoencoder_info *info = &l->model->coding;
    size_t pixels = (size_t)l->h * (size_t)l->w, channels = (size_t)info->latent_channels;
    ht_status status = need(l, HT_ENCODE, l->h, l->w);
    if (status)
        return status;
    const ht_value *made = ht_coding_output(l->coding[HT_ENCODE], 0);
    bool gaussian = made->shape[3] == 2 * (int64_t)channels;
    if (made->shape[1] != l->h || made->shape[2] != l->w || (!gaussian && made->shape[3] != (int64_t)channels))
        return ht_fail(HT_ERR_SHAPE, "%s: encodes to %lldx%lldx%lld, its decoder takes %dx%dx%zu", l->model->path,
                       (long long)made->shape[2], (long long)made->shape[1], (long long)made->shape[3], l->w, l->h,
                       channels);
    status = ht_coding_run(l->coding[HT_ENCODE], 1, picture);
    if (!status)
        status = ht_coding_read(l->coding[HT_ENCODE], 0, gaussian ? l->moments : l->z);
    if (status)
        return status;
    if (gaussian)
        draw(pixels, channels, l->moments, noise, l->z);
    for (size_t i = 0; i < pixels * channels; i++)
        latents[i] = (l->z[i] - info->shift_factor) * info->scaling_factor;
    return HT_OK;
}
