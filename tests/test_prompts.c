/* test_prompts.c - from prompts and classes to pictures: what diffusers' Stable Diffusion, SDXL, LCM, img2img,
 * inpainting, DiT and PixArt pipelines draw, and what a pipeline promises. */
#include <sys/stat.h>

#include "core/json.h"
#include "sampler/model.h"
#include "sampler/pipeline.h"
#include "tests/folder.h"
#include "tests/goldens.h"

enum { MOST_PROMPTS = 2 };

/* ---- against diffusers ---- */

/* A run of index.json as options of ht_pipeline_draw. */
typedef struct golden_run {
    char label[160], path[512];
    const json_t *run;
    ht_safetensors *golden;
    ht_draw_options options;
    ht_session_options size;
    ht_cond cond;
    float labels[MOST_PROMPTS];
    int pictures;
    const char *prompt[MOST_PROMPTS], *prompt_2[MOST_PROMPTS], *negative[MOST_PROMPTS];
    float *init, *mask, *want;
    size_t count; /* values of all pictures */
    double tolerance;
} golden_run;

/* A text, or a list of them; returns how many. */
static int texts_of(const json_t *value, const char **texts)
{
    if (json_is_string(value)) {
        texts[0] = json_string_value(value);
        return 1;
    }
    assert_in_range(json_array_size(value), 1, MOST_PROMPTS);
    for (size_t i = 0; i < json_array_size(value); i++)
        texts[i] = json_string_value(json_array_get(value, i));
    return (int)json_array_size(value);
}

static void pair_of(const json_t *value, int pair[2])
{
    pair[0] = (int)json_integer_value(json_array_get(value, 0));
    pair[1] = (int)json_integer_value(json_array_get(value, 1));
}

/* A picture in [0,1] as [-1,1], or a mask as it is. */
static float *picture_of(const golden_run *r, const char *name, bool mask)
{
    float *x = images_of(r->golden, name);
    size_t n = tensor_of(r->golden, name)->count;
    for (size_t i = 0; !mask && i < n; i++)
        x[i] = x[i] * 2 - 1;
    return x;
}

static void read_argument(golden_run *r, const char *key, const json_t *value)
{
    ht_draw_options *o = &r->options;
    if (!strcmp(key, "prompt")) {
        r->pictures = texts_of(value, r->prompt);
        o->prompts = r->pictures;
        o->prompt = r->prompt;
    } else if (!strcmp(key, "class_labels")) {
        r->pictures = (int)json_array_size(value);
        assert_in_range(r->pictures, 1, MOST_PROMPTS);
        for (int i = 0; i < r->pictures; i++)
            r->labels[i] = (float)json_integer_value(json_array_get(value, (size_t)i));
        r->cond.class_labels = r->labels;
        o->sample.cond = &r->cond;
    } else if (!strcmp(key, "max_sequence_length")) {
        o->max_sequence_length = (int)json_integer_value(value);
    } else if (!strcmp(key, "use_resolution_binning") || !strcmp(key, "clean_caption")) {
        assert_true(json_is_false(value));
    } else if (!strcmp(key, "prompt_2")) {
        texts_of(value, r->prompt_2);
        o->prompt_2 = r->prompt_2;
    } else if (!strcmp(key, "negative_prompt")) {
        texts_of(value, r->negative);
        o->negative = r->negative;
    } else if (!strcmp(key, "num_inference_steps")) {
        o->sample.steps = (int)json_integer_value(value);
    } else if (!strcmp(key, "guidance_scale")) {
        o->sample.guidance = json_number_value(value);
    } else if (!strcmp(key, "guidance_rescale")) {
        o->sample.guidance_rescale = json_number_value(value);
    } else if (!strcmp(key, "eta")) {
        o->sample.eta = json_number_value(value);
    } else if (!strcmp(key, "height")) {
        r->size.height = (int)json_integer_value(value);
    } else if (!strcmp(key, "width")) {
        r->size.width = (int)json_integer_value(value);
    } else if (!strcmp(key, "clip_skip")) {
        o->clip_skip = (int)json_integer_value(value);
    } else if (!strcmp(key, "original_size")) {
        pair_of(value, o->original_size);
    } else if (!strcmp(key, "crops_coords_top_left")) {
        pair_of(value, o->crop);
    } else if (!strcmp(key, "target_size")) {
        pair_of(value, o->target_size);
    } else if (!strcmp(key, "strength")) {
        o->strength = json_number_value(value);
    } else if (!strcmp(key, "image")) {
        o->init = r->init = picture_of(r, "image", false);
        r->size.height = (int)tensor_of(r->golden, "image")->shape[2];
        r->size.width = (int)tensor_of(r->golden, "image")->shape[3];
    } else if (!strcmp(key, "mask_image")) {
        o->mask = r->mask = picture_of(r, "mask_image", true);
    } else {
        fail_msg("%s: argument %s is not tested", r->label, key);
    }
}

