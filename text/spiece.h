/* spiece.h - a model of SentencePiece's unigram kind, as spiece.model has it: pieces with their scores, and the map of
 * characters that texts are normalized by. */
#ifndef HT_TEXT_SPIECE_H
#define HT_TEXT_SPIECE_H

#include <stdint.h>

#include "core/arena.h"
#include "core/error.h"

typedef struct ht_piece {
    const char *text; /* borrowed from the file, not ended by a zero */
    int size;
    double score;
} ht_piece;

typedef struct ht_spiece {
    ht_piece *pieces; /* by id */
    int n;
    int32_t *sorted; /* their ids, in the order of their bytes */
    double least;    /* score of any */
    /* The map: a double array of units, and what its values are offsets into: texts that end with zeros.  NULL: none.
     */
    const unsigned char *units, *texts;
    size_t n_units, texts_size;
} ht_spiece;

/* bytes: the file, borrowed for as long.  where: its path, for messages.  HT_ERR_FORMAT: it is not such a model, or
 * damaged; HT_ERR_UNSUPPORTED: it is of another kind. */
ht_status ht_spiece_read(ht_arena *arena, const unsigned char *bytes, size_t size, const char *where, ht_spiece *out);

/* The id of a piece; -1: there is none. */
int ht_spiece_find(const ht_spiece *s, const char *text, int size);

/* The ids of pieces that a text begins with, the shortest first; -1 after the last. */
typedef struct ht_piece_search {
    int begin, end, depth; /* of sorted: those whose first `depth` bytes are the text's */
} ht_piece_search;

ht_piece_search ht_piece_search_begin(const ht_spiece *s);
int ht_piece_search_next(const ht_spiece *s, ht_piece_search *search, const char *text, size_t size);

/* What the map makes of a text that it has an entry for, or for the start of; NULL: nothing. */
const char *ht_spiece_map(const ht_spiece *s, const char *text, size_t size, size_t *mapped);

#endif
