/* network.h - what a feature network offers: read its configuration and weights, build its graph.  The networks are
 * listed in one table (eval/features.c); nothing else asks which one it has. */
#ifndef HT_EVAL_NETWORK_H
#define HT_EVAL_NETWORK_H

#include <jansson.h>

#include "eval/resize.h"
#include "graph/graph.h"
#include "graph/weights.h"

enum { HT_NETWORK_OUTPUTS = 8 };

typedef struct ht_network_output {
    const char *name; /* "2048", "logits" */
    int dim;          /* numbers an image */
} ht_network_output;

/* What outputs are for; -1: the network has none for it. */
typedef enum ht_network_use {
    HT_USE_FEATURES, /* of the image as a whole */
    HT_USE_LOGITS,   /* of classes, for the Inception Score */
    HT_USE_SPATIAL,  /* that know where in the image things are, for sFID */
    HT_NETWORK_USES
} ht_network_use;

typedef struct ht_network_info {
    int height, width;      /* of the images it takes */
    ht_resize resize;       /* that it was published with; HT_RESIZE_NONE: it takes images of its size alone */
    bool is_inception;      /* FID's own network: its distances may be called FID */
    double mean[3], std[3]; /* of each colour: the network sees (x - mean) / std of x in [0,1] */
    double mean_128;        /* after HT_RESIZE_TF1 and _BICUBIC (x - this) / this of x in [0,255] instead; 0: never */
    int outputs, use[HT_NETWORK_USES];
    ht_network_output output[HT_NETWORK_OUTPUTS]; /* in the order in which the network comes to them */
} ht_network_info;

typedef struct ht_network {
    const char *architecture; /* in config.json */
    const char *tensor; /* that its checkpoints have, for files that come without a config.json; NULL: they cannot */
    ht_rename rename;   /* of its checkpoints; may be NULL */
    /* Bind a checkpoint to a configuration; all memory from the arena.  where: the configuration's path.  config: NULL
     * if there is none. */
    ht_status (*open)(ht_arena *arena, const json_t *config, const char *where, ht_weights *weights, void **model);
    void (*info)(const void *model, ht_network_info *info);
    /* The graph for a batch of n: input `images` [n,h,w,3], normalized; made[i], its output i, for those whose bit is
     * in `wanted` at least. */
    void (*build)(const void *model, ht_graph *g, int64_t n, unsigned wanted, ht_value **made);
} ht_network;

extern const ht_network ht_resnet_cifar, ht_inception_v3;

#endif
