/* autoencoder.h - what a family of autoencoders offers: read its configuration and weights, build the graph that makes
 * pictures of latents and the one that makes latents of pictures.  Families are listed in one table (sampler/model.c).
 *
 * Nothing here knows of scaling_factor and shift_factor but their values: a pipeline applies them between a denoiser
 * and its decoder. */
#ifndef HT_GRAPH_AUTOENCODER_H
#define HT_GRAPH_AUTOENCODER_H

#include <jansson.h>

#include "graph/graph.h"
#include "graph/weights.h"

enum { HT_AUTOENCODER_OUTPUTS = 3 };

/* A value that comes out: the library's name of it. */
typedef struct ht_coded {
    const char *name;
    bool rows; /* numbers of a codebook's rows */
} ht_coded;

typedef struct ht_autoencoder_info {
    int in_channels, out_channels; /* of pictures, in and out */
    int latent_channels;           /* of what is decoded */
    int height, width;             /* of pictures; 0 if the configuration does not say */
    int factor;                    /* pixels along a side of what one latent becomes */
    float scaling_factor, shift_factor;
    /* The first is the graph's output, the rest have no name or are values by the way. */
    ht_coded decoded[HT_AUTOENCODER_OUTPUTS], encoded[HT_AUTOENCODER_OUTPUTS];
} ht_autoencoder_info;

typedef struct ht_autoencoder_family {
    const char *class_name; /* _class_name in config.json */
    /* Bind a checkpoint to a configuration; all memory from the arena. */
    ht_status (*open)(ht_arena *arena, const json_t *config, const char *where, ht_weights *weights, void **model);
    void (*info)(const void *model, ht_autoencoder_info *info);
    /* Input `z` [n,h,w,latent_channels] -> pictures [n,h',w',out_channels]. */
    void (*decode)(const void *model, ht_graph *g, int64_t n, int64_t h, int64_t w);
    /* Input `x` [n,h,w,in_channels], a picture -> [n,h',w',c]. */
    void (*encode)(const void *model, ht_graph *g, int64_t n, int64_t h, int64_t w);
} ht_autoencoder_family;

#endif
