/* clip.h - CLIP's text encoder: CLIPTextModel and CLIPTextModelWithProjection by their config.json. */
#ifndef HT_TEXT_CLIP_H
#define HT_TEXT_CLIP_H

#include <jansson.h>

#include "graph/backend.h"
#include "graph/weights.h"

enum { HT_CLIP_MAX_LAYERS = 128, HT_CLIP_MAX_CHANNELS = 65536 };

/* config.json, checked.  Names are the file's. */
typedef struct ht_clip_config {
    int vocab_size, max_position_embeddings;
    int hidden_size, intermediate_size, num_hidden_layers, num_attention_heads;
    int projection_dim; /* of the checkpoint, if it has a projection */
    int eos_token_id;
    bool quick_gelu; /* hidden_act: quick_gelu, else gelu */
    float layer_norm_eps;
} ht_clip_config;

/* A key or value that this version does not know is an error that names it. */
ht_status ht_clip_config_read(const json_t *object, const char *where, ht_clip_config *config);

typedef struct ht_clip ht_clip;

/* An ht_rename without context: published files have `text_model.` in front of every name and a buffer position_ids;
 * whole CLIP models have an image encoder beside. */
const char *ht_clip_rename(ht_arena *arena, const char *name, const void *context);

/* Bind a checkpoint; all memory from the arena. */
ht_status ht_clip_open(ht_arena *arena, const ht_clip_config *config, ht_weights *weights, ht_clip **model);
bool ht_clip_has_projection(const ht_clip *m);
const ht_clip_config *ht_clip_config_of(const ht_clip *m);

/* What an encoder can give.  The first three are [n,tokens,hidden_size]. */
typedef enum ht_clip_output {
    HT_CLIP_LAST_HIDDEN_STATE,  /* after final_layer_norm: SD 1 */
    HT_CLIP_PENULTIMATE,        /* hidden_states[-2]: SDXL */
    HT_CLIP_PENULTIMATE_NORMED, /* that through final_layer_norm: SD 2, clip skip */
    HT_CLIP_POOLER_OUTPUT,      /* [n,hidden_size]: last_hidden_state of the pooled token */
    HT_CLIP_TEXT_EMBEDS,        /* [n,projection_dim]: its projection */
    HT_CLIP_OUTPUTS
} ht_clip_output;

/* As the libraries and tests/goldens name them: "last_hidden_state", "hidden_states.-2", ... */
const char *ht_clip_output_name(ht_clip_output output);

/* The network for n rows of tokens.  Inputs `input_ids` [n,tokens,1] and `pooled_token` [n,1], the number of the token
 * that is pooled.  wanted: a set of 1 << ht_clip_output, the values that are kept, under their names. */
void ht_clip_build(const ht_clip *m, ht_graph *g, int64_t n, int64_t tokens, unsigned wanted);

/* Which token is pooled: the first eos_token_id (0 if there is none), or with eos_token_id 2, which the published
 * SD configurations say though their tokenizer's is 49407, the first of the largest. */
int64_t ht_clip_pooled_token(const ht_clip_config *c, const int32_t *ids, int64_t tokens);

/* ---- running (text/clip_encoder.c) ---- */

typedef struct ht_clip_encoder ht_clip_encoder;

typedef struct ht_clip_encoder_options {
    int batch, tokens; /* most rows at once; tokens of each */
    unsigned wanted;
    ht_backend_options backend;
} ht_clip_encoder_options;

/* The model must outlive it.  HT_ERR_ARGUMENT: more tokens than positions, text_embeds of a model without projection.
 */
ht_status ht_clip_encoder_open(const ht_clip *m, const ht_backend *backend, const ht_clip_encoder_options *options,
                               ht_clip_encoder **out);
void ht_clip_encoder_close(ht_clip_encoder *e); /* NULL is allowed */

/* ids: [n][tokens], any n; HT_ERR_ARGUMENT names one outside the vocabulary.  out[i]: n rows of each wanted output;
 * others are not touched. */
ht_status ht_clip_encoder_run(ht_clip_encoder *e, const int32_t *ids, int64_t n, float *const out[HT_CLIP_OUTPUTS]);

#endif
