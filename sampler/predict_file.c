/* predict_file.c - one evaluation on the tensors of a file, in the layout and under the names that PyTorch users have
 * them: [n,c,h,w].
 *
 * A tensor that nothing asks for is passed over, so that files with recorded outputs beside the inputs can be used, but
 * not one that would change the result of a model that takes it.  Of a calibration file (docs/format.md), which has
 * the conditions of a prompt once for all its samples, each sample gets its own. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "sampler/conditions.h"
#include "sampler/predict_private.h"
#include "sampler/session.h"

/* What denoisers take besides `sample` and `timestep`. */
static const char *const conditions[] = {
    "class_labels",
    "encoder_hidden_states",
    "encoder_attention_mask",
    "attention_mask",
    "added_cond_kwargs",
    "text_embeds",
    "time_ids",
    "image_embeds",
    "timestep_cond",
    "pooled_projections",
    "guidance",
    "resolution",
    "aspect_ratio",
    NULL,
};

typedef struct request {
    ht_input_file in;
    const ht_model *model;
    ht_image_tensor sample;
    float *t, *out; /* out channels last */
    int tokens;     /* of encoder_hidden_states; 0: the model takes none */
    ht_cond cond;
} request;

ht_status ht_read_tensor(const ht_input_file *f, const char *name, const ht_tensor **tensor, float **values)
{
    *tensor = ht_safetensors_find(f->tensors, name);
    if (!*tensor)
        return ht_fail(HT_ERR_ARGUMENT, "%s has no tensor called %s", f->path, name);
    *values = ht_alloc_array(f->arena, (*tensor)->count, sizeof(float));
    if (!*values)
        return HT_ERR_MEMORY;
    if (!ht_convert_to_f32((*tensor)->dtype, (*tensor)->data, 0, (*tensor)->count, *values))
        return ht_fail(HT_ERR_UNSUPPORTED, "%s: %s is %s; wanted real numbers", f->path, name,
                       ht_dtype_name((*tensor)->dtype));
    return HT_OK;
}

void ht_transpose(const float *in, float *out, int64_t n, int64_t from, int64_t to)
{
    for (int64_t i = 0; i < n; i++)
        for (int64_t a = 0; a < from; a++)
            for (int64_t b = 0; b < to; b++)
                out[(i * to + b) * from + a] = in[(i * from + a) * to + b];
}

ht_status ht_read_images(const ht_input_file *f, const char *name, int channels, ht_image_tensor *images)
{
    const ht_tensor *t;
    float *planes;
    ht_status status = ht_read_tensor(f, name, &t, &planes);
    if (status)
        return status;
    if (t->ndim != 4 || t->count == 0 || t->shape[1] != channels)
        return ht_fail(HT_ERR_SHAPE, "%s: %s must be [n,%d,h,w], as the model's configuration says", f->path, name,
                       channels);
    if (t->shape[2] > 16384 || t->shape[3] > 16384 || t->shape[0] > 65536)
        return ht_fail(HT_ERR_SHAPE, "%s: %s is too large", f->path, name);
    *images = (ht_image_tensor){t->shape[0], t->shape[1], t->shape[2], t->shape[3],
                                ht_alloc_array(f->arena, t->count, sizeof(float))};
    if (!images->x)
        return HT_ERR_MEMORY;
    ht_transpose(planes, images->x, images->n, images->c, images->h * images->w);
    return HT_OK;
}

/* The name by which a file has an argument: of those that a transformer's code has, the first that is there. */
static const char *name_in(const request *r, const char *const *names)
{
    const char *const *name = names;
    while (r->model->info.hidden_states && *name && !ht_safetensors_find(r->in.tensors, *name))
        name++;
    return *name ? *name : names[0];
}

static const char *const sample_names[] = {"sample", "hidden_states", "x", NULL};
static const char *const timestep_names[] = {"timestep", "t", NULL};
static const char *const label_names[] = {"class_labels", "y", NULL};

static ht_status read_sample(request *r)
{
    ht_status status = ht_read_images(&r->in, name_in(r, sample_names), r->model->info.in_channels, &r->sample);
    if (status)
        return status;
    size_t pixels = (size_t)(r->sample.n * r->sample.h * r->sample.w);
    r->out = ht_alloc_array(r->in.arena, pixels * (size_t)r->model->info.out_channels, sizeof *r->out);
    return r->out ? HT_OK : HT_ERR_MEMORY;
}

/* One number for all images, or one each. */
static ht_status read_timestep(request *r)
{
    const ht_tensor *t;
    float *values;
    ht_status status = ht_read_tensor(&r->in, name_in(r, timestep_names), &t, &values);
    if (status)
        return status;
    if (t->ndim > 1 || (t->count != 1 && t->count != (size_t)r->sample.n))
        return ht_fail(HT_ERR_SHAPE, "%s: timestep must be [1] or [%lld]", r->in.path, (long long)r->sample.n);
    r->t = ht_alloc_array(r->in.arena, (size_t)r->sample.n, sizeof *r->t);
    for (int64_t i = 0; r->t && i < r->sample.n; i++)
        r->t[i] = values[t->count == 1 ? 0 : i];
    return r->t ? HT_OK : HT_ERR_MEMORY;
}

