/* contexts.c - conditions of a calibration: those of a file, and the rows that samples take.
 *
 * Many samples share few contexts, which are large (77 x 768 numbers in Stable Diffusion 1): each is kept once, and a
 * sample has its number. */
#include "calib/contexts.h"

#include <math.h>
#include <string.h>

static bool takes_labels(const ht_denoiser_info *info)
{
    return info->num_classes || info->class_timestep;
}

/* The first condition that the model cannot do without; NULL: there is none.  Classes of a table go round. */
static const char *needs(const ht_denoiser_info *info)
{
    for (int i = 0; i < HT_CONDITIONS; i++)
        if (ht_condition_width(&ht_conditions[i], info))
            return ht_conditions[i].argument;
    return info->class_timestep ? "class_labels" : NULL;
}

int ht_contexts_positive(const ht_contexts *contexts)
{
    return contexts->n - (contexts->negative >= 0);
}

size_t ht_context_numbers(const ht_contexts *contexts, int i)
{
    return (size_t)contexts->widths[i] * (ht_conditions[i].per_token ? (size_t)contexts->tokens : 1);
}

/* ---- what samples take ---- */

size_t ht_contexts_room(const ht_contexts *contexts, int n)
{
    size_t numbers = 1;
    for (int i = 0; i < HT_CONDITIONS; i++)
        numbers += contexts->rows[i] ? ht_context_numbers(contexts, i) : 0;
    return numbers * (size_t)n;
}

ht_cond ht_contexts_cond(const ht_contexts *contexts, const int32_t *context, int n, float *room)
{
    ht_cond cond = {0};
    for (int i = 0; i < HT_CONDITIONS; i++) {
        size_t numbers = ht_context_numbers(contexts, i);
        if (!contexts->rows[i])
            continue;
        ht_condition_set_rows(&ht_conditions[i], &cond, room);
        for (int k = 0; k < n; k++, room += numbers)
            memcpy(room, contexts->rows[i] + (size_t)context[k] * numbers, numbers * sizeof *room);
    }
    if (!contexts->labels)
        return cond;
    cond.class_labels = room;
    for (int k = 0; k < n; k++)
        room[k] = contexts->labels[context[k]];
    return cond;
}

/* ---- a file of conditions ---- */

typedef struct reader {
    ht_arena *arena;
    const ht_safetensors *file;
    const ht_denoiser_info *info;
    ht_contexts *contexts;
} reader;

static ht_status check_count(reader *r, const char *name, int64_t n)
{
    ht_contexts *c = r->contexts;
    c->n = c->n ? c->n : (int)(n < 0 ? 0 : n < HT_MOST_CONTEXTS ? n : HT_MOST_CONTEXTS);
    if (n < 1 || n >= HT_MOST_CONTEXTS || n != c->n)
        return ht_fail(HT_ERR_SHAPE, "%s: %s has %lld rows; wanted as many as the others, 1 to %d",
                       ht_safetensors_path(r->file), name, (long long)n, HT_MOST_CONTEXTS - 1);
    return HT_OK;
}

/* Rows of a tensor into out, which has room for one more. */
static ht_status take_rows(const reader *r, const ht_tensor *t, float *out)
{
    if (!ht_convert_to_f32(t->dtype, t->data, 0, t->count, out))
        return ht_fail(HT_ERR_UNSUPPORTED, "%s: %s is %s; wanted real numbers", ht_safetensors_path(r->file), t->name,
                       ht_dtype_name(t->dtype));
    for (size_t i = 0; i < t->count; i++)
        if (!isfinite(out[i]))
            return ht_fail(HT_ERR_ARGUMENT, "%s: %s has values that are not finite", ht_safetensors_path(r->file),
                           t->name);
    return HT_OK;
}

/* The row of no prompt, behind the others: negative_NAME; of sizes and the like the first row's. */
static ht_status take_negative(const reader *r, const char *argument, size_t numbers, float *rows)
{
    char name[128] = "negative_";
    strncat(name, argument, sizeof name - 16);
    const ht_tensor *t = ht_safetensors_find(r->file, name);
    float *out = rows + (size_t)r->contexts->n * numbers;
    if (!t) {
        memcpy(out, rows, numbers * sizeof *rows);
        return HT_OK;
    }
    if (t->count != numbers)
        return ht_fail(HT_ERR_SHAPE, "%s: %s must have the %zu numbers of one row", ht_safetensors_path(r->file), name,
                       numbers);
    return take_rows(r, t, out);
}

