/* unfuse.c - a region built anew from plain operations, with weights that are values: what reverse mode can take apart.
 * Whatever fusion put into one operation becomes several again. */
#include <string.h>

#include "graph/graph_private.h"
#include "graph/reverse.h"

typedef struct builder {
    const ht_region *region;
    const ht_layers *simulate;
    int64_t batch;
    ht_graph *g;
    ht_arena *arena;
    ht_value **made; /* by the region's values: theirs in g */
    ht_region_copy *copy;
    int layers;
} builder;

static ht_value *input(builder *b, const ht_op *op, int slot)
{
    return op->in[slot] ? b->made[op->in[slot]->id] : NULL;
}

/* v in the shape that the source has, but for the batch. */
static ht_value *fit(const builder *b, ht_value *v, const ht_value *source)
{
    int64_t shape[4];
    if (!v || v->ndim == source->ndim)
        return v;
    memcpy(shape, source->shape, sizeof shape);
    shape[0] = b->batch;
    return ht_reshape(b->g, v, source->ndim, shape);
}

static ht_value *joined(builder *b, const ht_op *op)
{
    ht_value *x = input(b, op, HT_IN_X), *x2 = input(b, op, HT_IN_X2);
    return x2 ? ht_concat(b->g, x, x2) : x;
}

/* ---- convolutions and linear maps ---- */

/* What an input becomes as codes, if the layer takes codes. */
static ht_value *simulated(builder *b, const ht_layer *layer, int part, ht_value *x)
{
    if (!x || !layer || layer->mode == HT_INPUT_FLOAT)
        return x;
    ht_value **scale = &b->copy->layers[b->layers].scale[part];
    if (layer->mode == HT_INPUT_DYNAMIC) {
        ht_op range = {.in = {x}, .attrs = {.codes = &layer->input}};
        return ht_simulate(b->g, x, ht_graph_add_op(b->g, HT_OP_input_range, &range), &layer->input);
    }
    if (!*scale)
        *scale = ht_input(b->g, "scale", 2, (const int64_t[]){b->batch, 2}, HT_DEPENDS_X);
    return ht_simulate(b->g, x, *scale, &layer->input);
}

static ht_value *layer_input(builder *b, const ht_op *op)
{
    const ht_layer *layer = ht_layers_of_weight(b->simulate, op->in[HT_IN_WEIGHT]->name);
    ht_value *x = input(b, op, HT_IN_X), *x2 = input(b, op, HT_IN_X2);
    int64_t c = x ? x->shape[x->ndim - 1] : 0;
    if (!layer || layer->parts == 1)
        return simulated(b, layer, 0, x2 ? ht_concat(b->g, x, x2) : x);
    int64_t first = layer->part[0].count, second = layer->part[1].count;
    if (!x2 && c == first + second) { /* a concatenation that comes from outside */
        x2 = ht_slice(b->g, x, (int)first, (int)second);
        x = ht_slice(b->g, x, 0, (int)first);
    }
    if (x2 && x && x->shape[x->ndim - 1] != first)
        ht_graph_fail(b->g, HT_ERR_SHAPE, "%s: is quantized in two parts which the model does not read", layer->name);
    return ht_concat(b->g, simulated(b, layer, 0, x), simulated(b, layer, 1, x2));
}

