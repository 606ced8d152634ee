/* test_calibration.c - making a calibration: the same settings give the same file, every input is seen, what cannot be
 * made leaves nothing. */
#include <math.h>

#include "calib/moments.h"
#include "tests/calibrated.h"

static void the_same_settings_give_the_same_bytes(void **state)
{
    (void)state;
    ht_model *m = open_small("model", &plain);
    ht_calibrate_options o = options;
    const char *first = calibrate(m, "a", o);
    assert_true(same_file(first, calibrate(m, "b", o)));
    for (int batch = 1; batch <= 5; batch += 2) {
        o.batch = batch;
        o.threads = 1 + batch / 2;
        assert_true(same_file(first, calibrate(m, "c", o)));
    }
    o.distribution = "uniform";
    assert_true(same_file(first, calibrate(m, "d", o)));
    o.seed = 1;
    assert_false(same_file(first, calibrate(m, "e", o)));
    o.seed = 0;
    o.distribution = "quad";
    assert_false(same_file(first, calibrate(m, "f", o)));
    ht_model_close(m);
}

static void every_input_is_seen_whole_at_every_timestep(void **state)
{
    (void)state;
    ht_calibration c;
    ht_model *m = open_small("model", &plain);
    assert_ok(ht_calibration_make(arena, m, &options, &c));
    for (int g = 1; g < c.groups; g++)
        assert_true(c.timesteps[g] < c.timesteps[g - 1]);
    const ht_observed *in = ht_calibration_find(&c, "conv_in", 0),
                      *skip = ht_calibration_find(&c, "up_blocks.1.resnets.0.conv_shortcut", 1);
    assert_non_null(in);
    assert_non_null(skip);
    assert_null(ht_calibration_find(&c, "conv_in", 1));
    for (int g = 0; g < c.groups; g++) {
        uint64_t sums[2] = {0};
        float low = 0, high = 0;
        for (int i = 0; i < HT_BINS; i++) {
            sums[0] += in->by_step[g].bin[i];
            sums[1] += skip->by_step[g].bin[i];
        }
        assert_int_equal(sums[0], c.counts[g] * SMALL_PIXELS);
        assert_int_equal(sums[1], c.counts[g] * SMALL_SIDE * SMALL_SIDE * 8);
        for (int64_t i = 0; i < (int64_t)c.counts[g] * SMALL_PIXELS; i++) { /* counts are the same of every group */
            low = fminf(low, c.sample[(int64_t)g * c.counts[g] * SMALL_PIXELS + i]);
            high = fmaxf(high, c.sample[(int64_t)g * c.counts[g] * SMALL_PIXELS + i]);
        }
        assert_true(in->by_step[g].low == low && in->by_step[g].high == high);
    }
    ht_model_close(m);
}

static void labels_go_round_the_classes(void **state)
{
    (void)state;
    ht_calibration c;
    ht_model *m = open_small("model", &classes);
    assert_ok(ht_calibration_make(arena, m, &options, &c));
    assert_non_null(c.class_labels);
    for (int64_t i = 0; i < c.samples; i++)
        assert_true(c.class_labels[i] == (float)(i % 4 % 3)); /* four samples each of three classes */
    ht_model_close(m);
}

static const ht_value *input_of(const ht_session *s, const char *layer)
{
    const ht_graph *g = ht_session_graph(s);
    size_t n = strlen(layer);
    for (int i = 0; i < ht_graph_ops(g); i++) {
        const ht_op *op = ht_graph_op(g, i);
        if (ht_op_is_product(op) && !strncmp(op->in[HT_IN_WEIGHT]->name, layer, n))
            return op->in[HT_IN_X];
    }
    fail_msg("no layer %s", layer);
    return NULL;
}

/* What goes into a layer at a sample, in a session that has never seen another; the number of values. */
static int64_t input_of_sample(ht_model *m, const ht_calibration *c, int group, int64_t i, const char *layer,
                               float values[64])
{
    ht_session *s;
    float out[SMALL_PIXELS];
    assert_ok(ht_session_open_with(m, &(ht_session_options){.threads = 1},
                                   &(ht_session_extras){.observe = {.inputs = true}}, &s));
    assert_ok(ht_session_set_timesteps(s, 1, &c->timesteps[group]));
    assert_ok(ht_session_set_cond(s, 1, &(ht_cond){.class_labels = c->class_labels + i}));
    assert_ok(ht_session_step(s, 0, c->sample + i * SMALL_PIXELS, out));
    const ht_value *v = input_of(s, layer);
    int64_t n = ht_session_value_count(s, v);
    assert_in_range(n, 1, 64);
    assert_ok(ht_session_read(s, v, values));
    ht_session_close(s);
    return n;
}

