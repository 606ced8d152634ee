/* graph.h - a denoiser as a graph of operations, built by model code that reads like the paper.
 *
 * Values are edges: a shape, a dtype, and a dependency set, a subset of {t, cond, x}.  From the sets the graph falls
 * into stages by itself: what depends on {t} alone runs once per timestep of a schedule (TFMQ-DM's temporal information
 * block), what depends on {cond} alone once per prompt or class, {t, cond} once per pair, the rest every step.
 *
 * Errors stick: the first one stays on the graph, later calls do nothing and return NULL or their input,
 * ht_graph_finish reports it. */
#ifndef HT_GRAPH_GRAPH_H
#define HT_GRAPH_GRAPH_H

#include <stdbool.h>

#include "core/arena.h"
#include "core/error.h"
#include "core/tensor.h"
#include "quant/layer.h"

typedef enum ht_op_kind {
#define OP(name, ...) HT_OP_##name,
#include "graph/ops.def"
#undef OP
    HT_OP_KINDS
} ht_op_kind;

enum { HT_DEPENDS_T = 1, HT_DEPENDS_COND = 2, HT_DEPENDS_X = 4 };

/* The positions of an operation's inputs; absent ones are NULL.  Attention names its first three Q, K, V.  SCALE,
 * SCALE2: step and zero point of X and X2, where they are codes; OUT_SCALE: those of the output. */
enum {
    HT_IN_X,
    HT_IN_X2,
    HT_IN_WEIGHT,
    HT_IN_BIAS,
    HT_IN_ROW,
    HT_IN_RESIDUAL,
    HT_IN_SCALE,
    HT_IN_SCALE2,
    HT_IN_OUT_SCALE,
    HT_INPUTS
};
enum { HT_IN_Q = 0, HT_IN_K = 1, HT_IN_V = 2 };

typedef enum ht_activation { HT_ACT_NONE, HT_ACT_SILU, HT_ACT_RELU } ht_activation;

/* Attributes.  Each operation reads the part that is its own; ops.def says which. */
typedef struct ht_attrs {
    int kernel, kernel_height, stride; /* conv2d, pools: kernel is the width; both are one but of float conv2d */
    int pad_top, pad_left, pad_bottom,
        pad_right;               /* conv2d: zeros around the input (after upsampling); pools: nothing */
    int upsample;                /* conv2d, upsample: nearest, 1 or 2 */
    int crop_bottom, crop_right; /* upsample: rows and columns that are left out, 0 or 1 */
    int groups;                  /* group_norm */
    float eps;                   /* group_norm, layer_norm */
    ht_activation activation;    /* group_norm, scale_shift: SiLU; conv2d, linear: ReLU; applied last */
    int heads;                   /* attention */
    bool causal;                 /* attention: query t sees keys 0 .. t */
    ht_softmax_format softmax;   /* attention: what becomes of it */
    float scale, shift;          /* attention: of the scores; affine: x * scale + shift; conv2d, linear: see ops.def */
    int begin, count;            /* slice: channels begin .. begin+count-1 */
    int dim;                     /* timestep_embedding */
    bool flip_sin_to_cos;        /* timestep_embedding: cosines first */
    float freq_shift;            /* timestep_embedding: diffusers' downscale_freq_shift */
    const ht_input_table *table; /* input_scale: borrowed from a layer */
    const ht_format *codes;      /* quantize, input_range, and what makes codes as it writes: borrowed from a layer */
} ht_attrs;

typedef struct ht_value ht_value;
typedef struct ht_op ht_op;
typedef struct ht_graph ht_graph;

struct ht_value {
    int id;
    const char *name;
    int ndim;
    int64_t shape[4];      /* [n,h,w,c], [n,tokens,c], [n,c]; weights as in the checkpoint */
    ht_dtype dtype;        /* HT_F32, or HT_U8: codes of a quantized input.  Weights say theirs in data */
    unsigned deps;         /* of HT_DEPENDS_*; 0 for weights */
    bool batched;          /* shape[0] is the batch (and not 1 row for all images) */
    ht_op *producer;       /* NULL for weights and inputs */
    const ht_tensor *data; /* weights only: borrowed from the checkpoint, any real dtype */
    bool tapped;           /* keep it: outputs and taps */
};

