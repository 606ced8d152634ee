/* network.h - what a feature network offers: read its configuration and weights, build its graph.  The networks are
 * listed in one table (eval/features.c); nothing else asks which one it has. */
#ifndef HT_EVAL_NETWORK_H
#define HT_EVAL_NETWORK_H

#include <jansson.h>

#include "graph/graph.h"
#include "graph/weights.h"

typedef struct ht_network_info {
    int dim;                /* numbers an image */
    int height, width;      /* of the images it takes */
    double mean[3], std[3]; /* of each colour: the network sees (x - mean) / std of x in [0,1] */
} ht_network_info;

typedef struct ht_network {
    const char *architecture; /* in config.json */
    /* Bind a checkpoint to a configuration; all memory from the arena.  where: the configuration's path. */
    ht_status (*open)(ht_arena *arena, const json_t *config, const char *where, ht_weights *weights, void **model);
    void (*info)(const void *model, ht_network_info *info);
    /* The graph for a batch of n: input `images` [n,h,w,3], normalized, output [n,dim]. */
    void (*build)(const void *model, ht_graph *g, int64_t n);
} ht_network;

extern const ht_network ht_resnet_cifar;

#endif
