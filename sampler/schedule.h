/* schedule.h - noise schedules and the steps through them: arrays made once, a step a pure function of (x, model
 * output, noise, row). DDPM (arXiv:2006.11239), DDIM (arXiv:2010.02502), as diffusers' schedulers configure them. */
#ifndef HT_SAMPLER_SCHEDULE_H
#define HT_SAMPLER_SCHEDULE_H

#include "core/arena.h"
#include "core/json.h"

enum { HT_MAX_TRAIN_TIMESTEPS = 100000 };

typedef enum ht_beta_schedule {
    HT_BETAS_LINEAR,
    HT_BETAS_SCALED_LINEAR,
    HT_BETAS_SQUAREDCOS_CAP_V2,
    HT_BETAS_GIVEN
} ht_beta_schedule;
typedef enum ht_prediction { HT_PREDICT_EPSILON, HT_PREDICT_V, HT_PREDICT_SAMPLE } ht_prediction;
typedef enum ht_spacing {
    HT_SPACING_LEADING,
    HT_SPACING_TRAILING,
    HT_SPACING_LINSPACE,
    HT_SPACING_UNIFORM,
    HT_SPACING_QUAD,
    HT_SPACING_ADM
} ht_spacing;
typedef enum ht_variance {
    HT_VARIANCE_FIXED_SMALL,
    HT_VARIANCE_FIXED_SMALL_LOG,
    HT_VARIANCE_FIXED_LARGE,
    HT_VARIANCE_FIXED_LARGE_LOG,
    HT_VARIANCE_LEARNED,
    HT_VARIANCE_LEARNED_RANGE
} ht_variance;

/* scheduler_config.json, checked.  Names are the file's. */
typedef struct ht_schedule_config {
    const char *class_name; /* "DDIMScheduler" */
    int num_train_timesteps;
    double beta_start, beta_end;
    ht_beta_schedule beta_schedule;
    const double *trained_betas; /* [trained_betas_count], at least num_train_timesteps, with HT_BETAS_GIVEN */
    int trained_betas_count;
    ht_prediction prediction_type;
    ht_spacing timestep_spacing;
    int steps_offset;
    bool set_alpha_to_one;
    bool rescale_betas_zero_snr;
    bool clip_sample;
    double clip_sample_range;
    bool thresholding;
    double dynamic_thresholding_ratio, sample_max_value;
    ht_variance variance_type; /* DDPM */
} ht_schedule_config;

/* The defaults of diffusers' DDIMScheduler. */
void ht_schedule_defaults(ht_schedule_config *config);
/* Read a scheduler_config.json object.  Keys that change results and are not known are errors that name them; keys of
 * other samplers (solver_order, skip_prk_steps) are passed over, as diffusers does when DDIM is built from such a
 * configuration.  A key that is absent has DDIM's default whatever class the file names, in diffusers too:
 * EulerDiscreteScheduler spaces by linspace, DDIM made from its file by leading.  config is written on success. */
ht_status ht_schedule_read(ht_arena *arena, const json_t *object, const char *where, ht_schedule_config *config);

/* alphas_cumprod [num_train_timesteps], alpha-bar of DDPM eq. 4, in the arithmetic of the libraries: float32 betas,
 * zero-SNR rescaling if the configuration asks for it.  HT_ERR_ARGUMENT if a beta is not in [0,1). */
ht_status ht_schedule_alphas(ht_arena *arena, const ht_schedule_config *config, float **alphas_cumprod);

/* out = sqrt(a) x0 + sqrt(1 - a) noise, n values: DDPM eq. 4 with a = alphas_cumprod[t].  In place is allowed. */
void ht_add_noise(float alpha_cumprod, size_t n, const float *x0, const float *noise, float *out);

#endif
