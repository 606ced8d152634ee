/* names_ddpm.c - the dialect of the original code, hojonathanho/diffusion as ermongroup/ddim wrote it in PyTorch: its
 * config and its tensor names, said in diffusers' words.
 *
 * Traps:
 * - up.I counts as down does, from the outside in; up_blocks counts in the order of execution.
 * - attn_resolutions are sizes of the image at a level, not levels; the middle always has attention.
 * - ch_mult multiplies ch, not the level before.  GroupNorm's eps is 1e-6, its groups are 32 unless num_groups says
 *   otherwise.
 * - var_type is of the model, but it is the scheduler's variance_type, which DDPM sampling reads and DDIM does not.
 * - `quad` is diffusers' scaled_linear.  Its DDIM sampler does not clip, and its alpha before the first step is 1
 *   (set_alpha_to_one). */
#include <stdio.h>
#include <string.h>

#include "core/json.h"
#include "unet/unet2d.h"

bool ht_ddpm_recognizes(const json_t *config)
{
    const json_t *model = json_object_get(config, "model");
    return json_object_get(model, "ch") && json_object_get(model, "ch_mult");
}

/* ---- names ---- */

static const char *const prefixes[][2] = {
    {"norm_out.", "conv_norm_out."},
    {"temb.dense.0.", "time_embedding.linear_1."},
    {"temb.dense.1.", "time_embedding.linear_2."},
    {"mid.block_1.", "mid_block.resnets.0."},
    {"mid.attn_1.", "mid_block.attentions.0."},
    {"mid.block_2.", "mid_block.resnets.1."},
};

/* Inside a residual block or an attention. */
static const char *const leaves[][2] = {
    {"temb_proj.", "time_emb_proj."},
    {"nin_shortcut.", "conv_shortcut."},
    {"norm.", "group_norm."},
    {"q.", "to_q."},
    {"k.", "to_k."},
    {"v.", "to_v."},
    {"proj_out.", "to_out.0."},
};

static bool begins(const char *s, const char *prefix)
{
    return !strncmp(s, prefix, strlen(prefix));
}

static const char *with_leaf(ht_arena *arena, const char *prefix, const char *leaf)
{
    for (size_t i = 0; i < sizeof leaves / sizeof *leaves; i++)
        if (begins(leaf, leaves[i][0]))
            return ht_sprintf(arena, "%s%s%s", prefix, leaves[i][1], leaf + strlen(leaves[i][0]));
    return ht_sprintf(arena, "%s%s", prefix, leaf);
}

/* down.0.block.1.conv1.weight, up.2.attn.0.q.bias, down.0.downsample.conv.weight; anything else: the name as it is. */
static const char *in_level(ht_arena *arena, const char *name, int levels)
{
    char side[5], what[11], prefix[64];
    int level, j, begin = 0, n = 0;
    if (sscanf(name, "%4[a-z].%4d.%10[a-z].%n", side, &level, what, &begin) != 3 || !begin ||
        (strcmp(side, "up") && strcmp(side, "down")))
        return name;
    const char *rest = name + begin;
    if (!strcmp(side, "up"))
        level = levels - 1 - level;
    if (!strcmp(what, "downsample") || !strcmp(what, "upsample"))
        return ht_sprintf(arena, "%s_blocks.%d.%srs.0.%s", side, level, what, rest);
    if (sscanf(rest, "%4d.%n", &j, &n) != 1 || !n || (strcmp(what, "block") && strcmp(what, "attn")))
        return name;
    snprintf(prefix, sizeof prefix, "%s_blocks.%d.%s.%d.", side, level, strcmp(what, "attn") ? "resnets" : "attentions",
             j);
    return with_leaf(arena, prefix, rest + n);
}

const char *ht_ddpm_rename(ht_arena *arena, const char *name, const void *context)
{
    for (size_t i = 0; i < sizeof prefixes / sizeof *prefixes; i++)
        if (begins(name, prefixes[i][0]))
            return with_leaf(arena, prefixes[i][1], name + strlen(prefixes[i][0]));
    return in_level(arena, name, *(const int *)context);
}

/* ---- config.json ---- */

typedef struct ddpm_config {
    int image_size, in_channels, out_ch, ch, num_res_blocks, num_groups;
    int levels, ch_mult[HT_UNET_MAX_LEVELS];
    int n_attn, attn_resolutions[HT_UNET_MAX_LEVELS];
    const char *variance_type; /* in the words of diffusers */
} ddpm_config;

/* What the network, the pictures and the schedule read, and in a last row what training alone does. */
/* clang-format off */
static const char *const model_keys[] = {
    "type", "in_channels", "out_ch", "ch", "ch_mult", "num_res_blocks", "attn_resolutions", "resamp_with_conv",
    "num_groups", "var_type",
    "dropout", "ema", "ema_rate", NULL};
static const char *const data_keys[] = {
    "image_size", "channels", "rescaled", "logit_transform",
    "dataset", "category", "uniform_dequantization", "gaussian_dequantization", "random_flip", "num_workers", NULL};
static const char *const diffusion_keys[] = {
    "beta_schedule", "beta_start", "beta_end", "num_diffusion_timesteps", NULL};
/* clang-format on */

