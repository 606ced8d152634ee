/* session_run.c - running a compiled model: the {t} stage into a table with a row per timestep, the {cond} stage once
 * per batch, then steps. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "sampler/session_private.h"

const ht_model *ht_session_model(const ht_session *s)
{
    return s->model;
}

int ht_session_batch(const ht_session *s)
{
    return s->batch;
}

int ht_session_height(const ht_session *s)
{
    return s->height;
}

int ht_session_width(const ht_session *s)
{
    return s->width;
}

static ht_status grow_table(ht_session *s, int rows)
{
    size_t bytes;
    if (!ht_mul_size((size_t)rows, s->row_bytes ? s->row_bytes : 1, &bytes))
        return ht_fail(HT_ERR_MEMORY, "out of memory for a table of %d timesteps", rows);
    float *timesteps = realloc(s->timesteps, (size_t)rows * sizeof *timesteps);
    if (!timesteps)
        return ht_fail(HT_ERR_MEMORY, "out of memory for %d timesteps", rows);
    s->timesteps = timesteps;
    char *table = s->backend->alloc(s->program, bytes);
    if (!table)
        return HT_ERR_MEMORY;
    s->backend->free(s->program, s->table);
    s->table = table;
    s->table_rows = rows;
    return HT_OK;
}

static ht_status run(ht_session *s, ht_stage stage, int n, int row)
{
    return s->backend->run(s->program, stage, n, s->table + (size_t)row * s->row_bytes);
}

ht_status ht_session_set_timesteps(ht_session *s, int n, const float *timesteps)
{
    if (n == s->rows && !memcmp(s->timesteps, timesteps, (size_t)n * sizeof *timesteps))
        return HT_OK; /* the table has them */
    s->rows = 0;
    ht_status status = n > s->table_rows ? grow_table(s, n) : HT_OK;
    if (status)
        return status;
    memcpy(s->timesteps, timesteps, (size_t)n * sizeof *timesteps);
    for (int row = 0; !status && row < n; row++) {
        status = s->backend->upload(s->program, s->timestep, &timesteps[row], 1);
        if (!status)
            status = run(s, HT_STAGE_T, s->batch, row);
    }
    s->rows = status ? 0 : n;
    return status;
}

static ht_status check_labels(const ht_denoiser_info *info, int64_t n, const float *labels)
{
    int last = info->num_classes - 1;
    for (int64_t i = 0; i < n; i++) {
        double label = labels[i];
        if (info->class_timestep && isfinite(label))
            continue;
        if (info->class_timestep)
            return ht_fail(HT_ERR_ARGUMENT, "class %g of image %lld is not a finite number", label, (long long)i);
        if (!(label >= 0 && label <= last))
            return ht_fail(HT_ERR_ARGUMENT, "class %.9g is out of range; this model has classes 0 to %d", label, last);
        if (label != floor(label))
            return ht_fail(HT_ERR_ARGUMENT, "class %.9g is not whole; this model has classes 0 to %d", label, last);
    }
    return HT_OK;
}

int64_t ht_session_numbers(const ht_session *s, int condition)
{
    const ht_condition *c = &ht_conditions[condition];
    return (int64_t)ht_condition_width(c, &s->model->info) * (c->per_token ? s->tokens : 1);
}

static ht_status check_rows(const ht_session *s, int condition, int64_t n, const float *rows)
{
    const ht_condition *c = &ht_conditions[condition];
    const char *path = s->model->path;
    int64_t per_image = ht_session_numbers(s, condition);
    if (rows && !s->conditions[condition])
        return ht_fail(HT_ERR_ARGUMENT, "%s: this model takes no %s", path, c->name);
    if (!rows && s->conditions[condition] && !c->optional)
        return ht_fail(HT_ERR_ARGUMENT, "%s: this model needs %s of %lld numbers an image", path, c->words,
                       (long long)per_image);
    for (int64_t i = 0; rows && i < n * per_image; i++)
        if (!isfinite(rows[i]))
            return ht_fail(HT_ERR_ARGUMENT, "%s of image %lld has values that are not finite", c->name,
                           (long long)(i / per_image));
    return HT_OK;
}

ht_status ht_session_check_cond(const ht_session *s, int64_t n, const ht_cond *cond)
{
    static const ht_cond none;
    const char *path = s->model->path;
    ht_status status = HT_OK;
    cond = cond ? cond : &none;
    if (cond->class_labels && !s->class_labels)
        return ht_fail(HT_ERR_ARGUMENT, "%s: this model takes no class labels", path);
    if (s->class_labels && !cond->class_labels)
        return ht_fail(HT_ERR_ARGUMENT, "%s: this model needs a class for each image", path);
    for (int i = 0; !status && i < HT_CONDITIONS; i++)
        status = check_rows(s, i, n, ht_condition_rows(&ht_conditions[i], cond));
    return !status && s->class_labels ? check_labels(&s->model->info, n, cond->class_labels) : status;
}

