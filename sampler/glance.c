/* glance.c - previews.
 *
 * The linear map: an autoencoder's colours follow its latents nearly linearly where a picture is flat.  So flat latents
 * are decoded, zero and one step up and down in each channel, and the mean colours give offset and slopes. */
#include "sampler/glance.h"

#include <string.h>

enum { FLAT = 4, COLOURS = 3 };

struct ht_glances {
    ht_arena *arena;
    const ht_pipeline *p;
    ht_model *tiny; /* NULL: linear */
    ht_latents *decoder;
    float offset[COLOURS], *slopes; /* [latent_channels][COLOURS] */
    float *picture;
};

static void mean_colour(const float *picture, size_t pixels, float mean[COLOURS])
{
    double sums[COLOURS] = {0};
    for (size_t i = 0; i < pixels * COLOURS; i++)
        sums[i % COLOURS] += (double)picture[i];
    for (int c = 0; c < COLOURS; c++)
        mean[c] = (float)(sums[c] / (double)pixels);
}

typedef struct probe {
    ht_latents *flat;
    size_t channels, pixels; /* of a latent; of a picture */
    float *room;             /* for latents, then a picture */
} probe;

/* The mean colour of latents that are `value` in one channel. */
static ht_status look(const probe *p, size_t channel, float value, float mean[COLOURS])
{
    float *latents = p->room, *picture = p->room + FLAT * FLAT * p->channels;
    for (size_t i = 0; i < FLAT * FLAT * p->channels; i++)
        latents[i] = i % p->channels == channel ? value : 0;
    ht_status status = ht_latents_decode(p->flat, latents, picture);
    mean_colour(picture, p->pixels, mean);
    return status;
}

static ht_status measure(ht_glances *g)
{
    const ht_pipeline *p = g->p;
    size_t channels = (size_t)p->latent_channels, side = (size_t)(FLAT * p->factor);
    probe of = {.channels = channels, .pixels = side * side};
    of.room = ht_alloc_array(g->arena, FLAT * FLAT * channels + side * side * COLOURS, sizeof *of.room);
    ht_status status = of.room ? ht_latents_open(p->autoencoder, &p->options, FLAT, FLAT, &of.flat) : HT_ERR_MEMORY;
    if (!status)
        status = look(&of, channels, 0, g->offset);
    for (size_t c = 0; !status && c < channels; c++) {
        float up[COLOURS], down[COLOURS];
        status = look(&of, c, 1, up);
        if (!status)
            status = look(&of, c, -1, down);
        for (int k = 0; !status && k < COLOURS; k++)
            g->slopes[c * COLOURS + (size_t)k] = (up[k] - down[k]) / 2;
    }
    ht_latents_close(of.flat);
    return status;
}

static ht_status open_tiny(ht_glances *g, const char *model)
{
    const ht_pipeline *p = g->p;
    ht_status status = ht_model_open(model, NULL, &g->tiny);
    if (status)
        return status;
    const ht_autoencoder_info *info = &g->tiny->coding;
    if (!g->tiny->autoencoder || info->latent_channels != p->latent_channels || info->out_channels != COLOURS)
        return ht_fail(HT_ERR_SHAPE, "%s: is no decoder of this model's latents, of %d channels", model,
                       p->latent_channels);
    return ht_latents_open(g->tiny, &p->options, p->h, p->w, &g->decoder);
}

ht_status ht_glances_open(ht_pipeline *p, const char *model, ht_glances **out)
{
    ht_arena *arena = ht_arena_create();
    ht_glances *g = arena ? ht_alloc(arena, sizeof *g) : NULL;
    size_t side;
    if (!g) {
        ht_arena_free(arena);
        return HT_ERR_MEMORY;
    }
    *g = (ht_glances){.arena = arena, .p = p};
    ht_status status = HT_OK;
    if (!p->autoencoder || p->channels != COLOURS)
        status = model ? ht_fail(HT_ERR_ARGUMENT,
                                 "%s: draws no latents of coloured pictures; it needs no model for "
                                 "previews",
                                 p->denoiser->path)
                       : HT_OK;
    else if (model)
        status = open_tiny(g, model);
    side = g->tiny ? (size_t)g->tiny->coding.factor : 1;
    g->picture = ht_alloc_array(arena, (size_t)p->h * (size_t)p->w * side * side, COLOURS * sizeof *g->picture);
    g->slopes = ht_alloc_array(arena, (size_t)p->latent_channels, COLOURS * sizeof *g->slopes);
    if (!status && (!g->picture || !g->slopes))
        status = HT_ERR_MEMORY;
    if (!status && !g->tiny && p->autoencoder && p->channels == COLOURS)
        status = measure(g);
    if (status)
        ht_glances_close(g);
    else
        *out = g;
    return status;
}

void ht_glances_close(ht_glances *g)
{
    if (!g)
        return;
    ht_latents_close(g->decoder);
    ht_model_close(g->tiny);
    ht_arena_free(g->arena);
}

const float *ht_glances_look(ht_glances *g, const float *x0, int *height, int *width)
{
    const ht_pipeline *p = g->p;
    int factor = g->tiny ? g->tiny->coding.factor : 1;
    size_t channels = (size_t)p->latent_channels, pixels = (size_t)p->h * (size_t)p->w;
    *height = p->h * factor;
    *width = p->w * factor;
    if (p->channels != COLOURS)
        return NULL;
    if (!p->autoencoder)
        return x0;
    if (g->tiny)
        return ht_latents_decode(g->decoder, x0, g->picture) ? NULL : g->picture;
    for (size_t i = 0; i < pixels; i++)
        for (size_t k = 0; k < COLOURS; k++) {
            float sum = g->offset[k];
            for (size_t c = 0; c < channels; c++)
                sum += g->slopes[c * COLOURS + k] * x0[i * channels + c];
            g->picture[i * COLOURS + k] = sum;
        }
    return g->picture;
}
