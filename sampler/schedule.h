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

typedef enum ht_algorithm {
    HT_DPMSOLVER,
    HT_DPMSOLVER_PP,
    HT_SDE_DPMSOLVER,
    HT_SDE_DPMSOLVER_PP,
    HT_ALGORITHM_DEIS
} ht_algorithm;
typedef enum ht_solver { HT_SOLVER_MIDPOINT, HT_SOLVER_HEUN, HT_SOLVER_LOGRHO, HT_SOLVER_BH1, HT_SOLVER_BH2 } ht_solver;
typedef enum ht_sigma_spacing { HT_SIGMAS_DEFAULT, HT_SIGMAS_KARRAS, HT_SIGMAS_EXPONENTIAL } ht_sigma_spacing;

enum { HT_MAX_DISABLED = 256 };

/* What the samplers after DDIM and DDPM read.  Names are the file's. */
typedef struct ht_solver_config {
    bool skip_prk_steps;         /* PNDM */
    ht_algorithm algorithm_type; /* DPM-Solver */
    ht_solver solver_type;
    int solver_order;
    bool lower_order_final, euler_at_final;
    bool final_sigma_min; /* final_sigmas_type: sigma_min, not zero */
    ht_sigma_spacing sigmas;
    double sigma_min, sigma_max; /* 0: of the schedule */
    bool log_linear;             /* Euler's interpolation_type */
    bool predict_x0;             /* UniPC */
    int disable_corrector[HT_MAX_DISABLED], disabled;
    int original_inference_steps; /* LCM */
    double timestep_scaling;
    const char *unsupported; /* a setting that is not offered, of samplers on sigmas; NULL: none */
} ht_solver_config;

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
    ht_solver_config solver;
} ht_schedule_config;

/* The defaults of diffusers' DDIMScheduler. */
void ht_schedule_defaults(ht_schedule_config *config);
/* Those that single files of Stable Diffusion mean, which hold none. */
void ht_schedule_stable_diffusion(ht_schedule_config *config);
/* Read a scheduler_config.json object.  Keys that change results and are not known are errors that name them.  A key
 * that is absent has the default of the class that the file names, and if that class has none, DDIM's: what diffusers'
 * from_config makes of it when another sampler takes its place.  config is written on success. */
ht_status ht_schedule_read(ht_arena *arena, const json_t *object, const char *where, ht_schedule_config *config);

/* alphas_cumprod [num_train_timesteps], alpha-bar of DDPM eq. 4, in the arithmetic of the libraries: float32 betas,
 * zero-SNR rescaling if the configuration asks for it.  HT_ERR_ARGUMENT if a beta is not in [0,1). */
ht_status ht_schedule_alphas(ht_arena *arena, const ht_schedule_config *config, float **alphas_cumprod);

#endif
