/* test_clip.c - CLIP's text encoders against what transformers computed: every case of tests/goldens/index.json that is
 * one, every output, at the case's own tolerance. */
#include "cpu/backend.h"
#include "tests/folder.h"
#include "tests/goldens.h"
#include "text/clip.h"

/* A text encoder's folder, opened. */
typedef struct encoder_files {
    ht_arena *arena;
    json_t *config;
    ht_safetensors *file;
    ht_clip *model;
} encoder_files;

static encoder_files open_files(const char *name)
{
    char path[512];
    ht_weights *weights;
    ht_clip_config config;
    encoder_files f = {.arena = ht_arena_create()};
    assert_non_null(f.arena);
    snprintf(path, sizeof path, GOLDENS "/%s/config.json", name);
    assert_ok(ht_json_read(path, &f.config));
    f.file = golden_open(name, "model.safetensors");
    assert_ok(ht_clip_config_read(f.config, path, &config));
    assert_ok(ht_weights_open(f.arena, f.file, ht_clip_rename, NULL, &weights));
    assert_ok(ht_clip_open(f.arena, &config, weights, &f.model));
    return f;
}

static void close_files(encoder_files *f)
{
    ht_safetensors_close(f->file);
    json_decref(f->config);
    ht_arena_free(f->arena);
}

static int32_t *ids_of(const ht_safetensors *golden, const char *name)
{
    size_t n = tensor_of(golden, name)->count;
    float *x = floats_of(golden, name);
    int32_t *ids = malloc(n * sizeof *ids);
    assert_non_null(ids);
    for (size_t i = 0; i < n; i++)
        ids[i] = (int32_t)x[i];
    free(x);
    return ids;
}

typedef struct run_options {
    int batch, threads;
    const char *isa;
} run_options;

/* The outputs of one evaluation that its case names; free each. */
static void encode(const ht_clip *m, const ht_safetensors *golden, const json_t *eval, run_options o,
                   float *out[HT_CLIP_OUTPUTS])
{
    const char *ids_name = golden_string(json_object_get(eval, "args"), "input_ids");
    const ht_tensor *ids_tensor = tensor_of(golden, ids_name);
    int32_t *ids = ids_of(golden, ids_name);
    ht_clip_encoder_options options = {
        .batch = o.batch, .tokens = (int)ids_tensor->shape[1], .backend = {.threads = o.threads, .isa = o.isa}};
    ht_clip_encoder *encoder;
    for (int i = 0; i < HT_CLIP_OUTPUTS; i++) {
        const char *name = golden_string(json_object_get(eval, "out"), ht_clip_output_name(i));
        out[i] = name ? calloc(tensor_of(golden, name)->count, sizeof(float)) : NULL;
        options.wanted |= name ? 1u << i : 0;
    }
    assert_ok(ht_clip_encoder_open(m, &ht_cpu_backend, &options, &encoder));
    assert_ok(ht_clip_encoder_run(encoder, ids, ids_tensor->shape[0], out));
    ht_clip_encoder_close(encoder);
    free(ids);
}

static void check_outputs(const char *name, const json_t *entry)
{
    size_t i;
    json_t *eval;
    encoder_files f = open_files(name);
    ht_safetensors *golden = golden_open(name, "golden.safetensors");
    json_array_foreach(json_object_get(entry, "evals"), i, eval)
    {
        float *out[HT_CLIP_OUTPUTS];
        int compared = 0;
        encode(f.model, golden, eval, (run_options){.batch = 2, .threads = 1}, out);
        for (int k = 0; k < HT_CLIP_OUTPUTS; k++) {
            char what[256];
            const char *tensor = golden_string(json_object_get(eval, "out"), ht_clip_output_name(k));
            if (!tensor)
                continue;
            snprintf(what, sizeof what, "%s: %s", name, tensor);
            float *want = floats_of(golden, tensor);
            assert_close(what, out[k], want, tensor_of(golden, tensor)->count, golden_real(entry, "tolerance"));
            free(want);
            free(out[k]);
            compared++;
        }
        assert_int_equal(compared, json_object_size(json_object_get(eval, "out")));
    }
    assert_true(i > 0);
    ht_safetensors_close(golden);
    close_files(&f);
}