struct ht_op {
    ht_op_kind kind;
    ht_value *in[HT_INPUTS];
    ht_value *out;
    ht_attrs attrs;
    const ht_layer *layer; /* linear, conv2d: how it is quantized; NULL: it is not */
};

/* ---- building ---- */

/* A graph lives in its arena, which must outlive it.  NULL: out of memory. */
ht_graph *ht_graph_create(ht_arena *arena);

/* A parameter of a layer as the checkpoint has it.  A struct of these mirrors a block; a table binds it
 * (graph/weights.h). */
typedef struct ht_linear_weights {
    const ht_tensor *weight, *bias; /* [out,in] (or [out,in,1,1]), [out] or NULL */
} ht_linear_weights;

typedef struct ht_conv_weights {
    const ht_tensor *weight, *bias; /* [out,in,k,k] ([out,in,kh,kw] if not quantized), [out] or NULL */
} ht_conv_weights;

typedef struct ht_norm_weights {
    const ht_tensor *weight, *bias; /* [c], [c] */
} ht_norm_weights;

typedef struct ht_conv_shape {
    int stride; /* 0 means 1 */
    int pad_top, pad_left, pad_bottom, pad_right;
} ht_conv_shape;

/* What comes from outside.  ndim 1..4, shape[0] the batch.  x: HT_DEPENDS_X; class labels: HT_DEPENDS_COND. */
ht_value *ht_input(ht_graph *g, const char *name, int ndim, const int64_t *shape, unsigned deps);
/* The timestep: one number for all images of a run.  [1,1], depends on {t}. */
ht_value *ht_timestep(ht_graph *g);

/* Sinusoidal embedding of t [n,1] -> [n,dim] (DDPM; diffusers' get_timestep_embedding), in float32 as the libraries
 * compute it.  Of several numbers, [n,k] -> [n,k*dim], each alone. */
ht_value *ht_timestep_embedding(ht_graph *g, ht_value *t, int dim, bool flip_sin_to_cos, float freq_shift);
ht_value *ht_embedding(ht_graph *g, ht_value *index, const ht_tensor *table); /* [n,1], [rows,c] -> [n,c]; of
                                                                                [n,tokens,1] [n,tokens,c] */
ht_value *ht_add_position(ht_graph *g, ht_value *x, const ht_tensor *table);  /* [n,tokens,c] + the first of its rows */
/* The row of a table that is nearest to each x: [...,c], [rows,c] -> [...,1].  Of rows at one distance the first. */
ht_value *ht_nearest_row(ht_graph *g, ht_value *x, const ht_tensor *table);
ht_value *ht_linear(ht_graph *g, ht_value *x, const ht_linear_weights *w); /* [...,in] -> [...,out] */
ht_value *ht_conv2d(ht_graph *g, ht_value *x, const ht_conv_weights *w,
                    ht_conv_shape shape); /* [n,h,w,in] -> [n,h',w',out] */
