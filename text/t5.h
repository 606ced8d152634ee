/* t5.h - T5's encoder (arXiv:1910.10683): T5EncoderModel by its config.json, version 1.1 and the original. */
#ifndef HT_TEXT_T5_H
#define HT_TEXT_T5_H

#include <jansson.h>

#include "graph/backend.h"
#include "graph/weights.h"

enum { HT_T5_MAX_LAYERS = 256, HT_T5_MAX_CHANNELS = 65536, HT_T5_MAX_TOKENS = 1 << 14 };

/* config.json, checked.  Names are the file's. */
typedef struct ht_t5_config {
    int vocab_size, d_model, d_kv, d_ff, num_layers, num_heads;
    int relative_attention_num_buckets, relative_attention_max_distance;
    bool is_gated_act; /* feed_forward_proj: gated-gelu, with the GELU of tanh; else relu */
    float layer_norm_epsilon;
} ht_t5_config;

/* A key or value that this version does not know is an error that names it. */
ht_status ht_t5_config_read(const json_t *object, const char *where, ht_t5_config *config);

typedef struct ht_t5 ht_t5;

/* An ht_rename without context: leaves out the decoder of a whole T5. */
const char *ht_t5_rename(ht_arena *arena, const char *name, const void *context);

/* Bind a checkpoint; all memory from the arena. */
ht_status ht_t5_open(ht_arena *arena, const ht_t5_config *config, ht_weights *weights, ht_t5 **model);
const ht_t5_config *ht_t5_config_of(const ht_t5 *m);

/* The network for n rows of tokens.  Inputs `input_ids` [n,tokens,1] and `attention_mask` [n,tokens], 1 or 0 for what
 * is not looked at; output `last_hidden_state` [n,tokens,d_model]. */
void ht_t5_build(const ht_t5 *m, ht_graph *g, int64_t n, int64_t tokens);

/* The bucket of a distance, key minus query (the paper's section 2.1, as the code has it). */
int ht_t5_bucket(const ht_t5_config *c, int64_t distance);

/* ---- running (text/t5_encoder.c) ---- */

typedef struct ht_t5_encoder ht_t5_encoder;

typedef struct ht_t5_encoder_options {
    int batch, tokens;       /* most rows at once; tokens of each */
    const ht_layers *layers; /* that are quantized, borrowed; NULL: none */
    ht_backend_options backend;
} ht_t5_encoder_options;

/* The model must outlive it.  HT_ERR_ARGUMENT: too many tokens, a batch out of range. */
ht_status ht_t5_encoder_open(const ht_t5 *m, const ht_backend *backend, const ht_t5_encoder_options *options,
                             ht_t5_encoder **out);
void ht_t5_encoder_close(ht_t5_encoder *e); /* NULL is allowed */

/* ids: [n][tokens], any n; HT_ERR_ARGUMENT names one outside the vocabulary.  mask: [n][tokens], NULL: ones.  out:
 * [n][tokens][d_model]. */
ht_status ht_t5_encoder_run(ht_t5_encoder *e, const int32_t *ids, const float *mask, int64_t n, float *out);

#endif
