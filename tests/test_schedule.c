/* test_schedule.c - schedules, lists of timesteps and sampler steps, against diffusers, DDIM's and ADM's own code. */
#include <math.h>

#include "sampler/trajectory.h"
#include "tests/goldens.h"

/* A batch of images [n, c, pixels] going through a trajectory, with the model's outputs given or from the stand-in
 * denoiser. */
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

/* [c, pixels] to [pixels, c] and back, one image. */
static void to_channels_last(size_t pixels, size_t c, const float *in, float *out)
{
    for (size_t p = 0; p < pixels; p++)
        for (size_t k = 0; k < c; k++)
            out[p * c + k] = in[k * pixels + p];
}

static void to_channels_first(size_t pixels, size_t c, const float *in, float *out)
{
    to_channels_last(c, pixels, in, out);
}

/* The stand-in denoiser of the golden files. */
static float stand_in(float x, float t)
{
    return 0.3f * sinf(1.7f * x + t / 250.0f) + 0.1f * x;
}

static void model_output(const walk *w, int i, size_t image, const float *x_last, float *out_last)
{
    size_t count = w->output_c * w->pixels;
    if (w->outputs) {
        to_channels_last(w->pixels, w->output_c, w->outputs + ((size_t)i * w->n + image) * count, out_last);
        return;
    }
    for (size_t k = 0; k < count; k++)
        out_last[k] = stand_in(x_last[k], w->trajectory->rows[i].timestep);
}

/* Step i of the image whose state is x_last [pixels, c]. */
static void step_image(const walk *w, int i, size_t image, size_t draw, float *x_last, float *slots)
{
    size_t count = w->c * w->pixels;
    float *buffer = malloc((2 * count + w->output_c * w->pixels) * sizeof *buffer);
    float *noise = buffer, *scratch = buffer + count, *out = buffer + 2 * count;
    bool draws = w->trajectory->rows[i].noise != HT_NOISE_NONE;
    assert_non_null(buffer);
    if (draws) {
        assert_non_null(w->noise);
        to_channels_last(w->pixels, w->c, w->noise + (draw * w->n + image) * count, noise);
    }
    model_output(w, i, image, x_last, out);
    ht_trajectory_step(w->trajectory, i,
                       &(ht_step_image){.pixels = w->pixels,
                                        .channels = (int)w->c,
                                        .x = x_last,
                                        .output = out,
                                        .output_channels = (int)w->output_c,
                                        .noise = draws ? noise : NULL,
                                        .scratch = scratch,
                                        .slots = slots});
    free(buffer);
}

/* Go all the way from the first state and compare every state on it.  Returns the number of draws. */
static size_t follow(const walk *w)
{
    size_t count = w->c * w->pixels, draw = 0;
    size_t slots = (size_t)w->trajectory->slots * count;
    float *states = malloc(w->n * count * sizeof *states), *first = malloc(w->n * count * sizeof *first);
    float *kept = malloc((w->n * slots + 1) * sizeof *kept);
    char what[256];
    assert_true(states && first && kept);
    for (size_t k = 0; k < w->n * slots; k++)
        kept[k] = NAN; /* nothing may be read before it is kept */
    for (size_t k = 0; k < w->n; k++)
        to_channels_last(w->pixels, w->c, w->x + k * count, states + k * count);
    for (int i = 0; i < w->trajectory->n; i++) {
        for (size_t k = 0; k < w->n; k++) {
            step_image(w, i, k, draw, states + k * count, kept + k * slots);
            to_channels_first(w->pixels, w->c, states + k * count, first + k * count);
        }
        draw += w->draws_always || w->trajectory->rows[i].noise != HT_NOISE_NONE;
        snprintf(what, sizeof what, "%s, state after step %d", w->label, i);
        assert_close(what, first, w->x + (size_t)(i + 1) * w->n * count, w->n * count, w->tolerance);
    }
    free(kept);
    free(first);
    free(states);
    return draw;
}

/* ---- diffusers' schedulers ---- */

typedef struct scheduler_case {
    const char *name;
    const json_t *entry;
    double tolerance;
    ht_arena *arena;
    ht_schedule_config config;
    ht_safetensors *golden;
} scheduler_case;

/* Timesteps are those of the library.  Where they are fractions found from sigmas by float32 logarithms, whose last
 * places differ from library to library, they are within 1e-5 of them. */
static float timestep_error(const scheduler_case *s, float timestep)
{
    return s->config.solver.sigmas && timestep != floorf(timestep) ? 1e-5f * timestep : 0;
}

static void check_timesteps(const scheduler_case *s, int steps, const ht_trajectory *trajectory)
{
    char name[64];
    snprintf(name, sizeof name, "s%d.timesteps", steps);
    const ht_tensor *t = tensor_of(s->golden, name);
    float *want = floats_of(s->golden, name);
    assert_int_equal(t->count, trajectory->n);
    for (int i = 0; i < trajectory->n; i++)
        if (!(fabsf(trajectory->rows[i].timestep - want[i]) <= timestep_error(s, want[i])))
            fail_msg("%s %s[%d] is %.9g, want %.9g", s->name, name, i, (double)trajectory->rows[i].timestep,
                     (double)want[i]);
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
        else if (!strcmp(key, "s_churn"))
            options.churn = json_number_value(value);
        else if (!strcmp(key, "s_noise"))
            options.churn_noise = json_number_value(value);
        else
            fail_msg("%s: argument %s of step() is not tested", s->name, key);
    }
    json_object_foreach(json_object_get(s->entry, "set_timesteps"), key, value)
    {
        if (strcmp(key, "original_inference_steps") != 0 ||
            json_integer_value(value) != s->config.solver.original_inference_steps)
            fail_msg("%s: argument %s of set_timesteps() is not tested", s->name, key);
    }
    return options;
}

