/* reference_reduce.c - the scalar kernels that reduce: matrix products, norms, attention.  cpu/reference.h states
 * the order of every sum. */
#include <math.h>
#include <string.h>

#include "cpu/math.h"
#include "cpu/reference.h"
#include "cpu/window.h"

/* ---- conv2d, linear ---- */

static size_t product_bytes(const ht_op *op)
{
    ht_window w = ht_window_of(op, 1);
    return ht_round64((size_t)(w.cols * w.depth + w.cols) * sizeof(float));
}

/* [cols][in][k][k] as the checkpoint has it, then the bias, zeros if there is none. */
static void product_pack(const ht_op *op, void *packed)
{
    ht_window w = ht_window_of(op, 1);
    float *p = packed, *bias = p + w.cols * w.depth;
    ht_product_weights(op, 0, (size_t)(w.cols * w.depth), p);
    for (int64_t n = 0; n < w.cols; n++)
        bias[n] = 0;
    if (op->in[HT_IN_BIAS])
        ht_convert_weight(op->in[HT_IN_BIAS], bias);
}

static float product_at(const ht_call *c, const ht_window *w, int64_t m, int64_t n)
{
    const float *weight = (const float *)c->packed + n * w->depth;
    int64_t channels = w->c[0] + w->c[1], taps = w->taps;
    float sum = 0;
    for (int64_t tap = 0; tap < taps; tap++)
        for (int64_t ch = 0; ch < channels; ch++)
            sum = fmaf(ht_window_input(c, w, m, tap, ch), weight[ch * taps + tap], sum);
    return sum;
}

static void product(const ht_call *c, const ht_team *team)
{
    ht_window w = ht_window_of(c->op, c->n);
    const float *bias = (const float *)c->packed + w.cols * w.depth;
    int64_t m, end;
    ht_team_share(team, w.rows, &m, &end);
    for (; m < end; m++)
        for (int64_t n = 0; n < w.cols; n++) {
            float v = product_at(c, &w, m, n) + bias[n];
            if (c->in[HT_IN_ROW])
                v += ht_row_of(c->in[HT_IN_ROW], c->op->in[HT_IN_ROW], m / w.rows_per_image)[n];
            if (c->in[HT_IN_RESIDUAL])
                v += c->in[HT_IN_RESIDUAL][m * w.cols + n];
            v *= c->op->attrs.scale;
            ht_store(c, m * w.cols + n, c->op->attrs.activation ? ht_relu_f32(v) : v);
        }
}

/* ---- group_norm ---- */

ht_norm_size ht_norm_size_of(const ht_op *op)
{
    const ht_value *x = op->in[HT_IN_X], *x2 = op->in[HT_IN_X2];
    int64_t channels = ht_channels(op->out), positions = ht_value_count(op->out) / op->out->shape[0] / channels;
    return (ht_norm_size){.positions = positions,
                          .chunks = (positions + HT_NORM_CHUNK - 1) / HT_NORM_CHUNK,
                          .channels = channels,
                          .group = channels / op->attrs.groups,
                          .c = {ht_channels(x), x2 ? ht_channels(x2) : 0}};
}

size_t ht_group_norm_bytes(const ht_op *op)
{
    return ht_round64((size_t)ht_channels(op->out) * 2 * sizeof(float));
}

void ht_group_norm_pack(const ht_op *op, void *packed)
{
    ht_convert_weight(op->in[HT_IN_WEIGHT], packed);
    ht_convert_weight(op->in[HT_IN_BIAS], (float *)packed + ht_channels(op->out));
}

size_t ht_group_norm_shared(const ht_op *op)
{
    ht_norm_size z = ht_norm_size_of(op);
    return ht_round64((size_t)(op->out->shape[0] * (z.chunks + 1) * z.channels) * 2 * sizeof(float));
}

float *ht_norm_sums(const ht_norm_size *z, void *shared, int64_t image)
{
    return (float *)shared + image * z->chunks * z->channels * 2;
}

float *ht_norm_scales(const ht_norm_size *z, const ht_call *c, void *shared, int64_t image)
{
    return ht_norm_sums(z, shared, c->op->out->shape[0]) + image * z->channels * 2;
}