static void check_same_bits(const char *name, const json_t *entry)
{
    static const run_options others[] = {{1, 1, "scalar"}, {1, 2, NULL}, {3, 2, "avx2"}, {5, 3, NULL}};
    encoder_files f = open_files(name);
    ht_safetensors *golden = golden_open(name, "golden.safetensors");
    const json_t *eval = json_array_get(json_object_get(entry, "evals"), 0);
    float *want[HT_CLIP_OUTPUTS];
    encode(f.model, golden, eval, (run_options){.batch = 2, .threads = 1}, want);
    for (size_t o = 0; o < sizeof others / sizeof *others; o++) {
        float *got[HT_CLIP_OUTPUTS];
        encode(f.model, golden, eval, others[o], got);
        for (int k = 0; k < HT_CLIP_OUTPUTS; k++)
            if (got[k]) {
                const char *tensor = golden_string(json_object_get(eval, "out"), ht_clip_output_name(k));
                assert_memory_equal(got[k], want[k], tensor_of(golden, tensor)->count * sizeof(float));
                free(got[k]);
            }
    }
    for (int k = 0; k < HT_CLIP_OUTPUTS; k++)
        free(want[k]);
    ht_safetensors_close(golden);
    close_files(&f);
}

static void for_each_case(void (*check)(const char *name, const json_t *entry))
{
    assert_int_equal(golden_each("text", "CLIPTextModel", check), 3);
    assert_int_equal(golden_each("text", "CLIPTextModelWithProjection", check), 2);
}

static void outputs_are_those_of_the_library(void **state)
{
    (void)state;
    for_each_case(check_outputs);
}

static void check_files(const char *name, const json_t *entry)
{
    size_t i;
    json_t *eval;
    char path[512];
    const char *output;
    json_t *tensor;
    snprintf(path, sizeof path, GOLDENS "/%s", name);
    assert_true(ht_is_text_encoder(path, NULL));
    json_array_foreach(json_object_get(entry, "evals"), i, eval)
    {
        ht_safetensors *golden = golden_open(name, "golden.safetensors"), *made;
        ht_tensor ids = *tensor_of(golden, golden_string(json_object_get(eval, "args"), "input_ids"));
        ids.name = "input_ids";
        assert_ok(ht_safetensors_write(in_folder("in.safetensors"), &ids, 1, NULL, 0));
        assert_ok(ht_predict_text_file(path, NULL, &(ht_session_options){.threads = 1}, in_folder("in.safetensors"),
                                       in_folder("out.safetensors"), NULL, NULL));
        assert_ok(ht_safetensors_open(in_folder("out.safetensors"), &made));
        json_object_foreach(json_object_get(eval, "out"), output, tensor)
        {
            const ht_tensor *got = tensor_of(made, output), *want = tensor_of(golden, json_string_value(tensor));
            assert_int_equal(got->ndim, want->ndim);
            assert_memory_equal(got->shape, want->shape, (size_t)got->ndim * sizeof *got->shape);
            float *x = floats_of(made, output), *y = floats_of(golden, json_string_value(tensor));
            assert_close(output, x, y, want->count, golden_real(entry, "tolerance"));
            free(y);
            free(x);
        }
        ht_safetensors_close(made);
        ht_safetensors_close(golden);
    }
}

static void predictions_through_files_are_the_same(void **state)
{
    (void)state;
    for_each_case(check_files);
    assert_false(ht_is_text_encoder(GOLDENS "/unet/ddpm-cifar", NULL));
    assert_false(ht_is_text_encoder("no such folder", NULL));
}

static void bits_do_not_depend_on_batch_threads_or_instruction_set(void **state)
{
    (void)state;
    for_each_case(check_same_bits);
}

static void the_pooled_token_is_the_first_end_or_the_largest(void **state)
{
    (void)state;
    const int32_t ids[] = {7, 3, 9, 5, 9, 3};
    assert_int_equal(ht_clip_pooled_token(&(ht_clip_config){.eos_token_id = 3}, ids, 6), 1);
    assert_int_equal(ht_clip_pooled_token(&(ht_clip_config){.eos_token_id = 9}, ids, 6), 2);
    assert_int_equal(ht_clip_pooled_token(&(ht_clip_config){.eos_token_id = 4}, ids, 6), 0);
    assert_int_equal(ht_clip_pooled_token(&(ht_clip_config){.eos_token_id = 2}, ids, 6), 2);
}

