/* test_features.c - the feature network: the operations that it brought, the recorded features of test images, and that
 * a vector depends on its image alone. */
#include <float.h>

#include "core/pixel.h"
#include "core/rng.h"
#include "cpu/backend.h"
#include "eval/features.h"
#include "tests/folder.h"
#include "tests/goldens.h"

enum { GOLDEN = 8, MANY = 19, VALUES = 32 * 32 * 3, DIM = 192 }; /* MANY: more than a batch, and no multiple of one */

#define NETWORK "models/cifar10/features"

/* ---- operations ---- */

typedef ht_value *builder(ht_graph *g, ht_value *x);

/* out = build(x) for n of a batch of `batch` images. */
static void run_op(builder *build, const int64_t shape[4], int n, int threads, const float *x, float *out)
{
    ht_arena *arena = ht_arena_create();
    ht_graph *g = ht_graph_create(arena);
    ht_program *p;
    ht_output_value(g, build(g, ht_input(g, "x", 4, shape, HT_DEPENDS_X)), "y");
    assert_ok(ht_graph_finish(g, true));
    assert_ok(ht_cpu_backend.compile(g, &(ht_backend_options){.threads = threads}, &p));
    assert_ok(ht_cpu_backend.upload(p, ht_graph_input(g, "x"), x, n));
    assert_ok(ht_cpu_backend.run(p, HT_STAGE_STEP, n, NULL));
    assert_ok(ht_cpu_backend.download(p, ht_graph_output(g), out, n));
    ht_cpu_backend.close(p);
    ht_arena_free(arena);
}

static void relu_is_0_below_0_and_lets_nan_through(void **state)
{
    enum { N = 2, COUNT = N * 3 * 5 * 7 };
    float x[COUNT], y[COUNT];
    ht_mt19937 rng;
    (void)state;
    ht_mt19937_seed(&rng, 1);
    ht_mt19937_randn(&rng, COUNT, x);
    x[0] = NAN;
    x[1] = INFINITY;
    x[2] = -INFINITY;
    x[3] = -FLT_TRUE_MIN;
    for (int threads = 1; threads <= 3; threads++) {
        run_op(ht_relu, (const int64_t[]){N, 3, 5, 7}, N, threads, x, y);
        assert_true(isnan(y[0]));
        for (int i = 1; i < COUNT; i++)
            if (y[i] != (x[i] > 0 ? x[i] : 0))
                fail_msg("relu(%g) = %g", (double)x[i], (double)y[i]);
    }
}

static void mean_is_that_of_the_positions_rounded_once(void **state)
{
    enum { BATCH = 5, N = 3, H = 6, W = 7, C = 9 };
    static float x[N * H * W * C];
    float y[N * C];
    ht_mt19937 rng;
    (void)state;
    ht_mt19937_seed(&rng, 2);
    ht_mt19937_randn(&rng, N * H * W * C, x);
    for (int threads = 1; threads <= 3; threads++) {
        run_op(ht_mean, (const int64_t[]){BATCH, H, W, C}, N, threads, x, y);
        for (int i = 0; i < N; i++)
            for (int c = 0; c < C; c++) {
                double sum = 0;
                for (int p = 0; p < H * W; p++)
                    sum += (double)x[(i * H * W + p) * C + c];
                assert_true(y[i * C + c] == (float)(sum / (H * W)));
            }
    }
}

static void mean_of_what_is_no_image_is_refused(void **state)
{
    ht_arena *arena = ht_arena_create();
    ht_graph *g = ht_graph_create(arena);
    (void)state;
    ht_output_value(g, ht_mean(g, ht_input(g, "tokens", 3, (const int64_t[]){1, 4, 8}, HT_DEPENDS_X)), "y");
    assert_refused(ht_graph_finish(g, true), HT_ERR_SHAPE, "mean of tokens [1,4,8]: wanted [n,h,w,c]");
    ht_arena_free(arena);
}

/* ---- the network ---- */

typedef struct fixture {
    ht_features *f;
    ht_safetensors *golden;
    uint8_t pixels[MANY * VALUES]; /* recorded images, then noise */
    float vectors[MANY * DIM];
} fixture;

static int open_fixture(void **state)
{
    static fixture x;
    ht_mt19937 rng;
    *state = &x;
    if (make_folder(state) || ht_features_open(NETWORK, &x.f) ||
        ht_safetensors_open("tests/goldens/models/cifar10_features.safetensors", &x.golden)) {
        print_error("%s\n", ht_error_message());
        return -1;
    }
    *state = &x;
    memcpy(x.pixels, tensor_of(x.golden, "features.images")->data, (size_t)GOLDEN * VALUES);
    ht_mt19937_seed(&rng, 3);
    for (int i = GOLDEN * VALUES; i < MANY * VALUES; i++)
        x.pixels[i] = (uint8_t)ht_mt19937_u32(&rng);
    return ht_features_run_pixels(x.f, MANY, x.pixels, NULL, x.vectors) ? -1 : 0;
}

