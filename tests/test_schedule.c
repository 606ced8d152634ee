/* test_schedule.c - schedules, lists of timesteps and sampler steps, against diffusers, DDIM's and ADM's own code. */
#include "tests/goldens.h"

#include "sampler/trajectory.h"

/* A batch of images [n, c, pixels] going through a trajectory, with the model's outputs given or from the stand-in denoiser. */
typedef struct walk {
    const char *label;
    const ht_trajectory *trajectory;
    const float *x;       /* [steps + 1, n, c, pixels], the states wanted */
    const float *outputs; /* [steps, n, output_c, pixels], or NULL: the stand-in */
    const float *noise;   /* [draws, n, c, pixels], or NULL */
    bool draws_always;    /* a draw was recorded at every step */
    size_t n, c, output_c, pixels;
    double tolerance;
} walk;

/* The stand-in denoiser of the golden files. */
static float stand_in(float x, int t)
{
    return 0.3f * sinf(1.7f * x + (float)t / 250.0f) + 0.1f * x;
}

static void model_output(const walk *w, int i, size_t image, const float *x_last, float *out_last)
{
    size_t count = w->output_c * w->pixels;
    if (w->outputs) {
        channels_last(w->pixels, w->output_c, w->outputs + ((size_t)i * w->n + image) * count, out_last);
        return;
    }
    for (size_t k = 0; k < count; k++)
        out_last[k] = stand_in(x_last[k], w->trajectory->rows[i].timestep);
}

/* Step i of the image whose state is x_last [pixels, c]. */
static void step_image(const walk *w, int i, size_t image, size_t draw, float *x_last)
{
    size_t count = w->c * w->pixels;
    float *buffer = malloc((2 * count + w->output_c * w->pixels) * sizeof *buffer);
    float *noise = buffer, *scratch = buffer + count, *out = buffer + 2 * count;
    bool draws = w->trajectory->rows[i].noise != HT_NOISE_NONE;
    assert_non_null(buffer);
    if (draws) {
        assert_non_null(w->noise);
        channels_last(w->pixels, w->c, w->noise + (draw * w->n + image) * count, noise);
    }
    model_output(w, i, image, x_last, out);
    ht_trajectory_step(w->trajectory, i,
                       &(ht_step_image){.pixels = w->pixels,
                                        .channels = (int)w->c,
                                        .x = x_last,
                                        .output = out,
                                        .output_channels = (int)w->output_c,
                                        .noise = draws ? noise : NULL,
                                        .scratch = scratch});
    free(buffer);
}

/* Go all the way from the first state and compare every state on it.  Returns the number of draws. */
static size_t follow(const walk *w)
{
    size_t count = w->c * w->pixels, draw = 0;
    float *states = malloc(w->n * count * sizeof *states), *first = malloc(w->n * count * sizeof *first);
    char what[256];
    assert_true(states && first);
    for (size_t k = 0; k < w->n; k++)
        channels_last(w->pixels, w->c, w->x + k * count, states + k * count);
    for (int i = 0; i < w->trajectory->n; i++) {
        for (size_t k = 0; k < w->n; k++) {
            step_image(w, i, k, draw, states + k * count);
            channels_first(w->pixels, w->c, states + k * count, first + k * count);
        }
        draw += w->draws_always || w->trajectory->rows[i].noise != HT_NOISE_NONE;
        snprintf(what, sizeof what, "%s, state after step %d", w->label, i);
        assert_close(what, first, w->x + (size_t)(i + 1) * w->n * count, w->n * count, w->tolerance);
    }
    free(first);
    free(states);
    return draw;
}

/* ---- diffusers' schedulers --------------------------------------------------------------------------------------------- */

typedef struct scheduler_case {
    const char *name;
    const json_t *entry;
    double tolerance;
    ht_arena *arena;
    ht_schedule_config config;
    ht_safetensors *golden;
} scheduler_case;

static void check_timesteps(const scheduler_case *s, int steps, const ht_trajectory *trajectory)
{
    char name[64];
    snprintf(name, sizeof name, "s%d.timesteps", steps);
    const ht_tensor *t = golden_find(s->golden, name);
    float *want = golden_floats(s->golden, name);
    assert_int_equal(t->count, trajectory->n);
    for (int i = 0; i < trajectory->n; i++)
        if ((float)trajectory->rows[i].timestep != want[i])
            fail_msg("%s %s[%d] is %d, want %g", s->name, name, i, trajectory->rows[i].timestep, (double)want[i]);
    free(want);
}

