/* vq.c - VQModel, the autoencoder of LDM's vq-f4 and its kin (VQ-VAE, arXiv:1711.00937; VQGAN, arXiv:2012.09841):
 * decoding first replaces each latent by the nearest row of a codebook, encoding does not. */
#include "vae/coder.h"

typedef struct vq_model {
    ht_vae_config config;
    ht_coder encoder, decoder;
    ht_conv_weights quant_conv, post_quant_conv;
    const ht_tensor *codebook; /* [num_vq_embeddings, vq_embed_dim] */
} vq_model;

static ht_status vq_open(ht_arena *arena, const json_t *config, const char *where, ht_weights *weights, void **model)
{
    vq_model *m = ht_alloc(arena, sizeof *m);
    ht_status status = m ? ht_vq_config_read(config, where, &m->config) : HT_ERR_MEMORY;
    if (status)
        return status;
    int z = m->config.latent_channels, dim = m->config.vq_embed_dim;
    ht_bind_conv(weights, &m->quant_conv, z, dim, 1, true, "quant_conv");
    ht_bind_conv(weights, &m->post_quant_conv, dim, z, 1, true, "post_quant_conv");
    m->codebook =
        ht_bind_tensor(weights, 2, (const int64_t[]){m->config.num_vq_embeddings, dim}, "quantize.embedding.weight");
    status = ht_encoder_bind(arena, weights, &m->config, z, &m->encoder);
    if (!status)
        status = ht_decoder_bind(arena, weights, &m->config, &m->decoder);
    if (!status)
        status = ht_weights_finish(weights);
    if (!status)
        *model = m;
    return status;
}

static void vq_info(const void *model, ht_autoencoder_info *info)
{
    const ht_vae_config *c = &((const vq_model *)model)->config;
    *info =
        (ht_autoencoder_info){.in_channels = c->in_channels,
                              .out_channels = c->out_channels,
                              .latent_channels = c->vq_embed_dim,
                              .height = c->height,
                              .width = c->width,
                              .factor = 1 << (c->levels - 1),
                              .scaling_factor = c->scaling_factor,
                              .decoded = {{.name = "sample"}, {.name = "quantized"}, {.name = "indices", .rows = true}},
                              .encoded = {{.name = "latents"}}};
}

static void vq_decode(const void *model, ht_graph *g, int64_t n, int64_t h, int64_t w)
{
    const vq_model *m = model;
    ht_value *z = ht_input(g, "z", 4, (const int64_t[]){n, h, w, m->config.vq_embed_dim}, HT_DEPENDS_X);
    ht_value *indices = ht_name(g, ht_nearest_row(g, z, m->codebook), "indices");
    ht_value *quantized = ht_name(g, ht_embedding(g, indices, m->codebook), "quantized");
    z = ht_conv2d(g, quantized, &m->post_quant_conv, (ht_conv_shape){0});
    ht_output_value(g, ht_decoder_block(g, &m->decoder, z), "sample");
}

static void vq_encode(const void *model, ht_graph *g, int64_t n, int64_t h, int64_t w)
{
    const vq_model *m = model;
    ht_value *x = ht_input(g, "x", 4, (const int64_t[]){n, h, w, m->config.in_channels}, HT_DEPENDS_X);
    x = ht_conv2d(g, ht_encoder_block(g, &m->encoder, x), &m->quant_conv, (ht_conv_shape){0});
    ht_output_value(g, x, "latents");
}

const ht_autoencoder_family ht_vq_family = {"VQModel", vq_open, vq_info, vq_decode, vq_encode};
