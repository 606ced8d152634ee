/* test_rng.c - the generators give the published words, PyTorch's draws, and our own streams. */
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
#include <jansson.h>

#include "core/dtype.h"
#include "core/elementary.h"
#include "core/rng.h"
#include "core/safetensors.h"

#define GOLDENS "tests/goldens/"

/* ---- goldens ---- */

static ht_safetensors *open_golden(const char *path)
{
    ht_safetensors *st = NULL;
    if (ht_safetensors_open(path, &st))
        fail_msg("%s", ht_error_message());
    return st;
}

static double element(const ht_tensor *t, size_t i)
{
    const char *p = (const char *)t->data + i * (t->bytes / t->count);
    float f;
    double d;
    int64_t n;
    switch (t->dtype) {
    case HT_F64:
        memcpy(&d, p, sizeof d);
        return d;
    case HT_I64:
        memcpy(&n, p, sizeof n);
        return (double)n;
    default:
        assert_int_equal(1, ht_convert_to_f32(t->dtype, t->data, i, 1, &f));
        return f;
    }
}

/* How far a value may be from the golden one: absolute + relative |golden|. */
typedef struct bound {
    double absolute, relative;
} bound;

static void assert_near(const ht_tensor *t, const double *got, bound b)
{
    for (size_t i = 0; i < t->count; i++) {
        double want = element(t, i);
        if (!(fabs(got[i] - want) <= b.absolute + b.relative * fabs(want)))
            fail_msg("%s[%zu] is %.9g, want %.9g", t->name, i, got[i], want);
    }
}

/* The golden file has a draw whole, or its beginning and its end under two more names. */
static void assert_draw(const ht_safetensors *st, const char *name, const char *first, const char *last,
                        const double *got, size_t n, bound b)
{
    char part[128];
    const ht_tensor *t = ht_safetensors_find(st, name);
    int found = t != NULL;
    if (t)
        assert_near(t, got, b);
    snprintf(part, sizeof part, "%s%s", name, first);
    t = ht_safetensors_find(st, part);
    found += t != NULL;
    if (t)
        assert_near(t, got, b);
    snprintf(part, sizeof part, "%s%s", name, last);
    t = ht_safetensors_find(st, part);
    if (t)
        assert_near(t, got + n - t->count, b);
    if (found != 1)
        fail_msg("%s is in the golden file %d times", name, found);
}

static void assert_sum(const char *name, const double *x, size_t n, double want, double tolerance)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += x[i];
    if (!(fabs(sum - want) <= tolerance))
        fail_msg("%s sums to %.9g, want %.9g", name, sum, want);
}

static double *new_values(size_t n)
{
    double *x = malloc(n * sizeof *x);
    assert_non_null(x);
    return x;
}

/* ---- generators ---- */

static void mt19937_gives_the_published_words(void **state)
{
    ht_mt19937 g;
    uint32_t word = 0;
    (void)state;
    ht_mt19937_seed(&g, 5489); /* the C++ standard, [rand.predef]: the 10000th word of mt19937 */
    for (int i = 0; i < 10000; i++)
        word = ht_mt19937_u32(&g);
    assert_int_equal(4123659995u, word);
    ht_mt19937_seed(&g, UINT64_C(7) << 32 | 5489); /* only the low half of a seed counts */
    assert_int_equal(UINT64_C(3499211612) << 32 | 581869302u, ht_mt19937_u64(&g));
}

static void philox_gives_the_published_words(void **state)
{
    static const struct {
        uint32_t counter[4], key[2], words[4];
    } known[] = {
        /* kat_vectors of Random123, philox4x32 10 */
        {{0, 0, 0, 0}, {0, 0}, {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}},
        {{~0u, ~0u, ~0u, ~0u}, {~0u, ~0u}, {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}},
        {{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344},
         {0xa4093822, 0x299f31d0},
         {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}},
    };
    (void)state;
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        uint32_t words[4];
        ht_philox4x32(known[i].counter, known[i].key, words);
        assert_memory_equal(known[i].words, words, sizeof words);
    }
}

/* ---- elementary functions ---- */

static double ulps(double got, long double want)
{
    int exponent;
    frexp((double)want, &exponent);
    return (double)(fabsl(got - want) / ldexpl(1, exponent - DBL_MANT_DIG));
}

