/* fuzz_single_file.c - libFuzzer target: any bytes as a single file of a Stable Diffusion.  Its names are translated
 * with levels that no configuration has said, then it is bound as the U-Net and as the autoencoder of a small model
 * (tests/goldens/ldm_single/sd1, whose file is a seed): refused with a message, or networks that can be built. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "core/json.h"
#include "core/safetensors.h"
#include "unet/names_ldm.h"
#include "unet/unet2d_condition.h"
#include "vae/names_ldm.h"
#include "vae/vae.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size);

#define FOLDER "tests/goldens/ldm_single/sd1/"

/* Run in the repository's root. */
static const json_t *config_of(const char *path, json_t **config)
{
    if (!*config && ht_json_read(path, config))
        abort();
    return *config;
}

static void translate(ht_arena *arena, const ht_safetensors *file, const uint8_t *bytes, size_t size)
{
    ht_ldm_levels levels = {.n = size ? bytes[size - 1] % (HT_UNET_MAX_LEVELS + 1) : 0};
    for (int i = 0; i < levels.n; i++)
        levels.layers[i] = bytes[size / (size_t)(i + 2)] % (HT_UNET_MAX_LAYERS + 1);
    for (size_t i = 0; i < ht_safetensors_count(file); i++) {
        const char *name = ht_safetensors_at(file, i)->name;
        const char *made[] = {ht_ldm_unet_rename(arena, name, &levels), ht_ldm_vae_rename(arena, name, &levels)};
        for (int k = 0; k < 2; k++)
            if (made[k] && strlen(made[k]) > strlen(name) + 64)
                abort();
    }
}

static void bind_unet(ht_arena *arena, const ht_safetensors *file)
{
    static json_t *read;
    const json_t *config = config_of(FOLDER "unet.json", &read);
    const ht_ldm_levels levels = ht_ldm_levels_read(config);
    ht_weights *weights;
    void *model;
    if (ht_weights_open(arena, file, ht_ldm_unet_rename, &levels, &weights) ||
        ht_unet2d_condition_family.open(arena, config, FOLDER "unet.json", weights, &model)) {
        if (!*ht_error_message())
            abort();
        return;
    }
    ht_graph *g = ht_graph_create(arena);
    if (g) {
        ht_unet2d_condition_family.build(model, g, (ht_denoiser_size){.n = 1, .h = 8, .w = 8, .tokens = 77});
        if (ht_graph_finish(g, true))
            abort();
    }
}

static void bind_vae(ht_arena *arena, const ht_safetensors *file)
{
    static json_t *read;
    const json_t *config = config_of(FOLDER "vae.json", &read);
    const ht_ldm_levels levels = ht_ldm_levels_read(config);
    ht_weights *weights;
    void *model;
    if (ht_weights_open(arena, file, ht_ldm_vae_rename, &levels, &weights) ||
        ht_kl_family.open(arena, config, FOLDER "vae.json", weights, &model)) {
        if (!*ht_error_message())
            abort();
        return;
    }
    ht_graph *g = ht_graph_create(arena);
    if (g) {
        ht_kl_family.decode(model, g, 1, 4, 4);
        if (ht_graph_finish(g, true))
            abort();
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    ht_safetensors *file = NULL;
    ht_arena *arena = ht_arena_create();
    if (!arena)
        return 0;
    if (!ht_safetensors_parse(bytes, size, "fuzz", &file)) {
        translate(arena, file, bytes, size);
        bind_unet(arena, file);
        bind_vae(arena, file);
    }
    ht_safetensors_close(file);
    ht_arena_free(arena);
    return 0;
}
