/* session_info.c - what a session is made of, in words: for info, bench, and anyone who asks why a layer runs as it
 * does. */
#include <stdio.h>
#include <string.h>

#include "sampler/session_private.h"

void ht_session_get_info(const ht_session *s, ht_session_info *info)
{
    ht_program_info program;
    s->backend->info(s->program, &program);
    *info = (ht_session_info){.backend = s->backend->name,
                              .isa = program.isa,
                              .batch = s->batch,
                              .height = s->height,
                              .width = s->width,
                              .threads = program.threads,
                              .ops = ht_graph_ops(s->graph),
                              .activation_bytes = program.activation_bytes,
                              .packed_bytes = program.packed_bytes};
}

/* "[n,32,32,64]" */
static int print_shape(char *text, size_t size, const ht_value *v)
{
    int at = snprintf(text, size, "[%s", v->batched ? "n" : "1");
    for (int i = 1; i < v->ndim && at < (int)size; i++)
        at += snprintf(text + at, size - (size_t)at, ",%lld", (long long)v->shape[i]);
    return at < (int)size ? at + snprintf(text + at, size - (size_t)at, "]") : at;
}

static const char *describe(ht_arena *arena, const ht_op *op)
{
    char out[96], x[96] = "", x2[100] = "", more[64] = "";
    print_shape(out, sizeof out, op->out);
    if (op->in[HT_IN_X]) /* a scale that is the same at all timesteps has no input */
        print_shape(x, sizeof x, op->in[HT_IN_X]);
    if (op->in[HT_IN_X2]) {
        x2[0] = '|';
        print_shape(x2 + 1, sizeof x2 - 1, op->in[HT_IN_X2]);
    }
    if (op->kind == HT_OP_conv2d)
        snprintf(more, sizeof more, " k%d s%d%s", op->attrs.kernel, op->attrs.stride,
                 op->attrs.upsample > 1 ? " up2" : "");
    return ht_sprintf(arena, "%s <- %s%s%s", out, x, x2, more);
}

/* The weight's name without its end. */
static const char *layer_of(ht_arena *arena, const ht_op *op)
{
    const char *name = ht_op_is_product(op) ? op->in[HT_IN_WEIGHT]->name : "";
    size_t n = strlen(name), end = strlen(".weight");
    return n > end ? ht_sprintf(arena, "%.*s", (int)(n - end), name) : "";
}

ht_status ht_session_describe(ht_session *s)
{
    int n = ht_graph_ops(s->graph);
    s->descriptions = ht_alloc_array(s->arena, (size_t)n, sizeof *s->descriptions);
    s->layers = ht_alloc_array(s->arena, (size_t)n, sizeof *s->layers);
    if (!s->descriptions || !s->layers)
        return HT_ERR_MEMORY;
    for (int i = 0; i < n; i++) {
        const ht_op *op = ht_graph_op(s->graph, i);
        s->descriptions[i] = describe(s->arena, op);
        s->layers[i] = layer_of(s->arena, op);
        if (!s->descriptions[i] || !s->layers[i])
            return HT_ERR_MEMORY;
    }
    return HT_OK;
}

void ht_session_op(const ht_session *s, int i, ht_op_info *info)
{
    const ht_op *op = ht_graph_op(s->graph, i);
    *info = (ht_op_info){.name = op->out->name,
                         .layer = s->layers[i],
                         .kind = ht_op_kind_name(op->kind),
                         .stage = ht_stage_name(ht_stage_of(op->out->deps)),
                         .shape = s->descriptions[i],
                         .macs = ht_op_macs(op)};
    s->backend->op(s->program, i, &info->kernel, &info->refused, &info->seconds, &info->runs);
}

void ht_session_peaks(ht_session *s, double *floats, double *codes)
{
    *floats = *codes = 0;
    if (s->backend->peaks)
        s->backend->peaks(s->program, floats, codes);
}
