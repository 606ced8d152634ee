/* euler.c - Euler steps of the probability-flow ODE in sigma (Karras et al., arXiv:2206.00364, algorithm 2 without its
 * second half) and its ancestral form, as diffusers' EulerDiscreteScheduler and EulerAncestralDiscreteScheduler take
 * them.
 *
 * Traps: the model reads x / sqrt(sigma^2 + 1).  Churn adds its noise after the model was asked.  The ancestral step
 * draws at every step, the last too, where it adds 0 times the draw. */
#include <math.h>

#include "core/elementary.h"
#include "sampler/sigmas.h"

static const char *const euler_classes[] = {"EulerDiscreteScheduler", NULL};
static const char *const ancestral_classes[] = {"EulerAncestralDiscreteScheduler", NULL};

/* x0 = of_x x + of_out out where the signal is 1. */
static void predict(const ht_schedule_config *c, double sigma, ht_step_row *row)
{
    double one = sigma * sigma + 1;
    switch (c->prediction_type) {
    case HT_PREDICT_EPSILON:
        row->x0_of_x = 1;
        row->x0_of_out = (float)-sigma;
        break;
    case HT_PREDICT_V:
        row->x0_of_x = (float)(1 / one);
        row->x0_of_out = (float)(-sigma / sqrt(one));
        break;
    case HT_PREDICT_SAMPLE:
        row->x0_of_x = 0;
        row->x0_of_out = 1;
        break;
    }
}

/* x' = x + (x - x0) / sigma (to - sigma), x0 of x. */
static void set_step(ht_step_row *row, double sigma, double to)
{
    double slope = (to - sigma) / sigma;
    row->of_x = (float)(1 + slope);
    row->of_x0 = (float)-slope;
}

/* The same from x + extra z, with sigma grown to hat: everything of x0 that is linear in x moves to x and z. */
static void set_churned(const ht_trajectory_source *s, ht_step_row *row, const double sigma[3])
{
    double hat = sigma[1], to = sigma[2], slope = (to - hat) / hat, extra = sqrt(hat * hat - sigma[0] * sigma[0]);
    predict(s->config, s->config->prediction_type == HT_PREDICT_EPSILON ? hat : sigma[0], row);
    double x0_of_x = (double)row->x0_of_x, scale = s->options->churn_noise;
    set_step(row, hat, to);
    row->noise = HT_NOISE_FIXED;
    row->std = (float)((scale > 0 ? scale : 1) * extra * (1 + slope - slope * x0_of_x));
}

static ht_status make_any(ht_trajectory_source *s, ht_trajectory *out, bool ancestral)
{
    const ht_sigma_rules rules = {.sampler = out->sampler->name,
                                  .fractions = true,
                                  .final_sigma_min = s->config->solver.final_sigma_min && !ancestral};
    ht_sigmas list = {0};
    double churn = s->options->churn;
    if (ancestral && s->sigma_spacing && !s->options->sigmas)
        s->sigma_spacing = HT_SIGMAS_DEFAULT; /* the class has no such setting */
    ht_status status = ht_sigmas_make(s, &rules, &list);
    if (!status && s->config->solver.log_linear)
        status = ht_fail(HT_ERR_UNSUPPORTED, "scheduler configuration: interpolation_type log_linear is not supported");
    ht_step_row *rows = status ? NULL : ht_rows(s->arena, list.n - s->options->skip);
    if (!rows)
        return status ? status : HT_ERR_MEMORY;
    out->n = list.n - s->options->skip;
    out->rows = rows;
    out->init_noise_sigma = (float)ht_sigmas_init(s, &list);
    for (int i = s->options->skip; i < list.n; i++) {
        ht_step_row *row = &rows[i - s->options->skip];
        double sigma = list.sigmas[i], to = list.sigmas[i + 1];
        double gamma = fmin(churn / list.n, sqrt(2) - 1);
        row->timestep = (float)list.timesteps[i];
        row->sigma = (float)sigma;
        row->scale = (float)(1 / sqrt(sigma * sigma + 1));
        predict(s->config, sigma, row);
        if (ancestral) {
            double up = sqrt(to * to * (sigma * sigma - to * to) / (sigma * sigma));
            set_step(row, sigma, sqrt(to * to - up * up));
            row->noise = HT_NOISE_FIXED;
            row->std = (float)up;
        } else if (gamma > 0) {
            set_churned(s, row, (double[3]){sigma, sigma * (1 + gamma), to});
        } else {
            set_step(row, sigma, to);
        }
    }
    return HT_OK;
}

static ht_status make_euler(ht_trajectory_source *s, ht_trajectory *out)
{
    return make_any(s, out, false);
}

static ht_status make_ancestral(ht_trajectory_source *s, ht_trajectory *out)
{
    return make_any(s, out, true);
}

const ht_sampler ht_euler = {"euler", "Euler", euler_classes, false, make_euler};
const ht_sampler ht_euler_ancestral = {"euler-a", "Euler a", ancestral_classes, false, make_ancestral};
