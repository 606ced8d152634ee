/* predict_text.c - one evaluation of a text encoder on the ids of a file, under the names that transformers' forward
 * gives its outputs. */
#include <string.h>
#include <unistd.h>

#include "core/json.h"
#include "core/safetensors.h"
#include "sampler/model.h"
#include "sampler/session_private.h"
#include "text/clip.h"

typedef struct request {
    ht_arena *arena;
    const char *folder, *in;
    json_t *config;
    ht_safetensors *weights, *file;
    ht_clip *model;
    int32_t *ids; /* [n][tokens] */
    int64_t n, tokens;
    float *out[HT_CLIP_OUTPUTS];
} request;

static const char *folder_of(ht_arena *arena, const char *path, const char *component)
{
    return component ? ht_sprintf(arena, "%s/%s", path, component) : ht_strdup(arena, path);
}

int ht_is_text_encoder(const char *path, const char *component)
{
    ht_arena *arena = ht_arena_create();
    json_t *object = NULL;
    const char *folder = arena ? folder_of(arena, path, component) : NULL;
    const char *config = folder ? ht_sprintf(arena, "%s/config.json", folder) : NULL;
    int is = 0;
    if (config && !access(config, F_OK) && !ht_json_read(config, &object)) {
        const char *type = json_string_value(json_object_get(object, "model_type"));
        is = type && !strcmp(type, "clip_text_model");
    }
    json_decref(object);
    ht_arena_free(arena);
    return is;
}

static ht_status open_model(request *r)
{
    ht_clip_config config;
    ht_weights *weights;
    const char *path = ht_sprintf(r->arena, "%s/config.json", r->folder);
    ht_status status = path ? ht_json_read(path, &r->config) : HT_ERR_MEMORY;
    if (!status)
        status = ht_clip_config_read(r->config, path, &config);
    if (!status)
        status = ht_open_weights(r->arena, r->folder, &r->weights);
    if (!status)
        status = ht_weights_open(r->arena, r->weights, ht_clip_rename, NULL, &weights);
    return status ? status : ht_clip_open(r->arena, &config, weights, &r->model);
}

static ht_status read_ids(request *r)
{
    const ht_tensor *t = ht_safetensors_find(r->file, "input_ids");
    if (!t)
        return ht_fail(HT_ERR_ARGUMENT, "%s has no tensor called input_ids", r->in);
    if (t->ndim != 2 || !t->count || t->shape[0] > 65536)
        return ht_fail(HT_ERR_SHAPE, "%s: input_ids must be [n,tokens], n at most 65536", r->in);
    float *values = ht_alloc_array(r->arena, t->count, sizeof *values);
    r->ids = ht_alloc_array(r->arena, t->count, sizeof *r->ids);
    if (!values || !r->ids)
        return HT_ERR_MEMORY;
    if (!ht_convert_to_f32(t->dtype, t->data, 0, t->count, values))
        return ht_fail(HT_ERR_UNSUPPORTED, "%s: input_ids is %s; wanted whole numbers", r->in, ht_dtype_name(t->dtype));
    for (size_t i = 0; i < t->count; i++) {
        if (!(values[i] >= 0 && values[i] < (float)(1 << 24)) || values[i] > (float)(int32_t)values[i])
            return ht_fail(HT_ERR_ARGUMENT, "%s: input_ids has %g; wanted a whole number below vocab_size", r->in,
                           (double)values[i]);
        r->ids[i] = (int32_t)values[i];
    }
    r->n = t->shape[0];
    r->tokens = t->shape[1];
    return HT_OK;
}

static unsigned wanted_of(const ht_clip *m)
{
    unsigned all = (1u << HT_CLIP_OUTPUTS) - 1;
    return all & ~(1u << (ht_clip_has_projection(m) ? HT_CLIP_POOLER_OUTPUT : HT_CLIP_TEXT_EMBEDS));
}

