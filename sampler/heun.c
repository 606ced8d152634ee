/* heun.c - Heun's second-order steps (Karras et al., arXiv:2206.00364, algorithm 1), as diffusers'
 * HeunDiscreteScheduler takes them: every step but the last asks the model twice, at its beginning and at its end. */
#include <math.h>

#include "sampler/sigmas.h"

static const char *const class_names[] = {"HeunDiscreteScheduler", NULL};

enum { SLOPE, START, SLOTS };

static void predict(const ht_schedule_config *c, double sigma, ht_step_row *row)
{
    ht_level level = ht_level_of(sigma);
    ht_level_predict(c, &level, row); /* of alpha x: */
    row->x0_of_x = (float)((double)row->x0_of_x * level.alpha);
    row->sigma = (float)sigma;
    row->scale = (float)level.alpha;
}

/* Euler's step from sigma to `to`, its slope and its start kept. */
static void first_half(const ht_schedule_config *c, double sigma, double to, ht_step_row *row)
{
    predict(c, sigma, row);
    row->keep = SLOPE;
    row->keep_of_x = (float)(1 / sigma);
    row->keep_of_x0 = (float)(-1 / sigma);
    row->keep_x = START;
    row->of_x = (float)(to / sigma);
    row->of_x0 = (float)(1 - to / sigma);
}

/* From the start again with the mean of both slopes. */
static void second_half(const ht_schedule_config *c, double sigma, double to, ht_step_row *row)
{
    double half = (to - sigma) / 2;
    predict(c, to, row);
    row->of_slot[START] = 1;
    row->of_slot[SLOPE] = (float)half;
    row->of_x = (float)(half / to);
    row->of_x0 = (float)(-half / to);
}

static ht_status make(ht_trajectory_source *s, ht_trajectory *out)
{
    const ht_sigma_rules rules = {.sampler = "heun", .fractions = true};
    ht_sigmas list = {0};
    ht_status status = ht_sigmas_make(s, &rules, &list);
    int n = status ? 0 : 2 * (list.n - s->options->skip) - 1;
    ht_step_row *rows = status ? NULL : ht_rows(s->arena, n);
    if (!rows)
        return status ? status : HT_ERR_MEMORY;
    out->n = n;
    out->rows = rows;
    out->slots = SLOTS;
    out->bound = ht_bound_of(s->config, true, false);
    out->init_noise_sigma = (float)ht_sigmas_init(s, &list);
    for (int i = s->options->skip, at = 0; at < n; i++) {
        rows[at].timestep = (float)list.timesteps[i];
        first_half(s->config, list.sigmas[i], list.sigmas[i + 1], &rows[at++]);
        if (at == n)
            break;
        rows[at].timestep = (float)list.timesteps[i + 1];
        second_half(s->config, list.sigmas[i], list.sigmas[i + 1], &rows[at++]);
    }
    return HT_OK;
}

const ht_sampler ht_heun = {"heun", "Heun", class_names, false, make};
