/* test_trajectory.c - schedules and sampler steps: identities that must hold of any, and what is refused. */
#include <math.h>
#include <string.h>

#include "sampler/trajectory.h"
#include "tests/goldens.h"

/* ---- identities ---- */

enum { PIXELS = 5, CHANNELS = 3, COUNT = PIXELS * CHANNELS };

static void fill(float *x, size_t n, uint32_t seed)
{
    for (size_t i = 0; i < n; i++) {
        seed = seed * 1664525u + 1013904223u;
        x[i] = (float)(int32_t)seed / (float)INT32_MAX * 2;
    }
}

/* Step i from the same x, output and noise whatever the trajectory. */
static void step_sample(const ht_trajectory *trajectory, int i, float *x)
{
    float output[COUNT], noise[COUNT], scratch[COUNT];
    fill(x, COUNT, 1);
    fill(output, COUNT, 2);
    fill(noise, COUNT, 3);
    ht_trajectory_step(trajectory, i,
                       &(ht_step_image){.pixels = PIXELS,
                                        .channels = CHANNELS,
                                        .x = x,
                                        .output = output,
                                        .output_channels = CHANNELS,
                                        .noise = noise,
                                        .scratch = scratch});
}

/* DDIM section 4.1: with eta 1 it is DDPM.  The coefficients are doubles rounded once, so states agree to a few units
 * in the last place of the largest term; 1 / sqrt(alpha-bar) is at most 160 here, hence 160 * 2^-22. */
static void ddim_with_eta_1_is_ddpm(void **state)
{
    (void)state;
    ht_arena *arena = ht_arena_create();
    ht_schedule_config config;
    ht_trajectory ddim, ddpm;
    float a[COUNT], b[COUNT];
    ht_schedule_defaults(&config);
    config.clip_sample = false;
    assert_ok(
        ht_trajectory_make(arena, &config, &(ht_trajectory_options){.sampler = "ddim", .steps = 20, .eta = 1}, &ddim));
    assert_ok(ht_trajectory_make(arena, &config, &(ht_trajectory_options){.sampler = "ddpm", .steps = 20}, &ddpm));
    for (int i = 0; i + 1 < ddim.n; i++) {
        step_sample(&ddim, i, a);
        step_sample(&ddpm, i, b);
        assert_close("eta 1", a, b, COUNT, 160.0 / (1 << 22));
    }
    ht_arena_free(arena);
}

static void large_log_variance_is_large_variance(void **state)
{
    (void)state;
    ht_arena *arena = ht_arena_create();
    ht_schedule_config config;
    ht_trajectory plain, logarithmic;
    float a[COUNT], b[COUNT];
    ht_schedule_defaults(&config);
    config.variance_type = HT_VARIANCE_FIXED_LARGE;
    assert_ok(ht_trajectory_make(arena, &config, &(ht_trajectory_options){.sampler = "ddpm", .steps = 9}, &plain));
    config.variance_type = HT_VARIANCE_FIXED_LARGE_LOG;
    assert_ok(
        ht_trajectory_make(arena, &config, &(ht_trajectory_options){.sampler = "ddpm", .steps = 9}, &logarithmic));
    step_sample(&plain, 3, a);
    step_sample(&logarithmic, 3, b);
    assert_memory_equal(a, b, sizeof a);
    ht_arena_free(arena);
}

static void given_betas_make_the_same_alphas(void **state)
{
    (void)state;
    enum { T = 400 };
    ht_arena *arena = ht_arena_create();
    ht_schedule_config config;
    double betas[T];
    float *want, *got;
    ht_schedule_defaults(&config);
    config.num_train_timesteps = T;
    assert_ok(ht_schedule_alphas(arena, &config, &want));
    for (int i = 0; i < T; i++)
        betas[i] = config.beta_start + i * (config.beta_end - config.beta_start) / (T - 1);
    config.beta_schedule = HT_BETAS_GIVEN;
    config.trained_betas = betas;
    config.trained_betas_count = T;
    assert_ok(ht_schedule_alphas(arena, &config, &got));
    assert_close("alphas_cumprod", got, want, T, 1e-7);
    ht_arena_free(arena);
}