static ht_tensor output_tensor(const request *r, ht_clip_output output)
{
    const ht_clip_config *c = ht_clip_config_of(r->model);
    bool rows = output == HT_CLIP_POOLER_OUTPUT || output == HT_CLIP_TEXT_EMBEDS;
    int64_t width = output == HT_CLIP_TEXT_EMBEDS ? c->projection_dim : c->hidden_size;
    ht_tensor t = {.name = ht_clip_output_name(output), .dtype = HT_F32, .ndim = rows ? 2 : 3};
    t.shape[0] = r->n;
    t.shape[1] = rows ? width : r->tokens;
    t.shape[2] = rows ? 0 : width;
    t.count = (size_t)(r->n * (rows ? 1 : r->tokens) * width);
    t.bytes = t.count * sizeof(float);
    t.data = r->out[output];
    return t;
}

/* Batch by batch, asking after each whether to go on. */
static ht_status run_all(request *r, ht_clip_encoder *encoder, int batch, ht_progress progress, void *user)
{
    ht_status status = HT_OK;
    for (int64_t at = 0; !status && at < r->n; at += batch) {
        int64_t count = r->n - at < batch ? r->n - at : batch;
        float *out[HT_CLIP_OUTPUTS];
        for (int i = 0; i < HT_CLIP_OUTPUTS; i++)
            out[i] = r->out[i] ? r->out[i] + at * (int64_t)(output_tensor(r, i).count / (size_t)r->n) : NULL;
        status = ht_clip_encoder_run(encoder, r->ids + at * r->tokens, count, out);
        if (!status && progress && progress(user, at + count, r->n))
            status = ht_fail(HT_ERR_CANCELLED, "prediction was cancelled after %lld of %lld prompts",
                             (long long)(at + count), (long long)r->n);
    }
    return status;
}

static ht_status evaluate(request *r, const ht_session_options *options, ht_progress progress, void *user)
{
    const ht_backend *backend;
    ht_session_options none = {0};
    const ht_session_options *o = options ? options : &none;
    ht_clip_encoder *encoder = NULL;
    int64_t largest = r->n < 64 ? r->n : 64, tokens = r->tokens < 1 << 20 ? r->tokens : 1 << 20;
    ht_clip_encoder_options e = {.batch = o->batch ? o->batch : (int)largest,
                                 .tokens = (int)tokens,
                                 .wanted = wanted_of(r->model),
                                 .backend = {.threads = o->threads, .isa = o->isa}};
    ht_status status = ht_find_backend(o->backend, &backend);
    if (!status && (o->threads < 0 || o->threads > 1024))
        status = ht_fail(HT_ERR_ARGUMENT, "threads %d is out of range; wanted 0 (all) to 1024", o->threads);
    if (!status)
        status = ht_clip_encoder_open(r->model, backend, &e, &encoder);
    for (int i = 0; !status && i < HT_CLIP_OUTPUTS; i++)
        if (e.wanted & 1u << i && !(r->out[i] = ht_alloc(r->arena, output_tensor(r, i).bytes)))
            status = HT_ERR_MEMORY;
    if (!status)
        status = run_all(r, encoder, e.batch, progress, user);
    ht_clip_encoder_close(encoder);
    return status;
}

static ht_status write_outputs(const request *r, const char *path)
{
    ht_tensor tensors[HT_CLIP_OUTPUTS];
    size_t n = 0;
    for (int i = 0; i < HT_CLIP_OUTPUTS; i++)
        if (r->out[i])
            tensors[n++] = output_tensor(r, i);
    return ht_safetensors_write(path, tensors, n, NULL, 0);
}

ht_status ht_predict_text_file(const char *path, const char *component, const ht_session_options *options,
                               const char *in, const char *out, ht_progress progress, void *user)
{
    request r = {.arena = ht_arena_create(), .in = in};
    r.folder = r.arena ? folder_of(r.arena, path, component) : NULL;
    ht_status status = r.folder ? open_model(&r) : HT_ERR_MEMORY;
    if (!status)
        status = ht_safetensors_open(in, &r.file);
    if (!status)
        status = read_ids(&r);
    if (!status)
        status = evaluate(&r, options, progress, user);
    if (!status)
        status = write_outputs(&r, out);
    ht_safetensors_close(r.file);
    ht_safetensors_close(r.weights);
    json_decref(r.config);
    ht_arena_free(r.arena);
    return status;
}
