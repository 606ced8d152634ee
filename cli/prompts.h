/* prompts.h - the prompts of a command line and of a file. */
#ifndef HALFTONE_CLI_PROMPTS_H
#define HALFTONE_CLI_PROMPTS_H

#include <stdint.h>

#include "cli/options.h"

typedef struct prompt_list {
    const char **text;  /* [n] */
    const char **where; /* [n], for messages: "list.txt:3", "--prompt" */
    int64_t n, cap;
    char **owned; /* what is freed with it */
    int64_t n_owned, cap_owned;
} prompt_list;

/* Those of the command line, then the file's: a line each; empty lines and those that begin with # are passed over.
 * "-": standard input.  0, or an exit code after a line on stderr. */
int prompts_read(prompt_list *p, const option_texts *given, const char *file);
/* Leave number i out. */
void prompts_drop(prompt_list *p, int64_t i);
void prompts_free(prompt_list *p);

#endif
