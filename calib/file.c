/* file.c - a calibration as a safetensors file:
 *
 *     sample            F32 [n,c,h,w]           x_t, group after group
 *     timestep          F32 [n]
 *     class_labels      F32 [n]                 if the model takes classes
 *     context           I32 [n], and contexts.*  if it takes more (calib/contexts_file.c)
 *     LAYER.range       F32 [groups,2]          least and largest value of the layer's input
 *     LAYER.counts      U32 [groups,bins]       its histogram (calib/statistics.h)
 *     LAYER.range.1, LAYER.counts.1             of its second input
 *
 * and in the metadata `halftone_calibration` (how it was made) and `model` (SHA-256 of the weights). */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "calib/calibration.h"
#include "calib/identity.h"
#include "calib/settings.h"
#include "core/safetensors.h"

/* ---- writing ---- */

static void channels_first(const ht_calibration *c, const float *from, float *to)
{
    size_t pixels = (size_t)c->height * (size_t)c->width, channels = (size_t)c->channels;
    for (size_t p = 0; p < pixels; p++)
        for (size_t k = 0; k < channels; k++)
            to[k * pixels + p] = from[p * channels + k];
}

static void channels_last(const ht_calibration *c, const float *from, float *to)
{
    size_t pixels = (size_t)c->height * (size_t)c->width, channels = (size_t)c->channels;
    for (size_t p = 0; p < pixels; p++)
        for (size_t k = 0; k < channels; k++)
            to[p * channels + k] = from[k * pixels + p];
}

static ht_status put_set(ht_arena *arena, const ht_calibration *c, ht_tensor *tensors, size_t *n)
{
    size_t size = (size_t)c->height * (size_t)c->width * (size_t)c->channels, samples = (size_t)c->samples;
    float *sample = ht_alloc_array(arena, samples * size, sizeof *sample);
    float *timestep = ht_alloc_array(arena, samples, sizeof *timestep);
    if (!sample || !timestep)
        return HT_ERR_MEMORY;
    size_t at = 0;
    for (int g = 0; g < c->groups; g++)
        for (int k = 0; k < c->counts[g]; k++, at++) {
            channels_first(c, c->sample + at * size, sample + at * size);
            timestep[at] = c->timesteps[g];
        }
    tensors[(*n)++] = (ht_tensor){.name = "sample",
                                  .dtype = HT_F32,
                                  .ndim = 4,
                                  .shape = {c->samples, c->channels, c->height, c->width},
                                  .data = sample,
                                  .count = samples * size,
                                  .bytes = samples * size * sizeof *sample};
    ht_tensor row = {.name = "timestep",
                     .dtype = HT_F32,
                     .ndim = 1,
                     .shape = {c->samples},
                     .data = timestep,
                     .count = samples,
                     .bytes = samples * sizeof *timestep};
    tensors[(*n)++] = row;
    ht_status status = ht_contexts_put(arena, &c->contexts, c->context, c->samples, tensors, n);
    if (status)
        return status;
    if (c->class_labels) {
        row.name = "class_labels";
        row.data = c->class_labels;
        tensors[(*n)++] = row;
    }
    return HT_OK;
}

static ht_status put_input(ht_arena *arena, const ht_calibration *c, const ht_observed *in, ht_tensor *tensors,
                           size_t *n)
{
    size_t groups = (size_t)c->groups;
    float *range = ht_alloc_array(arena, groups * 2, sizeof *range);
    uint32_t *counts = ht_alloc_array(arena, groups * HT_BINS, sizeof *counts);
    const char *end = in->slot ? ".1" : "";
    char *range_name = ht_sprintf(arena, "%s.range%s", in->name, end),
         *counts_name = ht_sprintf(arena, "%s.counts%s", in->name, end);
    if (!range || !counts || !range_name || !counts_name)
        return HT_ERR_MEMORY;
    for (size_t g = 0; g < groups; g++) {
        range[2 * g] = in->by_step[g].low;
        range[2 * g + 1] = in->by_step[g].high;
        memcpy(counts + g * HT_BINS, in->by_step[g].bin, sizeof in->by_step[g].bin);
    }
    tensors[(*n)++] = (ht_tensor){.name = range_name,
                                  .dtype = HT_F32,
                                  .ndim = 2,
                                  .shape = {c->groups, 2},
                                  .data = range,
                                  .count = groups * 2,
                                  .bytes = groups * 2 * sizeof *range};
    tensors[(*n)++] = (ht_tensor){.name = counts_name,
                                  .dtype = HT_U32,
                                  .ndim = 2,
                                  .shape = {c->groups, HT_BINS},
                                  .data = counts,
                                  .count = groups * HT_BINS,
                                  .bytes = groups * HT_BINS * sizeof *counts};
    return HT_OK;
}

