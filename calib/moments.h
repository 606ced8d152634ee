/* moments.h - second moments of what every layer sees: the H of rounding (quant/round.h). */
#ifndef HT_CALIB_MOMENTS_H
#define HT_CALIB_MOMENTS_H

#include "calib/calibration.h"
#include "calib/products.h"

typedef struct ht_input_moments {
    int64_t k;    /* inputs of a window: tap * channels + channel of X | X2 */
    int64_t span; /* k; the channels, where windows are larger than HT_MOST_WINDOW: those of each tap are taken to be
                     alike, and not to know those of another */
    float *h;     /* [span][span], the sum over the set of weight * a a^T; NULL: not gathered */
} ht_input_moments;

/* A matrix of this size takes 85 MB; a convolution of 1280 channels would ask for 531. */
enum { HT_MOST_WINDOW = 4608 };

/* What the moments of a product's inputs are, and the bytes they take: k and span filled in. */
size_t ht_input_moments_size(const ht_model_product *p, ht_input_moments *m);

typedef struct ht_input_moments_options {
    int batch, threads;
    int windows;           /* of an image and layer, about */
    const double *weights; /* [groups] of the calibration */
    ht_progress progress;  /* of samples; may be NULL */
    void *user;
} ht_input_moments_options;

/* Of the n products of list: moments[products->n], h in the arena.  What depends on the timestep alone is seen once a
 * timestep: with its finite set of inputs, rounding against H is the reconstruction of the temporal information block
 * (TIAR of Temporal Feature Matters, arXiv:2407.19547) in closed form. */
ht_status ht_input_moments_gather(ht_arena *arena, ht_model *model, const ht_calibration *calibration,
                                  const ht_products *products, const int *list, int n,
                                  const ht_input_moments_options *options, ht_input_moments *moments);

/* The part of h that belongs to channels begin .. begin+count-1 of `channels`, in a layer part's order of k:
 * out[taps * count][taps * count], or [count][count] of a span of channels. */
void ht_input_moments_part(const ht_input_moments *m, int64_t channels, int64_t begin, int64_t count, float *out);

#endif
