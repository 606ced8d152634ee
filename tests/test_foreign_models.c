/* test_foreign_models.c - models with quantized layers that other programs wrote, and layers that do not fit their
 * model. */
#include "halftone.h"
#include "tests/layers.h"

static const small_model model_of_tests = {.a = 8, .b = 16, .seed = 3, .classes = 4};

/* The model of tests with weight `name` replaced by tensors of our own, and a list. */
static const char *write_model(const char *folder, const char *name, const ht_tensor *more, size_t n, const char *list)
{
    ht_safetensors *file;
    static ht_tensor tensors[SMALL_TENSORS + 8];
    const char *path = ht_strdup(arena, in_root(folder));
    write_small_model(path, &model_of_tests);
    const char *weights = ht_sprintf(arena, "%s/%s", path, SMALL_WEIGHTS), *old = in_root("old");
    assert_int_equal(rename(weights, old), 0);
    assert_ok(ht_safetensors_open(old, &file));
    size_t count = 0;
    for (size_t i = 0; i < ht_safetensors_count(file); i++)
        if (strcmp(ht_safetensors_at(file, i)->name, name) != 0)
            tensors[count++] = *ht_safetensors_at(file, i);
    for (size_t i = 0; i < n; i++)
        tensors[count++] = more[i];
    const ht_metadata m = {"_quantization_metadata", list};
    assert_ok(ht_safetensors_write(weights, tensors, count, &m, 1));
    ht_safetensors_close(file);
    unlink(old);
    return path;
}

/* Codes and the one scale of a weight of the model of tests, as other programs store them. */
static size_t tensorwise(const char *format, const char *name, ht_tensor out[2])
{
    ht_safetensors *file;
    ht_format f;
    const char *path = in_root("float");
    if (access(path, F_OK))
        write_small_model(path, &model_of_tests);
    assert_ok(ht_format_find(format, &f));
    assert_ok(ht_safetensors_open(ht_sprintf(arena, "%s/%s", in_root("float"), SMALL_WEIGHTS), &file));
    const ht_tensor *t = tensor_of(file, ht_sprintf(arena, "%s.weight", name));
    const float *x = t->data;
    float *scale = ht_alloc(arena, sizeof *scale), largest = 0;
    uint8_t *codes = ht_alloc(arena, t->count);
    assert_true(scale && codes);
    for (size_t i = 0; i < t->count; i++)
        largest = fmaxf(largest, fabsf(x[i]));
    *scale = largest / f.grid.highest;
    ht_grid_encode_array(&f.grid, *scale, t->count, x, codes);
    out[0] = *t;
    out[0].name = ht_sprintf(arena, "%s.weight", name);
    out[0].dtype = f.grid.exponent_bits ? HT_F8_E4M3 : HT_I8;
    out[0].data = codes;
    out[0].bytes = t->count;
    out[1] = (ht_tensor){.name = ht_sprintf(arena, "%s.weight_scale", name),
                         .dtype = HT_F32,
                         .data = scale,
                         .count = 1,
                         .bytes = sizeof *scale};
    ht_safetensors_close(file);
    return 2;
}

static void predict(const char *path, float out[SMALL_PIXELS])
{
    ht_model *m;
    ht_session *s;
    float x[SMALL_PIXELS], label = 2, t = 400;
    for (int i = 0; i < SMALL_PIXELS; i++)
        x[i] = sinf((float)i);
    assert_ok(ht_model_open(path, NULL, &m));
    assert_ok(ht_session_open(m, &(ht_session_options){.threads = 1}, &s));
    assert_ok(ht_predict(s, 1, x, &t, &(ht_cond){.class_labels = &label}, out));
    ht_session_close(s);
    ht_model_close(m);
}

static void assert_foreign(const char *folder, const char *ours, const char *theirs, const char *layer, double bound)
{
    ht_tensor more[2];
    ht_model *m;
    ht_model_info info;
    ht_layer_info of_layer;
    float want[SMALL_PIXELS], got[SMALL_PIXELS];
    size_t n = tensorwise(ours, layer, more);
    const char *list =
        ht_sprintf(arena, "{\"format_version\":\"1.0\",\"layers\":{\"%s\":{\"format\":\"%s\"}}}", layer, theirs);
    const char *path = write_model(folder, more[0].name, more, n, list);
    assert_ok(ht_model_open(path, NULL, &m));
    ht_model_get_info(m, &info);
    assert_int_equal(info.layers, 1);
    ht_model_get_layer(m, 0, &of_layer);
    assert_string_equal(of_layer.name, layer);
    assert_string_equal(of_layer.format, ours);
    assert_string_equal(of_layer.input_mode, "float");
    assert_true(of_layer.error < 0);
    ht_model_close(m);
    predict(in_root("float"), want);
    predict(path, got);
    double error = relative_error(got, want, SMALL_PIXELS);
    if (!(error > 0 && error < bound))
        fail_msg("%s as %s: relative error %g; wanted less than %g and not 0", layer, theirs, error, bound);
}

