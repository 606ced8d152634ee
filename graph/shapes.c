/* shapes.c - the shape rule of every operation: it validates, names the dimension that is wrong, and gives the output's
 * shape. */
#include <stdio.h>
#include <string.h>

#include "graph/graph_private.h"

/* Inputs of one output: more than any model has, few enough that index arithmetic on them is far from overflow. */
enum { MAX_DEPTH = 1 << 24, MAX_EMBEDDING = 1 << 16 };

static int64_t channels(const ht_value *v)
{
    return v->shape[v->ndim - 1];
}

static const char *shape_text(const ht_value *v, char *text, size_t size)
{
    size_t at = 0;
    for (int i = 0; i < v->ndim && at < size; i++)
        at += (size_t)snprintf(text + at, size - at, "%s%lld", i ? "," : "[", (long long)v->shape[i]);
    if (at + 1 < size)
        memcpy(text + at, "]", 2);
    return text;
}

static bool wrong(ht_graph *g, const ht_op *op, const char *what)
{
    char a[100], b[100] = "";
    const ht_value *x = op->in[HT_IN_X], *other = NULL;
    for (int i = 1; i < HT_INPUTS && !other; i++)
        other = op->in[i];
    ht_graph_fail(g, HT_ERR_SHAPE, "%s of %s %s%s%s%s%s: %s", ht_op_rows[op->kind].name, x->name,
                  shape_text(x, a, sizeof a), other ? " with " : "", other ? other->name : "", other ? " " : "",
                  other ? shape_text(other, b, sizeof b) : "", what);
    return false;
}

static bool copy_shape(ht_value *out, const ht_value *x)
{
    out->ndim = x->ndim;
    memcpy(out->shape, x->shape, sizeof out->shape);
    return true;
}

static bool same_shapes(const ht_value *a, const ht_value *b)
{
    return a->ndim == b->ndim && !memcmp(a->shape, b->shape, (size_t)a->ndim * sizeof *a->shape);
}

static bool same_shape(ht_graph *g, ht_op *op, ht_value *out)
{
    (void)g;
    return copy_shape(out, op->in[HT_IN_X]);
}

static bool reshape_shape(ht_graph *g, ht_op *op, ht_value *out)
{
    return same_shape(g, op, out); /* ht_reshape puts the new one in its place */
}

static bool timestep_embedding_shape(ht_graph *g, ht_op *op, ht_value *out)
{
    const ht_value *t = op->in[HT_IN_X];
    int half = op->attrs.dim / 2;
    if (t->ndim != 2 || t->shape[1] > MAX_DEPTH / MAX_EMBEDDING)
        return wrong(g, op, "t must be [n,1], or a few numbers [n,k]");
    if (op->attrs.dim < 2 || op->attrs.dim > MAX_EMBEDDING || !((float)half - op->attrs.freq_shift > 0))
        return wrong(g, op, "the embedding's width is out of range, or too small for its freq_shift");
    copy_shape(out, t);
    out->shape[1] = t->shape[1] * op->attrs.dim;
    return true;
}

static bool embedding_shape(ht_graph *g, ht_op *op, ht_value *out)
{
    const ht_value *index = op->in[HT_IN_X], *table = op->in[HT_IN_WEIGHT];
    if (channels(index) != 1 || table->ndim != 2)
        return wrong(g, op, "wanted row numbers [...,1] and a table [rows,channels]");
    copy_shape(out, index);
    out->shape[index->ndim - 1] = table->shape[1];
    return true;
}

static bool add_position_shape(ht_graph *g, ht_op *op, ht_value *out)
{
    const ht_value *x = op->in[HT_IN_X], *table = op->in[HT_IN_WEIGHT];
    if (x->ndim != 3 || table->ndim != 2 || table->shape[1] != x->shape[2])
        return wrong(g, op, "wanted [n,tokens,channels] and a table [positions,channels]");
    if (table->shape[0] < x->shape[1])
        return wrong(g, op, "there are more tokens than positions");
    return copy_shape(out, x);
}

static bool pick_shape(ht_graph *g, ht_op *op, ht_value *out)
{
    const ht_value *x = op->in[HT_IN_X], *token = op->in[HT_IN_X2];
    if (x->ndim != 3 || token->ndim != 2 || token->shape[1] != 1 || token->shape[0] != x->shape[0] ||
        token->batched != x->batched)
        return wrong(g, op, "wanted [n,tokens,channels] and token numbers [n,1]");
    out->ndim = 2;
    out->shape[0] = x->shape[0];
    out->shape[1] = x->shape[2];
    return true;
}