/* Improved DDPM section 3.2: beta is clipped at 0.999. */
static void cosine_betas_stop_at_0_999(void **state)
{
    (void)state;
    ht_arena *arena = ht_arena_create();
    ht_schedule_config config;
    float *alphas;
    ht_schedule_defaults(&config);
    config.beta_schedule = HT_BETAS_SQUAREDCOS_CAP_V2;
    assert_ok(ht_schedule_alphas(arena, &config, &alphas));
    assert_true(fabsf(alphas[999] / alphas[998] - 0.001f) <= 1e-6f);
    ht_arena_free(arena);
}

static void zero_snr_ends_in_pure_noise(void **state)
{
    (void)state;
    ht_arena *arena = ht_arena_create();
    ht_schedule_config config;
    float *plain, *alphas;
    ht_schedule_defaults(&config);
    assert_ok(ht_schedule_alphas(arena, &config, &plain));
    config.rescale_betas_zero_snr = true;
    assert_ok(ht_schedule_alphas(arena, &config, &alphas));
    assert_true(alphas[999] == 0);
    assert_true(fabsf(alphas[0] - plain[0]) <= 1e-6f);
    for (int i = 1; i < 1000; i++)
        assert_true(alphas[i] < alphas[i - 1]);
    ht_arena_free(arena);
}

/* The last step of deterministic DDIM returns the predicted x0, so the bounds on it can be seen. */
static void last_step(const ht_schedule_config *config, float *x)
{
    ht_arena *arena = ht_arena_create();
    ht_trajectory trajectory;
    assert_ok(ht_trajectory_make(arena, config, &(ht_trajectory_options){.sampler = "ddim", .steps = 10}, &trajectory));
    float scratch[COUNT], output[COUNT];
    memcpy(output, x, sizeof output);
    ht_trajectory_step(&trajectory, trajectory.n - 1,
                       &(ht_step_image){.pixels = PIXELS,
                                        .channels = CHANNELS,
                                        .x = x,
                                        .output = output,
                                        .output_channels = CHANNELS,
                                        .scratch = scratch});
    ht_arena_free(arena);
}

static void thresholding_divides_by_the_quantile(void **state)
{
    (void)state;
    ht_schedule_config config;
    float x[COUNT];
    ht_schedule_defaults(&config);
    config.prediction_type = HT_PREDICT_SAMPLE;
    config.thresholding = true;
    config.dynamic_thresholding_ratio = 0.75; /* of 15 values: rank 10.5 */
    config.sample_max_value = 100;
    for (int i = 0; i < COUNT; i++)
        x[i] =
            (float)((i * 4) % COUNT) * (i % 2 ? -1.0f : 1.0f); /* magnitudes 0 .. 14, shuffled: the quantile is 10.5 */
    float want[COUNT];
    for (int i = 0; i < COUNT; i++)
        want[i] = fmaxf(fminf(x[i], 10.5f), -10.5f) / 10.5f;
    last_step(&config, x);
    assert_memory_equal(x, want, sizeof x);
}

static void nan_is_not_clipped_away(void **state)
{
    (void)state;
    for (int thresholding = 0; thresholding < 2; thresholding++) {
        ht_schedule_config config;
        float x[COUNT] = {0};
        ht_schedule_defaults(&config);
        config.prediction_type = HT_PREDICT_SAMPLE;
        config.thresholding = thresholding;
        x[7] = NAN;
        last_step(&config, x);
        assert_true(isnan(x[7]));
    }
}

/* ---- what is refused ---- */

static ht_status read_config(const char *text, ht_schedule_config *config)
{
    static ht_arena *arena; /* the configuration borrows from it until the next call */
    ht_arena_free(arena);
    arena = text ? ht_arena_create() : NULL;
    if (!text)
        return HT_OK;
    json_t *object;
    assert_ok(ht_json_parse(text, strlen(text), "test", &object));
    ht_status status = ht_schedule_read(arena, object, "test", config);
    json_decref(object);
    return status;
}

