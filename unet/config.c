/* config.c - config.json of a UNet2DModel: read, defaulted as diffusers does, and checked.
 *
 * Traps:
 * - attention_head_dim is a width here (in UNet2DConditionModel it counts heads); null means one head, absent means 8.
 * - mid_block_type null means no middle block; any name, or no such key, a UNetMidBlock2D, as in diffusers.
 * - norm_num_groups null is refused: diffusers' own residual blocks fail on it, though other parts give it a meaning.
 * - The middle block's attention has a GroupNorm with attn_norm_num_groups; without that key it has one only if
 *   resnet_time_scale_shift is default.
 * - num_class_embeds makes a table only if class_embed_type is null.
 * - The types DownBlock2D and UpBlock2D convolve whatever downsample_type and upsample_type say: these two are for the
 *   Attn blocks. */
#include <float.h>
#include <math.h>
#include <string.h>

#include "unet/config.h"
#include "unet/unet2d.h"

/* In the order of the enums below; the names of blocks twice, as they are and as the oldest configurations say them. */
/* clang-format off */
static const char *const down_types[] = {
    "DownBlock2D", "AttnDownBlock2D", "ResnetDownsampleBlock2D",
    "UNetResDownBlock2D", "UNetResAttnDownBlock2D", "UNetResResnetDownsampleBlock2D", NULL};
static const char *const up_types[] = {
    "UpBlock2D", "AttnUpBlock2D", "ResnetUpsampleBlock2D",
    "UNetResUpBlock2D", "UNetResAttnUpBlock2D", "UNetResResnetUpsampleBlock2D", NULL};
/* clang-format on */
static const char *const resample_types[] = {"conv", "resnet", NULL};
static const char *const class_types[] = {"timestep", "identity", NULL};
static const char *const shift_types[] = {"default", "scale_shift", NULL};
enum { BLOCK_PLAIN, BLOCK_ATTN, BLOCK_RESNET, BLOCK_KINDS };
enum { RESAMPLE_CONV, RESAMPLE_RESNET };

/* The last two do not change what the network computes: training reads them. */
/* clang-format off */
static const char *const known_keys[] = {
    "sample_size", "in_channels", "out_channels", "center_input_sample", "time_embedding_type",
    "time_embedding_dim", "freq_shift", "flip_sin_to_cos", "down_block_types", "mid_block_type", "up_block_types",
    "block_out_channels", "layers_per_block", "mid_block_scale_factor", "downsample_padding", "downsample_type",
    "upsample_type", "act_fn", "attention_head_dim", "norm_num_groups", "attn_norm_num_groups", "norm_eps",
    "resnet_time_scale_shift", "add_attention", "class_embed_type", "num_class_embeds", "dropout",
    "num_train_timesteps", "quantization_config", NULL};
/* clang-format on */

bool ht_unet_is_null(const ht_json *j, const char *key)
{
    return json_is_null(json_object_get(j->object, key));
}

void ht_unet_accept_only(ht_json *j, const char *key, const char *const *names)
{
    ht_json_choice(j, key, 0, names);
}

float ht_unet_positive_real(ht_json *j, const char *key, double fallback)
{
    double x = ht_json_real(j, key, fallback);
    if (!j->status && !(x >= FLT_MIN && x <= FLT_MAX))
        j->status = ht_fail(HT_ERR_UNSUPPORTED, "%s: %s is %g, want a positive number", j->where, key, x);
    return (float)x;
}

void ht_unet_sample_size(ht_json *j, int *height, int *width)
{
    enum { LARGEST = 65536 };
    int size[2];
    if (json_is_array(json_object_get(j->object, "sample_size"))) {
        if (ht_json_ints(j, "sample_size", size, 2, 1, LARGEST) == 2) {
            *height = size[0];
            *width = size[1];
        } else if (!j->status) {
            j->status = ht_fail(HT_ERR_FORMAT, "%s: sample_size must be a number or [height, width]", j->where);
        }
    } else {
        *height = *width = ht_json_int(j, "sample_size", 0, 1, LARGEST);
    }
}

/* ---- the levels ---- */

bool ht_unet_has_list(ht_json *j, const char *key)
{
    const json_t *list = json_object_get(j->object, key);
    if (json_is_array(list) && !json_array_size(list) && !j->status)
        j->status = ht_fail(HT_ERR_FORMAT, "%s: %s is empty", j->where, key);
    return list && !json_is_null(list);
}

