/* test_format.c - the table of number formats, how weights are packed in them, and what the standards say about scales.
 */
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

#include "quant/format.h"

#define assert_ok(call)                                                                                                \
    do {                                                                                                               \
        if ((call) != HT_OK)                                                                                           \
            fail_msg("%s: %s", #call, ht_error_message());                                                             \
    } while (0)

enum { OUT = 3, IN = 128 };

static const char *const simulated[] = {
    "int2",     "int3",     "int5_g32", "int8_g16", "uint2",    "uint4_g64",     "uint8",        "uint3_g1",
    "fp3_e1m1", "fp6_e3m2", "fp6_e2m3", "fp8_e5m2", "fp8_e7m0", "fp8_e1m6_g128", "fp4_e2m1_g16", "fp2_e1m0"};

enum { SIMULATED = sizeof simulated / sizeof *simulated };

/* The formats of the table, then some simulated ones; 0 after the last. */
static int format_at(int i, ht_format *f)
{
    int rows = 0;
    while (ht_format_at(rows))
        rows++;
    if (i < rows)
        *f = *ht_format_at(i);
    else if (i - rows < SIMULATED)
        assert_ok(ht_format_find(simulated[i - rows], f));
    return i - rows < SIMULATED;
}

static ht_format format_of(const char *name)
{
    ht_format f;
    assert_ok(ht_format_find(name, &f));
    return f;
}

/* A weight in a format, and what is left of it; free_weight. */
typedef struct weight {
    ht_arena *arena;
    ht_quantized q;
    ht_format_sizes sizes;
    float *values;
} weight;

static weight quantized(const ht_format *f, const ht_matrix *m, ht_scale_method method)
{
    weight w = {.arena = ht_arena_create()};
    assert_non_null(w.arena);
    assert_ok(ht_quantized_alloc(w.arena, f, m, &w.q));
    assert_ok(ht_format_measure(f, m, &w.sizes));
    assert_ok(ht_format_quantize(f, m, &(ht_scale_options){.method = method}, &w.q));
    assert_ok(ht_format_check(f, &w.q, m));
    w.values = ht_alloc_array(w.arena, m->out * m->in, sizeof(float));
    assert_non_null(w.values);
    assert_ok(ht_format_dequantize(f, &w.q, m, w.values));
    return w;
}

static void free_weight(weight *w)
{
    ht_arena_free(w->arena);
}

static uint32_t next_random(uint32_t *state) /* xorshift32, Marsaglia 2003 */
{
    *state ^= *state << 13;
    *state ^= *state >> 17;
    return *state ^= *state << 5;
}

/* Roughly normal, one in 50 ten times larger. */
static void fill(float *w, size_t n, float spread, uint32_t seed)
{
    for (size_t i = 0; i < n; i++) {
        double sum = 0;
        for (int k = 0; k < 4; k++)
            sum += next_random(&seed) / 4294967296.0 - 0.5;
        w[i] = (float)sum * spread * (next_random(&seed) % 50 ? 1 : 10);
    }
}

/* ---- the table ---- */

static void the_table_holds_what_it_says(void **state)
{
    static const struct {
        const char *name;
        int bits, block, scale_bits;
        double lowest, highest;
    } want[] = {
        {"int8", 8, 0, 32, -128, 127},
        {"int4", 4, 0, 32, -8, 7},
        {"int4_g32", 4, 32, 32, -8, 7},
        {"int4_g64", 4, 64, 32, -8, 7},
        {"int4_g128", 4, 128, 32, -8, 7},
        {"fp8_e4m3", 8, 0, 32, -448, 448},
        {"fp4_e2m1", 4, 0, 32, -6, 6},
        {"fp4_e1m2", 4, 0, 32, -3.5, 3.5},
        {"fp4_e3m0", 4, 0, 32, -16, 16},
        {"mxfp4", 4, 32, 8, -6, 6},
        {"nvfp4", 4, 16, 8, -6, 6},
        {"nvint4", 4, 16, 8, -7, 7},
        {"mxint8", 8, 32, 8, -1.984375, 1.984375},
    };
    (void)state;
    for (int i = 0; i < (int)(sizeof want / sizeof *want); i++) {
        const ht_format *f = ht_format_at(i);
        ht_format found = format_of(want[i].name);
        assert_string_equal(f->name, want[i].name);
        assert_string_equal(found.name, want[i].name);
        assert_int_equal(f->grid.bits, want[i].bits);
        assert_int_equal(f->block, want[i].block);
        assert_int_equal(ht_dtype_bits(f->scale), want[i].scale_bits);
        assert_true(f->grid.lowest == want[i].lowest && f->grid.highest == want[i].highest);
        assert_false(f->simulated || f->asymmetric);
    }
    assert_null(ht_format_at(sizeof want / sizeof *want));
    assert_null(ht_format_at(-1));
}

/* A name of the table says the same thing as the grammar of simulated ones. */
static void rows_of_the_table_are_what_their_names_say(void **state)
{
    static const char *const same[][2] = {{"int8", "int8_g128"},       {"int4", "int4_g16"},
                                          {"fp8_e4m3", "fp8_e4m3_g8"}, {"fp4_e2m1", "fp4_e2m1_g8"},
                                          {"fp4_e1m2", "fp4_e1m2_g8"}, {"fp4_e3m0", "fp4_e3m0_g8"}};
    (void)state;
    for (int i = 0; i < 6; i++) {
        ht_format row = format_of(same[i][0]), made = format_of(same[i][1]);
        assert_memory_equal(&row.grid, &made.grid, sizeof row.grid);
        assert_true(made.simulated && !row.simulated);
    }
}

static void formats_that_are_not_known_are_refused_with_those_that_are(void **state)
{
    static const char *const bad[] = {"",
                                      "int",
                                      "int1",
                                      "int9",
                                      "int10",
                                      "int04",
                                      "uint0",
                                      "Int4",
                                      "int4 ",
                                      " int4",
                                      "int4_",
                                      "int4_g",
                                      "int4_g0",
                                      "int4_g-1",
                                      "int4_g32x",
                                      "int4_g65537",
                                      "int4_g99999999999999999999",
                                      "fp8",
                                      "fp8_e4",
                                      "fp8_e4m4",
                                      "fp8_e0m7",
                                      "fp9_e4m4",
                                      "fp4_e2m1_g",
                                      "fp1_e1m0",
                                      "ufp4_e2m1",
                                      "mxfp4_g32",
                                      "nvfp8",
                                      "fp4_e2m1_g16_g16",
                                      "int4_g0000000000000000000032"};
    ht_format f = {.block = -7};
    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        if (ht_format_find(bad[i], &f) != HT_ERR_ARGUMENT)
            fail_msg("\"%s\" was taken", bad[i]);
        assert_non_null(strstr(ht_error_message(), "int4_g128, fp8_e4m3"));
        assert_int_equal(f.block, -7);
    }
}

