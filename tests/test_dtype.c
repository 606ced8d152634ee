/* test_dtype.c - every code of every narrow float against its definition, and rounding between all neighbours. */
#include <float.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "core/dtype.h"

/* ---- the formats that are converted both ways ---- */

static float decode_f16(unsigned code)
{
    return ht_f32_from_f16((uint16_t)code);
}

static unsigned encode_f16(float f)
{
    return ht_f16_from_f32(f);
}

static float decode_bf16(unsigned code)
{
    return ht_f32_from_bf16((uint16_t)code);
}

static unsigned encode_bf16(float f)
{
    return ht_bf16_from_f32(f);
}

static float decode_e4m3(unsigned code)
{
    return ht_f32_from_f8_e4m3((uint8_t)code);
}

static unsigned encode_e4m3(float f)
{
    return ht_f8_e4m3_from_f32(f);
}

static float decode_e5m2(unsigned code)
{
    return ht_f32_from_f8_e5m2((uint8_t)code);
}

static unsigned encode_e5m2(float f)
{
    return ht_f8_e5m2_from_f32(f);
}

typedef struct format {
    const char *name;
    int bits, mantissa_bits, bias;
    unsigned largest;  /* the last finite code */
    unsigned overflow; /* what infinity becomes */
    int has_infinity;  /* at largest + 1 */
    float (*decode)(unsigned code);
    unsigned (*encode)(float f);
} format;

static const format formats[] = {
    {"f16", 16, 10, 15, 0x7bff, 0x7c00, 1, decode_f16, encode_f16},
    {"bf16", 16, 7, 127, 0x7f7f, 0x7f80, 1, decode_bf16, encode_bf16},
    {"f8_e4m3", 8, 3, 7, 0x7e, 0x7e, 0, decode_e4m3, encode_e4m3},
    {"f8_e5m2", 8, 2, 15, 0x7b, 0x7b, 1, decode_e5m2, encode_e5m2},
};

enum { FORMATS = sizeof formats / sizeof *formats };

/* sign * 2^(exponent - bias) * 1.mantissa, or 0.mantissa at exponent 0: IEEE 754-2019 section 3.4 */
static double definition(unsigned code, int bits, int mantissa_bits, int bias)
{
    unsigned rest = code & ((1u << (bits - 1)) - 1);
    int exponent = (int)(rest >> mantissa_bits), mantissa = (int)(rest & ((1u << mantissa_bits) - 1));
    double value = exponent ? ldexp(mantissa + (1 << mantissa_bits), exponent - bias - mantissa_bits)
                            : ldexp(mantissa, 1 - bias - mantissa_bits);
    return code >> (bits - 1) ? -value : value;
}

static double magnitude(const format *f, unsigned code)
{
    return definition(code, f->bits, f->mantissa_bits, f->bias);
}

static void fail_at(const format *f, unsigned code, double got, double want)
{
    if (!(got == want))
        fail_msg("%s code 0x%x gives %a, want %a", f->name, code, got, want);
}

static void every_code_decodes_as_defined(void **state)
{
    (void)state;
    for (const format *f = formats; f < formats + FORMATS; f++) {
        for (unsigned code = 0; code < 1u << f->bits; code++) {
            unsigned rest = code & ((1u << (f->bits - 1)) - 1);
            double value = f->decode(code);
            assert_int_equal(signbit(value) != 0, code >> (f->bits - 1));
            if (rest <= f->largest)
                fail_at(f, code, value, magnitude(f, code));
            else if (f->has_infinity && rest == f->largest + 1)
                assert_true(isinf(value));
            else
                assert_true(isnan(value));
        }
    }
}

static void every_code_survives_a_round_trip(void **state)
{
    (void)state;
    for (const format *f = formats; f < formats + FORMATS; f++) {
        for (unsigned code = 0; code < 1u << f->bits; code++) {
            unsigned sign = code >> (f->bits - 1) << (f->bits - 1), rest = code ^ sign,
                     again = f->encode(f->decode(code));
            if (rest <= f->largest)
                assert_int_equal(again, code);
            else if (isinf(f->decode(code)))
                assert_int_equal(again, sign | f->overflow);
            else if (!isnan(f->decode(again)) || (again ^ code) >> (f->bits - 1))
                fail_msg("%s: NaN 0x%x became 0x%x", f->name, code, again);
        }
    }
}

static void assert_encodes(const format *f, float x, unsigned want)
{
    unsigned sign = 1u << (f->bits - 1);
    if (f->encode(x) != want)
        fail_msg("%s: %a is encoded as 0x%x, want 0x%x", f->name, (double)x, f->encode(x), want);
    if (f->encode(-x) != (want | sign))
        fail_msg("%s: %a is encoded as 0x%x, want 0x%x", f->name, (double)-x, f->encode(-x), want | sign);
}

