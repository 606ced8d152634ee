/* config_condition.c - config.json of a UNet2DConditionModel: read, defaulted as diffusers does, and checked.
 *
 * Traps:
 * - attention_head_dim is the number of heads (a naming accident that every published file has); num_attention_heads,
 *   which should be it, must be null, as in diffusers.
 * - Lists an entry a level may be one number for all.
 * - upcast_attention and dropout change nothing that is computed here: attention is in float32.
 * - use_linear_projection says how weights are stored, not what they do (unet/transformer.c).
 * - projection_class_embeddings_input_dim is the width of class vectors, or with text_time that of the pooled text and
 *   the embeddings of time_ids together.  How many time_ids there are no key says: six. */
#include "unet/unet2d_condition.h"

#include <float.h>
#include <math.h>
#include <string.h>

#include "unet/config.h"

/* In the order: without attention to a context, with. */
static const char *const down_types[] = {"DownBlock2D", "CrossAttnDownBlock2D", NULL};
static const char *const up_types[] = {"UpBlock2D", "CrossAttnUpBlock2D", NULL};
static const char *const shift_types[] = {"default", "scale_shift", NULL};
static const char *const class_types[] = {"timestep", "identity", "projection", NULL};

/* What is not here may be null, or is of a variant that this version does not compute. */
/* clang-format off */
static const char *const known_keys[] = {
    "sample_size", "in_channels", "out_channels", "center_input_sample", "flip_sin_to_cos", "freq_shift",
    "down_block_types", "mid_block_type", "up_block_types", "only_cross_attention", "block_out_channels",
    "layers_per_block", "downsample_padding", "mid_block_scale_factor", "dropout", "act_fn", "norm_num_groups",
    "norm_eps", "cross_attention_dim", "transformer_layers_per_block", "attention_head_dim", "dual_cross_attention",
    "use_linear_projection", "class_embed_type", "addition_embed_type", "addition_time_embed_dim", "num_class_embeds",
    "upcast_attention", "resnet_time_scale_shift", "resnet_skip_time_act", "resnet_out_scale_factor",
    "time_embedding_type", "time_embedding_dim", "time_cond_proj_dim", "conv_in_kernel", "conv_out_kernel",
    "projection_class_embeddings_input_dim", "attention_type", "class_embeddings_concat",
    "addition_embed_type_num_heads", "quantization_config", NULL};
/* clang-format on */

/* ---- the levels ---- */

static int read_types(ht_json *j, const char *key, const char *const *names, const int fallback[4],
                      bool cross_attention[HT_UNET_MAX_LEVELS])
{
    int kinds[HT_UNET_MAX_LEVELS], n = 4;
    memcpy(kinds, fallback, 4 * sizeof *fallback);
    if (ht_unet_has_list(j, key))
        n = ht_json_choices(j, key, kinds, HT_UNET_MAX_LEVELS, names);
    for (int i = 0; i < n; i++)
        cross_attention[i] = kinds[i] == 1;
    return n;
}

/* A number for each level, or one for all. */
static void read_per_level(ht_json *j, const char *key, int levels, int fallback, int max, int out[HT_UNET_MAX_LEVELS])
{
    if (!json_is_array(json_object_get(j->object, key))) {
        int one = ht_json_int(j, key, fallback, 1, max);
        for (int i = 0; i < levels; i++)
            out[i] = one;
        return;
    }
    int n = ht_json_ints(j, key, out, HT_UNET_MAX_LEVELS, 1, max);
    if (!j->status && n != levels)
        j->status = ht_fail(HT_ERR_FORMAT, "%s: %s has %d entries, block_out_channels %d; it must be one number",
                            j->where, key, n, levels);
}

static void read_levels(ht_json *j, ht_unet2d_condition_config *c)
{
    static const int down[] = {1, 1, 1, 0}, up[] = {0, 1, 1, 1}, channels[] = {320, 640, 1280, 1280};
    c->levels = 4;
    memcpy(c->block_out_channels, channels, sizeof channels);
    if (ht_unet_has_list(j, "block_out_channels"))
        c->levels =
            ht_json_ints(j, "block_out_channels", c->block_out_channels, HT_UNET_MAX_LEVELS, 1, HT_UNET_MAX_CHANNELS);
    int n_down = read_types(j, "down_block_types", down_types, down, c->down_cross_attention);
    int n_up = read_types(j, "up_block_types", up_types, up, c->up_cross_attention);
    if (!j->status && (n_down != c->levels || n_up != c->levels))
        j->status = ht_fail(
            HT_ERR_FORMAT,
            "%s: down_block_types has %d entries, up_block_types %d, block_out_channels %d; it must be one number",
            j->where, n_down, n_up, c->levels);
    read_per_level(j, "layers_per_block", c->levels, 2, HT_UNET_MAX_LAYERS, c->layers_per_block);
    read_per_level(j, "attention_head_dim", c->levels, 8, HT_UNET_MAX_CHANNELS, c->heads);
    read_per_level(j, "transformer_layers_per_block", c->levels, 1, HT_UNET_MAX_LAYERS,
                   c->transformer_layers_per_block);
}

