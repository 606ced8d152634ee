/* coder.h - the encoder and the decoder that AutoencoderKL and VQModel share. */
#ifndef HT_VAE_CODER_H
#define HT_VAE_CODER_H

#include "unet/blocks.h"
#include "vae/vae.h"

typedef struct ht_coder_level {
    int layers;
    ht_resnet *resnets; /* [layers] */
    bool has_resampler; /* all but the last have one */
    ht_resampler resampler;
} ht_coder_level;

/* Either half. */
typedef struct ht_coder {
    int groups, n_levels;
    ht_conv_weights conv_in, conv_out;
    ht_norm_weights conv_norm_out;
    ht_coder_level levels[HT_VAE_MAX_LEVELS]; /* in the order of execution */
    ht_resnet mid_resnets[2];
    bool mid_attention;
    ht_self_attention attention;
} ht_coder;

/* From pictures to `out` channels; from latent_channels to pictures. */
ht_status ht_encoder_bind(ht_arena *arena, ht_weights *w, const ht_vae_config *c, int out, ht_coder *coder);
ht_status ht_decoder_bind(ht_arena *arena, ht_weights *w, const ht_vae_config *c, ht_coder *coder);

ht_value *ht_encoder_block(ht_graph *g, const ht_coder *b, ht_value *x); /* [n,h,w,in] -> [n,h/f,w/f,out] */
ht_value *ht_decoder_block(ht_graph *g, const ht_coder *b, ht_value *z); /* [n,h,w,latent] -> [n,f h,f w,out] */

#endif