static int read_channels(ht_json *j, int channels[HT_UNET_MAX_LEVELS])
{
    static const int fallback[] = {224, 448, 672, 896};
    if (ht_unet_has_list(j, "block_out_channels"))
        return ht_json_ints(j, "block_out_channels", channels, HT_UNET_MAX_LEVELS, 1, HT_UNET_MAX_CHANNELS);
    memcpy(channels, fallback, sizeof fallback);
    return 4;
}

typedef struct block_list {
    const char *key;          /* "down_block_types" */
    const char *const *names; /* of its types */
    const char *resample_key; /* "downsample_type" */
    int fallback[4];
} block_list;

static int read_block_types(ht_json *j, const block_list *list, ht_unet_block_type types[HT_UNET_MAX_LEVELS])
{
    int kinds[HT_UNET_MAX_LEVELS] = {0}, n = 4;
    bool resnet = ht_json_choice(j, list->resample_key, RESAMPLE_CONV, resample_types) == RESAMPLE_RESNET;
    if (ht_unet_has_list(j, list->key))
        n = ht_json_choices(j, list->key, kinds, HT_UNET_MAX_LEVELS, list->names);
    else
        memcpy(kinds, list->fallback, sizeof list->fallback);
    for (int i = 0; i < n; i++) {
        int kind = kinds[i] % BLOCK_KINDS;
        types[i] = (ht_unet_block_type){.attention = kind == BLOCK_ATTN,
                                        .resnet_resampler = kind == BLOCK_RESNET || (kind == BLOCK_ATTN && resnet)};
    }
    return n;
}

static void read_levels(ht_json *j, ht_unet2d_config *c)
{
    static const block_list down = {
        "down_block_types", down_types, "downsample_type", {BLOCK_PLAIN, BLOCK_ATTN, BLOCK_ATTN, BLOCK_ATTN}};
    static const block_list up = {
        "up_block_types", up_types, "upsample_type", {BLOCK_ATTN, BLOCK_ATTN, BLOCK_ATTN, BLOCK_PLAIN}};
    c->levels = read_channels(j, c->block_out_channels);
    int n_down = read_block_types(j, &down, c->down_block_types), n_up = read_block_types(j, &up, c->up_block_types);
    if (!j->status && (n_down != c->levels || n_up != c->levels))
        j->status = ht_fail(
            HT_ERR_FORMAT,
            "%s: down_block_types has %d entries, up_block_types %d, block_out_channels %d; it must be one number",
            j->where, n_down, n_up, c->levels);
}

/* ---- what must fit together ---- */

static ht_status check_attention(const ht_unet2d_config *c, const char *where, int channels)
{
    if (c->attention_head_dim > channels)
        return ht_fail(HT_ERR_SHAPE,
                       "%s: attention_head_dim %d is wider than the %d block_out_channels it should divide", where,
                       c->attention_head_dim, channels);
    return HT_OK;
}

static ht_status check_groups(const ht_unet2d_config *c, const char *where)
{
    int last = c->block_out_channels[c->levels - 1];
    for (int i = 0; i < c->levels; i++)
        if (c->block_out_channels[i] % c->norm_num_groups)
            return ht_fail(HT_ERR_SHAPE, "%s: block_out_channels %d is not a multiple of norm_num_groups %d", where,
                           c->block_out_channels[i], c->norm_num_groups);
    if (c->mid_attn_groups && last % c->mid_attn_groups)
        return ht_fail(HT_ERR_SHAPE, "%s: block_out_channels %d is not a multiple of attn_norm_num_groups %d", where,
                       last, c->mid_attn_groups);
    return HT_OK;
}

static ht_status check(const ht_unet2d_config *c, const char *where)
{
    int half = c->block_out_channels[0] / 2;
    ht_status status = check_groups(c, where);
    for (int i = 0; !status && i < c->levels; i++) {
        if (c->down_block_types[i].attention)
            status = check_attention(c, where, c->block_out_channels[i]);
        if (!status && c->up_block_types[i].attention)
            status = check_attention(c, where, c->block_out_channels[c->levels - 1 - i]);
    }
    if (!status && c->mid_block && c->add_attention)
        status = check_attention(c, where, c->block_out_channels[c->levels - 1]);
    /* Frequencies are exp(-ln(10000) i / (half - freq_shift)). */
    if (!status && !(fabsf(c->freq_shift) <= FLT_MAX && c->freq_shift < (float)half))
        status = ht_fail(HT_ERR_UNSUPPORTED,
                         "%s: freq_shift is %g, want less than half of the first of block_out_channels, %d", where,
                         (double)c->freq_shift, c->block_out_channels[0]);
    return status;
}

/* ---- reading ---- */

