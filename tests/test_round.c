/* test_round.c - rounding methods: what each promises, in every format.  GPTQ itself: test_gptq.c. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/rounding.h"

static void methods_are_found_by_their_names(void **state)
{
    (void)state;
    for (int i = 0; i < HT_ROUNDINGS; i++)
        assert_int_equal(ht_rounding_find(ht_rounding_name((ht_rounding)i)), i);
    assert_int_equal(ht_rounding_find("gptq+descent"), HT_ROUND_GPTQ_DESCENT);
    assert_int_equal(ht_rounding_find("best"), -1);
    assert_string_equal(ht_rounding_name(HT_ROUNDINGS), "?");
}

static void nearest_is_what_the_format_encodes(void **state)
{
    layer l = layer_of(OUT, IN, SAMPLES, IN, 5);
    float importance[IN];
    (void)state;
    for (size_t i = 0; i < IN; i++)
        importance[i] = l.h[i * IN + i];
    for (int f = 0; f < FORMATS; f++) {
        rounded r = round_layer(formats[f], &l, options_of(HT_ROUND_NEAREST)), want = r;
        ht_scale_options o = {.method = HT_SCALE_MSE, .importance = importance};
        assert_ok(ht_quantized_alloc(r.arena, &r.format, &l.matrix, &want.q));
        assert_ok(ht_format_quantize(&r.format, &l.matrix, &o, &want.q));
        assert_same_codes(&r, &want, "nearest");
        assert_true(r.error.before == r.error.after);
        ht_arena_free(r.arena);
    }
    free_layer(&l);
}

static void errors_are_those_of_what_is_stored(void **state)
{
    layer l = layer_of(OUT, IN, SAMPLES, IN, 6);
    double *w = malloc(OUT * IN * sizeof *w), signal = 0;
    (void)state;
    assert_non_null(w);
    for (size_t i = 0; i < OUT * IN; i++)
        w[i] = l.w[i];
    for (size_t row = 0; row < OUT; row++)
        signal += energy(&l, w, row);
    for (int f = 0; f < FORMATS; f++)
        for (int method = 0; method < HT_ROUNDINGS; method++) {
            ht_round_options o = options_of((ht_rounding)method);
            o.candidates = 1;
            rounded r = round_layer(formats[f], &l, o);
            double *e = difference(&l, &r), noise = 0;
            for (size_t row = 0; row < OUT; row++)
                noise += energy(&l, e, row);
            if (!(fabs(noise / signal - r.error.after) <= 1e-4 * r.error.after))
                fail_msg("%s, %s: %g is reported, stored is %g", formats[f], ht_rounding_name(o.method), r.error.after,
                         noise / signal);
            free(e);
            ht_arena_free(r.arena);
        }
    free(w);
    free_layer(&l);
}

static void no_method_with_descent_is_worse_than_where_it_starts(void **state)
{
    (void)state;
    for (uint32_t seed = 1; seed < 4; seed++)
        for (int f = 0; f < FORMATS; f++) {
            layer l = layer_of(OUT, IN, seed == 3 ? IN / 2 : SAMPLES, IN, seed); /* the last: singular moments */
            double error[HT_ROUNDINGS];
            for (int method = 0; method < HT_ROUNDINGS; method++) {
                rounded r = round_layer(formats[f], &l, options_of((ht_rounding)method));
                error[method] = r.error.after;
                ht_arena_free(r.arena);
            }
            assert_true(error[HT_ROUND_DESCENT] < error[HT_ROUND_NEAREST]);
            assert_true(error[HT_ROUND_ADAROUND] <= error[HT_ROUND_NEAREST]);
            assert_true(error[HT_ROUND_GPTQ_DESCENT] <= error[HT_ROUND_GPTQ]);
            free_layer(&l);
        }
}

static void more_sweeps_fits_and_candidates_only_help(void **state)
{
    layer l = layer_of(OUT, IN, SAMPLES, IN, 7);
    (void)state;
    for (int f = 0; f < FORMATS; f++) {
        ht_round_options steps[] = {{.sweeps = 1, .keep_scales = true},
                                    {.sweeps = 2, .keep_scales = true},
                                    {.sweeps = 99, .keep_scales = true},
                                    {.sweeps = 99},
                                    {.sweeps = 99, .candidates = 2}};
        double last = INFINITY;
        for (size_t i = 0; i < sizeof steps / sizeof *steps; i++) {
            steps[i].method = HT_ROUND_DESCENT;
            rounded r = round_layer(formats[f], &l, steps[i]);
            if (!(r.error.after <= last * (1 + 1e-12)))
                fail_msg("%s: step %zu has error %g, after %g", formats[f], i, r.error.after, last);
            last = r.error.after;
            ht_arena_free(r.arena);
        }
    }
    free_layer(&l);
}

