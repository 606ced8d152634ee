/* test_layers.c - quantized layers: what is written is read again, other programs' files are read, and every kind of
 * damage to a file is an error that names the file and the layer. */
#include <jansson.h>

#include "halftone.h"
#include "quant/file.h"
#include "tests/goldens.h"
#include "tests/small_model.h"

enum { OUT = 6, MOST = 64 };

static ht_arena *arena;
static ht_mt19937 rng;
static const float timesteps[] = {900, 500, 20};

static int open_all(void **state)
{
    ht_mt19937_seed(&rng, 7);
    arena = ht_arena_create();
    return arena ? make_root(state) : -1;
}

static int close_all(void **state)
{
    ht_arena_free(arena);
    return remove_root(state);
}

/* ---- layers to write ---- */

typedef struct request {
    const char *name, *format, *input; /* input NULL: floats */
    ht_input_mode mode;
    int parts, kernel, groups; /* kernel 0: linear */
    int64_t channels[2];
} request;

static ht_input_table table_of(int groups, bool asymmetric)
{
    ht_input_table t = {.groups = groups, .timesteps = groups > 1 ? timesteps : NULL};
    float *step = ht_alloc_array(arena, (size_t)groups, sizeof *step),
          *zero = ht_alloc_array(arena, (size_t)groups, sizeof *zero);
    assert_true(step && zero);
    for (int i = 0; i < groups; i++) {
        step[i] = 0.01f + (float)(ht_mt19937_u32(&rng) % 1000) * 1e-4f;
        zero[i] = asymmetric ? (float)(ht_mt19937_u32(&rng) % 16) : 0;
    }
    t.step = step;
    t.zero = zero;
    return t;
}

static ht_layer make_layer(const request *r)
{
    ht_layer layer = {.name = r->name, .ndim = r->kernel ? 4 : 2, .parts = r->parts, .mode = r->mode, .error = 0.25};
    int64_t in = r->channels[0] + (r->parts == 2 ? r->channels[1] : 0), begin = 0;
    memcpy(layer.shape, (int64_t[]){OUT, in, r->kernel, r->kernel}, (size_t)layer.ndim * sizeof in);
    assert_ok(ht_format_find(r->format, &layer.format));
    if (r->input)
        assert_ok(ht_format_find(r->input, &layer.input));
    for (int p = 0; p < r->parts; p++) {
        layer.part[p].begin = begin;
        layer.part[p].count = r->channels[p];
        begin += r->channels[p];
        ht_matrix m = ht_layer_matrix(&layer, p);
        float *values = ht_alloc_array(arena, m.out * m.in, sizeof *values);
        assert_non_null(values);
        ht_mt19937_randn(&rng, m.out * m.in, values);
        m.values = values;
        assert_ok(ht_quantized_alloc(arena, &layer.format, &m, &layer.part[p].weight));
        assert_ok(
            ht_format_quantize(&layer.format, &m, &(ht_scale_options){.method = HT_SCALE_MSE}, &layer.part[p].weight));
        if (r->mode == HT_INPUT_STATIC)
            layer.part[p].input = table_of(r->groups, layer.input.asymmetric);
    }
    assert_ok(ht_layer_check(&layer));
    return layer;
}

/* ---- through a file ---- */

static const char *file_name = "layers.safetensors";

static ht_status write_file(const ht_tensor *tensors, size_t n, const char *metadata)
{
    const ht_metadata m = {"_quantization_metadata", metadata};
    return ht_safetensors_write(in_root(file_name), tensors, n, &m, metadata != NULL);
}

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
    for (int p = 0; p < b->parts; p++) {
        const ht_layer_part *x = &a->part[p], *y = &b->part[p];
        ht_matrix m = ht_layer_matrix(b, p);
        ht_format_sizes sizes;
        assert_ok(ht_format_measure(&b->format, &m, &sizes));
        assert_true(x->begin == y->begin && x->count == y->count);
        assert_memory_equal(x->weight.codes, y->weight.codes, sizes.code_bytes);
        assert_memory_equal(x->weight.scales, y->weight.scales, sizes.scale_bytes);
        assert_true(x->weight.tensor_scale == y->weight.tensor_scale);
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
    }
    return WAYS;
}