static void settings_that_are_not_known_are_refused(void **state)
{
    (void)state;
    static const struct {
        const char *text, *words;
    } cases[] = {
        {"{\"prediction_type\": \"flow_prediction\"}", "flow_prediction"},
        {"{\"timestep_spacing\": \"karras\"}", "karras"},
        {"{\"beta_schedule\": \"exp\"}", "beta_schedule"},
        {"{\"variance_type\": \"huge\"}", "huge"},
        {"{\"timestep_type\": \"continuous\"}", "continuous"},
        {"{\"_class_name\": \"FlowMatchEulerDiscreteScheduler\", \"shift\": 3.0}", "shift"},
        {"{\"sigma_data\": 0.5}", "sigma_data"},
    };
    ht_schedule_config config;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        assert_refused(read_config(cases[i].text, &config), HT_ERR_UNSUPPORTED, cases[i].words);
    read_config(NULL, NULL);
}

static void settings_out_of_range_are_refused(void **state)
{
    (void)state;
    static const struct {
        const char *text, *words;
    } cases[] = {
        {"{\"num_train_timesteps\": 0}", "num_train_timesteps"},
        {"{\"num_train_timesteps\": 1000000000}", "num_train_timesteps"},
        {"{\"beta_start\": -0.1}", "beta_start"},
        {"{\"beta_end\": 1.0}", "beta_end"},
        {"{\"beta_end\": NaN}", "beta_end"},
        {"{\"clip_sample_range\": 0}", "clip_sample_range"},
        {"{\"sample_max_value\": -1}", "sample_max_value"},
        {"{\"dynamic_thresholding_ratio\": 1.5}", "dynamic_thresholding_ratio"},
        {"{\"steps_offset\": -1}", "steps_offset"},
        {"{\"clip_sample\": 1}", "clip_sample"},
        {"{\"num_train_timesteps\": 3, \"trained_betas\": [0.1, 0.2]}", "trained_betas"},
        {"{\"trained_betas\": 0.1}", "trained_betas"},
        {"{\"trained_betas\": []}", "trained_betas has 0 entries"},
        {"{\"num_train_timesteps\": 1, \"trained_betas\": [\"0.1\"]}", "trained_betas"},
    };
    ht_schedule_config config;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        assert_refused(read_config(cases[i].text, &config), HT_ERR_FORMAT, cases[i].words);
    read_config(NULL, NULL);
}

static void configurations_of_one_sampler_serve_another(void **state)
{
    (void)state;
    ht_schedule_config config;
    ht_trajectory trajectory;
    ht_arena *arena = ht_arena_create();
    assert_ok(read_config(
        "{\"_class_name\": \"PNDMScheduler\", \"_diffusers_version\": \"0.6.0\", \"beta_end\": 0.012, "
        "\"beta_schedule\": \"scaled_linear\", \"beta_start\": 0.00085, \"clip_sample\": false, "
        "\"set_alpha_to_one\": false, \"skip_prk_steps\": true, \"steps_offset\": 1, \"trained_betas\": null}",
        &config));
    assert_string_equal(config.class_name, "PNDMScheduler");
    assert_int_equal(config.beta_schedule, HT_BETAS_SCALED_LINEAR);
    assert_ok(ht_trajectory_make(arena, &config, &(ht_trajectory_options){.steps = 50}, &trajectory));
    assert_string_equal(trajectory.sampler->name, "pndm");
    assert_ok(
        ht_trajectory_make(arena, &config, &(ht_trajectory_options){.steps = 50, .sampler = "ddim"}, &trajectory));
    assert_string_equal(trajectory.sampler->name, "ddim");
    assert_ok(read_config(
        "{\"_class_name\": \"DPMSolverMultistepScheduler\", \"algorithm_type\": \"dpmsolver++\", \"solver_order\": 2, "
        "\"lambda_min_clipped\": -Infinity, \"use_karras_sigmas\": true, \"variance_type\": null}",
        &config));
    read_config(NULL, NULL);
    ht_arena_free(arena);
}

