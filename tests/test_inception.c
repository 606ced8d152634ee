/* test_inception.c - FID's own network and the resizes before it: the recorded features of pytorch-fid,
 * torch-fidelity, clean-fid and ADM's evaluator. */
#include "core/file.h"
#include "eval/features.h"
#include "tests/folder.h"
#include "tests/goldens.h"
#include "tests/inception_weights.h"

enum { SIDE = 299, VALUES = SIDE * SIDE * 3, IMAGES = 4, SEED = 2015 };

static const char *const images[IMAGES] = {"image0_32x32", "image1_64x64", "image2_300x200", "image3_299x299"};

typedef struct fixture {
    ht_features *f;
    const ht_network_info *network;
    json_t *numbers;
    ht_safetensors *golden;
    double tolerance;
    ht_pixels picture[IMAGES];
} fixture;

static fixture x;

static void find_case(const char *name, const json_t *entry)
{
    x.golden = golden_open(name, "golden.safetensors");
    x.tolerance = golden_real(entry, "tolerance");
    assert_ok(ht_json_read(GOLDENS "/eval/packages/numbers.json", &x.numbers));
}

static int open_fixture(void **state)
{
    ht_features_info info;
    char path[256];
    if (make_folder(state) || write_inception(in_folder("formula.safetensors"), SEED) ||
        ht_features_open(in_folder("formula.safetensors"), &x.f) || golden_each("packages", NULL, find_case) != 1)
        return -1;
    ht_features_get_info(x.f, &info);
    x.network = info.network;
    for (int i = 0; i < IMAGES; i++) {
        ht_mapping file;
        snprintf(path, sizeof path, GOLDENS "/eval/packages/%s.png", images[i]);
        if (ht_map_file(path, &file) || ht_image_decode(file.data, file.size, path, &x.picture[i]))
            return -1;
        ht_unmap_file(&file);
    }
    return 0;
}

static int close_fixture(void **state)
{
    for (int i = 0; i < IMAGES; i++)
        free(x.picture[i].data);
    ht_features_close(x.f);
    ht_safetensors_close(x.golden);
    json_decref(x.numbers);
    return remove_folder(state);
}

/* Under valgrind an image takes minutes: one is run there. */
static int images_here(void)
{
    return getenv("RUNNER") ? 1 : IMAGES;
}

static void weights_are_those_of_the_formula(void **state)
{
    const json_t *values = json_object_get(x.numbers, "formula_test_values"), *v;
    size_t i;
    ht_safetensors *file;
    (void)state;
    assert_int_equal((int)golden_real(x.numbers, "inception_seed"), SEED);
    assert_ok(ht_safetensors_open(in_folder("formula.safetensors"), &file));
    assert_int_equal(json_array_size(values), 5);
    json_array_foreach(values, i, v)
    {
        float got;
        const ht_tensor *t = tensor_of(file, golden_string(v, "name"));
        ht_convert_to_f32(t->dtype, t->data, (size_t)golden_real(v, "index"), 1, &got);
        if (got != (float)golden_real(v, "value"))
            fail_msg("%s is %.9g", t->name, (double)got);
    }
    ht_safetensors_close(file);
}

static void the_network_tells_what_it_gives(void **state)
{
    ht_features_info info;
    (void)state;
    ht_features_get_info(x.f, &info);
    assert_string_equal(info.name, "formula");
    assert_int_equal(info.dim, 2048);
    assert_true(info.height == SIDE && info.width == SIDE);
    assert_true(info.network->is_inception);
    assert_string_equal(info.network->output[info.network->use[HT_USE_SPATIAL]].name, "spatial");
}

/* ---- features ---- */

/* Every output of image i that has a golden PREFIX.imageI.OUTPUT, after this resize; returns how many were compared. */
static int check_outputs(int i, ht_resize resize, const char *prefix)
{
    float *input = malloc(VALUES * sizeof *input), *out[HT_NETWORK_OUTPUTS] = {NULL};
    char name[128];
    int compared = 0;
    assert_non_null(input);
    assert_ok(ht_features_input(x.f, resize, &x.picture[i], input));
    for (int o = 0; o < x.network->outputs; o++)
        assert_non_null(out[o] = malloc((size_t)x.network->output[o].dim * sizeof(float)));
    assert_ok(ht_features_run_outputs(x.f, 1, input, NULL, (1u << x.network->outputs) - 1, out));
    for (int o = 0; o < x.network->outputs; o++) {
        bool adm = o == x.network->use[HT_USE_SPATIAL] && resize == HT_RESIZE_TF1;
        snprintf(name, sizeof name, "%s.image%d.%s", adm ? "adm" : prefix, i, x.network->output[o].name);
        if (ht_safetensors_find(x.golden, name)) {
            float *want = floats_of(x.golden, name);
            assert_close(name, out[o], want, (size_t)x.network->output[o].dim, x.tolerance);
            free(want);
            compared++;
        }
        free(out[o]);
    }
    free(input);
    return compared;
}

static void features_are_those_of_pytorch_fid(void **state)
{
    (void)state;
    for (int i = 0; i < images_here(); i++)
        assert_int_equal(check_outputs(i, HT_RESIZE_BILINEAR, "pytorch_fid"), 4);
}

static void features_are_those_of_torch_fidelity_and_adm(void **state)
{
    (void)state;
    for (int i = 0; i < images_here(); i++) /* four taps, two of logits; ADM's for sFID */
        assert_int_equal(check_outputs(i, HT_RESIZE_TF1, "torch_fidelity"), 7);
}

static void features_are_those_of_clean_fid(void **state)
{
    (void)state;
    for (int i = 0; i < images_here(); i++)
        assert_int_equal(check_outputs(i, HT_RESIZE_BICUBIC, "cleanfid"), 1);
}