static void open_run(golden_run *r, const char *name, const json_t *run)
{
    const char *key;
    json_t *value;
    *r = (golden_run){.run = run, .tolerance = fmax(1e-4, 20 * golden_real(run, "f32_error"))};
    snprintf(r->path, sizeof r->path, GOLDENS "/%s", name);
    snprintf(r->label, sizeof r->label, "%s %s", name, golden_string(run, "name"));
    r->golden = golden_open(name, golden_string(run, "golden"));
    r->options.sample.rng = HT_RNG_TORCH_CPU;
    r->options.sample.seed = (uint64_t)json_integer_value(json_object_get(run, "seed"));
    r->options.plain_prompts = 1;
    json_object_foreach(json_object_get(run, "args"), key, value) read_argument(r, key, value);
    const char *result = r->init ? "result" : "image";
    r->want = images_of(r->golden, result);
    r->count = tensor_of(r->golden, result)->count;
}

static void close_run(golden_run *r)
{
    ht_safetensors_close(r->golden);
    free(r->init);
    free(r->mask);
    free(r->want);
}

/* A run with another scheduler brings its configuration in scheduler.RUN. */
static void take_scheduler(const golden_run *r, ht_pipeline *p)
{
    char path[800];
    json_t *config;
    if (!json_object_get(r->run, "scheduler"))
        return;
    snprintf(path, sizeof path, "%s/scheduler.%s/scheduler_config.json", r->path, golden_string(r->run, "name"));
    assert_ok(ht_json_read(path, &config));
    assert_ok(ht_schedule_read(p->denoiser->arena, config, path, &p->denoiser->schedule));
    json_decref(config);
}

/* [-1,1] to what a pipeline returns, in place. */
static void to_pixels(float *x, size_t n)
{
    for (size_t i = 0; i < n; i++)
        x[i] = fminf(fmaxf(x[i] / 2 + 0.5f, 0), 1);
}

static void check_run(const char *name, const json_t *run)
{
    golden_run r;
    open_run(&r, name, run);
    for (int batch = 1; batch <= r.pictures; batch++) {
        ht_pipeline *p;
        float *images = malloc(r.count * sizeof *images);
        assert_non_null(images);
        r.size.batch = batch;
        assert_ok(ht_pipeline_open(r.path, &r.size, &p));
        take_scheduler(&r, p);
        assert_ok(ht_pipeline_draw(p, &r.options, 0, r.pictures, images));
        to_pixels(images, r.count);
        assert_close(r.label, images, r.want, r.count, r.tolerance);
        ht_pipeline_close(p);
        free(images);
    }
    close_run(&r);
}

static void check_pipeline(const char *name, const json_t *entry)
{
    const json_t *runs = json_object_get(entry, "runs");
    assert_true(json_array_size(runs) > 0);
    for (size_t i = 0; i < json_array_size(runs); i++)
        check_run(name, json_array_get(runs, i));
}