/* The midpoint of two neighbours has one bit more than they, so it is a float; so are the floats right beside it. */
static void ties_between_all_neighbours_go_to_even(void **state)
{
    (void)state;
    for (const format *f = formats; f < formats + FORMATS; f++) {
        for (unsigned code = 0; code < f->largest; code++) {
            float middle = (float)((magnitude(f, code) + magnitude(f, code + 1)) / 2);
            assert_encodes(f, middle, code + (code & 1));
            assert_encodes(f, nextafterf(middle, 0), code);
            assert_encodes(f, nextafterf(middle, INFINITY), code + 1);
        }
    }
}

/* Where the next code would be, IEEE formats become infinite; the saturating ones stay at their largest. */
static void overflow_is_infinite_or_saturates(void **state)
{
    (void)state;
    for (const format *f = formats; f < formats + FORMATS; f++) {
        double largest = magnitude(f, f->largest), half = (largest - magnitude(f, f->largest - 1)) / 2;
        float edge = (float)(largest + half);
        assert_encodes(f, nextafterf(edge, 0), f->largest);
        assert_encodes(f, edge, f->overflow);
        assert_encodes(f, FLT_MAX, f->overflow);
        assert_encodes(f, INFINITY, f->overflow);
    }
}

static void tiny_values_become_signed_zeros(void **state)
{
    (void)state;
    for (const format *f = formats; f < formats + FORMATS; f++) {
        float half = (float)(magnitude(f, 1) / 2);
        assert_encodes(f, 0, 0);
        assert_encodes(f, FLT_TRUE_MIN, 0);
        assert_encodes(f, half, 0);
        assert_encodes(f, nextafterf(half, 1), 1);
    }
}

static uint32_t next_random(uint32_t *state) /* xorshift32, Marsaglia 2003 */
{
    *state ^= *state << 13;
    *state ^= *state >> 17;
    return *state ^= *state << 5;
}

static void any_float_becomes_its_nearest_code(void **state)
{
    uint32_t seed = 0x51c3;
    (void)state;
    for (int i = 0; i < 400000; i++) {
        const format *f = &formats[i % FORMATS];
        uint32_t bits = next_random(&seed) & 0x7fffffff;
        if (i & 4) /* half of them in the range of the narrowest format */
            bits = (bits & 0x07ffffff) + 0x3c000000;
        float x;
        memcpy(&x, &bits, sizeof x);
        if (isnan(x)) {
            assert_true(isnan(f->decode(f->encode(x))));
            continue;
        }
        unsigned code = f->encode(x);
        if (x > magnitude(f, f->largest))
            continue;
        double error = fabs(magnitude(f, code) - x);
        if (!(code == 0 || error <= fabs(magnitude(f, code - 1) - x)) ||
            !(code == f->largest || error <= fabs(magnitude(f, code + 1) - x)))
            fail_msg("%s: %a became 0x%x, which is not nearest", f->name, (double)x, code);
    }
}

static void nan_payloads_do_not_become_infinity(void **state)
{
    static const uint32_t nans[] = {0x7f800001, 0x7fc00000, 0x7fffffff, 0x7f801fff, 0xff800001, 0xff80ffff};
    (void)state;
    for (const format *f = formats; f < formats + FORMATS; f++) {
        for (size_t i = 0; i < sizeof nans / sizeof *nans; i++) {
            float x;
            memcpy(&x, &nans[i], sizeof x);
            assert_true(isnan(f->decode(f->encode(x))));
            assert_int_equal(f->encode(x) >> (f->bits - 1), nans[i] >> 31);
        }
    }
}

#ifdef __FLT16_MANT_DIG__
static void f16_agrees_with_the_compiler(void **state)
{
    uint32_t seed = 7;
    (void)state;
    for (int i = 0; i < 1000000; i++) {
        uint32_t bits = next_random(&seed);
        float x;
        memcpy(&x, &bits, sizeof x);
        _Float16 h = (_Float16)x;
        uint16_t want;
        memcpy(&want, &h, sizeof want);
        if (!isnan(x) && ht_f16_from_f32(x) != want)
            fail_msg("%a became 0x%x, the compiler says 0x%x", (double)x, ht_f16_from_f32(x), want);
    }
}
#endif

/* ---- arrays ---- */