static void given_betas_are_read(void **state)
{
    (void)state;
    ht_schedule_config config;
    ht_arena *arena = ht_arena_create();
    float *alphas;
    assert_ok(read_config("{\"num_train_timesteps\": 2, \"trained_betas\": [0.5, 0.25]}", &config));
    assert_ok(ht_schedule_alphas(arena, &config, &alphas));
    assert_true(alphas[0] == 0.5f && alphas[1] == 0.375f);
    assert_ok(read_config("{\"num_train_timesteps\": 2, \"trained_betas\": [0.5, 1.25]}", &config));
    assert_refused(ht_schedule_alphas(arena, &config, &alphas), HT_ERR_ARGUMENT, "beta 1 of 2 is 1.25");
    assert_ok(read_config("{\"num_train_timesteps\": 1, \"beta_schedule\": \"exp\", \"trained_betas\": [0.5, 0.25]}",
                          &config));
    assert_ok(ht_schedule_alphas(arena, &config, &alphas));
    assert_true(alphas[0] == 0.5f);
    read_config(NULL, NULL);
    ht_arena_free(arena);
}

static void steps_that_cannot_be_taken_are_refused(void **state)
{
    (void)state;
    ht_arena *arena = ht_arena_create();
    ht_trajectory t;
    ht_schedule_config config;
    ht_schedule_defaults(&config);
#define MAKE(...) ht_trajectory_make(arena, &config, &(ht_trajectory_options){__VA_ARGS__}, &t)
    assert_refused(MAKE(.steps = 0), HT_ERR_ARGUMENT, "steps is 0");
    assert_refused(MAKE(.steps = -5), HT_ERR_ARGUMENT, "steps is -5");
    assert_refused(MAKE(.steps = 1001), HT_ERR_ARGUMENT, "1 to 1000");
    assert_refused(MAKE(.steps = 10, .sampler = "plms"), HT_ERR_ARGUMENT, "plms");
    assert_refused(MAKE(.steps = 10, .spacing = "even"), HT_ERR_ARGUMENT, "even");
    assert_refused(MAKE(.steps = 10, .eta = 1.5), HT_ERR_ARGUMENT, "eta");
    assert_refused(MAKE(.steps = 10, .eta = NAN), HT_ERR_ARGUMENT, "eta");
    assert_refused(MAKE(.steps = 10, .eta = 0.5, .sampler = "ddpm"), HT_ERR_ARGUMENT, "eta");
    config.steps_offset = 1;
    assert_refused(MAKE(.steps = 1000), HT_ERR_ARGUMENT, "timestep 1000");
    config.steps_offset = 0;
    config.rescale_betas_zero_snr = true;
    assert_refused(MAKE(.steps = 10, .spacing = "trailing"), HT_ERR_ARGUMENT, "timestep 999");
#undef MAKE
    ht_arena_free(arena);
}

static void sections_that_do_not_fit_are_refused(void **state)
{
    (void)state;
    static const char *const sections[] = {"",     "0",         "-5",      "10,",     ",10", "10;10",
                                           "ddim", "ddim10,10", "ddim301", "600,600", "x"};
    ht_arena *arena = ht_arena_create();
    ht_steps steps;
    for (size_t i = 0; i < sizeof sections / sizeof *sections; i++)
        assert_int_equal(ht_steps_respace(arena, 1000, sections[i], &steps), HT_ERR_ARGUMENT);
    ht_arena_free(arena);
}

/* Every list has what was asked for, falls, and stays inside; of any schedule and any count. */
static void lists_stay_inside_the_schedule(void **state)
{
    (void)state;
    static const int totals[] = {1, 2, 7, 100, 1000};
    static const ht_spacing spacings[] = {HT_SPACING_LEADING, HT_SPACING_TRAILING, HT_SPACING_LINSPACE, HT_SPACING_QUAD,
                                          HT_SPACING_ADM};
    for (size_t k = 0; k < sizeof totals / sizeof *totals; k++) {
        ht_arena *arena = ht_arena_create();
        ht_schedule_config config;
        ht_schedule_defaults(&config);
        config.num_train_timesteps = totals[k];
        for (size_t s = 0; s < sizeof spacings / sizeof *spacings; s++) {
            for (int n = 1; n <= totals[k]; n++) {
                ht_steps steps;
                assert_ok(ht_steps_make(arena, &config, spacings[s], n, &steps));
                assert_int_equal(steps.n, n);
                assert_true(steps.timesteps[0] < totals[k] && steps.timesteps[n - 1] >= 0);
                for (int i = 1; i < n; i++)
                    assert_true(steps.timesteps[i] <= steps.timesteps[i - 1]);
            }
        }
        ht_arena_free(arena);
    }
}

