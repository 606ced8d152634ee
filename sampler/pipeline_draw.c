/* pipeline_draw.c - drawing: prompts encoded, the denoiser sampled, latents decoded as they are finished.
 *
 * Prompts are taken some at a time, and only those together that have as many rows of tokens, for the denoiser is
 * compiled for a number of tokens: so a picture does not depend on what other prompts are drawn with it.  With torch's
 * generators all pictures are one draw and go together, padded to the longest prompt.
 *
 * Trap: diffusers skips the text encoder's last layer for the prompt alone, not for the negative one. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sampler/glance.h"
#include "sampler/guide.h"
#include "sampler/session_private.h"

enum { MOST_PROMPTS = 32 };

typedef struct drawing {
    ht_pipeline *p;
    const ht_draw_options *o;
    int64_t first, n, each; /* pictures of a prompt */
    float *images;
    ht_text *texts, *negatives; /* [prompts]; NULL without prompts */
    bool guided;
    double guidance;
    int64_t base;        /* the first picture of those that go together */
    int64_t together;    /* how many they are */
    float *picture;      /* what is delivered */
    ht_glances *glances; /* NULL: no previews */
    ht_arena *arena;     /* of those that go together */
    ht_cond cond, negative;
    ht_status failed; /* to decode, with this message */
    char message[1024];
} drawing;

/* Pictures have noise of their own, not of their place among those of their prompt. */
static bool all_apart(const drawing *d)
{
    return d->o->own_noise || d->o->sample.rng != HT_RNG_PHILOX;
}

/* Of the first of those that go together. */
static int64_t first_index(const drawing *d)
{
    return d->o->own_noise ? d->first + d->base : d->first;
}

/* ---- handing on ---- */

static int hand_on(void *user, int64_t index, const float *latents)
{
    drawing *d = user;
    ht_pipeline *p = d->p;
    const ht_sample_options *o = &d->o->sample;
    int64_t k = index - first_index(d) + d->base;
    size_t size = (size_t)p->h * (size_t)p->w * (size_t)p->factor * (size_t)p->factor * (size_t)p->channels;
    float *picture = d->images ? d->images + (size_t)k * size : d->picture;
    if (!p->autoencoder)
        memcpy(picture, latents, size * sizeof *picture);
    else
        d->failed = ht_latents_decode_tiled(p->latents, d->o->tile, latents, picture);
    if (d->failed) {
        snprintf(d->message, sizeof d->message, "%s", ht_error_message());
        return 1;
    }
    return o->deliver ? o->deliver(o->user, d->first + k, picture) : 0;
}

static int go_on(void *user, int64_t done, int64_t total)
{
    drawing *d = user;
    const ht_sample_options *o = &d->o->sample;
    int64_t an_image = d->together ? total / d->together : 0;
    return o->progress ? o->progress(o->user, d->base * an_image + done, d->n * an_image) : 0;
}

static void show(void *user, int step, int steps, const float *x0)
{
    drawing *d = user;
    int h, w;
    const float *picture = ht_glances_look(d->glances, x0, &h, &w);
    if (picture)
        d->o->preview(d->o->preview_user, step, steps, h, w, picture);
}

/* ---- conditions ---- */

static const char *entry(const char *const *list, int64_t i)
{
    return list ? list[i] : NULL;
}

static ht_status read_texts(drawing *d)
{
    const ht_draw_options *o = d->o;
    ht_status status = HT_OK;
    d->texts = calloc((size_t)o->prompts, sizeof *d->texts);
    d->negatives = calloc((size_t)o->prompts, sizeof *d->negatives);
    if (!d->texts || !d->negatives)
        return ht_fail(HT_ERR_MEMORY, "out of memory for %lld prompts", (long long)o->prompts);
    for (int64_t i = 0; !status && i < o->prompts; i++) {
        const char *own[] = {o->prompt[i], entry(o->prompt_2, i)};
        const char *away[] = {entry(o->negative, i), entry(o->negative_2, i)};
        away[0] = away[0] ? away[0] : "";
        status = ht_text_read(d->p->texts, own, o->plain_prompts, &d->texts[i]);
        if (!status && d->guided)
            status = ht_text_read(d->p->texts, away, o->plain_prompts, &d->negatives[i]);
    }
    return status;
}

static int64_t chunks_of(const drawing *d, int64_t i)
{
    return d->texts[i].chunks > d->negatives[i].chunks ? d->texts[i].chunks : d->negatives[i].chunks;
}

/* Whether the negative prompt of a prompt is zeros: none was given, and the pipeline says so. */
static bool negative_is_zero(const drawing *d, int64_t i)
{
    const json_t *zeros = json_object_get(d->p->denoiser->index, "force_zeros_for_empty_prompt");
    return !entry(d->o->negative, i) && json_is_true(zeros);
}

