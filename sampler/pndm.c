/* pndm.c - pseudo numerical methods (arXiv:2202.09778), as diffusers' PNDMScheduler: linear multistep (PLMS, eq. 12)
 * over the predicted noise, begun by pseudo Runge-Kutta steps (PRK, eq. 13; four evaluations each) or, with
 * skip_prk_steps, by one step that is taken twice.  Every x' is the transfer phi of eq. 11.
 *
 * Traps: PRK begins with three steps whose first predictions, and no others, are the multistep's history.  Where a list
 * is begun in its middle the second evaluation still goes back over the first step. */
#include <math.h>

#include "sampler/trajectory.h"

static const char *const class_names[] = {"PNDMScheduler", NULL};

enum { RING = 4, START = RING, INNER, PRK_EVALUATIONS = 12 };

typedef struct pndm {
    const ht_trajectory_source *source;
    int *timesteps, n, prk; /* of evaluations; those of PRK */
    int skip;
    int history; /* predictions kept so far */
} pndm;

static double alpha_at(const pndm *p, int t)
{
    const float *alphas = p->source->alphas_cumprod;
    return t >= 0 ? (double)alphas[t] : p->source->config->set_alpha_to_one ? 1 : (double)alphas[0];
}

/* eq. 11: x' = factors[0] x + factors[1] e, e the noise; what is v in a model of v is made e with the same x. */
static void transfer(const pndm *p, int from, int to, double factors[2])
{
    double a = alpha_at(p, from), b = alpha_at(p, to);
    factors[0] = sqrt(b / a);
    factors[1] = -(b - a) / (a * sqrt(1 - b) + sqrt(a * (1 - a) * b));
    if (p->source->config->prediction_type == HT_PREDICT_V) {
        factors[0] += factors[1] * sqrt(1 - a);
        factors[1] *= sqrt(a);
    }
}

static ht_status check_timesteps(const pndm *p)
{
    int total = p->source->config->num_train_timesteps;
    for (int i = 0; i < p->n; i++)
        if (p->timesteps[i] < 0 || p->timesteps[i] >= total)
            return ht_fail(HT_ERR_ARGUMENT, "pndm with %d steps visits timestep %d; the last is %d: take fewer steps",
                           p->source->options->steps, p->timesteps[i], total - 1);
    return HT_OK;
}

/* Falling; steps are falling too. */
static ht_status make_list(pndm *p, const ht_steps *steps)
{
    int n = steps->n, half = p->source->config->num_train_timesteps / n / 2;
    const int *t = steps->timesteps;
    bool prk = !p->source->config->solver.skip_prk_steps;
    if (prk && n < RING)
        return ht_fail(HT_ERR_ARGUMENT, "pndm that begins with Runge-Kutta steps takes %d steps at least", RING);
    p->timesteps = ht_alloc_array(p->source->arena, (size_t)n + PRK_EVALUATIONS, sizeof *p->timesteps);
    if (!p->timesteps)
        return HT_ERR_MEMORY;
    for (int k = 0; prk && k < 3; k++) { /* beginning, middle twice, end of each */
        p->timesteps[p->n++] = t[k];
        p->timesteps[p->n++] = t[k + 1] + half;
        p->timesteps[p->n++] = t[k + 1] + half;
        p->timesteps[p->n++] = t[k + 1];
    }
    p->prk = p->n;
    for (int k = prk ? 3 : 0; k < n; k++) {
        p->timesteps[p->n++] = t[k];
        if (!prk && (n == 1 ? 0 : k == 1))
            p->timesteps[p->n++] = t[k];
    }
    return check_timesteps(p);
}

