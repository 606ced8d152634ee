/* prompts.c - contexts of prompts: the lines of a file, or a few of our own, through the text encoders of a pipeline,
 * as its pipeline would: one encoder's last_hidden_state (Stable Diffusion), or the penultimate hidden states of two
 * beside one another, the pooled prompt of the second, and the picture's sizes (SDXL). */
#include <stdlib.h>
#include <string.h>

#include "calib/contexts.h"
#include "core/file.h"
#include "cpu/backend.h"
#include "text/clip.h"
#include "text/clip_tokenizer.h"

enum { MOST_PROMPTS = 1024, ENCODED_AT_ONCE = 16, ENCODERS = 2 };

/* What many pictures are of, at different lengths. */
static const char *const own_prompts[] = {
    "a photo of a cat",
    "a red apple on a wooden table",
    "a portrait of an old man with a grey beard, oil painting",
    "a mountain lake at sunrise, mist over the water",
    "a smiling face",
    "a yellow taxi in a city street at night, neon lights, rain",
    "a watercolor of a penguin wearing a scarf",
    "a slice of pizza",
    "an astronaut riding a horse on the moon, highly detailed, 35mm photograph",
    "a dog running on the beach",
    "a blue heart",
    "a cozy living room with a fireplace and many books",
    "a rocket launch, smoke and fire, cinematic lighting",
    "a bowl of ramen with egg and green onions, top view",
    "a butterfly on a flower, macro",
    "a medieval castle on a hill, fantasy concept art",
};

/* ---- prompts ---- */

typedef struct lines {
    const char *at[MOST_PROMPTS];
    int n;
} lines;

static ht_status take_line(ht_arena *arena, const char *path, const char *text, size_t size, lines *out)
{
    while (size && (text[size - 1] == '\r' || text[size - 1] == ' ' || text[size - 1] == '\t'))
        size--;
    if (!size)
        return HT_OK;
    if (size > HT_LONGEST_TEXT || memchr(text, 0, size))
        return ht_fail(HT_ERR_FORMAT, "%s: is not a text of prompts, one a line", path);
    if (out->n == MOST_PROMPTS)
        return ht_fail(HT_ERR_ARGUMENT, "%s: has more than %d prompts", path, MOST_PROMPTS);
    char *line = ht_alloc(arena, size + 1);
    if (!line)
        return HT_ERR_MEMORY;
    memcpy(line, text, size);
    out->at[out->n++] = line;
    return HT_OK;
}

static ht_status read_lines(ht_arena *arena, const char *path, lines *out)
{
    ht_mapping file;
    ht_status status = ht_map_file(path, &file);
    if (status)
        return status;
    const char *text = (const char *)file.data;
    for (size_t at = 0, end; !status && at < file.size; at = end + 1) {
        const char *stop = memchr(text + at, '\n', file.size - at);
        end = stop ? (size_t)(stop - text) : file.size;
        status = take_line(arena, path, text + at, end - at, out);
    }
    ht_unmap_file(&file);
    if (!status && !out->n)
        status = ht_fail(HT_ERR_ARGUMENT, "%s: has no prompt; wanted one a line", path);
    return status;
}

static ht_status list_prompts(ht_arena *arena, const char *path, lines *out)
{
    *out = (lines){.n = 0};
    if (path)
        return read_lines(arena, path, out);
    for (size_t i = 0; i < sizeof own_prompts / sizeof *own_prompts; i++)
        out->at[out->n++] = own_prompts[i];
    return HT_OK;
}

/* In the words that a calibration file keeps. */
static ht_status describe(ht_arena *arena, const lines *prompts, const char **json)
{
    json_t *list = json_array();
    for (int i = 0; i < prompts->n; i++)
        if (json_array_append_new(list, json_string(prompts->at[i]))) {
            json_decref(list);
            return ht_fail(HT_ERR_ARGUMENT, "prompt %d is not UTF-8", i + 1);
        }
    char *text = list ? json_dumps(list, JSON_COMPACT) : NULL;
    *json = text ? ht_strdup(arena, text) : NULL;
    free(text);
    json_decref(list);
    return *json ? HT_OK : ht_fail(HT_ERR_MEMORY, "out of memory for %d prompts", prompts->n);
}

/* ---- one text encoder ---- */

typedef struct encoding {
    ht_clip_output output;
    int tokens, width, pooled_width; /* pooled_width 0: it is not wanted */
    float *hidden, *pooled;          /* [rows][tokens][width], [rows][pooled_width] */
} encoding;

/* Prompts, and behind them the empty one. */
static ht_status tokenize(ht_arena *arena, const ht_clip_tokenizer *t, const lines *prompts, int32_t **ids)
{
    size_t length = (size_t)ht_clip_tokenizer_tokens(t)->length;
    ht_status status = HT_OK;
    *ids = ht_alloc_array(arena, ((size_t)prompts->n + 1) * length, sizeof **ids);
    if (!*ids)
        return HT_ERR_MEMORY;
    for (int i = 0; !status && i <= prompts->n; i++) {
        const char *text = i < prompts->n ? prompts->at[i] : "";
        status = ht_clip_encode(t, text, strlen(text), *ids + (size_t)i * length, NULL);
    }
    return status;
}

