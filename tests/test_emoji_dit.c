/* test_emoji_dit.c - the class-conditional transformer that comes with Halftone against what diffusers computed with it
 * (float32, CPU), and what guidance by classes promises. */
#include "halftone.h"
#include "sampler/guide.h"
#include "sampler/pipeline.h"
#include "tests/goldens.h"

enum { LATENT = 16 * 16 * 4, OUT = 2 * LATENT, STEPS = 20, WALKED = 5, PICTURE = 64 * 64 * 3, NONE = 1000 };

static const char folder[] = "models/emoji-dit";

typedef struct fixture {
    ht_model *dit;
    ht_safetensors *golden;
} fixture;

static int open_fixture(void **state)
{
    static fixture f;
    *state = &f;
    if (ht_model_open(folder, NULL, &f.dit) ||
        ht_safetensors_open("tests/goldens/models/emoji-dit.safetensors", &f.golden)) {
        print_error("%s\n", ht_error_message());
        return -1;
    }
    return 0;
}

static int close_fixture(void **state)
{
    fixture *f = *state;
    ht_safetensors_close(f->golden);
    ht_model_close(f->dit);
    return 0;
}

/* Recorded with channels first. */
static void put_channels_last(const float *from, int channels, int pixels, float *to)
{
    for (int p = 0; p < pixels; p++)
        for (int c = 0; c < channels; c++)
            to[p * channels + c] = from[c * pixels + p];
}

static void outputs_are_the_recorded_ones_with_a_class_and_with_none(void **state)
{
    const fixture *f = *state;
    static float out[2 * OUT], want[OUT];
    ht_session *s;
    float *x = images_of(f->golden, "dit.x"), *t = floats_of(f->golden, "dit.t"),
          *classes = floats_of(f->golden, "dit.classes");
    assert_ok(ht_session_open(f->dit, &(ht_session_options){.batch = 2}, &s));
    for (int none = 0; none < 2; none++) {
        const char *name = none ? "dit.out.null" : "dit.out.class";
        float *all = floats_of(f->golden, name), labels[] = {none ? NONE : classes[0], none ? NONE : classes[1]};
        for (int k = 0; k < 4; k++) {
            assert_ok(ht_predict(s, 2, x, (float[]){t[k], t[k]}, &(ht_cond){.class_labels = labels}, out));
            for (int i = 0; i < 2; i++) {
                put_channels_last(all + (k * 2 + i) * OUT, 8, 256, want);
                assert_close(name, out + i * OUT, want, OUT, 1e-4);
            }
        }
        free(all);
    }
    ht_session_close(s);
    free(classes);
    free(t);
    free(x);
}

typedef struct walk {
    const float *states; /* [STEPS][4][256] */
    const float *x;
    int step;
} walk;

/* Every state so far is the recorded one; enough of them are walked. */
static int compare_state(void *user, int64_t done, int64_t total)
{
    walk *w = user;
    float want[LATENT];
    assert_int_equal(total, STEPS);
    assert_int_equal(done, w->step + 1);
    put_channels_last(w->states + w->step * LATENT, 4, 256, want);
    assert_close("state", w->x, want, LATENT, 1e-4);
    return ++w->step == WALKED;
}

static void guided_ddim_goes_through_the_recorded_states(void **state)
{
    const fixture *f = *state;
    ht_session *s;
    const float label = 1, none = NONE;
    float x[LATENT], *noise = images_of(f->golden, "ddim.noise"), *states = floats_of(f->golden, "ddim.trajectory");
    walk w = {states, x, 0};
    ht_sample_options o = {.steps = STEPS,
                           .noise = noise,
                           .cond = &(ht_cond){.class_labels = &label},
                           .negative = &(ht_cond){.class_labels = &none},
                           .guidance = 5,
                           .progress = compare_state,
                           .user = &w};
    assert_ok(ht_session_open(f->dit, &(ht_session_options){.batch = 2}, &s));
    assert_int_equal(ht_sample(s, &o, 0, 1, x), HT_ERR_CANCELLED);
    assert_int_equal(w.step, WALKED);
    ht_session_close(s);
    free(states);
    free(noise);
}

/* ---- guidance by classes ---- */