/* One block of moments stands for a matrix with that block all along its diagonal; none for the identity. */
static void a_block_of_moments_is_the_matrix_of_such_blocks(void **state)
{
    enum { BLOCK = 16 };
    layer l = layer_of(OUT, IN, SAMPLES, 5, 9), small = l;
    (void)state;
    for (int identity = 0; identity < 2; identity++) {
        small.h = malloc(BLOCK * BLOCK * sizeof *small.h);
        assert_non_null(small.h);
        for (size_t i = 0; i < BLOCK * BLOCK; i++)
            small.h[i] = l.h[i / BLOCK * IN + i % BLOCK];
        float *block = small.h;
        for (size_t i = 0; i < (size_t)IN * IN; i++)
            l.h[i] = i / IN / BLOCK != i % IN / BLOCK ? 0
                     : identity                       ? (float)(i / IN == i % IN)
                                                      : block[i / IN % BLOCK * BLOCK + i % BLOCK];
        small.h = identity ? NULL : block;
        for (int f = 0; f < FORMATS; f++)
            for (int method = 0; method < HT_ROUNDINGS; method++) {
                ht_round_options o = options_of((ht_rounding)method);
                rounded whole = round_layer(formats[f], &l, o);
                o.moments_block = BLOCK;
                rounded by_block = round_layer(formats[f], &small, o);
                assert_same_codes(&whole, &by_block, ht_rounding_name(o.method));
                assert_true(fabs(whole.error.after - by_block.error.after) <= 1e-9 * whole.error.after);
                ht_arena_free(whole.arena);
                ht_arena_free(by_block.arena);
            }
        free(block);
    }
    free_layer(&l);
}

static void blocks_of_moments_divide_the_inputs(void **state)
{
    layer l = layer_of(OUT, IN, SAMPLES, IN, 9);
    ht_format f;
    ht_quantized q;
    ht_arena *arena = ht_arena_create();
    ht_round_options o = options_of(HT_ROUND_GPTQ);
    (void)state;
    o.moments_block = 24;
    assert_ok(ht_format_find("int4", &f));
    assert_ok(ht_quantized_alloc(arena, &f, &l.matrix, &q));
    assert_int_equal(ht_round(&f, &l.matrix, l.h, &o, &q, NULL), HT_ERR_ARGUMENT);
    assert_non_null(strstr(ht_error_message(), "do not divide its 64 inputs"));
    ht_arena_free(arena);
    free_layer(&l);
}

static void scales_fit_their_codes(void **state)
{
    layer l = layer_of(OUT, IN, SAMPLES, IN, 8);
    ht_round_options fixed = options_of(HT_ROUND_GPTQ_DESCENT), fitted = fixed;
    (void)state;
    fixed.keep_scales = true;
    rounded a = round_layer("int4", &l, fixed), b = round_layer("int4", &l, fitted);
    assert_true(b.error.after < a.error.after);
    double *e = difference(&l, &b);
    for (size_t row = 0; row < OUT; row++) { /* at the least-squares scale, (w - v) H v^T = 0 */
        double along = 0, size = energy(&l, e, row), v2 = 0;
        for (size_t i = 0; i < IN; i++)
            for (size_t j = 0; j < IN; j++) {
                double vj = l.w[row * IN + j] - e[row * IN + j], vi = l.w[row * IN + i] - e[row * IN + i];
                along += e[row * IN + i] * l.h[i * IN + j] * vj;
                v2 += vi * l.h[i * IN + j] * vj;
            }
        assert_true(fabs(along) < 1e-4 * sqrt(size * v2));
    }
    free(e);
    ht_arena_free(b.arena);
    ht_arena_free(a.arena);
    free_layer(&l);
}

