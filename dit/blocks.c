/* blocks.c - patches, attention and feed-forward of diffusion transformers (arXiv:2212.09748, figure 3).
 *
 * Traps:
 * - The first half of a position's channels is of the column, the second of the row; each is sines, then cosines.
 * - Positions of a picture of another size are those of its own, stretched: they end where the grid of sample_size
 *   ends.
 * - GELU is the one with tanh. */
#include "dit/blocks.h"

#include <math.h>

#include "core/elementary.h"
#include "unet/blocks.h"

#define ONE_OVER_TWO_PI 0.15915494309189535
#define LN_10000        9.210340371976184

int ht_dit_width(const ht_dit_body *c)
{
    return c->num_attention_heads * c->attention_head_dim;
}

/* ---- patches and positions ---- */

/* [1,tokens,c], as facebook's code stores it, or [tokens,c]. */
static ht_status bind_positions(ht_arena *arena, ht_weights *w, ht_patch_embed *b, const ht_dit_body *c)
{
    int64_t side = c->sample_size / c->patch_size;
    const ht_tensor *stored =
        ht_bind_tensor(w, 3, (const int64_t[]){1, side * side, ht_dit_width(c)}, "pos_embed.pos_embed");
    ht_tensor *table = stored ? ht_alloc(arena, sizeof *table) : NULL;
    if (!stored)
        return HT_OK; /* ht_weights_finish will say why */
    if (!table)
        return HT_ERR_MEMORY;
    *table = *stored;
    table->ndim = 2;
    table->shape[0] = stored->shape[1];
    table->shape[1] = stored->shape[2];
    b->pos_embed = table;
    return HT_OK;
}

ht_status ht_patch_embed_bind(ht_arena *arena, ht_weights *w, ht_patch_embed *b, const ht_dit_body *c)
{
    ht_bind_conv(w, &b->proj, c->in_channels, ht_dit_width(c), c->patch_size, true, "pos_embed.proj");
    return ht_weights_has(w, "pos_embed.pos_embed") ? bind_positions(arena, w, b, c) : HT_OK;
}

/* Sines, then cosines, of position * 10000^(-i / quarter); quarter of each.  The position is a float32, as the
 * originals have it, everything else in double. */
static void sinusoids(float position, int quarter, float *out)
{
    for (int i = 0; i < quarter; i++) {
        double sine, cosine, frequency = ht_exp(-LN_10000 * i / quarter);
        ht_sincos_turns((double)position * frequency * ONE_OVER_TWO_PI, &sine, &cosine);
        out[i] = (float)sine;
        out[quarter + i] = (float)cosine;
    }
}

/* Place i of a grid of `count`, where the one of sample_size has `base`. */
static float place(int64_t i, int64_t count, int64_t base, double interpolation_scale)
{
    return (float)i / (float)((double)count / (double)base) / (float)interpolation_scale;
}

static const ht_tensor *positions(ht_graph *g, const ht_dit_body *c, int64_t h, int64_t w)
{
    int width = ht_dit_width(c), quarter = width / 4;
    int64_t base = c->sample_size / c->patch_size;
    float *table;
    const ht_tensor *t = ht_constant(g, "pos_embed", 2, (const int64_t[]){h * w, width}, &table);
    for (int64_t y = 0; t && y < h; y++)
        for (int64_t x = 0; x < w; x++, table += width) {
            sinusoids(place(x, w, base, c->interpolation_scale), quarter, table);
            sinusoids(place(y, h, base, c->interpolation_scale), quarter, table + width / 2);
        }
    return t;
}

ht_value *ht_patch_embed_block(ht_graph *g, const ht_patch_embed *b, const ht_dit_body *c, ht_value *x)
{
    ht_value *h = ht_conv2d(g, x, &b->proj, (ht_conv_shape){.stride = c->patch_size});
    int64_t side = c->sample_size / c->patch_size;
    if (!h)
        return NULL;
    bool own = b->pos_embed && h->shape[1] == side && h->shape[2] == side;
    const ht_tensor *table = own ? b->pos_embed : positions(g, c, h->shape[1], h->shape[2]);
    return table ? ht_name(g, ht_add_position(g, ht_as_tokens(g, h), table), "pos_embed") : NULL;
}

ht_value *ht_unpatchify_block(ht_graph *g, const ht_dit_body *c, ht_value *x, const ht_value *sample)
{
    if (!x)
        return NULL;
    const int64_t grid[] = {x->shape[0], sample->shape[1] / c->patch_size, sample->shape[2] / c->patch_size,
                            x->shape[2]};
    return ht_unpatchify(g, ht_reshape(g, x, 4, grid), c->patch_size);
}

/* ---- attention ---- */

void ht_dit_attention_bind(ht_weights *w, ht_dit_attention *a, const ht_dit_body *c, int context, const char *prefix)
{
    int inner = ht_dit_width(c);
    char name[128];
    snprintf(name, sizeof name, "%s.to_qkv.weight", prefix);
    a->fused = ht_weights_has(w, name);
    if (a->fused) {
        ht_bind_linear(w, &a->to_qkv, inner, 3 * (int64_t)inner, c->attention_bias, "%s.to_qkv", prefix);
    } else {
        ht_bind_linear(w, &a->to_q, inner, inner, c->attention_bias, "%s.to_q", prefix);
        ht_bind_linear(w, &a->to_k, context, inner, c->attention_bias, "%s.to_k", prefix);
        ht_bind_linear(w, &a->to_v, context, inner, c->attention_bias, "%s.to_v", prefix);
    }
    ht_bind_linear(w, &a->to_out, inner, inner, true, "%s.to_out.0", prefix);
}

ht_value *ht_dit_attention_block(ht_graph *g, const ht_dit_attention *a, const ht_dit_body *c, ht_value *x,
                                 ht_value *context, ht_value *keys)
{
    int inner = ht_dit_width(c);
    float scale = 1 / sqrtf((float)c->attention_head_dim);
    ht_value *qkv = a->fused ? ht_linear(g, x, &a->to_qkv) : NULL;
    ht_value *q = a->fused ? ht_slice(g, qkv, 0, inner) : ht_linear(g, x, &a->to_q);
    ht_value *k = a->fused ? ht_slice(g, qkv, inner, inner) : ht_linear(g, context, &a->to_k);
    ht_value *v = a->fused ? ht_slice(g, qkv, 2 * inner, inner) : ht_linear(g, context, &a->to_v);
    ht_value *h = ht_biased_attention(g, q, k, v, c->num_attention_heads, scale, (ht_attention_bias){.keys = keys});
    return ht_linear(g, h, &a->to_out);
}

/* ---- feed-forward ---- */

void ht_dit_feed_forward_bind(ht_weights *w, ht_dit_feed_forward *f, const ht_dit_body *c, const char *prefix)
{
    int64_t inner = ht_dit_width(c);
    ht_bind_linear(w, &f->in, inner, 4 * inner, true, "%s.net.0.proj", prefix);
    ht_bind_linear(w, &f->out, 4 * inner, inner, true, "%s.net.2", prefix);
}

ht_value *ht_dit_feed_forward_block(ht_graph *g, const ht_dit_feed_forward *f, const ht_dit_body *c, ht_value *x)
{
    ht_value *h = ht_linear(g, x, &f->in);
    return ht_linear(g, c->tanh_gelu ? ht_gelu_tanh(g, h) : ht_gelu(g, h), &f->out);
}
