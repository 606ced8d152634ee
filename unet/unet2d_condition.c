/* unet2d_condition.c - UNet2DConditionModel: binding a checkpoint, and the network as a graph.
 *
 * DDPM's U-Net (unet/unet2d.c) whose attention looks at a context too: latent diffusion (arXiv:2112.10752), section
 * 3.3; SDXL (arXiv:2307.01952) adds the pooled prompt and the picture's sizes to the time embedding, latent consistency
 * models (arXiv:2310.04378) an embedding of the guidance scale.
 *
 * Traps:
 * - The middle has as many heads and transformer layers as the deepest level.
 * - The way up goes through the lists of levels backwards, and its levels have one residual block more.
 * - A size that does not halve is rounded up on the way down; on the way up a level makes the size of the skip that it
 *   meets next.
 * - timestep_cond is added before time_embedding's first layer, everything else after its last.
 * - Each of the time_ids is embedded alone; the vector is text first, then the six embeddings. */
#include "unet/unet2d_condition.h"

#include "unet/skips.h"
#include "unet/transformer.h"

typedef struct level {
    int layers;
    ht_resnet *resnets;             /* [layers] */
    ht_transformer2d *transformers; /* [layers], NULL: none */
    bool has_resampler;
    ht_resampler resampler;
} level;

typedef struct middle {
    ht_resnet resnets[2];
    ht_transformer2d transformer;
} middle;

typedef struct unet2d_condition {
    ht_unet2d_condition_config config;
    ht_timestep_mlp time_embedding, class_embedding, add_embedding;
    ht_linear_weights cond_proj;  /* time_embedding.cond_proj */
    const ht_tensor *class_table; /* num_class_embeds */
    ht_conv_weights conv_in, conv_out;
    ht_norm_weights conv_norm_out;
    level down_blocks[HT_UNET_MAX_LEVELS], up_blocks[HT_UNET_MAX_LEVELS];
    middle mid_block;
} unet2d_condition;

/* ---- binding ---- */

static ht_resnet resnet_of(const ht_unet2d_condition_config *c, const char *name, int in, int out)
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

/* Of a level counted from the top. */
static ht_transformer2d transformer_of(const ht_unet2d_condition_config *c, const char *name, int depth)
{
    return (ht_transformer2d){.name = name,
                              .channels = c->block_out_channels[depth],
                              .heads = c->heads[depth],
                              .layers = c->transformer_layers_per_block[depth],
                              .context_dim = c->cross_attention_dim,
                              .groups = c->norm_num_groups};
}

/* What every binding of a model needs. */
typedef struct binder {
    ht_arena *arena;
    ht_weights *weights;
    unet2d_condition *model;
} binder;

/* A level and where it stands: "down_blocks", 0. */
typedef struct place {
    const char *side;
    int index, depth, layers;
    bool cross_attention;
    ht_resample resample;  /* after it; NONE at the last level */
    const char *resampler; /* "downsamplers" */
} place;

static ht_status bind_layer(const binder *b, level *l, const place *p, int layer, int in)
{
    const ht_unet2d_condition_config *c = &b->model->config;
    const char *resnet = ht_sprintf(b->arena, "%s.%d.resnets.%d", p->side, p->index, layer);
    const char *attention = ht_sprintf(b->arena, "%s.%d.attentions.%d", p->side, p->index, layer);
    if (!resnet || !attention)
        return HT_ERR_MEMORY;
    l->resnets[layer] = resnet_of(c, resnet, in, c->block_out_channels[p->depth]);
    ht_resnet_bind(b->weights, &l->resnets[layer]);
    if (!p->cross_attention)
        return HT_OK;
    l->transformers[layer] = transformer_of(c, attention, p->depth);
    return ht_transformer2d_bind(b->arena, b->weights, &l->transformers[layer]);
}

