/* names_diffusers.c - the names that diffusers itself has given up.  Until 0.18 attention had its own class, whose
 * projections were called query, key, value and proj_attn; google/ddpm-* and CompVis/ldm-celebahq-256 were published
 * so. */
#include <string.h>

#include "unet/unet2d.h"

static const char *const old_and_new[][2] = {
    {".query.", ".to_q."},
    {".key.", ".to_k."},
    {".value.", ".to_v."},
    {".proj_attn.", ".to_out.0."},
};

const char *ht_unet2d_rename(ht_arena *arena, const char *name, const void *context)
{
    (void)context;
    for (size_t i = 0; i < sizeof old_and_new / sizeof *old_and_new; i++) {
        const char *at = strstr(name, old_and_new[i][0]);
        if (at && strstr(name, ".attentions."))
            return ht_sprintf(arena, "%.*s%s%s", (int)(at - name), name, old_and_new[i][1],
                              at + strlen(old_and_new[i][0]));
    }
    return name;
}
