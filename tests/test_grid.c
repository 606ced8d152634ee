/* test_grid.c - every code of every number grid against its definition, and rounding between all neighbours. */
#include <float.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "core/dtype.h"
#include "quant/format.h"

/* ---- the grids, and their values by definition ---- */

enum { MAX_GRIDS = 128, NOT_A_NUMBER = 1000 };

typedef struct level {
    uint8_t code;
    double value;
} level;

typedef struct grid_case {
    char name[32];
    ht_grid grid;
    int levels;
    level level[256];  /* what encoding may give, by value; of the two zeros of a float only +0 */
    double value[256]; /* of every code; NOT_A_NUMBER where it is none */
} grid_case;

static grid_case cases[MAX_GRIDS];
static int n_cases;

static int by_value(const void *a, const void *b)
{
    double x = ((const level *)a)->value, y = ((const level *)b)->value;
    return (x > y) - (x < y);
}

/* lowest, highest: in steps, of the codes that encoding gives */
static void add_integers(const char *name, int zero, double unit, int lowest, int highest)
{
    grid_case *c = &cases[n_cases++];
    ht_format f;
    assert_int_equal(ht_format_find(name, &f), HT_OK);
    c->grid = f.asymmetric ? ht_grid_with_zero(&f.grid, zero) : f.grid;
    snprintf(c->name, sizeof c->name, "%s zero %d", name, zero);
    for (int code = 0; code < 1 << f.grid.bits; code++) {
        int step = f.asymmetric ? code - zero : code >= 1 << (f.grid.bits - 1) ? code - (1 << f.grid.bits) : code;
        c->value[code] = step * unit;
        if (step >= lowest && step <= highest)
            c->level[c->levels++] = (level){(uint8_t)code, step * unit};
    }
    qsort(c->level, (size_t)c->levels, sizeof(level), by_value);
}

/* sign * 2^(exponent - bias) * 1.mantissa, or 0.mantissa at exponent 0: IEEE 754-2019 section 3.4.  numbers: codes of a
 * sign, in order */
static void add_floats(const char *name, int e, int m, int numbers)
{
    grid_case *c = &cases[n_cases++];
    ht_format f;
    assert_int_equal(ht_format_find(name, &f), HT_OK);
    c->grid = f.grid;
    snprintf(c->name, sizeof c->name, "%s", name);
    int half = 1 << (e + m), bias = (1 << (e - 1)) - 1;
    for (int code = 0; code < half; code++) {
        int exponent = code >> m, mantissa = code & ((1 << m) - 1);
        double value = exponent ? ldexp(mantissa + (1 << m), exponent - bias - m) : ldexp(mantissa, 1 - bias - m);
        c->value[code] = code < numbers ? value : NOT_A_NUMBER;
        c->value[half + code] = code < numbers ? -value : NOT_A_NUMBER;
        if (code < numbers)
            c->level[c->levels++] = (level){(uint8_t)code, value};
        if (code && code < numbers)
            c->level[c->levels++] = (level){(uint8_t)(half + code), -value};
    }
    qsort(c->level, (size_t)c->levels, sizeof(level), by_value);
}

static int make_cases(void **state)
{
    char name[32];
    (void)state;
    for (int bits = 2; bits <= 8; bits++) {
        int half = 1 << (bits - 1), zeros[] = {0, 1, half, 2 * half - 1};
        snprintf(name, sizeof name, "int%d", bits);
        add_integers(name, 0, 1, -half, half - 1);
        snprintf(name, sizeof name, "uint%d", bits);
        for (int i = 0; i < 4; i++)
            add_integers(name, zeros[i], 1, -zeros[i], 2 * half - 1 - zeros[i]);
    }
    add_integers("nvint4", 0, 1, -7, 7);
    add_integers("mxint8", 0, 1.0 / 64, -127, 127);
    for (int e = 1; e <= 7; e++) {
        for (int m = 0; 1 + e + m <= 8; m++) {
            snprintf(name, sizeof name, "fp%d_e%dm%d", 1 + e + m, e, m);
            int e4m3 = e == 4 && m == 3, e5m2 = e == 5 && m == 2;
            add_floats(name, e, m, e4m3 ? 0x7f : e5m2 ? 0x7c : 1 << (e + m));
        }
    }
    add_floats("mxfp4", 2, 1, 8);
    add_floats("nvfp4", 2, 1, 8);
    return n_cases > MAX_GRIDS;
}

