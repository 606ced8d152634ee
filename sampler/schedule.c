/* schedule.c - noise schedules: scheduler_config.json read and checked, and the array that follows from it.
 *
 * betas: linear (DDPM, arXiv:2006.11239, section 4), scaled_linear (the square of a linear ramp: latent diffusion),
 * squaredcos_cap_v2 (Improved DDPM, arXiv:2102.09672, eq. 17), or given.  Zero terminal SNR: arXiv:2305.08891, alg. 1.
 *
 * Trap: the libraries build the arrays in float32, and at small t 1 - alphas_cumprod is a few of its last places.  So
 * torch's roundings are followed: linspace from both ends with fused multiply-adds, cumprod kept in double and rounded
 * at each entry. */
#include "sampler/schedule.h"

#include <math.h>
#include <string.h>

#include "core/elementary.h"

static const char *const beta_schedules[] = {"linear", "scaled_linear", "squaredcos_cap_v2", NULL};
static const char *const predictions[] = {"epsilon", "v_prediction", "sample", NULL};
static const char *const spacings[] = {"leading", "trailing", "linspace", NULL};
static const char *const variances[] = {"fixed_small", "fixed_small_log", "fixed_large", "fixed_large_log",
                                        "learned",     "learned_range",   NULL};
static const char *const timestep_types[] = {"discrete", NULL};

/* A key that is not here may change what the model expects. */
/* clang-format off */
static const char *const known_keys[] = {
    "num_train_timesteps", "beta_start", "beta_end", "beta_schedule", "trained_betas", "rescale_betas_zero_snr",
    "prediction_type", "timestep_spacing", "timestep_type", "steps_offset", "set_alpha_to_one", "variance_type",
    "clip_sample", "clip_sample_range", "thresholding", "dynamic_thresholding_ratio", "sample_max_value",
    "skip_prk_steps",                                                                       /* PNDM */
    "algorithm_type", "solver_order", "solver_type", "lower_order_final", "euler_at_final", /* DPM-Solver, DEIS */
    "final_sigmas_type", "lambda_min_clipped", "use_lu_lambdas", "noise_sampler_seed",
    "predict_x0", "disable_corrector", "solver_p",                                          /* UniPC */
    "use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas",                       /* on sigmas */
    "use_flow_sigmas", "flow_shift", "use_dynamic_shifting", "time_shift_type",  /* prediction_type tells flow models */
    "interpolation_type", "sigma_min", "sigma_max",                                         /* Euler */
    "original_inference_steps", "timestep_scaling", NULL};                                  /* LCM */
/* clang-format on */

void ht_schedule_defaults(ht_schedule_config *config)
{
    *config = (ht_schedule_config){
        .class_name = "DDIMScheduler",
        .num_train_timesteps = 1000,
        .beta_start = 0.0001,
        .beta_end = 0.02,
        .beta_schedule = HT_BETAS_LINEAR,
        .prediction_type = HT_PREDICT_EPSILON,
        .timestep_spacing = HT_SPACING_LEADING,
        .set_alpha_to_one = true,
        .clip_sample = true,
        .clip_sample_range = 1,
        .dynamic_thresholding_ratio = 0.995,
        .sample_max_value = 1,
        .variance_type = HT_VARIANCE_FIXED_SMALL,
        .solver = {.algorithm_type = HT_DPMSOLVER_PP,
                   .solver_order = 2,
                   .lower_order_final = true,
                   .predict_x0 = true,
                   .original_inference_steps = 50,
                   .timestep_scaling = 10},
    };
}

void ht_schedule_stable_diffusion(ht_schedule_config *config)
{
    ht_schedule_defaults(config);
    config->beta_start = 0.00085;
    config->beta_end = 0.012;
    config->beta_schedule = HT_BETAS_SCALED_LINEAR;
    config->steps_offset = 1;
    config->set_alpha_to_one = false;
    config->clip_sample = false;
}

