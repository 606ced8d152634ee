/* reverse.c - reverse mode: from the end of a graph to its beginning, every operation hands the gradient of its output
 * on to its inputs, as operations appended to the same graph (Griewank and Walther, Evaluating Derivatives, 2008,
 * section 3.2).  What several readers of a value hand on is added in the reverse order of the readers.
 *
 * A rule knows one operation.  It may make gradients that nobody wants; finishing the graph drops them. */
#include "graph/reverse.h"

#include "graph/graph_private.h"

typedef struct reverse {
    ht_graph *g;
    int values;      /* of the graph before the first gradient */
    bool *wanted;    /* by value: depends on what is differentiated by */
    ht_value **sums; /* by value: its gradient so far */
} reverse;

static bool wants(const reverse *r, const ht_value *v)
{
    return v && r->wanted[v->id];
}

static void give(reverse *r, const ht_value *v, ht_value *gradient)
{
    if (wants(r, v))
        r->sums[v->id] = r->sums[v->id] ? ht_add(r->g, r->sums[v->id], gradient) : gradient;
}

/* The gradient by slot's value cannot be computed. */
static void refuse(reverse *r, const ht_op *op, int slot)
{
    if (wants(r, op->in[slot]))
        ht_graph_fail(r->g, HT_ERR_UNSUPPORTED, "%s of %s: gradients do not flow through this input",
                      ht_op_kind_name(op->kind), op->in[HT_IN_X]->name);
}

static ht_value *gradient_op(reverse *r, ht_op_kind kind, const ht_op *op, ht_value *dy)
{
    ht_op parts = *op;
    parts.in[HT_IN_GRADIENT] = dy;
    return ht_graph_add_op(r->g, kind, &parts);
}

static int64_t positions(const ht_value *v)
{
    return ht_value_count(v) / v->shape[0] / v->shape[v->ndim - 1];
}

/* The sum of dy over the positions of each image: [n,c]. */
static ht_value *sum_positions(reverse *r, ht_value *dy)
{
    if (!dy || dy->ndim == 2)
        return dy;
    int64_t c = dy->shape[dy->ndim - 1];
    ht_value *image = ht_reshape(r->g, dy, 4, (const int64_t[]){dy->shape[0], 1, positions(dy), c});
    return ht_affine(r->g, ht_mean(r->g, image), (float)positions(dy), 0);
}

/* ---- rules ---- */

static void conv2d_by(reverse *r, const ht_op *op, ht_value *dy)
{
    if (wants(r, op->in[HT_IN_X]))
        give(r, op->in[HT_IN_X], gradient_op(r, HT_OP_conv2d_dx, op, dy));
    if (wants(r, op->in[HT_IN_WEIGHT]))
        give(r, op->in[HT_IN_WEIGHT], gradient_op(r, HT_OP_conv2d_dw, op, dy));
    refuse(r, op, HT_IN_BIAS);
}

static void group_norm(reverse *r, const ht_op *op, ht_value *dy)
{
    if (op->attrs.activation || op->in[HT_IN_X2])
        refuse(r, op, HT_IN_X);
    else
        give(r, op->in[HT_IN_X], gradient_op(r, HT_OP_group_norm_dx, op, dy));
}

static void layer_norm(reverse *r, const ht_op *op, ht_value *dy)
{
    give(r, op->in[HT_IN_X], gradient_op(r, HT_OP_layer_norm_dx, op, dy));
}

static void geglu(reverse *r, const ht_op *op, ht_value *dy)
{
    give(r, op->in[HT_IN_X], gradient_op(r, HT_OP_geglu_dx, op, dy));
}

static void silu(reverse *r, const ht_op *op, ht_value *dy)
{
    give(r, op->in[HT_IN_X], gradient_op(r, HT_OP_silu_dx, op, dy));
}

static void simulate(reverse *r, const ht_op *op, ht_value *dy)
{
    give(r, op->in[HT_IN_X], gradient_op(r, HT_OP_simulate_dx, op, dy));
}

static void affine(reverse *r, const ht_op *op, ht_value *dy)
{
    give(r, op->in[HT_IN_X], ht_affine(r->g, dy, op->attrs.scale, 0));
}

static void add(reverse *r, const ht_op *op, ht_value *dy)
{
    for (int slot = HT_IN_X; slot <= HT_IN_X2; slot++)
        if (op->in[slot]->batched == op->out->batched)
            give(r, op->in[slot], dy);
        else
            refuse(r, op, slot);
}

static void add_row(reverse *r, const ht_op *op, ht_value *dy)
{
    give(r, op->in[HT_IN_X], dy);
    if (op->in[HT_IN_ROW]->batched != op->out->batched)
        refuse(r, op, HT_IN_ROW);
    else if (wants(r, op->in[HT_IN_ROW]))
        give(r, op->in[HT_IN_ROW], sum_positions(r, dy));
}

/* dx = dy (1 + scale), which is a scale_shift without a shift. */
static void scale_shift(reverse *r, const ht_op *op, ht_value *dy)
{
    ht_value *scale = op->in[HT_IN_ROW];
    refuse(r, op, HT_IN_ROW);
    refuse(r, op, HT_IN_RESIDUAL);
    if (op->attrs.activation)
        refuse(r, op, HT_IN_X);
    else
        give(r, op->in[HT_IN_X], ht_scale_shift(r->g, dy, scale, ht_affine(r->g, scale, 0, 0)));
}

