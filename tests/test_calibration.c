/* test_calibration.c - which timesteps give samples, what is counted of them, and the file that keeps it. */
#include <math.h>

#include "calib/calibration.h"
#include "calib/identity.h"
#include "tests/goldens.h"
#include "tests/small_model.h"

static ht_arena *arena;

static int open_all(void **state)
{
    arena = ht_arena_create();
    return arena ? make_root(state) : -1;
}

static int close_all(void **state)
{
    ht_arena_free(arena);
    return remove_root(state);
}

/* ---- distributions ---- */

enum { STEPS = 50 };

static int sum_of(const int *counts, int n)
{
    int sum = 0;
    for (int i = 0; i < n; i++) {
        assert_true(counts[i] >= 0);
        sum += counts[i];
    }
    return sum;
}

static void distributions_have_names(void **state)
{
    (void)state;
    for (int i = 0; i < HT_DISTRIBUTIONS; i++)
        assert_int_equal(ht_distribution_find(ht_distribution_name(i)), i);
    assert_null(ht_distribution_name(HT_DISTRIBUTIONS));
    assert_null(ht_distribution_name(-1));
    assert_int_equal(ht_distribution_find("Uniform"), -1);
}

static void every_distribution_takes_as_many_samples_as_it_is_told(void **state)
{
    (void)state;
    static const int steps[] = {1, 2, 7, 50, 1000}, chosen[] = {1, 2, 5, 20, 2000};
    int counts[1000];
    for (int d = 0; d < HT_DISTRIBUTIONS; d++)
        for (int s = 0; s < 5; s++)
            for (int c = 0; c < 5; c++) {
                int most = chosen[c] < steps[s] ? chosen[c] : steps[s];
                int wanted = d == HT_DISTRIBUTION_ALL ? steps[s] : d == HT_DISTRIBUTION_ONE ? 1 : most;
                ht_distribution_counts((ht_distribution)d, steps[s], chosen[c], 3, 1, counts);
                int got = sum_of(counts, steps[s]);
                if (got != 3 * wanted) /* also of quad, whose steps would fall together where it is dense */
                    fail_msg("%s of %d steps, %d chosen: %d samples, wanted %d", ht_distribution_name(d), steps[s],
                             chosen[c], got, 3 * wanted);
            }
}

static void uniform_covers_the_way_evenly(void **state)
{
    (void)state;
    int counts[STEPS], last = -1;
    ht_distribution_counts(HT_DISTRIBUTION_UNIFORM, STEPS, 10, 4, 0, counts);
    for (int i = 0; i < STEPS; i++)
        if (counts[i]) {
            assert_int_equal(counts[i], 4);
            assert_true(last < 0 ? i < 5 : i - last == 5);
            last = i;
        }
    assert_true(last >= STEPS - 5);
}

static void quad_takes_more_of_the_last_steps(void **state)
{
    (void)state;
    int counts[STEPS];
    ht_distribution_counts(HT_DISTRIBUTION_QUAD, STEPS, 16, 1, 0, counts);
    assert_true(sum_of(counts + STEPS / 2, STEPS / 2) > sum_of(counts, STEPS / 2));
}

static void one_takes_the_middle_and_all_takes_all(void **state)
{
    (void)state;
    int counts[STEPS];
    ht_distribution_counts(HT_DISTRIBUTION_ONE, STEPS, 10, 4, 0, counts);
    assert_int_equal(counts[STEPS / 2], 4);
    ht_distribution_counts(HT_DISTRIBUTION_ALL, STEPS, 10, 4, 0, counts);
    for (int i = 0; i < STEPS; i++)
        assert_int_equal(counts[i], 4);
}

