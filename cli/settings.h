/* settings.h - what the tables of calibrate, quantize and sample fill: the commands' own, and a sweep's. */
#ifndef HALFTONE_CLI_SETTINGS_H
#define HALFTONE_CLI_SETTINGS_H

#include "cli/commands.h"

/* Of `halftone calibrate`. */
typedef struct calibrate_settings {
    const char *model, *output, *component;
    ht_calibrate_options options;
    bool quiet, json;
} calibrate_settings;

/* Of `halftone quantize`. */
typedef struct quantize_settings {
    const char *model, *output, *component;
    ht_quantize_options options;
    bool quiet, json;
} quantize_settings;

/* Of `halftone sample`. */
typedef struct sample_settings {
    const char *model, *output, *beside;
    int64_t n, first, total, steps, batch;
    const char *sampler, *spacing, *rng;
    double eta;
    uint64_t seed;
    option_ints classes;
    option_size size;
    run_settings run;
    bool quiet, json;
} sample_settings;

/* "torch-cpu" as the library calls it. */
ht_rng sample_rng(const char *name);

#endif
