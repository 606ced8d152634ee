/* clip.c - CLIP's text encoder: binding a checkpoint, and the network as a graph.
 *
 * A transformer that normalizes first (Radford et al. 2021, arXiv:2103.00020, 2.4): token and position embeddings, then
 * layers of causal self-attention and a two-layer MLP, each added to what it read; one more layer norm at the end.
 *
 * Traps:
 * - The mask is causal and nothing else: padding is seen by what comes after it.
 * - hidden_states has the embeddings in front, so [-2] is what the last layer reads, without final_layer_norm.
 * - The projection has no bias, and reads the pooled token after final_layer_norm.
 * - Whether there is a projection is said by the checkpoint; projection_dim stands in every config.json. */
#include "text/clip.h"

#include <math.h>
#include <string.h>

typedef struct clip_layer {
    ht_norm_weights layer_norm1, layer_norm2;
    ht_linear_weights q_proj, k_proj, v_proj, out_proj, fc1, fc2;
} clip_layer;

struct ht_clip {
    ht_clip_config config;
    const ht_tensor *token_embedding, *position_embedding;
    clip_layer *layers;
    ht_norm_weights final_layer_norm;
    bool has_projection;
    ht_linear_weights text_projection;
};

/* ---- binding ---- */

const char *ht_clip_rename(ht_arena *arena, const char *name, const void *context)
{
    static const char *const ignored[] = {"vision_model.", "visual_projection.", "logit_scale"};
    static const char prefix[] = "text_model.";
    (void)arena;
    (void)context;
    for (size_t i = 0; i < sizeof ignored / sizeof *ignored; i++)
        if (!strncmp(name, ignored[i], strlen(ignored[i])))
            return NULL;
    if (!strncmp(name, prefix, sizeof prefix - 1))
        name += sizeof prefix - 1;
    return strcmp(name, "embeddings.position_ids") ? name : NULL;
}

static void bind_layer(ht_weights *w, clip_layer *l, const ht_clip_config *c, int i)
{
    int64_t hidden = c->hidden_size, inner = c->intermediate_size;
    ht_bind_norm(w, &l->layer_norm1, hidden, "encoder.layers.%d.layer_norm1", i);
    ht_bind_linear(w, &l->q_proj, hidden, hidden, true, "encoder.layers.%d.self_attn.q_proj", i);
    ht_bind_linear(w, &l->k_proj, hidden, hidden, true, "encoder.layers.%d.self_attn.k_proj", i);
    ht_bind_linear(w, &l->v_proj, hidden, hidden, true, "encoder.layers.%d.self_attn.v_proj", i);
    ht_bind_linear(w, &l->out_proj, hidden, hidden, true, "encoder.layers.%d.self_attn.out_proj", i);
    ht_bind_norm(w, &l->layer_norm2, hidden, "encoder.layers.%d.layer_norm2", i);
    ht_bind_linear(w, &l->fc1, hidden, inner, true, "encoder.layers.%d.mlp.fc1", i);
    ht_bind_linear(w, &l->fc2, inner, hidden, true, "encoder.layers.%d.mlp.fc2", i);
}

ht_status ht_clip_open(ht_arena *arena, const ht_clip_config *c, ht_weights *w, ht_clip **model)
{
    ht_clip *m = ht_alloc(arena, sizeof *m);
    if (!m || !(m->layers = ht_alloc_array(arena, (size_t)c->num_hidden_layers, sizeof *m->layers)))
        return HT_ERR_MEMORY;
    m->config = *c;
    m->token_embedding = ht_bind_tensor(w, 2, (const int64_t[]){c->vocab_size, c->hidden_size}, "%s",
                                        "embeddings.token_embedding.weight");
    m->position_embedding = ht_bind_tensor(w, 2, (const int64_t[]){c->max_position_embeddings, c->hidden_size}, "%s",
                                           "embeddings.position_embedding.weight");
    for (int i = 0; i < c->num_hidden_layers; i++)
        bind_layer(w, &m->layers[i], c, i);
    ht_bind_norm(w, &m->final_layer_norm, c->hidden_size, "final_layer_norm");
    m->has_projection = ht_weights_has(w, "text_projection.weight");
    if (m->has_projection)
        ht_bind_linear(w, &m->text_projection, c->hidden_size, c->projection_dim, false, "text_projection");
    *model = m;
    return ht_weights_finish(w);
}