static ht_status bind_resampler(const binder *b, level *l, const place *p)
{
    const ht_unet2d_condition_config *c = &b->model->config;
    const char *name = ht_sprintf(b->arena, "%s.%d.%s.0", p->side, p->index, p->resampler);
    if (!name)
        return HT_ERR_MEMORY;
    l->has_resampler = true;
    l->resampler = (ht_resampler){.name = name,
                                  .channels = c->block_out_channels[p->depth],
                                  .direction = p->resample,
                                  .padding = c->downsample_padding};
    ht_resampler_bind(b->weights, &l->resampler);
    return HT_OK;
}

/* in: [layers], the channels that each residual block reads. */
static ht_status bind_level(const binder *b, level *l, const place *p, const int *in)
{
    ht_status status = HT_OK;
    l->layers = p->layers;
    l->resnets = ht_alloc_array(b->arena, (size_t)p->layers, sizeof *l->resnets);
    if (p->cross_attention)
        l->transformers = ht_alloc_array(b->arena, (size_t)p->layers, sizeof *l->transformers);
    if (!l->resnets || (p->cross_attention && !l->transformers))
        return HT_ERR_MEMORY;
    for (int i = 0; !status && i < p->layers; i++)
        status = bind_layer(b, l, p, i, in[i]);
    if (!status && p->resample)
        status = bind_resampler(b, l, p);
    return status;
}

static ht_status bind_down(const binder *b, int i)
{
    const ht_unet2d_condition_config *c = &b->model->config;
    int in[HT_UNET_MAX_LAYERS + 1] = {0};
    place p = {.side = "down_blocks",
               .index = i,
               .depth = i,
               .layers = c->layers_per_block[i],
               .cross_attention = c->down_cross_attention[i],
               .resample = i < c->levels - 1 ? HT_RESAMPLE_DOWN : HT_RESAMPLE_NONE,
               .resampler = "downsamplers"};
    for (int j = 0; j < p.layers; j++)
        in[j] = c->block_out_channels[j || !i ? i : i - 1];
    return bind_level(b, &b->model->down_blocks[i], &p, in);
}

static ht_status bind_up(const binder *b, int i)
{
    const ht_unet2d_condition_config *c = &b->model->config;
    int in[HT_UNET_MAX_LAYERS + 1] = {0};
    int depth = c->levels - 1 - i, out = c->block_out_channels[depth];
    int above = c->block_out_channels[depth ? depth - 1 : 0]; /* of the last skip: what entered on the way down */
    int below = c->block_out_channels[i ? depth + 1 : depth];
    place p = {.side = "up_blocks",
               .index = i,
               .depth = depth,
               .layers = c->layers_per_block[depth] + 1,
               .cross_attention = c->up_cross_attention[i],
               .resample = depth ? HT_RESAMPLE_UP : HT_RESAMPLE_NONE,
               .resampler = "upsamplers"};
    for (int j = 0; j < p.layers; j++)
        in[j] = (j ? out : below) + (j < p.layers - 1 ? out : above);
    return bind_level(b, &b->model->up_blocks[i], &p, in);
}

static ht_status bind_mid(const binder *b)
{
    static const char *const names[] = {"mid_block.resnets.0", "mid_block.resnets.1"};
    const ht_unet2d_condition_config *c = &b->model->config;
    middle *m = &b->model->mid_block;
    int channels = c->block_out_channels[c->levels - 1];
    for (int i = 0; i < 2; i++) {
        m->resnets[i] = resnet_of(c, names[i], channels, channels);
        m->resnets[i].output_scale_factor = c->mid_block_scale_factor;
        ht_resnet_bind(b->weights, &m->resnets[i]);
    }
    m->transformer = transformer_of(c, "mid_block.attentions.0", c->levels - 1);
    return ht_transformer2d_bind(b->arena, b->weights, &m->transformer);
}

