/* sweep_images.c - what the models of a sweep draw: images of the model of floats, once for each noise, in a file that
 * later cells and runs find, and those of the cell at hand. */
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/ranks.h"
#include "cli/sweep.h"
#include "core/safetensors.h"

/* What draws: a denoiser whose samples are pictures, or a pipeline that makes pictures of latents. */
typedef struct drawer {
    ht_session *session;
    ht_pipeline *pipeline;
    double guidance;
} drawer;

static ht_status draw_with(const drawer *d, const ht_sample_options *options, int64_t first, int64_t n, float *images)
{
    if (d->session)
        return ht_sample(d->session, options, first, n, images);
    ht_draw_options how = {.sample = *options, .no_guidance = !(d->guidance > 1)};
    how.sample.guidance = d->guidance;
    return ht_pipeline_draw(d->pipeline, &how, first, n, images);
}

static ht_status open_drawer(const sweep_images *m, ht_model *model, const char *path, const sample_settings *s,
                             drawer *d)
{
    ht_session_options how = {.batch = (int)(s->n < m->settings->batch ? s->n : m->settings->batch),
                              .threads = (int)m->settings->threads,
                              .height = m->size[0],
                              .width = m->size[1]};
    ht_model_info info;
    ht_pipeline_info pictures;
    ht_model_get_info(model, &info);
    *d = (drawer){0};
    if (!info.decoder)
        return ht_session_open(model, &how, &d->session);
    ht_status status = ht_pipeline_open(path, &how, &d->pipeline);
    if (status)
        return status;
    ht_pipeline_get_info(d->pipeline, &pictures);
    d->guidance = isnan(s->guidance) ? pictures.guidance : s->guidance;
    return HT_OK;
}

static void close_drawer(drawer *d)
{
    ht_session_close(d->session);
    ht_pipeline_close(d->pipeline);
}

/* All images, or this rank's share, which rank 0 gathers. */
static ht_status sample(const sweep_images *m, const drawer *d, const ht_sample_options *all, const sample_settings *s,
                        float *images)
{
    int64_t first = 0, n = m->together ? ranks_share(s->n, &first) : s->n;
    size_t values = (size_t)m->size[0] * (size_t)m->size[1] * (size_t)m->size[2];
    const ht_cond cond = {.class_labels = all->cond ? all->cond->class_labels + first : NULL};
    ht_sample_options options = *all;
    ht_status status = HT_OK;
    options.cond = all->cond ? &cond : NULL;
    if (!options.total && options.rng != HT_RNG_PHILOX)
        options.total = s->first + s->n;
    if (n)
        status = draw_with(d, &options, s->first + first, n, images + (size_t)first * values);
    if (!status && m->together && ranks_gather(images, s->n, values * sizeof *images))
        status = ht_fail(HT_ERR_CANCELLED, "stopped while images were gathered");
    return status;
}

ht_status sweep_images_draw(sweep_images *m, ht_model *model, const char *path, const sample_settings *s, float *images,
                            double *seconds)
{
    drawer d;
    float *labels = s->classes.count ? calloc((size_t)s->n, sizeof *labels) : NULL;
    const ht_cond cond = {.class_labels = labels};
    for (int64_t i = 0; labels && i < s->n; i++)
        labels[i] = (float)s->classes.value[(s->first + i) % s->classes.count];
    ht_sample_options options = {.steps = (int)s->steps,
                                 .sampler = s->sampler,
                                 .spacing = s->spacing,
                                 .eta = s->eta,
                                 .guidance_channels = (int)s->guidance_channels,
                                 .seed = s->seed,
                                 .rng = sample_rng(s->rng),
                                 .total = s->total,
                                 .cond = labels ? &cond : NULL,
                                 .progress = m->progress,
                                 .user = m->user};
    ht_status status = open_drawer(m, model, path, s, &d);
    double start = seconds_now();
    if (!status)
        status = sample(m, &d, &options, s, images);
    *seconds = seconds_now() - start;
    close_drawer(&d);
    free(labels);
    return status;
}

