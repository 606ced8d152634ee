/* config.c - config.json of DiTTransformer2DModel and PixArtTransformer2DModel: read, defaulted as diffusers does, and
 * checked.
 *
 * Traps:
 * - out_channels null means in_channels; learned variances make it twice that.
 * - interpolation_scale null means sample_size / 64 in PixArt, 1 at least; DiT has none.
 * - use_additional_conditions null means sample_size 128.
 * - Files of before diffusers 0.27 are of class Transformer2DModel and have its keys. */
#include <string.h>

#include "dit/blocks.h"
#include "unet/config.h"

/* The last rows are Transformer2DModel's.  freq_shift is ours: a DiT of facebook's code says 0. */
/* clang-format off */
static const char *const dit_keys[] = {
    "num_attention_heads", "attention_head_dim", "in_channels", "out_channels", "num_layers", "dropout",
    "norm_num_groups", "attention_bias", "sample_size", "patch_size", "activation_fn", "num_embeds_ada_norm",
    "upcast_attention", "norm_type", "norm_elementwise_affine", "norm_eps", "freq_shift", "quantization_config",
    "attention_type", "double_self_attention", "only_cross_attention", "use_linear_projection", NULL};
static const char *const pixart_keys[] = {
    "num_attention_heads", "attention_head_dim", "in_channels", "out_channels", "num_layers", "dropout",
    "norm_num_groups", "cross_attention_dim", "attention_bias", "sample_size", "patch_size", "activation_fn",
    "num_embeds_ada_norm", "upcast_attention", "norm_type", "norm_elementwise_affine", "norm_eps",
    "interpolation_scale", "use_additional_conditions", "caption_channels", "attention_type", "quantization_config",
    "double_self_attention", "only_cross_attention", "use_linear_projection", NULL};
/* clang-format on */

const char *ht_dit_class_name(const json_t *config)
{
    const char *name = json_string_value(json_object_get(config, "_class_name"));
    const char *norm = json_string_value(json_object_get(config, "norm_type"));
    if (!name || !norm || strcmp(name, "Transformer2DModel") != 0)
        return name;
    return !strcmp(norm, "ada_norm_zero")     ? ht_dit_family.class_name
           : !strcmp(norm, "ada_norm_single") ? ht_pixart_family.class_name
                                              : name;
}

static void refuse_variants(ht_json *j)
{
    ht_unet_accept_only(j, "attention_type", (const char *const[]){"default", NULL});
    ht_json_only(j, "norm_elementwise_affine", false);
    ht_json_only(j, "double_self_attention", false);
    ht_json_only(j, "only_cross_attention", false);
    ht_json_bool(j, "upcast_attention", false);      /* attention is in float32 */
    ht_json_bool(j, "use_linear_projection", false); /* of images without patches */
    ht_json_real(j, "dropout", 0);
    ht_json_int(j, "norm_num_groups", 32, 1, HT_DIT_MAX_WIDTH);
}

static void read_body(ht_json *j, ht_dit_body *c, int sample_size, const char *norm_type)
{
    static const char *const activations[] = {"gelu", "gelu-approximate", NULL};
    c->num_attention_heads = ht_json_int(j, "num_attention_heads", 16, 1, HT_DIT_MAX_WIDTH);
    c->attention_head_dim = ht_json_int(j, "attention_head_dim", 72, 1, HT_DIT_MAX_WIDTH);
    c->num_layers = ht_json_int(j, "num_layers", 28, 1, HT_DIT_MAX_LAYERS);
    c->in_channels = ht_json_int(j, "in_channels", 4, 1, HT_DIT_MAX_CHANNELS);
    c->out_channels = ht_json_int(j, "out_channels", c->in_channels, 1, HT_DIT_MAX_CHANNELS);
    c->patch_size = ht_json_int(j, "patch_size", 2, 1, HT_DIT_MAX_PATCH);
    c->sample_size = ht_json_int(j, "sample_size", sample_size, 1, HT_DIT_MAX_WIDTH);
    c->attention_bias = ht_json_bool(j, "attention_bias", true);
    c->tanh_gelu = ht_json_choice(j, "activation_fn", 1, activations) == 1;
    ht_json_choice(j, "norm_type", 0, (const char *const[]){norm_type, NULL});
}

