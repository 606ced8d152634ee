/* test_pipeline.c - sampling through the public API: what diffusers' DDPMPipeline and DDIMPipeline draw, and what the
 * loop promises. */
#include "core/rng.h"
#include "sampler/model.h"
#include "sampler/trajectory.h"
#include "tests/goldens.h"

enum { N = 5 };
static const char pipeline[] = GOLDENS "/pipeline/ddpm";

/* ---- against diffusers ---- */

typedef struct golden_run {
    char label[128];
    ht_safetensors *golden;
    ht_sample_options options;
    int64_t n;
    size_t count; /* values of all images */
    double tolerance;
    float *images;
    int states; /* compared so far */
    int64_t step;
} golden_run;

/* The images of a run in one batch are the state after each step; some of them are recorded. */
static int compare_state(void *user, int64_t done, int64_t total)
{
    golden_run *r = user;
    char name[32];
    snprintf(name, sizeof name, "step.%lld", (long long)r->step++);
    assert_int_equal(done, r->step * r->n);
    assert_int_equal(total, r->options.steps * r->n);
    if (!ht_safetensors_find(r->golden, name))
        return 0;
    float *want = images_of(r->golden, name);
    char what[192];
    snprintf(what, sizeof what, "%s, %s", r->label, name);
    assert_close(what, r->images, want, r->count, r->tolerance);
    free(want);
    r->states++;
    return 0;
}

/* [-1,1] to what a pipeline returns, in place. */
static void to_pixels(float *x, size_t n)
{
    for (size_t i = 0; i < n; i++)
        x[i] = fminf(fmaxf(x[i] / 2 + 0.5f, 0), 1);
}

static void check_images(golden_run *r, ht_model *model, int batch)
{
    ht_session *session;
    float *want = images_of(r->golden, "image");
    assert_ok(ht_session_open(model, &(ht_session_options){.batch = batch}, &session));
    r->step = r->states = 0;
    r->options.user = r;
    r->options.progress =
        batch == r->n ? compare_state : NULL; /* in smaller batches the states come one after another */
    assert_ok(ht_sample(session, &r->options, 0, r->n, r->images));
    assert_true(batch != r->n || r->states > 1);
    to_pixels(r->images, r->count);
    assert_close(r->label, r->images, want, r->count, r->tolerance);
    ht_session_close(session);
    free(want);
}

static void read_arguments(golden_run *r, const json_t *run)
{
    const char *key;
    json_t *value;
    r->options = (ht_sample_options){.rng = HT_RNG_TORCH_CPU,
                                     .seed = (uint64_t)json_integer_value(json_object_get(run, "seed"))};
    r->options.sampler = strcmp(golden_string(run, "pipeline"), "DDPMPipeline") ? "ddim" : "ddpm";
    r->options.steps = 50;
    r->n = 1;
    json_object_foreach(json_object_get(run, "args"), key, value)
    {
        if (!strcmp(key, "batch_size"))
            r->n = json_integer_value(value);
        else if (!strcmp(key, "num_inference_steps"))
            r->options.steps = (int)json_integer_value(value);
        else if (!strcmp(key, "eta"))
            r->options.eta = json_number_value(value);
        else
            fail_msg("%s: argument %s is not tested", r->label, key);
    }
}

/* Pipelines are held to 20 times the error of the library's own float32, at least 1e-4. */
static void check_run(const char *name, ht_model *model, const json_t *run)
{
    golden_run r = {.tolerance = fmax(1e-4, 20 * golden_real(run, "f32_error"))};
    snprintf(r.label, sizeof r.label, "%s %s", name, golden_string(run, "name"));
    read_arguments(&r, run);
    r.golden = golden_open(name, golden_string(run, "golden"));
    r.count = tensor_of(r.golden, "image")->count;
    r.images = malloc(r.count * sizeof *r.images);
    assert_non_null(r.images);
    for (int batch = (int)r.n; batch > 0; batch--)
        check_images(&r, model, batch);
    if (json_integer_value(json_object_get(run, "noise_draws")) == 1) {
        float *noise = images_of(r.golden, "noise.0");
        r.options.noise = noise;
        r.options.seed++;
        check_images(&r, model, (int)r.n);
        free(noise);
    }
    free(r.images);
    ht_safetensors_close(r.golden);
}