/* No code of any weight of row `row` can be another and the error less. */
static void assert_no_single_change_helps(const layer *l, const rounded *r, double *e, size_t row)
{
    size_t n = l->matrix.in;
    double now = energy(l, e, row), signal = now;
    for (size_t k = 0; k < n; k++) {
        ht_block block = ht_format_block(&r->format, &r->q, row * r->sizes.blocks + k * r->sizes.blocks / n);
        double kept = e[row * n + k];
        for (int code = 0; code < 1 << block.grid.bits; code++) {
            double value = ht_grid_decode(&block.grid, (uint8_t)code);
            if (!(value >= block.grid.lowest && value <= block.grid.highest))
                continue;
            e[row * n + k] = l->w[row * n + k] - value * block.scale;
            if (!(energy(l, e, row) >= now - 1e-5 * signal))
                fail_msg("%s: weight %zu of channel %zu had better be %g", r->format.name, k, row, value);
        }
        e[row * n + k] = kept;
    }
}

static void descent_ends_where_no_single_change_helps(void **state)
{
    layer l = layer_of(5, 32, 90, 32, 9);
    (void)state;
    for (int f = 0; f < FORMATS; f++) {
        ht_round_options o = options_of(f % 2 ? HT_ROUND_DESCENT : HT_ROUND_GPTQ_DESCENT);
        o.keep_scales = true;
        rounded r = round_layer(formats[f], &l, o);
        double *e = difference(&l, &r);
        for (size_t row = 0; row < 5; row++)
            assert_no_single_change_helps(&l, &r, e, row);
        free(e);
        ht_arena_free(r.arena);
    }
    free_layer(&l);
}

/* The least error of row 0 over all choices between neighbours. */
static double brute_force(const layer *l, const rounded *r)
{
    size_t n = l->matrix.in;
    double least = INFINITY, e[16];
    for (unsigned choice = 0; choice < 1u << n; choice++) {
        for (size_t k = 0; k < n; k++) {
            ht_block block = ht_format_block(&r->format, &r->q, k * r->sizes.blocks / n);
            ht_neighbours c = ht_grid_neighbours(&block.grid, l->w[k] / block.scale);
            e[k] = l->w[k] - (double)(choice >> k & 1 ? c.high : c.low) * block.scale;
        }
        least = fmin(least, energy(l, e, 0));
    }
    return least;
}

/* Of the error that nearest codes have above the best of all choices, AdaRound leaves less than this share, summed over
 * small layers in these formats. */
static void comes_near_the_best(const char *const *of, int n, double share)
{
    double best = 0, found = 0, nearest = 0;
    for (uint32_t seed = 1; seed <= 40; seed++) {
        layer l = layer_of(1, 8, 40, 8, seed * 77);
        ht_round_options o = options_of(HT_ROUND_ADAROUND);
        o.iterations = 400;
        rounded r = round_layer(of[seed % (uint32_t)n], &l, o);
        double w[8], signal, least = brute_force(&l, &r);
        for (int k = 0; k < 8; k++)
            w[k] = l.w[k];
        signal = energy(&l, w, 0);
        assert_true(r.error.after * signal >= least * (1 - 1e-4));
        best += least / signal;
        found += r.error.after;
        nearest += r.error.before;
        ht_arena_free(r.arena);
        free_layer(&l);
    }
    if (!(found - best < share * (nearest - best)))
        fail_msg("%s ...: best %g, found %g, nearest %g", of[0], best, found, nearest);
}

static void adaround_comes_near_the_best_of_all_choices(void **state)
{
    (void)state;
    comes_near_the_best((const char *const[]){"int4", "fp4_e2m1", "int2", "uint4"}, 4, 0.4);
    comes_near_the_best((const char *const[]){"fp6_e3m2"}, 1, 0.4);
    comes_near_the_best((const char *const[]){"fp4_e3m0"}, 1, 0.45); /* neighbours a factor of two apart */
}

/* On float grids too, where what lies between them is not the same everywhere (FP4DiT's generalization). */
static void adaround_chooses_between_the_two_neighbours(void **state)
{
    layer l = layer_of(OUT, IN, SAMPLES, IN, 21);
    int up = 0, down = 0;
    (void)state;
    for (int f = 0; f < FORMATS; f++) {
        ht_round_options o = options_of(HT_ROUND_ADAROUND);
        o.iterations = 200;
        rounded r = round_layer(formats[f], &l, o);
        double *e = difference(&l, &r);
        for (size_t i = 0; i < OUT * IN; i++) {
            ht_block block = ht_format_block(&r.format, &r.q, i * r.sizes.blocks / IN);
            ht_neighbours n = ht_grid_neighbours(&block.grid, l.w[i] / block.scale);
            double low = l.w[i] - (double)n.low * block.scale, high = l.w[i] - (double)n.high * block.scale;
            double slack = 1e-6 * fabs((double)block.scale) * block.grid.highest;
            if (!(fabs(e[i] - low) <= slack || fabs(e[i] - high) <= slack))
                fail_msg("%s: weight %zu is off by %g, its neighbours by %g and %g", formats[f], i, e[i], low, high);
            bool nearest = fabs(e[i]) <= fmin(fabs(low), fabs(high)) + slack;
            up += !nearest;
            down += nearest;
        }
        free(e);
        ht_arena_free(r.arena);
    }
    assert_true(up > down / 20); /* and not always the nearer one */
    free_layer(&l);
}

