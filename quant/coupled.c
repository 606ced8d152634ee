/* coupled.c - rounding the rows of a weight as rows that know each other: two outputs may err so that what reads them
 * errs little.
 *
 * With G = E[g g^T] of the gradients by the layer's outputs, the model's own output errs by about
 *
 *     sum over n, m of G_nm d_n H d_m^T,   d = v - w,
 *
 * the Kronecker-factored curvature (K-FAC, arXiv:1503.05671) as a quadratic to round against (YAQA, arXiv:2505.22988).
 * G is far from diagonal: of the first convolution of models/cifar10 three directions of 64 make three quarters of it.
 *
 * First GPTQ over both sides: with G = L L^T and H = M M^T the error is |L^T D M|^2, a square for each row and input,
 * and in the order of falling rows and inputs a code meets in its square only what is known by then.  For a row that is
 * GPTQ towards w_n - sum over m > n of L_mn / L_nn d_m.
 *
 * Then descent, row after row: with all others given, row n errs by G_nn (v - t) H (v - t)^T and a constant, with
 * t = w_n - sum over m != n of G_nm / G_nn d_m; so the steps are those of quant/descent.c, towards t.
 *
 * A tenth is added to the diagonal: the factors are a simplification, and what they say of two rows is not all to be
 * relied on.  On that convolution the measured error of the model's output falls to 0.20 of what rows that are rounded
 * one by one leave; without the tenth, to 0.22. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "quant/dense.h"
#include "quant/round_private.h"

enum { SWEEPS = 4 };

static const double OWN = 0.1;       /* of each G_nn, added to it */
static const double LEAST = 0x1p-20; /* of their mean: what an output counts that nobody reads */
static const double WORTH = 0.002;   /* of the error, that a sweep must take away for another to follow */

typedef struct coupled {
    const ht_round_problem *p;
    size_t out, in;
    const double *wh;         /* [out][in] */
    double *w, *v, *vh, *t_h; /* [out][in]; t_h of one row: t H */
    double *d;                /* [out][in]: v - w, in the order of rounding */
    double *factor;           /* [out][out]: L */
    size_t *order;            /* [out]: the rows that L's are */
    uint8_t *codes;           /* [out][in] */
    ht_block *blocks;         /* [out][blocks] */
    ht_round_rows rows;       /* in GPTQ */
    double *whole, *feedback; /* of these */
} coupled;

ht_status ht_round_outputs(ht_arena *arena, ht_round_problem *p)
{
    size_t out = p->matrix->out;
    const float *g = p->options.outputs;
    double mean = 0, *to = ht_alloc_array(arena, out * out, sizeof *to);
    if (!to)
        return HT_ERR_MEMORY;
    for (size_t n = 0; n < out; n++)
        mean += (double)g[n * out + n] / (double)out;
    for (size_t i = 0; i < out * out; i++)
        to[i] = g[i];
    for (size_t n = 0; n < out; n++)
        to[n * out + n] += OWN * to[n * out + n] + LEAST * mean;
    p->outputs = mean > 0 ? to : NULL; /* nobody reads the layer: rows by themselves */
    return HT_OK;
}

/* out += row n of G times x. */
static void add_row_of(const ht_round_problem *p, size_t n, const double *x, double *out)
{
    size_t rows = p->matrix->out;
    for (size_t m = 0; m < rows; m++)
        ht_add_scaled(p->in, p->outputs[n * rows + m], x + m * p->in, out);
}

double ht_round_coupled_sum(const ht_round_problem *p, const double *x, const double *xh, double *scratch)
{
    double sum = 0;
    for (size_t n = 0; n < p->matrix->out; n++) {
        memset(scratch, 0, p->in * sizeof *scratch);
        add_row_of(p, n, xh, scratch);
        for (size_t k = 0; k < p->in; k++)
            sum += x[n * p->in + k] * scratch[k];
    }
    return sum;
}

/* ---- GPTQ over both sides ---- */

static void times_moments(coupled *c)
{
    for (size_t first = 0; first < c->out; first += HT_ROUND_ROWS) /* there is room for a whole block at the end */
        ht_round_times_moments(c->p, c->v + first * c->in, c->vh + first * c->in);
}

