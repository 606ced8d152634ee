/* texts.c - the text encoders of a pipeline.
 *
 * Traps: published SDXL takes the last hidden states but one without the final norm from both encoders, and the pooled
 * vector of the second; SD 2's encoder has one layer less, so that its last is the one that is meant. */
#include "sampler/texts.h"

#include <string.h>
#include <unistd.h>

#include "core/json.h"
#include "sampler/backends.h"
#include "sampler/conditions.h"
#include "sampler/session_private.h"
#include "sampler/text_t5.h"
#include "text/clip.h"

typedef struct encoder {
    ht_clip_tokenizer *tokenizer;
    ht_safetensors *file;
    json_t *config;
    ht_clip *clip;
    ht_t5_text *t5; /* instead of all of these */
} encoder;

struct ht_texts {
    ht_arena *arena;
    const ht_model *denoiser;
    encoder encoders[HT_TEXT_ENCODERS];
    int n;
    bool pools; /* SDXL's way */
    int length; /* of a row of T5's */
};

static const char *const encoder_names[HT_TEXT_ENCODERS] = {"text_encoder", "text_encoder_2"};
static const char *const tokenizer_names[HT_TEXT_ENCODERS] = {"tokenizer", "tokenizer_2"};

/* ---- opening ---- */

/* The names of the original code's single files. */
static const char *rename_single(ht_arena *arena, const char *name, const void *context)
{
    static const char prefix[] = "cond_stage_model.transformer.";
    size_t n = sizeof prefix - 1;
    return strncmp(name, prefix, n) ? NULL : ht_clip_rename(arena, name + n, context);
}

static ht_status open_clip(ht_texts *t, encoder *e, const char *config_path, ht_rename rename)
{
    ht_clip_config config;
    ht_weights *weights;
    ht_status status = ht_json_read(config_path, &e->config);
    if (!status)
        status = ht_clip_config_read(e->config, config_path, &config);
    if (!status)
        status = ht_weights_open(t->arena, e->file, rename, NULL, &weights);
    if (!status)
        status = ht_clip_open(t->arena, &config, weights, &e->clip);
    return status ? status : ht_clip_tokenizer_fits(e->tokenizer, config.vocab_size, config.max_position_embeddings);
}

/* "CLIPTextModel"; NULL: the pipeline has no such encoder. */
static const char *class_of_encoder(const ht_model *m, int i)
{
    return json_string_value(json_array_get(json_object_get(m->index, encoder_names[i]), 1));
}

static ht_status open_in_folder(ht_texts *t, int i)
{
    encoder *e = &t->encoders[t->n++];
    const char *path = t->denoiser->path;
    const char *folder = ht_sprintf(t->arena, "%s/%s", path, encoder_names[i]);
    const char *tokenizer = ht_sprintf(t->arena, "%s/%s", path, tokenizer_names[i]);
    const char *config = folder ? ht_sprintf(t->arena, "%s/config.json", folder) : NULL;
    if (!folder || !tokenizer || !config)
        return HT_ERR_MEMORY;
    if (!strcmp(class_of_encoder(t->denoiser, i), "T5EncoderModel"))
        return ht_t5_text_open(folder, tokenizer, &e->t5);
    ht_status status = ht_clip_tokenizer_open(tokenizer, &e->tokenizer);
    if (!status)
        status = ht_open_weights(t->arena, folder, &e->file);
    return status ? status : open_clip(t, e, config, ht_clip_rename);
}

/* text_encoder.json and the folder tokenizer lie beside the file. */
static ht_status open_in_single_file(ht_texts *t)
{
    const char *path = t->denoiser->path, *slash = strrchr(path, '/');
    const char *folder = slash ? ht_sprintf(t->arena, "%.*s", (int)(slash - path), path) : ".";
    const char *config = folder ? ht_sprintf(t->arena, "%s/text_encoder.json", folder) : NULL;
    const char *tokenizer = folder ? ht_sprintf(t->arena, "%s/tokenizer", folder) : NULL;
    if (!config || !tokenizer)
        return HT_ERR_MEMORY;
    if (access(config, F_OK))
        return HT_OK;
    encoder *e = &t->encoders[t->n++];
    ht_status status = ht_clip_tokenizer_open(tokenizer, &e->tokenizer);
    if (!status)
        status = ht_safetensors_open(path, &e->file);
    return status ? status : open_clip(t, e, config, rename_single);
}

/* Whether the pipeline has this encoder, and it is one that is known here: of CLIP, or T5's where it is the only one.
 */
