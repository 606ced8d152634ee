/* unet2d.h - UNet2DModel: the U-Net of DDPM and its relatives (unconditional LDM, ADM), with class conditioning. */
#ifndef HT_UNET_UNET2D_H
#define HT_UNET_UNET2D_H

#include <jansson.h>

#include "graph/denoiser.h"

enum { HT_UNET_MAX_LEVELS = 16, HT_UNET_MAX_LAYERS = 64, HT_UNET_MAX_CHANNELS = 65536 };

typedef enum ht_class_embed {
    HT_CLASS_NONE,
    HT_CLASS_TABLE,
    HT_CLASS_TIMESTEP,
    HT_CLASS_IDENTITY,
    HT_CLASS_PROJECTION
} ht_class_embed;

/* What a block type and down-/upsample_type say together. */
typedef struct ht_unet_block_type {
    bool attention;        /* after each residual block */
    bool resnet_resampler; /* a residual block resamples, not a convolution */
} ht_unet_block_type;

/* config.json, checked.  Names are the file's; levels is the length of its three lists. */
typedef struct ht_unet2d_config {
    int height, width; /* sample_size; 0 if the file does not say */
    int in_channels, out_channels;
    bool center_input_sample;
    int time_embedding_dim;
    bool flip_sin_to_cos;
    float freq_shift;
    int levels;
    ht_unet_block_type down_block_types[HT_UNET_MAX_LEVELS], up_block_types[HT_UNET_MAX_LEVELS];
    int block_out_channels[HT_UNET_MAX_LEVELS];
    int layers_per_block;
    bool mid_block, add_attention;
    float mid_block_scale_factor;
    int downsample_padding;
    int attention_head_dim; /* width of a head; 0: one head */
    int norm_num_groups;
    int mid_attn_groups; /* of the mid block's attention; 0: it has no GroupNorm */
    float norm_eps;
    bool scale_shift; /* resnet_time_scale_shift */
    ht_class_embed class_embed;
    int num_class_embeds;
} ht_unet2d_config;

/* Read and check a config.json object.  where: its path, for messages.  A key or value that this version does not know
 * is an error that names it; sizes are bounded, so that nothing computed from an accepted configuration overflows. */
ht_status ht_unet2d_config_read(const json_t *object, const char *where, ht_unet2d_config *config);

extern const ht_denoiser_family ht_unet2d_family;

/* The names of checkpoints that diffusers wrote before 0.18, whose attention had query, key, value and proj_attn.  An
 * ht_rename without context. */
const char *ht_unet2d_rename(ht_arena *arena, const char *name, const void *context);

/* ---- the original DDPM/DDIM code (names_ddpm.c) ---- */

/* Whether a config.json is one of that code: it has a `model` with `ch` and `ch_mult`. */
bool ht_ddpm_recognizes(const json_t *config);

/* Say the same in diffusers' words.  *unet: a config.json for UNet2DModel; *scheduler: a scheduler_config.json, NULL if
 * there are no betas. The caller owns both. */
ht_status ht_ddpm_translate(const json_t *config, const char *where, json_t **unet, json_t **scheduler);

/* `down.0.block.0.norm1.weight` -> `down_blocks.0.resnets.0.norm1.weight`.  An ht_rename; context: the number of
 * levels, a const int. */
const char *ht_ddpm_rename(ht_arena *arena, const char *name, const void *context);

#endif
