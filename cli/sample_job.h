/* sample_job.h - a run of `halftone sample`, between its files. */
#ifndef HALFTONE_CLI_SAMPLE_JOB_H
#define HALFTONE_CLI_SAMPLE_JOB_H

#include <string.h>

#include "cli/output.h"
#include "cli/progress.h"
#include "cli/prompts.h"
#include "cli/settings.h"

typedef struct job {
    sample_settings s;   /* with what the model decided filled in, as it is recorded */
    const char *sampler; /* as the library calls it; NULL: the model's own */
    prompt_list prompts;
    int64_t images_n; /* of all prompts */
    int left_out;     /* prompts that could not be read */
    ht_pipeline *pipeline;
    ht_pipeline_info info;
    bool to_folder;
    output out;
    float *labels;      /* of all images, NULL without classes */
    float *images;      /* of a grid */
    float *init, *mask; /* NULL: none */
    progress bar;
    struct {
        int64_t at, n, first; /* pictures at .. at+n-1 of all; the index that the pipeline gives the first of them */
    } share;                  /* of this rank */
    int64_t evaluations;      /* of all images, known once the first step is done */
    int64_t written;
    int write_failed; /* exit code of a failure that is reported already */
    json_t *files;
    double seconds;
    int preview_rows; /* of the terminal, that the last preview took */
} job;

/* Everything that can be found wrong before sampling.  0, or an exit code after a line on stderr. */
int sample_prepare(job *j);

/* Draw, write, show, and tell of it. */
int sample_draw(job *j);

/* What is asked of a pipeline; texts and lists are borrowed from the job. */
typedef struct sample_request {
    ht_draw_options draw;
    const char **same[3]; /* prompt_2, negative, negative_2 for every prompt, of malloc */
} sample_request;

int sample_request_make(const job *j, sample_request *r); /* 0, or an exit code after a line on stderr */
void sample_request_free(sample_request *r);

#endif
