/* test_cifar10.c - the trained model that comes with Halftone against the tensors recorded when it was made (float32,
 * PyTorch). */
#include "halftone.h"
#include "sampler/session.h"
#include "tests/goldens.h"

enum { N = 4, PIXELS = 32 * 32 * 3 };

typedef struct fixture {
    ht_model *model;
    ht_safetensors *golden;
} fixture;

static int open_fixture(void **state)
{
    static fixture f;
    *state = &f;
    if (ht_model_open("models/cifar10", NULL, &f.model) ||
        ht_safetensors_open("tests/goldens/models/cifar10.safetensors", &f.golden)) {
        print_error("%s\n", ht_error_message());
        return -1;
    }
    return 0;
}

static int close_fixture(void **state)
{
    fixture *f = *state;
    ht_safetensors_close(f->golden);
    ht_model_close(f->model);
    return 0;
}

static void eps_is_the_recorded_one_at_every_timestep(void **state)
{
    const fixture *f = *state;
    ht_session *s;
    static float out[N * PIXELS];
    float *x = images_of(f->golden, "unet.x"), *t = floats_of(f->golden, "unet.t"),
          *eps = images_of(f->golden, "unet.eps");
    assert_ok(ht_session_open(f->model, &(ht_session_options){.batch = N}, &s));
    assert_ok(ht_predict(s, N, x, t, NULL, out));
    for (int i = 0; i < N; i++) {
        char what[64];
        snprintf(what, sizeof what, "eps at t = %g", (double)t[i]);
        assert_close(what, out + i * PIXELS, eps + i * PIXELS, PIXELS, 1e-4);
    }
    ht_session_close(s);
    free(eps);
    free(t);
    free(x);
}

typedef struct tap {
    const char *name, *golden;
} tap;

/* One tap after a step of image i, if the file has it for that image (conv_in is kept for the first two). */
static void check_tap(const fixture *f, const ht_session *s, const tap *p, int i)
{
    const ht_tensor *t = tensor_of(f->golden, p->golden);
    size_t each = t->count / (size_t)t->shape[0];
    int64_t count = 0;
    if (i >= t->shape[0])
        return;
    float *expected = t->ndim == 4 ? images_of(f->golden, p->golden) : floats_of(f->golden, p->golden);
    const float *found = ht_session_tap(s, p->name, &count);
    assert_non_null(found);
    assert_int_equal(count, each);
    assert_close(p->name, found, expected + (size_t)i * each, each, 1e-4);
    free(expected);
}

static void inner_values_are_the_recorded_ones(void **state)
{
    static const tap taps[] = {{"conv_in", "unet.conv_in"}, {"mid_block", "unet.mid"}, {"time_embedding", "unet.temb"}};
    static const char *const names[] = {"conv_in", "mid_block", "time_embedding", NULL};
    const fixture *f = *state;
    ht_session *s;
    static float out[PIXELS];
    float *x = images_of(f->golden, "unet.x"), *t = floats_of(f->golden, "unet.t");
    assert_ok(ht_session_open_taps(f->model, &(ht_session_options){.batch = 1}, names, true, &s));
    assert_ok(ht_session_set_timesteps(s, N, t));
    for (int i = 0; i < N; i++) { /* one at a time: each has its own timestep */
        assert_ok(ht_session_set_cond(s, 1, NULL));
        assert_ok(ht_session_step(s, i, x + i * PIXELS, out));
        for (int k = 0; k < 3; k++)
            check_tap(f, s, &taps[k], i);
    }
    ht_session_close(s);
    free(t);
    free(x);
}

static void ddim_20_ends_at_the_recorded_images(void **state)
{
    const fixture *f = *state;
    ht_session *s;
    static float images[N * PIXELS];
    float *noise = images_of(f->golden, "ddim20.x_T"), *expected = images_of(f->golden, "ddim20.x_0");
    assert_ok(ht_session_open(f->model, &(ht_session_options){.batch = N}, &s));
    assert_ok(ht_sample(s, &(ht_sample_options){.steps = 20, .noise = noise}, 0, N, images));
    double error = largest_error(images, expected, N * PIXELS);
    if (!(error <= 1e-3))
        fail_msg("after 20 steps the images are off by %g", error);
    ht_session_close(s);
    free(expected);
    free(noise);
}

static void info_is_that_of_the_card(void **state)
{
    const fixture *f = *state;
    ht_model_info info;
    ht_model_get_info(f->model, &info);
    assert_string_equal(info.class_name, "UNet2DModel");
    assert_string_equal(info.scheduler, "DDIMScheduler");
    assert_int_equal(info.height, 32);
    assert_int_equal(info.width, 32);
    assert_int_equal(info.num_classes, 0);
    assert_int_equal(info.weight_bytes, 2 * info.parameters); /* fp16 */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(eps_is_the_recorded_one_at_every_timestep),
        cmocka_unit_test(inner_values_are_the_recorded_ones),
        cmocka_unit_test(ddim_20_ends_at_the_recorded_images),
        cmocka_unit_test(info_is_that_of_the_card),
    };
    return cmocka_run_group_tests(tests, open_fixture, close_fixture);
}
