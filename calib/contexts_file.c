/* contexts_file.c - contexts in a calibration file:
 *
 *     context             I32 [samples]          the number of each sample's row in what follows
 *     contexts.NAME       F32 [contexts,...]     of each condition that the model takes: encoder_hidden_states, ...
 *     contexts.class_labels F32 [contexts] */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "calib/contexts.h"

static void put(ht_tensor *tensors, size_t *n, const ht_tensor *t)
{
    ht_tensor *to = &tensors[(*n)++];
    *to = *t;
    to->count = 1;
    for (int i = 0; i < to->ndim; i++)
        to->count *= (size_t)to->shape[i];
    to->bytes = to->count * 4; /* F32 and I32 */
}

ht_status ht_contexts_put(ht_arena *arena, const ht_contexts *c, const int32_t *context, int64_t samples,
                          ht_tensor *tensors, size_t *n)
{
    if (!c->n)
        return HT_OK;
    put(tensors, n, &(ht_tensor){.name = "context", .dtype = HT_I32, .ndim = 1, .shape = {samples}, .data = context});
    if (c->labels)
        put(tensors, n,
            &(ht_tensor){
                .name = "contexts.class_labels", .dtype = HT_F32, .ndim = 1, .shape = {c->n}, .data = c->labels});
    for (int i = 0; i < HT_CONDITIONS; i++) {
        int64_t width = c->widths[i];
        char *name = c->rows[i] ? ht_sprintf(arena, "contexts.%s", ht_conditions[i].name) : NULL;
        if (!c->rows[i])
            continue;
        if (!name)
            return HT_ERR_MEMORY;
        ht_tensor t = {.name = name, .dtype = HT_F32, .ndim = 2, .shape = {c->n, width}, .data = c->rows[i]};
        if (ht_conditions[i].per_token) {
            t.ndim = 3;
            t.shape[1] = c->tokens;
            t.shape[2] = width;
        }
        put(tensors, n, &t);
    }
    return HT_OK;
}

/* ---- reading ---- */

static ht_status damaged(const ht_safetensors *file, const char *name, const char *what)
{
    return ht_fail(HT_ERR_FORMAT, "%s: %s %s; calibrate anew", ht_safetensors_path(file), name, what);
}

/* What a model of this width takes; without a model, of the width that is there. */
static ht_status check_shape(const ht_safetensors *file, const ht_tensor *t, const ht_condition *c, int width,
                             ht_contexts *out)
{
    int ndim = c->per_token ? 3 : 2;
    if (t->dtype != HT_F32 || t->ndim != ndim || (width && t->shape[ndim - 1] != width) || t->shape[ndim - 1] < 1 ||
        t->shape[ndim - 1] > HT_MOST_CONTEXTS || t->shape[0] < 1 || t->shape[0] > HT_MOST_CONTEXTS ||
        (out->n && t->shape[0] != out->n) || (c->per_token && (t->shape[1] < 1 || t->shape[1] > 65536)))
        return damaged(file, t->name, "has not the shape that this model and its other contexts ask for");
    out->n = (int)t->shape[0];
    if (c->per_token)
        out->tokens = (int)t->shape[1];
    return HT_OK;
}

static ht_status read_rows(ht_arena *arena, const ht_safetensors *file, const ht_tensor *t, const float **rows)
{
    float *values = ht_alloc_array(arena, t->count, sizeof *values);
    if (!values)
        return HT_ERR_MEMORY;
    ht_convert_to_f32(t->dtype, t->data, 0, t->count, values);
    for (size_t i = 0; i < t->count; i++)
        if (!isfinite(values[i]))
            return damaged(file, t->name, "has a value that is not finite");
    *rows = values;
    return HT_OK;
}

static ht_status read_condition(ht_arena *arena, const ht_safetensors *file, const ht_model *model, int i,
                                ht_contexts *out)
{
    int width = model ? ht_condition_width(&ht_conditions[i], &model->info) : 0;
    char name[128] = "contexts.";
    strncat(name, ht_conditions[i].name, sizeof name - 16);
    const ht_tensor *t = ht_safetensors_find(file, name);
    if (model ? !width : !t)
        return HT_OK;
    if (!t)
        return damaged(file, name, "is missing");
    ht_status status = check_shape(file, t, &ht_conditions[i], width, out);
    if (!status)
        out->widths[i] = (int)t->shape[t->ndim - 1];
    return status ? status : read_rows(arena, file, t, &out->rows[i]);
}

static ht_status read_labels(ht_arena *arena, const ht_safetensors *file, const ht_model *model, ht_contexts *out)
{
    const ht_tensor *t = ht_safetensors_find(file, "contexts.class_labels");
    bool wanted = model && model->info.class_timestep;
    if (!t)
        return wanted ? damaged(file, "contexts.class_labels", "is missing") : HT_OK;
    if (model && !wanted && !model->info.num_classes)
        return HT_OK;
    if (t->dtype != HT_F32 || t->ndim != 1 || t->shape[0] < 1 || t->shape[0] > HT_MOST_CONTEXTS ||
        (out->n && t->shape[0] != out->n))
        return damaged(file, t->name, "is not one number for each context");
    out->n = (int)t->shape[0];
    ht_status status = read_rows(arena, file, t, &out->labels);
    for (int i = 0; !status && model && model->info.num_classes && i < out->n; i++)
        if (!(out->labels[i] >= 0 && out->labels[i] < (float)model->info.num_classes &&
              out->labels[i] == floorf(out->labels[i])))
            return damaged(file, t->name, "has one that is no class of this model");
    return status;
}

ht_status ht_contexts_read(ht_arena *arena, const ht_safetensors *file, const ht_model *model, int64_t samples,
                           ht_contexts *contexts, const int32_t **context)
{
    const ht_tensor *t = ht_safetensors_find(file, "context");
    ht_status status = HT_OK;
    *contexts = (ht_contexts){.negative = -1};
    for (int i = 0; !status && i < HT_CONDITIONS; i++)
        status = read_condition(arena, file, model, i, contexts);
    if (!status)
        status = read_labels(arena, file, model, contexts);
    if (status || !contexts->n)
        return status;
    if (!t || t->dtype != HT_I32 || t->ndim != 1 || t->shape[0] != samples)
        return damaged(file, "context", "is missing, or not one number for each sample");
    int32_t *numbers = ht_alloc_array(arena, (size_t)samples, sizeof *numbers);
    if (!numbers)
        return HT_ERR_MEMORY;
    memcpy(numbers, t->data, (size_t)samples * sizeof *numbers);
    for (int64_t i = 0; i < samples; i++)
        if (numbers[i] < 0 || numbers[i] >= contexts->n)
            return damaged(file, "context", "has a number that is no context's");
    *context = numbers;
    return HT_OK;
}
