/* dit.h - diffusion transformers: DiT (arXiv:2212.09748), which draws classes, and PixArt-alpha and -Sigma
 * (arXiv:2310.00426, arXiv:2403.04692), which draw captions. */
#ifndef HT_DIT_DIT_H
#define HT_DIT_DIT_H

#include <jansson.h>

#include "core/json.h"
#include "graph/denoiser.h"

enum {
    HT_DIT_MAX_WIDTH = 65536,
    HT_DIT_MAX_LAYERS = 1024,
    HT_DIT_MAX_CHANNELS = 4096,
    HT_DIT_MAX_PATCH = 64,
    HT_DIT_FREQUENCIES = 256, /* sinusoids of a timestep, whatever the width */
    HT_PIXART_RESOLUTION = 2  /* height and width */
};

/* What config.json says of any of them.  Names are the file's. */
typedef struct ht_dit_body {
    int num_attention_heads, attention_head_dim, num_layers;
    int in_channels, out_channels, patch_size, sample_size;
    double interpolation_scale; /* of positions */
    bool attention_bias;        /* of queries, keys and values */
    bool tanh_gelu;             /* activation_fn: gelu-approximate, else gelu */
    float norm_eps;
} ht_dit_body;

typedef struct ht_dit_config {
    ht_dit_body body;
    int num_embeds_ada_norm; /* classes without the null class */
    float freq_shift;        /* ours: 1 in diffusers' DiT, 0 in facebook's */
} ht_dit_config;

typedef struct ht_pixart_config {
    ht_dit_body body;
    int cross_attention_dim;        /* what attn2 reads */
    int caption_channels;           /* what caption_projection reads; 0: there is none */
    bool use_additional_conditions; /* resolution and aspect ratio */
} ht_pixart_config;

/* Read and check a config.json object.  where: its path, for messages.  A key or value that this version does not know
 * is an error that names it. */
ht_status ht_dit_config_read(const json_t *object, const char *where, ht_dit_config *config);
ht_status ht_pixart_config_read(const json_t *object, const char *where, ht_pixart_config *config);

extern const ht_denoiser_family ht_dit_family, ht_pixart_family;

/* The class of diffusers that a config.json describes: what _class_name says, but Transformer2DModel, as which DiT and
 * PixArt were published before they had classes of their own, by its norm_type.  NULL: it says none. */
const char *ht_dit_class_name(const json_t *config);

/* ---- facebookresearch/DiT (names_facebook.c) ---- */

/* Whether a config.json has that code's arguments: hidden_size, depth and num_heads. */
bool ht_facebook_recognizes(const json_t *config);

/* Say the same in diffusers' words; the caller owns *out. */
ht_status ht_facebook_translate(const json_t *config, const char *where, json_t **out);

/* `blocks.0.attn.proj.weight` -> `transformer_blocks.0.attn1.to_out.0.weight`.  An ht_rename without context; other
 * names stay. */
const char *ht_facebook_rename(ht_arena *arena, const char *name, const void *context);

#endif