static void check_run(const scheduler_case *s, int steps, const json_t *run)
{
    char name[64], label[160];
    ht_trajectory trajectory;
    ht_trajectory_options options = step_options(s, steps);
    assert_ok(ht_trajectory_make(s->arena, &s->config, &options, &trajectory));
    check_timesteps(s, steps, &trajectory);
    const json_t *init = json_object_get(run, "init_noise_sigma");
    if (init)
        assert_close("init_noise_sigma", &trajectory.init_noise_sigma, &(float){(float)json_number_value(init)}, 1,
                     1e-6);
    snprintf(label, sizeof label, "%s, %d steps", s->name, steps);
    snprintf(name, sizeof name, "s%d.x", steps);
    const ht_tensor *x = tensor_of(s->golden, name);
    float *states = floats_of(s->golden, name), *noise = NULL;
    snprintf(name, sizeof name, "s%d.model_output", steps);
    const ht_tensor *out = tensor_of(s->golden, name);
    float *outputs = floats_of(s->golden, name);
    snprintf(name, sizeof name, "s%d.noise", steps);
    if (ht_safetensors_find(s->golden, name))
        noise = floats_of(s->golden, name);
    assert_int_equal(x->shape[0], trajectory.n + 1);
    walk w = {.label = label,
              .trajectory = &trajectory,
              .x = states,
              .outputs = outputs,
              .noise = noise,
              .tolerance = s->tolerance};
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
    if (!ht_safetensors_find(s->golden, "alphas_cumprod"))
        return;
    float *alphas, *want = floats_of(s->golden, "alphas_cumprod");
    assert_ok(ht_schedule_alphas(s->arena, &s->config, &alphas));
    assert_int_equal(tensor_of(s->golden, "alphas_cumprod")->count, s->config.num_train_timesteps);
    assert_close(s->name, alphas, want, (size_t)s->config.num_train_timesteps, s->tolerance);
    free(want);
}

/* Samplers on sigmas: of the steps of a list.  The others: of any training timestep. */
static ht_step_row level_at(const scheduler_case *s, float timestep)
{
    ht_trajectory way;
    float *alphas;
    assert_ok(ht_trajectory_make(s->arena, &s->config, &(ht_trajectory_options){.steps = 10}, &way));
    assert_ok(ht_schedule_alphas(s->arena, &s->config, &alphas));
    for (int i = 0; i < way.n; i++)
        if (fabsf(way.rows[i].timestep - timestep) <= timestep_error(s, timestep))
            return way.rows[i];
    int t = (int)timestep;
    return (ht_step_row){.signal = sqrtf(alphas[t]), .sigma = sqrtf(1 - alphas[t])};
}

static void check_add_noise(const scheduler_case *s)
{
    float *x0 = floats_of(s->golden, "add_noise.x0"), *noise = floats_of(s->golden, "add_noise.noise");
    float *t = floats_of(s->golden, "add_noise.timesteps"), *want = floats_of(s->golden, "add_noise.out");
    const ht_tensor *shape = tensor_of(s->golden, "add_noise.x0");
    size_t n = (size_t)shape->shape[0], each = shape->count / n;
    for (size_t i = 0; i < n; i++) {
        ht_step_row row = level_at(s, t[i]);
        ht_add_noise(&row, each, x0 + i * each, noise + i * each, x0 + i * each);
    }
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
    s->tolerance = golden_real(entry, "tolerance");
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

/* Every class that a sampler serves. */
static void samplers_step_as_diffusers(void **state)
{
    (void)state;
    static const struct {
        const char *class_name, *sampler;
    } rows[] = {
        {"DDIMScheduler", "ddim"},
        {"DDPMScheduler", "ddpm"},
        {"EulerDiscreteScheduler", "euler"},
        {"EulerAncestralDiscreteScheduler", "euler-a"},
        {"HeunDiscreteScheduler", "heun"},
        {"PNDMScheduler", "pndm"},
        {"DPMSolverMultistepScheduler", "dpm++"},
        {"UniPCMultistepScheduler", "unipc"},
        {"DEISMultistepScheduler", "deis"},
        {"LCMScheduler", "lcm"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        assert_string_equal(ht_sampler_for(rows[i].class_name), rows[i].sampler);
        if (golden_each("scheduler", rows[i].class_name, check_scheduler) < 1)
            fail_msg("%s has no case", rows[i].class_name);
    }
}

/* ---- DDIM's and ADM's own lists ---- */

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
    const char *label = golden_string(run, "name");
    ht_trajectory_options options = {.sampler = "ddim", .spacing = spacing, .eta = golden_real(run, "eta")};
    assert_int_equal(sscanf(golden_string(run, "sequence"), "ddim.%15[a-z].%d", spacing, &options.steps), 2);
    ht_schedule_defaults(&config);
    config.clip_sample = false;
    config.set_alpha_to_one = false; /* means nothing here: the original always ends at 1 */
    assert_ok(ht_trajectory_make(arena, &config, &options, &trajectory));
    snprintf(name, sizeof name, "%s.x", label);
    const ht_tensor *x = tensor_of(golden, name);
    float *states = floats_of(golden, name);
    snprintf(name, sizeof name, "%s.noise", label);
    float *noise = floats_of(golden, name);
    walk w = {.label = case_name,
              .trajectory = &trajectory,
              .x = states,
              .noise = noise,
              .draws_always = true,
              .tolerance = tolerance};
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
    double tolerance = golden_real(entry, "tolerance");
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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(samplers_step_as_diffusers),
        cmocka_unit_test(lists_are_those_of_ddim_and_adm),
        cmocka_unit_test(generalized_steps_are_those_of_ddim),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
