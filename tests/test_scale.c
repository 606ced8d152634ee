/* test_scale.c - scale search: what each method promises, in every format. */
#include <float.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "quant/format.h"

#define assert_ok(call)                                                                                                \
    do {                                                                                                               \
        if ((call) != HT_OK)                                                                                           \
            fail_msg("%s: %s", #call, ht_error_message());                                                             \
    } while (0)

enum { OUT = 4, IN = 256 };

/* One of every kind: float32, E8M0, E4M3 scales; integers, floats; zero points; groups. */
static const char *const names[] = {"int8",      "int4",     "int4_g32", "int4_g128",   "fp8_e4m3",
                                    "fp4_e2m1",  "fp4_e1m2", "fp4_e3m0", "mxfp4",       "nvfp4",
                                    "nvint4",    "mxint8",   "int2",     "int6",        "uint4",
                                    "uint3_g64", "fp6_e3m2", "fp8_e5m2", "fp4_e2m1_g16"};

enum { NAMES = sizeof names / sizeof *names };

static ht_format format_of(const char *name)
{
    ht_format f;
    assert_ok(ht_format_find(name, &f));
    return f;
}

static uint32_t next_random(uint32_t *state) /* xorshift32, Marsaglia 2003 */
{
    *state ^= *state << 13;
    *state ^= *state >> 17;
    return *state ^= *state << 5;
}

static double uniform(uint32_t *state)
{
    return next_random(state) / 4294967296.0;
}

typedef enum shape { NORMAL, OUTLIERS, SKEWED, FLAT, TINY, SHAPES } shape;

static void fill(float *w, size_t n, shape kind, uint32_t seed)
{
    for (size_t i = 0; i < n; i++) {
        double x = uniform(&seed) + uniform(&seed) + uniform(&seed) + uniform(&seed) - 2, u = uniform(&seed);
        switch (kind) {
        case OUTLIERS:
            x *= u < 0.02 ? 20 : 1;
            break;
        case SKEWED:
            x = x * x - 0.1;
            break;
        case FLAT:
            x = u - 0.5;
            break;
        case TINY:
            x *= 1e-38;
            break;
        default:
            break;
        }
        w[i] = (float)(x * 0.05);
    }
}

/* Quantized with these options and back; the scales too if they are wanted: [out][blocks]. */
static void requantized(const ht_format *f, const ht_matrix *m, const ht_scale_options *o, float *values, float *scales)
{
    ht_arena *arena = ht_arena_create();
    ht_quantized q;
    ht_format_sizes s;
    assert_non_null(arena);
    assert_ok(ht_quantized_alloc(arena, f, m, &q));
    assert_ok(ht_format_measure(f, m, &s));
    assert_ok(ht_format_quantize(f, m, o, &q));
    assert_ok(ht_format_dequantize(f, &q, m, values));
    for (size_t i = 0; scales && i < s.scale_count; i++)
        scales[i] = ht_format_block(f, &q, i).scale;
    ht_arena_free(arena);
}

static double norm_of(const float *w, const float *values, size_t n, const float *importance, double p)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += (importance ? (double)importance[i % IN] : 1) * pow(fabs((double)w[i] - values[i]), p);
    return sum;
}

/* ---- what every format is promised ---- */

/* 1e-5 for the search's own arithmetic: its terms are float32, 2.4th powers to 1e-6. */
static void assert_never_worse(const ht_format *f, const ht_matrix *m, const float *importance, const char *what)
{
    float searched[OUT * IN], other[OUT * IN];
    size_t block = f->block ? (size_t)f->block : IN;
    for (int square = 0; square < 2; square++) {
        ht_scale_options o = {.method = square ? HT_SCALE_MSE : HT_SCALE_L2_4, .importance = importance};
        requantized(f, m, &o, searched, NULL);
        for (int method = HT_SCALE_STANDARD; method <= HT_SCALE_MINMAX; method++) {
            requantized(f, m, &(ht_scale_options){.method = (ht_scale_method)method}, other, NULL);
            for (size_t at = 0; at < OUT * IN; at += block) {
                const float *weights = importance ? importance + at % IN : NULL;
                double p = square ? 2 : 2.4;
                double a = norm_of(m->values + at, searched + at, block, weights, p);
                double b = norm_of(m->values + at, other + at, block, weights, p);
                if (!(a <= b * (1 + 1e-5) + 1e-300))
                    fail_msg("%s, %s: |e|^%g sums to %g, by %s to %g, in the block at %zu", f->name, what, p, a,
                             ht_scale_method_name((ht_scale_method)method), b, at);
            }
        }
    }
}

