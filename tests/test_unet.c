/* test_unet.c - UNet2DModel against what diffusers and the original DDPM code computed: every case of
 * tests/goldens/index.json that is one, through the public API, at the case's own tolerance. */
#include "halftone.h"
#include "tests/folder.h"
#include "tests/goldens.h"

/* One evaluation of a case: borrowed from index.json and the golden file. */
typedef struct evaluation {
    const char *name; /* of the case */
    double tolerance;
    const json_t *arguments;
    const char *out;
    ht_safetensors *golden;
    ht_model *model;
} evaluation;

static const char *argument(const evaluation *e, const char *name)
{
    return json_string_value(json_object_get(e->arguments, name));
}

static void (*check)(const evaluation *);

/* Call check for every evaluation of a case. */
static void for_each_evaluation_of(const char *name, const json_t *entry)
{
    char path[512];
    evaluation e = {.name = name, .tolerance = json_number_value(json_object_get(entry, "tolerance"))};
    size_t i;
    json_t *eval;
    snprintf(path, sizeof path, GOLDENS "/%s", name);
    assert_true(e.tolerance > 0);
    e.golden = golden_open(name, "golden.safetensors");
    assert_ok(ht_model_open(path, NULL, &e.model));
    json_array_foreach(json_object_get(entry, "evals"), i, eval)
    {
        e.arguments = json_object_get(eval, "args");
        e.out = json_string_value(json_object_get(json_object_get(eval, "out"), "sample"));
        check(&e);
    }
    assert_true(i > 0);
    ht_model_close(e.model);
    ht_safetensors_close(e.golden);
}

static void for_each_evaluation(void (*checked)(const evaluation *))
{
    check = checked;
    assert_int_equal(golden_each("unet", "UNet2DModel", for_each_evaluation_of), 5);
    assert_int_equal(golden_each("ddim_original", NULL, for_each_evaluation_of), 1);
}

/* The arguments of one evaluation in the API's form. */
typedef struct inputs {
    const ht_tensor *sample;
    float *x, *t, *expected;
    float *labels;   /* NULL: the case has none */
    size_t n, count; /* images; elements of the output */
} inputs;

static inputs inputs_of(const evaluation *e)
{
    const ht_tensor *timestep = tensor_of(e->golden, argument(e, "timestep"));
    inputs in = {
        .sample = tensor_of(e->golden, argument(e, "sample")),
    };
    in.n = (size_t)in.sample->shape[0];
    if (argument(e, "class_labels"))
        in.labels = floats_of(e->golden, argument(e, "class_labels"));
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
    char what[256];
    snprintf(what, sizeof what, "%s: %s", e->name, e->out);
    assert_close(what, out, in->expected, in->count, e->tolerance);
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
    ht_safetensors *file;
    inputs in = inputs_of(e);
    write_arguments(e, in_folder("in.safetensors"));
    assert_ok(ht_predict_file(e->model, NULL, in_folder("in.safetensors"), in_folder("out.safetensors"), NULL, NULL));
    assert_ok(ht_safetensors_open(in_folder("out.safetensors"), &file));
    const ht_tensor *sample = tensor_of(file, "sample");
    assert_int_equal(sample->ndim, 4);
    assert_memory_equal(sample->shape, tensor_of(e->golden, e->out)->shape, 4 * sizeof *sample->shape);
    float *out = images_of(file, "sample");
    check_error(e, out, &in);
    free(out);
    free_inputs(&in);
    ht_safetensors_close(file);
}

static void predictions_through_files_are_the_same(void **state)
{
    (void)state;
    for_each_evaluation(check_files);
}

