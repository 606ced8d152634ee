/* reverse_ops.c - the operations that reverse mode needs: their builders and shape rules.  graph/ops.def says what they
 * compute. */
#include <string.h>

#include "graph/graph_private.h"
#include "graph/reverse.h"

static int64_t channels(const ht_value *v)
{
    return v->shape[v->ndim - 1];
}

static bool like(ht_value *out, const ht_value *x)
{
    out->ndim = x->ndim;
    memcpy(out->shape, x->shape, sizeof out->shape);
    out->batched = x->batched;
    return true;
}

static bool wrong(ht_graph *g, const ht_op *op, const char *what)
{
    ht_graph_fail(g, HT_ERR_SHAPE, "%s of %s: %s", ht_op_kind_name(op->kind), op->in[HT_IN_X]->name, what);
    return false;
}

/* ---- shapes ---- */

bool ht_like_x_shape(ht_graph *g, ht_op *op, ht_value *out)
{
    const ht_value *x = op->in[HT_IN_X], *dy = op->in[HT_IN_GRADIENT];
    if (dy && op->kind != HT_OP_conv2d_dx && ht_value_count(dy) != ht_value_count(x))
        return wrong(g, op, "the gradient is not of its output's shape");
    return like(out, x);
}

bool ht_conv2d_by_shape(ht_graph *g, ht_op *op, ht_value *out)
{
    const ht_value *x = op->in[HT_IN_X], *w = op->in[HT_IN_WEIGHT], *b = op->in[HT_IN_BIAS];
    ht_attrs *a = &op->attrs;
    if (x->ndim != 4 || w->ndim != 4 || w->shape[1] != w->shape[2] || w->shape[3] != x->shape[3])
        return wrong(g, op, "wanted [n,h,w,in] and a weight [out,k,k,in]");
    if (b && (b->ndim != 2 || b->shape[0] != 1 || b->shape[1] != w->shape[0]))
        return wrong(g, op, "the bias must be [1,out]");
    a->kernel = a->kernel_height = (int)w->shape[1];
    int64_t h = x->shape[1] + a->pad_top + a->pad_bottom - a->kernel,
            width = x->shape[2] + a->pad_left + a->pad_right - a->kernel;
    if (h < 0 || width < 0)
        return wrong(g, op, "the window is larger than the padded input");
    like(out, x);
    out->shape[1] = h / a->stride + 1;
    out->shape[2] = width / a->stride + 1;
    out->shape[3] = w->shape[0];
    return true;
}

bool ht_conv2d_dw_shape(ht_graph *g, ht_op *op, ht_value *out)
{
    const ht_value *x = op->in[HT_IN_X], *dy = op->in[HT_IN_GRADIENT];
    (void)g;
    out->ndim = 4;
    out->shape[0] = channels(dy);
    out->shape[1] = out->shape[2] = op->attrs.kernel;
    out->shape[3] = channels(x);
    out->batched = false;
    return true;
}

bool ht_geglu_dx_shape(ht_graph *g, ht_op *op, ht_value *out)
{
    const ht_value *x = op->in[HT_IN_X], *dy = op->in[HT_IN_GRADIENT];
    if (!dy || 2 * ht_value_count(dy) != ht_value_count(x) || 2 * channels(dy) != channels(x))
        return wrong(g, op, "the gradient is not of its output's shape");
    return like(out, x);
}

static bool tokens_fit(const ht_op *op)
{
    const ht_value *a = op->in[HT_IN_X], *b = op->in[HT_IN_X2];
    return a->ndim == 3 && b->ndim == 3 && a->shape[0] == b->shape[0] && op->attrs.heads > 0 &&
           channels(b) % op->attrs.heads == 0 && channels(a) % op->attrs.heads == 0;
}

bool ht_scores_shape(ht_graph *g, ht_op *op, ht_value *out)
{
    const ht_value *q = op->in[HT_IN_Q], *k = op->in[HT_IN_K];
    if (!tokens_fit(op) || channels(q) != channels(k))
        return wrong(g, op, "wanted q [n,tokens,c] and k [n,tokens',c]");
    like(out, q);
    out->shape[2] = k->shape[1] * op->attrs.heads;
    return true;
}

bool ht_softmax_shape(ht_graph *g, ht_op *op, ht_value *out)
{
    if (op->in[HT_IN_X]->ndim != 3 || channels(op->in[HT_IN_X]) % op->attrs.heads)
        return wrong(g, op, "wanted [n,tokens,heads*keys]");
    return like(out, op->in[HT_IN_X]);
}

