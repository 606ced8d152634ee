/* map.cu   out[i] = f(x[i], ..): everything that works element by element, and the scales of activations.
 *
 * x, y: F32 or F16; out: those or codes.  8 elements a thread where channels and periods are multiples of 8 and
 * addresses of 16 bytes (W = 8), else one.  Sums and products are the scalar kernels' of cpu/reference*.c, rounding by
 * rounding; exp is cuda/activation.cuh's.  All is memory bound: one pass, 16-byte accesses, nothing to reuse. */
#include <float.h>

#include "cuda/activation.cuh"
#include "cuda/device.h"
#include "cuda/vector.cuh"

enum { THREADS = 256 };

/* ---- the float grids of quant/grid.c, which are simulated ---- */

__device__ __forceinline__ float round_to_grid(const ht_cuda_map &m, float y)
{
    uint32_t sign = __float_as_uint(y) & 0x80000000;
    float magnitude = __uint_as_float(__float_as_uint(y) ^ sign), limit = sign ? -m.lowest : m.highest;
    magnitude = magnitude < limit ? magnitude : limit;
    float binade = __uint_as_float(__float_as_uint(magnitude) & 0x7f800000);
    float step = __fmul_rn(binade, __uint_as_float((uint32_t)(127 - m.mantissa_bits) << 23));
    step = step > m.unit ? step : m.unit;
    float magic = __fmul_rn(step, 8388608.0f);
    magnitude = __fsub_rn(__fadd_rn(magnitude, magic), magic);
    return __uint_as_float(__float_as_uint(magnitude) | sign);
}

/* ---- one kernel a kind ---- */

/* Where element i of a tensor that begins again after `period` elements lies. */
__device__ __forceinline__ int64_t repeated(int64_t i, int64_t period)
{
    return period ? i - ht_divide(i, period) * period : i;
}

__device__ __forceinline__ const float *row_of(const ht_cuda_rows &r, int64_t row, int64_t rows_per_image)
{
    return r.data + (r.stride ? r.stride * ht_divide(row, rows_per_image) : 0);
}

template <int KIND> __device__ __forceinline__ float one_to_one(const ht_cuda_map &m, float x)
{
    switch (KIND) {
    case HT_CUDA_SILU:
        return ht_silu_f32(x);
    case HT_CUDA_GELU:
        return ht_gelu_f32(x);
    case HT_CUDA_QUICK_GELU:
        return ht_quick_gelu_f32(x);
    case HT_CUDA_GELU_TANH:
        return ht_gelu_tanh_f32(x);
    case HT_CUDA_RELU:
        return x < 0 ? 0 : x;
    case HT_CUDA_TANH:
        return tanhf(x);
    case HT_CUDA_AFFINE:
        return __fmaf_rn(x, m.a, m.b);
    default:
        return x;
    }
}

template <int KIND> __device__ constexpr bool takes_row()
{
    return KIND == HT_CUDA_ADD_ROW || KIND == HT_CUDA_SCALE_SHIFT || KIND == HT_CUDA_GATE || KIND == HT_CUDA_GEGLU ||
           KIND == HT_CUDA_QUANTIZE || KIND == HT_CUDA_ADD_TABLE || KIND == HT_CUDA_TIMES_TABLE;
}