static void stable_diffusion_draws_what_diffusers_draws(void **state)
{
    (void)state;
    assert_int_equal(golden_each("pipeline", "StableDiffusionPipeline", check_pipeline), 1);
}

static void sdxl_draws_what_diffusers_draws(void **state)
{
    (void)state;
    assert_int_equal(golden_each("pipeline", "StableDiffusionXLPipeline", check_pipeline), 1);
}

static void lcm_draws_what_diffusers_draws(void **state)
{
    (void)state;
    assert_int_equal(golden_each("pipeline", "LatentConsistencyModelPipeline", check_pipeline), 1);
}

static void inpainting_draws_what_diffusers_draws(void **state)
{
    (void)state;
    assert_int_equal(golden_each("pipeline", "StableDiffusionInpaintPipeline", check_pipeline), 1);
}

/* DiTPipeline takes the noise of steps from torch's global generator whatever generator it was given: so a run that
 * has any was recorded again after torch.manual_seed(0), without a generator. */
static void check_classes(const char *name, const json_t *entry)
{
    const json_t *runs = json_object_get(entry, "runs");
    assert_int_equal(json_array_size(runs), 2);
    check_run(name, json_array_get(runs, 0));
    json_t *again = json_deep_copy(json_array_get(runs, 1));
    json_object_set_new(again, "golden", json_string("golden.ddpm-manual-seed.safetensors"));
    check_run(name, again);
    json_decref(again);
}

static void dit_draws_what_diffusers_draws(void **state)
{
    (void)state;
    assert_int_equal(golden_each("pipeline", "DiTPipeline", check_classes), 1);
}

static void pixart_draws_what_diffusers_draws(void **state)
{
    (void)state;
    assert_int_equal(golden_each("pipeline", "PixArtAlphaPipeline", check_pipeline), 1);
    assert_int_equal(golden_each("pipeline", "PixArtSigmaPipeline", check_pipeline), 1);
}

/* ---- what a pipeline promises ---- */

enum { SIDE = 16, PICTURE = SIDE * SIDE * 3, STEPS = 3 };

static const char sd1[] = GOLDENS "/pipeline/sd1";
static const ht_session_options small = {.height = SIDE, .width = SIDE};

static ht_pipeline *open_small(const char *path, int batch)
{
    ht_pipeline *p;
    ht_session_options o = small;
    o.batch = batch;
    assert_ok(ht_pipeline_open(path, &o, &p));
    return p;
}

/* n pictures of these prompts. */
static void draw(ht_pipeline *p, const char *const *prompts, int count, int64_t n, float *images)
{
    ht_draw_options o = {.prompts = count, .prompt = prompts, .sample = {.steps = STEPS, .seed = 5}};
    assert_ok(ht_pipeline_draw(p, &o, 0, n, images));
}

static const char long_prompt[] =
    "a b c d e f g h i j k l m n o p q r s t u v w x y z a b c d e f g h i j k l m n o p q r s t u v w x y z "
    "a b c d e f g h i j k l m n o p q r s t u v w x y z, and more";

/* Alone, in any batch, beside other prompts, longer ones too. */
static void a_picture_depends_on_its_own_prompt_alone(void **state)
{
    (void)state;
    static float all[6 * PICTURE], one[PICTURE];
    const char *const prompts[] = {"a cat", long_prompt, "two dogs"};
    for (int batch = 1; batch <= 4; batch += 3) {
        ht_pipeline *p = open_small(sd1, batch);
        draw(p, prompts, 3, 6, all);
        for (int i = 0; i < 3; i++) {
            draw(p, prompts + i, 1, 1, one);
            assert_memory_equal(one, all + 2 * i * PICTURE, sizeof one);
        }
        assert_true(relative_error(all, all + PICTURE, PICTURE) > 0);
        assert_true(relative_error(all, all + 4 * PICTURE, PICTURE) > 0);
        ht_pipeline_close(p);
    }
}

