/* blocks.h - what U-Nets are made of: each block a struct that mirrors its part of the checkpoint, a binding, and a
 * builder. Names and meanings are those of diffusers' ResnetBlock2D, Attention, Downsample2D and Upsample2D. Letters of
 * shapes: n images, h x w positions, c channels, e the width of the time embedding. */
#ifndef HT_UNET_BLOCKS_H
#define HT_UNET_BLOCKS_H

#include "graph/weights.h"

typedef enum ht_resample { HT_RESAMPLE_NONE, HT_RESAMPLE_DOWN, HT_RESAMPLE_UP } ht_resample;

/* The numbers, name to output_scale_factor, come from the configuration and are set before _bind, which fills in the
 * rest. */
typedef struct ht_resnet {
    const char *name; /* in the checkpoint, and of the output: "down_blocks.0.resnets.0" */
    int in_channels, out_channels;
    int temb_channels; /* 0: it does not know of time */
    int groups;
    float eps;
    bool scale_shift;          /* resnet_time_scale_shift */
    ht_resample resample;      /* after norm1: pool or repeat both paths */
    float output_scale_factor; /* the sum is divided by it */
    ht_norm_weights norm1, norm2;
    ht_conv_weights conv1, conv2, conv_shortcut; /* conv_shortcut only if in_channels != out_channels */
    ht_linear_weights time_emb_proj;
} ht_resnet;

void ht_resnet_bind(ht_weights *w, ht_resnet *b);
/* x [n,h,w,c], temb [n or 1,e] or NULL -> [n,h',w',c'] */
ht_value *ht_resnet_block(ht_graph *g, const ht_resnet *b, ht_value *x, ht_value *temb);

/* Self-attention over the positions of an image. */
typedef struct ht_self_attention {
    const char *name; /* "mid_block.attentions.0" */
    int channels, heads, head_dim;
    int groups; /* 0: no group_norm */
    float eps;
    float output_scale_factor;
    ht_norm_weights group_norm;
    ht_linear_weights to_q, to_k, to_v, to_out;
} ht_self_attention;

void ht_self_attention_bind(ht_weights *w, ht_self_attention *b);
ht_value *ht_self_attention_block(ht_graph *g, const ht_self_attention *b, ht_value *x); /* shape of x, [n,h,w,c] */

ht_value *ht_as_tokens(ht_graph *g, ht_value *x);                            /* [n,h,w,c] -> [n,h*w,c] */
ht_value *ht_as_image(ht_graph *g, ht_value *tokens, const ht_value *image); /* and back, to the shape of image */

/* Between two levels: a convolution with stride 2, or nearest and a convolution, or a residual block that does either
 * inside. */
typedef struct ht_resampler {
    const char *name; /* "down_blocks.0.downsamplers.0" */
    int channels;
    ht_resample direction;
    bool is_resnet;
    int padding; /* downsample_padding */
    ht_conv_weights conv;
    ht_resnet resnet; /* its numbers are set if is_resnet */
} ht_resampler;

void ht_resampler_bind(ht_weights *w, ht_resampler *b);
/* x [n,h,w,c] -> [n,h/2,w/2,c] or [n,2h,2w,c] */
ht_value *ht_resampler_block(ht_graph *g, const ht_resampler *b, ht_value *x, ht_value *temb);

/* Up by a convolution, to a size of twice that of x or one less. */
ht_value *ht_upsampler_block(ht_graph *g, const ht_resampler *b, ht_value *x, int64_t h, int64_t w);

/* Two linear layers with SiLU between: TimestepEmbedding. */
typedef struct ht_timestep_mlp {
    ht_linear_weights linear_1, linear_2;
} ht_timestep_mlp;

void ht_timestep_mlp_bind(ht_weights *w, ht_timestep_mlp *b, int in, int out, const char *name);
ht_value *ht_timestep_mlp_block(ht_graph *g, const ht_timestep_mlp *b, ht_value *x); /* [n or 1,in] -> [n or 1,e] */

#endif
