/* dpm_solver.c - DPM-Solver (arXiv:2206.00927) and DPM-Solver++ (arXiv:2211.01095) with earlier predictions instead of
 * more evaluations, of order 1 to 3, and their SDE forms, as diffusers' DPMSolverMultistepScheduler takes them.
 *
 * Steps are in lambda = log(alpha / sigma): h is a step's length, r the lengths of the steps before it over h, D1 and
 * D2 divided differences of predictions m: of x0 for ++, of noise else.  A step that ends without noise (h infinite) is
 * of first order and gives its prediction. */
#include <math.h>

#include "core/elementary.h"
#include "sampler/sigmas.h"

static const char *const class_names[] = {"DPMSolverMultistepScheduler", NULL}, *const no_names[] = {NULL};

/* Factors of D0 (the newest prediction), D1, D2 and of x and noise. */
typedef struct factors {
    double x, d[3], noise;
} factors;

static double exp_of(double x)
{
    return x < -700 ? 0 : ht_exp(x);
}

/* phi_1, phi_2, phi_3 up to sign and order: of (e^x - 1), of (e^x - 1) / x - 1, of (e^x - 1 - x) / x^2 - 1/2. */
static void phis(double x, double phi[3])
{
    phi[0] = exp_of(x) - 1;
    phi[1] = isinf(x) ? -1 : phi[0] / x - 1;
    phi[2] = isinf(x) ? -0.5 : (phi[0] - x) / (x * x) - 0.5;
}

/* D1's factor: midpoint is half of D0's. */
static double second(bool midpoint, double first, double exact)
{
    return midpoint ? first / 2 : exact;
}

static factors factors_of(ht_algorithm algorithm, bool midpoint, int order, const ht_level *s, const ht_level *t)
{
    double h = t->lambda - s->lambda, phi[3];
    factors f = {0};
    midpoint = midpoint && order == 2;
    switch (algorithm) {
    case HT_DPMSOLVER:
        phis(h, phi);
        f.x = t->alpha / s->alpha;
        f.d[0] = -t->sigma * phi[0];
        f.d[1] = second(midpoint, f.d[0], -t->sigma * phi[1]);
        f.d[2] = -t->sigma * phi[2];
        break;
    case HT_SDE_DPMSOLVER:
        phis(h, phi);
        f.x = t->alpha / s->alpha;
        f.d[0] = -2 * t->sigma * phi[0];
        f.d[1] = second(midpoint, f.d[0], -2 * t->sigma * phi[1]);
        f.noise = t->sigma * sqrt(exp_of(2 * h) - 1);
        break;
    case HT_SDE_DPMSOLVER_PP:
        phis(-2 * h, phi);
        f.x = t->sigma / s->sigma * exp_of(-h);
        f.d[0] = -t->alpha * phi[0];
        f.d[1] = second(midpoint, f.d[0], isinf(h) ? 0 : t->alpha * (phi[0] / (2 * h) + 1));
        f.d[2] = isinf(h) ? 0 : t->alpha * ((-phi[0] - 2 * h) / (4 * h * h) - 0.5);
        f.noise = t->sigma * sqrt(-phi[0]);
        break;
    default: /* DPM-Solver++; the second of -h with the sign that makes it h's */
        phis(-h, phi);
        f.x = t->sigma / s->sigma;
        f.d[0] = -t->alpha * phi[0];
        f.d[1] = second(midpoint, f.d[0], isinf(h) ? 0 : t->alpha * (phi[0] / h + 1));
        f.d[2] = isinf(h) ? 0 : -t->alpha * ((phi[0] + h) / (h * h) - 0.5);
        break;
    }
    return f;
}

/* From factors of differences to factors of the predictions themselves, m[0] the newest. */
static void spread(const factors *f, int order, const ht_level *level, double m[3])
{
    double h = level[1].lambda - level[0].lambda;
    m[0] = f->d[0];
    m[1] = m[2] = 0;
    if (order == 1)
        return;
    double r0 = (level[0].lambda - level[-1].lambda) / h;
    if (order == 2) {
        m[0] += f->d[1] / r0;
        m[1] -= f->d[1] / r0;
        return;
    }
    double r1 = (level[-1].lambda - level[-2].lambda) / h, both = r0 + r1;
    double a = f->d[1] * (1 + r0 / both) + f->d[2] / both; /* of (m0 - m1) / r0 */
    double b = -f->d[1] * r0 / both - f->d[2] / both;      /* of (m1 - m2) / r1 */
    m[0] += a / r0;
    m[1] = -a / r0 + b / r1;
    m[2] = -b / r1;
}