/* in.safetensors: two images for the model of tests/goldens/unet, and one more tensor if it has a name. */
static void write_input(const char *name, int64_t n, const float *values)
{
    static float x[2 * 3 * 16 * 16], t[2] = {300, 20};
    ht_tensor tensors[] = {{.name = "sample", .dtype = HT_F32, .ndim = 4, .shape = {2, 3, 16, 16}, .data = x},
                           {.name = "timestep", .dtype = HT_F32, .ndim = 1, .shape = {2}, .data = t},
                           {.name = name, .dtype = HT_F32, .ndim = 1, .shape = {n}, .data = values}};
    for (int i = 0; i < 3; i++) {
        tensors[i].count = 1;
        for (int k = 0; k < tensors[i].ndim; k++)
            tensors[i].count *= (size_t)tensors[i].shape[k];
        tensors[i].bytes = 4 * tensors[i].count;
    }
    for (int i = 0; i < 2 * 3 * 16 * 16; i++)
        x[i] = sinf((float)i);
    assert_ok(ht_safetensors_write(in_folder("in.safetensors"), tensors, name ? 3 : 2, NULL, 0));
}

static ht_status predict_file(const char *model, ht_progress progress, void *user)
{
    ht_model *m;
    assert_ok(ht_model_open(model, NULL, &m));
    ht_status status = ht_predict_file(m, &(ht_session_options){.batch = 1}, in_folder("in.safetensors"),
                                       in_folder("out.safetensors"), progress, user);
    ht_model_close(m);
    return status;
}

/* The first image that a model makes with classes from a file. */
static float *image_of_class(const char *model, float label)
{
    ht_safetensors *file;
    write_input("class_labels", 2, (float[]){label, 1});
    assert_ok(predict_file(model, NULL, NULL));
    assert_ok(ht_safetensors_open(in_folder("out.safetensors"), &file));
    float *out = floats_of(file, "sample");
    ht_safetensors_close(file);
    return out;
}

static void a_class_that_is_embedded_like_a_timestep_may_be_a_fraction(void **state)
{
    (void)state;
    static const char model[] = GOLDENS "/unet/scale-shift-class-timestep";
    enum { COUNT = 3 * 16 * 16 };
    float *at[3], between = 0, apart = 0;
    for (int i = 0; i < 3; i++)
        at[i] = image_of_class(model, 2 + 0.5f * (float)i);
    for (int i = 0; i < COUNT; i++) {
        between = fmaxf(between, fabsf(at[1][i] - at[0][i]));
        apart = fmaxf(apart, fabsf(at[2][i] - at[0][i]));
    }
    assert_true(between > 0 && between < apart);
    for (int i = 0; i < 3; i++)
        free(at[i]);
}

static void a_row_of_a_class_table_may_not_be_a_fraction(void **state)
{
    (void)state;
    write_input("class_labels", 2, (float[]){1, 2.5f});
    assert_refused(predict_file(GOLDENS "/unet/adm-scale-shift", NULL, NULL), HT_ERR_ARGUMENT,
                   "class 2.5 is not whole");
    assert_int_equal(files_in_folder(), 1);
}

static void arguments_of_other_models_in_a_file_are_refused(void **state)
{
    (void)state;
    static const char unconditional[] = GOLDENS "/unet/ddpm-cifar";
    const float values[2] = {0};
    static const char *const names[] = {"class_labels", "encoder_hidden_states", "added_cond_kwargs"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        write_input(names[i], 2, values);
        assert_refused(predict_file(unconditional, NULL, NULL), HT_ERR_ARGUMENT, names[i]);
    }
    assert_int_equal(files_in_folder(), 1);
    write_input("out.recorded", 2, values);
    assert_ok(predict_file(unconditional, NULL, NULL));
}

static int stop_after(void *user, int64_t done, int64_t total)
{
    assert_int_equal(total, 2);
    return done == *(int *)user;
}

static void a_prediction_that_is_cancelled_writes_nothing(void **state)
{
    (void)state;
    write_input(NULL, 0, NULL);
    for (int done = 1; done <= 2; done++)
        assert_refused(predict_file(GOLDENS "/unet/ddpm-cifar", stop_after, &done), HT_ERR_CANCELLED, "cancelled");
    assert_int_equal(files_in_folder(), 1);
    assert_ok(predict_file(GOLDENS "/unet/ddpm-cifar", stop_after, &(int){0}));
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
    assert_string_equal(info.sampler, "ddim");
    assert_null(info.decoder);
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
    assert_int_equal(ht_predict(s, 1, x, &t, &(ht_cond){.class_labels = (const float[]){10}}, out), HT_ERR_ARGUMENT);
    assert_int_equal(ht_predict(s, 1, x, &t, &(ht_cond){.class_labels = (const float[]){-1}}, out), HT_ERR_ARGUMENT);
    assert_ok(ht_predict(s, 1, x, &t, &(ht_cond){.class_labels = (const float[]){9}}, out));
    ht_session_close(s);
    ht_model_close(m);
}

