/* observe.c - keeping what calibration looks at: the inputs of every product, and their second moments. */
#include "graph/graph_private.h"

#include <stdio.h>

#include "graph/backend.h"

/* A linear layer is a window of one tap. */
static ht_attrs window_of(const ht_graph *g, const ht_op *op, int windows)
{
    ht_attrs a = op->attrs;
    const ht_value *out = op->out, *x = op->in[HT_IN_X];
    int64_t every = ht_value_count(out) / out->shape[0] / out->shape[out->ndim - 1] / windows;
    if (op->kind == HT_OP_linear)
        a = (ht_attrs){.kernel = 1, .kernel_height = 1, .stride = 1, .upsample = 1};
    if (g->observe.most && ht_value_count(op->in[HT_IN_WEIGHT]) / op->in[HT_IN_WEIGHT]->shape[0] > g->observe.most) {
        a = (ht_attrs){.kernel = 1, .kernel_height = 1, .stride = 1, .upsample = 1};
        every = ht_value_count(x) / x->shape[0] / x->shape[x->ndim - 1] / windows;
    }
    a.scale = 0;
    a.count = (int)(every | 1); /* odd, so that all columns of an image have their turn */
    return a;
}

/* How many of the first n operations have the weight of op. */
static int uses_before(const ht_graph *g, int n, const ht_op *op)
{
    int uses = 0;
    for (int i = 0; i < n; i++)
        uses += g->ops[i]->in[HT_IN_WEIGHT] && g->ops[i]->in[HT_IN_WEIGHT]->data == op->in[HT_IN_WEIGHT]->data;
    return uses;
}

static void add_gram(ht_graph *g, const ht_op *op, int use, int windows)
{
    char number[16] = "";
    ht_op gram = {.in = {[HT_IN_X] = op->in[HT_IN_X], [HT_IN_X2] = op->in[HT_IN_X2]},
                  .attrs = window_of(g, op, windows)};
    if (use)
        snprintf(number, sizeof number, ".%d", use);
    ht_value *v = ht_name(g, ht_graph_add_op(g, HT_OP_gram, &gram), "%s.gram%s", op->in[HT_IN_WEIGHT]->name, number);
    if (v)
        v->tapped = true;
}

static bool is_meant(const ht_observe *o, const ht_op *op)
{
    bool found = !o->only;
    for (int i = 0; i < o->n_only && !found; i++)
        found = o->only[i] == op->in[HT_IN_WEIGHT]->data;
    return found;
}

/* What runs once a timestep sees one row of input, whose second moments are that row's. */
void ht_graph_add_observers(ht_graph *g)
{
    int n = g->n_ops;
    for (int i = 0; i < n && !g->status; i++) {
        const ht_op *op = g->ops[i];
        if (!(ht_op_rows[op->kind].traits & HT_HAS_EPILOGUE) || !op->in[HT_IN_WEIGHT]) /* absorbed by another */
            continue;
        if (!is_meant(&g->observe, op))
            continue;
        bool once = ht_stage_of(op->out->deps) == HT_STAGE_T;
        if (g->observe.inputs || (g->observe.windows && once))
            for (int slot = HT_IN_X; slot <= HT_IN_X2; slot++)
                if (op->in[slot])
                    op->in[slot]->tapped = true;
        if (g->observe.outputs)
            op->out->tapped = true;
        if (g->observe.windows && !once)
            add_gram(g, op, uses_before(g, i, op), g->observe.windows);
    }
}
