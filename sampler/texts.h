/* texts.h - the text encoders of a pipeline, with their tokenizers: prompts become what its denoiser takes. */
#ifndef HT_SAMPLER_TEXTS_H
#define HT_SAMPLER_TEXTS_H

#include "halftone.h"
#include "sampler/model.h"
#include "text/prompt.h"

enum { HT_TEXT_ENCODERS = 2 };

typedef struct ht_texts ht_texts;

/* Of the pipeline or single file that a denoiser came from: tokenizer and text_encoder, tokenizer_2 and
 * text_encoder_2, whichever there are; NULL in *out if there is none, or the denoiser takes no hidden states.  SDXL: a
 * denoiser that takes text_embeds gets the last hidden states but one of all encoders, side by side, and the projection
 * of the last encoder.  HT_ERR_SHAPE if the encoders' widths are not what the denoiser takes. */
ht_status ht_texts_open(const ht_model *denoiser, ht_texts **out);
void ht_texts_close(ht_texts *t); /* NULL is allowed */

/* A prompt as every encoder's tokenizer reads it. */
typedef struct ht_text {
    ht_prompt prompt[HT_TEXT_ENCODERS];
    int64_t chunks; /* the most of any */
} ht_text;

/* text: for each encoder; NULL: that of the first.  plain: no weights, cut after one row. */
ht_status ht_text_read(const ht_texts *t, const char *const text[HT_TEXT_ENCODERS], bool plain, ht_text *out);
void ht_text_free(ht_text *text);

int ht_texts_length(const ht_texts *t); /* tokens of a chunk */

/* How many tokens of a text T5 reads at most, before any is read; 0: as many as diffusers' pipeline.  HT_ERR_ARGUMENT:
 * out of range, or the encoder is another. */
ht_status ht_texts_set_length(ht_texts *t, int length);

typedef struct ht_text_encoding {
    int clip_skip;                     /* 1: the last layer but one, through the last norm */
    int64_t chunks;                    /* of every text; those that have fewer are padded */
    const ht_session_options *session; /* threads, backend, isa */
} ht_text_encoding;

/* n texts -> hidden [n, chunks * length, cross_attention_dim], pooled [n, text_embed_dim] (not touched if the denoiser
 * takes none; that of a text's first chunk), mask [n, chunks * length] (NULL, or 1 and 0 for what is padding: the
 * denoiser takes one).  Encoders are compiled, run, and let go again. */
ht_status ht_texts_encode(const ht_texts *t, const ht_text_encoding *how, int64_t n, ht_text *texts, float *hidden,
                          float *pooled, float *mask);

#endif
