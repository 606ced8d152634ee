/* ddpm.c - Denoising Diffusion Probabilistic Models, arXiv:2006.11239, ancestral sampling as diffusers' DDPMScheduler
 * steps; learned variances as in Improved DDPM, arXiv:2102.09672.
 *
 * Traps: with a shortened list beta_t is 1 - alpha-bar_t / alpha-bar of the list's next timestep.  No noise where t is
 * 0, but a last timestep above 0 gets its draw.  diffusers' `learned` is the variance itself.  Its `fixed_large_log`
 * takes the root of a logarithm, which is NaN; here it is the variance of fixed_large, as the name says.
 * `fixed_small_log` is fixed_small. */
#include <math.h>

#include "core/elementary.h"
#include "sampler/trajectory.h"

static const char *const class_names[] = {"DDPMScheduler", "DDPMParallelScheduler", NULL};

/* beta: beta_t of this step.  small: beta-tilde_t of eq. 7. */
static void set_noise(const ht_trajectory_source *s, double beta, double small, ht_step_row *row)
{
    row->noise = HT_NOISE_FIXED;
    switch (s->config->variance_type) {
    case HT_VARIANCE_FIXED_SMALL:
    case HT_VARIANCE_FIXED_SMALL_LOG:
        row->std = (float)sqrt(small); /* section 3.2, the second choice */
        break;
    case HT_VARIANCE_FIXED_LARGE:
    case HT_VARIANCE_FIXED_LARGE_LOG:
        row->std = (float)sqrt(beta); /* section 3.2, the first choice */
        break;
    case HT_VARIANCE_LEARNED:
        row->noise = HT_NOISE_LEARNED;
        break;
    case HT_VARIANCE_LEARNED_RANGE: /* arXiv:2102.09672 eq. 15 */
        row->noise = HT_NOISE_LEARNED_RANGE;
        row->min_log = (float)ht_log(small);
        row->max_log = (float)ht_log(fmax(beta, small));
        break;
    }
}

static ht_status make_row(const ht_trajectory_source *s, int i, ht_step_row *row)
{
    int t = s->steps.timesteps[i];
    double a = s->alphas_cumprod[t], previous = ht_next_alpha(s, i);
    if (previous == 0)
        return ht_fail(HT_ERR_ARGUMENT, "noise schedule: alphas_cumprod is 0 before the last timestep");
    double alpha = a / previous, beta = 1 - alpha;
    double over_b = a < 1 ? 1 / (1 - a) : 0;
    row->of_x0 = a < 1 ? (float)(sqrt(previous) * beta * over_b) : 1; /* eq. 7, mu-tilde, first term */
    row->of_x = (float)(sqrt(alpha) * (1 - previous) * over_b);       /* eq. 7, mu-tilde, second term */
    row->of_out = 0;
    if (t > 0)
        set_noise(s, beta, fmax((1 - previous) * over_b * beta, 1e-20), row); /* eq. 7, beta-tilde */
    return ht_predict_x0(s, i, row);
}

static ht_status make(ht_trajectory_source *source, ht_trajectory *out)
{
    return ht_make_rows(source, out, make_row);
}

const ht_sampler ht_ddpm = {"ddpm", "DDPM", class_names, false, make};