static int64_t chunk_length(const ht_norm_size *z, int64_t chunk)
{
    int64_t left = z->positions - chunk * HT_NORM_CHUNK;
    return left < HT_NORM_CHUNK ? left : HT_NORM_CHUNK;
}

void ht_norm_join(const ht_norm_size *z, const ht_call *c, void *shared, int64_t image, int64_t group)
{
    const float *s = ht_norm_sums(z, shared, image), *q = s + z->chunks * z->channels;
    const float *weight = c->packed, *bias = weight + z->channels;
    float *a = ht_norm_scales(z, c, shared, image), *b = a + z->channels;
    int64_t first = group * z->group, last = first + z->group;
    double n = (double)(z->positions * z->group), mean = 0, var = 0;
    for (int64_t k = 0; k < z->chunks; k++)
        for (int64_t i = first; i < last; i++)
            mean += (double)s[k * z->channels + i];
    mean /= n;
    for (int64_t k = 0; k < z->chunks; k++) {
        double count = (double)chunk_length(z, k), per = 1 / count;
        for (int64_t i = first; i < last; i++) {
            double off = (double)s[k * z->channels + i] * per - mean;
            var += (double)q[k * z->channels + i] + count * (off * off);
        }
    }
    double r = 1 / sqrt(var / n + (double)c->op->attrs.eps);
    for (int64_t i = first; i < last; i++) {
        a[i] = (float)((double)weight[i] * r);
        b[i] = (float)((double)bias[i] - mean * ((double)weight[i] * r));
    }
}

/* The value at (position, channel) of an image. */
static float norm_input(const ht_norm_size *z, const ht_call *c, int64_t image, int64_t p, int64_t i)
{
    int part = i >= z->c[0];
    const float *x = c->in[part ? HT_IN_X2 : HT_IN_X];
    return x[(image * z->positions + p) * z->c[part] + i - (part ? z->c[0] : 0)];
}

static void norm_sums(const ht_norm_size *z, const ht_call *c, void *shared, int64_t image, int64_t chunk)
{
    float *s = ht_norm_sums(z, shared, image) + chunk * z->channels, *q = s + z->chunks * z->channels;
    int64_t first = chunk * HT_NORM_CHUNK, count = chunk_length(z, chunk);
    for (int64_t i = 0; i < z->channels; i++) {
        float sum = 0, squares = 0;
        for (int64_t p = first; p < first + count; p++)
            sum += norm_input(z, c, image, p, i);
        float mean = sum / (float)count;
        for (int64_t p = first; p < first + count; p++) {
            float d = norm_input(z, c, image, p, i) - mean;
            squares = fmaf(d, d, squares);
        }
        s[i] = sum;
        q[i] = squares;
    }
}

static void group_norm(const ht_call *c, const ht_team *team)
{
    ht_norm_size z = ht_norm_size_of(c->op);
    int64_t i, end, groups = c->op->attrs.groups;
    ht_team_share(team, c->n * z.chunks, &i, &end);
    for (; i < end; i++)
        norm_sums(&z, c, team->shared, i / z.chunks, i % z.chunks);
    ht_team_wait(team);
    ht_team_share(team, c->n * groups, &i, &end);
    for (; i < end; i++)
        ht_norm_join(&z, c, team->shared, i / groups, i % groups);
    ht_team_wait(team);
    ht_team_share(team, c->n * z.positions, &i, &end);
    for (; i < end; i++) {
        const float *a = ht_norm_scales(&z, c, team->shared, i / z.positions), *b = a + z.channels;
        for (int64_t k = 0; k < z.channels; k++) {
            float y = fmaf(norm_input(&z, c, i / z.positions, i % z.positions, k), a[k], b[k]);
            ht_store(c, i * z.channels + k, c->op->attrs.activation ? ht_silu_f32(y) : y);
        }
    }
}

/* ---- attention ---- */

static size_t attention_scratch(const ht_op *op)
{
    return ht_round64((size_t)op->in[HT_IN_K]->shape[1] * sizeof(float));
}