static ht_status has_encoder(const ht_model *m, int i, bool *has)
{
    const char *class_name = class_of_encoder(m, i);
    *has = class_name != NULL;
    if (class_name && !i && !strcmp(class_name, "T5EncoderModel") && !class_of_encoder(m, 1))
        return HT_OK;
    if (!class_name || !strcmp(class_name, "CLIPTextModel") || !strcmp(class_name, "CLIPTextModelWithProjection"))
        return HT_OK;
    return ht_fail(HT_ERR_UNSUPPORTED,
                   "%s: text encoders of class %s are not supported; this version knows CLIPTextModel "
                   "and CLIPTextModelWithProjection",
                   m->path, class_name);
}

static ht_status check_t5(const ht_texts *t)
{
    int width = ht_t5_config_of(ht_t5_text_model(t->encoders[0].t5))->d_model;
    if (width == t->denoiser->info.cross_attention_dim)
        return HT_OK;
    return ht_fail(HT_ERR_SHAPE, "%s: the text encoder makes %d numbers a token, the denoiser takes %d",
                   t->denoiser->path, width, t->denoiser->info.cross_attention_dim);
}

/* Whether the widths fit. */
static ht_status check_widths(const ht_texts *t)
{
    const ht_denoiser_info *info = &t->denoiser->info;
    int width = 0;
    if (t->encoders[0].t5)
        return check_t5(t);
    for (int i = 0; i < t->n; i++) {
        width += ht_clip_config_of(t->encoders[i].clip)->hidden_size;
        if (ht_clip_tokenizer_tokens(t->encoders[i].tokenizer)->length != ht_texts_length(t))
            return ht_fail(HT_ERR_SHAPE, "%s: its tokenizers have rows of different lengths", t->denoiser->path);
    }
    if (width != info->cross_attention_dim)
        return ht_fail(HT_ERR_SHAPE, "%s: the text encoders make %d numbers a token, the denoiser takes %d",
                       t->denoiser->path, width, info->cross_attention_dim);
    const ht_clip *last = t->encoders[t->n - 1].clip;
    int pooled = ht_clip_has_projection(last) ? ht_clip_config_of(last)->projection_dim : 0;
    if (t->pools && pooled != info->text_embed_dim)
        return ht_fail(HT_ERR_SHAPE, "%s: the last text encoder's projection has %d numbers, the denoiser takes %d",
                       t->denoiser->path, pooled, info->text_embed_dim);
    return HT_OK;
}

static ht_status open_all(ht_texts *t)
{
    const ht_model *m = t->denoiser;
    ht_status status = HT_OK;
    bool has;
    if (!m->index)
        return open_in_single_file(t);
    for (int i = 0; !status && i < HT_TEXT_ENCODERS; i++) {
        status = has_encoder(m, i, &has);
        if (!status && has)
            status = open_in_folder(t, i);
    }
    return status;
}

ht_status ht_texts_open(const ht_model *denoiser, ht_texts **out)
{
    *out = NULL;
    if (!denoiser->info.cross_attention_dim)
        return HT_OK;
    ht_arena *arena = ht_arena_create();
    ht_texts *t = arena ? ht_alloc(arena, sizeof *t) : NULL;
    if (!t) {
        ht_arena_free(arena);
        return HT_ERR_MEMORY;
    }
    *t = (ht_texts){.arena = arena, .denoiser = denoiser, .pools = denoiser->info.text_embed_dim > 0};
    ht_status status = open_all(t);
    if (!status && t->n)
        status = check_widths(t);
    if (status || !t->n)
        ht_texts_close(t);
    else
        *out = t;
    return status;
}

void ht_texts_close(ht_texts *t)
{
    for (int i = 0; t && i < t->n; i++) {
        ht_t5_text_close(t->encoders[i].t5);
        ht_clip_tokenizer_close(t->encoders[i].tokenizer);
        ht_safetensors_close(t->encoders[i].file);
        json_decref(t->encoders[i].config);
    }
    if (t)
        ht_arena_free(t->arena);
}

/* PixArt-alpha's pipeline reads 120 tokens, Sigma's 300. */
static int own_length(const ht_texts *t)
{
    enum { OF_ALPHA = 120, OF_OTHERS = 300 };
    const char *pipeline = json_string_value(json_object_get(t->denoiser->index, "_class_name"));
    return pipeline && !strcmp(pipeline, "PixArtAlphaPipeline") ? OF_ALPHA : OF_OTHERS;
}

