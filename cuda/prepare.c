/* prepare.c - what an operation needs of the checkpoint, brought to the device once. */
#include <stdlib.h>

#include "cuda/program.h"

void *ht_cuda_keep(ht_program *p, const void *data, size_t bytes)
{
    if (p->n_owned == p->cap_owned) {
        int cap = p->cap_owned ? 2 * p->cap_owned : 256;
        void **owned = ht_alloc_array(p->arena, (size_t)cap, sizeof *owned);
        if (!owned)
            return NULL;
        for (int i = 0; i < p->n_owned; i++)
            owned[i] = p->owned[i];
        p->owned = owned;
        p->cap_owned = cap;
    }
    void *memory = p->module->alloc(bytes);
    if (!memory || p->module->upload(memory, data, bytes)) {
        ht_cuda_fail(p->module, "the GPU's memory for weights");
        p->module->free(memory);
        return NULL;
    }
    p->owned[p->n_owned++] = memory;
    p->weight_bytes += bytes;
    return memory;
}

/* n elements of a weight from `first` on, in float32. */
static ht_status keep_floats(ht_program *p, const ht_value *v, size_t first, size_t n, const float **kept)
{
    float *values = malloc(n * sizeof *values);
    if (!values)
        return ht_fail(HT_ERR_MEMORY, "%s: out of memory for %zu numbers", v->name, n);
    ht_convert_to_f32(v->data->dtype, v->data->data, first, n, values);
    *kept = ht_cuda_keep(p, values, n * sizeof *values);
    free(values);
    return *kept ? HT_OK : HT_ERR_MEMORY;
}

static ht_status keep_table(ht_program *p, ht_cuda_step *s)
{
    const ht_input_table *t = s->op->attrs.table;
    size_t bytes = (size_t)t->groups * sizeof(float);
    if (t->timesteps && !(s->table[0] = ht_cuda_keep(p, t->timesteps, bytes)))
        return HT_ERR_MEMORY;
    s->table[1] = ht_cuda_keep(p, t->step, bytes);
    s->table[2] = ht_cuda_keep(p, t->zero, bytes);
    return s->table[1] && s->table[2] ? HT_OK : HT_ERR_MEMORY;
}

ht_status ht_cuda_prepare(ht_program *p, ht_cuda_step *s)
{
    const ht_op *op = s->op;
    const ht_value *weight = op->in[HT_IN_WEIGHT], *bias = op->in[HT_IN_BIAS];
    if (weight && !weight->data) /* attention's V has this place */
        weight = NULL;
    if (!ht_cuda_runs(op->kind))
        return ht_fail(HT_ERR_UNSUPPORTED, "the CUDA backend has no %s; --backend cpu has", ht_op_kind_name(op->kind));
    if (op->attrs.softmax)
        return ht_fail(HT_ERR_UNSUPPORTED, "the CUDA backend has no softmax of %s; --backend cpu has",
                       ht_softmax_name((int)op->attrs.softmax));
    s->kernel = ht_op_kind_name(op->kind);
    if (ht_cuda_is_product(op))
        return ht_cuda_prepare_product(p, s);
    if (op->kind == HT_OP_input_scale)
        return keep_table(p, s);
    if (op->kind == HT_OP_row) {
        size_t width = (size_t)ht_cuda_channels(op->out);
        return keep_floats(p, weight, (size_t)op->attrs.begin * width, width, &s->constant[0]);
    }
    ht_status status = weight ? keep_floats(p, weight, 0, (size_t)ht_value_count(weight), &s->constant[0]) : HT_OK;
    return status || !bias ? status : keep_floats(p, bias, 0, (size_t)ht_value_count(bias), &s->constant[1]);
}
