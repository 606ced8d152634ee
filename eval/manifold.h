/* manifold.h - how much of one set of vectors lies where the other does: precision, recall, density, coverage. */
#ifndef HT_EVAL_MANIFOLD_H
#define HT_EVAL_MANIFOLD_H

#include "eval/pairs.h"

typedef struct ht_manifold {
    double precision, recall; /* Kynkaanniemi et al., arXiv:1904.06991, eq. 1 to 3 */
    double density, coverage; /* Naeem et al., arXiv:2002.09797, eq. 6 and 7 */
} ht_manifold;

/* made: the set in question; real: the reference.  A vector's ball reaches to its k-th neighbour in its own set, the
 * distance itself included.  Distances are |x|^2 + |y|^2 - 2 x.y around the mean of the reference, products in float32.
 * HT_ERR_ARGUMENT unless both sets have more than k vectors. */
ht_status ht_manifold_of(ht_pairs *p, const ht_vectors *made, const ht_vectors *real, int k, ht_manifold *out);

#endif