ht_status ht_texts_set_length(ht_texts *t, int length)
{
    if (length && !t->encoders[0].t5)
        return ht_fail(HT_ERR_ARGUMENT, "%s: the length of prompts is its tokenizer's; it cannot be set",
                       t->denoiser->path);
    if (length < 0 || length > HT_T5_MAX_TOKENS)
        return ht_fail(HT_ERR_ARGUMENT, "prompts of %d tokens: wanted 1 to %d", length, HT_T5_MAX_TOKENS);
    t->length = length;
    return HT_OK;
}

int ht_texts_length(const ht_texts *t)
{
    if (t->encoders[0].t5)
        return t->length ? t->length : own_length(t);
    return ht_clip_tokenizer_tokens(t->encoders[0].tokenizer)->length;
}

/* ---- reading ---- */

ht_status ht_text_read(const ht_texts *t, const char *const text[HT_TEXT_ENCODERS], bool plain, ht_text *out)
{
    ht_text read = {.chunks = 0};
    ht_status status = HT_OK;
    for (int i = 0; !status && i < t->n; i++) {
        const char *own = text[i] ? text[i] : text[0];
        if (t->encoders[i].t5)
            status = ht_t5_text_read(t->encoders[i].t5, own, ht_texts_length(t), &read.prompt[i]);
        else
            status = (plain ? ht_prompt_read_plain : ht_prompt_read)(t->encoders[i].tokenizer, own, strlen(own),
                                                                     &read.prompt[i]);
        if (!status && read.prompt[i].chunks > read.chunks)
            read.chunks = read.prompt[i].chunks;
    }
    if (!status && read.chunks > HT_MOST_TOKENS / ht_texts_length(t)) /* before the encoders have run for minutes */
        status = ht_fail(HT_ERR_ARGUMENT, "the prompt fills %lld rows of %d tokens, at most %d are read",
                         (long long)read.chunks, ht_texts_length(t), HT_MOST_TOKENS / ht_texts_length(t));
    if (status)
        ht_text_free(&read);
    else
        *out = read;
    return status;
}

void ht_text_free(ht_text *text)
{
    for (int i = 0; i < HT_TEXT_ENCODERS; i++)
        ht_prompt_free(&text->prompt[i]);
}

/* ---- encoding ---- */

/* What one encoder makes of all rows. */
typedef struct encoded {
    int32_t *ids;  /* [rows][length] */
    float *hidden; /* [rows][length][width] */
    float *pooled; /* [rows][projection] */
} encoded;

static ht_clip_output hidden_of(const ht_texts *t, const ht_text_encoding *how)
{
    return t->pools ? HT_CLIP_PENULTIMATE : how->clip_skip ? HT_CLIP_PENULTIMATE_NORMED : HT_CLIP_LAST_HIDDEN_STATE;
}

static ht_status run_encoder(const ht_texts *t, int i, const ht_text_encoding *how, int64_t rows, encoded *e)
{
    enum { MOST = 8 };
    static const ht_session_options none;
    const ht_session_options *s = how->session ? how->session : &none;
    const encoder *own = &t->encoders[i];
    const ht_backend *backend;
    ht_clip_encoder *clip = NULL;
    float *out[HT_CLIP_OUTPUTS] = {0};
    ht_clip_encoder_options o = {.batch = rows < MOST ? (int)rows : MOST,
                                 .tokens = ht_texts_length(t),
                                 .wanted = 1u << hidden_of(t, how),
                                 .backend = {.threads = s->threads, .isa = s->isa, .device = s->device}};
    out[hidden_of(t, how)] = e->hidden;
    if (e->pooled) {
        o.wanted |= 1u << HT_CLIP_TEXT_EMBEDS;
        out[HT_CLIP_TEXT_EMBEDS] = e->pooled;
    }
    ht_status status = ht_find_backend(s->backend, &backend);
    if (!status)
        status = ht_clip_encoder_open(own->clip, backend, &o, &clip);
    if (!status)
        status = ht_clip_encoder_run(clip, e->ids, rows, out);
    ht_clip_encoder_close(clip);
    return status;
}

static ht_status take_memory(const ht_texts *t, int i, size_t rows, ht_arena *arena, encoded *e)
{
    const ht_clip_config *c = ht_clip_config_of(t->encoders[i].clip);
    size_t ids, hidden;
    if (!ht_mul_size(rows, (size_t)ht_texts_length(t), &ids) || !ht_mul_size(ids, (size_t)c->hidden_size, &hidden))
        return ht_fail(HT_ERR_MEMORY, "out of memory for %zu rows of prompts", rows);
    bool pools = t->pools && i == t->n - 1;
    e->ids = ht_alloc_array(arena, ids, sizeof *e->ids);
    e->hidden = ht_alloc_array(arena, hidden, sizeof *e->hidden);
    e->pooled = pools ? ht_alloc_array(arena, rows * (size_t)c->projection_dim, sizeof *e->pooled) : NULL;
    return e->ids && e->hidden && (!pools || e->pooled) ? HT_OK : HT_ERR_MEMORY;
}

