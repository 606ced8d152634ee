/* product_wgmma.cuh - products on Hopper's wgmma: out[m][n], weights as A from registers, pixels as B from shared
 * memory.
 *
 * One block stays on each multiprocessor and takes tile after tile of 128 columns and ROWS rows.  Its first warpgroup
 * fills the stages of a ring: activations by cp.async (tile.cuh), so that any window can be read and codes in its
 * padding can be zero points; weights by bulk copies, a group's stage being contiguous.  The others multiply, 64
 * columns each; while one loads its weights from shared memory (and widens 4-bit codes), the tensor cores have the
 * other's work.  Sums leave through a small exchange in shared memory, since a thread of a warpgroup has but two
 * columns of a row, and the filling warpgroup is ahead in the next tile meanwhile.
 *
 * Barriers: full[slot] has an arrival of each filling thread, LAG stages after its copies were issued and once these
 * are done, and one with the bulk copies' bytes; empty[slot] one of each multiplying warp. */
#ifndef HT_CUDA_PRODUCT_WGMMA_CUH
#define HT_CUDA_PRODUCT_WGMMA_CUH

#include "cuda/segments.cuh"
#include "cuda/wgmma.cuh"

template <int FORMAT, int PIECES, int N, bool FOLDS> struct ht_wg {
    static constexpr int ROWS = PIECES * N, GROUPS = 2, FILLERS = 128, MULTIPLIERS = 256, THREADS = 384;
    static constexpr int UNIT = ht_format<FORMAT>::UNIT, WEIGHTS = 2 * UNIT; /* of a group's stage */
    static constexpr int STAGE = ROWS * HT_STAGE + GROUPS * WEIGHTS;
    static constexpr int PARTS = FOLDS ? 2 : 1;            /* whose scales are used */
    static constexpr int CHUNK = 32, PITCH = HT_GROUP + 2; /* rows of an exchange, floats of one */
    static constexpr int EXCHANGE = CHUNK * PITCH * 4, FACTS = (int)sizeof(ht_row_facts<ROWS>);
    static constexpr int REST = GROUPS * EXCHANGE + FACTS + 16 * 16 + 16, MOST = 227 * 1024 - 1024;
    static constexpr int STAGES = (MOST - REST) / STAGE < 8 ? (MOST - REST) / STAGE : 8;
    static constexpr int SHARED = STAGES * STAGE + REST + 1024;
    static constexpr int LAG = STAGES - 2; /* one stage is multiplied while another is waited for */
    static_assert(LAG > 0, "a ring deeper than its lag");
    typedef ht_format<FORMAT> format;
    typedef typename ht_sum<format::INTEGER>::type sum;
    typedef sum tile[PIECES][N / 2];
    typedef float chain[PIECES][N / 2];

    struct place { /* of a piece of work */
        int tile, group, begin, end, split;
        int64_t row;
    };

#ifdef __CUDA_ARCH_FEAT_SM90_ALL
    static __device__ __forceinline__ place place_of(const ht_plan &plan, int work)
    {
        place p;
        int splits = plan.pick.splits;
        p.tile = work / splits;
        p.split = work - p.tile * splits;
        p.row = (int64_t)(p.tile / plan.group_tiles) * ROWS;
        p.group = p.tile % plan.group_tiles * GROUPS;
        p.begin = (int)((int64_t)plan.stages * p.split / splits);
        p.end = (int)((int64_t)plan.stages * (p.split + 1) / splits);
        return p;
    }

    /* ---- filling ---- */

    static __device__ __forceinline__ void fill(const ht_plan &plan, uint32_t ring, uint32_t full, uint32_t empty)
    {
        int slot = 0, phase = 0, issued = 0, works = (int)plan.tiles * plan.pick.splits;
        int common[2] = {0, 0}; /* zero points, if there is one for all rows */
        ht_loader<ROWS, FILLERS> load;
        for (int part = 0; format::INTEGER && part < plan.p.parts; part++)
            if (!plan.p.x_scale[part].stride)
                common[part] = (int)plan.p.x_scale[part].data[1];
        for (int work = (int)blockIdx.x; work < works; work += (int)gridDim.x) {
            place at = place_of(plan, work);
            auto zero_of = [&](int input, int i) {
                int part = plan.p.parts == 2 ? input : 0;
                const ht_cuda_scales &s = plan.p.x_scale[part];
                unsigned m = (unsigned)at.row + i;
                if (!s.stride)
                    return part ? common[1] : common[0];
                return (int)s.data[s.stride * (s.per_row ? m : m / (unsigned)plan.p.window.rows_per_image) + 1];
            };
            int groups = plan.groups - at.group < GROUPS ? plan.groups - at.group : GROUPS;
            load.begin(plan, at.row, threadIdx.x, at.begin);
            for (int stage = at.begin; stage < at.end; stage++) {
                uint32_t to = ring + slot * STAGE;
                ht_barrier_wait(empty + 8 * slot, phase ^ 1);
                if (threadIdx.x == 0) {
                    ht_barrier_expect(full + 8 * slot, groups * WEIGHTS);
                    for (int g = 0; g < groups; g++)
                        ht_copy_bulk(to + ROWS * HT_STAGE + g * WEIGHTS,
                                     (const uint8_t *)plan.p.weights +
                                         ((int64_t)(at.group + g) * plan.stages + stage) * WEIGHTS,
                                     WEIGHTS, full + 8 * slot);
                }
                load.template load<format::INTEGER>(plan, zero_of, to);
                ht_copies_commit();
                if (issued >= LAG) {
                    ht_copies_wait<LAG>();
                    ht_fence_proxy();
                    ht_barrier_arrive(full + 8 * (slot >= LAG ? slot - LAG : slot - LAG + STAGES));
                }
                issued++;
                if (++slot == STAGES) {
                    slot = 0;
                    phase ^= 1;
                }
            }
        }
        ht_copies_wait<0>();
        ht_fence_proxy();
        for (int i = issued < LAG ? issued : LAG; i > 0; i--)
            ht_barrier_arrive(full + 8 * (slot >= i ? slot - i : slot - i + STAGES));
    }

    /* ---- multiplying ---- */

    static __device__ __forceinline__ void multiply(sum (&c)[N / 2], const uint32_t (&a)[4], uint64_t b, int add)
    {
        if constexpr (format::INTEGER)
            ht_wgmma_s8(c, a, b, add);
        else if constexpr (format::F16)
            ht_wgmma_f16(c, a, b, add);
        else
            ht_wgmma_e4m3(c, a, b, add);
    }

    static __device__ __forceinline__ void hold(int &r)
    {
        asm volatile("" : "+r"(r)::"memory");
    }

    static __device__ __forceinline__ void hold(float &r)
    {
        asm volatile("" : "+f"(r)::"memory");
    }

    /* Until the tensor cores are done; nothing that reads sums may be moved before. */
    static __device__ __forceinline__ void wait(tile &sums)
    {
        ht_wgmma_wait<0>();
#pragma unroll
        for (int p = 0; p < PIECES; p++)
#pragma unroll
            for (int i = 0; i < N / 2; i++)
                hold(sums[p][i]);
    }

    static __device__ __forceinline__ void fold(const ht_plan &plan, const ht_row_facts<ROWS> &facts, int part,
                                                const ht_weight_scales<2> &w, const tile &sums, chain &chains)
    {
#pragma unroll
        for (int p = 0; p < PIECES; p++)
#pragma unroll
            for (int j = 0; j < N / 8; j++) {
                int first = p * N + 8 * j + (int)threadIdx.x % 4 * 2;
                float2 step = *(const float2 *)&facts.step[part][first];
                int2 zero = *(const int2 *)&facts.zero[part][first];
#pragma unroll
                for (int n = 0; n < 2; n++) {
                    float *c = &chains[p][4 * j + 2 * n];
                    const sum *s = &sums[p][4 * j + 2 * n];
                    c[0] = ht_fold(ht_whole<FORMAT>(plan, s[0]), zero.x, w.sum[n], step.x, w.scale[n], c[0]);
                    c[1] = ht_fold(ht_whole<FORMAT>(plan, s[1]), zero.y, w.sum[n], step.y, w.scale[n], c[1]);
                }
            }
    }

    /* A stage of a product with one segment.  x: its rows; w: this lane's weights. */
    static __device__ __forceinline__ void stage_plain(const ht_plan &plan, const uint32_t (&table)[4], uint32_t x,
                                                       uint32_t w, int add, tile &sums)
    {
        uint32_t a[4][4];
#pragma unroll
        for (int step = 0; step < 4; step++)
            ht_weights_of<FORMAT>(a[step], w + step * 4 * format::FRAGMENT, plan.plain_int4, table);
        ht_wgmma_fence();
#pragma unroll
        for (int step = 0; step < 4; step++)
#pragma unroll
            for (int p = 0; p < PIECES; p++)
                multiply(sums[p], a[step], ht_wgmma_rows(x + p * N * HT_STAGE + step * 32), step ? 1 : add);
        ht_wgmma_commit();
        wait(sums);
    }

    /* What the products with segments keep from stage to stage. */
    struct segment_state {
        ht_segments at;
        ht_weight_scales<2> scales;
        int column, add;
    };

    /* With segments: sums are folded where one ends. */
    static __device__ __forceinline__ void stage_folds(const ht_plan &plan, const uint32_t (&table)[4], uint32_t x,
                                                       uint32_t w, const ht_row_facts<ROWS> &facts,
                                                       segment_state &segment, tile &sums, chain &chains)
    {
        uint32_t a[4][4];
#pragma unroll
        for (int step = 0; step < 4; step++)
            ht_weights_of<FORMAT>(a[step], w + step * 4 * format::FRAGMENT, plan.plain_int4, table);
#pragma unroll
        for (int step = 0; step < 4; step++) {
            ht_wgmma_fence();
#pragma unroll
            for (int p = 0; p < PIECES; p++)
                multiply(sums[p], a[step], ht_wgmma_rows(x + p * N * HT_STAGE + step * 32), segment.add);
            ht_wgmma_commit();
            segment.add = 1;
            if (segment.at.ends(plan, segment.at.channel + 32)) {
                wait(sums);
                end_segment(plan, facts, segment, sums, chains);
            }
            segment.at.next(plan);
        }
        wait(sums);
    }

    /* Blocks of 16: no instruction has so few, so the other half of a step is multiplied by 0. */
    static __device__ __forceinline__ void stage_halves(const ht_plan &plan, const uint32_t (&table)[4], uint32_t x,
                                                        uint32_t w, const ht_row_facts<ROWS> &facts,
                                                        segment_state &segment, tile &sums, chain &chains)
    {
#pragma unroll 1
        for (int step = 0; step < 4; step++) {
            uint32_t a[4];
            ht_weights_of<FORMAT>(a, w + step * 4 * format::FRAGMENT, plan.plain_int4, table);
#pragma unroll 1
            for (int half = 0; half < 2; half++) {
                uint32_t some[4] = {half ? 0 : a[0], half ? 0 : a[1], half ? a[2] : 0, half ? a[3] : 0};
                ht_wgmma_fence();
#pragma unroll
                for (int p = 0; p < PIECES; p++)
                    multiply(sums[p], some, ht_wgmma_rows(x + p * N * HT_STAGE + step * 32), segment.add);
                ht_wgmma_commit();
                segment.add = 1;
                wait(sums);
                if (segment.at.ends(plan, segment.at.channel + (half + 1) * 16))
                    end_segment(plan, facts, segment, sums, chains);
            }
            segment.at.next(plan);
        }
    }

    static __device__ __forceinline__ void end_segment(const ht_plan &plan, const ht_row_facts<ROWS> &facts,
                                                       segment_state &segment, const tile &sums, chain &chains)
    {
        fold(plan, facts, segment.at.input, segment.scales, sums, chains);
        segment.add = 0;
        if (++segment.at.index < plan.segments)
            segment.scales.template load<format::INTEGER>(plan, segment.at.index, segment.column);
    }

    /* Rows of the tile leave 32 at a time: each thread's two columns to the exchange, then 8 neighbours each. */
    static __device__ __forceinline__ void store(const ht_plan &plan, const ht_row_facts<ROWS> &facts, int64_t row,
                                                 int group, int column, float *exchange, const tile &sums,
                                                 const chain &chains)
    {
        int thread = threadIdx.x % 128, lane = thread % 32, warp = thread / 32;
        ht_weight_scales<2> w;
        if (!FOLDS && !format::F16)
            w.template load<format::INTEGER>(plan, 0, column);
        ht_writer writer;
        writer.begin(plan.p, group * HT_GROUP + thread % 8 * 8);
        float *mine = exchange + thread / 8 * PITCH + thread % 8 * 8;
#pragma unroll
        for (int chunk = 0; chunk < ROWS / CHUNK; chunk++) {
            int first = chunk * CHUNK + thread / 8;
            ht_eight residual[2];
            writer.residual(plan.p, row + first, residual[0]);
            writer.residual(plan.p, row + first + CHUNK / 2, residual[1]);
            sync_group();
#pragma unroll
            for (int j = 0; j < CHUNK / 8; j++)
#pragma unroll
                for (int e = 0; e < 2; e++) {
                    int i = chunk * CHUNK + 8 * j + lane % 4 * 2 + e, at = (chunk * (CHUNK / 8) + j) * 4 + e;
                    float v[2];
#pragma unroll
                    for (int n = 0; n < 2; n++) {
                        int r = at + 2 * n;
                        sum s = sums[r / (N / 2)][r % (N / 2)];
                        v[n] = FOLDS         ? chains[r / (N / 2)][r % (N / 2)]
                               : format::F16 ? (float)s
                                             : ht_fold(ht_whole<FORMAT>(plan, s), facts.zero[0][i], w.sum[n],
                                                       facts.step[0][i], w.scale[n], 0.0f);
                    }
                    *(float2 *)&exchange[(i % CHUNK) * PITCH + lane / 4 * 8 + warp * 2] = make_float2(v[0], v[1]);
                }
            sync_group();
#pragma unroll
            for (int half = 0; half < 2; half++)
                store_piece(plan, facts, row, first + half * (CHUNK / 2), writer, residual[half],
                            mine + half * (CHUNK / 2) * PITCH);
        }
    }

    static __device__ __forceinline__ void store_piece(const ht_plan &plan, const ht_row_facts<ROWS> &facts,
                                                       int64_t row, int i, ht_writer &writer, const ht_eight &residual,
                                                       const float *from)
    {
        const ht_cuda_window &w = plan.p.window;
        if (row + i >= w.rows)
            return;
        if (writer.whole) {
            float v[8];
#pragma unroll
            for (int j = 0; j < 4; j++) {
                float2 pair = ((const float2 *)from)[j];
                v[2 * j] = pair.x;
                v[2 * j + 1] = pair.y;
            }
            writer.write(plan.p, row + i, facts.image[i], v, residual);
            return;
        }
#pragma unroll 1
        for (int j = 0; j < 8 && writer.n + j < w.cols; j++)
            ht_write(plan.p, row + i, facts.image[i], writer.n + j, from[j]);
    }

    static __device__ __forceinline__ void sync_group()
    {
        if (threadIdx.x / 128 == 1)
            ht_sync_some<2, 128>();
        else
            ht_sync_some<3, 128>();
    }

    static __device__ __forceinline__ void sync_multipliers()
    {
        ht_sync_some<1, MULTIPLIERS>();
    }

    static __device__ __forceinline__ void keep(ht_row_facts<ROWS> &facts, const ht_row_fact &fact, int thread)
    {
        sync_multipliers();
        if (thread < ROWS)
            fact.keep<PARTS>(facts, thread);
        sync_multipliers();
    }

    static __device__ __forceinline__ void multiply_all(const ht_plan &plan, uint32_t ring, uint32_t full,
                                                        uint32_t empty, float *exchange, ht_row_facts<ROWS> &facts,
                                                        int *last)
    {
        int thread = (int)threadIdx.x - FILLERS, mine = thread / 128, warp = thread / 32 % 4, lane = thread % 32;
        int slot = 0, phase = 0, works = (int)plan.tiles * plan.pick.splits;
        uint32_t table[4];
        ht_table_of(table, plan);
        for (int work = (int)blockIdx.x; work < works; work += (int)gridDim.x) {
            place at = place_of(plan, work);
            int group = at.group + mine, active = group < plan.groups;
            int column = group * HT_GROUP + lane / 4 * 8 + warp * 2;
            tile sums;
            chain chains = {};
            segment_state segment;
            ht_row_fact fact;
            fact.load<PARTS>(plan, at.row + thread);
            if (FOLDS)
                keep(facts, fact, thread);
            segment.at.begin();
            segment.column = column;
            segment.add = 0;
            if (FOLDS && active)
                segment.scales.template load<format::INTEGER>(plan, 0, column);
            if (!active)
#pragma unroll
                for (int p = 0; p < PIECES; p++)
#pragma unroll
                    for (int i = 0; i < N / 2; i++)
                        sums[p][i] = 0;
            for (int stage = at.begin; stage < at.end; stage++) {
                uint32_t x = ring + slot * STAGE;
                uint32_t w =
                    x + ROWS * HT_STAGE + mine * WEIGHTS + warp * format::FRAGMENT + lane * (format::FRAGMENT / 32);
                ht_barrier_wait(full + 8 * slot, phase);
                if (active) {
                    if constexpr (!FOLDS)
                        stage_plain(plan, table, x, w, stage > at.begin, sums);
                    else if (plan.p.block == 16)
                        stage_halves(plan, table, x, w, facts, segment, sums, chains);
                    else
                        stage_folds(plan, table, x, w, facts, segment, sums, chains);
                }
                __syncwarp();
                if (lane == 0)
                    ht_barrier_arrive(empty + 8 * slot);
                if (++slot == STAGES) {
                    slot = 0;
                    phase ^= 1;
                }
            }
            if (!FOLDS)
                keep(facts, fact, thread);
            if (!FOLDS && plan.pick.splits > 1 &&
                !ht_join_splits<PIECES *(N / 2), MULTIPLIERS>(plan, &sums[0][0], at.tile, at.split, thread, last,
                                                              sync_multipliers))
                continue;
            if (active)
                store(plan, facts, at.row, group, column, exchange + mine * (EXCHANGE / 4), sums, chains);
        }
    }

    static __device__ __forceinline__ void run(const ht_plan &plan, uint8_t *memory)
    {
        memory += (1024 - ht_shared(memory) % 1024) % 1024;
        float *exchange = (float *)(memory + STAGES * STAGE);
        ht_row_facts<ROWS> &facts = *(ht_row_facts<ROWS> *)(memory + STAGES * STAGE + GROUPS * EXCHANGE);
        uint32_t ring = ht_shared(memory), full = ring + STAGES * STAGE + GROUPS * EXCHANGE + FACTS, empty = full + 64;
        int *last = (int *)(memory + STAGES * STAGE + GROUPS * EXCHANGE + FACTS + 128);
        if (threadIdx.x == 0) {
            for (int i = 0; i < STAGES; i++) {
                ht_barrier_init(full + 8 * i, FILLERS + 1);
                ht_barrier_init(empty + 8 * i, MULTIPLIERS / 32);
            }
            ht_fence_proxy();
        }
        __syncthreads();
        if (threadIdx.x < FILLERS) {
            ht_fewer_registers<88>();
            fill(plan, ring, full, empty);
        } else {
            ht_more_registers<208>();
            multiply_all(plan, ring, full, empty, exchange, facts, last);
        }
    }
#else
    static __device__ __forceinline__ void run(const ht_plan &, uint8_t *)
    {
        __trap();
    }
#endif
};

