/* t5_tokenizer.c - from a text to ids.
 *
 * Traps:
 * - transformers normalizes grapheme by grapheme: one of at most 5 bytes is looked up as a whole, of which only the
 *   start need be in the map; a longer one is looked up character by character.  SentencePiece itself takes the longest
 *   start it finds anywhere.
 * - The piece of an unknown character costs 10 more than the worst piece; unknown ones in a row are one.
 * - Strings of special tokens are ids wherever they stand, and white space beside them is dropped. */
#include "text/t5_tokenizer.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/file.h"
#include "core/json.h"
#include "text/spiece.h"
#include "text/unicode.h"

#define UNKNOWN_PENALTY 10.0
#define META            "\xe2\x96\x81" /* U+2581 */

enum { META_SIZE = 3, LONGEST_WHOLE = 5, MOST_EXTRA_IDS = 1 << 16, DEFAULT_EXTRA_IDS = 100 };

struct ht_t5_tokenizer {
    ht_arena *arena;
    ht_mapping file;
    ht_spiece model;
    int extra_ids;
    ht_t5_tokens tokens;
};

/* ---- bytes that grow ---- */

typedef struct bytes {
    char *at;
    size_t n, cap;
} bytes;

static ht_status append(bytes *b, const char *text, size_t size)
{
    size_t wanted;
    if (!ht_add_size(b->n, size, &wanted))
        return ht_fail(HT_ERR_MEMORY, "out of memory for a text");
    if (wanted > b->cap) {
        size_t cap = wanted + wanted / 2 + 64;
        char *at = realloc(b->at, cap);
        if (!at)
            return ht_fail(HT_ERR_MEMORY, "out of memory for a text of %zu bytes", wanted);
        b->at = at;
        b->cap = cap;
    }
    if (size)
        memcpy(b->at + b->n, text, size);
    b->n = wanted;
    return HT_OK;
}

/* ---- normalizing ---- */

static ht_status append_mapped(const ht_spiece *s, bytes *out, const char *text, size_t size)
{
    size_t mapped = 0;
    const char *to = ht_spiece_map(s, text, size, &mapped);
    return to ? append(out, to, mapped) : append(out, text, size);
}

static int point_size(int32_t point)
{
    return point < 0x80 ? 1 : point < 0x800 ? 2 : point < 0x10000 ? 3 : 4;
}

/* Points first..end-1, which are the bytes at text. */
static ht_status append_grapheme(const ht_spiece *s, bytes *out, const ht_points *points, size_t first, size_t end,
                                 const char *text)
{
    size_t size = 0, mapped;
    ht_status status = HT_OK;
    for (size_t i = first; i < end; i++)
        size += (size_t)point_size(points->at[i]);
    if (size <= LONGEST_WHOLE && ht_spiece_map(s, text, size, &mapped))
        return append_mapped(s, out, text, size);
    for (size_t i = first; !status && i < end; i++) {
        size_t own = (size_t)point_size(points->at[i]);
        status = append_mapped(s, out, text, own);
        text += own;
    }
    return status;
}

static ht_status normalize(const ht_spiece *s, const char *text, size_t size, size_t base, bytes *out)
{
    ht_points points = {0};
    int32_t state = 0;
    ht_status status = ht_points_decode(&points, text, size, base);
    for (size_t first = 0, end; !status && first < points.n; first = end) {
        size_t own = (size_t)point_size(points.at[first]);
        for (end = first + 1; end < points.n && !ht_grapheme_ends(points.at[end - 1], points.at[end], &state); end++)
            own += (size_t)point_size(points.at[end]);
        status = append_grapheme(s, out, &points, first, end, text);
        text += own;
    }
    ht_points_free(&points);
    return status;
}

/* ---- unigram ---- */

/* The best way to the end of a byte. */
typedef struct best {
    double score;
    int32_t start, id; /* start -1: no way */
} best;

static void offer(best *at, double score, int32_t start, int32_t id)
{
    if (at->start < 0 || score > at->score)
        *at = (best){score, start, id};
}

static void find_best(const ht_t5_tokenizer *t, const char *text, size_t size, best *ways)
{
    const ht_spiece *s = &t->model;
    ways[0] = (best){0, 0, 0};
    for (size_t i = 1; i <= size; i++)
        ways[i] = (best){.start = -1};
    for (size_t i = 0, own; i < size; i += own) {
        unsigned char lead = (unsigned char)text[i];
        own = lead < 0x80 ? 1 : lead < 0xe0 ? 2 : lead < 0xf0 ? 3 : 4;
        ht_piece_search search = ht_piece_search_begin(s);
        bool single = false;
        for (int id; (id = ht_piece_search_next(s, &search, text + i, size - i)) >= 0;) {
            offer(&ways[i + (size_t)s->pieces[id].size], s->pieces[id].score + ways[i].score, (int32_t)i, id);
            single |= (size_t)s->pieces[id].size == own;
        }
        if (!single)
            offer(&ways[i + own], s->least - UNKNOWN_PENALTY + ways[i].score, (int32_t)i, t->tokens.unknown);
    }
}

