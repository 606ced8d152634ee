/* test_calibration_file.c - a calibration's file is read as it was written, and every kind of damage to it is refused.
 */
#include <math.h>

#include "tests/calibrated.h"

static int sum_of(const int *counts, int n)
{
    int sum = 0;
    for (int i = 0; i < n; i++) {
        assert_true(counts[i] >= 0);
        sum += counts[i];
    }
    return sum;
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
        set(c, "timestep", 3, 50.5f);
        break;
    case 35:
        set(c, "timestep", 11, 99); /* rises */
        break;
    case 36:
        set(c, "timestep", 0, 100); /* the model was trained with 0 .. 99 */
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

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(a_calibration_is_read_as_it_was_made),
        CASE(a_timestep_that_is_visited_twice_is_one_group),
        CASE(any_number_of_timesteps_is_read_as_it_was_written),
        CASE(a_calibration_of_another_model_is_refused),
        CASE(every_damage_to_a_calibration_is_refused),
        CASE(a_truncated_calibration_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
