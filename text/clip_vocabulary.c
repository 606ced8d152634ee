/* clip_vocabulary.c - a CLIP tokenizer from its vocabulary, settings and merges, all checked.
 *
 * Traps:
 * - Bytes are written as visible characters: 33-126, 161-172 and 174-255 stand for themselves, the others for U+0100 on
 *   in their order (OpenAI's bytes_to_unicode).  Every one is there twice, alone and with "</w>".
 * - Lines of merges.txt that begin with "#" are merges ("# #</w>"), but for the one that says "#version".
 * - A merge makes a longer string of two, so merges cannot go in a circle unless a part is empty or an id is given to
 *   two strings; both are refused.
 */
#include <stdlib.h>
#include <string.h>

#include "core/json.h"
#include "text/clip_private.h"
#include "text/unicode.h"

enum { LONGEST_TOKEN = 4096, MOST_IDS = 1 << 24 };

static int id_of(const ht_clip_loader *l, const char *token)
{
    const json_t *id = json_object_get(l->vocab, token);
    return id ? (int)json_integer_value(id) : -1;
}

/* ---- the vocabulary ---- */

/* Every id is a whole number that no other token has. */
ht_status ht_clip_read_vocabulary(ht_clip_loader *l)
{
    const char *token;
    json_t *id;
    ht_status status = HT_OK;
    unsigned char *seen = calloc(MOST_IDS / 8, 1);
    if (!seen)
        return ht_fail(HT_ERR_MEMORY, "out of memory for a vocabulary");
    json_object_foreach(l->vocab, token, id)
    {
        json_int_t i = json_integer_value(id);
        if (!json_is_integer(id) || i < 0 || i >= MOST_IDS)
            status = ht_fail(HT_ERR_FORMAT, "%s: the id of \"%.100s\" must be a whole number from 0 to %d", l->where,
                             token, MOST_IDS - 1);
        else if (seen[i / 8] & 1 << i % 8)
            status = ht_fail(HT_ERR_FORMAT, "%s: \"%.100s\" has the id %d, which another token has too", l->where,
                             token, (int)i);
        if (status)
            break;
        seen[i / 8] |= (unsigned char)(1 << i % 8);
        l->t->tokens.largest = i > l->t->tokens.largest ? (int)i : l->t->tokens.largest;
    }
    free(seen);
    return status;
}