/* Arguments everywhere, and close to 1 from both sides, where the logarithm has to keep its relative accuracy. */
static void log_is_within_3_ulp_of_the_long_double_one(void **state)
{
    ht_mt19937 g;
    (void)state;
    assert_true(ht_log(1) == 0);
    ht_mt19937_seed(&g, 1);
    for (int i = 0; i < 50000; i++) {
        double u[2];
        ht_mt19937_rand_f64(&g, 2, u);
        double near_one = ldexp(u[0], -(int)(u[1] * 52));
        double xs[] = {1 - u[0], ldexp(1 + u[0], (int)(u[1] * 2000) - 1000), 1 - near_one, 1 + near_one};
        for (int k = 0; k < 4; k++)
            if (xs[k] > 0 && xs[k] != 1 && !(ulps(ht_log(xs[k]), logl(xs[k])) <= 3))
                fail_msg("log(%a) is %a", xs[k], ht_log(xs[k]));
    }
}

static void exponential_is_within_three_ulps(void **state)
{
    ht_mt19937 g;
    (void)state;
    assert_true(ht_exp(0) == 1);
    ht_mt19937_seed(&g, 3);
    for (int i = 0; i < 50000; i++) {
        double u[2];
        ht_mt19937_rand_f64(&g, 2, u);
        double xs[] = {1400 * u[0] - 700, 20 * u[0] - 10, ldexp(u[0] - 0.5, -(int)(u[1] * 40))};
        for (int k = 0; k < 3; k++)
            if (!(ulps(ht_exp(xs[k]), expl(xs[k])) <= 3))
                fail_msg("exp(%a) is %a", xs[k], ht_exp(xs[k]));
    }
}

static void powers_are_close_to_the_long_double_ones(void **state)
{
    (void)state;
    static const double xs[] = {0.9, 0.999, 1e-12, 0.0371, 1, 1.5, 77.25}, ys[] = {1, 2, 2.4, 19, 1000, 1e6, 0.3};
    assert_true(ht_pow(0, 2.4) == 0);
    assert_true(ht_pow(0.9, 1e5) == 0);
    for (size_t i = 0; i < sizeof xs / sizeof *xs; i++)
        for (size_t k = 0; k < sizeof ys / sizeof *ys; k++) {
            double power = ys[k] * log(xs[i]);
            if (fabs(power) < 700 && !(ulps(ht_pow(xs[i], ys[k]), powl(xs[i], ys[k])) <= 8 * (1 + fabs(power))))
                fail_msg("%a to the power of %a is %a", xs[i], ys[k], ht_pow(xs[i], ys[k]));
        }
}

/* sin and cos of turns by the identity with the angle left after whole quarter turns, which is exact. */
static void sine_and_cosine_are_within_3_ulp_of_the_long_double_ones(void **state)
{
    static const long double half_pi = 1.57079632679489661923132169163975144L;
    ht_mt19937 g;
    (void)state;
    ht_mt19937_seed(&g, 2);
    for (int i = 0; i < 50000; i++) {
        double u[2], s, c;
        ht_mt19937_rand_f64(&g, 2, u);
        int quarter = (int)(u[0] * 9) - 4;
        double rest = (i & 1 ? -0.125 : 0.125) * ldexp(u[1], -(i % 40)), turns = 0.25 * quarter + rest;
        rest = turns - 0.25 * quarter; /* what the sum kept */
        long double a = 4 * (long double)rest * half_pi, sines[] = {sinl(a), cosl(a), -sinl(a), -cosl(a)};
        long double want_s = sines[quarter & 3], want_c = sines[(quarter + 1) & 3];
        ht_sincos_turns(turns, &s, &c);
        if (!((want_s == 0 ? s == 0 : ulps(s, want_s) <= 3) && (want_c == 0 ? c == 0 : ulps(c, want_c) <= 3)))
            fail_msg("sine and cosine of %a turns are %a, %a", turns, s, c);
    }
}

/* ---- torch's CPU generator ---- */

/* float32: PyTorch's vectorized log and cos, a few 2^-24 of a value of at most 5.  float64: the same in its last
 * places.  16 bits: our value before its rounding, so half a unit in their last place. */
static bound cpu_bound(const char *dtype)
{
    return !strcmp(dtype, "float64")    ? (bound){1e-14, 0}
           : !strcmp(dtype, "float16")  ? (bound){1e-6, 0x1p-11}
           : !strcmp(dtype, "bfloat16") ? (bound){1e-6, 0x1p-8}
                                        : (bound){1e-6, 0};
}

