/* test_layers.c - quantized layers: what is written is read again, and what can be said of it. */
#include "tests/layers.h"

/* ---- through a file ---- */

static void write_layers(const ht_layers *layers)
{
    const char *metadata;
    size_t n;
    ht_tensor *tensors = ht_alloc_array(arena, HT_LAYER_TENSORS * (size_t)layers->n, sizeof *tensors);
    assert_non_null(tensors);
    assert_ok(ht_layers_write(arena, layers, tensors, &n, &metadata));
    assert_ok(write_file(tensors, n, metadata));
}

static void assert_same_table(const char *name, const ht_input_table *a, const ht_input_table *b)
{
    size_t bytes = (size_t)b->groups * sizeof(float);
    if (a->groups != b->groups || memcmp(a->step, b->step, bytes) || memcmp(a->zero, b->zero, bytes) ||
        (b->groups > 1 && memcmp(a->timesteps, b->timesteps, bytes)))
        fail_msg("%s: the table of input scales is another", name);
}

static void assert_same_layer(const ht_layer *a, const ht_layer *b)
{
    assert_string_equal(a->name, b->name);
    assert_int_equal(a->ndim, b->ndim);
    assert_memory_equal(a->shape, b->shape, (size_t)b->ndim * sizeof *b->shape);
    assert_string_equal(a->format.name, b->format.name);
    assert_int_equal(a->mode, b->mode);
    assert_int_equal(a->parts, b->parts);
    assert_true(a->error == b->error);
    if (b->mode != HT_INPUT_FLOAT)
        assert_string_equal(a->input.name, b->input.name);
    assert_int_equal(a->rank, b->rank);
    if (b->rank) {
        size_t rank = (size_t)b->rank, out = (size_t)b->shape[0], in = (size_t)(ht_layer_inputs(b) * ht_layer_taps(b));
        assert_memory_equal(a->up, b->up, 2 * rank * out);
        assert_memory_equal(a->down, b->down, 2 * rank * in);
    }
    for (int p = 0; p < b->parts; p++) {
        const ht_layer_part *x = &a->part[p], *y = &b->part[p];
        ht_matrix m = ht_layer_matrix(b, p);
        ht_format_sizes sizes;
        assert_ok(ht_format_measure(&b->format, &m, &sizes));
        assert_true(x->begin == y->begin && x->count == y->count);
        assert_memory_equal(x->weight.codes, y->weight.codes, sizes.code_bytes);
        assert_memory_equal(x->weight.scales, y->weight.scales, sizes.scale_bytes);
        assert_true(x->weight.tensor_scale == y->weight.tensor_scale);
        assert_int_equal(!x->smooth, !y->smooth);
        if (y->smooth)
            assert_memory_equal(x->smooth, y->smooth, (size_t)y->count * sizeof *y->smooth);
        if (b->mode == HT_INPUT_STATIC)
            assert_same_table(b->name, &x->input, &y->input);
    }
}

static void assert_survive(const ht_layers *layers)
{
    ht_safetensors *file;
    ht_layers read;
    write_layers(layers);
    assert_ok(ht_safetensors_open(in_root(file_name), &file));
    assert_ok(ht_layers_read(arena, file, &read));
    assert_int_equal(read.n, layers->n);
    assert_int_equal(read.softmax, layers->softmax);
    for (int i = 0; i < layers->n; i++) {
        const ht_layer *found = ht_layers_find(&read, layers->layer[i].name);
        assert_non_null(found);
        assert_same_layer(found, &layers->layer[i]);
    }
    ht_safetensors_close(file);
}

/* Every way to take inputs, in turns; channels that every format's blocks divide. */
static const struct {
    const char *input;
    ht_input_mode mode;
    int parts, kernel, groups;
} ways[] = {
    {NULL, HT_INPUT_FLOAT, 1, 0, 0},        {"uint8", HT_INPUT_STATIC, 1, 1, 1},
    {"uint8", HT_INPUT_STATIC, 2, 3, 3},    {"fp8_e4m3", HT_INPUT_STATIC, 2, 1, 3},
    {"uint8", HT_INPUT_DYNAMIC, 1, 3, 0},   {"fp8_e4m3", HT_INPUT_DYNAMIC, 2, 0, 0},
    {"uint4", HT_INPUT_STATIC, 1, 0, 3},    {NULL, HT_INPUT_FLOAT, 2, 3, 0},
    {"fp8_e4m3", HT_INPUT_STATIC, 1, 3, 1},
};
enum { WAYS = sizeof ways / sizeof *ways };

