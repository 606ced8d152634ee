/* prompt.h - a prompt with weights, of any length, as AUTOMATIC1111's web UI reads it (docs/prompts.md). */
#ifndef HT_TEXT_PROMPT_H
#define HT_TEXT_PROMPT_H

#include <stdbool.h>

#include "text/clip_tokenizer.h"

/* Rows for the text encoder: each start, at most length - 2 tokens, end, padding.  There is at least one. */
typedef struct ht_prompt {
    int64_t chunks;
    int length;     /* of a row: the tokenizer's */
    int32_t *ids;   /* [chunks][length] */
    float *weights; /* [chunks][length]; 1 for start, end and padding */
    bool weighted;  /* some weight is not 1 */
} ht_prompt;

enum { HT_MOST_OPEN_BRACKETS = 256 };

/* (a) is 1.1 times as much, [a] 1.1 times less, (a:1.3) 1.3 times as much, and they nest; \( \) \[ \] \\ are the
 * characters themselves; brackets that stay open count to the end, those that close nothing are text.  BREAK as a word
 * begins a new row.  Where a row is full, what follows its last comma moves to the next row, if it is at most 20
 * tokens. HT_ERR_ARGUMENT: text that is not UTF-8, a weight that is no number, more open brackets than that. */
ht_status ht_prompt_read(const ht_clip_tokenizer *t, const char *text, size_t size, ht_prompt *out);
void ht_prompt_free(ht_prompt *prompt);

/* The same without any of this: one row, and what does not fit is cut off, as pipelines of diffusers read a prompt. */
ht_status ht_prompt_read_plain(const ht_clip_tokenizer *t, const char *text, size_t size, ht_prompt *out);

/* Add empty rows until there are so many: two prompts that are guided against one another have as many. */
ht_status ht_prompt_pad(const ht_clip_tokenizer *t, ht_prompt *prompt, int64_t chunks);

/* Put the weights into the encoder's hidden states [chunks][length][channels]: every token's vector times its weight,
 * then all times one number that makes their mean what it was.  Nothing is touched if all weights are 1. */
void ht_prompt_weigh(const ht_prompt *prompt, float *hidden, int64_t channels);

#endif
