/* identity.h - which weights something was made of. */
#ifndef HT_CALIB_IDENTITY_H
#define HT_CALIB_IDENTITY_H

#include "sampler/model.h"

/* SHA-256, in hexadecimal, over names, dtypes, shapes and data of the model's tensors in the order of their names: the
 * same for one file and for shards.  In the arena. */
ht_status ht_model_identity(ht_arena *arena, const ht_model *model, const char **hash);

#endif