/* What the constructors of diffusers' classes take where the file says nothing, if it is not what DDIM's takes. */
static void set_class_defaults(const char *class_name, ht_schedule_config *c)
{
    static const char *const by_linspace[] = {"EulerDiscreteScheduler",       "EulerAncestralDiscreteScheduler",
                                              "HeunDiscreteScheduler",        "DPMSolverMultistepScheduler",
                                              "DPMSolverSinglestepScheduler", "UniPCMultistepScheduler",
                                              "DEISMultistepScheduler",       "LMSDiscreteScheduler"};
    bool heun = !strcmp(class_name, "HeunDiscreteScheduler"), lcm = !strcmp(class_name, "LCMScheduler");
    for (size_t i = 0; i < sizeof by_linspace / sizeof *by_linspace; i++)
        if (!strcmp(class_name, by_linspace[i]))
            c->timestep_spacing = HT_SPACING_LINSPACE;
    if (!strcmp(class_name, "PNDMScheduler"))
        c->set_alpha_to_one = false;
    if (!heun && !lcm)
        return;
    c->clip_sample = false;
    c->beta_start = 0.00085;
    c->beta_end = 0.012;
    c->beta_schedule = lcm ? HT_BETAS_SCALED_LINEAR : HT_BETAS_LINEAR;
}

static ht_status check_ranges(const ht_schedule_config *c, const char *where)
{
    bool ratio = c->dynamic_thresholding_ratio >= 0 && c->dynamic_thresholding_ratio <= 1;
    if (!(c->beta_start >= 0 && c->beta_start < 1) || !(c->beta_end >= 0 && c->beta_end < 1))
        return ht_fail(HT_ERR_FORMAT, "%s: beta_start is %g and beta_end %g; wanted 0 <= beta < 1", where,
                       c->beta_start, c->beta_end);
    if (!(c->clip_sample_range > 0 && isfinite(c->clip_sample_range)))
        return ht_fail(HT_ERR_FORMAT, "%s: clip_sample_range is %g; wanted above 0", where, c->clip_sample_range);
    if (!(c->sample_max_value > 0 && isfinite(c->sample_max_value)))
        return ht_fail(HT_ERR_FORMAT, "%s: sample_max_value is %g; wanted above 0", where, c->sample_max_value);
    return ratio ? HT_OK
                 : ht_fail(HT_ERR_FORMAT, "%s: dynamic_thresholding_ratio is %g; wanted 0 to 1", where,
                           c->dynamic_thresholding_ratio);
}

/* With a list of betas beta_schedule, beta_start and beta_end are not read. */
static ht_status read_trained_betas(ht_arena *arena, ht_json *j, ht_schedule_config *c)
{
    const json_t *given = json_object_get(j->object, "trained_betas");
    double *betas = ht_alloc_array(arena, json_array_size(given), sizeof *betas);
    if (!betas)
        return HT_ERR_MEMORY;
    int count = ht_json_reals(j, "trained_betas", betas, HT_MAX_TRAIN_TIMESTEPS);
    if (!j->status && count < c->num_train_timesteps)
        j->status = ht_fail(HT_ERR_FORMAT, "%s: trained_betas has %d entries; wanted num_train_timesteps = %d, or more",
                            j->where, count, c->num_train_timesteps);
    c->beta_schedule = HT_BETAS_GIVEN;
    c->trained_betas = betas;
    c->trained_betas_count = count;
    return j->status;
}

static ht_status read_betas(ht_arena *arena, ht_json *j, ht_schedule_config *c)
{
    const json_t *given = json_object_get(j->object, "trained_betas");
    if (given && !json_is_null(given))
        return read_trained_betas(arena, j, c);
    c->beta_start = ht_json_real(j, "beta_start", c->beta_start);
    c->beta_end = ht_json_real(j, "beta_end", c->beta_end);
    c->beta_schedule = (ht_beta_schedule)ht_json_choice(j, "beta_schedule", c->beta_schedule, beta_schedules);
    return j->status;
}

static const char *const algorithms[] = {"dpmsolver", "dpmsolver++", "sde-dpmsolver", "sde-dpmsolver++", "deis", NULL};
static const char *const solvers[] = {"midpoint", "heun", "logrho", "bh1", "bh2", NULL};
static const char *const final_sigmas[] = {"zero", "sigma_min", NULL};
static const char *const interpolations[] = {"linear", "log_linear", NULL};

/* Settings of samplers on sigmas that this version has not: an error once such a sampler is made. */
static const char *unsupported_setting(ht_json *j)
{
    static const char *const flags[] = {"use_beta_sigmas", "use_lu_lambdas", "use_flow_sigmas", "use_dynamic_shifting"};
    const json_t *least = json_object_get(j->object, "lambda_min_clipped");
    for (size_t i = 0; i < sizeof flags / sizeof *flags; i++)
        if (ht_json_bool(j, flags[i], false))
            return flags[i];
    return json_is_number(least) && isfinite(json_number_value(least)) ? "lambda_min_clipped" : NULL;
}