static void bind_time(unet2d_condition *m, ht_weights *w)
{
    const ht_unet2d_condition_config *c = &m->config;
    int first = c->block_out_channels[0], e = c->time_embedding_dim;
    ht_timestep_mlp_bind(w, &m->time_embedding, first, e, "time_embedding");
    if (c->time_cond_proj_dim)
        ht_bind_linear(w, &m->cond_proj, c->time_cond_proj_dim, first, false, "time_embedding.cond_proj");
    if (c->class_embed == HT_CLASS_TIMESTEP)
        ht_timestep_mlp_bind(w, &m->class_embedding, first, e, "class_embedding");
    if (c->class_embed == HT_CLASS_PROJECTION)
        ht_timestep_mlp_bind(w, &m->class_embedding, c->projection_class_embeddings_input_dim, e, "class_embedding");
    if (c->class_embed == HT_CLASS_TABLE)
        m->class_table = ht_bind_tensor(w, 2, (const int64_t[]){c->num_class_embeds, e}, "class_embedding.weight");
    if (c->text_time)
        ht_timestep_mlp_bind(w, &m->add_embedding, c->projection_class_embeddings_input_dim, e, "add_embedding");
}

static void bind_ends(unet2d_condition *m, ht_weights *w)
{
    const ht_unet2d_condition_config *c = &m->config;
    int first = c->block_out_channels[0];
    ht_bind_conv(w, &m->conv_in, c->in_channels, first, c->conv_in_kernel, true, "conv_in");
    ht_bind_norm(w, &m->conv_norm_out, first, "conv_norm_out");
    ht_bind_conv(w, &m->conv_out, first, c->out_channels, c->conv_out_kernel, true, "conv_out");
}

static ht_status condition_open(ht_arena *arena, const json_t *config, const char *where, ht_weights *weights,
                                void **model)
{
    unet2d_condition *m = ht_alloc(arena, sizeof *m);
    const binder b = {arena, weights, m};
    ht_status status = m ? ht_unet2d_condition_config_read(config, where, &m->config) : HT_ERR_MEMORY;
    if (status)
        return status;
    bind_ends(m, weights);
    bind_time(m, weights);
    for (int i = 0; !status && i < m->config.levels; i++)
        status = bind_down(&b, i);
    if (!status && m->config.mid_block)
        status = bind_mid(&b);
    for (int i = 0; !status && i < m->config.levels; i++)
        status = bind_up(&b, i);
    if (!status)
        status = ht_weights_finish(weights);
    if (!status)
        *model = m;
    return status;
}

static int text_embed_dim(const ht_unet2d_condition_config *c)
{
    return c->text_time ? c->projection_class_embeddings_input_dim - HT_UNET_TIME_IDS * c->addition_time_embed_dim : 0;
}

static int class_embed_dim(const ht_unet2d_condition_config *c)
{
    return c->class_embed == HT_CLASS_IDENTITY     ? c->time_embedding_dim
           : c->class_embed == HT_CLASS_PROJECTION ? c->projection_class_embeddings_input_dim
                                                   : 0;
}

/* conv_in's, one a layer, one a downsampler. */
static int count_skips(const unet2d_condition *m)
{
    int n = 1;
    for (int i = 0; i < m->config.levels; i++)
        n += m->down_blocks[i].layers + m->down_blocks[i].has_resampler;
    return n;
}

static void condition_info(const void *model, ht_denoiser_info *info)
{
    const ht_unet2d_condition_config *c = &((const unet2d_condition *)model)->config;
    *info = (ht_denoiser_info){.in_channels = c->in_channels,
                               .out_channels = c->out_channels,
                               .height = c->height,
                               .width = c->width,
                               .size_multiple = 1,
                               .num_classes = c->num_class_embeds,
                               .class_timestep = c->class_embed == HT_CLASS_TIMESTEP,
                               .class_embed_dim = class_embed_dim(c),
                               .cross_attention_dim = c->cross_attention_dim,
                               .text_embed_dim = text_embed_dim(c),
                               .time_ids = c->text_time ? HT_UNET_TIME_IDS : 0,
                               .timestep_cond_dim = c->time_cond_proj_dim,
                               .branches = count_skips(model)};
}

/* ---- the network ---- */

/* A condition of `width` numbers an image. */
static ht_value *condition(ht_graph *g, const char *name, int64_t n, int64_t width)
{
    return ht_input(g, name, 2, (const int64_t[]){n, width}, HT_DEPENDS_COND);
}