/* ---- the rest ---- */

static void read_blocks(ht_json *j, ht_unet2d_condition_config *c)
{
    c->cross_attention_dim = ht_json_int(j, "cross_attention_dim", 1280, 1, HT_UNET_MAX_CHANNELS);
    c->mid_block = !ht_unet_is_null(j, "mid_block_type");
    ht_unet_accept_only(j, "mid_block_type", (const char *const[]){"UNetMidBlock2DCrossAttn", NULL});
    c->mid_block_scale_factor = ht_unet_positive_real(j, "mid_block_scale_factor", 1);
    c->downsample_padding = ht_json_int(j, "downsample_padding", 1, 0, 1);
    c->norm_num_groups = ht_json_int(j, "norm_num_groups", 32, 1, HT_UNET_MAX_CHANNELS);
    c->norm_eps = ht_unet_positive_real(j, "norm_eps", 1e-5);
    c->scale_shift = ht_json_choice(j, "resnet_time_scale_shift", 0, shift_types) == 1;
    if (ht_unet_is_null(j, "norm_num_groups") && !j->status)
        j->status =
            ht_fail(HT_ERR_UNSUPPORTED, "%s: norm_num_groups null is not supported; it must be a number", j->where);
}

static void refuse_variants(ht_json *j)
{
    ht_unet_accept_only(j, "act_fn", (const char *const[]){"silu", "swish", NULL});
    ht_unet_accept_only(j, "attention_type", (const char *const[]){"default", NULL});
    ht_unet_accept_only(j, "time_embedding_type", (const char *const[]){"positional", NULL});
    ht_json_only(j, "only_cross_attention", false);
    ht_json_only(j, "dual_cross_attention", false);
    ht_json_only(j, "class_embeddings_concat", false);
    ht_json_only(j, "resnet_skip_time_act", false);
    double factor = ht_json_real(j, "resnet_out_scale_factor", 1);
    if (!j->status && !(factor == 1))
        j->status = ht_fail(HT_ERR_UNSUPPORTED, "%s: resnet_out_scale_factor %g is not supported; it must be 1",
                            j->where, factor);
}

static void read_ends(ht_json *j, ht_unet2d_condition_config *c)
{
    ht_unet_sample_size(j, &c->height, &c->width);
    c->in_channels = ht_json_int(j, "in_channels", 4, 1, HT_UNET_MAX_CHANNELS);
    c->out_channels = ht_json_int(j, "out_channels", 4, 1, HT_UNET_MAX_CHANNELS);
    c->center_input_sample = ht_json_bool(j, "center_input_sample", false);
    c->conv_in_kernel = ht_json_int(j, "conv_in_kernel", 3, 1, 63);
    c->conv_out_kernel = ht_json_int(j, "conv_out_kernel", 3, 1, 63);
    for (int i = 0; !j->status && i < 2; i++)
        if ((i ? c->conv_out_kernel : c->conv_in_kernel) % 2 == 0)
            j->status =
                ht_fail(HT_ERR_UNSUPPORTED, "%s: %s must be odd", j->where, i ? "conv_out_kernel" : "conv_in_kernel");
}

static void read_time(ht_json *j, ht_unet2d_condition_config *c)
{
    c->time_embedding_dim = ht_json_int(j, "time_embedding_dim", 0, 0, HT_UNET_MAX_CHANNELS);
    if (!c->time_embedding_dim)
        c->time_embedding_dim = 4 * c->block_out_channels[0];
    c->flip_sin_to_cos = ht_json_bool(j, "flip_sin_to_cos", true);
    c->freq_shift = (float)ht_json_real(j, "freq_shift", 0);
    c->time_cond_proj_dim = ht_json_int(j, "time_cond_proj_dim", 0, 1, HT_UNET_MAX_CHANNELS);
}

