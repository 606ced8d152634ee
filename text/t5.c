/* t5.c - T5's encoder: configuration, binding a checkpoint, and the network as a graph.
 *
 * A transformer that normalizes first, by the root mean square alone, without biases (arXiv:1910.10683, 2.1; version
 * 1.1 gates its feed-forward, arXiv:2002.05202).  Positions are only in what is added to scores by the distance of key
 * and query: a table of block 0, used by all.
 *
 * Traps:
 * - Scores are not divided by the root of d_kv.  The width inside attention is num_heads * d_kv, whatever d_model is.
 * - Half of the buckets are of keys after the query.  Of each half, half are of one distance, the others logarithmic;
 *   their borders are those of float32.
 * - gelu_new is the GELU with tanh.
 * - The embedding is shared.weight, encoder.embed_tokens.weight, or both. */
#include "text/t5.h"

#include <float.h>
#include <string.h>

#include "core/elementary.h"
#include "core/json.h"

static const float masked = -1e30f; /* of a score: nothing is left of it, unless all are */

typedef struct t5_block {
    const ht_tensor *attention_norm, *feed_forward_norm;
    ht_linear_weights q, k, v, o;
    ht_linear_weights wi, wi_0, wi_1, wo; /* wi, or wi_0 and wi_1 */
} t5_block;

struct ht_t5 {
    ht_t5_config config;
    const ht_tensor *shared, *relative_attention_bias, *final_layer_norm;
    t5_block *blocks;
};

/* ---- config.json ---- */

/* What is not read does not change what an encoder computes. */
/* clang-format off */
static const char *const known_keys[] = {
    "architectures", "model_type", "vocab_size", "d_model", "d_kv", "d_ff", "num_layers", "num_decoder_layers",
    "num_heads", "relative_attention_num_buckets", "relative_attention_max_distance", "dropout_rate",
    "classifier_dropout", "layer_norm_epsilon", "initializer_factor", "feed_forward_proj", "dense_act_fn",
    "is_gated_act", "is_encoder_decoder", "is_decoder", "use_cache", "pad_token_id", "eos_token_id",
    "decoder_start_token_id", "tie_word_embeddings", "scale_decoder_outputs", "output_past", "n_positions",
    "task_specific_params", "torch_dtype", "dtype", "transformers_version", NULL};
/* clang-format on */

static void read_sizes(ht_json *j, ht_t5_config *c)
{
    c->vocab_size = ht_json_int(j, "vocab_size", 32128, 1, 1 << 24); /* ids are exact in float32 up to here */
    c->d_model = ht_json_int(j, "d_model", 512, 1, HT_T5_MAX_CHANNELS);
    c->d_kv = ht_json_int(j, "d_kv", 64, 1, HT_T5_MAX_CHANNELS);
    c->d_ff = ht_json_int(j, "d_ff", 2048, 1, HT_T5_MAX_CHANNELS);
    c->num_layers = ht_json_int(j, "num_layers", 6, 1, HT_T5_MAX_LAYERS);
    c->num_heads = ht_json_int(j, "num_heads", 8, 1, HT_T5_MAX_CHANNELS);
    c->relative_attention_num_buckets = ht_json_int(j, "relative_attention_num_buckets", 32, 4, 1 << 16);
    c->relative_attention_max_distance = ht_json_int(j, "relative_attention_max_distance", 128, 2, 1 << 20);
    if (!j->status && (int64_t)c->num_heads * c->d_kv > HT_T5_MAX_CHANNELS)
        j->status = ht_fail(HT_ERR_UNSUPPORTED, "%s: num_heads %d times d_kv %d is more than %d", j->where,
                            c->num_heads, c->d_kv, HT_T5_MAX_CHANNELS);
    if (!j->status && c->relative_attention_max_distance <= c->relative_attention_num_buckets / 4)
        j->status = ht_fail(HT_ERR_SHAPE,
                            "%s: relative_attention_max_distance %d is no more than a quarter of "
                            "relative_attention_num_buckets %d",
                            j->where, c->relative_attention_max_distance, c->relative_attention_num_buckets);
}

