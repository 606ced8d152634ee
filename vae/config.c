/* config.c - config.json of an AutoencoderKL, a VQModel and an AutoencoderTiny: read, defaulted as diffusers does, and
 * checked.
 *
 * Traps:
 * - use_quant_conv and use_post_quant_conv are only in newer files; absent means there is one.
 * - shift_factor null means 0; VQModel has none.  latents_mean and latents_std are unknown here unless null.
 * - force_upcast is about float16, dropout-like keys about training: they change nothing.
 * - AutoencoderTiny writes a block_out_channels beside its two lists; nothing reads it. */
#include <string.h>

#include "unet/config.h"
#include "vae/vae.h"

/* clang-format off */
static const char *const kl_keys[] = {
    "in_channels", "out_channels", "down_block_types", "up_block_types", "block_out_channels", "layers_per_block",
    "act_fn", "latent_channels", "norm_num_groups", "sample_size", "scaling_factor", "shift_factor", "force_upcast",
    "use_quant_conv", "use_post_quant_conv", "mid_block_add_attention", "quantization_config", NULL};
static const char *const vq_keys[] = {
    "in_channels", "out_channels", "down_block_types", "up_block_types", "block_out_channels", "layers_per_block",
    "act_fn", "latent_channels", "norm_num_groups", "sample_size", "scaling_factor", "force_upcast",
    "mid_block_add_attention", "num_vq_embeddings", "vq_embed_dim", "norm_type", "lookup_from_codebook",
    "quantization_config", NULL};
static const char *const tiny_keys[] = {
    "in_channels", "out_channels", "encoder_block_out_channels", "decoder_block_out_channels", "block_out_channels",
    "act_fn", "upsample_fn", "latent_channels", "upsampling_scaling_factor", "num_encoder_blocks", "num_decoder_blocks",
    "latent_magnitude", "latent_shift", "force_upcast", "scaling_factor", "shift_factor", "quantization_config", NULL};
/* clang-format on */

/* ---- AutoencoderKL, VQModel ---- */

/* Of so many levels, all of the one type that this version knows. */
static void check_types(ht_json *j, const char *key, const char *type, int levels)
{
    int kinds[HT_VAE_MAX_LEVELS], n = 1;
    if (ht_unet_has_list(j, key))
        n = ht_json_choices(j, key, kinds, HT_VAE_MAX_LEVELS, (const char *const[]){type, NULL});
    if (!j->status && n != levels)
        j->status = ht_fail(HT_ERR_FORMAT, "%s: %s has %d entries, block_out_channels %d; it must be one number",
                            j->where, key, n, levels);
}

static void read_levels(ht_json *j, ht_vae_config *c)
{
    c->levels = 1;
    c->block_out_channels[0] = 64;
    if (ht_unet_has_list(j, "block_out_channels"))
        c->levels =
            ht_json_ints(j, "block_out_channels", c->block_out_channels, HT_VAE_MAX_LEVELS, 1, HT_VAE_MAX_CHANNELS);
    check_types(j, "down_block_types", "DownEncoderBlock2D", c->levels);
    check_types(j, "up_block_types", "UpDecoderBlock2D", c->levels);
    c->layers_per_block = ht_json_int(j, "layers_per_block", 1, 1, HT_VAE_MAX_LAYERS);
    c->norm_num_groups = ht_json_int(j, "norm_num_groups", 32, 1, HT_VAE_MAX_CHANNELS);
    for (int i = 0; !j->status && i < c->levels; i++)
        if (c->block_out_channels[i] % c->norm_num_groups)
            j->status = ht_fail(HT_ERR_SHAPE, "%s: block_out_channels %d is not a multiple of norm_num_groups %d",
                                j->where, c->block_out_channels[i], c->norm_num_groups);
}

static void read_shared(ht_json *j, ht_vae_config *c)
{
    ht_unet_quantization(j);
    ht_unet_accept_only(j, "act_fn", (const char *const[]){"silu", "swish", NULL});
    ht_unet_sample_size(j, &c->height, &c->width);
    c->in_channels = ht_json_int(j, "in_channels", 3, 1, HT_VAE_MAX_CHANNELS);
    c->out_channels = ht_json_int(j, "out_channels", 3, 1, HT_VAE_MAX_CHANNELS);
    c->mid_block_add_attention = ht_json_bool(j, "mid_block_add_attention", true);
    c->scaling_factor = ht_unet_positive_real(j, "scaling_factor", 0.18215);
    read_levels(j, c);
}

