/* kl.c - AutoencoderKL, the autoencoder of Stable Diffusion (arXiv:2112.10752, section 3.1): the encoder gives the mean
 * and the logarithm of the variance of each latent, `moments`, as the network makes them: not clamped, not drawn from,
 * without scaling_factor. */
#include "vae/coder.h"

typedef struct autoencoder_kl {
    ht_vae_config config;
    ht_coder encoder, decoder;
    ht_conv_weights quant_conv, post_quant_conv;
} autoencoder_kl;

static ht_status kl_open(ht_arena *arena, const json_t *config, const char *where, ht_weights *weights, void **model)
{
    autoencoder_kl *m = ht_alloc(arena, sizeof *m);
    ht_status status = m ? ht_kl_config_read(config, where, &m->config) : HT_ERR_MEMORY;
    if (status)
        return status;
    int z = m->config.latent_channels;
    if (m->config.use_quant_conv)
        ht_bind_conv(weights, &m->quant_conv, 2 * z, 2 * z, 1, true, "quant_conv");
    if (m->config.use_post_quant_conv)
        ht_bind_conv(weights, &m->post_quant_conv, z, z, 1, true, "post_quant_conv");
    status = ht_encoder_bind(arena, weights, &m->config, 2 * z, &m->encoder);
    if (!status)
        status = ht_decoder_bind(arena, weights, &m->config, &m->decoder);
    if (!status)
        status = ht_weights_finish(weights);
    if (!status)
        *model = m;
    return status;
}

static void kl_info(const void *model, ht_autoencoder_info *info)
{
    const ht_vae_config *c = &((const autoencoder_kl *)model)->config;
    *info = (ht_autoencoder_info){.in_channels = c->in_channels,
                                  .out_channels = c->out_channels,
                                  .latent_channels = c->latent_channels,
                                  .height = c->height,
                                  .width = c->width,
                                  .factor = 1 << (c->levels - 1),
                                  .scaling_factor = c->scaling_factor,
                                  .shift_factor = c->shift_factor,
                                  .decoded = {{.name = "sample"}},
                                  .encoded = {{.name = "moments"}}};
}

static void kl_decode(const void *model, ht_graph *g, int64_t n, int64_t h, int64_t w)
{
    const autoencoder_kl *m = model;
    ht_value *z = ht_input(g, "z", 4, (const int64_t[]){n, h, w, m->config.latent_channels}, HT_DEPENDS_X);
    if (m->config.use_post_quant_conv)
        z = ht_conv2d(g, z, &m->post_quant_conv, (ht_conv_shape){0});
    ht_output_value(g, ht_decoder_block(g, &m->decoder, z), "sample");
}

static void kl_encode(const void *model, ht_graph *g, int64_t n, int64_t h, int64_t w)
{
    const autoencoder_kl *m = model;
    ht_value *x = ht_input(g, "x", 4, (const int64_t[]){n, h, w, m->config.in_channels}, HT_DEPENDS_X);
    x = ht_encoder_block(g, &m->encoder, x);
    if (m->config.use_quant_conv)
        x = ht_conv2d(g, x, &m->quant_conv, (ht_conv_shape){0});
    ht_output_value(g, x, "moments");
}

const ht_autoencoder_family ht_kl_family = {"AutoencoderKL", kl_open, kl_info, kl_decode, kl_encode};