/* diffusers' DDIMScheduler(num_train_timesteps=4, trained_betas=[0.1, 0.2, 0.3, 0.4, 0.5],
 * rescale_betas_zero_snr=True). */
static void zero_snr_is_reached_at_the_last_beta_given(void **state)
{
    (void)state;
    static const float want[] = {0.899999917f, 0.606784821f, 0.296044409f, 0.0744932145f};
    ht_schedule_config config;
    ht_arena *arena = ht_arena_create();
    float *alphas;
    assert_ok(read_config("{\"num_train_timesteps\": 4, \"trained_betas\": [0.1, 0.2, 0.3, 0.4, 0.5], "
                          "\"rescale_betas_zero_snr\": true}",
                          &config));
    assert_ok(ht_schedule_alphas(arena, &config, &alphas));
    assert_close("alphas_cumprod", alphas, want, 4, 1e-6);
    read_config(NULL, NULL);
    ht_arena_free(arena);
}

/* numpy.arange(1000, 0, -1000 / 61) has 62 entries: diffusers' list is this one and a -1 after it. */
static void trailing_has_as_many_timesteps_as_steps(void **state)
{
    (void)state;
    static const int last[] = {97, 81, 65, 48, 32, 15};
    enum { N = sizeof last / sizeof *last };
    ht_arena *arena = ht_arena_create();
    ht_schedule_config config;
    ht_steps steps;
    ht_schedule_defaults(&config);
    assert_ok(ht_steps_make(arena, &config, HT_SPACING_TRAILING, 61, &steps));
    assert_int_equal(steps.n, 61);
    assert_int_equal(steps.timesteps[0], 999);
    assert_memory_equal(steps.timesteps + 61 - N, last, sizeof last);
    ht_arena_free(arena);
}

/* In diffusers too: a class brings its own defaults, which from_config hands on with what the file says; of what the
 * class does not know DDIM has its own. */
static void what_a_class_leaves_out_has_its_default(void **state)
{
    (void)state;
    ht_schedule_config config;
    assert_ok(
        read_config("{\"_class_name\": \"EulerDiscreteScheduler\", \"interpolation_type\": \"linear\"}", &config));
    assert_int_equal(config.timestep_spacing, HT_SPACING_LINSPACE);
    assert_true(config.clip_sample && config.set_alpha_to_one);
    assert_ok(read_config("{\"_class_name\": \"PNDMScheduler\"}", &config));
    assert_int_equal(config.timestep_spacing, HT_SPACING_LEADING);
    assert_false(config.set_alpha_to_one);
    assert_ok(read_config("{\"_class_name\": \"LCMScheduler\"}", &config));
    assert_true(!config.clip_sample && config.beta_schedule == HT_BETAS_SCALED_LINEAR);
    assert_ok(read_config("{\"_class_name\": \"LMSDiscreteScheduler\"}", &config));
    assert_string_equal(ht_sampler_for(config.class_name), "ddim");
    read_config(NULL, NULL);
}

