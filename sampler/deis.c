/* deis.c - DEIS (arXiv:2204.13902), the log-rho form: the noise predictions of earlier steps are put through a
 * polynomial in log rho, rho = sigma / alpha, which is integrated over the step; as diffusers' DEISMultistepScheduler.
 */
#include <math.h>

#include "core/elementary.h"
#include "sampler/sigmas.h"

static const char *const class_names[] = {"DEISMultistepScheduler", NULL};

/* The integral of (log t - log c) / (log b - log c). */
static double linear(double t, double b, double c)
{
    return t * (ht_log(t) - 1 - c) / (b - c);
}

/* The integral of (log t - log c) (log t - log d) / ((log b - log c) (log b - log d)). */
static double quadratic(double t, double b, double c, double d)
{
    double log_t = ht_log(t);
    return t * (log_t * log_t - (2 + c + d) * log_t + c * d + c + d + 2) / ((b - c) * (b - d));
}

/* rho[0] is what the step goes to, then what it comes from, then those before; m: factors of the predictions there. */
static void factors(int order, const double rho[4], double m[3])
{
    double l[3];
    for (int i = 0; i < order; i++)
        l[i] = ht_log(rho[i + 1]);
    m[0] = rho[0] - rho[1];
    if (order == 2) {
        m[0] = linear(rho[0], l[0], l[1]) - linear(rho[1], l[0], l[1]);
        m[1] = linear(rho[0], l[1], l[0]) - linear(rho[1], l[1], l[0]);
    } else if (order == 3) {
        m[0] = quadratic(rho[0], l[0], l[1], l[2]) - quadratic(rho[1], l[0], l[1], l[2]);
        m[1] = quadratic(rho[0], l[1], l[2], l[0]) - quadratic(rho[1], l[1], l[2], l[0]);
        m[2] = quadratic(rho[0], l[2], l[0], l[1]) - quadratic(rho[1], l[2], l[0], l[1]);
    }
}

static int order_of(const ht_solver_config *c, int steps, int i, int taken)
{
    bool few = c->lower_order_final && steps < 15;
    int order = i == steps - 1 && few ? 1 : i == steps - 2 && few && c->solver_order > 2 ? 2 : c->solver_order;
    return order < taken + 1 ? order : taken + 1;
}

static ht_status make(ht_trajectory_source *s, ht_trajectory *out)
{
    const ht_solver_config *c = &s->config->solver;
    const ht_sigma_rules rules = {.sampler = "deis", .ends_above = true, .last_repeats = true, .final_sigma_min = true};
    int skip = s->options->skip, slots = c->solver_order;
    ht_sigmas list = {0};
    ht_status status = ht_sigmas_make(s, &rules, &list);
    ht_step_row *rows = status ? NULL : ht_rows(s->arena, list.n - skip);
    if (!rows)
        return status ? status : HT_ERR_MEMORY;
    out->n = list.n - skip;
    out->rows = rows;
    out->slots = slots;
    out->bound = ht_bound_of(s->config, false, true);
    for (int i = skip; i < list.n; i++) {
        ht_step_row *row = &rows[i - skip];
        ht_level from = ht_level_of(list.sigmas[i]), to = ht_level_of(list.sigmas[i + 1]);
        int order = order_of(c, list.n, i, i - skip);
        double rho[4] = {list.sigmas[i + 1]}, m[3] = {0};
        for (int k = 0; k < order; k++)
            rho[k + 1] = list.sigmas[i - k];
        factors(order, rho, m);
        row->timestep = (float)list.timesteps[i];
        row->signal = (float)from.alpha;
        row->sigma = (float)from.sigma;
        ht_level_predict(s->config, &from, row);
        row->keep = i % slots;
        ht_level_keep(out, &from, true, row);
        row->of_x = (float)(to.alpha / from.alpha);
        for (int k = 0; k < order; k++)
            row->of_slot[(i - k) % slots] = (float)(to.alpha * m[k]);
    }
    return HT_OK;
}

const ht_sampler ht_deis = {"deis", "DEIS", class_names, false, make};