/* A layer that reads what depends on time and class. */
static const char conditioned[] = "mid_block.resnets.0.time_emb_proj";

static void inputs_are_those_of_each_samples_own_class(void **state)
{
    (void)state;
    ht_calibration c;
    ht_model *m = open_small("model", &classes);
    assert_ok(ht_calibration_make(arena, m, &options, &c));
    const ht_observed *seen = ht_calibration_find(&c, conditioned, 0);
    assert_non_null(seen);
    int64_t first = 0;
    for (int g = 0; g < c.groups; first += c.counts[g++]) {
        float low = 0, high = 0, values[64];
        for (int64_t i = first; i < first + c.counts[g]; i++) {
            int64_t n = input_of_sample(m, &c, g, i, conditioned, values);
            for (int64_t k = 0; k < n; k++) {
                low = fminf(low, values[k]);
                high = fmaxf(high, values[k]);
            }
        }
        if (!(seen->by_step[g].low == low && seen->by_step[g].high == high))
            fail_msg("timestep %g: %g .. %g was seen, %g .. %g is there", (double)c.timesteps[g],
                     (double)seen->by_step[g].low, (double)seen->by_step[g].high, (double)low, (double)high);
    }
    ht_model_close(m);
}

static void list_products(ht_model *m, ht_products *products)
{
    ht_session *s;
    assert_ok(ht_session_open(m, &(ht_session_options){.threads = 1}, &s));
    assert_ok(ht_products_list(arena, ht_session_graph(s), products));
    ht_session_close(s);
}

static void moments_are_those_of_each_samples_own_class(void **state)
{
    (void)state;
    ht_calibration c;
    ht_products products;
    ht_model *m = open_small("model", &classes);
    assert_ok(ht_calibration_make(arena, m, &options, &c));
    list_products(m, &products);
    ht_input_moments *moments = ht_alloc_array(arena, (size_t)products.n, sizeof *moments);
    double *weights = ht_alloc_array(arena, (size_t)c.groups, sizeof *weights), want[64 * 64] = {0}, off = 0, size = 0;
    for (int g = 0; g < c.groups; g++)
        weights[g] = 1 + g;
    ht_input_moments_options how = {.batch = 3, .threads = 1, .windows = 64, .weights = weights};
    int *list = ht_alloc_array(arena, (size_t)products.n, sizeof *list);
    for (int i = 0; i < products.n; i++)
        list[i] = i;
    assert_ok(ht_input_moments_gather(arena, m, &c, &products, list, products.n, &how, moments));
    int at = 0;
    while (strcmp(products.product[at].name, conditioned) != 0)
        assert_true(++at < products.n);
    int64_t first = 0, k = moments[at].k;
    assert_in_range(k, 1, 64);
    for (int g = 0; g < c.groups; first += c.counts[g++])
        for (int64_t i = first; i < first + c.counts[g]; i++) {
            float a[64];
            assert_int_equal(input_of_sample(m, &c, g, i, conditioned, a), k);
            for (int64_t e = 0; e < k * k; e++)
                want[e] += weights[g] * (double)a[e / k] * (double)a[e % k];
        }
    for (int64_t e = 0; e < k * k; e++) { /* up to a factor: what the methods take */
        size += want[e] * want[e];
        off += want[e] * (double)moments[at].h[e];
    }
    double factor = off / size, rest = 0;
    for (int64_t e = 0; e < k * k; e++)
        rest += pow((double)moments[at].h[e] - factor * want[e], 2);
    if (!(factor > 0 && sqrt(rest) <= 1e-5 * factor * sqrt(size)))
        fail_msg("moments are off by %g of their size", sqrt(rest / size) / factor);
    ht_model_close(m);
}

static void a_calibration_set_can_be_predicted(void **state)
{
    (void)state;
    const small_model *models[] = {&plain, &classes};
    for (int i = 0; i < 2; i++) {
        ht_safetensors *file;
        ht_model *m = open_small(i ? "classes" : "plain", models[i]);
        const char *path = calibrate(m, "calib", options);
        assert_ok(ht_predict_file(m, &(ht_session_options){.batch = 3}, path, in_root("out"), NULL, NULL));
        assert_ok(ht_safetensors_open(in_root("out"), &file));
        assert_memory_equal(tensor_of(file, "sample")->shape, ((int64_t[]){12, 3, SMALL_SIDE, SMALL_SIDE}),
                            4 * sizeof(int64_t));
        ht_safetensors_close(file);
        ht_model_close(m);
    }
}

