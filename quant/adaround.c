/* adaround.c - AdaRound (arXiv:2004.10568): every weight chooses between the two codes it lies between, and the choice
 * is learned, relaxed to a number h in [0,1].
 *
 * h = clip(1.2 sigmoid(V) - 0.1) (eq. 23), starting where the weight itself is; v = (low + h (high - low)) scale.  On
 * float grids that step is local, and what is learned is step * V, as FP4DiT (arXiv:2503.15465) has it: Adam moves all
 * of these alike, so V goes the slower the larger the step.  Here the unit is the mean step of the row, so that on
 * grids of even steps nothing changes; on the layers of tests/rounding.h it takes 3 % of the error off E2M1, 4 % off
 * FP6 E3M2, nothing off E3M0.  The loss of a row is
 *
 *     in * e / e_nearest + weight * sum(1 - |2 h - 1|^beta) (eq. 21, 24),    e = (v - w) H (v - w)^T,
 *
 * so that one weight fits layers of all sizes.  e is all that the layer's outputs are in the paper, summed over all
 * data at once: its gradient is 2 (v - w) H, and there are no batches and no noise.  Adam (beta 0.9, 0.999); beta falls
 * from 20 to 2 after a warm-up of 20 % in which the choices are free.  Then h is rounded; a row that nearest codes
 * serve better gets those. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/elementary.h"
#include "quant/rectified_sigmoid.h"
#include "quant/round_private.h"

static const double WARM_UP = 0.2, FIRST_BETA = 20, LAST_BETA = 2;
static const double CLIPPED = 2.3978952727983707; /* log 11: the V from which h is 1 */

/* A weight's choice.  step 0: there is none. */
typedef struct choice {
    double low, step;    /* with the scale */
    double logit;        /* V */
    double mean, square; /* Adam's */
    double open;         /* dh/dV */
    double h;
    double pace; /* of V, by the local step */
    uint8_t below, above;
} choice;

static void relax(choice *c)
{
    c->h = c->logit > 0;
    c->open = 0;
    if (fabs(c->logit) >= CLIPPED)
        return;
    double sigmoid = 1 / (1 + ht_exp(-c->logit));
    c->h = ht_gate_raw(sigmoid);
    c->open = HT_GATE_STRETCH * sigmoid * (1 - sigmoid);
}

static choice choice_of(const ht_block *block, double w)
{
    float y = (float)(w / block->scale);
    ht_neighbours n = ht_grid_neighbours(&block->grid, y);
    choice c = {.low = (double)n.low * block->scale, .below = n.below, .above = n.above};
    if (n.high > n.low) {
        c.step = ((double)n.high - n.low) * block->scale;
        c.logit = ht_gate_logit(((double)y - n.low) / ((double)n.high - n.low));
    }
    relax(&c);
    return c;
}

/* The pace of every choice of a row: the mean of its local steps by the choice's own. */
static void set_paces(size_t n, choice *row)
{
    double sum = 0, choices = 0;
    for (size_t k = 0; k < n; k++) {
        sum += fabs(row[k].step);
        choices += row[k].step != 0;
    }
    for (size_t k = 0; k < n; k++)
        row[k].pace = row[k].step != 0 ? sum / choices / fabs(row[k].step) : 0;
}

/* d/dh of 1 - |2 h - 1|^beta; at h = 1/2 it is 0. */
static double hardening(double h, double beta)
{
    double x = 2 * h - 1, size = fabs(x);
    if (size < 1e-6)
        return 0;
    double slope = 2 * beta * ht_exp((beta - 1) * ht_log(size));
    return x > 0 ? -slope : slope;
}

/* Step number t, from 1. */
static void adam(choice *c, double gradient, double rate, double unbias_mean, double unbias_square)
{
    rate *= c->pace;
    c->mean += 0.1 * (gradient - c->mean);
    c->square += 0.001 * (gradient * gradient - c->square);
    c->logit -= rate * (c->mean * unbias_mean) / (sqrt(c->square * unbias_square) + 1e-8);
}

