/* graph_private.h - the inside of a graph, for the files of graph/ only. */
#ifndef HT_GRAPH_GRAPH_PRIVATE_H
#define HT_GRAPH_GRAPH_PRIVATE_H

#include "graph/graph.h"

/* Traits of an operation. */
enum {
    HT_HAS_EPILOGUE = 1, /* can add a row, add a residual, and scale as it writes its sums */
    HT_TAKES_TWO = 2,    /* reads a concatenation as two parts, X and X2, without a copy */
    HT_IS_VIEW = 4,      /* its output is its input's memory */
    HT_MAKES_CODES = 8   /* can write codes of OUT_SCALE instead of floats */
};

typedef bool (*ht_shape_rule)(ht_graph *g, ht_op *op, ht_value *out);

typedef struct ht_op_row {
    const char *name;
    ht_shape_rule shape;
    unsigned traits;
} ht_op_row;

extern const ht_op_row ht_op_rows[HT_OP_KINDS];

struct ht_graph {
    ht_arena *arena;
    ht_status status;
    char message[512]; /* of the first error */
    ht_op **ops;       /* in an order of execution */
    int n_ops, cap_ops;
    ht_value **values; /* by id; fusion leaves holes that no operation mentions */
    int n_values, cap_values;
    const char **taps;
    int n_taps, cap_taps;
    ht_value *output;
    const ht_layers *layers; /* NULL: nothing is quantized */
    ht_observe observe;
    bool finished;
};

/* Shape rules of graph/reverse_ops.c. */
bool ht_like_x_shape(ht_graph *g, ht_op *op, ht_value *out);
bool ht_conv2d_by_shape(ht_graph *g, ht_op *op, ht_value *out);
bool ht_conv2d_dw_shape(ht_graph *g, ht_op *op, ht_value *out);
bool ht_geglu_dx_shape(ht_graph *g, ht_op *op, ht_value *out);
bool ht_scores_shape(ht_graph *g, ht_op *op, ht_value *out);
bool ht_softmax_shape(ht_graph *g, ht_op *op, ht_value *out);
bool ht_mix_shape(ht_graph *g, ht_op *op, ht_value *out);
bool ht_simulate_shape(ht_graph *g, ht_op *op, ht_value *out);

/* Shape rules of graph/transformer_ops.c. */
bool ht_modulate_shape(ht_graph *g, ht_op *op, ht_value *out);
bool ht_gate_shape(ht_graph *g, ht_op *op, ht_value *out);
bool ht_rms_norm_shape(ht_graph *g, ht_op *op, ht_value *out);
bool ht_multiply_shape(ht_graph *g, ht_op *op, ht_value *out);
bool ht_rotate_shape(ht_graph *g, ht_op *op, ht_value *out);
bool ht_unpatchify_shape(ht_graph *g, ht_op *op, ht_value *out);
bool ht_row_shape(ht_graph *g, ht_op *op, ht_value *out);

/* A parameter as a value; the same tensor is the same value. */
ht_value *ht_graph_weight(ht_graph *g, const ht_tensor *t);

/* The number of operations that read v. */
int ht_value_uses(const ht_graph *g, const ht_value *v);

/* Put an operation at the end of the list. */
void ht_graph_append(ht_graph *g, ht_op *op);

/* An operation from its parts, at the end of the list; NULL if the graph has failed. */
ht_value *ht_graph_add_op(ht_graph *g, ht_op_kind kind, const ht_op *parts);

/* Rewrite operations into fewer that compute the same bits. */
void ht_graph_fuse(ht_graph *g);

/* Keep what g->observe asks for. */
void ht_graph_add_observers(ht_graph *g);

/* Put the layers into their operations, and before them what makes codes of their inputs. */
void ht_graph_quantize(ht_graph *g);

#endif