static void checkpoints_of_other_programs_are_models(void **state)
{
    (void)state;
    assert_foreign("a", "int8", "int8_tensorwise", "mid_block.resnets.0.conv1", 0.02);
    assert_foreign("b", "int8", "int8_tensorwise", "mid_block.attentions.0.to_q", 0.02);
    assert_foreign("c", "fp8_e4m3", "float8_e4m3fn", "mid_block.resnets.0.conv1", 0.05);
    assert_foreign("d", "fp8_e4m3", "float8_e4m3fn", "up_blocks.0.resnets.1.conv_shortcut", 0.05);
}

/* The same weights as ours, as another program stores them: no shape, and nvfp4 in tiles with the high nibble first. */
static void four_bits_of_other_programs_are_those_of_ours(void **state)
{
    (void)state;
    static const struct {
        const char *format;
        bool tiled;
    } cases[] = {{"mxfp4", false}, {"nvfp4", false}, {"nvfp4", true}, {"nvint4", true}};
    enum { ROWS = 130, INPUTS = 96 }; /* two tiles down, two across, neither full */
    for (int i = 0; i < 4; i++) {
        ht_layer ours = {.name = "to_q", .ndim = 2, .shape = {ROWS, INPUTS}, .parts = 1, .error = -1};
        static float values[ROWS * INPUTS], want[ROWS * INPUTS], got[ROWS * INPUTS];
        static uint8_t tiles[2 * 2 * 512], codes[ROWS * INPUTS / 2];
        ht_tensor more[HT_LAYER_TENSORS];
        const char *list;
        size_t n, blocks;
        ht_layers read;
        assert_ok(ht_format_find(cases[i].format, &ours.format));
        ours.part[0].count = INPUTS;
        ht_matrix m = ht_layer_matrix(&ours, 0);
        m.values = values;
        ht_mt19937_randn(&rng, ROWS * INPUTS, values);
        assert_ok(ht_quantized_alloc(arena, &ours.format, &m, &ours.part[0].weight));
        assert_ok(ht_format_quantize(&ours.format, &m, NULL, &ours.part[0].weight));
        ht_layer_values(&ours, 0, ROWS * INPUTS, want);
        assert_ok(ht_layers_write(arena, &(ht_layers){.layer = &ours, .n = 1}, more, &n, &list));
        blocks = (size_t)more[1].shape[1];
        if (cases[i].tiled) {
            const uint8_t *scales = more[1].data, *bytes = more[0].data;
            assert_int_equal(blocks, 6);
            memset(tiles, 0, sizeof tiles);
            for (size_t r = 0; r < ROWS; r++)
                for (size_t c = 0; c < blocks; c++)
                    tiles[(r / 128 * 2 + c / 4) * 512 + r % 32 * 16 + r % 128 / 32 * 4 + c % 4] =
                        scales[r * blocks + c];
            for (size_t k = 0; k < sizeof codes; k++)
                codes[k] = (uint8_t)(bytes[k] >> 4 | bytes[k] << 4);
            more[0].data = codes;
            more[1] = (ht_tensor){more[1].name, HT_F8_E4M3, 2, {256, 8}, tiles, sizeof tiles, sizeof tiles};
        }
        list = ht_sprintf(arena, "{\"layers\":{\"to_q\":{\"format\":\"%s\"}}}", cases[i].format);
        ht_metadata metadata = {"_quantization_metadata", list};
        ht_safetensors *file;
        assert_ok(ht_safetensors_write(in_root("foreign"), more, n, &metadata, 1));
        assert_ok(ht_safetensors_open(in_root("foreign"), &file));
        assert_ok(ht_layers_read(arena, file, &read));
        assert_memory_equal(read.layer[0].shape, ours.shape, 2 * sizeof *ours.shape);
        ht_layer_values(&read.layer[0], 0, ROWS * INPUTS, got);
        assert_memory_equal(got, want, sizeof want);
        ht_safetensors_close(file);
    }
}

/* One layer of the model of tests in a format, with its parts and shape. */
static size_t as_layer(const char *name, const char *format, int64_t in, int kernel, ht_tensor *tensors,
                       const char **list)
{
    ht_layer layer = make_layer(&(request){name, format, NULL, HT_INPUT_FLOAT, 1, kernel, 0, {in, 0}});
    size_t n;
    assert_ok(ht_layers_write(arena, &(ht_layers){.layer = &layer, .n = 1}, tensors, &n, list));
    return n;
}

static void assert_model_refused(const char *path, ht_status wanted, const char *words)
{
    ht_model *m = NULL;
    ht_status status = ht_model_open(path, NULL, &m);
    if (status != wanted || !strstr(ht_error_message(), words) || !strstr(ht_error_message(), SMALL_WEIGHTS))
        fail_msg("status %d, \"%s\"; wanted %d with \"%s\"", status, ht_error_message(), wanted, words);
}