static float *draw(const ht_draw_options *o, int n, int batch)
{
    ht_pipeline *p;
    float *images = calloc((size_t)n, PICTURE * sizeof *images);
    assert_non_null(images);
    assert_ok(ht_pipeline_open(folder, &(ht_session_options){.batch = batch}, &p));
    assert_ok(ht_pipeline_draw(p, o, 0, n, images));
    ht_pipeline_close(p);
    return images;
}

static void pictures_do_not_depend_on_the_batch_or_what_else_is_drawn(void **state)
{
    (void)state;
    const float labels[] = {1, 54, 27};
    ht_draw_options o = {.sample = {.steps = 3, .seed = 5, .cond = &(ht_cond){.class_labels = labels}}};
    float *one_by_one = draw(&o, 3, 1), *together = draw(&o, 3, 3), *first = draw(&o, 1, 1);
    assert_memory_equal(one_by_one, together, 3 * PICTURE * sizeof *together);
    assert_memory_equal(first, together, PICTURE * sizeof *together);
    free(first);
    free(together);
    free(one_by_one);
}

static void a_class_that_is_none_cannot_be_led(void **state)
{
    (void)state;
    const float labels[] = {NONE};
    ht_draw_options o = {.sample = {.steps = 2, .seed = 5, .guidance = 9, .cond = &(ht_cond){.class_labels = labels}}};
    float *led = draw(&o, 1, 1);
    o.no_guidance = 1;
    float *plain = draw(&o, 1, 1);
    assert_memory_equal(led, plain, PICTURE * sizeof *led);
    free(plain);
    free(led);
}

static void channels_that_are_not_led_are_those_of_the_own_condition(void **state)
{
    (void)state;
    float negative[] = {1, 2, 3, 4, 10, 20, 30, 40}, positive[] = {2, 2, 2, 2, 11, 22, 33, 44};
    const float want[] = {4, 2, 0, 2, 13, 26, 39, 44};
    ht_guide(&(ht_guidance){.scale = 3, .pixels = 2, .channels = 4, .guided = 3}, negative, positive);
    for (int i = 0; i < 8; i++)
        assert_float_equal(negative[i], want[i], 0);
}

static void guidance_out_of_range_is_refused(void **state)
{
    const fixture *f = *state;
    const float label = 1, none = NONE, beyond = NONE + 1;
    float x[LATENT];
    ht_session *s;
    ht_sample_options o = {.steps = 1,
                           .cond = &(ht_cond){.class_labels = &label},
                           .negative = &(ht_cond){.class_labels = &none},
                           .guidance = 4,
                           .guidance_channels = 5};
    assert_ok(ht_session_open(f->dit, &(ht_session_options){.batch = 2}, &s));
    assert_refused(ht_sample(s, &o, 0, 1, x), HT_ERR_ARGUMENT, "guidance_channels is 5");
    o.guidance_channels = 3;
    assert_ok(ht_sample(s, &o, 0, 1, x));
    o.cond = &(ht_cond){.class_labels = &beyond};
    assert_refused(ht_sample(s, &o, 0, 1, x), HT_ERR_ARGUMENT, "classes 0 to 1000");
    ht_session_close(s);
}

static void info_is_that_of_the_card(void **state)
{
    (void)state;
    ht_pipeline *p;
    ht_pipeline_info info;
    assert_ok(ht_pipeline_open(folder, NULL, &p));
    ht_pipeline_get_info(p, &info);
    assert_string_equal(info.model.class_name, "DiTTransformer2DModel");
    assert_int_equal(info.model.parameters, 4891072);
    assert_int_equal(info.model.num_classes, NONE + 1);
    assert_true(info.model.has_null_class && !info.takes_prompt);
    assert_int_equal(info.height, 64);
    assert_float_equal((float)info.guidance, 4, 0);
    ht_pipeline_close(p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(outputs_are_the_recorded_ones_with_a_class_and_with_none),
        cmocka_unit_test(guided_ddim_goes_through_the_recorded_states),
        cmocka_unit_test(pictures_do_not_depend_on_the_batch_or_what_else_is_drawn),
        cmocka_unit_test(a_class_that_is_none_cannot_be_led),
        cmocka_unit_test(channels_that_are_not_led_are_those_of_the_own_condition),
        cmocka_unit_test(guidance_out_of_range_is_refused),
        cmocka_unit_test(info_is_that_of_the_card),
    };
    return cmocka_run_group_tests(tests, open_fixture, close_fixture);
}