ht_status ht_calibration_write(const ht_calibration *c, const char *path)
{
    ht_arena *arena = ht_arena_create();
    ht_tensor *tensors =
        arena ? ht_alloc_array(arena, 3 + HT_CONTEXT_TENSORS + 1 + 2 * (size_t)c->n_inputs, sizeof *tensors) : NULL;
    ht_metadata metadata[] = {{"format", "halftone"}, {"halftone_calibration", c->settings}, {"model", c->model}};
    size_t n = 0;
    ht_status status = tensors ? put_set(arena, c, tensors, &n) : HT_ERR_MEMORY;
    for (int i = 0; !status && i < c->n_inputs; i++)
        status = put_input(arena, c, &c->inputs[i], tensors, &n);
    if (!status)
        status = ht_safetensors_write(path, tensors, n, metadata, sizeof metadata / sizeof *metadata);
    ht_arena_free(arena);
    return status;
}

/* ---- reading ---- */

static ht_status damaged(const ht_safetensors *file, const char *what)
{
    return ht_fail(HT_ERR_FORMAT, "%s: %s; calibrate anew", ht_safetensors_path(file), what);
}

static ht_status check_identity(const ht_safetensors *file, const ht_model *model, const char *own,
                                const ht_calibration *c)
{
    if (!c->settings || !c->model)
        return ht_fail(HT_ERR_FORMAT, "%s: is no calibration: want a file that halftone calibrate wrote",
                       ht_safetensors_path(file));
    if (own && strcmp(own, c->model) != 0)
        return ht_fail(HT_ERR_ARGUMENT, "%s: is a calibration of other weights than those of %s",
                       ht_safetensors_path(file), model->path);
    return HT_OK;
}

static ht_status check_settings(const ht_safetensors *file, const ht_calibration *c)
{
    json_error_t error;
    json_t *object = json_loads(c->settings, JSON_REJECT_DUPLICATES, &error);
    ht_status status =
        object ? ht_settings_check_json(ht_calibrate_settings, object, ht_safetensors_path(file))
               : ht_fail(HT_ERR_FORMAT, "%s: its settings are not JSON: %s", ht_safetensors_path(file), error.text);
    json_decref(object);
    return status;
}

/* Runs of equal timesteps are the groups; they fall as the sampler walks. */
static ht_status read_groups(ht_arena *arena, const ht_safetensors *file, const ht_model *model, const float *timestep,
                             ht_calibration *c)
{
    int last = model ? model->schedule.num_train_timesteps : HT_MAX_TRAIN_TIMESTEPS;
    float *timesteps = ht_alloc_array(arena, (size_t)c->samples, sizeof *timesteps);
    int *counts = ht_alloc_array(arena, (size_t)c->samples, sizeof *counts);
    if (!timesteps || !counts)
        return HT_ERR_MEMORY;
    for (int64_t i = 0; i < c->samples; i++) {
        float t = timestep[i];
        if (!(t >= 0 && t < (float)last && t == floorf(t)))
            return ht_fail(HT_ERR_FORMAT,
                           "%s: timestep %" PRId64 " is %g; want a whole number of 0 to %d; calibrate anew",
                           ht_safetensors_path(file), i, (double)t, last - 1);
        if (c->groups && t > timesteps[c->groups - 1])
            return ht_fail(HT_ERR_FORMAT, "%s: timestep %" PRId64 " is %g, above the one before; calibrate anew",
                           ht_safetensors_path(file), i, (double)t);
        if (!c->groups || t != timesteps[c->groups - 1])
            timesteps[c->groups++] = t;
        counts[c->groups - 1]++;
    }
    c->timesteps = timesteps;
    c->counts = counts;
    return HT_OK;
}