/* 20,000 draws of a normal around 0.4 with deviation 0.5, cut to the way: mean 0.464, deviation 0.266. */
static void normal_is_the_one_of_ptq4dm(void **state)
{
    (void)state;
    int counts[1000], other[1000];
    double mean = 0, square = 0;
    ht_distribution_counts(HT_DISTRIBUTION_NORMAL, 1000, 1000, 20, 5, counts);
    for (int i = 0; i < 1000; i++) {
        double at = (i + 0.5) / 1000;
        mean += counts[i] * at / 20000;
        square += counts[i] * at * at / 20000;
    }
    if (!(fabs(mean - 0.464) < 0.01 && fabs(sqrt(square - mean * mean) - 0.266) < 0.01))
        fail_msg("mean %g, deviation %g", mean, sqrt(square - mean * mean));
    ht_distribution_counts(HT_DISTRIBUTION_NORMAL, 1000, 1000, 20, 5, other);
    assert_memory_equal(counts, other, sizeof counts);
    ht_distribution_counts(HT_DISTRIBUTION_NORMAL, 1000, 1000, 20, 6, other);
    assert_memory_not_equal(counts, other, sizeof counts);
}

/* ---- statistics ---- */

enum { VALUES = 5000 };

/* What SiLU leaves of normal numbers: short below, long above. */
static void draw(uint64_t seed, float *x)
{
    ht_image_randn(seed, 0, 0, VALUES, x);
    for (int i = 0; i < VALUES; i++)
        x[i] = 2 * x[i] / (1 + expf(-2 * x[i]));
}

static void counts_of_two_merged_are_the_counts_of_both(void **state)
{
    (void)state;
    static ht_input_statistics both, first, second;
    float a[VALUES], b[VALUES];
    draw(1, a);
    draw(2, b);
    b[7] = 1e-9f; /* counts as zero */
    b[8] = 1e9f;  /* in the last bin */
    b[9] = -3e38f;
    memset(&both, 0, sizeof both);
    first = second = both;
    assert_true(ht_input_statistics_count(&first, VALUES, a));
    assert_true(ht_input_statistics_count(&second, VALUES, b));
    assert_true(ht_input_statistics_count(&both, VALUES, b));
    assert_true(ht_input_statistics_count(&both, VALUES, a));
    ht_input_statistics_merge(&first, &second);
    assert_memory_equal(&first, &both, sizeof both);
    uint64_t total = 0;
    for (int i = 0; i < HT_BINS; i++)
        total += both.bin[i];
    assert_int_equal(total, 2 * VALUES);
}

static void values_that_are_not_finite_are_not_counted(void **state)
{
    (void)state;
    static ht_input_statistics s, empty;
    const float values[] = {NAN, INFINITY, -INFINITY};
    for (int i = 0; i < 3; i++) {
        float x[] = {1, 2, values[i], 3};
        s = empty;
        assert_false(ht_input_statistics_count(&s, 4, x));
        assert_memory_equal(&s, &empty, sizeof s);
    }
}

static void counts_saturate(void **state)
{
    (void)state;
    static ht_input_statistics a, b;
    a = b = (ht_input_statistics){.high = 1};
    a.bin[HT_BINS / 2] = UINT32_MAX - 1;
    b.bin[HT_BINS / 2] = 5;
    ht_input_statistics_merge(&a, &b);
    assert_true(a.bin[HT_BINS / 2] == UINT32_MAX);
}

static double squared_error(const ht_block *b, const float *x)
{
    double sum = 0;
    for (int i = 0; i < VALUES; i++) {
        double e = (double)x[i] - (double)(ht_grid_round(&b->grid, x[i] / b->scale) * b->scale);
        sum += e * e;
    }
    return sum;
}

static ht_block range_of(const float *x, const char *format, ht_scale_method method, double percentile)
{
    static ht_input_statistics s;
    ht_format f;
    s = (ht_input_statistics){0};
    assert_ok(ht_format_find(format, &f));
    assert_true(ht_input_statistics_count(&s, VALUES, x));
    return ht_input_statistics_range(&s, &f, method, percentile);
}

