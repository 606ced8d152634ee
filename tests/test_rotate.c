/* test_rotate.c - the blockwise rotation: what it is, checkpoints that carry it, and models that are made with it. */
#include "quant/rotate.h"

#include <math.h>

#include "quant/file.h"
#include "tests/quantizing.h"

/* Entry of the Kronecker power, over the root of its size. */
static double entry(int size, int row, int column)
{
    double x = 1;
    for (int n = size; n > 1; n /= 4, row /= 4, column /= 4)
        x *= row % 4 + column % 4 == 3 ? -0.5 : 0.5;
    return x;
}

static void a_rotation_is_the_regular_hadamard_matrix(void **state)
{
    float x[256], y[256];
    (void)state;
    for (int size = 4; size <= 64; size *= 4) {
        for (int i = 0; i < 2 * size; i++)
            x[i] = y[i] = (float)(i * 37 % 101 - 50);
        ht_rotate(2 * (size_t)size, size, y);
        for (int i = 0; i < 2 * size; i++) {
            double sum = 0;
            for (int k = 0; k < size; k++)
                sum += entry(size, i % size, k) * (double)x[i / size * size + k];
            assert_true(fabs(sum - (double)y[i]) < 1e-3);
        }
    }
}

static void it_is_its_own_inverse_and_spreads_what_is_large(void **state)
{
    float x[256] = {0}, most = 0;
    (void)state;
    x[77] = 100;
    ht_rotate(256, 256, x);
    for (int i = 0; i < 256; i++)
        most = fmaxf(most, fabsf(x[i]));
    assert_true(most == 100.0f / 16);
    ht_rotate(256, 256, x);
    for (int i = 0; i < 256; i++)
        assert_true(x[i] == (i == 77 ? 100 : 0));
}

static void groups_are_powers_of_four(void **state)
{
    static const int sizes[] = {4, 16, 64, 256, 1024}, others[] = {-4, 0, 1, 2, 8, 12, 32, 4096};
    (void)state;
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        assert_true(ht_rotates(sizes[i]));
    for (size_t i = 0; i < sizeof others / sizeof *others; i++)
        assert_false(ht_rotates(others[i]));
}

/* ---- ComfyUI's files ---- */

enum { ROWS = 3, INPUTS = 32 };

static ht_status read_foreign(const char *text, const char *metadata, ht_layers *layers)
{
    static int8_t codes[ROWS * INPUTS];
    static const float scales[ROWS] = {0.5f, 1, 2};
    const ht_tensor tensors[] = {{.name = "a.weight",
                                  .dtype = HT_I8,
                                  .ndim = 2,
                                  .shape = {ROWS, INPUTS},
                                  .data = codes,
                                  .count = sizeof codes,
                                  .bytes = sizeof codes},
                                 {.name = "a.weight_scale",
                                  .dtype = HT_F32,
                                  .ndim = 2,
                                  .shape = {ROWS, 1},
                                  .data = scales,
                                  .count = ROWS,
                                  .bytes = sizeof scales},
                                 {.name = "a.comfy_quant",
                                  .dtype = HT_U8,
                                  .ndim = 1,
                                  .shape = {(int64_t)strlen(text)},
                                  .data = text,
                                  .count = strlen(text),
                                  .bytes = strlen(text)}};
    const ht_metadata list = {"_quantization_metadata", metadata};
    ht_safetensors *file;
    assert_ok(ht_safetensors_write(in_root("f.safetensors"), tensors, metadata ? 2 : 3, &list, metadata ? 1 : 0));
    assert_ok(ht_safetensors_open(in_root("f.safetensors"), &file));
    ht_status status = ht_layers_read(arena, file, layers);
    ht_safetensors_close(file);
    return status;
}

static void convrot_of_other_programs_is_read(void **state)
{
    ht_layers layers;
    (void)state;
    static const char entry_text[] =
        "{\"format\":\"int8_tensorwise\",\"convrot\":true,\"convrot_groupsize\":16,\"per_row\":true}";
    assert_ok(read_foreign(entry_text, NULL, &layers)); /* a tensor for each layer */
    assert_int_equal(layers.n, 1);
    assert_string_equal(layers.layer[0].name, "a");
    assert_int_equal(layers.layer[0].rotate, 16);
    assert_int_equal(layers.layer[0].mode, HT_INPUT_FLOAT);
    assert_ok(read_foreign("", ht_sprintf(arena, "{\"layers\":{\"a\":%s}}", entry_text), &layers)); /* or a list */
    assert_int_equal(layers.layer[0].rotate, 16);
    assert_ok(read_foreign("{\"format\":\"int8_tensorwise\"}", NULL, &layers));
    assert_int_equal(layers.layer[0].rotate, 0);
}