static ht_status read_condition(reader *r, int i)
{
    const ht_condition *c = &ht_conditions[i];
    const ht_tensor *t = ht_safetensors_find(r->file, c->argument);
    int width = ht_condition_width(c, r->info), ndim = c->per_token ? 3 : 2;
    const char *path = ht_safetensors_path(r->file);
    if (!t)
        return ht_fail(HT_ERR_ARGUMENT, "%s has no tensor called %s", path, c->argument);
    if (t->ndim != ndim || t->shape[ndim - 1] != width || (c->per_token && (t->shape[1] < 1 || t->shape[1] > 65536)))
        return ht_fail(HT_ERR_SHAPE, "%s: %s must be [n,%s%d]", path, c->argument, c->per_token ? "tokens," : "",
                       width);
    ht_status status = check_count(r, c->argument, t->shape[0]);
    if (status)
        return status;
    r->contexts->widths[i] = width;
    if (c->per_token)
        r->contexts->tokens = (int)t->shape[1];
    size_t numbers = ht_context_numbers(r->contexts, i);
    float *rows = ht_alloc_array(r->arena, ((size_t)r->contexts->n + 1) * numbers, sizeof *rows);
    r->contexts->rows[i] = rows;
    status = rows ? take_rows(r, t, rows) : HT_ERR_MEMORY;
    return status ? status : take_negative(r, c->argument, numbers, rows);
}

static ht_status read_labels(reader *r)
{
    const ht_tensor *t = ht_safetensors_find(r->file, "class_labels");
    if (!t && !r->info->class_timestep)
        return HT_OK; /* they go round */
    if (!t)
        return ht_fail(HT_ERR_ARGUMENT, "%s has no tensor called class_labels", ht_safetensors_path(r->file));
    ht_status status = check_count(r, t->name, t->ndim == 1 ? t->shape[0] : -1);
    float *labels = status ? NULL : ht_alloc_array(r->arena, t->count + 1, sizeof *labels);
    r->contexts->labels = labels;
    if (!status)
        status = labels ? take_rows(r, t, labels) : HT_ERR_MEMORY;
    return status ? status : take_negative(r, t->name, 1, labels);
}

static ht_status read_file(ht_arena *arena, const ht_model *model, const char *path, ht_contexts *contexts)
{
    ht_safetensors *file = NULL;
    ht_status status = ht_safetensors_open(path, &file);
    reader r = {arena, file, &model->info, contexts};
    for (int i = 0; !status && i < HT_CONDITIONS; i++)
        if (ht_condition_width(&ht_conditions[i], &model->info))
            status = read_condition(&r, i);
    if (!status && takes_labels(&model->info))
        status = read_labels(&r);
    if (!status && (ht_safetensors_find(file, "negative_encoder_hidden_states") ||
                    ht_safetensors_find(file, "negative_class_labels")))
        contexts->negative = contexts->n++;
    ht_safetensors_close(file);
    return status;
}

ht_status ht_contexts_make(ht_arena *arena, const ht_model *model, const ht_calibrate_options *options,
                           ht_contexts *contexts)
{
    const char *wanted = needs(&model->info);
    *contexts = (ht_contexts){.negative = -1};
    if (options->prompts && options->conditions)
        return ht_fail(HT_ERR_ARGUMENT, "prompts and conditions both say what the model is to draw; give one of them");
    if (options->conditions && (wanted || model->info.num_classes))
        return read_file(arena, model, options->conditions, contexts);
    if (options->conditions)
        return ht_fail(HT_ERR_ARGUMENT, "%s: this model takes no conditions", model->path);
    if (model->info.cross_attention_dim)
        return ht_contexts_of_prompts(arena, model, options, contexts);
    if (options->prompts)
        return ht_fail(HT_ERR_ARGUMENT, "%s: this model takes no prompts", model->path);
    if (wanted)
        return ht_fail(HT_ERR_ARGUMENT, "%s: this model takes %s; give a file that has some (conditions)", model->path,
                       wanted);
    return HT_OK;
}
