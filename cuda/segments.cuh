/* segments.cuh - what a kernel does with sums of codes: formats as types, where a segment of the depth ends, scales of
 * its weights, and partial sums of a depth that is split. */
#ifndef HT_CUDA_SEGMENTS_CUH
#define HT_CUDA_SEGMENTS_CUH

#include "cuda/epilogue.cuh"
#include "cuda/tile.cuh"

template <int FORMAT> struct ht_format {
    static constexpr bool F16 = FORMAT == HT_CUDA_W_F16;
    static constexpr bool INTEGER = FORMAT == HT_CUDA_W_S8 || FORMAT == HT_CUDA_W_S4;
    static constexpr bool NARROW = FORMAT == HT_CUDA_W_S4 || FORMAT == HT_CUDA_W_F4; /* 4-bit codes */
    static constexpr int UNIT = HT_UNIT_CODES / (NARROW ? 2 : 1);                    /* bytes of a group's unit */
    static constexpr int FRAGMENT = UNIT / 8;
};

template <bool INTEGER> struct ht_sum {
    typedef int type;
};
template <> struct ht_sum<false> {
    typedef float type;
};

/* A sum of whole weights: ht_widen_plain made 16 times as much of it. */
template <int FORMAT> __device__ __forceinline__ int ht_whole(const ht_plan &plan, int sum)
{
    return FORMAT == HT_CUDA_W_S4 && plan.plain_int4 ? sum >> HT_INT4_SHIFT : sum;
}

template <int FORMAT> __device__ __forceinline__ float ht_whole(const ht_plan &, float sum)
{
    return sum;
}

/* Follows steps of 32 bytes. */
struct ht_segments {
    int input, tap, channel, index;

    __device__ __forceinline__ void begin()
    {
        input = tap = channel = index = 0;
    }

    /* Does a segment end at `end` bytes of this tap?  Channels that fill a tap up belong to none. */
    __device__ __forceinline__ bool ends(const ht_plan &plan, int end) const
    {
        if (input > 1)
            return false;
        return plan.p.block ? end <= plan.bytes[input] && end % plan.p.block == 0
                            : end == plan.padded[input] && tap == plan.taps - 1;
    }

    __device__ __forceinline__ void next(const ht_plan &plan)
    {
        channel += 32;
        if (input > 1 || channel < plan.padded[input])
            return;
        channel = 0;
        if (++tap < plan.taps)
            return;
        tap = 0;
        input += plan.padded[1] && !input ? 1 : 2;
    }
};

/* Of the N columns of a thread in a segment. */
template <int N> struct ht_weight_scales {
    float scale[N];
    int sum[N];

    template <bool INTEGER> __device__ __forceinline__ void load(const ht_plan &plan, int segment, int column)
    {
        int64_t at = (int64_t)segment * plan.cols_padded + column;
#pragma unroll
        for (int i = 0; i < N; i++) {
            scale[i] = plan.p.weight_scales[at + i];
            sum[i] = INTEGER ? plan.p.weight_sums[at + i] : 0;
        }
    }
};

/* A fragment's registers from packed weights at `from` (this lane's). */
template <int FORMAT>
__device__ __forceinline__ void ht_weights_of(uint32_t (&a)[4], uint32_t from, bool plain, const uint32_t (&table)[4])
{
    if (!ht_format<FORMAT>::NARROW) {
        uint4 v = ht_shared_load4(from);
        a[0] = v.x;
        a[1] = v.y;
        a[2] = v.z;
        a[3] = v.w;
        return;
    }
    uint2 v = ht_shared_load2(from);
    if (FORMAT == HT_CUDA_W_S4 && plain) {
        ht_widen_plain(v.x, a[0], a[1]);
        ht_widen_plain(v.y, a[2], a[3]);
    } else {
        ht_widen_table(v.x, table, a[0], a[1]);
        ht_widen_table(v.y, table, a[2], a[3]);
    }
}

__device__ __forceinline__ void ht_table_of(uint32_t (&table)[4], const ht_plan &plan)
{
#pragma unroll
    for (int i = 0; i < 4; i++)
        table[i] = (uint32_t)(uint8_t)plan.p.values[4 * i] | (uint32_t)(uint8_t)plan.p.values[4 * i + 1] << 8 |
                   (uint32_t)(uint8_t)plan.p.values[4 * i + 2] << 16 |
                   (uint32_t)(uint8_t)plan.p.values[4 * i + 3] << 24;
}

/* Sums of this split to the workspace.  The last block of a tile to come gets true, and the sums of all splits, added
 * in their order.  `shared` is one word of shared memory. */
template <int N, int THREADS, class T>
__device__ __forceinline__ bool ht_join_splits(const ht_plan &plan, T *sums, int tile, int split, int thread,
                                               int *shared, void (*sync)())
{
    int splits = plan.pick.splits;
    T *all = (T *)plan.p.workspace + (int64_t)tile * splits * N * THREADS;
#pragma unroll
    for (int i = 0; i < N; i++)
        all[((int64_t)split * N + i) * THREADS + thread] = sums[i];
    __threadfence();
    sync();
    if (thread == 0)
        *shared = (int)atomicAdd(plan.counters + tile, 1u);
    sync();
    if (*shared != splits - 1)
        return false;
    __threadfence();
    if (thread == 0)
        plan.counters[tile] = 0;
#pragma unroll
    for (int i = 0; i < N; i++)
        sums[i] = 0;
    for (int s = 0; s < splits; s++)
#pragma unroll
        for (int i = 0; i < N; i++)
            sums[i] += __ldcg(&all[((int64_t)s * N + i) * THREADS + thread]);
    return true;
}

#endif
