/* round.c - rounding a weight: checks, scales, and the methods' way through its rows.
 *
 * Every method is a path: codes to start from, then steps that lessen the error.  With candidates, a row takes the path
 * once for each scale and keeps the best. */
#include "quant/round.h"

#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "quant/dense.h"
#include "quant/round_private.h"

enum { MAX_SWEEPS = 1000, MAX_ITERATIONS = 1000000, MAX_CANDIDATES = 16, FITS = 16 };

static const double CANDIDATE_STEP = 0.03;

static const char *const rounding_names[HT_ROUNDINGS] = {
    [HT_ROUND_NEAREST] = "nearest",           [HT_ROUND_GPTQ] = "gptq",         [HT_ROUND_DESCENT] = "descent",
    [HT_ROUND_GPTQ_DESCENT] = "gptq+descent", [HT_ROUND_ADAROUND] = "adaround",
};

const char *ht_rounding_name(ht_rounding rounding)
{
    return (unsigned)rounding < HT_ROUNDINGS ? rounding_names[rounding] : "?";
}

int ht_rounding_find(const char *name)
{
    for (int i = 0; i < HT_ROUNDINGS; i++)
        if (strcmp(name, rounding_names[i]) == 0)
            return i;
    return -1;
}

/* ---- what was asked ---- */

static ht_status check_number(const char *layer, const char *what, double found, double most)
{
    if (found > 0 && found <= most)
        return HT_OK;
    return ht_fail(HT_ERR_ARGUMENT, "%s: %s %g is not above 0 and at most %g", layer, what, found, most);
}

static ht_status check_options(const char *layer, ht_round_options *o)
{
    o->sweeps = o->sweeps ? o->sweeps : 32;
    o->iterations = o->iterations ? o->iterations : 1000;
    o->dampening = o->dampening == 0 ? 0.01 : o->dampening;
    o->rate = o->rate == 0 ? 0.05 : o->rate;
    o->weight = o->weight == 0 ? 20 : o->weight;
    o->keep_scales |= o->powers != HT_POWERS_FREE;
    if ((unsigned)o->method >= HT_ROUNDINGS)
        return ht_fail(HT_ERR_ARGUMENT, "%s: %d is not a way to round", layer, (int)o->method);
    if (o->candidates < 0 || o->candidates > MAX_CANDIDATES)
        return ht_fail(HT_ERR_ARGUMENT, "%s: %d scales on either side are not 0 to %d", layer, o->candidates,
                       MAX_CANDIDATES);
    ht_status status = check_number(layer, "number of sweeps", o->sweeps, MAX_SWEEPS);
    status = status ? status : check_number(layer, "number of iterations", o->iterations, MAX_ITERATIONS);
    status = status ? status : check_number(layer, "dampening", o->dampening, 100);
    status = status ? status : check_number(layer, "adaround's rate", o->rate, 1);
    return status ? status : check_number(layer, "adaround's weight", o->weight, 1000);
}

/* |H_ij|^2 <= H_ii H_jj (Cauchy and Schwarz), up to float32 sums; so a dead input's row is zeros. */
static bool possible(double hij, double hji, double hii, double hjj)
{
    double bound = sqrt(hii) * sqrt(hjj);
    return hii >= 0 && fabs(hij) <= bound * 1.001 && fabs(hij - hji) <= bound * 0.001; /* not for NaN */
}

static ht_status check_moments(const char *layer, const char *what, size_t n, const float *h)
{
    for (size_t i = 0; i < n; i++)
        for (size_t j = 0; j <= i; j++) {
            float hij = h[i * n + j], hii = h[i * n + i];
            if (!isfinite(hij) || !isfinite(hii) || !possible(hij, h[j * n + i], hii, h[j * n + j]))
                return ht_fail(HT_ERR_ARGUMENT,
                               "%s: the moment of its %s %zu and %zu is %g, their own are %g and %g; sums of x x^T "
                               "are wanted",
                               layer, what, i, j, (double)hij, (double)hii, (double)h[j * n + j]);
        }
    return HT_OK;
}

