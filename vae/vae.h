/* vae.h - autoencoders: latents to pictures and back, as diffusers' AutoencoderKL (Stable Diffusion), VQModel (LDM) and
 * AutoencoderTiny (TAESD: small and fast, for previews). */
#ifndef HT_VAE_VAE_H
#define HT_VAE_VAE_H

#include "graph/autoencoder.h"

enum { HT_VAE_MAX_LEVELS = 16, HT_VAE_MAX_LAYERS = 64, HT_VAE_MAX_CHANNELS = 65536 };

extern const ht_autoencoder_family ht_kl_family, ht_vq_family, ht_tiny_family;

/* config.json of the first two, checked.  Names are the file's; levels is the length of its lists. */
typedef struct ht_vae_config {
    int in_channels, out_channels, latent_channels;
    int height, width; /* sample_size; 0 if the file does not say */
    int levels;
    int block_out_channels[HT_VAE_MAX_LEVELS];
    int layers_per_block;
    int norm_num_groups;
    bool mid_block_add_attention;
    float scaling_factor, shift_factor;
    bool use_quant_conv, use_post_quant_conv; /* AutoencoderKL; always there in VQModel */
    int num_vq_embeddings, vq_embed_dim;      /* VQModel */
} ht_vae_config;

/* Read and check a config.json object.  A key or value that this version does not know is an error that names it. */
ht_status ht_kl_config_read(const json_t *object, const char *where, ht_vae_config *config);
ht_status ht_vq_config_read(const json_t *object, const char *where, ht_vae_config *config);

typedef struct ht_tiny_config {
    int in_channels, out_channels, latent_channels;
    int encoder_stages, decoder_stages, channels; /* the same in all stages */
    int num_encoder_blocks[HT_VAE_MAX_LEVELS], num_decoder_blocks[HT_VAE_MAX_LEVELS];
    float scaling_factor, shift_factor;
} ht_tiny_config;

ht_status ht_tiny_config_read(const json_t *object, const char *where, ht_tiny_config *config);

#endif
