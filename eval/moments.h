/* moments.h - mean and covariance of a set of feature vectors: all that the Frechet distance knows of the set. */
#ifndef HT_EVAL_MOMENTS_H
#define HT_EVAL_MOMENTS_H

#include "core/error.h"

typedef struct ht_moments {
    int dim;
    double *mu;    /* [dim] */
    double *sigma; /* [dim,dim], symmetric, divided by n - 1 */
} ht_moments;

/* Room for dim numbers and their covariance, zeroed; free it. */
ht_status ht_moments_alloc(int dim, ht_moments *out);
void ht_moments_free(ht_moments *m); /* zeroed moments are allowed */

/* The arrays mu and sigma of an .npz, as pytorch-fid and this project write reference sets.  HT_ERR_SHAPE if they do
 * not fit one another, HT_ERR_FORMAT if a number is not finite or sigma is not symmetric, and what ht_npz_read says. */
ht_status ht_moments_read(const char *path, ht_moments *out);

/* The same, and of how many vectors they are (n, which other programs leave out): 0 if it does not say. */
ht_status ht_moments_read_counted(const char *path, ht_moments *out, int64_t *n);

/* Write mu, sigma and n to an .npz that appears only when whole.  The same numbers are the same bytes. */
ht_status ht_moments_write(const char *path, const ht_moments *m, int64_t n);

#endif
