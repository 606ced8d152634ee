/* kid.h - the Kernel Inception Distance. */
#ifndef HT_EVAL_KID_H
#define HT_EVAL_KID_H

#include "eval/pairs.h"

/* Unbiased squared maximum mean discrepancy of a and b, as many vectors each, under k(x,y) = (x.y / dim + 1)^3
 * (Binkowski et al., arXiv:1801.01401, section 4):
 *     (sum_{i!=j} k(a_i,a_j) + sum_{i!=j} k(b_i,b_j)) / (m (m - 1)) - 2 sum_{i,j} k(a_i,b_j) / m^2
 * Products in float32, kernels and sums in double.  HT_ERR_ARGUMENT if they are not as many, or fewer than two. */
ht_status ht_kid_mmd2(ht_pairs *p, const ht_vectors *a, const ht_vectors *b, double *out);

typedef struct ht_kid_options {
    int subsets, size; /* 0 means 100 of 1000; of a smaller set all its vectors are taken */
    uint64_t seed;     /* of the subsets, which are those that torch-fidelity draws of it */
} ht_kid_options;

typedef struct ht_kid {
    double mean, deviation; /* over the subsets; the deviation divided by their number */
    int subsets, size;
} ht_kid;

ht_status ht_kid_of(ht_pairs *p, const ht_vectors *a, const ht_vectors *b, const ht_kid_options *options, ht_kid *out);

#endif
