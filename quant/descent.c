/* descent.c - coordinate descent on the quadratic, over codes and over scales.
 *
 * A step: with the gradient g = (v - w) H, the error is a parabola in each v_k alone, with its minimum at v_k - g_k /
 * H_kk; the best code is the one nearest to that, on a grid of any spacing.  A weight moves if that lessens the error
 * by the parabola, which is exact: so the error never rises, but for roundings in double.  Inputs with the largest
 * moments go first.  Descent ends when a whole sweep moves nothing (some 5 to 15 sweeps): then no change of a single
 * code helps.
 *
 * Scales: with codes c of a block given, the error is a parabola in its scale too, with its minimum at s - (c .
 * g_block) / (c H_block c^T).  The two alternate. */
#include <float.h>
#include <math.h>
#include <string.h>

#include "quant/dense.h"
#include "quant/round_private.h"

/* Weight k of row r to its best code given all others. */
static bool move(const ht_round_problem *p, ht_round_rows *rows, size_t r, size_t k)
{
    const float *h = ht_round_moments_of(p, k);
    const ht_block *block = ht_round_block_at(p, rows, r, k);
    size_t at = r * p->in + k;
    double v = rows->v[at], g = rows->vh[at] - rows->wh[at];
    uint8_t code = ht_grid_encode(&block->grid, (float)((v - g / (double)h[k % p->span]) / block->scale));
    if (code == rows->codes[at])
        return false;
    double moved = ht_round_level(p, block, code) * block->scale, d = moved - v;
    if (!(d * (2 * g + d * h[k % p->span]) < 0))
        return false;
    rows->codes[at] = code;
    rows->v[at] = moved;
    ht_add_scaled_f32(p->span, d, h, rows->vh + r * p->in + ht_round_span_of(p, k));
    return true;
}

bool ht_round_descend(const ht_round_problem *p, ht_round_rows *rows, bool *active)
{
    bool going[HT_ROUND_ROWS], any = false, more = true;
    memcpy(going, active, sizeof going);
    memset(active, false, sizeof going);
    for (int sweep = 0; sweep < p->options.sweeps && more; sweep++) {
        bool moved[HT_ROUND_ROWS] = {false};
        more = false;
        for (size_t i = 0; i < p->live; i++)
            for (size_t r = 0; r < rows->rows; r++)
                if (going[r] && move(p, rows, r, p->order[i]))
                    moved[r] = active[r] = more = any = true;
        memcpy(going, moved, sizeof going);
    }
    return any;
}

/* ---- scales ---- */

/* What row r of v H changes by when the scale of block b grows by 1, codes staying.  out: [in] */
static void slope_of(const ht_round_problem *p, const ht_round_rows *rows, size_t r, size_t b, double *out)
{
    const ht_block *block = &rows->blocks[r * p->blocks + b];
    memset(out, 0, p->in * sizeof *out);
    if (p->blocks == 1) {
        ht_add_scaled(p->in, 1 / (double)block->scale, rows->vh + r * p->in, out);
        return;
    }
    for (size_t k = b * p->block; k < (b + 1) * p->block; k++) {
        double level = ht_round_level(p, block, rows->codes[r * p->in + k]);
        if (level != 0)
            ht_add_scaled_f32(p->span, level, ht_round_moments_of(p, k), out + ht_round_span_of(p, k));
    }
}

static bool fit_block(const ht_round_problem *p, ht_round_rows *rows, size_t r, size_t b)
{
    ht_block *block = &rows->blocks[r * p->blocks + b];
    double *slope = rows->scratch, along = 0, curvature = 0;
    size_t row = r * p->in;
    slope_of(p, rows, r, b, slope);
    for (size_t k = b * p->block; k < (b + 1) * p->block; k++) {
        double level = ht_round_level(p, block, rows->codes[row + k]);
        along += level * (rows->vh[row + k] - rows->wh[row + k]);
        curvature += level * slope[k];
    }
    if (!(curvature > 0))
        return false;
    float scale = ht_round_storable(p, block, block->scale - along / curvature);
    double d = (double)scale - block->scale;
    if (!(d * (2 * along + d * curvature) < 0))
        return false;
    block->scale = scale;
    for (size_t k = b * p->block; k < (b + 1) * p->block; k++)
        rows->v[row + k] = ht_round_level(p, block, rows->codes[row + k]) * scale;
    ht_add_scaled(p->in, d, slope, rows->vh + row);
    return true;
}

bool ht_round_fit_scales(const ht_round_problem *p, ht_round_rows *rows, bool *active)
{
    bool any = false;
    for (size_t r = 0; r < rows->rows; r++) {
        bool changed = false;
        for (size_t b = 0; b < p->blocks && active[r]; b++)
            changed |= fit_block(p, rows, r, b);
        active[r] = changed;
        any |= changed;
    }
    return any;
}