static void check_pipeline(const char *name, const json_t *entry)
{
    char path[512];
    ht_model *model;
    json_t *runs = json_object_get(entry, "runs");
    snprintf(path, sizeof path, GOLDENS "/%s", name);
    assert_ok(ht_model_open(path, NULL, &model));
    assert_true(json_array_size(runs) > 0);
    for (size_t i = 0; i < json_array_size(runs); i++)
        check_run(name, model, json_array_get(runs, i));
    ht_model_close(model);
}

static void pipelines_draw_what_diffusers_draws(void **state)
{
    (void)state;
    assert_true(golden_each("pipeline", "DDPMPipeline", check_pipeline) +
                    golden_each("pipeline", "DDIMPipeline", check_pipeline) >
                0);
}

/* ---- what the loop promises ---- */

static float *draw_with(const char *path, int batch, ht_sample_options options, int64_t first, int64_t n)
{
    ht_model *model;
    ht_session *session;
    ht_model_info info;
    assert_ok(ht_model_open(path, NULL, &model));
    ht_model_get_info(model, &info);
    float *images = malloc((size_t)(n * info.height * info.width * info.in_channels) * sizeof *images);
    assert_non_null(images);
    assert_ok(ht_session_open(model, &(ht_session_options){.batch = batch}, &session));
    assert_ok(ht_sample(session, &options, first, n, images));
    ht_session_close(session);
    ht_model_close(model);
    return images;
}

static float *draw(int batch, ht_sample_options options, int64_t first, int64_t n)
{
    return draw_with(pipeline, batch, options, first, n);
}

/* For each generator, and with and without noise in the steps: N images at once, in batches, and the last two alone. */
static void an_image_does_not_depend_on_its_batch(void **state)
{
    (void)state;
    enum { IMAGE = 8 * 8 * 3 };
    for (int rng = HT_RNG_PHILOX; rng <= HT_RNG_TORCH_CUDA; rng++) {
        for (int stochastic = 0; stochastic < 2; stochastic++) {
            ht_sample_options o = {
                .sampler = "ddim", .steps = 4, .eta = stochastic, .seed = 7, .rng = (ht_rng)rng, .total = N};
            float *together = draw(N, o, 0, N), *in_turns = draw(2, o, 0, N), *alone = draw(1, o, N - 2, 2);
            assert_memory_equal(together, in_turns, N * IMAGE * sizeof(float));
            assert_memory_equal(together + (N - 2) * IMAGE, alone, 2 * IMAGE * sizeof(float));
            assert_memory_not_equal(together, together + IMAGE, IMAGE * sizeof(float));
            free(alone);
            free(in_turns);
            free(together);
        }
    }
}

/* A model with classes and a variance among its outputs (DDIM passes over that), alone and in every kind of batch. */
static void an_image_keeps_its_class_in_any_batch(void **state)
{
    (void)state;
    enum { IMAGE = 16 * 16 * 3 };
    static const char model[] = GOLDENS "/unet/adm-scale-shift";
    static const float labels[N] = {3, 1, 4, 1, 5};
    for (int rng = HT_RNG_PHILOX; rng <= HT_RNG_TORCH_CPU; rng++) {
        ht_sample_options o = {
            .steps = 2, .eta = 1, .rng = (ht_rng)rng, .total = N, .cond = &(ht_cond){.class_labels = labels}};
        float *together = draw_with(model, N, o, 0, N), *in_turns = draw_with(model, 2, o, 0, N);
        assert_memory_equal(together, in_turns, N * IMAGE * sizeof(float));
        o.cond = &(ht_cond){.class_labels = labels + 2};
        float *alone = draw_with(model, 1, o, 2, 1);
        assert_memory_equal(together + 2 * IMAGE, alone, IMAGE * sizeof(float));
        o.cond = &(ht_cond){.class_labels = labels + 1};
        float *other = draw_with(model, 1, o, 2, 1);
        assert_memory_not_equal(alone, other, IMAGE * sizeof(float));
        free(other);
        free(alone);
        free(in_turns);
        free(together);
    }
}