static void widen(const float *x, size_t n, double *out)
{
    for (size_t i = 0; i < n; i++)
        out[i] = x[i];
}

static void randn_cpu(ht_mt19937 *g, const char *dtype, size_t n, double *out)
{
    if (!strcmp(dtype, "float64")) {
        ht_mt19937_randn_f64(g, n, out);
        return;
    }
    float *x = malloc(n * sizeof *x);
    assert_non_null(x);
    if (!strcmp(dtype, "float32"))
        ht_mt19937_randn(g, n, x);
    else
        ht_mt19937_randn_half(g, n, x);
    widen(x, n, out);
    free(x);
}

static void check_randn_cpu(const ht_safetensors *st, const char *dtype, uint64_t seed, size_t n, const json_t *draws)
{
    ht_mt19937 g;
    double *x = new_values(n);
    ht_mt19937_seed(&g, seed);
    for (int draw = 0; draw < 2; draw++) {
        char name[96];
        bound b = cpu_bound(dtype);
        snprintf(name, sizeof name, "randn.%s.seed%llu.n%zu.draw%d", dtype, (unsigned long long)seed, n, draw);
        randn_cpu(&g, dtype, n, x);
        assert_draw(st, name, ".head", ".tail", x, n, b);
        double sum = json_real_value(json_object_get(json_object_get(draws, name), "sum"));
        assert_sum(name, x, n, sum, (double)n * (b.absolute / 10 + b.relative)); /* errors have both signs */
    }
    free(x);
}

/* The draws are listed in index.json; each is found in the golden file. */
static void randn_is_torchs_on_the_cpu(void **state)
{
    ht_safetensors *st = open_golden(GOLDENS "rng/torch-cpu/torch_cpu.safetensors");
    json_t *index = json_load_file(GOLDENS "index.json", 0, NULL);
    json_t *draws = json_object_get(json_object_get(json_object_get(index, "cases"), "rng/torch-cpu"), "draws");
    const char *key;
    json_t *value;
    int checked = 0;
    (void)state;
    json_object_foreach(draws, key, value)
    {
        char dtype[16];
        unsigned long long seed;
        size_t n;
        int draw, end = 0;
        if (sscanf(key, "randn.%15[^.].seed%llu.n%zu.draw%d%n", dtype, &seed, &n, &draw, &end) < 4 || key[end] ||
            draw != 0)
            continue;
        check_randn_cpu(st, dtype, seed, n, draws);
        checked++;
    }
    assert_int_equal(5 * 11 + 3 * 4, checked); /* five seeds of eleven float32 sizes, three other types of four sizes */
    json_decref(index);
    ht_safetensors_close(st);
}

/* One draw of a kind after another from one generator. */
static void draw_kind(ht_mt19937 *g, const char *kind, size_t n, double *out)
{
    float x[32];
    int64_t p[1000];
    if (!strcmp(kind, "randn")) {
        ht_mt19937_randn(g, n, x);
        widen(x, n, out);
    } else if (!strcmp(kind, "randn64")) {
        ht_mt19937_randn_f64(g, n, out);
    } else if (!strcmp(kind, "rand")) {
        ht_mt19937_rand(g, n, x);
        widen(x, n, out);
    } else if (!strcmp(kind, "randperm")) {
        ht_mt19937_randperm(g, n, p);
        for (size_t i = 0; i < n; i++)
            out[i] = (double)p[i];
    } else {
        for (size_t i = 0; i < n; i++)
            out[i] = (double)ht_mt19937_randint(g, 0, 1000);
    }
}

static void kinds_of_draws_leave_torchs_state_to_each_other(void **state)
{
    static const struct {
        const char *kind;
        size_t n;
    } steps[] = {{"randn", 5}, {"randn", 16},  {"randn", 3},  {"rand", 3},     {"randn64", 3},
                 {"randn", 1}, {"randint", 4}, {"randn", 17}, {"randperm", 6}, {"randn", 2}};
    ht_safetensors *st = open_golden(GOLDENS "rng/torch-cpu/torch_cpu.safetensors");
    ht_mt19937 g;
    (void)state;
    ht_mt19937_seed(&g, 42);
    for (size_t i = 0; i < sizeof steps / sizeof *steps; i++) {
        char name[64];
        double x[32];
        snprintf(name, sizeof name, "mixed.seed42.%zu.%s%zu", i, steps[i].kind, steps[i].n);
        draw_kind(&g, steps[i].kind, steps[i].n, x);
        assert_draw(st, name, ".head", ".tail", x, steps[i].n, (bound){1e-6, 0});
    }
    ht_safetensors_close(st);
}

