/* blocks.h - what DiT and PixArt are made of. */
#ifndef HT_DIT_BLOCKS_H
#define HT_DIT_BLOCKS_H

#include "dit/dit.h"

int ht_dit_width(const ht_dit_body *c); /* num_attention_heads * attention_head_dim */

/* Patches to tokens.  pos_embed: the table of the checkpoint for its own size, or NULL: it is computed. */
typedef struct ht_patch_embed {
    ht_conv_weights proj;
    const ht_tensor *pos_embed; /* [tokens,c] */
} ht_patch_embed;

ht_status ht_patch_embed_bind(ht_arena *arena, ht_weights *w, ht_patch_embed *b, const ht_dit_body *c);
/* x [n,h,w,in_channels] -> [n,h/p*w/p,c] */
ht_value *ht_patch_embed_block(ht_graph *g, const ht_patch_embed *b, const ht_dit_body *c, ht_value *x);

/* Tokens to patches: x [n,h/p*w/p,p*p*out_channels] -> [n,h,w,out_channels], the size of sample. */
ht_value *ht_unpatchify_block(ht_graph *g, const ht_dit_body *c, ht_value *x, const ht_value *sample);

/* Queries of one list of tokens, keys and values of another: three projections, or as facebook has them one. */
typedef struct ht_dit_attention {
    bool fused;
    ht_linear_weights to_qkv, to_q, to_k, to_v, to_out;
} ht_dit_attention;

void ht_dit_attention_bind(ht_weights *w, ht_dit_attention *a, const ht_dit_body *c, int context, const char *prefix);
/* x [n,tokens,c] -> [n,tokens,c].  keys: added to the scores of the context's tokens [n,tokens'], or NULL. */
ht_value *ht_dit_attention_block(ht_graph *g, const ht_dit_attention *a, const ht_dit_body *c, ht_value *x,
                                 ht_value *context, ht_value *keys);

typedef struct ht_dit_feed_forward {
    ht_linear_weights in, out; /* ff.net.0.proj, ff.net.2 */
} ht_dit_feed_forward;

void ht_dit_feed_forward_bind(ht_weights *w, ht_dit_feed_forward *f, const ht_dit_body *c, const char *prefix);
ht_value *ht_dit_feed_forward_block(ht_graph *g, const ht_dit_feed_forward *f, const ht_dit_body *c, ht_value *x);

/* What adaLN-Zero takes six rows for, in their order. */
typedef enum ht_dit_part {
    HT_SHIFT_MSA,
    HT_SCALE_MSA,
    HT_GATE_MSA,
    HT_SHIFT_MLP,
    HT_SCALE_MLP,
    HT_GATE_MLP,
    HT_DIT_PARTS
} ht_dit_part;

#endif