bool ht_clip_has_projection(const ht_clip *m)
{
    return m->has_projection;
}

const ht_clip_config *ht_clip_config_of(const ht_clip *m)
{
    return &m->config;
}

/* ---- the network ---- */

/* x [n,tokens,c] -> the same */
static ht_value *self_attention(ht_graph *g, const ht_clip_config *c, const clip_layer *l, ht_value *x)
{
    int head_width = c->hidden_size / c->num_attention_heads;
    float scale = 1 / sqrtf((float)head_width);
    ht_value *q = ht_linear(g, x, &l->q_proj), *k = ht_linear(g, x, &l->k_proj), *v = ht_linear(g, x, &l->v_proj);
    return ht_linear(g, ht_causal_attention(g, q, k, v, c->num_attention_heads, scale), &l->out_proj);
}

/* x [n,tokens,c] -> the same */
static ht_value *encoder_layer(ht_graph *g, const ht_clip_config *c, const clip_layer *l, ht_value *x)
{
    ht_value *h = ht_layer_norm(g, x, &l->layer_norm1, c->layer_norm_eps);
    x = ht_add(g, self_attention(g, c, l, h), x);
    h = ht_linear(g, ht_layer_norm(g, x, &l->layer_norm2, c->layer_norm_eps), &l->fc1);
    h = c->quick_gelu ? ht_quick_gelu(g, h) : ht_gelu(g, h);
    return ht_add(g, ht_linear(g, h, &l->fc2), x);
}

const char *ht_clip_output_name(ht_clip_output output)
{
    static const char *const names[HT_CLIP_OUTPUTS] = {
        "last_hidden_state", "hidden_states.-2", "hidden_states.-2.final_layer_norm", "pooler_output", "text_embeds"};
    return names[output];
}

/* The first of what is wanted is the graph's output, the others are kept beside it. */
static void keep_wanted(ht_graph *g, ht_value *const *values, unsigned wanted)
{
    bool first = true;
    for (int i = 0; i < HT_CLIP_OUTPUTS; i++) {
        if (!(wanted & 1u << i))
            continue;
        ht_name(g, values[i], "%s", ht_clip_output_name(i));
        if (first)
            ht_output_value(g, values[i], ht_clip_output_name(i));
        else
            ht_tap(g, ht_clip_output_name(i));
        first = false;
    }
}

void ht_clip_build(const ht_clip *m, ht_graph *g, int64_t n, int64_t tokens, unsigned wanted)
{
    const ht_clip_config *c = &m->config;
    ht_value *values[HT_CLIP_OUTPUTS] = {0};
    ht_value *ids = ht_input(g, "input_ids", 3, (const int64_t[]){n, tokens, 1}, HT_DEPENDS_X);
    ht_value *token = ht_input(g, "pooled_token", 2, (const int64_t[]){n, 1}, HT_DEPENDS_X);
    ht_value *x = ht_add_position(g, ht_embedding(g, ids, m->token_embedding), m->position_embedding);
    for (int i = 0; i < c->num_hidden_layers; i++) {
        values[HT_CLIP_PENULTIMATE] = x;
        x = encoder_layer(g, c, &m->layers[i], x);
    }
    values[HT_CLIP_PENULTIMATE_NORMED] =
        ht_layer_norm(g, values[HT_CLIP_PENULTIMATE], &m->final_layer_norm, c->layer_norm_eps);
    values[HT_CLIP_LAST_HIDDEN_STATE] = ht_layer_norm(g, x, &m->final_layer_norm, c->layer_norm_eps);
    values[HT_CLIP_POOLER_OUTPUT] = ht_pick(g, values[HT_CLIP_LAST_HIDDEN_STATE], token);
    if (m->has_projection)
        values[HT_CLIP_TEXT_EMBEDS] = ht_linear(g, values[HT_CLIP_POOLER_OUTPUT], &m->text_projection);
    keep_wanted(g, values, wanted);
}

int64_t ht_clip_pooled_token(const ht_clip_config *c, const int32_t *ids, int64_t tokens)
{
    enum { LARGEST_IS_END = 2 };
    int64_t at = 0;
    if (c->eos_token_id == LARGEST_IS_END) {
        for (int64_t i = 1; i < tokens; i++)
            at = ids[i] > ids[at] ? i : at;
        return at;
    }
    while (at < tokens && ids[at] != c->eos_token_id)
        at++;
    return at < tokens ? at : 0;
}