bool ht_mix_shape(ht_graph *g, ht_op *op, ht_value *out)
{
    const ht_value *p = op->in[HT_IN_X], *v = op->in[HT_IN_X2];
    bool over_queries = op->kind == HT_OP_mix_t;
    int64_t keys = tokens_fit(op) ? channels(p) / op->attrs.heads : -1;
    if (v->shape[1] != (over_queries ? p->shape[1] : keys))
        return wrong(g, op, "wanted p [n,tokens,heads*keys] and as many tokens to mix");
    like(out, v);
    out->shape[1] = over_queries ? keys : p->shape[1];
    return true;
}

bool ht_simulate_shape(ht_graph *g, ht_op *op, ht_value *out)
{
    const ht_value *x = op->in[HT_IN_X], *scale = op->in[HT_IN_SCALE];
    bool by_token = scale->ndim == 3 && x->ndim == 3 && scale->shape[1] == x->shape[1];
    if ((scale->ndim != 2 && !by_token) || channels(scale) != 2 ||
        (scale->shape[0] != 1 && scale->shape[0] != x->shape[0]))
        return wrong(g, op, "the scale must be [1 or n,2] or [n,tokens,2]");
    return ht_like_x_shape(g, op, out);
}

/* ---- builders ---- */

ht_value *ht_constant_input(ht_graph *g, const char *name, int ndim, const int64_t *shape)
{
    ht_value *v = ht_input(g, name, ndim, shape, HT_DEPENDS_X);
    if (v)
        v->batched = false;
    return v;
}

ht_value *ht_conv2d_by(ht_graph *g, ht_value *x, ht_value *weight, ht_value *bias, ht_conv_shape s)
{
    ht_op op = {.in = {[HT_IN_X] = x, [HT_IN_WEIGHT] = weight, [HT_IN_BIAS] = bias},
                .attrs = {.stride = s.stride ? s.stride : 1,
                          .pad_top = s.pad_top,
                          .pad_left = s.pad_left,
                          .pad_bottom = s.pad_bottom,
                          .pad_right = s.pad_right,
                          .upsample = 1,
                          .scale = 1}};
    return ht_graph_add_op(g, HT_OP_conv2d_by, &op);
}

ht_value *ht_simulate(ht_graph *g, ht_value *x, ht_value *scale, const ht_format *codes)
{
    ht_op op = {.in = {[HT_IN_X] = x, [HT_IN_SCALE] = scale}, .attrs = {.codes = codes}};
    return ht_graph_add_op(g, HT_OP_simulate, &op);
}

static ht_value *heads_op(ht_graph *g, ht_op_kind kind, ht_value *a, ht_value *b, ht_attrs attrs)
{
    return ht_graph_add_op(g, kind, &(ht_op){.in = {[HT_IN_X] = a, [HT_IN_X2] = b}, .attrs = attrs});
}

ht_value *ht_scores(ht_graph *g, ht_value *q, ht_value *k, int heads, float scale)
{
    return heads_op(g, HT_OP_scores, q, k, (ht_attrs){.heads = heads, .scale = scale});
}

ht_value *ht_softmax(ht_graph *g, ht_value *scores, int heads)
{
    return heads_op(g, HT_OP_softmax, scores, NULL, (ht_attrs){.heads = heads});
}

ht_value *ht_mix(ht_graph *g, ht_value *p, ht_value *v, int heads, float scale)
{
    return heads_op(g, HT_OP_mix, p, v, (ht_attrs){.heads = heads, .scale = scale});
}

ht_value *ht_mix_t(ht_graph *g, ht_value *p, ht_value *q, int heads, float scale)
{
    return heads_op(g, HT_OP_mix_t, p, q, (ht_attrs){.heads = heads, .scale = scale});
}

ht_value *ht_channel_gram(ht_graph *g, ht_value *x, int places)
{
    if (!x)
        return NULL;
    int64_t every = x->shape[1] * x->shape[2] / places;
    ht_op gram = {.in = {[HT_IN_X] = x},
                  .attrs = {.kernel = 1, .kernel_height = 1, .stride = 1, .upsample = 1, .count = (int)(every | 1)}};
    return ht_graph_add_op(g, HT_OP_gram, &gram);
}
