/* prompt.c - from pieces with weights to rows of tokens with weights, and the weights into hidden states.
 *
 * The rules are those of AUTOMATIC1111's web UI with its default settings: rows of 75 tokens, the comma rule with 20,
 * the emphasis that it calls "Original". */
#include "text/prompt.h"

#include <stdlib.h>
#include <string.h>

#include "core/arena.h"
#include "text/prompt_parse.h"
#include "text/unicode.h"

enum { COMMA_REACH = 20 };

/* The row that is being filled is the last of the prompt. */
typedef struct rows {
    const ht_clip_tokens *tokens;
    ht_prompt *out;
    int64_t cap;
    int n, most;    /* tokens in the row, and how many fit */
    int last_comma; /* in the row; -1: none */
} rows;

void ht_prompt_free(ht_prompt *prompt)
{
    free(prompt->ids);
    free(prompt->weights);
    *prompt = (ht_prompt){0};
}

static ht_status grow(rows *r)
{
    int64_t cap = r->cap ? 2 * r->cap : 1;
    size_t count = (size_t)cap * (size_t)r->out->length;
    int32_t *ids = realloc(r->out->ids, count * sizeof *ids);
    if (ids)
        r->out->ids = ids;
    float *weights = realloc(r->out->weights, count * sizeof *weights);
    if (weights)
        r->out->weights = weights;
    if (!ids || !weights)
        return ht_fail(HT_ERR_MEMORY, "out of memory for a prompt of %lld rows", (long long)r->out->chunks);
    r->cap = cap;
    return HT_OK;
}

/* A new row that holds nothing. */
static ht_status next_row(rows *r)
{
    ht_status status = r->out->chunks == r->cap ? grow(r) : HT_OK;
    if (status)
        return status;
    int64_t at = r->out->chunks++ * r->out->length;
    for (int i = 0; i < r->out->length; i++) {
        r->out->ids[at + i] = i == 0 ? r->tokens->start : i == 1 ? r->tokens->end : r->tokens->pad;
        r->out->weights[at + i] = 1;
    }
    r->n = 0;
    r->last_comma = -1;
    return HT_OK;
}

static void put(rows *r, int32_t id, float weight)
{
    int64_t at = (r->out->chunks - 1) * r->out->length + 1 + r->n++;
    r->out->ids[at] = id;
    r->out->ids[at + 1] = r->tokens->end;
    r->out->weights[at] = weight;
    r->out->weighted |= weight < 1 || weight > 1;
}

/* The row is full: what follows its last comma goes into the next one, if that is near. */
static ht_status continue_row(rows *r)
{
    int keep = r->last_comma + 1, move = r->n - keep;
    bool moves = r->last_comma >= 0 && r->n - r->last_comma <= COMMA_REACH;
    ht_status status = next_row(r);
    if (status || !moves)
        return status;
    int64_t from = (r->out->chunks - 2) * r->out->length + 1 + keep;
    for (int i = 0; i < move; i++)
        put(r, r->out->ids[from + i], r->out->weights[from + i]);
    for (int i = 0; i < move; i++) {
        r->out->ids[from + i] = i ? r->tokens->pad : r->tokens->end;
        r->out->weights[from + i] = 1;
    }
    if (move) /* what ended the full row */
        r->out->ids[from + move] = r->tokens->pad;
    return HT_OK;
}

static ht_status add_token(rows *r, int32_t id, float weight)
{
    ht_status status = HT_OK;
    bool full = r->n == r->most, comma = id == r->tokens->comma;
    if (full) { /* a comma that finds no place is moved alone, and no later break is made at it */
        r->last_comma = comma ? -1 : r->last_comma;
        status = continue_row(r);
    }
    if (status)
        return status;
    if (comma && !full)
        r->last_comma = r->n;
    put(r, id, weight);
    return HT_OK;
}

static ht_status add_pieces(rows *r, const ht_clip_tokenizer *t, const ht_pieces *p)
{
    ht_ids ids = {0};
    ht_status status = next_row(r);
    bool ended = false; /* by a BREAK: a row is begun only for what follows */
    for (size_t i = 0; !status && i < p->n; i++) {
        ids.n = 0;
        if (p->at[i].is_break) {
            status = ended ? next_row(r) : HT_OK;
            ended = true;
            continue;
        }
        status = ht_clip_tokenize(t, p->text + p->at[i].begin, p->at[i].end - p->at[i].begin, &ids);
        if (!status && ids.n && ended)
            status = next_row(r);
        ended = ended && !ids.n;
        for (size_t k = 0; !status && k < ids.n; k++)
            status = add_token(r, ids.at[k], (float)p->at[i].weight);
    }
    ht_ids_free(&ids);
    return status;
}

/* Offsets in messages are those of the whole text. */
static ht_status check_text(const char *text, size_t size)
{
    ht_points points = {0};
    if (size > HT_LONGEST_TEXT)
        return ht_fail(HT_ERR_ARGUMENT, "the prompt has %zu bytes, at most %d are read", size, HT_LONGEST_TEXT);
    ht_status status = ht_points_decode(&points, text, size, 0);
    ht_points_free(&points);
    return status;
}

ht_status ht_prompt_read(const ht_clip_tokenizer *t, const char *text, size_t size, ht_prompt *out)
{
    ht_prompt prompt = {.length = ht_clip_tokenizer_tokens(t)->length};
    rows r = {.tokens = ht_clip_tokenizer_tokens(t), .out = &prompt, .most = prompt.length - 2};
    ht_pieces pieces = {0};
    ht_status status = check_text(text, size);
    if (!status)
        status = ht_pieces_parse(&pieces, text, size);
    if (!status)
        status = add_pieces(&r, t, &pieces);
    ht_pieces_free(&pieces);
    if (status)
        ht_prompt_free(&prompt);
    else
        *out = prompt;
    return status;
}

ht_status ht_prompt_read_plain(const ht_clip_tokenizer *t, const char *text, size_t size, ht_prompt *out)
{
    ht_prompt prompt = {.length = ht_clip_tokenizer_tokens(t)->length};
    rows r = {.tokens = ht_clip_tokenizer_tokens(t), .out = &prompt};
    ht_status status = next_row(&r);
    if (!status)
        status = ht_clip_encode(t, text, size, prompt.ids, NULL);
    if (status)
        ht_prompt_free(&prompt);
    else
        *out = prompt;
    return status;
}

ht_status ht_prompt_pad(const ht_clip_tokenizer *t, ht_prompt *prompt, int64_t chunks)
{
    rows r = {.tokens = ht_clip_tokenizer_tokens(t), .out = prompt, .cap = prompt->chunks};
    ht_status status = HT_OK;
    while (!status && prompt->chunks < chunks)
        status = next_row(&r);
    return status;
}

/* ---- hidden states ---- */

static double sum_of(const float *x, int64_t n)
{
    double sum = 0;
    for (int64_t i = 0; i < n; i++)
        sum += (double)x[i];
    return sum;
}

void ht_prompt_weigh(const ht_prompt *prompt, float *hidden, int64_t channels)
{
    int64_t tokens = prompt->chunks * prompt->length, count = tokens * channels;
    if (!prompt->weighted)
        return;
    double before = sum_of(hidden, count);
    for (int64_t i = 0; i < count; i++)
        hidden[i] *= prompt->weights[i / channels];
    double after = sum_of(hidden, count);
    float ratio = after < 0 || after > 0 ? (float)(before / after) : 1;
    for (int64_t i = 0; i < count; i++)
        hidden[i] *= ratio;
}