static ht_value *product(builder *b, const ht_op *op)
{
    const ht_value *w = op->in[HT_IN_WEIGHT], *bias = op->in[HT_IN_BIAS];
    const ht_attrs *a = &op->attrs;
    ht_layer_copy *layer = &b->copy->layers[b->layers];
    int64_t k = op->kind == HT_OP_conv2d ? w->shape[2] : 1;
    ht_conv_shape shape = {0};
    ht_value *x = layer_input(b, op);
    layer->op = op;
    layer->weight = ht_constant_input(b->g, w->name, 4, (const int64_t[]){w->shape[0], k, k, w->shape[1]});
    if (bias)
        layer->bias = ht_constant_input(b->g, bias->name, 2, (const int64_t[]){1, bias->shape[0]});
    b->layers++;
    if (!x)
        return NULL;
    if (op->kind == HT_OP_conv2d)
        shape = (ht_conv_shape){a->stride, a->pad_top, a->pad_left, a->pad_bottom, a->pad_right};
    if (a->upsample == 2)
        x = ht_upsample(b->g, x, 2);
    int ndim = x->ndim;
    int64_t c = x->shape[ndim - 1], tokens[4] = {x->shape[0], ndim == 3 ? x->shape[1] : 1, w->shape[0], 0};
    if (ndim < 4)
        x = ht_reshape(b->g, x, 4, (const int64_t[]){tokens[0], 1, tokens[1], c});
    layer->output = x = ht_conv2d_by(b->g, x, layer->weight, layer->bias, shape);
    if (ndim == 2)
        tokens[1] = w->shape[0];
    return x && ndim < 4 ? ht_reshape(b->g, x, ndim, tokens) : x;
}

/* The same with its epilogue. */
static ht_value *layer(builder *b, const ht_op *op)
{
    ht_value *y = product(b, op), *row = input(b, op, HT_IN_ROW), *residual = input(b, op, HT_IN_RESIDUAL);
    y = row ? ht_add_row(b->g, y, row) : y;
    y = fit(b, y, op->out);
    y = residual ? ht_add(b->g, y, fit(b, residual, op->out)) : y;
    y = op->attrs.scale != 1 ? ht_affine(b->g, y, op->attrs.scale, 0) : y;
    return op->attrs.activation == HT_ACT_RELU ? ht_relu(b->g, y) : y;
}

/* ---- the others ---- */

static ht_value *activated(builder *b, const ht_op *op, ht_value *y)
{
    return op->attrs.activation == HT_ACT_SILU ? ht_silu(b->g, y) : y;
}

static ht_value *group_norm(builder *b, const ht_op *op)
{
    ht_norm_weights w = {op->in[HT_IN_WEIGHT]->data, op->in[HT_IN_BIAS]->data};
    return activated(b, op, ht_group_norm(b->g, joined(b, op), &w, op->attrs.groups, op->attrs.eps));
}

static ht_value *layer_norm(builder *b, const ht_op *op)
{
    ht_norm_weights w = {op->in[HT_IN_WEIGHT]->data, op->in[HT_IN_BIAS]->data};
    return ht_layer_norm(b->g, input(b, op, HT_IN_X), &w, op->attrs.eps);
}

static ht_value *attention(builder *b, const ht_op *op)
{
    if (op->attrs.causal)
        ht_graph_fail(b->g, HT_ERR_UNSUPPORTED, "%s: causal attention cannot be reconstructed", op->out->name);
    ht_value *s = ht_scores(b->g, input(b, op, HT_IN_Q), input(b, op, HT_IN_K), op->attrs.heads, op->attrs.scale);
    return ht_mix(b->g, ht_softmax(b->g, s, op->attrs.heads), input(b, op, HT_IN_V), op->attrs.heads, 1);
}

static ht_value *scale_shift(builder *b, const ht_op *op)
{
    ht_value *x = input(b, op, HT_IN_X);
    return activated(b, op, ht_scale_shift(b->g, x, input(b, op, HT_IN_ROW), input(b, op, HT_IN_RESIDUAL)));
}

static ht_value *reshape(builder *b, const ht_op *op)
{
    int64_t shape[4];
    memcpy(shape, op->out->shape, sizeof shape);
    shape[0] = b->batch;
    ht_value *x = input(b, op, HT_IN_X);
    return x ? ht_reshape(b->g, x, op->out->ndim, shape) : NULL;
}

/* Operations that were not fused and have no weights: as they are. */
static ht_value *same(builder *b, const ht_op *op)
{
    ht_op parts = {.attrs = op->attrs};
    for (int i = 0; i < HT_INPUTS; i++)
        if ((parts.in[i] = input(b, op, i)) == NULL && op->in[i])
            return NULL;
    return ht_graph_add_op(b->g, op->kind, &parts);
}

