/* element.cuh - reading and writing one element of a tensor whose dtype is known when the kernel runs, and the codes
 * that it becomes.  The branch is the same for all threads. */
#ifndef HT_CUDA_ELEMENT_CUH
#define HT_CUDA_ELEMENT_CUH

#include <cuda_fp16.h>
#include <cuda_fp8.h>

#include "cuda/module.h"

__device__ __forceinline__ float ht_load(const ht_cuda_tensor &t, int64_t i)
{
    return t.dtype == HT_CUDA_F16 ? __half2float(((const __half *)t.data)[i]) : ((const float *)t.data)[i];
}

/* Step and zero point that serve row m, of image m / rows_per_image. */
__device__ __forceinline__ float2 ht_scale_of(const ht_cuda_scales &s, int64_t m, int64_t rows_per_image)
{
    const float *p = s.data + s.stride * (s.per_row ? m : s.stride ? m / rows_per_image : 0);
    return make_float2(p[0], p[1]);
}

/* As ht_code_of of cpu/reference.h, to the bit: clamp(round(x inv) + zero), NaN is 0. */
__device__ __forceinline__ uint8_t ht_code_of(float x, float inv, float zero, float levels)
{
    float y = __fadd_rn(rintf(__fmul_rn(x, inv)), zero);
    y = y > 0 ? y : 0;
    return (uint8_t)(y < levels ? y : levels);
}

__device__ __forceinline__ uint8_t ht_e4m3_of(float x)
{
    return (uint8_t)__nv_cvt_float_to_fp8(x, __NV_SATFINITE, __NV_E4M3);
}

/* Element i, in row m. */
__device__ __forceinline__ void ht_store(const ht_cuda_tensor &t, const ht_cuda_codes &c, int64_t i, int64_t m,
                                         int64_t rows_per_image, float v)
{
    if (t.dtype == HT_CUDA_F16)
        ((__half *)t.data)[i] = __float2half_rn(v);
    else if (t.dtype == HT_CUDA_F32)
        ((float *)t.data)[i] = v;
    else {
        float2 scale = ht_scale_of(c.scale, m, rows_per_image);
        ((uint8_t *)t.data)[i] =
            t.dtype == HT_CUDA_U8 ? ht_code_of(v, __frcp_rn(scale.x), scale.y, c.levels) : ht_e4m3_of(v / scale.x);
    }
}

#endif
