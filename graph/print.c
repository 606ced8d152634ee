/* print.c - a graph as text, a line an operation: for tests of the passes, and for reading. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "graph/backend.h"

static void print_value(FILE *f, const ht_value *v)
{
    if (v->data)
        fprintf(f, "%s", v->name);
    else
        fprintf(f, "%%%d", v->id);
    for (int i = 0; i < v->ndim; i++)
        fprintf(f, "%s%lld", i ? "," : "[", (long long)v->shape[i]);
    fprintf(f, v->dtype == HT_U8 ? "]u8" : "]");
}

static void print_attrs(FILE *f, const ht_op *op)
{
    const ht_attrs *a = &op->attrs;
    if (op->kind == HT_OP_conv2d)
        fprintf(f, " stride=%d pad=%d,%d,%d,%d", a->stride, a->pad_top, a->pad_left, a->pad_bottom, a->pad_right);
    if (a->upsample > 1)
        fprintf(f, " upsample=%d", a->upsample);
    if (a->groups)
        fprintf(f, " groups=%d", a->groups);
    if (a->heads)
        fprintf(f, " heads=%d", a->heads);
    if (a->causal)
        fprintf(f, " causal");
    if (a->activation)
        fprintf(f, " silu");
    if (a->scale != 0 && a->scale != 1)
        fprintf(f, " scale=%g", (double)a->scale);
    if (a->shift != 0)
        fprintf(f, " shift=%g", (double)a->shift);
    if (a->count)
        fprintf(f, " channels=%d+%d", a->begin, a->count);
    if (op->layer)
        fprintf(f, " %s", op->layer->format.name);
    if (a->codes)
        fprintf(f, " codes=%s", a->codes->name);
}

static void print_op(FILE *f, const ht_op *op)
{
    static const char *const prefix[HT_INPUTS] = {" ",   " | ",     " ",        " ",          " row ",
                                                  " + ", " scale ", " scale2 ", " out_scale "};
    print_value(f, op->out);
    fprintf(f, " = %s", ht_op_kind_name(op->kind));
    for (int i = 0; i < HT_INPUTS; i++)
        if (op->in[i]) {
            fprintf(f, "%s", op->kind == HT_OP_attention ? " " : prefix[i]);
            print_value(f, op->in[i]);
        }
    print_attrs(f, op);
    fprintf(f, "  # %s: %s\n", ht_stage_name(ht_stage_of(op->out->deps)), op->out->name);
}

char *ht_graph_print(const ht_graph *g, ht_arena *arena)
{
    char *text = NULL, *copy = NULL;
    size_t size;
    FILE *f = open_memstream(&text, &size);
    if (!f) {
        ht_fail(HT_ERR_MEMORY, "out of memory");
        return NULL;
    }
    for (int i = 0; i < ht_graph_ops(g); i++)
        print_op(f, ht_graph_op(g, i));
    if (!fclose(f))
        copy = ht_strdup(arena, text);
    free(text);
    return copy;
}
