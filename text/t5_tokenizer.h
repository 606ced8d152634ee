/* t5_tokenizer.h - T5's tokenizer: a prompt becomes token ids, exactly those of transformers' T5Tokenizer.
 *
 * The text is cut at the strings of special tokens, which become their ids.  What is between is normalized by the map
 * of the model, grapheme by grapheme, and cut at white space; each word begins with U+2581, and is cut before every
 * other one.  Of all ways to cut such a part into pieces the one with the greatest sum of scores is taken (unigram,
 * Kudo 2018, arXiv:1804.10959, 3.1); what no piece has is unknown. */
#ifndef HT_TEXT_T5_TOKENIZER_H
#define HT_TEXT_T5_TOKENIZER_H

#include "text/clip_tokenizer.h"

typedef struct ht_t5_tokenizer ht_t5_tokenizer;

/* Read a tokenizer's folder: spiece.model, and tokenizer_config.json, where it is there, for the number of extra ids
 * and the length. */
ht_status ht_t5_tokenizer_open(const char *path, ht_t5_tokenizer **out);

/* The same from memory: spiece.model (borrowed until _close), and how many extra ids follow its pieces. */
ht_status ht_t5_tokenizer_parse(const unsigned char *model, size_t size, int extra_ids, ht_t5_tokenizer **out);
void ht_t5_tokenizer_close(ht_t5_tokenizer *t); /* NULL is allowed */

typedef struct ht_t5_tokens {
    int pad, end, unknown; /* ids */
    int largest;           /* id, extra ids included */
} ht_t5_tokens;

const ht_t5_tokens *ht_t5_tokenizer_tokens(const ht_t5_tokenizer *t);

/* Append the ids of a text, without an end.  HT_ERR_ARGUMENT names the offset of a byte that is not UTF-8. */
ht_status ht_t5_tokenize(const ht_t5_tokenizer *t, const char *text, size_t size, ht_ids *ids);

/* A row as pipelines feed it: at most length - 1 tokens, end, padding; mask: 1 for what is not padding.  Both
 * [length].  cut, unless NULL: the number of tokens that found no place. */
ht_status ht_t5_encode(const ht_t5_tokenizer *t, const char *text, size_t size, int length, int32_t *row, float *mask,
                       size_t *cut);

#endif