static void read_added(ht_json *j, ht_unet2d_condition_config *c)
{
    enum { MOST_CLASSES = 1 << 24 }; /* whole numbers up to here are exact in float32 */
    static const ht_class_embed kinds[] = {HT_CLASS_TIMESTEP, HT_CLASS_IDENTITY, HT_CLASS_PROJECTION};
    int n = ht_json_int(j, "num_class_embeds", 0, 1, MOST_CLASSES);
    int type = ht_json_choice(j, "class_embed_type", -1, class_types);
    c->class_embed = type >= 0 ? kinds[type] : n ? HT_CLASS_TABLE : HT_CLASS_NONE;
    c->num_class_embeds = c->class_embed == HT_CLASS_TABLE ? n : 0;
    c->text_time = ht_json_choice(j, "addition_embed_type", -1, (const char *const[]){"text_time", NULL}) == 0;
    c->addition_time_embed_dim = ht_json_int(j, "addition_time_embed_dim", 0, 2, HT_UNET_MAX_CHANNELS);
    c->projection_class_embeddings_input_dim =
        ht_json_int(j, "projection_class_embeddings_input_dim", 0, 1, HT_UNET_MAX_CHANNELS);
}

/* ---- what must fit together ---- */

static ht_status check_added(const ht_unet2d_condition_config *c, const char *where)
{
    int width = c->projection_class_embeddings_input_dim, times = HT_UNET_TIME_IDS * c->addition_time_embed_dim;
    if (!width && (c->class_embed == HT_CLASS_PROJECTION || c->text_time))
        return ht_fail(HT_ERR_FORMAT, "%s: %s wants projection_class_embeddings_input_dim", where,
                       c->text_time ? "addition_embed_type text_time" : "class_embed_type projection");
    if (c->text_time && (!times || times >= width))
        return ht_fail(HT_ERR_SHAPE,
                       "%s: projection_class_embeddings_input_dim %d has no room for text beside %d embeddings of "
                       "addition_time_embed_dim %d",
                       where, width, HT_UNET_TIME_IDS, c->addition_time_embed_dim);
    return HT_OK;
}

static ht_status check_frequencies(const ht_unet2d_condition_config *c, const char *where)
{
    int width = c->block_out_channels[0], half;
    if (c->text_time && c->addition_time_embed_dim < width)
        width = c->addition_time_embed_dim;
    half = width / 2;
    if (!(fabsf(c->freq_shift) <= FLT_MAX && c->freq_shift < (float)half))
        return ht_fail(HT_ERR_UNSUPPORTED, "%s: freq_shift is %g, want less than half of the embedding's width, %d",
                       where, (double)c->freq_shift, width);
    return HT_OK;
}

static ht_status check_levels(const ht_unet2d_condition_config *c, const char *where)
{
    for (int i = 0; i < c->levels; i++) {
        bool mid = c->mid_block && i == c->levels - 1;
        if (c->block_out_channels[i] % c->norm_num_groups)
            return ht_fail(HT_ERR_SHAPE, "%s: block_out_channels %d is not a multiple of norm_num_groups %d", where,
                           c->block_out_channels[i], c->norm_num_groups);
        if ((c->down_cross_attention[i] || c->up_cross_attention[c->levels - 1 - i] || mid) &&
            c->heads[i] > c->block_out_channels[i])
            return ht_fail(HT_ERR_SHAPE,
                           "%s: attention_head_dim %d, which counts heads, is more than the %d block_out_channels",
                           where, c->heads[i], c->block_out_channels[i]);
    }
    return HT_OK;
}

ht_status ht_unet2d_condition_config_read(const json_t *object, const char *where, ht_unet2d_condition_config *config)
{
    ht_json j = {.object = object, .where = where};
    ht_unet2d_condition_config c = {0};
    ht_json_allow(&j, "UNet2DConditionModel", known_keys);
    ht_unet_quantization(&j);
    refuse_variants(&j);
    read_ends(&j, &c);
    read_levels(&j, &c);
    read_blocks(&j, &c);
    read_time(&j, &c);
    read_added(&j, &c);
    if (!j.status)
        j.status = check_added(&c, where);
    if (!j.status)
        j.status = check_frequencies(&c, where);
    if (!j.status)
        j.status = check_levels(&c, where);
    if (!j.status)
        *config = c;
    return j.status;
}
