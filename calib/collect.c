/* collect.c - the calibration set: trajectories of the float model, and x_t at the steps that the distribution names
 * (Q-Diffusion arXiv:2302.04304 section 3.3.1: what the quantized model will meet is what the sampler makes on its way,
 * not noised images). */
#include "calib/collect.h"

#include <stdio.h>
#include <string.h>

#include "sampler/noise.h"
#include "sampler/trajectory.h"

/* Calibration's trajectories are not those that the same seed samples. */
static const uint64_t SEED_OF_CALIBRATION = 0x63616c6962726174;

typedef struct collector {
    ht_session *session;
    const ht_trajectory *trajectory;
    const ht_calibrate_options *options;
    const int *counts;           /* by step */
    int images, batch, branches; /* batch: images at once; branches: 2 if steps are guided */
    size_t pixels, channels, output_channels;
    float *x, *output, *x0; /* [branches * batch, ...] */
    float *labels;          /* [images], or NULL */
    ht_calibration *out;
    int32_t *context;              /* [samples], or NULL */
    int32_t *rows;                 /* [branches * batch]: contexts of a batch */
    float *row_labels, *condition; /* the same: labels; room for what they take */
    const int64_t *first;          /* by step: the first sample of it */
    float *sample;
    int64_t done, total;
} collector;

/* The context of an image: prompts go round; the second branch has none. */
static int32_t context_of(const collector *c, int image, int branch)
{
    const ht_contexts *all = &c->out->contexts;
    return branch ? all->negative : image % ht_contexts_positive(all);
}

/* Image k goes into the set at every step that takes more than k, once for each branch. */
static void keep(collector *c, int step, int at, int n)
{
    size_t size = c->pixels * c->channels;
    for (int k = 0; k < n; k++)
        for (int branch = 0; branch < c->branches; branch++) {
            int nth = (at + k) * c->branches + branch;
            if (nth >= c->counts[step])
                return;
            size_t to = (size_t)(c->first[step] + nth);
            memcpy(c->sample + to * size, c->x + (size_t)k * size, size * sizeof(float));
            if (c->context)
                c->context[to] = context_of(c, at + k, branch);
        }
}

/* What images at .. at+n-1 take: first of all prompts, then of all no prompt. */
static ht_cond conditions(const collector *c, int at, int n)
{
    ht_cond cond = {0};
    for (int i = 0; c->context && i < n * c->branches; i++)
        c->rows[i] = context_of(c, at + i % n, i / n);
    if (c->context)
        cond = ht_contexts_cond(&c->out->contexts, c->rows, n * c->branches, c->condition);
    for (int i = 0; c->labels && i < n * c->branches; i++)
        c->row_labels[i] = c->labels[at + i % n];
    if (c->labels)
        cond.class_labels = c->row_labels;
    return cond;
}

/* The model's output for n images, guided: none + guidance (prompt - none). */
static ht_status evaluate(collector *c, int step, int n)
{
    size_t size = c->pixels * c->channels, outputs = (size_t)n * c->pixels * c->output_channels;
    float guidance = (float)c->options->guidance, *none = c->output + outputs;
    if (c->branches == 2)
        memcpy(c->x + (size_t)n * size, c->x, (size_t)n * size * sizeof *c->x);
    ht_status status = ht_session_step(c->session, step, c->x, c->output);
    for (size_t i = 0; c->branches == 2 && i < outputs; i++)
        c->output[i] = none[i] + guidance * (c->output[i] - none[i]);
    return status;
}

static ht_status walk(collector *c, int at, int n)
{
    size_t size = c->pixels * c->channels;
    ht_cond cond = conditions(c, at, n);
    ht_status status = ht_session_set_cond(c->session, n * c->branches, &cond);
    for (int i = 0; !status && i < c->trajectory->n; i++) {
        keep(c, i, at, n);
        status = evaluate(c, i, n);
        for (int k = 0; !status && k < n; k++)
            ht_trajectory_step(c->trajectory, i,
                               &(ht_step_image){.pixels = c->pixels,
                                                .channels = (int)c->channels,
                                                .x = c->x + (size_t)k * size,
                                                .output = c->output + (size_t)k * c->pixels * c->output_channels,
                                                .output_channels = (int)c->output_channels,
                                                .scratch = c->x0});
        c->done += n;
        if (!status && c->options->progress && c->options->progress(c->options->user, c->done, c->total))
            status = ht_fail(HT_ERR_CANCELLED, "calibration was cancelled");
    }
    return status;
}

static ht_status walk_all(collector *c, ht_noise *noise)
{
    ht_status status = HT_OK;
    ht_noise_turn(noise, 0);
    for (int at = 0; !status && at < c->images; at += c->batch) {
        int n = c->images - at < c->batch ? c->images - at : c->batch;
        for (int k = 0; k < n; k++)
            ht_noise_image(noise, (uint64_t)(at + k), c->x + (size_t)k * c->pixels * c->channels);
        status = walk(c, at, n);
    }
    return status;
}

static ht_status set_timesteps(const collector *c, ht_arena *arena)
{
    float *t = ht_alloc_array(arena, (size_t)c->trajectory->n, sizeof *t);
    for (int i = 0; t && i < c->trajectory->n; i++)
        t[i] = (float)c->trajectory->rows[i].timestep;
    return t ? ht_session_set_timesteps(c->session, c->trajectory->n, t) : HT_ERR_MEMORY;
}

