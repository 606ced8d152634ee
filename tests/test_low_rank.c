/* test_low_rank.c - the branch of low rank: that it is the nearest product of its rank, of halves, and finite. */
#include "quant/low_rank.h"
#include "tests/rounding.h"

enum { SIDE = 32, WIDE = 64 };

/* Entry i of row k of the Hadamard matrix (Sylvester 1867): rows are orthogonal. */
static double hadamard(size_t k, size_t i)
{
    return __builtin_parityll(k & i) ? -1 : 1;
}

/* [SIDE][WIDE] whose singular values are given. */
static void weight_of_values(const double *value, float *w)
{
    for (size_t n = 0; n < SIDE; n++)
        for (size_t k = 0; k < WIDE; k++) {
            double sum = 0;
            for (size_t r = 0; r < SIDE; r++)
                sum += value[r] * hadamard(r, n) / sqrt(SIDE) * hadamard(r, k) / sqrt(WIDE);
            w[n * WIDE + k] = (float)sum;
        }
}

static double energy_of(const float *x, size_t n)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += (double)x[i] * x[i];
    return sum;
}

static void what_is_left_has_the_smallest_singular_values(void **state)
{
    float w[SIDE * WIDE], left[SIDE * WIDE], up[SIDE * 16], down[16 * WIDE];
    double value[SIDE];
    (void)state;
    for (int r = 0; r < SIDE; r++)
        value[r] = 3.0 / (1 + r);
    weight_of_values(value, w);
    for (int rank = 1; rank <= 16; rank *= 2) {
        double tail = 0;
        for (int r = rank; r < SIDE; r++)
            tail += value[r] * value[r];
        memcpy(left, w, sizeof left);
        assert_ok(ht_low_rank(&(ht_matrix){"w", w, SIDE, WIDE}, rank, up, down));
        ht_low_rank_subtract(SIDE, WIDE, rank, up, down, left);
        double found = energy_of(left, SIDE * WIDE);
        if (!(fabs(found - tail) < 2e-3 * tail))
            fail_msg("rank %d: %g is left, the least is %g", rank, found, tail);
    }
}

static void a_weight_of_that_rank_is_taken_whole(void **state)
{
    float w[SIDE * WIDE], up[SIDE * 4], down[4 * WIDE];
    double value[SIDE] = {5, 2, 1e-3, 4};
    (void)state;
    weight_of_values(value, w);
    double before = energy_of(w, SIDE * WIDE);
    assert_ok(ht_low_rank(&(ht_matrix){"w", w, SIDE, WIDE}, 4, up, down));
    ht_low_rank_subtract(SIDE, WIDE, 4, up, down, w);
    assert_true(energy_of(w, SIDE * WIDE) < 1e-6 * before); /* of float16's 2^-11, squared */
}

static void factors_are_numbers_of_float16_whatever_the_weights_size(void **state)
{
    static const float sizes[] = {0, 1e-20f, 1e-3f, 1, 3e4f};
    float w[SIDE * WIDE], up[SIDE * 8], down[8 * WIDE];
    (void)state;
    for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++) {
        uint32_t seed = 9;
        for (size_t i = 0; i < SIDE * WIDE; i++)
            w[i] = sizes[s] * (float)bell(&seed);
        assert_ok(ht_low_rank(&(ht_matrix){"w", w, SIDE, WIDE}, 8, up, down));
        for (size_t i = 0; i < SIDE * 8; i++)
            assert_true(isfinite(up[i]) && up[i] == ht_f32_from_f16(ht_f16_from_f32(up[i])));
        for (size_t i = 0; i < 8 * WIDE; i++)
            assert_true(isfinite(down[i]) && down[i] == ht_f32_from_f16(ht_f16_from_f32(down[i])));
    }
}

static void ranks_that_save_nothing_are_refused(void **state)
{
    float w[4 * 8] = {1}, up[64], down[64];
    (void)state;
    for (int i = 0; i < 3; i++) {
        assert_int_equal(ht_low_rank(&(ht_matrix){"mid", w, 4, 8}, (int[]){0, 4, -1}[i], up, down), HT_ERR_ARGUMENT);
        assert_non_null(strstr(ht_error_message(), "mid: a branch of rank"));
    }
    assert_ok(ht_low_rank(&(ht_matrix){"mid", w, 4, 8}, 3, up, down));
}

static void the_signal_is_that_of_the_outputs(void **state)
{
    layer l = layer_of(OUT, IN, SAMPLES, 3, 41);
    double w[OUT * IN], sum = 0, plain = 0;
    (void)state;
    for (size_t i = 0; i < OUT * IN; i++) {
        w[i] = l.w[i];
        plain += w[i] * w[i];
    }
    for (size_t row = 0; row < OUT; row++)
        sum += energy(&l, w, row);
    assert_true(fabs(ht_output_signal(&l.matrix, l.h, IN) / sum - 1) < 1e-9);
    assert_true(fabs(ht_output_signal(&l.matrix, NULL, 0) / plain - 1) < 1e-9);
    free_layer(&l);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_left_has_the_smallest_singular_values),
        cmocka_unit_test(a_weight_of_that_rank_is_taken_whole),
        cmocka_unit_test(factors_are_numbers_of_float16_whatever_the_weights_size),
        cmocka_unit_test(ranks_that_save_nothing_are_refused),
        cmocka_unit_test(the_signal_is_that_of_the_outputs),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
