/* save.h - a quantized model as a folder. */
#ifndef HT_CALIB_SAVE_H
#define HT_CALIB_SAVE_H

#include "sampler/model.h"

/* A place for a model folder, kept from other processes. */
typedef struct ht_save_claim {
    int lock;
    bool made; /* the empty folder there is ours */
} ht_save_claim;

/* To be asked before the work.  HT_ERR_ARGUMENT if path is there and anything but an empty folder, or another process
 * has claimed it; HT_ERR_IO if nothing can be written there.  Until ht_save_release an empty folder is there. */
ht_status ht_save_claim_folder(const char *path, ht_save_claim *claim);

/* Removes the empty folder, if the claim made it and nothing was saved. */
void ht_save_release(ht_save_claim *claim, const char *path);

/* Write a model folder with these layers in the place of their weights, and all else as it is in model; the other
 * components of a pipeline and its licence are linked or copied (core/copy.h).  how: the object `quantization_config`,
 * borrowed.  The folder appears under its name when it is whole. */
ht_status ht_save_quantized(const ht_model *model, const ht_layers *layers, const json_t *how, const char *path);

#endif
