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

/* quick_gelu: x * sigmoid(1.702 x). */
#define HT_QUICK_GELU (-1.702f)

static inline float ht_quick_gelu_f32(float x)
{
    float y = HT_QUICK_GELU * x;
    y = y > HT_SILU_MAX ? HT_SILU_MAX : y;
    return x * ht_reciprocal_f32(1.0f + ht_exp_f32(y));
}

/* gelu with tanh: x (1 + tanh u) / 2 = x * sigmoid(2 u), 2 u = 2 sqrt(2 / pi) (x + 0.044715 x^3) = x (a x^2 + b). */
#define HT_GELU_TANH_A (-0.0713548163f)
#define HT_GELU_TANH_B (-1.59576912f)

static inline float ht_gelu_tanh_f32(float x)
{
    float y = x * fmaf(HT_GELU_TANH_A, x * x, HT_GELU_TANH_B);
    y = y > HT_SILU_MAX ? HT_SILU_MAX : y;
    return x * ht_reciprocal_f32(1.0f + ht_exp_f32(y));
}

/* gelu: x Phi(x) = max(x, 0) - |x| tail, tail = erfc(|x| / sqrt 2) / 2.  With z = |x| / sqrt 2 and t = 1 / (1 + p z),
 * erfc(z) = (a1 t + ... + a5 t^5) e^-z^2 within 1.5e-7 (Abramowitz, Stegun, 7.1.26; Hastings 1955).  |x| is cut where
 * the tail is nothing beside any x. */
#define HT_GELU_MAX  12.5f
#define HT_GELU_P    0.3275911f
#define HT_GELU_A1   0.254829592f
#define HT_GELU_A2   (-0.284496736f)
#define HT_GELU_A3   1.421413741f
#define HT_GELU_A4   (-1.453152027f)
#define HT_GELU_A5   1.061405429f
#define HT_SQRT_HALF 0.707106781f

static inline float ht_gelu_f32(float x)
{
    float a = -x > x ? -x : x, positive = 0 > x ? 0 : x; /* comparisons are false for NaN, so it passes */
    a = HT_GELU_MAX < a ? HT_GELU_MAX : a;
    float z = a * HT_SQRT_HALF, t = ht_reciprocal_f32(fmaf(z, HT_GELU_P, 1.0f));
    float p = fmaf(HT_GELU_A5, t, HT_GELU_A4);
    p = fmaf(p, t, HT_GELU_A3);
    p = fmaf(p, t, HT_GELU_A2);
    p = fmaf(p, t, HT_GELU_A1);
    float tail = (p * t) * (ht_exp_f32(-(z * z)) * 0.5f);
    return fmaf(-a, tail, positive);
}

/* Its slope, Phi(x) + x phi(x) = 1/2 + s (1/2 - tail + |x| phi(x)), s the sign of x, phi the density of the normal
 * distribution. */
#define HT_GELU_SIGN       1e30f /* times this, what is no number of the least is beyond 1 */
#define HT_INV_SQRT_TWO_PI 0.398942280f

static inline float ht_gelu_slope_f32(float x)
{
    float a = -x > x ? -x : x, s = x * HT_GELU_SIGN;
    a = HT_GELU_MAX < a ? HT_GELU_MAX : a;
    s = s < -1.0f ? -1.0f : s;
    s = s > 1.0f ? 1.0f : s;
    float z = a * HT_SQRT_HALF, t = ht_reciprocal_f32(fmaf(z, HT_GELU_P, 1.0f)), e = ht_exp_f32(-(z * z));
    float p = fmaf(HT_GELU_A5, t, HT_GELU_A4);
    p = fmaf(p, t, HT_GELU_A3);
    p = fmaf(p, t, HT_GELU_A2);
    p = fmaf(p, t, HT_GELU_A1);
    float tail = (p * t) * (e * 0.5f);
    return fmaf(s, fmaf(a, e * HT_INV_SQRT_TWO_PI, 0.5f - tail), 0.5f);
}

#endif
