/* test_bad_input.c - the program against damaged models: each kind of damage is one line, exit code 1, and no output.
 * Models are made on the fly: tests/goldens/pipeline/ddpm, copied and then damaged in one place. */
#include "tests/program.h"

#include <jansson.h>

#define MODEL   "tests/goldens/pipeline/ddpm"
#define WEIGHTS "model/unet/diffusion_pytorch_model.safetensors"

static void copy_model(scratch *s)
{
    static const char *const files[] = {"model_index.json", "unet/config.json",
                                        "unet/diffusion_pytorch_model.safetensors", "scheduler/scheduler_config.json"};
    mkdir(in_scratch(s, "model"), 0777);
    mkdir(in_scratch(s, "model/unet"), 0777);
    mkdir(in_scratch(s, "model/scheduler"), 0777);
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        char from[128], to[128];
        snprintf(from, sizeof from, "%s/%s", MODEL, files[i]);
        snprintf(to, sizeof to, "model/%s", files[i]);
        copy_file(from, in_scratch(s, to));
    }
}

/* Every command that opens the model refuses it, names the file or folder, and leaves nothing. */
static void assert_model_refused(scratch *s, const char *what, const char *names)
{
    const char *model = in_scratch(s, "model"), *out = in_scratch(s, "out.png");
    int before = count_files(s->folder);
    int codes[] = {run(s, "info", model), run(s, "sample", model, "-n", "1", "--steps", "2", "-o", out)};
    if (codes[0] != 1 || codes[1] != 1 || !strstr(s->err, names))
        fail_msg("%s: exit codes %d and %d; wanted 1 and a line about %s; stderr: <%s>", what, codes[0], codes[1],
                 names, s->err);
    assert_refused(s, codes[1], 1);
    assert_int_equal(count_files(s->folder), before);
}

/* ---- the weights' file ---- */

/* A safetensors file in memory: the header's length in 8 bytes, the header, data. */
typedef struct image {
    unsigned char *bytes;
    size_t size, header;
} image;

static image read_weights(scratch *s)
{
    struct stat status;
    const char *path = in_scratch(s, WEIGHTS);
    assert_int_equal(stat(path, &status), 0);
    image m = {.bytes = malloc((size_t)status.st_size + 64), .size = (size_t)status.st_size};
    FILE *f = fopen(path, "rb");
    assert_non_null(m.bytes);
    assert_non_null(f);
    assert_int_equal(fread(m.bytes, 1, m.size, f), m.size);
    fclose(f);
    for (int i = 7; i >= 0; i--)
        m.header = m.header << 8 | m.bytes[i];
    return m;
}

static void put_length(image *m, uint64_t length)
{
    for (int i = 0; i < 8; i++)
        m->bytes[i] = (unsigned char)(length >> (8 * i));
}

