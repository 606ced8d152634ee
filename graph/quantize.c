/* quantize.c - putting the layers of a quantized model into its graph.
 *
 * A linear map or convolution whose weight has a layer's name gets it.  If the layer wants codes, what makes them of
 * its inputs comes before it:
 *
 *     scale = input_scale(timestep)  or  input_range(x);      codes = quantize(x, scale);      y = conv2d(codes, scale)
 *
 * (of a smoothed layer, codes = quantize(smooth(x), scale)), so the table of scales by timestep is one more thing that
 * depends on {t} alone, and whatever several layers share is made once.  A layer of two parts takes the two parts of
 * the concatenation it reads (split shortcut, Q-Diffusion section 3.3.2): where that is follows from the graph, no
 * names are asked for. */
#include <stdio.h>
#include <string.h>

#include "graph/graph_private.h"

static bool same_table(const ht_input_table *a, const ht_input_table *b)
{
    size_t bytes = (size_t)a->groups * sizeof(float);
    return a->groups == b->groups && !memcmp(a->step, b->step, bytes) && !memcmp(a->zero, b->zero, bytes) &&
           (a->groups == 1 || !memcmp(a->timesteps, b->timesteps, bytes));
}

static bool same_grid(const ht_format *a, const ht_format *b)
{
    return a && b && !strcmp(a->name, b->name);
}

/* An operation among those placed so far that computes the same. */
static ht_value *find_same(const ht_graph *g, ht_op_kind kind, const ht_op *parts)
{
    for (int i = 0; i < g->n_ops; i++) {
        const ht_op *op = g->ops[i];
        if (op->kind != kind || memcmp(op->in, parts->in, sizeof op->in) != 0)
            continue;
        if (kind == HT_OP_input_scale ? same_table(op->attrs.table, parts->attrs.table)
                                      : same_grid(op->attrs.codes, parts->attrs.codes))
            return op->out;
    }
    return NULL;
}

static ht_value *make_once(ht_graph *g, ht_op_kind kind, const ht_op *parts)
{
    ht_value *found = g->status ? NULL : find_same(g, kind, parts);
    return found ? found : ht_graph_add_op(g, kind, parts);
}

static ht_value *timestep_of(const ht_graph *g)
{
    const ht_value *t = ht_graph_input(g, "timestep");
    return t ? g->values[t->id] : NULL;
}

static ht_value *scale_of(ht_graph *g, const ht_layer *layer, int part, ht_value *x)
{
    const ht_input_table *table = &layer->part[part].input;
    if (layer->mode == HT_INPUT_DYNAMIC)
        return make_once(g, HT_OP_input_range, &(ht_op){.in = {x}, .attrs = {.codes = &layer->input}});
    ht_value *t = table->groups > 1 ? timestep_of(g) : NULL;
    if (table->groups > 1 && !t) {
        ht_graph_fail(g, HT_ERR_SHAPE, "%s: has input scales by timestep, but the model has no timestep", layer->name);
        return NULL;
    }
    return make_once(g, HT_OP_input_scale, &(ht_op){.in = {t}, .attrs = {.table = table}});
}

static int64_t channels(const ht_value *v)
{
    return v->shape[v->ndim - 1];
}

/* The operation placed so far that multiplies x by the same factors. */
static ht_value *find_smooth(const ht_graph *g, const ht_value *x, const float *factors)
{
    size_t bytes = (size_t)channels(x) * sizeof *factors;
    for (int i = 0; i < g->n_ops; i++) {
        const ht_op *op = g->ops[i];
        if (op->kind == HT_OP_smooth && op->in[HT_IN_X] == x &&
            !memcmp(op->in[HT_IN_WEIGHT]->data->data, factors, bytes))
            return op->out;
    }
    return NULL;
}

