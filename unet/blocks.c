/* blocks.c - residual block, self-attention, resampling, time embedding.
 *
 * DDPM (arXiv:2006.11239, appendix B), with ADM's variants (arXiv:2105.05233, section 3: scale and shift from the time
 * embedding, resampling inside residual blocks, several heads), as diffusers' UNet2DModel puts them together.
 *
 * Traps:
 * - A residual block that resamples does so between norm1's SiLU and conv1, and on the shortcut before conv_shortcut.
 * - With scale_shift the row of time_emb_proj is [scale, shift], applied after norm2, and the scale is relative to 1.
 * - Attention's scale is 1 / sqrt(head width); heads * head_dim may be less than the channels when it does not divide
 *   them.
 * - downsample_padding 0 is not "no padding": one row below and one column to the right, then stride 2 without padding.
 * - output_scale_factor divides the sum, shortcut included. */
#include "unet/blocks.h"

#include <math.h>

static const ht_conv_shape same_size = {.pad_top = 1, .pad_left = 1, .pad_bottom = 1, .pad_right = 1};
static const ht_conv_shape pointwise = {0};

static ht_value *rescale(ht_graph *g, ht_value *x, float output_scale_factor)
{
    return output_scale_factor == 1 ? x : ht_affine(g, x, 1 / output_scale_factor, 0);
}

static ht_value *resample(ht_graph *g, ht_value *x, ht_resample direction)
{
    switch (direction) {
    case HT_RESAMPLE_DOWN:
        return ht_avg_pool(g, x);
    case HT_RESAMPLE_UP:
        return ht_upsample(g, x, 2);
    default:
        return x;
    }
}

/* ---- residual block ---- */

void ht_resnet_bind(ht_weights *w, ht_resnet *b)
{
    ht_bind_norm(w, &b->norm1, b->in_channels, "%s.norm1", b->name);
    ht_bind_conv(w, &b->conv1, b->in_channels, b->out_channels, 3, true, "%s.conv1", b->name);
    if (b->temb_channels)
        ht_bind_linear(w, &b->time_emb_proj, b->temb_channels, (int64_t)b->out_channels * (b->scale_shift ? 2 : 1),
                       true, "%s.time_emb_proj", b->name);
    ht_bind_norm(w, &b->norm2, b->out_channels, "%s.norm2", b->name);
    ht_bind_conv(w, &b->conv2, b->out_channels, b->out_channels, 3, true, "%s.conv2", b->name);
    if (b->in_channels != b->out_channels)
        ht_bind_conv(w, &b->conv_shortcut, b->in_channels, b->out_channels, 1, true, "%s.conv_shortcut", b->name);
}

/* Where the time comes in: DDPM adds a row and normalizes, ADM normalizes, scales and shifts (its "adaptive group
 * norm", eq. 3). */
static ht_value *norm2_with_time(ht_graph *g, const ht_resnet *b, ht_value *h, ht_value *row)
{
    if (!b->temb_channels)
        return ht_group_norm(g, h, &b->norm2, b->groups, b->eps);
    if (!b->scale_shift)
        return ht_group_norm(g, ht_add_row(g, h, row), &b->norm2, b->groups, b->eps);
    ht_value *scale = ht_slice(g, row, 0, b->out_channels), *shift = ht_slice(g, row, b->out_channels, b->out_channels);
    return ht_scale_shift(g, ht_group_norm(g, h, &b->norm2, b->groups, b->eps), scale, shift);
}

ht_value *ht_resnet_block(ht_graph *g, const ht_resnet *b, ht_value *x, ht_value *temb)
{
    ht_value *row = b->temb_channels ? ht_linear(g, ht_silu(g, temb), &b->time_emb_proj) : NULL;
    ht_value *h = ht_silu(g, ht_group_norm(g, x, &b->norm1, b->groups, b->eps));
    h = ht_conv2d(g, resample(g, h, b->resample), &b->conv1, same_size);
    h = ht_conv2d(g, ht_silu(g, norm2_with_time(g, b, h, row)), &b->conv2, same_size);
    ht_value *shortcut = resample(g, x, b->resample);
    if (b->in_channels != b->out_channels)
        shortcut = ht_conv2d(g, shortcut, &b->conv_shortcut, pointwise);
    return ht_name(g, rescale(g, ht_add(g, shortcut, h), b->output_scale_factor), "%s", b->name);
}

