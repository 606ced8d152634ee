/* sigmas.h - steps by noise level: sigma = sqrt((1 - alpha-bar) / alpha-bar), of an image scaled so that its signal
 * is 1 (Karras et al., arXiv:2206.00364); for the samplers that are written in it, and those in its logarithm. */
#ifndef HT_SAMPLER_SIGMAS_H
#define HT_SAMPLER_SIGMAS_H

#include "sampler/trajectory.h"

typedef struct ht_sigmas {
    int n;
    double *timesteps; /* [n] */
    double *sigmas;    /* [n+1], rounded to float32; the last is what the last step ends at */
    double largest;    /* of the steps */
} ht_sigmas;

/* How a family of diffusers makes its list. */
typedef struct ht_sigma_rules {
    const char *sampler;
    bool fractions;  /* timesteps of linspace and those of changed sigmas stay fractions (Euler, Heun) */
    bool ends_above; /* the schedule is cut in one step more, and the last of them left out (DPM-Solver, ...) */
    bool round_if_not_cosine, last_repeats; /* what else differs: DPM-Solver; DEIS */
    bool final_sigma_min;                   /* ends at the least sigma instead of 0 */
} ht_sigma_rules;

/* Of source->options->steps steps, all of them.  HT_ERR_ARGUMENT: what cannot be taken. */
ht_status ht_sigmas_make(const ht_trajectory_source *source, const ht_sigma_rules *rules, ht_sigmas *out);

/* The scale of the first x where its signal is 1: the largest sigma, or as with leading, sqrt(sigma^2 + 1). */
double ht_sigmas_init(const ht_trajectory_source *source, const ht_sigmas *s);

/* A noise level as DPM-Solver (arXiv:2206.00927) has it: x = alpha x0 + sigma eps, lambda = log(alpha / sigma),
 * infinite where sigma is 0. */
typedef struct ht_level {
    double alpha, sigma, lambda;
} ht_level;

ht_level ht_level_of(double sigma);

/* x0 of a row at this level: x0_of_x, x0_of_out. */
void ht_level_predict(const ht_schedule_config *config, const ht_level *level, ht_step_row *row);

/* What row->keep is to hold: x0, or the noise that goes with x0; through thresholding if there is some. */
void ht_level_keep(const ht_trajectory *t, const ht_level *level, bool noise, ht_step_row *row);

#endif