/* Input `slot` times the factors of its part; of a layer of one part that reads two values, X2 has the later ones. */
static void smooth_input(ht_graph *g, ht_op *op, int slot)
{
    ht_value *x = op->in[slot];
    const ht_layer *layer = op->layer;
    bool second = slot == HT_IN_X2;
    const float *factors = layer->part[second && layer->parts == 2].smooth;
    if (!factors || g->status)
        return;
    factors += second && layer->parts == 1 ? channels(op->in[HT_IN_X]) : 0;
    if ((op->in[slot] = find_smooth(g, x, factors)))
        return;
    float *values;
    const char *name = ht_sprintf(g->arena, "%s.pre_quant_scale%s", layer->name, second ? ".1" : "");
    const ht_tensor *t = ht_constant(g, name ? name : "", 1, (const int64_t[]){channels(x)}, &values);
    if (t)
        memcpy(values, factors, t->bytes);
    op->in[slot] = t ? ht_smooth(g, x, t) : x;
}

/* Codes of input `slot` of op, and their scale. */
static void quantize_input(ht_graph *g, ht_op *op, int slot)
{
    int part = op->layer->parts == 2 && slot == HT_IN_X2;
    ht_value *x = op->in[slot], *scale = scale_of(g, op->layer, part, x);
    if (!scale)
        return;
    ht_op quantize = {.in = {[HT_IN_X] = x, [HT_IN_SCALE] = scale}, .attrs = {.codes = &op->layer->input}};
    op->in[slot] = make_once(g, HT_OP_quantize, &quantize);
    op->in[slot == HT_IN_X ? HT_IN_SCALE : HT_IN_SCALE2] = scale;
}

/* ---- the branch of low rank ---- */

static const ht_tensor *half_tensor(ht_graph *g, const char *layer, const char *what, int ndim, const int64_t *shape,
                                    const uint16_t *data)
{
    ht_tensor *t = ht_alloc(g->arena, sizeof *t);
    const char *name = ht_sprintf(g->arena, "%s.%s", layer, what);
    if (!t || !name) {
        ht_graph_fail(g, HT_ERR_MEMORY, "out of memory for %s of %s", what, layer);
        return NULL;
    }
    *t = (ht_tensor){.name = name, .dtype = HT_F16, .ndim = ndim, .data = data, .count = 1};
    for (int i = 0; i < ndim; i++)
        t->count *= (size_t)(t->shape[i] = shape[i]);
    t->bytes = 2 * t->count;
    return t;
}

/* up (down x), 16-bit weights on the floats that the codes are made of, becomes the residual of the quantized product,
 * and adds the one that was there (SVDQuant, arXiv:2411.05007, eq. 7). */
static void add_branch(ht_graph *g, ht_op *op)
{
    const ht_layer *layer = op->layer;
    int64_t shape[4], back[4] = {layer->shape[0], layer->rank, 1, 1};
    memcpy(shape, layer->shape, sizeof shape);
    shape[0] = layer->rank;
    const ht_tensor *down = half_tensor(g, layer->name, "low_rank_down", layer->ndim, shape, layer->down),
                    *up = half_tensor(g, layer->name, "low_rank_up", op->kind == HT_OP_conv2d ? 4 : 2, back, layer->up);
    if (!down || !up)
        return;
    ht_value *x = op->in[HT_IN_X], *x2 = op->in[HT_IN_X2];
    ht_op thin = {.in = {[HT_IN_X] = x2 ? ht_concat(g, x, x2) : x, [HT_IN_WEIGHT] = ht_graph_weight(g, down)},
                  .attrs = op->attrs}; /* fusion takes the concatenation apart again */
    thin.attrs.scale = 1;
    thin.attrs.activation = HT_ACT_NONE;
    ht_op wide = {.in = {[HT_IN_X] = ht_graph_add_op(g, op->kind, &thin),
                         [HT_IN_WEIGHT] = ht_graph_weight(g, up),
                         [HT_IN_RESIDUAL] = op->in[HT_IN_RESIDUAL]},
                  .attrs = {.stride = 1, .upsample = 1, .scale = 1}};
    if (op->kind == HT_OP_linear)
        wide.attrs = thin.attrs;
    op->in[HT_IN_RESIDUAL] = ht_graph_add_op(g, op->kind, &wide);
}

