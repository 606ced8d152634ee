/* vector.cuh - W elements of a tensor at once: 8 where channels and addresses allow (16 bytes of F16), else 1. */
#ifndef HT_CUDA_VECTOR_CUH
#define HT_CUDA_VECTOR_CUH

#include "cuda/element.cuh"

template <typename E, int W> struct alignas(sizeof(E) * W > 16 ? 16 : sizeof(E) * W) ht_pack {
    E at[W];
};

template <int W> __device__ __forceinline__ void ht_load_n(float (&v)[W], const ht_cuda_tensor &t, int64_t i)
{
    if (t.dtype == HT_CUDA_F16) {
        const ht_pack<__half, W> p = *(const ht_pack<__half, W> *)((const __half *)t.data + i);
#pragma unroll
        for (int k = 0; k < W; k++)
            v[k] = __half2float(p.at[k]);
    } else {
        const ht_pack<float, W> p = *(const ht_pack<float, W> *)((const float *)t.data + i);
#pragma unroll
        for (int k = 0; k < W; k++)
            v[k] = p.at[k];
    }
}

template <int W> __device__ __forceinline__ void ht_load_floats(float (&v)[W], const float *from)
{
    const ht_pack<float, W> p = *(const ht_pack<float, W> *)from;
#pragma unroll
    for (int k = 0; k < W; k++)
        v[k] = p.at[k];
}

/* a / b; 64-bit division is slow and seldom needed. */
__device__ __forceinline__ int64_t ht_divide(int64_t a, int64_t b)
{
    return (a | b) >> 32 ? a / b : (int64_t)((uint32_t)a / (uint32_t)b);
}

/* What the codes of one row need. */
typedef struct ht_coder {
    float step, inv, zero, levels;
} ht_coder;

__device__ __forceinline__ bool ht_makes_codes(const ht_cuda_tensor &out)
{
    return out.dtype == HT_CUDA_U8 || out.dtype == HT_CUDA_E4M3;
}

/* Of row m; nothing where the output is no code. */
__device__ __forceinline__ ht_coder ht_coder_of(const ht_cuda_tensor &out, const ht_cuda_codes &c, int64_t m,
                                                int64_t rows_per_image)
{
    ht_coder coder = {1, 1, 0, 0};
    if (ht_makes_codes(out)) {
        const float *p = c.scale.data;
        if (c.scale.stride)
            p += c.scale.stride * (c.scale.per_row ? m : ht_divide(m, rows_per_image));
        coder = {p[0], __frcp_rn(p[0]), p[1], c.levels};
    }
    return coder;
}

/* ht_code_of of element.cuh to the bit, with additions instead of conversions, which are as slow as exp: 1.5 2^23 added
 * to |y| < 2^22 leaves the nearest whole number, even of two; taking away 1.5 2^23 - zero is exact.  Beyond 2^22 any
 * code is at an end.  NaN is 0. */
__device__ __forceinline__ unsigned ht_code_by_adding(float x, const ht_coder &c)
{
    const float magic = 12582912.0f;
    float y = __fsub_rn(__fadd_rn(__fmul_rn(x, c.inv), magic), magic - c.zero);
    y = fminf(fmaxf(y, 0.0f), c.levels);
    return __float_as_uint(__fadd_rn(y, magic)) & 0xff;
}

template <int W>
__device__ __forceinline__ void ht_store_n(const ht_cuda_tensor &t, const ht_coder &c, int64_t i, const float (&v)[W])
{
    if (t.dtype == HT_CUDA_F16) {
        ht_pack<__half, W> p;
#pragma unroll
        for (int k = 0; k < W; k++)
            p.at[k] = __float2half_rn(v[k]);
        *(ht_pack<__half, W> *)((__half *)t.data + i) = p;
    } else if (t.dtype == HT_CUDA_F32) {
        ht_pack<float, W> p;
#pragma unroll
        for (int k = 0; k < W; k++)
            p.at[k] = v[k];
        *(ht_pack<float, W> *)((float *)t.data + i) = p;
    } else {
        ht_pack<uint8_t, W> p;
#pragma unroll
        for (int k = 0; k < W; k++)
            p.at[k] =
                (uint8_t)(t.dtype == HT_CUDA_U8 ? ht_code_by_adding(v[k], c) : ht_e4m3_of(__fdiv_rn(v[k], c.step)));
        *(ht_pack<uint8_t, W> *)((uint8_t *)t.data + i) = p;
    }
}

/* ---- on the host ---- */

static inline size_t ht_dtype_bytes(ht_cuda_dtype d)
{
    return d == HT_CUDA_F32 ? 4 : d == HT_CUDA_F16 ? 2 : 1;
}

static inline bool ht_is_float(const ht_cuda_tensor *t)
{
    return t->dtype == HT_CUDA_F32 || t->dtype == HT_CUDA_F16;
}

/* Codes need scales. */
static inline bool ht_is_output(const ht_cuda_tensor *t, const ht_cuda_codes *c)
{
    return t->data && (ht_is_float(t) || c->scale.data);
}

static inline bool ht_is_aligned(const void *p)
{
    return (uintptr_t)p % 16 == 0;
}

#endif
