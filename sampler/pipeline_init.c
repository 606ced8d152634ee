/* pipeline_init.c - pictures that are changed instead of made: SDEdit (arXiv:2108.01073: noise a picture up to a step,
 * go on from there) and inpainting, as diffusers' StableDiffusionImg2ImgPipeline and StableDiffusionInpaintPipeline.
 *
 * Traps: draws come in the pipelines' order: the picture's posterior (if it is needed), the noise, the masked picture's
 * posterior (also where the model has no channels for it).  The mask is cut at a half and taken to the latents by
 * nearest neighbours. */
#include <math.h>
#include <string.h>

#include "sampler/pipeline.h"

enum { DRAW_IMAGE = 1, DRAW_MASKED = 2 };

static double strength_of(const ht_draw_options *o)
{
    return o->strength > 0 ? o->strength : o->mask ? 1 : 0.8;
}

ht_status ht_start_check(const ht_pipeline *p, const ht_draw_options *o)
{
    const char *path = p->denoiser->path;
    bool inpaints = p->denoiser->info.in_channels > p->latent_channels;
    size_t pixels = (size_t)p->h * (size_t)p->w * (size_t)p->factor * (size_t)p->factor;
    if (o->mask && !o->init)
        return ht_fail(HT_ERR_ARGUMENT, "a mask needs the picture that it belongs to");
    if (inpaints && !o->mask)
        return ht_fail(HT_ERR_ARGUMENT, "%s: an inpainting model needs a picture and a mask", path);
    if (!(strength_of(o) <= 1) || o->strength < 0)
        return ht_fail(HT_ERR_ARGUMENT, "strength is %g; wanted above 0, up to 1", o->strength);
    for (size_t i = 0; o->init && i < pixels * (size_t)p->channels; i++)
        if (!isfinite(o->init[i]))
            return ht_fail(HT_ERR_ARGUMENT, "the picture to begin with has values that are not finite");
    return HT_OK;
}

/* The posterior's draw of a picture; where samples are pictures it is itself. */
static ht_status encode(ht_pipeline *p, const float *picture, ht_noise *generator, int which, float *scratch,
                        float *latents)
{
    size_t n = (size_t)p->h * (size_t)p->w * (size_t)p->latent_channels;
    if (!p->autoencoder) {
        memcpy(latents, picture, n * sizeof *latents);
        return HT_OK;
    }
    ht_noise_shared(generator, (uint32_t)which, scratch);
    return ht_latents_encode(p->latents, picture, scratch, latents);
}

static void shrink_mask(const ht_pipeline *p, const float *mask, float *out)
{
    for (int y = 0; y < p->h; y++)
        for (int x = 0; x < p->w; x++)
            out[y * p->w + x] =
                mask[(size_t)(y * p->factor) * (size_t)(p->w * p->factor) + (size_t)(x * p->factor)] >= 0.5f;
}

/* Of the masked picture: what is to be drawn is gray. */
static float *hide(const ht_pipeline *p, const ht_draw_options *o, ht_arena *arena)
{
    size_t pixels = (size_t)p->h * (size_t)p->w * (size_t)p->factor * (size_t)p->factor, c = (size_t)p->channels;
    float *masked = ht_alloc_array(arena, pixels * c, sizeof *masked);
    for (size_t i = 0; masked && i < pixels * c; i++)
        masked[i] = o->mask[i / c] < 0.5f ? o->init[i] : 0;
    return masked;
}

/* The mask and the masked picture's latents as further channels. */
static ht_status make_extra(ht_pipeline *p, const ht_draw_options *o, ht_arena *arena, float *scratch, ht_start *s)
{
    size_t pixels = (size_t)p->h * (size_t)p->w, c = (size_t)p->latent_channels;
    bool wanted = p->denoiser->info.in_channels > p->latent_channels;
    float *masked = hide(p, o, arena), *latents = ht_alloc_array(arena, pixels * c, sizeof *latents);
    s->extra = ht_alloc_array(arena, pixels * (c + 1), sizeof *s->extra);
    if (!masked || !latents || !s->extra)
        return HT_ERR_MEMORY;
    if (!wanted) { /* its draw is made all the same */
        ht_noise_shared(&s->generator, DRAW_MASKED, scratch);
        s->extra = NULL;
        return HT_OK;
    }
    ht_status status = encode(p, masked, &s->generator, DRAW_MASKED, scratch, latents);
    for (size_t i = 0; !status && i < pixels; i++) {
        s->extra[i * (c + 1)] = s->mask[i];
        memcpy(s->extra + i * (c + 1) + 1, latents + i * c, c * sizeof *latents);
    }
    s->mask = NULL; /* the model itself keeps what is not masked */
    return status;
}

static ht_status take_memory(const ht_pipeline *p, const ht_draw_options *o, int64_t n, ht_arena *arena, ht_start *s)
{
    size_t image = (size_t)p->h * (size_t)p->w * (size_t)p->latent_channels, all;
    if (!ht_mul_size((size_t)n, image, &all))
        return ht_fail(HT_ERR_MEMORY, "out of memory for %lld images", (long long)n);
    s->init = ht_alloc_array(arena, image, sizeof *s->init);
    s->mask = o->mask ? ht_alloc_array(arena, (size_t)p->h * (size_t)p->w, sizeof *s->mask) : NULL;
    s->noise = ht_alloc_array(arena, all, sizeof *s->noise);
    return s->init && s->noise && (!o->mask || s->mask) ? HT_OK : HT_ERR_MEMORY;
}

ht_status ht_start_make(ht_pipeline *p, const ht_draw_options *o, const ht_sample_options *options, ht_start *s)
{
    int64_t first = s->first, n = s->n;
    ht_arena *arena = s->arena;

    size_t pixels = (size_t)p->h * (size_t)p->w, c = (size_t)p->latent_channels;
    int64_t total = options->total ? options->total : first + n, each = options->each ? options->each : n;
    int steps = options->steps ? options->steps : 50;
    bool inpaints = p->denoiser->info.in_channels > p->latent_channels;
    float *scratch = ht_alloc_array(arena, pixels * c, sizeof *scratch);
    ht_status status = scratch ? take_memory(p, o, n, arena, s) : HT_ERR_MEMORY;
    if (!status && options->rng != HT_RNG_PHILOX && total < first + n)
        status = ht_fail(HT_ERR_ARGUMENT, "total is %lld, but images up to %lld are wanted", (long long)total,
                         (long long)(first + n));
    if (!status)
        status =
            ht_noise_open(arena, options->rng, options->seed, (size_t[3]){(size_t)total, c, pixels}, &s->generator);
    if (status)
        return status;
    s->skip = steps - (int)(steps * strength_of(o));
    if (s->skip >= steps)
        return ht_fail(HT_ERR_ARGUMENT, "strength %g of %d steps is less than one step", strength_of(o), steps);
    s->from_init = !o->mask || strength_of(o) < 1;
    if (o->mask)
        shrink_mask(p, o->mask, s->mask);
    if (s->from_init || !inpaints)
        status = encode(p, o->init, &s->generator, DRAW_IMAGE, scratch, s->init);
    if (status)
        return status;
    ht_noise_turn(&s->generator, 0);
    for (int64_t k = 0; k < n; k++)
        ht_noise_image(&s->generator, (uint64_t)(first + k % each), s->noise + (size_t)k * pixels * c);
    return o->mask ? make_extra(p, o, arena, scratch, s) : HT_OK;
}
