/* reference_transformer.c - the scalar kernels that text encoders and transformer blocks bring: layer norm, their
 * activations, positions.  cpu/reference.h states the order of every sum. */
#include <math.h>
#include <string.h>

#include "cpu/math.h"
#include "cpu/reference.h"

/* ---- layer_norm ---- */

float ht_row_sum(const float *x, int64_t n, const float *mean)
{
    float lanes[HT_SOFTMAX_LANES] = {0};
    for (int64_t i = 0; i < n; i++) {
        float *lane = &lanes[i % HT_SOFTMAX_LANES];
        *lane = mean ? fmaf(x[i] - *mean, x[i] - *mean, *lane) : *lane + x[i];
    }
    return ht_join_lanes(lanes);
}

static void layer_norm(const ht_call *c, const ht_team *team)
{
    int64_t row, end, n = ht_channels(c->op->out);
    const float *weight = c->packed, *bias = weight + n;
    ht_team_share(team, ht_rows(c->op->out, c->n), &row, &end);
    for (; row < end; row++) {
        const float *x = c->in[HT_IN_X] + row * n;
        float mean = ht_row_sum(x, n, NULL) / (float)n;
        float r = 1 / sqrtf(ht_row_sum(x, n, &mean) / (float)n + c->op->attrs.eps);
        for (int64_t i = 0; i < n; i++)
            ht_store(c, row * n + i, fmaf((x[i] - mean) * r, weight[i], bias[i]));
    }
}

/* ---- activations ---- */

static void gelu(const ht_call *c, const ht_team *team)
{
    int64_t i, end;
    ht_team_share(team, ht_rows(c->op->out, c->n) * ht_channels(c->op->out), &i, &end);
    for (; i < end; i++)
        c->out[i] = ht_gelu_f32(c->in[HT_IN_X][i]);
}

static void quick_gelu(const ht_call *c, const ht_team *team)
{
    int64_t i, end;
    ht_team_share(team, ht_rows(c->op->out, c->n) * ht_channels(c->op->out), &i, &end);
    for (; i < end; i++)
        c->out[i] = ht_quick_gelu_f32(c->in[HT_IN_X][i]);
}

/* ---- positions ---- */

static size_t positions_bytes(const ht_op *op)
{
    return ht_round64((size_t)ht_value_count(op->in[HT_IN_WEIGHT]) * sizeof(float));
}

static void positions_pack(const ht_op *op, void *packed)
{
    ht_convert_weight(op->in[HT_IN_WEIGHT], packed);
}

static void add_position(const ht_call *c, const ht_team *team)
{
    int64_t row, end, tokens = c->op->out->shape[1], width = c->op->out->shape[2];
    ht_team_share(team, ht_rows(c->op->out, c->n), &row, &end);
    for (; row < end; row++) {
        const float *position = (const float *)c->packed + row % tokens * width;
        for (int64_t i = 0; i < width; i++)
            c->out[row * width + i] = c->in[HT_IN_X][row * width + i] + position[i];
    }
}

/* Which token is checked before it comes here (ht_clip_encoder_run). */
static void pick(const ht_call *c, const ht_team *team)
{
    int64_t row, end, tokens = c->op->in[HT_IN_X]->shape[1], width = c->op->out->shape[1];
    ht_team_share(team, ht_rows(c->op->out, c->n), &row, &end);
    for (; row < end; row++)
        memcpy(c->out + row * width, c->in[HT_IN_X] + (row * tokens + (int64_t)c->in[HT_IN_X2][row]) * width,
               (size_t)width * sizeof(float));
}

/* ---- the rows of the table (cpu/reference.c) ---- */

const ht_kernel ht_ref_layer_norm = {.name = "layer_norm_f32_scalar",
                                     .op = HT_OP_layer_norm,
                                     .packed = ht_group_norm_bytes,
                                     .pack = ht_group_norm_pack,
                                     .run = layer_norm};
const ht_kernel ht_ref_gelu = {.name = "gelu_f32_scalar", .op = HT_OP_gelu, .run = gelu};
const ht_kernel ht_ref_quick_gelu = {.name = "quick_gelu_f32_scalar", .op = HT_OP_quick_gelu, .run = quick_gelu};
const ht_kernel ht_ref_add_position = {.name = "add_position_f32_scalar",
                                       .op = HT_OP_add_position,
                                       .packed = positions_bytes,
                                       .pack = positions_pack,
                                       .run = add_position};
const ht_kernel ht_ref_pick = {.name = "pick_f32_scalar", .op = HT_OP_pick, .run = pick};