static void rotations_that_cannot_be_are_refused_by_name(void **state)
{
    static const char *const texts[] = {
        "{\"format\":\"int8_tensorwise\",\"convrot\":true}", /* 256 of 32 */
        "{\"format\":\"int8_tensorwise\",\"convrot\":true,\"convrot_groupsize\":8}",
        "{\"format\":\"int8_tensorwise\",\"convrot\":true,\"convrot_groupsize\":-16}",
        "{\"format\":\"int8_tensorwise\",\"convrot\":true,\"convrot_groupsize\":\"16\"}",
        "{\"format\":",
        "[]",
        "5",
        ""};
    ht_layers layers;
    (void)state;
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
        if (read_foreign(texts[i], NULL, &layers) != HT_ERR_FORMAT || !strstr(ht_error_message(), "f.safetensors") ||
            !strstr(ht_error_message(), "a"))
            fail_msg("%s: \"%s\"", texts[i], ht_error_message());
}

/* ---- models ---- */

static const char *rotated(ht_model *m, const char *name, const char *scheme, int group)
{
    ht_quantize_options o = with_calibration();
    o.layers = "all";
    o.scheme = scheme;
    o.dynamic = 1;
    o.rotate = group;
    o.smooth = 0.3;
    o.low_rank = 2;
    return quantize(m, name, &o);
}

static void a_rotated_model_draws_what_its_source_draws(void **state)
{
    static const char *const isas[] = {"scalar", "avx2", "avx512", "avx512vnni"};
    float want[SMALL_PIXELS], got[SMALL_PIXELS];
    int found = 0;
    (void)state;
    ht_model *m = open_calibrated(&wide);
    assert_true(distance_of(m, rotated(m, "four", "w4a8", 16)) < 0.3);
    const char *path = rotated(m, "eight", "w8a8", 16);
    assert_true(distance_of(m, path) < 0.05);
    ht_model *q = opened(path);
    for (int i = 0; i < q->layers.n; i++)
        found += q->layers.layer[i].rotate == 16;
    assert_true(found > 10 && found < q->layers.n); /* three channels are no group */
    for (int i = 0; i < 4; i++) {
        ht_session *s;
        if (ht_session_open(q, &(ht_session_options){.threads = 1 + i % 2, .isa = isas[i]}, &s))
            continue;
        assert_ok(ht_sample(s, &(ht_sample_options){.steps = 4, .seed = 9}, 0, 1, i ? got : want));
        if (i)
            assert_memory_equal(got, want, sizeof want);
        ht_session_close(s);
    }
    ht_model_close(q);
    ht_model_close(m);
}

static void rotations_that_cannot_be_made_are_refused(void **state)
{
    static const struct {
        ht_quantize_options options;
        const char *words;
    } cases[] = {{{.rotate = 8, .dynamic = 1}, "groups of 8"},
                 {{.rotate = -16, .dynamic = 1}, "groups of -16"},
                 {{.rotate = 16}, "make them dynamic"},
                 {{.rotate = 16, .dynamic = 1, .blocks = 1}, "leave out blocks"}};
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        assert_refused(ht_quantize_check(&cases[i].options), HT_ERR_ARGUMENT, cases[i].words);
    assert_ok(ht_quantize_check(&(ht_quantize_options){.rotate = 16, .scheme = "w4a32"}));
}

#define CASE(test) cmocka_unit_test_setup_teardown(test, open_all, close_all)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_rotation_is_the_regular_hadamard_matrix),
        cmocka_unit_test(it_is_its_own_inverse_and_spreads_what_is_large),
        cmocka_unit_test(groups_are_powers_of_four),
        CASE(convrot_of_other_programs_is_read),
        CASE(rotations_that_cannot_be_are_refused_by_name),
        CASE(a_rotated_model_draws_what_its_source_draws),
        CASE(rotations_that_cannot_be_made_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
