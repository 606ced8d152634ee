/* rounding.h - what tests of rounding share: layers whose inputs go together, and what became of them. */
#ifndef HT_TESTS_ROUNDING_H
#define HT_TESTS_ROUNDING_H

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "quant/round.h"

#define assert_ok(call)                                                                                                \
    do {                                                                                                               \
        if ((call) != HT_OK)                                                                                           \
            fail_msg("%s: %s", #call, ht_error_message());                                                             \
    } while (0)

enum { OUT = 19, IN = 64, SAMPLES = 150, FACTORS = 9 }; /* rows: more than are rounded at a time, and a rest */

/* One of every kind: float32, E8M0, E4M3 scales; integers, floats; zero points; groups. */
static const char *const formats[] = {"int8",     "int4",      "int4_g32",     "fp8_e4m3", "fp4_e2m1", "fp4_e1m2",
                                      "fp4_e3m0", "mxfp4",     "nvfp4",        "nvint4",   "mxint8",   "int2",
                                      "uint4",    "uint3_g16", "fp4_e2m1_g16", "fp6_e3m2"};

enum { FORMATS = sizeof formats / sizeof *formats };

static inline uint32_t next_random(uint32_t *state) /* xorshift32, Marsaglia 2003 */
{
    *state ^= *state << 13;
    *state ^= *state >> 17;
    return *state ^= *state << 5;
}

static inline double bell(uint32_t *state) /* about normal, variance 1 */
{
    double sum = -6;
    for (int i = 0; i < 12; i++)
        sum += next_random(state) / 4294967296.0;
    return sum;
}

/* ---- a layer: weights, and the moments of inputs that go together ---- */

typedef struct layer {
    ht_matrix matrix;
    float *w, *h;
} layer;

/* Inputs are mixtures of a few factors, and noise; each is scaled by itself.  Input `dead` (if below in) is always 0.
 */
static inline void fill_moments(float *h, size_t in, size_t samples, size_t dead, uint32_t *seed)
{
    double *mix = calloc(in * FACTORS, sizeof *mix), *x = calloc(in, sizeof *x), *sum = calloc(in * in, sizeof *sum);
    assert_true(mix && x && sum);
    for (size_t i = 0; i < in * FACTORS; i++)
        mix[i] = bell(seed);
    for (size_t s = 0; s < samples; s++) {
        double factor[FACTORS];
        for (int f = 0; f < FACTORS; f++)
            factor[f] = bell(seed);
        for (size_t i = 0; i < in; i++) {
            x[i] = bell(seed);
            for (int f = 0; f < FACTORS; f++)
                x[i] += mix[i * FACTORS + f] * factor[f];
            x[i] *= i == dead ? 0 : 0.2 + (double)(i % 7);
        }
        for (size_t i = 0; i < in * in; i++)
            sum[i] += x[i / in] * x[i % in];
    }
    for (size_t i = 0; i < in * in; i++)
        h[i] = (float)sum[i];
    free(sum);
    free(x);
    free(mix);
}

static inline layer layer_of(size_t out, size_t in, size_t samples, size_t dead, uint32_t seed)
{
    layer l = {{"mid.to_k", NULL, out, in}, malloc(out * in * sizeof(float)), malloc(in * in * sizeof(float))};
    assert_true(l.w && l.h);
    for (size_t i = 0; i < out * in; i++)
        l.w[i] = (float)(0.05 * bell(&seed));
    fill_moments(l.h, in, samples, dead, &seed);
    l.matrix.values = l.w;
    return l;
}

static inline void free_layer(layer *l)
{
    free(l->w);
    free(l->h);
}

static inline void forget_correlations(layer *l)
{
    for (size_t i = 0; i < l->matrix.in; i++)
        for (size_t j = 0; j < l->matrix.in; j++)
            l->h[i * l->matrix.in + j] *= i == j ? 1.0f : 0.0f;
}

typedef struct rounded {
    ht_format format;
    ht_format_sizes sizes;
    ht_quantized q;
    ht_round_error error;
    ht_arena *arena;
} rounded;

static inline rounded round_layer(const char *format, const layer *l, ht_round_options o)
{
    rounded r = {.arena = ht_arena_create()};
    assert_non_null(r.arena);
    assert_ok(ht_format_find(format, &r.format));
    assert_ok(ht_format_measure(&r.format, &l->matrix, &r.sizes));
    assert_ok(ht_quantized_alloc(r.arena, &r.format, &l->matrix, &r.q));
    assert_ok(ht_round(&r.format, &l->matrix, l->h, &o, &r.q, &r.error));
    assert_ok(ht_format_check(&r.format, &r.q, &l->matrix));
    return r;
}

/* (w - v) H (w - v)^T of rows that are off by e, written out. */
static inline double energy(const layer *l, const double *e, size_t row)
{
    size_t n = l->matrix.in;
    double sum = 0;
    for (size_t i = 0; i < n; i++)
        for (size_t j = 0; j < n; j++)
            sum += e[row * n + i] * l->h[i * n + j] * e[row * n + j];
    return sum;
}

static inline double *difference(const layer *l, const rounded *r)
{
    size_t count = l->matrix.out * l->matrix.in;
    float *v = malloc(count * sizeof *v);
    double *e = calloc(count, sizeof *e);
    assert_true(v && e);
    assert_ok(ht_format_dequantize(&r->format, &r->q, &l->matrix, v));
    for (size_t i = 0; i < count; i++)
        e[i] = (double)l->w[i] - v[i];
    free(v);
    return e;
}

static inline void assert_same_codes(const rounded *a, const rounded *b, const char *what)
{
    if (memcmp(a->q.codes, b->q.codes, a->sizes.code_bytes) != 0)
        fail_msg("%s, %s: other codes", a->format.name, what);
    if (memcmp(a->q.scales, b->q.scales, a->sizes.scale_bytes) != 0)
        fail_msg("%s, %s: other scales", a->format.name, what);
}

static inline ht_round_options options_of(ht_rounding method)
{
    return (ht_round_options){.method = method, .scale = HT_SCALE_MSE, .iterations = 60};
}

#endif
