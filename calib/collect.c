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
    const int *counts; /* by step */
    int images, batch;
    size_t pixels, channels, output_channels;
    float *x, *output, *x0; /* [batch, ...] */
    float *labels;          /* [images], or NULL */
    const int64_t *first;   /* by step: the first sample of it */
    float *sample;
    int64_t done, total;
} collector;

/* Image k goes into the set at every step that takes more than k. */
static void keep(collector *c, int step, int at, int n)
{
    size_t size = c->pixels * c->channels;
    for (int k = 0; k < n; k++)
        if (at + k < c->counts[step])
            memcpy(c->sample + (size_t)(c->first[step] + at + k) * size, c->x + (size_t)k * size, size * sizeof(float));
}

static ht_status walk(collector *c, int at, int n)
{
    size_t size = c->pixels * c->channels;
    ht_cond cond = {.class_labels = c->labels ? c->labels + at : NULL};
    ht_status status = ht_session_set_cond(c->session, n, &cond);
    for (int i = 0; !status && i < c->trajectory->n; i++) {
        keep(c, i, at, n);
        status = ht_session_step(c->session, i, c->x, c->output);
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

static ht_status allocate(ht_arena *arena, collector *c, ht_calibration *out)
{
    const ht_model *model = ht_session_model(c->session);
    size_t size = c->pixels * c->channels, all, batch = (size_t)c->batch;
    if (!ht_mul_size((size_t)out->samples, size, &all))
        return ht_fail(HT_ERR_MEMORY, "out of memory for %lld calibration samples", (long long)out->samples);
    out->sample = c->sample = ht_alloc_array(arena, all, sizeof(float));
    c->x = ht_alloc_array(arena, batch * size, sizeof(float));
    c->output = ht_alloc_array(arena, batch * c->pixels * c->output_channels, sizeof(float));
    c->x0 = ht_alloc_array(arena, size, sizeof(float));
    if (!c->sample || !c->x || !c->output || !c->x0)
        return HT_ERR_MEMORY;
    if (!model->info.num_classes)
        return HT_OK;
    float *labels = ht_alloc_array(arena, (size_t)out->samples, sizeof *labels);
    c->labels = ht_alloc_array(arena, (size_t)c->images, sizeof *c->labels);
    if (!labels || !c->labels)
        return HT_ERR_MEMORY;
    for (int k = 0; k < c->images; k++)
        c->labels[k] = (float)(k % model->info.num_classes);
    int64_t at = 0;
    for (int i = 0; i < c->trajectory->n; i++)
        for (int k = 0; k < c->counts[i]; k++)
            labels[at++] = c->labels[k];
    out->class_labels = labels;
    return HT_OK;
}

ht_status ht_calibration_collect(ht_arena *arena, ht_session *session, const ht_calibrate_options *options,
                                 const ht_trajectory *trajectory, const int *counts, ht_calibration *out)
{
    const ht_model *model = ht_session_model(session);
    collector c = {.session = session,
                   .trajectory = trajectory,
                   .options = options,
                   .counts = counts,
                   .batch = ht_session_batch(session),
                   .channels = (size_t)model->info.in_channels,
                   .output_channels = (size_t)model->info.out_channels};
    int64_t *first = NULL;
    ht_noise noise;
    c.pixels = (size_t)ht_session_height(session) * (size_t)ht_session_width(session);
    for (int i = 0; i < trajectory->n; i++)
        c.images = counts[i] > c.images ? counts[i] : c.images;
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