static void layers_that_the_model_does_not_have_are_refused(void **state)
{
    (void)state;
    ht_tensor more[HT_LAYER_TENSORS];
    const char *list;
    size_t n = as_layer("mid_block.resnets.7.conv1", "int8", 8, 3, more, &list);
    assert_model_refused(write_model("a", "", more, n, list), HT_ERR_SHAPE, "config.json has no place for");
    n = as_layer("mid_block", "int4", 8, 0, more, &list);
    assert_model_refused(write_model("b", "", more, n, list), HT_ERR_SHAPE, "config.json has no place for");
}

static void layers_of_another_shape_than_the_model_are_refused(void **state)
{
    (void)state;
    ht_tensor more[HT_LAYER_TENSORS];
    const char *list;
    static const char name[] = "mid_block.attentions.0.to_q", weight[] = "mid_block.attentions.0.to_q.weight";
    size_t n = as_layer(name, "int8", 16, 0, more, &list); /* [6,16] for [16,16] */
    assert_model_refused(write_model("a", weight, more, n, list), HT_ERR_SHAPE, "config.json asks for [16,16]");
    n = as_layer(name, "int4", 16, 0, more, &list);
    assert_model_refused(write_model("b", weight, more, n, list), HT_ERR_SHAPE, "config.json asks for [16,16]");
    n = as_layer("conv_norm_out", "int8", 8, 0, more, &list);
    assert_model_refused(write_model("c", "conv_norm_out.weight", more, n, list), HT_ERR_SHAPE, "conv_norm_out");
}

/* Only linear maps and convolutions can be quantized: a table of classes is no layer. */
static void a_quantized_table_of_classes_is_refused(void **state)
{
    (void)state;
    static const char *const formats[] = {"int8", "int4", "fp8_e4m3"};
    for (int i = 0; i < 3; i++) {
        ht_format f;
        ht_layer layer = {.name = "class_embedding", .ndim = 2, .shape = {4, 32}, .parts = 1, .error = -1};
        ht_tensor more[HT_LAYER_TENSORS];
        const char *list;
        size_t n;
        static float values[4 * 32];
        assert_ok(ht_format_find(formats[i], &f));
        layer.format = f;
        layer.part[0].count = 32;
        ht_matrix m = ht_layer_matrix(&layer, 0);
        m.values = values;
        ht_mt19937_randn(&rng, 4 * 32, values);
        assert_ok(ht_quantized_alloc(arena, &f, &m, &layer.part[0].weight));
        assert_ok(ht_format_quantize(&f, &m, NULL, &layer.part[0].weight));
        assert_ok(ht_layers_write(arena, &(ht_layers){.layer = &layer, .n = 1}, more, &n, &list));
        const char *path = write_model(formats[i], "class_embedding.weight", more, n, list);
        assert_model_refused(path, HT_ERR_UNSUPPORTED, "class_embedding");
    }
}

/* Half a layer is no weight: without its list a file of codes is refused, as it always was. */
static void codes_without_their_list_are_refused(void **state)
{
    (void)state;
    ht_tensor more[2];
    size_t n = tensorwise("int8", "mid_block.attentions.0.to_q", more);
    const char *path = write_model("a", more[0].name, more, n, "{\"layers\":{}}");
    ht_model *m;
    assert_refused(ht_model_open(path, NULL, &m), HT_ERR_UNSUPPORTED, "is of type I8");
}

static void a_truncated_file_is_refused_at_any_length(void **state)
{
    (void)state;
    ht_tensor more[2];
    size_t n = tensorwise("int8", "mid_block.attentions.0.to_q", more), size;
    const char *list = "{\"layers\":{\"mid_block.attentions.0.to_q\":{\"format\":\"int8\"}}}";
    const char *path = write_model("a", more[0].name, more, n, list);
    const char *weights = ht_sprintf(arena, "%s/%s", path, SMALL_WEIGHTS);
    char *bytes = bytes_of(weights, &size);
    ht_model *m;
    for (size_t k = 1; k < 12; k++) {
        put_bytes(weights, bytes, size * k / 12);
        assert_refused(ht_model_open(path, NULL, &m), HT_ERR_FORMAT, SMALL_WEIGHTS);
    }
    put_bytes(weights, bytes, size);
    assert_ok(ht_model_open(path, NULL, &m));
    ht_model_close(m);
    free(bytes);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(checkpoints_of_other_programs_are_models),        CASE(four_bits_of_other_programs_are_those_of_ours),
        CASE(layers_that_the_model_does_not_have_are_refused), CASE(layers_of_another_shape_than_the_model_are_refused),
        CASE(a_quantized_table_of_classes_is_refused),         CASE(codes_without_their_list_are_refused),
        CASE(a_truncated_file_is_refused_at_any_length),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
