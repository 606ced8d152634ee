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

/* ---- smoothing ---- */

static const ht_layer *layer_of(const ht_model *m, const char *name)
{
    const ht_layer *l = ht_layers_find(&m->layers, name);
    if (!l)
        fail_msg("no layer is called %s", name);
    return l;
}

static const ht_tensor *weight_of(const ht_model *m, const char *layer)
{
    const char *name = ht_sprintf(arena, "%s.weight", layer);
    for (size_t i = 0; i < ht_weights_count(m->weights); i++)
        if (!strcmp(ht_weights_at(m->weights, i)->name, name))
            return ht_weights_at(m->weights, i);
    fail_msg("no weight is called %s", name);
    return NULL;
}

/* Every fifth channel of what norms make is 40 times as large, and what reads a channel multiplies it by less. */
static void add_outliers(ht_tensor *tensors, int n)
{
    for (int i = 0; i < n; i++) {
        ht_tensor *t = &tensors[i];
        float *x = (float *)(uintptr_t)t->data;
        bool norm = strstr(t->name, "norm") && strstr(t->name, ".weight");
        bool reader = strstr(t->name, "to_q.weight") || strstr(t->name, "to_k.weight") ||
                      strstr(t->name, "to_v.weight") || strstr(t->name, "conv1.weight") ||
                      strstr(t->name, "conv2.weight") || strstr(t->name, "conv_out.weight");
        size_t taps = t->ndim == 4 ? (size_t)(t->shape[2] * t->shape[3]) : 1;
        for (size_t k = 0; (norm || reader) && k < t->count; k++)
            if ((norm ? k : k / taps % (size_t)t->shape[1]) % 5 == 0)
                x[k] *= norm ? 40.0f : 0.025f;
    }
}

static const small_model outlying = {.a = 8, .b = 16, .seed = 3, .scheduler = SHORT, .change = add_outliers};

static const char *smoothed(ht_model *m, const char *name, double alpha, bool dynamic)
{
    ht_quantize_options o = with_calibration();
    o.layers = "all";
    o.scheme = "w8a8";
    o.rounding = "nearest";
    o.dynamic = dynamic;
    o.smooth = alpha;
    return quantize(m, name, &o);
}

static void smoothing_makes_outliers_of_inputs_harmless(void **state)
{
    (void)state;
    ht_model *m = open_calibrated(&outlying);
    for (int dynamic = 0; dynamic < 2; dynamic++) {
        double plain = distance_of(m, smoothed(m, dynamic ? "dynamic" : "static", 0, dynamic)),
               smooth = distance_of(m, smoothed(m, dynamic ? "dynamic5" : "static5", 0.5, dynamic));
        if (!(smooth < 0.7 * plain))
            fail_msg("%s: %g away, smoothed %g", dynamic ? "dynamic" : "static", plain, smooth);
    }
    ht_model_close(m);
}

static void weights_times_their_factors_are_those_of_the_model(void **state)
{
    (void)state;
    int found = 0;
    ht_model *m = open_calibrated(&tiny), *q = opened(smoothed(m, "smooth", 0.5, false));
    for (int i = 0; i < q->layers.n; i++) {
        const ht_layer *l = &q->layers.layer[i];
        const ht_tensor *w = weight_of(m, l->name);
        size_t taps = (size_t)ht_layer_taps(l), in = (size_t)ht_layer_inputs(l);
        float *values = ht_alloc_array(arena, w->count, sizeof *values);
        if (!l->part[0].smooth)
            continue;
        ht_layer_values(l, 0, w->count, values);
        for (size_t k = 0; k < w->count; k++) {
            size_t channel = k / taps % in;
            const ht_layer_part *part = &l->part[l->parts == 2 && (int64_t)channel >= l->part[1].begin];
            values[k] *= part->smooth[channel - (size_t)part->begin];
        }
        if (!(relative_error(values, w->data, w->count) < 0.03))
            fail_msg("%s: %g", l->name, relative_error(values, w->data, w->count));
        found++;
    }
    assert_true(found > 10);
    ht_model_close(q);
    ht_model_close(m);
}