static bool takes_labels(const ht_denoiser_info *info)
{
    return info->num_classes || info->class_timestep;
}

/* Row context[i] of `contexts.NAME` for image i, as a tensor of the images. */
static ht_status read_contexts(const request *r, const ht_tensor *rows, ht_tensor *tensor, float **values)
{
    const char *name = rows->name;
    const ht_tensor *context;
    float *numbers, *from;
    ht_status status = ht_read_tensor(&r->in, "context", &context, &numbers);
    if (!status)
        status = ht_read_tensor(&r->in, name, &rows, &from);
    if (status)
        return status;
    *tensor = *rows;
    tensor->shape[0] = r->sample.n;
    size_t width = rows->ndim && rows->shape[0] > 0 ? rows->count / (size_t)rows->shape[0] : 0;
    if (!width || context->count != (size_t)r->sample.n || !ht_mul_size(context->count, width, &tensor->count))
        return ht_fail(HT_ERR_SHAPE, "%s: context and %s are not a number and a row for each of %lld images",
                       r->in.path, name, (long long)r->sample.n);
    if (!(*values = ht_alloc_array(r->in.arena, tensor->count, sizeof **values)))
        return HT_ERR_MEMORY;
    for (size_t i = 0; i < context->count; i++) {
        if (!(numbers[i] >= 0 && numbers[i] < (float)rows->shape[0]) || numbers[i] != floorf(numbers[i]))
            return ht_fail(HT_ERR_FORMAT, "%s: context has a number that is no row of %s", r->in.path, name);
        memcpy(*values + i * width, from + (size_t)numbers[i] * width, width * sizeof **values);
    }
    return HT_OK;
}

/* What a calibration file has instead of a tensor of the images; NULL: nothing, or the tensor is there. */
static const ht_tensor *find_contexts(const request *r, const char *argument, const char *context)
{
    char name[96];
    snprintf(name, sizeof name, "contexts.%s", context);
    return ht_safetensors_find(r->in.tensors, argument) ? NULL : ht_safetensors_find(r->in.tensors, name);
}

static ht_status read_of_images(const request *r, const char *argument, const char *context, ht_tensor *tensor,
                                float **values)
{
    const ht_tensor *t, *rows = find_contexts(r, argument, context);
    if (rows)
        return read_contexts(r, rows, tensor, values);
    ht_status status = ht_read_tensor(&r->in, argument, &t, values);
    if (!status)
        *tensor = *t;
    return status;
}

static ht_status read_labels(request *r)
{
    ht_tensor t;
    float *values;
    ht_status status = read_of_images(r, name_in(r, label_names), label_names[0], &t, &values);
    if (!status && t.count != (size_t)r->sample.n)
        status = ht_fail(HT_ERR_SHAPE, "%s: class_labels must have one number for each of %lld images", r->in.path,
                         (long long)r->sample.n);
    if (!status)
        r->cond.class_labels = values;
    return status;
}

/* [n,tokens,width], or [n,tokens] of one number each; as many tokens as others have. */
static bool is_of_tokens(const request *r, const ht_tensor *t, int width)
{
    bool dims = t->ndim == 3 ? t->shape[2] == width : t->ndim == 2 && width == 1;
    return dims && t->shape[0] == r->sample.n && t->shape[1] >= 1 && t->shape[1] <= HT_MOST_TOKENS &&
           (!r->tokens || t->shape[1] == r->tokens);
}

/* A vector for each image, or for each token of each. */
static ht_status read_condition(request *r, const ht_condition *c, int width)
{
    ht_tensor t;
    float *values;
    if (c->optional && !ht_safetensors_find(r->in.tensors, c->argument) && !find_contexts(r, c->argument, c->name))
        return HT_OK;
    ht_status status = read_of_images(r, c->argument, c->name, &t, &values);
    if (status)
        return status;
    if (c->per_token && !is_of_tokens(r, &t, width))
        return width > 1 ? ht_fail(HT_ERR_SHAPE, "%s: %s must be [%lld,tokens,%d]", r->in.path, c->argument,
                                   (long long)r->sample.n, width)
                         : ht_fail(HT_ERR_SHAPE, "%s: %s must be [%lld,tokens], as many as of encoder_hidden_states",
                                   r->in.path, c->argument, (long long)r->sample.n);
    if (!c->per_token && t.count != (size_t)(r->sample.n * width))
        return ht_fail(HT_ERR_SHAPE, "%s: %s must have %d numbers for each of %lld images", r->in.path, c->argument,
                       width, (long long)r->sample.n);
    if (c->per_token)
        r->tokens = (int)t.shape[1];
    ht_condition_set_rows(c, &r->cond, values);
    return HT_OK;
}

