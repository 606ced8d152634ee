/* parameters.h - the text `parameters` of a picture: how to make it again. */
#ifndef HALFTONE_CLI_PARAMETERS_H
#define HALFTONE_CLI_PARAMETERS_H

#include "cli/options.h"

/* "\nSteps: 50, Sampler: DDIM, Seed: 0, ..., Model: cifar10, Version: halftone 0.1.0": the recorded options that have a
 * value, and before the model what came of them, "Evaluations: 51, " or "".  The caller frees it.  NULL: out of memory.
 */
char *parameters_text(const command *c, const void *settings, const char *results, const char *model);

#endif