static void what_reads_one_value_is_smoothed_alike(void **state)
{
    (void)state;
    ht_model *m = open_calibrated(&tiny), *q = opened(smoothed(m, "smooth", 0.5, false));
    const ht_layer *l[3];
    static const char *const names[] = {"to_q", "to_k", "to_v"};
    for (int i = 0; i < 3; i++)
        l[i] = layer_of(q, ht_sprintf(arena, "mid_block.attentions.0.%s", names[i]));
    for (int i = 1; i < 3; i++) {
        size_t bytes = (size_t)l[0]->part[0].count * sizeof(float);
        assert_memory_equal(l[0]->part[0].smooth, l[i]->part[0].smooth, bytes);
        assert_true(l[0]->part[0].input.step[0] == l[i]->part[0].input.step[0]);
    }
    assert_null(layer_of(q, "time_embedding.linear_2")->part[0].smooth); /* the timestep's are few values */
    ht_model_close(q);
    ht_model_close(m);
}

static void smoothing_that_cannot_be_is_refused(void **state)
{
    static const struct {
        ht_quantize_options options;
        const char *words;
    } cases[] = {{{.smooth = -0.1}, "-0.1"},
                 {{.smooth = 1.5}, "1.5"},
                 {{.smooth = NAN}, "nan"},
                 {{.smooth = 0.5, .observer = "mse"}, "\"minmax\" alone"},
                 {{.smooth = 0.5, .blocks = 5}, "blocks"}};
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        assert_refused(ht_quantize_check(&cases[i].options), HT_ERR_ARGUMENT, cases[i].words);
    assert_ok(ht_quantize_check(&(ht_quantize_options){.smooth = 0.5, .observer = "mse", .dynamic = 1}));
}

/* ---- the branch of low rank ---- */

static const char *branched(ht_model *m, const char *name, int rank, double alpha)
{
    ht_quantize_options o = with_calibration();
    o.layers = "all";
    o.weights = "int4";
    o.low_rank = rank;
    o.smooth = alpha;
    return quantize(m, name, &o);
}

static void a_branch_takes_error_away(void **state)
{
    double error[2][MOST_LAYERS], sum[2] = {0};
    (void)state;
    ht_model *m = open_calibrated(&wide);
    const char *plain = branched(m, "plain", 0, 0), *better = branched(m, "better", 4, 0);
    int n = errors_of(plain, error[0]);
    assert_int_equal(errors_of(better, error[1]), n);
    for (int i = 0; i < n; i++) {
        sum[0] += error[0][i];
        sum[1] += error[1][i];
    }
    if (!(sum[1] < 0.9 * sum[0] && distance_of(m, better) < 0.3))
        fail_msg("errors %g, with a branch %g; images %g away", sum[0], sum[1], distance_of(m, better));
    ht_model_close(m);
}

/* values (out,in,taps) += up down */
static void add_branch(const ht_layer *l, float *values)
{
    size_t in = (size_t)(ht_layer_inputs(l) * ht_layer_taps(l)), rank = (size_t)l->rank;
    for (size_t i = 0; i < (size_t)l->shape[0] * in; i++)
        for (size_t r = 0; r < rank; r++)
            values[i] += ht_f32_from_f16(l->up[i / in * rank + r]) * ht_f32_from_f16(l->down[r * in + i % in]);
}

