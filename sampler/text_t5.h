/* text_t5.h - T5 as a pipeline's text encoder (PixArt). */
#ifndef HT_SAMPLER_TEXT_T5_H
#define HT_SAMPLER_TEXT_T5_H

#include "halftone.h"
#include "text/prompt.h"
#include "text/t5.h"

typedef struct ht_t5_text ht_t5_text;

/* A text encoder's folder, and its tokenizer's; tokenizer NULL: ids come from elsewhere. */
ht_status ht_t5_text_open(const char *folder, const char *tokenizer, ht_t5_text **out);
void ht_t5_text_close(ht_t5_text *t); /* NULL is allowed */
const ht_t5 *ht_t5_text_model(const ht_t5_text *t);

/* A text in lower case without white space around it, as PixArt's pipelines read it: one row of `length` ids, cut or
 * padded; the weights are the mask, 1 or 0. */
ht_status ht_t5_text_read(const ht_t5_text *t, const char *text, int length, ht_prompt *out);

/* n rows of `length` ids with their mask -> hidden [n,length,d_model].  session: threads, backend, isa, may be NULL. */
ht_status ht_t5_text_encode(const ht_t5_text *t, const ht_session_options *session, int64_t n, int length,
                            const int32_t *ids, const float *mask, float *hidden);

#endif
