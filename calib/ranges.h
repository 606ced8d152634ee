/* ranges.h - the least and largest value of every channel that a layer reads, by timestep: what smoothing is found
 * from, and the ranges of smoothed inputs. */
#ifndef HT_CALIB_RANGES_H
#define HT_CALIB_RANGES_H

#include "calib/calibration.h"
#include "calib/products.h"

typedef struct ht_channel_ranges {
    int64_t channels;  /* of X | X2 */
    float *low, *high; /* [groups][channels]: 0 at most, and at least; NULL: not gathered */
} ht_channel_ranges;

typedef struct ht_channel_ranges_options {
    int batch, threads;
    const bool *only;     /* [products->n]: those that are meant */
    ht_progress progress; /* of samples; may be NULL */
    void *user;
} ht_channel_ranges_options;

/* ranges[products->n], arrays in the arena.  Only of products that run every step. */
ht_status ht_channel_ranges_gather(ht_arena *arena, ht_model *model, const ht_calibration *calibration,
                                   const ht_products *products, const ht_channel_ranges_options *options,
                                   ht_channel_ranges *ranges);

#endif
