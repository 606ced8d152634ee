/* tiny.c - AutoencoderTiny, the distilled autoencoder that makes previews (TAESD): blocks of three convolutions, no
 * normalization, no attention.
 *
 * Traps:
 * - Layers are numbered as a torch Sequential counts them: activations and upsamplings take a number too.
 * - The decoder squashes its input, tanh(z / 3) * 3, and gives [-1, 1] as 2 y - 1; the encoder reads (x + 1) / 2.
 * - Convolutions that change the size have no bias: the encoder's with stride 2, the decoder's after upsampling. */
#include "vae/vae.h"

static const ht_conv_shape same_size = {.pad_top = 1, .pad_left = 1, .pad_bottom = 1, .pad_right = 1};
static const ht_conv_shape halved = {.stride = 2, .pad_top = 1, .pad_left = 1, .pad_bottom = 1, .pad_right = 1};

typedef struct tiny_block {
    ht_conv_weights conv[3];
} tiny_block;

/* The encoder's convolution comes before the blocks, the decoder's after. */
typedef struct tiny_stage {
    int n;
    tiny_block blocks[HT_VAE_MAX_LAYERS];
    ht_conv_weights conv;
} tiny_stage;

typedef struct autoencoder_tiny {
    ht_tiny_config config;
    ht_conv_weights encoder_out, decoder_in;
    tiny_stage encoder[HT_VAE_MAX_LEVELS], decoder[HT_VAE_MAX_LEVELS];
} autoencoder_tiny;

/* ---- binding ---- */

static void bind_blocks(ht_weights *w, tiny_stage *s, int channels, const char *side, int *layer)
{
    for (int i = 0; i < s->n; i++, ++*layer)
        for (int k = 0; k < 3; k++)
            ht_bind_conv(w, &s->blocks[i].conv[k], channels, channels, 3, true, "%s.layers.%d.conv.%d", side, *layer,
                         2 * k);
}

static void bind_encoder(ht_weights *w, autoencoder_tiny *m)
{
    const ht_tiny_config *c = &m->config;
    int layer = 0;
    for (int i = 0; i < c->encoder_stages; i++) {
        m->encoder[i].n = c->num_encoder_blocks[i];
        ht_bind_conv(w, &m->encoder[i].conv, i ? c->channels : c->in_channels, c->channels, 3, !i, "encoder.layers.%d",
                     layer++);
        bind_blocks(w, &m->encoder[i], c->channels, "encoder", &layer);
    }
    ht_bind_conv(w, &m->encoder_out, c->channels, c->latent_channels, 3, true, "encoder.layers.%d", layer);
}

static void bind_decoder(ht_weights *w, autoencoder_tiny *m)
{
    const ht_tiny_config *c = &m->config;
    int layer = 2; /* the first convolution and its activation */
    ht_bind_conv(w, &m->decoder_in, c->latent_channels, c->channels, 3, true, "decoder.layers.0");
    for (int i = 0; i < c->decoder_stages; i++) {
        bool last = i == c->decoder_stages - 1;
        m->decoder[i].n = c->num_decoder_blocks[i];
        bind_blocks(w, &m->decoder[i], c->channels, "decoder", &layer);
        layer += !last; /* upsampling */
        ht_bind_conv(w, &m->decoder[i].conv, c->channels, last ? c->out_channels : c->channels, 3, last,
                     "decoder.layers.%d", layer++);
    }
}

static ht_status tiny_open(ht_arena *arena, const json_t *config, const char *where, ht_weights *weights, void **model)
{
    autoencoder_tiny *m = ht_alloc(arena, sizeof *m);
    ht_status status = m ? ht_tiny_config_read(config, where, &m->config) : HT_ERR_MEMORY;
    if (status)
        return status;
    bind_encoder(weights, m);
    bind_decoder(weights, m);
    status = ht_weights_finish(weights);
    if (!status)
        *model = m;
    return status;
}

static void tiny_info(const void *model, ht_autoencoder_info *info)
{
    const ht_tiny_config *c = &((const autoencoder_tiny *)model)->config;
    *info = (ht_autoencoder_info){.in_channels = c->in_channels,
                                  .out_channels = c->out_channels,
                                  .latent_channels = c->latent_channels,
                                  .factor = 1 << (c->decoder_stages - 1),
                                  .scaling_factor = c->scaling_factor,
                                  .shift_factor = c->shift_factor,
                                  .decoded = {{.name = "sample"}},
                                  .encoded = {{.name = "latents"}}};
}

/* ---- the networks ---- */

/* relu(conv relu conv relu conv (x) + x) */
static ht_value *block(ht_graph *g, const tiny_block *b, ht_value *x)
{
    ht_value *h = ht_relu(g, ht_conv2d(g, x, &b->conv[0], same_size));
    h = ht_relu(g, ht_conv2d(g, h, &b->conv[1], same_size));
    return ht_relu(g, ht_add(g, x, ht_conv2d(g, h, &b->conv[2], same_size)));
}

static ht_value *blocks(ht_graph *g, const tiny_stage *s, ht_value *x)
{
    for (int i = 0; i < s->n; i++)
        x = block(g, &s->blocks[i], x);
    return x;
}

static void tiny_decode(const void *model, ht_graph *g, int64_t n, int64_t h, int64_t w)
{
    const autoencoder_tiny *m = model;
    const ht_tiny_config *c = &m->config;
    ht_value *z = ht_input(g, "z", 4, (const int64_t[]){n, h, w, c->latent_channels}, HT_DEPENDS_X);
    z = ht_affine(g, ht_tanh(g, ht_affine(g, z, 1.0f / 3, 0)), 3, 0);
    ht_value *x = ht_relu(g, ht_conv2d(g, z, &m->decoder_in, same_size));
    for (int i = 0; i < c->decoder_stages; i++) {
        x = blocks(g, &m->decoder[i], x);
        if (i < c->decoder_stages - 1)
            x = ht_upsample(g, x, 2);
        x = ht_conv2d(g, x, &m->decoder[i].conv, same_size);
    }
    ht_output_value(g, ht_affine(g, x, 2, -1), "sample");
}

static void tiny_encode(const void *model, ht_graph *g, int64_t n, int64_t h, int64_t w)
{
    const autoencoder_tiny *m = model;
    const ht_tiny_config *c = &m->config;
    ht_value *x = ht_input(g, "x", 4, (const int64_t[]){n, h, w, c->in_channels}, HT_DEPENDS_X);
    x = ht_affine(g, x, 0.5f, 0.5f);
    for (int i = 0; i < c->encoder_stages; i++)
        x = blocks(g, &m->encoder[i], ht_conv2d(g, x, &m->encoder[i].conv, i ? halved : same_size));
    ht_output_value(g, ht_conv2d(g, x, &m->encoder_out, same_size), "latents");
}

const ht_autoencoder_family ht_tiny_family = {"AutoencoderTiny", tiny_open, tiny_info, tiny_decode, tiny_encode};