static ht_status factor_outputs(coupled *c)
{
    size_t out = c->out;
    double *scratch = malloc((HT_CHOLESKY_PANEL + 1) * out * sizeof *scratch);
    memcpy(c->factor, c->p->outputs, out * out * sizeof *c->factor);
    for (size_t n = 0; n < out; n++)
        c->order[n] = n;
    bool positive = scratch && ht_cholesky(out, c->factor, c->order, 0, scratch);
    free(scratch);
    if (!scratch)
        return ht_fail(HT_ERR_MEMORY, "%s: out of memory for its output moments", c->p->matrix->name);
    return positive
               ? HT_OK
               : ht_fail(HT_ERR_ARGUMENT, "%s: the moments of its outputs are no second moments", c->p->matrix->name);
}

/* Rows first, first - 1, .. of the factor's order: what they are rounded towards, given those after them. */
static void aim(coupled *c, size_t first, double *coefficients)
{
    size_t in = c->in, out = c->out, done = out - 1 - first;
    for (size_t r = 0; r < c->rows.rows; r++) {
        const double *l = c->factor + (first - r); /* its column */
        size_t n = c->order[first - r];
        double own = l[(first - r) * out];
        memcpy(c->rows.w + r * in, c->w + n * in, in * sizeof *c->w);
        memcpy(c->whole + r * in, c->w + n * in, in * sizeof *c->w);
        for (size_t i = 0; i < done; i++)
            coefficients[r * out + i] = -l[(out - 1 - i) * out] / own;
        for (size_t m = 0; m < r; m++)
            c->feedback[r * HT_ROUND_ROWS + m] = l[(first - m) * out] / own;
        memcpy(c->rows.blocks + r * c->p->blocks, c->blocks + n * c->p->blocks, c->p->blocks * sizeof *c->blocks);
    }
    ht_product_add(&(ht_product){c->rows.rows, done, in, coefficients, c->d, c->rows.w, out, in, in});
}

static void take_block(coupled *c, size_t left)
{
    size_t in = c->in;
    for (size_t r = 0; r < c->rows.rows; r++) {
        size_t n = c->order[left - 1 - r];
        double *d = c->d + (c->out - left + r) * in;
        memcpy(c->v + n * in, c->rows.v + r * in, in * sizeof *c->v);
        memcpy(c->codes + n * in, c->rows.codes + r * in, in);
        for (size_t k = 0; k < in; k++)
            d[k] = c->rows.v[r * in + k] - c->w[n * in + k];
    }
}

static ht_status round_both_sides(coupled *c, ht_arena *arena)
{
    double *coefficients = ht_alloc_array(arena, HT_ROUND_ROWS * c->out, sizeof *coefficients);
    ht_status status = coefficients ? factor_outputs(c) : HT_ERR_MEMORY;
    for (size_t left = c->out; !status && left > 0; left -= c->rows.rows) {
        c->rows.rows = left < HT_ROUND_ROWS ? left : HT_ROUND_ROWS;
        if ((status = ht_round_check_stop(c->p)))
            break;
        aim(c, left - 1, coefficients);
        ht_round_gptq(c->p, &c->rows);
        take_block(c, left);
    }
    times_moments(c);
    return status;
}

/* ---- descent ---- */

static void descend_row(coupled *c, size_t n)
{
    size_t in = c->in, out = c->out;
    double own = c->p->outputs[n * out + n];
    ht_round_rows row = {.rows = 1,
                         .w = c->w + n * in,
                         .v = c->v + n * in,
                         .vh = c->vh + n * in,
                         .wh = c->t_h,
                         .codes = c->codes + n * in,
                         .blocks = c->blocks + n * c->p->blocks,
                         .scratch = c->rows.scratch};
    memcpy(c->t_h, row.vh, in * sizeof *c->t_h);
    for (size_t m = 0; m < out; m++) {
        ht_add_scaled(in, -c->p->outputs[n * out + m] / own, c->vh + m * in, c->t_h);
        ht_add_scaled(in, c->p->outputs[n * out + m] / own, c->wh + m * in, c->t_h);
    }
    ht_round_descend_and_fit(c->p, &row);
}

static double error_of(coupled *c)
{
    size_t all = c->out * c->in;
    double *dh = c->d + all;
    for (size_t i = 0; i < all; i++) {
        c->d[i] = c->v[i] - c->w[i];
        dh[i] = c->vh[i] - c->wh[i];
    }
    return ht_round_coupled_sum(c->p, c->d, dh, c->t_h);
}

/* ---- the weight ---- */

