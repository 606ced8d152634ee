/* output_moments.h - second moments of what the model's error asks of every layer's output: the G of rounding
 * (ht_round_options.outputs). */
#ifndef HT_CALIB_OUTPUT_MOMENTS_H
#define HT_CALIB_OUTPUT_MOMENTS_H

#include "calib/calibration.h"
#include "calib/products.h"

typedef struct ht_output_moments_options {
    int images; /* of each timestep */
    int threads;
    const double *weights; /* [groups] of the calibration */
    ht_progress progress;  /* of samples; may be NULL */
    void *user;
} ht_output_moments_options;

/* moments[products->n]: [out][out] in the arena, the sum over samples and places of weight * g g^T, with g the gradient
 * of the model's output, projected on a random direction, by the layer's output.  Its mean over directions is J^T J of
 * the model from there on: the Gauss-Newton matrix of the squared error (Martens, arXiv:1412.1193, section 8), summed
 * over places as K-FAC for convolutions does (arXiv:1602.01407).
 *
 * NULL for what is not computed each step; all NULL for models that have an operation without gradient, or whose
 * gradients would take more than 4 GB. */
ht_status ht_output_moments_gather(ht_arena *arena, ht_model *model, const ht_calibration *calibration,
                                   const ht_products *products, const ht_output_moments_options *options,
                                   const float **moments);

#endif
