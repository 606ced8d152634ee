/* spiece.c - reading spiece.model: the wire format of Protocol Buffers as far as SentencePiece's ModelProto uses it
 * (fields by their numbers), its pieces in an order to search in, and its map of characters.
 *
 * The map (normalizer_spec.precompiled_charsmap) is a double array after Aoe (1989) as Darts-clone lays it out: a unit
 * of 32 bits has a label in its low byte, a flag for a value, an offset, and with the top bit set it is a value. */
#include "text/spiece.h"

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

enum { MOST_PIECES = 1 << 24, UNIGRAM = 1 };

/* ---- the wire format ---- */

typedef struct reader {
    const unsigned char *at, *end;
    bool bad;
} reader;

typedef struct field {
    int number;
    uint64_t value; /* of numbers; floats as their bits */
    reader inside;  /* of bytes and messages */
} field;

static uint64_t read_varint(reader *r)
{
    uint64_t value = 0;
    for (int shift = 0; shift < 64; shift += 7) {
        if (r->at == r->end)
            break;
        value |= (uint64_t)(*r->at & 127) << shift;
        if (!(*r->at++ & 128))
            return value;
    }
    r->bad = true;
    return 0;
}

static uint64_t read_fixed(reader *r, int bytes)
{
    uint64_t value = 0;
    if (r->end - r->at < bytes) {
        r->bad = true;
        return 0;
    }
    for (int i = 0; i < bytes; i++)
        value |= (uint64_t)*r->at++ << 8 * i;
    return value;
}

static bool next_field(reader *r, field *f)
{
    enum { VARINT, FIXED64, BYTES, FIXED32 = 5 };
    if (r->bad || r->at == r->end)
        return false;
    uint64_t tag = read_varint(r);
    *f = (field){.number = (int)(tag >> 3 & 0xffffff)};
    switch (tag & 7) {
    case VARINT:
        f->value = read_varint(r);
        break;
    case FIXED64:
        f->value = read_fixed(r, 8);
        break;
    case FIXED32:
        f->value = read_fixed(r, 4);
        break;
    case BYTES:
        f->value = read_varint(r);
        if (r->bad || f->value > (uint64_t)(r->end - r->at)) {
            r->bad = true;
            break;
        }
        f->inside = (reader){.at = r->at, .end = r->at + f->value};
        r->at += f->value;
        break;
    default:
        r->bad = true;
    }
    return !r->bad;
}

/* ---- ModelProto ---- */

static ht_status damaged(const char *where)
{
    return ht_fail(HT_ERR_FORMAT, "%s: is not a model of SentencePiece, or damaged", where);
}

static bool read_piece(reader inside, ht_piece *piece)
{
    field f;
    *piece = (ht_piece){.text = ""};
    while (next_field(&inside, &f)) {
        if (f.number == 1 && f.inside.at) {
            piece->text = (const char *)f.inside.at;
            piece->size = (int)(f.inside.end - f.inside.at < 1 << 16 ? f.inside.end - f.inside.at : 1 << 16);
        }
        if (f.number == 2) {
            uint32_t bits = (uint32_t)f.value;
            float score;
            memcpy(&score, &bits, sizeof score);
            piece->score = (double)score;
        }
    }
    return !inside.bad && piece->size < 1 << 16 && isfinite(piece->score);
}

static ht_status read_trainer(reader inside, const char *where)
{
    field f;
    uint64_t kind = UNIGRAM, byte_fallback = 0;
    while (next_field(&inside, &f)) {
        kind = f.number == 3 ? f.value : kind;
        byte_fallback = f.number == 35 ? f.value : byte_fallback;
    }
    if (inside.bad)
        return damaged(where);
    if (kind != UNIGRAM || byte_fallback)
        return ht_fail(HT_ERR_UNSUPPORTED, "%s: %s is not supported; the model must be of SentencePiece's unigram kind",
                       where, kind == UNIGRAM ? "byte_fallback" : "another kind than unigram");
    return HT_OK;
}

/* Four bytes of size, so many bytes of units, the texts. */
static bool read_map(reader map, ht_spiece *out)
{
    uint64_t size = read_fixed(&map, 4);
    if (map.bad || size % 4 || !size || size > (uint64_t)(map.end - map.at))
        return false;
    out->units = map.at;
    out->n_units = size / 4;
    out->texts = map.at + size;
    out->texts_size = (size_t)(map.end - out->texts);
    return out->texts_size && !map.end[-1];
}

static ht_status read_normalizer(reader inside, const char *where, ht_spiece *out)
{
    field f;
    while (next_field(&inside, &f))
        if (f.number == 2 && f.value && !read_map(f.inside, out))
            return damaged(where);
    return inside.bad ? damaged(where) : HT_OK;
}

/* ---- order ---- */

static int compare(const char *a, int n, const char *b, int m)
{
    int order = memcmp(a, b, (size_t)(n < m ? n : m));
    return order ? order : n - m;
}

/* Heap sort: it needs no more than the list, and what it compares by is not in it. */
static bool less(const ht_spiece *s, int i, int j)
{
    const ht_piece *a = &s->pieces[s->sorted[i]], *b = &s->pieces[s->sorted[j]];
    return compare(a->text, a->size, b->text, b->size) < 0;
}

static void swap(ht_spiece *s, int i, int j)
{
    int32_t id = s->sorted[i];
    s->sorted[i] = s->sorted[j];
    s->sorted[j] = id;
}

static void sift(ht_spiece *s, int i, int n)
{
    for (int child = 2 * i + 1; child < n; i = child, child = 2 * i + 1) {
        child += child + 1 < n && less(s, child, child + 1);
        if (!less(s, i, child))
            return;
        swap(s, i, child);
    }
}

