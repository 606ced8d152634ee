/* test_damaged_layers.c - every kind of damage to a file of quantized layers is an error that names the file and the
 * layer. */
#include "tests/layers.h"

/* Four layers whose file is damaged below. */
static void make_four(ht_layer layers[4])
{
    layers[0] = make_layer(&(request){"split", "int4", "uint8", HT_INPUT_STATIC, 2, 3, 3, {16, 8}});
    smooth_layer(&layers[0]);
    branch_layer(&layers[0]);
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
    {"split", "split.low_rank_down", DROP, 0, "low_rank_down: is missing"},
    {"split", "split.low_rank_up", DROP, 0, "low_rank_up: is missing"},
    {"split", "split.low_rank_down", DTYPE, HT_BF16, "wants float16 [rank,in]"},
    {"split", "split.low_rank_up", DTYPE, HT_F32, "wants float16 [out,rank]"},
    {"split", "split.low_rank_down", RESHAPE, 0, "wants float16 [rank,in]"},
    {"split", "split.low_rank_up", RESHAPE, 0, "wants float16 [out,rank]"},
    {"split", "split.low_rank_down", SHORTEN, 0, "wants float16 [out,rank]"},
    {"split", "split.low_rank_up", SHORTEN, 0, "wants float16 [out,rank]"},
    {"split", "split.low_rank_down", VALUE, NAN, "of low_rank_down is not finite"},
    {"split", "split.low_rank_up", VALUE, INFINITY, "of low_rank_up is not finite"},
    {"split", "split.pre_quant_scale", DTYPE, HT_I32, "a float for each input channel"},
    {"split", "split.pre_quant_scale.1", SHORTEN, 0, "a float for each input channel"},
    {"split", "split.pre_quant_scale", VALUE, 0, "pre_quant_scale 0 is 0"},
    {"split", "split.pre_quant_scale", VALUE, -1, "pre_quant_scale 0 is -1"},
    {"split", "split.pre_quant_scale.1", VALUE, NAN, "pre_quant_scale 0 is"},
    {"split", "split.pre_quant_scale.1", VALUE, INFINITY, "pre_quant_scale 0 is"},
};

static void every_damage_to_a_tensor_is_refused_by_name(void **state)
{
    (void)state;
    ht_layer layers[4];
    ht_tensor tensors[MOST], damaged[MOST];
    size_t n;
    const char *metadata;
    make_four(layers);
    assert_ok(ht_layers_write(arena, &(ht_layers){.layer = layers, .n = 4}, tensors, &n, &metadata));
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
    assert_ok(ht_layers_write(arena, &(ht_layers){.layer = layers, .n = 4}, tensors, &n, &metadata));
    for (size_t i = 0; i < sizeof text_damages / sizeof *text_damages; i++)
        assert_damaged(read_damaged(tensors, n, replaced(metadata, text_damages[i].from, text_damages[i].to)),
                       ht_sprintf(arena, "%s for %s", text_damages[i].to, text_damages[i].from), text_damages[i].layer,
                       text_damages[i].words);
    static const char *const softmax[][2] = {{"\"softmax\":\"uint3\"", "uint3"}, {"\"softmax\":8", "softmax"}};
    for (size_t i = 0; i < 2; i++)
        assert_damaged(
            read_damaged(tensors, n,
                         replaced(metadata, "\"layers\"", ht_sprintf(arena, "%s,\"layers\"", softmax[i][0]))),
            softmax[i][0], "", softmax[i][1]);
    static const char *const texts[] = {"", "{", "[]", "5", "\"x\"", "null", "{} {}", "{\"layers\":NaN}"};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
        assert_damaged(read_damaged(tensors, n, texts[i]), texts[i], "", "_quantization_metadata");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(every_damage_to_a_tensor_is_refused_by_name),
        CASE(every_damage_to_the_list_is_refused_by_name),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
