/* lcm.c - latent consistency models (arXiv:2310.04378): every step predicts the image and noises it again, as
 * diffusers' LCMScheduler.
 *
 * Traps: timesteps are chosen from original_inference_steps of the schedule's, whatever the spacing; the noise is drawn
 * at every step but the last. */
#include <math.h>

#include "sampler/trajectory.h"

static const char *const class_names[] = {"LCMScheduler", NULL};

static const double SIGMA_DATA = 0.5;

static ht_status make_list(ht_trajectory_source *s)
{
    int total = s->config->num_train_timesteps, origin = s->config->solver.original_inference_steps;
    int n = s->options->steps;
    if (origin > total)
        return ht_fail(HT_ERR_ARGUMENT, "scheduler configuration: original_inference_steps is %d, of %d timesteps",
                       origin, total);
    if (n < 1 || n > origin)
        return ht_fail(HT_ERR_ARGUMENT, "steps is %d; lcm takes 1 to original_inference_steps, %d", n, origin);
    int *list = ht_alloc_array(s->arena, (size_t)n, sizeof *list);
    if (!list)
        return HT_ERR_MEMORY;
    for (int i = 0; i < n; i++) /* from the top, each share rounded down */
        list[i] = (origin - (int)floor(i * ((double)origin / n))) * (total / origin) - 1;
    s->steps = (ht_steps){.n = n, .timesteps = list};
    return HT_OK;
}

static ht_status make_row(const ht_trajectory_source *s, int i, ht_step_row *row)
{
    int t = s->steps.timesteps[i];
    bool last = i + 1 == s->steps.n;
    double scaled = t * s->config->solver.timestep_scaling, sum = scaled * scaled + SIGMA_DATA * SIGMA_DATA;
    double skip = SIGMA_DATA * SIGMA_DATA / sum, out = scaled / sqrt(sum); /* arXiv:2303.01469, appendix C */
    double next = last ? 1 : s->alphas_cumprod[s->steps.timesteps[i + 1]], a = s->alphas_cumprod[t];
    row->timestep = (float)t;
    row->signal = (float)sqrt(a);
    row->sigma = (float)sqrt(1 - a);
    row->of_x0 = (float)(sqrt(next) * out);
    row->of_x = (float)(sqrt(next) * skip);
    row->noise = last ? HT_NOISE_NONE : HT_NOISE_FIXED;
    row->std = (float)sqrt(1 - next);
    return ht_predict_x0(s, i, row);
}

static ht_status make(ht_trajectory_source *s, ht_trajectory *out)
{
    ht_status status = make_list(s);
    int skip = s->options->skip, n = status ? 0 : s->steps.n - skip;
    ht_step_row *rows = status ? NULL : ht_rows(s->arena, n);
    if (!rows)
        return status ? status : HT_ERR_MEMORY;
    for (int i = 0; !status && i < n; i++)
        status = make_row(s, i + skip, &rows[i]);
    out->n = n;
    out->rows = rows;
    out->bound = ht_bound_of(s->config, true, true);
    return status;
}

const ht_sampler ht_lcm = {"lcm", "LCM", class_names, false, make};
