/* ddim.c - Denoising Diffusion Implicit Models, arXiv:2010.02502, as diffusers' DDIMScheduler and
 * github.com/ermongroup/ddim step.
 *
 * Traps: diffusers steps from t to t - num_train_timesteps / steps, rounded down, whatever comes next in the list; the
 * original goes to the next of the list.  With set_alpha_to_one false the last step ends at alphas_cumprod[0], not
 * at 1.  If eta > 0 every step draws noise, the last one too. */
#include <math.h>

#include "sampler/trajectory.h"

static const char *const class_names[] = {"DDIMScheduler", "DDIMParallelScheduler", NULL};

static double previous_alpha(const ht_trajectory_source *s, int i)
{
    bool by_list = s->spacing == HT_SPACING_UNIFORM || s->spacing == HT_SPACING_QUAD || s->spacing == HT_SPACING_ADM;
    if (by_list)
        return ht_next_alpha(s, i);
    int previous = s->steps.timesteps[i] - s->config->num_train_timesteps / s->options->steps;
    if (previous >= 0)
        return s->alphas_cumprod[previous];
    return s->config->set_alpha_to_one ? 1 : s->alphas_cumprod[0];
}

/* eps = of_x0 x0 + of_x x + of_out out */
typedef struct epsilon {
    double of_x0, of_x, of_out;
} epsilon;

static epsilon predict_epsilon(const ht_trajectory_source *s, double a)
{
    double root_a = sqrt(a), root_b = sqrt(1 - a);
    double over_b = root_b > 0 ? 1 / root_b : 0;
    if (s->options->use_clipped_model_output) /* eq. 9 solved for eps */
        return (epsilon){.of_x0 = -root_a * over_b, .of_x = over_b};
    switch (s->config->prediction_type) {
    case HT_PREDICT_V: /* arXiv:2202.00512, appendix D */
        return (epsilon){.of_x = root_b, .of_out = root_a};
    case HT_PREDICT_SAMPLE: /* eq. 9, the model's output for x0 */
        return (epsilon){.of_x = over_b, .of_out = -root_a * over_b};
    default:
        return (epsilon){.of_out = 1};
    }
}

static ht_status make_row(const ht_trajectory_source *s, int i, ht_step_row *row)
{
    double eta = s->options->eta;
    double a = s->alphas_cumprod[s->steps.timesteps[i]], previous = previous_alpha(s, i);
    if (!(eta >= 0 && eta <= 1))
        return ht_fail(HT_ERR_ARGUMENT, "eta is %g; wanted 0 (deterministic) to 1 (as much noise as DDPM)", eta);
    if (previous == 0)
        return ht_fail(HT_ERR_ARGUMENT, "noise schedule: alphas_cumprod is 0 before the last timestep");
    double variance = a < 1 ? (1 - previous) / (1 - a) * (1 - a / previous) : 0;
    double sigma = eta * sqrt(fmax(variance, 0));                   /* eq. 16 */
    double direction = sqrt(fmax(1 - previous - sigma * sigma, 0)); /* eq. 12, second term */
    epsilon eps = predict_epsilon(s, a);
    row->of_x0 = (float)(sqrt(previous) + direction * eps.of_x0); /* eq. 12, first term */
    row->of_x = (float)(direction * eps.of_x);
    row->of_out = (float)(direction * eps.of_out);
    row->noise = eta > 0 ? HT_NOISE_FIXED : HT_NOISE_NONE; /* eq. 12, third term */
    row->std = (float)sigma;
    return ht_predict_x0(s, i, row);
}

static ht_status make(ht_trajectory_source *source, ht_trajectory *out)
{
    return ht_make_rows(source, out, make_row);
}

const ht_sampler ht_ddim = {"ddim", "DDIM", class_names, true, make};
