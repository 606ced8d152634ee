/* graph.c - building a graph: values, operations, names, errors that stick. */
#include "graph/graph.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "graph/graph_private.h"

ht_graph *ht_graph_create(ht_arena *arena)
{
    ht_graph *g = ht_alloc(arena, sizeof *g);
    if (g)
        g->arena = arena;
    return g;
}

void ht_graph_fail(ht_graph *g, ht_status status, const char *format, ...)
{
    if (g->status)
        return;
    va_list args;
    va_start(args, format);
    vsnprintf(g->message, sizeof g->message, format, args);
    va_end(args);
    g->status = status;
}

/* The arena has set the message; remember that it did. */
static void fail_memory(ht_graph *g)
{
    ht_graph_fail(g, HT_ERR_MEMORY, "out of memory for a graph of %d operations", g->n_ops);
}

/* Room for one more in a growing array of pointers; the old one stays in the arena. */
static bool grow(ht_graph *g, void *array_of_pointers, int n, int *cap)
{
    if (n < *cap)
        return true;
    int wider = *cap ? 2 * *cap : 64;
    void *old, *new = ht_alloc_array(g->arena, (size_t)wider, sizeof(void *));
    if (!new) {
        fail_memory(g);
        return false;
    }
    memcpy(&old, array_of_pointers, sizeof old);
    if (n)
        memcpy(new, old, (size_t)n * sizeof(void *));
    memcpy(array_of_pointers, &new, sizeof new);
    *cap = wider;
    return true;
}

static ht_value *add_value(ht_graph *g)
{
    if (g->status || !grow(g, &g->values, g->n_values, &g->cap_values))
        return NULL;
    ht_value *v = ht_alloc(g->arena, sizeof *v);
    if (!v) {
        fail_memory(g);
        return NULL;
    }
    v->id = g->n_values;
    v->name = "";
    v->dtype = HT_F32;
    g->values[g->n_values++] = v;
    return v;
}

int64_t ht_value_count(const ht_value *v)
{
    int64_t n = 1;
    for (int i = 0; i < v->ndim; i++)
        n *= v->shape[i];
    return n;
}

/* Shapes come from configurations and files: every dimension positive, the product far from overflow. */
static bool shape_fits(int ndim, const int64_t *shape)
{
    size_t n = 1;
    for (int i = 0; i < ndim; i++)
        if (shape[i] < 1 || !ht_mul_size(n, (size_t)shape[i], &n) || n > (size_t)1 << 40)
            return false;
    return ndim >= 1 && ndim <= 4;
}

ht_value *ht_input(ht_graph *g, const char *name, int ndim, const int64_t *shape, unsigned deps)
{
    ht_value *v = add_value(g);
    if (!v)
        return NULL;
    if (!shape_fits(ndim, shape)) {
        ht_graph_fail(g, HT_ERR_SHAPE, "%s: the size of this input is out of range", name);
        return NULL;
    }
    v->name = name;
    v->ndim = ndim;
    memcpy(v->shape, shape, (size_t)ndim * sizeof *shape);
    v->deps = deps;
    v->batched = deps != HT_DEPENDS_T;
    return v;
}

ht_value *ht_timestep(ht_graph *g)
{
    return ht_input(g, "timestep", 2, (const int64_t[]){1, 1}, HT_DEPENDS_T);
}

/* A parameter as a value.  The same tensor used twice is the same value, so that it is packed and counted once. */
ht_value *ht_graph_weight(ht_graph *g, const ht_tensor *t)
{
    if (g->status)
        return NULL;
    if (!t) {
        ht_graph_fail(g, HT_ERR_ARGUMENT, "a layer was built without its weight");
        return NULL;
    }
    for (int i = 0; i < g->n_values; i++)
        if (g->values[i]->data == t)
            return g->values[i];
    ht_value *v = add_value(g);
    if (!v)
        return NULL;
    if (!shape_fits(t->ndim, t->shape)) {
        ht_graph_fail(g, HT_ERR_SHAPE, "%s: the shape of this weight is out of range", t->name);
        return NULL;
    }
    v->name = t->name;
    v->ndim = t->ndim;
    memcpy(v->shape, t->shape, (size_t)t->ndim * sizeof *t->shape);
    v->data = t;
    return v;
}

/* ---- operations ---- */