static void independent_inputs_get_the_nearest_codes(void **state)
{
    layer l = layer_of(OUT, IN, SAMPLES, 3, 12);
    (void)state;
    forget_correlations(&l);
    for (int f = 0; f < FORMATS; f++) {
        rounded nearest = round_layer(formats[f], &l, options_of(HT_ROUND_NEAREST));
        for (int method = 1; method < HT_ROUNDINGS; method++) {
            ht_round_options o = options_of((ht_rounding)method);
            o.keep_scales = true;
            rounded r = round_layer(formats[f], &l, o);
            assert_same_codes(&r, &nearest, ht_rounding_name(o.method));
            ht_arena_free(r.arena);
        }
        ht_arena_free(nearest.arena);
    }
    free_layer(&l);
}

static void dead_inputs_get_the_nearest_codes_and_change_nothing(void **state)
{
    enum { DEAD = 10 };
    (void)state;
    for (int method = 0; method < HT_ROUNDINGS; method++) {
        layer l = layer_of(OUT, IN, SAMPLES, DEAD, 13);
        ht_round_options o = options_of((ht_rounding)method);
        o.keep_scales = true;
        for (size_t row = 0; row < OUT; row++) /* never the largest, so that scales stay */
            l.w[row * IN + DEAD] *= 0.3f;
        rounded a = round_layer("int4", &l, o);
        for (size_t row = 0; row < OUT; row++) {
            ht_block b = ht_format_block(&a.format, &a.q, row);
            uint8_t code = a.q.codes[row * IN / 2 + DEAD / 2] & 15;
            assert_int_equal(code, ht_grid_encode(&b.grid, l.w[row * IN + DEAD] / b.scale));
            l.w[row * IN + DEAD] = 0;
        }
        rounded b = round_layer("int4", &l, o);
        for (size_t i = 0; i < a.sizes.code_bytes; i++)
            if (i % (IN / 2) != DEAD / 2)
                assert_int_equal(a.q.codes[i], b.q.codes[i]);
        assert_true(a.error.after == b.error.after);
        ht_arena_free(b.arena);
        ht_arena_free(a.arena);
        free_layer(&l);
    }
}

static void layers_that_only_see_zeros_have_no_error(void **state)
{
    layer l = layer_of(OUT, IN, SAMPLES, IN, 14);
    (void)state;
    memset(l.h, 0, IN * IN * sizeof *l.h);
    for (int method = 0; method < HT_ROUNDINGS; method++) {
        rounded r = round_layer("int4", &l, options_of((ht_rounding)method));
        assert_true(r.error.before == 0 && r.error.after == 0);
        ht_arena_free(r.arena);
    }
    free_layer(&l);
}

static void without_moments_inputs_count_alike(void **state)
{
    layer l = layer_of(OUT, IN, SAMPLES, IN, 15);
    float *h = l.h;
    (void)state;
    for (size_t i = 0; i < IN * IN; i++)
        h[i] = i / IN == i % IN;
    rounded a = round_layer("int4", &l, options_of(HT_ROUND_GPTQ_DESCENT));
    l.h = NULL;
    rounded b = round_layer("int4", &l, options_of(HT_ROUND_GPTQ_DESCENT));
    assert_same_codes(&a, &b, "identity");
    assert_true(a.error.after == b.error.after);
    l.h = h;
    ht_arena_free(b.arena);
    ht_arena_free(a.arena);
    free_layer(&l);
}