/* The steps that give samples become the groups of the calibration; those of one timestep, which DDIM's quad spacing
 * can visit twice, become one. */
static ht_status name_groups(ht_arena *arena, const ht_trajectory *trajectory, const int *counts, ht_calibration *out,
                             int64_t **first)
{
    size_t n = (size_t)trajectory->n;
    float *timesteps = ht_alloc_array(arena, n, sizeof *timesteps);
    int *taken = ht_alloc_array(arena, n, sizeof *taken);
    *first = ht_alloc_array(arena, n, sizeof **first);
    if (!timesteps || !taken || !*first)
        return HT_ERR_MEMORY;
    for (size_t i = 0; i < n; i++) {
        (*first)[i] = out->samples;
        if (!counts[i])
            continue;
        float t = (float)trajectory->rows[i].timestep;
        if (!out->groups || t != timesteps[out->groups - 1])
            timesteps[out->groups++] = t;
        taken[out->groups - 1] += counts[i];
        out->samples += counts[i];
    }
    out->timesteps = timesteps;
    out->counts = taken;
    return HT_OK;
}

/* Classes go round the images. */
static ht_status label_images(ht_arena *arena, collector *c, ht_calibration *out)
{
    int classes = ht_session_model(c->session)->info.num_classes;
    float *labels = ht_alloc_array(arena, (size_t)out->samples, sizeof *labels);
    c->labels = ht_alloc_array(arena, (size_t)c->images, sizeof *c->labels);
    c->row_labels = ht_alloc_array(arena, (size_t)c->batch * (size_t)c->branches, sizeof *c->row_labels);
    if (!labels || !c->labels || !c->row_labels)
        return HT_ERR_MEMORY;
    for (int k = 0; k < c->images; k++)
        c->labels[k] = (float)(k % classes);
    int64_t at = 0;
    for (int i = 0; i < c->trajectory->n; i++)
        for (int k = 0; k < c->counts[i]; k++)
            labels[at++] = c->labels[k / c->branches];
    out->class_labels = labels;
    return HT_OK;
}

static ht_status allocate(ht_arena *arena, collector *c, ht_calibration *out)
{
    const ht_model *model = ht_session_model(c->session);
    size_t size = c->pixels * c->channels, all, batch = (size_t)c->batch * (size_t)c->branches;
    if (!ht_mul_size((size_t)out->samples, size, &all))
        return ht_fail(HT_ERR_MEMORY, "out of memory for %lld calibration samples", (long long)out->samples);
    out->sample = c->sample = ht_alloc_array(arena, all, sizeof(float));
    c->x = ht_alloc_array(arena, batch * size, sizeof(float));
    c->output = ht_alloc_array(arena, batch * c->pixels * c->output_channels, sizeof(float));
    c->x0 = ht_alloc_array(arena, size, sizeof(float));
    if (!c->sample || !c->x || !c->output || !c->x0)
        return HT_ERR_MEMORY;
    if (out->contexts.n) {
        out->context = c->context = ht_alloc_array(arena, (size_t)out->samples, sizeof *c->context);
        c->rows = ht_alloc_array(arena, batch, sizeof *c->rows);
        c->condition = ht_alloc_array(arena, ht_contexts_room(&out->contexts, (int)batch), sizeof(float));
        if (!c->context || !c->rows || !c->condition)
            return HT_ERR_MEMORY;
    }
    return model->info.num_classes && !out->contexts.labels ? label_images(arena, c, out) : HT_OK;
}

ht_status ht_calibration_collect(ht_arena *arena, ht_session *session, const ht_calibrate_options *options,
                                 const ht_trajectory *trajectory, const int *counts, ht_calibration *out)
{
    const ht_model *model = ht_session_model(session);
    collector c = {.session = session,
                   .trajectory = trajectory,
                   .options = options,
                   .counts = counts,
                   .out = out,
                   .branches = out->contexts.negative >= 0 && options->guidance > 1 ? 2 : 1,
                   .channels = (size_t)model->info.in_channels,
                   .output_channels = (size_t)model->info.out_channels};
    int64_t *first = NULL;
    ht_noise noise;
    c.batch = ht_session_batch(session) / c.branches;
    c.pixels = (size_t)ht_session_height(session) * (size_t)ht_session_width(session);
    for (int i = 0; i < trajectory->n; i++) {
        int images = (counts[i] + c.branches - 1) / c.branches;
        c.images = images > c.images ? images : c.images;
    }
    ht_status status = name_groups(arena, trajectory, counts, out, &first);
    c.first = first;
    c.total = (int64_t)c.images * trajectory->n + out->samples;
    out->height = ht_session_height(session);
    out->width = ht_session_width(session);
    out->channels = model->info.in_channels;
    if (!status)
        status = allocate(arena, &c, out);
    if (!status)
        status = set_timesteps(&c, arena);
    if (!status)
        status = ht_noise_open(arena, HT_RNG_PHILOX, options->seed ^ SEED_OF_CALIBRATION,
                               (size_t[3]){(size_t)c.images, c.channels, c.pixels}, &noise);
    return status ? status : walk_all(&c, &noise);
}
