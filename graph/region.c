/* region.c - cutting a graph into blocks to be reconstructed one by one (BRECQ, arXiv:2102.05426, section 3.3), by what
 * its values are called and what reads them.
 *
 * A block grows from the operations whose weights carry its name: everything between them and the block's output, and
 * before them whatever has no weights and serves this block alone (a concatenation, an upsampling). */
#include <stdlib.h>
#include <string.h>

#include "graph/graph_private.h"
#include "graph/reverse.h"

typedef struct cutter {
    const ht_graph *g;
    ht_arena *arena;
    int *owner; /* by operation: the region it is in, or -1 */
    int *maker; /* by value: the operation that makes it, or -1 */
    ht_region *regions;
    int *end; /* by region: its last operation */
    int n;
} cutter;

static bool every_step(const ht_op *op)
{
    return op->out->deps & HT_DEPENDS_X;
}

static const char *weight_name(const ht_op *op)
{
    const ht_value *w = op->in[HT_IN_WEIGHT];
    return w && w->data ? w->name : NULL;
}

static bool is_layer(const ht_op *op)
{
    return (op->kind == HT_OP_linear || op->kind == HT_OP_conv2d) && weight_name(op);
}

/* Whether a weight belongs to a layer whose name begins with block and a dot. */
static bool carries_name(const ht_op *op, const char *block)
{
    const char *name = weight_name(op);
    size_t n = strlen(block);
    if (!name || strncmp(name, block, n) != 0 || name[n] != '.')
        return false;
    return strchr(name + n + 1, '.') != NULL; /* not the layer's own "weight" */
}

/* ---- growing a region ---- */

static int maker_of(const cutter *c, const ht_value *v)
{
    return v && !v->data ? c->maker[v->id] : -1;
}

/* Operations up to `last` that carry the name or read what such ones made, and that lead to `last`. */
static ht_status take_between(cutter *c, const char *name, int last)
{
    bool *after = calloc(2 * (size_t)last + 2, sizeof *after), *before = after ? after + last + 1 : NULL;
    if (!after)
        return ht_fail(HT_ERR_MEMORY, "out of memory for a graph of %d operations", ht_graph_ops(c->g));
    for (int i = 0; i <= last; i++) {
        const ht_op *op = ht_graph_op(c->g, i);
        after[i] = c->owner[i] < 0 && every_step(op) && carries_name(op, name);
        for (int j = 0; j < HT_INPUTS && c->owner[i] < 0; j++)
            after[i] |= maker_of(c, op->in[j]) >= 0 && after[maker_of(c, op->in[j])];
    }
    before[last] = true;
    for (int i = last; i >= 0; i--) {
        const ht_op *op = ht_graph_op(c->g, i);
        if (!before[i] || !after[i])
            continue;
        c->owner[i] = c->n;
        for (int j = 0; j < HT_INPUTS; j++)
            if (maker_of(c, op->in[j]) >= 0)
                before[maker_of(c, op->in[j])] = true;
    }
    free(after);
    return HT_OK;
}

/* Whether only region n reads what operation i makes, and something does. */
static bool serves_alone(const cutter *c, int i, int n)
{
    const ht_value *out = ht_graph_op(c->g, i)->out;
    int uses = 0;
    for (int k = i + 1; k < ht_graph_ops(c->g); k++)
        for (int j = 0; j < HT_INPUTS; j++)
            if (ht_graph_op(c->g, k)->in[j] == out) {
                if (c->owner[k] != n)
                    return false;
                uses++;
            }
    return uses > 0;
}

static void take_before(cutter *c, int last)
{
    for (int i = last; i-- > 0;) {
        const ht_op *op = ht_graph_op(c->g, i);
        if (c->owner[i] < 0 && every_step(op) && !weight_name(op) && serves_alone(c, i, c->n))
            c->owner[i] = c->n;
    }
}

/* ---- what it consists of ---- */

static bool is_input(const cutter *c, const ht_value *v, const ht_region *r)
{
    if (!v || v->data || (maker_of(c, v) >= 0 && c->owner[maker_of(c, v)] == c->n))
        return false;
    for (int i = 0; i < r->n_inputs; i++)
        if (r->inputs[i] == v)
            return false;
    return true;
}