static ht_status read_labels(ht_arena *arena, const ht_safetensors *file, const ht_model *model, ht_calibration *c)
{
    const ht_tensor *t = ht_safetensors_find(file, "class_labels");
    if (model ? !model->info.num_classes || c->contexts.labels : !t)
        return HT_OK;
    float *labels = ht_alloc_array(arena, (size_t)c->samples, sizeof *labels);
    if (!labels)
        return HT_ERR_MEMORY;
    if (!t || t->dtype != HT_F32 || t->count != (size_t)c->samples)
        return damaged(file, "class_labels are missing, or not one for each sample");
    ht_convert_to_f32(t->dtype, t->data, 0, t->count, labels);
    for (int64_t i = 0; model && i < c->samples; i++)
        if (!(labels[i] >= 0 && labels[i] < (float)model->info.num_classes && labels[i] == floorf(labels[i])))
            return damaged(file, "class_labels has one that is no class of this model");
    c->class_labels = labels;
    return HT_OK;
}

static ht_status read_set(ht_arena *arena, const ht_safetensors *file, const ht_model *model, ht_calibration *c)
{
    const ht_tensor *x = ht_safetensors_find(file, "sample"), *t = ht_safetensors_find(file, "timestep");
    if (!x || !t || x->dtype != HT_F32 || t->dtype != HT_F32 || x->ndim != 4 || t->ndim != 1 ||
        x->shape[0] != t->shape[0] || x->shape[0] < 1 || x->shape[0] > HT_MAX_CALIBRATION_SAMPLES || x->shape[2] < 1 ||
        x->shape[2] > 16384 || x->shape[3] < 1 || x->shape[3] > 16384)
        return damaged(file, "sample and timestep are missing, or do not fit one another");
    if (x->shape[1] < 1 || (model && x->shape[1] != model->info.in_channels))
        return damaged(file, "its samples have not the channels of this model");
    if (model && (x->shape[2] != model->info.height || x->shape[3] != model->info.width))
        return damaged(file, "its samples have not the size of this model's");
    size_t size = (size_t)(x->shape[1] * x->shape[2] * x->shape[3]);
    c->samples = x->shape[0];
    c->channels = (int)x->shape[1];
    c->height = (int)x->shape[2];
    c->width = (int)x->shape[3];
    float *sample = ht_alloc_array(arena, x->count, sizeof *sample), *one = ht_alloc_array(arena, size, sizeof *one);
    float *timestep = ht_alloc_array(arena, t->count, sizeof *timestep);
    if (!sample || !one || !timestep)
        return HT_ERR_MEMORY;
    for (size_t i = 0; i < (size_t)c->samples; i++) {
        ht_convert_to_f32(x->dtype, x->data, i * size, size, one);
        channels_last(c, one, sample + i * size);
    }
    for (size_t i = 0; i < x->count; i++)
        if (!isfinite(sample[i]))
            return damaged(file, "sample has a value that is not finite");
    ht_convert_to_f32(t->dtype, t->data, 0, t->count, timestep);
    c->sample = sample;
    ht_status status = read_groups(arena, file, model, timestep, c);
    if (!status)
        status = ht_contexts_read(arena, file, model, c->samples, &c->contexts, &c->context);
    return status ? status : read_labels(arena, file, model, c);
}

/* One input from LAYER.range and LAYER.counts. */
static ht_status read_input(ht_arena *arena, const ht_safetensors *file, const ht_tensor *range, ht_calibration *c)
{
    const char *at = strstr(range->name, ".range");
    ht_observed *in = &c->inputs[c->n_inputs++];
    in->name = ht_sprintf(arena, "%.*s", (int)(at - range->name), range->name);
    in->slot = !strcmp(at, ".range.1");
    in->by_step = ht_alloc_array(arena, (size_t)c->groups, sizeof *in->by_step);
    char *name = in->name ? ht_sprintf(arena, "%s.counts%s", in->name, in->slot ? ".1" : "") : NULL;
    if (!name || !in->by_step)
        return HT_ERR_MEMORY;
    const ht_tensor *counts = ht_safetensors_find(file, name);
    if (range->dtype != HT_F32 || range->count != 2 * (size_t)c->groups || !counts || counts->dtype != HT_U32 ||
        counts->count != (size_t)c->groups * HT_BINS)
        return damaged(file, ht_sprintf(arena, "%s and its counts do not fit one another", range->name));
    for (int g = 0; g < c->groups; g++) {
        float ends[2];
        ht_convert_to_f32(range->dtype, range->data, 2 * (size_t)g, 2, ends);
        if (!(ends[0] <= 0 && ends[1] >= 0 && isfinite(ends[0]) && isfinite(ends[1])))
            return damaged(file, ht_sprintf(arena, "%s is no range around 0", range->name));
        in->by_step[g].low = ends[0];
        in->by_step[g].high = ends[1];
        memcpy(in->by_step[g].bin, (const char *)counts->data + (size_t)g * sizeof in->by_step[g].bin,
               sizeof in->by_step[g].bin);
        if (!ht_input_statistics_agree(&in->by_step[g]))
            return damaged(file, ht_sprintf(arena, "counts of %s do not fit its range at timestep %g", in->name,
                                            (double)c->timesteps[g]));
    }
    return HT_OK;
}

