/* unet2d_condition.h - UNet2DConditionModel: the U-Net of Stable Diffusion 1.x, 2.x and XL, of LDM's class-conditional
 * and text models, of inpainting (more input channels) and of latent consistency models. */
#ifndef HT_UNET_UNET2D_CONDITION_H
#define HT_UNET_UNET2D_CONDITION_H

#include "unet/unet2d.h"

/* config.json, checked.  Names are the file's; lists have an entry a level. */
typedef struct ht_unet2d_condition_config {
    int height, width; /* sample_size; 0 if the file does not say */
    int in_channels, out_channels;
    bool center_input_sample;
    int conv_in_kernel, conv_out_kernel;
    int time_embedding_dim;
    bool flip_sin_to_cos;
    float freq_shift;
    int levels;
    bool down_cross_attention[HT_UNET_MAX_LEVELS], up_cross_attention[HT_UNET_MAX_LEVELS];
    int block_out_channels[HT_UNET_MAX_LEVELS];
    int layers_per_block[HT_UNET_MAX_LEVELS];
    int heads[HT_UNET_MAX_LEVELS]; /* attention_head_dim, which counts heads here */
    int transformer_layers_per_block[HT_UNET_MAX_LEVELS];
    int cross_attention_dim;
    bool mid_block;
    float mid_block_scale_factor;
    int downsample_padding;
    int norm_num_groups;
    float norm_eps;
    bool scale_shift; /* resnet_time_scale_shift */
    ht_class_embed class_embed;
    int num_class_embeds;
    int projection_class_embeddings_input_dim;
    bool text_time; /* addition_embed_type */
    int addition_time_embed_dim;
    int time_cond_proj_dim; /* 0: none */
} ht_unet2d_condition_config;

enum { HT_UNET_TIME_IDS = 6 }; /* SDXL: original height, width, crop top, left, target height, width */

/* As ht_unet2d_config_read. */
ht_status ht_unet2d_condition_config_read(const json_t *object, const char *where, ht_unet2d_condition_config *config);

extern const ht_denoiser_family ht_unet2d_condition_family;

#endif