/* One part: found from its end, written from its start. */
static ht_status add_part(const ht_t5_tokenizer *t, const char *text, size_t size, ht_ids *ids)
{
    size_t bytes_needed, first = ids->n;
    if (!ht_mul_size(size + 1, sizeof(best), &bytes_needed))
        return ht_fail(HT_ERR_MEMORY, "out of memory for a word of %zu bytes", size);
    best *ways = malloc(bytes_needed);
    ht_status status = ways ? HT_OK : ht_fail(HT_ERR_MEMORY, "out of memory for a word of %zu bytes", size);
    if (!status)
        find_best(t, text, size, ways);
    bool unknown = false;
    for (size_t at = size; !status && at > 0; at = (size_t)ways[at].start) {
        if (ways[at].start < 0) /* a piece that ends within a character */
            status = ht_fail(HT_ERR_FORMAT, "the tokenizer's pieces do not cut \"%.40s\" into characters", text);
        else if (ways[at].id != t->tokens.unknown || !unknown)
            status = ht_ids_add(ids, ways[at].id);
        unknown = ways[at].id == t->tokens.unknown;
    }
    for (size_t a = first, b = ids->n; !status && a + 1 < b; a++, b--) {
        int32_t id = ids->at[a];
        ids->at[a] = ids->at[b - 1];
        ids->at[b - 1] = id;
    }
    free(ways);
    return status;
}

/* A word, which begins with U+2581, cut before every other one. */
static ht_status add_word(const ht_t5_tokenizer *t, const bytes *word, ht_ids *ids)
{
    ht_status status = HT_OK;
    for (size_t at = 0, end; !status && at < word->n; at = end) {
        for (end = at + 1; end < word->n; end++)
            if (word->n - end >= META_SIZE && !memcmp(word->at + end, META, META_SIZE))
                break;
        status = add_part(t, word->at + at, end - at, ids);
    }
    return status;
}

/* ---- texts ---- */

/* What stands between special tokens. */
static ht_status add_text(const ht_t5_tokenizer *t, const char *text, size_t size, size_t base, ht_ids *ids)
{
    bytes normal = {0}, word = {0};
    ht_points points = {0};
    ht_status status = normalize(&t->model, text, size, base, &normal);
    if (!status && normal.n)
        status = ht_points_decode(&points, normal.at, normal.n, 0);
    const char *at = normal.at;
    for (size_t i = 0; !status && i < points.n; i++) {
        size_t own = (size_t)point_size(points.at[i]);
        bool space = ht_is_space(points.at[i]), last = i + 1 == points.n;
        if (!space && !word.n && (own != META_SIZE || memcmp(at, META, META_SIZE) != 0))
            status = append(&word, META, META_SIZE);
        if (!status && !space)
            status = append(&word, at, own);
        if (!status && word.n && (space || last)) {
            status = add_word(t, &word, ids);
            word.n = 0;
        }
        at += own;
    }
    ht_points_free(&points);
    free(word.at);
    free(normal.at);
    return status;
}

/* The id of a special token that a text begins with, and its bytes; -1: it begins with none. */
static int special_at(const ht_t5_tokenizer *t, const char *text, size_t size, size_t *bytes_of_it)
{
    const struct {
        const char *text;
        int id;
    } names[] = {{"<pad>", t->tokens.pad}, {"</s>", t->tokens.end}, {"<unk>", t->tokens.unknown}};
    static const char extra[] = "<extra_id_";
    size_t n = sizeof extra - 1, digits = 0;
    int number = 0;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        *bytes_of_it = strlen(names[i].text);
        if (size >= *bytes_of_it && !memcmp(text, names[i].text, *bytes_of_it))
            return names[i].id;
    }
    if (size <= n || memcmp(text, extra, n) != 0)
        return -1;
    for (; n + digits < size && digits < 6 && text[n + digits] >= '0' && text[n + digits] <= '9'; digits++)
        number = 10 * number + text[n + digits] - '0';
    *bytes_of_it = n + digits + 1;
    bool whole = digits && n + digits < size && text[n + digits] == '>' && (text[n] != '0' || digits == 1);
    return whole && number < t->extra_ids ? t->model.n + t->extra_ids - 1 - number : -1;
}

ht_status ht_t5_tokenize(const ht_t5_tokenizer *t, const char *text, size_t size, ht_ids *ids)
{
    size_t begin = 0, special = 0;
    ht_status status = HT_OK;
    if (size > HT_LONGEST_TEXT)
        return ht_fail(HT_ERR_ARGUMENT, "the text has %zu bytes, more than %d", size, HT_LONGEST_TEXT);
    for (size_t at = 0; !status && at < size;) {
        int id = text[at] == '<' ? special_at(t, text + at, size - at, &special) : -1;
        if (id < 0) {
            at++;
            continue;
        }
        status = add_text(t, text + begin, at - begin, begin, ids);
        if (!status)
            status = ht_ids_add(ids, id);
        begin = at += special;
    }
    return status ? status : add_text(t, text + begin, size - begin, begin, ids);
}