static void uniforms_and_integers_are_torchs(void **state)
{
    static const struct {
        const char *name;
        int64_t lo, hi;
    } ranges[] = {{"randint.0_1000.seed42.n20", 0, 1000},
                  {"randint.-7_12.seed42.n20", -7, 12},
                  {"randint.0_2^40.seed42.n20", 0, INT64_C(1) << 40}};
    const bound equal = {0, 0};
    ht_safetensors *st = open_golden(GOLDENS "rng/torch-cpu/torch_cpu.safetensors");
    ht_mt19937 g;
    double x[1000];
    (void)state;
    ht_mt19937_seed(&g, 42);
    draw_kind(&g, "rand", 20, x);
    assert_draw(st, "rand.float32.seed42.n20", ".head", ".tail", x, 20, equal);
    ht_mt19937_seed(&g, 42);
    ht_mt19937_rand_f64(&g, 20, x);
    assert_draw(st, "rand.float64.seed42.n20", ".head", ".tail", x, 20, equal);
    for (size_t r = 0; r < 3; r++) {
        ht_mt19937_seed(&g, 42);
        for (int i = 0; i < 20; i++)
            x[i] = (double)ht_mt19937_randint(&g, ranges[r].lo, ranges[r].hi);
        assert_draw(st, ranges[r].name, ".head", ".tail", x, 20, equal);
    }
    for (size_t n = 10; n <= 1000; n *= 10) {
        char name[32];
        snprintf(name, sizeof name, "randperm.%zu.seed42", n);
        ht_mt19937_seed(&g, 42);
        draw_kind(&g, "randperm", n, x);
        assert_draw(st, name, ".head", ".tail", x, n, equal);
    }
    ht_safetensors_close(st);
}

/* ---- torch's CUDA generator ---- */

typedef struct cuda_case {
    char kind[8], dtype[16];
    unsigned long long seed;
    size_t n;
    int second; /* the draw after one of the same shape */
} cuda_case;

static void draw_cuda(ht_torch_cuda_rng *g, const cuda_case *c, double *out)
{
    if (!strcmp(c->dtype, "float64")) {
        ht_torch_cuda_randn_f64(g, c->n, out);
        return;
    }
    float *x = malloc(c->n * sizeof *x);
    assert_non_null(x);
    if (!strcmp(c->kind, "rand"))
        ht_torch_cuda_rand(g, c->n, x);
    else
        ht_torch_cuda_randn(g, c->n, x);
    widen(x, c->n, out);
    free(x);
}

/* Normals: the GPU's fast sine and cosine are within 2^-20.9 (core/philox.c), times a radius of at most 6.8.  The
 * 16-bit types round that to half a unit in their last place.  float64 and uniforms use no approximation. */
static bound cuda_bound(const cuda_case *c)
{
    return !strcmp(c->kind, "rand")        ? (bound){0, 0}
           : !strcmp(c->dtype, "float64")  ? (bound){1e-14, 0}
           : !strcmp(c->dtype, "float16")  ? (bound){4e-6, 0x1p-11}
           : !strcmp(c->dtype, "bfloat16") ? (bound){4e-6, 0x1p-8}
                                           : (bound){4e-6, 0};
}

static void check_cuda(const ht_safetensors *st, const char *name, const cuda_case *c, const json_t *facts)
{
    ht_torch_cuda_rng g = {.seed = c->seed};
    bound b = cuda_bound(c);
    double *x = new_values(c->n);
    if (c->second)
        draw_cuda(&g, c, x);
    draw_cuda(&g, c, x);
    assert_draw(st, name, ".first", ".last", x, c->n, b);
    assert_int_equal(json_integer_value(json_object_get(facts, "offset_after")), g.offset);
    /* Uniforms add up exactly in any order: at most 300001 multiples of 2^-33.  The errors of normals nearly cancel
     * (float32: 7e-9 a value seen), so a single wrong value of the longest draw's two million shows if it is wrong by
     * 0.1. */
    double mean_error = b.relative > 0 ? b.relative / 16 : b.absolute / 100;
    assert_sum(name, x, c->n, json_real_value(json_object_get(facts, "sum")), (double)c->n * mean_error + b.absolute);
    free(x);
}