static void assert_value(const grid_case *c, float y, float got, double want)
{
    if (!(got == want))
        fail_msg("%s: %a became %a, want %a", c->name, (double)y, (double)got, want);
}

/* y becomes level i, as a value and as a code. */
static void assert_becomes(const grid_case *c, float y, int i)
{
    const level *want = &c->level[i];
    uint8_t code = ht_grid_encode(&c->grid, y), sign = (uint8_t)(1 << (c->grid.bits - 1));
    assert_value(c, y, ht_grid_round(&c->grid, y), want->value);
    uint8_t expected = want->code;
    if (want->value == 0 && c->grid.exponent_bits && signbit(y))
        expected = sign;
    if (code != expected)
        fail_msg("%s: %a became code 0x%x, want 0x%x", c->name, (double)y, code, expected);
}

/* ---- codes ---- */

static void every_code_decodes_as_defined(void **state)
{
    (void)state;
    for (const grid_case *c = cases; c < cases + n_cases; c++) {
        for (int code = 0; code < 1 << c->grid.bits; code++) {
            float got = ht_grid_decode(&c->grid, (uint8_t)code);
            double want = c->value[code];
            if (!(want == NOT_A_NUMBER ? isnan(got) : got == want))
                fail_msg("%s: code 0x%x is %a, want %a", c->name, code, (double)got, want);
            if (c->grid.exponent_bits && want == 0)
                assert_int_equal(!!signbit(got), code != 0);
        }
    }
}

static void every_code_survives_a_round_trip(void **state)
{
    (void)state;
    for (const grid_case *c = cases; c < cases + n_cases; c++) {
        assert_true(c->level[0].value == c->grid.lowest && c->level[c->levels - 1].value == c->grid.highest);
        for (int i = 0; i < c->levels; i++) {
            assert_becomes(c, (float)c->level[i].value, i);
            assert_int_equal(ht_grid_encode(&c->grid, ht_grid_decode(&c->grid, c->level[i].code)), c->level[i].code);
        }
        if (c->grid.exponent_bits)
            assert_int_equal(ht_grid_encode(&c->grid, -0.0f), 1 << (c->grid.bits - 1));
    }
}

static void bits_above_the_code_are_ignored(void **state)
{
    (void)state;
    for (const grid_case *c = cases; c < cases + n_cases; c++)
        for (int code = 0; code < 256; code++) {
            float a = ht_grid_decode(&c->grid, (uint8_t)code);
            float b = ht_grid_decode(&c->grid, (uint8_t)(code & ((1 << c->grid.bits) - 1)));
            assert_memory_equal(&a, &b, sizeof a);
        }
}

/* ---- rounding ---- */

/* The even one of two neighbouring values: the multiple of their distance that is even; if both are (1 and 2 of a grid
 * of powers of two), the larger magnitude: IEEE 754-2019 section 4.3.1. */
static int even_of(const grid_case *c, int i)
{
    double low = c->level[i].value, high = c->level[i + 1].value, step = high - low;
    int low_is_even = fmod(low / step, 2) == 0, high_is_even = fmod(high / step, 2) == 0;
    assert_true(low_is_even != high_is_even);
    return low_is_even ? i : i + 1;
}

static void ties_between_all_neighbours_go_to_even(void **state)
{
    (void)state;
    for (const grid_case *c = cases; c < cases + n_cases; c++) {
        for (int i = 0; i + 1 < c->levels; i++) {
            float middle = (float)((c->level[i].value + c->level[i + 1].value) / 2);
            assert_becomes(c, middle, even_of(c, i));
            assert_becomes(c, nextafterf(middle, -INFINITY), i);
            assert_becomes(c, nextafterf(middle, INFINITY), i + 1);
        }
    }
}

static void powers_of_two_tie_to_the_larger(void **state)
{
    ht_format f;
    (void)state;
    assert_int_equal(ht_format_find("fp4_e3m0", &f), HT_OK);
    assert_true(ht_grid_round(&f.grid, 1.5f) == 2 && ht_grid_round(&f.grid, 3.0f) == 4);
    assert_true(ht_grid_round(&f.grid, -1.5f) == -2 && ht_grid_round(&f.grid, 12.0f) == 16);
    assert_true(ht_grid_round(&f.grid, 0.125f) == 0); /* between 0 and the smallest: 0 is even */
}