ht_status ht_kl_config_read(const json_t *object, const char *where, ht_vae_config *config)
{
    ht_json j = {.object = object, .where = where};
    ht_vae_config c = {0};
    ht_json_allow(&j, "AutoencoderKL", kl_keys);
    read_shared(&j, &c);
    c.latent_channels = ht_json_int(&j, "latent_channels", 4, 1, HT_VAE_MAX_CHANNELS / 2);
    c.shift_factor = (float)ht_json_real(&j, "shift_factor", 0);
    c.use_quant_conv = ht_json_bool(&j, "use_quant_conv", true);
    c.use_post_quant_conv = ht_json_bool(&j, "use_post_quant_conv", true);
    if (!j.status)
        *config = c;
    return j.status;
}

ht_status ht_vq_config_read(const json_t *object, const char *where, ht_vae_config *config)
{
    enum { MOST_ROWS = 1 << 24 }; /* numbers of rows up to here are exact in float32 */
    ht_json j = {.object = object, .where = where};
    ht_vae_config c = {.use_quant_conv = true, .use_post_quant_conv = true};
    ht_json_allow(&j, "VQModel", vq_keys);
    read_shared(&j, &c);
    ht_unet_accept_only(&j, "norm_type", (const char *const[]){"group", NULL});
    c.latent_channels = ht_json_int(&j, "latent_channels", 3, 1, HT_VAE_MAX_CHANNELS);
    c.num_vq_embeddings = ht_json_int(&j, "num_vq_embeddings", 256, 1, MOST_ROWS);
    c.vq_embed_dim = ht_json_int(&j, "vq_embed_dim", c.latent_channels, 1, HT_VAE_MAX_CHANNELS);
    if (!j.status)
        *config = c;
    return j.status;
}

/* ---- AutoencoderTiny ---- */

/* Channels of the stages, which must all be `channels`, and the number of blocks in each; the number of stages. */
static int read_stages(ht_json *j, const char *width_key, const char *blocks_key, int channels, int *blocks)
{
    int widths[HT_VAE_MAX_LEVELS] = {64, 64, 64, 64}, n = 4, m = 4;
    if (ht_unet_has_list(j, width_key))
        n = ht_json_ints(j, width_key, widths, HT_VAE_MAX_LEVELS, 1, HT_VAE_MAX_CHANNELS);
    if (ht_unet_has_list(j, blocks_key))
        m = ht_json_ints(j, blocks_key, blocks, HT_VAE_MAX_LEVELS, 1, HT_VAE_MAX_LAYERS);
    if (!j->status && n != m)
        j->status = ht_fail(HT_ERR_FORMAT, "%s: %s has %d entries, %s %d; it must be one number", j->where, width_key,
                            n, blocks_key, m);
    for (int i = 0; !j->status && i < n; i++)
        if (widths[i] != channels)
            j->status = ht_fail(HT_ERR_UNSUPPORTED, "%s: %s has %d beside %d; it must be one width in all stages",
                                j->where, width_key, widths[i], channels);
    return n;
}

ht_status ht_tiny_config_read(const json_t *object, const char *where, ht_tiny_config *config)
{
    ht_json j = {.object = object, .where = where};
    ht_tiny_config c = {.num_encoder_blocks = {1, 3, 3, 3}, .num_decoder_blocks = {3, 3, 3, 1}};
    const json_t *widths = json_object_get(object, "encoder_block_out_channels");
    int first[HT_VAE_MAX_LEVELS] = {64};
    ht_json_allow(&j, "AutoencoderTiny", tiny_keys);
    ht_unet_quantization(&j);
    ht_unet_accept_only(&j, "act_fn", (const char *const[]){"relu", NULL});
    ht_unet_accept_only(&j, "upsample_fn", (const char *const[]){"nearest", NULL});
    c.in_channels = ht_json_int(&j, "in_channels", 3, 1, HT_VAE_MAX_CHANNELS);
    c.out_channels = ht_json_int(&j, "out_channels", 3, 1, HT_VAE_MAX_CHANNELS);
    c.latent_channels = ht_json_int(&j, "latent_channels", 4, 1, HT_VAE_MAX_CHANNELS);
    ht_json_int(&j, "upsampling_scaling_factor", 2, 2, 2);
    c.scaling_factor = ht_unet_positive_real(&j, "scaling_factor", 1);
    c.shift_factor = (float)ht_json_real(&j, "shift_factor", 0);
    if (json_is_array(widths))
        ht_json_ints(&j, "encoder_block_out_channels", first, HT_VAE_MAX_LEVELS, 1, HT_VAE_MAX_CHANNELS);
    c.channels = first[0];
    c.encoder_stages =
        read_stages(&j, "encoder_block_out_channels", "num_encoder_blocks", c.channels, c.num_encoder_blocks);
    c.decoder_stages =
        read_stages(&j, "decoder_block_out_channels", "num_decoder_blocks", c.channels, c.num_decoder_blocks);
    if (!j.status)
        *config = c;
    return j.status;
}
