/* activation.cuh - exp and what is made of it, in float32, for kernels whose results may become codes.
 *
 * ex2.approx is within 2 units in the last place, but of 2^t the rounding of t = x log2 e alone is |x| 2^-24 of the
 * result.  What t lacks is known exactly from one fma and put back: e^x = 2^t (1 + ln 2 (x log2 e - t)).  With
 * rcp.approx (1 unit) all of these are within 6e-7 of their values, save gelu, whose formula (cpu/math.h: Abramowitz
 * and Stegun 7.1.26) is 1.5e-7 |x| off by itself.  NaN passes: the last factor is always x. */
#ifndef HT_CUDA_ACTIVATION_CUH
#define HT_CUDA_ACTIVATION_CUH

#include <cuda_runtime.h>

#define HT_EXP_LIMIT  87.0f /* 1 + exp of it is below 2^127, whose reciprocal is a normal number */
#define HT_LOG2E_HIGH 1.44269502f
#define HT_LOG2E_LOW  1.92596303e-8f /* log2 e - HT_LOG2E_HIGH */
#define HT_LN2        0.693147181f

__device__ __forceinline__ float ht_exp2_approx(float x)
{
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

__device__ __forceinline__ float ht_reciprocal_approx(float x)
{
    float y;
    asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

/* e^x of |x| <= HT_EXP_LIMIT; beyond, that of the limit.  NaN gives a number. */
__device__ __forceinline__ float ht_exp_limited(float x)
{
    x = fminf(fmaxf(x, -HT_EXP_LIMIT), HT_EXP_LIMIT);
    float t = __fmul_rn(x, HT_LOG2E_HIGH);
    float rest = __fmaf_rn(x, HT_LOG2E_LOW, __fmaf_rn(x, HT_LOG2E_HIGH, -t));
    float power = ht_exp2_approx(t);
    return __fmaf_rn(power, __fmul_rn(rest, HT_LN2), power);
}

/* x / (1 + e^y) */
__device__ __forceinline__ float ht_over_one_plus_exp(float x, float y)
{
    return __fmul_rn(x, ht_reciprocal_approx(__fadd_rn(1.0f, ht_exp_limited(y))));
}

__device__ __forceinline__ float ht_silu_f32(float x)
{
    return ht_over_one_plus_exp(x, -x);
}

/* The constants of cpu/math.h. */
__device__ __forceinline__ float ht_quick_gelu_f32(float x)
{
    return ht_over_one_plus_exp(x, __fmul_rn(-1.702f, x));
}

__device__ __forceinline__ float ht_gelu_tanh_f32(float x)
{
    return ht_over_one_plus_exp(x, __fmul_rn(x, __fmaf_rn(-0.0713548163f, __fmul_rn(x, x), -1.59576912f)));
}

/* max(x, 0) - |x| tail, tail = erfc(|x| / sqrt 2) / 2 = (a1 t + .. + a5 t^5) e^(-x^2 / 2), halves of the constants, t =
 * 1 / (1 + p |x| / sqrt 2).  What the exponent's rounding does to the tail is far below what the formula lacks. */
__device__ __forceinline__ float ht_gelu_f32(float x)
{
    float a = fminf(fabsf(x), 12.5f), positive = 0 > x ? 0 : x; /* NaN stays */
    float t = ht_reciprocal_approx(__fmaf_rn(a, 0.231641888f, 1.0f));
    float p = __fmaf_rn(0.5307027145f, t, -0.7265760135f);
    p = __fmaf_rn(p, t, 0.7107068705f);
    p = __fmaf_rn(p, t, -0.142248368f);
    p = __fmaf_rn(p, t, 0.127414796f);
    float tail = __fmul_rn(__fmul_rn(p, t), ht_exp2_approx(__fmul_rn(__fmul_rn(a, a), -0.721347520f)));
    return __fmaf_rn(-a, tail, positive);
}

#endif
