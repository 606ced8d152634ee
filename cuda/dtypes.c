/* dtypes.c - what every value of a graph is on the device.
 *
 * float16 is for what is made anew in each step, and for a prompt's keys and values.  float32 stays what comes in and
 * goes out, what depends on the timestep (it is a row of a table), scales, and rows that kernels add in float32.
 * Inputs rounded to FP8 for layers that can multiply it are kept as the codes themselves. */
#include <string.h>

#include "cuda/program.h"

static bool is_e4m3(const ht_format *f)
{
    return f && f->grid.exponent_bits == 4 && f->grid.mantissa_bits == 3;
}

/* A layer whose product the device can make of FP8 codes: weights in E4M3, or in 4 bits, whose values all are E4M3's.
 */
static bool multiplies_e4m3(const ht_op *op, int slot)
{
    return op->layer && (slot == HT_IN_X || slot == HT_IN_X2) && op->layer->mode != HT_INPUT_FLOAT &&
           is_e4m3(&op->layer->input) && (is_e4m3(&op->layer->format) || op->layer->format.grid.bits == 4) &&
           op->in[HT_IN_SCALE];
}

static const ht_value *source(const ht_value *v)
{
    while (v->producer && ht_op_is_view(v->producer))
        v = v->producer->in[HT_IN_X];
    return v;
}

/* Inputs that kernels read in float32 only. */
static bool wants_floats(const ht_op *op, int slot)
{
    switch (slot) {
    case HT_IN_ROW:
    case HT_IN_SCALE:
    case HT_IN_SCALE2:
    case HT_IN_OUT_SCALE:
        return true;
    case HT_IN_RESIDUAL:
        return op->kind == HT_OP_modulate || op->kind == HT_OP_scale_shift;
    case HT_IN_X:
        return op->kind == HT_OP_input_scale || op->kind == HT_OP_timestep_embedding;
    case HT_IN_X2:
        return op->kind == HT_OP_pick;
    default:
        return false;
    }
}

/* Operations whose kernels write float32 only. */
static bool makes_floats(ht_op_kind kind)
{
    return kind == HT_OP_input_scale || kind == HT_OP_input_range || kind == HT_OP_timestep_embedding;
}

static ht_cuda_dtype by_itself(const ht_program *p, const ht_value *v)
{
    ht_stage stage = ht_stage_of(v->deps);
    if (v->dtype == HT_U8)
        return HT_CUDA_U8;
    if (!v->producer || v == ht_graph_output(p->graph) || makes_floats(v->producer->kind))
        return HT_CUDA_F32;
    return p->half && (stage == HT_STAGE_STEP || stage == HT_STAGE_COND) ? HT_CUDA_F16 : HT_CUDA_F32;
}

/* Inputs of an operation that its kernels want alike: two parts of a concatenation; queries, keys and values. */
static int alike_of(const ht_op *op)
{
    if (op->kind == HT_OP_attention)
        return 3;
    return (ht_op_is_product(op) || op->kind == HT_OP_group_norm) && op->in[HT_IN_X2] ? 2 : 0;
}

/* Two values become alike: one that comes from outside as the other is, for it is converted on its way in; else both in
 * float32.  Whether anything changed. */
static bool make_alike(const ht_program *p, const ht_value *a, const ht_value *b)
{
    ht_cuda_dtype *x = &p->dtypes[source(a)->id], *y = &p->dtypes[source(b)->id];
    if (*x == *y || *x == HT_CUDA_U8 || *y == HT_CUDA_U8)
        return false;
    if (!source(a)->producer)
        *x = *y;
    else if (!source(b)->producer)
        *y = *x;
    else
        *x = *y = HT_CUDA_F32;
    return true;
}

static void make_all_alike(const ht_program *p)
{
    bool changed = true;
    while (changed) {
        changed = false;
        for (int i = 0; i < ht_graph_ops(p->graph); i++) {
            const ht_op *op = ht_graph_op(p->graph, i);
            for (int j = 1; j < alike_of(op); j++)
                changed |= make_alike(p, op->in[0], op->in[j]);
        }
    }
}

/* Values that are rounded to FP8 and read by nothing but products of FP8 become the codes; both inputs of a product or
 * none. */
static void choose_codes(const ht_program *p, bool *other)
{
    for (bool changed = true; changed;) {
        changed = false;
        for (int i = 0; i < ht_graph_ops(p->graph); i++) {
            const ht_op *op = ht_graph_op(p->graph, i);
            if (alike_of(op) != 2)
                continue;
            bool *a = &other[source(op->in[HT_IN_X])->id], *b = &other[source(op->in[HT_IN_X2])->id];
            changed |= *a != *b;
            *a = *b = *a || *b;
        }
    }
    for (int i = 0; i < ht_graph_ops(p->graph); i++) {
        const ht_value *out = ht_graph_op(p->graph, i)->out;
        if (!other[out->id])
            p->dtypes[out->id] = HT_CUDA_E4M3;
    }
}

/* other: cannot be FP8 codes. */
static void find_others(const ht_program *p, bool *other)
{
    for (int i = 0; i < ht_graph_values(p->graph); i++)
        other[i] = true;
    for (int i = 0; i < ht_graph_ops(p->graph); i++) {
        const ht_op *op = ht_graph_op(p->graph, i);
        if (p->half && op->kind == HT_OP_quantize && op->out->dtype != HT_U8 && is_e4m3(op->attrs.codes))
            other[op->out->id] = op->out->tapped;
    }
    for (int i = 0; i < ht_graph_ops(p->graph); i++) {
        const ht_op *op = ht_graph_op(p->graph, i);
        for (int j = 0; j < HT_INPUTS; j++)
            if (op->in[j] && !op->in[j]->data && !multiplies_e4m3(op, j))
                other[source(op->in[j])->id] = true;
    }
}

ht_status ht_cuda_choose_dtypes(ht_program *p)
{
    size_t n = (size_t)ht_graph_values(p->graph) + 1;
    bool *other = ht_alloc_array(p->arena, n, sizeof *other);
    p->dtypes = ht_alloc_array(p->arena, n, sizeof *p->dtypes);
    p->widths = ht_alloc_array(p->arena, n, 1);
    if (!other || !p->dtypes || !p->widths)
        return HT_ERR_MEMORY;
    for (int i = 0; i < ht_graph_values(p->graph); i++)
        if (!ht_graph_value(p->graph, i)->data)
            p->dtypes[i] = by_itself(p, ht_graph_value(p->graph, i));
    for (int i = 0; i < ht_graph_ops(p->graph); i++) {
        const ht_op *op = ht_graph_op(p->graph, i);
        for (int j = 0; j < HT_INPUTS; j++)
            if (op->in[j] && !op->in[j]->data && wants_floats(op, j))
                p->dtypes[source(op->in[j])->id] = HT_CUDA_F32;
    }
    make_all_alike(p);
    find_others(p, other);
    choose_codes(p, other);
    for (int i = 0; i < ht_graph_values(p->graph); i++) {
        p->dtypes[i] = p->dtypes[source(ht_graph_value(p->graph, i))->id];
        p->widths[i] = p->dtypes[i] == HT_CUDA_F32 ? 4 : p->dtypes[i] == HT_CUDA_F16 ? 2 : 1;
    }
    return HT_OK;
}