/* Every entry of the golden file that is a draw: n up to 2000003, three seeds, one of them above 2^32. */
static void draws_are_torchs_on_cuda(void **state)
{
    static const char *const kinds[] = {"randn", "rand"}, *const dtypes[] = {"float32", "float64", "float16",
                                                                             "bfloat16"};
    static const size_t sizes[] = {1, 2, 3, 4, 5, 7, 16, 255, 256, 257, 1024, 16384, 262144, 300001, 2000003};
    static const unsigned long long seeds[] = {0, 42, (1ull << 40) + 7};
    ht_safetensors *st = open_golden(GOLDENS "rng/cuda_randn.safetensors");
    int checked = 0;
    (void)state;
    for (size_t i = 0; i < 2 * 2 * 4 * 15 * 3; i++) {
        cuda_case c = {.second = i % 2, .seed = seeds[i / 16 % 3], .n = sizes[i / 48]};
        char name[96];
        snprintf(c.kind, sizeof c.kind, "%s", kinds[i / 2 % 2]);
        snprintf(c.dtype, sizeof c.dtype, "%s", dtypes[i / 4 % 4]);
        snprintf(name, sizeof name, "%s%s.%s.s%llu.n%zu", c.second ? "second." : "", c.kind, c.dtype, c.seed, c.n);
        const char *text = ht_safetensors_metadata(st, name);
        if (!text)
            continue;
        json_t *facts = json_loads(text, 0, NULL);
        assert_non_null(facts);
        check_cuda(st, name, &c, facts);
        json_decref(facts);
        checked++;
    }
    assert_int_equal(3 * (15 + 5 + 3 + 6), checked); /* per seed: randn, second, other types, rand */
    ht_safetensors_close(st);
}

static void a_float64_cuda_draw_moves_the_offset_as_two_a_thread(void **state)
{
    enum { THREADS = 132 * 2048 };
    static double x[2 * THREADS + 1];
    ht_torch_cuda_rng g = {.seed = 1};
    (void)state;
    ht_torch_cuda_randn_f64(&g, 2 * THREADS, x);
    assert_int_equal(4, g.offset);
    ht_torch_cuda_randn_f64(&g, 2 * THREADS + 1, x);
    assert_int_equal(12, g.offset);
    ht_torch_cuda_randn_f64(&g, 0, x);
    assert_int_equal(12, g.offset);
}

/* ---- our own streams ---- */

/* Halftone's own definition, recorded once: images of a seed must never change. */
static void image_noise_has_its_recorded_bits(void **state)
{
    static const float zero[] = {0x1.fb7666p-1f,  -0x1.d96d6p-1f, -0x1.3c373ep-1f, -0x1.eda364p-2f,
                                 -0x1.3aa6aep-3f, 0x1.7254dap-3f, 0x1.a9d93p-1f,   0x1.945b46p-3f};
    static const float wide[] = {0x1.79b63ap-1f, 0x1.b076bap-1f, 0x1.4d03a2p-1f, -0x1.f63738p-1f, 0x1.c52eap-1f};
    float x[8];
    (void)state;
    ht_image_randn(0, 0, 0, 8, x);
    assert_memory_equal(zero, x, sizeof zero);
    ht_image_randn(UINT64_C(1234567890123456789), (UINT64_C(1) << 40) + 3, 7, 5, x);
    assert_memory_equal(wide, x, sizeof wide);
}

/* The first values by the definition in core/philox.c, with the C library's functions. */
static void image_noise_is_box_muller_of_philox(void **state)
{
    const double two_pi = 2 * acos(-1);
    uint32_t words[4], counter[4] = {1, 9, 5, 6}, key[2] = {3, 4};
    float x[8];
    (void)state;
    ht_philox4x32(counter, key, words);
    ht_image_randn(UINT64_C(4) << 32 | 3, UINT64_C(6) << 32 | 5, 9, 8, x);
    for (int i = 0; i < 4; i += 2) {
        double r = sqrt(-2 * log((words[i] + 0.5) / 4294967296)), a = two_pi * (words[i + 1] + 0.5) / 4294967296;
        if (!(fabs(x[4 + i] - r * cos(a)) <= 4e-7 &&
              fabs(x[5 + i] - r * sin(a)) <= 4e-7)) /* a float's rounding below 6.8 */
            fail_msg("values %d, %d are %g, %g; want %g, %g", 4 + i, 5 + i, x[4 + i], x[5 + i], r * cos(a), r * sin(a));
    }
}