/* Keys and values of the prompt are computed before the first step and not again for the next batch. */
static void what_depends_on_the_prompt_alone_runs_once(void **state)
{
    (void)state;
    static float images[3 * PICTURE];
    const char *const prompt[] = {"a cat"};
    int ops = 0;
    ht_pipeline *p = open_small(sd1, 1);
    ht_pipeline_info info;
    draw(p, prompt, 1, 3, images);
    ht_pipeline_get_info(p, &info);
    for (int i = 0; i < info.session.ops; i++) {
        ht_op_info op;
        ht_session_op(p->session, i, &op);
        if (strcmp(op.stage, "cond") != 0 || !strcmp(op.kind, "reshape"))
            continue;
        assert_int_equal(op.runs, 1);
        ops++;
    }
    assert_true(ops >= 4);
    ht_pipeline_close(p);
}

static void weights_in_brackets_change_the_picture_and_plain_prompts_do_not_read_them(void **state)
{
    (void)state;
    static float a[PICTURE], b[PICTURE];
    ht_pipeline *p = open_small(sd1, 1);
    const char *const plain[] = {"a cat"}, *const once[] = {"(a cat:1.0)"}, *const more[] = {"a (cat:1.5)"};
    draw(p, plain, 1, 1, a);
    draw(p, once, 1, 1, b);
    assert_memory_equal(a, b, sizeof a);
    draw(p, more, 1, 1, b);
    assert_true(relative_error(a, b, PICTURE) > 0);
    ht_draw_options o = {.prompts = 1, .prompt = once, .plain_prompts = 1, .sample = {.steps = STEPS, .seed = 5}};
    assert_ok(ht_pipeline_draw(p, &o, 0, 1, b));
    assert_true(relative_error(a, b, PICTURE) > 0);
    ht_pipeline_close(p);
}

/* What is kept at a branch, given to the network without what is below, gives the whole network's output. */
static void a_shallow_network_with_what_was_kept_is_the_whole(void **state)
{
    (void)state;
    enum { N = 2, SIZE = 9 * 14 * 4, WIDTH = 16, TOKENS = 3 };
    ht_model *m;
    static float x[N * SIZE], hidden[N * TOKENS * WIDTH], whole[N * SIZE], kept[N * SIZE], shallow[N * SIZE],
        cached[1 << 16];
    assert_ok(ht_model_open(sd1, NULL, &m));
    assert_int_equal(m->info.cross_attention_dim, WIDTH);
    for (size_t i = 0; i < N * SIZE; i++)
        x[i] = sinf((float)i);
    for (size_t i = 0; i < N * TOKENS * WIDTH; i++)
        hidden[i] = cosf((float)i);
    const ht_session_options o = {.batch = N, .height = 9, .width = 14, .tokens = TOKENS};
    const ht_cond cond = {.encoder_hidden_states = hidden};
    assert_true(m->info.branches > 3);
    for (int branch = 0; branch < m->info.branches; branch++) {
        ht_session *s[3];
        float *out[3] = {whole, kept, shallow};
        for (int depth = HT_DEPTH_WHOLE; depth <= HT_DEPTH_SHALLOW; depth++) {
            assert_ok(ht_session_open_with(m, &o, &(ht_session_extras){.depth = (ht_depth)depth, .branch = branch},
                                           &s[depth]));
            assert_ok(ht_session_set_timesteps(s[depth], 1, &(float){500}));
            assert_ok(ht_session_set_cond(s[depth], N, &cond));
            if (depth == HT_DEPTH_SHALLOW) {
                assert_int_equal(ht_session_cached_count(s[2]), ht_session_cached_count(s[1]));
                assert_true(N * ht_session_cached_count(s[1]) <= 1 << 16);
                assert_ok(ht_session_read_cached(s[1], cached));
                assert_ok(ht_session_give_cached(s[2], cached));
            }
            assert_ok(ht_session_step(s[depth], 0, x, out[depth]));
        }
        assert_memory_equal(kept, whole, sizeof whole);
        assert_memory_equal(shallow, whole, sizeof whole);
        for (int i = 0; i < 3; i++)
            ht_session_close(s[i]);
    }
    ht_model_close(m);
}