/* ---- scales ---- */

static ht_status find_scales(const ht_round_problem *p, ht_quantized *q)
{
    ht_scale_options o = {.method = p->options.scale, .percentile = p->options.percentile, .powers = p->options.powers};
    float *importance = malloc(p->in * sizeof *importance);
    if (!importance)
        return ht_fail(HT_ERR_MEMORY, "%s: out of memory for %zu importances", p->matrix->name, p->in);
    for (size_t k = 0; k < p->in; k++)
        importance[k] = ht_round_moments_of(p, k)[k % p->span];
    o.importance = importance;
    ht_status status = ht_format_scales(p->format, p->matrix, &o, q);
    free(importance);
    return status;
}

float ht_round_storable(const ht_round_problem *p, const ht_block *block, double wanted)
{
    float scale = block->scale;
    if (p->format->scale == HT_F32 && fabs(wanted) >= FLT_MIN && fabs(wanted) < 0x1p127)
        scale = (float)wanted;
    if (p->format->scale == HT_F8_E4M3 && wanted > 0) {
        uint8_t code = ht_f8_e4m3_from_f32((float)(wanted / p->tensor_scale));
        code = code < 1 ? 1 : code > 0x7e ? 0x7e : code; /* 0x7f is NaN */
        scale = ht_f32_from_f8_e4m3(code) * p->tensor_scale;
    }
    return scale; /* E8M0: half or twice of a scale is never better for the same codes */
}

/* The float32 of a block, to what the format stores. */
void ht_round_store_scale(const ht_round_problem *p, const ht_block *block, ht_quantized *q, size_t i)
{
    if (p->format->scale == HT_F32)
        memcpy((unsigned char *)q->scales + i * sizeof(float), &block->scale, sizeof(float));
    if (p->format->scale == HT_F8_E4M3)
        ((uint8_t *)q->scales)[i] = ht_f8_e4m3_from_f32(block->scale / p->tensor_scale);
}

/* ---- rows ---- */

ht_status ht_round_check_stop(const ht_round_problem *p)
{
    return p->options.stop && p->options.stop(p->options.user)
               ? ht_fail(HT_ERR_CANCELLED, "%s: rounding was cancelled", p->matrix->name)
               : HT_OK;
}

void ht_round_times_moments(const ht_round_problem *p, const double *x, double *out)
{
    size_t n = p->span, all = p->in;
    memset(out, 0, HT_ROUND_ROWS * all * sizeof *out);
    for (size_t k = 0; k < n; k += HT_ROUND_DEPTH) {
        size_t depth = n - k < HT_ROUND_DEPTH ? n - k : HT_ROUND_DEPTH;
        for (size_t i = 0; i < depth * n; i++)
            p->panel[i] = p->moments[k * n + i];
        for (size_t at = 0; at < all; at += n)
            ht_product_add(&(ht_product){HT_ROUND_ROWS, depth, n, x + at + k, p->panel, out + at, all, n, all});
    }
}

double ht_round_row_error(const ht_round_problem *p, const ht_round_rows *rows, size_t r)
{
    double sum = 0;
    for (size_t k = r * p->in; k < (r + 1) * p->in; k++)
        sum += (rows->v[k] - rows->w[k]) * (rows->vh[k] - rows->wh[k]);
    return sum;
}

static void round_to_nearest(const ht_round_problem *p, ht_round_rows *rows)
{
    for (size_t r = 0; r < rows->rows; r++)
        for (size_t k = 0; k < p->in; k++)
            ht_round_to_nearest(p, rows, r, k, rows->w[r * p->in + k]);
}

void ht_round_descend_and_fit(const ht_round_problem *p, ht_round_rows *rows)
{
    bool active[HT_ROUND_ROWS];
    memset(active, true, sizeof active);
    ht_round_descend(p, rows, active);
    memset(active, true, sizeof active);
    for (int fit = 0; fit < FITS && !p->options.keep_scales; fit++)
        if (!ht_round_fit_scales(p, rows, active) || !ht_round_descend(p, rows, active))
            break;
}

