/* parameters.h - the text `parameters` of a picture: how to make it again. */
#ifndef HALFTONE_CLI_PARAMETERS_H
#define HALFTONE_CLI_PARAMETERS_H

#include "cli/options.h"

typedef struct picture_words {
    const char *const *prompts; /* a line each */
    int64_t n;
    const char *negative; /* NULL: none */
    const char *results;  /* what came of it, "Evaluations: 51, ", what it ran on if not the CPU, or "" */
    const char *model;
} picture_words;

/* "PROMPT\nNegative prompt: TEXT\nSteps: 50, Sampler: DDIM, Seed: 0, ..., Model: cifar10, Version: halftone 0.1.0": the
 * recorded options that have a value, and before the model the results.  The caller frees it.  NULL: out of memory. */
char *parameters_text(const command *c, const void *settings, const picture_words *words);

#endif