/* Row r of one is row (r * 7) % OUT of the other. */
static void rows_are_rounded_the_same_in_any_order(void **state)
{
    layer l = layer_of(OUT, IN, SAMPLES, IN, 16), turned = layer_of(OUT, IN, SAMPLES, IN, 16);
    (void)state;
    for (size_t r = 0; r < OUT; r++)
        memcpy(turned.w + r * 7 % OUT * IN, l.w + r * IN, IN * sizeof *l.w);
    for (int f = 0; f < FORMATS; f++)
        for (int method = 0; method < HT_ROUNDINGS; method++) {
            ht_round_options o = options_of((ht_rounding)method);
            o.candidates = 1;
            rounded a = round_layer(formats[f], &l, o), b = round_layer(formats[f], &turned, o);
            size_t codes = a.sizes.row_bytes, scales = a.sizes.scale_bytes / OUT;
            for (size_t r = 0; r < OUT; r++) {
                assert_memory_equal(a.q.codes + r * codes, b.q.codes + r * 7 % OUT * codes, codes);
                assert_memory_equal((uint8_t *)a.q.scales + r * scales, (uint8_t *)b.q.scales + r * 7 % OUT * scales,
                                    scales);
            }
            ht_arena_free(b.arena);
            ht_arena_free(a.arena);
        }
    free_layer(&turned);
    free_layer(&l);
}

static void rounding_twice_gives_the_same_bits(void **state)
{
    layer l = layer_of(OUT, IN, SAMPLES, IN, 17);
    (void)state;
    for (int method = 0; method < HT_ROUNDINGS; method++) {
        rounded a = round_layer("int4_g32", &l, options_of((ht_rounding)method));
        rounded b = round_layer("int4_g32", &l, options_of((ht_rounding)method));
        assert_same_codes(&a, &b, "twice");
        assert_memory_equal(&a.error, &b.error, sizeof a.error);
        ht_arena_free(b.arena);
        ht_arena_free(a.arena);
    }
    free_layer(&l);
}

/* The moments times 2^8: all that is compared is scaled with them. */
static void the_factor_of_moments_does_not_matter(void **state)
{
    layer l = layer_of(OUT, IN, SAMPLES, IN, 18);
    (void)state;
    for (int method = 0; method < HT_ROUNDINGS; method++) {
        rounded a = round_layer("int4", &l, options_of((ht_rounding)method));
        for (size_t i = 0; i < IN * IN; i++)
            l.h[i] *= 256;
        rounded b = round_layer("int4", &l, options_of((ht_rounding)method));
        assert_same_codes(&a, &b, ht_rounding_name((ht_rounding)method));
        ht_arena_free(b.arena);
        ht_arena_free(a.arena);
    }
    free_layer(&l);
}

static void assert_refused(const layer *l, const char *format, ht_round_options o, ht_status want, const char *word)
{
    ht_arena *arena = ht_arena_create();
    ht_format f;
    ht_quantized q;
    ht_matrix whole = {l->matrix.name, l->w, OUT, IN};
    assert_ok(ht_format_find(format, &f));
    assert_ok(ht_quantized_alloc(arena, f.block == 48 ? ht_format_at(0) : &f, &whole, &q));
    assert_int_equal(ht_round(&f, &l->matrix, l->h, &o, &q, NULL), want);
    if (!strstr(ht_error_message(), "mid.to_k") || !strstr(ht_error_message(), word))
        fail_msg("\"%s\" names neither the layer nor %s", ht_error_message(), word);
    ht_arena_free(arena);
}

static void bad_options_are_refused_with_the_name_of_the_layer(void **state)
{
    static const struct {
        ht_round_options options;
        const char *word;
    } cases[] = {
        {{.method = HT_ROUNDINGS}, "way to round"},
        {{.scale = HT_SCALE_METHODS}, "find scales"},
        {{.scale = HT_SCALE_PERCENTILE, .percentile = 101}, "percentile"},
        {{.sweeps = -1}, "sweeps"},
        {{.iterations = 100000000}, "iterations"},
        {{.candidates = -1}, "scales on either side"},
        {{.candidates = 1000}, "scales on either side"},
        {{.dampening = -0.1}, "dampening"},
        {{.dampening = NAN}, "dampening"},
        {{.rate = 2}, "rate"},
        {{.weight = -1}, "weight"},
    };
    layer l = layer_of(OUT, IN, SAMPLES, IN, 19);
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        assert_refused(&l, "int4", cases[i].options, HT_ERR_ARGUMENT, cases[i].word);
    assert_refused(&l, "int4_g48", options_of(HT_ROUND_GPTQ), HT_ERR_SHAPE, "groups");
    free_layer(&l);
}

