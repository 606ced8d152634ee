/* product_f32.cu - products in float32 arithmetic: any channels, x and weights float or half.
 *
 * Tiles of 64 x 64 outputs, 16 of k at a time, 4 x 4 outputs a thread; a sum is one chain of fmaf over k in the stored
 * order.  A linear layer of one row per image (time embeddings) has too few tiles: there a warp makes a column, lanes
 * take every 32nd k, and their sums join in halves.  Neither order depends on the batch. */
#include "cuda/epilogue.cuh"

namespace
{
enum { TILE = 64, DEPTH = 16, THREADS = 256, PITCH = TILE + 4, ROWS_WARPS = 4, ROWS_AT_ONCE = 8 };

template <class T> __device__ __forceinline__ float to_float(T v)
{
    return (float)v;
}

/* One k of the stored order: input, tap, channel. */
struct place {
    int input, ky, kx, channel;

    __device__ __forceinline__ void advance(const ht_plan &plan, int by)
    {
        channel += by;
        while (input < 2 && channel >= plan.padded[input] / plan.element) {
            channel -= plan.padded[input] / plan.element;
            if (++kx < plan.p.window.kernel_w)
                continue;
            kx = 0;
            if (++ky < plan.p.window.kernel_h)
                continue;
            ky = 0;
            input += plan.padded[1] && !input ? 1 : 2;
        }
    }
};

template <class X>
__device__ __forceinline__ float input_at(const ht_plan &plan, const place &k, int64_t image, int y, int x)
{
    const ht_cuda_window &w = plan.p.window;
    if (k.input > 1 || k.channel >= w.c[k.input])
        return 0;
    y += k.ky;
    x += k.kx;
    if (y < 0 || x < 0 || y >= w.h * w.upsample || x >= w.w * w.upsample)
        return 0;
    int64_t pixel = (image * w.h + y / w.upsample) * w.w + x / w.upsample;
    const X *data = (const X *)(k.input ? plan.p.x2.data : plan.p.x.data);
    return to_float(data[pixel * w.c[k.input] + k.channel]);
}

template <class X, class W> __global__ __launch_bounds__(THREADS) void simt(const __grid_constant__ ht_plan plan)
{
    __shared__ __align__(16) float a[DEPTH][PITCH], b[DEPTH][PITCH];
    const ht_cuda_window &w = plan.p.window;
    int column_tiles = (w.cols + TILE - 1) / TILE, thread = (int)threadIdx.x;
    int64_t row = (int64_t)(blockIdx.x / column_tiles) * TILE;
    int column = (int)(blockIdx.x % column_tiles) * TILE, depth = thread % DEPTH, first = thread / DEPTH;
    int64_t image[4];
    int y[4], x[4];
#pragma unroll
    for (int i = 0; i < 4; i++) {
        int64_t m = row + first + 16 * i < w.rows ? row + first + 16 * i : w.rows - 1;
        int64_t at = m % w.rows_per_image;
        image[i] = m / w.rows_per_image;
        y[i] = (int)(at / w.out_w) * w.stride - w.pad_top;
        x[i] = (int)(at % w.out_w) * w.stride - w.pad_left;
    }
    place k = {};
    k.advance(plan, depth);
    float sums[4][4] = {};
    int my_row = thread / 16 * 4, my_column = thread % 16 * 4;
    for (int64_t at = 0; at < plan.k_stored; at += DEPTH) {
#pragma unroll
        for (int i = 0; i < 4; i++) {
            int n = column + first + 16 * i;
            a[depth][first + 16 * i] = input_at<X>(plan, k, image[i], y[i], x[i]);
            b[depth][first + 16 * i] = n < w.cols && at + depth < plan.k_stored
                                           ? to_float(((const W *)plan.p.weights)[n * plan.k_stored + at + depth])
                                           : 0.0f;
        }
        __syncthreads();
#pragma unroll
        for (int d = 0; d < DEPTH; d++) {
            float4 l = *(const float4 *)&a[d][my_row], r = *(const float4 *)&b[d][my_column];
            float left[4] = {l.x, l.y, l.z, l.w}, right[4] = {r.x, r.y, r.z, r.w};
#pragma unroll
            for (int i = 0; i < 4; i++)
#pragma unroll
                for (int j = 0; j < 4; j++)
                    sums[i][j] = __fmaf_rn(left[i], right[j], sums[i][j]);
        }
        __syncthreads();
        k.advance(plan, DEPTH);
    }
#pragma unroll
    for (int i = 0; i < 4; i++)
#pragma unroll
        for (int j = 0; j < 4; j++)
            if (row + my_row + i < w.rows && column + my_column + j < w.cols)
                ht_write(plan.p, row + my_row + i, (row + my_row + i) / w.rows_per_image, column + my_column + j,
                         sums[i][j]);
}

template <class X, class W>
__global__ __launch_bounds__(32 * ROWS_WARPS) void rows(const __grid_constant__ ht_plan plan)
{
    const ht_cuda_window &w = plan.p.window;
    int n = (int)(blockIdx.x * ROWS_WARPS + threadIdx.x / 32), lane = (int)threadIdx.x % 32;
    int64_t first = (int64_t)blockIdx.y * ROWS_AT_ONCE;
    if (n >= w.cols)
        return;
    const W *weights = (const W *)plan.p.weights + n * plan.k_stored;
    const X *x = (const X *)plan.p.x.data;
    float sums[ROWS_AT_ONCE] = {};
    for (int k = lane; k < w.c[0]; k += 32) {
        float weight = to_float(weights[k]);
#pragma unroll
        for (int i = 0; i < ROWS_AT_ONCE; i++)
            if (first + i < w.rows)
                sums[i] = __fmaf_rn(to_float(x[(first + i) * w.c[0] + k]), weight, sums[i]);
    }
#pragma unroll
    for (int i = 0; i < ROWS_AT_ONCE; i++) {
#pragma unroll
        for (int half = 16; half; half /= 2)
            sums[i] += __shfl_xor_sync(0xffffffffu, sums[i], half);
        if (!lane && first + i < w.rows)
            ht_write(plan.p, first + i, first + i, n, sums[i]);
    }
}

template <class X, class W> int launch(const ht_plan *plan)
{
    const ht_cuda_window *w = &plan->p.window;
    if (plan->family == HT_FAMILY_ROWS) {
        dim3 grid((unsigned)((w->cols + ROWS_WARPS - 1) / ROWS_WARPS),
                  (unsigned)((w->rows + ROWS_AT_ONCE - 1) / ROWS_AT_ONCE));
        rows<X, W><<<grid, 32 * ROWS_WARPS, 0, ht_cuda_stream()>>>(*plan);
    } else {
        unsigned tiles = (unsigned)((w->cols + TILE - 1) / TILE * ((w->rows + TILE - 1) / TILE));
        simt<X, W><<<tiles, THREADS, 0, ht_cuda_stream()>>>(*plan);
    }
    return ht_cuda_launched();
}
} // namespace

int ht_product_launch_simt(const ht_plan *plan)
{
    int half_x = plan->p.x.dtype == HT_CUDA_F16, half_w = plan->p.format == HT_CUDA_W_F16;
    return half_x   ? half_w ? launch<__half, __half>(plan) : launch<__half, float>(plan)
             : half_w ? launch<float, __half>(plan)
                    : launch<float, float>(plan);
}

int ht_product_launch_rows(const ht_plan *plan)
{
    return ht_product_launch_simt(plan);
}