static int layers_of_every_kind(const ht_format *format, ht_layer layers[WAYS])
{
    bool whole = ht_grid_is_integer(&format->grid); /* others cannot meet integer inputs */
    for (int i = 0; i < WAYS; i++) {
        request r = {.name = ht_sprintf(arena, "blocks.%d.to_out.0", i),
                     .format = format->name,
                     .input = ways[i].input && !whole ? "fp8_e4m3" : ways[i].input,
                     .mode = ways[i].mode,
                     .parts = ways[i].parts,
                     .kernel = ways[i].kernel,
                     .groups = ways[i].groups,
                     .channels = {128, 256}};
        layers[i] = make_layer(&r);
        if (i % 2)
            smooth_layer(&layers[i]);
        if (i % 3 == 0)
            branch_layer(&layers[i]);
    }
    return WAYS;
}

static void layers_of_every_format_are_read_as_they_were_written(void **state)
{
    (void)state;
    ht_layer layers[WAYS];
    for (int i = 0; ht_format_at(i); i++)
        assert_survive(&(ht_layers){.layer = layers,
                                    .n = layers_of_every_kind(ht_format_at(i), layers),
                                    .softmax = (ht_softmax_format)(i % HT_SOFTMAXES)});
}

static void weights_that_are_not_whole_do_not_meet_integer_inputs(void **state)
{
    (void)state;
    ht_layer layer = make_layer(&(request){"fp", "fp8_e4m3", "fp8_e4m3", HT_INPUT_STATIC, 1, 0, 1, {32, 0}});
    assert_ok(ht_format_find("uint8", &layer.input));
    assert_int_equal(ht_layer_check(&layer), HT_ERR_UNSUPPORTED);
    assert_non_null(strstr(ht_error_message(), "fp"));
}

/* An odd row of 4-bit codes ends in half a byte. */
static void odd_rows_of_four_bits_survive(void **state)
{
    (void)state;
    ht_layer layers[] = {
        make_layer(&(request){"odd", "int4", "uint8", HT_INPUT_STATIC, 2, 3, 3, {3, 5}}),
        make_layer(&(request){"single", "fp4_e2m1", NULL, HT_INPUT_FLOAT, 1, 0, 0, {1, 0}}),
    };
    assert_survive(&(ht_layers){.layer = layers, .n = 2});
}

static void a_file_without_the_list_has_no_layers(void **state)
{
    (void)state;
    ht_safetensors *file;
    ht_layers layers = {.n = 5};
    float one = 1;
    const ht_tensor t = {.name = "x", .dtype = HT_F32, .ndim = 0, .data = &one, .count = 1, .bytes = 4};
    assert_ok(write_file(&t, 1, NULL));
    assert_ok(ht_safetensors_open(in_root(file_name), &file));
    assert_ok(ht_layers_read(arena, file, &layers));
    assert_int_equal(layers.n, 0);
    ht_safetensors_close(file);
}

/* ---- values ---- */

static void assert_values(const ht_layer *layer)
{
    size_t out = (size_t)ht_layer_outputs(layer), in = (size_t)ht_layer_inputs(layer),
           taps = (size_t)ht_layer_taps(layer), n = out * in * taps, middle = n / 3;
    float *want = malloc(n * sizeof *want), *got = malloc(n * sizeof *got), *part = malloc(n * sizeof *part);
    assert_true(want && got && part);
    for (int p = 0; p < layer->parts; p++) {
        ht_matrix m = ht_layer_matrix(layer, p);
        size_t begin = (size_t)layer->part[p].begin, count = (size_t)layer->part[p].count;
        assert_ok(ht_format_dequantize(&layer->format, &layer->part[p].weight, &m, part));
        for (size_t i = 0; i < m.out * m.in; i++) {
            size_t row = i / m.in, tap = i % m.in / count, channel = i % count;
            want[(row * in + begin + channel) * taps + tap] = part[i];
        }
    }
    ht_layer_values(layer, 0, middle, got);
    ht_layer_values(layer, middle, n - middle, got + middle);
    if (memcmp(got, want, n * sizeof *got) != 0)
        fail_msg("%s in %s: values differ from those of ht_format_dequantize", layer->name, layer->format.name);
    free(part);
    free(got);
    free(want);
}

