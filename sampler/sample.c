/* sample.c - from noise to images: the sampling loop over a session.
 *
 * Batches go through all steps one after the other, so the table of conditions is made once a batch, and a batch's
 * images are delivered before the next one starts.  Only a stochastic sampler on a torch generator walks all images in
 * step with one another: there one draw covers every image of the call, step by step.  The state of an image is its
 * place in the caller's array, or, where the caller gave none, in one that is as long as what walks together; nothing
 * is allocated once the loop runs. */
#include <math.h>
#include <string.h>

#include "sampler/noise.h"
#include "sampler/session.h"
#include "sampler/trajectory.h"

enum { DEFAULT_STEPS = 50 };

typedef struct run {
    ht_session *session;
    const ht_sample_options *options;
    ht_trajectory trajectory;
    ht_noise noise;
    int64_t first, n, done;
    int64_t conditioned; /* the image at which the batch of the last ht_session_set_cond began; -1: none */
    size_t pixels;
    int channels, output_channels;
    int64_t group; /* images that walk together, a batch or all */
    float *images; /* [n, pixels, channels]: the caller's, or NULL */
    float *room;   /* [group, pixels, channels] if there is no such array */
    float *output; /* [batch, pixels, output_channels] */
    float *z, *x0; /* [pixels, channels] */
} run;

static size_t image_size(const run *r)
{
    return r->pixels * (size_t)r->channels;
}

/* The state of image k, 0 .. n-1. */
static float *state_of(const run *r, int64_t k)
{
    return r->images ? r->images + (size_t)k * image_size(r) : r->room + (size_t)(k % r->group) * image_size(r);
}

static bool all_finite(size_t n, const float *x)
{
    bool all = true;
    for (size_t i = 0; i < n; i++)
        all &= fabsf(x[i]) <= 3.402823466e38f;
    return all;
}

/* ---- one step of one batch ---- */

static ht_status step_images(run *r, int i, int64_t at, int count)
{
    const ht_step_row *row = &r->trajectory.rows[i];
    bool draws = row->noise != HT_NOISE_NONE;
    size_t size = image_size(r);
    for (int k = 0; k < count; k++) {
        float *x = state_of(r, at + k);
        if (draws)
            ht_noise_image(&r->noise, (uint64_t)(r->first + at + k), r->z);
        ht_trajectory_step(&r->trajectory, i,
                           &(ht_step_image){.pixels = r->pixels,
                                            .channels = r->channels,
                                            .x = x,
                                            .output = r->output + (size_t)k * r->pixels * (size_t)r->output_channels,
                                            .output_channels = r->output_channels,
                                            .noise = draws ? r->z : NULL,
                                            .scratch = r->x0});
        if (!all_finite(size, x))
            return ht_fail(
                HT_ERR_FORMAT,
                "%s: image %lld is not finite after step %d of %d (timestep %g); are the weights damaged, or is the "
                "scheduler configuration another model's?",
                ht_session_model(r->session)->path, (long long)(r->first + at + k), i + 1, r->trajectory.n,
                (double)row->timestep);
    }
    return HT_OK;
}

static ht_status step_batch(run *r, int i, int64_t at, int count)
{
    ht_cond rows = ht_session_cond_from(r->session, r->options->cond, at);
    ht_status status = r->conditioned == at ? HT_OK : ht_session_set_cond(r->session, count, &rows);
    if (!status) {
        r->conditioned = at;
        status = ht_session_step(r->session, i, state_of(r, at), r->output);
    }
    if (!status)
        status = step_images(r, i, at, count);
    if (status)
        return status;
    r->done += count;
    if (r->options->progress && r->options->progress(r->options->user, r->done, r->n * r->trajectory.n))
        return ht_fail(HT_ERR_CANCELLED, "sampling was cancelled after %lld of %lld model evaluations",
                       (long long)r->done, (long long)(r->n * r->trajectory.n));
    return HT_OK;
}

/* ---- all of it ---- */

/* Images begin .. end-1, together from step to step. */
static ht_status walk(run *r, int64_t begin, int64_t end)
{
    int batch = ht_session_batch(r->session);
    for (int i = 0; i < r->trajectory.n; i++) {
        if (r->trajectory.rows[i].noise != HT_NOISE_NONE)
            ht_noise_turn(&r->noise, 1 + (uint32_t)i);
        for (int64_t at = begin; at < end; at += batch) {
            ht_status status = step_batch(r, i, at, (int)(end - at < batch ? end - at : batch));
            if (status)
                return status;
        }
    }
    return HT_OK;
}

/* What images begin .. end-1 start from. */
static void start(run *r, int64_t begin, int64_t end)
{
    size_t size = image_size(r);
    for (int64_t k = begin; k < end; k++) {
        float *x = state_of(r, k);
        if (r->options->noise)
            memmove(x, r->options->noise + (size_t)k * size,
                    size * sizeof *x); /* may be the caller's images themselves */
        else
            ht_noise_image(&r->noise, (uint64_t)(r->first + k), x);
    }
}

static ht_status deliver(const run *r, int64_t begin, int64_t end)
{
    const ht_sample_options *o = r->options;
    for (int64_t k = begin; o->deliver && k < end; k++)
        if (o->deliver(o->user, r->first + k, state_of(r, k)))
            return ht_fail(HT_ERR_CANCELLED, "sampling was cancelled after %lld of %lld images", (long long)k + 1,
                           (long long)r->n);
    return HT_OK;
}

