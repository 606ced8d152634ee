/* plot.h - plots as SVG elements to stand in a page: axes, ticks, legend. */
#ifndef HALFTONE_CLI_PLOT_H
#define HALFTONE_CLI_PLOT_H

#include <stdbool.h>
#include <stdio.h>

typedef struct plot_series {
    const char *name; /* in the legend; NULL: not there */
    const double *x, *y;
    int n;
    int style;                /* colour and dashes */
    bool dots_only, is_faint; /* no line; in light grey */
} plot_series;

typedef struct plot {
    const char *title, *x_label, *y_label; /* texts are escaped */
    bool log_y;                            /* values of 0 or less are left out */
    bool falling_x;                        /* the largest to the left */
    const char *const *names;              /* of x = 0, 1, ...; NULL: numbers */
    int n_names;
    const plot_series *series;
    int n_series;
    int width, height; /* of the axes' frame, in pixels */
} plot;

/* Values that are not finite are left out. */
void plot_write(FILE *out, const plot *p);

/* Text for XML: & < > " as entities, control characters as '?'. */
void plot_escape(FILE *out, const char *text);

/* The colour of a style, "#0072b2". */
const char *plot_color(int style);

#endif