static void beyond_the_ends_everything_saturates(void **state)
{
    (void)state;
    for (const grid_case *c = cases; c < cases + n_cases; c++) {
        int last = c->levels - 1;
        float low = (float)c->level[0].value, high = (float)c->level[last].value;
        const float above[] = {nextafterf(high, INFINITY), high + 0.5f, 2 * high + 1, 1e30f, FLT_MAX, INFINITY};
        const float below[] = {nextafterf(low, -INFINITY), low - 0.5f, 2 * low - 1, -1e30f, -FLT_MAX, -INFINITY};
        for (int i = 0; i < 6; i++) {
            assert_becomes(c, above[i], last);
            assert_becomes(c, below[i], 0);
        }
    }
}

static void tiny_values_become_zeros_with_their_sign_on_float_grids(void **state)
{
    static const float tiny[] = {0.0f, -0.0f, FLT_TRUE_MIN, -FLT_TRUE_MIN, FLT_MIN, -FLT_MIN, 0x1p-70f, -0x1p-70f};
    (void)state;
    for (const grid_case *c = cases; c < cases + n_cases; c++)
        for (int i = 0; i < 8; i++) {
            int negative = signbit(tiny[i]) && c->grid.exponent_bits;
            assert_int_equal(ht_grid_encode(&c->grid, tiny[i]), negative ? 1 << (c->grid.bits - 1) : c->grid.zero);
            assert_true(ht_grid_round(&c->grid, tiny[i]) == 0);
        }
}

static uint32_t next_random(uint32_t *state) /* xorshift32, Marsaglia 2003 */
{
    *state ^= *state << 13;
    *state ^= *state >> 17;
    return *state ^= *state << 5;
}

/* Any magnitude, or one in the range of the grid. */
static float random_float(const grid_case *c, int anywhere, uint32_t *seed)
{
    uint32_t bits = next_random(seed);
    float y;
    if (!anywhere)
        return (float)((next_random(seed) / 4294967296.0 * 2.4 - 1.2) * fmaxf(c->grid.highest, -c->grid.lowest));
    memcpy(&y, &bits, sizeof y);
    return isnan(y) ? 0 : y;
}

static void any_float_becomes_its_nearest_value(void **state)
{
    uint32_t seed = 0x51c3;
    (void)state;
    for (const grid_case *c = cases; c < cases + n_cases; c++) {
        for (int i = 0; i < 4000; i++) {
            float y = random_float(c, i & 1, &seed);
            double inside = fminf(fmaxf(y, c->grid.lowest), c->grid.highest), best = INFINITY;
            float got = ht_grid_round(&c->grid, y);
            for (int k = 0; k < c->levels; k++)
                best = fmin(best, fabs(c->level[k].value - inside));
            if (!(fabs(got - inside) == best))
                fail_msg("%s: %a became %a, which is not nearest", c->name, (double)y, (double)got);
            assert_value(c, y, ht_grid_decode(&c->grid, ht_grid_encode(&c->grid, y)), got);
        }
    }
}

static void rounding_is_monotone(void **state)
{
    (void)state;
    for (const grid_case *c = cases; c < cases + n_cases; c++) {
        float last = -INFINITY, span = c->grid.highest - c->grid.lowest;
        for (int i = -100; i <= 5100; i++) {
            float value = ht_grid_round(&c->grid, c->grid.lowest + span * (float)i / 5000);
            assert_true(value >= last);
            last = value;
        }
    }
}

static void fp8_is_what_core_converts_to(void **state)
{
    uint32_t seed = 7;
    ht_format e4m3, e5m2;
    (void)state;
    assert_int_equal(ht_format_find("fp8_e4m3", &e4m3), HT_OK);
    assert_int_equal(ht_format_find("fp8_e5m2", &e5m2), HT_OK);
    for (int i = 0; i < 200000; i++) {
        uint32_t bits = next_random(&seed);
        float y;
        if (i & 1)
            bits = (bits & 0x87ffffff) + 0x3c000000; /* about 1 */
        memcpy(&y, &bits, sizeof y);
        if (isnan(y))
            continue;
        assert_int_equal(ht_grid_encode(&e4m3.grid, y), ht_f8_e4m3_from_f32(y));
        assert_int_equal(ht_grid_encode(&e5m2.grid, y), ht_f8_e5m2_from_f32(y));
    }
}

