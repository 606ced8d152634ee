/* trajectory.h - a sampler's way from noise to an image: rows of coefficients made once in double, and a step, a pure
 * function of (x, model output, noise, row). */
#ifndef HT_SAMPLER_TRAJECTORY_H
#define HT_SAMPLER_TRAJECTORY_H

#include "sampler/steps.h"

/* What is added to the mean of a step, per element, with z standard normal and v the second half of the model's
 * channels. */
typedef enum ht_step_noise {
    HT_NOISE_NONE,
    HT_NOISE_FIXED,        /* std z */
    HT_NOISE_LEARNED,      /* sqrt(v) z */
    HT_NOISE_LEARNED_RANGE /* exp(interpolation / 2) z, the interpolation in the logarithm between two variances */
} ht_step_noise;

/* One step.  Every sampler here is linear in x, the prediction of x0, and the model's output:
 *     x0 = x0_of_x x + x0_of_out out, clipped or thresholded;      x' = of_x0 x0 + of_x x + of_out out + noise */
typedef struct ht_step_row {
    int timestep;
    float x0_of_x, x0_of_out;
    float of_x0, of_x, of_out;
    ht_step_noise noise;    /* with HT_NOISE_NONE nothing is drawn; with the others a draw is made even if std is 0 */
    float std;              /* HT_NOISE_FIXED */
    float min_log, max_log; /* HT_NOISE_LEARNED_RANGE: at v = -1 and v = 1 */
} ht_step_row;

typedef struct ht_trajectory_options {
    const char *sampler; /* a name in the table; NULL: what serves the configuration's class, DDIM for any other */
    const char *spacing; /* NULL: the configuration's */
    int steps;
    double eta;                    /* DDIM eq. 16, 0 to 1 */
    bool use_clipped_model_output; /* DDIM: derive eps anew from the clipped x0 */
} ht_trajectory_options;

/* What a sampler makes its rows from. */
typedef struct ht_trajectory_source {
    const ht_schedule_config *config;
    const ht_trajectory_options *options;
    ht_spacing spacing;
    ht_steps steps;
    const float *alphas_cumprod;
} ht_trajectory_source;

/* A row of the table of samplers. */
typedef struct ht_sampler {
    const char *name;
    const char *const *class_names; /* of diffusers, NULL-terminated */
    /* Fill in row i: everything but the timestep. */
    ht_status (*make_row)(const ht_trajectory_source *source, int i, ht_step_row *row);
} ht_sampler;

typedef struct ht_trajectory {
    const ht_sampler *sampler;
    const ht_schedule_config *config; /* borrowed: clipping and thresholding */
    int n;
    const ht_step_row *rows; /* [n] */
    bool needs_variance;     /* the model must have twice the channels */
} ht_trajectory;

/* One image in a step; all arrays channels last and not overlapping. */
typedef struct ht_step_image {
    size_t pixels;
    int channels;
    float *x;            /* [pixels, channels], replaced by x' */
    const float *output; /* [pixels, output_channels] */
    int output_channels; /* channels, or 2 * channels: the second half is the variance, read if needs_variance */
    const float *noise;  /* [pixels, channels]; NULL if the row draws none */
    float *scratch;      /* [pixels, channels]: x0 afterwards */
} ht_step_image;

extern const ht_sampler ht_ddim, ht_ddpm;

/* Everything in the arena; config is borrowed for as long.  HT_ERR_ARGUMENT: a name that is not in its table, steps or
 * eta out of range. */
ht_status ht_trajectory_make(ht_arena *arena, const ht_schedule_config *config, const ht_trajectory_options *options,
                             ht_trajectory *trajectory);

/* The name of the sampler that serves a class of diffusers' schedulers, or the configuration without one (NULL). */
const char *ht_sampler_for(const char *class_name);

/* Take step i.  Allocates nothing.  NaN and infinity go through. */
void ht_trajectory_step(const ht_trajectory *trajectory, int i, const ht_step_image *m);

/* For the rows of samplers.  alpha-bar after step i for DDPM's kind of schedule: of the next timestep of the list, 1
 * after the last. */
double ht_next_alpha(const ht_trajectory_source *source, int i);

/* x0 as the configuration's prediction_type has it: x0_of_x and x0_of_out.  HT_ERR_ARGUMENT where x holds nothing of it
 * (alpha-bar 0). */
ht_status ht_predict_x0(const ht_trajectory_source *source, int i, ht_step_row *row);

#endif