template <class KERNEL> __global__ __launch_bounds__(384, 1) void ht_wg_kernel(const __grid_constant__ ht_plan plan)
{
    extern __shared__ __align__(1024) uint8_t memory[];
    KERNEL::run(plan, memory);
}

/* Was this compiled for sm_90a, and not for an older device whose PTX the driver translated? */
template <int FORMAT> int ht_wg_is_built()
{
    cudaFuncAttributes a;
    return cudaFuncGetAttributes(&a, ht_wg_kernel<ht_wg<FORMAT, 1, 128, false>>) == cudaSuccess && a.ptxVersion >= 90;
}

static inline int ht_wg_serves(const ht_plan *plan)
{
    return plan->pick.tile >= HT_TILE_128x128_WG;
}

template <class KERNEL> int ht_wg_start(const ht_plan *plan)
{
    static cudaError_t raised =
        cudaFuncSetAttribute(ht_wg_kernel<KERNEL>, cudaFuncAttributeMaxDynamicSharedMemorySize, KERNEL::SHARED);
    int error = ht_cuda_check(raised);
    if (error)
        return error;
    int64_t works = plan->tiles * plan->pick.splits;
    int blocks = works < ht_cuda_multiprocessors() ? (int)works : ht_cuda_multiprocessors();
    ht_wg_kernel<KERNEL><<<blocks, KERNEL::THREADS, KERNEL::SHARED, ht_cuda_stream()>>>(*plan);
    return ht_cuda_launched();
}

template <int FORMAT, bool FOLDS> int ht_wg_launch(const ht_plan *plan)
{
    if constexpr (!FOLDS) {
        if (plan->pick.tile == HT_TILE_128x256_WG)
            return ht_wg_start<ht_wg<FORMAT, 2, 128, false>>(plan);
        if (plan->pick.tile == HT_TILE_128x192_WG)
            return ht_wg_start<ht_wg<FORMAT, 2, 96, false>>(plan);
    }
    return ht_wg_start<ht_wg<FORMAT, 1, 128, FOLDS>>(plan);
}

#endif