static void a_search_is_never_worse_than_min_max_or_the_standard(void **state)
{
    static const char *const shapes[SHAPES] = {"normal", "outliers", "skewed", "flat", "tiny"};
    float w[OUT * IN];
    (void)state;
    for (int i = 0; i < NAMES; i++) {
        ht_format f = format_of(names[i]);
        for (int kind = 0; kind < SHAPES; kind++) {
            fill(w, OUT * IN, (shape)kind, 17 + (uint32_t)kind);
            assert_never_worse(&f, &(ht_matrix){"w", w, OUT, IN}, NULL, shapes[kind]);
        }
    }
}

static void neither_is_one_with_importance(void **state)
{
    float w[OUT * IN], importance[IN];
    uint32_t seed = 5;
    (void)state;
    fill(w, OUT * IN, OUTLIERS, 23);
    for (int k = 0; k < IN; k++)
        importance[k] = k % 7 ? (float)uniform(&seed) * 100 : 0;
    for (int i = 0; i < NAMES; i++) {
        ht_format f = format_of(names[i]);
        assert_never_worse(&f, &(ht_matrix){"w", w, OUT, IN}, importance, "importance");
    }
}

/* Both ends are on the grid, but on a scale that is one step smaller they are not; 2^-20 for the rounding of scales. */
static void min_max_clips_nothing_and_wastes_nothing(void **state)
{
    float w[OUT * IN];
    (void)state;
    fill(w, OUT * IN, OUTLIERS, 3);
    for (int i = 0; i < NAMES; i++) {
        ht_format f = format_of(names[i]);
        float values[OUT * IN], scales[OUT * IN] = {0};
        requantized(&f, &(ht_matrix){"w", w, OUT, IN}, &(ht_scale_options){.method = HT_SCALE_MINMAX}, values, scales);
        size_t block = f.block ? (size_t)f.block : IN;
        double smaller = f.scale == HT_F32 ? 1 - 0x1p-20 : f.scale == HT_F8_E8M0 ? 0.5 : 8.0 / 9;
        for (size_t at = 0; at < OUT * IN && !f.asymmetric; at += block) {
            double fill_of_grid = 0, scale = scales[at / block];
            for (size_t k = at; k < at + block; k++)
                fill_of_grid = fmax(fill_of_grid, w[k] / scale / (w[k] > 0 ? f.grid.highest : f.grid.lowest));
            if (!(fill_of_grid <= 1 + 0x1p-19 && fill_of_grid > smaller - 0x1p-19))
                fail_msg("%s: the block at %zu fills %g of its grid", f.name, at, fill_of_grid);
        }
    }
}

static void channels_do_not_know_of_each_other(void **state)
{
    float w[OUT * IN], whole[OUT * IN], alone[IN];
    (void)state;
    fill(w, OUT * IN, OUTLIERS, 29);
    for (int i = 0; i < NAMES; i++) {
        ht_format f = format_of(names[i]);
        if (f.scale == HT_F8_E4M3) /* these share a scale of the tensor */
            continue;
        ht_scale_options o = {.method = HT_SCALE_L2_4};
        requantized(&f, &(ht_matrix){"w", w, OUT, IN}, &o, whole, NULL);
        for (int row = 0; row < OUT; row++) {
            requantized(&f, &(ht_matrix){"w", w + row * IN, 1, IN}, &o, alone, NULL);
            assert_memory_equal(whole + row * IN, alone, sizeof alone);
        }
    }
}

static void powers_of_two_scale_everything_alike(void **state)
{
    float w[OUT * IN], scaled[OUT * IN], a[OUT * IN], b[OUT * IN];
    (void)state;
    fill(w, OUT * IN, OUTLIERS, 31);
    for (int i = 0; i < OUT * IN; i++)
        scaled[i] = w[i] * 0x1p70f;
    for (int i = 0; i < NAMES; i++) {
        ht_format f = format_of(names[i]);
        for (int method = 0; method < HT_SCALE_METHODS; method++) {
            ht_scale_options o = {.method = (ht_scale_method)method};
            requantized(&f, &(ht_matrix){"w", w, OUT, IN}, &o, a, NULL);
            requantized(&f, &(ht_matrix){"w", scaled, OUT, IN}, &o, b, NULL);
            for (int k = 0; k < OUT * IN; k++)
                if (!(a[k] * 0x1p70f == b[k]))
                    fail_msg("%s, %s: %a became %a, its multiple %a", f.name, ht_scale_method_name(o.method),
                             (double)w[k], (double)a[k], (double)b[k]);
        }
    }
}