/* Interval 1 caches nothing; 2 is another picture, the same in any batch. */
static void caching_draws_the_same_in_any_batch(void **state)
{
    (void)state;
    static float none[3 * PICTURE], each[3 * PICTURE], cached[2][3 * PICTURE];
    const char *const prompt[] = {"a cat"};
    ht_draw_options o = {.prompts = 1, .prompt = prompt, .sample = {.steps = 4}};
    for (int batch = 1; batch <= 3; batch += 2) {
        ht_pipeline *p = open_small(sd1, batch);
        o.cache_interval = 0;
        assert_ok(ht_pipeline_draw(p, &o, 0, 3, none));
        o.cache_interval = 1;
        assert_ok(ht_pipeline_draw(p, &o, 0, 3, each));
        assert_memory_equal(none, each, sizeof none);
        o.cache_interval = 2;
        assert_ok(ht_pipeline_draw(p, &o, 0, 3, cached[batch > 1]));
        assert_true(relative_error(none, cached[batch > 1], PICTURE) > 0);
        ht_pipeline_close(p);
    }
    assert_memory_equal(cached[0], cached[1], sizeof none);
}

static int previews;

static void count_preview(void *user, int step, int steps, int height, int width, const float *image)
{
    const int *side = user;
    assert_int_equal(step, previews++);
    assert_int_equal(steps, STEPS);
    assert_int_equal(height, *side);
    assert_int_equal(width, *side);
    for (int i = 0; i < height * width * 3; i++)
        assert_true(isfinite(image[i]));
}

static void every_step_is_previewed(void **state)
{
    (void)state;
    static float image[PICTURE];
    int side = SIDE / 2; /* a latent is two pixels */
    const char *const prompt[] = {"a cat"};
    ht_pipeline *p = open_small(sd1, 1);
    ht_draw_options o = {.prompts = 1, .prompt = prompt, .sample = {.steps = STEPS}};
    o.preview = count_preview;
    o.preview_user = &side;
    previews = 0;
    assert_ok(ht_pipeline_draw(p, &o, 0, 1, image));
    assert_int_equal(previews, STEPS);
    o.preview_model = sd1;
    assert_refused(ht_pipeline_draw(p, &o, 0, 1, image), HT_ERR_SHAPE, "no decoder of this model's latents");
    ht_pipeline_close(p);
}

/* All of a picture masked out is the picture itself, through the autoencoder. */
static void what_is_not_masked_stays(void **state)
{
    (void)state;
    static float init[PICTURE], mask[SIDE * SIDE], image[PICTURE], other[PICTURE];
    const char *const prompt[] = {"a cat"}, *const prompt_2[] = {"two dogs"};
    ht_pipeline *p = open_small(sd1, 1);
    for (int i = 0; i < PICTURE; i++)
        init[i] = sinf((float)i / 40);
    ht_draw_options o = {.prompts = 1, .prompt = prompt, .init = init, .mask = mask, .sample = {.steps = STEPS}};
    assert_ok(ht_pipeline_draw(p, &o, 0, 1, image));
    o.prompt = prompt_2;
    assert_ok(ht_pipeline_draw(p, &o, 0, 1, other));
    assert_memory_equal(image, other, sizeof image);
    for (int i = 0; i < SIDE * SIDE; i++)
        mask[i] = 1;
    assert_ok(ht_pipeline_draw(p, &o, 0, 1, other));
    assert_true(relative_error(image, other, PICTURE) > 0);
    ht_pipeline_close(p);
}

