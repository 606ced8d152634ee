/* make.c - a calibration from a model: the set, then what every layer's inputs do on it. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "calib/batch.h"
#include "calib/calibration.h"
#include "calib/collect.h"
#include "calib/identity.h"
#include "calib/settings.h"
#include "graph/backend.h"

enum { DEFAULT_BATCH = 16 };

static const double DEFAULT_GUIDANCE = 7.5; /* of diffusers' Stable Diffusion pipelines */

/* ---- going through the set ---- */

ht_cond ht_calibration_cond(const ht_calibration *c, int64_t first, int n, float *room)
{
    ht_cond cond = {0};
    if (c->context)
        cond = ht_contexts_cond(&c->contexts, c->context + first, n, room);
    if (c->class_labels)
        cond.class_labels = c->class_labels + first;
    return cond;
}

ht_status ht_calibration_run(const ht_calibration *c, ht_session *session, ht_visit *visit, void *user)
{
    const ht_model *model = ht_session_model(session);
    size_t pixels = (size_t)c->height * (size_t)c->width, size = pixels * (size_t)c->channels;
    int batch = ht_session_batch(session);
    float *out = malloc((size_t)batch * pixels * (size_t)model->info.out_channels * sizeof *out),
          *room = malloc(ht_contexts_room(&c->contexts, batch) * sizeof *room);
    ht_status status = out && room ? ht_session_set_timesteps(session, c->groups, c->timesteps)
                                   : ht_fail(HT_ERR_MEMORY, "out of memory for a batch");
    int64_t first = 0;
    for (int g = 0; !status && g < c->groups; first += c->counts[g++])
        for (int at = 0; !status && at < c->counts[g]; at += batch) {
            int n = c->counts[g] - at < batch ? c->counts[g] - at : batch;
            ht_cond cond = ht_calibration_cond(c, first + at, n, room);
            status = ht_session_set_cond(session, n, &cond);
            if (!status)
                status = ht_session_step(session, g, c->sample + (size_t)(first + at) * size, out);
            if (!status)
                status = visit(user, session, g, first + at, n);
        }
    free(out);
    free(room);
    return status;
}

ht_status ht_calibration_run_timesteps(const ht_calibration *c, ht_session *session, ht_visit *visit, void *user)
{
    const ht_input_table groups = {.groups = c->groups, .timesteps = c->timesteps};
    int last = ht_session_model(session)->schedule.num_train_timesteps;
    ht_status status = HT_OK;
    for (int i = 0; !status && i < last; i++) {
        float t = (float)i;
        status = ht_session_set_timesteps(session, 1, &t); /* runs the {t} stage */
        if (!status)
            status = visit(user, session, ht_input_group(&groups, t), 0, 0);
    }
    return status;
}

ht_status ht_calibration_first(ht_arena *arena, const ht_calibration *c, int each, ht_calibration *first)
{
    size_t size = (size_t)c->height * (size_t)c->width * (size_t)c->channels;
    size_t most = (size_t)(each < 1 ? 1 : each) * (size_t)c->groups;
    float *sample = ht_alloc_array(arena, most * size, sizeof *sample),
          *labels = ht_alloc_array(arena, most, sizeof *labels);
    int32_t *context = ht_alloc_array(arena, most, sizeof *context);
    int *counts = ht_alloc_array(arena, (size_t)c->groups, sizeof *counts);
    int64_t from = 0, at = 0;
    if (!sample || !labels || !context || !counts)
        return HT_ERR_MEMORY;
    each = each < 1 ? 1 : each;
    for (int g = 0; g < c->groups; from += c->counts[g++]) {
        counts[g] = c->counts[g] < each ? c->counts[g] : each;
        memcpy(sample + (size_t)at * size, c->sample + (size_t)from * size, (size_t)counts[g] * size * sizeof *sample);
        if (c->class_labels)
            memcpy(labels + at, c->class_labels + from, (size_t)counts[g] * sizeof *labels);
        if (c->context)
            memcpy(context + at, c->context + from, (size_t)counts[g] * sizeof *context);
        at += counts[g];
    }
    *first = *c;
    first->sample = sample;
    first->class_labels = c->class_labels ? labels : NULL;
    first->context = c->context ? context : NULL;
    first->counts = counts;
    first->samples = at;
    return HT_OK;
}

/* ---- observing ---- */

typedef struct watched {
    const ht_value *value;
    int input; /* of the calibration */
    bool once; /* depends on {t} alone, the same for every batch of a timestep */
} watched;

typedef struct observer {
    const ht_calibrate_options *options;
    ht_calibration *calibration;
    watched *values;
    int n_values; /* at least n_inputs: of a layer that several operations have, all that they read is one input's */
    float *room;  /* of the largest value */
    int64_t done, total;
} observer;