static void set_prk(pndm *p, int i, ht_step_row *row)
{
    static const double weights[4] = {1 / 6.0, 1 / 3.0, 1 / 3.0, 1 / 6.0};
    int n = p->source->options->steps, at = i % 4, half = p->source->config->num_train_timesteps / n / 2;
    int begin = p->timesteps[i - at], to = p->timesteps[i] - (at % 2 ? 0 : half), slot = p->history % RING;
    double factors[2];
    transfer(p, begin, to, factors);
    row->keep = at == 0 ? slot : at < 3 ? INNER + at - 1 : HT_NO_SLOT;
    row->keep_of_out = 1;
    if (at == 0) {
        row->keep_x = START;
        row->of_x = (float)factors[0];
        row->of_out = (float)factors[1];
        return;
    }
    row->of_slot[START] = (float)factors[0];
    row->of_out = (float)(at == 3 ? factors[1] * weights[3] : factors[1]);
    for (int k = 0; at == 3 && k < 3; k++)
        row->of_slot[k ? INNER + k - 1 : slot] = (float)(factors[1] * weights[k]);
    p->history += at == 3;
}

static void set_plms(pndm *p, int i, ht_step_row *row)
{
    static const double weights[4][4] = {
        {1}, {3 / 2.0, -1 / 2.0}, {23 / 12.0, -16 / 12.0, 5 / 12.0}, {55 / 24.0, -59 / 24.0, 37 / 24.0, -9 / 24.0}};
    int stride = p->source->config->num_train_timesteps / p->source->options->steps, t = p->timesteps[i];
    bool again = i - p->skip == 1 && !p->prk;
    double factors[2];
    transfer(p, again ? t + stride : t, again ? t : t - stride, factors);
    if (again) { /* the first step once more, with the mean of both predictions */
        row->of_slot[START] = (float)factors[0];
        row->of_slot[(p->history - 1) % RING] = (float)(factors[1] / 2);
        row->of_out = (float)(factors[1] / 2);
        return;
    }
    row->keep = p->history % RING;
    row->keep_of_out = 1;
    row->keep_x = i == p->skip ? START : HT_NO_SLOT;
    row->of_x = (float)factors[0];
    int order = p->history < 3 ? p->history : 3;
    for (int k = 0; k <= order; k++)
        row->of_slot[(p->history - k) % RING] = (float)(factors[1] * weights[order][k]);
    p->history++;
}

static ht_status make(ht_trajectory_source *s, ht_trajectory *out)
{
    pndm p = {.source = s, .skip = s->options->skip};
    ht_status status = ht_refuse_spacing(s, "pndm");
    if (!status && s->config->prediction_type == HT_PREDICT_SAMPLE)
        status = ht_fail(HT_ERR_UNSUPPORTED, "pndm is for models that predict epsilon or v");
    status = status ? status : ht_steps_make(s->arena, s->config, s->spacing, s->options->steps, &s->steps);
    status = status ? status : make_list(&p, &s->steps);
    if (!status && p.skip && p.prk)
        status = ht_fail(HT_ERR_UNSUPPORTED, "pndm with Runge-Kutta steps cannot begin in the middle of its steps");
    ht_step_row *rows = status ? NULL : ht_rows(s->arena, p.n - p.skip);
    if (!rows)
        return status ? status : HT_ERR_MEMORY;
    for (int i = p.skip; i < p.n; i++) {
        ht_step_row *row = &rows[i - p.skip];
        double a = alpha_at(&p, p.timesteps[i]);
        row->timestep = (float)p.timesteps[i];
        row->signal = (float)sqrt(a);
        row->sigma = (float)sqrt(1 - a);
        row->x0_of_x = (float)(s->config->prediction_type == HT_PREDICT_V ? sqrt(a) : 1 / sqrt(a));
        row->x0_of_out = (float)(s->config->prediction_type == HT_PREDICT_V ? -sqrt(1 - a) : -sqrt(1 - a) / sqrt(a));
        if (i < p.prk)
            set_prk(&p, i, row);
        else
            set_plms(&p, i, row);
    }
    out->n = p.n - p.skip;
    out->rows = rows;
    out->slots = INNER + 2;
    return HT_OK;
}

const ht_sampler ht_pndm = {"pndm", "PLMS", class_names, false, make};