typedef struct schedule {
    double decay_mean, decay_square; /* 0.9^t, 0.999^t */
    double weight, beta;
} schedule;

static void advance(const ht_round_options *o, int t, schedule *s)
{
    double start = WARM_UP * o->iterations, at = (t - start) / (o->iterations - start);
    s->decay_mean *= 0.9;
    s->decay_square *= 0.999;
    s->weight = at < 0 ? 0 : o->weight;
    s->beta = at < 0 ? FIRST_BETA : FIRST_BETA + (LAST_BETA - FIRST_BETA) * at;
}

/* One step of row r: v follows. */
static void learn(const ht_round_problem *p, ht_round_rows *rows, size_t r, choice *choices, const schedule *s,
                  double per_error)
{
    double unbias_mean = 1 / (1 - s->decay_mean), unbias_square = 1 / (1 - s->decay_square);
    for (size_t k = r * p->in; k < (r + 1) * p->in; k++) {
        choice *c = &choices[k];
        if (c->step == 0)
            continue;
        double gradient = 2 * (rows->vh[k] - rows->wh[k]) * c->step * per_error;
        if (c->open > 0 && s->weight > 0)
            gradient += s->weight * hardening(c->h, s->beta);
        adam(c, gradient * c->open, p->options.rate, unbias_mean, unbias_square);
        relax(c);
        rows->v[k] = c->low + c->h * c->step;
    }
}

/* Codes and v of row r from its choices. */
static void harden(const ht_round_problem *p, ht_round_rows *rows, size_t r, const choice *choices)
{
    for (size_t k = 0; k < p->in; k++) {
        const choice *c = &choices[r * p->in + k];
        size_t at = r * p->in + k;
        rows->codes[at] = c->step != 0 && c->h >= 0.5 ? c->above : c->below;
        const ht_block *block = ht_round_block_at(p, rows, r, k);
        rows->v[at] = ht_round_level(p, block, rows->codes[at]) * block->scale;
    }
}

ht_status ht_round_adaround(const ht_round_problem *p, ht_round_rows *rows)
{
    size_t n = rows->rows * p->in;
    double nearest[HT_ROUND_ROWS] = {0};
    schedule s = {1, 1, 0, FIRST_BETA};
    choice *choices = malloc(n * sizeof *choices);
    if (!choices)
        return ht_fail(HT_ERR_MEMORY, "%s: out of memory for %zu choices", p->matrix->name, n);
    for (size_t r = 0; r < rows->rows; r++)
        nearest[r] = ht_round_row_error(p, rows, r);
    for (size_t i = 0; i < n; i++) {
        choices[i] = choice_of(ht_round_block_at(p, rows, i / p->in, i % p->in), rows->w[i]);
        rows->v[i] = choices[i].low + choices[i].h * choices[i].step;
    }
    for (size_t r = 0; r < rows->rows; r++)
        set_paces(p->in, choices + r * p->in);
    ht_status status = HT_OK;
    for (int t = 1; t <= p->options.iterations && !(status = ht_round_check_stop(p)); t++) {
        ht_round_times_moments(p, rows->v, rows->vh);
        advance(&p->options, t, &s);
        for (size_t r = 0; r < rows->rows; r++)
            if (nearest[r] > 0)
                learn(p, rows, r, choices, &s, (double)p->in / nearest[r]);
    }
    for (size_t r = 0; r < rows->rows; r++)
        harden(p, rows, r, choices);
    ht_round_times_moments(p, rows->v, rows->vh);
    bool worse = false;
    for (size_t r = 0; r < rows->rows; r++)
        if (!(ht_round_row_error(p, rows, r) < nearest[r])) {
            worse = true;
            for (size_t k = 0; k < p->in; k++)
                ht_round_to_nearest(p, rows, r, k, rows->w[r * p->in + k]);
        }
    if (worse)
        ht_round_times_moments(p, rows->v, rows->vh);
    free(choices);
    return status;
}
