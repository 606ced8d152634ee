/* coder.c - the convolutional encoder and decoder of latent diffusion's first stage (arXiv:2112.10752, appendix G; the
 * architecture is VQGAN's, arXiv:2012.09841, table 7): the residual blocks of a U-Net without time, without skips.
 *
 * Traps:
 * - Every GroupNorm's eps is 1e-6; the middle's attention has one head.
 * - Downsampling pads one row below and one column to the right only.
 * - The decoder's levels have one residual block more than the encoder's, and its channels run backwards. */
#include "vae/coder.h"

static const float norm_eps = 1e-6f;
static const ht_conv_shape same_size = {.pad_top = 1, .pad_left = 1, .pad_bottom = 1, .pad_right = 1};

/* ---- binding ---- */

/* What every binding of a half needs.  side: "encoder". */
typedef struct binder {
    ht_arena *arena;
    ht_weights *weights;
    const ht_vae_config *config;
    const char *side;
    ht_coder *coder;
} binder;

static ht_resnet resnet_of(const ht_vae_config *c, const char *name, int in, int out)
{
    return (ht_resnet){.name = name,
                       .in_channels = in,
                       .out_channels = out,
                       .groups = c->norm_num_groups,
                       .eps = norm_eps,
                       .output_scale_factor = 1};
}

static ht_status bind_mid(const binder *b)
{
    const ht_vae_config *c = b->config;
    int channels = c->block_out_channels[c->levels - 1];
    for (int i = 0; i < 2; i++) {
        const char *name = ht_sprintf(b->arena, "%s.mid_block.resnets.%d", b->side, i);
        if (!name)
            return HT_ERR_MEMORY;
        b->coder->mid_resnets[i] = resnet_of(c, name, channels, channels);
        ht_resnet_bind(b->weights, &b->coder->mid_resnets[i]);
    }
    const char *name = ht_sprintf(b->arena, "%s.mid_block.attentions.0", b->side);
    if (!name)
        return HT_ERR_MEMORY;
    b->coder->mid_attention = c->mid_block_add_attention;
    b->coder->attention = (ht_self_attention){.name = name,
                                              .channels = channels,
                                              .heads = 1,
                                              .head_dim = channels,
                                              .groups = c->norm_num_groups,
                                              .eps = norm_eps,
                                              .output_scale_factor = 1};
    if (c->mid_block_add_attention)
        ht_self_attention_bind(b->weights, &b->coder->attention);
    return HT_OK;
}

/* Level i of a half: `layers` residual blocks from in to out channels, then perhaps a resampler. */
static ht_status bind_level(const binder *b, int i, int layers, int in, int out)
{
    bool down = b->side[0] == 'e';
    ht_coder_level *l = &b->coder->levels[i];
    l->layers = layers;
    l->has_resampler = i < b->config->levels - 1;
    l->resnets = ht_alloc_array(b->arena, (size_t)layers, sizeof *l->resnets);
    const char *level = ht_sprintf(b->arena, "%s.%s_blocks.%d", b->side, down ? "down" : "up", i);
    const char *resampler = level ? ht_sprintf(b->arena, "%s.%ssamplers.0", level, down ? "down" : "up") : NULL;
    if (!l->resnets || !resampler)
        return HT_ERR_MEMORY;
    for (int j = 0; j < layers; j++) {
        const char *name = ht_sprintf(b->arena, "%s.resnets.%d", level, j);
        if (!name)
            return HT_ERR_MEMORY;
        l->resnets[j] = resnet_of(b->config, name, j ? out : in, out);
        ht_resnet_bind(b->weights, &l->resnets[j]);
    }
    l->resampler = (ht_resampler){
        .name = resampler, .channels = out, .direction = down ? HT_RESAMPLE_DOWN : HT_RESAMPLE_UP, .padding = 0};
    if (l->has_resampler)
        ht_resampler_bind(b->weights, &l->resampler);
    return HT_OK;
}

static void bind_ends(const binder *b, int in, int first, int last, int out)
{
    ht_coder *coder = b->coder;
    coder->groups = b->config->norm_num_groups;
    coder->n_levels = b->config->levels;
    ht_bind_conv(b->weights, &coder->conv_in, in, first, 3, true, "%s.conv_in", b->side);
    ht_bind_norm(b->weights, &coder->conv_norm_out, last, "%s.conv_norm_out", b->side);
    ht_bind_conv(b->weights, &coder->conv_out, last, out, 3, true, "%s.conv_out", b->side);
}

ht_status ht_encoder_bind(ht_arena *arena, ht_weights *w, const ht_vae_config *c, int out, ht_coder *coder)
{
    const binder b = {arena, w, c, "encoder", coder};
    const int *channels = c->block_out_channels;
    bind_ends(&b, c->in_channels, channels[0], channels[c->levels - 1], out);
    ht_status status = bind_mid(&b);
    for (int i = 0; !status && i < c->levels; i++)
        status = bind_level(&b, i, c->layers_per_block, channels[i ? i - 1 : 0], channels[i]);
    return status;
}

ht_status ht_decoder_bind(ht_arena *arena, ht_weights *w, const ht_vae_config *c, ht_coder *coder)
{
    const binder b = {arena, w, c, "decoder", coder};
    const int *channels = c->block_out_channels;
    int last = c->levels - 1;
    bind_ends(&b, c->latent_channels, channels[last], channels[0], c->out_channels);
    ht_status status = bind_mid(&b);
    for (int i = 0; !status && i < c->levels; i++)
        status = bind_level(&b, i, c->layers_per_block + 1, channels[i ? last - i + 1 : last], channels[last - i]);
    return status;
}

/* ---- the networks ---- */

static ht_value *middle(ht_graph *g, const ht_coder *b, ht_value *x)
{
    x = ht_resnet_block(g, &b->mid_resnets[0], x, NULL);
    if (b->mid_attention)
        x = ht_self_attention_block(g, &b->attention, x);
    return ht_resnet_block(g, &b->mid_resnets[1], x, NULL);
}

static ht_value *levels(ht_graph *g, const ht_coder *b, ht_value *x)
{
    for (int i = 0; i < b->n_levels; i++) {
        for (int j = 0; j < b->levels[i].layers; j++)
            x = ht_resnet_block(g, &b->levels[i].resnets[j], x, NULL);
        if (b->levels[i].has_resampler)
            x = ht_resampler_block(g, &b->levels[i].resampler, x, NULL);
    }
    return x;
}

static ht_value *last(ht_graph *g, const ht_coder *b, ht_value *x)
{
    x = ht_silu(g, ht_group_norm(g, x, &b->conv_norm_out, b->groups, norm_eps));
    return ht_conv2d(g, x, &b->conv_out, same_size);
}

ht_value *ht_encoder_block(ht_graph *g, const ht_coder *b, ht_value *x)
{
    return last(g, b, middle(g, b, levels(g, b, ht_conv2d(g, x, &b->conv_in, same_size))));
}

ht_value *ht_decoder_block(ht_graph *g, const ht_coder *b, ht_value *z)
{
    return last(g, b, levels(g, b, middle(g, b, ht_conv2d(g, z, &b->conv_in, same_size))));
}
