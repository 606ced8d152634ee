/* move.cu   out[row][channel] = x[elsewhere]: slices, joins, nearest upsampling, patches, picked rows; and the few
 * movements that compute: averages.
 *
 * Where x, y and out have one dtype (codes too), elements are not looked at: rows are moved in the widest units, up to
 * 16 bytes, that all row lengths and offsets are multiples of.  Else an element at a time, converted. */
#include "cuda/device.h"
#include "cuda/vector.cuh"

enum { THREADS = 256 };

/* Row r of an output of h x w pixels. */
typedef struct pixel {
    int64_t image;
    int y, x;
} pixel;

__device__ __forceinline__ pixel pixel_of(int64_t r, int h, int w)
{
    int64_t line = ht_divide(r, w), image = ht_divide(line, h);
    return {image, (int)(line - image * h), (int)(r - line * w)};
}

/* Where (row, column) of the output lies in x, or, if second becomes true, in y.  Channel counts may be of elements or
 * of wider units. */
__device__ __forceinline__ int64_t source_of(const ht_cuda_move &m, int64_t row, int64_t column, bool *second)
{
    *second = false;
    switch (m.kind) {
    case HT_CUDA_SLICE:
        return row * m.c[0] + m.begin + column;
    case HT_CUDA_CONCAT:
        *second = column >= m.c[0];
        return *second ? row * m.c[1] + column - m.c[0] : row * m.c[0] + column;
    case HT_CUDA_UPSAMPLE: {
        pixel p = pixel_of(row, m.out_h, m.out_w);
        return ((p.image * m.h + p.y / 2) * m.w + p.x / 2) * m.channels + column;
    }
    case HT_CUDA_UNPATCHIFY: {
        pixel p = pixel_of(row, m.h * m.k, m.w * m.k);
        int64_t patch = (p.image * m.h + p.y / m.k) * m.w + p.x / m.k;
        return ((patch * m.k + p.y % m.k) * m.k + p.x % m.k) * m.channels + column;
    }
    default: /* HT_CUDA_PICK */
        return (row * m.positions + (int64_t)ht_load(m.y, row)) * m.channels + column;
    }
}

template <typename U>
__global__ void __launch_bounds__(THREADS) move_units(const __grid_constant__ ht_cuda_move m, int64_t count)
{
    int64_t i = (int64_t)blockIdx.x * THREADS + threadIdx.x;
    if (i >= count)
        return;
    int64_t row = ht_divide(i, m.channels);
    bool second;
    int64_t from = source_of(m, row, i - row * m.channels, &second);
    ((U *)m.out.data)[i] = ((const U *)(second ? m.y.data : m.x.data))[from];
}

__global__ void __launch_bounds__(THREADS) move_converted(const __grid_constant__ ht_cuda_move m, int64_t count)
{
    int64_t i = (int64_t)blockIdx.x * THREADS + threadIdx.x;
    if (i >= count)
        return;
    int64_t row = ht_divide(i, m.channels);
    bool second;
    int64_t from = source_of(m, row, i - row * m.channels, &second);
    ht_store(m.out, {}, i, row, 1, second ? ht_load(m.y, from) : ht_load(m.x, from));
}

/* Sums as cpu/reference.c has them: left to right, row by row. */
__global__ void __launch_bounds__(THREADS) avg_pool(const __grid_constant__ ht_cuda_move m, int64_t count)
{
    int64_t i = (int64_t)blockIdx.x * THREADS + threadIdx.x;
    if (i >= count)
        return;
    int64_t row = ht_divide(i, m.channels), line = (int64_t)m.w * m.channels;
    pixel p = pixel_of(row, m.out_h, m.out_w);
    int64_t from = (p.image * m.h + 2 * p.y) * line + 2 * p.x * m.channels + i - row * m.channels;
    float sum = __fadd_rn(ht_load(m.x, from), ht_load(m.x, from + m.channels));
    sum = __fadd_rn(sum, ht_load(m.x, from + line));
    sum = __fadd_rn(sum, ht_load(m.x, from + line + m.channels));
    ht_store(m.out, {}, i, row, 1, __fmul_rn(sum, 0.25f));
}

__global__ void __launch_bounds__(THREADS) lookup(const __grid_constant__ ht_cuda_move m, int64_t count)
{
    int64_t i = (int64_t)blockIdx.x * THREADS + threadIdx.x;
    if (i >= count)
        return;
    int64_t row = ht_divide(i, m.channels);
    ht_store(m.out, {}, i, row, 1, m.table[(int64_t)ht_load(m.x, row) * m.channels + i - row * m.channels]);
}

