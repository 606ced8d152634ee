/* names_ldm.h - the names of single files in the dialect of CompVis's and Stability's code: `model.diffusion_model.*`,
 * `first_stage_model.*` (vae/names_ldm.c).  Renames leave out what is of another component. */
#ifndef HT_UNET_NAMES_LDM_H
#define HT_UNET_NAMES_LDM_H

#include "unet/unet2d.h"

/* The context of these renames: what a component's config.json says of its levels. */
typedef struct ht_ldm_levels {
    int n, layers[HT_UNET_MAX_LEVELS];
} ht_ldm_levels;

/* Errors are left to the reader of the whole configuration: what is wrong becomes 0. */
ht_ldm_levels ht_ldm_levels_read(const json_t *config);

const char *ht_ldm_unet_rename(ht_arena *arena, const char *name, const void *context);

#endif
