/* products.c - which layers a model has, and their roles.  Structure decides, not names: what reads the sample, what
 * makes the output, what depends on {t} alone, what halves the image. */
#include "calib/products.h"

#include <string.h>

#include "graph/backend.h"

const char *ht_role_name(ht_role role)
{
    static const char *const names[] = {"plain", "first",    "last",           "shortcut",
                                        "down",  "temporal", "temporal_first", "condition"};
    return names[role];
}

/* The value behind views. */
static const ht_value *source(const ht_value *v)
{
    while (v && v->producer && ht_op_is_view(v->producer))
        v = v->producer->in[HT_IN_X];
    return v;
}

static ht_role role_of(const ht_graph *g, const ht_op *op)
{
    const ht_value *x = source(op->in[HT_IN_X]);
    ht_stage stage = ht_stage_of(op->out->deps);
    if (stage == HT_STAGE_T) {
        const ht_op *maker = x->producer;
        return maker && maker->kind == HT_OP_timestep_embedding ? HT_ROLE_TEMPORAL_FIRST : HT_ROLE_TEMPORAL;
    }
    if (stage != HT_STAGE_STEP)
        return HT_ROLE_CONDITION;
    if (!x->producer)
        return HT_ROLE_FIRST;
    if (source(ht_graph_output(g)) == op->out)
        return HT_ROLE_LAST;
    if (op->kind == HT_OP_conv2d && op->attrs.stride > 1)
        return HT_ROLE_DOWN;
    return op->kind == HT_OP_conv2d && op->attrs.kernel == 1 ? HT_ROLE_SHORTCUT : HT_ROLE_PLAIN;
}

/* Whether op is the first product that runs every step and reads, perhaps through a norm, what `first` made. */
static bool follows(const ht_op *op, const ht_value *first)
{
    const ht_value *x = source(op->in[HT_IN_X]);
    if (x && x->producer && !ht_op_is_product(x->producer) && x->producer->in[HT_IN_X])
        x = source(x->producer->in[HT_IN_X]);
    return x == first;
}

static ht_status describe(ht_arena *arena, const ht_graph *g, const ht_op *op, ht_model_product *p)
{
    const ht_value *w = op->in[HT_IN_WEIGHT], *x = op->in[HT_IN_X], *x2 = op->in[HT_IN_X2];
    *p = (ht_model_product){.role = role_of(g, op),
                            .timeless = ht_stage_of(op->out->deps) == HT_STAGE_COND,
                            .weight = w->data,
                            .parts = {x->shape[x->ndim - 1], x2 ? x2->shape[x2->ndim - 1] : 0},
                            .reads = {x->id, x2 ? x2->id : -1},
                            .uses = 1,
                            .weights = ht_value_count(w),
                            .macs = ht_op_macs(op)};
    p->name = ht_sprintf(arena, "%.*s", (int)ht_layer_name_length(w->name), w->name);
    return p->name ? HT_OK : HT_ERR_MEMORY;
}

/* Another operation with the weight of p: what is one layer has one set of codes and one table of input scales. */
static ht_status add_use(const ht_graph *g, const ht_op *op, ht_model_product *p)
{
    const ht_value *x = op->in[HT_IN_X], *x2 = op->in[HT_IN_X2];
    bool same = role_of(g, op) == p->role && (ht_stage_of(op->out->deps) == HT_STAGE_COND) == p->timeless &&
                x->shape[x->ndim - 1] == p->parts[0] && (x2 ? x2->shape[x2->ndim - 1] : 0) == p->parts[1];
    if (!same)
        return ht_fail(HT_ERR_UNSUPPORTED, "%s: two operations use it, which differ in what they read or how often",
                       p->name);
    p->uses++;
    p->macs += ht_op_macs(op);
    return HT_OK;
}

static ht_model_product *find(const ht_products *products, ht_model_product *all, const ht_op *op)
{
    for (int i = 0; i < products->n; i++)
        if (all[i].weight == op->in[HT_IN_WEIGHT]->data)
            return &all[i];
    return NULL;
}

ht_status ht_products_list(ht_arena *arena, const ht_graph *g, ht_products *products)
{
    ht_model_product *all = ht_alloc_array(arena, (size_t)ht_graph_ops(g), sizeof *all);
    const ht_value *first = NULL, *embedded = NULL;
    ht_status status = all ? HT_OK : HT_ERR_MEMORY;
    bool followed = false;
    *products = (ht_products){.product = all};
    for (int i = 0; !status && i < ht_graph_ops(g); i++) {
        const ht_op *op = ht_graph_op(g, i);
        if (!ht_op_is_product(op))
            continue;
        ht_model_product *p = find(products, all, op);
        if (p) {
            status = add_use(g, op, p);
            continue;
        }
        p = &all[products->n++];
        status = describe(arena, g, op, p);
        if (p->role == HT_ROLE_FIRST && !first)
            first = op->out;
        else if (first && !followed && p->role == HT_ROLE_PLAIN && follows(op, first))
            p->first_after = followed = true;
        if (p->role == HT_ROLE_TEMPORAL_FIRST && !embedded)
            embedded = op->out;
        else if (embedded && p->role == HT_ROLE_TEMPORAL)
            p->after_first = follows(op, embedded);
    }
    return status;
}

bool ht_product_is_temporal(const ht_model_product *p)
{
    return p->role == HT_ROLE_TEMPORAL || p->role == HT_ROLE_TEMPORAL_FIRST;
}

const ht_op *ht_product_op(const ht_graph *g, const ht_model_product *p, int use)
{
    for (int i = 0; i < ht_graph_ops(g); i++) {
        const ht_op *op = ht_graph_op(g, i);
        if (ht_op_is_product(op) && op->in[HT_IN_WEIGHT]->data == p->weight && use-- == 0)
            return op;
    }
    return NULL;
}