/* ---- attention ---- */

void ht_self_attention_bind(ht_weights *w, ht_self_attention *b)
{
    int64_t inner = (int64_t)b->heads * b->head_dim;
    if (b->groups)
        ht_bind_norm(w, &b->group_norm, b->channels, "%s.group_norm", b->name);
    ht_bind_linear(w, &b->to_q, b->channels, inner, true, "%s.to_q", b->name);
    ht_bind_linear(w, &b->to_k, b->channels, inner, true, "%s.to_k", b->name);
    ht_bind_linear(w, &b->to_v, b->channels, inner, true, "%s.to_v", b->name);
    ht_bind_linear(w, &b->to_out, inner, b->channels, true, "%s.to_out.0", b->name);
}

ht_value *ht_as_tokens(ht_graph *g, ht_value *x)
{
    return x ? ht_reshape(g, x, 3, (const int64_t[]){x->shape[0], x->shape[1] * x->shape[2], x->shape[3]}) : NULL;
}

ht_value *ht_as_image(ht_graph *g, ht_value *tokens, const ht_value *image)
{
    return tokens ? ht_reshape(g, tokens, 4, image->shape) : NULL;
}

ht_value *ht_self_attention_block(ht_graph *g, const ht_self_attention *b, ht_value *x)
{
    ht_value *h = ht_as_tokens(g, b->groups ? ht_group_norm(g, x, &b->group_norm, b->groups, b->eps) : x);
    ht_value *q = ht_linear(g, h, &b->to_q), *k = ht_linear(g, h, &b->to_k), *v = ht_linear(g, h, &b->to_v);
    h = ht_attention(g, q, k, v, b->heads, 1 / sqrtf((float)b->head_dim));
    h = ht_add(g, ht_linear(g, h, &b->to_out), ht_as_tokens(g, x));
    return ht_name(g, ht_as_image(g, rescale(g, h, b->output_scale_factor), x), "%s", b->name);
}

/* ---- resampling ---- */

void ht_resampler_bind(ht_weights *w, ht_resampler *b)
{
    if (b->is_resnet)
        ht_resnet_bind(w, &b->resnet);
    else
        ht_bind_conv(w, &b->conv, b->channels, b->channels, 3, true, "%s.conv", b->name);
}

ht_value *ht_resampler_block(ht_graph *g, const ht_resampler *b, ht_value *x, ht_value *temb)
{
    if (b->is_resnet)
        return ht_resnet_block(g, &b->resnet, x, temb);
    if (b->direction == HT_RESAMPLE_UP)
        return ht_name(g, ht_conv2d(g, ht_upsample(g, x, 2), &b->conv, same_size), "%s", b->name);
    ht_conv_shape halve = {.stride = 2, .pad_top = b->padding, .pad_left = b->padding, .pad_bottom = 1, .pad_right = 1};
    return ht_name(g, ht_conv2d(g, x, &b->conv, halve), "%s", b->name);
}

ht_value *ht_upsampler_block(ht_graph *g, const ht_resampler *b, ht_value *x, int64_t h, int64_t w)
{
    return ht_name(g, ht_conv2d(g, ht_upsample_to(g, x, h, w), &b->conv, same_size), "%s", b->name);
}

/* ---- time ---- */

void ht_timestep_mlp_bind(ht_weights *w, ht_timestep_mlp *b, int in, int out, const char *name)
{
    ht_bind_linear(w, &b->linear_1, in, out, true, "%s.linear_1", name);
    ht_bind_linear(w, &b->linear_2, out, out, true, "%s.linear_2", name);
}

ht_value *ht_timestep_mlp_block(ht_graph *g, const ht_timestep_mlp *b, ht_value *x)
{
    return ht_linear(g, ht_silu(g, ht_linear(g, x, &b->linear_1)), &b->linear_2);
}