/* The path of the method, on the scales that the rows have. */
static ht_status round_on_scales(const ht_round_problem *p, ht_round_rows *rows)
{
    ht_rounding method = p->options.method;
    if (method == HT_ROUND_GPTQ || method == HT_ROUND_GPTQ_DESCENT)
        ht_round_gptq(p, rows);
    else
        round_to_nearest(p, rows);
    ht_round_times_moments(p, rows->v, rows->vh);
    if (method == HT_ROUND_ADAROUND)
        return ht_round_adaround(p, rows);
    if (method != HT_ROUND_DESCENT && method != HT_ROUND_GPTQ_DESCENT)
        return HT_OK;
    ht_round_descend_and_fit(p, rows);
    return HT_OK;
}

/* The best that was found for each row. */
typedef struct best {
    double error[HT_ROUND_ROWS];
    uint8_t *codes;
    ht_block *blocks, *found; /* found: by the search */
} best;

static void keep_better(const ht_round_problem *p, const ht_round_rows *rows, best *b)
{
    for (size_t r = 0; r < rows->rows; r++) {
        double error = ht_round_row_error(p, rows, r);
        if (!(error < b->error[r]))
            continue;
        b->error[r] = error;
        memcpy(b->codes + r * p->in, rows->codes + r * p->in, p->in);
        memcpy(b->blocks + r * p->blocks, rows->blocks + r * p->blocks, p->blocks * sizeof *b->blocks);
    }
}

static ht_status try_candidates(const ht_round_problem *p, ht_round_rows *rows, best *b)
{
    ht_status status = HT_OK;
    int side = p->options.candidates;
    bool fixed = p->options.method == HT_ROUND_NEAREST || p->options.method == HT_ROUND_ADAROUND ||
                 p->format->scale == HT_F8_E8M0 || p->options.keep_scales;
    for (int i = -side; i <= side && !fixed && !status; i++) {
        if (i == 0)
            continue;
        for (size_t j = 0; j < rows->rows * p->blocks; j++)
            rows->blocks[j].scale = ht_round_storable(p, &b->found[j], b->found[j].scale * (1 + i * CANDIDATE_STEP));
        if (!(status = ht_round_check_stop(p)))
            status = round_on_scales(p, rows);
        if (!status)
            keep_better(p, rows, b);
    }
    return status;
}

static void load_rows(const ht_round_problem *p, const ht_quantized *q, size_t first, ht_round_rows *rows)
{
    size_t left = p->matrix->out - first, all = HT_ROUND_ROWS * p->in;
    rows->rows = left < HT_ROUND_ROWS ? left : HT_ROUND_ROWS;
    memset(rows->w, 0, all * sizeof *rows->w);
    memset(rows->v, 0, all * sizeof *rows->v);
    for (size_t i = 0; i < rows->rows * p->in; i++)
        rows->w[i] = p->matrix->values[first * p->in + i];
    for (size_t i = 0; i < rows->rows * p->blocks; i++)
        rows->blocks[i] = ht_format_block(p->format, q, first * p->blocks + i);
    ht_round_times_moments(p, rows->w, rows->wh);
}

static void store_rows(const ht_round_problem *p, const best *b, size_t first, size_t rows, ht_quantized *q)
{
    size_t row_bytes = ht_round_row_bytes(p);
    for (size_t r = 0; r < rows; r++)
        ht_codes_pack(p->format, p->in, b->codes + r * p->in, q->codes + (first + r) * row_bytes);
    for (size_t i = 0; i < rows * p->blocks; i++)
        ht_round_store_scale(p, &b->blocks[i], q, first * p->blocks + i);
}

/* Sums over rows, in their order.  Rows that know each other are summed at the end: their weights times H, and the
 * errors of the nearest codes and these times H, are kept until then. */
typedef struct sums {
    double signal, before, after;
    double *wh, *nearest, *nearest_h; /* [out][in]; NULL */
} sums;