/* What ht_texts_encode was asked. */
typedef struct request {
    const ht_texts *t;
    const ht_text_encoding *how;
    int64_t n;
    ht_text *texts;
    float *hidden, *pooled;
} request;

/* Into channels from..from+width-1 of hidden, and pooled. */
static ht_status encode_with(const request *r, int i, int from, ht_arena *arena)
{
    const ht_texts *t = r->t;
    const ht_text_encoding *how = r->how;
    ht_text *texts = r->texts;
    int64_t n = r->n;
    const ht_clip_config *c = ht_clip_config_of(t->encoders[i].clip);
    int64_t tokens = how->chunks * ht_texts_length(t);
    size_t all = (size_t)t->denoiser->info.cross_attention_dim, width = (size_t)c->hidden_size;
    encoded e = {0};
    ht_status status = take_memory(t, i, (size_t)(n * how->chunks), arena, &e);
    for (int64_t k = 0; !status && k < n; k++) {
        status = ht_prompt_pad(t->encoders[i].tokenizer, &texts[k].prompt[i], how->chunks);
        if (!status)
            memcpy(e.ids + k * tokens, texts[k].prompt[i].ids, (size_t)tokens * sizeof *e.ids);
    }
    if (!status)
        status = run_encoder(t, i, how, n * how->chunks, &e);
    for (int64_t k = 0; !status && k < n; k++) {
        float *own = e.hidden + (size_t)(k * tokens) * width;
        ht_prompt_weigh(&texts[k].prompt[i], own, c->hidden_size);
        for (int64_t token = 0; token < tokens; token++)
            memcpy(r->hidden + (size_t)(k * tokens + token) * all + from, own + (size_t)token * width,
                   width * sizeof *own);
        if (e.pooled)
            memcpy(r->pooled + (size_t)k * (size_t)c->projection_dim,
                   e.pooled + (size_t)(k * how->chunks) * (size_t)c->projection_dim,
                   (size_t)c->projection_dim * sizeof *own);
    }
    return status;
}

static ht_status encode_with_t5(const ht_texts *t, const ht_text_encoding *how, int64_t n, const ht_text *texts,
                                float *hidden, float *mask)
{
    int length = ht_texts_length(t);
    size_t row = (size_t)length * sizeof(int32_t);
    ht_arena *arena = ht_arena_create();
    int32_t *ids = arena ? ht_alloc_array(arena, (size_t)n, row) : NULL;
    float *own = arena && !mask ? ht_alloc_array(arena, (size_t)n, row) : mask;
    ht_status status = ids && own ? HT_OK : HT_ERR_MEMORY;
    for (int64_t k = 0; !status && k < n; k++) {
        memcpy(ids + k * length, texts[k].prompt[0].ids, row);
        memcpy(own + k * length, texts[k].prompt[0].weights, row);
    }
    if (!status)
        status = ht_t5_text_encode(t->encoders[0].t5, how->session, n, length, ids, own, hidden);
    ht_arena_free(arena);
    return status;
}

ht_status ht_texts_encode(const ht_texts *t, const ht_text_encoding *how, int64_t n, ht_text *texts, float *hidden,
                          float *pooled, float *mask)
{
    const request r = {t, how, n, texts, hidden, pooled};
    ht_status status = HT_OK;
    int from = 0;
    if (t->encoders[0].t5 && how->clip_skip)
        return ht_fail(HT_ERR_ARGUMENT, "%s: clip_skip is of CLIP's text encoders", t->denoiser->path);
    if (t->encoders[0].t5)
        return encode_with_t5(t, how, n, texts, hidden, mask);
    if (how->clip_skip < 0 || how->clip_skip > 1 || (how->clip_skip && t->pools))
        return ht_fail(HT_ERR_ARGUMENT, "clip_skip is %d; wanted 0 or 1, with one text encoder", how->clip_skip);
    for (int i = 0; !status && i < t->n; i++) {
        ht_arena *arena = ht_arena_create();
        status = arena ? encode_with(&r, i, from, arena) : HT_ERR_MEMORY;
        from += ht_clip_config_of(t->encoders[i].clip)->hidden_size;
        ht_arena_free(arena);
    }
    return status;
}