static void layers_of_every_format_are_read_as_they_were_written(void **state)
{
    (void)state;
    ht_layer layers[WAYS];
    for (int i = 0; ht_format_at(i); i++)
        assert_survive(&(ht_layers){layers, layers_of_every_kind(ht_format_at(i), layers)});
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
    assert_survive(&(ht_layers){layers, 2});
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
    }
}

static void layers_are_found_by_whole_names_only(void **state)
{
    (void)state;
    const ht_layer layer[] = {{.name = "a.b"}, {.name = "a"}};
    const ht_layers layers = {layer, 2};
    assert_ptr_equal(ht_layers_find(&layers, "a"), &layer[1]);
    assert_ptr_equal(ht_layers_of_weight(&layers, "a.b.weight"), &layer[0]);
    assert_null(ht_layers_of_weight(&layers, "a.b.weight_scale"));
    assert_null(ht_layers_of_weight(&layers, "a.b"));
    assert_null(ht_layers_of_weight(&layers, ".weight"));
    assert_null(ht_layers_find(&layers, "a."));
    assert_null(ht_layers_find(NULL, "a"));
}

/* ---- damage ---- */

/* Four layers whose file is damaged below. */
static void make_four(ht_layer layers[4])
{
    layers[0] = make_layer(&(request){"split", "int4", "uint8", HT_INPUT_STATIC, 2, 3, 3, {16, 8}});
    layers[1] = make_layer(&(request){"plain", "int8", "uint8", HT_INPUT_STATIC, 1, 3, 1, {8, 0}});
    layers[2] = make_layer(&(request){"nv", "nvfp4", NULL, HT_INPUT_FLOAT, 1, 0, 0, {32, 0}});
    layers[3] = make_layer(&(request){"fp", "fp8_e4m3", "fp8_e4m3", HT_INPUT_DYNAMIC, 1, 0, 0, {32, 0}});
}

/* The message names the file, the layer and what is wrong, the file once. */
static void assert_damaged(ht_status status, const char *what, const char *layer, const char *words)
{
    const char *message = ht_error_message(), *at = strstr(message, file_name);
    if ((status != HT_ERR_FORMAT && status != HT_ERR_UNSUPPORTED) || !at || strstr(at + 1, file_name) ||
        !strstr(message, layer) || !strstr(message, words))
        fail_msg("%s: status %d, \"%s\"; wanted a message about %s of %s (once), with \"%s\"", what, status, message,
                 layer, file_name, words);
}

static ht_status read_damaged(const ht_tensor *tensors, size_t n, const char *metadata)
{
    ht_safetensors *file;
    ht_layers read;
    assert_ok(write_file(tensors, n, metadata));
    assert_ok(ht_safetensors_open(in_root(file_name), &file));
    ht_status status = ht_layers_read(arena, file, &read);
    if (status)
        assert_int_equal(read.n, 0);
    ht_safetensors_close(file);
    return status;
}

static ht_tensor *named(ht_tensor *tensors, size_t n, const char *name)
{
    for (size_t i = 0; i < n; i++)
        if (!strcmp(tensors[i].name, name))
            return &tensors[i];
    fail_msg("no tensor is called %s", name);
    return NULL;
}

static void *changeable(ht_tensor *t)
{
    void *copy = ht_alloc(arena, t->bytes);
    assert_non_null(copy);
    memcpy(copy, t->data, t->bytes);
    t->data = copy;
    return copy;
}

enum damage { DROP, DTYPE, VALUE, BYTE, RESHAPE, SHORTEN };

static void apply(ht_tensor *t, enum damage damage, double value)
{
    switch (damage) {
    case DROP:
        t->name = "another";
        break;
    case DTYPE:
        t->dtype = (ht_dtype)value;
        t->count = t->bytes * 8 / (size_t)ht_dtype_bits(t->dtype);
        t->shape[t->ndim - 1] = t->shape[t->ndim - 1] * (int64_t)t->count / (int64_t)(t->bytes ? t->bytes : 1);
        t->count = 1;
        for (int i = 0; i < t->ndim; i++)
            t->count *= (size_t)t->shape[i];
        t->bytes = t->count * (size_t)ht_dtype_bits(t->dtype) / 8;
        break;
    case VALUE:
        ((float *)changeable(t))[0] = (float)value;
        break;
    case BYTE:
        ((uint8_t *)changeable(t))[0] = (uint8_t)value;
        break;
    case RESHAPE: /* the same bytes, first two dimensions exchanged */
        t->shape[0] = t->shape[0] + t->shape[1];
        t->shape[1] = t->shape[0] - t->shape[1];
        t->shape[0] = t->shape[0] - t->shape[1];
        break;
    case SHORTEN: {
        size_t row = t->bytes / (size_t)t->shape[0];
        t->shape[0]--;
        t->bytes -= row;
        t->count -= t->count / (size_t)(t->shape[0] + 1);
        break;
    }
    }
}