static bool nearest_row_shape(ht_graph *g, ht_op *op, ht_value *out)
{
    const ht_value *x = op->in[HT_IN_X], *table = op->in[HT_IN_WEIGHT];
    if (table->ndim != 2 || table->shape[1] != channels(x) || table->shape[0] > MAX_DEPTH)
        return wrong(g, op, "wanted a table [rows,channels], 2^24 rows at most");
    copy_shape(out, x);
    out->shape[x->ndim - 1] = 1;
    return true;
}

static bool bias_fits(const ht_op *op, int64_t out_channels)
{
    const ht_value *bias = op->in[HT_IN_BIAS];
    return !bias || (bias->ndim == 1 && bias->shape[0] == out_channels);
}

static bool linear_shape(ht_graph *g, ht_op *op, ht_value *out)
{
    const ht_value *x = op->in[HT_IN_X], *w = op->in[HT_IN_WEIGHT];
    for (int i = 2; i < w->ndim; i++)
        if (w->shape[i] != 1)
            return wrong(g, op, "a linear layer's weight must be [out,in]");
    if (w->ndim < 2 || w->shape[1] != channels(x))
        return wrong(g, op, "input channels and the weight's second dimension differ");
    if (w->shape[1] > MAX_DEPTH)
        return wrong(g, op, "too many input channels");
    if (!bias_fits(op, w->shape[0]))
        return wrong(g, op, "the bias must be [out]");
    copy_shape(out, x);
    out->shape[x->ndim - 1] = w->shape[0];
    return true;
}

static bool conv2d_shape(ht_graph *g, ht_op *op, ht_value *out)
{
    const ht_value *x = op->in[HT_IN_X], *w = op->in[HT_IN_WEIGHT];
    ht_attrs *a = &op->attrs;
    if (x->ndim != 4)
        return wrong(g, op, "the input must be [n,h,w,c]");
    if (w->ndim != 4 || w->shape[2] > 64 || w->shape[3] > 64)
        return wrong(g, op, "the weight must be [out,in,k,k] with k <= 64");
    if (w->shape[1] != x->shape[3])
        return wrong(g, op, "input channels and the weight's second dimension differ");
    a->kernel = (int)w->shape[3];
    a->kernel_height = (int)w->shape[2];
    if (w->shape[1] > MAX_DEPTH / (a->kernel * a->kernel_height))
        return wrong(g, op, "too many inputs a window");
    if (a->stride < 1 || a->stride > 64 || a->pad_top < 0 || a->pad_left < 0 || a->pad_bottom < 0 || a->pad_right < 0 ||
        a->pad_top > 64 || a->pad_left > 64 || a->pad_bottom > 64 || a->pad_right > 64)
        return wrong(g, op, "stride must be 1 to 64, padding 0 to 64");
    if (!bias_fits(op, w->shape[0]))
        return wrong(g, op, "the bias must be [out]");
    int64_t h = x->shape[1] * a->upsample + a->pad_top + a->pad_bottom - a->kernel_height;
    int64_t width = x->shape[2] * a->upsample + a->pad_left + a->pad_right - a->kernel;
    if (h < 0 || width < 0)
        return wrong(g, op, "the window is larger than the padded input");
    *out = (ht_value){.id = out->id,
                      .name = out->name,
                      .ndim = 4,
                      .shape = {x->shape[0], h / a->stride + 1, width / a->stride + 1, w->shape[0]},
                      .dtype = out->dtype,
                      .deps = out->deps,
                      .batched = out->batched,
                      .producer = op};
    return true;
}

static bool group_norm_shape(ht_graph *g, ht_op *op, ht_value *out)
{
    const ht_value *x = op->in[HT_IN_X], *w = op->in[HT_IN_WEIGHT], *b = op->in[HT_IN_BIAS];
    if (op->attrs.groups < 1 || channels(x) % op->attrs.groups)
        return wrong(g, op, "the channels do not fall into that many groups");
    if (w->ndim != 1 || w->shape[0] != channels(x) || b->ndim != 1 || b->shape[0] != channels(x))
        return wrong(g, op, "weight and bias must be [channels]");
    return copy_shape(out, x);
}

static bool layer_norm_shape(ht_graph *g, ht_op *op, ht_value *out)
{
    const ht_value *x = op->in[HT_IN_X], *w = op->in[HT_IN_WEIGHT], *b = op->in[HT_IN_BIAS];
    if (w->ndim != 1 || w->shape[0] != channels(x) || b->ndim != 1 || b->shape[0] != channels(x))
        return wrong(g, op, "weight and bias must be [channels]");
    return copy_shape(out, x);
}

static bool geglu_shape(ht_graph *g, ht_op *op, ht_value *out)
{
    if (channels(op->in[HT_IN_X]) % 2)
        return wrong(g, op, "the channels must be two halves");
    copy_shape(out, op->in[HT_IN_X]);
    out->shape[out->ndim - 1] /= 2;
    return true;
}