ht_value *ht_group_norm(ht_graph *g, ht_value *x, const ht_norm_weights *w, int groups, float eps); /* shape of x */
ht_value *ht_layer_norm(ht_graph *g, ht_value *x, const ht_norm_weights *w, float eps); /* each token by itself */
ht_value *ht_gelu(ht_graph *g, ht_value *x);       /* x * (1 + erf(x / sqrt 2)) / 2 */
ht_value *ht_quick_gelu(ht_graph *g, ht_value *x); /* x * sigmoid(1.702 x) */
ht_value *ht_gelu_tanh(ht_graph *g, ht_value *x);  /* x * (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))) / 2 */
/* x1 * gelu(x2) of the halves of [...,2c] (arXiv:2002.05202). */
ht_value *ht_geglu(ht_graph *g, ht_value *x);
ht_value *ht_silu(ht_graph *g, ht_value *x); /* x * sigmoid(x) */
ht_value *ht_relu(ht_graph *g, ht_value *x); /* max(x, 0) */
ht_value *ht_tanh(ht_graph *g, ht_value *x);
ht_value *ht_affine(ht_graph *g, ht_value *x, float scale, float shift); /* x * scale + shift */
ht_value *ht_add(ht_graph *g, ht_value *a, ht_value *b);                 /* same shapes; [1,c] + [n,c] broadcasts */
ht_value *ht_add_row(ht_graph *g, ht_value *x, ht_value *row);           /* [n,h,w,c] + [n or 1,c] */
ht_value *ht_scale_shift(ht_graph *g, ht_value *x, ht_value *scale,
                         ht_value *shift); /* x * (1 + scale row) + shift row */
/* layer_norm without weight and bias, * (1 + scale row) + shift row: adaLN (arXiv:2212.09748, section 3.2). */
ht_value *ht_modulate(ht_graph *g, ht_value *x, ht_value *scale, ht_value *shift, float eps);
ht_value *ht_gate(ht_graph *g, ht_value *x, ht_value *row, ht_value *residual); /* x * row + residual */
/* x / sqrt(mean(x^2) + eps) * weight, each token by itself (arXiv:1910.07467). */
ht_value *ht_rms_norm(ht_graph *g, ht_value *x, const ht_tensor *weight, float eps);
ht_value *ht_multiply(ht_graph *g, ht_value *a, ht_value *b); /* same shapes */
/* x times a number of each channel, of weights that were divided by it (SmoothQuant, arXiv:2211.10438). */
ht_value *ht_smooth(ht_graph *g, ht_value *x, const ht_tensor *factors);
/* Groups of so many channels rotated (quant/rotate.h). */
ht_value *ht_rotate_channels(ht_graph *g, ht_value *x, int group);
ht_value *ht_row(ht_graph *g, const ht_tensor *table, int row);     /* [rows,c] -> [1,c] */
ht_value *ht_slice(ht_graph *g, ht_value *x, int begin, int count); /* channels */
ht_value *ht_pick(ht_graph *g, ht_value *x, ht_value *token);       /* [n,tokens,c], [n,1] -> [n,c] */
ht_value *ht_concat(ht_graph *g, ht_value *a, ht_value *b);         /* along channels */
ht_value *ht_upsample(ht_graph *g, ht_value *x, int factor);        /* nearest, [n,h,w,c] */
/* Nearest, to h x w, each twice that of x or one less. */
ht_value *ht_upsample_to(ht_graph *g, ht_value *x, int64_t h, int64_t w);
ht_value *ht_avg_pool(ht_graph *g, ht_value *x); /* 2x2 stride 2, h and w rounded down */
/* Windows of kernel x kernel, of which what lies outside the image does not count: their largest, their mean. */
ht_value *ht_max_pool(ht_graph *g, ht_value *x, int kernel, ht_conv_shape shape);
ht_value *ht_mean_pool(ht_graph *g, ht_value *x, int kernel, ht_conv_shape shape);
ht_value *ht_mean(ht_graph *g, ht_value *x);                                    /* over h and w: [n,h,w,c] -> [n,c] */
ht_value *ht_reshape(ht_graph *g, ht_value *x, int ndim, const int64_t *shape); /* same elements, same channels */
/* Patches beside one another again: [n,h,w,size*size*c] -> [n,h*size,w*size,c]; within a patch rows, columns, c. */
ht_value *ht_unpatchify(ht_graph *g, ht_value *x, int size);
/* softmax(q k^T * scale) v per head.   q [n,tq,heads*d], k, v [n,tk,heads*d] -> [n,tq,heads*d] */
ht_value *ht_attention(ht_graph *g, ht_value *q, ht_value *k, ht_value *v, int heads, float scale);
/* The same where query t sees keys 0 .. t; as many keys as queries. */
ht_value *ht_causal_attention(ht_graph *g, ht_value *q, ht_value *k, ht_value *v, int heads, float scale);