static void write_weights(scratch *s, const image *m)
{
    FILE *f = fopen(in_scratch(s, WEIGHTS), "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(m->bytes, 1, m->size, f), m->size);
    assert_int_equal(fclose(f), 0);
}

static void cut_in_half(image *m)
{
    m->size /= 2;
}

static void cut_by_a_byte(image *m)
{
    m->size--;
}

static void cut_in_the_header(image *m)
{
    m->size = 100;
}

static void cut_in_the_length(image *m)
{
    m->size = 5;
}

static void emptied(image *m)
{
    m->size = 0;
}

static void longer_by_a_byte(image *m)
{
    m->bytes[m->size++] = 0;
}

static void length_of_all_ones(image *m)
{
    put_length(m, UINT64_MAX);
}

static void length_past_the_end(image *m)
{
    put_length(m, m->size);
}

static void length_zero(image *m)
{
    put_length(m, 0);
}

static void length_too_small(image *m)
{
    put_length(m, m->header - 8);
}

static void length_flipped(image *m)
{
    m->bytes[1] ^= 0x10;
}

static void header_not_json(image *m)
{
    m->bytes[8] = 'x';
}

static void header_with_a_nul(image *m)
{
    m->bytes[8 + m->header / 2] = 0;
}

static void header_not_utf8(image *m)
{
    m->bytes[8 + 2] = 0xff;
}

static const struct {
    const char *name;
    void (*damage)(image *m);
} byte_damages[] = {
#define DAMAGE(function)                                                                                               \
    {                                                                                                                  \
#function, function                                                                                            \
    }
    DAMAGE(cut_in_half),       DAMAGE(cut_by_a_byte),    DAMAGE(cut_in_the_header),  DAMAGE(cut_in_the_length),
    DAMAGE(emptied),           DAMAGE(longer_by_a_byte), DAMAGE(length_of_all_ones), DAMAGE(length_past_the_end),
    DAMAGE(length_zero),       DAMAGE(length_too_small), DAMAGE(length_flipped),     DAMAGE(header_not_json),
    DAMAGE(header_with_a_nul), DAMAGE(header_not_utf8),
};

static void damaged_bytes_are_refused(void **state)
{
    scratch *s = *state;
    copy_model(s);
    image whole = read_weights(s);
    unsigned char *bytes = malloc(whole.size + 64);
    assert_non_null(bytes);
    for (size_t i = 0; i < sizeof byte_damages / sizeof *byte_damages; i++) {
        image m = {.bytes = bytes, .size = whole.size, .header = whole.header};
        memcpy(bytes, whole.bytes, whole.size);
        byte_damages[i].damage(&m);
        write_weights(s, &m);
        assert_model_refused(s, byte_damages[i].name, ".safetensors");
    }
    free(bytes);
    free(whole.bytes);
}

/* ---- the header's JSON: well-formed, and wrong ---- */

static json_t *tensor(json_t *header, const char *name)
{
    json_t *t = json_object_get(header, name);
    assert_non_null(t);
    return t;
}

static void set_offsets(json_t *t, json_int_t begin, json_int_t end)
{
    json_object_set_new(t, "data_offsets", json_pack("[II]", begin, end));
}

static json_int_t offset(json_t *t, size_t which)
{
    return json_integer_value(json_array_get(json_object_get(t, "data_offsets"), which));
}

static void overlapping(json_t *h)
{
    json_t *a = tensor(h, "conv_in.bias"), *b = tensor(h, "conv_out.bias");
    json_int_t size = offset(b, 1) - offset(b, 0);
    set_offsets(b, offset(a, 0), offset(a, 0) + size);
}

static void with_a_gap(json_t *h)
{
    json_object_del(h, "conv_in.weight"); /* its bytes are then nobody's */
}

static void reversed_offsets(json_t *h)
{
    json_t *t = tensor(h, "conv_in.bias");
    set_offsets(t, offset(t, 1), offset(t, 0));
}

static void offsets_past_the_end(json_t *h)
{
    json_t *t = tensor(h, "conv_in.bias");
    json_int_t far = INT64_C(1) << 40;
    set_offsets(t, far, far + offset(t, 1) - offset(t, 0));
}

static void negative_offsets(json_t *h)
{
    set_offsets(tensor(h, "conv_in.bias"), -32, 0);
}

static void unknown_dtype(json_t *h)
{
    json_object_set_new(tensor(h, "conv_in.bias"), "dtype", json_string("F12"));
}

static void wrong_dtype(json_t *h)
{
    json_object_set_new(tensor(h, "conv_in.bias"), "dtype", json_string("F64"));
}

static void negative_dimension(json_t *h)
{
    json_object_set_new(tensor(h, "conv_in.bias"), "shape", json_pack("[i]", -8));
}

static void overflowing_shape(json_t *h)
{
    json_int_t big = INT64_C(1) << 62;
    json_object_set_new(tensor(h, "conv_in.bias"), "shape", json_pack("[III]", big, big, (json_int_t)16));
}

static void shape_not_a_list(json_t *h)
{
    json_object_set_new(tensor(h, "conv_in.bias"), "shape", json_string("8"));
}

static void without_shape(json_t *h)
{
    json_object_del(tensor(h, "conv_in.bias"), "shape");
}

static void renamed_tensor(json_t *h)
{
    json_t *t = tensor(h, "conv_in.bias");
    json_object_set(h, "conv_in.bias2", t);
    json_object_del(h, "conv_in.bias");
}

static void same_size_other_shape(json_t *h)
{
    json_object_set_new(tensor(h, "conv_in.bias"), "shape", json_pack("[ii]", 4, 2));
}

static const struct {
    const char *name;
    void (*damage)(json_t *header);
} header_damages[] = {
    DAMAGE(overlapping),           DAMAGE(with_a_gap),       DAMAGE(reversed_offsets), DAMAGE(offsets_past_the_end),
    DAMAGE(negative_offsets),      DAMAGE(unknown_dtype),    DAMAGE(wrong_dtype),      DAMAGE(negative_dimension),
    DAMAGE(overflowing_shape),     DAMAGE(shape_not_a_list), DAMAGE(without_shape),    DAMAGE(renamed_tensor),
    DAMAGE(same_size_other_shape),
};

static void write_with_header(scratch *s, const image *whole, const char *header)
{
    size_t length = strlen(header), data = whole->size - 8 - whole->header;
    image m = {.bytes = malloc(8 + length + data), .size = 8 + length + data};
    assert_non_null(m.bytes);
    put_length(&m, length);
    memcpy(m.bytes + 8, header, length);
    memcpy(m.bytes + 8 + length, whole->bytes + 8 + whole->header, data);
    write_weights(s, &m);
    free(m.bytes);
}

static void damaged_headers_are_refused(void **state)
{
    scratch *s = *state;
    copy_model(s);
    image whole = read_weights(s);
    for (size_t i = 0; i < sizeof header_damages / sizeof *header_damages; i++) {
        json_t *header = json_loadb((const char *)whole.bytes + 8, whole.header, 0, NULL);
        assert_non_null(header);
        header_damages[i].damage(header);
        char *text = json_dumps(header, JSON_COMPACT);
        assert_non_null(text);
        write_with_header(s, &whole, text);
        free(text);
        json_decref(header);
        assert_model_refused(s, header_damages[i].name, ".safetensors");
    }
    free(whole.bytes);
}

static void duplicate_names_are_refused(void **state)
{
    scratch *s = *state;
    copy_model(s);
    image whole = read_weights(s);
    char *header = malloc(whole.header + 256);
    assert_non_null(header);
    int n = snprintf(header, 256, "{\"conv_in.bias\":{\"dtype\":\"F32\",\"shape\":[0],\"data_offsets\":[0,0]},");
    memcpy(header + n, whole.bytes + 9, whole.header - 1);
    header[(size_t)n + whole.header - 1] = 0;
    write_with_header(s, &whole, header);
    assert_model_refused(s, "duplicate name", ".safetensors");
    free(header);
    free(whole.bytes);
}

/* ---- the configurations ---- */

/* One value changed (JSON; NULL: the key removed), and what the line about it must name. */
static const struct {
    const char *file, *key, *value, *says;
} config_damages[] = {
    {"unet/config.json", "block_out_channels", "[16, 16]", "config.json"}, /* the weights have 8, 16 */
    {"unet/config.json", "layers_per_block", "2", "safetensors"},
    {"unet/config.json", "layers_per_block", "1000000000", "layers_per_block"},
    {"unet/config.json", "in_channels", "4", "conv_in.weight"},
    {"unet/config.json", "in_channels", "\"three\"", "in_channels"},
    {"unet/config.json", "out_channels", "-3", "out_channels"},
    {"unet/config.json", "norm_num_groups", "3", "norm_num_groups"},
    {"unet/config.json", "norm_num_groups", "0", "norm_num_groups"},
    {"unet/config.json", "act_fn", "\"mish\"", "act_fn"},
    {"unet/config.json", "down_block_types", "[\"DownBlock2D\", \"KDownBlock2D\"]", "KDownBlock2D"},
    {"unet/config.json", "down_block_types", "[\"DownBlock2D\"]", "down_block_types"},
    {"unet/config.json", "_class_name", "\"UNet3DModel\"", "UNet3DModel"},
    {"unet/config.json", "block_out_channels", "[]", "block_out_channels"},
    {"scheduler/scheduler_config.json", "beta_schedule", "\"cosine\"", "beta_schedule"},
    {"scheduler/scheduler_config.json", "num_train_timesteps", "0", "num_train_timesteps"},
    {"scheduler/scheduler_config.json", "num_train_timesteps", "1e300", "num_train_timesteps"},
    {"scheduler/scheduler_config.json", "prediction_type", "\"flow\"", "prediction_type"},
    {"scheduler/scheduler_config.json", "timestep_spacing", "7", "timestep_spacing"},
};

static void configurations_that_do_not_fit_are_refused_by_name(void **state)
{
    scratch *s = *state;
    for (size_t i = 0; i < sizeof config_damages / sizeof *config_damages; i++) {
        char name[128], what[256];
        copy_model(s);
        snprintf(name, sizeof name, "model/%s", config_damages[i].file);
        json_t *config = json_load_file(in_scratch(s, name), 0, NULL);
        json_t *value = json_loads(config_damages[i].value, JSON_DECODE_ANY, NULL);
        assert_non_null(config);
        assert_non_null(value);
        json_object_set_new(config, config_damages[i].key, value);
        assert_int_equal(json_dump_file(config, in_scratch(s, name), 0), 0);
        json_decref(config);
        snprintf(what, sizeof what, "%s %s", config_damages[i].key, config_damages[i].value);
        assert_model_refused(s, what, config_damages[i].says);
    }
}

static void put_text(scratch *s, const char *name, const char *text)
{
    FILE *f = fopen(in_scratch(s, name), "w");
    assert_non_null(f);
    fputs(text, f);
    assert_int_equal(fclose(f), 0);
}

/* One key of a file of the copied model; value is JSON. */
static void set_key(scratch *s, const char *name, const char *key, const char *value)
{
    json_t *object = json_load_file(in_scratch(s, name), 0, NULL);
    json_t *v = json_loads(value, JSON_DECODE_ANY, NULL);
    assert_non_null(object);
    assert_non_null(v);
    assert_int_equal(json_object_set_new(object, key, v), 0);
    assert_int_equal(json_dump_file(object, in_scratch(s, name), 0), 0);
    json_decref(object);
}

static void assert_says(const scratch *s, const char *words)
{
    if (!strstr(s->err, words))
        fail_msg("<%s> does not say %s", s->err, words);
}

/* Latents are no pictures, though they may have 3 or 4 channels: without its decoder a pipeline draws nothing. */
static void pipelines_whose_decoder_is_missing_are_refused_by_sample_alone(void **state)
{
    scratch *s = *state;
    static const char *const decoders[][2] = {{"vqvae", "[\"diffusers\", \"VQModel\"]"},
                                              {"vae", "[\"diffusers\", \"AutoencoderKL\"]"}};
    for (int i = 0; i < 2; i++) {
        copy_model(s);
        set_key(s, "model/model_index.json", decoders[i][0], decoders[i][1]);
        const char *model = in_scratch(s, "model");
        assert_refused(s, run(s, "sample", model, "-n", "1", "--steps", "2", "-o", in_scratch(s, "a.png")), 1);
        assert_says(s, decoders[i][0]);
        assert_false(exists(in_scratch(s, "a.png")));
        assert_worked(s, run(s, "info", model));
    }
    copy_model(s);
    set_key(s, "model/model_index.json", "vae", "[null, null]"); /* diffusers' word for a component left out */
    assert_worked(s, run(s, "sample", in_scratch(s, "model"), "-n", "1", "--steps", "2", "-o", in_scratch(s, "a.png")));
}

/* The library's table of samplers decides, and the picture says what it decided. */
static void every_class_of_ddpm_schedulers_draws_ddpm(void **state)
{
    scratch *s = *state;
    static unsigned char want[1 << 16], got[1 << 16];
    const char *classes[] = {"\"DDPMScheduler\"", "\"DDPMParallelScheduler\""};
    size_t n = 0;
    copy_model(s);
    for (int i = 0; i < 2; i++) {
        const char *picture = in_scratch(s, "a.png");
        set_key(s, "model/scheduler/scheduler_config.json", "_class_name", classes[i]);
        assert_worked(s, run(s, "sample", in_scratch(s, "model"), "-n", "1", "--steps", "3", "-o", picture));
        FILE *f = fopen(picture, "rb");
        assert_non_null(f);
        n = fread(i ? got : want, 1, sizeof want, f);
        fclose(f);
        assert_true(n > 0 && memmem(i ? got : want, n, "Sampler: DDPM", 13));
    }
    assert_memory_equal(got, want, n);
}

static void a_model_without_sample_size_is_asked_for_one(void **state)
{
    scratch *s = *state;
    copy_model(s);
    set_key(s, "model/unet/config.json", "sample_size", "null");
    const char *model = in_scratch(s, "model"), *out = in_scratch(s, "a.png");
    assert_refused(s, run(s, "sample", model, "-n", "1", "--steps", "2", "-o", out), 1);
    assert_says(s, "no sample_size");
    assert_worked(s, run(s, "sample", model, "-n", "1", "--steps", "2", "--size", "8", "-o", out));
}

static void configurations_that_are_not_json_are_refused(void **state)
{
    scratch *s = *state;
    static const char *const files[] = {"model/unet/config.json", "model/scheduler/scheduler_config.json"};
    static const char *const texts[] = {
        "", "{", "[]", "3", "{\"a\":1}}", "{\"in_channels\": 3, \"in_channels\": 4}", "\xff\xfe{}"};
    for (size_t i = 0; i < 2; i++) {
        for (size_t k = 0; k < sizeof texts / sizeof *texts; k++) {
            copy_model(s);
            put_text(s, files[i], texts[k]);
            assert_model_refused(s, texts[k], "config.json");
        }
    }
}

static void missing_files_are_named(void **state)
{
    scratch *s = *state;
    assert_model_refused(s, "no folder", s->folder);
    static const char *const files[] = {"unet/config.json", "unet/diffusion_pytorch_model.safetensors"};
    for (size_t i = 0; i < 2; i++) {
        char name[128];
        copy_model(s);
        snprintf(name, sizeof name, "model/%s", files[i]);
        unlink(in_scratch(s, name));
        assert_model_refused(s, files[i], "unet");
    }
    copy_model(s);
    assert_refused(s, run(s, "info", in_scratch(s, "model/unet/config.json")), 1);
    assert_refused(s, run(s, "info", "/dev/null"), 1);
    assert_refused(s, run(s, "info", in_scratch(s, "model"), "--component", "text_encoder"), 1);
    assert_refused(s, run(s, "info", s->folder), 1);
}

/* ---- predict's input ---- */

/* One float32 tensor `sample` of zeros and an int64 `timestep`, as described. */
static void write_input(scratch *s, const char *sample_name, const char *shape, size_t floats,
                        const char *timestep_name)
{
    char header[512];
    unsigned char length[8] = {0};
    static const unsigned char zeros[1 << 16];
    FILE *f = fopen(in_scratch(s, "in.safetensors"), "wb");
    assert_non_null(f);
    int n = snprintf(
        header, sizeof header,
        "{\"%s\":{\"dtype\":\"F32\",\"shape\":%s,\"data_offsets\":[0,%zu]},\"%s\":{\"dtype\":\"I64\",\"shape\":[1],"
        "\"data_offsets\":[%zu,%zu]}}",
        sample_name, shape, floats * 4, timestep_name, floats * 4, floats * 4 + 8);
    length[0] = (unsigned char)n;
    length[1] = (unsigned char)(n >> 8);
    fwrite(length, 1, 8, f);
    fwrite(header, 1, (size_t)n, f);
    fwrite(zeros, 1, floats * 4 + 8, f);
    assert_int_equal(fclose(f), 0);
}

static const struct {
    const char *sample, *shape;
    size_t floats;
    const char *timestep, *says; /* NULL: it works */
} inputs[] = {
    {"sample", "[2,3,8,8]", 384, "timestep", NULL},     {"sample", "[1,3,16,8]", 384, "timestep", NULL},
    {"x", "[2,3,8,8]", 384, "timestep", "sample"},      {"sample", "[2,3,8,8]", 384, "t", "timestep"},
    {"sample", "[2,4,8,8]", 512, "timestep", "sample"}, {"sample", "[2,3,7,8]", 336, "timestep", "height 7"},
    {"sample", "[6,8,8]", 384, "timestep", "sample"},   {"sample", "[0,3,8,8]", 0, "timestep", "sample"},
};

static void predict_names_what_is_wrong_with_its_input(void **state)
{
    scratch *s = *state;
    const char *in = in_scratch(s, "in.safetensors"), *out = in_scratch(s, "out.safetensors");
    assert_refused(s, run(s, "predict", MODEL, in, "-o", out), 1);
    for (size_t i = 0; i < sizeof inputs / sizeof *inputs; i++) {
        write_input(s, inputs[i].sample, inputs[i].shape, inputs[i].floats, inputs[i].timestep);
        in = in_scratch(s, "in.safetensors");
        out = in_scratch(s, "out.safetensors");
        int code = run(s, "predict", MODEL, in, "-o", out);
        if (!inputs[i].says) {
            assert_worked(s, code);
            assert_int_equal(unlink(out), 0);
            continue;
        }
        assert_refused(s, code, 1);
        if (!strstr(s->err, inputs[i].says))
            fail_msg("%s %s: <%s> does not name %s", inputs[i].sample, inputs[i].shape, s->err, inputs[i].says);
        assert_false(exists(out));
    }
}

#define CASE(test) cmocka_unit_test_setup_teardown(test, open_scratch, close_scratch)

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(damaged_bytes_are_refused),
        CASE(damaged_headers_are_refused),
        CASE(duplicate_names_are_refused),
        CASE(configurations_that_do_not_fit_are_refused_by_name),
        CASE(pipelines_whose_decoder_is_missing_are_refused_by_sample_alone),
        CASE(every_class_of_ddpm_schedulers_draws_ddpm),
        CASE(a_model_without_sample_size_is_asked_for_one),
        CASE(configurations_that_are_not_json_are_refused),
        CASE(missing_files_are_named),
        CASE(predict_names_what_is_wrong_with_its_input),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
