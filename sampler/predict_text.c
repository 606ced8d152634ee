/* predict_text.c - one evaluation of a text encoder on the ids of a file, under the names that transformers' forward
 * gives its outputs. */
#include <string.h>
#include <unistd.h>

#include "core/json.h"
#include "core/safetensors.h"
#include "sampler/backends.h"
#include "sampler/predict_private.h"
#include "sampler/session_private.h"
#include "text/clip.h"

typedef struct request {
    ht_arena *arena;
    const char *folder;
    json_t *config;
    ht_safetensors *weights;
    ht_clip *model;
    ht_ids_tensor ids;
    float *out[HT_CLIP_OUTPUTS];
} request;

static const char *folder_of(ht_arena *arena, const char *path, const char *component)
{
    return component ? ht_sprintf(arena, "%s/%s", path, component) : ht_strdup(arena, path);
}

typedef enum encoder_kind { NO_ENCODER, CLIP_ENCODER, T5_ENCODER } encoder_kind;

static encoder_kind kind_of(ht_arena *arena, const char *folder)
{
    json_t *object = NULL;
    const char *config = ht_sprintf(arena, "%s/config.json", folder);
    encoder_kind kind = NO_ENCODER;
    if (config && !access(config, F_OK) && !ht_json_read(config, &object)) {
        const char *type = json_string_value(json_object_get(object, "model_type"));
        kind = !type ? NO_ENCODER : !strcmp(type, "clip_text_model") ? CLIP_ENCODER : T5_ENCODER;
        kind = kind == T5_ENCODER && strcmp(type, "t5") != 0 ? NO_ENCODER : kind;
    }
    json_decref(object);
    return kind;
}

int ht_is_text_encoder(const char *path, const char *component)
{
    ht_arena *arena = ht_arena_create();
    const char *folder = arena ? folder_of(arena, path, component) : NULL;
    int is = folder && kind_of(arena, folder) != NO_ENCODER;
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

ht_status ht_read_ids(const ht_input_file *f, ht_ids_tensor *out)
{
    const ht_tensor *t;
    float *values;
    ht_status status = ht_read_tensor(f, "input_ids", &t, &values);
    if (status)
        return status;
    if (t->ndim != 2 || !t->count || t->shape[0] > 65536)
        return ht_fail(HT_ERR_SHAPE, "%s: input_ids must be [n,tokens], n at most 65536", f->path);
    *out = (ht_ids_tensor){t->shape[0], t->shape[1], ht_alloc_array(f->arena, t->count, sizeof(int32_t))};
    if (!out->ids)
        return HT_ERR_MEMORY;
    for (size_t i = 0; i < t->count; i++) {
        if (!(values[i] >= 0 && values[i] < (float)(1 << 24)) || values[i] > (float)(int32_t)values[i])
            return ht_fail(HT_ERR_ARGUMENT, "%s: input_ids has %g; wanted a whole number below vocab_size", f->path,
                           (double)values[i]);
        out->ids[i] = (int32_t)values[i];
    }
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
    t.shape[0] = r->ids.n;
    t.shape[1] = rows ? width : r->ids.tokens;
    t.shape[2] = rows ? 0 : width;
    t.count = (size_t)(r->ids.n * (rows ? 1 : r->ids.tokens) * width);
    t.bytes = t.count * sizeof(float);
    t.data = r->out[output];
    return t;
}

/* Batch by batch, asking after each whether to go on. */
static ht_status run_all(request *r, ht_clip_encoder *encoder, int batch, const ht_predict_how *how)
{
    ht_status status = HT_OK;
    for (int64_t at = 0; !status && at < r->ids.n; at += batch) {
        int64_t count = r->ids.n - at < batch ? r->ids.n - at : batch;
        float *out[HT_CLIP_OUTPUTS];
        for (int i = 0; i < HT_CLIP_OUTPUTS; i++)
            out[i] = r->out[i] ? r->out[i] + at * (int64_t)(output_tensor(r, i).count / (size_t)r->ids.n) : NULL;
        status = ht_clip_encoder_run(encoder, r->ids.ids + at * r->ids.tokens, count, out);
        if (!status)
            status = ht_predict_go_on(how, at + count, r->ids.n);
    }
    return status;
}

static ht_status evaluate(request *r, const ht_predict_how *how)
{
    const ht_backend *backend;
    static const ht_session_options none;
    const ht_session_options *o = how->options ? how->options : &none;
    ht_clip_encoder *encoder = NULL;
    int64_t largest = r->ids.n < 64 ? r->ids.n : 64, tokens = r->ids.tokens < 1 << 20 ? r->ids.tokens : 1 << 20;
    ht_clip_encoder_options e = {.batch = o->batch ? o->batch : (int)largest,
                                 .tokens = (int)tokens,
                                 .wanted = wanted_of(r->model),
                                 .backend = {.threads = o->threads, .isa = o->isa, .device = o->device}};
    ht_status status = ht_find_backend(o->backend, &backend);
    if (!status && (o->threads < 0 || o->threads > 1024))
        status = ht_fail(HT_ERR_ARGUMENT, "threads %d is out of range; wanted 0 (all) to 1024", o->threads);
    if (!status)
        status = ht_clip_encoder_open(r->model, backend, &e, &encoder);
    for (int i = 0; !status && i < HT_CLIP_OUTPUTS; i++)
        if (e.wanted & 1u << i && !(r->out[i] = ht_alloc(r->arena, output_tensor(r, i).bytes)))
            status = HT_ERR_MEMORY;
    if (!status)
        status = run_all(r, encoder, e.batch, how);
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

static ht_status predict_clip(const ht_input_file *in, const char *folder, const ht_predict_how *how, const char *out)
{
    request r = {.arena = in->arena, .folder = folder};
    ht_status status = open_model(&r);
    if (!status)
        status = ht_read_ids(in, &r.ids);
    if (!status)
        status = evaluate(&r, how);
    if (!status)
        status = write_outputs(&r, out);
    ht_safetensors_close(r.weights);
    json_decref(r.config);
    return status;
}

ht_status ht_predict_text_file(const char *path, const char *component, const ht_session_options *options,
                               const char *in, const char *out, ht_progress progress, void *user)
{
    ht_input_file file = {.arena = ht_arena_create(), .path = in};
    const ht_predict_how how = {options, progress, user};
    ht_safetensors *tensors = NULL;
    const char *folder = file.arena ? folder_of(file.arena, path, component) : NULL;
    bool t5 = folder && kind_of(file.arena, folder) == T5_ENCODER;
    ht_status status = folder ? ht_safetensors_open(in, &tensors) : HT_ERR_MEMORY;
    file.tensors = tensors;
    if (!status)
        status = (t5 ? ht_predict_t5 : predict_clip)(&file, folder, &how, out);
    ht_safetensors_close(tensors);
    ht_arena_free(file.arena);
    return status;
}
