/* test_unet.c - UNet2DModel against what diffusers and the original DDPM code computed: every case of tests/goldens/index.json that is one,
 * through the public API, at the case's own tolerance. */
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "core/json.h"
#include "halftone.h"
#include "tests/tensors.h"

enum { UNET_CASES = 6, LONGEST_PATH = 512 };

/* One evaluation of a case: borrowed from index.json and the golden file. */
typedef struct evaluation {
    const char *name;           /* of the case */
    double tolerance;
    const json_t *arguments;
    const char *out;
    ht_safetensors *golden;
    ht_model *model;
} evaluation;

static bool is_unet(const json_t *c)
{
    const char *kind = json_string_value(json_object_get(c, "kind"));
    const char *class_name = json_string_value(json_object_get(c, "library_class"));
    return !strcmp(kind, "ddim_original") || (!strcmp(kind, "unet") && !strcmp(class_name, "UNet2DModel"));
}

static const char *argument(const evaluation *e, const char *name)
{
    return json_string_value(json_object_get(e->arguments, name));
}

/* Call check for every evaluation of a case. */
static void for_each_evaluation_of(const char *name, const json_t *c, void (*check)(const evaluation *))
{
    char path[LONGEST_PATH], golden[LONGEST_PATH + 32];
    evaluation e = {.name = name, .tolerance = json_number_value(json_object_get(c, "tolerance"))};
    size_t i;
    json_t *eval;
    snprintf(path, sizeof path, "tests/goldens/%s", json_string_value(json_object_get(c, "path")));
    snprintf(golden, sizeof golden, "%s/golden.safetensors", path);
    assert_true(e.tolerance > 0);
    assert_ok(ht_safetensors_open(golden, &e.golden));
    assert_ok(ht_model_open(path, NULL, &e.model));
    json_array_foreach(json_object_get(c, "evals"), i, eval)
    {
        e.arguments = json_object_get(eval, "args");
        e.out = json_string_value(json_object_get(json_object_get(eval, "out"), "sample"));
        check(&e);
    }
    assert_true(i > 0);
    ht_model_close(e.model);
    ht_safetensors_close(e.golden);
}

static void for_each_evaluation(void (*check)(const evaluation *))
{
    json_t *index, *c;
    const char *name;
    int cases = 0;
    assert_ok(ht_json_read("tests/goldens/index.json", &index));
    json_object_foreach(json_object_get(index, "cases"), name, c)
    {
        if (is_unet(c)) {
            for_each_evaluation_of(name, c, check);
            cases++;
        }
    }
    json_decref(index);
    assert_int_equal(cases, UNET_CASES);
}

/* The arguments of one evaluation in the API's form. */
typedef struct inputs {
    const ht_tensor *sample;
    float *x, *t, *expected;
    int64_t *labels; /* NULL: the case has none */
    size_t n, count; /* images; elements of the output */
} inputs;

static int64_t *labels_of(const evaluation *e)
{
    const char *name = argument(e, "class_labels");
    if (!name)
        return NULL;
    const ht_tensor *t = tensor_of(e->golden, name);
    int64_t *labels = malloc(t->bytes);
    assert_non_null(labels);
    assert_int_equal(t->dtype, HT_I64);
    memcpy(labels, t->data, t->bytes);
    return labels;
}

static inputs inputs_of(const evaluation *e)
{
    const ht_tensor *timestep = tensor_of(e->golden, argument(e, "timestep"));
    inputs in = {.sample = tensor_of(e->golden, argument(e, "sample")), .labels = labels_of(e)};
    in.n = (size_t)in.sample->shape[0];
    in.x = images_of(e->golden, argument(e, "sample"));
    in.expected = images_of(e->golden, e->out);
    in.count = tensor_of(e->golden, e->out)->count;
    float *t = floats_of(e->golden, argument(e, "timestep"));
    in.t = malloc(in.n * sizeof *in.t);
    assert_non_null(in.t);
    for (size_t i = 0; i < in.n; i++)
        in.t[i] = t[timestep->count == 1 ? 0 : i];
    free(t);
    return in;
}

static void free_inputs(inputs *in)
{
    free(in->labels);
    free(in->t);
    free(in->expected);
    free(in->x);
}

static float *predict(const evaluation *e, const inputs *in, ht_session_options options)
{
    ht_session *s;
    float *out = malloc(in->count * sizeof *out);
    assert_non_null(out);
    options.height = (int)in->sample->shape[2];
    options.width = (int)in->sample->shape[3];
    assert_ok(ht_session_open(e->model, &options, &s));
    assert_ok(ht_predict(s, (int64_t)in->n, in->x, in->t, &(ht_cond){.class_labels = in->labels}, out));
    ht_session_close(s);
    return out;
}

static void check_error(const evaluation *e, const float *out, const inputs *in)
{
    double error = relative_error(out, in->expected, in->count);
    if (!(error <= e->tolerance))
        fail_msg("%s: %s is off by %g, tolerance %g", e->name, e->out, error, e->tolerance);
}

static void check_prediction(const evaluation *e)
{
    inputs in = inputs_of(e);
    float *out = predict(e, &in, (ht_session_options){.batch = (int)in.n});
    check_error(e, out, &in);
    free(out);
    free_inputs(&in);
}

static void predictions_are_those_of_the_libraries(void **state)
{
    (void)state;
    for_each_evaluation(check_prediction);
}

