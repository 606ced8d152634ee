/* clip_encoder.c - a text encoder that runs: ids in, hidden states out, batch by batch. */
#include "text/clip.h"

struct ht_clip_encoder {
    ht_arena *arena;
    const ht_clip *model;
    const ht_backend *backend;
    ht_program *program;
    int batch, tokens;
    const ht_value *input_ids, *pooled_token; /* NULL: no output needs it */
    const ht_value *output[HT_CLIP_OUTPUTS];  /* NULL: not wanted */
    float *ids, *pooled;                      /* [batch][tokens], [batch] */
};

static ht_status check_options(const ht_clip *m, const ht_clip_encoder_options *o)
{
    int positions = ht_clip_config_of(m)->max_position_embeddings;
    if (o->tokens < 1 || o->tokens > positions)
        return ht_fail(HT_ERR_ARGUMENT, "%d tokens: the text encoder takes 1 to %d", o->tokens, positions);
    if (o->batch < 1 || o->batch > 4096)
        return ht_fail(HT_ERR_ARGUMENT, "a batch of %d prompts: want 1 to 4096", o->batch);
    if (!o->wanted || o->wanted >> HT_CLIP_OUTPUTS)
        return ht_fail(HT_ERR_ARGUMENT, "the text encoder was asked for no output that it has");
    if (o->wanted & 1u << HT_CLIP_TEXT_EMBEDS && !ht_clip_has_projection(m))
        return ht_fail(HT_ERR_ARGUMENT, "the text encoder has no text_projection.weight, so no text_embeds");
    return HT_OK;
}

static ht_status build(ht_clip_encoder *e, const ht_clip_encoder_options *o)
{
    ht_graph *g = ht_graph_create(e->arena);
    if (!g)
        return HT_ERR_MEMORY;
    ht_clip_build(e->model, g, o->batch, o->tokens, o->wanted);
    ht_status status = ht_graph_finish(g, true);
    if (!status)
        status = e->backend->compile(g, &o->backend, &e->program);
    if (status)
        return status;
    e->input_ids = ht_graph_input(g, "input_ids");
    e->pooled_token = ht_graph_input(g, "pooled_token");
    for (int i = 0; i < HT_CLIP_OUTPUTS; i++)
        e->output[i] = o->wanted & 1u << i ? ht_graph_find(g, ht_clip_output_name(i)) : NULL;
    e->ids = ht_alloc_array(e->arena, (size_t)o->batch * (size_t)o->tokens, sizeof *e->ids);
    e->pooled = ht_alloc_array(e->arena, (size_t)o->batch, sizeof *e->pooled);
    if (!e->ids || !e->pooled)
        return HT_ERR_MEMORY;
    return e->backend->run(e->program, HT_STAGE_ONCE, o->batch, NULL);
}

ht_status ht_clip_encoder_open(const ht_clip *m, const ht_backend *backend, const ht_clip_encoder_options *options,
                               ht_clip_encoder **out)
{
    ht_status status = check_options(m, options);
    if (status)
        return status;
    ht_arena *arena = ht_arena_create();
    ht_clip_encoder *e = arena ? ht_alloc(arena, sizeof *e) : NULL;
    if (!e) {
        ht_arena_free(arena);
        return HT_ERR_MEMORY;
    }
    *e = (ht_clip_encoder){
        .arena = arena, .model = m, .backend = backend, .batch = options->batch, .tokens = options->tokens};
    status = build(e, options);
    if (status)
        ht_clip_encoder_close(e);
    else
        *out = e;
    return status;
}

void ht_clip_encoder_close(ht_clip_encoder *e)
{
    if (!e)
        return;
    if (e->program)
        e->backend->close(e->program);
    ht_arena_free(e->arena);
}

static ht_status check_ids(const ht_clip_encoder *e, const int32_t *ids, int64_t n)
{
    int size = ht_clip_config_of(e->model)->vocab_size;
    for (int64_t i = 0; i < n * e->tokens; i++)
        if (ids[i] < 0 || ids[i] >= size)
            return ht_fail(HT_ERR_ARGUMENT, "input_ids: token %lld of row %lld is %d, the vocab_size is %d",
                           (long long)(i % e->tokens), (long long)(i / e->tokens), ids[i], size);
    return HT_OK;
}

/* n rows, at most a batch. */
static ht_status run_batch(ht_clip_encoder *e, const int32_t *ids, int n)
{
    ht_status status = HT_OK;
    for (int64_t i = 0; i < (int64_t)n * e->tokens; i++)
        e->ids[i] = (float)ids[i];
    for (int64_t i = 0; i < n; i++)
        e->pooled[i] = (float)ht_clip_pooled_token(ht_clip_config_of(e->model), ids + i * e->tokens, e->tokens);
    if (e->input_ids)
        status = e->backend->upload(e->program, e->input_ids, e->ids, n);
    if (!status && e->pooled_token)
        status = e->backend->upload(e->program, e->pooled_token, e->pooled, n);
    return status ? status : e->backend->run(e->program, HT_STAGE_STEP, n, NULL);
}

ht_status ht_clip_encoder_run(ht_clip_encoder *e, const int32_t *ids, int64_t n, float *const out[HT_CLIP_OUTPUTS])
{
    ht_status status = check_ids(e, ids, n);
    for (int64_t at = 0; !status && at < n; at += e->batch) {
        int count = (int)(n - at < e->batch ? n - at : e->batch);
        status = run_batch(e, ids + at * e->tokens, count);
        for (int i = 0; !status && i < HT_CLIP_OUTPUTS; i++)
            if (e->output[i])
                status = e->backend->download(e->program, e->output[i],
                                              out[i] + at * (ht_value_count(e->output[i]) / e->batch), count);
    }
    return status;
}
