/* fuzz_config.c - libFuzzer target: bytes -> JSON -> a configuration -> a graph.  Configurations of both dialects are
 * read; one that is accepted is bound to the weights of a small model (a mutation of
 * tests/goldens/unet/ddpm-cifar/config.json may still fit them) or to none, and built. */
#include <stdint.h>
#include <stdlib.h>

#include "core/json.h"
#include "sampler/schedule.h"
#include "unet/unet2d.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* A file without tensors, for when the target does not run in the repository's root. */
static const char no_tensors[] = "\x08\0\0\0\0\0\0\0{}      ";

static ht_safetensors *weights_of_small_model(void)
{
    static ht_safetensors *file;
    if (!file && ht_safetensors_open("tests/goldens/unet/ddpm-cifar/diffusion_pytorch_model.safetensors", &file) &&
        ht_safetensors_parse(no_tensors, sizeof no_tensors - 1, "none", &file))
        abort();
    return file;
}

static void build(ht_arena *arena, const json_t *config)
{
    ht_weights *weights;
    ht_denoiser_info info;
    void *model;
    if (ht_weights_open(arena, weights_of_small_model(), ht_unet2d_rename, NULL, &weights) ||
        ht_unet2d_family.open(arena, config, "config.json", weights, &model))
        return;
    ht_unet2d_family.info(model, &info);
    ht_graph *g = ht_graph_create(arena);
    if (!g)
        return;
    ht_unet2d_family.build(model, g, (ht_denoiser_size){.n = 1, .h = info.size_multiple, .w = info.size_multiple});
    if (ht_graph_finish(g, true)) /* what the configuration's reader accepts, and the weights fit, must build */
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    json_t *object = NULL, *unet = NULL, *scheduler = NULL;
    ht_schedule_config schedule;
    ht_arena *arena = ht_arena_create();
    if (!arena || ht_json_parse((const char *)data, size, "config.json", &object))
        goto done;
    ht_schedule_read(arena, object, "config.json", &schedule);
    if (!ht_ddpm_recognizes(object))
        build(arena, object);
    else if (!ht_ddpm_translate(object, "config.json", &unet, &scheduler)) {
        build(arena, unet);
        if (scheduler)
            ht_schedule_read(arena, scheduler, "config.json", &schedule);
    }
done:
    json_decref(scheduler);
    json_decref(unet);
    json_decref(object);
    ht_arena_free(arena);
    return 0;
}
