/* graph_private.h - the inside of a graph, for the files of graph/ only. */
#ifndef HT_GRAPH_GRAPH_PRIVATE_H
#define HT_GRAPH_GRAPH_PRIVATE_H

#include "graph/graph.h"

/* Traits of an operation. */
enum {
    HT_HAS_EPILOGUE = 1, /* can add a row, add a residual, and scale as it writes its sums */
    HT_TAKES_TWO = 2,    /* reads a concatenation as two parts, X and X2, without a copy */
    HT_IS_VIEW = 4       /* its output is its input's memory */
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
    bool finished;
};

/* The number of operations that read v. */
int ht_value_uses(const ht_graph *g, const ht_value *v);

/* Rewrite operations into fewer that compute the same bits. */
void ht_graph_fuse(ht_graph *g);

#endif
