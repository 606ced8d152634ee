/* test_t5.c - T5's encoders against what transformers computed: every case of tests/goldens/index.json that is one, at
 * the case's own tolerance; configurations and checkpoints that are refused. */
#include "halftone.h"
#include "tests/folder.h"
#include "tests/goldens.h"
#include "text/t5.h"

static int evaluations;

/* The golden tensors under the arguments' names. */
static void write_arguments(const ht_safetensors *golden, const json_t *arguments)
{
    ht_tensor tensors[2];
    size_t n = 0;
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)(uintptr_t)arguments, key, value)
    {
        tensors[n] = *tensor_of(golden, json_string_value(value));
        tensors[n++].name = key;
    }
    assert_ok(ht_safetensors_write(in_folder("in.safetensors"), tensors, n, NULL, 0));
}

static ht_safetensors *predict(const char *name, const ht_session_options *options)
{
    char path[512];
    ht_safetensors *file;
    snprintf(path, sizeof path, GOLDENS "/%s", name);
    assert_true(ht_is_text_encoder(path, NULL));
    assert_ok(ht_predict_text_file(path, NULL, options, in_folder("in.safetensors"), in_folder("out.safetensors"), NULL,
                                   NULL));
    assert_ok(ht_safetensors_open(in_folder("out.safetensors"), &file));
    return file;
}

static void check_case(const char *name, const json_t *entry)
{
    size_t i;
    json_t *eval;
    ht_safetensors *golden = golden_open(name, "golden.safetensors");
    json_array_foreach(json_object_get(entry, "evals"), i, eval)
    {
        const char *out = golden_string(json_object_get(eval, "out"), "last_hidden_state");
        write_arguments(golden, json_object_get(eval, "args"));
        ht_safetensors *one = predict(name, &(ht_session_options){.batch = 1, .threads = 1, .isa = "scalar"});
        ht_safetensors *all = predict(name, &(ht_session_options){.threads = 2});
        const ht_tensor *got = tensor_of(all, "last_hidden_state"), *want = tensor_of(golden, out);
        assert_int_equal(got->ndim, want->ndim);
        assert_memory_equal(got->shape, want->shape, (size_t)want->ndim * sizeof *want->shape);
        assert_memory_equal(got->data, tensor_of(one, "last_hidden_state")->data, got->bytes);
        float *x = floats_of(all, "last_hidden_state"), *y = floats_of(golden, out);
        print_message("%s: %.2g\n", name, relative_error(x, y, want->count));
        assert_close(name, x, y, want->count, golden_real(entry, "tolerance"));
        free(x);
        free(y);
        ht_safetensors_close(all);
        ht_safetensors_close(one);
        evaluations++;
    }
    ht_safetensors_close(golden);
}

static void hidden_states_are_those_of_transformers(void **state)
{
    (void)state;
    evaluations = 0;
    assert_int_equal(golden_each("text", "T5EncoderModel", check_case), 2);
    assert_int_equal(evaluations, 4);
}

/* ---- distances ---- */

/* Of 32 buckets to a distance of 128, as the paper's code has them: 8 of one distance on each side, 8 logarithmic. */
static void buckets_are_logarithmic_from_a_quarter_of_them_on(void **state)
{
    (void)state;
    static const int rows[][2] = {{0, 0},    {-1, 1},   {-7, 7},   {-8, 8},    {-11, 8},    {-12, 9},
                                  {-16, 10}, {-32, 12}, {-64, 14}, {-127, 15}, {-1000, 15}, {1, 17},
                                  {7, 23},   {8, 24},   {16, 26},  {91, 31},   {128, 31},   {5000, 31}};
    const ht_t5_config c = {.relative_attention_num_buckets = 32, .relative_attention_max_distance = 128};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        if (ht_t5_bucket(&c, rows[i][0]) != rows[i][1])
            fail_msg("distance %d is in bucket %d, want %d", rows[i][0], ht_t5_bucket(&c, rows[i][0]), rows[i][1]);
}

/* ---- checkpoints ---- */

