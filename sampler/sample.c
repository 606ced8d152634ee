/* sample.c - from noise to images: the sampling loop over a session.
 *
 * Batches go through all steps one after the other, so the table of conditions is made once a batch (and not again for
 * one with the same conditions), and a batch's images are delivered before the next one starts.  Only a stochastic
 * sampler on a torch generator walks all images in step with one another: there one draw covers every image of the
 * call, step by step.  The state of an image is its place in the caller's array, or, where the caller gave none, in one
 * that is as long as what walks together; nothing is allocated once the loop runs.
 *
 * With guidance a session's batch is half of images with the negative condition, half of the same with their own. */
#include <math.h>
#include <string.h>

#include "sampler/conditions.h"
#include "sampler/guide.h"
#include "sampler/sample.h"
#include "sampler/trajectory.h"

enum { DEFAULT_STEPS = 50 };

typedef struct run {
    ht_session *session;
    const ht_sample_options *options;
    const ht_sample_extras *extras;
    ht_trajectory trajectory;
    ht_noise own_noise, *noise;
    int64_t first, n, done;
    size_t pixels;
    int channels, output_channels;
    int batch;         /* images at a time */
    bool guided;       /* then the model evaluates two of each */
    ht_cond cond;      /* rows of a batch of the model, put together; members NULL where there are none */
    int64_t *cond_row; /* [batch] of the caller's rows, -1: none yet */
    int cond_count;
    int64_t group; /* images that walk together, a batch or all */
    float *images; /* [n, pixels, channels]: the caller's, or NULL */
    float *room;   /* [group, pixels, channels] if there is no such array */
    float *slots;  /* [group, slots, pixels, channels] */
    float *input;  /* [model batch, pixels, channels + extra] */
    float *output; /* [model batch, pixels, output_channels] */
    float *z, *x0; /* [pixels, channels] */
    float *cached; /* [group images of the model, cached_count]; NULL: no cache */
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

/* Its index for the noise, and its row of conditions. */
static uint64_t index_of(const run *r, int64_t k)
{
    bool own = !r->options->each || r->extras->one_draw;
    return (uint64_t)(r->first + (own ? k : k % r->options->each));
}

static int64_t row_of(const run *r, int64_t k)
{
    return r->options->each ? k / r->options->each : k;
}

static bool all_finite(size_t n, const float *x)
{
    bool all = true;
    for (size_t i = 0; i < n; i++)
        all &= fabsf(x[i]) <= 3.402823466e38f;
    return all;
}

/* ---- conditions of a batch ---- */

/* Put rows of the caller's side by side for the model's batch: first those of the negative condition. */
static void gather(run *r, size_t width, float *to, const float *negative, const float *own)
{
    for (int half = r->guided ? 0 : 1; half < 2; half++)
        for (int k = 0; k < r->cond_count; k++, to += width)
            memcpy(to, (half ? own : negative) + (size_t)r->cond_row[k] * width, width * sizeof *to);
}

static ht_status set_conditions(run *r, int64_t at, int count)
{
    const ht_sample_options *o = r->options;
    bool same = count == r->cond_count;
    for (int k = 0; k < count; k++) {
        same &= r->cond_row[k] == row_of(r, at + k);
        r->cond_row[k] = row_of(r, at + k);
    }
    if (same)
        return HT_OK;
    r->cond_count = count;
    if (r->cond.class_labels)
        gather(r, 1, (float *)r->cond.class_labels, r->guided ? o->negative->class_labels : NULL,
               o->cond->class_labels);
    for (int i = 0; i < HT_CONDITIONS; i++) {
        const ht_condition *c = &ht_conditions[i];
        float *to = (float *)ht_condition_rows(c, &r->cond); /* ours: take_conditions */
        if (to)
            gather(r, (size_t)ht_session_numbers(r->session, i), to,
                   r->guided ? ht_condition_rows(c, o->negative) : NULL, ht_condition_rows(c, o->cond));
    }
    int model_count = r->guided ? 2 * count : count;
    ht_status status = ht_session_set_cond(r->session, model_count, &r->cond);
    return status || !r->extras->shallow ? status : ht_session_set_cond(r->extras->shallow, model_count, &r->cond);
}

/* ---- one step of one batch ---- */

/* x as the model reads it: scaled, with further channels, twice if guided. */
static const float *model_input(const run *r, int i, int64_t at, int count)
{
    float scale = r->trajectory.rows[i].scale;
    size_t channels = (size_t)r->channels, extra = (size_t)r->extras->extra_channels, all = channels + extra;
    bool plain = !extra && !r->guided && scale >= 1 && scale <= 1;
    if (plain)
        return state_of(r, at);
    for (int k = 0; k < count; k++) {
        const float *x = state_of(r, at + k);
        float *to = r->input + (size_t)k * r->pixels * all;
        for (size_t p = 0; p < r->pixels; p++, to += all) {
            for (size_t c = 0; c < channels; c++)
                to[c] = scale * x[p * channels + c];
            for (size_t c = 0; c < extra; c++)
                to[channels + c] = r->extras->extra[p * extra + c];
        }
    }
    size_t half = (size_t)count * r->pixels * all;
    if (r->guided)
        memcpy(r->input + half, r->input, half * sizeof *r->input);
    return r->input;
}

/* Where the mask is 0 an image follows init, noised as the next step expects it. */
static void paste(const run *r, int i, int64_t k, float *x)
{
    const ht_sample_extras *e = r->extras;
    size_t channels = (size_t)r->channels;
    bool last = i + 1 == r->trajectory.n;
    const ht_step_row end = {.signal = 1}, *next = last ? &end : &r->trajectory.rows[i + 1];
    const float *noise = r->options->noise + (size_t)k * image_size(r);
    for (size_t p = 0; p < r->pixels; p++)
        for (size_t c = 0, at = p * channels; c < channels; c++, at++)
            x[at] = (1 - e->mask[p]) * (next->signal * e->init[at] + next->sigma * noise[at]) + e->mask[p] * x[at];
}

static ht_status step_image(run *r, int i, int64_t k, const float *output)
{
    const ht_step_row *row = &r->trajectory.rows[i];
    bool draws = row->noise != HT_NOISE_NONE;
    float *x = state_of(r, k);
    if (draws)
        ht_noise_image(r->noise, index_of(r, k), r->z);
    ht_trajectory_step(
        &r->trajectory, i,
        &(ht_step_image){.pixels = r->pixels,
                         .channels = r->channels,
                         .x = x,
                         .output = output,
                         .output_channels = r->output_channels,
                         .noise = draws ? r->z : NULL,
                         .scratch = r->x0,
                         .slots = r->slots + (size_t)(k % r->group) * (size_t)r->trajectory.slots * image_size(r)});
    if (r->extras->mask)
        paste(r, i, k, x);
    if (all_finite(image_size(r), x))
        return HT_OK;
    return ht_fail(HT_ERR_FORMAT,
                   "%s: image %lld is not finite after step %d of %d (timestep %g); are the weights damaged, or is the "
                   "scheduler configuration another model's?",
                   ht_session_model(r->session)->path, (long long)(r->first + k), i + 1, r->trajectory.n,
                   (double)row->timestep);
}

static ht_status step_images(run *r, int i, int64_t at, int count)
{
    const ht_sample_options *o = r->options;
    size_t size = r->pixels * (size_t)r->output_channels;
    const ht_guidance g = {.scale = o->guidance,
                           .rescale = o->guidance_rescale,
                           .pixels = r->pixels,
                           .channels = r->output_channels,
                           .guided = o->guidance_channels ? o->guidance_channels : r->channels};
    ht_status status = HT_OK;
    for (int k = 0; !status && k < count; k++) {
        float *output = r->output + (size_t)k * size;
        if (r->guided)
            ht_guide(&g, output, output + (size_t)count * size);
        status = step_image(r, i, at + k, output);
        if (!status && !k && r->extras->glance)
            r->extras->glance(r->extras->glance_user, i, r->trajectory.n, r->x0);
    }
    return status;
}

/* The model's output.  DeepCache (arXiv:2312.00858, section 3.3): the whole model every `interval` steps, between them
 * with what came up from below then. */
static ht_status evaluate(run *r, int i, int64_t at, int count)
{
    const float *x = model_input(r, i, at, count);
    ht_session *shallow = r->extras->shallow;
    if (!shallow)
        return ht_session_step(r->session, i, x, r->output);
    float *cached =
        r->cached + (size_t)(at % r->group) * (r->guided ? 2 : 1) * (size_t)ht_session_cached_count(shallow);
    bool whole = i % r->extras->interval == 0;
    ht_status status = whole ? HT_OK : ht_session_give_cached(shallow, cached);
    if (!status)
        status = ht_session_step(whole ? r->session : shallow, i, x, r->output);
    return status || !whole ? status : ht_session_read_cached(r->session, cached);
}

static ht_status step_batch(run *r, int i, int64_t at, int count)
{
    ht_status status = set_conditions(r, at, count);
    if (!status)
        status = evaluate(r, i, at, count);
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
    int batch = r->batch;
    for (int i = 0; i < r->trajectory.n; i++) {
        if (r->trajectory.rows[i].noise != HT_NOISE_NONE)
            ht_noise_turn(r->noise, 1 + (uint32_t)i);
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
    const ht_step_row *row = &r->trajectory.rows[0];
    float sigma = r->trajectory.init_noise_sigma;
    for (int64_t k = begin; k < end; k++) {
        float *x = state_of(r, k);
        if (r->options->noise)
            memmove(x, r->options->noise + (size_t)k * size,
                    size * sizeof *x); /* may be the caller's images themselves */
        else
            ht_noise_image(r->noise, index_of(r, k), x);
        if (r->extras->from_init)
            ht_add_noise(row, size, r->extras->init, x, x);
        else if (sigma < 1 || sigma > 1)
            for (size_t i = 0; i < size; i++)
                x[i] *= sigma;
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
            ht_noise_turn(r->noise, 0);
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

/* Conditions, of as many rows as there are for n images. */
static ht_status check_conditions(const run *r)
{
    const ht_sample_options *o = r->options;
    int64_t rows = r->n ? row_of(r, r->n - 1) + 1 : 0;
    ht_status status = ht_session_check_cond(r->session, rows, o->cond);
    if (status || !r->guided)
        return status;
    if (!isfinite(o->guidance) || !(o->guidance_rescale >= 0 && o->guidance_rescale <= 1))
        return ht_fail(HT_ERR_ARGUMENT, "guidance is %g, rescaled by %g; wanted a number, and 0 to 1", o->guidance,
                       o->guidance_rescale);
    if (o->guidance_channels < 0 || o->guidance_channels > r->channels)
        return ht_fail(HT_ERR_ARGUMENT, "guidance_channels is %d; wanted 1 to %d, or 0 for all", o->guidance_channels,
                       r->channels);
    if (ht_session_batch(r->session) < 2)
        return ht_fail(HT_ERR_ARGUMENT, "guidance evaluates every image twice: a session of a batch of 2 at least");
    return ht_session_check_cond(r->session, rows, o->negative);
}

/* What the caller gave for n images, all of it before the first step. */
static ht_status check_images(const run *r)
{
    const ht_sample_options *o = r->options;
    if (!r->images && !o->deliver && r->n)
        return ht_fail(HT_ERR_ARGUMENT, "images go nowhere: give an array for them, or a function to deliver them to");
    if (o->noise && !all_finite((size_t)r->n * image_size(r), o->noise))
        return ht_fail(HT_ERR_ARGUMENT, "the noise to start from has values that are not finite");
    if (o->each < 0 || (o->each && o->rng != HT_RNG_PHILOX && !r->extras->one_draw && r->n > o->each))
        return ht_fail(HT_ERR_ARGUMENT, "each is %lld; wanted 0 and more, and with torch's generators all %lld images",
                       (long long)o->each, (long long)r->n);
    return check_conditions(r);
}

/* Room for the conditions of a batch of the model, as far as it takes them. */
static ht_status take_conditions(run *r, ht_arena *arena)
{
    size_t batch = (size_t)(r->guided ? 2 * r->batch : r->batch);
    const ht_cond *given = r->options->cond;
    r->cond_count = 0;
    r->cond_row = ht_alloc_array(arena, (size_t)r->batch, sizeof *r->cond_row);
    if (!r->cond_row)
        return HT_ERR_MEMORY;
    if (given && given->class_labels && !(r->cond.class_labels = ht_alloc_array(arena, batch, sizeof(float))))
        return HT_ERR_MEMORY;
    for (int i = 0; given && i < HT_CONDITIONS; i++) {
        size_t count;
        if (!ht_condition_rows(&ht_conditions[i], given))
            continue;
        if (!ht_mul_size(batch, (size_t)ht_session_numbers(r->session, i), &count))
            return ht_fail(HT_ERR_MEMORY, "out of memory for the conditions of a batch");
        const float *rows = ht_alloc_array(arena, count, sizeof *rows);
        if (!rows)
            return HT_ERR_MEMORY;
        ht_condition_set_rows(&ht_conditions[i], &r->cond, rows);
    }
    return HT_OK;
}

/* What as many images as walk together keep from step to step, and they themselves where the caller has no array. */
static ht_status take_room(run *r, ht_arena *arena)
{
    size_t count, kept;
    if (!ht_mul_size((size_t)r->group, image_size(r), &count) ||
        !ht_mul_size(count, (size_t)r->trajectory.slots, &kept))
        return ht_fail(HT_ERR_MEMORY, "out of memory for %lld images", (long long)r->group);
    r->slots = ht_alloc_array(arena, kept, sizeof *r->slots);
    if (r->extras->shallow) {
        size_t images = (size_t)r->group * (r->guided ? 2 : 1);
        if (!ht_mul_size(images, (size_t)ht_session_cached_count(r->extras->shallow), &kept))
            return ht_fail(HT_ERR_MEMORY, "out of memory for the cache of %zu images", images);
        r->cached = ht_alloc_array(arena, kept, sizeof *r->cached);
        if (!r->cached)
            return HT_ERR_MEMORY;
    }
    if (!r->images)
        r->room = ht_alloc_array(arena, count, sizeof *r->room);
    return r->slots && (r->images || r->room) ? HT_OK : HT_ERR_MEMORY;
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
    size_t batch = (size_t)ht_session_batch(r->session),
           in = r->pixels * (size_t)ht_session_model(r->session)->info.in_channels;
    size_t inputs;
    r->group = together ? r->n : r->batch;
    if (!ht_mul_size(batch, one, &all) || !ht_mul_size(batch, in, &inputs))
        return ht_fail(HT_ERR_MEMORY, "out of memory for the model's input and output");
    r->input = ht_alloc_array(arena, inputs, sizeof(float));
    r->output = ht_alloc_array(arena, all, sizeof(float));
    r->z = ht_alloc_array(arena, size, sizeof(float));
    r->x0 = ht_alloc_array(arena, size, sizeof(float));
    if (!r->input || !r->output || !r->z || !r->x0 || take_room(r, arena) || take_conditions(r, arena))
        return HT_ERR_MEMORY;
    r->noise = r->extras->noise ? r->extras->noise : &r->own_noise;
    if (r->extras->noise)
        return HT_OK;
    ht_status status = ht_noise_open(arena, o->rng, o->seed, (size_t[3]){(size_t)total, (size_t)r->channels, r->pixels},
                                     &r->own_noise);
    return !status && r->extras->steps_twice ? ht_noise_steps_twice(arena, &r->own_noise) : status;
}

static ht_status set_timesteps(const run *r, ht_arena *arena)
{
    float *t = ht_alloc_array(arena, (size_t)r->trajectory.n, sizeof *t);
    if (!t)
        return HT_ERR_MEMORY;
    for (int i = 0; i < r->trajectory.n; i++)
        t[i] = r->trajectory.rows[i].timestep;
    ht_status status = ht_session_set_timesteps(r->session, r->trajectory.n, t);
    return status || !r->extras->shallow ? status : ht_session_set_timesteps(r->extras->shallow, r->trajectory.n, t);
}

static ht_status prepare(run *r, ht_arena *arena)
{
    const ht_sample_options *o = r->options;
    const ht_model *model = ht_session_model(r->session);
    ht_trajectory_options how = {.sampler = o->sampler,
                                 .spacing = o->spacing,
                                 .sigmas = o->sigmas,
                                 .steps = o->steps ? o->steps : DEFAULT_STEPS,
                                 .skip = r->extras->skip,
                                 .eta = o->eta};
    r->pixels = (size_t)ht_session_height(r->session) * (size_t)ht_session_width(r->session);
    r->channels = model->info.in_channels - r->extras->extra_channels;
    r->output_channels = model->info.out_channels;
    r->guided = o->negative != NULL;
    r->batch = r->guided ? ht_session_batch(r->session) / 2 : ht_session_batch(r->session);
    ht_status status = ht_trajectory_make(arena, &model->schedule, &how, &r->trajectory);
    status = status ? status : check_channels(r);
    status = status ? status : check_images(r);
    status = status ? status : take_memory(r, arena);
    return status ? status : set_timesteps(r, arena);
}

ht_status ht_sample_with(ht_session *session, const ht_sample_options *options, const ht_sample_extras *extras,
                         int64_t first, int64_t n, float *images)
{
    static const ht_sample_options defaults;
    run r = {.session = session, .extras = extras, .first = first, .n = n, .images = images};
    r.options = options ? options : &defaults;
    if (first < 0 || n < 0 || first > INT64_MAX / 2 || n > INT64_MAX / 2 / HT_MAX_TRAIN_TIMESTEPS)
        return ht_fail(HT_ERR_ARGUMENT, "images %lld, %lld of them: wanted counts from 0 on", (long long)first,
                       (long long)n);
    ht_arena *arena = ht_arena_create();
    if (!arena)
        return HT_ERR_MEMORY;
    ht_status status = prepare(&r, arena);
    status = status ? status : walk_all(&r);
    ht_arena_free(arena);
    return status;
}

ht_status ht_sample(ht_session *session, const ht_sample_options *options, int64_t first, int64_t n, float *images)
{
    return ht_sample_with(session, options, &(ht_sample_extras){0}, first, n, images);
}