void ht_graph_append(ht_graph *g, ht_op *op)
{
    if (!g->status && grow(g, &g->ops, g->n_ops, &g->cap_ops))
        g->ops[g->n_ops++] = op;
}

/* An operation from its parts: checks that the inputs are there, applies the kind's shape rule, joins dependencies. */
ht_value *ht_graph_add_op(ht_graph *g, ht_op_kind kind, const ht_op *parts)
{
    if (g->status)
        return NULL;
    ht_op *op = ht_alloc(g->arena, sizeof *op);
    if (!op) {
        fail_memory(g);
        return NULL;
    }
    ht_value *out = add_value(g);
    if (!out)
        return NULL;
    *op = *parts;
    op->kind = kind;
    op->out = out;
    out->producer = op;
    for (int i = 0; i < HT_INPUTS; i++)
        if (op->in[i]) {
            out->deps |= op->in[i]->deps;
            out->batched |= op->in[i]->batched;
        }
    if (!ht_op_rows[kind].shape(g, op, out))
        return NULL;
    if (!shape_fits(out->ndim, out->shape)) {
        ht_graph_fail(g, HT_ERR_SHAPE, "%s of %s: the result would be empty or too large", ht_op_kind_name(kind),
                      op->in[0]->name);
        return NULL;
    }
    ht_graph_append(g, op);
    return g->status ? NULL : out;
}

/* A layer's output is called after its weight: "a.b.conv1.weight" gives "a.b.conv1". */
static ht_value *name_after(ht_graph *g, ht_value *v, const ht_tensor *t)
{
    if (!v)
        return NULL;
    return ht_name(g, v, "%.*s", (int)ht_layer_name_length(t->name), t->name);
}

ht_value *ht_timestep_embedding(ht_graph *g, ht_value *t, int dim, bool flip_sin_to_cos, float freq_shift)
{
    return ht_graph_add_op(
        g, HT_OP_timestep_embedding,
        &(ht_op){.in = {t}, .attrs = {.dim = dim, .flip_sin_to_cos = flip_sin_to_cos, .freq_shift = freq_shift}});
}

ht_value *ht_embedding(ht_graph *g, ht_value *index, const ht_tensor *table)
{
    ht_value *w = ht_graph_weight(g, table);
    return name_after(g, ht_graph_add_op(g, HT_OP_embedding, &(ht_op){.in = {[HT_IN_X] = index, [HT_IN_WEIGHT] = w}}),
                      table);
}

ht_value *ht_add_position(ht_graph *g, ht_value *x, const ht_tensor *table)
{
    ht_value *w = ht_graph_weight(g, table);
    return ht_graph_add_op(g, HT_OP_add_position, &(ht_op){.in = {[HT_IN_X] = x, [HT_IN_WEIGHT] = w}});
}

ht_value *ht_pick(ht_graph *g, ht_value *x, ht_value *token)
{
    return ht_graph_add_op(g, HT_OP_pick, &(ht_op){.in = {[HT_IN_X] = x, [HT_IN_X2] = token}});
}

ht_value *ht_nearest_row(ht_graph *g, ht_value *x, const ht_tensor *table)
{
    ht_value *w = ht_graph_weight(g, table);
    return ht_graph_add_op(g, HT_OP_nearest_row, &(ht_op){.in = {[HT_IN_X] = x, [HT_IN_WEIGHT] = w}});
}

ht_value *ht_linear(ht_graph *g, ht_value *x, const ht_linear_weights *w)
{
    ht_value *weights = ht_graph_weight(g, w->weight), *bias = w->bias ? ht_graph_weight(g, w->bias) : NULL;
    ht_op op = {.in = {[HT_IN_X] = x, [HT_IN_WEIGHT] = weights, [HT_IN_BIAS] = bias}, .attrs = {.scale = 1}};
    return name_after(g, ht_graph_add_op(g, HT_OP_linear, &op), w->weight);
}

