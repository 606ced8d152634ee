/* fuse.c - rewriting a graph into fewer operations that compute the same bits.
 *
 * A rule looks at one operation (`last`) and, if the pattern that ends in it is there, changes it into an operation
 * that does the work of the pattern; what it made superfluous has no readers any more and is dropped later.  An
 * operation keeps its place in the order: everything the pattern read stands before its end.  A value that is tapped,
 * or read elsewhere too, is never fused away. */
#include <stdio.h>

#include "graph/graph_private.h"

/* The operation that made v, if v is read by one operation only and nobody wants to see it. */
static ht_op *only_for_me(const ht_graph *g, const ht_value *v)
{
    return v && v->producer && !v->tapped && ht_value_uses(g, v) == 1 ? v->producer : NULL;
}

static bool has(const ht_op *op, unsigned trait)
{
    return op && (ht_op_rows[op->kind].traits & trait);
}

/* A product whose epilogue has not come to its last parts, the scale and the activation. */
static bool takes_more(const ht_op *op)
{
    return has(op, HT_HAS_EPILOGUE) && op->attrs.scale == 1 && !op->attrs.activation;
}

/* A scale that is found from the value itself cannot be there before it. */
static bool depends_on(const ht_value *scale, const ht_value *v)
{
    const ht_value *from =
        scale->producer && scale->producer->kind == HT_OP_input_range ? scale->producer->in[HT_IN_X] : NULL;
    while (from && from != v && from->producer && has(from->producer, HT_IS_VIEW))
        from = from->producer->in[HT_IN_X];
    return from == v;
}

/* last becomes op, writing last's output; op itself reads nothing any more. */
static bool absorb(ht_op *last, ht_op *op)
{
    ht_value *out = last->out;
    *last = *op;
    last->out = out;
    if (!out->name[0])
        out->name = op->out->name;
    *op = (ht_op){.kind = op->kind, .out = op->out};
    return true;
}

/* silu(group_norm(x)), silu(scale_shift(x)): the activation is applied as the value is made. */
static bool activation_into_norm(const ht_graph *g, ht_op *last)
{
    ht_op *op = only_for_me(g, last->in[HT_IN_X]);
    if (!op || (op->kind != HT_OP_group_norm && op->kind != HT_OP_scale_shift) || op->attrs.activation)
        return false;
    absorb(last, op);
    last->attrs.activation = HT_ACT_SILU;
    return true;
}

/* conv(x) + row: the time embedding's row joins the bias in the epilogue. */
static bool row_into_product(const ht_graph *g, ht_op *last)
{
    ht_value *row = last->in[HT_IN_ROW];
    ht_op *op = only_for_me(g, last->in[HT_IN_X]);
    if (!takes_more(op) || op->in[HT_IN_ROW] || op->in[HT_IN_RESIDUAL])
        return false;
    absorb(last, op);
    last->in[HT_IN_ROW] = row;
    return true;
}

/* conv(x) + r, either way round; a view between the product and the sum changes nothing.  Of two products the later one
 * takes the sum. */
static bool residual_into_product(const ht_graph *g, ht_op *last)
{
    for (int side = HT_IN_X2; side >= HT_IN_X; side--) {
        ht_value *residual = last->in[side == HT_IN_X ? HT_IN_X2 : HT_IN_X];
        ht_op *op = only_for_me(g, last->in[side]);
        if (has(op, HT_IS_VIEW))
            op = only_for_me(g, op->in[HT_IN_X]);
        if (!takes_more(op) || op->in[HT_IN_RESIDUAL])
            continue;
        if (residual->batched != last->out->batched || op->out->batched != last->out->batched) /* one row to many */
            continue;
        absorb(last, op);
        last->in[HT_IN_RESIDUAL] = residual;
        return true;
    }
    return false;
}

