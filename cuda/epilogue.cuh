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

/* Whether 8 columns may be written in accesses of 16 bytes. */
__device__ __forceinline__ bool ht_whole8(const ht_cuda_product &p)
{
    return p.window.cols % 8 == 0 && ((uintptr_t)p.bias & 15) == 0 && ((uintptr_t)p.row.data & 15) == 0 &&
           p.row.stride % 4 == 0;
}

/* Eight floats, or halves, as they come from memory. */
struct ht_eight {
    float4 low, high; /* of halves: low alone */

    __device__ __forceinline__ void load(const float *from)
    {
        low = ((const float4 *)from)[0];
        high = ((const float4 *)from)[1];
    }

    __device__ __forceinline__ void add_to(float (&v)[8]) const
    {
        v[0] = __fadd_rn(v[0], low.x);
        v[1] = __fadd_rn(v[1], low.y);
        v[2] = __fadd_rn(v[2], low.z);
        v[3] = __fadd_rn(v[3], low.w);
        v[4] = __fadd_rn(v[4], high.x);
        v[5] = __fadd_rn(v[5], high.y);
        v[6] = __fadd_rn(v[6], high.z);
        v[7] = __fadd_rn(v[7], high.w);
    }

    __device__ __forceinline__ void add_halves_to(float (&v)[8]) const
    {
        const __half2 *h = (const __half2 *)&low;
#pragma unroll
        for (int j = 0; j < 4; j++) {
            float2 f = __half22float2(h[j]);
            v[2 * j] = __fadd_rn(v[2 * j], f.x);
            v[2 * j + 1] = __fadd_rn(v[2 * j + 1], f.y);
        }
    }
};

/* Writes a thread's columns n .. n + 7 of many rows; what serves all rows is read once.  The residual of a row is read
 * ahead (residual) of its sums (write). */
struct ht_writer {
    ht_eight bias;
    float step, inv, zero;
    int n;
    bool whole;

    __device__ __forceinline__ void begin(const ht_cuda_product &p, int column)
    {
        n = column;
        whole = ht_whole8(p) && n < p.window.cols;
        bias.low = bias.high = make_float4(0, 0, 0, 0);
        if (whole && p.bias)
            bias.load(p.bias + n);
        if (p.codes.scale.data && !p.codes.scale.stride)
            scale(p.codes.scale.data);
    }

    __device__ __forceinline__ void scale(const float *from)
    {
        step = from[0];
        inv = __frcp_rn(step);
        zero = from[1];
    }

    __device__ __forceinline__ void residual(const ht_cuda_product &p, int64_t m, ht_eight &r) const
    {
        if (!p.residual.data || !whole || m >= p.window.rows)
            return;
        int64_t i = m * p.window.cols + n;
        if (p.residual.dtype == HT_CUDA_F32)
            r.load((const float *)p.residual.data + i);
        else
            r.low = *(const float4 *)((const __half *)p.residual.data + i);
    }

    __device__ __forceinline__ void write(const ht_cuda_product &p, int64_t m, int image, float (&v)[8],
                                          const ht_eight &r)
    {
        int64_t i = m * p.window.cols + n;
        bias.add_to(v);
        if (p.row.data) {
            ht_eight row;
            row.load(p.row.data + image * p.row.stride + n);
            row.add_to(v);
        }
        if (p.residual.data && p.residual.dtype == HT_CUDA_F32)
            r.add_to(v);
        else if (p.residual.data)
            r.add_halves_to(v);
#pragma unroll
        for (int j = 0; j < 8; j++)
            v[j] = ht_finish(p, v[j]);
        if (p.out.dtype == HT_CUDA_F16) {
            uint4 to;
            __half2 *h = (__half2 *)&to;
#pragma unroll
            for (int j = 0; j < 4; j++)
                h[j] = __floats2half2_rn(v[2 * j], v[2 * j + 1]);
            *(uint4 *)((__half *)p.out.data + i) = to;
        } else if (p.out.dtype == HT_CUDA_F32) {
            float4 *to = (float4 *)((float *)p.out.data + i);
            to[0] = make_float4(v[0], v[1], v[2], v[3]);
            to[1] = make_float4(v[4], v[5], v[6], v[7]);
        } else
            write_codes(p, i, m, image, v);
    }

    __device__ __forceinline__ void write_codes(const ht_cuda_product &p, int64_t i, int64_t m, int image,
                                                const float (&v)[8])
    {
        uint32_t codes[2] = {0, 0};
        if (p.codes.scale.stride)
            scale(p.codes.scale.data + p.codes.scale.stride * (p.codes.scale.per_row ? m : image));
#pragma unroll
        for (int j = 0; j < 8; j++) {
            uint32_t code = p.out.dtype == HT_CUDA_U8 ? ht_code_of(v[j], inv, zero, p.codes.levels)
                                                      : ht_e4m3_of(__fdiv_rn(v[j], step));
            codes[j / 4] |= code << 8 * (j % 4);
        }
        *(uint2 *)((uint8_t *)p.out.data + i) = make_uint2(codes[0], codes[1]);
    }
};

#endif