static const struct {
    const char *layer, *tensor;
    enum damage damage;
    double value;
    const char *words;
} tensor_damages[] = {
    {"split", "split.weight", DROP, 0, "split.weight: is missing"},
    {"split", "split.weight.1", DROP, 0, "split.weight.1: is missing"},
    {"split", "split.weight_scale", DROP, 0, "weight_scale"},
    {"split", "split.weight_scale.1", DROP, 0, "weight_scale.1"},
    {"split", "split.input_scale", DROP, 0, "input_scale"},
    {"split", "split.input_scale.1", DROP, 0, "input_scale.1"},
    {"split", "split.input_zero_point", DROP, 0, "input_zero_point"},
    {"plain", "plain.weight", DROP, 0, "plain.weight: is missing"},
    {"plain", "plain.input_zero_point", DROP, 0, "input_zero_point"},
    {"nv", "nv.weight_scale", DROP, 0, "weight_scale"},
    {"nv", "nv.weight_scale_2", DROP, 0, "weight_scale_2"},
    {"split", "split.weight", DTYPE, HT_F32, "split.weight"},
    {"plain", "plain.weight", DTYPE, HT_F8_E4M3, "plain.weight"},
    {"plain", "plain.weight", DTYPE, HT_BF16, "plain.weight"},
    {"fp", "fp.weight", DTYPE, HT_I8, "fp.weight"},
    {"fp", "fp.weight", DTYPE, HT_F8_E5M2, "fp.weight"},
    {"plain", "plain.weight_scale", DTYPE, HT_I32, "weight_scale"},
    {"plain", "plain.weight_scale", DTYPE, HT_F16, "weight_scale"},
    {"nv", "nv.weight_scale", DTYPE, HT_F16, "weight_scale"},
    {"nv", "nv.weight_scale", DTYPE, HT_F8_E8M0, "weight_scale"},
    {"split", "split.input_scale", DTYPE, HT_I32, "input_scale"},
    {"split", "split.input_zero_point", DTYPE, HT_I32, "input_zero_point"},
    {"plain", "plain.weight", RESHAPE, 0, "plain.weight"},
    {"split", "split.weight", RESHAPE, 0, "split.weight"},
    {"split", "split.weight", SHORTEN, 0, "split.weight"},
    {"plain", "plain.weight", SHORTEN, 0, "plain.weight"},
    {"plain", "plain.weight_scale", SHORTEN, 0, "weight_scale"},
    {"nv", "nv.weight_scale", SHORTEN, 0, "weight_scale"},
    {"split", "split.input_scale", SHORTEN, 0, "input_scale"},
    {"split", "split.input_zero_point", SHORTEN, 0, "input_zero_point"},
    {"split", "split.weight_scale", VALUE, NAN, "split"},
    {"split", "split.weight_scale.1", VALUE, INFINITY, "split"},
    {"plain", "plain.weight_scale", VALUE, NAN, "plain"},
    {"nv", "nv.weight_scale_2", VALUE, NAN, "nv"},
    {"nv", "nv.weight_scale_2", VALUE, -INFINITY, "nv"},
    {"nv", "nv.weight_scale", BYTE, 0x7f, "nv"}, /* NaN of E4M3 */
    {"fp", "fp.weight", BYTE, 0xff, "fp"},
    {"split", "split.input_scale", VALUE, 0, "a number from 1.18e-38 to 8.51e+37 is wanted"},
    {"split", "split.input_scale.1", VALUE, -0.5, "a number from 1.18e-38 to 8.51e+37 is wanted"},
    {"plain", "plain.input_scale", VALUE, NAN, "a number from 1.18e-38 to 8.51e+37 is wanted"},
    {"plain", "plain.input_scale", VALUE, 1e38, "a number from 1.18e-38 to 8.51e+37 is wanted"},
    {"plain", "plain.input_scale", VALUE, INFINITY, "a number from 1.18e-38 to 8.51e+37 is wanted"},
    {"plain", "plain.input_scale", VALUE, 1e-40, "a number from 1.18e-38 to 8.51e+37 is wanted"},
    {"plain", "plain.input_zero_point", VALUE, -1, "a whole number of 0 to 255"},
    {"plain", "plain.input_zero_point", VALUE, 256, "a whole number of 0 to 255"},
    {"plain", "plain.input_zero_point", VALUE, 0.5, "a whole number of 0 to 255"},
    {"plain", "plain.input_zero_point", VALUE, NAN, "a whole number of 0 to 255"},
};