ht_status ht_t5_config_read(const json_t *object, const char *where, ht_t5_config *config)
{
    static const char *const kinds[] = {"relu", "gated-gelu", NULL};
    ht_json j = {.object = object, .where = where};
    ht_t5_config c = {0};
    ht_json_allow(&j, "T5EncoderModel", known_keys);
    ht_json_choice(&j, "model_type", 0, (const char *const[]){"t5", NULL});
    read_sizes(&j, &c);
    c.is_gated_act = ht_json_choice(&j, "feed_forward_proj", 0, kinds) == 1;
    double eps = ht_json_real(&j, "layer_norm_epsilon", 1e-6);
    if (!j.status && !(eps >= (double)FLT_MIN && eps <= (double)FLT_MAX))
        j.status = ht_fail(HT_ERR_UNSUPPORTED, "%s: layer_norm_epsilon is %g, want a positive number", where, eps);
    c.layer_norm_epsilon = (float)eps;
    if (!j.status)
        *config = c;
    return j.status;
}

/* ---- binding ---- */

const char *ht_t5_rename(ht_arena *arena, const char *name, const void *context)
{
    static const char *const ignored[] = {"decoder.", "lm_head."};
    (void)arena;
    (void)context;
    for (size_t i = 0; i < sizeof ignored / sizeof *ignored; i++)
        if (!strncmp(name, ignored[i], strlen(ignored[i])))
            return NULL;
    return name;
}

static void bind_block(ht_weights *w, t5_block *b, const ht_t5_config *c, int i)
{
    int64_t inner = (int64_t)c->num_heads * c->d_kv, width = c->d_model;
    b->attention_norm = ht_bind_tensor(w, 1, &width, "encoder.block.%d.layer.0.layer_norm.weight", i);
    ht_bind_linear(w, &b->q, width, inner, false, "encoder.block.%d.layer.0.SelfAttention.q", i);
    ht_bind_linear(w, &b->k, width, inner, false, "encoder.block.%d.layer.0.SelfAttention.k", i);
    ht_bind_linear(w, &b->v, width, inner, false, "encoder.block.%d.layer.0.SelfAttention.v", i);
    ht_bind_linear(w, &b->o, inner, width, false, "encoder.block.%d.layer.0.SelfAttention.o", i);
    b->feed_forward_norm = ht_bind_tensor(w, 1, &width, "encoder.block.%d.layer.1.layer_norm.weight", i);
    if (c->is_gated_act) {
        ht_bind_linear(w, &b->wi_0, width, c->d_ff, false, "encoder.block.%d.layer.1.DenseReluDense.wi_0", i);
        ht_bind_linear(w, &b->wi_1, width, c->d_ff, false, "encoder.block.%d.layer.1.DenseReluDense.wi_1", i);
    } else {
        ht_bind_linear(w, &b->wi, width, c->d_ff, false, "encoder.block.%d.layer.1.DenseReluDense.wi", i);
    }
    ht_bind_linear(w, &b->wo, c->d_ff, width, false, "encoder.block.%d.layer.1.DenseReluDense.wo", i);
}

static const ht_tensor *bind_embedding(ht_weights *w, const ht_t5_config *c)
{
    static const char *const names[] = {"shared.weight", "encoder.embed_tokens.weight"};
    const ht_tensor *found = NULL;
    for (int i = 0; i < 2; i++)
        if (ht_weights_has(w, names[i]) || (i && !found))
            found = ht_bind_tensor(w, 2, (const int64_t[]){c->vocab_size, c->d_model}, "%s", names[found ? 1 : i]);
    return found;
}

ht_status ht_t5_open(ht_arena *arena, const ht_t5_config *c, ht_weights *w, ht_t5 **model)
{
    ht_t5 *m = ht_alloc(arena, sizeof *m);
    int64_t width = c->d_model;
    if (!m || !(m->blocks = ht_alloc_array(arena, (size_t)c->num_layers, sizeof *m->blocks)))
        return HT_ERR_MEMORY;
    m->config = *c;
    m->shared = bind_embedding(w, c);
    m->relative_attention_bias =
        ht_bind_tensor(w, 2, (const int64_t[]){c->relative_attention_num_buckets, c->num_heads}, "%s",
                       "encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight");
    for (int i = 0; i < c->num_layers; i++)
        bind_block(w, &m->blocks[i], c, i);
    m->final_layer_norm = ht_bind_tensor(w, 1, &width, "encoder.final_layer_norm.weight");
    *model = m;
    return ht_weights_finish(w);
}

