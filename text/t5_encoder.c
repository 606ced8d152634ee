/* t5_encoder.c - T5's encoder that runs: ids in, hidden states out, batch by batch. */
#include "text/t5.h"

struct ht_t5_encoder {
    ht_arena *arena;
    const ht_t5 *model;
    const ht_backend *backend;
    ht_program *program;
    int batch, tokens;
    const ht_value *input_ids, *attention_mask, *output;
    float *ids, *ones; /* [batch][tokens] */
};

static ht_status check_options(const ht_t5_encoder_options *o)
{
    if (o->tokens < 1 || o->tokens > HT_T5_MAX_TOKENS)
        return ht_fail(HT_ERR_ARGUMENT, "%d tokens: the text encoder takes 1 to %d", o->tokens, HT_T5_MAX_TOKENS);
    if (o->batch < 1 || o->batch > 4096)
        return ht_fail(HT_ERR_ARGUMENT, "a batch of %d prompts: want 1 to 4096", o->batch);
    return HT_OK;
}

static ht_status build(ht_t5_encoder *e, const ht_t5_encoder_options *o)
{
    size_t count = (size_t)o->batch * (size_t)o->tokens;
    ht_graph *g = ht_graph_create(e->arena);
    if (!g)
        return HT_ERR_MEMORY;
    ht_t5_build(e->model, g, o->batch, o->tokens);
    ht_graph_set_layers(g, o->layers);
    ht_status status = ht_graph_finish(g, true);
    if (!status)
        status = e->backend->compile(g, &o->backend, &e->program);
    if (status)
        return status;
    e->input_ids = ht_graph_input(g, "input_ids");
    e->attention_mask = ht_graph_input(g, "attention_mask");
    e->output = ht_graph_output(g);
    e->ids = ht_alloc_array(e->arena, count, sizeof *e->ids);
    e->ones = ht_alloc_array(e->arena, count, sizeof *e->ones);
    for (size_t i = 0; e->ones && i < count; i++)
        e->ones[i] = 1;
    return e->ids && e->ones ? e->backend->run(e->program, HT_STAGE_ONCE, o->batch, NULL) : HT_ERR_MEMORY;
}

ht_status ht_t5_encoder_open(const ht_t5 *m, const ht_backend *backend, const ht_t5_encoder_options *options,
                             ht_t5_encoder **out)
{
    ht_status status = check_options(options);
    if (status)
        return status;
    ht_arena *arena = ht_arena_create();
    ht_t5_encoder *e = arena ? ht_alloc(arena, sizeof *e) : NULL;
    if (!e) {
        ht_arena_free(arena);
        return HT_ERR_MEMORY;
    }
    *e = (ht_t5_encoder){
        .arena = arena, .model = m, .backend = backend, .batch = options->batch, .tokens = options->tokens};
    status = build(e, options);
    if (status)
        ht_t5_encoder_close(e);
    else
        *out = e;
    return status;
}

void ht_t5_encoder_close(ht_t5_encoder *e)
{
    if (!e)
        return;
    if (e->program)
        e->backend->close(e->program);
    ht_arena_free(e->arena);
}

static ht_status check_ids(const ht_t5_encoder *e, const int32_t *ids, int64_t n)
{
    int size = ht_t5_config_of(e->model)->vocab_size;
    for (int64_t i = 0; i < n * e->tokens; i++)
        if (ids[i] < 0 || ids[i] >= size)
            return ht_fail(HT_ERR_ARGUMENT, "input_ids: token %lld of row %lld is %d, the vocab_size is %d",
                           (long long)(i % e->tokens), (long long)(i / e->tokens), ids[i], size);
    return HT_OK;
}

ht_status ht_t5_encoder_run(ht_t5_encoder *e, const int32_t *ids, const float *mask, int64_t n, float *out)
{
    int64_t row = ht_value_count(e->output) / e->batch;
    ht_status status = check_ids(e, ids, n);
    for (int64_t at = 0; !status && at < n; at += e->batch) {
        int count = (int)(n - at < e->batch ? n - at : e->batch);
        for (int64_t i = 0; i < (int64_t)count * e->tokens; i++)
            e->ids[i] = (float)ids[at * e->tokens + i];
        status = e->backend->upload(e->program, e->input_ids, e->ids, count);
        if (!status)
            status = e->backend->upload(e->program, e->attention_mask, mask ? mask + at * e->tokens : e->ones, count);
        if (!status)
            status = e->backend->run(e->program, HT_STAGE_STEP, count, NULL);
        if (!status)
            status = e->backend->download(e->program, e->output, out + at * row, count);
    }
    return status;
}