static void every_damage_to_a_tensor_is_refused_by_name(void **state)
{
    (void)state;
    ht_layer layers[4];
    ht_tensor tensors[MOST], damaged[MOST];
    size_t n;
    const char *metadata;
    make_four(layers);
    assert_ok(ht_layers_write(arena, &(ht_layers){layers, 4}, tensors, &n, &metadata));
    assert_ok(read_damaged(tensors, n, metadata));
    for (size_t i = 0; i < sizeof tensor_damages / sizeof *tensor_damages; i++) {
        char what[128];
        memcpy(damaged, tensors, sizeof damaged);
        apply(named(damaged, n, tensor_damages[i].tensor), tensor_damages[i].damage, tensor_damages[i].value);
        snprintf(what, sizeof what, "damage %zu to %s", i, tensor_damages[i].tensor);
        assert_damaged(read_damaged(damaged, n, metadata), what, tensor_damages[i].layer, tensor_damages[i].words);
    }
}

/* In the text of the list: what becomes what. */
static const struct {
    const char *from, *to, *layer, *words;
} text_damages[] = {
    {"\"format\":\"int4\",", "", "split", "format is missing"},
    {"\"format\":\"int4\"", "\"format\":\"int5x\"", "split", "int5x"},
    {"\"format\":\"int4\"", "\"format\":4", "split", "format"},
    {"\"format\":\"int4\"", "\"format\":\"uint4\"", "split", "uint4"},
    {"\"format\":\"int8\"", "\"format\":\"uint8\"", "plain", "uint8"},
    {"\"format\":\"int8\"", "\"format\":\"int7\"", "plain", "int7"},
    {"\"format\":\"int8\"", "\"format\":\"fp8_e5m2\"", "plain", "fp8_e5m2"},
    {"\"format\":\"int8\"", "\"format\":\"int4\"", "plain", "plain.weight"},
    {"\"format\":\"int8\"", "\"format\":\"fp8_e4m3\"", "plain", "plain.weight"},
    {"\"format\":\"int4\"", "\"format\":\"int4_g32\"", "split", "split"},
    {"\"input\":\"uint8\",", "", "split", "input is missing"},
    {"\"input\":\"uint8\"", "\"input\":\"int8\"", "split", "int8"},
    {"\"input\":\"uint8\"", "\"input\":\"nothing\"", "split", "nothing"},
    {"\"input\":\"uint8\"", "\"input\":\"uint8_g32\"", "split", "uint8_g32"},
    {"\"input\":\"fp8_e4m3\"", "\"input\":\"mxfp4\"", "fp", "mxfp4"},
    {"\"input_mode\":\"static\"", "\"input_mode\":\"guessed\"", "split", "guessed"},
    {"\"shape\":[6,24,3,3]", "\"shape\":[6,24,3]", "split", "2 or 4"},
    {"\"shape\":[6,24,3,3]", "\"shape\":[6,25,3,3]", "split", "split"},
    {"\"shape\":[6,24,3,3]", "\"shape\":[0,24,3,3]", "split", "shape"},
    {"\"shape\":[6,24,3,3]", "\"shape\":[-6,24,3,3]", "split", "shape"},
    {"\"shape\":[6,24,3,3]", "\"shape\":[6,24,3,3,1]", "split", "shape"},
    {"\"shape\":[6,24,3,3]", "\"shape\":\"large\"", "split", "shape"},
    {"\"shape\":[6,24,3,3]", "\"shape\":[16777216,16777216,1,1]", "split", "split.weight"},
    {"\"shape\":[6,24,3,3]", "\"shape\":[6,16777216,16777216,16777216]", "split", "too many inputs"},
    {"\"shape\":[6,24,3,3]", "\"shape\":[9999999999,24,3,3]", "split", "shape"},
    {"\"shape\":[6,24,3,3]", "\"shape\":[24,6,3,3]", "split", "split"},
    {"\"shape\":[6,8,3,3]", "\"shape\":[6,72]", "plain", "plain.weight"},
    {"\"shape\":[6,8,3,3]", "\"shape\":[6,72,1,1]", "plain", "plain.weight"},
    {"\"split\":[16,8]", "\"split\":[16,7]", "split", "split"},
    {"\"split\":[16,8]", "\"split\":[8,16]", "split", "split.weight"},
    {"\"split\":[16,8]", "\"split\":[16,9]", "split", "split"},
    {"\"split\":[16,8]", "\"split\":[16]", "split", "split"},
    {"\"split\":[16,8]", "\"split\":[16,4,4]", "split", "split"},
    {"\"split\":[16,8]", "\"split\":[0,24]", "split", "split"},
    {"\"split\":[16,8]", "\"split\":[16777216,16777216]", "split", "split"},
    {"\"timesteps\":[900.0,500.0,20.0]", "\"timesteps\":[900.0,500.0]", "split", "input_scale"},
    {"\"timesteps\":[900.0,500.0,20.0]", "\"other\":1", "split", "input_scale"},
    {"\"timesteps\":[900.0,500.0,20.0]", "\"timesteps\":[900.0,500.0,1e300]", "split", "timestep"},
    {"\"timesteps\":[900.0,500.0,20.0]", "\"timesteps\":[900.0,\"x\",20.0]", "", "timesteps"},
    {"\"timesteps\":[900.0,500.0,20.0]", "\"timesteps\":900", "", "timesteps"},
    {"\"plain\":{", "\"split\":{", "split", "split"},
    {"\"plain\":{", "\"plein\":{", "plein", "is missing"},
    {"\"layers\":{", "\"layers\":{\"x\":5,", "x", "not an object"},
    {"\"layers\":{", "\"layers\":[],\"l\":{", "", "layers"},
    {"{\"format_version\"", "[{\"format_version\"", "", ""},
    {"\"format_version\"", "format_version", "", ""},
};

