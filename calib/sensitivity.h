/* sensitivity.h - how much the model's output suffers from one layer at a time. */
#ifndef HT_CALIB_SENSITIVITY_H
#define HT_CALIB_SENSITIVITY_H

#include "calib/calibration.h"

typedef struct ht_sensitivity_options {
    int images, threads;   /* of each timestep */
    int every;             /* timesteps: 0, every, 2 every, ... of the calibration's groups */
    const double *weights; /* [groups] */
    ht_progress progress;  /* of candidates; may be NULL */
    void *user;
} ht_sensitivity_options;

/* error[n]: the mean over samples of weight * |out(base with layer i replaced by candidates[i]) - out(base)|^2 /
 * |out|^2. base and candidates: layers of the same names; a candidate whose name is NULL is passed over (error 0). */
ht_status ht_sensitivity_measure(ht_model *model, const ht_calibration *calibration, const ht_layers *base,
                                 const ht_layer *candidates, const ht_sensitivity_options *options, double *error);

#endif