static void an_output_alone_is_the_same_as_among_others(void **state)
{
    float *input = malloc(2 * VALUES * sizeof *input), one[2 * 64], both[2 * 64], *out[HT_NETWORK_OUTPUTS] = {NULL};
    float *features = malloc(2 * 2048 * sizeof *features);
    (void)state;
    assert_non_null(input);
    assert_non_null(features);
    for (int i = 0; i < 2; i++)
        assert_ok(ht_features_input(x.f, HT_RESIZE_BILINEAR, &x.picture[i], input + (size_t)i * VALUES));
    out[0] = one;
    assert_ok(ht_features_run_outputs(x.f, 2, input, &(ht_features_options){.threads = 1}, 1, out));
    if (!getenv("RUNNER")) {
        out[0] = both;
        out[x.network->use[HT_USE_FEATURES]] = features;
        assert_ok(ht_features_run_outputs(x.f, 2, input, &(ht_features_options){.threads = 3},
                                          1 | 1u << x.network->use[HT_USE_FEATURES], out));
        assert_memory_equal(one, both, sizeof one);
    }
    free(features);
    free(input);
}

/* ---- resizes ---- */

static void resizes_are_those_of_the_packages(void **state)
{
    static const struct {
        ht_resize resize;
        const char *name, *sum;
        double scale, shift; /* of our [0,255] to theirs */
    } ways[] = {{HT_RESIZE_BILINEAR, "pytorch_fid.image%d.input", "pytorch_fid.image%d.input.sum", 2 / 255.0, -1},
                {HT_RESIZE_BICUBIC, "cleanfid.image%d.resized", "cleanfid.image%d.resized.sum", 1, 0}};
    float *made = malloc(VALUES * sizeof *made);
    char name[128];
    int compared = 0;
    (void)state;
    assert_non_null(made);
    for (size_t w = 0; w < sizeof ways / sizeof *ways; w++)
        for (int i = 0; i < IMAGES; i++) {
            double sum = 0;
            assert_ok(ht_resize_pixels(ways[w].resize, &x.picture[i], SIDE, SIDE, made));
            for (int k = 0; k < VALUES; k++)
                sum += (double)made[k] * ways[w].scale + ways[w].shift;
            snprintf(name, sizeof name, ways[w].sum, i);
            const json_t *want_sum = json_object_get(x.numbers, name);
            if (!want_sum)
                continue;
            double want = json_number_value(want_sum);
            if (!(fabs(sum - want) <= 2e-6 * VALUES * (w ? 255 : 2)))
                fail_msg("%s is %.9g, want %.9g", name, sum, want);
            snprintf(name, sizeof name, ways[w].name, i);
            snprintf(name + strlen(name), 16, ".every16");
            const ht_tensor *t = tensor_of(x.golden, name);
            float *few = floats_of(x.golden, name), got[19 * 19 * 3];
            bool planes = t->shape[0] == 3;
            for (int k = 0; k < 19 * 19 * 3; k++) {
                int c = planes ? k / 361 : k % 3, y = planes ? k / 19 % 19 : k / 57, col = planes ? k % 19 : k / 3 % 19;
                got[k] = (float)((double)made[(y * 16 * SIDE + col * 16) * 3 + c] * ways[w].scale + ways[w].shift);
            }
            assert_close(name, got, few, 19 * 19 * 3, 1e-6);
            free(few);
            compared++;
        }
    assert_true(compared >= 5);
    free(made);
}

static void a_picture_of_the_size_stays_as_it_is(void **state)
{
    float *made = malloc(VALUES * sizeof *made);
    (void)state;
    assert_non_null(made);
    for (int r = 0; r < HT_RESIZES; r++) {
        assert_ok(ht_resize_pixels((ht_resize)r, &x.picture[3], SIDE, SIDE, made));
        for (int k = 0; k < VALUES; k++)
            assert_true(made[k] == (float)x.picture[3].data[k]);
        assert_int_equal(ht_resize_find(ht_resize_name((ht_resize)r)), r);
    }
    assert_int_equal(ht_resize_find("nearest"), -1);
    assert_refused(ht_resize_pixels(HT_RESIZE_NONE, &x.picture[0], SIDE, SIDE, made), HT_ERR_SHAPE,
                   "32 x 32 pixels, wanted 299 x 299");
    free(made);
}

static void pictures_of_one_pixel_can_be_resized(void **state)
{
    uint8_t pixel[3] = {1, 2, 250};
    ht_pixels one = {1, 1, pixel};
    float made[5 * 7 * 3];
    (void)state;
    for (int r = HT_RESIZE_BILINEAR; r < HT_RESIZES; r++) {
        assert_ok(ht_resize_pixels((ht_resize)r, &one, 5, 7, made));
        for (int k = 0; k < 5 * 7 * 3; k++)
            assert_true(made[k] == (float)pixel[k % 3]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(weights_are_those_of_the_formula),
        cmocka_unit_test(the_network_tells_what_it_gives),
        cmocka_unit_test(features_are_those_of_pytorch_fid),
        cmocka_unit_test(features_are_those_of_torch_fidelity_and_adm),
        cmocka_unit_test(features_are_those_of_clean_fid),
        cmocka_unit_test(an_output_alone_is_the_same_as_among_others),
        cmocka_unit_test(resizes_are_those_of_the_packages),
        cmocka_unit_test(a_picture_of_the_size_stays_as_it_is),
        cmocka_unit_test(pictures_of_one_pixel_can_be_resized),
    };
    return cmocka_run_group_tests(tests, open_fixture, close_fixture);
}