static void values_are_those_of_the_format_in_the_checkpoints_order(void **state)
{
    (void)state;
    ht_layer layers[WAYS];
    for (int i = 0; ht_format_at(i); i++)
        for (int n = layers_of_every_kind(ht_format_at(i), layers); n-- > 0;)
            assert_values(&layers[n]);
}

static void a_timestep_takes_the_nearest_row_and_of_two_the_earlier(void **state)
{
    (void)state;
    static const float step[] = {1, 1, 1}, zero[] = {0, 0, 0};
    const ht_input_table t = {3, timesteps, step, zero}, one = {1, NULL, step, zero};
    const struct {
        float timestep;
        int row;
    } cases[] = {{999, 0}, {900, 0}, {701, 0}, {700, 0}, {699, 1}, {500, 1}, {260, 1}, {259, 2}, {20, 2}, {0, 2}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        assert_int_equal(ht_input_group(&t, cases[i].timestep), cases[i].row);
        assert_int_equal(ht_input_group(&one, cases[i].timestep), 0);
    }
}

static void bits_count_codes_and_scales(void **state)
{
    (void)state;
    static const struct {
        const char *format;
        double bits; /* of 128 inputs */
    } cases[] = {{"int8", 8 + 32. / 128},     {"int4", 4 + 32. / 128}, {"int4_g32", 4 + 32. / 32},
                 {"fp8_e4m3", 8 + 32. / 128}, {"mxfp4", 4 + 8. / 32},  {"nvfp4", 4 + 8. / 16}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        ht_layer layer = make_layer(&(request){"x", cases[i].format, NULL, HT_INPUT_FLOAT, 1, 0, 0, {128, 0}});
        assert_true(fabs(ht_layer_bits(&layer) - cases[i].bits) < 1e-9);
        branch_layer(&layer);
        double more = 16. * 3 * (OUT + 128) / (OUT * 128);
        assert_true(fabs(ht_layer_bits(&layer) - cases[i].bits - more) < 1e-9);
        smooth_layer(&layer);
        assert_true(fabs(ht_layer_bits(&layer) - cases[i].bits - more - 32. / OUT) < 1e-9);
    }
}

static void layers_are_found_by_whole_names_only(void **state)
{
    (void)state;
    const ht_layer layer[] = {{.name = "a.b"}, {.name = "a"}};
    const ht_layers layers = {.layer = layer, .n = 2};
    assert_ptr_equal(ht_layers_find(&layers, "a"), &layer[1]);
    assert_ptr_equal(ht_layers_of_weight(&layers, "a.b.weight"), &layer[0]);
    assert_null(ht_layers_of_weight(&layers, "a.b.weight_scale"));
    assert_null(ht_layers_of_weight(&layers, "a.b"));
    assert_null(ht_layers_of_weight(&layers, ".weight"));
    assert_null(ht_layers_find(&layers, "a."));
    assert_null(ht_layers_find(NULL, "a"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(weights_that_are_not_whole_do_not_meet_integer_inputs),
        CASE(layers_of_every_format_are_read_as_they_were_written),
        CASE(odd_rows_of_four_bits_survive),
        CASE(a_file_without_the_list_has_no_layers),
        CASE(values_are_those_of_the_format_in_the_checkpoints_order),
        CASE(a_timestep_takes_the_nearest_row_and_of_two_the_earlier),
        CASE(bits_count_codes_and_scales),
        CASE(layers_are_found_by_whole_names_only),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
