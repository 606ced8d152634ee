/* batch.h - how many images a session of calibration can see at once without taking too much memory. */
#ifndef HT_CALIB_BATCH_H
#define HT_CALIB_BATCH_H

#include "sampler/session.h"

/* At most options->batch, and at least 1: so many that the values which such a session keeps take 2 GB.  Results do not
 * depend on it.  Nothing is compiled. */
int ht_batch_within(const ht_model *model, const ht_session_options *options, const ht_session_extras *extras);

#endif