static void read_model(ht_json *j, ddpm_config *c)
{
    static const char *const variances[] = {"fixedsmall", "fixedlarge", NULL};
    ht_json_allow(j, "`model`", model_keys);
    ht_json_choice(j, "type", 0, (const char *const[]){"simple", NULL});
    ht_json_only(j, "resamp_with_conv", true);
    c->variance_type = ht_json_choice(j, "var_type", 0, variances) ? "fixed_large" : "fixed_small";
    c->in_channels = ht_json_int(j, "in_channels", 3, 1, HT_UNET_MAX_CHANNELS);
    c->out_ch = ht_json_int(j, "out_ch", 3, 1, HT_UNET_MAX_CHANNELS);
    c->ch = ht_json_int(j, "ch", 0, 1, HT_UNET_MAX_CHANNELS);
    c->levels = ht_json_ints(j, "ch_mult", c->ch_mult, HT_UNET_MAX_LEVELS, 1, HT_UNET_MAX_CHANNELS);
    c->num_res_blocks = ht_json_int(j, "num_res_blocks", 2, 1, HT_UNET_MAX_LAYERS);
    c->n_attn = ht_json_ints(j, "attn_resolutions", c->attn_resolutions, HT_UNET_MAX_LEVELS, 1, HT_UNET_MAX_CHANNELS);
    c->num_groups = ht_json_int(j, "num_groups", 32, 1, HT_UNET_MAX_CHANNELS);
    for (int i = 0; !j->status && i < c->levels; i++)
        if (c->ch > HT_UNET_MAX_CHANNELS / c->ch_mult[i])
            j->status = ht_fail(HT_ERR_UNSUPPORTED, "%s: ch %d times ch_mult %d is more than %d channels", j->where,
                                c->ch, c->ch_mult[i], HT_UNET_MAX_CHANNELS);
}

static void read_data(ht_json *j, ddpm_config *c)
{
    ht_json_allow(j, "`data`", data_keys);
    c->image_size = ht_json_int(j, "image_size", 0, 1, HT_UNET_MAX_CHANNELS);
    ht_json_only(j, "rescaled", true); /* images in [-1,1] */
    ht_json_only(j, "logit_transform", false);
    if (!c->image_size && !j->status)
        j->status = ht_fail(HT_ERR_FORMAT, "%s: data.image_size is missing: attn_resolutions mean nothing without it",
                            j->where);
}

static bool has_attention(const ddpm_config *c, int level)
{
    for (int i = 0; i < c->n_attn; i++)
        if (c->attn_resolutions[i] == c->image_size >> level)
            return true;
    return false;
}

/* NULL: out of memory. */
static json_t *unet_of(const ddpm_config *c)
{
    json_t *channels = json_array(), *down = json_array(), *up = json_array();
    for (int i = 0; i < c->levels; i++) {
        bool attention = has_attention(c, i);
        json_array_append_new(channels, json_integer(c->ch * c->ch_mult[i]));
        json_array_append_new(down, json_string(attention ? "AttnDownBlock2D" : "DownBlock2D"));
        json_array_insert_new(up, 0, json_string(attention ? "AttnUpBlock2D" : "UpBlock2D"));
    }
    return json_pack("{s:s, s:i, s:i, s:i, s:o, s:o, s:o, s:i, s:i, s:b, s:i, s:n, s:i, s:f}", "_class_name",
                     "UNet2DModel", "sample_size", c->image_size, "in_channels", c->in_channels, "out_channels",
                     c->out_ch, "block_out_channels", channels, "down_block_types", down, "up_block_types", up,
                     "layers_per_block", c->num_res_blocks, "freq_shift", 1, "flip_sin_to_cos", 0, "downsample_padding",
                     0, "attention_head_dim", "norm_num_groups", c->num_groups, "norm_eps", 1e-6);
}

static json_t *scheduler_of(ht_json *j, const char *variance_type)
{
    static const char *const names[] = {"linear", "quad", NULL};
    ht_json_allow(j, "`diffusion`", diffusion_keys);
    int schedule = ht_json_choice(j, "beta_schedule", 0, names);
    int timesteps = ht_json_int(j, "num_diffusion_timesteps", 1000, 1, 100000);
    double start = ht_json_real(j, "beta_start", 1e-4), end = ht_json_real(j, "beta_end", 0.02);
    if (j->status)
        return NULL;
    json_t *object = json_pack("{s:s, s:s, s:f, s:f, s:i, s:b, s:b, s:s, s:s}", "_class_name", "DDIMScheduler",
                               "beta_schedule", schedule ? "scaled_linear" : "linear", "beta_start", start, "beta_end",
                               end, "num_train_timesteps", timesteps, "clip_sample", 0, "set_alpha_to_one", 1,
                               "timestep_spacing", "leading", "variance_type", variance_type);
    if (!object)
        j->status = ht_fail(HT_ERR_MEMORY, "out of memory");
    return object;
}

ht_status ht_ddpm_translate(const json_t *config, const char *where, json_t **unet, json_t **scheduler)
{
    ddpm_config c = {0};
    ht_json model = {.object = json_object_get(config, "model"), .where = where};
    ht_json data = {.object = json_object_get(config, "data"), .where = where};
    ht_json diffusion = {.object = json_object_get(config, "diffusion"), .where = where};
    json_t *betas = NULL;
    if (!json_is_object(model.object) || !json_is_object(data.object))
        return ht_fail(HT_ERR_FORMAT, "%s: `model` and `data` must be objects, as in DDIM's configurations", where);
    read_model(&model, &c);
    if (!model.status)
        read_data(&data, &c);
    if (model.status || data.status)
        return model.status ? model.status : data.status;
    if (json_is_object(diffusion.object) && !(betas = scheduler_of(&diffusion, c.variance_type)))
        return diffusion.status;
    json_t *translated = unet_of(&c);
    if (!translated) {
        json_decref(betas);
        return ht_fail(HT_ERR_MEMORY, "out of memory");
    }
    *unet = translated;
    *scheduler = betas;
    return HT_OK;
}