static bool is_range(const char *name)
{
    const char *at = strstr(name, ".range");
    return at && (!strcmp(at, ".range") || !strcmp(at, ".range.1"));
}

static ht_status read_inputs(ht_arena *arena, const ht_safetensors *file, ht_calibration *c)
{
    size_t n = ht_safetensors_count(file);
    ht_status status = HT_OK;
    if (!(c->inputs = ht_alloc_array(arena, n, sizeof *c->inputs)))
        return HT_ERR_MEMORY;
    for (size_t i = 0; !status && i < n; i++)
        if (is_range(ht_safetensors_at(file, i)->name))
            status = read_input(arena, file, ht_safetensors_at(file, i), c);
    return status;
}

static const char *copy(ht_arena *arena, const char *text)
{
    return text ? ht_strdup(arena, text) : NULL;
}

ht_status ht_calibration_read(ht_arena *arena, const ht_model *model, const char *path, ht_calibration *c)
{
    ht_safetensors *file = NULL;
    const char *own = NULL;
    *c = (ht_calibration){0};
    ht_status status = ht_safetensors_open(path, &file);
    if (status)
        return status;
    c->settings = copy(arena, ht_safetensors_metadata(file, "halftone_calibration"));
    c->model = copy(arena, ht_safetensors_metadata(file, "model"));
    status = model ? ht_model_identity(arena, model, &own) : HT_OK;
    if (!status)
        status = check_identity(file, model, own, c);
    if (!status)
        status = check_settings(file, c);
    if (!status)
        status = read_set(arena, file, model, c);
    if (!status)
        status = read_inputs(arena, file, c);
    ht_safetensors_close(file);
    return status;
}

/* ---- in words ---- */

static json_t *input_json(const ht_calibration *c, const ht_observed *in)
{
    json_t *low = json_array(), *high = json_array();
    for (int g = 0; g < c->groups; g++) {
        json_array_append_new(low, json_real((double)in->by_step[g].low));
        json_array_append_new(high, json_real((double)in->by_step[g].high));
    }
    return json_pack("{s:s, s:i, s:o, s:o}", "layer", in->name, "part", in->slot, "low", low, "high", high);
}

static json_t *calibration_json(const ht_calibration *c)
{
    json_t *inputs = json_array(), *timesteps = json_array(), *counts = json_array();
    for (int g = 0; g < c->groups; g++) {
        json_array_append_new(timesteps, json_real((double)c->timesteps[g]));
        json_array_append_new(counts, json_integer(c->counts[g]));
    }
    for (int i = 0; i < c->n_inputs; i++)
        json_array_append_new(inputs, input_json(c, &c->inputs[i]));
    json_t *settings = json_loads(c->settings, 0, NULL);
    return json_pack("{s:o, s:s, s:I, s:[i,i,i], s:o, s:o, s:o}", "settings", settings ? settings : json_object(),
                     "model", c->model, "samples", (json_int_t)c->samples, "size", c->height, c->width, c->channels,
                     "timesteps", timesteps, "samples_each", counts, "inputs", inputs);
}

ht_status ht_calibration_json(const char *path, char **json)
{
    ht_calibration c;
    ht_arena *arena = ht_arena_create();
    ht_status status = arena ? ht_calibration_read(arena, NULL, path, &c) : HT_ERR_MEMORY;
    json_t *object = status ? NULL : calibration_json(&c);
    char *text = object ? json_dumps(object, JSON_REAL_PRECISION(6)) : NULL;
    if (!status && !text)
        status = ht_fail(HT_ERR_MEMORY, "out of memory");
    if (!status)
        *json = text;
    json_decref(object);
    ht_arena_free(arena);
    return status;
}