/* ---- packing ---- */

static void packed_codes_come_back_at_any_count(void **state)
{
    const ht_format nibbles = format_of("int4"), bytes = format_of("int8");
    uint8_t codes[40], back[40], row[42];
    (void)state;
    for (size_t n = 0; n <= 40; n++) {
        for (size_t i = 0; i < n; i++)
            codes[i] = (uint8_t)(i * 7 % 16);
        memset(row, 0xa5, sizeof row);
        ht_codes_pack(&nibbles, n, codes, row + 1);
        assert_int_equal(row[0], 0xa5);
        assert_int_equal(row[1 + (n + 1) / 2], 0xa5);
        ht_codes_unpack(&nibbles, n, row + 1, back);
        assert_memory_equal(codes, back, n);
        memset(row, 0xa5, sizeof row);
        ht_codes_pack(&bytes, n, codes, row);
        assert_int_equal(row[n], 0xa5);
        ht_codes_unpack(&bytes, n, row, back);
        assert_memory_equal(codes, back, n);
    }
}

static void the_low_nibble_comes_first_and_odd_rows_end_in_zero(void **state)
{
    const ht_format f = format_of("int4");
    const float w[6] = {-8, 7, 1, -1, 2, -8}; /* two channels of three inputs, scale 1 */
    weight q = quantized(&f, &(ht_matrix){"w", w, 2, 3}, HT_SCALE_MINMAX);
    const uint8_t want[4] = {0x78, 0x01, 0x2f, 0x08};
    (void)state;
    assert_int_equal(q.sizes.row_bytes, 2);
    assert_memory_equal(q.q.codes, want, 4);
    assert_memory_equal(q.values, w, sizeof w);
    free_weight(&q);
}

