/* contexts.h - what the samples of a calibration meet besides x and t: the contexts of prompts, or those of a file. */
#ifndef HT_CALIB_CONTEXTS_H
#define HT_CALIB_CONTEXTS_H

#include "core/safetensors.h"
#include "sampler/conditions.h"
#include "sampler/model.h"

enum { HT_MOST_CONTEXTS = 1 << 16, HT_CONTEXT_TENSORS = HT_CONDITIONS + 1 };

/* Rows of everything that a model takes as conditions; a sample has the number of one of them. */
typedef struct ht_contexts {
    int n;                     /* 0: the model takes none, or class labels alone that go round */
    int negative;              /* the row of no prompt, for guidance; -1: there is none.  All before it are prompts. */
    int tokens;                /* of encoder_hidden_states; 0: it takes none */
    const char *prompts;       /* what they are of, as the text of a JSON array; NULL: they are of a file */
    const float *labels;       /* [n]: class labels; NULL */
    int widths[HT_CONDITIONS]; /* of a row, or of one of its tokens */
    const float *rows[HT_CONDITIONS]; /* [n][...], as ht_conditions lists them; NULL: not taken */
} ht_contexts;

/* How many of them are prompts, or their like. */
int ht_contexts_positive(const ht_contexts *contexts);

/* Numbers of condition i that one context has. */
size_t ht_context_numbers(const ht_contexts *contexts, int i);

/* By the options: `conditions`, a file; else `prompts`, a file of lines or NULL for a set of our own, through the text
 * encoders of the pipeline.  HT_ERR_ARGUMENT says what a model wants that cannot be made so. */
ht_status ht_contexts_make(ht_arena *arena, const ht_model *model, const ht_calibrate_options *options,
                           ht_contexts *contexts);

/* The second of those (calib/prompts.c). */
ht_status ht_contexts_of_prompts(ht_arena *arena, const ht_model *model, const ht_calibrate_options *options,
                                 ht_contexts *contexts);

/* What samples with these contexts take, [n]; NULL: nothing.  Rows are copied into room, ht_contexts_room(n) numbers.
 */
size_t ht_contexts_room(const ht_contexts *contexts, int n);
ht_cond ht_contexts_cond(const ht_contexts *contexts, const int32_t *context, int n, float *room);

/* As tensors of a calibration file, HT_CONTEXT_TENSORS at most, and back; context [samples].  model: NULL to look at
 * any.  HT_ERR_FORMAT if what is there is not what the model takes. */
ht_status ht_contexts_put(ht_arena *arena, const ht_contexts *contexts, const int32_t *context, int64_t samples,
                          ht_tensor *tensors, size_t *n);
ht_status ht_contexts_read(ht_arena *arena, const ht_safetensors *file, const ht_model *model, int64_t samples,
                           ht_contexts *contexts, const int32_t **context);

#endif