static void keep_for_coupling(const ht_round_problem *p, const ht_round_rows *rows, size_t first, sums *s)
{
    for (size_t i = 0, at = first * p->in; i < rows->rows * p->in; i++, at++) {
        s->wh[at] = rows->wh[i];
        s->nearest[at] = rows->v[i] - rows->w[i];
        s->nearest_h[at] = rows->vh[i] - rows->wh[i];
    }
}

static ht_status round_rows(const ht_round_problem *p, size_t first, ht_round_rows *rows, best *b, ht_quantized *q,
                            sums *s)
{
    load_rows(p, q, first, rows);
    memcpy(b->found, rows->blocks, rows->rows * p->blocks * sizeof *b->found);
    round_to_nearest(p, rows);
    ht_round_times_moments(p, rows->v, rows->vh);
    for (size_t r = 0; r < rows->rows; r++) {
        s->before += ht_round_row_error(p, rows, r);
        for (size_t k = r * p->in; k < (r + 1) * p->in; k++)
            s->signal += rows->w[k] * rows->wh[k];
        b->error[r] = INFINITY;
    }
    if (s->wh)
        keep_for_coupling(p, rows, first, s);
    ht_status status = p->options.method == HT_ROUND_NEAREST ? HT_OK : round_on_scales(p, rows);
    if (status)
        return status;
    keep_better(p, rows, b);
    status = try_candidates(p, rows, b);
    if (status)
        return status;
    store_rows(p, b, first, rows->rows, q);
    for (size_t r = 0; r < rows->rows; r++)
        s->after += b->error[r];
    return HT_OK;
}

static ht_status round_all(const ht_round_problem *p, ht_arena *arena, ht_quantized *q, sums *s)
{
    size_t all = HT_ROUND_ROWS * p->in, blocks = HT_ROUND_ROWS * p->blocks;
    ht_round_rows rows = {.w = ht_alloc_array(arena, all, sizeof(double)),
                          .v = ht_alloc_array(arena, all, sizeof(double)),
                          .wh = ht_alloc_array(arena, all, sizeof(double)),
                          .vh = ht_alloc_array(arena, all, sizeof(double)),
                          .scratch = ht_alloc_array(arena, all, sizeof(double)),
                          .codes = ht_alloc_array(arena, all, 1),
                          .blocks = ht_alloc_array(arena, blocks, sizeof(ht_block))};
    best b = {.codes = ht_alloc_array(arena, all, 1),
              .blocks = ht_alloc_array(arena, blocks, sizeof(ht_block)),
              .found = ht_alloc_array(arena, blocks, sizeof(ht_block))};
    if (!rows.w || !rows.v || !rows.wh || !rows.vh || !rows.scratch || !rows.codes || !rows.blocks || !b.codes ||
        !b.blocks || !b.found)
        return HT_ERR_MEMORY;
    ht_status status = HT_OK;
    for (size_t first = 0; first < p->matrix->out && !status; first += HT_ROUND_ROWS)
        if (!(status = ht_round_check_stop(p)))
            status = round_rows(p, first, &rows, &b, q, s);
    return status;
}

/* The same for rows that know each other. */
static ht_status round_coupled(const ht_round_problem *p, ht_arena *arena, ht_quantized *q, sums *s)
{
    size_t all = p->matrix->out * p->in;
    double *w = ht_alloc_array(arena, all, sizeof *w), *scratch = ht_alloc_array(arena, p->in, sizeof *scratch);
    s->wh = ht_alloc_array(arena, all, sizeof *s->wh);
    s->nearest = ht_alloc_array(arena, all, sizeof *s->nearest);
    s->nearest_h = ht_alloc_array(arena, all, sizeof *s->nearest_h);
    if (!w || !scratch || !s->wh || !s->nearest || !s->nearest_h)
        return HT_ERR_MEMORY;
    for (size_t i = 0; i < all; i++)
        w[i] = p->matrix->values[i];
    ht_status status = round_all(p, arena, q, s);
    if (status)
        return status;
    s->signal = ht_round_coupled_sum(p, w, s->wh, scratch);
    s->before = ht_round_coupled_sum(p, s->nearest, s->nearest_h, scratch);
    return ht_round_coupled(p, arena, s->wh, q, &s->after);
}