static ht_status read_conditions(request *r)
{
    const ht_denoiser_info *info = &r->model->info;
    ht_status status = takes_labels(info) ? read_labels(r) : HT_OK;
    for (int i = 0; !status && i < HT_CONDITIONS; i++) {
        int width = ht_condition_width(&ht_conditions[i], info);
        if (width)
            status = read_condition(r, &ht_conditions[i], width);
    }
    return status;
}

static bool takes(const ht_denoiser_info *info, const char *argument)
{
    for (int i = 0; i < HT_CONDITIONS; i++)
        if (!strcmp(ht_conditions[i].argument, argument) && ht_condition_width(&ht_conditions[i], info))
            return true;
    return !strcmp(argument, "class_labels") && takes_labels(info);
}

static ht_status refuse_foreign_conditions(const request *r)
{
    for (const char *const *name = conditions; *name; name++)
        if (!takes(&r->model->info, *name) && ht_safetensors_find(r->in.tensors, *name))
            return ht_fail(HT_ERR_ARGUMENT, "%s: this model takes no %s; leave the tensor out", r->in.path, *name);
    return HT_OK;
}

ht_status ht_predict_go_on(const ht_predict_how *how, int64_t done, int64_t total)
{
    if (how->progress && how->progress(how->user, done, total))
        return ht_fail(HT_ERR_CANCELLED, "prediction was cancelled after %lld of %lld images", (long long)done,
                       (long long)total);
    return HT_OK;
}

/* Batch by batch, asking after each whether to go on. */
static ht_status predict_all(request *r, ht_session *session, const ht_predict_how *how)
{
    int batch = ht_session_batch(session);
    int64_t in = r->sample.c * r->sample.h * r->sample.w, out = r->model->info.out_channels * r->sample.h * r->sample.w;
    ht_status status = ht_session_check_cond(session, r->sample.n, &r->cond);
    for (int64_t at = 0; !status && at < r->sample.n; at += batch) {
        int64_t end = r->sample.n - at < batch ? r->sample.n : at + batch;
        ht_cond cond = ht_session_cond_from(session, &r->cond, at);
        status = ht_predict(session, end - at, r->sample.x + at * in, r->t + at, &cond, r->out + at * out);
        if (!status)
            status = ht_predict_go_on(how, end, r->sample.n);
    }
    return status;
}

static ht_status evaluate(request *r, ht_model *model, const ht_predict_how *how)
{
    ht_session_options o = how->options ? *how->options : (ht_session_options){0};
    ht_session *session;
    o.height = (int)r->sample.h;
    o.width = (int)r->sample.w;
    o.tokens = r->tokens;
    o.batch = o.batch ? o.batch : (int)r->sample.n;
    ht_status status = ht_session_open(model, &o, &session);
    if (status)
        return status;
    status = predict_all(r, session, how);
    ht_session_close(session);
    return status;
}

static ht_status write_result(const request *r, const char *path)
{
    int64_t channels = r->model->info.out_channels;
    size_t count = (size_t)(r->sample.n * channels * r->sample.h * r->sample.w);
    float *planes = ht_alloc_array(r->in.arena, count, sizeof *planes);
    if (!planes)
        return HT_ERR_MEMORY;
    ht_transpose(r->out, planes, r->sample.n, r->sample.h * r->sample.w, channels);
    ht_tensor t = {.name = "sample",
                   .dtype = HT_F32,
                   .ndim = 4,
                   .shape = {r->sample.n, channels, r->sample.h, r->sample.w},
                   .data = planes,
                   .count = count};
    t.bytes = count * sizeof *planes;
    return ht_safetensors_write(path, &t, 1, NULL, 0);
}

static ht_status predict_denoiser(request *r, ht_model *model, const ht_predict_how *how, const char *out)
{
    ht_status status = read_sample(r);
    if (!status)
        status = read_timestep(r);
    if (!status)
        status = read_conditions(r);
    if (!status)
        status = refuse_foreign_conditions(r);
    if (!status)
        status = evaluate(r, model, how);
    return status ? status : write_result(r, out);
}

ht_status ht_predict_file(ht_model *model, const ht_session_options *options, const char *in, const char *out,
                          ht_progress progress, void *user)
{
    request r = {.in = {.arena = ht_arena_create(), .path = in}, .model = model};
    const ht_predict_how how = {options, progress, user};
    ht_safetensors *file = NULL;
    ht_status status = r.in.arena ? ht_safetensors_open(in, &file) : HT_ERR_MEMORY;
    r.in.tensors = file;
    if (!status)
        status = model->family ? predict_denoiser(&r, model, &how, out) : ht_predict_coding(&r.in, model, &how, out);
    ht_safetensors_close(file);
    ht_arena_free(r.in.arena);
    return status;
}
