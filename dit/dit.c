/* dit.c - DiTTransformer2DModel: binding a checkpoint, and the network as a graph.
 *
 * DiT (arXiv:2212.09748), figure 3, with adaLN-Zero: what a block does to its tokens is scaled, shifted and gated by
 * rows made of timestep and class.  Those rows depend on {t, cond}: they are made once a timestep and batch, not a
 * block's tokens.
 *
 * Traps:
 * - In diffusers every block has a timestep and a class embedder of its own, and proj_out_1 reads block 0's; facebook's
 *   code has one of each, which is bound as block 0's.
 * - LayerNorm's eps is 1e-6 before attention and at the end, norm_eps before the feed-forward: 1e-5 in diffusers, 1e-6
 *   in facebook's.
 * - diffusers divides the frequencies of a timestep by half - 1, facebook's by half.
 * - The table of classes has a row more than num_embeds_ada_norm: the last stands for no class. */
#include "dit/blocks.h"
#include "unet/blocks.h"

static const float attention_eps = 1e-6f, out_eps = 1e-6f;

typedef struct embedder {
    ht_timestep_mlp timestep_embedder;
    const ht_tensor *class_table; /* class_embedder.embedding_table */
} embedder;

typedef struct block {
    const char *name;
    bool has_embedder;            /* or the block before's is read */
    embedder emb;                 /* norm1.emb */
    ht_linear_weights modulation; /* norm1.linear */
    ht_dit_attention attn1;
    ht_dit_feed_forward ff;
} block;

typedef struct dit {
    ht_dit_config config;
    ht_patch_embed patches;
    block *blocks;
    ht_linear_weights proj_out_1, proj_out_2;
} dit;

/* ---- binding ---- */

static void bind_embedder(ht_weights *w, embedder *e, const ht_dit_config *c, const char *name)
{
    char timestep[128];
    int width = ht_dit_width(&c->body);
    snprintf(timestep, sizeof timestep, "%s.timestep_embedder", name);
    ht_timestep_mlp_bind(w, &e->timestep_embedder, HT_DIT_FREQUENCIES, width, timestep);
    e->class_table = ht_bind_tensor(w, 2, (const int64_t[]){c->num_embeds_ada_norm + 1, width},
                                    "%s.class_embedder.embedding_table.weight", name);
}

static ht_status bind_block(ht_arena *arena, ht_weights *w, dit *m, int i)
{
    const ht_dit_config *c = &m->config;
    block *b = &m->blocks[i];
    int64_t width = ht_dit_width(&c->body);
    const char *name = b->name = ht_sprintf(arena, "transformer_blocks.%d", i);
    const char *emb = ht_sprintf(arena, "%s.norm1.emb", name), *attn1 = ht_sprintf(arena, "%s.attn1", name);
    const char *ff = ht_sprintf(arena, "%s.ff", name);
    const char *own = ht_sprintf(arena, "%s.timestep_embedder.linear_1.weight", emb);
    if (!name || !emb || !attn1 || !ff || !own)
        return HT_ERR_MEMORY;
    b->has_embedder = i == 0 || ht_weights_has(w, own);
    if (b->has_embedder)
        bind_embedder(w, &b->emb, c, emb);
    ht_bind_linear(w, &b->modulation, width, HT_DIT_PARTS * width, true, "%s.norm1.linear", name);
    ht_dit_attention_bind(w, &b->attn1, &c->body, (int)width, attn1);
    ht_dit_feed_forward_bind(w, &b->ff, &c->body, ff);
    return HT_OK;
}

static ht_status dit_open(ht_arena *arena, const json_t *config, const char *where, ht_weights *weights, void **model)
{
    dit *m = ht_alloc(arena, sizeof *m);
    ht_status status = m ? ht_dit_config_read(config, where, &m->config) : HT_ERR_MEMORY;
    if (status)
        return status;
    const ht_dit_body *c = &m->config.body;
    int64_t width = ht_dit_width(c);
    m->blocks = ht_alloc_array(arena, (size_t)c->num_layers, sizeof *m->blocks);
    status = m->blocks ? ht_patch_embed_bind(arena, weights, &m->patches, c) : HT_ERR_MEMORY;
    for (int i = 0; !status && i < c->num_layers; i++)
        status = bind_block(arena, weights, m, i);
    if (status)
        return status;
    ht_bind_linear(weights, &m->proj_out_1, width, 2 * width, true, "proj_out_1");
    ht_bind_linear(weights, &m->proj_out_2, width, (int64_t)c->patch_size * c->patch_size * c->out_channels, true,
                   "proj_out_2");
    *model = m;
    return ht_weights_finish(weights);
}