/* Sizes whose product would not fit, and that positions cannot be of. */
static ht_status check_body(const ht_dit_body *c, const char *where)
{
    if ((int64_t)c->num_attention_heads * c->attention_head_dim > HT_DIT_MAX_WIDTH)
        return ht_fail(HT_ERR_UNSUPPORTED, "%s: num_attention_heads %d times attention_head_dim %d is more than %d",
                       where, c->num_attention_heads, c->attention_head_dim, HT_DIT_MAX_WIDTH);
    if (ht_dit_width(c) % 4)
        return ht_fail(HT_ERR_SHAPE,
                       "%s: num_attention_heads %d times attention_head_dim %d is not a multiple of 4, as positions "
                       "need",
                       where, c->num_attention_heads, c->attention_head_dim);
    if (c->sample_size % c->patch_size)
        return ht_fail(HT_ERR_SHAPE, "%s: sample_size %d is not a multiple of patch_size %d", where, c->sample_size,
                       c->patch_size);
    return HT_OK;
}

ht_status ht_dit_config_read(const json_t *object, const char *where, ht_dit_config *config)
{
    ht_json j = {.object = object, .where = where};
    ht_dit_config c = {.body.interpolation_scale = 1};
    ht_json_allow(&j, "DiTTransformer2DModel", dit_keys);
    ht_unet_quantization(&j);
    refuse_variants(&j);
    read_body(&j, &c.body, 32, "ada_norm_zero");
    c.body.norm_eps = ht_unet_positive_real(&j, "norm_eps", 1e-5);
    c.num_embeds_ada_norm = ht_json_int(&j, "num_embeds_ada_norm", 1000, 1, 1 << 24);
    c.freq_shift = (float)ht_json_int(&j, "freq_shift", 1, 0, 1);
    if (!j.status)
        j.status = check_body(&c.body, where);
    if (!j.status)
        *config = c;
    return j.status;
}

ht_status ht_pixart_config_read(const json_t *object, const char *where, ht_pixart_config *config)
{
    ht_json j = {.object = object, .where = where};
    ht_pixart_config c = {0};
    ht_json_allow(&j, "PixArtTransformer2DModel", pixart_keys);
    ht_unet_quantization(&j);
    refuse_variants(&j);
    read_body(&j, &c.body, 128, "ada_norm_single");
    c.body.norm_eps = ht_unet_positive_real(&j, "norm_eps", 1e-6);
    ht_json_int(&j, "num_embeds_ada_norm", 1000, 1, 1 << 24); /* names nothing here */
    int least = c.body.sample_size / 64 > 1 ? c.body.sample_size / 64 : 1;
    c.body.interpolation_scale = (double)ht_unet_positive_real(&j, "interpolation_scale", least);
    c.use_additional_conditions = ht_json_bool(&j, "use_additional_conditions", c.body.sample_size == 128);
    c.cross_attention_dim = ht_json_int(&j, "cross_attention_dim", 1152, 1, HT_DIT_MAX_WIDTH);
    c.caption_channels = ht_json_int(&j, "caption_channels", 0, 1, HT_DIT_MAX_WIDTH);
    if (!j.status)
        j.status = check_body(&c.body, where);
    int width = j.status ? 0 : ht_dit_width(&c.body);
    if (!j.status && c.caption_channels && c.cross_attention_dim != width)
        j.status = ht_fail(HT_ERR_SHAPE, "%s: cross_attention_dim is %d, but captions are projected to %d channels",
                           where, c.cross_attention_dim, width);
    if (!j.status && c.use_additional_conditions && width % (HT_PIXART_RESOLUTION + 1))
        j.status =
            ht_fail(HT_ERR_SHAPE, "%s: use_additional_conditions wants a width that 3 divides, not %d", where, width);
    if (!j.status)
        *config = c;
    return j.status;
}