static ht_status run_encoder(ht_arena *arena, const ht_clip *m, const int32_t *ids, int rows, int threads, encoding *e)
{
    ht_clip_encoder *encoder = NULL;
    float *out[HT_CLIP_OUTPUTS] = {NULL};
    ht_clip_encoder_options how = {.batch = rows < ENCODED_AT_ONCE ? rows : ENCODED_AT_ONCE,
                                   .tokens = e->tokens,
                                   .wanted = 1u << e->output | (e->pooled_width ? 1u << HT_CLIP_TEXT_EMBEDS : 0),
                                   .backend = {.threads = threads}};
    e->width = ht_clip_config_of(m)->hidden_size;
    e->pooled_width = e->pooled_width ? ht_clip_config_of(m)->projection_dim : 0;
    size_t each = (size_t)e->tokens * (size_t)e->width;
    out[e->output] = e->hidden = ht_alloc_array(arena, (size_t)rows * each, sizeof(float));
    out[HT_CLIP_TEXT_EMBEDS] = e->pooled =
        ht_alloc_array(arena, (size_t)rows * (size_t)e->pooled_width + 1, sizeof(float));
    ht_status status =
        e->hidden && e->pooled ? ht_clip_encoder_open(m, &ht_cpu_backend, &how, &encoder) : HT_ERR_MEMORY;
    if (!status)
        status = ht_clip_encoder_run(encoder, ids, rows, out);
    ht_clip_encoder_close(encoder);
    return status;
}

static ht_status encode_in(ht_arena *arena, const char *folder, const char *tokenizer_folder, const lines *prompts,
                           int threads, encoding *e)
{
    ht_clip_tokenizer *tokenizer = NULL;
    ht_safetensors *file = NULL;
    ht_weights *weights;
    ht_clip_config config;
    ht_clip *m = NULL;
    json_t *object = NULL;
    int32_t *ids = NULL;
    const char *path = ht_sprintf(arena, "%s/config.json", folder);
    ht_status status = path ? ht_json_read(path, &object) : HT_ERR_MEMORY;
    if (!status)
        status = ht_clip_config_read(object, path, &config);
    if (!status)
        status = ht_open_weights(arena, folder, &file);
    if (!status)
        status = ht_weights_open(arena, file, ht_clip_rename, NULL, &weights);
    if (!status)
        status = ht_clip_open(arena, &config, weights, &m);
    if (!status)
        status = ht_clip_tokenizer_open(tokenizer_folder, &tokenizer);
    if (!status)
        status = ht_clip_tokenizer_fits(tokenizer, config.vocab_size, config.max_position_embeddings);
    if (!status)
        status = tokenize(arena, tokenizer, prompts, &ids);
    if (!status) {
        e->tokens = ht_clip_tokenizer_tokens(tokenizer)->length;
        status = run_encoder(arena, m, ids, prompts->n + 1, threads, e);
    }
    ht_clip_tokenizer_close(tokenizer);
    ht_safetensors_close(file);
    json_decref(object);
    return status;
}

/* ---- a pipeline ---- */

static bool has(const ht_model *model, const char *component)
{
    return json_is_string(json_array_get(json_object_get(model->index, component), 1));
}

/* By name: "text_encoder", "text_encoder_2". */
static ht_status encode(ht_arena *arena, const ht_model *model, const char *end, const lines *prompts, int threads,
                        encoding *e)
{
    const char *folder = ht_sprintf(arena, "%s/text_encoder%s", model->path, end),
               *tokenizer = ht_sprintf(arena, "%s/tokenizer%s", model->path, end);
    return folder && tokenizer ? encode_in(arena, folder, tokenizer, prompts, threads, e) : HT_ERR_MEMORY;
}

/* Hidden states of the encoders beside one another. */
static ht_status join_hidden(ht_arena *arena, const encoding *e, int n, int rows, const float **out)
{
    size_t width = (size_t)e[0].width + (n > 1 ? (size_t)e[1].width : 0), at = 0;
    float *joined = ht_alloc_array(arena, (size_t)rows * (size_t)e[0].tokens * width, sizeof *joined);
    if (!joined)
        return HT_ERR_MEMORY;
    for (int i = 0; i < n; at += (size_t)e[i++].width)
        for (size_t t = 0; t < (size_t)rows * (size_t)e[0].tokens; t++)
            memcpy(joined + t * width + at, e[i].hidden + t * (size_t)e[i].width, (size_t)e[i].width * sizeof *joined);
    *out = joined;
    return HT_OK;
}

/* Pixels of a side of a sample's value: what the decoder upsamples by. */
static int scale_factor(ht_arena *arena, const ht_model *model)
{
    json_t *config = NULL;
    const char *path = ht_sprintf(arena, "%s/vae/config.json", model->path);
    int factor = 8;
    if (path && !ht_json_read(path, &config)) {
        size_t levels = json_array_size(json_object_get(config, "block_out_channels"));
        factor = levels > 0 && levels < 16 ? 1 << (levels - 1) : factor;
    }
    json_decref(config);
    return factor;
}