static int close_fixture(void **state)
{
    fixture *x = *state;
    ht_safetensors_close(x->golden);
    ht_features_close(x->f);
    return remove_folder(state);
}

static void features_are_the_recorded_ones(void **state)
{
    const fixture *x = *state;
    ht_features_info info;
    float *want = floats_of(x->golden, "features.pooled");
    ht_features_get_info(x->f, &info);
    assert_string_equal(info.name, "resnet18_w24");
    assert_int_equal(info.dim, DIM);
    assert_true(info.height == 32 && info.width == 32);
    assert_int_equal(info.parameters, 1573402);
    for (int i = 0; i < GOLDEN; i++)
        assert_close("features of an image", x->vectors + i * DIM, want + i * DIM, DIM, 1e-5);
    free(want);
}

static void a_vector_depends_on_its_image_alone(void **state)
{
    fixture *x = *state;
    static const struct {
        int threads, from, n;
    } cases[] = {{1, 2, 17}, {2, 5, 2}, {3, 0, 7}};
    static float got[MANY * DIM];
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        int n = cases[i].n, from = cases[i].from;
        assert_ok(ht_features_run_pixels(x->f, n, x->pixels + (size_t)from * VALUES,
                                         &(ht_features_options){.threads = cases[i].threads}, got));
        assert_memory_equal(got, x->vectors + (size_t)from * DIM, (size_t)n * DIM * sizeof *got);
    }
    assert_ok(ht_features_run_pixels(x->f, 1, x->pixels, &(ht_features_options){.threads = 2, .isa = "scalar"}, got));
    assert_memory_equal(got, x->vectors, DIM * sizeof *got);
}

static void float_images_are_rounded_to_pixels_unless_told(void **state)
{
    fixture *x = *state;
    static float images[2 * VALUES], got[2 * DIM];
    for (int i = 0; i < 2 * VALUES; i++) /* almost a third of a level off */
        images[i] = ((float)x->pixels[i] + (i % 2 ? 0.3f : -0.3f)) / 255 * 2 - 1;
    assert_ok(ht_features_run(x->f, 2, images, NULL, got));
    assert_memory_equal(got, x->vectors, sizeof got);
    assert_ok(ht_features_run(x->f, 2, images, &(ht_features_options){.unrounded = true}, got));
    double error = relative_error(got, x->vectors, 2 * DIM);
    if (!(error > 1e-4 && error < 0.1))
        fail_msg("a third of a level moves features by %g of their length", error);
    for (int i = 0; i < 2 * VALUES; i++) /* whole levels: both ways agree but for rounding */
        images[i] = (float)x->pixels[i] / 255 * 2 - 1;
    assert_ok(ht_features_run(x->f, 2, images, &(ht_features_options){.unrounded = true}, got));
    assert_close("whole levels", got, x->vectors, 2 * DIM, 1e-5);
}

static void statistics_are_those_of_the_vectors(void **state)
{
    fixture *x = *state;
    static float images[MANY * VALUES];
    ht_statistics *a, *b, *wrong;
    ht_moments ma, mb;
    for (int i = 0; i < MANY * VALUES; i++)
        images[i] = (float)x->pixels[i] / 255 * 2 - 1;
    assert_ok(ht_statistics_open(DIM, &a));
    assert_ok(ht_statistics_open(DIM, &b));
    assert_ok(ht_features_statistics(x->f, 3, images, 2, a));
    assert_ok(ht_features_statistics_pixels(x->f, MANY - 3, x->pixels + 3 * VALUES, 1, a));
    assert_ok(ht_statistics_add(b, MANY, x->vectors));
    assert_ok(ht_statistics_moments(a, &ma));
    assert_ok(ht_statistics_moments(b, &mb));
    assert_memory_equal(ma.mu, mb.mu, DIM * sizeof *ma.mu);
    assert_memory_equal(ma.sigma, mb.sigma, sizeof(double[DIM][DIM]));
    assert_ok(ht_statistics_open(DIM + 1, &wrong));
    assert_refused(ht_features_statistics(x->f, 3, images, 2, wrong), HT_ERR_SHAPE, "the statistics are of 193");
    ht_moments_free(&mb);
    ht_moments_free(&ma);
    ht_statistics_close(wrong);
    ht_statistics_close(b);
    ht_statistics_close(a);
}