static void settings_that_are_not_known_are_refused_by_name(void **state)
{
    (void)state;
    static const struct {
        const char *json, *words;
    } cases[] = {
        {"{\"hidden_act\": \"relu\"}", "hidden_act \"relu\" is not supported"},
        {"{\"hidden_size\": 30, \"num_attention_heads\": 4}", "hidden_size 30 is not a multiple"},
        {"{\"num_hidden_layers\": 0}", "num_hidden_layers"},
        {"{\"vocab_size\": -1}", "vocab_size"},
        {"{\"layer_norm_eps\": 0}", "layer_norm_eps is 0"},
        {"{\"model_type\": \"t5\"}", "model_type \"t5\" is not supported"},
        {"{\"sliding_window\": 4}", "sliding_window"},
        {"{\"text_config\": {\"hidden_act\": \"tanh\"}}", "hidden_act \"tanh\""},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        json_t *object;
        ht_clip_config c;
        assert_ok(ht_json_parse(cases[i].json, strlen(cases[i].json), "x", &object));
        if (!ht_clip_config_read(object, "x/config.json", &c) || !strstr(ht_error_message(), cases[i].words))
            fail_msg("%s: \"%s\", want \"%s\"", cases[i].json, ht_error_message(), cases[i].words);
        json_decref(object);
    }
}

static void what_the_model_cannot_do_is_refused(void **state)
{
    (void)state;
    encoder_files f = open_files("text/clip-sd1");
    ht_clip_encoder *e;
    ht_clip_encoder_options o = {.batch = 1, .tokens = 78, .wanted = 1, .backend = {.threads = 1}};
    assert_refused(ht_clip_encoder_open(f.model, &ht_cpu_backend, &o, &e), HT_ERR_ARGUMENT, "takes 1 to 77");
    o.tokens = 3;
    o.wanted = 1u << HT_CLIP_TEXT_EMBEDS;
    assert_refused(ht_clip_encoder_open(f.model, &ht_cpu_backend, &o, &e), HT_ERR_ARGUMENT, "text_projection.weight");
    o.wanted = 1u << HT_CLIP_POOLER_OUTPUT;
    assert_ok(ht_clip_encoder_open(f.model, &ht_cpu_backend, &o, &e));
    float pooled[24] = {0}, *out[HT_CLIP_OUTPUTS] = {[HT_CLIP_POOLER_OUTPUT] = pooled};
    assert_refused(ht_clip_encoder_run(e, (const int32_t[]){398, 400, 399}, 1, out), HT_ERR_ARGUMENT,
                   "token 1 of row 0 is 400, the vocab_size is 400");
    assert_refused(ht_clip_encoder_run(e, (const int32_t[]){398, 1, -1}, 1, out), HT_ERR_ARGUMENT, "token 2");
    assert_ok(ht_clip_encoder_run(e, (const int32_t[]){398, 1, 399}, 1, out));
    ht_clip_encoder_close(e);
    close_files(&f);
}

static void names_of_whole_models_are_understood(void **state)
{
    (void)state;
    assert_string_equal(ht_clip_rename(NULL, "text_model.final_layer_norm.weight", NULL), "final_layer_norm.weight");
    assert_string_equal(ht_clip_rename(NULL, "text_projection.weight", NULL), "text_projection.weight");
    assert_null(ht_clip_rename(NULL, "text_model.embeddings.position_ids", NULL));
    assert_null(ht_clip_rename(NULL, "vision_model.post_layernorm.weight", NULL));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(outputs_are_those_of_the_library),
        cmocka_unit_test(predictions_through_files_are_the_same),
        cmocka_unit_test(bits_do_not_depend_on_batch_threads_or_instruction_set),
        cmocka_unit_test(the_pooled_token_is_the_first_end_or_the_largest),
        cmocka_unit_test(settings_that_are_not_known_are_refused_by_name),
        cmocka_unit_test(what_the_model_cannot_do_is_refused),
        cmocka_unit_test(names_of_whole_models_are_understood),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
