/* reference_adaptive.c - the scalar kernels that diffusion transformers and T5 bring: modulated and root-mean-square
 * norms, gates, patches.  cpu/reference.h states the order of every sum. */
#include <math.h>
#include <string.h>

#include "cpu/math.h"
#include "cpu/reference.h"

/* The sum of (x - mean)^2. */
static float square_sum(const float *x, int64_t n, float mean)
{
    float lanes[HT_SOFTMAX_LANES] = {0};
    for (int64_t i = 0; i < n; i++)
        lanes[i % HT_SOFTMAX_LANES] = fmaf(x[i] - mean, x[i] - mean, lanes[i % HT_SOFTMAX_LANES]);
    return ht_join_lanes(lanes);
}

static float sum(const float *x, int64_t n)
{
    float lanes[HT_SOFTMAX_LANES] = {0};
    for (int64_t i = 0; i < n; i++)
        lanes[i % HT_SOFTMAX_LANES] += x[i];
    return ht_join_lanes(lanes);
}

/* The image that row r of x belongs to. */
static int64_t image_of(const ht_call *c, int64_t r)
{
    const ht_value *x = c->op->in[HT_IN_X];
    return r / (ht_rows(x, c->n) / (x->batched ? c->n : x->shape[0]));
}

static void modulate(const ht_call *c, const ht_team *team)
{
    int64_t r, end, n = ht_channels(c->op->out);
    ht_team_share(team, ht_rows(c->op->out, c->n), &r, &end);
    for (; r < end; r++) {
        const float *x = c->in[HT_IN_X] + r * n;
        const float *scale = ht_row_of(c->in[HT_IN_ROW], c->op->in[HT_IN_ROW], image_of(c, r));
        const float *shift = ht_row_of(c->in[HT_IN_RESIDUAL], c->op->in[HT_IN_RESIDUAL], image_of(c, r));
        float mean = sum(x, n) / (float)n, s = 1 / sqrtf(square_sum(x, n, mean) / (float)n + c->op->attrs.eps);
        for (int64_t i = 0; i < n; i++)
            c->out[r * n + i] = fmaf((x[i] - mean) * s, 1.0f + scale[i], shift[i]);
    }
}

static void gate(const ht_call *c, const ht_team *team)
{
    int64_t r, end, n = ht_channels(c->op->out);
    ht_team_share(team, ht_rows(c->op->out, c->n), &r, &end);
    for (; r < end; r++) {
        const float *row = ht_row_of(c->in[HT_IN_ROW], c->op->in[HT_IN_ROW], image_of(c, r));
        for (int64_t i = r * n; i < (r + 1) * n; i++)
            c->out[i] = fmaf(c->in[HT_IN_X][i], row[i - r * n], c->in[HT_IN_RESIDUAL][i]);
    }
}

size_t ht_rms_norm_bytes(const ht_op *op)
{
    return ht_round64((size_t)ht_value_count(op->in[HT_IN_WEIGHT]) * sizeof(float));
}

void ht_rms_norm_pack(const ht_op *op, void *packed)
{
    ht_convert_weight(op->in[HT_IN_WEIGHT], packed);
}

static void rms_norm(const ht_call *c, const ht_team *team)
{
    int64_t r, end, n = ht_channels(c->op->out);
    const float *weight = c->packed;
    ht_team_share(team, ht_rows(c->op->out, c->n), &r, &end);
    for (; r < end; r++) {
        const float *x = c->in[HT_IN_X] + r * n;
        float s = 1 / sqrtf(square_sum(x, n, 0) / (float)n + c->op->attrs.eps);
        for (int64_t i = 0; i < n; i++)
            c->out[r * n + i] = x[i] * s * weight[i];
    }
}

static void gelu_tanh(const ht_call *c, const ht_team *team)
{
    int64_t i, end;
    ht_team_share(team, ht_rows(c->op->out, c->n) * ht_channels(c->op->out), &i, &end);
    for (; i < end; i++)
        c->out[i] = ht_gelu_tanh_f32(c->in[HT_IN_X][i]);
}

static void multiply(const ht_call *c, const ht_team *team)
{
    int64_t i, end;
    ht_team_share(team, ht_rows(c->op->out, c->n) * ht_channels(c->op->out), &i, &end);
    for (; i < end; i++)
        c->out[i] = c->in[HT_IN_X][i] * c->in[HT_IN_X2][i];
}

/* A row of a patch lies together in both. */
static void unpatchify(const ht_call *c, const ht_team *team)
{
    const ht_value *x = c->op->in[HT_IN_X], *out = c->op->out;
    int64_t r, end, k = c->op->attrs.kernel, w = x->shape[2], run = k * out->shape[3];
    ht_team_share(team, ht_rows(x, c->n), &r, &end);
    for (; r < end; r++)
        for (int64_t y = 0; y < k; y++)
            memcpy(c->out + ((r / w * k + y) * w + r % w) * run, c->in[HT_IN_X] + (r * k + y) * run,
                   (size_t)run * sizeof(float));
}

/* Read where the checkpoint has it. */
static void row(const ht_call *c, const ht_team *team)
{
    const ht_tensor *table = c->op->in[HT_IN_WEIGHT]->data;
    size_t n = (size_t)ht_channels(c->op->out);
    if (!team->thread)
        ht_convert_to_f32(table->dtype, table->data, (size_t)c->op->attrs.begin * n, n, c->out);
}

/* ---- the rows of the table (cpu/reference.c) ---- */

#define PLAIN(kind) const ht_kernel ht_ref_##kind = {.name = #kind "_f32_scalar", .op = HT_OP_##kind, .run = kind}
PLAIN(modulate);
PLAIN(gate);
PLAIN(gelu_tanh);
PLAIN(multiply);
PLAIN(unpatchify);
PLAIN(row);
const ht_kernel ht_ref_rms_norm = {.name = "rms_norm_f32_scalar",
                                   .op = HT_OP_rms_norm,
                                   .packed = ht_rms_norm_bytes,
                                   .pack = ht_rms_norm_pack,
                                   .run = rms_norm};