static ht_status walk_all(run *r)
{
    ht_status status = HT_OK;
    for (int64_t at = 0; at < r->n && !status; at += r->group) {
        int64_t end = r->n - at < r->group ? r->n : at + r->group;
        if (!r->options->noise && (!at || r->options->rng == HT_RNG_PHILOX)) /* torch's one draw is there already */
            ht_noise_turn(&r->noise, 0);
        start(r, at, end);
        status = walk(r, at, end);
        if (!status)
            status = deliver(r, at, end);
    }
    return status;
}

/* ---- preparation ---- */

static ht_status check_channels(const run *r)
{
    int in = r->channels, out = r->output_channels;
    const char *path = ht_session_model(r->session)->path;
    if (out != in && out != 2 * in)
        return ht_fail(HT_ERR_UNSUPPORTED, "%s: makes %d channels of %d; a denoiser makes %d, or %d with a variance",
                       path, out, in, in, 2 * in);
    if (r->trajectory.needs_variance && out != 2 * in)
        return ht_fail(HT_ERR_SHAPE, "%s: makes %d channels, but the scheduler's variance_type is learned and wants %d",
                       path, out, 2 * in);
    return HT_OK;
}

static bool draws_at_any_step(const ht_trajectory *trajectory)
{
    for (int i = 0; i < trajectory->n; i++)
        if (trajectory->rows[i].noise != HT_NOISE_NONE)
            return true;
    return false;
}

/* What the caller gave for n images, all of it before the first step. */
static ht_status check_images(const run *r)
{
    const ht_sample_options *o = r->options;
    if (!r->images && !o->deliver && r->n)
        return ht_fail(HT_ERR_ARGUMENT, "images go nowhere: give an array for them, or a function to deliver them to");
    if (o->noise && !all_finite((size_t)r->n * image_size(r), o->noise))
        return ht_fail(HT_ERR_ARGUMENT, "the noise to start from has values that are not finite");
    return ht_session_check_cond(r->session, r->n, o->cond);
}

/* As many images as walk together, where the caller has no array for all. */
static ht_status take_room(run *r, ht_arena *arena)
{
    size_t count;
    if (r->images)
        return HT_OK;
    if (!ht_mul_size((size_t)r->group, image_size(r), &count))
        return ht_fail(HT_ERR_MEMORY, "out of memory for %lld images", (long long)r->group);
    r->room = ht_alloc_array(arena, count, sizeof *r->room);
    return r->room ? HT_OK : HT_ERR_MEMORY;
}

static ht_status take_memory(run *r, ht_arena *arena)
{
    const ht_sample_options *o = r->options;
    int64_t total = o->total ? o->total : r->first + r->n;
    size_t size = image_size(r), all, one = r->pixels * (size_t)r->output_channels;
    if (o->rng != HT_RNG_PHILOX && total < r->first + r->n)
        return ht_fail(HT_ERR_ARGUMENT, "total is %lld, but images up to %lld are wanted", (long long)total,
                       (long long)(r->first + r->n));
    bool together = o->rng != HT_RNG_PHILOX && draws_at_any_step(&r->trajectory) && r->n;
    r->group = together ? r->n : ht_session_batch(r->session);
    if (!ht_mul_size((size_t)ht_session_batch(r->session), one, &all))
        return ht_fail(HT_ERR_MEMORY, "out of memory for the model's output");
    r->output = ht_alloc_array(arena, all, sizeof(float));
    r->z = ht_alloc_array(arena, size, sizeof(float));
    r->x0 = ht_alloc_array(arena, size, sizeof(float));
    if (!r->output || !r->z || !r->x0 || take_room(r, arena))
        return HT_ERR_MEMORY;
    return ht_noise_open(arena, o->rng, o->seed, (size_t[3]){(size_t)total, (size_t)r->channels, r->pixels}, &r->noise);
}

static ht_status set_timesteps(const run *r, ht_arena *arena)
{
    float *t = ht_alloc_array(arena, (size_t)r->trajectory.n, sizeof *t);
    if (!t)
        return HT_ERR_MEMORY;
    for (int i = 0; i < r->trajectory.n; i++)
        t[i] = r->trajectory.rows[i].timestep;
    return ht_session_set_timesteps(r->session, r->trajectory.n, t);
}

ht_status ht_sample(ht_session *session, const ht_sample_options *options, int64_t first, int64_t n, float *images)
{
    static const ht_sample_options defaults;
    const ht_sample_options *o = options ? options : &defaults;
    const ht_model *model = ht_session_model(session);
    run r = {.session = session, .options = o, .first = first, .n = n, .conditioned = -1, .images = images};
    r.pixels = (size_t)ht_session_height(session) * (size_t)ht_session_width(session);
    r.channels = model->info.in_channels;
    r.output_channels = model->info.out_channels;
    ht_trajectory_options how = {
        .sampler = o->sampler, .spacing = o->spacing, .steps = o->steps ? o->steps : DEFAULT_STEPS, .eta = o->eta};
    if (first < 0 || n < 0 || first > INT64_MAX / 2 || n > INT64_MAX / 2 / HT_MAX_TRAIN_TIMESTEPS)
        return ht_fail(HT_ERR_ARGUMENT, "images %lld, %lld of them: wanted counts from 0 on", (long long)first,
                       (long long)n);
    ht_arena *arena = ht_arena_create();
    if (!arena)
        return HT_ERR_MEMORY;
    ht_status status = ht_trajectory_make(arena, &model->schedule, &how, &r.trajectory);
    status = status ? status : check_channels(&r);
    status = status ? status : check_images(&r);
    status = status ? status : take_memory(&r, arena);
    status = status ? status : set_timesteps(&r, arena);
    status = status ? status : walk_all(&r);
    ht_arena_free(arena);
    return status;
}
