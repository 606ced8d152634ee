/* temporal.h - temporal features: how much quantizing what depends on the timestep alone disturbs them. */
#ifndef HT_CALIB_TEMPORAL_H
#define HT_CALIB_TEMPORAL_H

#include "calib/calibration.h"
#include "calib/products.h"

/* error[products]: of every layer that depends on {t} alone, the squared error of its output over the calibration's
 * timesteps with all `layers` quantized, relative to that of the model of floats; 0 for other products. */
ht_status ht_temporal_errors(ht_model *model, const ht_calibration *calibration, const ht_products *products,
                             const ht_layers *layers, double *error);

#endif
