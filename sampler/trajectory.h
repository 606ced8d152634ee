/* trajectory.h - a sampler's way from noise to an image: rows of coefficients made once in double, and a step, a pure
 * function of (x, model output, noise, row). */
#ifndef HT_SAMPLER_TRAJECTORY_H
#define HT_SAMPLER_TRAJECTORY_H

#include "halftone.h"
#include "sampler/steps.h"

/* What is added to the mean of a step, per element, with z standard normal and v the second half of the model's
 * channels. */
typedef enum ht_step_noise {
    HT_NOISE_NONE,
    HT_NOISE_FIXED,        /* std z */
    HT_NOISE_LEARNED,      /* sqrt(v) z */
    HT_NOISE_LEARNED_RANGE /* exp(interpolation / 2) z, the interpolation in the logarithm between two variances */
} ht_step_noise;

enum { HT_STEP_SLOTS = 7, HT_NO_SLOT = -1 };

/* One step.  Every sampler here is linear in x, the prediction of x0, the model's output, and what earlier steps kept,
 * images in slots s:
 *     x0 = x0_of_x x + x0_of_out out, clipped or thresholded
 *     s[keep] = keep_of_x x + keep_of_x0 x0 + keep_of_out out
 *     x = correct_x x + sum correct_slot s, if it corrects
 *     s[keep_x] = x
 *     x' = of_x0 x0 + of_x x + of_out out + sum of_slot s + noise */
typedef struct ht_step_row {
    float timestep;      /* that the model is told */
    float scale;         /* the model reads scale x */
    float signal, sigma; /* x is signal times the image plus sigma times noise */
    float x0_of_x, x0_of_out;
    int keep, keep_x; /* slots, or HT_NO_SLOT */
    float keep_of_x, keep_of_x0, keep_of_out;
    bool corrects;
    float correct_x, correct_slot[HT_STEP_SLOTS];
    float of_x0, of_x, of_out, of_slot[HT_STEP_SLOTS];
    ht_step_noise noise;    /* with HT_NOISE_NONE nothing is drawn; with the others a draw is made even if std is 0 */
    float std;              /* HT_NOISE_FIXED */
    float min_log, max_log; /* HT_NOISE_LEARNED_RANGE: at v = -1 and v = 1 */
} ht_step_row;

typedef struct ht_trajectory_options {
    const char *sampler; /* a name in the table; NULL: what serves the configuration's class, DDIM for any other */
    const char *spacing; /* NULL: the configuration's */
    const char *sigmas;  /* "default", "karras", "exponential"; NULL: the configuration's */
    int steps;
    int skip;                      /* of the steps, as many are left out at the start: an image is changed, not made */
    double eta;                    /* DDIM eq. 16, 0 to 1 */
    double churn, churn_noise;     /* Euler: S_churn and S_noise of arXiv:2206.00364, algorithm 2; the latter 0: 1 */
    bool use_clipped_model_output; /* DDIM: derive eps anew from the clipped x0 */
} ht_trajectory_options;

/* What a sampler makes its rows from. */
typedef struct ht_trajectory_source {
    ht_arena *arena;
    const ht_schedule_config *config;
    const ht_trajectory_options *options;
    ht_spacing spacing;
    ht_sigma_spacing sigma_spacing;
    ht_steps steps; /* of samplers that go by ht_make_rows */
    const float *alphas_cumprod;
} ht_trajectory_source;

typedef enum ht_bound { HT_BOUND_NONE, HT_BOUND_CLIP, HT_BOUND_THRESHOLD } ht_bound;

typedef struct ht_trajectory {
    const struct ht_sampler *sampler;
    const ht_schedule_config *config; /* borrowed: clipping and thresholding */
    int n;
    const ht_step_row *rows; /* [n] */
    bool needs_variance;     /* the model must have twice the channels */
    int slots;               /* that an image needs */
    ht_bound bound;          /* of x0 */
    float init_noise_sigma;  /* the first x is that times noise */
} ht_trajectory;

/* A row of the table of samplers. */
typedef struct ht_sampler {
    const char *name, *words;       /* "euler-a"; for people: "Euler a" */
    const char *const *class_names; /* of diffusers, NULL-terminated */
    bool takes_eta;
    /* Fill in n, rows, init_noise_sigma, bound and slots. */
    ht_status (*make)(ht_trajectory_source *source, ht_trajectory *out);
} ht_sampler;

/* One image in a step; all arrays channels last and not overlapping. */
typedef struct ht_step_image {
    size_t pixels;
    int channels;
    float *x;            /* [pixels, channels], replaced by x' */
    const float *output; /* [pixels, output_channels] */
    int output_channels; /* channels, or 2 * channels: the second half is the variance, read if needs_variance */
    const float *noise;  /* [pixels, channels]; NULL if the row draws none */
    float *scratch;      /* [pixels, channels]: x0 afterwards */
    float *slots;        /* [slots, pixels, channels]; NULL if the trajectory needs none */
} ht_step_image;

extern const ht_sampler ht_ddim, ht_ddpm, ht_euler, ht_euler_ancestral, ht_heun, ht_pndm, ht_dpm_solver,
    ht_dpm_solver_sde, ht_unipc, ht_deis, ht_lcm;

/* Everything in the arena; config is borrowed for as long.  HT_ERR_ARGUMENT: a name that is not in its table, steps or
 * eta out of range. */
ht_status ht_trajectory_make(ht_arena *arena, const ht_schedule_config *config, const ht_trajectory_options *options,
                             ht_trajectory *trajectory);

/* The name of the sampler that serves a class of diffusers' schedulers, or the configuration without one (NULL). */
const char *ht_sampler_for(const char *class_name);

/* Take step i.  Allocates nothing.  NaN and infinity go through. */
void ht_trajectory_step(const ht_trajectory *trajectory, int i, const ht_step_image *m);

/* What x is where a row begins, of n values: out = signal x0 + sigma noise.  In place is allowed. */
void ht_add_noise(const ht_step_row *row, size_t n, const float *x0, const float *noise, float *out);

/* ---- for the samplers ---- */

/* n rows of the arena that keep nothing; NULL: out of memory. */
ht_step_row *ht_rows(ht_arena *arena, int n);

/* Rows of those that step through ht_steps: timestep, signal and sigma set, the rest by make_row. */
ht_status ht_make_rows(ht_trajectory_source *source, ht_trajectory *out,
                       ht_status (*make_row)(const ht_trajectory_source *source, int i, ht_step_row *row));

/* HT_ERR_ARGUMENT: a spacing that is not diffusers', eta, sigmas.  what: the sampler. */
ht_status ht_refuse_spacing(const ht_trajectory_source *source, const char *what);

/* alpha-bar after step i for DDPM's kind of schedule: of the next timestep of the list, 1 after the last. */
double ht_next_alpha(const ht_trajectory_source *source, int i);

/* x0 as the configuration's prediction_type has it: x0_of_x and x0_of_out.  HT_ERR_ARGUMENT where x holds nothing of it
 * (alpha-bar 0). */
ht_status ht_predict_x0(const ht_trajectory_source *source, int i, ht_step_row *row);

/* What the configuration asks for. */
ht_bound ht_bound_of(const ht_schedule_config *config, bool clips, bool thresholds);

#endif