static void sizes_are_those_of_the_formats(void **state)
{
    static const struct {
        const char *name;
        size_t blocks, row_bytes, scale_bytes;
    } want[] = {{"int8", 1, 128, 12}, {"int4", 1, 64, 12},    {"int4_g32", 4, 64, 48}, {"mxfp4", 4, 64, 12},
                {"nvfp4", 8, 64, 24}, {"mxint8", 4, 128, 12}, {"int3", 1, 128, 12},    {"uint4_g64", 2, 64, 24}};
    (void)state;
    for (size_t i = 0; i < sizeof want / sizeof *want; i++) {
        ht_format f = format_of(want[i].name);
        ht_format_sizes s;
        assert_ok(ht_format_measure(&f, &(ht_matrix){"w", NULL, OUT, IN}, &s));
        assert_int_equal(s.blocks, want[i].blocks);
        assert_int_equal(s.row_bytes, want[i].row_bytes);
        assert_int_equal(s.code_bytes, OUT * want[i].row_bytes);
        assert_int_equal(s.scale_count, OUT * want[i].blocks);
        assert_int_equal(s.scale_bytes, want[i].scale_bytes);
    }
}

/* ---- what the standards say ---- */

static void assert_one_block(const char *name, const float *w, size_t n, unsigned scale, unsigned code)
{
    ht_format f = format_of(name);
    weight q = quantized(&f, &(ht_matrix){"w", w, 1, n}, HT_SCALE_STANDARD);
    uint8_t codes[64];
    ht_codes_unpack(&f, n, q.q.codes, codes);
    if (((uint8_t *)q.q.scales)[0] != scale || codes[0] != code)
        fail_msg("%s: %g gave scale 0x%x, code 0x%x; want 0x%x, 0x%x", name, (double)w[0], ((uint8_t *)q.q.scales)[0],
                 codes[0], scale, code);
    free_weight(&q);
}

/* OCP MX 1.0 section 6.3: the scale is 2^floor(log2 max|V|) over the largest power of two of the element format: 4 in
 * E2M1, 1 in INT8. */
static void mx_scales_are_those_of_ocp(void **state)
{
    static const struct {
        const char *name;
        float largest;
        unsigned scale, code;
    } want[] = {
        {"mxfp4", 4, 127, 6},           {"mxfp4", 6, 127, 7},
        {"mxfp4", 7.99f, 127, 7},       {"mxfp4", 8, 128, 6},
        {"mxfp4", -1, 125, 14},         {"mxfp4", 3.99f, 126, 7},
        {"mxfp4", 0x1p-120f, 5, 6},     {"mxfp4", 0x1p125f, 250, 6},
        {"mxint8", 1, 127, 64},         {"mxint8", 1.984375f, 127, 127},
        {"mxint8", 1.999f, 127, 127},   {"mxint8", -1.5f, 127, 0xa0},
        {"mxint8", -1.999f, 127, 0x81}, {"mxint8", 2, 128, 64},
        {"mxint8", 0.75f, 126, 96},
    };
    (void)state;
    for (size_t i = 0; i < sizeof want / sizeof *want; i++) {
        float w[32] = {want[i].largest};
        for (int k = 1; k < 32; k++)
            w[k] = want[i].largest / (float)(k + 1);
        assert_one_block(want[i].name, w, 32, want[i].scale, want[i].code);
    }
}