static void read_time(ht_json *j, ht_unet2d_config *c)
{
    ht_unet_accept_only(j, "time_embedding_type", (const char *const[]){"positional", NULL});
    c->time_embedding_dim = ht_json_int(j, "time_embedding_dim", 0, 0, HT_UNET_MAX_CHANNELS);
    if (!c->time_embedding_dim)
        c->time_embedding_dim = 4 * c->block_out_channels[0];
    c->flip_sin_to_cos = ht_json_bool(j, "flip_sin_to_cos", true);
    c->freq_shift = (float)ht_json_real(j, "freq_shift", 0);
}

static void read_blocks(ht_json *j, ht_unet2d_config *c)
{
    c->layers_per_block = ht_json_int(j, "layers_per_block", 2, 1, HT_UNET_MAX_LAYERS);
    c->downsample_padding = ht_json_int(j, "downsample_padding", 1, 0, 1);
    ht_unet_accept_only(j, "act_fn", (const char *const[]){"silu", "swish", NULL});
    bool one_head = ht_unet_is_null(j, "attention_head_dim");
    c->attention_head_dim = one_head ? 0 : ht_json_int(j, "attention_head_dim", 8, 1, HT_UNET_MAX_CHANNELS);
    c->norm_num_groups = ht_json_int(j, "norm_num_groups", 32, 1, HT_UNET_MAX_CHANNELS);
    c->norm_eps = ht_unet_positive_real(j, "norm_eps", 1e-5);
    c->scale_shift = ht_json_choice(j, "resnet_time_scale_shift", 0, shift_types) == 1;
    if (ht_unet_is_null(j, "norm_num_groups") && !j->status)
        j->status =
            ht_fail(HT_ERR_UNSUPPORTED, "%s: norm_num_groups null is not supported; it must be a number", j->where);
}

static void read_mid(ht_json *j, ht_unet2d_config *c)
{
    c->mid_block = !ht_unet_is_null(j, "mid_block_type");
    ht_json_string(j, "mid_block_type", NULL);
    c->mid_block_scale_factor = ht_unet_positive_real(j, "mid_block_scale_factor", 1);
    c->add_attention = ht_json_bool(j, "add_attention", true);
    c->mid_attn_groups =
        ht_json_int(j, "attn_norm_num_groups", c->scale_shift ? 0 : c->norm_num_groups, 1, HT_UNET_MAX_CHANNELS);
}

static void read_class(ht_json *j, ht_unet2d_config *c)
{
    enum { MOST_CLASSES = 1 << 24 }; /* whole numbers up to here are exact in float32, which the graph's values are */
    int n = ht_json_int(j, "num_class_embeds", 0, 1, MOST_CLASSES);
    int type = ht_json_choice(j, "class_embed_type", -1, class_types);
    c->class_embed = type == 0 ? HT_CLASS_TIMESTEP : type == 1 ? HT_CLASS_IDENTITY : n ? HT_CLASS_TABLE : HT_CLASS_NONE;
    c->num_class_embeds = c->class_embed == HT_CLASS_TABLE ? n : 0;
}

/* What other libraries quantized needs their code to be read; ours says all in the weights file (quant/file.c). */
void ht_unet_quantization(ht_json *j)
{
    const json_t *found = json_object_get(j->object, "quantization_config");
    const char *method = json_string_value(json_object_get(found, "quant_method"));
    if (!j->status && found && !json_is_null(found) && (!method || strcmp(method, "halftone") != 0))
        j->status = ht_fail(HT_ERR_UNSUPPORTED,
                            "%s: quantization_config is of %s; this version reads models that halftone quantized",
                            j->where, method ? method : "no quant_method");
}

ht_status ht_unet2d_config_read(const json_t *object, const char *where, ht_unet2d_config *config)
{
    ht_json j = {.object = object, .where = where};
    ht_unet2d_config c = {0};
    ht_json_allow(&j, "UNet2DModel", known_keys);
    ht_unet_quantization(&j);
    ht_unet_sample_size(&j, &c.height, &c.width);
    c.in_channels = ht_json_int(&j, "in_channels", 3, 1, HT_UNET_MAX_CHANNELS);
    c.out_channels = ht_json_int(&j, "out_channels", 3, 1, HT_UNET_MAX_CHANNELS);
    c.center_input_sample = ht_json_bool(&j, "center_input_sample", false);
    read_levels(&j, &c);
    read_time(&j, &c);
    read_blocks(&j, &c);
    read_mid(&j, &c);
    read_class(&j, &c);
    if (!j.status)
        j.status = check(&c, where);
    if (!j.status)
        *config = c;
    return j.status;
}
