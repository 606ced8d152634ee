/* single_file.c - components of single files: which there are, whose names they have, where their configuration is. */
#include "sampler/single_file.h"

#include <string.h>
#include <unistd.h>

#include "unet/names_ldm.h"
#include "vae/names_ldm.h"

static const struct {
    const char *component;
    ht_rename rename;
} rows[] = {
    {"unet", ht_ldm_unet_rename}, /* the first is the denoiser */
    {"vae", ht_ldm_vae_rename},
};

ht_status ht_single_file_find(ht_arena *arena, const char *path, const char *component, ht_single_file *out)
{
    const char *slash = strrchr(path, '/');
    component = component ? component : rows[0].component;
    *out = (ht_single_file){.weights = path};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        if (!strcmp(rows[i].component, component))
            out->rename = rows[i].rename;
    if (!out->rename)
        return ht_fail(HT_ERR_ARGUMENT, "%s: has no component named %s that this version reads; it reads unet and vae",
                       path, component);
    out->folder = slash ? ht_sprintf(arena, "%.*s", (int)(slash - path), path) : ".";
    out->config = out->folder ? ht_sprintf(arena, "%s/%s.json", out->folder, component) : NULL;
    return out->config ? HT_OK : HT_ERR_MEMORY;
}

const char *ht_single_file_decoder(ht_arena *arena, const ht_single_file *file)
{
    const char *config = ht_sprintf(arena, "%s/vae.json", file->folder);
    return config && !access(config, F_OK) ? "vae" : NULL;
}