/* NVFP4: the tensor's scale is max / (448 * 6), a block's its max / 6 in units of that, in E4M3. */
static void nvfp4_has_two_levels_of_scales(void **state)
{
    const ht_format f = format_of("nvfp4");
    const float largest[4] = {2688, 6, 3, 13}; /* 13 / 6 = 2.1667: between 2 and 2.25 of E4M3 */
    const uint8_t scales[4] = {0x7e, 0x38, 0x30, 0x41};
    float w[64];
    (void)state;
    for (int i = 0; i < 64; i++)
        w[i] = largest[i / 16] * (float)(15 - i % 16) / 15;
    weight q = quantized(&f, &(ht_matrix){"w", w, 1, 64}, HT_SCALE_STANDARD);
    assert_true(q.q.tensor_scale == 1);
    assert_memory_equal(q.q.scales, scales, 4);
    assert_int_equal(q.q.codes[0], 0x77); /* 448 * 6 and 0.93 of it (5.6, nearer to 6) */
    assert_true(q.values[0] == 2688 && q.values[16] == 6 && q.values[32] == 3 && q.values[48] == 13.5f);
    free_weight(&q);
}

static void nvint4_is_its_integer_twin(void **state)
{
    const ht_format f = format_of("nvint4");
    float w[32];
    (void)state;
    for (int i = 0; i < 32; i++)
        w[i] = i < 16 ? 448 * 7 : (float)(i % 16 - 8);
    w[16] = -7;
    weight q = quantized(&f, &(ht_matrix){"w", w, 1, 32}, HT_SCALE_STANDARD);
    assert_true(q.q.tensor_scale == 1);
    assert_int_equal(((uint8_t *)q.q.scales)[1], 0x38);
    assert_memory_equal(q.values, w, sizeof w);
    free_weight(&q);
}

/* ---- there and back ---- */

/* |w - q(w)| is at most half the local step, times 1 + 2^-22 for the division and the product, or what was clipped. */
static void assert_within_half_a_step(const ht_format *f, const ht_matrix *m, const weight *q)
{
    size_t block = m->in / q->sizes.blocks;
    for (size_t i = 0; i < m->out * m->in; i++) {
        ht_block b = ht_format_block(f, &q->q, i / block);
        float y = m->values[i] / b.scale;
        ht_neighbours n = ht_grid_neighbours(&b.grid, y);
        double bound = fabs((double)b.scale) * (n.high - n.low) / 2 * (1 + 0x1p-22);
        if (y > b.grid.highest || y < b.grid.lowest)
            bound = fabs((double)b.scale) * fmax((double)y - b.grid.highest, (double)b.grid.lowest - y);
        bound += fabs((double)m->values[i]) * 0x1p-22 + FLT_TRUE_MIN;
        double error = fabs((double)m->values[i] - q->values[i]);
        if (!(error <= bound))
            fail_msg("%s: weight %zu = %a became %a, off by %g, bound %g", f->name, i, (double)m->values[i],
                     (double)q->values[i], error, bound);
    }
}

static void weights_come_back_within_half_a_step(void **state)
{
    float w[OUT * IN];
    ht_format f;
    (void)state;
    fill(w, OUT * IN, 0.05f, 3);
    for (int i = 0; format_at(i, &f); i++) {
        for (int method = 0; method < HT_SCALE_METHODS; method++) {
            ht_matrix m = {"w", w, OUT, IN};
            weight q = quantized(&f, &m, (ht_scale_method)method);
            assert_within_half_a_step(&f, &m, &q);
            free_weight(&q);
        }
    }
}