const ht_t5_config *ht_t5_config_of(const ht_t5 *m)
{
    return &m->config;
}

/* ---- the network ---- */

int ht_t5_bucket(const ht_t5_config *c, int64_t distance)
{
    int half = c->relative_attention_num_buckets / 2, exact = half / 2;
    int64_t away = distance < 0 ? -distance : distance;
    int after = distance > 0 ? half : 0;
    if (away < exact)
        return after + (int)away;
    float share = (float)ht_log((double)((float)away / (float)exact)) /
                  (float)ht_log((double)c->relative_attention_max_distance / exact);
    int bucket = exact + (int)(share * (float)(half - exact));
    return after + (bucket < half ? bucket : half - 1);
}

/* What is added to scores: [heads,2 tokens - 1], by key - query + tokens - 1. */
static const ht_tensor *distances(ht_graph *g, const ht_t5 *m, int64_t tokens)
{
    const ht_t5_config *c = &m->config;
    const ht_tensor *table = m->relative_attention_bias;
    int64_t count = 2 * tokens - 1;
    float *values;
    const ht_tensor *t = ht_constant(g, "relative_attention_bias", 2, (const int64_t[]){c->num_heads, count}, &values);
    for (int head = 0; t && head < c->num_heads; head++)
        for (int64_t i = 0; i < count; i++) {
            size_t at = (size_t)ht_t5_bucket(c, i - (tokens - 1)) * (size_t)c->num_heads + (size_t)head;
            ht_convert_to_f32(table->dtype, table->data, at, 1, &values[head * count + i]);
        }
    return t;
}

/* x [n,tokens,c] -> the same */
static ht_value *self_attention(ht_graph *g, const ht_t5_config *c, const t5_block *b, ht_value *x,
                                ht_attention_bias bias)
{
    ht_value *q = ht_linear(g, x, &b->q), *k = ht_linear(g, x, &b->k), *v = ht_linear(g, x, &b->v);
    return ht_linear(g, ht_biased_attention(g, q, k, v, c->num_heads, 1, bias), &b->o);
}

/* x [n,tokens,c] -> the same */
static ht_value *feed_forward(ht_graph *g, const ht_t5_config *c, const t5_block *b, ht_value *x)
{
    ht_value *h = c->is_gated_act
                      ? ht_multiply(g, ht_gelu_tanh(g, ht_linear(g, x, &b->wi_0)), ht_linear(g, x, &b->wi_1))
                      : ht_relu(g, ht_linear(g, x, &b->wi));
    return ht_linear(g, h, &b->wo);
}

void ht_t5_build(const ht_t5 *m, ht_graph *g, int64_t n, int64_t tokens)
{
    const ht_t5_config *c = &m->config;
    ht_value *ids = ht_input(g, "input_ids", 3, (const int64_t[]){n, tokens, 1}, HT_DEPENDS_X);
    ht_value *mask = ht_input(g, "attention_mask", 2, (const int64_t[]){n, tokens}, HT_DEPENDS_X);
    ht_attention_bias bias = {ht_affine(g, mask, -masked, masked), distances(g, m, tokens)};
    ht_value *x = ht_embedding(g, ids, m->shared);
    for (int i = 0; i < c->num_layers; i++) {
        const t5_block *b = &m->blocks[i];
        ht_value *h = ht_rms_norm(g, x, b->attention_norm, c->layer_norm_epsilon);
        x = ht_add(g, self_attention(g, c, b, h, bias), x);
        h = ht_rms_norm(g, x, b->feed_forward_norm, c->layer_norm_epsilon);
        x = ht_name(g, ht_add(g, feed_forward(g, c, b, h), x), "encoder.block.%d", i);
    }
    ht_output_value(g, ht_rms_norm(g, x, m->final_layer_norm, c->layer_norm_epsilon), "last_hidden_state");
}
