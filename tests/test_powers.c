/* test_powers.c - scales that are alike but for powers of two: that they are, that FP4 then widens to FP8 exactly, and
 * that rounding leaves them so. */
#include <float.h>

#include "tests/rounding.h"

static const char *const widened[] = {"fp4_e2m1", "fp4_e1m2", "fp4_e3m0", "int4", "int4_g32", "fp4_e2m1_g16"};

enum { WIDENED = sizeof widened / sizeof *widened };

/* Rows of very different sizes, one of zeros, one of a tiny number. */
static layer uneven_layer(uint32_t seed)
{
    layer l = layer_of(OUT, IN, SAMPLES, IN, seed);
    for (size_t i = 0; i < OUT * IN; i++) {
        size_t row = i / IN;
        l.w[i] *= row == 3 ? 0 : row == 4 ? 1e-30f : row % 5 == 0 ? 37.0f : 1;
    }
    return l;
}

static float scale_at(const rounded *r, size_t i)
{
    return fabsf(ht_format_block(&r->format, &r->q, i).scale);
}

static float largest_scale(const rounded *r)
{
    float most = 0;
    for (size_t i = 0; i < r->sizes.scale_count; i++)
        most = fmaxf(most, scale_at(r, i));
    return most;
}

static bool is_power_of_2(float x)
{
    int exponent;
    return frexpf(x, &exponent) == 0.5f;
}

static void scales_are_powers_of_two_times_one(void **state)
{
    (void)state;
    for (int powers = HT_POWERS_EACH; powers < HT_SCALE_POWERS; powers++)
        for (int f = 0; f < WIDENED; f++)
            for (int method = 0; method < HT_ROUNDINGS; method++) {
                layer l = uneven_layer(31);
                ht_round_options o = options_of((ht_rounding)method);
                o.powers = (ht_scale_powers)powers;
                o.candidates = 2;
                rounded r = round_layer(widened[f], &l, o);
                float one = powers == HT_POWERS_EACH ? 1 : largest_scale(&r);
                for (size_t i = 0; i < r.sizes.scale_count; i++)
                    if (!is_power_of_2(scale_at(&r, i) / one))
                        fail_msg("%s, %s, %s: scale %zu is %a, of %a", widened[f], ht_scale_powers_name(o.powers),
                                 ht_rounding_name(o.method), i, (double)scale_at(&r, i), (double)one);
                ht_arena_free(r.arena);
                free_layer(&l);
            }
}

/* Every weight is an E4M3 number times one float32 of the tensor, and that number is the code's value shifted. */
static void weights_widen_to_e4m3_exactly(void **state)
{
    ht_format e4m3;
    (void)state;
    assert_ok(ht_format_find("fp8_e4m3", &e4m3));
    for (int powers = HT_POWERS_EACH; powers < HT_SCALE_POWERS; powers++)
        for (int f = 0; f < WIDENED; f++) {
            layer l = uneven_layer(32);
            ht_round_options o = options_of(HT_ROUND_NEAREST);
            float values[OUT * IN];
            o.powers = (ht_scale_powers)powers;
            rounded r = round_layer(widened[f], &l, o);
            float largest = fmaxf(r.format.grid.highest, -r.format.grid.lowest), room = 1;
            while (largest * room * 2 <= e4m3.grid.highest)
                room *= 2;
            float one = largest_scale(&r) / room;
            assert_ok(ht_format_dequantize(&r.format, &r.q, &l.matrix, values));
            for (size_t i = 0; i < OUT * IN; i++)
                if (ht_grid_round(&e4m3.grid, values[i] / one) * one != values[i])
                    fail_msg("%s, %s: weight %zu is %a, in units of %a", widened[f], ht_scale_powers_name(o.powers), i,
                             (double)values[i], (double)one);
            ht_arena_free(r.arena);
            free_layer(&l);
        }
}

