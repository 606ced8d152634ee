/* test_statistics.c - which timesteps give calibration samples, what is counted of their values, and the range that
 * codes cover. */
#include <math.h>

#include "calib/calibration.h"
#include "core/rng.h"
#include "tests/goldens.h"

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
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