ht_value *ht_conv2d(ht_graph *g, ht_value *x, const ht_conv_weights *w, ht_conv_shape s)
{
    ht_value *weights = ht_graph_weight(g, w->weight), *bias = w->bias ? ht_graph_weight(g, w->bias) : NULL;
    ht_op op = {.in = {[HT_IN_X] = x, [HT_IN_WEIGHT] = weights, [HT_IN_BIAS] = bias},
                .attrs = {.stride = s.stride ? s.stride : 1,
                          .pad_top = s.pad_top,
                          .pad_left = s.pad_left,
                          .pad_bottom = s.pad_bottom,
                          .pad_right = s.pad_right,
                          .upsample = 1,
                          .scale = 1}};
    return name_after(g, ht_graph_add_op(g, HT_OP_conv2d, &op), w->weight);
}

ht_value *ht_group_norm(ht_graph *g, ht_value *x, const ht_norm_weights *w, int groups, float eps)
{
    ht_value *weights = ht_graph_weight(g, w->weight), *bias = ht_graph_weight(g, w->bias);
    ht_op op = {.in = {[HT_IN_X] = x, [HT_IN_WEIGHT] = weights, [HT_IN_BIAS] = bias},
                .attrs = {.groups = groups, .eps = eps}};
    return name_after(g, ht_graph_add_op(g, HT_OP_group_norm, &op), w->weight);
}

ht_value *ht_layer_norm(ht_graph *g, ht_value *x, const ht_norm_weights *w, float eps)
{
    ht_value *weights = ht_graph_weight(g, w->weight), *bias = ht_graph_weight(g, w->bias);
    ht_op op = {.in = {[HT_IN_X] = x, [HT_IN_WEIGHT] = weights, [HT_IN_BIAS] = bias}, .attrs = {.eps = eps}};
    return name_after(g, ht_graph_add_op(g, HT_OP_layer_norm, &op), w->weight);
}

ht_value *ht_gelu(ht_graph *g, ht_value *x)
{
    return ht_graph_add_op(g, HT_OP_gelu, &(ht_op){.in = {x}});
}

ht_value *ht_quick_gelu(ht_graph *g, ht_value *x)
{
    return ht_graph_add_op(g, HT_OP_quick_gelu, &(ht_op){.in = {x}});
}

ht_value *ht_gelu_tanh(ht_graph *g, ht_value *x)
{
    return ht_graph_add_op(g, HT_OP_gelu_tanh, &(ht_op){.in = {x}});
}

ht_value *ht_geglu(ht_graph *g, ht_value *x)
{
    return ht_graph_add_op(g, HT_OP_geglu, &(ht_op){.in = {x}});
}

ht_value *ht_silu(ht_graph *g, ht_value *x)
{
    return ht_graph_add_op(g, HT_OP_silu, &(ht_op){.in = {x}});
}

ht_value *ht_relu(ht_graph *g, ht_value *x)
{
    return ht_graph_add_op(g, HT_OP_relu, &(ht_op){.in = {x}});
}

ht_value *ht_tanh(ht_graph *g, ht_value *x)
{
    return ht_graph_add_op(g, HT_OP_tanh, &(ht_op){.in = {x}});
}

ht_value *ht_affine(ht_graph *g, ht_value *x, float scale, float shift)
{
    return ht_graph_add_op(g, HT_OP_affine, &(ht_op){.in = {x}, .attrs = {.scale = scale, .shift = shift}});
}

ht_value *ht_add(ht_graph *g, ht_value *a, ht_value *b)
{
    return ht_graph_add_op(g, HT_OP_add, &(ht_op){.in = {[HT_IN_X] = a, [HT_IN_X2] = b}});
}

ht_value *ht_add_row(ht_graph *g, ht_value *x, ht_value *row)
{
    return ht_graph_add_op(g, HT_OP_add_row, &(ht_op){.in = {[HT_IN_X] = x, [HT_IN_ROW] = row}});
}

ht_value *ht_scale_shift(ht_graph *g, ht_value *x, ht_value *scale, ht_value *shift)
{
    return ht_graph_add_op(g, HT_OP_scale_shift,
                           &(ht_op){.in = {[HT_IN_X] = x, [HT_IN_ROW] = scale, [HT_IN_RESIDUAL] = shift}});
}

ht_value *ht_slice(ht_graph *g, ht_value *x, int begin, int count)
{
    return ht_graph_add_op(g, HT_OP_slice, &(ht_op){.in = {x}, .attrs = {.begin = begin, .count = count}});
}

