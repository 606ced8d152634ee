/* unet2d.c - UNet2DModel: binding a checkpoint, and the network as a graph.
 *
 * Down a level, residual blocks (each with attention at some levels) and a resampler that halves the size; a middle;
 * then up again, one residual block more a level, each reading what was kept on the way down.   DDPM
 * (arXiv:2006.11239), appendix B.
 *
 * Traps:
 * - What is kept: conv_in's output, every residual block's (after its attention), every downsampler's.  It is consumed
 *   last first.
 * - up_blocks.0 is the deepest level, so its channels are the last of block_out_channels.
 * - Attention inside levels has norm_num_groups, the middle's its own number, or no GroupNorm at all (config.c).
 * - mid_block_scale_factor is the middle's alone, its attention's too.
 * - conv_norm_out is followed by SiLU whatever act_fn says; the class embedding is added after time_embedding.linear_2,
 *   without SiLU. */
#include "unet/unet2d.h"

#include "unet/blocks.h"
#include "unet/skips.h"

typedef struct unet_level {
    int layers;
    ht_resnet *resnets;            /* [layers] */
    ht_self_attention *attentions; /* [layers], NULL: none */
    bool has_resampler;            /* all but the last have one */
    ht_resampler resampler;
} unet_level;

typedef struct unet_mid {
    ht_resnet resnets[2];
    ht_self_attention attention;
} unet_mid;

typedef struct unet2d {
    ht_unet2d_config config;
    ht_timestep_mlp time_embedding;
    ht_timestep_mlp class_embedding; /* class_embed_type timestep */
    const ht_tensor *class_table;    /* num_class_embeds */
    ht_conv_weights conv_in, conv_out;
    ht_norm_weights conv_norm_out;
    unet_level down_blocks[HT_UNET_MAX_LEVELS], up_blocks[HT_UNET_MAX_LEVELS];
    unet_mid mid_block;
} unet2d;

/* ---- binding ---- */

static ht_resnet resnet_of(const ht_unet2d_config *c, const char *name, int in, int out)
{
    return (ht_resnet){.name = name,
                       .in_channels = in,
                       .out_channels = out,
                       .temb_channels = c->time_embedding_dim,
                       .groups = c->norm_num_groups,
                       .eps = c->norm_eps,
                       .scale_shift = c->scale_shift,
                       .output_scale_factor = 1};
}

static ht_self_attention attention_of(const ht_unet2d_config *c, const char *name, int channels)
{
    int head_dim = c->attention_head_dim ? c->attention_head_dim : channels;
    return (ht_self_attention){.name = name,
                               .channels = channels,
                               .heads = channels / head_dim,
                               .head_dim = head_dim,
                               .groups = c->norm_num_groups,
                               .eps = c->norm_eps,
                               .output_scale_factor = 1};
}

/* What every binding of a model needs. */
typedef struct binder {
    ht_arena *arena;
    ht_weights *weights;
    unet2d *model;
} binder;

/* A level and where it stands: "down_blocks", 0. */
typedef struct level_place {
    const char *side;
    int index, layers;
    ht_unet_block_type type;
    int out;               /* channels of its residual blocks */
    ht_resample resample;  /* after them; NONE at the last level */
    const char *resampler; /* "downsamplers" */
} level_place;

static ht_status bind_layer(const binder *b, unet_level *level, const level_place *p, int layer, int in)
{
    const ht_unet2d_config *c = &b->model->config;
    const char *resnet = ht_sprintf(b->arena, "%s.%d.resnets.%d", p->side, p->index, layer);
    const char *attention = ht_sprintf(b->arena, "%s.%d.attentions.%d", p->side, p->index, layer);
    if (!resnet || !attention)
        return HT_ERR_MEMORY;
    level->resnets[layer] = resnet_of(c, resnet, in, p->out);
    ht_resnet_bind(b->weights, &level->resnets[layer]);
    if (p->type.attention) {
        level->attentions[layer] = attention_of(c, attention, p->out);
        ht_self_attention_bind(b->weights, &level->attentions[layer]);
    }
    return HT_OK;
}

static ht_status bind_resampler(const binder *b, unet_level *level, const level_place *p)
{
    const ht_unet2d_config *c = &b->model->config;
    const char *name = ht_sprintf(b->arena, "%s.%d.%s.0", p->side, p->index, p->resampler);
    if (!name)
        return HT_ERR_MEMORY;
    level->has_resampler = true;
    level->resampler = (ht_resampler){.name = name,
                                      .channels = p->out,
                                      .direction = p->resample,
                                      .is_resnet = p->type.resnet_resampler,
                                      .padding = c->downsample_padding,
                                      .resnet = resnet_of(c, name, p->out, p->out)};
    level->resampler.resnet.resample = p->resample;
    ht_resampler_bind(b->weights, &level->resampler);
    return HT_OK;
}

