/* prompts.c - contexts of prompts: the lines of a file, or a few of our own, through the text encoders of a pipeline
 * (sampler/texts.h), a row of tokens each and without weights; with them the picture's sizes (SDXL), or the guidance
 * that a distilled model is told of (LCM). */
#include <stdlib.h>
#include <string.h>

#include "calib/contexts.h"
#include "core/file.h"
#include "sampler/guide.h"
#include "sampler/texts.h"
#include "text/clip_tokenizer.h"

enum { MOST_PROMPTS = 1024 };

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

/* ---- a pipeline ---- */

static bool has(const ht_model *model, const char *component)
{
    return json_is_string(json_array_get(json_object_get(model->index, component), 1));
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

/* As large as the model draws, and not cropped: original height, width, crop top, left, target height, width (SDXL);
 * height and width, and one by the other (PixArt-alpha). */
static void set_sizes(ht_arena *arena, const ht_model *model, int rows, float *ids, float *resolution, float *aspect)
{
    float factor = (float)scale_factor(arena, model), h = factor * (float)model->info.height,
          w = factor * (float)model->info.width;
    for (int i = 0; i < rows; i++) {
        if (ids && model->info.time_ids == 6)
            memcpy(ids + (size_t)i * 6, (const float[]){h, w, 0, 0, h, w}, sizeof(float[6]));
        if (resolution && model->info.resolution == 2)
            memcpy(resolution + (size_t)i * 2, (const float[]){h, w}, sizeof(float[2]));
        if (aspect)
            aspect[i] = h / w;
    }
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
    if (info->class_embed_dim || info->class_timestep)
        return refuse(model, "class_labels");
    if ((info->text_embed_dim || info->time_ids) && !has(model, "text_encoder_2"))
        return refuse(model, "text_embeds");
    return HT_OK;
}

/* Room for the rows of a condition, or of its tokens; NULL in *rows if the model does not take it. */
static ht_status take_rows(ht_arena *arena, const ht_model *model, ht_contexts *contexts, const char *name,
                           float **rows)
{
    *rows = NULL;
    for (int i = 0; i < HT_CONDITIONS; i++) {
        int width = ht_condition_width(&ht_conditions[i], &model->info);
        if (strcmp(ht_conditions[i].name, name) != 0 || !width)
            continue;
        size_t tokens = ht_conditions[i].per_token ? (size_t)contexts->tokens : 1;
        contexts->widths[i] = width;
        contexts->rows[i] = *rows = ht_alloc_array(arena, (size_t)contexts->n * tokens * (size_t)width, sizeof **rows);
        return *rows ? HT_OK : HT_ERR_MEMORY;
    }
    return HT_OK;
}

/* The rows of prompts, and behind them that of none, if steps are guided by a second evaluation. */
static ht_status encode(const ht_texts *texts, const lines *prompts, int rows, int threads, float *hidden,
                        float *pooled, float *mask)
{
    const ht_session_options session = {.threads = threads};
    const ht_text_encoding how = {.chunks = 1, .session = &session};
    ht_text *read = calloc((size_t)rows, sizeof *read);
    ht_status status = read ? HT_OK : ht_fail(HT_ERR_MEMORY, "out of memory for %d prompts", rows);
    for (int i = 0; !status && i < rows; i++)
        status = ht_text_read(texts, (const char *const[HT_TEXT_ENCODERS]){i < prompts->n ? prompts->at[i] : ""}, true,
                              &read[i]);
    if (!status)
        status = ht_texts_encode(texts, &how, rows, read, hidden, pooled, mask);
    for (int i = 0; read && i < rows; i++)
        ht_text_free(&read[i]);
    free(read);
    return status;
}

/* Zeros for no prompt, where the pipeline says so (SDXL). */
static void force_zeros(const ht_model *model, const ht_contexts *contexts, float *hidden, float *pooled)
{
    size_t each = (size_t)contexts->tokens * (size_t)model->info.cross_attention_dim;
    size_t width = (size_t)model->info.text_embed_dim, at = (size_t)contexts->negative;
    if (!pooled || contexts->negative < 0 ||
        !json_is_true(json_object_get(model->index, "force_zeros_for_empty_prompt")))
        return;
    memset(hidden + at * each, 0, each * sizeof *hidden);
    memset(pooled + at * width, 0, width * sizeof *pooled);
}

/* What is of all prompts alike: sizes, and the guidance that a distilled model is told of. */
static ht_status make_numbers(ht_arena *arena, const ht_model *model, double guidance, ht_contexts *contexts)
{
    int dim = model->info.timestep_cond_dim;
    float *ids, *resolution, *aspect, *told;
    ht_status status = take_rows(arena, model, contexts, "time_ids", &ids);
    if (!status)
        status = take_rows(arena, model, contexts, "resolution", &resolution);
    if (!status)
        status = take_rows(arena, model, contexts, "aspect_ratio", &aspect);
    if (!status)
        status = take_rows(arena, model, contexts, "timestep_cond", &told);
    if (status)
        return status;
    set_sizes(arena, model, contexts->n, ids, resolution, aspect);
    for (int i = 0; told && i < contexts->n; i++)
        ht_guidance_embedding(guidance, dim, told + i * dim);
    return HT_OK;
}

static ht_status make_rows(ht_arena *arena, const ht_model *model, const ht_texts *texts, const lines *prompts,
                           const ht_calibrate_options *options, ht_contexts *contexts)
{
    enum { OF_PROMPTS = 15 }; /* halves: 7.5 */
    float *hidden, *pooled, *mask;
    ht_status status = take_rows(arena, model, contexts, "encoder_hidden_states", &hidden);
    if (!status)
        status = take_rows(arena, model, contexts, "text_embeds", &pooled);
    if (!status)
        status = take_rows(arena, model, contexts, "encoder_attention_mask", &mask);
    if (!status)
        status = encode(texts, prompts, contexts->n, options->threads, hidden, pooled, mask);
    if (status)
        return status;
    force_zeros(model, contexts, hidden, pooled);
    return make_numbers(arena, model, options->guidance > 0 ? options->guidance : OF_PROMPTS / 2.0, contexts);
}

ht_status ht_contexts_of_prompts(ht_arena *arena, const ht_model *model, const ht_calibrate_options *options,
                                 ht_contexts *contexts)
{
    bool distilled = model->info.timestep_cond_dim > 0; /* has no branch without a prompt */
    ht_texts *texts = NULL;
    lines prompts = {.n = 0};
    ht_status status = check_pipeline(model);
    if (!status)
        status = ht_texts_open(model, &texts);
    if (!status && !texts)
        status = refuse(model, "encoder_hidden_states");
    if (!status)
        status = list_prompts(arena, options->prompts, &prompts);
    if (!status)
        status = describe(arena, &prompts, &contexts->prompts);
    if (!status) {
        contexts->n = prompts.n + !distilled;
        contexts->negative = distilled ? -1 : prompts.n;
        contexts->tokens = ht_texts_length(texts);
        status = make_rows(arena, model, texts, &prompts, options, contexts);
    }
    ht_texts_close(texts);
    return status;
}
