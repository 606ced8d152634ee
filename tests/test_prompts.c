/* test_prompts.c - from prompts to pictures: what diffusers' Stable Diffusion, SDXL, LCM, img2img and inpainting
 * pipelines draw, and what a pipeline promises. */
#include "core/json.h"
#include "sampler/model.h"
#include "sampler/pipeline.h"
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
        o->prompts = texts_of(value, r->prompt);
        o->prompt = r->prompt;
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
    for (int batch = 1; batch <= r.options.prompts; batch++) {
        ht_pipeline *p;
        float *images = malloc(r.count * sizeof *images);
        assert_non_null(images);
        r.size.batch = batch;
        assert_ok(ht_pipeline_open(r.path, &r.size, &p));
        take_scheduler(&r, p);
        assert_ok(ht_pipeline_draw(p, &r.options, 0, r.options.prompts, images));
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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(stable_diffusion_draws_what_diffusers_draws),
        cmocka_unit_test(sdxl_draws_what_diffusers_draws),
        cmocka_unit_test(lcm_draws_what_diffusers_draws),
        cmocka_unit_test(inpainting_draws_what_diffusers_draws),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