/* in: [layers], the channels that each residual block reads. */
static ht_status bind_level(const binder *b, unet_level *level, const level_place *p, const int *in)
{
    ht_status status = HT_OK;
    level->layers = p->layers;
    level->resnets = ht_alloc_array(b->arena, (size_t)p->layers, sizeof *level->resnets);
    if (p->type.attention)
        level->attentions = ht_alloc_array(b->arena, (size_t)p->layers, sizeof *level->attentions);
    if (!level->resnets || (p->type.attention && !level->attentions))
        return HT_ERR_MEMORY;
    for (int i = 0; !status && i < p->layers; i++)
        status = bind_layer(b, level, p, i, in[i]);
    if (!status && p->resample)
        status = bind_resampler(b, level, p);
    return status;
}

static ht_status bind_down(const binder *b, int i)
{
    const ht_unet2d_config *c = &b->model->config;
    int in[HT_UNET_MAX_LAYERS + 1];
    level_place p = {.side = "down_blocks",
                     .index = i,
                     .layers = c->layers_per_block,
                     .type = c->down_block_types[i],
                     .out = c->block_out_channels[i],
                     .resample = i < c->levels - 1 ? HT_RESAMPLE_DOWN : HT_RESAMPLE_NONE,
                     .resampler = "downsamplers"};
    for (int j = 0; j < p.layers; j++)
        in[j] = j || !i ? p.out : c->block_out_channels[i - 1];
    return bind_level(b, &b->model->down_blocks[i], &p, in);
}

static ht_status bind_up(const binder *b, int i)
{
    const ht_unet2d_config *c = &b->model->config;
    int in[HT_UNET_MAX_LAYERS + 1];
    int depth = c->levels - 1 - i;
    /* The last skip is what entered this level on the way down. */
    int above = c->block_out_channels[depth ? depth - 1 : 0];
    int below = c->block_out_channels[i ? depth + 1 : depth];
    level_place p = {.side = "up_blocks",
                     .index = i,
                     .layers = c->layers_per_block + 1,
                     .type = c->up_block_types[i],
                     .out = c->block_out_channels[depth],
                     .resample = depth ? HT_RESAMPLE_UP : HT_RESAMPLE_NONE,
                     .resampler = "upsamplers"};
    for (int j = 0; j < p.layers; j++)
        in[j] = (j ? p.out : below) + (j < p.layers - 1 ? p.out : above);
    return bind_level(b, &b->model->up_blocks[i], &p, in);
}

static void bind_mid(unet2d *m, ht_weights *w)
{
    static const char *const names[] = {"mid_block.resnets.0", "mid_block.resnets.1"};
    const ht_unet2d_config *c = &m->config;
    int channels = c->block_out_channels[c->levels - 1];
    for (int i = 0; i < 2; i++) {
        m->mid_block.resnets[i] = resnet_of(c, names[i], channels, channels);
        m->mid_block.resnets[i].output_scale_factor = c->mid_block_scale_factor;
        ht_resnet_bind(w, &m->mid_block.resnets[i]);
    }
    if (c->add_attention) {
        m->mid_block.attention = attention_of(c, "mid_block.attentions.0", channels);
        m->mid_block.attention.groups = c->mid_attn_groups;
        m->mid_block.attention.output_scale_factor = c->mid_block_scale_factor;
        ht_self_attention_bind(w, &m->mid_block.attention);
    }
}

static void bind_ends(unet2d *m, ht_weights *w)
{
    const ht_unet2d_config *c = &m->config;
    int first = c->block_out_channels[0];
    ht_bind_conv(w, &m->conv_in, c->in_channels, first, 3, true, "conv_in");
    ht_timestep_mlp_bind(w, &m->time_embedding, first, c->time_embedding_dim, "time_embedding");
    if (c->class_embed == HT_CLASS_TIMESTEP)
        ht_timestep_mlp_bind(w, &m->class_embedding, first, c->time_embedding_dim, "class_embedding");
    if (c->class_embed == HT_CLASS_TABLE)
        m->class_table = ht_bind_tensor(w, 2, (const int64_t[]){c->num_class_embeds, c->time_embedding_dim},
                                        "class_embedding.weight");
    ht_bind_norm(w, &m->conv_norm_out, first, "conv_norm_out");
    ht_bind_conv(w, &m->conv_out, first, c->out_channels, 3, true, "conv_out");
}

static ht_status unet2d_open(ht_arena *arena, const json_t *config, const char *where, ht_weights *weights,
                             void **model)
{
    unet2d *m = ht_alloc(arena, sizeof *m);
    const binder b = {arena, weights, m};
    ht_status status = m ? ht_unet2d_config_read(config, where, &m->config) : HT_ERR_MEMORY;
    if (status)
        return status;
    bind_ends(m, weights);
    for (int i = 0; !status && i < m->config.levels; i++)
        status = bind_down(&b, i);
    if (m->config.mid_block)
        bind_mid(m, weights);
    for (int i = 0; !status && i < m->config.levels; i++)
        status = bind_up(&b, i);
    if (!status)
        status = ht_weights_finish(weights);
    if (!status)
        *model = m;
    return status;
}