ht_cond ht_session_cond_from(const ht_session *s, const ht_cond *cond, int64_t at)
{
    ht_cond rows = cond ? *cond : (ht_cond){0};
    if (rows.class_labels)
        rows.class_labels += at;
    for (int i = 0; i < HT_CONDITIONS; i++) {
        const float *of_all = ht_condition_rows(&ht_conditions[i], &rows);
        if (of_all)
            ht_condition_set_rows(&ht_conditions[i], &rows, of_all + at * ht_session_numbers(s, i));
    }
    return rows;
}

ht_status ht_session_set_cond(ht_session *s, int n, const ht_cond *cond)
{
    ht_status status = ht_session_check_cond(s, n, cond);
    if (!status && s->class_labels)
        status = s->backend->upload(s->program, s->class_labels, cond->class_labels, n);
    for (int i = 0; !status && i < HT_CONDITIONS; i++) {
        const float *rows = cond ? ht_condition_rows(&ht_conditions[i], cond) : NULL;
        if (s->conditions[i])
            status = s->backend->upload(s->program, s->conditions[i], rows ? rows : s->ones, n);
    }
    if (status)
        return status;
    s->n = n;
    return run(s, HT_STAGE_COND, n, 0);
}

ht_status ht_session_step(ht_session *s, int row, const float *x, float *out)
{
    ht_status status = s->backend->upload(s->program, s->sample, x, s->n);
    if (!status)
        status = s->backend->upload(s->program, s->timestep, &s->timesteps[row], 1);
    if (!status)
        status = run(s, HT_STAGE_T_COND, s->n, row);
    if (!status)
        status = run(s, HT_STAGE_STEP, s->n, row);
    return status ? status : s->backend->download(s->program, ht_graph_output(s->graph), out, s->n);
}

int64_t ht_session_cached_count(const ht_session *s)
{
    return s->cached ? ht_value_count(s->cached) / s->batch : 0;
}

ht_status ht_session_read_cached(ht_session *s, float *out)
{
    return s->backend->download(s->program, s->cached, out, s->n);
}

ht_status ht_session_give_cached(ht_session *s, const float *cached)
{
    return s->backend->upload(s->program, s->cached, cached, s->n);
}

const ht_graph *ht_session_graph(const ht_session *s)
{
    return s->graph;
}

int64_t ht_session_value_count(const ht_session *s, const ht_value *v)
{
    return v->batched ? ht_value_count(v) / v->shape[0] * s->n : ht_value_count(v);
}

ht_status ht_session_read(ht_session *s, const ht_value *v, float *out)
{
    return s->backend->download(s->program, v, out, s->n);
}

const float *ht_session_tap(const ht_session *s, const char *name, int64_t *count)
{
    const ht_value *v = ht_graph_find(s->graph, name);
    if (!v || !v->tapped || s->backend->download(s->program, v, s->tap, s->n))
        return NULL;
    *count = ht_value_count(v) / (v->batched ? s->batch : 1) * (v->batched ? s->n : 1);
    return s->tap;
}

/* The images from `at` on that share a timestep, a batch at most. */
static int same_timestep(const ht_session *s, int64_t at, int64_t n, const float *t)
{
    int count = 1;
    while (count < s->batch && at + count < n && t[at + count] == t[at])
        count++;
    return count;
}

ht_status ht_predict(ht_session *s, int64_t n, const float *x, const float *t, const ht_cond *cond, float *out)
{
    const ht_denoiser_info *info = &s->model->info;
    int64_t pixels = (int64_t)s->height * s->width;
    ht_status status = ht_session_check_cond(s, n, cond);
    for (int64_t i = 0; !status && i < n; i++)
        if (!isfinite(t[i]))
            status = ht_fail(HT_ERR_ARGUMENT, "timestep %lld is not a number", (long long)i);
    for (int64_t at = 0, count; !status && at < n; at += count) {
        ht_cond part = ht_session_cond_from(s, cond, at);
        count = same_timestep(s, at, n, t);
        status = ht_session_set_timesteps(s, 1, t + at);
        if (!status)
            status = ht_session_set_cond(s, (int)count, &part);
        if (!status)
            status = ht_session_step(s, 0, x + at * pixels * info->in_channels, out + at * pixels * info->out_channels);
    }
    return status;
}