static void load(coupled *c, const ht_quantized *q)
{
    const ht_round_problem *p = c->p;
    size_t row_bytes = ht_round_row_bytes(p);
    for (size_t n = 0; n < c->out; n++) {
        ht_codes_unpack(p->format, c->in, q->codes + n * row_bytes, c->codes + n * c->in);
        for (size_t b = 0; b < p->blocks; b++)
            c->blocks[n * p->blocks + b] = ht_format_block(p->format, q, n * p->blocks + b);
        for (size_t k = 0; k < c->in; k++) {
            const ht_block *block = &c->blocks[n * p->blocks + k / p->block];
            c->w[n * c->in + k] = p->matrix->values[n * c->in + k];
            c->v[n * c->in + k] = ht_round_level(p, block, c->codes[n * c->in + k]) * block->scale;
        }
    }
    times_moments(c);
}

static void store(const coupled *c, ht_quantized *q)
{
    size_t row_bytes = ht_round_row_bytes(c->p);
    for (size_t n = 0; n < c->out; n++)
        ht_codes_pack(c->p->format, c->in, c->codes + n * c->in, q->codes + n * row_bytes);
    for (size_t i = 0; i < c->out * c->p->blocks; i++)
        ht_round_store_scale(c->p, &c->blocks[i], q, i);
}

static ht_status open_coupled(ht_arena *arena, coupled *c)
{
    size_t out = c->out, in = c->in, padded = (out + HT_ROUND_ROWS) * in, all = HT_ROUND_ROWS * in;
    c->w = ht_alloc_array(arena, padded, sizeof(double));
    c->v = ht_alloc_array(arena, padded, sizeof(double));
    c->vh = ht_alloc_array(arena, padded, sizeof(double));
    c->t_h = ht_alloc_array(arena, in, sizeof(double));
    c->d = ht_alloc_array(arena, 2 * padded, sizeof(double));
    c->factor = ht_alloc_array(arena, out * out, sizeof(double));
    c->order = ht_alloc_array(arena, out, sizeof(size_t));
    c->codes = ht_alloc_array(arena, out * in, 1);
    c->blocks = ht_alloc_array(arena, out * c->p->blocks, sizeof(ht_block));
    c->whole = ht_alloc_array(arena, all, sizeof(double));
    c->feedback = ht_alloc_array(arena, HT_ROUND_ROWS * HT_ROUND_ROWS, sizeof(double));
    c->rows = (ht_round_rows){.w = ht_alloc_array(arena, all, sizeof(double)),
                              .v = ht_alloc_array(arena, all, sizeof(double)),
                              .scratch = ht_alloc_array(arena, all, sizeof(double)),
                              .codes = ht_alloc_array(arena, all, 1),
                              .blocks = ht_alloc_array(arena, HT_ROUND_ROWS * c->p->blocks, sizeof(ht_block)),
                              .whole = c->whole,
                              .feedback = c->feedback};
    return c->w && c->v && c->vh && c->t_h && c->d && c->factor && c->order && c->codes && c->blocks && c->whole &&
                   c->feedback && c->rows.w && c->rows.v && c->rows.scratch && c->rows.codes && c->rows.blocks
               ? HT_OK
               : HT_ERR_MEMORY;
}

/* Until a sweep over all rows takes too little away. */
static ht_status descend(coupled *c, double *error)
{
    ht_status status = HT_OK;
    double last = INFINITY;
    for (int sweep = 0; !status && sweep < SWEEPS && *error < last * (1 - WORTH); sweep++) {
        last = *error;
        for (size_t n = 0; n < c->out && !(status = ht_round_check_stop(c->p)); n++)
            descend_row(c, n);
        *error = error_of(c);
    }
    return status;
}

ht_status ht_round_coupled(const ht_round_problem *p, ht_arena *arena, const double *wh, ht_quantized *q, double *error)
{
    ht_rounding method = p->options.method;
    coupled c = {.p = p, .out = p->matrix->out, .in = p->in, .wh = wh};
    ht_status status = open_coupled(arena, &c);
    if (status)
        return status;
    load(&c, q);
    *error = error_of(&c);
    if (method != HT_ROUND_DESCENT)
        status = round_both_sides(&c, arena);
    if (status)
        return status;
    double now = error_of(&c);
    if (method != HT_ROUND_GPTQ)
        status = descend(&c, &now);
    if (!status && now < *error) {
        store(&c, q);
        *error = now;
    }
    return status;
}