static void bad_calls_are_refused(void **state)
{
    fixture *x = *state;
    float out[DIM];
    assert_refused(ht_features_run_pixels(x->f, -1, x->pixels, NULL, out), HT_ERR_ARGUMENT, "features of -1 images");
    assert_refused(ht_features_run_pixels(x->f, 1, x->pixels, &(ht_features_options){.threads = -2}, out),
                   HT_ERR_ARGUMENT, "threads -2 is out of range");
    assert_refused(ht_features_run_pixels(x->f, 1, x->pixels, &(ht_features_options){.isa = "abacus"}, out),
                   HT_ERR_ARGUMENT, "abacus");
    assert_ok(ht_features_run_pixels(x->f, 1, x->pixels, NULL, out)); /* and it goes on */
    assert_memory_equal(out, x->vectors, sizeof out);
}

/* The network's own config.json with one key set, beside its weights. */
static ht_status open_changed(const char *key, json_t *value)
{
    static char weights[4096];
    json_t *config;
    ht_features *f;
    assert_ok(ht_json_read(NETWORK "/config.json", &config));
    assert_int_equal(json_object_set_new(config, key, value), 0);
    char *text = json_dumps(config, 0);
    put_file("config.json", text, strlen(text));
    free(text);
    json_decref(config);
    assert_non_null(realpath(NETWORK "/resnet18_w24.safetensors", weights));
    unlink(in_folder("w.safetensors"));
    assert_int_equal(symlink(weights, in_folder("w.safetensors")), 0);
    ht_status status = ht_features_open(folder, &f);
    if (!status)
        ht_features_close(f);
    return status;
}

static void networks_that_do_not_fit_are_refused(void **state)
{
    (void)state;
    assert_ok(open_changed("test_accuracy_percent", json_real(12)));
    assert_refused(open_changed("architecture", json_string("vgg16")), HT_ERR_UNSUPPORTED, "resnet18-cifar");
    assert_refused(open_changed("architecture", json_null()), HT_ERR_FORMAT, "has no architecture");
    assert_refused(open_changed("channels", json_pack("[i,i,i,i]", 24, 48, 96, 200)), HT_ERR_FORMAT,
                   "feature_dim is 192, the last layer has 200 channels");
    assert_refused(open_changed("channels", json_pack("[i,i,i,i]", 16, 48, 96, 192)), HT_ERR_SHAPE, "conv1.weight");
    assert_refused(open_changed("blocks", json_pack("[i,i,i]", 2, 2, 2)), HT_ERR_FORMAT, "one each a layer");
    assert_refused(open_changed("blocks", json_pack("[i,i,i,i]", 2, 2, 2, 1)), HT_ERR_SHAPE, "layer4.1");
    assert_refused(open_changed("std", json_pack("[f,f,f]", 0.2, 0.0, 0.2)), HT_ERR_FORMAT, "std[1] is 0");
    assert_refused(open_changed("mean", json_pack("[f,f]", 0.2, 0.3)), HT_ERR_FORMAT, "three numbers");
}

static void folders_that_hold_no_network_are_refused(void **state)
{
    ht_features *f;
    (void)state;
    unlink(in_folder("w.safetensors"));
    assert_refused(ht_features_open(in_folder("missing"), &f), HT_ERR_IO, "wanted the folder of a feature network");
    assert_refused(ht_features_open(folder, &f), HT_ERR_IO, "0 files end in .safetensors");
    put_file("a.safetensors", "x", 1);
    assert_refused(ht_features_open(folder, &f), HT_ERR_FORMAT, "a.safetensors");
    put_file("b.safetensors", "x", 1);
    assert_refused(ht_features_open(folder, &f), HT_ERR_IO, "2 files end in .safetensors");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(relu_is_0_below_0_and_lets_nan_through),
        cmocka_unit_test(mean_is_that_of_the_positions_rounded_once),
        cmocka_unit_test(mean_of_what_is_no_image_is_refused),
        cmocka_unit_test(features_are_the_recorded_ones),
        cmocka_unit_test(a_vector_depends_on_its_image_alone),
        cmocka_unit_test(float_images_are_rounded_to_pixels_unless_told),
        cmocka_unit_test(statistics_are_those_of_the_vectors),
        cmocka_unit_test(bad_calls_are_refused),
        cmocka_unit_test(networks_that_do_not_fit_are_refused),
        cmocka_unit_test(folders_that_hold_no_network_are_refused),
    };
    return cmocka_run_group_tests(tests, open_fixture, close_fixture);
}