/* The default generator: an image starts from draw 0 of its stream, step i adds draw 1 + i.  Two steps by hand: t 500,
 * then 0, which adds none. */
static void noise_comes_from_the_image_s_stream(void **state)
{
    (void)state;
    enum { PIXELS = 8 * 8, IMAGE = PIXELS * 3, INDEX = 6, SEED = 11 };
    float planar[IMAGE], x[IMAGE], z[IMAGE], out[IMAGE], scratch[IMAGE];
    ht_arena *arena = ht_arena_create();
    ht_trajectory way;
    ht_model *model;
    ht_session *session;
    assert_ok(ht_model_open(pipeline, NULL, &model));
    assert_ok(ht_session_open(model, NULL, &session));
    assert_ok(
        ht_trajectory_make(arena, &model->schedule, &(ht_trajectory_options){.sampler = "ddpm", .steps = 2}, &way));
    for (uint32_t turn = 0; turn < 2; turn++) {
        ht_image_randn(SEED, INDEX, turn, IMAGE, planar);
        for (int i = 0; i < IMAGE; i++)
            (turn ? z : x)[i % PIXELS * 3 + i / PIXELS] = planar[i];
    }
    ht_step_image image = {
        .pixels = PIXELS, .channels = 3, .x = x, .output = out, .output_channels = 3, .noise = z, .scratch = scratch};
    for (int i = 0; i < 2; i++) {
        assert_ok(ht_predict(session, 1, x, &(float){(float)way.rows[i].timestep}, NULL, out));
        ht_trajectory_step(&way, i, &image);
    }
    float *got = draw(1, (ht_sample_options){.sampler = "ddpm", .steps = 2, .seed = SEED}, INDEX, 1);
    assert_memory_equal(got, x, sizeof x);
    free(got);
    ht_session_close(session);
    ht_model_close(model);
    ht_arena_free(arena);
}

static void seeds_name_images(void **state)
{
    (void)state;
    float *a = draw(1, (ht_sample_options){.steps = 2, .seed = 1}, 0, 1),
          *b = draw(1, (ht_sample_options){.steps = 2, .seed = 2}, 0, 1);
    assert_memory_not_equal(a, b, 8 * 8 * 3 * sizeof(float));
    free(b);
    free(a);
}

typedef struct progress {
    int64_t calls, done, total, stop_at;
} progress;

static int count_calls(void *user, int64_t done, int64_t total)
{
    progress *p = user;
    assert_true(done > p->done && done <= total);
    p->calls++;
    p->done = done;
    p->total = total;
    return p->calls == p->stop_at;
}

static void progress_counts_evaluations(void **state)
{
    (void)state;
    progress p = {0};
    free(draw(2, (ht_sample_options){.steps = 4, .progress = count_calls, .user = &p}, 0, N));
    assert_int_equal(p.calls, 3 * 4); /* batches of 2, 2 and 1 */
    assert_int_equal(p.done, N * 4);
    assert_int_equal(p.total, N * 4);
}

/* uniform strides through the timesteps, and the stride is rounded down: 31 evaluations for 30 steps. */
static void progress_counts_the_steps_that_are_taken(void **state)
{
    (void)state;
    progress p = {0};
    free(draw(
        2,
        (ht_sample_options){.sampler = "ddim", .spacing = "uniform", .steps = 30, .progress = count_calls, .user = &p},
        0, 2));
    assert_int_equal(p.calls, 31);
    assert_int_equal(p.total, 2 * 31);
}

