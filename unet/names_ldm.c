/* names_ldm.c - names of a U-Net in single files, said in diffusers' words.
 *
 * The original numbers blocks in the order of execution: input_blocks.0 is conv_in, then of each level its residual
 * blocks and a block that halves; output_blocks has a block more a level, of which the last doubles too.  Within a
 * block 0 is the residual block, 1 the transformer, and what doubles comes last.
 *
 * Traps:
 * - output_blocks.N.1 is a transformer or, where the level has none, what doubles: only the name after it tells.
 * - label_emb is SDXL's add_embedding. */
#include "unet/names_ldm.h"

#include <stdio.h>
#include <string.h>

static const char root[] = "model.diffusion_model.";

static const char *const prefixes[][2] = {
    {"input_blocks.0.0.", "conv_in."},
    {"time_embed.0.", "time_embedding.linear_1."},
    {"time_embed.2.", "time_embedding.linear_2."},
    {"time_embed.cond_proj.", "time_embedding.cond_proj."},
    {"label_emb.0.0.", "add_embedding.linear_1."},
    {"label_emb.0.2.", "add_embedding.linear_2."},
    {"middle_block.0.", "mid_block.resnets.0."},
    {"middle_block.1.", "mid_block.attentions.0."},
    {"middle_block.2.", "mid_block.resnets.1."},
    {"out.0.", "conv_norm_out."},
    {"out.2.", "conv_out."},
};

/* Inside a residual block. */
static const char *const leaves[][2] = {
    {"in_layers.0.", "norm1."},  {"in_layers.2.", "conv1."},  {"emb_layers.1.", "time_emb_proj."},
    {"out_layers.0.", "norm2."}, {"out_layers.3.", "conv2."}, {"skip_connection.", "conv_shortcut."},
};

ht_ldm_levels ht_ldm_levels_read(const json_t *config)
{
    const json_t *layers = json_object_get(config, "layers_per_block");
    size_t n = json_array_size(json_object_get(config, "block_out_channels"));
    ht_ldm_levels levels = {.n = n <= HT_UNET_MAX_LEVELS ? (int)n : 0};
    for (int i = 0; i < levels.n; i++) {
        const json_t *of_level = json_is_array(layers) ? json_array_get(layers, (size_t)i) : layers;
        json_int_t count = json_integer_value(of_level);
        levels.layers[i] = count > 0 && count <= HT_UNET_MAX_LAYERS ? (int)count : 0;
    }
    return levels;
}

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

/* Where block `number` of a side stands: its level and its place among the level's.  Levels of input_blocks have one
 * block more than residual blocks, what halves; those of output_blocks one residual block more than the way down. */
static bool find_block(const ht_ldm_levels *levels, bool up, int number, int *level, int *layer)
{
    number -= !up; /* conv_in */
    for (int i = 0; number >= 0 && i < levels->n; i++) {
        int count = levels->layers[up ? levels->n - 1 - i : i] + 1;
        if (number < count) {
            *level = i;
            *layer = number;
            return true;
        }
        number -= count;
    }
    return false;
}

/* input_blocks.4.1.norm.weight; anything else: the name as it is. */
static const char *in_block(ht_arena *arena, const char *name, const ht_ldm_levels *levels)
{
    bool up = begins(name, "output_blocks.");
    const char *numbers = strchr(name, '.');
    int number, part, level, layer, n = 0;
    char prefix[64];
    if ((!up && !begins(name, "input_blocks.")) || sscanf(numbers, ".%4d.%4d.%n", &number, &part, &n) != 2 || !n ||
        !find_block(levels, up, number, &level, &layer))
        return name;
    const char *rest = numbers + n, *side = up ? "up" : "down";
    if (begins(rest, up ? "conv." : "op."))
        return ht_sprintf(arena, "%s_blocks.%d.%ssamplers.0.conv.%s", side, level, side, strchr(rest, '.') + 1);
    snprintf(prefix, sizeof prefix, "%s_blocks.%d.%s.%d.", side, level, part ? "attentions" : "resnets", layer);
    return part ? ht_sprintf(arena, "%s%s", prefix, rest) : with_leaf(arena, prefix, rest);
}

const char *ht_ldm_unet_rename(ht_arena *arena, const char *name, const void *context)
{
    if (!begins(name, root))
        return NULL;
    name += strlen(root);
    for (size_t i = 0; i < sizeof prefixes / sizeof *prefixes; i++)
        if (begins(name, prefixes[i][0]))
            return with_leaf(arena, prefixes[i][1], name + strlen(prefixes[i][0]));
    return in_block(arena, name, context);
}