/* A layer of two parts reads two values that are as wide as they are. */
static bool take_parts(ht_graph *g, ht_op *op)
{
    const ht_layer *layer = op->layer;
    const ht_op *cat = op->in[HT_IN_X]->producer;
    if (!op->in[HT_IN_X2] && cat && cat->kind == HT_OP_concat) {
        op->in[HT_IN_X] = cat->in[HT_IN_X];
        op->in[HT_IN_X2] = cat->in[HT_IN_X2];
    }
    if (op->in[HT_IN_X2] && channels(op->in[HT_IN_X]) == layer->part[0].count)
        return true;
    ht_graph_fail(g, HT_ERR_SHAPE,
                  "%s: is quantized in two parts of %lld and %lld channels, which the model does not read", layer->name,
                  (long long)layer->part[0].count, (long long)layer->part[1].count);
    return false;
}

static bool fits(ht_graph *g, const ht_op *op)
{
    const ht_layer *layer = op->layer;
    const ht_value *w = op->in[HT_IN_WEIGHT];
    if (w->ndim == layer->ndim && !memcmp(w->shape, layer->shape, (size_t)w->ndim * sizeof *w->shape))
        return true;
    ht_graph_fail(g, HT_ERR_SHAPE, "%s: the quantized layer has another shape than the model", layer->name);
    return false;
}

/* Input `slot` rotated, once for all layers that want it so. */
static void rotate_input(ht_graph *g, ht_op *op, int slot)
{
    ht_value *x = op->in[slot];
    for (int i = 0; i < g->n_ops && x; i++)
        if (g->ops[i]->kind == HT_OP_rotate && g->ops[i]->in[HT_IN_X] == x &&
            g->ops[i]->attrs.count == op->layer->rotate) {
            op->in[slot] = g->ops[i]->out;
            return;
        }
    op->in[slot] = x ? ht_rotate_channels(g, x, op->layer->rotate) : NULL;
}

static void quantize_op(ht_graph *g, ht_op *op)
{
    if (!(op->layer = ht_layers_of_weight(g->layers, op->in[HT_IN_WEIGHT]->name)) || !fits(g, op))
        return;
    if (op->layer->parts == 2 && !take_parts(g, op))
        return;
    for (int slot = HT_IN_X2; slot >= HT_IN_X; slot--) /* the second first: it asks how wide the first is */
        if (op->in[slot])
            smooth_input(g, op, slot);
    if (op->layer->rank && !g->status)
        add_branch(g, op);
    for (int slot = HT_IN_X; op->layer->rotate && slot <= HT_IN_X2; slot++)
        rotate_input(g, op, slot);
    if (op->layer->mode == HT_INPUT_FLOAT || g->status)
        return;
    if (op->layer->mode == HT_INPUT_DYNAMIC && op->layer->parts == 1 && op->in[HT_IN_X2]) {
        ht_graph_fail(g, HT_ERR_UNSUPPORTED, "%s: dynamic input scales of a concatenation need a layer of two parts",
                      op->layer->name);
        return;
    }
    quantize_input(g, op, HT_IN_X);
    if (op->in[HT_IN_X2])
        quantize_input(g, op, HT_IN_X2);
}

/* The list is made anew, so that what is added stands before what reads it. */
void ht_graph_quantize(ht_graph *g)
{
    ht_op **before = g->ops;
    int n = g->n_ops;
    g->ops = NULL;
    g->n_ops = g->cap_ops = 0;
    for (int i = 0; i < n && !g->status; i++) {
        if (ht_op_rows[before[i]->kind].traits & HT_HAS_EPILOGUE)
            quantize_op(g, before[i]);
        if (before[i]->kind == HT_OP_attention)
            before[i]->attrs.softmax = g->layers->softmax;
        ht_graph_append(g, before[i]);
    }
}