/* ---- delivery ---- */

typedef struct receiver {
    int64_t next, stop_at;
    float images[N * 8 * 8 * 3];
} receiver;

static int receive(void *user, int64_t index, const float *image)
{
    receiver *r = user;
    assert_int_equal(index, r->next);
    if (index < N)
        memcpy(r->images + index * 8 * 8 * 3, image, 8 * 8 * 3 * sizeof *image);
    return ++r->next == r->stop_at;
}

static void images_are_delivered_once_each_and_in_order(void **state)
{
    (void)state;
    ht_model *model;
    ht_session *session;
    assert_ok(ht_model_open(pipeline, NULL, &model));
    assert_ok(ht_session_open(model, &(ht_session_options){.batch = 2}, &session));
    for (int k = 0; k < 2 * 3 * 2; k++) {
        receiver r = {0};
        static float images[N * 8 * 8 * 3];
        ht_sample_options o = {.sampler = "ddim",
                               .steps = 3,
                               .eta = k % 2,
                               .seed = 5,
                               .rng = (ht_rng)(k / 2 % 3),
                               .deliver = receive,
                               .user = &r};
        float *want =
            draw(2, (ht_sample_options){.sampler = "ddim", .steps = 3, .eta = k % 2, .seed = 5, .rng = o.rng}, 0, N);
        assert_ok(ht_sample(session, &o, 0, N, k / 6 ? images : NULL));
        assert_int_equal(r.next, N);
        assert_memory_equal(r.images, want, sizeof r.images);
        if (k / 6)
            assert_memory_equal(images, want, sizeof images);
        free(want);
    }
    ht_session_close(session);
    ht_model_close(model);
}

/* More images than any machine could hold: it begins, and the third one stops it. */
static void memory_does_not_grow_with_the_number_of_images(void **state)
{
    (void)state;
    ht_model *model;
    ht_session *session;
    receiver r = {.stop_at = 3};
    const int64_t many = INT64_C(1000000000000);
    assert_ok(ht_model_open(pipeline, NULL, &model));
    assert_ok(ht_session_open(model, &(ht_session_options){.batch = 2}, &session));
    ht_sample_options o = {.steps = 3, .deliver = receive, .user = &r};
    assert_refused(ht_sample(session, &o, 0, many, NULL), HT_ERR_CANCELLED, "after 3 of 1000000000000 images");
    assert_int_equal(r.next, 3);
    o.sampler = "ddim";
    o.rng = HT_RNG_TORCH_CPU; /* its one draw is held */
    o.total = INT64_MAX;
    assert_refused(ht_sample(session, &o, 0, many, NULL), HT_ERR_MEMORY, "one torch draw");
    ht_session_close(session);
    ht_model_close(model);
}

/* ---- what is refused ---- */