static void what_does_not_go_together_is_refused(void **state)
{
    (void)state;
    static float init[PICTURE], mask[SIDE * SIDE], image[2 * PICTURE];
    const char *const prompt[] = {"a cat"}, *const damaged[] = {"caf\xc3"}, *const bracket[] = {"(a:1.2.3)"};
    const struct {
        ht_draw_options o;
        const char *says;
    } rows[] = {
        {{.prompts = 0}, "needs a prompt"},
        {{.prompts = 1, .prompt = damaged}, "UTF-8"},
        {{.prompts = 1, .prompt = bracket}, "1.2.3"},
        {{.prompts = 1, .prompt = prompt, .mask = mask}, "a mask needs the picture"},
        {{.prompts = 1, .prompt = prompt, .init = init, .strength = 1.5}, "strength is 1.5"},
        {{.prompts = 1, .prompt = prompt, .init = init, .strength = 0.1, .sample = {.steps = 5}}, "less than one step"},
        {{.prompts = 1, .prompt = prompt, .clip_skip = 2}, "clip_skip is 2"},
        {{.prompts = 1, .prompt = prompt, .sample = {.guidance = NAN}}, "guidance is"},
        {{.prompts = 1, .prompt = prompt, .sample = {.guidance_rescale = 2}}, "rescaled by 2"},
        {{.prompts = 1, .prompt = prompt, .cache_interval = 2, .cache_branch = 99}, "branches 0 to"},
        {{.prompts = 1, .prompt = prompt, .cache_interval = -1}, "interval -1"},
        {{.prompts = 1, .prompt = prompt, .sample = {.sampler = "plms"}}, "plms"},
        {{.prompts = 1, .prompt = prompt, .sample = {.sigmas = "cosine"}}, "cosine"},
        {{.prompts = 1, .prompt = prompt, .sample = {.sampler = "euler", .spacing = "quad"}}, "quad spacing"},
    };
    ht_pipeline *p = open_small(sd1, 1);
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        ht_status status = ht_pipeline_draw(p, &rows[i].o, 0, 1, image);
        if (status != HT_ERR_ARGUMENT || !strstr(ht_error_message(), rows[i].says))
            fail_msg("row %zu: status %d, \"%s\"; want \"%s\"", i, status, ht_error_message(), rows[i].says);
    }
    ht_pipeline_close(p);
    assert_refused(ht_pipeline_open(sd1, &(ht_session_options){.height = 15, .width = 16}, &p), HT_ERR_ARGUMENT,
                   "a multiple of 2");
    p = open_small(GOLDENS "/pipeline/sd1-inpaint", 1);
    assert_refused(ht_pipeline_draw(p, &(ht_draw_options){.prompts = 1, .prompt = prompt}, 0, 1, image),
                   HT_ERR_ARGUMENT, "an inpainting model needs");
    ht_pipeline_close(p);
}

/* ---- single files ---- */

static void link_in_folder(const char *name)
{
    char target[1024];
    assert_non_null(getcwd(target, sizeof target - 100));
    strcat(target, "/" GOLDENS "/ldm_single/sd1/");
    strcat(target, name);
    assert_int_equal(symlink(target, in_folder(name)), 0);
}

/* A tokenizer of single letters, as large as the file's text encoder wants it. */
static void put_tokenizer(void)
{
    char vocab[4096] = "{";
    for (int i = 0; i < 26; i++)
        snprintf(vocab + strlen(vocab), sizeof vocab - strlen(vocab), "\"%c\": %d, \"%c</w>\": %d, ", 'a' + i, i,
                 'a' + i, 26 + i);
    strcat(vocab, "\"<|startoftext|>\": 398, \"<|endoftext|>\": 399}");
    assert_int_equal(mkdir(in_folder("tokenizer"), 0700), 0);
    put_file("tokenizer/vocab.json", vocab, strlen(vocab));
    put_file("tokenizer/merges.txt", "#version: 0.2\n", 14);
    static const char config[] =
        "{\"model_max_length\": 77, \"bos_token\": \"<|startoftext|>\", \"eos_token\": "
        "\"<|endoftext|>\", \"unk_token\": \"<|endoftext|>\", \"pad_token\": \"<|endoftext|>\"}";
    put_file("tokenizer/tokenizer_config.json", config, sizeof config - 1);
}