/* ---- the candidates are those that format.h names ---- */

typedef struct part {
    const ht_format *format;
    const float *w, *importance;
    size_t n;
    float low, high;
    double tensor_scale, power, best;
} part;

static void try_block(part *p, const ht_grid *grid, double scale)
{
    float values[IN];
    ht_grid_simulate(grid, (float)scale, p->n, p->w, values);
    p->best = fmin(p->best, norm_of(p->w, values, p->n, p->importance, p->power));
}

static void try_float_scales(part *p)
{
    const ht_grid *grid = &p->format->grid;
    for (int percent = grid->exponent_bits > 1 ? 150 : 100; percent >= 21; percent--) {
        float x = (float)percent / 100;
        ht_block b = ht_format_block_of_range(p->format, p->low * x, p->high * x);
        ht_block mirrored = ht_format_block_of_range(p->format, -p->high * x, -p->low * x);
        try_block(p, &b.grid, b.scale);
        if (!p->format->asymmetric && grid->lowest != -grid->highest)
            try_block(p, grid, -mirrored.scale);
    }
}

static void try_stored_scales(part *p)
{
    const ht_grid *grid = &p->format->grid;
    double largest = fmaxf(-p->low, p->high), scale = largest / grid->highest / p->tensor_scale;
    for (int i = -1; i <= 1 && p->format->scale == HT_F8_E8M0; i++)
        try_block(p, grid, exp2(floor(log2(largest)) - floor(log2((double)grid->highest)) + i));
    for (int code = 1; code <= 0x7e && p->format->scale == HT_F8_E4M3; code++) {
        double units = ht_f32_from_f8_e4m3((uint8_t)code);
        if (units >= 0.5 * scale && units <= 1.5 * scale)
            try_block(p, grid, (float)units * (float)p->tensor_scale);
    }
}

static void assert_best(const ht_format *f, const float *w, const float *importance, ht_scale_method method)
{
    float values[OUT * IN], largest = 0;
    size_t block = f->block ? (size_t)f->block : IN;
    requantized(f, &(ht_matrix){"w", w, OUT, IN}, &(ht_scale_options){.method = method, .importance = importance},
                values, NULL);
    for (int i = 0; i < OUT * IN; i++)
        largest = fmaxf(largest, fabsf(w[i]));
    for (size_t at = 0; at < OUT * IN; at += block) {
        part p = {.format = f,
                  .w = w + at,
                  .importance = importance ? importance + at % IN : NULL,
                  .n = block,
                  .best = INFINITY};
        p.power = method == HT_SCALE_MSE ? 2 : 2.4;
        p.tensor_scale = largest / (448 * f->grid.highest);
        for (size_t i = 0; i < block; i++) {
            p.low = fminf(p.low, p.w[i]);
            p.high = fmaxf(p.high, p.w[i]);
        }
        if (f->scale == HT_F32)
            try_float_scales(&p);
        else
            try_stored_scales(&p);
        double got = norm_of(p.w, values + at, block, p.importance, p.power);
        if (!(got <= p.best * (1 + 1e-5)))
            fail_msg("%s, %s: the block at %zu has %g, a candidate %g", f->name, ht_scale_method_name(method), at, got,
                     p.best);
    }
}

static void a_search_finds_the_best_candidate(void **state)
{
    float w[OUT * IN], importance[IN];
    (void)state;
    for (int k = 0; k < IN; k++)
        importance[k] = k % 3 ? 1 + (float)(k % 5) : 0; /* where the largest weight does not count, small scales win */
    for (int kind = OUTLIERS; kind <= SKEWED; kind++) {
        fill(w, OUT * IN, (shape)kind, 41);
        w[IN + 7] = 2; /* a channel of which nearly everything is best clipped away */
        for (int i = 0; i < NAMES; i++) {
            ht_format f = format_of(names[i]);
            for (int method = HT_SCALE_MSE; method <= HT_SCALE_L2_4; method++) {
                assert_best(&f, w, NULL, (ht_scale_method)method);
                assert_best(&f, w, importance, (ht_scale_method)method);
            }
        }
    }
}

/* ---- single methods ---- */