/* Of a bit less, steps are twice as wide, and squares of errors four times as large. */
static void the_constraint_costs_less_than_a_bit(void **state)
{
    layer l = layer_of(OUT, IN, SAMPLES, IN, 33);
    (void)state;
    for (int f = 0; f < WIDENED; f++) {
        double error[HT_SCALE_POWERS];
        for (int powers = 0; powers < HT_SCALE_POWERS; powers++) {
            ht_round_options o = options_of(HT_ROUND_NEAREST);
            o.powers = (ht_scale_powers)powers;
            rounded r = round_layer(widened[f], &l, o);
            error[powers] = r.error.after;
            ht_arena_free(r.arena);
        }
        assert_true(error[HT_POWERS_EACH] < 3 * error[HT_POWERS_FREE]);
        assert_true(error[HT_POWERS_TENSOR] < 3 * error[HT_POWERS_FREE]);
    }
    free_layer(&l);
}

static void scales_of_other_types_stay_as_they_are(void **state)
{
    static const char *const some[] = {"mxfp4", "nvfp4", "nvint4"};
    layer l = layer_of(OUT, IN, SAMPLES, IN, 34);
    (void)state;
    for (int f = 0; f < 3; f++) {
        ht_round_options o = options_of(HT_ROUND_NEAREST);
        rounded plain = round_layer(some[f], &l, o);
        o.powers = HT_POWERS_TENSOR;
        rounded r = round_layer(some[f], &l, o);
        assert_same_codes(&r, &plain, "powers");
        ht_arena_free(r.arena);
        ht_arena_free(plain.arena);
    }
    free_layer(&l);
}

static void the_largest_and_smallest_weights_have_scales(void **state)
{
    static const float sizes[] = {0, FLT_MIN, 1e-37f, 0x1p125f};
    (void)state;
    for (size_t s = 0; s < sizeof sizes / sizeof *sizes; s++)
        for (int powers = HT_POWERS_EACH; powers < HT_SCALE_POWERS; powers++) {
            layer l = layer_of(OUT, IN, SAMPLES, IN, 35);
            for (size_t i = 0; i < OUT * IN; i++)
                l.w[i] = sizes[s] * (i % 3 ? 1.0f : -0.3f);
            ht_round_options o = options_of(HT_ROUND_NEAREST);
            o.powers = (ht_scale_powers)powers;
            rounded r = round_layer("fp4_e2m1", &l, o);
            for (size_t i = 0; i < r.sizes.scale_count; i++)
                assert_true(scale_at(&r, i) >= FLT_MIN && isfinite(scale_at(&r, i) * 6));
            ht_arena_free(r.arena);
            free_layer(&l);
        }
}

static void constraints_are_found_by_their_names(void **state)
{
    layer l = layer_of(OUT, IN, SAMPLES, IN, 36);
    ht_round_options o = {.powers = HT_SCALE_POWERS};
    ht_format f;
    ht_quantized q;
    ht_arena *arena = ht_arena_create();
    (void)state;
    for (int i = 0; i < HT_SCALE_POWERS; i++)
        assert_int_equal(ht_scale_powers_find(ht_scale_powers_name((ht_scale_powers)i)), i);
    assert_int_equal(ht_scale_powers_find("some"), -1);
    assert_ok(ht_format_find("fp4_e2m1", &f));
    assert_ok(ht_quantized_alloc(arena, &f, &l.matrix, &q));
    assert_int_equal(ht_round(&f, &l.matrix, l.h, &o, &q, NULL), HT_ERR_ARGUMENT);
    ht_arena_free(arena);
    free_layer(&l);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(scales_are_powers_of_two_times_one),
        cmocka_unit_test(weights_widen_to_e4m3_exactly),
        cmocka_unit_test(the_constraint_costs_less_than_a_bit),
        cmocka_unit_test(scales_of_other_types_stay_as_they_are),
        cmocka_unit_test(the_largest_and_smallest_weights_have_scales),
        cmocka_unit_test(constraints_are_found_by_their_names),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
