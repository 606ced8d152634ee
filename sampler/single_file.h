/* single_file.h - one component of a file that holds a whole pipeline, as people pass Stable Diffusion around. */
#ifndef HT_SAMPLER_SINGLE_FILE_H
#define HT_SAMPLER_SINGLE_FILE_H

#include "graph/weights.h"

typedef struct ht_single_file {
    const char *weights, *folder; /* the file, and where it lies */
    const char *config;           /* of the component: COMPONENT.json beside the file */
    ht_rename rename;             /* of its dialect; context: ht_ldm_levels (unet/names_ldm.h) */
} ht_single_file;

/* component NULL: the denoiser. */
ht_status ht_single_file_find(ht_arena *arena, const char *path, const char *component, ht_single_file *out);

/* The component that makes pictures, if its configuration lies beside the file; else NULL. */
const char *ht_single_file_decoder(ht_arena *arena, const ht_single_file *file);

#endif
