/* transformer_ops.c - the operations that diffusion transformers and T5 bring besides those of graph.c: their builders
 * and shape rules.  graph/ops.def says what they compute. */
#include <string.h>

#include "graph/graph_private.h"
#include "quant/rotate.h"

static int64_t channels(const ht_value *v)
{
    return v->shape[v->ndim - 1];
}

static bool same(const ht_value *a, const ht_value *b)
{
    return a->ndim == b->ndim && !memcmp(a->shape, b->shape, (size_t)a->ndim * sizeof *a->shape);
}

static bool like(ht_value *out, const ht_value *x)
{
    out->ndim = x->ndim;
    memcpy(out->shape, x->shape, sizeof out->shape);
    return true;
}

static bool wrong(ht_graph *g, const ht_op *op, const char *what)
{
    ht_graph_fail(g, HT_ERR_SHAPE, "%s of %s: %s", ht_op_kind_name(op->kind), op->in[HT_IN_X]->name, what);
    return false;
}

/* [1 or n, channels of x], and x itself of n images. */
static bool is_row_of(const ht_value *row, const ht_value *x)
{
    return row->ndim == 2 && channels(row) == channels(x) && (row->shape[0] == 1 || row->shape[0] == x->shape[0]) &&
           (x->batched || !row->batched);
}

/* ---- shapes ---- */

bool ht_modulate_shape(ht_graph *g, ht_op *op, ht_value *out)
{
    const ht_value *x = op->in[HT_IN_X];
    if (!is_row_of(op->in[HT_IN_ROW], x) || !is_row_of(op->in[HT_IN_RESIDUAL], x))
        return wrong(g, op, "scale and shift must be [1 or n, channels]");
    return like(out, x);
}

bool ht_gate_shape(ht_graph *g, ht_op *op, ht_value *out)
{
    const ht_value *x = op->in[HT_IN_X], *residual = op->in[HT_IN_RESIDUAL];
    if (!is_row_of(op->in[HT_IN_ROW], x))
        return wrong(g, op, "the gate must be [1 or n, channels]");
    if (!same(x, residual) || x->batched != residual->batched)
        return wrong(g, op, "the residual must have its shape");
    return like(out, x);
}

bool ht_rms_norm_shape(ht_graph *g, ht_op *op, ht_value *out)
{
    const ht_value *x = op->in[HT_IN_X], *w = op->in[HT_IN_WEIGHT];
    if (w->ndim != 1 || w->shape[0] != channels(x))
        return wrong(g, op, "the weight must be [channels]");
    return like(out, x);
}

bool ht_multiply_shape(ht_graph *g, ht_op *op, ht_value *out)
{
    const ht_value *a = op->in[HT_IN_X], *b = op->in[HT_IN_X2];
    if (!same(a, b) || a->batched != b->batched)
        return wrong(g, op, "the shapes differ");
    return like(out, a);
}

bool ht_rotate_shape(ht_graph *g, ht_op *op, ht_value *out)
{
    const ht_value *x = op->in[HT_IN_X];
    if (!ht_rotates(op->attrs.count) || channels(x) % op->attrs.count)
        return wrong(g, op, "channels must be whole groups, of a power of 4");
    return like(out, x);
}

bool ht_unpatchify_shape(ht_graph *g, ht_op *op, ht_value *out)
{
    const ht_value *x = op->in[HT_IN_X];
    int64_t k = op->attrs.kernel;
    if (x->ndim != 4 || k < 1 || k > 64 || channels(x) % (k * k))
        return wrong(g, op, "wanted [n,h,w,k*k*c], k 1 to 64");
    like(out, x);
    out->shape[1] *= k;
    out->shape[2] *= k;
    out->shape[3] /= k * k;
    return true;
}

bool ht_row_shape(ht_graph *g, ht_op *op, ht_value *out)
{
    const ht_value *table = op->in[HT_IN_WEIGHT];
    if (table->ndim != 2 || op->attrs.begin < 0 || op->attrs.begin >= table->shape[0]) {
        ht_graph_fail(g, HT_ERR_SHAPE, "%s: has no row %d", table->name, op->attrs.begin);
        return false;
    }
    out->ndim = 2;
    out->shape[0] = 1;
    out->shape[1] = table->shape[1];
    return true;
}