/* As large as the model draws, and not cropped: original height, width, crop top, left, target height, width. */
static ht_status make_time_ids(ht_arena *arena, const ht_model *model, int rows, const float **out)
{
    size_t width = (size_t)model->info.time_ids;
    float *ids = ht_alloc_array(arena, (size_t)rows * width, sizeof *ids);
    if (!ids)
        return HT_ERR_MEMORY;
    float factor = (float)scale_factor(arena, model), h = factor * (float)model->info.height,
          w = factor * (float)model->info.width;
    for (size_t i = 0; width == 6 && i < (size_t)rows; i++)
        memcpy(ids + i * width, (const float[]){h, w, 0, 0, h, w}, width * sizeof *ids);
    *out = ids;
    return HT_OK;
}

static ht_status refuse(const ht_model *model, const char *what)
{
    return ht_fail(HT_ERR_ARGUMENT, "%s: this model takes %s, which cannot be made of prompts here; give %s",
                   model->path, what,
                   model->index ? "a file that has some (conditions)"
                                : "the folder of the whole pipeline, or a file that has some (conditions)");
}

static ht_status check_pipeline(const ht_model *model)
{
    const ht_denoiser_info *info = &model->info;
    if (!has(model, "text_encoder") && !has(model, "text_encoder_2"))
        return refuse(model, "encoder_hidden_states");
    if (info->class_embed_dim || info->class_timestep)
        return refuse(model, "class_labels");
    if (info->timestep_cond_dim)
        return refuse(model, "timestep_cond");
    if ((info->text_embed_dim || info->time_ids) && !has(model, "text_encoder_2"))
        return refuse(model, "text_embeds");
    return HT_OK;
}

/* The rows of a condition; NULL if the model does not take it. */
static const float **rows_of(ht_contexts *contexts, const ht_denoiser_info *info, const char *name)
{
    for (int i = 0; i < HT_CONDITIONS; i++)
        if (!strcmp(ht_conditions[i].name, name) && ht_condition_width(&ht_conditions[i], info)) {
            contexts->widths[i] = ht_condition_width(&ht_conditions[i], info);
            return &contexts->rows[i];
        }
    return NULL;
}

static ht_status fill(ht_arena *arena, const ht_model *model, const encoding *e, int n, ht_contexts *contexts)
{
    const ht_denoiser_info *info = &model->info;
    const float **hidden = rows_of(contexts, info, "encoder_hidden_states"),
                **pooled = rows_of(contexts, info, "text_embeds"), **ids = rows_of(contexts, info, "time_ids");
    const encoding *last = &e[n - 1];
    int width = e[0].width + (n > 1 ? e[1].width : 0);
    if (width != info->cross_attention_dim || (n > 1 && e[0].tokens != e[1].tokens))
        return ht_fail(HT_ERR_SHAPE, "%s: its text encoders make %d numbers a token; the denoiser takes %d",
                       model->path, width, info->cross_attention_dim);
    if (pooled && last->pooled_width != info->text_embed_dim)
        return ht_fail(HT_ERR_SHAPE, "%s: its text encoder makes text_embeds of %d numbers; the denoiser takes %d",
                       model->path, last->pooled_width, info->text_embed_dim);
    contexts->tokens = e[0].tokens;
    ht_status status = join_hidden(arena, e, n, contexts->n, hidden);
    if (!status && ids)
        status = make_time_ids(arena, model, contexts->n, ids);
    if (pooled)
        *pooled = last->pooled;
    if (!status && pooled && json_is_true(json_object_get(model->index, "force_zeros_for_empty_prompt"))) {
        size_t each = (size_t)contexts->tokens * (size_t)width, at = (size_t)contexts->negative;
        memset((float *)*hidden + at * each, 0, each * sizeof(float)); /* ours: just made */
        memset(last->pooled + at * (size_t)last->pooled_width, 0, (size_t)last->pooled_width * sizeof(float));
    }
    return status;
}

ht_status ht_contexts_of_prompts(ht_arena *arena, const ht_model *model, const ht_calibrate_options *options,
                                 ht_contexts *contexts)
{
    static const char *const ends[ENCODERS] = {"", "_2"};
    encoding e[ENCODERS] = {{0}};
    lines prompts;
    int n = 0;
    ht_status status = check_pipeline(model);
    if (!status)
        status = list_prompts(arena, options->prompts, &prompts);
    if (!status)
        status = describe(arena, &prompts, &contexts->prompts);
    for (int i = 0; !status && i < ENCODERS; i++) {
        if (!has(model, i ? "text_encoder_2" : "text_encoder"))
            continue;
        e[n].output = model->info.text_embed_dim ? HT_CLIP_PENULTIMATE : HT_CLIP_LAST_HIDDEN_STATE;
        e[n].pooled_width = model->info.text_embed_dim && i;
        status = encode(arena, model, ends[i], &prompts, options->threads, &e[n++]);
    }
    if (status)
        return status;
    contexts->n = prompts.n + 1;
    contexts->negative = prompts.n;
    return fill(arena, model, e, n, contexts);
}
