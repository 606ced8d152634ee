/* draw.h - drawing from a set as NumPy's RandomState does, which torch-fidelity's figures come from. */
#ifndef HT_EVAL_DRAW_H
#define HT_EVAL_DRAW_H

#include "core/rng.h"

/* RandomState.permutation(n), 0 < n <= 2^32, into out [n]; RandomState(seed) is ht_mt19937_seed. */
void ht_draw_permutation(ht_mt19937 *rng, int64_t n, int64_t *out);

#endif
