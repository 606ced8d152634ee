/* output.h - where results go, checked before work begins. */
#ifndef HALFTONE_CLI_OUTPUT_H
#define HALFTONE_CLI_OUTPUT_H

#include <limits.h>
#include <stdbool.h>
#include <stdint.h>

typedef struct output {
    const char *path;
    bool made;           /* the folder was made by output_open_folder */
    char name[PATH_MAX]; /* of output_file */
} output;

/* Whether a file of this name could be made: 0, or 1 after a line on stderr. */
int output_check_file(const char *path);

/* Whether the path means a folder: it ends with a slash or is one. */
bool output_is_folder(const char *path);
/* Make the folder and those above it if they are missing, and check that files can be made there.  0, or 1 after a line
 * on stderr. */
int output_open_folder(const char *path, output *out);
/* The file of an image in the folder, FOLDER/00042.png; valid until the next call. */
const char *output_file(output *out, int64_t index);
/* Remove the folder again if it was made and holds nothing. */
void output_close(output *out);

#endif
