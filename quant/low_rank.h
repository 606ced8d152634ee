/* low_rank.h - the part of a weight that a product of two thin matrices says best: SVDQuant's branch of 16 bits
 * (arXiv:2411.05007, section 4.2), beside which only what is left of the weight is quantized. */
#ifndef HT_QUANT_LOW_RANK_H
#define HT_QUANT_LOW_RANK_H

#include "quant/format.h"

enum { HT_MOST_RANK = 256 };

/* up [out][rank] and down [rank][in], all of them numbers of float16: the product of this rank that is nearest to the
 * weight, but for that rounding, and as far as 40 steps of iteration go.  rank: 1 to HT_MOST_RANK, less than out and
 * in; else HT_ERR_ARGUMENT. */
ht_status ht_low_rank(const ht_matrix *matrix, int rank, float *up, float *down);

/* values -= up down */
void ht_low_rank_subtract(size_t out, size_t in, int rank, const float *up, const float *down, float *values);

/* The sum of w H w^T over rows: what errors of a layer's output are relative to.  moments: as of ht_round, of every
 * `span` inputs; NULL: the identity.  Negative: out of memory. */
double ht_output_signal(const ht_matrix *matrix, const float *moments, size_t span);

#endif
