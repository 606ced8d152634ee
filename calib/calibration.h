/* calibration.h - a timestep-aware calibration set and what the inputs of every layer do on it, by timestep.
 *
 * Calibrating and quantizing compute on the CPU, whatever a machine has besides: so a file depends on the model, the
 * settings and the seed, and on nothing else. */
#ifndef HT_CALIB_CALIBRATION_H
#define HT_CALIB_CALIBRATION_H

#include "calib/contexts.h"
#include "calib/statistics.h"
#include "sampler/session.h"

enum { HT_MAX_CALIBRATION_SAMPLES = 1 << 20 };

/* Which of a trajectory's steps give samples, and how many each. */
typedef enum ht_distribution {
    HT_DISTRIBUTION_UNIFORM, /* every k-th step, the same number each (Q-Diffusion arXiv:2302.04304, section 3.3.1) */
    HT_DISTRIBUTION_QUAD,    /* steps at squares: more of the last, as DDIM's quad schedule */
    HT_DISTRIBUTION_NORMAL,  /* drawn from a normal distribution around 0.4 of the way (PTQ4DM arXiv:2211.15736) */
    HT_DISTRIBUTION_ALL,     /* every step */
    HT_DISTRIBUTION_ONE,     /* the middle step alone: what image classifiers' methods would do */
    HT_DISTRIBUTIONS
} ht_distribution;

const char *ht_distribution_name(int distribution); /* NULL past the last */
int ht_distribution_find(const char *name);         /* -1: there is none */

/* counts[steps]: samples to take at each step, `chosen` steps (at most all) of `each`; counts of HT_DISTRIBUTION_NORMAL
 * are chosen * each draws of a seed. */
void ht_distribution_counts(ht_distribution distribution, int steps, int chosen, int each, uint64_t seed, int *counts);

/* Statistics of one input (X, or X2) of one layer. */
typedef struct ht_observed {
    const char *name;             /* the layer's */
    int slot;                     /* 0: X, 1: X2 */
    ht_input_statistics *by_step; /* [groups] */
} ht_observed;

typedef struct ht_calibration {
    const char *model;    /* SHA-256 of the weights it was made with, in hexadecimal */
    const char *settings; /* JSON: how it was made */
    int height, width, channels;
    int groups;             /* timesteps that gave samples */
    const float *timesteps; /* [groups], falling */
    const int *counts;      /* [groups] samples of each, in this order */
    int64_t samples;
    const float *sample;       /* [samples,h,w,c]: x_t */
    const float *class_labels; /* [samples], NULL if the model takes none, or contexts have them */
    ht_contexts contexts;
    const int32_t *context; /* [samples]: a row of contexts; NULL if there are none */
    ht_observed *inputs;
    int n_inputs;
} ht_calibration;

/* Run the float model's sampler and observe.  All memory from the arena.  progress: of model evaluations. */
ht_status ht_calibration_make(ht_arena *arena, ht_model *model, const ht_calibrate_options *options,
                              ht_calibration *calibration);

ht_status ht_calibration_write(const ht_calibration *calibration, const char *path);

/* model: NULL to look at any.  HT_ERR_ARGUMENT if it was made with other weights than model's; HT_ERR_FORMAT if the
 * file is none or damaged. */
ht_status ht_calibration_read(ht_arena *arena, const ht_model *model, const char *path, ht_calibration *calibration);

const ht_observed *ht_calibration_find(const ht_calibration *c, const char *layer, int slot); /* NULL if absent */

/* Steps of calibration: run all samples, batch by batch, one timestep a batch, through a session; visit is called after
 * every batch with the group, the first sample and their number. */
typedef ht_status ht_visit(void *user, ht_session *session, int group, int64_t first, int n);
ht_status ht_calibration_run(const ht_calibration *c, ht_session *session, ht_visit *visit, void *user);

/* The same for what depends on the timestep alone, which is a finite set: every timestep of the schedule's 0 ..
 * num_train_timesteps-1, with the group it is nearest to.  visit reads values of the {t} stage; first and n are 0. */
ht_status ht_calibration_run_timesteps(const ht_calibration *c, ht_session *session, ht_visit *visit, void *user);

/* What samples first .. first+n-1 take besides x and t.  room: of ht_contexts_room numbers. */
ht_cond ht_calibration_cond(const ht_calibration *c, int64_t first, int n, float *room);

/* The first `each` samples (1 at least) of every timestep, as a set of their own. */
ht_status ht_calibration_first(ht_arena *arena, const ht_calibration *c, int each, ht_calibration *first);

/* How much an error of the model's output at a timestep matters for the image: sigma = sqrt((1 - a) / a), and with data
 * of standard deviation s = 0.5 an error of eps at sigma moves x / sqrt(a) by d sigma, of which s^2 / (s^2 + sigma^2)
 * is left at the end (the deterministic flow of normal data, Karras et al. arXiv:2206.00364 eq. 4).  Mean 1 over
 * groups. weights[groups]. */
ht_status ht_calibration_weights(const ht_calibration *c, const ht_model *model, double *weights);

#endif