template <int KIND, int W>
__global__ void __launch_bounds__(THREADS) map_kernel(const __grid_constant__ ht_cuda_map m, int64_t count)
{
    int64_t i = ((int64_t)blockIdx.x * THREADS + threadIdx.x) * W, row = 0, column = 0;
    if (i >= count)
        return;
    if (takes_row<KIND>() || ht_makes_codes(m.out)) {
        row = ht_divide(i, m.channels);
        column = i - row * m.channels;
    }
    float x[W], y[W], z[W];
    if (KIND == HT_CUDA_GEGLU) {
        ht_load_n<W>(x, m.x, i + row * m.channels);
        ht_load_n<W>(y, m.x, i + row * m.channels + m.channels);
    } else
        ht_load_n<W>(x, m.x, repeated(i, m.x_period));
    if (KIND == HT_CUDA_ADD || KIND == HT_CUDA_MULTIPLY)
        ht_load_n<W>(y, m.y, repeated(i, m.y_period));
    if (KIND == HT_CUDA_GATE)
        ht_load_n<W>(y, m.y, repeated(i, m.y_period));
    if (KIND == HT_CUDA_ADD_ROW || KIND == HT_CUDA_SCALE_SHIFT || KIND == HT_CUDA_GATE)
        ht_load_floats<W>(z, row_of(m.row, row, m.rows_per_image) + column);
    if (KIND == HT_CUDA_SCALE_SHIFT)
        ht_load_floats<W>(y, row_of(m.row2, row, m.rows_per_image) + column);
    if (KIND == HT_CUDA_ADD_TABLE || KIND == HT_CUDA_TIMES_TABLE)
        ht_load_floats<W>(z, m.table + repeated(row, (int64_t)m.a) * m.channels + column);
    float step =
        KIND == HT_CUDA_QUANTIZE && !ht_makes_codes(m.out) ? ht_scale_of(m.codes.scale, row, m.rows_per_image).x : 1;
#pragma unroll
    for (int k = 0; k < W; k++) {
        if (KIND == HT_CUDA_ADD)
            x[k] = __fadd_rn(x[k], y[k]);
        else if (KIND == HT_CUDA_MULTIPLY)
            x[k] = __fmul_rn(x[k], y[k]);
        else if (KIND == HT_CUDA_ADD_ROW || KIND == HT_CUDA_ADD_TABLE)
            x[k] = __fadd_rn(x[k], z[k]);
        else if (KIND == HT_CUDA_TIMES_TABLE)
            x[k] = __fmul_rn(x[k], z[k]);
        else if (KIND == HT_CUDA_SCALE_SHIFT) {
            x[k] = __fmaf_rn(x[k], __fadd_rn(1.0f, z[k]), y[k]);
            x[k] = m.a != 0 ? ht_silu_f32(x[k]) : x[k];
        } else if (KIND == HT_CUDA_GATE)
            x[k] = __fmaf_rn(x[k], z[k], y[k]);
        else if (KIND == HT_CUDA_GEGLU)
            x[k] = __fmul_rn(x[k], ht_gelu_f32(y[k]));
        else if (KIND == HT_CUDA_QUANTIZE)
            x[k] = ht_makes_codes(m.out) ? x[k] : __fmul_rn(round_to_grid(m, __fdiv_rn(x[k], step)), step);
        else
            x[k] = one_to_one<KIND>(m, x[k]);
    }
    ht_store_n<W>(m.out, ht_coder_of(m.out, m.codes, row, m.rows_per_image), i, x);
}

typedef void (*map_function)(const ht_cuda_map, int64_t);