static void minmax_is_exact(void **state)
{
    (void)state;
    float x[VALUES], low = 0, high = 0;
    ht_format f;
    draw(3, x);
    for (int i = 0; i < VALUES; i++) {
        low = fminf(low, x[i]);
        high = fmaxf(high, x[i]);
    }
    assert_ok(ht_format_find("uint8", &f));
    ht_block got = range_of(x, "uint8", HT_SCALE_MINMAX, 0), want = ht_format_block_of_range(&f, low, high);
    assert_true(got.scale == want.scale && got.grid.zero == want.grid.zero);
}

static void a_percentile_cuts_what_lies_outside(void **state)
{
    (void)state;
    float x[VALUES];
    ht_image_randn(4, 0, 0, VALUES, x);
    x[0] = 1000;
    ht_block all = range_of(x, "uint8", HT_SCALE_PERCENTILE, 100), cut = range_of(x, "uint8", HT_SCALE_PERCENTILE, 99),
             more = range_of(x, "uint8", HT_SCALE_PERCENTILE, 90);
    float span[] = {all.scale * 255, cut.scale * 255, more.scale * 255};
    /* |x| of a normal: 99 % below 2.576, 90 % below 1.645; bins are 1/16 of an octave */
    if (!(span[0] > 900 && fabsf(span[1] - 2 * 2.576f) < 0.6f && fabsf(span[2] - 2 * 1.645f) < 0.4f))
        fail_msg("spans %g, %g, %g", (double)span[0], (double)span[1], (double)span[2]);
}

/* The histogram's error is an estimate: by 10 % it may be wrong where the two ranges are nearly as good. */
static void mse_is_no_worse_than_minmax(void **state)
{
    (void)state;
    static const char *const formats[] = {"uint8", "uint6", "uint4", "uint3", "fp8_e4m3", "fp4_e2m1"};
    float x[VALUES];
    for (uint64_t seed = 0; seed < 6; seed++)
        for (size_t f = 0; f < sizeof formats / sizeof *formats; f++) {
            if (seed < 3)
                draw(seed, x);
            else
                ht_image_randn(seed, 0, 0, VALUES, x);
            if (seed % 3 == 2)
                x[3] = 40;
            ht_block minmax = range_of(x, formats[f], HT_SCALE_MINMAX, 0),
                     mse = range_of(x, formats[f], HT_SCALE_MSE, 0), l24 = range_of(x, formats[f], HT_SCALE_L2_4, 0);
            double worst = squared_error(&minmax, x);
            if (!(squared_error(&mse, x) <= 1.1 * worst && squared_error(&l24, x) <= 1.25 * worst))
                fail_msg("%s, seed %d: minmax %g, mse %g, l2.4 %g", formats[f], (int)seed, worst,
                         squared_error(&mse, x), squared_error(&l24, x));
        }
}

static void an_input_of_zeros_has_a_range(void **state)
{
    (void)state;
    static const float x[VALUES];
    for (int m = 0; m < HT_SCALE_METHODS; m++) {
        ht_block b = range_of(x, "uint8", (ht_scale_method)m, 0);
        assert_true(b.scale > 0 && isfinite(b.scale));
    }
}

/* ---- files ---- */

static const small_model plain = {.a = 8, .b = 16, .seed = 3}, classes = {.a = 8, .b = 16, .seed = 3, .classes = 3};
static const ht_calibrate_options options = {.steps = 6, .timesteps = 3, .per_step = 4, .threads = 1};

static ht_model *open_small(const char *name, const small_model *m)
{
    ht_model *model;
    const char *path = in_root(name);
    write_small_model(path, m);
    assert_ok(ht_model_open(path, NULL, &model));
    return model;
}

static const char *calibrate(ht_model *m, const char *name, ht_calibrate_options o)
{
    const char *path = ht_strdup(arena, in_root(name));
    assert_ok(ht_calibrate(m, &o, path));
    return path;
}

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