static ht_status observe(observer *o, ht_session *session, int group, bool once)
{
    ht_calibration *c = o->calibration;
    ht_status status = HT_OK;
    for (int i = 0; !status && i < o->n_values; i++) {
        const watched *w = &o->values[i];
        ht_observed *in = &c->inputs[w->input];
        if (w->once != once)
            continue;
        status = ht_session_read(session, w->value, o->room);
        size_t count = (size_t)ht_session_value_count(session, w->value);
        if (!status && !ht_input_statistics_count(&in->by_step[group], count, o->room))
            return ht_fail(HT_ERR_FORMAT, "%s: its input is not finite at timestep %g", in->name,
                           (double)c->timesteps[group]);
    }
    return status;
}

static ht_status observe_timestep(void *user, ht_session *session, int group, int64_t first, int n)
{
    (void)first, (void)n;
    return observe(user, session, group, true);
}

static ht_status observe_batch(void *user, ht_session *session, int group, int64_t first, int n)
{
    observer *o = user;
    (void)first;
    ht_status status = observe(o, session, group, false);
    o->done += n;
    if (!status && o->options->progress && o->options->progress(o->options->user, o->done, o->total))
        status = ht_fail(HT_ERR_CANCELLED, "calibration was cancelled");
    return status;
}

static const char *layer_of(ht_arena *arena, const ht_op *op)
{
    const char *name = op->in[HT_IN_WEIGHT]->name;
    return ht_sprintf(arena, "%.*s", (int)ht_layer_name_length(name), name);
}

/* The number of a layer's input, a new one if the layer has not been met; -1: out of memory. */
static int input_of(ht_arena *arena, ht_calibration *c, const ht_op *op, int slot)
{
    ht_observed in = {.name = layer_of(arena, op), .slot = slot};
    if (!in.name)
        return -1;
    for (int i = 0; i < c->n_inputs; i++)
        if (c->inputs[i].slot == slot && !strcmp(c->inputs[i].name, in.name))
            return i;
    in.by_step = ht_alloc_array(arena, (size_t)c->groups, sizeof *in.by_step);
    c->inputs[c->n_inputs] = in;
    return in.by_step ? c->n_inputs++ : -1;
}

static ht_status list_inputs(ht_arena *arena, const ht_session *session, observer *o)
{
    const ht_graph *g = ht_session_graph(session);
    ht_calibration *c = o->calibration;
    size_t most = 2 * (size_t)ht_graph_ops(g);
    int64_t largest = 1;
    c->inputs = ht_alloc_array(arena, most, sizeof *c->inputs);
    o->values = ht_alloc_array(arena, most, sizeof *o->values);
    if (!c->inputs || !o->values)
        return HT_ERR_MEMORY;
    for (int i = 0; i < ht_graph_ops(g); i++) {
        const ht_op *op = ht_graph_op(g, i);
        for (int slot = 0; slot < 2 && ht_op_is_product(op) && op->in[slot]; slot++) {
            const ht_value *x = op->in[slot];
            int input = input_of(arena, c, op, slot);
            if (input < 0)
                return HT_ERR_MEMORY;
            o->values[o->n_values++] = (watched){x, input, ht_stage_of(x->deps) == HT_STAGE_T};
            largest = ht_value_count(x) > largest ? ht_value_count(x) : largest;
        }
    }
    o->room = ht_alloc_array(arena, (size_t)largest, sizeof *o->room);
    return o->room ? HT_OK : HT_ERR_MEMORY;
}

static ht_status observe_all(ht_arena *arena, ht_model *model, const ht_calibrate_options *options, observer *o)
{
    ht_session *session = NULL;
    ht_session_options how = {.backend = "cpu",
                              .batch = options->batch,
                              .threads = options->threads,
                              .tokens = o->calibration->contexts.tokens};
    ht_session_extras extras = {.observe = {.inputs = true}};
    how.batch = ht_batch_within(model, &how, &extras);
    ht_status status = ht_session_open_with(model, &how, &extras, &session);
    if (!status)
        status = list_inputs(arena, session, o);
    if (!status)
        status = ht_calibration_run(o->calibration, session, observe_batch, o);
    if (!status)
        status = ht_calibration_run_timesteps(o->calibration, session, observe_timestep, o);
    ht_session_close(session);
    return status;
}

/* ---- making ---- */

static ht_status check_model(const ht_model *model)
{
    if (model->layers.n)
        return ht_fail(HT_ERR_ARGUMENT,
                       "%s: is quantized already; calibration wants the model of floats it was made of", model->path);
    return HT_OK;
}

static ht_status describe(ht_arena *arena, const ht_calibrate_options *o, ht_calibration *c)
{
    json_t *j = ht_settings_json(ht_calibrate_settings, o), *prompts = NULL;
    if (j && c->contexts.prompts && (prompts = json_loads(c->contexts.prompts, 0, NULL)))
        json_object_set_new(j, "prompts", prompts);
    char *text = j ? json_dumps(j, JSON_COMPACT) : NULL;
    c->settings = text ? ht_strdup(arena, text) : NULL;
    free(text);
    json_decref(j);
    return c->settings ? HT_OK : ht_fail(HT_ERR_MEMORY, "out of memory");
}

