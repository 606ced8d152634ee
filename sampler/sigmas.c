/* sigmas.c - lists of noise levels as diffusers' schedulers on sigmas make them.
 *
 * Karras spacing: arXiv:2206.00364 eq. 5, rho 7.  Traps: sigmas between timesteps are interpolated in float64 from
 * float32 and rounded; a timestep for a sigma is interpolated in the logarithm; the families differ in whether such
 * timesteps are rounded, and in what the list ends at. */
#include "sampler/sigmas.h"

#include <math.h>

#include "core/elementary.h"

/* sqrt((1 - a) / a) in float32, as the libraries' arrays have it. */
static float sigma_of(float alpha_cumprod)
{
    return sqrtf((1 - alpha_cumprod) / alpha_cumprod);
}

/* Zero terminal SNR would begin at an infinite sigma: the least alpha-bar is half float's smallest number instead. */
static float sigma_at(const ht_trajectory_source *s, int t)
{
    float a = s->alphas_cumprod[t];
    return sigma_of(s->config->rescale_betas_zero_snr && t == s->config->num_train_timesteps - 1 ? 0x1p-24f : a);
}

/* numpy.interp of the schedule's sigmas. */
static double interpolate(const ht_trajectory_source *s, double t)
{
    int last = s->config->num_train_timesteps - 1, below = (int)t;
    if (t >= last)
        return (double)sigma_at(s, last);
    if (t <= 0)
        return (double)sigma_at(s, 0);
    double low = (double)sigma_at(s, below), high = (double)sigma_at(s, below + 1);
    return (high - low) * (t - below) + low;
}

/* Its logarithm in float32. */
static double log_at(const ht_trajectory_source *s, int t)
{
    return (double)(float)ht_log((double)sigma_at(s, t));
}

/* The timestep of a sigma. */
static double timestep_of(const ht_trajectory_source *s, double sigma)
{
    int low = 0, high = s->config->num_train_timesteps - 1;
    if (high == 0)
        return 0;
    double wanted = ht_log(fmax(sigma, 1e-10));
    while (high - low > 1) {
        int middle = (low + high) / 2;
        if (wanted >= log_at(s, middle))
            low = middle;
        else
            high = middle;
    }
    double below = log_at(s, low), above = log_at(s, low + 1);
    double w = fmin(fmax((below - wanted) / (below - above), 0), 1);
    return (1 - w) * low + w * (low + 1);
}

/* ---- lists ---- */

static double spaced(const ht_trajectory_source *s, const ht_sigma_rules *r, int i)
{
    int total = s->config->num_train_timesteps, steps = s->options->steps, cuts = r->ends_above ? steps + 1 : steps;
    int whole = total / cuts;
    double stride = (double)total / steps;
    switch (s->spacing) {
    case HT_SPACING_LEADING:
        return (double)whole * (cuts - 1 - i) + s->config->steps_offset;
    case HT_SPACING_TRAILING:
        return rint(total + i * ((total - stride) - total)) - 1;
    default: { /* linspace */
        int at = cuts - 1 - i;
        double t = at == cuts - 1 && cuts > 1 ? total - 1 : at * ((double)(total - 1) / (cuts > 1 ? cuts - 1 : 1));
        return r->fractions ? (double)(float)t : rint(t);
    }
    }
}

static double karras(double least, double most, int n, int i)
{
    double ramp = n > 1 ? (double)i / (n - 1) : 0, root = ht_pow(least, 1 / 7.0), top = ht_pow(most, 1 / 7.0);
    return ht_pow(top + ramp * (root - top), 7);
}

static double exponential(double least, double most, int n, int i)
{
    double ramp = n > 1 ? (double)i / (n - 1) : 0, top = ht_log(most);
    return ht_exp(top + ramp * (ht_log(least) - top));
}

/* The ends between which sigmas are spaced anew: those of the steps where they stay fractions, else of the schedule. */
static void respace(const ht_trajectory_source *s, const ht_sigma_rules *r, ht_sigmas *out)
{
    const ht_solver_config *c = &s->config->solver;
    double least = r->fractions ? out->sigmas[out->n - 1] : (double)sigma_at(s, 0);
    double most = r->fractions ? out->sigmas[0] : (double)sigma_at(s, s->config->num_train_timesteps - 1);
    bool rounds = !r->fractions && s->sigma_spacing == HT_SIGMAS_KARRAS;
    rounds = rounds && !(r->round_if_not_cosine && s->config->beta_schedule == HT_BETAS_SQUAREDCOS_CAP_V2);
    least = c->sigma_min > 0 ? c->sigma_min : least;
    most = c->sigma_max > 0 ? c->sigma_max : most;
    for (int i = 0; i < out->n; i++) {
        double sigma =
            s->sigma_spacing == HT_SIGMAS_KARRAS ? karras(least, most, out->n, i) : exponential(least, most, out->n, i);
        double t = timestep_of(s, sigma);
        out->sigmas[i] = sigma;
        out->timesteps[i] = rounds ? rint(t) : r->fractions ? t : floor(t);
    }
}