/* The model of t5-relu with its tensors changed; whether it binds. */
static ht_status open_changed(ht_arena *arena, const ht_tensor *tensors, size_t n, ht_safetensors **file)
{
    ht_t5 *m;
    json_t *object;
    ht_t5_config config;
    ht_weights *weights;
    const char *path = GOLDENS "/text/t5-relu/config.json";
    assert_ok(ht_safetensors_write(in_folder("model.safetensors"), tensors, n, NULL, 0));
    assert_ok(ht_safetensors_open(in_folder("model.safetensors"), file));
    assert_ok(ht_json_read(path, &object));
    assert_ok(ht_t5_config_read(object, path, &config));
    json_decref(object);
    assert_ok(ht_weights_open(arena, *file, ht_t5_rename, NULL, &weights));
    return ht_t5_open(arena, &config, weights, &m);
}

static void whole_models_and_either_name_of_the_embedding_are_understood(void **state)
{
    (void)state;
    enum { MOST = 64 };
    static const struct {
        const char *renamed, *added;
        ht_status status;
    } rows[] = {{"shared.weight", NULL, HT_OK},
                {"encoder.embed_tokens.weight", NULL, HT_OK},
                {"shared.weight", "encoder.embed_tokens.weight", HT_OK},
                {"shared.weight", "decoder.block.0.layer.0.SelfAttention.q.weight", HT_OK},
                {"shared.weight", "lm_head.weight", HT_OK},
                {"other.weight", NULL, HT_ERR_SHAPE},
                {"shared.weight", "encoder.block.9.layer.0.SelfAttention.q.weight", HT_ERR_SHAPE}};
    ht_safetensors *original = golden_open("text/t5-relu", "model.safetensors");
    for (size_t r = 0; r < sizeof rows / sizeof *rows; r++) {
        ht_tensor tensors[MOST];
        size_t n = 0;
        ht_safetensors *file;
        ht_arena *arena = ht_arena_create();
        assert_non_null(arena);
        for (size_t i = 0; i < ht_safetensors_count(original); i++) {
            tensors[n] = *ht_safetensors_at(original, i);
            if (!strcmp(tensors[n].name, "shared.weight")) {
                tensors[n].name = rows[r].renamed;
                if (rows[r].added) {
                    tensors[n + 1] = tensors[n];
                    tensors[++n].name = rows[r].added;
                }
            }
            n++;
        }
        assert_int_equal(open_changed(arena, tensors, n, &file), rows[r].status);
        ht_safetensors_close(file);
        ht_arena_free(arena);
    }
    ht_safetensors_close(original);
}

/* ---- what is refused ---- */

static const struct {
    const char *patch, *words;
} refusals[] = {
    {"{\"feed_forward_proj\": \"gated-silu\"}", "feed_forward_proj \"gated-silu\""},
    {"{\"model_type\": \"umt5\"}", "model_type \"umt5\""},
    {"{\"num_heads\": 65536, \"d_kv\": 2}", "is more than 65536"},
    {"{\"relative_attention_max_distance\": 8}", "relative_attention_max_distance 8"},
    {"{\"layer_norm_epsilon\": 0}", "layer_norm_epsilon is 0"},
    {"{\"rope_theta\": 1}", "rope_theta"},
};

static void configurations_of_other_encoders_are_refused(void **state)
{
    (void)state;
    const char *path = GOLDENS "/text/t5-v1.1/config.json";
    for (size_t i = 0; i < sizeof refusals / sizeof *refusals; i++) {
        json_t *config, *patch = json_loads(refusals[i].patch, 0, NULL);
        ht_t5_config c;
        assert_non_null(patch);
        assert_ok(ht_json_read(path, &config));
        assert_ok(ht_t5_config_read(config, path, &c));
        json_object_update(config, patch);
        ht_status status = ht_t5_config_read(config, path, &c);
        if (!status || !strstr(ht_error_message(), refusals[i].words))
            fail_msg("%s: status %d, message \"%s\"; want \"%s\"", refusals[i].patch, status,
                     status ? ht_error_message() : "", refusals[i].words);
        json_decref(patch);
        json_decref(config);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(hidden_states_are_those_of_transformers),
        cmocka_unit_test(buckets_are_logarithmic_from_a_quarter_of_them_on),
        cmocka_unit_test(whole_models_and_either_name_of_the_embedding_are_understood),
        cmocka_unit_test(configurations_of_other_encoders_are_refused),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