static ht_trajectory_options step_options(const scheduler_case *s, int steps)
{
    ht_trajectory_options options = {.steps = steps};
    const char *key;
    json_t *value;
    json_object_foreach(json_object_get(s->entry, "step"), key, value)
    {
        if (!strcmp(key, "eta"))
            options.eta = json_number_value(value);
        else if (!strcmp(key, "use_clipped_model_output"))
            options.use_clipped_model_output = json_is_true(value);
        else
            fail_msg("%s: argument %s of step() is not tested", s->name, key);
    }
    assert_int_equal(json_object_size(json_object_get(s->entry, "set_timesteps")), 0);
    return options;
}

static void check_run(const scheduler_case *s, int steps, const json_t *run)
{
    char name[64], label[160];
    ht_trajectory trajectory;
    ht_trajectory_options options = step_options(s, steps);
    assert_ok(ht_trajectory_make(s->arena, &s->config, &options, &trajectory));
    check_timesteps(s, steps, &trajectory);
    snprintf(label, sizeof label, "%s, %d steps", s->name, steps);
    snprintf(name, sizeof name, "s%d.x", steps);
    const ht_tensor *x = golden_find(s->golden, name);
    float *states = golden_floats(s->golden, name), *noise = NULL;
    snprintf(name, sizeof name, "s%d.model_output", steps);
    const ht_tensor *out = golden_find(s->golden, name);
    float *outputs = golden_floats(s->golden, name);
    snprintf(name, sizeof name, "s%d.noise", steps);
    if (ht_safetensors_find(s->golden, name))
        noise = golden_floats(s->golden, name);
    assert_int_equal(x->shape[0], trajectory.n + 1);
    walk w = {.label = label, .trajectory = &trajectory, .x = states, .outputs = outputs, .noise = noise, .tolerance = s->tolerance};
    w.n = (size_t)x->shape[1];
    w.c = (size_t)x->shape[2];
    w.output_c = (size_t)out->shape[2];
    w.pixels = (size_t)(x->shape[3] * x->shape[4]);
    size_t draws = follow(&w);
    assert_int_equal(draws, json_integer_value(json_object_get(run, "noise_draws")));
    free(noise);
    free(outputs);
    free(states);
}

static void check_lists(const scheduler_case *s)
{
    for (size_t i = 0; i < ht_safetensors_count(s->golden); i++) {
        int steps, end = 0;
        ht_trajectory trajectory;
        const char *name = ht_safetensors_at(s->golden, i)->name;
        if (sscanf(name, "s%d.timesteps%n", &steps, &end) != 1 || !end || name[end])
            continue;
        assert_ok(ht_trajectory_make(s->arena, &s->config, &(ht_trajectory_options){.steps = steps}, &trajectory));
        check_timesteps(s, steps, &trajectory);
    }
}

static void check_alphas(const scheduler_case *s)
{
    float *alphas, *want = golden_floats(s->golden, "alphas_cumprod");
    assert_ok(ht_schedule_alphas(s->arena, &s->config, &alphas));
    assert_int_equal(golden_find(s->golden, "alphas_cumprod")->count, s->config.num_train_timesteps);
    assert_close(s->name, alphas, want, (size_t)s->config.num_train_timesteps, s->tolerance);
    free(want);
}

static void check_add_noise(const scheduler_case *s)
{
    float *alphas, *x0 = golden_floats(s->golden, "add_noise.x0"), *noise = golden_floats(s->golden, "add_noise.noise");
    float *t = golden_floats(s->golden, "add_noise.timesteps"), *want = golden_floats(s->golden, "add_noise.out");
    const ht_tensor *shape = golden_find(s->golden, "add_noise.x0");
    size_t n = (size_t)shape->shape[0], each = shape->count / n;
    assert_ok(ht_schedule_alphas(s->arena, &s->config, &alphas));
    for (size_t i = 0; i < n; i++)
        ht_add_noise(alphas[(int)t[i]], each, x0 + i * each, noise + i * each, x0 + i * each);
    assert_close(s->name, x0, want, n * each, s->tolerance);
    free(want);
    free(t);
    free(noise);
    free(x0);
}

static void open_scheduler(scheduler_case *s, const char *name, const json_t *entry)
{
    char path[512];
    json_t *config;
    *s = (scheduler_case){.name = name, .entry = entry, .arena = ht_arena_create()};
    assert_non_null(s->arena);
    s->tolerance = json_number_value(json_object_get(entry, "tolerance"));
    snprintf(path, sizeof path, GOLDENS "/%s/scheduler_config.json", name);
    assert_ok(ht_json_read(path, &config));
    assert_ok(ht_schedule_read(s->arena, config, path, &s->config));
    json_decref(config);
    s->golden = golden_open(name, "golden.safetensors");
}

