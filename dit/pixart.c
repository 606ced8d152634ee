/* pixart.c - PixArtTransformer2DModel: PixArt-alpha and PixArt-Sigma.
 *
 * PixArt-alpha (arXiv:2310.00426), section 2.3: DiT's blocks with attention to a caption between, and adaLN-single: one
 * row of the timestep for all blocks, to which each adds a table of its own.  Sigma (arXiv:2403.04692) has the same
 * network.
 *
 * Traps:
 * - Nothing normalizes what attn2 reads; norm2 is the feed-forward's.
 * - The last modulation reads the timestep's embedding before SiLU and the table [shift, scale].
 * - Height, width and the aspect ratio are embedded each alone, a third of the width each, in that order; only models
 * of sample_size 128 have them.
 * - A caption's mask becomes -10000 added to the scores, not minus infinity: a caption all of padding is a mean.
 * - Positions are divided by interpolation_scale, and where config.json has none by sample_size / 64. */
#include "dit/blocks.h"
#include "unet/blocks.h"

static const float out_eps = 1e-6f, masked = -10000;

typedef struct block {
    const char *name;
    const ht_tensor *scale_shift_table; /* [6,c] */
    ht_dit_attention attn1, attn2;
    ht_dit_feed_forward ff;
} block;

typedef struct pixart {
    ht_pixart_config config;
    ht_patch_embed patches;
    ht_timestep_mlp timestep_embedder, resolution_embedder, aspect_ratio_embedder; /* adaln_single.emb */
    ht_linear_weights adaln_single;                                                /* adaln_single.linear */
    ht_linear_weights caption_1, caption_2;                                        /* caption_projection */
    block *blocks;
    const ht_tensor *scale_shift_table; /* [2,c] */
    ht_linear_weights proj_out;
} pixart;

/* ---- binding ---- */

static ht_status bind_block(ht_arena *arena, ht_weights *w, pixart *m, int i)
{
    const ht_pixart_config *c = &m->config;
    block *b = &m->blocks[i];
    int width = ht_dit_width(&c->body);
    const char *name = b->name = ht_sprintf(arena, "transformer_blocks.%d", i);
    const char *attn1 = ht_sprintf(arena, "%s.attn1", name), *attn2 = ht_sprintf(arena, "%s.attn2", name);
    const char *ff = ht_sprintf(arena, "%s.ff", name);
    if (!name || !attn1 || !attn2 || !ff)
        return HT_ERR_MEMORY;
    b->scale_shift_table = ht_bind_tensor(w, 2, (const int64_t[]){HT_DIT_PARTS, width}, "%s.scale_shift_table", name);
    ht_dit_attention_bind(w, &b->attn1, &c->body, width, attn1);
    ht_dit_attention_bind(w, &b->attn2, &c->body, c->cross_attention_dim, attn2);
    ht_dit_feed_forward_bind(w, &b->ff, &c->body, ff);
    return HT_OK;
}

static void bind_conditions(ht_weights *w, pixart *m)
{
    const ht_pixart_config *c = &m->config;
    int width = ht_dit_width(&c->body), share = width / (HT_PIXART_RESOLUTION + 1);
    ht_timestep_mlp_bind(w, &m->timestep_embedder, HT_DIT_FREQUENCIES, width, "adaln_single.emb.timestep_embedder");
    if (c->use_additional_conditions) {
        ht_timestep_mlp_bind(w, &m->resolution_embedder, HT_DIT_FREQUENCIES, share,
                             "adaln_single.emb.resolution_embedder");
        ht_timestep_mlp_bind(w, &m->aspect_ratio_embedder, HT_DIT_FREQUENCIES, share,
                             "adaln_single.emb.aspect_ratio_embedder");
    }
    ht_bind_linear(w, &m->adaln_single, width, HT_DIT_PARTS * (int64_t)width, true, "adaln_single.linear");
    if (!c->caption_channels)
        return;
    ht_bind_linear(w, &m->caption_1, c->caption_channels, width, true, "caption_projection.linear_1");
    ht_bind_linear(w, &m->caption_2, width, width, true, "caption_projection.linear_2");
}

static ht_status pixart_open(ht_arena *arena, const json_t *config, const char *where, ht_weights *weights,
                             void **model)
{
    pixart *m = ht_alloc(arena, sizeof *m);
    ht_status status = m ? ht_pixart_config_read(config, where, &m->config) : HT_ERR_MEMORY;
    if (status)
        return status;
    const ht_dit_body *c = &m->config.body;
    m->blocks = ht_alloc_array(arena, (size_t)c->num_layers, sizeof *m->blocks);
    status = m->blocks ? ht_patch_embed_bind(arena, weights, &m->patches, c) : HT_ERR_MEMORY;
    bind_conditions(weights, m);
    for (int i = 0; !status && i < c->num_layers; i++)
        status = bind_block(arena, weights, m, i);
    if (status)
        return status;
    m->scale_shift_table = ht_bind_tensor(weights, 2, (const int64_t[]){2, ht_dit_width(c)}, "scale_shift_table");
    ht_bind_linear(weights, &m->proj_out, ht_dit_width(c), (int64_t)c->patch_size * c->patch_size * c->out_channels,
                   true, "proj_out");
    *model = m;
    return ht_weights_finish(weights);
}