float ht_softmax_sum(float *p, int64_t n)
{
    float lanes[HT_SOFTMAX_LANES] = {0}, max = p[0];
    for (int64_t j = 1; j < n; j++)
        max = p[j] > max ? p[j] : max;
    for (int64_t j = 0; j < n; j++) {
        p[j] = ht_exp_f32(p[j] - max);
        lanes[j % HT_SOFTMAX_LANES] += p[j];
    }
    return ht_join_lanes(lanes);
}

/* The score of query t and key j from their product. */
static float biased_score(const ht_call *c, int64_t image, int64_t head, int64_t t, int64_t j, float s)
{
    const ht_op *op = c->op;
    int64_t tq = op->out->shape[1], tk = op->in[HT_IN_K]->shape[1];
    const float *distances = c->packed;
    s = op->in[HT_IN_ROW] ? fmaf(s, op->attrs.scale, c->in[HT_IN_ROW][image * tk + j]) : s * op->attrs.scale;
    return op->in[HT_IN_BIAS] ? s + distances[head * (tq + tk - 1) + j - t + tq - 1] : s;
}

size_t ht_attention_bytes(const ht_op *op)
{
    const ht_value *distances = op->in[HT_IN_BIAS];
    return distances ? ht_round64((size_t)ht_value_count(distances) * sizeof(float)) : 0;
}

void ht_attention_pack(const ht_op *op, void *packed)
{
    if (op->in[HT_IN_BIAS])
        ht_convert_weight(op->in[HT_IN_BIAS], packed);
}

static void attention(const ht_call *c, const ht_team *team)
{
    const ht_op *op = c->op;
    int64_t tq = op->out->shape[1], tk = op->in[HT_IN_K]->shape[1], width = op->out->shape[2],
            d = width / op->attrs.heads;
    int64_t i, end;
    float *p = team->scratch;
    ht_team_share(team, c->n * op->attrs.heads * tq, &i, &end);
    for (; i < end; i++) {
        int64_t image = i / (op->attrs.heads * tq), head = i / tq % op->attrs.heads, t = i % tq;
        const float *q = c->in[HT_IN_Q] + (image * tq + t) * width + head * d;
        const float *k = c->in[HT_IN_K] + image * tk * width + head * d,
                    *v = c->in[HT_IN_V] + image * tk * width + head * d;
        float *out = c->out + (image * tq + t) * width + head * d;
        for (int64_t j = 0; j < tk; j++) {
            float s = 0;
            for (int64_t l = 0; l < d; l++)
                s = fmaf(q[l], k[j * width + l], s);
            p[j] = biased_score(c, image, head, t, j, s);
        }
        int64_t seen = op->attrs.causal ? t + 1 : tk;
        float sum = ht_softmax_sum(p, seen);
        memset(p + seen, 0, (size_t)(tk - seen) * sizeof *p);
        ht_softmax_round(op->attrs.softmax, p, seen);
        sum *= ht_softmax_levels(op->attrs.softmax);
        for (int64_t l = 0; l < d; l++) {
            float o = 0;
            for (int64_t j = 0; j < tk; j++)
                o = fmaf(p[j], v[j * width + l], o);
            out[l] = o / sum;
        }
    }
}

/* ---- the rows of the table (cpu/reference.c) ---- */

const ht_kernel ht_ref_linear = {
    .name = "linear_f32_scalar", .op = HT_OP_linear, .packed = product_bytes, .pack = product_pack, .run = product};
const ht_kernel ht_ref_conv2d = {
    .name = "conv2d_f32_scalar", .op = HT_OP_conv2d, .packed = product_bytes, .pack = product_pack, .run = product};
const ht_kernel ht_ref_group_norm = {.name = "group_norm_f32_scalar",
                                     .op = HT_OP_group_norm,
                                     .packed = ht_group_norm_bytes,
                                     .pack = ht_group_norm_pack,
                                     .shared = ht_group_norm_shared,
                                     .run = group_norm};
const ht_kernel ht_ref_attention = {.name = "attention_f32_scalar",
                                    .op = HT_OP_attention,
                                    .packed = ht_attention_bytes,
                                    .pack = ht_attention_pack,
                                    .scratch = attention_scratch,
                                    .run = attention};