static void check_scheduler(const char *name, const json_t *entry)
{
    scheduler_case s;
    const char *steps;
    json_t *run;
    open_scheduler(&s, name, entry);
    check_alphas(&s);
    check_lists(&s);
    json_object_foreach(json_object_get(entry, "runs"), steps, run) check_run(&s, atoi(steps), run);
    check_add_noise(&s);
    ht_safetensors_close(s.golden);
    ht_arena_free(s.arena);
}

static void ddim_steps_as_diffusers(void **state)
{
    (void)state;
    assert_true(golden_each("scheduler", "DDIMScheduler", check_scheduler) > 0);
}

static void ddpm_steps_as_diffusers(void **state)
{
    (void)state;
    assert_true(golden_each("scheduler", "DDPMScheduler", check_scheduler) > 0);
}

/* ---- DDIM's and ADM's own lists ---------------------------------------------------------------------------------------- */

static void check_list(const char *name, const ht_steps *got, const json_t *want)
{
    assert_int_equal(got->n, json_array_size(want));
    for (int i = 0; i < got->n; i++) {
        json_int_t t = json_integer_value(json_array_get(want, (size_t)(got->n - 1 - i)));
        if (got->timesteps[i] != t)
            fail_msg("%s[%d] is %d, want %lld", name, got->n - 1 - i, got->timesteps[i], (long long)t);
    }
}

/* "ddim.quad.10" -> quad, 10. */
static ht_spacing parse_sequence(const char *name, int *steps)
{
    char spacing[16];
    assert_int_equal(sscanf(name, "ddim.%15[a-z].%d", spacing, steps), 2);
    return (ht_spacing)ht_spacing_find(spacing);
}

static void check_sequence_lists(const char *case_name, const json_t *entry)
{
    ht_arena *arena = ht_arena_create();
    ht_schedule_config config;
    char path[512];
    const char *name;
    json_t *lists, *list;
    (void)entry;
    ht_schedule_defaults(&config);
    snprintf(path, sizeof path, GOLDENS "/%s/lists.json", case_name);
    assert_ok(ht_json_read(path, &lists));
    json_object_foreach(lists, name, list)
    {
        ht_steps got;
        int steps;
        if (!strncmp(name, "adm.", 4)) {
            assert_ok(ht_steps_respace(arena, config.num_train_timesteps, name + 4, &got));
        } else {
            ht_spacing spacing = parse_sequence(name, &steps);
            assert_ok(ht_steps_make(arena, &config, spacing, steps, &got));
        }
        check_list(name, &got, list);
    }
    json_decref(lists);
    ht_arena_free(arena);
}

static void lists_are_those_of_ddim_and_adm(void **state)
{
    (void)state;
    assert_true(golden_each("sequences", NULL, check_sequence_lists) > 0);
}

static void check_sequence_run(const char *case_name, const ht_safetensors *golden, const json_t *run, double tolerance)
{
    ht_arena *arena = ht_arena_create();
    ht_trajectory trajectory;
    ht_schedule_config config;
    char name[64], spacing[16];
    const char *label = json_string_value(json_object_get(run, "name"));
    ht_trajectory_options options = {.sampler = "ddim", .spacing = spacing, .eta = json_number_value(json_object_get(run, "eta"))};
    assert_int_equal(sscanf(json_string_value(json_object_get(run, "sequence")), "ddim.%15[a-z].%d", spacing, &options.steps), 2);
    ht_schedule_defaults(&config);
    config.clip_sample = false;
    config.set_alpha_to_one = false; /* means nothing here: the original always ends at 1 */
    assert_ok(ht_trajectory_make(arena, &config, &options, &trajectory));
    snprintf(name, sizeof name, "%s.x", label);
    const ht_tensor *x = golden_find(golden, name);
    float *states = golden_floats(golden, name);
    snprintf(name, sizeof name, "%s.noise", label);
    float *noise = golden_floats(golden, name);
    walk w = {.label = case_name, .trajectory = &trajectory, .x = states, .noise = noise, .draws_always = true, .tolerance = tolerance};
    w.n = (size_t)x->shape[1];
    w.c = w.output_c = (size_t)x->shape[2];
    w.pixels = (size_t)(x->shape[3] * x->shape[4]);
    assert_int_equal(x->shape[0], trajectory.n + 1);
    follow(&w);
    free(noise);
    free(states);
    ht_arena_free(arena);
}

static void check_sequence_runs(const char *case_name, const json_t *entry)
{
    ht_safetensors *golden = golden_open(case_name, "golden.safetensors");
    double tolerance = json_number_value(json_object_get(entry, "tolerance"));
    const json_t *runs = json_object_get(entry, "trajectories");
    assert_true(json_array_size(runs) > 0);
    for (size_t i = 0; i < json_array_size(runs); i++)
        check_sequence_run(case_name, golden, json_array_get(runs, i), tolerance);
    ht_safetensors_close(golden);
}

