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

/* What each image of a range takes besides noise, in turn. */
typedef struct turns {
    float *labels;      /* [n]; NULL: no classes */
    const char **texts; /* [n]; NULL: no prompts */
} turns;

static ht_status take_turns(const sweep_images *m, const sample_settings *s, int64_t at, int64_t n, turns *t)
{
    const option_ints *classes = &s->classes;
    *t = (turns){.labels = classes->count ? calloc((size_t)n + 1, sizeof *t->labels) : NULL,
                 .texts = m->prompts->n ? calloc((size_t)n + 1, sizeof *t->texts) : NULL};
    if ((classes->count && !t->labels) || (m->prompts->n && !t->texts))
        return ht_fail(HT_ERR_MEMORY, "out of memory for the conditions of %" PRId64 " images", n);
    for (int64_t i = 0; i < n; i++) {
        if (t->labels)
            t->labels[i] = (float)classes->value[(s->first + at + i) % classes->count];
        if (t->texts)
            t->texts[i] = m->prompts->text[(s->first + at + i) % m->prompts->n];
    }
    return HT_OK;
}

/* All images, or this rank's share, which rank 0 gathers. */
static ht_status draw(const sweep_images *m, ht_pipeline *pipeline, const sample_settings *s, float *images)
{
    int64_t at = 0, n = m->together ? ranks_share(s->n, &at) : s->n;
    size_t values = (size_t)m->size[0] * (size_t)m->size[1] * (size_t)m->size[2];
    turns t;
    ht_status status = take_turns(m, s, at, n, &t);
    const ht_cond cond = {.class_labels = t.labels};
    ht_draw_options options = sample_draw_options(s);
    options.sample.cond = t.labels ? &cond : NULL;
    options.sample.progress = m->progress;
    options.sample.user = m->user;
    options.prompts = t.texts ? n : 0;
    options.prompt = t.texts;
    options.own_noise = 1;
    if (!options.sample.total && options.sample.rng != HT_RNG_PHILOX)
        options.sample.total = s->first + s->n;
    if (!status && n)
        status = ht_pipeline_draw(pipeline, &options, s->first + at, n, images + (size_t)at * values);
    free(t.labels);
    free(t.texts);
    if (!status && m->together && ranks_gather(images, s->n, values * sizeof *images))
        status = ht_fail(HT_ERR_CANCELLED, "stopped while images were gathered");
    return status;
}

ht_status sweep_images_draw(sweep_images *m, const char *model, const sample_settings *s, float *images,
                            double *seconds)
{
    ht_session_options how = run_session_options(&m->settings->run);
    how.batch = (int)(s->n < m->settings->batch ? s->n : m->settings->batch);
    how.height = m->size[0];
    how.width = m->size[1];
    ht_pipeline *pipeline = NULL;
    ht_status status = ht_pipeline_open(model, &how, &pipeline);
    double start = seconds_now();
    if (!status)
        status = draw(m, pipeline, s, images);
    *seconds = seconds_now() - start;
    ht_pipeline_close(pipeline);
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

static ht_status find_size(sweep_images *m, const sample_settings *s)
{
    ht_pipeline *pipeline;
    ht_pipeline_info info;
    ht_session_options how = run_session_options(&m->settings->run);
    how.height = s->size.height;
    how.width = s->size.width;
    ht_status status = ht_pipeline_open(m->settings->model, &how, &pipeline);
    if (status)
        return status;
    ht_pipeline_get_info(pipeline, &info);
    ht_pipeline_close(pipeline);
    m->size[0] = info.height;
    m->size[1] = info.width;
    m->size[2] = info.channels;
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
    ht_status status = sweep_images_draw(m, m->settings->model, s, m->reference, &m->reference_seconds);
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