static void a_calibration_is_read_as_it_was_made(void **state)
{
    (void)state;
    static const char *const distributions[] = {"uniform", "quad", "normal", "all", "one"};
    ht_model *m = open_small("model", &classes);
    for (int d = 0; d < 5; d++) {
        ht_calibrate_options o = options;
        ht_calibration made, read;
        o.distribution = distributions[d];
        assert_ok(ht_calibration_make(arena, m, &o, &made));
        assert_ok(ht_calibration_write(&made, in_root("calib")));
        assert_ok(ht_calibration_read(arena, m, in_root("calib"), &read));
        assert_string_equal(read.model, made.model);
        assert_string_equal(read.settings, made.settings);
        assert_int_equal(read.groups, made.groups);
        assert_int_equal(read.samples, made.samples);
        assert_int_equal(read.samples, sum_of(made.counts, made.groups));
        assert_memory_equal(read.counts, made.counts, (size_t)made.groups * sizeof *made.counts);
        assert_memory_equal(read.timesteps, made.timesteps, (size_t)made.groups * sizeof *made.timesteps);
        assert_memory_equal(read.sample, made.sample, (size_t)made.samples * SMALL_PIXELS * sizeof(float));
        assert_memory_equal(read.class_labels, made.class_labels, (size_t)made.samples * sizeof(float));
        assert_int_equal(read.n_inputs, made.n_inputs);
        for (int i = 0; i < made.n_inputs; i++) {
            const ht_observed *a = &made.inputs[i], *b = ht_calibration_find(&read, a->name, a->slot);
            assert_non_null(b);
            assert_memory_equal(b->by_step, a->by_step, (size_t)made.groups * sizeof *a->by_step);
        }
    }
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

/* DDIM's quad spacing visits some timesteps twice. */
static void a_timestep_that_is_visited_twice_is_one_group(void **state)
{
    (void)state;
    ht_calibration made, read;
    ht_model *m = open_small("model", &classes);
    ht_calibrate_options o = {.steps = 40, .spacing = "quad", .distribution = "all", .per_step = 2, .threads = 1};
    assert_ok(ht_calibration_make(arena, m, &o, &made));
    assert_ok(ht_calibration_write(&made, in_root("calib")));
    assert_ok(ht_calibration_read(arena, m, in_root("calib"), &read));
    assert_true(made.groups < 40);
    assert_int_equal(made.samples, 80);
    for (int g = 1; g < made.groups; g++)
        assert_true(made.timesteps[g] < made.timesteps[g - 1]);
    for (int64_t i = 0; i < made.samples; i++)
        assert_true(made.class_labels[i] == (float)(i % 2));
    assert_int_equal(read.groups, made.groups);
    assert_memory_equal(read.counts, made.counts, (size_t)made.groups * sizeof *made.counts);
    assert_memory_equal(read.class_labels, made.class_labels, (size_t)made.samples * sizeof(float));
    ht_model_close(m);
}

static void any_number_of_timesteps_is_read_as_it_was_written(void **state)
{
    (void)state;
    enum { GROUPS = 5000 };
    static float timesteps[GROUPS], values[GROUPS];
    static int counts[GROUPS];
    static ht_input_statistics by_step[GROUPS];
    const float x = 0.5f;
    ht_calibration read;
    for (int g = 0; g < GROUPS; g++) {
        timesteps[g] = (float)(GROUPS - g);
        values[g] = (float)g;
        counts[g] = 1;
        assert_true(ht_input_statistics_count(&by_step[g], 1, &x));
    }
    ht_observed in = {"conv", 0, by_step};
    ht_calibration c = {.model = "00",
                        .settings = "{\"steps\":5000,\"spacing\":\"leading\",\"distribution\":\"all\","
                                    "\"timesteps\":20,\"per_step\":1,\"seed\":0}",
                        .height = 1,
                        .width = 1,
                        .channels = 1,
                        .groups = GROUPS,
                        .timesteps = timesteps,
                        .counts = counts,
                        .samples = GROUPS,
                        .sample = values,
                        .inputs = &in,
                        .n_inputs = 1};
    assert_ok(ht_calibration_write(&c, in_root("calib")));
    assert_ok(ht_calibration_read(arena, NULL, in_root("calib"), &read));
    assert_int_equal(read.groups, GROUPS);
    assert_memory_equal(read.timesteps, timesteps, sizeof timesteps);
    assert_memory_equal(read.sample, values, sizeof values);
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

static void a_calibration_of_another_model_is_refused(void **state)
{
    (void)state;
    small_model other = plain;
    other.seed = 4;
    ht_model *m = open_small("model", &plain), *n = open_small("other", &other);
    ht_calibration c;
    const char *path = calibrate(m, "calib", options);
    assert_refused(ht_calibration_read(arena, n, path, &c), HT_ERR_ARGUMENT,
                   "calib: is a calibration of other weights");
    assert_refused(ht_calibration_read(arena, n, in_root("none"), &c), HT_ERR_IO, "none");
    char *weights = ht_sprintf(arena, "%s/" SMALL_WEIGHTS, in_root("model"));
    assert_refused(ht_calibration_read(arena, m, weights, &c), HT_ERR_FORMAT, "is no calibration");
    ht_model_close(n);
    ht_model_close(m);
}

/* ---- damage ---- */

typedef struct contents {
    ht_tensor tensors[512];
    size_t n;
    ht_metadata metadata[3];
} contents;

static ht_tensor *find(contents *c, const char *name)
{
    for (size_t i = 0; i < c->n; i++)
        if (!strcmp(c->tensors[i].name, name))
            return &c->tensors[i];
    fail_msg("no tensor %s", name);
    return NULL;
}

static void drop(contents *c, const char *name)
{
    find(c, name)->name = "dropped";
}

static void set(contents *c, const char *name, int at, float value)
{
    ht_tensor *t = find(c, name);
    float *copy = ht_alloc(arena, t->bytes);
    assert_non_null(copy);
    memcpy(copy, t->data, t->bytes);
    copy[at] = value;
    t->data = copy;
}

static void reshape(contents *c, const char *name, int ndim, const int64_t *shape)
{
    ht_tensor *t = find(c, name);
    t->ndim = ndim;
    t->count = 1;
    for (int i = 0; i < ndim; i++)
        t->count *= (size_t)(t->shape[i] = shape[i]);
    assert_true(t->count * 4 <= t->bytes);
    t->bytes = t->count * 4;
}

#define RESHAPE(c, name, ...)                                                                                          \
    reshape(c, name, (int)(sizeof((int64_t[]){__VA_ARGS__}) / sizeof(int64_t)), (const int64_t[]){__VA_ARGS__})

static void set_count(contents *c, const char *name, int at, uint32_t value)
{
    float bits;
    memcpy(&bits, &value, sizeof bits);
    set(c, name, at, bits);
}

static void clear_counts(contents *c, const char *name)
{
    ht_tensor *t = find(c, name);
    t->data = ht_alloc(arena, t->bytes);
    assert_non_null(t->data);
}

#define SETTINGS(steps, spacing, distribution, timesteps, each, seed)                                                  \
    "{\"steps\":" steps ",\"spacing\":" spacing ",\"distribution\":" distribution ",\"timesteps\":" timesteps          \
    ",\"per_step\":" each ",\"seed\":" seed "}"

/* What ht_calibrate cannot have written. */
static const char *const bad_settings[] = {"",
                                           "[]",
                                           "{}",
                                           "{\"steps\":40",
                                           SETTINGS("0", "\"leading\"", "\"quad\"", "3", "4", "0"),
                                           SETTINGS("1e9", "\"leading\"", "\"quad\"", "3", "4", "0"),
                                           SETTINGS("40", "\"narrow\"", "\"quad\"", "3", "4", "0"),
                                           SETTINGS("40", "7", "\"quad\"", "3", "4", "0"),
                                           SETTINGS("40", "\"leading\"", "\"gauss\"", "3", "4", "0"),
                                           SETTINGS("40", "\"leading\"", "\"quad\"", "-3", "4", "0"),
                                           SETTINGS("40", "\"leading\"", "\"quad\"", "3", "\"4\"", "0"),
                                           SETTINGS("40", "\"leading\"", "\"quad\"", "3", "4", "-1"),
                                           SETTINGS("40", "\"leading\"", "\"quad\"", "3", "4", "null")};

enum { FIRST_SETTINGS = 41 };

static void damage(contents *c, int i)
{
    switch (i) {
    case 0:
        drop(c, "sample");
        break;
    case 1:
        drop(c, "timestep");
        break;
    case 2:
        drop(c, "class_labels");
        break;
    case 3:
        set(c, "sample", 17, NAN);
        break;
    case 4:
        set(c, "sample", 0, INFINITY);
        break;
    case 5:
        set(c, "timestep", 3, NAN);
        break;
    case 6:
        set(c, "timestep", 3, 1e30f);
        break;
    case 7:
        RESHAPE(c, "sample", 11, 3, 8, 8);
        break;
    case 8:
        RESHAPE(c, "sample", 12, 3, 64);
        break;
    case 9:
        RESHAPE(c, "sample", 12, 12, 4, 4);
        break;
    case 10:
        RESHAPE(c, "sample", 12, 3, 4, 16);
        break;
    case 11:
        RESHAPE(c, "sample", 12, 3, 4, 4);
        break;
    case 12:
        RESHAPE(c, "timestep", 11);
        break;
    case 13:
        RESHAPE(c, "timestep", 12, 1);
        break;
    case 14:
        RESHAPE(c, "class_labels", 11);
        break;
    case 15:
        find(c, "sample")->dtype = HT_I32;
        break;
    case 16:
        find(c, "timestep")->dtype = HT_I32;
        break;
    case 17:
        find(c, "class_labels")->dtype = HT_I32;
        break;
    case 18:
        drop(c, "conv_in.counts");
        break;
    case 19:
        find(c, "conv_in.counts")->dtype = HT_F32;
        break;
    case 20:
        find(c, "conv_in.range")->dtype = HT_I32;
        break;
    case 21:
        RESHAPE(c, "conv_in.range", 2, 2);
        break;
    case 22:
        RESHAPE(c, "conv_in.counts", 2, HT_BINS);
        break;
    case 23:
        set(c, "conv_in.range", 0, NAN);
        break;
    case 24:
        set(c, "conv_in.range", 0, 1);
        break;
    case 25:
        set(c, "conv_in.range", 1, -1);
        break;
    case 26:
        set(c, "conv_in.range", 1, INFINITY);
        break;
    case 27:
        c->metadata[1].key = "another";
        break;
    case 28:
        c->metadata[2].key = "another";
        break;
    case 29:
        c->metadata[2].value = "00";
        break;
    case 30:
        set(c, "class_labels", 0, 3);
        break;
    case 31:
        set(c, "class_labels", 1, 0.5f);
        break;
    case 32:
        set(c, "class_labels", 2, NAN);
        break;
    case 33:
        set(c, "timestep", 3, -1);
        break;
    case 34:
        set(c, "timestep", 3, 500.5f);
        break;
    case 35:
        set(c, "timestep", 11, 999); /* rises */
        break;
    case 36:
        set(c, "timestep", 0, 1000); /* the model was trained with 0 .. 999 */
        break;
    case 37:
        set_count(c, "conv_in.counts", 0, 5); /* below the least value */
        break;
    case 38:
        set_count(c, "conv_in.counts", 2 * HT_BINS + HT_BINS - 1, 5); /* above the greatest, at the last timestep */
        break;
    case 39:
        set(c, "conv_in.range", 1, 1e6f);
        break;
    case 40:
        clear_counts(c, "conv_in.counts");
        break;
    default:
        c->metadata[1].value = bad_settings[i - FIRST_SETTINGS];
    }
}
enum { DAMAGES = FIRST_SETTINGS + sizeof bad_settings / sizeof *bad_settings };

static void every_damage_to_a_calibration_is_refused(void **state)
{
    (void)state;
    static contents whole, damaged;
    ht_safetensors *file;
    ht_calibration c;
    ht_model *m = open_small("model", &classes);
    assert_ok(ht_safetensors_open(calibrate(m, "whole", options), &file));
    whole.n = ht_safetensors_count(file);
    assert_true(whole.n <= 512);
    for (size_t i = 0; i < whole.n; i++)
        whole.tensors[i] = *ht_safetensors_at(file, i);
    whole.metadata[0] = (ht_metadata){"format", "halftone"};
    whole.metadata[1] = (ht_metadata){"halftone_calibration", ht_safetensors_metadata(file, "halftone_calibration")};
    whole.metadata[2] = (ht_metadata){"model", ht_safetensors_metadata(file, "model")};
    for (int i = -1; i < DAMAGES; i++) {
        damaged = whole;
        if (i >= 0)
            damage(&damaged, i);
        assert_ok(ht_safetensors_write(in_root("calib"), damaged.tensors, damaged.n, damaged.metadata, 3));
        ht_status status = ht_calibration_read(arena, m, in_root("calib"), &c);
        ht_status wanted = i < 0 ? HT_OK : i == 29 ? HT_ERR_ARGUMENT : HT_ERR_FORMAT;
        if (status != wanted || (status && !strstr(ht_error_message(), "calib: ")))
            fail_msg("damage %d: status %d, \"%s\"", i, status, ht_error_message());
    }
    ht_safetensors_close(file);
    ht_model_close(m);
}

static void a_truncated_calibration_is_refused(void **state)
{
    (void)state;
    size_t size;
    ht_calibration c;
    ht_model *m = open_small("model", &plain);
    char *bytes = bytes_of(calibrate(m, "whole", options), &size);
    for (size_t k = 0; k < 8; k++) {
        put_bytes(in_root("calib"), bytes, size * k / 8);
        assert_refused(ht_calibration_read(arena, m, in_root("calib"), &c), HT_ERR_FORMAT, "calib");
    }
    free(bytes);
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

#define CASE(test) cmocka_unit_test_setup_teardown(test, open_all, close_all)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(distributions_have_names),
        cmocka_unit_test(every_distribution_takes_as_many_samples_as_it_is_told),
        cmocka_unit_test(uniform_covers_the_way_evenly),
        cmocka_unit_test(quad_takes_more_of_the_last_steps),
        cmocka_unit_test(one_takes_the_middle_and_all_takes_all),
        cmocka_unit_test(normal_is_the_one_of_ptq4dm),
        cmocka_unit_test(counts_of_two_merged_are_the_counts_of_both),
        cmocka_unit_test(values_that_are_not_finite_are_not_counted),
        cmocka_unit_test(counts_saturate),
        cmocka_unit_test(minmax_is_exact),
        cmocka_unit_test(a_percentile_cuts_what_lies_outside),
        cmocka_unit_test(mse_is_no_worse_than_minmax),
        cmocka_unit_test(an_input_of_zeros_has_a_range),
        CASE(the_same_settings_give_the_same_bytes),
        CASE(a_calibration_is_read_as_it_was_made),
        CASE(a_timestep_that_is_visited_twice_is_one_group),
        CASE(any_number_of_timesteps_is_read_as_it_was_written),
        CASE(every_input_is_seen_whole_at_every_timestep),
        CASE(labels_go_round_the_classes),
        CASE(a_calibration_set_can_be_predicted),
        CASE(weights_of_timesteps_are_positive_with_mean_1),
        CASE(a_calibration_that_is_cancelled_writes_nothing),
        CASE(options_out_of_range_are_refused),
        CASE(a_calibration_of_another_model_is_refused),
        CASE(every_damage_to_a_calibration_is_refused),
        CASE(a_truncated_calibration_is_refused),
        CASE(a_model_with_nan_is_not_calibrated),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
