/* math.h - exp for the CPU kernels, written so that scalar and vector code give the same bits.
 *
 * exp(x) = 2^n * p(r), n = round(x / ln 2), |r| <= ln 2 / 2, p the degree 7 Taylor-like polynomial of Cephes' expf
 * (Moshier); about 1 ulp. x is clamped to where 2^n is a normal number: below -87.3 the result is 2^-126 or so, which
 * is nothing beside what it is added to. */
#ifndef HT_CPU_MATH_H
#define HT_CPU_MATH_H

#include <math.h>
#include <stdint.h>
#include <string.h>

#define HT_EXP_MIN  (-87.33654f)
#define HT_EXP_MAX  88.37626f
#define HT_LOG2E    1.44269504f
#define HT_ROUNDER  12582912.0f /* 1.5 * 2^23: adding it leaves the nearest integer in the low bits */
#define HT_LN2_HIGH 0.693359375f
#define HT_LN2_LOW  (-2.12194440e-4f)
#define HT_EXP_C0   1.9875691500e-4f
#define HT_EXP_C1   1.3981999507e-3f
#define HT_EXP_C2   8.3334519073e-3f
#define HT_EXP_C3   4.1665795894e-2f
#define HT_EXP_C4   1.6666665459e-1f
#define HT_EXP_C5   5.0000001201e-1f

static inline float ht_exp_f32(float x)
{
    x = x < HT_EXP_MIN ? HT_EXP_MIN : x; /* comparisons are false for NaN, so it passes */
    x = x > HT_EXP_MAX ? HT_EXP_MAX : x;
    float rounded = fmaf(x, HT_LOG2E, HT_ROUNDER);
    float n = rounded - HT_ROUNDER;
    float r = fmaf(n, -HT_LN2_HIGH, x);
    r = fmaf(n, -HT_LN2_LOW, r);
    float p = fmaf(HT_EXP_C0, r, HT_EXP_C1);
    p = fmaf(p, r, HT_EXP_C2);
    p = fmaf(p, r, HT_EXP_C3);
    p = fmaf(p, r, HT_EXP_C4);
    p = fmaf(p, r, HT_EXP_C5);
    p = fmaf(p, r * r, r) + 1.0f;
    uint32_t bits;
    float power;
    memcpy(&bits, &rounded, sizeof bits);
    bits = (bits << 23) + 0x3f800000; /* 2^n */
    memcpy(&power, &bits, sizeof power);
    return p * power;
}

/* 1 / d of 1 <= d < 2^127, within 2 ulp: from the bits of d an estimate that is 12 % off, then three steps of Newton's
 * method, which square the error.  A division takes as long as all the rest of SiLU, and the processors' own estimates
 * differ from one another. */
#define HT_RECIPROCAL 0x7ef311c7
#define HT_SILU_MAX   87.0f /* 1 + exp of it is below 2^127; what is left of x beyond is below 2^-118 */

static inline float ht_reciprocal_f32(float d)
{
    uint32_t bits;
    float r;
    memcpy(&bits, &d, sizeof bits);
    bits = HT_RECIPROCAL - bits;
    memcpy(&r, &bits, sizeof r);
    r = fmaf(r, fmaf(-d, r, 1.0f), r);
    r = fmaf(r, fmaf(-d, r, 1.0f), r);
    return fmaf(r, fmaf(-d, r, 1.0f), r);
}

static inline float ht_silu_f32(float x)
{
    float y = -x;
    y = y > HT_SILU_MAX ? HT_SILU_MAX : y; /* NaN passes */
    return x * ht_reciprocal_f32(1.0f + ht_exp_f32(y));
}

/* gelu(x) = x Phi(x), Phi the normal distribution function: of a = |x|
 *
 *     h = 1 - Phi(a) = t exp(-a^2 / 2 + P(t)),   t = 1 / (1 + a / sqrt 8),   gelu(x) = max(x, 0) - a h
 *
 * so that nothing cancels in the tail.  P of degree 9 is within 5e-8 of its function at Chebyshev's points of t up to
 * a = 13, where h is below 1e-38 (the form is that of Numerical Recipes' erfc; the fit is our own). */
#define HT_GELU_MAX 13.0f
#define HT_GELU_T   0.353553391f /* 1 / sqrt 8 */
#define HT_GELU_C0  0.137580753f
#define HT_GELU_C1  (-0.640523785f)
#define HT_GELU_C2  1.06115786f
#define HT_GELU_C3  (-0.567950662f)
#define HT_GELU_C4  (-0.187416787f)
#define HT_GELU_C5  0.0588009947f
#define HT_GELU_C6  0.0147974389f
#define HT_GELU_C7  0.390841269f
#define HT_GELU_C8  0.998136077f
#define HT_GELU_C9  (-1.95857029f)

static inline float ht_gelu_f32(float x)
{
    float a = -x > x ? -x : x;
    a = a > HT_GELU_MAX ? HT_GELU_MAX : a; /* NaN passes */
    float t = ht_reciprocal_f32(fmaf(a, HT_GELU_T, 1.0f));
    float p = fmaf(HT_GELU_C0, t, HT_GELU_C1);
    p = fmaf(p, t, HT_GELU_C2);
    p = fmaf(p, t, HT_GELU_C3);
    p = fmaf(p, t, HT_GELU_C4);
    p = fmaf(p, t, HT_GELU_C5);
    p = fmaf(p, t, HT_GELU_C6);
    p = fmaf(p, t, HT_GELU_C7);
    p = fmaf(p, t, HT_GELU_C8);
    p = fmaf(p, t, HT_GELU_C9);
    float h = t * ht_exp_f32(fmaf(-0.5f * a, a, p));
    return fmaf(-a, h, x > 0 ? x : 0);
}

#endif
