/* progress.h - how far a long command is: one line on the terminal, rewritten in place. */
#ifndef HALFTONE_CLI_PROGRESS_H
#define HALFTONE_CLI_PROGRESS_H

#include <stdbool.h>
#include <stdint.h>

/* Nothing is ever printed when standard error is not a terminal, or when quiet was set before progress_begin. */
typedef struct progress {
    bool quiet;
    bool visible, utf8;
    const char *label;   /* borrowed, ASCII */
    int64_t done, total; /* total 0: not known */
    double start, drawn; /* seconds on the monotonic clock; drawn: when the line was last rewritten */
    int columns;         /* of the line that stands there */
} progress;

void progress_begin(progress *p, const char *label, int64_t total);
void progress_update(progress *p, int64_t done); /* cheap: rewrites the line at most ten times a second */
void progress_end(progress *p); /* leaves a line with the whole time if all is done, and none otherwise */

#endif
