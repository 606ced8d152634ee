/* epilogue.cuh - from the sums of a row to its output: 8 neighbouring columns at a time.  Every operation is rounded by
 * itself, in the order of cpu/reference.h. */
#ifndef HT_CUDA_EPILOGUE_CUH
#define HT_CUDA_EPILOGUE_CUH

#include "cuda/element.cuh"
#include "cuda/product.h"

/* One segment's sum of codes, added to the row's chain. */
__device__ __forceinline__ float ht_fold(int sum, int zero, int weights, float step, float scale, float chain)
{
    return __fmaf_rn(__int2float_rn(sum - zero * weights), __fmul_rn(step, scale), chain);
}

__device__ __forceinline__ float ht_fold(float sum, int, int, float step, float scale, float chain)
{
    return __fmaf_rn(sum, __fmul_rn(step, scale), chain);
}

__device__ __forceinline__ float ht_finish(const ht_cuda_product &p, float v)
{
    v = __fmul_rn(v, p.scale);
    return p.relu && v < 0 ? 0 : v;
}

/* Column n of row m. */
__device__ __forceinline__ void ht_write(const ht_cuda_product &p, int64_t m, int64_t image, int n, float v)
{
    int64_t i = m * p.window.cols + n;
    if (p.bias)
        v = __fadd_rn(v, p.bias[n]);
    if (p.row.data)
        v = __fadd_rn(v, p.row.data[image * p.row.stride + n]);
    if (p.residual.data)
        v = __fadd_rn(v, ht_load(p.residual, i));
    ht_store(p.out, p.codes, i, m, p.window.rows_per_image, ht_finish(p, v));
}

__device__ __forceinline__ void ht_add8(float (&v)[8], const float *from)
{
    float4 a = ((const float4 *)from)[0], b = ((const float4 *)from)[1];
    v[0] = __fadd_rn(v[0], a.x);
    v[1] = __fadd_rn(v[1], a.y);
    v[2] = __fadd_rn(v[2], a.z);
    v[3] = __fadd_rn(v[3], a.w);
    v[4] = __fadd_rn(v[4], b.x);
    v[5] = __fadd_rn(v[5], b.y);
    v[6] = __fadd_rn(v[6], b.z);
    v[7] = __fadd_rn(v[7], b.w);
}

/* Columns n .. n + 7 of row m, n a multiple of 8, in accesses of 16 bytes. */
__device__ __forceinline__ void ht_write_whole8(const ht_cuda_product &p, int64_t m, int64_t image, int n, float (&v)[8])
{
    int64_t i = m * p.window.cols + n;
    if (p.bias)
        ht_add8(v, p.bias + n);
    if (p.row.data)
        ht_add8(v, p.row.data + image * p.row.stride + n);
    if (p.residual.data && p.residual.dtype == HT_CUDA_F32)
        ht_add8(v, (const float *)p.residual.data + i);
    else if (p.residual.data) {
        uint4 r = *(const uint4 *)((const __half *)p.residual.data + i);
        const __half2 *h = (const __half2 *)&r;
#pragma unroll
        for (int j = 0; j < 4; j++) {
            float2 f = __half22float2(h[j]);
            v[2 * j] = __fadd_rn(v[2 * j], f.x);
            v[2 * j + 1] = __fadd_rn(v[2 * j + 1], f.y);
        }
    }
#pragma unroll
    for (int j = 0; j < 8; j++)
        v[j] = ht_finish(p, v[j]);
    if (p.out.dtype == HT_CUDA_F32) {
        float4 *out = (float4 *)((float *)p.out.data + i);
        out[0] = make_float4(v[0], v[1], v[2], v[3]);
        out[1] = make_float4(v[4], v[5], v[6], v[7]);
    } else if (p.out.dtype == HT_CUDA_F16) {
        uint4 r;
        __half2 *h = (__half2 *)&r;
#pragma unroll
        for (int j = 0; j < 4; j++)
            h[j] = __floats2half2_rn(v[2 * j], v[2 * j + 1]);
        *(uint4 *)((__half *)p.out.data + i) = r;
    } else {
        float2 scale = ht_scale_of(p.codes.scale, m, p.window.rows_per_image);
        float inv = __frcp_rn(scale.x);
        uint64_t codes = 0;
#pragma unroll
        for (int j = 0; j < 8; j++) {
            uint64_t code = p.out.dtype == HT_CUDA_U8 ? ht_code_of(v[j], inv, scale.y, p.codes.levels)
                                                      : ht_e4m3_of(v[j] / scale.x);
            codes |= code << 8 * j;
        }
        *(uint64_t *)((uint8_t *)p.out.data + i) = codes;
    }
}

/* Columns n .. n + 7 of row m, as far as there are any.  Rows of bias and of images are 16-byte aligned only if they
 * begin so: p.row.stride need not be a multiple of 4. */
__device__ __forceinline__ void ht_write8(const ht_cuda_product &p, bool whole, int64_t m, int64_t image, int n,
                                          float (&v)[8])
{
    if (n >= p.window.cols)
        return;
    if (whole)
        return ht_write_whole8(p, m, image, n, v);
#pragma unroll
    for (int j = 0; j < 8; j++)
        if (n + j < p.window.cols)
            ht_write(p, m, image, n + j, v[j]);
}

/* Whether ht_write_whole8 may be used. */
__device__ __forceinline__ bool ht_whole8(const ht_cuda_product &p)
{
    return p.window.cols % 8 == 0 && ((uintptr_t)p.bias & 15) == 0 && ((uintptr_t)p.row.data & 15) == 0 &&
           p.row.stride % 4 == 0;
}

#endif
