/* weights.h - a checkpoint's tensors by name, and the binding of a block's struct to them.
 *
 * Model code knows one naming, the checkpoint names of diffusers; other dialects are translated once, here at the door,
 * by a rename function. Errors stick, as on a graph: the first one stays, ht_weights_finish reports it. */
#ifndef HT_GRAPH_WEIGHTS_H
#define HT_GRAPH_WEIGHTS_H

#include "core/safetensors.h"
#include "graph/graph.h"

typedef struct ht_weights ht_weights;

/* The new name of a tensor, or NULL to leave it out (training state, EMA counters).  Strings live in the arena. */
typedef const char *(*ht_rename)(ht_arena *arena, const char *name, const void *context);

/* Index a checkpoint (borrowed, must outlive the weights).  rename may be NULL.  Two tensors renamed to one name are an
 * error. */
ht_status ht_weights_open(ht_arena *arena, const ht_safetensors *file, ht_rename rename, const void *context,
                          ht_weights **out);

/* The quantized layers of the checkpoint, borrowed, under the names of their tensors after renaming: each binds as the
 * weight it stands for, and what belongs to it (scales, zero points, second parts) is spoken for. */
void ht_weights_set_layers(ht_weights *w, const ht_layers *layers);

/* Fill in a layer from PREFIX.weight and PREFIX.bias, whose shapes must be as said.  A tensor that is missing or has
 * another shape is an error: FILE: conv_in.weight is [128,4,3,3], config.json asks for [128,3,3,3] so is a dtype that
 * is not real.  bias: whether PREFIX.bias must be there (an unexpected one is an error as well). */
void ht_bind_linear(ht_weights *w, ht_linear_weights *layer, int64_t in, int64_t out, bool bias, const char *prefix,
                    ...) __attribute__((format(printf, 6, 7)));
void ht_bind_conv(ht_weights *w, ht_conv_weights *layer, int64_t in, int64_t out, int kernel, bool bias,
                  const char *prefix, ...) __attribute__((format(printf, 7, 8)));
void ht_bind_norm(ht_weights *w, ht_norm_weights *layer, int64_t channels, const char *prefix, ...)
    __attribute__((format(printf, 4, 5)));
/* One tensor of the full name. */
const ht_tensor *ht_bind_tensor(ht_weights *w, int ndim, const int64_t *shape, const char *name, ...)
    __attribute__((format(printf, 4, 5)));
/* Whether a tensor of that full name is there. */
bool ht_weights_has(const ht_weights *w, const char *name);

/* The first error; or that a tensor of the checkpoint was bound by nothing (config.json and weights are of different
 * models). */
ht_status ht_weights_finish(ht_weights *w);

/* The tensors of the checkpoint in the order of their names, under those that the model code uses. */
size_t ht_weights_count(const ht_weights *w);
const ht_tensor *ht_weights_at(const ht_weights *w, size_t i);

/* Totals of what was bound. */
int64_t ht_weights_parameters(const ht_weights *w);
int64_t ht_weights_bytes(const ht_weights *w);

#endif