static void concat(reverse *r, const ht_op *op, ht_value *dy)
{
    const ht_value *a = op->in[HT_IN_X], *b = op->in[HT_IN_X2];
    int first = (int)a->shape[a->ndim - 1], second = (int)b->shape[b->ndim - 1];
    give(r, a, ht_slice(r->g, dy, 0, first));
    give(r, b, ht_slice(r->g, dy, first, second));
}

/* The sum of four is four times their mean. */
static void upsample(reverse *r, const ht_op *op, ht_value *dy)
{
    if (op->attrs.crop_bottom || op->attrs.crop_right)
        refuse(r, op, HT_IN_X);
    else
        give(r, op->in[HT_IN_X], ht_affine(r->g, ht_avg_pool(r->g, dy), 4, 0));
}

static void avg_pool(reverse *r, const ht_op *op, ht_value *dy)
{
    const ht_value *x = op->in[HT_IN_X];
    if (x->shape[1] % 2 || x->shape[2] % 2)
        refuse(r, op, HT_IN_X);
    else
        give(r, x, ht_affine(r->g, ht_upsample(r->g, dy, 2), 0.25f, 0));
}

static void reshape(reverse *r, const ht_op *op, ht_value *dy)
{
    give(r, op->in[HT_IN_X], ht_reshape(r->g, dy, op->in[HT_IN_X]->ndim, op->in[HT_IN_X]->shape));
}

static void scores(reverse *r, const ht_op *op, ht_value *dy)
{
    give(r, op->in[HT_IN_Q], ht_mix(r->g, dy, op->in[HT_IN_K], op->attrs.heads, op->attrs.scale));
    give(r, op->in[HT_IN_K], ht_mix_t(r->g, dy, op->in[HT_IN_Q], op->attrs.heads, op->attrs.scale));
}

/* From the probabilities, not from the scores. */
static void softmax(reverse *r, const ht_op *op, ht_value *dy)
{
    ht_op parts = {.in = {[HT_IN_X] = op->out, [HT_IN_GRADIENT] = dy}, .attrs = op->attrs};
    give(r, op->in[HT_IN_X], ht_graph_add_op(r->g, HT_OP_softmax_dx, &parts));
}

static void mix(reverse *r, const ht_op *op, ht_value *dy)
{
    give(r, op->in[HT_IN_X], ht_scores(r->g, dy, op->in[HT_IN_X2], op->attrs.heads, op->attrs.scale));
    give(r, op->in[HT_IN_X2], ht_mix_t(r->g, op->in[HT_IN_X], dy, op->attrs.heads, op->attrs.scale));
}

typedef void rule(reverse *r, const ht_op *op, ht_value *dy);

static rule *const rules[HT_OP_KINDS] = {
    [HT_OP_conv2d_by] = conv2d_by,
    [HT_OP_group_norm] = group_norm,
    [HT_OP_silu] = silu,
    [HT_OP_simulate] = simulate,
    [HT_OP_affine] = affine,
    [HT_OP_add] = add,
    [HT_OP_add_row] = add_row,
    [HT_OP_scale_shift] = scale_shift,
    [HT_OP_concat] = concat,
    [HT_OP_upsample] = upsample,
    [HT_OP_avg_pool] = avg_pool,
    [HT_OP_reshape] = reshape,
    [HT_OP_layer_norm] = layer_norm,
    [HT_OP_geglu] = geglu,
    [HT_OP_scores] = scores,
    [HT_OP_softmax] = softmax,
    [HT_OP_mix] = mix,
};

/* ---- the way back ---- */

static void mark_wanted(reverse *r, int n, ht_value *const *of)
{
    for (int i = 0; i < n; i++)
        r->wanted[of[i]->id] = true;
    for (int i = 0; i < r->g->n_ops; i++) {
        const ht_op *op = r->g->ops[i];
        for (int j = 0; j < HT_INPUTS; j++)
            r->wanted[op->out->id] |= wants(r, op->in[j]);
    }
}

static void walk_back(reverse *r)
{
    for (int i = r->g->n_ops; i-- > 0 && !r->g->status;) {
        const ht_op *op = r->g->ops[i];
        ht_value *dy = op->out->id < r->values ? r->sums[op->out->id] : NULL;
        if (!dy)
            continue;
        if (rules[op->kind])
            rules[op->kind](r, op, dy);
        else
            for (int j = 0; j < HT_INPUTS; j++)
                refuse(r, op, j);
    }
}

void ht_gradients(ht_graph *g, ht_value *y, ht_value *dy, int n, ht_value *const *of, ht_value **gradients)
{
    if (g->status || !y || !dy)
        return;
    size_t values = (size_t)g->n_values;
    reverse r = {g, g->n_values, ht_alloc_array(g->arena, values, sizeof *r.wanted),
                 ht_alloc_array(g->arena, values, sizeof(ht_value *))};
    if (!r.wanted || !r.sums) {
        ht_graph_fail(g, HT_ERR_MEMORY, "out of memory for the gradients of %d values", n);
        return;
    }
    mark_wanted(&r, n, of);
    give(&r, y, dy);
    walk_back(&r);
    for (int i = 0; i < n && !g->status; i++)
        if (!(gradients[i] = r.sums[of[i]->id]))
            ht_graph_fail(g, HT_ERR_ARGUMENT, "%s does not depend on %s", y->name, of[i]->name);
}
