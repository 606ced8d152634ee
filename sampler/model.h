/* model.h - what ht_model_open gave: a denoiser bound to its weights, and the scheduler that came with it; or an
 * autoencoder. */
#ifndef HT_SAMPLER_MODEL_H
#define HT_SAMPLER_MODEL_H

#include "graph/autoencoder.h"
#include "graph/denoiser.h"
#include "sampler/schedule.h"

struct ht_model {
    ht_arena *arena;                          /* everything below but the file */
    const char *path;                         /* as given, for messages */
    const ht_denoiser_family *family;         /* NULL: it is an autoencoder */
    const ht_autoencoder_family *autoencoder; /* NULL: it is a denoiser */
    const char *class_name;
    json_t *index, *config, *scheduler; /* as read; config in the words of diffusers; NULL: there was none */
    const char *component;              /* of index: its folder's name */
    void *network;                      /* the family's own */
    ht_denoiser_info info;              /* of a denoiser */
    ht_autoencoder_info coding;         /* of an autoencoder */
    ht_safetensors *file;
    ht_weights *weights;
    ht_layers layers;    /* that are quantized; none in a model of floats */
    const char *decoder; /* the pipeline's component that makes pictures of samples; NULL: none */
    bool has_scheduler;
    ht_schedule_config schedule; /* of scheduler_config.json; defaults of DDIMScheduler if there is none */
};

/* The weights of a component's folder, by the names that they go by. */
ht_status ht_open_weights(ht_arena *arena, const char *folder, ht_safetensors **file);

#endif