static void check_batches(const evaluation *e)
{
    inputs in = inputs_of(e);
    float *one = predict(e, &in, (ht_session_options){.batch = 1, .threads = 1});
    float *many = predict(e, &in, (ht_session_options){.batch = 5, .threads = 2});
    assert_memory_equal(one, many, in.count * sizeof *one);
    free(many);
    free(one);
    free_inputs(&in);
}

static void predictions_do_not_depend_on_the_batch(void **state)
{
    (void)state;
    for_each_evaluation(check_batches);
}

/* The input file that `ht_predict_file` reads: the golden tensors under the arguments' names. */
static void write_arguments(const evaluation *e, const char *path)
{
    ht_tensor tensors[4];
    size_t n = 0;
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)(uintptr_t)e->arguments, key, value)
    {
        assert_true(n < 4);
        tensors[n] = *tensor_of(e->golden, json_string_value(value));
        tensors[n++].name = key;
    }
    assert_ok(ht_safetensors_write(path, tensors, n, NULL, 0));
}

static void check_files(const evaluation *e)
{
    char folder[] = "/tmp/halftone-test-XXXXXX", in_path[64], out_path[64];
    ht_safetensors *file;
    inputs in = inputs_of(e);
    assert_non_null(mkdtemp(folder));
    snprintf(in_path, sizeof in_path, "%s/in.safetensors", folder);
    snprintf(out_path, sizeof out_path, "%s/out.safetensors", folder);
    write_arguments(e, in_path);
    assert_ok(ht_predict_file(e->model, NULL, in_path, out_path));
    assert_ok(ht_safetensors_open(out_path, &file));
    const ht_tensor *sample = tensor_of(file, "sample");
    assert_int_equal(sample->ndim, 4);
    assert_memory_equal(sample->shape, tensor_of(e->golden, e->out)->shape, 4 * sizeof *sample->shape);
    float *out = images_of(file, "sample");
    check_error(e, out, &in);
    free(out);
    free_inputs(&in);
    ht_safetensors_close(file);
    unlink(in_path);
    unlink(out_path);
    assert_int_equal(rmdir(folder), 0);
}

static void predictions_through_files_are_the_same(void **state)
{
    (void)state;
    for_each_evaluation(check_files);
}

static void info_tells_what_the_model_takes(void **state)
{
    (void)state;
    ht_model *m;
    ht_model_info info;
    assert_ok(ht_model_open("tests/goldens/unet/adm-scale-shift", NULL, &m));
    ht_model_get_info(m, &info);
    assert_string_equal(info.class_name, "UNet2DModel");
    assert_null(info.scheduler);
    assert_int_equal(info.in_channels, 3);
    assert_int_equal(info.out_channels, 6);
    assert_int_equal(info.height, 16);
    assert_int_equal(info.width, 16);
    assert_int_equal(info.num_classes, 10);
    assert_int_equal(info.weight_bytes, 4 * info.parameters);
    ht_model_close(m);
}

static void original_ddpm_configs_bring_their_betas(void **state)
{
    (void)state;
    ht_model *m;
    ht_model_info info;
    assert_ok(ht_model_open("tests/goldens/ddim_original/cifar", NULL, &m));
    ht_model_get_info(m, &info);
    assert_string_equal(info.class_name, "UNet2DModel");
    assert_string_equal(info.scheduler, "DDIMScheduler");
    assert_int_equal(info.height, 16);
    ht_model_close(m);
}

static void a_class_that_is_missing_or_too_large_is_refused(void **state)
{
    (void)state;
    ht_model *m;
    ht_session *s;
    static float x[8 * 8 * 3], out[8 * 8 * 6];
    const float t = 1;
    assert_ok(ht_model_open("tests/goldens/unet/adm-scale-shift", NULL, &m));
    assert_ok(ht_session_open(m, &(ht_session_options){.height = 8, .width = 8}, &s));
    assert_int_equal(ht_predict(s, 1, x, &t, NULL, out), HT_ERR_ARGUMENT);
    assert_int_equal(ht_predict(s, 1, x, &t, &(ht_cond){.class_labels = (const int64_t[]){10}}, out), HT_ERR_ARGUMENT);
    assert_int_equal(ht_predict(s, 1, x, &t, &(ht_cond){.class_labels = (const int64_t[]){-1}}, out), HT_ERR_ARGUMENT);
    assert_ok(ht_predict(s, 1, x, &t, &(ht_cond){.class_labels = (const int64_t[]){9}}, out));
    ht_session_close(s);
    ht_model_close(m);
}

static void a_size_that_cannot_be_halved_is_refused(void **state)
{
    (void)state;
    ht_model *m;
    ht_session *s;
    assert_ok(ht_model_open("tests/goldens/unet/ddpm-cifar", NULL, &m));
    assert_int_equal(ht_session_open(m, &(ht_session_options){.height = 16, .width = 20}, &s), HT_ERR_SHAPE);
    assert_non_null(strstr(ht_error_message(), "multiples of 8"));
    ht_model_close(m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(predictions_are_those_of_the_libraries),
        cmocka_unit_test(predictions_do_not_depend_on_the_batch),
        cmocka_unit_test(predictions_through_files_are_the_same),
        cmocka_unit_test(info_tells_what_the_model_takes),
        cmocka_unit_test(original_ddpm_configs_bring_their_betas),
        cmocka_unit_test(a_class_that_is_missing_or_too_large_is_refused),
        cmocka_unit_test(a_size_that_cannot_be_halved_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