static void names_and_widths_are_those_of_the_format(void **state)
{
    static const struct {
        const char *name;
        int bits;
    } want[] = {{"BOOL", 8},    {"F4", 4},      {"F6_E2M3", 6}, {"F6_E3M2", 6},     {"U8", 8},          {"I8", 8},
                {"F8_E5M2", 8}, {"F8_E4M3", 8}, {"F8_E8M0", 8}, {"F8_E4M3FNUZ", 8}, {"F8_E5M2FNUZ", 8}, {"I16", 16},
                {"U16", 16},    {"F16", 16},    {"BF16", 16},   {"I32", 32},        {"U32", 32},        {"F32", 32},
                {"C64", 64},    {"F64", 64},    {"I64", 64},    {"U64", 64}};
    (void)state;
    assert_int_equal(sizeof want / sizeof *want, HT_DTYPES);
    for (int i = 0; i < HT_DTYPES; i++) {
        assert_string_equal(ht_dtype_name((ht_dtype)i), want[i].name);
        assert_int_equal(ht_dtype_bits((ht_dtype)i), want[i].bits);
        assert_int_equal(ht_dtype_find(want[i].name), i);
    }
    assert_int_equal(ht_dtype_find("f32"), -1);
    assert_int_equal(ht_dtype_find("F3"), -1);
    assert_int_equal(ht_dtype_find(""), -1);
}

/* Two elements of each, little-endian, and what they are. */
static const struct {
    ht_dtype dtype;
    unsigned char bytes[16];
    float values[2];
} pairs[] = {
    {HT_BOOL, {0, 1}, {0, 1}},
    {HT_U8, {255, 7}, {255, 7}},
    {HT_I8, {255, 128}, {-1, -128}},
    {HT_I16, {0xff, 0xff, 0x00, 0x80}, {-1, -32768}},
    {HT_U16, {0xff, 0xff, 0x00, 0x80}, {65535, 32768}},
    {HT_F16, {0x00, 0x3c, 0x00, 0xc0}, {1, -2}},
    {HT_BF16, {0x80, 0x3f, 0x00, 0xc0}, {1, -2}},
    {HT_I32, {0xfe, 0xff, 0xff, 0xff, 0x00, 0x00, 0x01, 0x00}, {-2, 65536}},
    {HT_U32, {0x00, 0x00, 0x00, 0x80, 0x01}, {2147483648.0f, 1}},
    {HT_F32, {0x00, 0x00, 0x80, 0x3f, 0x00, 0x00, 0x00, 0xc0}, {1, -2}},
    {HT_F64, {0, 0, 0, 0, 0, 0, 0xf0, 0x3f, 0, 0, 0, 0, 0, 0, 0, 0xc0}, {1, -2}},
    {HT_I64, {0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 5}, {-1, 5}},
    {HT_U64, {0, 0, 0, 0, 0, 0, 0, 0x80, 5}, {9223372036854775808.0f, 5}},
    {HT_F8_E4M3, {0x38, 0xfe}, {1, -448}},
    {HT_F8_E5M2, {0x3c, 0xfb}, {1, -57344}},
    {HT_F8_E8M0, {127, 130}, {1, 8}},
    {HT_F8_E4M3FNUZ, {0x40, 0xff}, {1, -240}},
    {HT_F8_E5M2FNUZ, {0x40, 0xff}, {1, -57344}},
};

static void every_real_dtype_converts_from_any_address(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++) {
        unsigned char at[17];
        float out[4] = {-7, -7, -7, -7};
        memcpy(at + 1, pairs[i].bytes, 16); /* odd: nothing wider than a byte is aligned */
        assert_int_equal(ht_convert_to_f32(pairs[i].dtype, at + 1, 0, 2, out + 1), 1);
        if (!(out[1] == pairs[i].values[0] && out[2] == pairs[i].values[1] && out[0] == -7 && out[3] == -7))
            fail_msg("%s: {%g %g} between {%g %g}", ht_dtype_name(pairs[i].dtype), (double)out[1], (double)out[2],
                     (double)out[0], (double)out[3]);
        assert_int_equal(ht_convert_to_f32(pairs[i].dtype, at + 1, 1, 1, out), 1);
        assert_true(out[0] == pairs[i].values[1]);
    }
}

static void what_is_not_real_or_not_bytes_is_refused(void **state)
{
    float out = -7;
    uint64_t zero = 0;
    (void)state;
    assert_int_equal(ht_convert_to_f32(HT_C64, &zero, 0, 1, &out), 0);
    assert_int_equal(ht_convert_to_f32(HT_F6_E2M3, &zero, 0, 1, &out), 0);
    assert_int_equal(ht_convert_to_f32(HT_F6_E3M2, &zero, 0, 1, &out), 0);
    assert_int_equal(ht_convert_to_f32(HT_DTYPES, &zero, 0, 1, &out), 0);
    assert_true(out == -7);
    assert_int_equal(ht_convert_to_f32(HT_F32, NULL, 0, 0, NULL), 1);
}