static void e2m1_is_the_f4_of_files(void **state)
{
    ht_format f;
    (void)state;
    assert_int_equal(ht_format_find("mxfp4", &f), HT_OK);
    for (unsigned code = 0; code < 16; code++) {
        unsigned char byte = (unsigned char)code;
        float want, got = ht_grid_decode(&f.grid, byte);
        assert_int_equal(ht_convert_to_f32(HT_F4, &byte, 0, 1, &want), 1);
        assert_memory_equal(&got, &want, sizeof got);
    }
}

/* ---- neighbours ---- */

static void assert_between(const grid_case *c, float y, int below, int above)
{
    ht_neighbours n = ht_grid_neighbours(&c->grid, y);
    if (!(n.below == c->level[below].code && n.above == c->level[above].code && n.low == c->level[below].value &&
          n.high == c->level[above].value))
        fail_msg("%s: %a is between 0x%x = %a and 0x%x = %a, want 0x%x and 0x%x", c->name, (double)y, n.below,
                 (double)n.low, n.above, (double)n.high, c->level[below].code, c->level[above].code);
}

static void neighbours_are_the_codes_on_both_sides(void **state)
{
    (void)state;
    for (const grid_case *c = cases; c < cases + n_cases; c++) {
        for (int i = 0; i + 1 < c->levels; i++) {
            float low = (float)c->level[i].value, high = (float)c->level[i + 1].value, middle = low + (high - low) / 2;
            assert_between(c, low, i,
                           i + 1); /* a value on the grid may go up, not down: rounding methods start at it */
            assert_between(c, nextafterf(low, INFINITY), i, i + 1);
            assert_between(c, middle, i, i + 1);
            assert_between(c, nextafterf(high, -INFINITY), i, i + 1);
        }
    }
}

static void at_the_ends_there_is_no_choice(void **state)
{
    (void)state;
    for (const grid_case *c = cases; c < cases + n_cases; c++) {
        int last = c->levels - 1;
        assert_between(c, (float)c->level[last].value, last, last);
        assert_between(c, INFINITY, last, last);
        assert_between(c, nextafterf((float)c->level[0].value, -INFINITY), 0, 0);
        assert_between(c, -INFINITY, 0, 0);
    }
}

/* ---- arrays ---- */

static void arrays_are_rounded_like_single_values(void **state)
{
    enum { N = 100 };
    static const float scales[] = {1, 0.37f, -0.37f, 1e-30f};
    uint32_t seed = 11;
    (void)state;
    for (const grid_case *c = cases; c < cases + n_cases; c++) {
        for (int k = 0; k < 4; k++) {
            float x[N], out[N], s = scales[k];
            uint8_t codes[N];
            for (int i = 0; i < N; i++)
                x[i] = random_float(c, 0, &seed) * s;
            ht_grid_simulate(&c->grid, s, N, x, out);
            ht_grid_encode_array(&c->grid, s, N, x, codes);
            for (int i = 0; i < N; i++) {
                assert_int_equal(codes[i], ht_grid_encode(&c->grid, x[i] / s));
                assert_value(c, x[i], out[i], (double)(ht_grid_decode(&c->grid, codes[i]) * s));
            }
            ht_grid_simulate(&c->grid, s, N, x, x);
            assert_memory_equal(x, out, sizeof x);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_code_decodes_as_defined),
        cmocka_unit_test(every_code_survives_a_round_trip),
        cmocka_unit_test(bits_above_the_code_are_ignored),
        cmocka_unit_test(ties_between_all_neighbours_go_to_even),
        cmocka_unit_test(powers_of_two_tie_to_the_larger),
        cmocka_unit_test(beyond_the_ends_everything_saturates),
        cmocka_unit_test(tiny_values_become_zeros_with_their_sign_on_float_grids),
        cmocka_unit_test(any_float_becomes_its_nearest_value),
        cmocka_unit_test(rounding_is_monotone),
        cmocka_unit_test(fp8_is_what_core_converts_to),
        cmocka_unit_test(e2m1_is_the_f4_of_files),
        cmocka_unit_test(neighbours_are_the_codes_on_both_sides),
        cmocka_unit_test(at_the_ends_there_is_no_choice),
        cmocka_unit_test(arrays_are_rounded_like_single_values),
    };
    return cmocka_run_group_tests(tests, make_cases, NULL);
}