typedef struct vectors {
    float *hidden, *pooled, *mask;
    size_t hidden_size, pooled_size; /* numbers of a text */
} vectors;

static ht_status encode(const drawing *d, ht_text *texts, int64_t count, ht_text_encoding how, vectors *v)
{
    const ht_denoiser_info *info = &d->p->denoiser->info;
    size_t hidden, pooled;
    v->hidden_size = (size_t)(how.chunks * ht_texts_length(d->p->texts)) * (size_t)info->cross_attention_dim;
    v->pooled_size = (size_t)info->text_embed_dim;
    if (!ht_mul_size((size_t)count, v->hidden_size, &hidden) || !ht_mul_size((size_t)count, v->pooled_size, &pooled))
        return ht_fail(HT_ERR_MEMORY, "out of memory for %lld prompts", (long long)count);
    v->hidden = ht_alloc_array(d->arena, hidden, sizeof *v->hidden);
    v->pooled = pooled ? ht_alloc_array(d->arena, pooled, sizeof *v->pooled) : NULL;
    v->mask = info->attention_mask
                  ? ht_alloc_array(d->arena, hidden / (size_t)info->cross_attention_dim, sizeof *v->mask)
                  : NULL;
    if (!v->hidden || (pooled && !v->pooled) || (info->attention_mask && !v->mask))
        return HT_ERR_MEMORY;
    return ht_texts_encode(d->p->texts, &how, count, texts, v->hidden, v->pooled, v->mask);
}

/* Original size, crop, and target size: those of the picture if nothing was said (SDXL, arXiv:2307.01952, 2.2). */
static const float *time_ids(const drawing *d, int64_t rows)
{
    const ht_pipeline *p = d->p;
    const ht_draw_options *o = d->o;
    int h = p->h * p->factor, w = p->w * p->factor;
    float *ids = ht_alloc_array(d->arena, (size_t)rows * 6, sizeof *ids);
    for (int64_t i = 0; ids && i < rows; i++) {
        float *at = ids + i * 6;
        at[0] = (float)(o->original_size[0] ? o->original_size[0] : h);
        at[1] = (float)(o->original_size[1] ? o->original_size[1] : w);
        at[2] = (float)o->crop[0];
        at[3] = (float)o->crop[1];
        at[4] = (float)(o->target_size[0] ? o->target_size[0] : h);
        at[5] = (float)(o->target_size[1] ? o->target_size[1] : w);
    }
    return ids;
}

static const float *guidance_rows(const drawing *d, int64_t rows)
{
    int dim = d->p->denoiser->info.timestep_cond_dim;
    float *all = ht_alloc_array(d->arena, (size_t)rows * (size_t)dim, sizeof *all);
    for (int64_t i = 0; all && i < rows; i++)
        ht_guidance_embedding(d->guidance, dim, all + i * dim);
    return all;
}

/* The picture's height and width, or height by width (PixArt-alpha). */
static const float *sizes(const drawing *d, int64_t rows, int width)
{
    float h = (float)(d->p->h * d->p->factor), w = (float)(d->p->w * d->p->factor);
    float *all = ht_alloc_array(d->arena, (size_t)rows * (size_t)width, sizeof *all);
    for (int64_t i = 0; all && i < rows * width; i++)
        all[i] = width == 1 ? h / w : i % 2 ? w : h;
    return all;
}

/* What the denoiser takes besides prompts, of so many rows. */
static ht_status set_numbers(drawing *d, int64_t rows)
{
    const ht_denoiser_info *info = &d->p->denoiser->info;
    if (info->time_ids && info->time_ids != 6)
        return ht_fail(HT_ERR_UNSUPPORTED, "%s: takes %d time_ids; 6 are known", d->p->denoiser->path, info->time_ids);
    if (info->time_ids && !(d->cond.time_ids = time_ids(d, rows)))
        return HT_ERR_MEMORY;
    if (info->timestep_cond_dim && !(d->cond.timestep_cond = guidance_rows(d, rows)))
        return HT_ERR_MEMORY;
    if (info->resolution && !(d->cond.resolution = sizes(d, rows, info->resolution)))
        return HT_ERR_MEMORY;
    if (info->aspect_ratio && !(d->cond.aspect_ratio = sizes(d, rows, info->aspect_ratio)))
        return HT_ERR_MEMORY;
    d->negative.resolution = d->cond.resolution;
    d->negative.aspect_ratio = d->cond.aspect_ratio;
    d->negative.time_ids = d->cond.time_ids;
    d->negative.timestep_cond = d->cond.timestep_cond;
    return HT_OK;
}