static void generalized_steps_are_those_of_ddim(void **state)
{
    (void)state;
    assert_true(golden_each("sequences", NULL, check_sequence_runs) > 0);
}

/* ---- identities -------------------------------------------------------------------------------------------------------- */

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

/* DDIM section 4.1: with eta 1 it is DDPM.  The coefficients are doubles rounded once, so states agree to a few units in the last place
 * of the largest term; 1 / sqrt(alpha-bar) is at most 160 here, hence 160 * 2^-22. */
static void ddim_with_eta_1_is_ddpm(void **state)
{
    (void)state;
    ht_arena *arena = ht_arena_create();
    ht_schedule_config config;
    ht_trajectory ddim, ddpm;
    float a[COUNT], b[COUNT];
    ht_schedule_defaults(&config);
    config.clip_sample = false;
    assert_ok(ht_trajectory_make(arena, &config, &(ht_trajectory_options){.sampler = "ddim", .steps = 20, .eta = 1}, &ddim));
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
    assert_ok(ht_trajectory_make(arena, &config, &(ht_trajectory_options){.sampler = "ddpm", .steps = 9}, &logarithmic));
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
    assert_ok(ht_schedule_alphas(arena, &config, &got));
    assert_close("alphas_cumprod", got, want, T, 1e-7);
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
        x[i] = (float)((i * 4) % COUNT) * (i % 2 ? -1.0f : 1.0f); /* magnitudes 0 .. 14, shuffled: the quantile is 10.5 */
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

/* ---- what is refused --------------------------------------------------------------------------------------------------- */

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
        {"{\"num_train_timesteps\": 1, \"trained_betas\": [0.1, 0.2]}", "trained_betas"},
        {"{\"trained_betas\": 0.1}", "trained_betas"},
    };
    ht_schedule_config config;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        assert_refused(read_config(cases[i].text, &config), HT_ERR_FORMAT, cases[i].words);
    read_config(NULL, NULL);
}

static void configurations_of_other_samplers_serve_ddim(void **state)
{
    (void)state;
    ht_schedule_config config;
    ht_trajectory trajectory;
    ht_arena *arena = ht_arena_create();
    assert_ok(read_config("{\"_class_name\": \"PNDMScheduler\", \"_diffusers_version\": \"0.6.0\", \"beta_end\": 0.012, "
                          "\"beta_schedule\": \"scaled_linear\", \"beta_start\": 0.00085, \"clip_sample\": false, "
                          "\"set_alpha_to_one\": false, \"skip_prk_steps\": true, \"steps_offset\": 1, \"trained_betas\": null}",
                          &config));
    assert_string_equal(config.class_name, "PNDMScheduler");
    assert_int_equal(config.beta_schedule, HT_BETAS_SCALED_LINEAR);
    assert_ok(ht_trajectory_make(arena, &config, &(ht_trajectory_options){.steps = 50}, &trajectory));
    assert_string_equal(trajectory.sampler->name, "ddim");
    assert_ok(read_config("{\"_class_name\": \"DPMSolverMultistepScheduler\", \"algorithm_type\": \"dpmsolver++\", \"solver_order\": 2, "
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
    static const char *const sections[] = {"", "0", "-5", "10,", ",10", "10;10", "ddim", "ddim10,10", "ddim301", "600,600", "x"};
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
    static const ht_spacing spacings[] = {HT_SPACING_LEADING, HT_SPACING_TRAILING, HT_SPACING_LINSPACE, HT_SPACING_QUAD, HT_SPACING_ADM};
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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ddim_steps_as_diffusers),
        cmocka_unit_test(ddpm_steps_as_diffusers),
        cmocka_unit_test(lists_are_those_of_ddim_and_adm),
        cmocka_unit_test(generalized_steps_are_those_of_ddim),
        cmocka_unit_test(ddim_with_eta_1_is_ddpm),
        cmocka_unit_test(large_log_variance_is_large_variance),
        cmocka_unit_test(given_betas_make_the_same_alphas),
        cmocka_unit_test(zero_snr_ends_in_pure_noise),
        cmocka_unit_test(thresholding_divides_by_the_quantile),
        cmocka_unit_test(nan_is_not_clipped_away),
        cmocka_unit_test(settings_that_are_not_known_are_refused),
        cmocka_unit_test(settings_out_of_range_are_refused),
        cmocka_unit_test(configurations_of_other_samplers_serve_ddim),
        cmocka_unit_test(given_betas_are_read),
        cmocka_unit_test(steps_that_cannot_be_taken_are_refused),
        cmocka_unit_test(sections_that_do_not_fit_are_refused),
        cmocka_unit_test(lists_stay_inside_the_schedule),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