static void codes_and_branch_are_the_smoothed_weight(void **state)
{
    (void)state;
    int branches = 0, splits = 0;
    ht_model *m = open_calibrated(&wide), *q = opened(branched(m, "branch", 4, 0.5));
    for (int i = 0; i < q->layers.n; i++) {
        const ht_layer *l = &q->layers.layer[i];
        const ht_tensor *w = weight_of(m, l->name);
        size_t taps = (size_t)ht_layer_taps(l), in = (size_t)ht_layer_inputs(l);
        float *values = ht_alloc_array(arena, w->count, sizeof *values);
        ht_layer_values(l, 0, w->count, values);
        add_branch(l, values);
        for (size_t k = 0; k < w->count; k++) {
            size_t channel = k / taps % in;
            const ht_layer_part *part = &l->part[l->parts == 2 && (int64_t)channel >= l->part[1].begin];
            values[k] *= part->smooth ? part->smooth[channel - (size_t)part->begin] : 1;
        }
        if (!(relative_error(values, w->data, w->count) < 0.25))
            fail_msg("%s: %g", l->name, relative_error(values, w->data, w->count));
        branches += l->rank == 4;
        splits += l->rank && l->parts == 2;
    }
    assert_true(branches > 10 && splits > 0);
    assert_int_equal(layer_of(q, "time_embedding.linear_2")->rank, 0); /* computed once a schedule */
    ht_model_close(q);
    ht_model_close(m);
}

static void smoothed_and_branched_models_draw_the_same_on_every_instruction_set(void **state)
{
    static const char *const isas[] = {"scalar", "avx2", "avx512", "avx512vnni"};
    float want[SMALL_PIXELS], got[SMALL_PIXELS];
    (void)state;
    ht_model *m = open_calibrated(&wide), *q = opened(branched(m, "branch", 4, 0.5));
    for (int i = 0; i < 4; i++) {
        ht_session *s;
        if (ht_session_open(q, &(ht_session_options){.threads = 1 + i % 2, .batch = 1 + i, .isa = isas[i]}, &s))
            continue; /* this machine has it not */
        assert_ok(ht_sample(s, &(ht_sample_options){.steps = 4, .seed = 9}, 0, 1, i ? got : want));
        if (i)
            assert_memory_equal(got, want, sizeof want);
        ht_session_close(s);
    }
    ht_model_close(q);
    ht_model_close(m);
}

static void branches_that_cannot_be_are_refused(void **state)
{
    static const struct {
        ht_quantize_options options;
        const char *words;
    } cases[] = {{{.low_rank = -1}, "rank -1"},
                 {{.low_rank = 257}, "rank 257"},
                 {{.low_rank = 4, .blocks = 1}, "reconstruction of blocks"},
                 {{.low_rank = 4, .couple = 1}, "coupled rounding"}};
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        assert_refused(ht_quantize_check(&cases[i].options), HT_ERR_ARGUMENT, cases[i].words);
}

static void other_batches_and_threads_give_the_same_bytes(void **state)
{
    (void)state;
    ht_model *m = open_calibrated(&tiny);
    ht_quantize_options o = with_calibration();
    o.smooth = 0.3;
    o.low_rank = 2;
    o.scale_powers = "tensor";
    o.layers = "all";
    const char *one = quantize(m, "one", &o);
    o.threads = 2;
    o.batch = 3;
    assert_true(same_model(one, quantize(m, "two", &o)));
    ht_model_close(m);
}

#define CASE(test) cmocka_unit_test_setup_teardown(test, open_all, close_all)

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(a_layer_takes_the_listed_format_that_errs_least),
        CASE(formats_of_other_sizes_are_not_chosen_from),
        CASE(scales_of_a_saved_model_are_powers_of_two_if_told),
        CASE(smoothing_makes_outliers_of_inputs_harmless),
        CASE(weights_times_their_factors_are_those_of_the_model),
        CASE(what_reads_one_value_is_smoothed_alike),
        CASE(smoothing_that_cannot_be_is_refused),
        CASE(a_branch_takes_error_away),
        CASE(codes_and_branch_are_the_smoothed_weight),
        CASE(smoothed_and_branched_models_draw_the_same_on_every_instruction_set),
        CASE(branches_that_cannot_be_are_refused),
        CASE(other_batches_and_threads_give_the_same_bytes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
