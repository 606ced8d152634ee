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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(hidden_states_are_those_of_transformers),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
