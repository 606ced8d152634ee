/* sweep.h - the parts of `halftone sweep`: its file, its cells, their results, the page. */
#ifndef HALFTONE_CLI_SWEEP_H
#define HALFTONE_CLI_SWEEP_H

#include <jansson.h>
#include <limits.h>
#include <stdio.h>

#include "cli/prompts.h"
#include "cli/settings.h"
#include "cli/text.h"
#include "core/arena.h"

enum { SWEEP_KEY = TEXT_KEY, SWEEP_MAX_CELLS = 4096, SWEEP_MAX_AXES = 16, SWEEP_SHOWN = 8 };

typedef struct sweep_settings {
    const char *model, *file, *output;
    int64_t batch;
    run_settings run;
    bool dry_run, keep, quiet, json;
} sweep_settings;

/* A setting of the grid, and the values it takes, as text. */
typedef struct sweep_axis {
    const char *name;
    const char **values;
    int n;
} sweep_axis;

/* Keys are hashes of all that something depends on: equal keys, equal things. */
typedef struct sweep_cell {
    const char *name;
    bool is_float; /* the model itself */
    calibrate_settings calibrate;
    quantize_settings quantize;
    sample_settings sample;
    int point[SWEEP_MAX_AXES]; /* its value on each axis; -1: not of the grid */
    char calibration[SWEEP_KEY], quantization[SWEEP_KEY], drawing[SWEEP_KEY], id[SWEEP_KEY];
} sweep_cell;

/* What a sweep's file says. */
typedef struct sweep_plan {
    ht_arena *arena;
    json_t *json; /* the file; texts of settings lie in it */
    const char *file, *name;
    unsigned metrics; /* HT_METRIC_* bits, PSNR aside, which is always measured */
    bool says_metrics;
    const char *features, *reference; /* NULL: the model's own */
    const char *resize;               /* NULL: as the network says */
    prompt_list prompts;              /* that images take in turn; of models that take them */
    calibrate_settings error;         /* what makes the samples on which outputs are compared */
    char error_key[SWEEP_KEY];
    sweep_cell *cells;
    int n;
    sweep_axis axes[SWEEP_MAX_AXES];
    int n_axes;
} sweep_plan;

/* Whether a row of a command's table is a setting of sweeps: paths, and what does not change results, are not. */
bool sweep_takes(const option *o);

/* sweep_file.c: read and check a file.  0, or 1 after a line that names the key.  Close it in any case. */
int sweep_plan_read(const char *path, sweep_plan *plan);
void sweep_plan_close(sweep_plan *plan);
/* Set the keys of all cells.  identity: of the model; extra: what else results depend on. */
int sweep_plan_keys(sweep_plan *plan, const char *identity, const char *extra);

/* sweep_results.c: rows of text under fixed columns. */
typedef struct sweep_results {
    ht_arena *arena;
    const char **columns;
    int n_columns;
    const char ***rows; /* of cells by their place in the plan, NULL: not made yet; then those of other sweeps */
    int n_rows;
} sweep_results;

/* The rows in a file that belong to cells of the plan, and all others behind them; a file that is not there has none.
 * 0, or 1 after a line. */
int sweep_results_open(const char *path, const sweep_plan *plan, sweep_results *results);
void sweep_results_close(sweep_results *results);
int sweep_results_write(const char *path, const sweep_results *results);
/* An empty row with the cell's settings.  NULL: out of memory. */
const char **sweep_row_new(sweep_results *results, const sweep_cell *cell);
void sweep_row_set(sweep_results *results, const char **row, const char *column, const char *text);
void sweep_row_number(sweep_results *results, const char **row, const char *column, double value); /* NAN: left empty */
const char *sweep_row_text(const sweep_results *results, const char *const *row, const char *column);
double sweep_row_value(const sweep_results *results, const char *const *row, const char *column); /* NAN: empty */

/* A row as a line of results.csv, to be freed, and back; NULL: out of memory, or it is none. */
char *sweep_row_pack(const sweep_results *results, const char *const *row);
const char **sweep_row_unpack(sweep_results *results, const char *text);

/* sweep_share.c: who makes the cells whose rows are missing. */
typedef struct sweep_shares {
    const int *rank;   /* of each cell */
    const bool *split; /* its calibration is that of several ranks' cells, made before all cells */
} sweep_shares;

/* In the arena of results.  0, or 1 after a line. */
int sweep_share(const sweep_plan *plan, const sweep_results *results, sweep_shares *shares);

/* sweep_images.c: what models draw. */
typedef struct sweep_images {
    const sweep_settings *settings;
    const prompt_list *prompts;
    ht_progress progress;
    void *user;
    bool together;           /* all ranks draw the same images, each its share */
    char drawing[SWEEP_KEY]; /* of the reference images at hand */
    char path[PATH_MAX];     /* their file */
    int64_t n;
    int size[3]; /* height, width, channels */
    size_t count;
    float *reference, *drawn; /* [n,h,w,c]: of the model of floats, and of the cell at hand */
    double reference_seconds;
} sweep_images;

/* Room for the images of a cell, and those of the model of floats, if they are at hand or in a file. */
ht_status sweep_images_find(sweep_images *m, const sample_settings *s, const char *key, bool *found);
/* Draw the latter, after a find in vain, and write the file.  Drawn together, all are in the file
 * and with rank 0. */
ht_status sweep_images_make(sweep_images *m, const sample_settings *s, const char *key);
/* Draw with any model, the folder of a pipeline, into images [n,h,w,c]. */
ht_status sweep_images_draw(sweep_images *m, const char *model, const sample_settings *s, float *images,
                            double *seconds);
void sweep_images_close(sweep_images *m); /* zeroed is allowed */

/* sweep_measure.c: what is measured of a cell's images and of its model's output. */
typedef struct sweep_measure sweep_measure;

typedef struct sweep_measure_options {
    const sweep_plan *plan;
    const sweep_settings *settings;
    ht_model *model;   /* of floats */
    int height, width; /* of its pictures */
    const char *folder;
    ht_progress progress;
    void *user;
} sweep_measure_options;

/* Opens the feature network and takes in the reference set.  0, or an exit code after a line. */
int sweep_measure_open(const sweep_measure_options *options, sweep_measure **measure);
void sweep_measure_close(sweep_measure *m); /* NULL is allowed */
/* "resnet18_w24", and whether its distance is FID; NULL: there is no network. */
const char *sweep_measure_features(const sweep_measure *m, bool *is_fid);
/* Images [n,h,w,c] into the row, beside those of the model of floats. */
ht_status sweep_measure_images(sweep_measure *m, int64_t n, const int size[3], const float *reference,
                               const float *images, sweep_results *results, const char **row);
/* Make what outputs of models are compared on, if it is not there. */
ht_status sweep_measure_samples(sweep_measure *m);
/* The model's output on the error samples, by timestep, relative to the output of the model of floats. */
ht_status sweep_measure_error(sweep_measure *m, ht_model *model, sweep_results *results, const char **row);

/* sweep_cells.c: make what is missing.  made: how many cells.  0, or an exit code after a line. */
int sweep_cells_run(const sweep_settings *s, ht_model *model, const ht_pipeline_info *info, const sweep_plan *plan,
                    sweep_results *results, int *made);

/* sweep_page.c: FOLDER/index.html. */
int sweep_page_write(const char *folder, const char *model, const sweep_plan *plan, const sweep_results *results);

#endif