static ht_status collect(ht_arena *arena, ht_model *model, const ht_calibrate_options *o, ht_calibration *c)
{
    ht_session *session = NULL;
    ht_trajectory trajectory = {0};
    ht_session_options how = {.backend = "cpu", .batch = o->batch, .threads = o->threads, .tokens = c->contexts.tokens};
    ht_trajectory_options way = {.sampler = "ddim", .spacing = o->spacing, .steps = o->steps};
    ht_status status = ht_trajectory_make(arena, &model->schedule, &way, &trajectory);
    int *counts = status ? NULL : ht_alloc_array(arena, (size_t)trajectory.n, sizeof *counts);
    if (!status && !counts)
        status = HT_ERR_MEMORY;
    if (status)
        return status;
    ht_distribution_counts((ht_distribution)ht_distribution_find(o->distribution), trajectory.n, o->timesteps,
                           o->per_step, o->seed, counts);
    status = ht_session_open(model, &how, &session);
    if (!status)
        status = ht_calibration_collect(arena, session, o, &trajectory, counts, c);
    ht_session_close(session);
    return status;
}

ht_status ht_calibration_make(ht_arena *arena, ht_model *model, const ht_calibrate_options *options,
                              ht_calibration *calibration)
{
    ht_calibrate_options o = options ? *options : (ht_calibrate_options){0};
    observer watch = {.options = &o, .calibration = calibration};
    *calibration = (ht_calibration){0};
    ht_status status = ht_calibrate_check(&o);
    if (!status)
        status = check_model(model);
    ht_settings_fill(ht_calibrate_settings, &o);
    o.batch = o.batch ? o.batch : DEFAULT_BATCH;
    o.spacing = o.spacing ? o.spacing : ht_spacing_name((int)model->schedule.timestep_spacing);
    if (!status)
        status = ht_model_identity(arena, model, &calibration->model);
    if (!status)
        status = ht_contexts_make(arena, model, &o, &calibration->contexts);
    bool guided = !status && calibration->contexts.negative >= 0;
    o.guidance = guided && o.guidance == 0 ? DEFAULT_GUIDANCE : guided ? o.guidance : 0;
    o.batch = o.guidance > 1 && o.batch < 2 ? 2 : o.batch; /* both branches of an image */
    if (!status)
        status = describe(arena, &o, calibration);
    if (!status)
        status = collect(arena, model, &o, calibration);
    int images = 0;
    for (int g = 0; !status && g < calibration->groups; g++)
        images = calibration->counts[g] > images ? calibration->counts[g] : images;
    images = o.guidance > 1 ? (images + 1) / 2 : images;
    watch.done = (int64_t)images * o.steps;
    watch.total = watch.done + calibration->samples;
    return status ? status : observe_all(arena, model, &o, &watch);
}

/* ---- looking at one ---- */

const ht_observed *ht_calibration_find(const ht_calibration *c, const char *layer, int slot)
{
    for (int i = 0; i < c->n_inputs; i++)
        if (c->inputs[i].slot == slot && !strcmp(c->inputs[i].name, layer))
            return &c->inputs[i];
    return NULL;
}

ht_status ht_calibration_weights(const ht_calibration *c, const ht_model *model, double *weights)
{
    ht_arena *arena = ht_arena_create();
    float *alphas = NULL;
    double total = 0, last = 0;
    ht_status status = arena ? ht_schedule_alphas(arena, &model->schedule, &alphas) : HT_ERR_MEMORY;
    for (int g = c->groups; !status && g-- > 0;) { /* from the image to the noise, of which 0 SNR has endless */
        int t = (int)c->timesteps[g];
        t = t < 0 ? 0 : t < model->schedule.num_train_timesteps ? t : model->schedule.num_train_timesteps - 1;
        double a = fmax((double)alphas[t], 1e-8), sigma = sqrt((1 - a) / a), left = 0.25 / (0.25 + sigma * sigma);
        weights[g] = (sigma - last) * (sigma - last) * left;
        total += weights[g];
        last = sigma;
    }
    for (int g = 0; !status && g < c->groups; g++)
        weights[g] = total > 0 ? weights[g] * c->groups / total : 1;
    ht_arena_free(arena);
    return status;
}

ht_status ht_calibrate(ht_model *model, const ht_calibrate_options *options, const char *path)
{
    ht_calibration calibration;
    ht_arena *arena = ht_arena_create();
    ht_status status = arena ? ht_calibration_make(arena, model, options, &calibration) : HT_ERR_MEMORY;
    if (!status)
        status = ht_calibration_write(&calibration, path);
    ht_arena_free(arena);
    return status;
}
