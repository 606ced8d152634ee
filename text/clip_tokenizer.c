/* clip_tokenizer.c - from text to ids.
 *
 * The definition is transformers' CLIPTokenizer on the tokenizers library; merging is byte pair encoding (Sennrich,
 * Haddow, Birch 2016) with a heap of candidates, so that a word of a million letters takes n log n.
 *
 * Traps:
 * - Special tokens are found in the text as it came, before lower case: <|ENDOFTEXT|> is plain text.  The padding is
 * one of them: where it is "!" (SD 2, SDXL's second tokenizer), every "!" of a prompt is id 0.
 * - Composition sees each piece between special tokens alone.
 * - Lower case comes before the split, so 'S is a contraction too; a curly apostrophe is not.
 * - A candidate that was outdated by a merge is dropped only if what stands there now makes something else. */
#include "text/clip_tokenizer.h"

#include <stdlib.h>
#include <string.h>

#include "text/clip_private.h"
#include "text/unicode.h"

/* ---- lists ---- */

void ht_ids_free(ht_ids *ids)
{
    free(ids->at);
    *ids = (ht_ids){0};
}

ht_status ht_ids_add(ht_ids *ids, int32_t id)
{
    if (ids->n == ids->cap) {
        size_t cap = ids->cap ? 2 * ids->cap : 128, bytes;
        int32_t *at = ht_mul_size(cap, sizeof *at, &bytes) ? realloc(ids->at, bytes) : NULL;
        if (!at)
            return ht_fail(HT_ERR_MEMORY, "out of memory for %zu tokens", ids->n);
        ids->at = at;
        ids->cap = cap;
    }
    ids->at[ids->n++] = id;
    return HT_OK;
}

/* ---- merging ---- */

/* A symbol of a word: a link of a list. */
typedef struct symbol {
    int32_t id; /* -1: merged into the one before */
    int32_t before, after;
} symbol;

typedef struct candidate {
    int32_t rank, at, product; /* at: of the left symbol */
} candidate;

/* Memory for one word at a time. */
typedef struct bench {
    symbol *symbols;
    candidate *heap; /* the least first; each merge adds two at most and removes one */
    size_t n_heap, cap;
} bench;

static bool comes_first(const candidate *a, const candidate *b)
{
    return a->rank != b->rank ? a->rank < b->rank : a->at < b->at;
}

static void push(bench *b, candidate c)
{
    size_t i = b->n_heap++;
    for (; i && comes_first(&c, &b->heap[(i - 1) / 2]); i = (i - 1) / 2)
        b->heap[i] = b->heap[(i - 1) / 2];
    b->heap[i] = c;
}

static candidate pop(bench *b)
{
    candidate first = b->heap[0], last = b->heap[--b->n_heap];
    size_t i = 0;
    for (size_t child; (child = 2 * i + 1) < b->n_heap; i = child) {
        if (child + 1 < b->n_heap && comes_first(&b->heap[child + 1], &b->heap[child]))
            child++;
        if (!comes_first(&b->heap[child], &last))
            break;
        b->heap[i] = b->heap[child];
    }
    b->heap[i] = last;
    return first;
}

/* What symbol `at` and the one after it make becomes a candidate. */
static void consider(const ht_clip_tokenizer *t, bench *b, int32_t at)
{
    if (at < 0 || b->symbols[at].after < 0)
        return;
    const ht_clip_merge *m = ht_clip_slot(t, b->symbols[at].id, b->symbols[b->symbols[at].after].id);
    if (m->pair != HT_CLIP_EMPTY)
        push(b, (candidate){m->rank, at, m->product});
}

static void merge(const ht_clip_tokenizer *t, bench *b, const candidate *c)
{
    symbol *left = &b->symbols[c->at];
    if (left->id < 0 || left->after < 0)
        return;
    symbol *right = &b->symbols[left->after];
    const ht_clip_merge *m = ht_clip_slot(t, left->id, right->id);
    if (m->pair == HT_CLIP_EMPTY || m->product != c->product)
        return;
    left->id = m->product;
    left->after = right->after;
    right->id = -1;
    if (left->after >= 0)
        b->symbols[left->after].before = c->at;
    consider(t, b, left->before);
    consider(t, b, c->at);
}

static ht_status make_room(bench *b, size_t n)
{
    if (n <= b->cap)
        return HT_OK;
    free(b->symbols);
    free(b->heap);
    b->cap = n < 256 ? 256 : n;
    b->symbols = malloc(b->cap * sizeof *b->symbols);
    b->heap = malloc(3 * b->cap * sizeof *b->heap); /* n - 1 pairs, and of n - 1 merges two each, less the one taken */
    if (b->symbols && b->heap)
        return HT_OK;
    b->cap = 0;
    return ht_fail(HT_ERR_MEMORY, "out of memory for a word of %zu bytes", n);
}

static ht_status add_word(const ht_clip_tokenizer *t, bench *b, const unsigned char *bytes, size_t n, ht_ids *ids)
{
    ht_status status = make_room(b, n);
    if (status)
        return status;
    for (size_t i = 0; i < n; i++)
        b->symbols[i] = (symbol){.id = i + 1 < n ? t->byte[bytes[i]] : t->last_byte[bytes[i]],
                                 .before = (int32_t)i - 1,
                                 .after = i + 1 < n ? (int32_t)i + 1 : -1};
    b->n_heap = 0;
    for (size_t i = 0; i < n; i++)
        consider(t, b, (int32_t)i);
    while (b->n_heap) {
        candidate c = pop(b);
        merge(t, b, &c);
    }
    for (int32_t i = 0; !status && i >= 0; i = b->symbols[i].after)
        status = ht_ids_add(ids, b->symbols[i].id);
    return status;
}