/* Added to the scores before the softmax, NULL: nothing.  keys: [n,tk], to those of each key; distances:
 * [heads,tq+tk-1], to that of query t and key j what stands at j - t + tq - 1. */
typedef struct ht_attention_bias {
    ht_value *keys;
    const ht_tensor *distances;
} ht_attention_bias;

ht_value *ht_biased_attention(ht_graph *g, ht_value *q, ht_value *k, ht_value *v, int heads, float scale,
                              ht_attention_bias bias);

/* A weight that the checkpoint has not, float32, which the caller fills in: *values is its memory, the graph's.
 * NULL: out of memory, or the size is out of range. */
const ht_tensor *ht_constant(ht_graph *g, const char *name, int ndim, const int64_t *shape, float **values);

/* Name a value (printf-style): taps, traces and reports use it.  Layers name their output after their weight by
 * themselves.  Returns v. */
ht_value *ht_name(ht_graph *g, ht_value *v, const char *format, ...) __attribute__((format(printf, 3, 4)));
/* Record an error; the first one stays. */
void ht_graph_fail(ht_graph *g, ht_status status, const char *format, ...) __attribute__((format(printf, 3, 4)));

/* The output of the graph. */
void ht_output_value(ht_graph *g, ht_value *v, const char *name);
/* Keep the value of this name until the end of the run so that it can be read.  Unknown names fail in ht_graph_finish.
 */
void ht_tap(ht_graph *g, const char *name);

/* The layers of this model that are quantized, borrowed for as long as the graph: finishing puts them into the
 * operations whose weights have their names (graph/quantize.c). */
void ht_graph_set_layers(ht_graph *g, const ht_layers *layers);

/* What calibration wants to see of every linear and conv2d after fusion: its inputs and outputs kept to the end of the
 * run (as taps are, but without keeping anything from being fused), and for those that depend on more than {t} a value
 * WEIGHT.gram, the second moments of about `windows` windows of each image, evenly spread (0: none).  Of a weight that
 * several have, WEIGHT.gram is of the first, WEIGHT.gram.1 of the second. */
typedef struct ht_observe {
    bool inputs, outputs;
    int windows;
    int64_t most; /* inputs of a window; of more than these, moments of its channels alone, [c,c], at one
                     tap (0: all).  What depends on {t} alone has its inputs kept instead. */
    const ht_tensor *const *only; /* [n_only] weights: the layers that are meant; NULL: all */
    int n_only;
} ht_observe;

void ht_graph_observe(ht_graph *g, ht_observe observe);

/* Infer stages, fuse, quantize, drop what nothing uses.  The first error of all calls before. */
ht_status ht_graph_finish(ht_graph *g, bool fuse);

/* ---- reading, after finish ---- */

int ht_graph_ops(const ht_graph *g);
const ht_op *ht_graph_op(const ht_graph *g, int i); /* in an order of execution */
int ht_graph_values(const ht_graph *g);
const ht_value *ht_graph_value(const ht_graph *g, int id);
const ht_value *ht_graph_find(const ht_graph *g, const char *name);  /* NULL if absent */
const ht_value *ht_graph_input(const ht_graph *g, const char *name); /* that ht_input made; NULL if absent */
const ht_value *ht_graph_output(const ht_graph *g);

const char *ht_op_kind_name(ht_op_kind kind);
bool ht_op_is_product(const ht_op *op);    /* linear, conv2d */
bool ht_op_is_view(const ht_op *op);       /* its output is its input's memory: nothing to run */
int64_t ht_value_count(const ht_value *v); /* elements */
double ht_op_macs(const ht_op *op);        /* multiply-accumulates of one image */

/* One line an operation, in order: "%7 conv2d [2,8,8,16] <- %3 [2,8,8,16] ...".  For tests and reports; freed with the
 * arena. */
char *ht_graph_print(const ht_graph *g, ht_arena *arena);

#endif
