/* test_methods.c - what `halftone quantize` can do to a layer besides rounding it, on whole small models. */
#include <math.h>

#include "tests/quantizing.h"

/* ---- formats by search ---- */

enum { MOST_LAYERS = 64 };

/* Of every layer: its error; 0 of those of the timestep alone, which tell of their features. */
static int errors_of(const char *path, double *error)
{
    ht_model *m = opened(path);
    assert_true(m->layers.n <= MOST_LAYERS);
    int n = m->layers.n;
    for (int i = 0; i < n; i++)
        error[i] = strstr(m->layers.layer[i].name, "time_emb") ? 0 : m->layers.layer[i].error;
    ht_model_close(m);
    return n;
}

static void a_layer_takes_the_listed_format_that_errs_least(void **state)
{
    static const char *const weights[] = {"fp4_e3m0", "fp4_e2m1", "int4", "fp4_e3m0,fp4_e2m1,int4"};
    double error[4][MOST_LAYERS];
    int n = 0;
    (void)state;
    ht_model *m = open_calibrated(&tiny);
    for (int i = 0; i < 4; i++) {
        ht_quantize_options o = with_calibration();
        o.layers = "all";
        o.weights = weights[i];
        n = errors_of(quantize(m, ht_sprintf(arena, "by%d", i), &o), error[i]);
    }
    assert_true(n > 10);
    for (int i = 0; i < n; i++)
        assert_true(error[3][i] == fmin(error[0][i], fmin(error[1][i], error[2][i])));
    ht_model_close(m);
}

static void formats_of_other_sizes_are_not_chosen_from(void **state)
{
    static const struct {
        const char *weights, *words;
    } cases[] = {{"fp4_e2m1,int8", "fp4_e2m1 or int8"},       {"int4,int4_g32", "int4 or int4_g32"},
                 {"nvfp4,mxfp4", "nvfp4 or mxfp4"},           {"int4,", "\"\" is not known"},
                 {"int4,,fp4_e2m1", "\"\" is not known"},     {"fp4_e2m1,int3", "int3 can only be simulated"},
                 {"int4 ,fp4_e2m1", "\"int4 \" is not known"}};
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        assert_refused(ht_quantize_check(&(ht_quantize_options){.weights = cases[i].weights}), HT_ERR_ARGUMENT,
                       cases[i].words);
}

/* ---- scales ---- */

static void scales_of_a_saved_model_are_powers_of_two_if_told(void **state)
{
    (void)state;
    ht_model *m = open_calibrated(&tiny);
    ht_quantize_options o = with_calibration();
    o.layers = "all";
    o.scheme = "fp4";
    o.scale_powers = "each";
    const char *path = quantize(m, "powers", &o);
    ht_model *q = opened(path);
    for (int i = 0; i < q->layers.n; i++) {
        const ht_layer *l = &q->layers.layer[i];
        for (int p = 0, exponent; p < l->parts; p++)
            for (int64_t n = 0; n < l->shape[0]; n++)
                assert_true(frexpf(fabsf(((const float *)l->part[p].weight.scales)[n]), &exponent) == 0.5f);
    }
    assert_true(distance_of(m, path) < 1);
    ht_model_close(q);
    ht_model_close(m);
}

#define CASE(test) cmocka_unit_test_setup_teardown(test, open_all, close_all)

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(a_layer_takes_the_listed_format_that_errs_least),
        CASE(formats_of_other_sizes_are_not_chosen_from),
        CASE(scales_of_a_saved_model_are_powers_of_two_if_told),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