static ht_status describe(cutter *c, ht_region *r, int last)
{
    size_t most = (size_t)last + 1;
    r->ops = ht_alloc_array(c->arena, most, sizeof(ht_op *));
    r->layers = ht_alloc_array(c->arena, most, sizeof(ht_op *));
    r->inputs = ht_alloc_array(c->arena, most * HT_INPUTS, sizeof(ht_value *));
    if (!r->ops || !r->layers || !r->inputs)
        return HT_ERR_MEMORY;
    for (int i = 0; i <= last; i++) {
        const ht_op *op = ht_graph_op(c->g, i);
        if (c->owner[i] != c->n)
            continue;
        r->ops[r->n_ops++] = op;
        if (is_layer(op))
            r->layers[r->n_layers++] = op;
        for (int j = 0; j < HT_INPUTS; j++)
            if (is_input(c, op->in[j], r))
                r->inputs[r->n_inputs++] = op->in[j];
    }
    r->output = ht_graph_op(c->g, last)->out;
    return HT_OK;
}

/* The region that c->owner has as c->n, if it has a layer. */
static ht_status close_region(cutter *c, const char *name, int last)
{
    ht_region *r = &c->regions[c->n];
    *r = (ht_region){.name = name};
    take_before(c, last);
    ht_status status = describe(c, r, last);
    if (!status && r->n_layers) {
        c->end[c->n++] = last;
        return HT_OK;
    }
    for (int i = 0; i <= last; i++)
        c->owner[i] = c->owner[i] == c->n ? -1 : c->owner[i];
    return status;
}

static ht_status cut_blocks(cutter *c)
{
    ht_status status = HT_OK;
    for (int i = 0; !status && i < ht_graph_ops(c->g); i++) {
        const ht_op *op = ht_graph_op(c->g, i);
        if (c->owner[i] >= 0 || !every_step(op) || !op->out->name[0])
            continue;
        status = take_between(c, op->out->name, i);
        if (!status && c->owner[i] == c->n)
            status = close_region(c, op->out->name, i);
    }
    return status;
}

static ht_status cut_layers(cutter *c)
{
    ht_status status = HT_OK;
    for (int i = 0; !status && i < ht_graph_ops(c->g); i++) {
        const ht_op *op = ht_graph_op(c->g, i);
        if (c->owner[i] >= 0 || !every_step(op) || !is_layer(op))
            continue;
        const char *weight = op->in[HT_IN_WEIGHT]->name,
                   *name = ht_sprintf(c->arena, "%.*s", (int)ht_layer_name_length(weight), weight);
        if (!name)
            return HT_ERR_MEMORY;
        c->owner[i] = c->n;
        status = close_region(c, name, i);
    }
    return status;
}

/* By their last operations; few enough for insertion. */
static void sort_regions(cutter *c)
{
    for (int i = 1; i < c->n; i++)
        for (int j = i; j > 0 && c->end[j - 1] > c->end[j]; j--) {
            ht_region r = c->regions[j];
            int end = c->end[j];
            c->regions[j] = c->regions[j - 1];
            c->end[j] = c->end[j - 1];
            c->regions[j - 1] = r;
            c->end[j - 1] = end;
        }
}

ht_status ht_regions_find(const ht_graph *g, ht_arena *arena, ht_region **regions, int *n)
{
    size_t ops = (size_t)ht_graph_ops(g), values = (size_t)ht_graph_values(g);
    cutter c = {.g = g, .arena = arena};
    c.owner = ht_alloc_array(arena, ops + 1, sizeof *c.owner);
    c.maker = ht_alloc_array(arena, values + 1, sizeof *c.maker);
    c.regions = ht_alloc_array(arena, ops + 1, sizeof *c.regions);
    c.end = ht_alloc_array(arena, ops + 1, sizeof *c.end);
    if (!c.owner || !c.maker || !c.regions || !c.end)
        return HT_ERR_MEMORY;
    for (size_t i = 0; i < values; i++)
        c.maker[i] = -1;
    for (int i = 0; i < (int)ops; i++) {
        c.owner[i] = -1;
        c.maker[ht_graph_op(g, i)->out->id] = i;
    }
    ht_status status = cut_blocks(&c);
    if (!status)
        status = cut_layers(&c);
    if (status)
        return status;
    sort_regions(&c);
    *regions = c.regions;
    *n = c.n;
    return HT_OK;
}
