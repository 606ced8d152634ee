/* predict_t5.c - one evaluation of a T5 encoder on the ids of a file: `input_ids` [n,tokens] and, if it is there,
 * `attention_mask` of the same shape -> `last_hidden_state`. */
#include "sampler/backends.h"
#include "sampler/predict_private.h"
#include "sampler/session_private.h"
#include "sampler/text_t5.h"

typedef struct request {
    ht_input_file in;
    ht_t5_text *text;
    const ht_t5 *model;
    ht_ids_tensor ids;
    float *mask; /* NULL: ones */
    float *out;  /* [n,tokens,d_model] */
} request;

static ht_status read_inputs(request *r)
{
    const ht_tensor *t;
    ht_status status = ht_read_ids(&r->in, &r->ids);
    if (status || !ht_safetensors_find(r->in.tensors, "attention_mask"))
        return status;
    status = ht_read_tensor(&r->in, "attention_mask", &t, &r->mask);
    if (!status && (t->ndim != 2 || t->shape[0] != r->ids.n || t->shape[1] != r->ids.tokens))
        status = ht_fail(HT_ERR_SHAPE, "%s: attention_mask must be [%lld,%lld], as input_ids", r->in.path,
                         (long long)r->ids.n, (long long)r->ids.tokens);
    for (size_t i = 0; !status && i < t->count; i++)
        if (!(r->mask[i] >= 0 && r->mask[i] <= 1))
            status =
                ht_fail(HT_ERR_ARGUMENT, "%s: attention_mask has %g; wanted 0 to 1", r->in.path, (double)r->mask[i]);
    return status;
}

/* Batch by batch, asking after each whether to go on. */
static ht_status run_all(request *r, ht_t5_encoder *encoder, int batch, const ht_predict_how *how)
{
    int64_t row = r->ids.tokens * ht_t5_config_of(r->model)->d_model;
    ht_status status = HT_OK;
    for (int64_t at = 0; !status && at < r->ids.n; at += batch) {
        int64_t count = r->ids.n - at < batch ? r->ids.n - at : batch;
        const float *mask = r->mask ? r->mask + at * r->ids.tokens : NULL;
        status = ht_t5_encoder_run(encoder, r->ids.ids + at * r->ids.tokens, mask, count, r->out + at * row);
        if (!status)
            status = ht_predict_go_on(how, at + count, r->ids.n);
    }
    return status;
}

static ht_status evaluate(request *r, const ht_predict_how *how)
{
    static const ht_session_options none;
    const ht_session_options *o = how->options ? how->options : &none;
    const ht_backend *backend;
    ht_t5_encoder *encoder = NULL;
    int64_t most = r->ids.n < 64 ? r->ids.n : 64, tokens = r->ids.tokens < 1 << 20 ? r->ids.tokens : 1 << 20;
    ht_t5_encoder_options e = {.batch = o->batch ? o->batch : (int)most,
                               .tokens = (int)tokens,
                               .backend = {.threads = o->threads, .isa = o->isa, .device = o->device}};
    size_t count = (size_t)(r->ids.n * tokens), all;
    if (!ht_mul_size(count, (size_t)ht_t5_config_of(r->model)->d_model, &all))
        return ht_fail(HT_ERR_MEMORY, "out of memory for %lld prompts", (long long)r->ids.n);
    ht_status status = ht_find_backend(o->backend, &backend);
    if (!status && (o->threads < 0 || o->threads > 1024))
        status = ht_fail(HT_ERR_ARGUMENT, "threads %d is out of range; wanted 0 (all) to 1024", o->threads);
    if (!status)
        status = ht_t5_encoder_open(r->model, backend, &e, &encoder);
    if (!status && !(r->out = ht_alloc_array(r->in.arena, all, sizeof *r->out)))
        status = HT_ERR_MEMORY;
    if (!status)
        status = run_all(r, encoder, e.batch, how);
    ht_t5_encoder_close(encoder);
    return status;
}

static ht_status write_result(const request *r, const char *path)
{
    int64_t width = ht_t5_config_of(r->model)->d_model;
    size_t count = (size_t)(r->ids.n * r->ids.tokens * width);
    const ht_tensor t = {.name = "last_hidden_state",
                         .dtype = HT_F32,
                         .ndim = 3,
                         .shape = {r->ids.n, r->ids.tokens, width},
                         .data = r->out,
                         .count = count,
                         .bytes = count * sizeof *r->out};
    return ht_safetensors_write(path, &t, 1, NULL, 0);
}

ht_status ht_predict_t5(const ht_input_file *in, const char *folder, const ht_predict_how *how, const char *out)
{
    request r = {.in = *in};
    ht_status status = ht_t5_text_open(folder, NULL, &r.text);
    if (status)
        return status;
    r.model = ht_t5_text_model(r.text);
    status = read_inputs(&r);
    if (!status)
        status = evaluate(&r, how);
    if (!status)
        status = write_result(&r, out);
    ht_t5_text_close(r.text);
    return status;
}
