/* transformer.h - what conditional U-Nets have instead of self-attention: a transformer over the positions of an image
 * that attends to a context, the tokens of a prompt.  Names are those of diffusers' Transformer2DModel. */
#ifndef HT_UNET_TRANSFORMER_H
#define HT_UNET_TRANSFORMER_H

#include "unet/blocks.h"

enum { HT_UNET_MAX_TRANSFORMER_LAYERS = 64 };

/* Projections of one attention: queries of one list of tokens, keys and values of another. */
typedef struct ht_attention_weights {
    ht_linear_weights to_q, to_k, to_v, to_out;
} ht_attention_weights;

/* BasicTransformerBlock. */
typedef struct ht_transformer_block {
    ht_norm_weights norm1, norm2, norm3;
    ht_attention_weights attn1, attn2; /* to itself, to the context */
    ht_linear_weights ff_in, ff_out;   /* ff.net.0.proj, ff.net.2 */
} ht_transformer_block;

/* The numbers, name to groups, are set before _bind. */
typedef struct ht_transformer2d {
    const char *name; /* "down_blocks.0.attentions.0" */
    int channels, heads, layers, context_dim, groups;
    ht_norm_weights norm;
    ht_linear_weights proj_in, proj_out;
    ht_transformer_block *blocks; /* [layers] */
} ht_transformer2d;

ht_status ht_transformer2d_bind(ht_arena *arena, ht_weights *w, ht_transformer2d *b);
/* x [n,h,w,c], context [n,tokens,context_dim] -> [n,h,w,c] */
ht_value *ht_transformer2d_block(ht_graph *g, const ht_transformer2d *b, ht_value *x, ht_value *context);

#endif