/* Sensitivity and rounding weigh by these: positive, with mean 1, whatever the schedule ends in. */
static void weights_of_timesteps_are_positive_with_mean_1(void **state)
{
    (void)state;
    static const char *const schedulers[] = {
        NULL, "\"timestep_spacing\":\"trailing\",\"rescale_betas_zero_snr\":true,\"prediction_type\":\"v_prediction\"",
        "\"beta_schedule\":\"squaredcos_cap_v2\",\"timestep_spacing\":\"linspace\""};
    for (int i = 0; i < 3; i++) {
        small_model with = plain;
        ht_calibration c;
        double weights[64], sum = 0;
        with.scheduler = schedulers[i];
        ht_calibrate_options o = options;
        o.distribution = "all";
        ht_model *m = open_small(i == 0 ? "a" : i == 1 ? "b" : "c", &with);
        assert_ok(ht_calibration_make(arena, m, &o, &c));
        assert_ok(ht_calibration_weights(&c, m, weights));
        for (int g = 0; g < c.groups; g++) {
            if (!(weights[g] >= 0 && isfinite(weights[g])))
                fail_msg("scheduler %d: weight of timestep %g is %g", i, (double)c.timesteps[g], weights[g]);
            sum += weights[g];
        }
        assert_true(fabs(sum - c.groups) < 1e-9 * c.groups);
        ht_model_close(m);
    }
}

static int stop_after(void *user, int64_t done, int64_t total)
{
    assert_true(done <= total);
    return done >= *(int *)user;
}

static void a_calibration_that_is_cancelled_writes_nothing(void **state)
{
    (void)state;
    ht_model *m = open_small("model", &plain);
    for (int at = 1; at <= 36; at += 35) {
        ht_calibrate_options o = options;
        o.progress = stop_after;
        o.user = &at;
        assert_refused(ht_calibrate(m, &o, in_root("calib")), HT_ERR_CANCELLED, "cancelled");
        assert_int_equal(entries_of(root), 1);
    }
    ht_model_close(m);
}

static void options_out_of_range_are_refused(void **state)
{
    (void)state;
    ht_model *m = open_small("model", &plain);
    const struct {
        ht_calibrate_options options;
        const char *words;
    } cases[] = {{{.distribution = "gauss"}, "gauss"},
                 {{.timesteps = -1}, "-1 timesteps"},
                 {{.per_step = -2}, "-2 samples"},
                 {{.timesteps = 1000, .per_step = 65536}, "at most"},
                 {{.steps = -1}, "-1"},
                 {{.steps = 100000}, "100000"},
                 {{.batch = -1}, "batch -1"},
                 {{.threads = -1}, "threads -1"},
                 {{.spacing = "narrow"}, "narrow"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        assert_refused(ht_calibrate(m, &cases[i].options, in_root("calib")), HT_ERR_ARGUMENT, cases[i].words);
    assert_int_equal(entries_of(root), 1);
    ht_model_close(m);
}

static void put_nan(ht_tensor *tensors, int n)
{
    for (int i = 0; i < n; i++)
        if (!strcmp(tensors[i].name, "mid_block.resnets.0.conv1.weight"))
            ((float *)(uintptr_t)tensors[i].data)[5] = NAN;
}

static void a_model_with_nan_is_not_calibrated(void **state)
{
    (void)state;
    small_model broken = plain;
    broken.change = put_nan;
    ht_model *m = open_small("model", &broken);
    assert_refused(ht_calibrate(m, &options, in_root("calib")), HT_ERR_FORMAT, "not finite");
    assert_int_equal(entries_of(root), 1);
    ht_model_close(m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(the_same_settings_give_the_same_bytes),
        CASE(every_input_is_seen_whole_at_every_timestep),
        CASE(labels_go_round_the_classes),
        CASE(inputs_are_those_of_each_samples_own_class),
        CASE(moments_are_those_of_each_samples_own_class),
        CASE(a_calibration_set_can_be_predicted),
        CASE(weights_of_timesteps_are_positive_with_mean_1),
        CASE(a_calibration_that_is_cancelled_writes_nothing),
        CASE(options_out_of_range_are_refused),
        CASE(a_model_with_nan_is_not_calibrated),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
