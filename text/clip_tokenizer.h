/* clip_tokenizer.h - CLIP's byte-level BPE: a prompt becomes token ids, exactly those of transformers' CLIPTokenizer.
 *
 * The text is cut at the strings of special tokens, which become their ids; what is between is brought to NFC and lower
 * case and cut into words: a contraction ('s 't 're 've 'm 'll 'd), a run of letters, one digit, or a run of anything
 * else but white space.  A word's bytes are symbols, its last one in a form of its own ("</w>"); of all neighbours that
 * a merge joins the one with the least rank goes first, of equal ones the leftmost. */
#ifndef HT_TEXT_CLIP_TOKENIZER_H
#define HT_TEXT_CLIP_TOKENIZER_H

#include <stdint.h>

#include "core/error.h"

typedef struct ht_clip_tokenizer ht_clip_tokenizer;

/* Read a tokenizer's folder: tokenizer.json, or vocab.json and merges.txt; tokenizer_config.json and
 * special_tokens_map.json name the special tokens and the length, where they are there.  Everything is checked: ids
 * that are given twice, a merge of what is not in the vocabulary or whose product is not, a merge given twice, special
 * tokens that are missing, a normalizer or a split that is not CLIP's.  HT_ERR_FORMAT names file and line. */
ht_status ht_clip_tokenizer_open(const char *path, ht_clip_tokenizer **out);

/* The same from memory: the text of vocab.json and merges.txt, or that of tokenizer.json (merges NULL); config may be
 * NULL. */
typedef struct ht_clip_files {
    const char *vocab, *merges, *config;
    size_t vocab_size, merges_size, config_size;
} ht_clip_files;

ht_status ht_clip_tokenizer_parse(const ht_clip_files *files, ht_clip_tokenizer **out);
void ht_clip_tokenizer_close(ht_clip_tokenizer *t); /* NULL is allowed */

typedef struct ht_clip_tokens {
    int start, end, pad, unknown; /* ids of special tokens */
    int comma;                    /* of "," as a word; -1: there is none */
    int length;                   /* of a row with start and end: model_max_length, 77 */
    int largest;                  /* id of the vocabulary */
} ht_clip_tokens;

const ht_clip_tokens *ht_clip_tokenizer_tokens(const ht_clip_tokenizer *t);

/* HT_ERR_SHAPE unless every id is a row of an embedding of vocab_size rows, and a row no longer than its positions. */
ht_status ht_clip_tokenizer_fits(const ht_clip_tokenizer *t, int vocab_size, int positions);

/* A list of ids that grows; {0} is empty. */
typedef struct ht_ids {
    int32_t *at;
    size_t n, cap;
} ht_ids;

void ht_ids_free(ht_ids *ids);
ht_status ht_ids_add(ht_ids *ids, int32_t id);

enum { HT_LONGEST_TEXT = 1 << 22 }; /* bytes; more is HT_ERR_ARGUMENT */

/* Append the ids of a text, without start and end.  HT_ERR_ARGUMENT names the offset of a byte that is not UTF-8. Time
 * n log n in the length of the longest word, n in everything else. */
ht_status ht_clip_tokenize(const ht_clip_tokenizer *t, const char *text, size_t size, ht_ids *ids);

/* A row as pipelines feed it: start, at most length - 2 tokens, end, padding.  row: [length].  cut, unless NULL: the
 * number of tokens that found no place. */
ht_status ht_clip_encode(const ht_clip_tokenizer *t, const char *text, size_t size, int32_t *row, size_t *cut);

#endif