static void an_image_value_does_not_depend_on_how_many_are_drawn(void **state)
{
    float all[67], some[67];
    (void)state;
    ht_image_randn(5, 6, 7, 67, all);
    for (size_t n = 0; n <= 67; n++) {
        memset(some, 0xab, sizeof some);
        ht_image_randn(5, 6, 7, n, some);
        assert_memory_equal(all, some, n * sizeof *some);
        for (size_t i = n * sizeof *some; i < sizeof some; i++)
            assert_int_equal(0xab, ((unsigned char *)some)[i]);
    }
}

enum { LONG = 1 << 17 };

/* Correlation of two streams of LONG values has a standard deviation of 1/sqrt(LONG); 5 of them are allowed. */
static void assert_uncorrelated(const float *a, const float *b)
{
    double sum = 0;
    for (int i = 0; i < LONG; i++)
        sum += (double)a[i] * b[i];
    if (!(fabs(sum / LONG) <= 5 / sqrt(LONG)))
        fail_msg("two streams correlate: %g", sum / LONG);
}

static void seeds_images_and_draws_are_independent(void **state)
{
    static const struct {
        uint64_t seed, index;
        uint32_t draw;
    } streams[] = {{0, 0, 0}, {1, 0, 0}, {0, 1, 0}, {0, 0, 1}, {UINT64_C(1) << 32, 0, 0}, {0, UINT64_C(1) << 32, 0}};
    enum { STREAMS = sizeof streams / sizeof *streams };
    float *x[STREAMS];
    (void)state;
    for (int s = 0; s < STREAMS; s++) {
        x[s] = malloc(LONG * sizeof *x[s]);
        assert_non_null(x[s]);
        ht_image_randn(streams[s].seed, streams[s].index, streams[s].draw, LONG, x[s]);
        for (int before = 0; before < s; before++)
            assert_uncorrelated(x[before], x[s]);
    }
    for (int s = 0; s < STREAMS; s++)
        free(x[s]);
}

/* Moments of n standard normals: 0, 1, 0, 3 with variances 1/n, 2/n, 15/n, 96/n; 5 standard deviations are allowed. */
static void image_noise_has_normal_moments(void **state)
{
    static const double want[] = {0, 1, 0, 3}, variance[] = {1, 2, 15, 96};
    float *x = malloc(LONG * sizeof *x);
    (void)state;
    assert_non_null(x);
    ht_image_randn(2026, 1, 0, LONG, x);
    for (int m = 0; m < 4; m++) {
        double sum = 0;
        for (int i = 0; i < LONG; i++)
            sum += pow(x[i], m + 1);
        if (!(fabs(sum / LONG - want[m]) <= 5 * sqrt(variance[m] / LONG)))
            fail_msg("moment %d is %g, want %g", m + 1, sum / LONG, want[m]);
    }
    free(x);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(exponential_is_within_three_ulps),
        cmocka_unit_test(powers_are_close_to_the_long_double_ones),
        cmocka_unit_test(mt19937_gives_the_published_words),
        cmocka_unit_test(philox_gives_the_published_words),
        cmocka_unit_test(log_is_within_3_ulp_of_the_long_double_one),
        cmocka_unit_test(sine_and_cosine_are_within_3_ulp_of_the_long_double_ones),
        cmocka_unit_test(randn_is_torchs_on_the_cpu),
        cmocka_unit_test(kinds_of_draws_leave_torchs_state_to_each_other),
        cmocka_unit_test(uniforms_and_integers_are_torchs),
        cmocka_unit_test(draws_are_torchs_on_cuda),
        cmocka_unit_test(a_float64_cuda_draw_moves_the_offset_as_two_a_thread),
        cmocka_unit_test(image_noise_has_its_recorded_bits),
        cmocka_unit_test(image_noise_is_box_muller_of_philox),
        cmocka_unit_test(an_image_value_does_not_depend_on_how_many_are_drawn),
        cmocka_unit_test(seeds_images_and_draws_are_independent),
        cmocka_unit_test(image_noise_has_normal_moments),
    };
    return cmocka_run_group_tests_name("rng", tests, NULL, NULL);
}
