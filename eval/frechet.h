/* frechet.h - the Frechet distance of two Gaussians: FID, in the features that the moments are of. */
#ifndef HT_EVAL_FRECHET_H
#define HT_EVAL_FRECHET_H

#include "eval/moments.h"

/* |mu_a - mu_b|^2 + tr(S_a + S_b - 2 (S_a S_b)^(1/2))   (Heusel et al., arXiv:1706.08500, eq. 6), never below 0.
 * Covariances may be singular (fewer vectors than dimensions); nothing is added to their diagonals.  HT_ERR_SHAPE if
 * the dimensions differ, HT_ERR_ARGUMENT if a number is not finite or the eigenvalues do not converge, HT_ERR_MEMORY.
 */
ht_status ht_frechet(const ht_moments *a, const ht_moments *b, double *distance);

#endif
