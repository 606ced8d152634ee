/* show.h - pictures in a terminal. */
#ifndef HALFTONE_CLI_SHOW_H
#define HALFTONE_CLI_SHOW_H

#include <stdint.h>
#include <stdio.h>

/* n pictures [h,w,c] in [-1,1], c 1, 3 or 4, `columns` beside one another with a gap, as in a grid. */
typedef struct shown {
    const float *images;
    int64_t n;
    int height, width, channels, columns;
} shown;

/* terminal: "kitty", "iterm2", "sixel", "blocks", or "auto", what the environment names; file: the picture's PNG, which
 * iTerm2 is sent as it is.  Where there is no memory nothing is shown. */
void show_picture(FILE *out, const char *terminal, const shown *s, const char *file);

/* The first picture by half blocks, at most so many columns wide; returns how many rows it took. */
int show_blocks(FILE *out, const shown *s, int columns);

#endif