/* No sampler reads what was not kept, and none draws or keeps outside of its slots, wherever it begins. */
static void samplers_may_begin_at_any_step(void **state)
{
    (void)state;
    ht_schedule_config config;
    const char *name;
    ht_schedule_defaults(&config);
    config.solver.skip_prk_steps = true;
    for (int order = 1; order <= 3; order++) {
        config.solver.solver_order = order;
        for (int i = 0; (name = ht_sampler_name(i, NULL)); i++)
            for (int skip = 0; skip < 8; skip++) {
                ht_arena *arena = ht_arena_create();
                ht_trajectory t;
                float x[COUNT], output[COUNT], noise[COUNT], scratch[COUNT], slots[HT_STEP_SLOTS * COUNT];
                assert_ok(ht_trajectory_make(arena, &config,
                                             &(ht_trajectory_options){.sampler = name, .steps = 8, .skip = skip}, &t));
                assert_in_range(t.slots, 0, HT_STEP_SLOTS);
                fill(x, COUNT, 1);
                fill(output, COUNT, 2);
                fill(noise, COUNT, 3);
                for (size_t k = 0; k < HT_STEP_SLOTS * COUNT; k++)
                    slots[k] = NAN;
                for (int step = 0; step < t.n; step++)
                    ht_trajectory_step(&t, step,
                                       &(ht_step_image){.pixels = PIXELS,
                                                        .channels = CHANNELS,
                                                        .x = x,
                                                        .output = output,
                                                        .output_channels = CHANNELS,
                                                        .noise = noise,
                                                        .scratch = scratch,
                                                        .slots = slots});
                for (size_t k = 0; k < COUNT; k++)
                    if (!isfinite(x[k]))
                        fail_msg("%s of order %d from step %d on: x is %g", name, order, skip, (double)x[k]);
                for (size_t k = (size_t)t.slots * COUNT; k < HT_STEP_SLOTS * COUNT; k++)
                    assert_true(isnan(slots[k]));
                ht_arena_free(arena);
            }
    }
}

/* If the model knows the image, every method without noise ends at it: x stays on the line between image and noise. */
static void a_model_that_knows_the_image_gives_it(void **state)
{
    (void)state;
    ht_schedule_config config;
    const char *name;
    ht_schedule_defaults(&config);
    config.clip_sample = false;
    config.solver.skip_prk_steps = true;
    for (int i = 0; (name = ht_sampler_name(i, NULL)); i++) {
        ht_trajectory t;
        float image[COUNT], noise[COUNT], x[COUNT], output[COUNT], scratch[COUNT], slots[HT_STEP_SLOTS * COUNT];
        if (!strcmp(name, "ddpm") || !strcmp(name, "dpm++-sde") || !strcmp(name, "euler-a") || !strcmp(name, "lcm"))
            continue;
        ht_arena *arena = ht_arena_create();
        assert_ok(ht_trajectory_make(arena, &config, &(ht_trajectory_options){.sampler = name, .steps = 10}, &t));
        fill(image, COUNT, 1);
        fill(noise, COUNT, 2);
        ht_add_noise(&t.rows[0], COUNT, image, noise, x);
        for (int step = 0; step < t.n; step++) {
            for (size_t k = 0; k < COUNT; k++)
                output[k] = noise[k];
            ht_trajectory_step(&t, step,
                               &(ht_step_image){.pixels = PIXELS,
                                                .channels = CHANNELS,
                                                .x = x,
                                                .output = output,
                                                .output_channels = CHANNELS,
                                                .scratch = scratch,
                                                .slots = slots});
        }
        if (!(relative_error(x, image, COUNT) <= 0.02)) /* some end at the first timestep, which has a little noise */
            fail_msg("%s ends %g from the image", name, relative_error(x, image, COUNT));
        ht_arena_free(arena);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ddim_with_eta_1_is_ddpm),
        cmocka_unit_test(large_log_variance_is_large_variance),
        cmocka_unit_test(given_betas_make_the_same_alphas),
        cmocka_unit_test(cosine_betas_stop_at_0_999),
        cmocka_unit_test(zero_snr_ends_in_pure_noise),
        cmocka_unit_test(thresholding_divides_by_the_quantile),
        cmocka_unit_test(nan_is_not_clipped_away),
        cmocka_unit_test(settings_that_are_not_known_are_refused),
        cmocka_unit_test(settings_out_of_range_are_refused),
        cmocka_unit_test(configurations_of_one_sampler_serve_another),
        cmocka_unit_test(given_betas_are_read),
        cmocka_unit_test(zero_snr_is_reached_at_the_last_beta_given),
        cmocka_unit_test(trailing_has_as_many_timesteps_as_steps),
        cmocka_unit_test(what_a_class_leaves_out_has_its_default),
        cmocka_unit_test(samplers_may_begin_at_any_step),
        cmocka_unit_test(a_model_that_knows_the_image_gives_it),
        cmocka_unit_test(steps_that_cannot_be_taken_are_refused),
        cmocka_unit_test(sections_that_do_not_fit_are_refused),
        cmocka_unit_test(lists_stay_inside_the_schedule),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
