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
    const char *model, *output, *beside, *prompt_file, *negative, *prompt_2, *negative_2, *init, *mask;
    option_texts prompts;
    int64_t n, first, total, steps, batch, width, height, clip_skip; /* n: 0 where it was not said */
    const char *sampler, *spacing, *sigmas, *rng;
    int64_t guidance_channels, max_sequence_length, tile;
    double eta, guidance, guidance_rescale, strength;
    uint64_t seed;
    option_ints classes, crop, cache;
    option_size size, original_size, target_size;
    const char *preview_model, *terminal;
    run_settings run;
    bool quiet, json, plain, show, preview;
} sample_settings;

/* "torch-cpu" as the library calls it. */
ht_rng sample_rng(const char *name);

/* What the settings ask of a pipeline, but for prompts, classes, pictures to begin with, and who is told. */
ht_draw_options sample_draw_options(const sample_settings *s);

#endif
