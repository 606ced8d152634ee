/* transformer.c - the transformer between the residual blocks of a conditional U-Net.
 *
 * Latent diffusion (arXiv:2112.10752), appendix E.2.1: GroupNorm, a projection in, blocks of self-attention, attention
 * to the context and a gated feed-forward, a projection out, and the sum with what came in.
 *
 * Traps:
 * - GroupNorm's eps is 1e-6 here whatever norm_eps says; LayerNorm's is 1e-5.
 * - proj_in and proj_out are 1x1 convolutions in SD 1.x and linear maps where use_linear_projection is set: the same
 *   numbers in the same place, so both are linear maps here.
 * - to_q, to_k and to_v have no bias; to_out has one.
 * - Heads that do not divide the channels leave some out: the width inside is heads * (channels / heads).
 * - K and V of the context depend on it alone: they are made once a prompt, by the stages. */
#include "unet/transformer.h"

#include <math.h>

static const float group_eps = 1e-6f, layer_eps = 1e-5f;

/* ---- binding ---- */

static void bind_attention(ht_weights *w, ht_attention_weights *a, int64_t inner, int64_t context, const char *prefix)
{
    ht_bind_linear(w, &a->to_q, inner, inner, false, "%s.to_q", prefix);
    ht_bind_linear(w, &a->to_k, context, inner, false, "%s.to_k", prefix);
    ht_bind_linear(w, &a->to_v, context, inner, false, "%s.to_v", prefix);
    ht_bind_linear(w, &a->to_out, inner, inner, true, "%s.to_out.0", prefix);
}

static ht_status bind_block(ht_arena *arena, ht_weights *w, const ht_transformer2d *t, int i, int64_t inner)
{
    ht_transformer_block *b = &t->blocks[i];
    const char *name = ht_sprintf(arena, "%s.transformer_blocks.%d", t->name, i);
    const char *attn1 = ht_sprintf(arena, "%s.attn1", name), *attn2 = ht_sprintf(arena, "%s.attn2", name);
    if (!name || !attn1 || !attn2)
        return HT_ERR_MEMORY;
    ht_bind_norm(w, &b->norm1, inner, "%s.norm1", name);
    bind_attention(w, &b->attn1, inner, inner, attn1);
    ht_bind_norm(w, &b->norm2, inner, "%s.norm2", name);
    bind_attention(w, &b->attn2, inner, t->context_dim, attn2);
    ht_bind_norm(w, &b->norm3, inner, "%s.norm3", name);
    ht_bind_linear(w, &b->ff_in, inner, 8 * inner, true, "%s.ff.net.0.proj", name);
    ht_bind_linear(w, &b->ff_out, 4 * inner, inner, true, "%s.ff.net.2", name);
    return HT_OK;
}

ht_status ht_transformer2d_bind(ht_arena *arena, ht_weights *w, ht_transformer2d *b)
{
    int64_t inner = (int64_t)b->heads * (b->channels / b->heads);
    ht_status status = HT_OK;
    ht_bind_norm(w, &b->norm, b->channels, "%s.norm", b->name);
    ht_bind_linear(w, &b->proj_in, b->channels, inner, true, "%s.proj_in", b->name);
    ht_bind_linear(w, &b->proj_out, inner, b->channels, true, "%s.proj_out", b->name);
    b->blocks = ht_alloc_array(arena, (size_t)b->layers, sizeof *b->blocks);
    if (!b->blocks)
        return HT_ERR_MEMORY;
    for (int i = 0; !status && i < b->layers; i++)
        status = bind_block(arena, w, b, i, inner);
    return status;
}

/* ---- the network ---- */

/* x [n,tokens,c], context [n,tokens',c'] -> [n,tokens,c] */
static ht_value *attention(ht_graph *g, const ht_attention_weights *a, ht_value *x, ht_value *context, int heads,
                           float scale)
{
    ht_value *q = ht_linear(g, x, &a->to_q), *k = ht_linear(g, context, &a->to_k), *v = ht_linear(g, context, &a->to_v);
    return ht_linear(g, ht_attention(g, q, k, v, heads, scale), &a->to_out);
}

/* x [n,tokens,c] -> [n,tokens,c] */
static ht_value *transformer_block(ht_graph *g, const ht_transformer_block *b, ht_value *x, ht_value *context,
                                   int heads, float scale)
{
    ht_value *h = ht_layer_norm(g, x, &b->norm1, layer_eps);
    x = ht_add(g, attention(g, &b->attn1, h, h, heads, scale), x);
    h = ht_layer_norm(g, x, &b->norm2, layer_eps);
    x = ht_add(g, attention(g, &b->attn2, h, context, heads, scale), x);
    h = ht_geglu(g, ht_linear(g, ht_layer_norm(g, x, &b->norm3, layer_eps), &b->ff_in));
    return ht_add(g, ht_linear(g, h, &b->ff_out), x);
}

ht_value *ht_transformer2d_block(ht_graph *g, const ht_transformer2d *b, ht_value *x, ht_value *context)
{
    int head_dim = b->channels / b->heads;
    float scale = 1 / sqrtf((float)head_dim);
    ht_value *h = ht_as_tokens(g, ht_group_norm(g, x, &b->norm, b->groups, group_eps));
    h = ht_linear(g, h, &b->proj_in);
    for (int i = 0; i < b->layers; i++)
        h = ht_name(g, transformer_block(g, &b->blocks[i], h, context, b->heads, scale), "%s.transformer_blocks.%d",
                    b->name, i);
    h = ht_add(g, ht_linear(g, h, &b->proj_out), ht_as_tokens(g, x));
    return ht_name(g, ht_as_image(g, h, x), "%s", b->name);
}