static const map_function kernels[][2] = {
    {map_kernel<HT_CUDA_SILU, 1>, map_kernel<HT_CUDA_SILU, 8>},
    {map_kernel<HT_CUDA_GELU, 1>, map_kernel<HT_CUDA_GELU, 8>},
    {map_kernel<HT_CUDA_QUICK_GELU, 1>, map_kernel<HT_CUDA_QUICK_GELU, 8>},
    {map_kernel<HT_CUDA_GELU_TANH, 1>, map_kernel<HT_CUDA_GELU_TANH, 8>},
    {map_kernel<HT_CUDA_RELU, 1>, map_kernel<HT_CUDA_RELU, 8>},
    {map_kernel<HT_CUDA_TANH, 1>, map_kernel<HT_CUDA_TANH, 8>},
    {map_kernel<HT_CUDA_COPY, 1>, map_kernel<HT_CUDA_COPY, 8>},
    {map_kernel<HT_CUDA_AFFINE, 1>, map_kernel<HT_CUDA_AFFINE, 8>},
    {map_kernel<HT_CUDA_ADD, 1>, map_kernel<HT_CUDA_ADD, 8>},
    {map_kernel<HT_CUDA_MULTIPLY, 1>, map_kernel<HT_CUDA_MULTIPLY, 8>},
    {map_kernel<HT_CUDA_ADD_ROW, 1>, map_kernel<HT_CUDA_ADD_ROW, 8>},
    {map_kernel<HT_CUDA_SCALE_SHIFT, 1>, map_kernel<HT_CUDA_SCALE_SHIFT, 8>},
    {map_kernel<HT_CUDA_GATE, 1>, map_kernel<HT_CUDA_GATE, 8>},
    {map_kernel<HT_CUDA_GEGLU, 1>, map_kernel<HT_CUDA_GEGLU, 8>},
    {map_kernel<HT_CUDA_QUANTIZE, 1>, map_kernel<HT_CUDA_QUANTIZE, 8>},
    {map_kernel<HT_CUDA_ADD_TABLE, 1>, map_kernel<HT_CUDA_ADD_TABLE, 8>},
    {map_kernel<HT_CUDA_TIMES_TABLE, 1>, map_kernel<HT_CUDA_TIMES_TABLE, 8>},
};

static bool takes_two(ht_cuda_map_kind kind)
{
    return kind == HT_CUDA_ADD || kind == HT_CUDA_MULTIPLY || kind == HT_CUDA_GATE;
}

/* NULL: there is a kernel. */
static const char *map_refusal(const ht_cuda_map *m)
{
    if ((unsigned)m->kind >= sizeof kernels / sizeof *kernels)
        return "no such kind";
    if (!ht_is_float(&m->x) || (takes_two(m->kind) && (!m->y.data || !ht_is_float(&m->y))))
        return "codes as inputs";
    if (!ht_is_output(&m->out, &m->codes) || (m->kind == HT_CUDA_QUANTIZE && !m->codes.scale.data))
        return "no scales";
    bool rows = m->kind == HT_CUDA_ADD_ROW || m->kind == HT_CUDA_SCALE_SHIFT || m->kind == HT_CUDA_GATE;
    if ((rows && !m->row.data) || (m->kind == HT_CUDA_SCALE_SHIFT && !m->row2.data))
        return "no row";
    bool table = m->kind == HT_CUDA_ADD_TABLE || m->kind == HT_CUDA_TIMES_TABLE;
    if (table && (!m->table || m->a < 1))
        return "no table";
    return NULL;
}

static bool fits_vectors(const ht_cuda_map *m)
{
    return m->channels % 8 == 0 && m->x_period % 8 == 0 && m->y_period % 8 == 0 && m->row.stride % 4 == 0 &&
           m->row2.stride % 4 == 0 && ht_is_aligned(m->x.data) && ht_is_aligned(m->y.data) &&
           ht_is_aligned(m->out.data) && ht_is_aligned(m->row.data) && ht_is_aligned(m->row2.data) &&
           ht_is_aligned(m->table);
}

int ht_cuda_map_run(const ht_cuda_map *m)
{
    if (map_refusal(m))
        return HT_CUDA_REFUSED;
    int64_t count = m->rows * m->channels, vector = fits_vectors(m), blocks;
    blocks = (count / (vector ? 8 : 1) + THREADS - 1) / THREADS;
    if (!blocks)
        return HT_CUDA_OK;
    kernels[m->kind][vector]<<<(unsigned)blocks, THREADS, 0, ht_cuda_stream()>>>(*m, count);
    return ht_cuda_launched();
}

/* ---- timestep embedding: core/elementary.c's exp, sine and cosine, operation by operation ---- */