/* Relative to the largest weight of a block: 1/254 is half a step of int8, and so on. */
static void min_max_errors_are_bounded_by_the_format(void **state)
{
    static const struct {
        const char *name;
        double bound;
    } want[] = {{"int8", 1.0 / 254},     {"int4", 1.0 / 14},     {"int4_g32", 1.0 / 14}, {"fp8_e4m3", 16.0 / 448},
                {"fp4_e2m1", 1.0 / 6},   {"fp4_e1m2", 1.0 / 14}, {"fp4_e3m0", 4.0 / 16}, {"mxfp4", 2.0 / 6},
                {"nvfp4", 1.125 / 6},    {"nvint4", 1.125 / 14}, {"mxint8", 1.0 / 127},  {"int2", 1.0 / 2},
                {"fp6_e2m3", 0.25 / 7.5}};
    float w[OUT * IN];
    (void)state;
    fill(w, OUT * IN, 1, 5);
    for (size_t i = 0; i < sizeof want / sizeof *want; i++) {
        ht_format f = format_of(want[i].name);
        weight q = quantized(&f, &(ht_matrix){"w", w, OUT, IN}, HT_SCALE_MINMAX);
        size_t block = IN / q.sizes.blocks;
        for (size_t at = 0; at < OUT * IN; at += block) {
            double largest = 0, error = 0;
            for (size_t k = at; k < at + block; k++) {
                largest = fmax(largest, fabs((double)w[k]));
                error = fmax(error, fabs((double)w[k] - q.values[k]));
            }
            if (!(error <= largest * want[i].bound * (1 + 1e-5)))
                fail_msg("%s: error %g of %g in a block, bound %g", f.name, error, largest, want[i].bound);
        }
        free_weight(&q);
    }
}

static void quantizing_what_was_dequantized_changes_nothing(void **state)
{
    float w[OUT * IN], back[OUT * IN];
    ht_format f;
    (void)state;
    fill(w, OUT * IN, 0.05f, 9);
    for (int i = 0; format_at(i, &f); i++) {
        weight q = quantized(&f, &(ht_matrix){"w", w, OUT, IN}, HT_SCALE_MSE);
        ht_matrix again = {"w", q.values, OUT, IN};
        uint8_t *codes = malloc(q.sizes.code_bytes);
        assert_non_null(codes);
        memcpy(codes, q.q.codes, q.sizes.code_bytes);
        assert_ok(ht_format_encode(&f, &again, &q.q));
        assert_ok(ht_format_dequantize(&f, &q.q, &again, back));
        assert_memory_equal(codes, q.q.codes, q.sizes.code_bytes);
        assert_memory_equal(back, q.values, sizeof back);
        free(codes);
        free_weight(&q);
    }
}

/* ---- extremes ---- */

static void assert_survives(const char *what, const float *w)
{
    ht_format f;
    for (int i = 0; format_at(i, &f); i++) {
        for (int method = 0; method < HT_SCALE_METHODS; method++) {
            weight q = quantized(&f, &(ht_matrix){"w", w, OUT, IN}, (ht_scale_method)method);
            for (size_t k = 0; k < OUT * IN; k++)
                if (!(isfinite(q.values[k]) && (w[k] != 0 || q.values[k] == 0)))
                    fail_msg("%s, %s, %s: weight %zu = %a became %a", what, f.name,
                             ht_scale_method_name((ht_scale_method)method), k, (double)w[k], (double)q.values[k]);
            for (size_t k = 0; k < q.sizes.scale_count; k++)
                assert_true(fabsf(ht_format_block(&f, &q.q, k).scale) >= FLT_MIN);
            free_weight(&q);
        }
    }
}

static void extreme_weights_stay_finite_and_zeros_stay_zeros(void **state)
{
    float w[OUT * IN] = {0};
    (void)state;
    assert_survives("zeros", w);
    for (size_t i = 0; i < OUT * IN; i++)
        w[i] = (float)(i % 5) * FLT_TRUE_MIN * (i % 2 ? -1.0f : 1.0f);
    assert_survives("subnormal", w);
    fill(w, OUT * IN, 1, 7);
    w[17] = nextafterf(0x1p126f, 0);
    assert_survives("one huge", w);
    w[OUT * IN - 1] = -nextafterf(0x1p126f, 0);
    assert_survives("two huge", w);
    for (size_t i = 0; i < OUT * IN; i++)
        w[i] = i == 40 ? -3.0f : 0.0f;
    assert_survives("one not zero", w);
    for (size_t i = 0; i < OUT * IN; i++)
        w[i] = 5;
    assert_survives("all positive", w);
    for (size_t i = 0; i < OUT * IN; i++)
        w[i] = ldexpf(1.3f, (int)(i % 120) - 60);
    assert_survives("wide", w);
}