static void copy_weights(const char *from)
{
    char path[512];
    ht_safetensors *file;
    ht_tensor tensors[512];
    snprintf(path, sizeof path, "%s/diffusion_pytorch_model.safetensors", from);
    assert_ok(ht_safetensors_open(path, &file));
    size_t n = ht_safetensors_count(file);
    assert_true(n <= 512);
    for (size_t i = 0; i < n; i++)
        tensors[i] = *ht_safetensors_at(file, i);
    assert_ok(ht_safetensors_write(in_folder("diffusion_pytorch_model.safetensors"), tensors, n, NULL, 0));
    ht_safetensors_close(file);
}

static void a_model_without_sample_size_asks_for_one(void **state)
{
    (void)state;
    json_t *config;
    ht_model *m;
    ht_session *s;
    copy_weights(GOLDENS "/unet/ddpm-cifar");
    assert_ok(ht_json_read(GOLDENS "/unet/ddpm-cifar/config.json", &config));
    json_object_set_new(config, "sample_size", json_null());
    assert_int_equal(json_dump_file(config, in_folder("config.json"), 0), 0);
    json_decref(config);
    assert_ok(ht_model_open(folder, NULL, &m));
    assert_refused(ht_session_open(m, NULL, &s), HT_ERR_ARGUMENT, "has no sample_size");
    assert_ok(ht_session_open(m, &(ht_session_options){.height = 16, .width = 8}, &s));
    ht_session_close(s);
    ht_model_close(m);
}

static void a_size_that_cannot_be_halved_is_refused(void **state)
{
    (void)state;
    ht_model *m;
    ht_session *s;
    assert_ok(ht_model_open("tests/goldens/unet/ddpm-cifar", NULL, &m));
    assert_refused(ht_session_open(m, &(ht_session_options){.height = 16, .width = 20}, &s), HT_ERR_ARGUMENT,
                   "multiple of 8");
    ht_model_close(m);
}

/* ---- the same model said differently ---- */

#define ADM     GOLDENS "/unet/adm-scale-shift"
#define WEIGHTS "diffusion_pytorch_model.safetensors"
enum { SIZE = 8, IN = SIZE * SIZE * 3, OUT = SIZE * SIZE * 6 };

/* The image that ADM makes of a fixed input with a condition. */
static void evaluate(const char *path, const ht_cond *cond, float out[OUT])
{
    ht_model *m;
    ht_session *s;
    const float t = 300;
    float x[IN];
    for (int i = 0; i < IN; i++)
        x[i] = sinf((float)i);
    assert_ok(ht_model_open(path, NULL, &m));
    assert_ok(ht_session_open(m, &(ht_session_options){.height = SIZE, .width = SIZE}, &s));
    assert_ok(ht_predict(s, 1, x, &t, cond, out));
    ht_session_close(s);
    ht_model_close(m);
}

/* The image that ADM draws with a condition. */
static void draw_one(const char *path, const ht_cond *cond, float out[OUT])
{
    ht_model *m;
    ht_session *s;
    assert_ok(ht_model_open(path, NULL, &m));
    assert_ok(ht_session_open(m, &(ht_session_options){.height = SIZE, .width = SIZE}, &s));
    assert_ok(ht_sample(s, &(ht_sample_options){.steps = 2, .cond = cond}, 0, 1, out));
    assert_refused(ht_sample(s, &(ht_sample_options){.steps = 2}, 0, 1, out), HT_ERR_ARGUMENT, "needs a class");
    ht_session_close(s);
    ht_model_close(m);
}

