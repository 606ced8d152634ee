/* smooth.h - SmoothQuant (arXiv:2211.10438): outliers of inputs' channels go into the weights that read them. */
#ifndef HT_CALIB_SMOOTH_H
#define HT_CALIB_SMOOTH_H

#include "calib/ranges.h"

/* What product i's inputs are multiplied by, factors[channels], in the arena: 1 / s of eq. 4,
 *
 *     s_j = max |X_j|^alpha / max |W_j|^(1 - alpha),
 *
 * with the largest input over all samples, and the largest weight over all products that read the same value and are
 * meant (`only`, [n]): so they share one input, and its codes.  1 for channels that are always 0, or never read. */
ht_status ht_smooth_factors(ht_arena *arena, const ht_products *products, const bool *only,
                            const ht_channel_ranges *ranges, int groups, int i, double alpha, const float **factors);

#endif