static ht_status set_prompts(drawing *d, int64_t from, int64_t count, int64_t chunks)
{
    vectors own = {0}, away = {0};
    ht_text_encoding how = {.clip_skip = d->o->clip_skip, .chunks = chunks, .session = &d->p->options};
    ht_status status = encode(d, d->texts + from, count, how, &own);
    how.clip_skip = 0;
    if (!status && d->guided)
        status = encode(d, d->negatives + from, count, how, &away);
    if (status)
        return status;
    d->cond.encoder_hidden_states = own.hidden;
    d->cond.text_embeds = own.pooled;
    d->cond.encoder_attention_mask = own.mask;
    for (int64_t i = 0; d->guided && i < count; i++) {
        if (!negative_is_zero(d, from + i))
            continue;
        memset(away.hidden + (size_t)i * away.hidden_size, 0, away.hidden_size * sizeof(float));
        if (away.pooled)
            memset(away.pooled + (size_t)i * away.pooled_size, 0, away.pooled_size * sizeof(float));
    }
    if (d->guided) {
        d->negative.encoder_hidden_states = away.hidden;
        d->negative.text_embeds = away.pooled;
        d->negative.encoder_attention_mask = away.mask;
    }
    return set_numbers(d, count);
}

/* ---- drawing ---- */

/* The pictures of d->base on, whose conditions are set: latents are sampled and handed on. */
static ht_status sample(drawing *d)
{
    const ht_draw_options *o = d->o;
    ht_sample_options s = o->sample;
    ht_start start = {.first = first_index(d), .n = d->together, .arena = d->arena};
    ht_sample_extras extras = {.steps_twice = d->guided && !d->texts, /* as diffusers draws for classes */
                               .glance = o->preview ? show : NULL,
                               .glance_user = d,
                               .one_draw = all_apart(d)};
    bool has_cond = d->cond.class_labels || d->cond.encoder_hidden_states || d->cond.class_embeddings;
    ht_status status = HT_OK;
    s.cond = has_cond ? &d->cond : NULL;
    s.negative = d->guided ? &d->negative : NULL;
    s.guidance = d->guidance;
    s.each = d->texts ? d->each : 0;
    s.deliver = hand_on;
    s.progress = go_on;
    s.user = d;
    if (s.rng != HT_RNG_PHILOX && !s.total)
        s.total = d->first + d->n;
    if (o->init) {
        ht_sample_options numbered = s;
        numbered.each = extras.one_draw ? 0 : s.each;
        status = ht_start_make(d->p, o, &numbered, &start);
        s.noise = start.noise;
        extras.init = start.init;
        extras.mask = start.mask;
        extras.extra = start.extra;
        extras.extra_channels = start.extra ? d->p->latent_channels + 1 : 0;
        extras.noise = &start.generator;
        extras.skip = start.skip;
        extras.from_init = start.from_init;
    }
    extras.shallow = d->p->shallow;
    extras.interval = o->cache_interval;
    if (!status)
        status = ht_sample_with(d->p->session, &s, &extras, first_index(d), d->together, NULL);
    return d->failed ? ht_fail(d->failed, "%s", d->message) : status;
}

/* Images of the model at a time. */
static int model_batch(const drawing *d)
{
    int batch = d->p->options.batch ? d->p->options.batch : 1;
    if (d->n < batch)
        batch = d->n ? (int)d->n : 1;
    return d->guided ? 2 * batch : batch;
}

static int branch_of(const drawing *d)
{
    return d->o->cache_interval > 1 ? d->o->cache_branch : -1;
}

/* Prompts from..from+count-1, which have so many chunks at most. */
static ht_status draw_prompts(drawing *d, int64_t from, int64_t count, int64_t chunks)
{
    d->arena = ht_arena_create();
    d->base = from * d->each;
    d->together = count * d->each;
    ht_status status = d->arena ? set_prompts(d, from, count, chunks) : HT_ERR_MEMORY;
    if (!status)
        status =
            ht_pipeline_need_session(d->p, (int)(chunks * ht_texts_length(d->p->texts)), model_batch(d), branch_of(d));
    if (!status)
        status = sample(d);
    ht_arena_free(d->arena);
    return status;
}

static ht_status draw_all_prompts(drawing *d)
{
    int64_t most = 1, prompts = d->o->prompts;
    ht_status status = HT_OK;
    if (d->o->sample.rng != HT_RNG_PHILOX) {
        for (int64_t i = 0; i < prompts; i++)
            most = chunks_of(d, i) > most ? chunks_of(d, i) : most;
        return draw_prompts(d, 0, prompts, most);
    }
    for (int64_t at = 0, end; !status && at < prompts; at = end) {
        for (end = at + 1; end < prompts && end - at < MOST_PROMPTS && chunks_of(d, end) == chunks_of(d, at);)
            end++;
        status = draw_prompts(d, at, end - at, chunks_of(d, at));
    }
    return status;
}