static int order_of(const ht_solver_config *c, int steps, int i, int taken)
{
    bool few = c->lower_order_final && steps < 15;
    bool last = i == steps - 1 && (c->euler_at_final || few || !c->final_sigma_min);
    int order = last ? 1 : i == steps - 2 && few && c->solver_order > 2 ? 2 : c->solver_order;
    return order < taken + 1 ? order : taken + 1;
}

static ht_status make_with(ht_trajectory_source *s, ht_trajectory *out, ht_algorithm algorithm)
{
    const ht_solver_config *c = &s->config->solver;
    const ht_sigma_rules rules = {.sampler = out->sampler->name,
                                  .ends_above = true,
                                  .round_if_not_cosine = true,
                                  .final_sigma_min = c->final_sigma_min};
    bool noise = algorithm == HT_DPMSOLVER || algorithm == HT_SDE_DPMSOLVER;
    bool sde = algorithm == HT_SDE_DPMSOLVER || algorithm == HT_SDE_DPMSOLVER_PP;
    int skip = s->options->skip, slots = c->solver_order;
    ht_sigmas list = {0};
    ht_status status = ht_sigmas_make(s, &rules, &list);
    if (!status && noise && !c->final_sigma_min)
        status = ht_fail(HT_ERR_ARGUMENT, "scheduler configuration: final_sigmas_type zero is not for %s",
                         sde ? "sde-dpmsolver" : "dpmsolver");
    if (!status && algorithm == HT_SDE_DPMSOLVER && slots > 2)
        status = ht_fail(HT_ERR_UNSUPPORTED, "scheduler configuration: sde-dpmsolver is of order 1 or 2");
    ht_step_row *rows = status ? NULL : ht_rows(s->arena, list.n - skip);
    ht_level *levels = status ? NULL : ht_alloc_array(s->arena, (size_t)list.n + 1, sizeof *levels);
    if (!rows || !levels)
        return status ? status : HT_ERR_MEMORY;
    for (int i = 0; i <= list.n; i++)
        levels[i] = ht_level_of(list.sigmas[i]);
    out->n = list.n - skip;
    out->rows = rows;
    out->slots = slots;
    out->bound = ht_bound_of(s->config, false, true);
    for (int i = skip; i < list.n; i++) {
        ht_step_row *row = &rows[i - skip];
        int order = order_of(c, list.n, i, i - skip);
        factors f = factors_of(algorithm, c->solver_type != HT_SOLVER_HEUN, order, &levels[i], &levels[i + 1]);
        double m[3];
        spread(&f, order, &levels[i], m);
        row->timestep = (float)list.timesteps[i];
        row->signal = (float)levels[i].alpha;
        row->sigma = (float)levels[i].sigma;
        ht_level_predict(s->config, &levels[i], row);
        row->keep = i % slots;
        ht_level_keep(out, &levels[i], noise, row);
        row->of_x = (float)f.x;
        for (int k = 0; k < order; k++)
            row->of_slot[(i - k) % slots] = (float)m[k];
        row->noise = sde ? HT_NOISE_FIXED : HT_NOISE_NONE;
        row->std = (float)f.noise;
    }
    return HT_OK;
}

static ht_status make(ht_trajectory_source *s, ht_trajectory *out)
{
    ht_algorithm algorithm = s->config->solver.algorithm_type;
    return make_with(s, out, algorithm == HT_ALGORITHM_DEIS ? HT_DPMSOLVER_PP : algorithm);
}

static ht_status make_sde(ht_trajectory_source *s, ht_trajectory *out)
{
    return make_with(s, out, HT_SDE_DPMSOLVER_PP);
}

const ht_sampler ht_dpm_solver = {"dpm++", "DPM++ 2M", class_names, false, make};
const ht_sampler ht_dpm_solver_sde = {"dpm++-sde", "DPM++ 2M SDE", no_names, false, make_sde};
