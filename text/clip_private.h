/* clip_private.h - a CLIP tokenizer in memory, as text/clip_vocabulary.c reads it and text/clip_tokenizer.c uses it. */
#ifndef HT_TEXT_CLIP_PRIVATE_H
#define HT_TEXT_CLIP_PRIVATE_H

#include <jansson.h>

#include "core/arena.h"
#include "text/clip_tokenizer.h"

enum { HT_CLIP_SPECIALS = 4 };

/* What two neighbouring symbols become. */
typedef struct ht_clip_merge {
    uint64_t pair; /* left id in the high half, right id in the low; HT_CLIP_EMPTY: a free slot */
    int32_t rank, product;
} ht_clip_merge;

#define HT_CLIP_EMPTY UINT64_MAX

typedef struct ht_clip_special {
    const char *text;
    size_t size;
    int id;
} ht_clip_special;

struct ht_clip_tokenizer {
    ht_arena *arena;
    ht_clip_tokens tokens;
    int32_t byte[256], last_byte[256]; /* ids of single bytes, and of those that end a word; unknown if absent */
    ht_clip_merge *merges;             /* open addressing, mask + 1 slots */
    size_t mask;
    ht_clip_special special[HT_CLIP_SPECIALS]; /* the longer first */
};

/* The slot of a pair: that which holds it, or the free one where it belongs. */
static inline ht_clip_merge *ht_clip_slot(const ht_clip_tokenizer *t, int32_t left, int32_t right)
{
    uint64_t pair = (uint64_t)(uint32_t)left << 32 | (uint32_t)right, h = pair;
    h = (h ^ h >> 31) * UINT64_C(0x7fb5d329728ea185);
    h = (h ^ h >> 27) * UINT64_C(0x81dadef4bc2dd44d);
    size_t i = (size_t)(h ^ h >> 33) & t->mask;
    while (t->merges[i].pair != HT_CLIP_EMPTY && t->merges[i].pair != pair)
        i = (i + 1) & t->mask;
    return &t->merges[i];
}

/* ---- reading (text/clip_vocabulary.c) ---- */

#define HT_CLIP_WORD_END "</w>"

/* What is read: borrowed but for the tokenizer that is made of it. */
typedef struct ht_clip_loader {
    ht_clip_tokenizer *t;
    json_t *vocab; /* names to ids; tokenizer.json's added tokens put in */
    const json_t *settings[2];
    const char *where;       /* of the vocabulary, for messages */
    const char *merge_where; /* of the merges: "merges.txt: line" */
} ht_clip_loader;

/* In this order: that every id is a whole number which no other token has; the special tokens and the length; merges,
 * as the lines of merges.txt or the list of tokenizer.json; what single bytes are. */
ht_status ht_clip_read_vocabulary(ht_clip_loader *l);
ht_status ht_clip_read_settings(ht_clip_loader *l);
ht_status ht_clip_read_merges(ht_clip_loader *l, const char *text, size_t size);
ht_status ht_clip_read_merges_list(ht_clip_loader *l, const json_t *list);
void ht_clip_read_bytes(ht_clip_loader *l);

#endif
