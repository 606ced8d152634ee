/* job.h - the way of commands that make one thing of one model. */
#ifndef HALFTONE_CLI_JOB_H
#define HALFTONE_CLI_JOB_H

#include "halftone.h"

/* Open the model, work with it, close it.  Returns the exit code. */
int job_run(const char *model, const char *component, int (*work)(const void *settings, ht_model *model),
            const void *settings);

/* What a call that writes `output` came to: -1 if it is there, else the exit code, after a line on stderr. */
int job_result(ht_status status, const char *output);

#endif