static void bad_moments_are_refused_with_the_name_of_the_layer(void **state)
{
    static const struct {
        size_t at;
        float value;
    } cases[] = {{5 * IN + 5, -1},   {5 * IN + 4, NAN},  {7 * IN + 7, INFINITY},
                 {9 * IN + 2, 1e9f}, {2 * IN + 9, 1e9f}, {3 * IN + 3, 0}};
    layer l = layer_of(OUT, IN, SAMPLES, IN, 20);
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        float kept = l.h[cases[i].at];
        l.h[cases[i].at] = cases[i].value;
        assert_refused(&l, "int4", options_of(HT_ROUND_NEAREST), HT_ERR_ARGUMENT, "moment");
        l.h[cases[i].at] = kept;
    }
    for (size_t i = 0; i < IN * IN; i++) /* each pair could be, all together not: -1/2 between any two */
        l.h[i] = i / IN == i % IN ? 1 : -0.5f;
    assert_refused(&l, "int4", options_of(HT_ROUND_GPTQ), HT_ERR_ARGUMENT, "not positive");
    free_layer(&l);
    l = layer_of(OUT, IN, SAMPLES, IN, 21);
    l.w[77] = NAN;
    assert_refused(&l, "int4", options_of(HT_ROUND_DESCENT), HT_ERR_ARGUMENT, "weight 77");
    free_layer(&l);
}

/* ---- stopping ---- */

typedef struct patience {
    int asked, most;
} patience;

static bool is_over(void *user)
{
    patience *p = user;
    return ++p->asked > p->most;
}

/* Between rows, candidates and Adam's steps, so that nobody waits for a whole layer. */
static void rounding_stops_as_soon_as_it_is_told(void **state)
{
    (void)state;
    static const struct {
        ht_rounding method;
        int candidates, asked; /* 19 rows are two turns of 16 */
    } cases[] = {
        {HT_ROUND_NEAREST, 0, 2}, {HT_ROUND_GPTQ, 0, 2}, {HT_ROUND_GPTQ_DESCENT, 3, 14}, {HT_ROUND_ADAROUND, 0, 42}};
    layer l = layer_of(OUT, IN, SAMPLES, IN, 33);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        for (int most = 0; most <= cases[i].asked; most++) {
            patience p = {.most = most};
            ht_round_options o = options_of(cases[i].method);
            o.candidates = cases[i].candidates;
            o.iterations = 20;
            o.stop = is_over;
            o.user = &p;
            if (most < cases[i].asked)
                assert_refused(&l, "int4", o, HT_ERR_CANCELLED, "cancelled");
            else
                ht_arena_free(round_layer("int4", &l, o).arena);
            assert_int_equal(p.asked, most < cases[i].asked ? most + 1 : cases[i].asked);
        }
    free_layer(&l);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(methods_are_found_by_their_names),
        cmocka_unit_test(nearest_is_what_the_format_encodes),
        cmocka_unit_test(errors_are_those_of_what_is_stored),
        cmocka_unit_test(no_method_with_descent_is_worse_than_where_it_starts),
        cmocka_unit_test(more_sweeps_fits_and_candidates_only_help),
        cmocka_unit_test(a_block_of_moments_is_the_matrix_of_such_blocks),
        cmocka_unit_test(blocks_of_moments_divide_the_inputs),
        cmocka_unit_test(scales_fit_their_codes),
        cmocka_unit_test(descent_ends_where_no_single_change_helps),
        cmocka_unit_test(adaround_comes_near_the_best_of_all_choices),
        cmocka_unit_test(adaround_chooses_between_the_two_neighbours),
        cmocka_unit_test(independent_inputs_get_the_nearest_codes),
        cmocka_unit_test(dead_inputs_get_the_nearest_codes_and_change_nothing),
        cmocka_unit_test(layers_that_only_see_zeros_have_no_error),
        cmocka_unit_test(without_moments_inputs_count_alike),
        cmocka_unit_test(rows_are_rounded_the_same_in_any_order),
        cmocka_unit_test(rounding_twice_gives_the_same_bits),
        cmocka_unit_test(the_factor_of_moments_does_not_matter),
        cmocka_unit_test(rounding_stops_as_soon_as_it_is_told),
        cmocka_unit_test(bad_options_are_refused_with_the_name_of_the_layer),
        cmocka_unit_test(bad_moments_are_refused_with_the_name_of_the_layer),
    };
    return cmocka_run_group_tests_name("round", tests, NULL, NULL);
}
