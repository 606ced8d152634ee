/* cuda_backend.c - the backend for NVIDIA GPUs on a machine with one (make gpu-test): recorded evaluations of the
 * reference libraries, and images of the quantized model beside those of the CPU. */
#include <math.h>

#include "eval/psnr.h"
#include "sampler/model.h"
#include "tests/predictions.h"

enum { PIXELS = 32 * 32 * 3, IMAGES = 9 };

static int images = IMAGES, steps = 20; /* fewer with the module of plain loops (tests/scalar_module.c) */

/* ---- recorded evaluations ---- */

static ht_session_options on_gpu;
static double at_least; /* the tolerance of what float16 can hold */
static int beyond;

static void check_on_gpu(const evaluation *e)
{
    ht_safetensors *file = predict(e, &on_gpu);
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)(uintptr_t)e->outputs, key, value)
    {
        const char *name = json_string_value(value);
        const ht_tensor *want = tensor_of(e->golden, name);
        float *x = floats_of(file, key), *y = floats_of(e->golden, name);
        double error = relative_error(x, y, want->count), most = e->tolerance > at_least ? e->tolerance : at_least;
        print_message("%s: %s, %s: %.2g%s\n", e->name, name, on_gpu.dtype, error, error <= most ? "" : " TOO MUCH");
        beyond += !(error <= most);
        free(x);
        free(y);
    }
    ht_safetensors_close(file);
}

static void goldens_hold(const char *dtype, double tolerance)
{
    static const struct {
        const char *kind, *class_name;
    } kinds[] = {{"unet", "UNet2DModel"},          {"unet", "UNet2DConditionModel"},    {"ddim_original", NULL},
                 {"dit", "DiTTransformer2DModel"}, {"dit", "PixArtTransformer2DModel"}, {"dit_original", NULL}};
    on_gpu = (ht_session_options){.backend = "cuda", .dtype = dtype};
    at_least = tolerance;
    check = check_on_gpu;
    evaluations = beyond = 0;
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
        assert_true(golden_each(kinds[i].kind, kinds[i].class_name, for_each_evaluation_of) > 0);
    print_message("%d evaluations\n", evaluations);
    assert_int_equal(beyond, 0);
}

static void recorded_evaluations_hold_in_float32(void **state)
{
    (void)state;
    goldens_hold("float32", 1e-4);
}

static void recorded_evaluations_hold_in_float16(void **state)
{
    (void)state;
    goldens_hold("float16", 1e-2); /* what float16 between operations costs networks of 8 to 32 channels */
}

/* ---- images of the quantized model ---- */

static void draw(const char *path, const ht_session_options *options, int n, float *out)
{
    ht_model *m;
    ht_session *s;
    if (ht_model_open(path, NULL, &m) || ht_session_open(m, options, &s) ||
        ht_sample(s, &(ht_sample_options){.steps = steps, .seed = 5}, 0, n, out))
        fail_msg("%s: %s", path, ht_error_message());
    ht_session_close(s);
    ht_model_close(m);
}

static void images_are_near_those_of_the_cpu(void **state)
{
    (void)state;
    static const char *const models[] = {"models/cifar10", "models/cifar10-w4a8"};
    static float have[IMAGES * PIXELS], want[IMAGES * PIXELS];
    ht_psnr p;
    for (int i = 0; i < 2; i++) {
        draw(models[i], &(ht_session_options){.backend = "cpu", .batch = images}, images, want);
        for (int half = 0; half < 2; half++) {
            const char *dtype = half ? "float16" : "float32";
            draw(models[i], &(ht_session_options){.backend = "cuda", .dtype = dtype, .batch = images}, images, have);
            assert_int_equal(ht_psnr_images(images, PIXELS, want, have, &p), HT_OK);
            print_message("%s, %s: %.2f dB\n", models[i], dtype, p.pooled);
            assert_true(p.pooled > 40);
        }
    }
}

static void images_are_the_same_at_any_batch_size(void **state)
{
    (void)state;
    static float have[IMAGES * PIXELS], want[IMAGES * PIXELS];
    draw("models/cifar10-w4a8", &(ht_session_options){.backend = "cuda", .batch = 1}, images, want);
    for (int batch = 2; batch <= images; batch++) {
        draw("models/cifar10-w4a8", &(ht_session_options){.backend = "cuda", .batch = batch}, images, have);
        assert_memory_equal(have, want, sizeof want);
    }
}

/* DeepCache: what comes up from below a skip goes in again from outside, beside values that were made on the device. */
static void cached_features_come_back_in_both_dtypes(void **state)
{
    (void)state;
    enum { SIDE = 64 * 64 * 3 };
    static float have[SIDE], want[SIDE];
    const char *const prompt[] = {"a cat"};
    for (int run = 0; run < 3; run++) {
        ht_session_options how = {.backend = run ? "cuda" : "cpu", .dtype = run == 1 ? "float32" : "float16"};
        ht_draw_options o = {.sample = {.steps = 4, .seed = 3}, .prompts = 1, .prompt = prompt, .cache_interval = 2};
        ht_pipeline *p;
        ht_pipeline_info info;
        assert_ok(ht_pipeline_open(GOLDENS "/pipeline/sd1", &how, &p));
        ht_pipeline_get_info(p, &info);
        size_t n = (size_t)info.height * (size_t)info.width * 3;
        assert_true(n <= SIDE);
        assert_ok(ht_pipeline_draw(p, &o, 0, 1, run ? have : want));
        if (run)
            assert_close("cached", have, want, n, run == 1 ? 1e-4 : 3e-2);
        ht_pipeline_close(p);
    }
}

/* It has no softmax but that of floats. */
static void a_model_with_a_softmax_of_codes_is_left_to_the_cpu(void **state)
{
    (void)state;
    ht_model *m;
    ht_session *s = NULL;
    ht_session_info info;
    assert_ok(ht_model_open("models/cifar10-w4a8", NULL, &m));
    m->layers.softmax = HT_SOFTMAX_UINT8;
    assert_int_equal(ht_session_open(m, &(ht_session_options){.backend = "cuda"}, &s), HT_ERR_UNSUPPORTED);
    assert_non_null(strstr(ht_error_message(), "softmax of uint8"));
    assert_ok(ht_session_open(m, &(ht_session_options){.backend = "auto"}, &s));
    ht_session_get_info(s, &info);
    assert_string_equal(info.backend, "cpu");
    ht_session_close(s);
    ht_model_close(m);
}

static int look_at_device(void **state)
{
    ht_model *m;
    ht_session *s;
    ht_session_info info;
    if (ht_model_open("models/cifar10-w4a8", NULL, &m) ||
        ht_session_open(m, &(ht_session_options){.backend = "cuda"}, &s)) {
        print_message("%s\n", ht_error_message());
        return -1;
    }
    ht_session_get_info(s, &info);
    print_message("on %s\n", info.isa);
    if (strstr(info.isa, "scalar"))
        images = steps = 2;
    ht_session_close(s);
    ht_model_close(m);
    return make_folder(state);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(recorded_evaluations_hold_in_float32),
        cmocka_unit_test(recorded_evaluations_hold_in_float16),
        cmocka_unit_test(images_are_near_those_of_the_cpu),
        cmocka_unit_test(images_are_the_same_at_any_batch_size),
        cmocka_unit_test(cached_features_come_back_in_both_dtypes),
        cmocka_unit_test(a_model_with_a_softmax_of_codes_is_left_to_the_cpu),
    };
    return cmocka_run_group_tests(tests, look_at_device, remove_folder);
}