/* text with the first `from` replaced by `to`. */
static const char *replaced(const char *text, const char *from, const char *to)
{
    const char *at = strstr(text, from);
    if (!at)
        fail_msg("%s is not in %s", from, text);
    return ht_sprintf(arena, "%.*s%s%s", (int)(at - text), text, to, at + strlen(from));
}

static void every_damage_to_the_list_is_refused_by_name(void **state)
{
    (void)state;
    ht_layer layers[4];
    ht_tensor tensors[MOST];
    size_t n;
    const char *metadata;
    make_four(layers);
    assert_ok(ht_layers_write(arena, &(ht_layers){layers, 4}, tensors, &n, &metadata));
    for (size_t i = 0; i < sizeof text_damages / sizeof *text_damages; i++)
        assert_damaged(read_damaged(tensors, n, replaced(metadata, text_damages[i].from, text_damages[i].to)),
                       ht_sprintf(arena, "%s for %s", text_damages[i].to, text_damages[i].from), text_damages[i].layer,
                       text_damages[i].words);
    static const char *const texts[] = {"", "{", "[]", "5", "\"x\"", "null", "{} {}", "{\"layers\":NaN}"};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
        assert_damaged(read_damaged(tensors, n, texts[i]), texts[i], "", "_quantization_metadata");
}

/* ---- models ---- */

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
        assert_ok(ht_layers_write(arena, &(ht_layers){&ours, 1}, more, &n, &list));
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
    assert_ok(ht_layers_write(arena, &(ht_layers){&layer, 1}, tensors, &n, list));
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
        assert_ok(ht_layers_write(arena, &(ht_layers){&layer, 1}, more, &n, &list));
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

#define CASE(test) cmocka_unit_test_setup_teardown(test, open_all, close_all)

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
        CASE(every_damage_to_a_tensor_is_refused_by_name),
        CASE(every_damage_to_the_list_is_refused_by_name),
        CASE(checkpoints_of_other_programs_are_models),
        CASE(four_bits_of_other_programs_are_those_of_ours),
        CASE(layers_that_the_model_does_not_have_are_refused),
        CASE(layers_of_another_shape_than_the_model_are_refused),
        CASE(a_quantized_table_of_classes_is_refused),
        CASE(codes_without_their_list_are_refused),
        CASE(a_truncated_file_is_refused_at_any_length),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