static void unet2d_info(const void *model, ht_denoiser_info *info)
{
    const ht_unet2d_config *c = &((const unet2d *)model)->config;
    *info = (ht_denoiser_info){.in_channels = c->in_channels,
                               .out_channels = c->out_channels,
                               .height = c->height,
                               .width = c->width,
                               .size_multiple = 1 << (c->levels - 1),
                               .num_classes = c->num_class_embeds,
                               .class_timestep = c->class_embed == HT_CLASS_TIMESTEP,
                               .class_embed_dim = c->class_embed == HT_CLASS_IDENTITY ? c->time_embedding_dim : 0};
}

/* ---- the network ---- */

static ht_value *time_proj(ht_graph *g, const ht_unet2d_config *c, ht_value *t)
{
    return ht_timestep_embedding(g, t, c->block_out_channels[0], c->flip_sin_to_cos, c->freq_shift);
}

/* -> [1,e], depends on {t}; with a class [n,e] and {t,cond} */
static ht_value *time_and_class(ht_graph *g, const unet2d *m, int64_t n)
{
    const ht_unet2d_config *c = &m->config;
    ht_value *temb = ht_timestep_mlp_block(g, &m->time_embedding, time_proj(g, c, ht_timestep(g)));
    ht_name(g, temb, "time_embedding");
    if (c->class_embed == HT_CLASS_NONE)
        return temb;
    if (c->class_embed == HT_CLASS_IDENTITY)
        return ht_add(g, temb,
                      ht_input(g, "class_embeddings", 2, (const int64_t[]){n, c->time_embedding_dim}, HT_DEPENDS_COND));
    ht_value *labels = ht_input(g, "class_labels", 2, (const int64_t[]){n, 1}, HT_DEPENDS_COND);
    if (c->class_embed == HT_CLASS_TABLE)
        return ht_add(g, temb, ht_embedding(g, labels, m->class_table));
    return ht_add(g, temb, ht_timestep_mlp_block(g, &m->class_embedding, time_proj(g, c, labels)));
}

/* [n,h,w,c] -> [n,h/2,w/2,c'] */
static ht_value *down_block(ht_graph *g, const unet_level *b, ht_value *x, ht_value *temb, ht_skips *s)
{
    for (int i = 0; i < b->layers; i++) {
        x = ht_resnet_block(g, &b->resnets[i], x, temb);
        if (b->attentions)
            x = ht_self_attention_block(g, &b->attentions[i], x);
        ht_keep(s, x);
    }
    return b->has_resampler ? ht_keep(s, ht_resampler_block(g, &b->resampler, x, temb)) : x;
}

/* [n,h,w,c] -> [n,h,w,c] */
static ht_value *mid_block(ht_graph *g, const unet_mid *b, ht_value *x, ht_value *temb, bool attention)
{
    x = ht_resnet_block(g, &b->resnets[0], x, temb);
    if (attention)
        x = ht_self_attention_block(g, &b->attention, x);
    x = ht_resnet_block(g, &b->resnets[1], x, temb);
    return ht_name(g, x, "mid_block");
}

/* [n,h,w,c] -> [n,2h,2w,c'] */
static ht_value *up_block(ht_graph *g, const unet_level *b, ht_value *x, ht_value *temb, ht_skips *s)
{
    for (int i = 0; i < b->layers; i++) {
        x = ht_resnet_block(g, &b->resnets[i], ht_concat(g, x, ht_take(s)), temb);
        if (b->attentions)
            x = ht_self_attention_block(g, &b->attentions[i], x);
    }
    return b->has_resampler ? ht_resampler_block(g, &b->resampler, x, temb) : x;
}

static void unet2d_build(const void *model, ht_graph *g, ht_denoiser_size size)
{
    const unet2d *m = model;
    const ht_unet2d_config *c = &m->config;
    const ht_conv_shape same_size = {.pad_top = 1, .pad_left = 1, .pad_bottom = 1, .pad_right = 1};
    ht_skips s = {.n = 0};
    ht_value *temb = time_and_class(g, m, size.n);
    ht_value *x = ht_input(g, "sample", 4, (const int64_t[]){size.n, size.h, size.w, c->in_channels}, HT_DEPENDS_X);
    if (c->center_input_sample)
        x = ht_affine(g, x, 2, -1);
    x = ht_keep(&s, ht_conv2d(g, x, &m->conv_in, same_size));
    for (int i = 0; i < c->levels; i++)
        x = down_block(g, &m->down_blocks[i], x, temb, &s);
    if (c->mid_block)
        x = mid_block(g, &m->mid_block, x, temb, c->add_attention);
    for (int i = 0; i < c->levels; i++)
        x = up_block(g, &m->up_blocks[i], x, temb, &s);
    x = ht_silu(g, ht_group_norm(g, x, &m->conv_norm_out, c->norm_num_groups, c->norm_eps));
    ht_output_value(g, ht_conv2d(g, x, &m->conv_out, same_size), "out");
}

const ht_denoiser_family ht_unet2d_family = {"UNet2DModel", unet2d_open, unet2d_info, unet2d_build};