static void a_huge_weight_does_not_touch_other_blocks(void **state)
{
    const ht_format f = format_of("int4_g32");
    float w[OUT * IN];
    (void)state;
    fill(w, OUT * IN, 1, 7);
    weight before = quantized(&f, &(ht_matrix){"w", w, OUT, IN}, HT_SCALE_MSE);
    w[40] = 1e30f;
    weight after = quantized(&f, &(ht_matrix){"w", w, OUT, IN}, HT_SCALE_MSE);
    assert_memory_equal(before.values, after.values, 32 * sizeof(float));
    assert_memory_equal(before.values + 64, after.values + 64, (OUT * IN - 64) * sizeof(float));
    free_weight(&before);
    free_weight(&after);
}

/* ---- refusals ---- */

static void assert_refused(ht_status got, ht_status want, const char *words)
{
    assert_int_equal(got, want);
    if (!strstr(ht_error_message(), words))
        fail_msg("\"%s\" does not say \"%s\"", ht_error_message(), words);
}

static void weights_that_are_no_numbers_are_refused_by_name_and_index(void **state)
{
    static const float bad[] = {NAN, INFINITY, -INFINITY, 0x1p126f, -FLT_MAX};
    float w[OUT * IN] = {0};
    ht_format f;
    (void)state;
    for (int i = 0; format_at(i, &f); i++) {
        ht_matrix m = {"up_blocks.1.conv1", w, OUT, IN};
        ht_arena *arena = ht_arena_create();
        ht_quantized q;
        assert_ok(ht_quantized_alloc(arena, &f, &m, &q));
        for (size_t k = 0; k < sizeof bad / sizeof *bad; k++) {
            w[IN + 4] = bad[k];
            assert_refused(ht_format_quantize(&f, &m, NULL, &q), HT_ERR_ARGUMENT,
                           "up_blocks.1.conv1: weight 132 (channel 1, input 4) is ");
        }
        w[IN + 4] = 0;
        ht_arena_free(arena);
    }
}

static void channels_that_do_not_divide_into_groups_are_refused(void **state)
{
    static const struct {
        const char *format;
        size_t in;
        const char *words;
    } bad[] = {{"int4_g32", 27, "conv_in: 27 inputs a channel do not divide into the groups of 32 that int4_g32 has"},
               {"int4_g128", 192, "192 inputs"},
               {"nvfp4", 8, "groups of 16"},
               {"mxint8", 33, "groups of 32"}};
    float w[OUT * 192] = {0};
    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        ht_format f = format_of(bad[i].format);
        ht_matrix m = {"conv_in", w, OUT, bad[i].in};
        ht_quantized q = {0};
        ht_format_sizes s;
        assert_refused(ht_format_measure(&f, &m, &s), HT_ERR_SHAPE, bad[i].words);
        assert_refused(ht_format_scales(&f, &m, NULL, &q), HT_ERR_SHAPE, bad[i].words);
        assert_refused(ht_format_encode(&f, &m, &q), HT_ERR_SHAPE, bad[i].words);
        assert_refused(ht_format_dequantize(&f, &q, &m, w), HT_ERR_SHAPE, bad[i].words);
    }
}