/* A name as diffusers wrote it before 0.18, in a static buffer a tensor. */
static const char *old_name(const char *name, size_t i)
{
    static const char *const words[][2] = {
        {".to_q.", ".query."}, {".to_k.", ".key."}, {".to_v.", ".value."}, {".to_out.0.", ".proj_attn."}};
    static char buffers[512][128];
    snprintf(buffers[i], sizeof buffers[i], "%s", name);
    for (size_t k = 0; k < 4; k++) {
        const char *at = strstr(name, words[k][0]);
        if (at)
            snprintf(buffers[i], sizeof buffers[i], "%.*s%s%s", (int)(at - name), name, words[k][1],
                     at + strlen(words[k][0]));
    }
    return buffers[i];
}

/* ADM in the test's folder, with old names, and without its class table if it takes vectors. */
static void write_adm(const char *class_embed_type)
{
    ht_tensor tensors[512];
    size_t n = 0;
    json_t *config;
    ht_safetensors *file = golden_open("unet/adm-scale-shift", WEIGHTS);
    for (size_t i = 0; i < ht_safetensors_count(file); i++) {
        assert_true(n < 512);
        tensors[n] = *ht_safetensors_at(file, i);
        tensors[n].name = old_name(tensors[n].name, n);
        if (!class_embed_type || strcmp(tensors[n].name, "class_embedding.weight"))
            n++;
    }
    assert_ok(ht_safetensors_write(in_folder(WEIGHTS), tensors, n, NULL, 0));
    ht_safetensors_close(file);
    assert_ok(ht_json_read(ADM "/config.json", &config));
    if (class_embed_type)
        json_object_set_new(config, "class_embed_type", json_string(class_embed_type));
    assert_int_equal(json_dump_file(config, in_folder("config.json"), 0), 0);
    json_decref(config);
}

static void names_before_diffusers_0_18_are_the_same_model(void **state)
{
    (void)state;
    static float before[OUT], after[OUT];
    const ht_cond cond = {.class_labels = (const float[]){3}};
    write_adm(NULL);
    evaluate(folder, &cond, before);
    evaluate(ADM, &cond, after);
    assert_memory_equal(before, after, sizeof before);
}

static void a_class_is_its_row_given_as_an_embedding(void **state)
{
    (void)state;
    static float by_label[OUT], by_row[OUT];
    ht_safetensors *file = golden_open("unet/adm-scale-shift", WEIGHTS);
    size_t dim = (size_t)tensor_of(file, "class_embedding.weight")->shape[1];
    float *table = floats_of(file, "class_embedding.weight");
    write_adm("identity");
    draw_one(folder, &(ht_cond){.class_embeddings = table + 3 * dim}, by_row);
    draw_one(ADM, &(ht_cond){.class_labels = (const float[]){3}}, by_label);
    assert_memory_equal(by_label, by_row, IN * sizeof *by_row);
    evaluate(folder, &(ht_cond){.class_embeddings = table + 3 * dim}, by_row);
    evaluate(ADM, &(ht_cond){.class_labels = (const float[]){3}}, by_label);
    assert_memory_equal(by_label, by_row, sizeof by_row);
    free(table);
    ht_safetensors_close(file);
}

#define IN_FOLDER(test) cmocka_unit_test_setup_teardown(test, make_folder, remove_folder)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(predictions_are_those_of_the_libraries),
        cmocka_unit_test(predictions_do_not_depend_on_the_batch),
        IN_FOLDER(predictions_through_files_are_the_same),
        cmocka_unit_test(info_tells_what_the_model_takes),
        cmocka_unit_test(original_ddpm_configs_bring_their_betas),
        cmocka_unit_test(a_class_that_is_missing_or_too_large_is_refused),
        cmocka_unit_test(a_size_that_cannot_be_halved_is_refused),
        IN_FOLDER(a_class_that_is_embedded_like_a_timestep_may_be_a_fraction),
        IN_FOLDER(a_row_of_a_class_table_may_not_be_a_fraction),
        IN_FOLDER(arguments_of_other_models_in_a_file_are_refused),
        IN_FOLDER(a_prediction_that_is_cancelled_writes_nothing),
        IN_FOLDER(a_model_without_sample_size_asks_for_one),
        IN_FOLDER(names_before_diffusers_0_18_are_the_same_model),
        IN_FOLDER(a_class_is_its_row_given_as_an_embedding),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
