/* save.h - a quantized model as a folder. */
#ifndef HT_CALIB_SAVE_H
#define HT_CALIB_SAVE_H

#include "sampler/model.h"

/* HT_ERR_ARGUMENT if path exists and is anything but an empty folder, or its parent does not exist: to be asked before
 * the work. */
ht_status ht_save_check(const char *path);

/* Write a model folder with these layers in the place of their weights, and all else as it is in model.  how: the
 * object `quantization_config`, borrowed.  The folder appears under its name when it is whole. */
ht_status ht_save_quantized(const ht_model *model, const ht_layers *layers, const json_t *how, const char *path);

#endif