static void read_disabled(ht_json *j, ht_solver_config *s)
{
    double steps[HT_MAX_DISABLED];
    int n = ht_json_reals(j, "disable_corrector", steps, HT_MAX_DISABLED);
    for (s->disabled = 0; s->disabled < n && !j->status; s->disabled++)
        s->disable_corrector[s->disabled] = steps[s->disabled] >= 0 && steps[s->disabled] <= HT_MAX_TRAIN_TIMESTEPS
                                                ? (int)steps[s->disabled]
                                                : HT_MAX_TRAIN_TIMESTEPS;
}

static void read_solver(ht_json *j, ht_solver_config *s)
{
    s->skip_prk_steps = ht_json_bool(j, "skip_prk_steps", s->skip_prk_steps);
    s->algorithm_type = (ht_algorithm)ht_json_choice(j, "algorithm_type", s->algorithm_type, algorithms);
    s->solver_type = (ht_solver)ht_json_choice(j, "solver_type", s->solver_type, solvers);
    s->solver_order = ht_json_int(j, "solver_order", s->solver_order, 1, 3);
    s->lower_order_final = ht_json_bool(j, "lower_order_final", s->lower_order_final);
    s->euler_at_final = ht_json_bool(j, "euler_at_final", s->euler_at_final);
    s->final_sigma_min = ht_json_choice(j, "final_sigmas_type", 0, final_sigmas) == 1;
    s->log_linear = ht_json_choice(j, "interpolation_type", 0, interpolations) == 1;
    if (ht_json_bool(j, "use_exponential_sigmas", false))
        s->sigmas = HT_SIGMAS_EXPONENTIAL;
    if (ht_json_bool(j, "use_karras_sigmas", false))
        s->sigmas = HT_SIGMAS_KARRAS;
    s->sigma_min = ht_json_real(j, "sigma_min", 0);
    s->sigma_max = ht_json_real(j, "sigma_max", 0);
    s->predict_x0 = ht_json_bool(j, "predict_x0", s->predict_x0);
    s->original_inference_steps =
        ht_json_int(j, "original_inference_steps", s->original_inference_steps, 1, HT_MAX_TRAIN_TIMESTEPS);
    s->timestep_scaling = ht_json_real(j, "timestep_scaling", s->timestep_scaling);
    s->unsupported = unsupported_setting(j);
    read_disabled(j, s);
}

ht_status ht_schedule_read(ht_arena *arena, const json_t *object, const char *where, ht_schedule_config *config)
{
    ht_schedule_config c;
    ht_schedule_defaults(&c);
    ht_json j = {.object = object, .where = where};
    const char *class_name = ht_json_string(&j, "_class_name", c.class_name);
    set_class_defaults(class_name ? class_name : "", &c);
    c.num_train_timesteps = ht_json_int(&j, "num_train_timesteps", c.num_train_timesteps, 1, HT_MAX_TRAIN_TIMESTEPS);
    c.prediction_type = (ht_prediction)ht_json_choice(&j, "prediction_type", c.prediction_type, predictions);
    c.timestep_spacing = (ht_spacing)ht_json_choice(&j, "timestep_spacing", c.timestep_spacing, spacings);
    ht_json_choice(&j, "timestep_type", 0, timestep_types);
    c.steps_offset = ht_json_int(&j, "steps_offset", c.steps_offset, 0, HT_MAX_TRAIN_TIMESTEPS);
    c.set_alpha_to_one = ht_json_bool(&j, "set_alpha_to_one", c.set_alpha_to_one);
    c.rescale_betas_zero_snr = ht_json_bool(&j, "rescale_betas_zero_snr", c.rescale_betas_zero_snr);
    c.clip_sample = ht_json_bool(&j, "clip_sample", c.clip_sample);
    c.clip_sample_range = ht_json_real(&j, "clip_sample_range", c.clip_sample_range);
    c.thresholding = ht_json_bool(&j, "thresholding", c.thresholding);
    c.dynamic_thresholding_ratio = ht_json_real(&j, "dynamic_thresholding_ratio", c.dynamic_thresholding_ratio);
    c.sample_max_value = ht_json_real(&j, "sample_max_value", c.sample_max_value);
    c.variance_type = (ht_variance)ht_json_choice(&j, "variance_type", c.variance_type, variances);
    read_solver(&j, &c.solver);
    ht_json_allow(&j, "diffusers' samplers", known_keys);
    ht_status status = read_betas(arena, &j, &c);
    status = status ? status : check_ranges(&c, where);
    if (status)
        return status;
    c.class_name = ht_strdup(arena, class_name);
    if (!c.class_name)
        return HT_ERR_MEMORY;
    *config = c;
    return HT_OK;
}