static void sizes_that_are_nothing_or_overflow_are_refused(void **state)
{
    const ht_format f = format_of("int8");
    ht_format_sizes s;
    (void)state;
    assert_refused(ht_format_measure(&f, &(ht_matrix){"w", NULL, 0, 4}, &s), HT_ERR_ARGUMENT, "w: a weight of [0][4]");
    assert_refused(ht_format_measure(&f, &(ht_matrix){"w", NULL, 4, 0}, &s), HT_ERR_ARGUMENT, "w: a weight of [4][0]");
    assert_refused(ht_format_measure(&f, &(ht_matrix){"w", NULL, SIZE_MAX / 4, 8}, &s), HT_ERR_ARGUMENT, "too large");
}

static void damaged_scales_and_codes_are_refused(void **state)
{
    float w[OUT * IN];
    ht_matrix m = {"mid_block.conv", w, OUT, IN};
    (void)state;
    fill(w, OUT * IN, 1, 3);
    const ht_format mxfp4 = format_of("mxfp4"), nvfp4 = format_of("nvfp4"), fp8 = format_of("fp8_e4m3"),
                    uint4 = format_of("uint4");
    weight q = quantized(&mxfp4, &m, HT_SCALE_STANDARD);
    ((uint8_t *)q.q.scales)[5] = 0xff;
    assert_refused(ht_format_check(&mxfp4, &q.q, &m), HT_ERR_FORMAT, "mid_block.conv: scale 5 of 12 is nan");
    free_weight(&q);
    q = quantized(&nvfp4, &m, HT_SCALE_STANDARD);
    ((uint8_t *)q.q.scales)[7] = 0;
    assert_ok(ht_format_check(&nvfp4, &q.q, &m)); /* others write it for blocks of zeros */
    ((uint8_t *)q.q.scales)[7] = 0x7f;
    assert_refused(ht_format_check(&nvfp4, &q.q, &m), HT_ERR_FORMAT, "scale 7 of 24 is nan");
    ((uint8_t *)q.q.scales)[7] = 1;
    q.q.tensor_scale = INFINITY;
    assert_refused(ht_format_check(&nvfp4, &q.q, &m), HT_ERR_FORMAT, "scale 0 of 24 is inf");
    free_weight(&q);
    q = quantized(&fp8, &m, HT_SCALE_STANDARD);
    q.q.codes[9] = 0xff;
    assert_refused(ht_format_check(&fp8, &q.q, &m), HT_ERR_FORMAT, "byte 9 of the codes is 0xff");
    free_weight(&q);
    q = quantized(&uint4, &m, HT_SCALE_STANDARD);
    q.q.zeros[2] = 16;
    assert_refused(ht_format_check(&uint4, &q.q, &m), HT_ERR_FORMAT, "zero point 2 of 3 is 16");
    free_weight(&q);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_table_holds_what_it_says),
        cmocka_unit_test(rows_of_the_table_are_what_their_names_say),
        cmocka_unit_test(formats_that_are_not_known_are_refused_with_those_that_are),
        cmocka_unit_test(packed_codes_come_back_at_any_count),
        cmocka_unit_test(the_low_nibble_comes_first_and_odd_rows_end_in_zero),
        cmocka_unit_test(sizes_are_those_of_the_formats),
        cmocka_unit_test(mx_scales_are_those_of_ocp),
        cmocka_unit_test(nvfp4_has_two_levels_of_scales),
        cmocka_unit_test(nvint4_is_its_integer_twin),
        cmocka_unit_test(weights_come_back_within_half_a_step),
        cmocka_unit_test(min_max_errors_are_bounded_by_the_format),
        cmocka_unit_test(quantizing_what_was_dequantized_changes_nothing),
        cmocka_unit_test(extreme_weights_stay_finite_and_zeros_stay_zeros),
        cmocka_unit_test(a_huge_weight_does_not_touch_other_blocks),
        cmocka_unit_test(weights_that_are_no_numbers_are_refused_by_name_and_index),
        cmocka_unit_test(channels_that_do_not_divide_into_groups_are_refused),
        cmocka_unit_test(sizes_that_are_nothing_or_overflow_are_refused),
        cmocka_unit_test(damaged_scales_and_codes_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