static void a_condition_that_is_wrong_anywhere_is_refused_before_the_first_step(void **state)
{
    (void)state;
    static const char table[] = GOLDENS "/unet/adm-scale-shift", number[] = GOLDENS "/unet/scale-shift-class-timestep";
    static const struct {
        const char *model;
        float last;
        const char *says;
    } rows[] = {
        {table, 99, "class 99 is out of range; this model has classes 0 to 9"},
        {table, 10, "class 10 "},
        {table, -1, "class -1 "},
        {table, 2.5f, "class 2.5 is not whole"},
        {table, NAN, "nan"},
        {number, NAN, "of image 2 is not a finite number"},
        {pipeline, 0, "takes no class"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        ht_model *model;
        ht_session *session;
        static float images[3 * 16 * 16 * 3];
        progress p = {0};
        ht_cond cond = {.class_labels = (float[]){1, 2, rows[i].last}};
        ht_sample_options o = {.steps = 2, .cond = &cond, .progress = count_calls, .user = &p};
        assert_ok(ht_model_open(rows[i].model, NULL, &model));
        assert_ok(ht_session_open(model, NULL, &session));
        assert_refused(ht_sample(session, &o, 0, 3, images), HT_ERR_ARGUMENT, rows[i].says);
        assert_int_equal(p.calls, 0);
        ht_session_close(session);
        ht_model_close(model);
    }
}

/* One session for the calls that fail; it must go on working. */
static void failures_leave_a_working_session(void **state)
{
    (void)state;
    ht_model *model;
    ht_session *session;
    float images[2 * 8 * 8 * 3], noise[2 * 8 * 8 * 3] = {0};
    progress p = {.stop_at = 2};
    assert_ok(ht_model_open(pipeline, NULL, &model));
    assert_ok(ht_session_open(model, NULL, &session));
#define SAMPLE(first, n, ...) ht_sample(session, &(ht_sample_options){__VA_ARGS__}, first, n, images)
    assert_refused(SAMPLE(0, 1, .steps = -1), HT_ERR_ARGUMENT, "steps is -1");
    assert_refused(SAMPLE(0, 1, .steps = 1001), HT_ERR_ARGUMENT, "1 to 1000");
    assert_refused(SAMPLE(0, 1, .steps = 4, .sampler = "magic"), HT_ERR_ARGUMENT, "magic");
    assert_refused(SAMPLE(0, 1, .steps = 4, .spacing = "magic"), HT_ERR_ARGUMENT,
                   "has leading, trailing, linspace, uniform, quad, adm");
    assert_refused(ht_sample(session, NULL, 0, 1, NULL), HT_ERR_ARGUMENT, "images go nowhere");
    assert_refused(SAMPLE(0, 1, .steps = 4, .rng = (ht_rng)9), HT_ERR_ARGUMENT, "rng is 9");
    assert_refused(SAMPLE(-1, 1, .steps = 4), HT_ERR_ARGUMENT, "-1");
    assert_refused(SAMPLE(0, INT64_MAX, .steps = 4), HT_ERR_ARGUMENT, "9223372036854775807");
    assert_refused(SAMPLE(4, 2, .steps = 4, .rng = HT_RNG_TORCH_CPU, .total = 5), HT_ERR_ARGUMENT, "total is 5");
    assert_refused(SAMPLE(0, 2, .steps = 4, .progress = count_calls, .user = &p), HT_ERR_CANCELLED, "2 of 8");
    assert_int_equal(p.calls, 2);
    noise[200] = NAN;
    assert_refused(SAMPLE(0, 2, .steps = 4, .noise = noise), HT_ERR_ARGUMENT, "noise");
    noise[200] = 3e38f; /* finite, but not after a convolution */
    assert_refused(SAMPLE(3, 2, .steps = 4, .noise = noise, .sampler = "ddim"), HT_ERR_FORMAT,
                   "image 4 is not finite after step 1 of 4");
    assert_ok(SAMPLE(0, 2, .steps = 4));
    assert_ok(SAMPLE(0, 0, .steps = 4));
#undef SAMPLE
    ht_session_close(session);
    ht_model_close(model);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pipelines_draw_what_diffusers_draws),
        cmocka_unit_test(an_image_does_not_depend_on_its_batch),
        cmocka_unit_test(an_image_keeps_its_class_in_any_batch),
        cmocka_unit_test(noise_comes_from_the_image_s_stream),
        cmocka_unit_test(seeds_name_images),
        cmocka_unit_test(progress_counts_evaluations),
        cmocka_unit_test(progress_counts_the_steps_that_are_taken),
        cmocka_unit_test(images_are_delivered_once_each_and_in_order),
        cmocka_unit_test(memory_does_not_grow_with_the_number_of_images),
        cmocka_unit_test(a_condition_that_is_wrong_anywhere_is_refused_before_the_first_step),
        cmocka_unit_test(failures_leave_a_working_session),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
