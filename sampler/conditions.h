/* conditions.h - what denoisers take besides x, t and class labels, as vectors of numbers: one table that sessions and
 * files read. */
#ifndef HT_SAMPLER_CONDITIONS_H
#define HT_SAMPLER_CONDITIONS_H

#include <stddef.h>

#include "graph/denoiser.h"
#include "halftone.h"

enum { HT_CONDITIONS = 8, HT_DEFAULT_TOKENS = 77, HT_MOST_TOKENS = 1 << 16 };

typedef struct ht_condition {
    const char *name;     /* of the graph's input */
    const char *argument; /* of the library's forward, and of the tensor in a file */
    const char *words;    /* for messages: "a class embedding" */
    size_t width;         /* offset in ht_denoiser_info of its length, an int; 0: the model does not take it */
    size_t rows;          /* offset in ht_cond of its rows */
    bool per_token;       /* a vector for each token, not for each image */
    bool optional;        /* where it is left out, it is ones */
} ht_condition;

extern const ht_condition ht_conditions[HT_CONDITIONS];

int ht_condition_width(const ht_condition *c, const ht_denoiser_info *info);
const float *ht_condition_rows(const ht_condition *c, const ht_cond *cond);
void ht_condition_set_rows(const ht_condition *c, ht_cond *cond, const float *rows);

#endif
