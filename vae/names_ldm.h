/* names_ldm.h - the names of an autoencoder in single files. */
#ifndef HT_VAE_NAMES_LDM_H
#define HT_VAE_NAMES_LDM_H

#include "core/arena.h"

/* `first_stage_model.decoder.up.0.block.1.conv1.weight` -> `decoder.up_blocks.2.resnets.1.conv1.weight`.  An ht_rename;
 * context: an ht_ldm_levels (unet/names_ldm.h). */
const char *ht_ldm_vae_rename(ht_arena *arena, const char *name, const void *context);

#endif