/* With its text encoder, as it is sampled. */
static void single_files_are_calibrated_with_prompts(void)
{
    ht_model *m;
    char *json;
    FILE *f = fopen(in_folder("prompts.txt"), "w");
    assert_non_null(f);
    assert_true(fputs("c a t\nd o g\n", f) >= 0 && !fclose(f));
    assert_ok(ht_model_open(in_folder("model.safetensors"), NULL, &m));
    char *prompts = strdup(in_folder("prompts.txt")), *calib = strdup(in_folder("calib.safetensors"));
    assert_ok(
        ht_calibrate(m, &(ht_calibrate_options){.steps = 2, .timesteps = 1, .per_step = 2, .prompts = prompts}, calib));
    assert_ok(ht_calibration_json(calib, &json));
    assert_non_null(strstr(json, "c a t"));
    unlink(prompts);
    unlink(calib);
    free(prompts);
    free(calib);
    free(json);
    ht_model_close(m);
}

static void a_single_file_draws_from_prompts(void **state)
{
    (void)state;
    static float a[PICTURE], b[PICTURE];
    const char *const cat[] = {"c a t"}, *const dog[] = {"d o g"};
    ht_pipeline *p;
    link_in_folder("model.safetensors");
    link_in_folder("unet.json");
    link_in_folder("vae.json");
    p = open_small(in_folder("model.safetensors"), 1);
    assert_refused(ht_pipeline_draw(p, &(ht_draw_options){.prompts = 1, .prompt = cat}, 0, 1, a), HT_ERR_UNSUPPORTED,
                   "no tokenizer");
    ht_pipeline_close(p);
    link_in_folder("text_encoder.json");
    put_tokenizer();
    p = open_small(in_folder("model.safetensors"), 1);
    assert_int_equal(p->denoiser->schedule.beta_schedule, HT_BETAS_SCALED_LINEAR);
    assert_false(p->denoiser->schedule.clip_sample);
    draw(p, cat, 1, 1, a);
    draw(p, dog, 1, 1, b);
    assert_true(relative_error(a, b, PICTURE) > 0);
    for (int i = 0; i < PICTURE; i++)
        assert_true(isfinite(a[i]));
    ht_pipeline_close(p);
    single_files_are_calibrated_with_prompts();
    unlink(in_folder("tokenizer/vocab.json"));
    unlink(in_folder("tokenizer/merges.txt"));
    unlink(in_folder("tokenizer/tokenizer_config.json"));
    rmdir(in_folder("tokenizer"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(stable_diffusion_draws_what_diffusers_draws),
        cmocka_unit_test(sdxl_draws_what_diffusers_draws),
        cmocka_unit_test(lcm_draws_what_diffusers_draws),
        cmocka_unit_test(inpainting_draws_what_diffusers_draws),
        cmocka_unit_test(dit_draws_what_diffusers_draws),
        cmocka_unit_test(pixart_draws_what_diffusers_draws),
        cmocka_unit_test(a_picture_depends_on_its_own_prompt_alone),
        cmocka_unit_test(what_depends_on_the_prompt_alone_runs_once),
        cmocka_unit_test(weights_in_brackets_change_the_picture_and_plain_prompts_do_not_read_them),
        cmocka_unit_test(a_shallow_network_with_what_was_kept_is_the_whole),
        cmocka_unit_test(caching_draws_the_same_in_any_batch),
        cmocka_unit_test(every_step_is_previewed),
        cmocka_unit_test(what_is_not_masked_stays),
        cmocka_unit_test(what_does_not_go_together_is_refused),
        cmocka_unit_test(a_single_file_draws_from_prompts),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