static bool is_visible(int byte)
{
    return (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || byte >= 174;
}

void ht_clip_read_bytes(ht_clip_loader *l)
{
    ht_clip_tokenizer *t = l->t;
    int hidden = 0;
    for (int b = 0; b < 256; b++) {
        char name[4 + sizeof HT_CLIP_WORD_END];
        size_t n = (size_t)ht_utf8_encode(is_visible(b) ? b : 256 + hidden++, (unsigned char *)name);
        name[n] = 0;
        t->byte[b] = id_of(l, name);
        memcpy(name + n, HT_CLIP_WORD_END, sizeof HT_CLIP_WORD_END);
        t->last_byte[b] = id_of(l, name);
        t->byte[b] = t->byte[b] < 0 ? t->tokens.unknown : t->byte[b];
        t->last_byte[b] = t->last_byte[b] < 0 ? t->tokens.unknown : t->last_byte[b];
    }
    t->tokens.comma = id_of(l, ",</w>");
}

/* ---- settings ---- */

/* A token's string in a configuration: "x", or an object whose content is "x". */
static const char *token_in(const json_t *object, const char *key)
{
    const json_t *value = json_object_get(object, key);
    return json_string_value(json_is_object(value) ? json_object_get(value, "content") : value);
}

static ht_status read_special(ht_clip_loader *l, int i, const char *key, const char *fallback, int *id)
{
    const char *token = token_in(l->settings[0], key);
    if (!token)
        token = token_in(l->settings[1], key);
    if (!token)
        token = fallback;
    *id = id_of(l, token);
    if (!*token || *id < 0)
        return ht_fail(HT_ERR_FORMAT, "%s: has no token \"%.100s\", which is the tokenizer's %s", l->where, token, key);
    l->t->special[i].text = ht_strdup(l->t->arena, token);
    l->t->special[i].size = strlen(token);
    l->t->special[i].id = *id;
    return l->t->special[i].text ? HT_OK : HT_ERR_MEMORY;
}

/* The longer first, so that the longest of those that match is found. */
static void sort_specials(ht_clip_tokenizer *t)
{
    for (int i = 1; i < HT_CLIP_SPECIALS; i++)
        for (int k = i; k > 0 && t->special[k].size > t->special[k - 1].size; k--) {
            ht_clip_special s = t->special[k];
            t->special[k] = t->special[k - 1];
            t->special[k - 1] = s;
        }
}

ht_status ht_clip_read_settings(ht_clip_loader *l)
{
    ht_clip_tokens *tokens = &l->t->tokens;
    ht_json j = {.object = l->settings[0], .where = "tokenizer_config.json"};
    ht_status status = read_special(l, 0, "bos_token", "<|startoftext|>", &tokens->start);
    if (!status)
        status = read_special(l, 1, "eos_token", "<|endoftext|>", &tokens->end);
    if (!status)
        status = read_special(l, 2, "unk_token", "<|endoftext|>", &tokens->unknown);
    if (!status)
        status = read_special(l, 3, "pad_token", "<|endoftext|>", &tokens->pad);
    if (status)
        return status;
    sort_specials(l->t);
    tokens->length = 77;
    if (json_is_real(json_object_get(j.object, "model_max_length"))) /* 1e30: transformers' word for none */
        return HT_OK;
    tokens->length = ht_json_int(&j, "model_max_length", 77, 3, 65536);
    return j.status;
}

/* ---- merges ---- */

static ht_status make_table(ht_clip_tokenizer *t, size_t merges)
{
    size_t slots = 64;
    while (slots / 2 < merges)
        slots *= 2;
    t->merges = ht_alloc_array(t->arena, slots, sizeof *t->merges);
    t->mask = slots - 1;
    for (size_t i = 0; t->merges && i < slots; i++)
        t->merges[i].pair = HT_CLIP_EMPTY;
    return t->merges ? HT_OK : HT_ERR_MEMORY;
}

/* One merge, number `rank` from 0 on; line: what people call it. */
static ht_status add_merge(ht_clip_loader *l, int rank, int line, const char *left, size_t left_size, const char *right,
                           size_t right_size)
{
    char product[2 * LONGEST_TOKEN + 1], part[LONGEST_TOKEN + 1];
    if (!left_size || !right_size || left_size > LONGEST_TOKEN || right_size > LONGEST_TOKEN)
        return ht_fail(HT_ERR_FORMAT, "%s %d: want two tokens with a space between, of 1 to %d bytes each",
                       l->merge_where, line, LONGEST_TOKEN);
    memcpy(product, left, left_size);
    memcpy(product + left_size, right, right_size);
    product[left_size + right_size] = 0;
    memcpy(part, left, left_size);
    part[left_size] = 0;
    int a = id_of(l, part), b = id_of(l, product + left_size), made = id_of(l, product);
    if (a < 0 || b < 0)
        return ht_fail(HT_ERR_FORMAT, "%s %d: \"%.100s\" is not in the vocabulary", l->merge_where, line,
                       a < 0 ? part : product + left_size);
    if (made < 0)
        return ht_fail(HT_ERR_FORMAT, "%s %d: makes \"%.100s\", which is not in the vocabulary", l->merge_where, line,
                       product);
    ht_clip_merge *slot = ht_clip_slot(l->t, a, b);
    if (slot->pair != HT_CLIP_EMPTY)
        return ht_fail(HT_ERR_FORMAT, "%s %d: is the same merge as %d", l->merge_where, line, slot->rank + line - rank);
    *slot = (ht_clip_merge){(uint64_t)(uint32_t)a << 32 | (uint32_t)b, rank, made};
    return HT_OK;
}

/* A merge written "left right". */
static ht_status add_written(ht_clip_loader *l, int rank, int line, const char *text, size_t size)
{
    const char *space = memchr(text, ' ', size);
    size_t left = space ? (size_t)(space - text) : 0;
    if (!space || memchr(space + 1, ' ', size - left - 1))
        return ht_fail(HT_ERR_FORMAT, "%s %d: \"%.*s\" is not two tokens with a space between", l->merge_where, line,
                       (int)(size < 100 ? size : 100), text);
    return add_merge(l, rank, line, text, left, space + 1, size - left - 1);
}

ht_status ht_clip_read_merges(ht_clip_loader *l, const char *text, size_t size)
{
    static const char version[] = "#version";
    int line = 0, rank = 0;
    size_t lines = 1;
    for (size_t i = 0; i < size; i++)
        lines += text[i] == '\n';
    ht_status status = lines > MOST_IDS ? ht_fail(HT_ERR_FORMAT, "%s %d: too many merges", l->merge_where, MOST_IDS)
                                        : make_table(l->t, lines);
    while (size && (text[size - 1] == '\n' || text[size - 1] == '\r'))
        size--;
    for (size_t i = 0, next; !status && i < size; i = next) {
        const char *end = memchr(text + i, '\n', size - i);
        size_t n = end ? (size_t)(end - text) - i : size - i;
        next = i + n + 1;
        n -= n && text[i + n - 1] == '\r';
        line++;
        if (n >= sizeof version - 1 && !memcmp(text + i, version, sizeof version - 1))
            continue;
        status = add_written(l, rank++, line, text + i, n);
    }
    return status;
}

ht_status ht_clip_read_merges_list(ht_clip_loader *l, const json_t *list)
{
    size_t i;
    json_t *entry;
    ht_status status = json_array_size(list) > MOST_IDS ? ht_fail(HT_ERR_FORMAT, "%s: too many merges", l->where)
                                                        : make_table(l->t, json_array_size(list));
    json_array_foreach(list, i, entry)
    {
        const json_t *a = json_array_get(entry, 0), *b = json_array_get(entry, 1);
        if (status)
            break;
        if (json_is_string(entry))
            status = add_written(l, (int)i, (int)i, json_string_value(entry), json_string_length(entry));
        else if (json_array_size(entry) == 2 && json_is_string(a) && json_is_string(b))
            status = add_merge(l, (int)i, (int)i, json_string_value(a), json_string_length(a), json_string_value(b),
                               json_string_length(b));
        else
            status = ht_fail(HT_ERR_FORMAT, "%s %zu: is not two tokens", l->merge_where, i);
    }
    return status;
}