__device__ __forceinline__ double exp_of(double x)
{
    const double ln2_high = 0x1.62e42feep-1, ln2_low = 0x1.a39ef35793c76p-33;
    double k = floor(__dadd_rn(__ddiv_rn(x, ln2_high), 0.5)), p = 1;
    double r = __dsub_rn(__dsub_rn(x, __dmul_rn(k, ln2_high)), __dmul_rn(k, ln2_low));
    for (int i = 14; i >= 1; i--)
        p = __dadd_rn(1, __dmul_rn(__ddiv_rn(r, (double)i), p));
    return __dmul_rn(p, __longlong_as_double(((long long)k + 1023) << 52));
}

__device__ __forceinline__ void sincos_of_turns(double turns, double *sine, double *cosine)
{
    const double half_pi = 0x1.921fb54442d18p0;
    double quarter = floor(__dadd_rn(__dmul_rn(4, turns), 0.5));
    double a = __dmul_rn(__dsub_rn(__dmul_rn(4, turns), quarter), half_pi), z = __dmul_rn(a, a), s = 1, c = 1;
    for (int i = 15; i >= 3; i -= 2)
        s = __dsub_rn(1, __dmul_rn(__ddiv_rn(z, (double)(i * (i - 1))), s));
    for (int i = 16; i >= 2; i -= 2)
        c = __dsub_rn(1, __dmul_rn(__ddiv_rn(z, (double)(i * (i - 1))), c));
    s = __dmul_rn(s, a);
    int quadrant = (int)((long long)quarter & 3);
    double sin_whole = quadrant & 1 ? c : s, cos_whole = quadrant & 1 ? s : c;
    *sine = quadrant & 2 ? -sin_whole : sin_whole;
    *cosine = (quadrant + 1) & 2 ? -cos_whole : cos_whole;
}

__global__ void embedding_kernel(const __grid_constant__ ht_cuda_embedding e)
{
    int half = e.dim / 2;
    int64_t at = (int64_t)blockIdx.x * blockDim.x + threadIdx.x, r = half ? at / half : at;
    if (r >= e.rows)
        return;
    float *row = e.out + r * e.dim;
    int i = half ? (int)(at % half) : 0;
    if (half) {
        float exponent = __fdiv_rn(__fmul_rn(-9.210340371976184f, (float)i), __fsub_rn((float)half, e.freq_shift));
        float angle = __fmul_rn(e.x[r], (float)exp_of((double)exponent));
        double sine, cosine;
        sincos_of_turns(__dmul_rn((double)angle, 0.15915494309189535), &sine, &cosine);
        row[i + (e.flip_sin_to_cos ? half : 0)] = (float)sine;
        row[i + (e.flip_sin_to_cos ? 0 : half)] = (float)cosine;
    }
    if (e.dim % 2 && i == 0)
        row[e.dim - 1] = 0;
}

int ht_cuda_embedding_run(const ht_cuda_embedding *e)
{
    int64_t count = e->rows * (e->dim > 1 ? e->dim / 2 : 1);
    if (!count)
        return HT_CUDA_OK;
    embedding_kernel<<<(unsigned)((count + 63) / 64), 64, 0, ht_cuda_stream()>>>(*e);
    return ht_cuda_launched();
}

/* ---- scales of activations ---- */

/* ht_input_group of quant/layer.c: the nearest timestep, of two the earlier. */
__global__ void input_scale_kernel(const __grid_constant__ ht_cuda_input_scale s)
{
    int best = 0;
    for (int i = 1; s.x && i < s.groups; i++)
        if (fabsf(__fsub_rn(s.timesteps[i], s.x[0])) < fabsf(__fsub_rn(s.timesteps[best], s.x[0])))
            best = i;
    s.out[0] = s.step[best];
    s.out[1] = s.zero[best];
}

int ht_cuda_input_scale_run(const ht_cuda_input_scale *s)
{
    input_scale_kernel<<<1, 1, 0, ht_cuda_stream()>>>(*s);
    return ht_cuda_launched();
}

/* Spans longer than this are shared by several blocks, which meet in `out`: it holds -low and high until the last
 * kernel.  Both are at least 0, so that their order is that of their bits, and least and largest are the same in any
 * order. */
