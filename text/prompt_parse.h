/* prompt_parse.h - a prompt as pieces of text with weights, for text/prompt.c and its tests. */
#ifndef HT_TEXT_PROMPT_PARSE_H
#define HT_TEXT_PROMPT_PARSE_H

#include <stdbool.h>
#include <stddef.h>

#include "core/error.h"

typedef struct ht_piece {
    size_t begin, end; /* of the text */
    double weight;
    bool is_break; /* a row ends here; no text */
} ht_piece;

typedef struct ht_pieces {
    char *text; /* what is left when brackets, weights and escapes are taken out */
    size_t size;
    ht_piece *at;
    size_t n, cap;
} ht_pieces;

/* Neighbours of one weight are one piece.  {0} before; free it after success and failure alike. */
ht_status ht_pieces_parse(ht_pieces *out, const char *text, size_t size);
void ht_pieces_free(ht_pieces *p);

#endif
