/* predictions.h - for tests: recorded evaluations of a component run through files, as anyone can run them. */
#ifndef HT_TESTS_PREDICTIONS_H
#define HT_TESTS_PREDICTIONS_H

#include "halftone.h"
#include "tests/folder.h"
#include "tests/goldens.h"

enum { MAX_ARGUMENTS = 8 };

/* One evaluation of a case: borrowed from index.json and the golden file. */
typedef struct evaluation {
    const char *name; /* of the case */
    double tolerance;
    const json_t *arguments, *outputs; /* {name in the library: name in the golden file} */
    ht_safetensors *golden;
    ht_model *model;
} evaluation;

static void (*check)(const evaluation *);
static int evaluations;

/* Call check for every evaluation of a case with the model at a path; of a component, for those that are its. */
static void for_each_evaluation_with(const char *path, const char *component, const char *name, const json_t *entry)
{
    evaluation e = {.name = name, .tolerance = json_number_value(json_object_get(entry, "tolerance"))};
    size_t i;
    json_t *eval;
    assert_true(e.tolerance > 0);
    e.golden = golden_open(name, "golden.safetensors");
    assert_ok(ht_model_open(path, component, &e.model));
    json_array_foreach(json_object_get(entry, "evals"), i, eval)
    {
        if (json_object_get(eval, "forward_with_cfg"))
            continue; /* guidance: tests of its own */
        if (component && strcmp(json_string_value(json_object_get(eval, "model")), component) != 0)
            continue;
        e.arguments = json_object_get(eval, "args");
        e.outputs = json_object_get(eval, "out");
        check(&e);
        evaluations++;
    }
    assert_true(i > 0);
    ht_model_close(e.model);
    ht_safetensors_close(e.golden);
}

/* The case's folder is the model's. */
static inline void for_each_evaluation_of(const char *name, const json_t *entry)
{
    char path[512];
    snprintf(path, sizeof path, GOLDENS "/%s", name);
    for_each_evaluation_with(path, NULL, name, entry);
}

/* The golden tensors under the arguments' names, as ht_predict_file reads them. */
static void write_arguments(const evaluation *e, const char *path)
{
    ht_tensor tensors[MAX_ARGUMENTS];
    size_t n = 0;
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)(uintptr_t)e->arguments, key, value)
    {
        assert_true(n < MAX_ARGUMENTS);
        tensors[n] = *tensor_of(e->golden, json_string_value(value));
        tensors[n++].name = key;
    }
    assert_ok(ht_safetensors_write(path, tensors, n, NULL, 0));
}

/* Run an evaluation; the file of its results, which the caller closes. */
static ht_safetensors *predict(const evaluation *e, const ht_session_options *options)
{
    ht_safetensors *file;
    write_arguments(e, in_folder("in.safetensors"));
    assert_ok(
        ht_predict_file(e->model, options, in_folder("in.safetensors"), in_folder("out.safetensors"), NULL, NULL));
    assert_ok(ht_safetensors_open(in_folder("out.safetensors"), &file));
    return file;
}

/* Every output is there, in its shape and within the case's tolerance. */
static inline void check_close(const evaluation *e)
{
    ht_safetensors *file = predict(e, NULL);
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)(uintptr_t)e->outputs, key, value)
    {
        char what[256];
        const char *name = json_string_value(value);
        const ht_tensor *got = tensor_of(file, key), *want = tensor_of(e->golden, name);
        float *x = floats_of(file, key), *y = floats_of(e->golden, name);
        snprintf(what, sizeof what, "%s: %s", e->name, name);
        assert_int_equal(got->ndim, want->ndim);
        assert_memory_equal(got->shape, want->shape, (size_t)want->ndim * sizeof *want->shape);
        print_message("%s: %.2g of %.2g\n", what, relative_error(x, y, want->count), e->tolerance);
        assert_close(what, x, y, want->count, e->tolerance);
        free(x);
        free(y);
    }
    ht_safetensors_close(file);
}

/* The same bits one image at a time by one thread, and all at once by two. */
static inline void check_batches(const evaluation *e)
{
    ht_safetensors *one = predict(e, &(ht_session_options){.batch = 1, .threads = 1});
    ht_safetensors *many = predict(e, &(ht_session_options){.batch = 5, .threads = 2, .isa = "scalar"});
    for (size_t i = 0; i < ht_safetensors_count(one); i++) {
        const ht_tensor *a = ht_safetensors_at(one, i), *b = tensor_of(many, a->name);
        assert_int_equal(a->bytes, b->bytes);
        assert_memory_equal(a->data, b->data, a->bytes);
    }
    ht_safetensors_close(many);
    ht_safetensors_close(one);
}

#endif