enum { RANGE_THREADS = 256, RANGE_SPAN = 8192, RANGE_PART = 4096 };

__device__ __forceinline__ float largest_of_block(float v)
{
    __shared__ float of_warp[RANGE_THREADS / 32];
    for (int k = 16; k; k /= 2)
        v = fmaxf(v, __shfl_xor_sync(~0u, v, k));
    __syncthreads();
    if (threadIdx.x % 32 == 0)
        of_warp[threadIdx.x / 32] = v;
    __syncthreads();
    for (int k = 0; k < RANGE_THREADS / 32; k++)
        v = fmaxf(v, of_warp[k]);
    return v;
}

/* bits of cpu/reference_quantized.c: low is +0 where nothing is below 0, and then the zero point -0. */
__device__ __forceinline__ void write_range(const ht_cuda_input_range &r, int64_t row, float below, float high)
{
    float low = below > 0 ? -below : 0;
    float step = __fdiv_rn(__fsub_rn(high, low), r.levels);
    step = step > FLT_MIN ? step : FLT_MIN;
    float zero = rintf(__fdiv_rn(-low, step));
    r.out[2 * row] = step;
    r.out[2 * row + 1] = zero < r.levels ? zero : r.levels;
}

template <int W>
__global__ void __launch_bounds__(RANGE_THREADS)
    range_kernel(const __grid_constant__ ht_cuda_input_range r, int64_t part)
{
    int64_t row = blockIdx.x, first = (int64_t)blockIdx.y * part, end = first + part;
    float below = 0, high = 0;
    end = end < r.count ? end : r.count;
    for (int64_t i = first + (int64_t)threadIdx.x * W; i < end; i += RANGE_THREADS * W) {
        float v[W];
        ht_load_n<W>(v, r.x, row * r.count + i);
#pragma unroll
        for (int k = 0; k < W; k++) { /* of NaN the other one */
            below = fmaxf(below, -v[k]);
            high = fmaxf(high, v[k]);
        }
    }
    below = largest_of_block(below);
    high = largest_of_block(high);
    if (threadIdx.x)
        return;
    if (gridDim.y == 1)
        write_range(r, row, below, high);
    else {
        atomicMax((int *)&r.out[2 * row], __float_as_int(below + 0.0f)); /* -0 is 0 */
        atomicMax((int *)&r.out[2 * row + 1], __float_as_int(high + 0.0f));
    }
}

__global__ void range_end_kernel(const __grid_constant__ ht_cuda_input_range r)
{
    int64_t row = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
    if (row < r.rows)
        write_range(r, row, r.out[2 * row], r.out[2 * row + 1]);
}

int ht_cuda_input_range_run(const ht_cuda_input_range *r)
{
    if (!ht_is_float(&r->x))
        return HT_CUDA_REFUSED;
    if (!r->rows)
        return HT_CUDA_OK;
    cudaStream_t stream = ht_cuda_stream();
    int64_t parts = r->count <= RANGE_SPAN ? 1 : (r->count + RANGE_PART - 1) / RANGE_PART;
    parts = parts < 512 ? parts : 512;
    int64_t part = ((r->count + parts - 1) / parts + 7) / 8 * 8;
    dim3 grid((unsigned)r->rows, (unsigned)parts);
    int status = HT_CUDA_OK;
    if (parts > 1)
        status = ht_cuda_check(cudaMemsetAsync(r->out, 0, (size_t)r->rows * 2 * sizeof(float), stream));
    if (status)
        return status;
    if (r->count % 8 == 0 && ht_is_aligned(r->x.data))
        range_kernel<8><<<grid, RANGE_THREADS, 0, stream>>>(*r, part);
    else
        range_kernel<1><<<grid, RANGE_THREADS, 0, stream>>>(*r, part);
    status = ht_cuda_launched();
    if (status || parts == 1)
        return status;
    range_end_kernel<<<(unsigned)((r->rows + 127) / 128), 128, 0, stream>>>(*r);
    return ht_cuda_launched();
}