ht_value *ht_concat(ht_graph *g, ht_value *a, ht_value *b)
{
    return ht_graph_add_op(g, HT_OP_concat, &(ht_op){.in = {[HT_IN_X] = a, [HT_IN_X2] = b}});
}

ht_value *ht_upsample(ht_graph *g, ht_value *x, int factor)
{
    return ht_graph_add_op(g, HT_OP_upsample, &(ht_op){.in = {x}, .attrs = {.upsample = factor}});
}

ht_value *ht_upsample_to(ht_graph *g, ht_value *x, int64_t h, int64_t w)
{
    if (!x || g->status)
        return NULL;
    int64_t bottom = x->ndim == 4 ? 2 * x->shape[1] - h : 0, right = x->ndim == 4 ? 2 * x->shape[2] - w : 0;
    if (bottom < 0 || bottom > 1 || right < 0 || right > 1) {
        ht_graph_fail(g, HT_ERR_SHAPE, "upsample of %s to %lldx%lld: wanted twice its size or one less", x->name,
                      (long long)h, (long long)w);
        return NULL;
    }
    ht_attrs attrs = {.upsample = 2, .crop_bottom = (int)bottom, .crop_right = (int)right};
    return ht_graph_add_op(g, HT_OP_upsample, &(ht_op){.in = {x}, .attrs = attrs});
}

ht_value *ht_avg_pool(ht_graph *g, ht_value *x)
{
    return ht_graph_add_op(g, HT_OP_avg_pool, &(ht_op){.in = {x}});
}

static ht_value *pool(ht_graph *g, ht_op_kind kind, ht_value *x, int kernel, ht_conv_shape s)
{
    return ht_graph_add_op(g, kind,
                           &(ht_op){.in = {x},
                                    .attrs = {.kernel = kernel,
                                              .kernel_height = kernel,
                                              .stride = s.stride ? s.stride : 1,
                                              .pad_top = s.pad_top,
                                              .pad_left = s.pad_left,
                                              .pad_bottom = s.pad_bottom,
                                              .pad_right = s.pad_right}});
}

ht_value *ht_max_pool(ht_graph *g, ht_value *x, int kernel, ht_conv_shape shape)
{
    return pool(g, HT_OP_max_pool, x, kernel, shape);
}

ht_value *ht_mean_pool(ht_graph *g, ht_value *x, int kernel, ht_conv_shape shape)
{
    return pool(g, HT_OP_mean_pool, x, kernel, shape);
}

ht_value *ht_mean(ht_graph *g, ht_value *x)
{
    return ht_graph_add_op(g, HT_OP_mean, &(ht_op){.in = {x}});
}

ht_value *ht_reshape(ht_graph *g, ht_value *x, int ndim, const int64_t *shape)
{
    ht_value *v = ht_graph_add_op(g, HT_OP_reshape, &(ht_op){.in = {x}});
    if (!v)
        return NULL;
    if (!shape_fits(ndim, shape) || shape[0] != x->shape[0] || shape[ndim - 1] != x->shape[x->ndim - 1]) {
        ht_graph_fail(g, HT_ERR_SHAPE, "reshape of %s: batch and channels must stay", x->name);
        return NULL;
    }
    v->ndim = ndim;
    memcpy(v->shape, shape, (size_t)ndim * sizeof *shape);
    if (ht_value_count(v) != ht_value_count(x))
        ht_graph_fail(g, HT_ERR_SHAPE, "reshape of %s: the number of elements must stay", x->name);
    return v;
}

ht_value *ht_attention(ht_graph *g, ht_value *q, ht_value *k, ht_value *v, int heads, float scale)
{
    ht_op op = {.in = {[HT_IN_Q] = q, [HT_IN_K] = k, [HT_IN_V] = v}, .attrs = {.heads = heads, .scale = scale}};
    return ht_graph_add_op(g, HT_OP_attention, &op);
}

ht_value *ht_causal_attention(ht_graph *g, ht_value *q, ht_value *k, ht_value *v, int heads, float scale)
{
    ht_op op = {.in = {[HT_IN_Q] = q, [HT_IN_K] = k, [HT_IN_V] = v},
                .attrs = {.heads = heads, .scale = scale, .causal = true}};
    return ht_graph_add_op(g, HT_OP_attention, &op);
}

/* ---- names, outputs ---- */

