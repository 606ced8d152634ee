/* names_facebook.c - the dialect of facebookresearch/DiT: its constructor's arguments and its tensor names, said in
 * diffusers' words.
 *
 * Traps:
 * - One timestep and one class embedder serve all blocks: here they are block 0's (dit/dit.c).
 * - Queries, keys and values are one projection, called to_qkv as diffusers calls fused ones.
 * - Frequencies of the timestep are divided by half, not half - 1: freq_shift 0; LayerNorm's eps is 1e-6 everywhere. */
#include <stdio.h>
#include <string.h>

#include "dit/dit.h"

static const char *const prefixes[][2] = {
    {"x_embedder.proj.", "pos_embed.proj."},
    {"t_embedder.mlp.0.", "transformer_blocks.0.norm1.emb.timestep_embedder.linear_1."},
    {"t_embedder.mlp.2.", "transformer_blocks.0.norm1.emb.timestep_embedder.linear_2."},
    {"y_embedder.", "transformer_blocks.0.norm1.emb.class_embedder."},
    {"final_layer.adaLN_modulation.1.", "proj_out_1."},
    {"final_layer.linear.", "proj_out_2."},
};

static const char *const leaves[][2] = {
    {"adaLN_modulation.1.", "norm1.linear."}, {"attn.qkv.", "attn1.to_qkv."}, {"attn.proj.", "attn1.to_out.0."},
    {"mlp.fc1.", "ff.net.0.proj."},           {"mlp.fc2.", "ff.net.2."},
};

static bool begins(const char *s, const char *prefix)
{
    return !strncmp(s, prefix, strlen(prefix));
}

const char *ht_facebook_rename(ht_arena *arena, const char *name, const void *context)
{
    int block, n = 0;
    (void)context;
    if (!strcmp(name, "pos_embed"))
        return "pos_embed.pos_embed";
    for (size_t i = 0; i < sizeof prefixes / sizeof *prefixes; i++)
        if (begins(name, prefixes[i][0]))
            return ht_sprintf(arena, "%s%s", prefixes[i][1], name + strlen(prefixes[i][0]));
    if (sscanf(name, "blocks.%4d.%n", &block, &n) != 1 || !n)
        return name;
    for (size_t i = 0; i < sizeof leaves / sizeof *leaves; i++)
        if (begins(name + n, leaves[i][0]))
            return ht_sprintf(arena, "transformer_blocks.%d.%s%s", block, leaves[i][1],
                              name + n + strlen(leaves[i][0]));
    return name;
}

/* ---- config.json ---- */

bool ht_facebook_recognizes(const json_t *config)
{
    return !json_object_get(config, "_class_name") && json_object_get(config, "hidden_size") &&
           json_object_get(config, "depth") && json_object_get(config, "num_heads");
}

/* clang-format off */
static const char *const known_keys[] = {
    "input_size", "patch_size", "in_channels", "hidden_size", "depth", "num_heads", "mlp_ratio", "class_dropout_prob",
    "num_classes", "learn_sigma", NULL};
/* clang-format on */

ht_status ht_facebook_translate(const json_t *config, const char *where, json_t **out)
{
    ht_json j = {.object = config, .where = where};
    ht_json_allow(&j, "facebookresearch/DiT", known_keys);
    int hidden = ht_json_int(&j, "hidden_size", 1152, 1, HT_DIT_MAX_WIDTH);
    int heads = ht_json_int(&j, "num_heads", 16, 1, HT_DIT_MAX_WIDTH);
    int channels = ht_json_int(&j, "in_channels", 4, 1, HT_DIT_MAX_CHANNELS / 2);
    double ratio = ht_json_real(&j, "mlp_ratio", 4), dropout = ht_json_real(&j, "class_dropout_prob", 0.1);
    bool learn_sigma = ht_json_bool(&j, "learn_sigma", true);
    int size = ht_json_int(&j, "input_size", 32, 1, HT_DIT_MAX_WIDTH);
    int patch = ht_json_int(&j, "patch_size", 2, 1, HT_DIT_MAX_PATCH);
    int depth = ht_json_int(&j, "depth", 28, 1, HT_DIT_MAX_LAYERS);
    int classes = ht_json_int(&j, "num_classes", 1000, 1, 1 << 24);
    if (j.status)
        return j.status;
    if (hidden % heads)
        return ht_fail(HT_ERR_SHAPE, "%s: hidden_size %d is not a multiple of num_heads %d", where, hidden, heads);
    if (!(ratio >= 4 && ratio <= 4))
        return ht_fail(HT_ERR_UNSUPPORTED, "%s: mlp_ratio %g is not supported; it must be 4", where, ratio);
    if (!(dropout > 0))
        return ht_fail(HT_ERR_UNSUPPORTED, "%s: class_dropout_prob %g, a model without a null class, is not supported",
                       where, dropout);
    *out = json_pack("{s:s, s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:i, s:f, s:i}", "_class_name", "DiTTransformer2DModel",
                     "num_attention_heads", heads, "attention_head_dim", hidden / heads, "in_channels", channels,
                     "out_channels", learn_sigma ? 2 * channels : channels, "num_layers", depth, "patch_size", patch,
                     "sample_size", size, "num_embeds_ada_norm", classes, "norm_eps", 1e-6, "freq_shift", 0);
    return *out ? HT_OK : ht_fail(HT_ERR_MEMORY, "out of memory");
}
