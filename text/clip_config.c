/* clip_config.c - config.json of a CLIP text encoder: read, defaulted as transformers does, and checked.
 *
 * Traps:
 * - projection_dim is there even if the model projects nothing.
 * - config.json of a whole CLIP model has these settings in text_config. */
#include <float.h>

#include "core/json.h"
#include "text/clip.h"

/* What is not read does not change what an evaluation computes. */
/* clang-format off */
static const char *const known_keys[] = {
    "architectures", "model_type", "vocab_size", "hidden_size", "intermediate_size", "projection_dim",
    "num_hidden_layers", "num_attention_heads", "max_position_embeddings", "hidden_act", "layer_norm_eps",
    "attention_dropout", "dropout", "initializer_range", "initializer_factor", "pad_token_id", "bos_token_id",
    "eos_token_id", "torch_dtype", "dtype", "transformers_version", NULL};
/* clang-format on */

static void read_sizes(ht_json *j, ht_clip_config *c)
{
    c->vocab_size = ht_json_int(j, "vocab_size", 49408, 1, 1 << 24); /* ids are exact in float32 up to here */
    c->max_position_embeddings = ht_json_int(j, "max_position_embeddings", 77, 1, 65536);
    c->hidden_size = ht_json_int(j, "hidden_size", 512, 1, HT_CLIP_MAX_CHANNELS);
    c->intermediate_size = ht_json_int(j, "intermediate_size", 2048, 1, HT_CLIP_MAX_CHANNELS);
    c->projection_dim = ht_json_int(j, "projection_dim", 512, 1, HT_CLIP_MAX_CHANNELS);
    c->num_hidden_layers = ht_json_int(j, "num_hidden_layers", 12, 1, HT_CLIP_MAX_LAYERS);
    c->num_attention_heads = ht_json_int(j, "num_attention_heads", 8, 1, HT_CLIP_MAX_CHANNELS);
    if (!j->status && c->hidden_size % c->num_attention_heads)
        j->status = ht_fail(HT_ERR_SHAPE, "%s: hidden_size %d is not a multiple of num_attention_heads %d", j->where,
                            c->hidden_size, c->num_attention_heads);
}

ht_status ht_clip_config_read(const json_t *object, const char *where, ht_clip_config *config)
{
    static const char *const acts[] = {"gelu", "quick_gelu", NULL};
    ht_json j = {.object = object, .where = where};
    ht_clip_config c = {0};
    const json_t *inside = json_object_get(object, "text_config");
    if (json_is_object(inside))
        j.object = inside;
    else
        ht_json_allow(&j, "CLIPTextModel", known_keys);
    ht_json_choice(&j, "model_type", 0, (const char *const[]){"clip_text_model", NULL});
    read_sizes(&j, &c);
    c.eos_token_id = ht_json_int(&j, "eos_token_id", 49407, 0, 1 << 24);
    c.quick_gelu = ht_json_choice(&j, "hidden_act", 1, acts) == 1;
    double eps = ht_json_real(&j, "layer_norm_eps", 1e-5);
    if (!j.status && !(eps >= FLT_MIN && eps <= FLT_MAX))
        j.status = ht_fail(HT_ERR_UNSUPPORTED, "%s: layer_norm_eps is %g, want a positive number", where, eps);
    c.layer_norm_eps = (float)eps;
    if (!j.status)
        *config = c;
    return j.status;
}