static void f4_is_e2m1_low_nibble_first(void **state)
{
    static const float values[8] = {0, 0.5f, 1, 1.5f, 2, 3, 4, 6};
    unsigned char packed[8];
    float out[16];
    (void)state;
    for (int i = 0; i < 8; i++)
        packed[i] = (unsigned char)(2 * i | (2 * i + 1) << 4);
    for (size_t first = 0; first < 16; first++) {
        assert_int_equal(ht_convert_to_f32(HT_F4, packed, first, 16 - first, out), 1);
        for (size_t i = first; i < 16; i++) {
            float want = i < 8 ? values[i] : -values[i - 8];
            assert_memory_equal(&out[i - first], &want, sizeof want); /* -0 too */
        }
    }
}

static void assert_same_float(const char *name, size_t i, float got, double want)
{
    if (!(isnan(want) ? isnan(got) : got == want && !signbit(got) == !signbit(want)))
        fail_msg("%s code 0x%zx gives %a, want %a", name, i, (double)got, want);
}

static void all_codes_of_8_bit_floats_convert_as_defined(void **state)
{
    unsigned char codes[256];
    float out[256];
    (void)state;
    for (int i = 0; i < 256; i++)
        codes[i] = (unsigned char)i;
    assert_int_equal(ht_convert_to_f32(HT_F8_E8M0, codes, 0, 256, out), 1);
    for (int i = 0; i < 256; i++)
        assert_same_float("F8_E8M0", (size_t)i, out[i], i == 255 ? NAN : ldexp(1, i - 127));
    assert_int_equal(ht_convert_to_f32(HT_F8_E4M3FNUZ, codes, 0, 256, out), 1);
    for (int i = 0; i < 256; i++)
        assert_same_float("F8_E4M3FNUZ", (size_t)i, out[i], i == 128 ? NAN : definition((unsigned)i, 8, 3, 8));
    assert_int_equal(ht_convert_to_f32(HT_F8_E5M2FNUZ, codes, 0, 256, out), 1);
    for (int i = 0; i < 256; i++)
        assert_same_float("F8_E5M2FNUZ", (size_t)i, out[i], i == 128 ? NAN : definition((unsigned)i, 8, 2, 16));
}

/* The loops that weights go through, against the single conversions: all codes, all remainders, odd addresses. */
static void arrays_of_16_bit_floats_convert_like_single_ones(void **state)
{
    enum { CODES = 65536 };
    unsigned char *bytes = malloc(2 * CODES + 1);
    float *out = malloc(CODES * sizeof *out);
    (void)state;
    assert_true(bytes && out);
    for (unsigned i = 0; i < CODES; i++) {
        bytes[1 + 2 * i] = (unsigned char)i;
        bytes[2 + 2 * i] = (unsigned char)(i >> 8);
    }
    for (size_t first = 0; first < 20; first++) {
        assert_int_equal(ht_convert_to_f32(HT_F16, bytes + 1, first, CODES - first, out), 1);
        for (size_t i = first; i < CODES; i++)
            assert_same_float("F16", i, out[i - first], ht_f32_from_f16((uint16_t)i));
        assert_int_equal(ht_convert_to_f32(HT_BF16, bytes + 1, first, CODES - first, out), 1);
        for (size_t i = first; i < CODES; i++)
            assert_same_float("BF16", i, out[i - first], ht_f32_from_bf16((uint16_t)i));
    }
    free(out);
    free(bytes);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_code_decodes_as_defined),
        cmocka_unit_test(every_code_survives_a_round_trip),
        cmocka_unit_test(ties_between_all_neighbours_go_to_even),
        cmocka_unit_test(overflow_is_infinite_or_saturates),
        cmocka_unit_test(tiny_values_become_signed_zeros),
        cmocka_unit_test(any_float_becomes_its_nearest_code),
        cmocka_unit_test(nan_payloads_do_not_become_infinity),
#ifdef __FLT16_MANT_DIG__
        cmocka_unit_test(f16_agrees_with_the_compiler),
#endif
        cmocka_unit_test(names_and_widths_are_those_of_the_format),
        cmocka_unit_test(every_real_dtype_converts_from_any_address),
        cmocka_unit_test(what_is_not_real_or_not_bytes_is_refused),
        cmocka_unit_test(f4_is_e2m1_low_nibble_first),
        cmocka_unit_test(all_codes_of_8_bit_floats_convert_as_defined),
        cmocka_unit_test(arrays_of_16_bit_floats_convert_like_single_ones),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
