/* product_plain.cu - codes of any number of channels, and FP8 where the GPU has no instruction for it: one thread makes
 * one output, in the words of cpu/reference.h.  Weights are [cols][k_stored], a byte each, 4-bit codes too. */
#include "cuda/epilogue.cuh"

namespace
{
enum { THREADS = 128 };

__device__ __forceinline__ float e4m3(uint8_t code)
{
    return __half2float(__half(__nv_cvt_fp8_to_halfraw(code, __NV_E4M3)));
}

struct chain {
    int64_t m, image;
    int n, segment, length;
    int codes;   /* exact sum of (code - zero) w */
    float sum;   /* of FP8 */
    float value; /* over segments that are done */

    __device__ __forceinline__ float2 scale(const ht_plan &plan, int input) const
    {
        return ht_scale_of(plan.p.x_scale[plan.p.parts == 2 ? input : 0], m, plan.p.window.rows_per_image);
    }

    __device__ __forceinline__ void fold(const ht_plan &plan, float step, bool integers)
    {
        float s = plan.p.weight_scales[(int64_t)segment * plan.cols_padded + n];
        value = integers ? ht_fold(codes, 0, 0, step, s, value) : ht_fold(sum, 0, 0, step, s, value);
        codes = length = 0;
        sum = 0;
        segment++;
    }
};

__global__ __launch_bounds__(THREADS) void plain(const __grid_constant__ ht_plan plan)
{
    const ht_cuda_product &p = plan.p;
    const ht_cuda_window &w = p.window;
    int64_t i = (int64_t)blockIdx.x * THREADS + threadIdx.x;
    if (i >= w.rows * w.cols)
        return;
    chain c = {};
    c.m = i / w.cols;
    c.n = (int)(i % w.cols);
    c.image = c.m / w.rows_per_image;
    bool integers = p.x.dtype == HT_CUDA_U8, narrow = p.format == HT_CUDA_W_S4 || p.format == HT_CUDA_W_F4;
    int at = (int)(c.m % w.rows_per_image);
    const uint8_t *weight = (const uint8_t *)p.weights + c.n * plan.k_stored;
    for (int input = 0; input < 2 && w.c[input]; input++) {
        float2 scale = c.scale(plan, input);
        const uint8_t *x = (const uint8_t *)(input ? p.x2.data : p.x.data);
        for (int tap = 0; tap < plan.taps; tap++) {
            int iy = at / w.out_w * w.stride - w.pad_top + tap / w.kernel_w;
            int ix = at % w.out_w * w.stride - w.pad_left + tap % w.kernel_w;
            bool inside = iy >= 0 && ix >= 0 && iy < w.h * w.upsample && ix < w.w * w.upsample;
            int64_t pixel = (c.image * w.h + iy / w.upsample) * w.w + ix / w.upsample;
            for (int channel = 0; channel < w.c[input]; channel++) {
                int code = *weight++, value = narrow ? p.values[code & 15] : code;
                uint8_t a = inside ? x[pixel * w.c[input] + channel] : 0;
                if (inside && integers)
                    c.codes += (a - (int)scale.y) * (signed char)value;
                else if (inside)
                    c.sum = __fmaf_rn(e4m3(a), e4m3((uint8_t)value), c.sum);
                if (++c.length == p.block)
                    c.fold(plan, scale.x, integers);
            }
        }
        if (!p.block && (p.parts == 2 || input == 1 || !w.c[1]))
            c.fold(plan, scale.x, integers);
    }
    ht_write(p, c.m, c.image, c.n, c.value);
}
} // namespace

int ht_product_launch_plain(const ht_plan *plan)
{
    int64_t count = plan->p.window.rows * plan->p.window.cols;
    plain<<<(unsigned)((count + THREADS - 1) / THREADS), THREADS, 0, ht_cuda_stream()>>>(*plan);
    return ht_cuda_launched();
}
