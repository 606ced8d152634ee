/* text_t5.c - T5 as a pipeline's text encoder: files, prompts, rows of hidden states.
 *
 * What pads a row changes nothing: the encoder and PixArt's attention both look at the mask. */
#include "sampler/text_t5.h"

#include <stdlib.h>
#include <string.h>

#include "core/json.h"
#include "sampler/backends.h"
#include "sampler/model.h"
#include "sampler/session_private.h"
#include "text/t5_tokenizer.h"
#include "text/unicode.h"

struct ht_t5_text {
    ht_arena *arena;
    ht_t5_tokenizer *tokenizer; /* NULL: there is none */
    json_t *config;
    ht_safetensors *file;
    ht_t5 *model;
};

/* ---- opening ---- */

static ht_status open_model(ht_t5_text *t, const char *folder)
{
    ht_t5_config config;
    ht_weights *weights;
    const char *path = ht_sprintf(t->arena, "%s/config.json", folder);
    ht_status status = path ? ht_json_read(path, &t->config) : HT_ERR_MEMORY;
    if (!status)
        status = ht_t5_config_read(t->config, path, &config);
    if (!status)
        status = ht_open_weights(t->arena, folder, &t->file);
    if (!status)
        status = ht_weights_open(t->arena, t->file, ht_t5_rename, NULL, &weights);
    if (!status)
        status = ht_t5_open(t->arena, &config, weights, &t->model);
    if (!status && t->tokenizer && ht_t5_tokenizer_tokens(t->tokenizer)->largest >= config.vocab_size)
        status = ht_fail(HT_ERR_SHAPE, "%s: the tokenizer has ids up to %d, the text encoder a vocab_size of %d",
                         folder, ht_t5_tokenizer_tokens(t->tokenizer)->largest, config.vocab_size);
    return status;
}

ht_status ht_t5_text_open(const char *folder, const char *tokenizer, ht_t5_text **out)
{
    ht_arena *arena = ht_arena_create();
    ht_t5_text *t = arena ? ht_alloc(arena, sizeof *t) : NULL;
    if (!t) {
        ht_arena_free(arena);
        return HT_ERR_MEMORY;
    }
    t->arena = arena;
    ht_status status = tokenizer ? ht_t5_tokenizer_open(tokenizer, &t->tokenizer) : HT_OK;
    if (!status)
        status = open_model(t, folder);
    if (status)
        ht_t5_text_close(t);
    else
        *out = t;
    return status;
}

void ht_t5_text_close(ht_t5_text *t)
{
    if (!t)
        return;
    ht_t5_tokenizer_close(t->tokenizer);
    ht_safetensors_close(t->file);
    json_decref(t->config);
    ht_arena_free(t->arena);
}

const ht_t5 *ht_t5_text_model(const ht_t5_text *t)
{
    return t->model;
}

/* ---- reading ---- */

/* In lower case; *end: its bytes.  NULL: out of memory, or not UTF-8. */
static char *lower_case(const char *text, size_t *end)
{
    ht_points points = {0};
    ht_status status = ht_points_decode(&points, text, strlen(text), 0);
    char *out = status ? NULL : malloc(8 * points.n + 1); /* a point becomes two of four bytes at most */
    if (!status && !out)
        ht_fail(HT_ERR_MEMORY, "out of memory for a prompt");
    *end = 0;
    for (size_t i = 0; out && i < points.n; i++) {
        int32_t to[2];
        int n = ht_lower(points.at[i], to);
        for (int k = 0; k < n; k++)
            *end += (size_t)ht_utf8_encode(to[k], (unsigned char *)out + *end);
    }
    ht_points_free(&points);
    return out;
}

ht_status ht_t5_text_read(const ht_t5_text *t, const char *text, int length, ht_prompt *out)
{
    size_t size;
    ht_prompt prompt = {.chunks = 1,
                        .length = length,
                        .ids = calloc((size_t)length, sizeof *prompt.ids),
                        .weights = calloc((size_t)length, sizeof *prompt.weights)};
    char *lower = lower_case(text, &size);
    ht_status status = lower ? HT_OK : HT_ERR_ARGUMENT;
    if (!prompt.ids || !prompt.weights)
        status = ht_fail(HT_ERR_MEMORY, "out of memory for a prompt of %d tokens", length);
    if (!status)
        status = ht_t5_encode(t->tokenizer, lower, size, length, prompt.ids, prompt.weights, NULL);
    free(lower);
    if (status)
        ht_prompt_free(&prompt);
    else
        *out = prompt;
    return status;
}

/* ---- encoding ---- */

ht_status ht_t5_text_encode(const ht_t5_text *t, const ht_session_options *session, int64_t n, int length,
                            const int32_t *ids, const float *mask, float *hidden)
{
    enum { MOST = 8 };
    static const ht_session_options none;
    const ht_session_options *s = session ? session : &none;
    const ht_backend *backend;
    ht_t5_encoder *encoder = NULL;
    const ht_t5_encoder_options o = {.batch = n < MOST ? (int)n : MOST,
                                     .tokens = length,
                                     .backend = {.threads = s->threads, .isa = s->isa, .device = s->device}};
    ht_status status = ht_find_backend(s->backend, &backend);
    if (!status)
        status = ht_t5_encoder_open(t->model, backend, &o, &encoder);
    if (!status)
        status = ht_t5_encoder_run(encoder, ids, mask, n, hidden);
    ht_t5_encoder_close(encoder);
    return status;
}