static void dit_info(const void *model, ht_denoiser_info *info)
{
    const ht_dit_config *c = &((const dit *)model)->config;
    *info = (ht_denoiser_info){.in_channels = c->body.in_channels,
                               .out_channels = c->body.out_channels,
                               .height = c->body.sample_size,
                               .width = c->body.sample_size,
                               .size_multiple = c->body.patch_size,
                               .hidden_states = true,
                               .num_classes = c->num_embeds_ada_norm + 1,
                               .null_class = true};
}

/* ---- the network ---- */

/* SiLU of timestep and class together: t [1,256], labels [n,1] -> [n,c] */
static ht_value *condition(ht_graph *g, const embedder *e, ht_value *t, ht_value *labels)
{
    ht_value *time = ht_timestep_mlp_block(g, &e->timestep_embedder, t);
    return ht_silu(g, ht_add(g, time, ht_embedding(g, labels, e->class_table)));
}

/* x [n,tokens,c], c [n,c] -> [n,tokens,c] */
static ht_value *dit_block(ht_graph *g, const block *b, const ht_dit_body *config, ht_value *x, ht_value *c)
{
    int width = ht_dit_width(config);
    ht_value *part[HT_DIT_PARTS], *rows = ht_linear(g, c, &b->modulation);
    for (int i = 0; i < HT_DIT_PARTS; i++)
        part[i] = ht_slice(g, rows, i * width, width);
    ht_value *h = ht_modulate(g, x, part[HT_SCALE_MSA], part[HT_SHIFT_MSA], attention_eps);
    x = ht_gate(g, ht_dit_attention_block(g, &b->attn1, config, h, h, NULL), part[HT_GATE_MSA], x);
    h = ht_modulate(g, x, part[HT_SCALE_MLP], part[HT_SHIFT_MLP], config->norm_eps);
    x = ht_gate(g, ht_dit_feed_forward_block(g, &b->ff, config, h), part[HT_GATE_MLP], x);
    return ht_name(g, x, "%s", b->name);
}

static void dit_build(const void *model, ht_graph *g, ht_denoiser_size size)
{
    const dit *m = model;
    const ht_dit_body *config = &m->config.body;
    int width = ht_dit_width(config);
    ht_value *sample =
        ht_input(g, "sample", 4, (const int64_t[]){size.n, size.h, size.w, config->in_channels}, HT_DEPENDS_X);
    ht_value *labels = ht_input(g, "class_labels", 2, (const int64_t[]){size.n, 1}, HT_DEPENDS_COND);
    ht_value *t = ht_timestep_embedding(g, ht_timestep(g), HT_DIT_FREQUENCIES, true, m->config.freq_shift);
    ht_value *first = condition(g, &m->blocks[0].emb, t, labels), *c = first;
    ht_value *x = ht_patch_embed_block(g, &m->patches, config, sample);
    for (int i = 0; i < config->num_layers; i++) {
        c = i && m->blocks[i].has_embedder ? condition(g, &m->blocks[i].emb, t, labels) : c;
        x = dit_block(g, &m->blocks[i], config, x, c);
    }
    ht_value *rows = ht_linear(g, first, &m->proj_out_1);
    x = ht_modulate(g, x, ht_slice(g, rows, width, width), ht_slice(g, rows, 0, width), out_eps);
    ht_output_value(g, ht_unpatchify_block(g, config, ht_linear(g, x, &m->proj_out_2), sample), "out");
}

const ht_denoiser_family ht_dit_family = {
    .class_name = "DiTTransformer2DModel", .open = dit_open, .info = dit_info, .build = dit_build};
