/* round_private.h - what the rounding methods share: the problem, and the rows that are being rounded. */
#ifndef HT_QUANT_ROUND_PRIVATE_H
#define HT_QUANT_ROUND_PRIVATE_H

#include "quant/round.h"

/* Rows are rounded this many at a time, so that what is read of H or its factor serves all of them. */
enum { HT_ROUND_ROWS = 16, HT_ROUND_DEPTH = 64 };

/* Of the whole weight, the same for all rows. */
typedef struct ht_round_problem {
    const ht_format *format;
    const ht_matrix *matrix;
    const float *moments;     /* [span][span], of every `span` inputs by themselves */
    size_t span;              /* divides in; all inputs unless moments_block was given */
    ht_round_options options; /* defaults filled in */
    size_t in, blocks, block; /* block: inputs that share a scale */
    float tensor_scale;
    float value[256]; /* of codes, before the zero point is taken away */
    size_t *order;    /* inputs by falling diagonal of H; the dead, whose diagonal is 0, are left out */
    size_t live;
    size_t live_in_span;  /* of these */
    double *factor;       /* of gptq, [live_in_span][live_in_span]: see gptq.c */
    size_t *factor_order; /* [span], the inputs that its rows are */
    double *panel;        /* [HT_ROUND_DEPTH][in] */
    double *outputs;      /* [out][out]: G; NULL: rows do not know each other */
} ht_round_problem;

/* Up to HT_ROUND_ROWS rows; arrays have room for all of them, and zeros in rows that are not there. */
typedef struct ht_round_rows {
    size_t rows;
    double *w;        /* [rows][in] */
    double *v;        /* what w became: (value of the code - zero point) * scale */
    double *wh, *vh;  /* w H, v H */
    uint8_t *codes;   /* [rows][in] */
    ht_block *blocks; /* [rows][blocks] */
    double *scratch;  /* [HT_ROUND_ROWS][in] */

    /* Of GPTQ on rows that know each other (quant/coupled.c); NULL: they do not. */
    const double *whole;    /* [rows][in], the weights, while w is what a row should be given those rounded before */
    const double *feedback; /* [HT_ROUND_ROWS][HT_ROUND_ROWS]: of row r, what the error of row m < r adds to w */
} ht_round_rows;

/* The row of H that input k has in its span, and where that begins. */
static inline const float *ht_round_moments_of(const ht_round_problem *p, size_t k)
{
    return p->moments + k % p->span * p->span;
}

static inline size_t ht_round_span_of(const ht_round_problem *p, size_t k)
{
    return k - k % p->span;
}

/* out = rows of x times H; both [HT_ROUND_ROWS][in] */
void ht_round_times_moments(const ht_round_problem *p, const double *x, double *out);

/* (w - v) H (w - v)^T of row r, from wh and vh */
double ht_round_row_error(const ht_round_problem *p, const ht_round_rows *rows, size_t r);

static inline ht_block *ht_round_block_at(const ht_round_problem *p, const ht_round_rows *rows, size_t r, size_t k)
{
    return &rows->blocks[r * p->blocks + k / p->block];
}

/* The value of a code in its block, without the scale. */
static inline double ht_round_level(const ht_round_problem *p, const ht_block *block, uint8_t code)
{
    return (double)p->value[code] - block->grid.zero;
}

/* Give weight k of row r the code nearest to the target, and return what it became. */
static inline double ht_round_to_nearest(const ht_round_problem *p, ht_round_rows *rows, size_t r, size_t k,
                                         double target)
{
    const ht_block *block = ht_round_block_at(p, rows, r, k);
    size_t at = r * p->in + k;
    rows->codes[at] = ht_grid_encode(&block->grid, (float)(target / block->scale));
    rows->v[at] = ht_round_level(p, block, rows->codes[at]) * block->scale;
    return rows->v[at];
}

/* HT_ERR_CANCELLED if whoever asked for the rounding wants no more of it. */
ht_status ht_round_check_stop(const ht_round_problem *p);

/* ---- methods: codes and v of all rows, on the scales that they have; wh is given ---- */

ht_status ht_round_gptq_prepare(ht_round_problem *p); /* the factor, from malloc */
void ht_round_gptq(const ht_round_problem *p, ht_round_rows *rows);

/* The steps of descent, for the rows that are active ([HT_ROUND_ROWS]); those that a step changed stay so.  True if one
 * did.  A row's steps must not depend on other rows, so each stops by itself.
 *
 * Codes, from those that are there; v and vh are given and follow. */
bool ht_round_descend(const ht_round_problem *p, ht_round_rows *rows, bool *active);

/* Scales of the codes that are there, where they lessen the error; v and vh follow. */
bool ht_round_fit_scales(const ht_round_problem *p, ht_round_rows *rows, bool *active);

/* From the nearest codes, with v and vh. */
ht_status ht_round_adaround(const ht_round_problem *p, ht_round_rows *rows);

/* Descent and fitting of scales by turns, for all rows. */
void ht_round_descend_and_fit(const ht_round_problem *p, ht_round_rows *rows);

/* ---- rows that know each other ---- */

/* p->outputs from the options. */
ht_status ht_round_outputs(ht_arena *arena, ht_round_problem *p);

/* Sum over n, m of G_nm x_n . xh_m; x and xh: [out][in], scratch: [in] */
double ht_round_coupled_sum(const ht_round_problem *p, const double *x, const double *xh, double *scratch);

/* Rounds the codes and scales of q again as the method does.  wh: the weight times H, [out][in].  error: the coupled
 * sum of v - w. */
ht_status ht_round_coupled(const ht_round_problem *p, ht_arena *arena, const double *wh, ht_quantized *q,
                           double *error);

/* ---- scales ---- */

/* The scale that the format can store nearest to one wanted for a block; the block's own if there is no other. */
float ht_round_storable(const ht_round_problem *p, const ht_block *block, double wanted);

/* The scale of block i of q. */
void ht_round_store_scale(const ht_round_problem *p, const ht_block *block, ht_quantized *q, size_t i);

static inline size_t ht_round_row_bytes(const ht_round_problem *p)
{
    return p->format->grid.bits == 4 ? p->in / 2 + p->in % 2 : p->in;
}

#endif