static double last_sigma(const ht_trajectory_source *s, const ht_sigma_rules *r, const ht_sigmas *list)
{
    if (r->last_repeats && s->sigma_spacing)
        return list->sigmas[list->n - 1];
    return r->final_sigma_min ? (double)sigma_at(s, 0) : 0;
}

ht_status ht_sigmas_make(const ht_trajectory_source *s, const ht_sigma_rules *r, ht_sigmas *out)
{
    int n = s->options->steps, total = s->config->num_train_timesteps, most = r->ends_above ? total - 1 : total;
    ht_status status = ht_refuse_spacing(s, r->sampler);
    if (!status && (n < 1 || n > (most < 1 ? 1 : most)))
        status = ht_fail(HT_ERR_ARGUMENT, "steps is %d; wanted 1 to %d, the timesteps that the model was trained with",
                         n, most < 1 ? 1 : most);
    if (status)
        return status;
    out->n = n;
    out->timesteps = ht_alloc_array(s->arena, (size_t)n, sizeof *out->timesteps);
    out->sigmas = ht_alloc_array(s->arena, (size_t)n + 1, sizeof *out->sigmas);
    if (!out->timesteps || !out->sigmas)
        return HT_ERR_MEMORY;
    for (int i = 0; i < n; i++) {
        double t = out->timesteps[i] = spaced(s, r, i);
        if (t < 0 || t > total - 1)
            return ht_fail(HT_ERR_ARGUMENT,
                           "%s spacing of %d steps with steps_offset %d visits timestep %g; the last is %d: take fewer "
                           "steps",
                           ht_spacing_name((int)s->spacing), n, s->config->steps_offset, t, total - 1);
        out->sigmas[i] = interpolate(s, t);
    }
    if (s->sigma_spacing)
        respace(s, r, out);
    out->sigmas[n] = last_sigma(s, r, out);
    for (int i = 0; i <= n; i++) {
        out->sigmas[i] = (double)(float)out->sigmas[i];
        if (!(out->sigmas[i] >= 0 && isfinite(out->sigmas[i])) || (i < n && out->sigmas[i] == 0))
            return ht_fail(HT_ERR_ARGUMENT, "noise schedule: the noise of step %d is %g times the image", i,
                           out->sigmas[i]);
    }
    for (int i = 0; i < n; i++)
        out->largest = fmax(out->largest, out->sigmas[i]);
    return HT_OK;
}

double ht_sigmas_init(const ht_trajectory_source *source, const ht_sigmas *s)
{
    return source->spacing == HT_SPACING_LEADING ? sqrt(s->largest * s->largest + 1) : s->largest;
}

/* ---- levels ---- */

ht_level ht_level_of(double sigma)
{
    double alpha = 1 / sqrt(sigma * sigma + 1);
    return (ht_level){alpha, sigma * alpha, sigma > 0 ? -ht_log(sigma) : INFINITY};
}

void ht_level_predict(const ht_schedule_config *config, const ht_level *l, ht_step_row *row)
{
    switch (config->prediction_type) {
    case HT_PREDICT_EPSILON:
        row->x0_of_x = (float)(1 / l->alpha);
        row->x0_of_out = (float)(-l->sigma / l->alpha);
        break;
    case HT_PREDICT_V: /* arXiv:2202.00512, appendix D */
        row->x0_of_x = (float)l->alpha;
        row->x0_of_out = (float)-l->sigma;
        break;
    case HT_PREDICT_SAMPLE:
        row->x0_of_x = 0;
        row->x0_of_out = 1;
        break;
    }
}

void ht_level_keep(const ht_trajectory *t, const ht_level *l, bool noise, ht_step_row *row)
{
    ht_prediction prediction = t->config->prediction_type;
    if (!noise) {
        row->keep_of_x0 = 1;
    } else if (t->bound != HT_BOUND_NONE || prediction == HT_PREDICT_SAMPLE) {
        row->keep_of_x = (float)(1 / l->sigma);
        row->keep_of_x0 = (float)(-l->alpha / l->sigma);
    } else if (prediction == HT_PREDICT_V) {
        row->keep_of_x = (float)l->sigma;
        row->keep_of_out = (float)l->alpha;
    } else {
        row->keep_of_out = 1;
    }
}
