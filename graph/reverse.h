/* reverse.h - gradients as part of a graph: reverse mode appends operations, and a backend runs them like any others.
 *
 *     ht_region block;                                    a block of a finished float graph
 *     ht_region_copy(&block, batch, ..., g, &copy);       the same in g, every weight a value that is uploaded
 *     ht_value *dy = ...;                                 the gradient of a loss by the block's output
 *     ht_gradients(g, y, dy, n, weights, gradients);      [out,k,k,in] each, like the weights
 *
 * Where gradients flow, weights are values, not constants: they change from run to run.  They lie channels last,
 * [out,k,k,in], as all values do and as quantized layers count their inputs. */
#ifndef HT_GRAPH_REVERSE_H
#define HT_GRAPH_REVERSE_H

#include "graph/graph.h"

/* The slot of the gradient of the output, in operations that compute the gradient of an input.  Their other slots are
 * those of the operation itself. */
enum { HT_IN_GRADIENT = HT_IN_RESIDUAL };

/* ---- building ---- */

/* A value that is uploaded once for all images.  shape as it is. */
ht_value *ht_constant_input(ht_graph *g, const char *name, int ndim, const int64_t *shape);

/* conv2d whose weight is a value [out,k,k,in], and whose bias, NULL or [1,out], is one too.  x [n,h,w,in]. */
ht_value *ht_conv2d_by(ht_graph *g, ht_value *x, ht_value *weight, ht_value *bias, ht_conv_shape shape);

/* x -> (clamp(round(x / step) + zero) - zero) * step, or the nearest of a float grid: what x becomes as a code of
 * [1 or n,2] step and zero point.  Gradients pass where x is within the grid's ends (straight-through estimator). */
ht_value *ht_simulate(ht_graph *g, ht_value *x, ht_value *scale, const ht_format *codes);

/* Attention in parts:  mix(softmax(scores(q, k)), v).  q [n,tq,c], k [n,tk,c] -> [n,tq,heads*tk]. */
ht_value *ht_scores(ht_graph *g, ht_value *q, ht_value *k, int heads, float scale);
ht_value *ht_softmax(ht_graph *g, ht_value *scores, int heads);                    /* over each head's keys */
ht_value *ht_mix(ht_graph *g, ht_value *p, ht_value *v, int heads, float scale);   /* scale p v    -> [n,tq,c] */
ht_value *ht_mix_t(ht_graph *g, ht_value *p, ht_value *q, int heads, float scale); /* scale p^T q  -> [n,tk,c] */

/* ---- reverse mode ---- */

/* gradients[i] becomes the gradient by of[i] of whatever dy is the gradient of by y.  of: inputs or inner values of g,
 * which is not finished yet.  Errors stick to g: that y does not depend on a value, or does through an operation whose
 * gradient is not known (HT_ERR_UNSUPPORTED, naming it). */
void ht_gradients(ht_graph *g, ht_value *y, ht_value *dy, int n, ht_value *const *of, ht_value **gradients);

/* The sum over images and about `places` positions of each, evenly spread, of x x^T.  x [n,h,w,c] -> [c,c]. */
ht_value *ht_channel_gram(ht_graph *g, ht_value *x, int places);

/* ---- parts of a graph ---- */

/* Operations of a finished graph between some values and one. */
typedef struct ht_region {
    const char *name; /* of the block, or of its one layer */
    const ht_op **ops;
    int n_ops;
    const ht_value **inputs; /* made outside, in the order in which they are first read */
    int n_inputs;
    const ht_value *output;
    const ht_op **layers; /* the convolutions and linear maps among ops */
    int n_layers;
} ht_region;

/* Cut what a graph does each step into blocks, in order of execution: a value that model code named ("mid_block
 * .attentions.0") ends a block of the layers that begin with this name and a dot, the innermost block takes a layer; a
 * layer in no block is one by itself.  What depends on {t} or {cond} alone is outside.  For unquantized graphs. */
ht_status ht_regions_find(const ht_graph *g, ht_arena *arena, ht_region **regions, int *n);

/* The first operation of a region that cannot be built again for gradients; NULL: all can. */
const ht_op *ht_region_lacks(const ht_region *region);

/* All that a graph does each step, as one region. */
ht_status ht_region_whole(const ht_graph *g, ht_arena *arena, ht_region *region);

typedef struct ht_layer_copy {
    const ht_op *op;         /* of the region */
    ht_value *weight, *bias; /* inputs of the copy: [out,k,k,in], [1,out]; bias may be NULL */
    ht_value *scale[2];      /* inputs [batch,2]: scales of HT_INPUT_STATIC, part by part; NULL if there are none */
    ht_value *output;        /* of the product alone, [batch,h,w,out], tokens as [batch,1,t,out] */
} ht_layer_copy;

typedef struct ht_region_copy {
    ht_value **inputs;     /* in the region's order; all are [batch,...] */
    ht_layer_copy *layers; /* in the region's order */
    ht_value *output;
} ht_region_copy;

/* Build a region into another graph, one plain operation after the other, for a batch of its own.  simulate: the layers
 * whose inputs become codes (mode and formats; those absent and HT_INPUT_FLOAT stay floats); NULL: none.  Errors stick
 * to g; an operation that has no gradient is HT_ERR_UNSUPPORTED. */
void ht_region_build(const ht_region *region, int64_t batch, const ht_layers *simulate, ht_graph *g, ht_arena *arena,
                     ht_region_copy *copy);

/* The weight of a layer as values [out,k,k,in]. */
void ht_weight_channels_last(const ht_tensor *weight, float *out);

#endif