static ht_value *sinusoids(ht_graph *g, const ht_unet2d_condition_config *c, ht_value *t, int dim)
{
    return ht_timestep_embedding(g, t, dim, c->flip_sin_to_cos, c->freq_shift);
}

/* -> [n,e], NULL if the model takes no class */
static ht_value *class_embedding(ht_graph *g, const unet2d_condition *m, int64_t n)
{
    const ht_unet2d_condition_config *c = &m->config;
    switch (c->class_embed) {
    case HT_CLASS_TABLE:
        return ht_embedding(g, condition(g, "class_labels", n, 1), m->class_table);
    case HT_CLASS_TIMESTEP:
        return ht_timestep_mlp_block(g, &m->class_embedding,
                                     sinusoids(g, c, condition(g, "class_labels", n, 1), c->block_out_channels[0]));
    case HT_CLASS_IDENTITY:
        return condition(g, "class_embeddings", n, class_embed_dim(c));
    case HT_CLASS_PROJECTION:
        return ht_timestep_mlp_block(g, &m->class_embedding, condition(g, "class_embeddings", n, class_embed_dim(c)));
    default:
        return NULL;
    }
}

/* SDXL's micro-conditioning: the pooled prompt and sizes -> [n,e] */
static ht_value *text_time_embedding(ht_graph *g, const unet2d_condition *m, int64_t n)
{
    const ht_unet2d_condition_config *c = &m->config;
    ht_value *text = condition(g, "text_embeds", n, text_embed_dim(c));
    ht_value *sizes = condition(g, "time_ids", n, HT_UNET_TIME_IDS);
    ht_value *both = ht_concat(g, text, sinusoids(g, c, sizes, c->addition_time_embed_dim));
    return ht_timestep_mlp_block(g, &m->add_embedding, both);
}

/* -> [1,e], depends on {t}; with anything added [n,e] and {t,cond} */
static ht_value *time_embedding(ht_graph *g, const unet2d_condition *m, int64_t n)
{
    const ht_unet2d_condition_config *c = &m->config;
    ht_value *t = sinusoids(g, c, ht_timestep(g), c->block_out_channels[0]);
    if (c->time_cond_proj_dim)
        t = ht_add(g, t, ht_linear(g, condition(g, "timestep_cond", n, c->time_cond_proj_dim), &m->cond_proj));
    ht_value *temb = ht_name(g, ht_timestep_mlp_block(g, &m->time_embedding, t), "time_embedding");
    if (c->class_embed != HT_CLASS_NONE)
        temb = ht_add(g, temb, class_embedding(g, m, n));
    return c->text_time ? ht_add(g, temb, text_time_embedding(g, m, n)) : temb;
}

/* What every block reads besides x: time [n or 1,e], context [n,tokens,c], skips. */
typedef struct around {
    ht_value *temb, *context;
    ht_skips *skips;
    ht_denoiser_size size;
} around;

/* A residual block, then perhaps a transformer. */
static ht_value *layer(ht_graph *g, const level *b, int i, ht_value *x, const around *a)
{
    x = ht_resnet_block(g, &b->resnets[i], x, a->temb);
    return b->transformers ? ht_transformer2d_block(g, &b->transformers[i], x, a->context) : x;
}

/* Whether the way down ends here: nothing below this skip is computed. */
static bool at_the_bottom(const around *a)
{
    return a->size.depth == HT_DEPTH_SHALLOW && a->skips->n > a->size.branch;
}

/* [n,h,w,c] -> [n,h/2,w/2,c'], rounded up */
static ht_value *down_block(ht_graph *g, const level *b, ht_value *x, const around *a)
{
    for (int i = 0; i < b->layers && !at_the_bottom(a); i++)
        x = ht_keep(a->skips, layer(g, b, i, x, a));
    return b->has_resampler && !at_the_bottom(a) ? ht_keep(a->skips, ht_resampler_block(g, &b->resampler, x, a->temb))
                                                 : x;
}

