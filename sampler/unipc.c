/* unipc.c - UniPC (arXiv:2302.04867): a predictor like DPM-Solver's and a corrector that needs no further evaluation,
 * as diffusers' UniPCMultistepScheduler takes them.
 *
 * Both are x' = a x - b (e^hh - 1) m0 - b B(h) sum rho_k D_k, D_k = (m_k - m0) / r_k, with rho the solution of a small
 * Vandermonde system (eq. 10; hh is -h for predictions of x0).  The corrector goes over the last step again, from where
 * it began, with the prediction at its end as one more point. */
#include <math.h>

#include "core/elementary.h"
#include "sampler/sigmas.h"

static const char *const class_names[] = {"UniPCMultistepScheduler", NULL};

enum { MOST = 3 };

/* Gaussian elimination with the largest pivot; n <= MOST. */
static void solve(int n, double a[MOST][MOST], double *b)
{
    for (int c = 0; c < n; c++) {
        int pivot = c;
        for (int r = c + 1; r < n; r++)
            pivot = fabs(a[r][c]) > fabs(a[pivot][c]) ? r : pivot;
        for (int k = 0; k < n; k++) {
            double t = a[c][k];
            a[c][k] = a[pivot][k];
            a[pivot][k] = t;
        }
        double t = b[c];
        b[c] = b[pivot];
        b[pivot] = t;
        for (int r = c + 1; r < n; r++) {
            double f = a[r][c] / a[c][c];
            for (int k = c; k < n; k++)
                a[r][k] -= f * a[c][k];
            b[r] -= f * b[c];
        }
    }
    for (int c = n - 1; c >= 0; c--) {
        for (int k = c + 1; k < n; k++)
            b[c] -= a[c][k] * b[k];
        b[c] /= a[c][c];
    }
}

/* A step from level s[0] to s[1], of predictions there and before. */
typedef struct solution {
    double x, m[MOST], end; /* factors of x, of predictions at s[0], s[-1], ..., of that at the end (corrector) */
} solution;

static solution solve_step(const ht_solver_config *c, const ht_level *s, int order, bool corrects)
{
    double h = s[1].lambda - s[0].lambda, hh = c->predict_x0 ? -h : h, rk[MOST] = {0}, matrix[MOST][MOST] = {{0}},
           rho[MOST] = {0};
    double first = isinf(hh) ? -1 : ht_exp(hh) - 1, phi = isinf(hh) ? -1 : first / hh - 1, factorial = 1;
    double base = c->predict_x0 ? s[1].alpha : s[1].sigma, big = c->solver_type == HT_SOLVER_BH1 ? hh : first;
    solution out = {.x = c->predict_x0 ? s[1].sigma / s[0].sigma : s[1].alpha / s[0].alpha, .m = {-base * first}};
    int n = corrects ? order : order - 1; /* unknowns */
    for (int i = 1; i < order; i++)
        rk[i - 1] = (s[-i].lambda - s[0].lambda) / h;
    rk[order - 1] = 1;
    for (int i = 0; i < order; i++) {
        for (int k = 0; k < order; k++)
            matrix[i][k] = i == 0 ? 1 : i == 1 ? rk[k] : rk[k] * rk[k];
        rho[i] = phi * factorial / big;
        factorial *= i + 2;
        phi = isinf(hh) ? -1 / factorial : phi / hh - 1 / factorial;
    }
    if (corrects ? order == 1 : order == 2)
        rho[0] = 0.5;
    else
        solve(n, matrix, rho);
    for (int k = 0; k < order - 1; k++) {
        double f = -base * big * rho[k] / rk[k];
        out.m[k + 1] = f;
        out.m[0] -= f;
    }
    if (corrects) {
        out.end = -base * big * rho[order - 1];
        out.m[0] -= out.end;
    }
    return out;
}

static bool is_disabled(const ht_solver_config *c, int step)
{
    for (int i = 0; i < c->disabled; i++)
        if (c->disable_corrector[i] == step)
            return true;
    return false;
}

/* Step i of the list, the `taken`-th that is made; before: the order of the step before. */
static int set_row(const ht_trajectory *t, const ht_level *s, const int at[3], int before, ht_step_row *row)
{
    const ht_solver_config *c = &t->config->solver;
    int i = at[0], steps = at[1], taken = at[2], ring = c->solver_order + 1, order = c->solver_order;
    ht_level_predict(t->config, s, row);
    row->keep = i % ring;
    ht_level_keep(t, s, !c->predict_x0, row);
    row->keep_x = ring;
    if (taken > 0 && !is_disabled(c, i - 1)) {
        solution fix = solve_step(c, s - 1, before, true);
        row->corrects = true;
        row->correct_x = 0;
        row->correct_slot[ring] = (float)fix.x;
        row->correct_slot[i % ring] = (float)fix.end;
        for (int k = 0; k < before; k++)
            row->correct_slot[(i - 1 - k) % ring] = (float)fix.m[k];
    }
    if (c->lower_order_final && steps - i < order)
        order = steps - i;
    order = order < taken + 1 ? order : taken + 1;
    solution next = solve_step(c, s, order, false);
    row->of_x = (float)next.x;
    for (int k = 0; k < order; k++)
        row->of_slot[(i - k) % ring] = (float)next.m[k];
    return order;
}

static ht_status make(ht_trajectory_source *s, ht_trajectory *out)
{
    const ht_solver_config *c = &s->config->solver;
    const ht_sigma_rules rules = {.sampler = "unipc", .ends_above = true, .final_sigma_min = c->final_sigma_min};
    int skip = s->options->skip, before = 0;
    ht_sigmas list = {0};
    ht_status status = ht_sigmas_make(s, &rules, &list);
    if (!status && !c->final_sigma_min && (!c->predict_x0 || c->solver_type == HT_SOLVER_BH1))
        status = ht_fail(HT_ERR_UNSUPPORTED,
                         "scheduler configuration: unipc with final_sigmas_type zero wants predict_x0 and bh2");
    ht_step_row *rows = status ? NULL : ht_rows(s->arena, list.n - skip);
    ht_level *levels = status ? NULL : ht_alloc_array(s->arena, (size_t)list.n + 1, sizeof *levels);
    if (!rows || !levels)
        return status ? status : HT_ERR_MEMORY;
    for (int i = 0; i <= list.n; i++)
        levels[i] = ht_level_of(list.sigmas[i]);
    out->n = list.n - skip;
    out->rows = rows;
    out->slots = c->solver_order + 2;
    out->bound = ht_bound_of(s->config, false, true);
    for (int i = skip; i < list.n; i++) {
        ht_step_row *row = &rows[i - skip];
        row->timestep = (float)list.timesteps[i];
        row->signal = (float)levels[i].alpha;
        row->sigma = (float)levels[i].sigma;
        before = set_row(out, &levels[i], (int[3]){i, list.n, i - skip}, before, row);
    }
    return HT_OK;
}

const ht_sampler ht_unipc = {"unipc", "UniPC", class_names, false, make};