/* The images that lie in the file; false: there are none of this size. */
static bool read_images(sweep_images *m)
{
    ht_safetensors *file;
    if (access(m->path, R_OK) || ht_safetensors_open(m->path, &file))
        return false;
    const ht_tensor *t = ht_safetensors_find(file, "images");
    const char *seconds = ht_safetensors_metadata(file, "seconds");
    bool found = t && t->dtype == HT_F32 && t->count == m->count;
    if (found)
        memcpy(m->reference, t->data, t->bytes);
    m->reference_seconds = seconds ? strtod(seconds, NULL) : NAN;
    ht_safetensors_close(file);
    return found;
}

static ht_status write_images(const sweep_images *m)
{
    char seconds[32];
    snprintf(seconds, sizeof seconds, "%.3f", m->reference_seconds);
    ht_tensor t = {.name = "images",
                   .dtype = HT_F32,
                   .ndim = 4,
                   .shape = {m->n, m->size[0], m->size[1], m->size[2]},
                   .data = m->reference,
                   .count = m->count,
                   .bytes = m->count * sizeof(float)};
    return ht_safetensors_write(m->path, &t, 1, &(ht_metadata){"seconds", seconds}, 1);
}

static ht_status find_picture_size(sweep_images *m, const ht_session_options *how)
{
    ht_pipeline *pipeline;
    ht_pipeline_info info;
    ht_status status = ht_pipeline_open(m->settings->model, how, &pipeline);
    if (status)
        return status;
    ht_pipeline_get_info(pipeline, &info);
    ht_pipeline_close(pipeline);
    m->size[0] = info.height;
    m->size[1] = info.width;
    m->size[2] = info.channels;
    return HT_OK;
}

static ht_status find_size(sweep_images *m, const sample_settings *s)
{
    ht_session *session;
    ht_session_info info;
    ht_model_info model;
    ht_session_options how = {.height = s->size.height, .width = s->size.width, .threads = (int)m->settings->threads};
    ht_model_get_info(m->model, &model);
    if (model.decoder)
        return find_picture_size(m, &how);
    ht_status status = ht_session_open(m->model, &how, &session);
    if (status)
        return status;
    ht_session_get_info(session, &info);
    ht_session_close(session);
    m->size[0] = info.height;
    m->size[1] = info.width;
    m->size[2] = model.in_channels;
    return HT_OK;
}

ht_status sweep_images_find(sweep_images *m, const sample_settings *s, const char *key, bool *found)
{
    *found = !strcmp(m->drawing, key);
    if (*found)
        return HT_OK;
    m->drawing[0] = '\0';
    ht_status status = find_size(m, s);
    if (status)
        return status;
    m->n = s->n;
    free(m->reference);
    free(m->drawn);
    m->reference = m->drawn = NULL;
    if (!ht_mul_size((size_t)m->n, (size_t)m->size[0] * (size_t)m->size[1] * (size_t)m->size[2], &m->count) ||
        !(m->reference = calloc(m->count, sizeof(float))) || !(m->drawn = calloc(m->count, sizeof(float))))
        return ht_fail(HT_ERR_MEMORY, "out of memory for twice %" PRId64 " images", m->n);
    if (snprintf(m->path, sizeof m->path, "%s/float-%s.safetensors", m->settings->output, key) >= (int)sizeof m->path)
        return ht_fail(HT_ERR_ARGUMENT, "%s: the name is too long", m->settings->output);
    *found = read_images(m);
    if (*found)
        memcpy(m->drawing, key, SWEEP_KEY);
    return HT_OK;
}

ht_status sweep_images_make(sweep_images *m, const sample_settings *s, const char *key)
{
    ht_status status = sweep_images_draw(m, m->model, m->settings->model, s, m->reference, &m->reference_seconds);
    if (!status && !ranks_index())
        status = write_images(m);
    if (!status)
        memcpy(m->drawing, key, SWEEP_KEY);
    return status;
}

void sweep_images_close(sweep_images *m)
{
    free(m->reference);
    free(m->drawn);
}