static ht_value *(*const build[HT_OP_KINDS])(builder *b, const ht_op *op) = {
    [HT_OP_linear] = layer,
    [HT_OP_conv2d] = layer,
    [HT_OP_group_norm] = group_norm,
    [HT_OP_layer_norm] = layer_norm,
    [HT_OP_geglu] = same,
    [HT_OP_attention] = attention,
    [HT_OP_reshape] = reshape,
    [HT_OP_silu] = same,
    [HT_OP_affine] = same,
    [HT_OP_add] = same,
    [HT_OP_add_row] = same,
    [HT_OP_scale_shift] = scale_shift,
    [HT_OP_slice] = same,
    [HT_OP_concat] = same,
    [HT_OP_upsample] = same,
    [HT_OP_avg_pool] = same,
    [HT_OP_relu] = same,
    [HT_OP_mean] = same,
};

/* ---- a region ---- */

const ht_op *ht_region_lacks(const ht_region *region)
{
    for (int i = 0; i < region->n_ops; i++)
        if (!build[region->ops[i]->kind])
            return region->ops[i];
    return NULL;
}

static int largest_id(const ht_region *r)
{
    int id = 0;
    for (int i = 0; i < r->n_ops; i++)
        id = r->ops[i]->out->id > id ? r->ops[i]->out->id : id;
    for (int i = 0; i < r->n_inputs; i++)
        id = r->inputs[i]->id > id ? r->inputs[i]->id : id;
    return id;
}

/* Rows of a table that served all images of a run become one an image. */
static void add_inputs(builder *b)
{
    for (int i = 0; i < b->region->n_inputs; i++) {
        const ht_value *v = b->region->inputs[i];
        int64_t shape[4];
        memcpy(shape, v->shape, sizeof shape);
        shape[0] = b->batch;
        b->copy->inputs[i] = ht_input(b->g, v->name, v->ndim, shape, HT_DEPENDS_X);
        b->made[v->id] = b->copy->inputs[i];
    }
}

void ht_region_build(const ht_region *region, int64_t batch, const ht_layers *simulate, ht_graph *g, ht_arena *arena,
                     ht_region_copy *copy)
{
    builder b = {region, simulate, batch, g, arena, NULL, copy, 0};
    b.made = ht_alloc_array(arena, (size_t)largest_id(region) + 1, sizeof(ht_value *));
    *copy = (ht_region_copy){.inputs = ht_alloc_array(arena, (size_t)region->n_inputs + 1, sizeof(ht_value *)),
                             .layers = ht_alloc_array(arena, (size_t)region->n_layers + 1, sizeof *copy->layers)};
    if (!b.made || !copy->inputs || !copy->layers) {
        ht_graph_fail(g, HT_ERR_MEMORY, "out of memory for a copy of %s", region->name);
        return;
    }
    add_inputs(&b);
    for (int i = 0; i < region->n_ops && !g->status; i++) {
        const ht_op *op = region->ops[i];
        if (!build[op->kind] || op->layer)
            ht_graph_fail(g, HT_ERR_UNSUPPORTED, "%s: %s in this block cannot be reconstructed", region->name,
                          ht_op_kind_name(op->kind));
        else
            b.made[op->out->id] = build[op->kind](&b, op);
    }
    copy->output = b.made[region->output->id];
}

void ht_weight_channels_last(const ht_tensor *weight, float *out)
{
    int64_t outs = weight->shape[0], in = weight->shape[1];
    int64_t taps = (int64_t)weight->count / (outs * in);
    for (int64_t o = 0; o < outs; o++)
        for (int64_t i = 0; i < in; i++)
            for (int64_t t = 0; t < taps; t++)
                ht_convert_to_f32(weight->dtype, weight->data, (size_t)((o * in + i) * taps + t), 1,
                                  out + (o * taps + t) * in + i);
}