ht_value *ht_name(ht_graph *g, ht_value *v, const char *format, ...)
{
    char text[256];
    if (!v || g->status)
        return v;
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    const char *name = ht_strdup(g->arena, text);
    if (name)
        v->name = name;
    else
        fail_memory(g);
    return v;
}

void ht_output_value(ht_graph *g, ht_value *v, const char *name)
{
    if (!v)
        return;
    ht_name(g, v, "%s", name);
    v->tapped = true;
    g->output = v;
}

void ht_graph_set_layers(ht_graph *g, const ht_layers *layers)
{
    g->layers = layers;
}

void ht_graph_observe(ht_graph *g, ht_observe observe)
{
    g->observe = observe;
}

void ht_tap(ht_graph *g, const char *name)
{
    if (!g->status && grow(g, &g->taps, g->n_taps, &g->cap_taps))
        g->taps[g->n_taps++] = name;
}

/* ---- finishing ---- */

int ht_value_uses(const ht_graph *g, const ht_value *v)
{
    int uses = 0;
    for (int i = 0; i < g->n_ops; i++)
        for (int j = 0; j < HT_INPUTS; j++)
            uses += g->ops[i]->in[j] == v;
    return uses;
}

/* The last value of a name is the one meant: a block's name is given to what comes out of it. */
const ht_value *ht_graph_find(const ht_graph *g, const char *name)
{
    for (int i = g->n_values; i-- > 0;)
        if (!strcmp(g->values[i]->name, name))
            return g->values[i];
    return NULL;
}

static void mark_taps(ht_graph *g)
{
    for (int i = 0; i < g->n_taps; i++) {
        const ht_value *v = ht_graph_find(g, g->taps[i]);
        if (!v || v->data)
            ht_graph_fail(g, HT_ERR_ARGUMENT, "no value of the model is called %s", g->taps[i]);
        else
            g->values[v->id]->tapped = true;
    }
}

/* Backwards: an operation stays if its result is tapped or read by one that stays. */
static void drop_unused(ht_graph *g)
{
    bool *needed = ht_alloc_array(g->arena, (size_t)g->n_values + 1, sizeof *needed);
    if (!needed) {
        fail_memory(g);
        return;
    }
    for (int i = g->n_ops; i-- > 0;) {
        const ht_op *op = g->ops[i];
        needed[op->out->id] |= op->out->tapped;
        for (int j = 0; needed[op->out->id] && j < HT_INPUTS; j++)
            if (op->in[j])
                needed[op->in[j]->id] = true;
    }
    int kept = 0;
    for (int i = 0; i < g->n_ops; i++)
        if (needed[g->ops[i]->out->id])
            g->ops[kept++] = g->ops[i];
    g->n_ops = kept;
}

ht_status ht_graph_finish(ht_graph *g, bool fuse)
{
    if (!g->status && !g->output)
        ht_graph_fail(g, HT_ERR_ARGUMENT, "the graph has no output");
    if (!g->status)
        mark_taps(g);
    if (!g->status)
        drop_unused(g);
    if (!g->status && fuse)
        ht_graph_fuse(g);
    if (!g->status)
        drop_unused(g);
    if (!g->status && g->layers && g->layers->n)
        ht_graph_quantize(g);
    if (!g->status)
        drop_unused(g);
    if (!g->status && g->layers && g->layers->n && fuse)
        ht_graph_fuse(g);
    if (!g->status)
        ht_graph_add_observers(g);
    if (!g->status)
        drop_unused(g);
    g->finished = !g->status;
    return g->status ? ht_fail(g->status, "%s", g->message) : HT_OK;
}

int ht_graph_ops(const ht_graph *g)
{
    return g->n_ops;
}

const ht_op *ht_graph_op(const ht_graph *g, int i)
{
    return g->ops[i];
}

int ht_graph_values(const ht_graph *g)
{
    return g->n_values;
}

const ht_value *ht_graph_value(const ht_graph *g, int id)
{
    return g->values[id];
}

const ht_value *ht_graph_input(const ht_graph *g, const char *name)
{
    for (int i = 0; i < g->n_values; i++)
        if (!g->values[i]->producer && !g->values[i]->data && !strcmp(g->values[i]->name, name))
            return g->values[i];
    return NULL;
}

const ht_value *ht_graph_output(const ht_graph *g)
{
    return g->output;
}