static void a_search_clips_outliers(void **state)
{
    const ht_format f = format_of("int4");
    float w[IN], values[IN], searched = 0, all = 0;
    (void)state;
    fill(w, IN, NORMAL, 3);
    w[9] = 0.3f;
    requantized(&f, &(ht_matrix){"w", w, 1, IN}, &(ht_scale_options){.method = HT_SCALE_MINMAX}, values, &all);
    requantized(&f, &(ht_matrix){"w", w, 1, IN}, &(ht_scale_options){.method = HT_SCALE_MSE}, values, &searched);
    assert_true(fabsf(searched) < 0.8f * fabsf(all));
}

static void a_higher_norm_clips_less(void **state)
{
    const ht_format f = format_of("int4");
    float w[OUT * IN], values[OUT * IN], square[OUT] = {0}, higher[OUT] = {0};
    int larger = 0;
    (void)state;
    fill(w, OUT * IN, OUTLIERS, 3);
    requantized(&f, &(ht_matrix){"w", w, OUT, IN}, &(ht_scale_options){.method = HT_SCALE_MSE}, values, square);
    requantized(&f, &(ht_matrix){"w", w, OUT, IN}, &(ht_scale_options){.method = HT_SCALE_L2_4}, values, higher);
    for (int i = 0; i < OUT; i++) {
        assert_true(fabsf(higher[i]) >= fabsf(square[i]) * 0.99f);
        larger += fabsf(higher[i]) > fabsf(square[i]);
    }
    assert_true(larger > 0);
}

static void importance_keeps_what_it_marks(void **state)
{
    const ht_format f = format_of("int4");
    float w[IN], values[IN], importance[IN];
    (void)state;
    fill(w, IN, NORMAL, 3);
    w[9] = 0.3f;
    for (int i = 0; i < IN; i++)
        importance[i] = i == 9 ? 1e6f : 1;
    requantized(&f, &(ht_matrix){"w", w, 1, IN}, &(ht_scale_options){.method = HT_SCALE_MSE}, values, NULL);
    assert_true(fabsf(values[9] - 0.3f) > 0.05f);
    requantized(&f, &(ht_matrix){"w", w, 1, IN}, &(ht_scale_options){.method = HT_SCALE_MSE, .importance = importance},
                values, NULL);
    assert_true(fabsf(values[9] - 0.3f) < 0.003f);
}

/* -7 .. 8 is the mirror of int4's -8 .. 7: exact with a negative scale, and only so. */
static void twos_complement_is_tried_mirrored(void **state)
{
    const ht_format f = format_of("int4");
    float w[16], values[16], scale = 0;
    (void)state;
    for (int i = 0; i < 16; i++)
        w[i] = (float)(i - 7);
    requantized(&f, &(ht_matrix){"w", w, 1, 16}, &(ht_scale_options){.method = HT_SCALE_MSE}, values, &scale);
    assert_true(scale == -1);
    for (int i = 0; i < 16; i++)
        assert_true(values[i] == w[i]);
    requantized(&f, &(ht_matrix){"w", w, 1, 16}, &(ht_scale_options){.method = HT_SCALE_MINMAX}, values, &scale);
    assert_true(scale == 8 / 7.0f);
}

/* arXiv:2512.02010: a block of 0, 2, 3, 4 is exact when its largest becomes 4, not 6. */
static void the_largest_may_become_four_instead_of_six(void **state)
{
    static const char *const formats[] = {"nvfp4", "fp4_e2m1"};
    (void)state;
    for (int k = 0; k < 2; k++) {
        const ht_format f = format_of(formats[k]);
        float w[32], values[32];
        for (int i = 0; i < 32; i++)
            w[i] = i < 16 && k == 0 ? 2688
                                    : (float[]){0, 2, 3, 4}[i % 4]; /* the first block sets the tensor's scale to 1 */
        requantized(&f, &(ht_matrix){"w", w, 1, 32}, &(ht_scale_options){.method = HT_SCALE_MSE}, values, NULL);
        for (int i = 0; i < 32; i++)
            assert_true(fabsf(values[i] - w[i]) <= w[i] * 1e-6f);
        requantized(&f, &(ht_matrix){"w", w, 1, 32}, &(ht_scale_options){.method = HT_SCALE_STANDARD}, values, NULL);
        assert_true(fabsf(values[18] - w[18]) > 0.1f);
    }
}