ht_status ht_t5_encode(const ht_t5_tokenizer *t, const char *text, size_t size, int length, int32_t *row, float *mask,
                       size_t *cut)
{
    ht_ids ids = {0};
    if (length < 1)
        return ht_fail(HT_ERR_ARGUMENT, "a row of %d tokens: want 1 at least", length);
    ht_status status = ht_t5_tokenize(t, text, size, &ids);
    size_t most = (size_t)length - 1, n = ids.n < most ? ids.n : most;
    for (size_t i = 0; !status && i <= most; i++) {
        row[i] = i < n ? ids.at[i] : i == n ? t->tokens.end : t->tokens.pad;
        mask[i] = i <= n;
    }
    if (!status && cut)
        *cut = ids.n - n;
    ht_ids_free(&ids);
    return status;
}

/* ---- opening ---- */

static ht_status find_specials(ht_t5_tokenizer *t, const char *where)
{
    const struct {
        const char *text;
        int *id;
    } names[] = {{"<pad>", &t->tokens.pad}, {"</s>", &t->tokens.end}, {"<unk>", &t->tokens.unknown}};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        *names[i].id = ht_spiece_find(&t->model, names[i].text, (int)strlen(names[i].text));
        if (*names[i].id < 0)
            return ht_fail(HT_ERR_FORMAT, "%s: has no piece %s", where, names[i].text);
    }
    t->tokens.largest = t->model.n + t->extra_ids - 1;
    return HT_OK;
}

static ht_status create(ht_t5_tokenizer **out)
{
    ht_arena *arena = ht_arena_create();
    *out = arena ? ht_alloc(arena, sizeof **out) : NULL;
    if (*out)
        (*out)->arena = arena;
    else
        ht_arena_free(arena);
    return *out ? HT_OK : HT_ERR_MEMORY;
}

static ht_status read_model(ht_t5_tokenizer *t, const unsigned char *model, size_t size, const char *where)
{
    ht_status status = ht_spiece_read(t->arena, model, size, where, &t->model);
    return status ? status : find_specials(t, where);
}

ht_status ht_t5_tokenizer_parse(const unsigned char *model, size_t size, int extra_ids, ht_t5_tokenizer **out)
{
    ht_t5_tokenizer *t = NULL;
    ht_status status = create(&t);
    if (status)
        return status;
    t->extra_ids = extra_ids;
    status = read_model(t, model, size, "spiece.model");
    if (status)
        ht_t5_tokenizer_close(t);
    else
        *out = t;
    return status;
}

/* As many as additional_special_tokens has of them, or extra_ids says. */
static ht_status read_settings(ht_t5_tokenizer *t, const char *path)
{
    json_t *config = NULL;
    t->extra_ids = DEFAULT_EXTRA_IDS;
    if (access(path, F_OK))
        return HT_OK;
    ht_status status = ht_json_read(path, &config);
    ht_json j = {.object = config, .where = path, .status = status};
    const json_t *list = json_object_get(config, "additional_special_tokens");
    int listed = 0;
    for (size_t i = 0; i < json_array_size(list); i++) {
        const char *text = json_string_value(json_array_get(list, i));
        listed += text && !strncmp(text, "<extra_id_", 10);
    }
    if (!j.status)
        t->extra_ids = listed ? listed : ht_json_int(&j, "extra_ids", DEFAULT_EXTRA_IDS, 0, MOST_EXTRA_IDS);
    json_decref(config);
    return j.status;
}

ht_status ht_t5_tokenizer_open(const char *path, ht_t5_tokenizer **out)
{
    ht_t5_tokenizer *t = NULL;
    ht_status status = create(&t);
    if (status)
        return status;
    const char *model = ht_sprintf(t->arena, "%s/spiece.model", path);
    const char *config = ht_sprintf(t->arena, "%s/tokenizer_config.json", path);
    status = model && config ? read_settings(t, config) : HT_ERR_MEMORY;
    if (!status)
        status = ht_map_file(model, &t->file);
    if (!status)
        status = read_model(t, t->file.data, t->file.size, model);
    if (status)
        ht_t5_tokenizer_close(t);
    else
        *out = t;
    return status;
}

void ht_t5_tokenizer_close(ht_t5_tokenizer *t)
{
    if (!t)
        return;
    ht_unmap_file(&t->file);
    ht_arena_free(t->arena);
}

const ht_t5_tokens *ht_t5_tokenizer_tokens(const ht_t5_tokenizer *t)
{
    return &t->tokens;
}
