/* conditions.c - the table of conditions. */
#include "sampler/conditions.h"

#include <string.h>

#define ROW(name_, argument_, words_, member, width_, ...)                                                             \
    {                                                                                                                  \
        .name = (name_), .argument = (argument_), .words = (words_), .width = offsetof(ht_denoiser_info, width_),      \
        .rows = offsetof(ht_cond, member), __VA_ARGS__                                                                 \
    }

const ht_condition ht_conditions[HT_CONDITIONS] = {
    ROW("class_embeddings", "class_labels", "a class embedding", class_embeddings, class_embed_dim, .per_token = false),
    ROW("encoder_hidden_states", "encoder_hidden_states", "encoder_hidden_states", encoder_hidden_states,
        cross_attention_dim, .per_token = true),
    ROW("text_embeds", "text_embeds", "text_embeds", text_embeds, text_embed_dim, .per_token = false),
    ROW("time_ids", "time_ids", "time_ids", time_ids, time_ids, .per_token = false),
    ROW("timestep_cond", "timestep_cond", "timestep_cond", timestep_cond, timestep_cond_dim, .per_token = false),
    ROW("encoder_attention_mask", "encoder_attention_mask", "encoder_attention_mask", encoder_attention_mask,
        attention_mask, .per_token = true, .optional = true),
    ROW("resolution", "resolution", "resolution", resolution, resolution, .per_token = false),
    ROW("aspect_ratio", "aspect_ratio", "aspect_ratio", aspect_ratio, aspect_ratio, .per_token = false),
};

int ht_condition_width(const ht_condition *c, const ht_denoiser_info *info)
{
    int width;
    memcpy(&width, (const char *)info + c->width, sizeof width);
    return width;
}

const float *ht_condition_rows(const ht_condition *c, const ht_cond *cond)
{
    const float *rows;
    memcpy(&rows, (const char *)cond + c->rows, sizeof rows);
    return rows;
}

void ht_condition_set_rows(const ht_condition *c, ht_cond *cond, const float *rows)
{
    memcpy((char *)cond + c->rows, &rows, sizeof rows);
}