static void pixart_info(const void *model, ht_denoiser_info *info)
{
    const ht_pixart_config *c = &((const pixart *)model)->config;
    *info =
        (ht_denoiser_info){.in_channels = c->body.in_channels,
                           .out_channels = c->body.out_channels,
                           .height = c->body.sample_size,
                           .width = c->body.sample_size,
                           .size_multiple = c->body.patch_size,
                           .hidden_states = true,
                           .cross_attention_dim = c->caption_channels ? c->caption_channels : c->cross_attention_dim,
                           .attention_mask = 1,
                           .resolution = c->use_additional_conditions ? HT_PIXART_RESOLUTION : 0,
                           .aspect_ratio = c->use_additional_conditions ? 1 : 0};
}

/* ---- the network ---- */

static ht_value *condition(ht_graph *g, const char *name, int64_t n, int64_t width)
{
    return ht_input(g, name, 2, (const int64_t[]){n, width}, HT_DEPENDS_COND);
}

/* Number i of a few, alone: [n,k] -> [n,c/3] */
static ht_value *size_embedding(ht_graph *g, const ht_timestep_mlp *mlp, ht_value *numbers, int i)
{
    ht_value *all = ht_timestep_embedding(g, numbers, HT_DIT_FREQUENCIES, true, 0);
    return ht_timestep_mlp_block(g, mlp, ht_slice(g, all, i * HT_DIT_FREQUENCIES, HT_DIT_FREQUENCIES));
}

/* -> [1,c], depends on {t}; with sizes [n,c] and {t,cond} */
static ht_value *embedded_timestep(ht_graph *g, const pixart *m, int64_t n)
{
    ht_value *t = ht_timestep_embedding(g, ht_timestep(g), HT_DIT_FREQUENCIES, true, 0);
    t = ht_timestep_mlp_block(g, &m->timestep_embedder, t);
    if (!m->config.use_additional_conditions)
        return t;
    ht_value *resolution = condition(g, "resolution", n, HT_PIXART_RESOLUTION);
    ht_value *aspect_ratio = condition(g, "aspect_ratio", n, 1);
    ht_value *size = ht_concat(g, size_embedding(g, &m->resolution_embedder, resolution, 0),
                               size_embedding(g, &m->resolution_embedder, resolution, 1));
    return ht_add(g, t, ht_concat(g, size, size_embedding(g, &m->aspect_ratio_embedder, aspect_ratio, 0)));
}

/* What every block reads besides x. */
typedef struct around {
    const ht_dit_body *config;
    ht_value *part[HT_DIT_PARTS]; /* of the timestep, [1 or n,c] */
    ht_value *caption, *mask;     /* [n,tokens,c], [n,tokens] */
} around;

/* x [n,tokens,c] -> [n,tokens,c] */
static ht_value *pixart_block(ht_graph *g, const block *b, ht_value *x, const around *a)
{
    ht_value *part[HT_DIT_PARTS];
    for (int i = 0; i < HT_DIT_PARTS; i++)
        part[i] = ht_add(g, a->part[i], ht_row(g, b->scale_shift_table, i));
    ht_value *h = ht_modulate(g, x, part[HT_SCALE_MSA], part[HT_SHIFT_MSA], a->config->norm_eps);
    x = ht_gate(g, ht_dit_attention_block(g, &b->attn1, a->config, h, h, NULL), part[HT_GATE_MSA], x);
    x = ht_add(g, ht_dit_attention_block(g, &b->attn2, a->config, x, a->caption, a->mask), x);
    h = ht_modulate(g, x, part[HT_SCALE_MLP], part[HT_SHIFT_MLP], a->config->norm_eps);
    x = ht_gate(g, ht_dit_feed_forward_block(g, &b->ff, a->config, h), part[HT_GATE_MLP], x);
    return ht_name(g, x, "%s", b->name);
}

/* The caption as attn2 reads it, and what its mask adds to scores. */
static void caption(ht_graph *g, const pixart *m, ht_denoiser_size size, around *a)
{
    ht_denoiser_info info;
    pixart_info(m, &info);
    a->caption = ht_input(g, "encoder_hidden_states", 3,
                          (const int64_t[]){size.n, size.tokens, info.cross_attention_dim}, HT_DEPENDS_COND);
    if (m->config.caption_channels)
        a->caption = ht_linear(g, ht_gelu_tanh(g, ht_linear(g, a->caption, &m->caption_1)), &m->caption_2);
    a->mask = ht_affine(g, condition(g, "encoder_attention_mask", size.n, size.tokens), -masked, masked);
}

static void pixart_build(const void *model, ht_graph *g, ht_denoiser_size size)
{
    const pixart *m = model;
    const ht_dit_body *config = &m->config.body;
    int width = ht_dit_width(config);
    around a = {.config = config};
    ht_value *sample =
        ht_input(g, "sample", 4, (const int64_t[]){size.n, size.h, size.w, config->in_channels}, HT_DEPENDS_X);
    ht_value *t = embedded_timestep(g, m, size.n), *rows = ht_linear(g, ht_silu(g, t), &m->adaln_single);
    for (int i = 0; i < HT_DIT_PARTS; i++)
        a.part[i] = ht_slice(g, rows, i * width, width);
    caption(g, m, size, &a);
    ht_value *x = ht_patch_embed_block(g, &m->patches, config, sample);
    for (int i = 0; i < config->num_layers; i++)
        x = pixart_block(g, &m->blocks[i], x, &a);
    x = ht_modulate(g, x, ht_add(g, t, ht_row(g, m->scale_shift_table, 1)),
                    ht_add(g, t, ht_row(g, m->scale_shift_table, 0)), out_eps);
    ht_output_value(g, ht_unpatchify_block(g, config, ht_linear(g, x, &m->proj_out), sample), "out");
}

const ht_denoiser_family ht_pixart_family = {
    .class_name = "PixArtTransformer2DModel", .open = pixart_open, .info = pixart_info, .build = pixart_build};