static void sort_pieces(ht_spiece *s)
{
    for (int i = 0; i < s->n; i++)
        s->sorted[i] = i;
    for (int i = s->n / 2; i-- > 0;)
        sift(s, i, s->n);
    for (int n = s->n; n-- > 1;) {
        swap(s, 0, n);
        sift(s, 0, n);
    }
}

static ht_status check_pieces(const ht_spiece *s, const char *where)
{
    for (int i = 1; i < s->n; i++) {
        const ht_piece *a = &s->pieces[s->sorted[i - 1]], *b = &s->pieces[s->sorted[i]];
        if (!compare(a->text, a->size, b->text, b->size))
            return ht_fail(HT_ERR_FORMAT, "%s: pieces %d and %d are the same", where, s->sorted[i - 1], s->sorted[i]);
    }
    return HT_OK;
}

/* ---- reading ---- */

static ht_status read_all(const unsigned char *bytes, size_t size, const char *where, ht_spiece *out)
{
    reader r = {.at = bytes, .end = bytes + size};
    field f;
    ht_status status = HT_OK;
    while (!status && next_field(&r, &f)) {
        if (f.number == 1 && !read_piece(f.inside, &out->pieces[out->n++]))
            status = damaged(where);
        else if (f.number == 2)
            status = read_trainer(f.inside, where);
        else if (f.number == 3)
            status = read_normalizer(f.inside, where, out);
    }
    return status ? status : r.bad ? damaged(where) : HT_OK;
}

ht_status ht_spiece_read(ht_arena *arena, const unsigned char *bytes, size_t size, const char *where, ht_spiece *out)
{
    reader r = {.at = bytes, .end = bytes + size};
    field f;
    size_t pieces = 0;
    while (next_field(&r, &f))
        pieces += f.number == 1;
    if (r.bad || !pieces || pieces > MOST_PIECES)
        return damaged(where);
    *out = (ht_spiece){.pieces = ht_alloc_array(arena, pieces, sizeof *out->pieces),
                       .sorted = ht_alloc_array(arena, pieces, sizeof *out->sorted)};
    if (!out->pieces || !out->sorted)
        return HT_ERR_MEMORY;
    ht_status status = read_all(bytes, size, where, out);
    if (status)
        return status;
    for (int i = 0; i < out->n; i++)
        out->least = out->pieces[i].score < out->least || !i ? out->pieces[i].score : out->least;
    sort_pieces(out);
    return check_pieces(out, where);
}

/* ---- searching ---- */

ht_piece_search ht_piece_search_begin(const ht_spiece *s)
{
    return (ht_piece_search){.end = s->n};
}

/* The first of begin..end-1 whose byte at `depth` is above c, or with `equal` not below it.  Those that end there
 * come first. */
static int bound(const ht_spiece *s, const ht_piece_search *search, int c, bool equal)
{
    int low = search->begin, high = search->end;
    while (low < high) {
        int middle = low + (high - low) / 2;
        const ht_piece *p = &s->pieces[s->sorted[middle]];
        int byte = p->size > search->depth ? (unsigned char)p->text[search->depth] : -1;
        if (byte > c || (equal && byte == c))
            high = middle;
        else
            low = middle + 1;
    }
    return low;
}

int ht_piece_search_next(const ht_spiece *s, ht_piece_search *search, const char *text, size_t size)
{
    while ((size_t)search->depth < size && search->begin < search->end) {
        int c = (unsigned char)text[search->depth], begin = bound(s, search, c, true);
        search->end = bound(s, search, c, false);
        search->begin = begin;
        search->depth++;
        if (begin < search->end && s->pieces[s->sorted[begin]].size == search->depth)
            return s->sorted[begin];
    }
    return -1;
}

int ht_spiece_find(const ht_spiece *s, const char *text, int size)
{
    int low = 0, high = s->n;
    while (low < high) {
        int middle = low + (high - low) / 2;
        const ht_piece *p = &s->pieces[s->sorted[middle]];
        int order = compare(p->text, p->size, text, size);
        if (!order)
            return s->sorted[middle];
        if (order < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return -1;
}

/* ---- the map ---- */

static uint32_t unit_at(const ht_spiece *s, size_t i)
{
    const unsigned char *u = s->units + 4 * i;
    return (uint32_t)u[0] | (uint32_t)u[1] << 8 | (uint32_t)u[2] << 16 | (uint32_t)u[3] << 24;
}

static size_t offset_of(uint32_t unit)
{
    return (size_t)(unit >> 10) << ((unit & 1u << 9) >> 6);
}

/* The text at the first value on the way, as the library takes it, whatever of the text is left then. */
const char *ht_spiece_map(const ht_spiece *s, const char *text, size_t size, size_t *mapped)
{
    size_t node = s->units ? offset_of(unit_at(s, 0)) : 0;
    for (size_t i = 0; s->units && i < size && text[i]; i++) {
        node ^= (unsigned char)text[i];
        uint32_t unit = node < s->n_units ? unit_at(s, node) : 0;
        if ((unit & (1u << 31 | 0xff)) != (unsigned char)text[i])
            return NULL;
        node ^= offset_of(unit);
        if (!(unit >> 8 & 1))
            continue;
        size_t at = node < s->n_units ? unit_at(s, node) & 0x7fffffff : s->texts_size;
        if (at >= s->texts_size)
            return NULL;
        *mapped = strlen((const char *)s->texts + at);
        return (const char *)s->texts + at;
    }
    return NULL;
}