static void zero_points_follow_a_range_off_center(void **state)
{
    const ht_format f = format_of("uint4");
    float w[16], values[16];
    (void)state;
    for (int i = 0; i < 16; i++)
        w[i] = 0.5f * (float)(i - 3);
    for (int method = 0; method < HT_SCALE_METHODS; method++) {
        ht_scale_options o = {.method = (ht_scale_method)method, .percentile = 100};
        requantized(&f, &(ht_matrix){"w", w, 1, 16}, &o, values, NULL);
        assert_memory_equal(values, w, sizeof w);
    }
    ht_block b = ht_format_block_of_range(&f, -1.5f, 6);
    assert_true(b.scale == 0.5f && b.grid.zero == 3);
    b = ht_format_block_of_range(&f, 2, 7.5f); /* 0 is always on the grid */
    assert_true(b.scale == 0.5f && b.grid.zero == 0);
    b = ht_format_block_of_range(&f, -7.5f, -1);
    assert_true(b.scale == 0.5f && b.grid.zero == 15);
}

/* |w| is 1 .. 11: numpy.percentile gives 10 at 90 and 10.5 at 95. */
static void percentiles_are_those_of_numpy(void **state)
{
    static const struct {
        double percentile, cut;
    } want[] = {{90, 10}, {95, 10.5}, {100, 11}, {50, 6}, {0, 10.99}, {5, 1.5}};
    const ht_format f = format_of("fp4_e2m1");
    float w[11], values[11], scale = 0;
    (void)state;
    for (int i = 0; i < 11; i++)
        w[i] = (float)((i * 7 % 11 + 1) * (i % 2 ? 1 : -1));
    for (size_t i = 0; i < sizeof want / sizeof *want; i++) {
        ht_scale_options o = {.method = HT_SCALE_PERCENTILE, .percentile = want[i].percentile};
        requantized(&f, &(ht_matrix){"w", w, 1, 11}, &o, values, &scale);
        if (!(fabs(scale * 6 - want[i].cut) <= 2e-6 * want[i].cut))
            fail_msg("percentile %g cuts at %g, want %g", want[i].percentile, (double)scale * 6, want[i].cut);
    }
}

static void methods_have_names(void **state)
{
    static const char *const want[HT_SCALE_METHODS] = {"standard", "minmax", "percentile", "mse", "l2.4"};
    (void)state;
    for (int i = 0; i < HT_SCALE_METHODS; i++) {
        assert_string_equal(ht_scale_method_name((ht_scale_method)i), want[i]);
        assert_int_equal(ht_scale_method_find(want[i]), i);
    }
    assert_int_equal(ht_scale_method_find("MSE"), -1);
    assert_int_equal(ht_scale_method_find(""), -1);
}

static void options_out_of_range_are_refused(void **state)
{
    static const float negative[4] = {1, 1, -1, 1}, no_number[4] = {1, NAN, 1, 1};
    const struct {
        ht_scale_options options;
        const char *words;
    } bad[] = {{{.method = HT_SCALE_METHODS}, "w: 5 is not a way"},
               {{.percentile = -1}, "percentile -1"},
               {{.percentile = 100.5}, "percentile 100.5"},
               {{.percentile = NAN}, "percentile nan"},
               {{.importance = negative}, "importance of input 2 is -1"},
               {{.importance = no_number}, "importance of input 1 is nan"}};
    const ht_format f = format_of("int8");
    float w[4] = {1, 2, 3, 4}, scale = -7;
    ht_quantized q = {.scales = &scale};
    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        assert_int_equal(ht_format_scales(&f, &(ht_matrix){"w", w, 1, 4}, &bad[i].options, &q), HT_ERR_ARGUMENT);
        if (!strstr(ht_error_message(), bad[i].words))
            fail_msg("\"%s\" does not say \"%s\"", ht_error_message(), bad[i].words);
        assert_true(scale == -7);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_search_is_never_worse_than_min_max_or_the_standard),
        cmocka_unit_test(neither_is_one_with_importance),
        cmocka_unit_test(min_max_clips_nothing_and_wastes_nothing),
        cmocka_unit_test(channels_do_not_know_of_each_other),
        cmocka_unit_test(powers_of_two_scale_everything_alike),
        cmocka_unit_test(a_search_finds_the_best_candidate),
        cmocka_unit_test(a_search_clips_outliers),
        cmocka_unit_test(a_higher_norm_clips_less),
        cmocka_unit_test(importance_keeps_what_it_marks),
        cmocka_unit_test(twos_complement_is_tried_mirrored),
        cmocka_unit_test(the_largest_may_become_four_instead_of_six),
        cmocka_unit_test(zero_points_follow_a_range_off_center),
        cmocka_unit_test(percentiles_are_those_of_numpy),
        cmocka_unit_test(methods_have_names),
        cmocka_unit_test(options_out_of_range_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