/* ---- builders ---- */

ht_value *ht_modulate(ht_graph *g, ht_value *x, ht_value *scale, ht_value *shift, float eps)
{
    return ht_graph_add_op(
        g, HT_OP_modulate,
        &(ht_op){.in = {[HT_IN_X] = x, [HT_IN_ROW] = scale, [HT_IN_RESIDUAL] = shift}, .attrs = {.eps = eps}});
}

ht_value *ht_gate(ht_graph *g, ht_value *x, ht_value *row, ht_value *residual)
{
    return ht_graph_add_op(g, HT_OP_gate,
                           &(ht_op){.in = {[HT_IN_X] = x, [HT_IN_ROW] = row, [HT_IN_RESIDUAL] = residual}});
}

ht_value *ht_rms_norm(ht_graph *g, ht_value *x, const ht_tensor *weight, float eps)
{
    ht_value *w = ht_graph_weight(g, weight);
    return ht_graph_add_op(g, HT_OP_rms_norm,
                           &(ht_op){.in = {[HT_IN_X] = x, [HT_IN_WEIGHT] = w}, .attrs = {.eps = eps}});
}

ht_value *ht_smooth(ht_graph *g, ht_value *x, const ht_tensor *factors)
{
    ht_value *w = ht_graph_weight(g, factors);
    return ht_graph_add_op(g, HT_OP_smooth, &(ht_op){.in = {[HT_IN_X] = x, [HT_IN_WEIGHT] = w}});
}

ht_value *ht_multiply(ht_graph *g, ht_value *a, ht_value *b)
{
    return ht_graph_add_op(g, HT_OP_multiply, &(ht_op){.in = {[HT_IN_X] = a, [HT_IN_X2] = b}});
}

ht_value *ht_rotate_channels(ht_graph *g, ht_value *x, int group)
{
    return ht_graph_add_op(g, HT_OP_rotate, &(ht_op){.in = {x}, .attrs = {.count = group}});
}

ht_value *ht_unpatchify(ht_graph *g, ht_value *x, int size)
{
    return ht_graph_add_op(g, HT_OP_unpatchify, &(ht_op){.in = {x}, .attrs = {.kernel = size, .kernel_height = size}});
}

ht_value *ht_row(ht_graph *g, const ht_tensor *table, int row)
{
    ht_value *w = ht_graph_weight(g, table);
    return ht_graph_add_op(g, HT_OP_row, &(ht_op){.in = {[HT_IN_WEIGHT] = w}, .attrs = {.begin = row}});
}

ht_value *ht_biased_attention(ht_graph *g, ht_value *q, ht_value *k, ht_value *v, int heads, float scale,
                              ht_attention_bias bias)
{
    ht_value *distances = bias.distances ? ht_graph_weight(g, bias.distances) : NULL;
    ht_op op = {.in = {[HT_IN_Q] = q, [HT_IN_K] = k, [HT_IN_V] = v, [HT_IN_ROW] = bias.keys, [HT_IN_BIAS] = distances},
                .attrs = {.heads = heads, .scale = scale}};
    return ht_graph_add_op(g, HT_OP_attention, &op);
}

/* ---- constants ---- */

const ht_tensor *ht_constant(ht_graph *g, const char *name, int ndim, const int64_t *shape, float **values)
{
    ht_tensor *t = g->status ? NULL : ht_alloc(g->arena, sizeof *t);
    size_t count = 1;
    bool fits = true;
    if (!t)
        return NULL;
    for (int i = 0; i < ndim; i++)
        fits &= shape[i] > 0 && ht_mul_size(count, (size_t)shape[i], &count) && count <= (size_t)1 << 32;
    *values = fits ? ht_alloc_array(g->arena, count, sizeof **values) : NULL;
    if (!*values) {
        ht_graph_fail(g, HT_ERR_MEMORY, "out of memory for %s", name);
        return NULL;
    }
    *t = (ht_tensor){
        .name = name, .dtype = HT_F32, .ndim = ndim, .data = *values, .count = count, .bytes = count * sizeof **values};
    memcpy(t->shape, shape, (size_t)ndim * sizeof *shape);
    return t;
}