/* ---- words ---- */

static bool is_other(int32_t point)
{
    return !ht_is_space(point) && !ht_is_letter(point) && !ht_is_number(point);
}

/* The length of a contraction at p, 0: there is none. */
static size_t contraction(const int32_t *p, size_t left)
{
    static const char *const forms[] = {"'s", "'t", "'re", "'ve", "'m", "'ll", "'d"};
    for (size_t i = 0; i < sizeof forms / sizeof *forms; i++) {
        size_t n = strlen(forms[i]), k = 0;
        while (k < n && k < left && p[k] == (unsigned char)forms[i][k])
            k++;
        if (k == n)
            return n;
    }
    return 0;
}

/* The length of the word at p, which is no white space. */
static size_t word_length(const int32_t *p, size_t left)
{
    size_t n = contraction(p, left);
    if (n || ht_is_number(*p))
        return n ? n : 1;
    bool letters = ht_is_letter(*p);
    for (n = 1; n < left && (letters ? ht_is_letter(p[n]) : is_other(p[n])); n++)
        ;
    return n;
}

/* Memory for one text, and where its ids go. */
typedef struct work {
    const ht_clip_tokenizer *tokenizer;
    ht_ids *ids;
    ht_points raw, points;
    unsigned char *bytes; /* of a word */
    size_t cap_bytes;
    bench bench;
} work;

static ht_status add_points(work *w, const int32_t *p, size_t n)
{
    size_t size = 0;
    if (4 * n > w->cap_bytes) {
        free(w->bytes);
        w->cap_bytes = 4 * n + 256;
        if (!(w->bytes = malloc(w->cap_bytes))) {
            w->cap_bytes = 0;
            return ht_fail(HT_ERR_MEMORY, "out of memory for a word of %zu characters", n);
        }
    }
    for (size_t i = 0; i < n; i++)
        size += (size_t)ht_utf8_encode(p[i], w->bytes + size);
    return add_word(w->tokenizer, &w->bench, w->bytes, size, w->ids);
}

static ht_status lower(const ht_points *in, ht_points *out)
{
    ht_status status = HT_OK;
    out->n = 0;
    for (size_t i = 0; !status && i < in->n; i++)
        if (!(status = ht_points_reserve(out, 2)))
            out->n += (size_t)ht_lower(in->at[i], out->at + out->n);
    return status;
}

/* A piece without special tokens, at an offset of the text. */
static ht_status add_piece(work *w, const char *text, size_t size, size_t offset)
{
    w->raw.n = 0;
    ht_status status = ht_points_decode(&w->raw, text + offset, size, offset);
    if (!status)
        status = ht_points_compose(&w->raw, &w->points);
    if (!status)
        status = lower(&w->points, &w->raw);
    for (size_t i = 0, n; !status && i < w->raw.n; i += n) {
        n = 1;
        if (ht_is_space(w->raw.at[i]))
            continue;
        n = word_length(w->raw.at + i, w->raw.n - i);
        status = add_points(w, w->raw.at + i, n);
    }
    return status;
}

/* ---- texts ---- */

/* The special token at a place of the text, -1: none. */
static int special_at(const ht_clip_tokenizer *t, const char *text, size_t left)
{
    for (int i = 0; i < HT_CLIP_SPECIALS; i++)
        if (t->special[i].size <= left && *text == *t->special[i].text &&
            !memcmp(text, t->special[i].text, t->special[i].size))
            return i;
    return -1;
}

static ht_status tokenize(work *w, const char *text, size_t size)
{
    const ht_clip_tokenizer *t = w->tokenizer;
    ht_status status = HT_OK;
    size_t begin = 0;
    for (size_t i = 0; !status && i < size;) {
        int special = special_at(t, text + i, size - i);
        if (special < 0) {
            i++;
            continue;
        }
        status = add_piece(w, text, i - begin, begin);
        if (!status)
            status = ht_ids_add(w->ids, t->special[special].id);
        i += t->special[special].size;
        begin = i;
    }
    return status ? status : add_piece(w, text, size - begin, begin);
}

ht_status ht_clip_tokenize(const ht_clip_tokenizer *t, const char *text, size_t size, ht_ids *ids)
{
    work w = {.tokenizer = t, .ids = ids};
    if (size > HT_LONGEST_TEXT)
        return ht_fail(HT_ERR_ARGUMENT, "the text has %zu bytes, at most %d are read", size, HT_LONGEST_TEXT);
    ht_status status = tokenize(&w, text, size);
    ht_points_free(&w.raw);
    ht_points_free(&w.points);
    free(w.bytes);
    free(w.bench.symbols);
    free(w.bench.heap);
    return status;
}

ht_status ht_clip_encode(const ht_clip_tokenizer *t, const char *text, size_t size, int32_t *row, size_t *cut)
{
    ht_ids ids = {0};
    size_t length = (size_t)t->tokens.length, most = length - 2;
    ht_status status = ht_clip_tokenize(t, text, size, &ids);
    if (!status) {
        size_t n = ids.n < most ? ids.n : most;
        row[0] = t->tokens.start;
        for (size_t i = 1; i < length; i++)
            row[i] = i <= n ? ids.at[i - 1] : i == n + 1 ? t->tokens.end : t->tokens.pad;
        if (cut)
            *cut = ids.n - n;
    }
    ht_ids_free(&ids);
    return status;
}