static bool add_shape(ht_graph *g, ht_op *op, ht_value *out)
{
    const ht_value *a = op->in[HT_IN_X], *b = op->in[HT_IN_X2];
    if (same_shapes(a, b))
        return copy_shape(out, a->batched ? a : b);
    if (a->ndim == b->ndim && !memcmp(a->shape + 1, b->shape + 1, (size_t)(a->ndim - 1) * sizeof *a->shape) &&
        a->batched != b->batched)
        return copy_shape(out, a->batched ? a : b);
    return wrong(g, op, "the shapes differ");
}

static bool row_fits(const ht_value *x, const ht_value *row)
{
    return row->ndim == 2 && row->shape[1] == channels(x) && (row->shape[0] == 1 || row->shape[0] == x->shape[0]);
}

static bool add_row_shape(ht_graph *g, ht_op *op, ht_value *out)
{
    if (!row_fits(op->in[HT_IN_X], op->in[HT_IN_ROW]))
        return wrong(g, op, "the row must be [1 or n, channels]");
    return copy_shape(out, op->in[HT_IN_X]);
}

static bool scale_shift_shape(ht_graph *g, ht_op *op, ht_value *out)
{
    if (!row_fits(op->in[HT_IN_X], op->in[HT_IN_ROW]) || !row_fits(op->in[HT_IN_X], op->in[HT_IN_RESIDUAL]))
        return wrong(g, op, "scale and shift must be [1 or n, channels]");
    return copy_shape(out, op->in[HT_IN_X]);
}

static bool slice_shape(ht_graph *g, ht_op *op, ht_value *out)
{
    const ht_value *x = op->in[HT_IN_X];
    if (op->attrs.begin < 0 || op->attrs.count < 1 || op->attrs.count > channels(x) - op->attrs.begin)
        return wrong(g, op, "the slice is outside the channels");
    copy_shape(out, x);
    out->shape[x->ndim - 1] = op->attrs.count;
    return true;
}

static bool concat_shape(ht_graph *g, ht_op *op, ht_value *out)
{
    const ht_value *a = op->in[HT_IN_X], *b = op->in[HT_IN_X2];
    if (a->ndim != b->ndim || a->batched != b->batched ||
        memcmp(a->shape, b->shape, (size_t)(a->ndim - 1) * sizeof *a->shape))
        return wrong(g, op, "all dimensions but the channels must agree");
    copy_shape(out, a);
    out->shape[a->ndim - 1] += channels(b);
    return true;
}

static bool upsample_shape(ht_graph *g, ht_op *op, ht_value *out)
{
    if (op->in[HT_IN_X]->ndim != 4 || op->attrs.upsample != 2)
        return wrong(g, op, "wanted [n,h,w,c] and a factor of 2");
    copy_shape(out, op->in[HT_IN_X]);
    out->shape[1] = 2 * out->shape[1] - op->attrs.crop_bottom;
    out->shape[2] = 2 * out->shape[2] - op->attrs.crop_right;
    return true;
}

static bool avg_pool_shape(ht_graph *g, ht_op *op, ht_value *out)
{
    if (op->in[HT_IN_X]->ndim != 4)
        return wrong(g, op, "wanted [n,h,w,c]");
    copy_shape(out, op->in[HT_IN_X]);
    out->shape[1] /= 2;
    out->shape[2] /= 2;
    return true;
}

/* A window that begins or ends outside still has a pixel inside: padding is less than the kernel, and what is left over
 * at the end is not looked at. */
static bool pool_shape(ht_graph *g, ht_op *op, ht_value *out)
{
    const ht_value *x = op->in[HT_IN_X];
    const ht_attrs *a = &op->attrs;
    if (x->ndim != 4)
        return wrong(g, op, "wanted [n,h,w,c]");
    if (a->kernel < 1 || a->kernel > 64 || a->stride < 1 || a->stride > 64)
        return wrong(g, op, "kernel and stride must be 1 to 64");
    if (a->pad_top < 0 || a->pad_left < 0 || a->pad_bottom < 0 || a->pad_right < 0 || a->pad_top >= a->kernel ||
        a->pad_left >= a->kernel || a->pad_bottom >= a->kernel || a->pad_right >= a->kernel)
        return wrong(g, op, "padding must be less than the kernel");
    int64_t h = x->shape[1] + a->pad_top + a->pad_bottom - a->kernel;
    int64_t width = x->shape[2] + a->pad_left + a->pad_right - a->kernel;
    if (h < 0 || width < 0)
        return wrong(g, op, "the window is larger than the padded input");
    copy_shape(out, x);
    out->shape[1] = h / a->stride + 1;
    out->shape[2] = width / a->stride + 1;
    return true;
}

static bool mean_shape(ht_graph *g, ht_op *op, ht_value *out)
{
    const ht_value *x = op->in[HT_IN_X];
    if (x->ndim != 4)
        return wrong(g, op, "wanted [n,h,w,c]");
    out->ndim = 2;
    out->shape[0] = x->shape[0];
    out->shape[1] = x->shape[3];
    return true;
}