/* Away from a class is towards none: the null class, of every picture. */
static ht_status set_null_class(drawing *d)
{
    float *labels = ht_alloc_array(d->arena, (size_t)d->n, sizeof *labels);
    if (!labels)
        return HT_ERR_MEMORY;
    for (int64_t i = 0; i < d->n; i++)
        labels[i] = (float)(d->p->denoiser->info.num_classes - 1);
    d->negative.class_labels = labels;
    return HT_OK;
}

static ht_status draw_classes(drawing *d)
{
    d->arena = ht_arena_create();
    d->together = d->n;
    ht_status status = d->arena ? HT_OK : HT_ERR_MEMORY;
    d->cond.class_labels = d->o->sample.cond ? d->o->sample.cond->class_labels : NULL;
    if (!status && d->guided)
        status = set_null_class(d);
    if (!status)
        status = ht_pipeline_need_session(d->p, 0, model_batch(d), branch_of(d));
    if (!status)
        status = sample(d);
    ht_arena_free(d->arena);
    return status;
}

/* ---- what is asked ---- */

static ht_status check(const drawing *d)
{
    const ht_draw_options *o = d->o;
    const char *path = d->p->denoiser->path;
    bool takes = d->p->denoiser->info.cross_attention_dim > 0;
    if (takes && !d->p->texts)
        return ht_fail(HT_ERR_UNSUPPORTED,
                       "%s: takes prompts, and has no tokenizer and text encoder that this version "
                       "reads",
                       path);
    if (takes && (o->prompts < 1 || !o->prompt))
        return ht_fail(HT_ERR_ARGUMENT, "%s: needs a prompt", path);
    if (!takes && o->prompts)
        return ht_fail(HT_ERR_ARGUMENT, "%s: takes no prompt", path);
    if (d->first < 0 || d->n < 0 || d->n > INT64_MAX / 2 / HT_MAX_TRAIN_TIMESTEPS || (takes && d->n % o->prompts))
        return ht_fail(HT_ERR_ARGUMENT, "images %lld, %lld of them for %lld prompts: wanted as many for each",
                       (long long)d->first, (long long)d->n, (long long)o->prompts);
    if (o->cache_interval < 0 || o->cache_branch < 0)
        return ht_fail(HT_ERR_ARGUMENT, "a cache of interval %d at branch %d: wanted 0 and more", o->cache_interval,
                       o->cache_branch);
    if (d->p->autoencoder && (o->tile < 0 || o->tile % (4 * d->p->factor)))
        return ht_fail(HT_ERR_ARGUMENT, "tiles of %d pixels: wanted a multiple of %d", o->tile, 4 * d->p->factor);
    if (!d->images && !o->sample.deliver && d->n)
        return ht_fail(HT_ERR_ARGUMENT, "images go nowhere: give an array for them, or a function to deliver them to");
    return ht_start_check(d->p, o);
}

ht_status ht_pipeline_draw(ht_pipeline *p, const ht_draw_options *options, int64_t first, int64_t n, float *images)
{
    static const ht_draw_options defaults;
    drawing d = {.p = p, .o = options ? options : &defaults, .first = first, .n = n, .images = images};
    size_t size = (size_t)p->h * (size_t)p->w * (size_t)p->factor * (size_t)p->factor * (size_t)p->channels;
    bool distilled = p->denoiser->info.timestep_cond_dim > 0;
    d.guidance = d.o->sample.guidance;
    if (!isnan(d.guidance) && !(d.guidance < 0) && !(d.guidance > 0))
        d.guidance = ht_pipeline_guidance(p);
    d.guided = (p->texts || p->denoiser->info.null_class) && !d.o->no_guidance && !distilled && !(d.guidance <= 1);
    d.each = d.o->prompts > 0 ? n / d.o->prompts : n;
    ht_status status = check(&d);
    if (status)
        return status;
    d.picture = malloc(size * sizeof *d.picture);
    if (!d.picture)
        status = ht_fail(HT_ERR_MEMORY, "out of memory for a picture");
    if (!status && d.o->preview)
        status = ht_glances_open(p, d.o->preview_model, &d.glances);
    if (!status && p->texts)
        status = ht_texts_set_length(p->texts, d.o->max_sequence_length);
    if (!status && p->texts)
        status = read_texts(&d);
    if (!status)
        status = p->texts ? draw_all_prompts(&d) : draw_classes(&d);
    for (int64_t i = 0; d.texts && d.negatives && i < d.o->prompts; i++) {
        ht_text_free(&d.texts[i]);
        ht_text_free(&d.negatives[i]);
    }
    free(d.texts);
    free(d.negatives);
    ht_glances_close(d.glances);
    free(d.picture);
    return status;
}