/* torch.linspace(start, end, n, dtype=float32): exact at both ends. */
static void linspace(float start, float end, int n, float *out)
{
    float step = n > 1 ? (end - start) / (float)(n - 1) : 0;
    for (int i = 0; i < n; i++)
        out[i] = i < n / 2 || n == 1 ? fmaf(step, (float)i, start) : fmaf(-step, (float)(n - 1 - i), end);
}

/* Improved DDPM eq. 17 at time t of 0 .. 1: f(t) = cos^2((t + 0.008) / 1.008 * pi / 2). */
static double squaredcos(double t)
{
    double sine, cosine;
    ht_sincos_turns((t + 0.008) / 1.008 / 4, &sine, &cosine);
    return cosine * cosine;
}

/* beta = 1 - f(t + 1) / f(t), at most 0.999. */
static void squaredcos_betas(int n, float *betas)
{
    double before = squaredcos(0);
    for (int i = 0; i < n; i++) {
        double after = squaredcos((double)(i + 1) / n);
        betas[i] = (float)fmin(1 - after / before, 0.999);
        before = after;
    }
}

/* n of them. */
static void make_betas(const ht_schedule_config *c, int n, float *betas)
{
    switch (c->beta_schedule) {
    case HT_BETAS_LINEAR:
        linspace((float)c->beta_start, (float)c->beta_end, n, betas);
        break;
    case HT_BETAS_SCALED_LINEAR:
        linspace((float)sqrt(c->beta_start), (float)sqrt(c->beta_end), n, betas);
        for (int i = 0; i < n; i++)
            betas[i] *= betas[i];
        break;
    case HT_BETAS_SQUAREDCOS_CAP_V2:
        squaredcos_betas(n, betas);
        break;
    case HT_BETAS_GIVEN:
        for (int i = 0; i < n; i++)
            betas[i] = (float)c->trained_betas[i];
        break;
    }
}

/* DDPM eq. 4: alpha-bar_t is the product of 1 - beta_s over s <= t. */
static void accumulate(int n, const float *betas, float *alphas_cumprod)
{
    double product = 1;
    for (int i = 0; i < n; i++) {
        product *= 1 - betas[i];
        alphas_cumprod[i] = (float)product;
    }
}

/* arXiv:2305.08891, algorithm 1: shift and scale sqrt(alpha-bar) so that the last is 0 and the first stays; back to
 * betas. */
static void rescale_to_zero_snr(int n, float *betas, float *scratch)
{
    accumulate(n, betas, scratch);
    float first = sqrtf(scratch[0]), last = sqrtf(scratch[n - 1]);
    float scale = first / (first - last), before = 1;
    for (int i = 0; i < n; i++) {
        float root = (sqrtf(scratch[i]) - last) * scale;
        float alpha_bar = root * root;
        betas[i] = 1 - alpha_bar / before;
        before = alpha_bar;
    }
}

ht_status ht_schedule_alphas(ht_arena *arena, const ht_schedule_config *config, float **alphas_cumprod)
{
    /* Betas beyond the last timestep are never visited, but they are what zero terminal SNR ends at. */
    int n = config->beta_schedule == HT_BETAS_GIVEN ? config->trained_betas_count : config->num_train_timesteps;
    float *betas = ht_alloc_array(arena, (size_t)n, sizeof *betas);
    float *alphas = ht_alloc_array(arena, (size_t)n, sizeof *alphas);
    if (!betas || !alphas)
        return HT_ERR_MEMORY;
    make_betas(config, n, betas);
    for (int i = 0; i < n; i++) {
        if (!(betas[i] >= 0 && betas[i] < 1))
            return ht_fail(HT_ERR_ARGUMENT, "noise schedule: beta %d of %d is %g; wanted 0 <= beta < 1", i, n,
                           (double)betas[i]);
    }
    if (config->rescale_betas_zero_snr) {
        if (n == 1)
            return ht_fail(HT_ERR_ARGUMENT, "noise schedule: one timestep cannot be rescaled to zero terminal SNR");
        rescale_to_zero_snr(n, betas, alphas);
    }
    accumulate(n, betas, alphas);
    if (!isfinite(alphas[n - 1]))
        return ht_fail(HT_ERR_ARGUMENT, "noise schedule: betas that are all 0 cannot be rescaled to zero terminal SNR");
    *alphas_cumprod = alphas;
    return HT_OK;
}