/* The sum in double, position after position, as on the CPU. */
__global__ void __launch_bounds__(THREADS) mean(const __grid_constant__ ht_cuda_move m, int64_t count)
{
    int64_t i = (int64_t)blockIdx.x * THREADS + threadIdx.x;
    if (i >= count)
        return;
    int64_t image = ht_divide(i, m.channels), from = image * (m.positions - 1) * m.channels + i;
    double sum = 0;
    for (int64_t p = 0; p < m.positions; p++)
        sum = __dadd_rn(sum, (double)ht_load(m.x, from + p * m.channels));
    ht_store(m.out, {}, i, image, 1, (float)__ddiv_rn(sum, (double)m.positions));
}

/* ---- which one ---- */

static bool computes(ht_cuda_move_kind kind)
{
    return kind == HT_CUDA_AVG_POOL || kind == HT_CUDA_MEAN || kind == HT_CUDA_LOOKUP;
}

static bool same_dtypes(const ht_cuda_move *m)
{
    return m->x.dtype == m->out.dtype && (m->kind != HT_CUDA_CONCAT || m->y.dtype == m->out.dtype);
}

static bool is_refused(const ht_cuda_move *m)
{
    if ((unsigned)m->kind > HT_CUDA_MEAN || !m->x.data || !m->out.data || m->channels < 1)
        return true;
    if ((m->kind == HT_CUDA_CONCAT || m->kind == HT_CUDA_PICK) && !m->y.data)
        return true;
    if (m->kind == HT_CUDA_PICK && !ht_is_float(&m->y))
        return true;
    if (m->kind == HT_CUDA_LOOKUP && !m->table)
        return true;
    bool floats = ht_is_float(&m->x) && ht_is_float(&m->out) && (m->kind != HT_CUDA_CONCAT || ht_is_float(&m->y));
    return !floats && (computes(m->kind) || !same_dtypes(m));
}

/* Bytes of the units that rows and offsets consist of. */
static size_t unit_of(const ht_cuda_move *m)
{
    size_t bytes = ht_dtype_bytes(m->out.dtype), all = (size_t)m->channels;
    if (m->kind == HT_CUDA_SLICE)
        all |= (size_t)m->c[0] | (size_t)m->begin;
    if (m->kind == HT_CUDA_CONCAT)
        all |= (size_t)m->c[0] | (size_t)m->c[1];
    all *= bytes;
    all |= (uintptr_t)m->x.data | (uintptr_t)m->out.data;
    if (m->kind == HT_CUDA_CONCAT)
        all |= (uintptr_t)m->y.data;
    return all % 16 == 0 ? 16 : all % 4 == 0 ? 4 : all % 2 == 0 ? 2 : 1;
}

static int launch_units(const ht_cuda_move *m)
{
    size_t unit = unit_of(m), bytes = ht_dtype_bytes(m->out.dtype);
    ht_cuda_move in_units = *m;
    int *const counts[] = {&in_units.channels, &in_units.c[0], &in_units.c[1], &in_units.begin};
    for (int *const *c = counts; c < counts + 4; c++)
        **c = (int)((size_t) * *c * bytes / unit);
    int64_t count = m->rows * in_units.channels;
    unsigned blocks = (unsigned)((count + THREADS - 1) / THREADS);
    cudaStream_t stream = ht_cuda_stream();
    if (unit == 16)
        move_units<uint4><<<blocks, THREADS, 0, stream>>>(in_units, count);
    else if (unit == 4)
        move_units<uint32_t><<<blocks, THREADS, 0, stream>>>(in_units, count);
    else if (unit == 2)
        move_units<uint16_t><<<blocks, THREADS, 0, stream>>>(in_units, count);
    else
        move_units<uint8_t><<<blocks, THREADS, 0, stream>>>(in_units, count);
    return ht_cuda_launched();
}

int ht_cuda_move_run(const ht_cuda_move *m)
{
    if (is_refused(m))
        return HT_CUDA_REFUSED;
    int64_t count = m->rows * m->channels;
    if (!count)
        return HT_CUDA_OK;
    if (!computes(m->kind) && same_dtypes(m))
        return launch_units(m);
    unsigned blocks = (unsigned)((count + THREADS - 1) / THREADS);
    void (*kernel)(const ht_cuda_move, int64_t) = m->kind == HT_CUDA_AVG_POOL ? avg_pool
                                                  : m->kind == HT_CUDA_LOOKUP ? lookup
                                                  : m->kind == HT_CUDA_MEAN   ? mean
                                                                              : move_converted;
    kernel<<<blocks, THREADS, 0, ht_cuda_stream()>>>(*m, count);
    return ht_cuda_launched();
}