/* product * scale: diffusers' output_scale_factor. */
static bool scale_into_product(const ht_graph *g, ht_op *last)
{
    float scale = last->attrs.scale;
    ht_op *op = only_for_me(g, last->in[HT_IN_X]);
    if (last->attrs.shift != 0 || !takes_more(op))
        return false;
    absorb(last, op);
    last->attrs.scale = scale;
    return true;
}

/* relu(product): the epilogue's last part, of products in float alone. */
static bool relu_into_product(const ht_graph *g, ht_op *last)
{
    ht_op *op = only_for_me(g, last->in[HT_IN_X]);
    if (!has(op, HT_HAS_EPILOGUE) || op->attrs.activation || (g->layers && g->layers->n))
        return false;
    absorb(last, op);
    last->attrs.activation = HT_ACT_RELU;
    return true;
}

/* conv(upsample(x)): the window reads each pixel where it lies.  Not where a row or column is left out: the window
 * would read it. */
static bool upsample_into_conv(const ht_graph *g, ht_op *last)
{
    ht_op *up = only_for_me(g, last->in[HT_IN_X]);
    if (!up || up->kind != HT_OP_upsample || up->attrs.crop_bottom || up->attrs.crop_right || last->in[HT_IN_X2] ||
        last->attrs.upsample != 1)
        return false;
    last->attrs.upsample = up->attrs.upsample;
    last->in[HT_IN_X] = up->in[HT_IN_X];
    up->in[HT_IN_X] = NULL;
    return true;
}

/* A reader of a concatenation reads its two parts, so the concatenation need not be stored (Q-Diffusion 3.3.2 quantizes
 * them apart). */
static bool concat_as_two(const ht_graph *g, ht_op *last)
{
    (void)g;
    ht_op *cat = last->in[HT_IN_X] ? last->in[HT_IN_X]->producer : NULL;
    if (!cat || cat->kind != HT_OP_concat || last->in[HT_IN_X2] || cat->out->tapped)
        return false;
    last->in[HT_IN_X] = cat->in[HT_IN_X];
    last->in[HT_IN_X2] = cat->in[HT_IN_X2];
    return true;
}

/* quantize(norm(x)), quantize(product): codes are made as the value is written; a view between the two changes
 * nothing. */
static bool quantize_into_maker(const ht_graph *g, ht_op *last)
{
    ht_value *scale = last->in[HT_IN_SCALE];
    const ht_format *codes = last->attrs.codes;
    ht_op *op = last->out->dtype == HT_U8 && scale->ndim == 2 ? only_for_me(g, last->in[HT_IN_X]) : NULL;
    if (has(op, HT_IS_VIEW))
        op = only_for_me(g, op->in[HT_IN_X]);
    if (!has(op, HT_MAKES_CODES) || op->in[HT_IN_OUT_SCALE] || depends_on(scale, op->out))
        return false;
    absorb(last, op);
    last->in[HT_IN_OUT_SCALE] = scale;
    last->attrs.codes = codes;
    return true;
}

static const struct {
    ht_op_kind last;
    bool (*rewrite)(const ht_graph *g, ht_op *last);
} rules[] = {
    {HT_OP_silu, activation_into_norm}, {HT_OP_add_row, row_into_product},  {HT_OP_add, residual_into_product},
    {HT_OP_affine, scale_into_product}, {HT_OP_conv2d, upsample_into_conv}, {HT_OP_quantize, quantize_into_maker},
    {HT_OP_relu, relu_into_product},
};

static bool rewrite(const ht_graph *g, ht_op *last)
{
    if (has(last, HT_TAKES_TWO) && concat_as_two(g, last))
        return true;
    for (size_t r = 0; r < sizeof rules / sizeof *rules; r++)
        if (last->kind == rules[r].last && rules[r].rewrite(g, last))
            return true;
    return false;
}

/* In order of execution, so that a pattern meets its parts already fused.  Each rewriting takes an operation out or a
 * concatenation's reader away, so it ends. */
void ht_graph_fuse(ht_graph *g)
{
    for (int i = 0; i < g->n_ops; i++)
        while (rewrite(g, g->ops[i]))
            continue;
}
