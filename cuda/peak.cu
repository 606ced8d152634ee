/* peak.cu - the arithmetic rate that a device reaches when nothing else is in the way: products back to back, from
 * registers and a few rows of shared memory.  What is written with wgmma reaches more than mma.sync does on Hopper, so
 * there it is the ceiling.  Random operands: a chip runs faster on zeros. */
#include "cuda/device.h"
#include "cuda/wgmma.cuh"

namespace
{
enum { THREADS = 256, TIMES = 4096, RUNS = 5 };

#ifdef __CUDA_ARCH_FEAT_SM90_ALL
[[maybe_unused]] __device__ __forceinline__ void product(int (&c)[64], const uint32_t (&a)[4], uint64_t b, int)
{
    ht_wgmma_s8(c, a, b, 1);
}

[[maybe_unused]] __device__ __forceinline__ void product(float (&c)[64], const uint32_t (&a)[4], uint64_t b, int f16)
{
    if (f16)
        ht_wgmma_f16(c, a, b, 1);
    else
        ht_wgmma_e4m3(c, a, b, 1);
}
#endif

[[maybe_unused]] __device__ __forceinline__ void product(int (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1,
                                                         int)
{
    ht_mma_s8(c, a, b0, b1);
}

[[maybe_unused]] __device__ __forceinline__ void product(float (&c)[4], const uint32_t (&a)[4], uint32_t b0,
                                                         uint32_t b1, int f16)
{
    if (f16)
        ht_mma_f16(c, a, b0, b1);
    else
        ht_mma_e4m3(c, a, b0, b1);
}

__device__ __forceinline__ uint32_t scramble(uint32_t x)
{
    x = (x ^ x >> 16) * 0x7feb352du;
    x = (x ^ x >> 15) * 0x846ca68bu;
    return (x ^ x >> 16) & 0xbfbfbfbfu; /* no infinity among halves, no NaN among e4m3 */
}

template <class T, int F16> __global__ __launch_bounds__(THREADS) void peak(int *out)
{
    uint32_t a[4];
    for (int i = 0; i < 4; i++)
        a[i] = scramble(threadIdx.x * 4 + i);
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
    __shared__ __align__(1024) uint32_t rows[128 * 32];
    for (int i = threadIdx.x; i < 128 * 32; i += THREADS)
        rows[i] = scramble(i + 4096);
    ht_fence_proxy();
    __syncthreads();
    T c[2][64] = {};
    uint64_t b = ht_wgmma_rows(ht_shared(rows));
    for (int i = 0; i < TIMES / 16; i++) {
        ht_wgmma_fence();
#pragma unroll
        for (int j = 0; j < 16; j++)
            product(c[j % 2], a, b + j % 4 * 2, F16);
        ht_wgmma_commit();
        ht_wgmma_wait<0>();
    }
    T sum = 0;
    for (int i = 0; i < 64; i++)
        sum += c[0][i] + c[1][i];
#else
    T c[8][4] = {};
    for (int i = 0; i < TIMES; i++)
#pragma unroll
        for (int j = 0; j < 8; j++)
            product(c[j], a, a[j % 4], a[(j + 1) % 4], F16);
    T sum = 0;
    for (int i = 0; i < 8; i++)
        sum += c[i][0] + c[i][1] + c[i][2] + c[i][3];
#endif
    if (sum == (T)0x7fffff)
        *out = 1;
}

template <class T, int F16> float milliseconds(int blocks)
{
    float best = 0;
    cudaEvent_t from, to;
    cudaEventCreate(&from);
    cudaEventCreate(&to);
    for (int i = 0; i < RUNS; i++) {
        float ms = 0;
        cudaEventRecord(from, ht_cuda_stream());
        peak<T, F16><<<blocks, THREADS, 0, ht_cuda_stream()>>>(NULL);
        cudaEventRecord(to, ht_cuda_stream());
        cudaEventSynchronize(to);
        cudaEventElapsedTime(&ms, from, to);
        best = i == 1 || ms < best ? ms : best; /* the first warms up */
    }
    cudaEventDestroy(from);
    cudaEventDestroy(to);
    return best;
}
} // namespace

double ht_cuda_peak(ht_cuda_weights format)
{
    int device, major = 0, minor = 0, blocks = 2 * ht_cuda_multiprocessors();
    cudaGetDevice(&device);
    cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device);
    cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device);
    if (format == HT_CUDA_W_E4M3 && 10 * major + minor < 89)
        return 0;
    float ms = format == HT_CUDA_W_S8    ? milliseconds<int, 0>(blocks)
               : format == HT_CUDA_W_F16 ? milliseconds<float, 1>(blocks)
                                         : milliseconds<float, 0>(blocks);
    double a_warp = major == 9 ? 64.0 * 128 / 4 : 8 * 16 * 8, depth = format == HT_CUDA_W_F16 ? 16 : 32;
    return ht_cuda_launched() || !(ms > 0) ? 0 : 2 * a_warp * depth * TIMES * (THREADS / 32) * blocks / ms * 1e3;
}