static bool attention_shape(ht_graph *g, ht_op *op, ht_value *out)
{
    const ht_value *q = op->in[HT_IN_Q], *k = op->in[HT_IN_K], *v = op->in[HT_IN_V];
    const ht_value *keys = op->in[HT_IN_ROW], *distances = op->in[HT_IN_BIAS];
    if (q->ndim != 3 || k->ndim != 3 || !same_shapes(k, v) || q->shape[2] != k->shape[2] || q->shape[0] != k->shape[0])
        return wrong(g, op, "wanted q [n,tokens,c] and k, v [n,tokens',c]");
    if (op->attrs.heads < 1 || q->shape[2] % op->attrs.heads)
        return wrong(g, op, "the channels do not fall into that many heads");
    if (op->attrs.causal && q->shape[1] != k->shape[1])
        return wrong(g, op, "causal attention wants as many keys as queries");
    if (keys && (keys->ndim != 2 || keys->shape[0] != k->shape[0] || keys->shape[1] != k->shape[1] ||
                 keys->batched != k->batched))
        return wrong(g, op, "what is added to the scores of keys must be [n,tokens']");
    if (distances && (distances->ndim != 2 || distances->shape[0] != op->attrs.heads ||
                      distances->shape[1] != q->shape[1] + k->shape[1] - 1))
        return wrong(g, op, "what is added to scores by distance must be [heads,tokens+tokens'-1]");
    return copy_shape(out, q);
}

static bool input_scale_shape(ht_graph *g, ht_op *op, ht_value *out)
{
    (void)g;
    (void)op;
    out->ndim = 2;
    out->shape[0] = 1;
    out->shape[1] = 2;
    return true;
}

/* Of a list of tokens one each, of an image one. */
static bool input_range_shape(ht_graph *g, ht_op *op, ht_value *out)
{
    const ht_value *x = op->in[HT_IN_X];
    if (op->attrs.codes->grid.exponent_bits || op->attrs.codes->block)
        return wrong(g, op, "codes with a scale of each token or image must be integers");
    out->ndim = x->ndim == 3 ? 3 : 2;
    out->shape[0] = x->shape[0];
    out->shape[1] = x->ndim == 3 ? x->shape[1] : 2;
    out->shape[2] = x->ndim == 3 ? 2 : 0;
    return true;
}

static bool quantize_shape(ht_graph *g, ht_op *op, ht_value *out)
{
    const ht_value *x = op->in[HT_IN_X], *scale = op->in[HT_IN_SCALE];
    if (channels(scale) != 2 || (scale->shape[0] != 1 && scale->shape[0] != x->shape[0]))
        return wrong(g, op, "the scale must be [1 or n, 2]");
    out->dtype = op->attrs.codes->grid.exponent_bits ? HT_F32 : HT_U8;
    return copy_shape(out, x);
}

static bool gram_shape(ht_graph *g, ht_op *op, ht_value *out)
{
    const ht_value *x = op->in[HT_IN_X], *x2 = op->in[HT_IN_X2];
    int64_t k = (channels(x) + (x2 ? channels(x2) : 0)) * op->attrs.kernel * op->attrs.kernel;
    if (op->attrs.kernel != op->attrs.kernel_height)
        return wrong(g, op, "second moments are of square windows");
    if (k > 1 << 15)
        return wrong(g, op, "too many inputs a window for a matrix of second moments");
    out->ndim = 2;
    out->shape[0] = out->shape[1] = k;
    out->batched = false;
    return true;
}

const ht_op_row ht_op_rows[HT_OP_KINDS] = {
#define OP(name, shape, traits) [HT_OP_##name] = {#name, shape, traits},
#include "graph/ops.def"
#undef OP
};

const char *ht_op_kind_name(ht_op_kind kind)
{
    return ht_op_rows[kind].name;
}

bool ht_op_is_product(const ht_op *op)
{
    return ht_op_rows[op->kind].traits & HT_HAS_EPILOGUE;
}

bool ht_op_is_view(const ht_op *op)
{
    return ht_op_rows[op->kind].traits & HT_IS_VIEW;
}

double ht_op_macs(const ht_op *op)
{
    const ht_value *out = op->out;
    double per_image = (double)ht_value_count(out) / (out->batched ? (double)out->shape[0] : 1);
    if (op->kind == HT_OP_linear || op->kind == HT_OP_conv2d)
        return per_image * (double)ht_value_count(op->in[HT_IN_WEIGHT]) / (double)op->in[HT_IN_WEIGHT]->shape[0];
    if (op->kind == HT_OP_attention)
        return per_image * 2 * (double)op->in[HT_IN_K]->shape[1];
    return 0;
}