/* ---- the weight ---- */

typedef struct diagonal {
    float moment;
    size_t input;
} diagonal;

static int by_falling_moment(const void *a, const void *b)
{
    const diagonal *x = a, *y = b;
    if (x->moment != y->moment)
        return x->moment < y->moment ? 1 : -1;
    return x->input > y->input ? 1 : -1;
}

static ht_status prepare(ht_arena *arena, ht_round_problem *p)
{
    diagonal *d = ht_alloc_array(arena, p->in, sizeof *d);
    p->order = ht_alloc_array(arena, p->in, sizeof *p->order);
    p->panel = ht_alloc_array(arena, HT_ROUND_DEPTH * p->in, sizeof *p->panel);
    p->factor_order = ht_alloc_array(arena, p->in, sizeof *p->factor_order);
    if (!d || !p->order || !p->panel || !p->factor_order)
        return HT_ERR_MEMORY;
    for (size_t k = 0; k < p->in; k++)
        d[k] = (diagonal){ht_round_moments_of(p, k)[k % p->span], k};
    qsort(d, p->in, sizeof *d, by_falling_moment);
    for (; p->live < p->in && d[p->live].moment > 0; p->live++) {
        p->order[p->live] = d[p->live].input;
        p->live_in_span += d[p->live].input < p->span; /* spans are alike */
    }
    for (int code = 0; code < 1 << p->format->grid.bits; code++)
        p->value[code] = ht_grid_decode(&p->format->grid, (uint8_t)code);
    return HT_OK;
}

static bool couples(const ht_round_problem *p)
{
    return p->options.outputs && p->matrix->out > 1 && p->options.method != HT_ROUND_NEAREST &&
           p->options.method != HT_ROUND_ADAROUND;
}

ht_status ht_round(const ht_format *format, const ht_matrix *matrix, const float *moments,
                   const ht_round_options *options, ht_quantized *q, ht_round_error *error)
{
    static const float alike[] = {1};
    ht_format_sizes sizes = {0};
    sums s = {0};
    ht_round_problem p = {.format = format, .matrix = matrix, .options = *options, .in = matrix->in};
    ht_status status = ht_format_measure(format, matrix, &sizes);
    status = status ? status : check_options(matrix->name, &p.options);
    if (status)
        return status;
    if (moments && options->moments_block && matrix->in % options->moments_block)
        return ht_fail(HT_ERR_ARGUMENT, "%s: blocks of %zu moments do not divide its %zu inputs", matrix->name,
                       options->moments_block, matrix->in);
    ht_arena *arena = ht_arena_create();
    p.moments = moments ? moments : alike;
    p.span = !moments ? 1 : options->moments_block ? options->moments_block : matrix->in;
    p.blocks = sizes.blocks;
    p.block = sizes.blocks ? matrix->in / sizes.blocks : matrix->in;
    status = arena ? check_moments(matrix->name, "inputs", p.span, p.moments) : HT_ERR_MEMORY;
    if (!status && p.options.outputs)
        status = check_moments(matrix->name, "outputs", matrix->out, p.options.outputs);
    status = status ? status : prepare(arena, &p);
    status = status ? status : find_scales(&p, q);
    if (!status && (p.options.method == HT_ROUND_GPTQ || p.options.method == HT_ROUND_GPTQ_DESCENT))
        status = ht_round_gptq_prepare(&p);
    p.tensor_scale = q->tensor_scale;
    if (!status && couples(&p))
        status = ht_round_outputs(arena, &p);
    if (!status)
        status = p.outputs ? round_coupled(&p, arena, q, &s) : round_all(&p, arena, q, &s);
    if (!status && error)
        *error =
            (ht_round_error){s.signal > 0 ? s.before / s.signal : 0, s.signal > 0 ? s.after / s.signal : 0, s.signal};
    free(p.factor);
    ht_arena_free(arena);
    return status;
}
