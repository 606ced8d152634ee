/* denoiser.h - what a model family offers: read its configuration and weights, build its graph.
 * The families are listed in one table (sampler/model.c); nothing else asks which model it has. */
#ifndef HT_GRAPH_DENOISER_H
#define HT_GRAPH_DENOISER_H

#include <jansson.h>

#include "graph/graph.h"
#include "graph/weights.h"

typedef struct ht_denoiser_info {
    int in_channels, out_channels;
    int height, width;   /* sample_size of the configuration */
    int size_multiple;   /* height and width must be multiples of it */
    int num_classes;     /* class labels are 0 .. num_classes-1; 0: none */
    bool class_timestep; /* class labels are numbers, embedded like a timestep */
    bool null_class;     /* the last class label stands for no class */
    bool hidden_states;  /* its code calls a sample hidden_states, or x, and t and y the timestep and class label */
    /* Lengths of what it takes as vectors; 0: it does not. */
    int class_embed_dim;     /* class_embeddings, one an image */
    int cross_attention_dim; /* encoder_hidden_states, one a token */
    int text_embed_dim;      /* text_embeds: a prompt's, pooled */
    int time_ids;            /* numbers that are embedded like timesteps: sizes and crops */
    int timestep_cond_dim;   /* timestep_cond: an embedding of the guidance scale */
    int attention_mask;      /* encoder_attention_mask: 1, one number a token */
    int resolution;          /* resolution: height and width of the picture */
    int aspect_ratio;        /* aspect_ratio: height by width */
    int branches;            /* skips that can be cached at; 0: the family has no DeepCache */
} ht_denoiser_info;

/* DeepCache (arXiv:2312.00858): what comes up from below a skip changes little from step to step.  A network that keeps
 * it taps it under the name HT_CACHED; one without what is below takes it as an input of this name. */
#define HT_CACHED "cached"
typedef enum ht_depth { HT_DEPTH_WHOLE, HT_DEPTH_KEEPS, HT_DEPTH_SHALLOW } ht_depth;

/* What a graph is made for.  tokens: of encoder_hidden_states.  branch: with HT_DEPTH_KEEPS and _SHALLOW, the number of
 * the skip, 0 the outermost. */
typedef struct ht_denoiser_size {
    int64_t n, h, w, tokens;
    ht_depth depth;
    int branch;
} ht_denoiser_size;

typedef struct ht_denoiser_family {
    const char *class_name; /* _class_name in config.json */
    /* Bind a checkpoint to a configuration; all memory from the arena.  where: the configuration's path, for messages.
     */
    ht_status (*open)(ht_arena *arena, const json_t *config, const char *where, ht_weights *weights, void **model);
    void (*info)(const void *model, ht_denoiser_info *info);
    /* Build the graph for a batch of n samples of h x w.  Inputs: `sample` [n,h,w,in_channels], the timestep, and what
     * the model takes of `class_labels` [n,1] and the vectors of ht_denoiser_info, [n,length] or [n,tokens,length], all
     * {cond}; output: [n,h,w,out_channels]. */
    void (*build)(const void *model, ht_graph *g, ht_denoiser_size size);
} ht_denoiser_family;

#endif
