/* names_ldm.c - names of an autoencoder in single files, said in diffusers' words.  Each half is called as the U-Net of
 * the original DDPM code is, whose blocks it is made of: only the front is ours. */
#include "vae/names_ldm.h"

#include <string.h>

#include "unet/names_ldm.h"

static const char root[] = "first_stage_model.";
static const char *const halves[] = {"encoder.", "decoder."};

const char *ht_ldm_vae_rename(ht_arena *arena, const char *name, const void *context)
{
    const ht_ldm_levels *levels = context;
    if (strncmp(name, root, strlen(root)) != 0)
        return NULL;
    name += strlen(root);
    for (int i = 0; i < 2; i++) {
        size_t n = strlen(halves[i]);
        if (!strncmp(name, halves[i], n)) {
            const char *rest = ht_ddpm_rename(arena, name + n, &levels->n);
            return rest ? ht_sprintf(arena, "%s%s", halves[i], rest) : NULL;
        }
    }
    return name;
}