/* [n,h,w,c] -> [n,h,w,c] */
static ht_value *mid_block(ht_graph *g, const middle *b, ht_value *x, const around *a)
{
    x = ht_resnet_block(g, &b->resnets[0], x, a->temb);
    x = ht_transformer2d_block(g, &b->transformer, x, a->context);
    return ht_name(g, ht_resnet_block(g, &b->resnets[1], x, a->temb), "mid_block");
}

/* What comes up to the layer that takes the skip of the branch: kept, or given. */
static ht_value *cached(ht_graph *g, const ht_resnet *next, ht_value *x, const around *a)
{
    const ht_value *skip = a->skips->at[a->skips->n - 1];
    if (a->size.depth == HT_DEPTH_WHOLE || a->skips->n != a->size.branch + 1 || !skip)
        return x;
    if (a->size.depth == HT_DEPTH_KEEPS) {
        x = ht_name(g, x, HT_CACHED);
        ht_tap(g, HT_CACHED);
        return x;
    }
    int64_t channels = next->conv1.weight->shape[1] - skip->shape[3];
    return ht_input(g, HT_CACHED, 4, (const int64_t[]){skip->shape[0], skip->shape[1], skip->shape[2], channels},
                    HT_DEPENDS_X);
}

/* [n,h,w,c] -> [n,h',w',c'], the size of the next skip.  first: the skips that are left when it begins. */
static ht_value *up_block(ht_graph *g, const level *b, ht_value *x, const around *a, int first)
{
    bool built = false;
    for (int i = 0; i < b->layers; i++) {
        if (first - i > a->skips->n) /* its skip was not made */
            continue;
        built = true;
        x = cached(g, &b->resnets[i], x, a);
        x = layer(g, b, i, ht_concat(g, x, ht_take(a->skips)), a);
    }
    if (!b->has_resampler || !built)
        return x;
    const ht_value *next = a->skips->at[a->skips->n - 1];
    return next ? ht_upsampler_block(g, &b->resampler, x, next->shape[1], next->shape[2]) : NULL;
}

static ht_conv_shape same_size(int kernel)
{
    int pad = kernel / 2;
    return (ht_conv_shape){.pad_top = pad, .pad_left = pad, .pad_bottom = pad, .pad_right = pad};
}

static void condition_build(const void *model, ht_graph *g, ht_denoiser_size size)
{
    const unet2d_condition *m = model;
    const ht_unet2d_condition_config *c = &m->config;
    ht_skips skips = {.n = 0};
    around a = {.temb = time_embedding(g, m, size.n), .skips = &skips, .size = size};
    int left = count_skips(m);
    a.context = ht_input(g, "encoder_hidden_states", 3, (const int64_t[]){size.n, size.tokens, c->cross_attention_dim},
                         HT_DEPENDS_COND);
    ht_value *x = ht_input(g, "sample", 4, (const int64_t[]){size.n, size.h, size.w, c->in_channels}, HT_DEPENDS_X);
    if (c->center_input_sample)
        x = ht_affine(g, x, 2, -1);
    x = ht_keep(&skips, ht_conv2d(g, x, &m->conv_in, same_size(c->conv_in_kernel)));
    for (int i = 0; i < c->levels && !at_the_bottom(&a); i++)
        x = down_block(g, &m->down_blocks[i], x, &a);
    if (c->mid_block && size.depth != HT_DEPTH_SHALLOW)
        x = mid_block(g, &m->mid_block, x, &a);
    for (int i = 0; i < c->levels; left -= m->up_blocks[i++].layers)
        x = up_block(g, &m->up_blocks[i], x, &a, left);
    x = ht_silu(g, ht_group_norm(g, x, &m->conv_norm_out, c->norm_num_groups, c->norm_eps));
    ht_output_value(g, ht_conv2d(g, x, &m->conv_out, same_size(c->conv_out_kernel)), "out");
}

const ht_denoiser_family ht_unet2d_condition_family = {"UNet2DConditionModel", condition_open, condition_info,
                                                       condition_build};
