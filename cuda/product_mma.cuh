/* product_mma.cuh - products on mma.sync: out[m][n], weights as the rows of A and pixels as the columns of B.
 *
 * A block of warps makes GROUPS x 64 columns of WARPS * WIDTH rows; a warp 64 columns of WIDTH rows, as 4 x WIDTH / 8
 * mma tiles.  Activations come through ldmatrix from swizzled rows (tile.cuh), weights as whole fragments (product.h);
 * both by cp.async, STAGES deep.  With FOLDS there is more than one segment: codes' sums are folded into float chains
 * as each ends.  sm_80 on; FP8 from sm_89. */
#ifndef HT_CUDA_PRODUCT_MMA_CUH
#define HT_CUDA_PRODUCT_MMA_CUH

#include "cuda/segments.cuh"

template <int FORMAT, int GROUPS, int WARPS, int WIDTH, bool FOLDS> struct ht_mma {
    static constexpr int THREADS = GROUPS * WARPS * 32, ROWS = WARPS * WIDTH, TILES = WIDTH / 8;
    static constexpr int STAGES = 3;
    static constexpr int UNIT = ht_format<FORMAT>::UNIT;
    static constexpr int WEIGHTS = GROUPS * 2 * UNIT; /* bytes of a stage */
    static constexpr int STAGE = ROWS * HT_STAGE + WEIGHTS;
    static constexpr int SHARED = STAGES * STAGE + (int)sizeof(ht_row_facts<ROWS>) + 16;
    static constexpr int PER_SM = FOLDS ? 1 : THREADS > 128 ? 2 : 3;
    typedef ht_format<FORMAT> format;
    typedef typename ht_sum<format::INTEGER>::type sum;
    typedef ht_loader<ROWS, THREADS> loader;
    typedef sum tile[4][TILES][4]; /* by fragment, rows of 8, register */
    typedef float chain[4][TILES][4];

    /* The weights of `stage` to shared memory. */
    static __device__ __forceinline__ void load_weights(const ht_plan &plan, uint32_t to, int group, int stage)
    {
        const int pieces = 2 * UNIT / 16;
#pragma unroll
        for (int i = threadIdx.x; i < GROUPS * pieces; i += THREADS) {
            int g = group + i / pieces < plan.groups ? group + i / pieces : plan.groups - 1;
            const uint8_t *from = (const uint8_t *)plan.p.weights + ((int64_t)g * plan.stages + stage) * 2 * UNIT;
            ht_copy_async(to + i * 16, from + i % pieces * 16, 16);
        }
    }

    static __device__ __forceinline__ void multiply(sum (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1)
    {
        if constexpr (format::INTEGER)
            ht_mma_s8(c, a, b0, b1);
        else if constexpr (format::F16)
            ht_mma_f16(c, a, b0, b1);
        else
            ht_mma_e4m3(c, a, b0, b1);
    }

    /* 16 bytes of k alone: FP8 has no such instruction, so the other half is multiplied by 0. */
    static __device__ __forceinline__ void multiply_half(sum (&c)[4], const uint32_t (&a)[4], const uint32_t *b,
                                                         int half)
    {
        if constexpr (format::INTEGER) {
            ht_mma_s8_half(c, a[2 * half], a[2 * half + 1], b[half]);
        } else if constexpr (!format::F16) {
            uint32_t only[4] = {half ? 0 : a[0], half ? 0 : a[1], half ? a[2] : 0, half ? a[3] : 0};
            ht_mma_e4m3(c, only, b[0], b[1]);
        }
    }

    static __device__ __forceinline__ void fold(const ht_plan &plan, const ht_row_facts<ROWS> &facts, int part,
                                                const ht_weight_scales<8> &w, tile &sums, chain &chains)
    {
        int first = (threadIdx.x / 32 % WARPS) * WIDTH + threadIdx.x % 4 * 2;
#pragma unroll
        for (int j = 0; j < TILES; j++)
#pragma unroll
            for (int e = 0; e < 2; e++) {
                float step = facts.step[part][first + 8 * j + e];
                int zero = facts.zero[part][first + 8 * j + e];
#pragma unroll
                for (int n = 0; n < 8; n++) {
                    sum &s = sums[n / 2][j][n % 2 * 2 + e];
                    float &c = chains[n / 2][j][n % 2 * 2 + e];
                    c = ht_fold(ht_whole<FORMAT>(plan, s), zero, w.sum[n], step, w.scale[n], c);
                    s = 0;
                }
            }
    }

    static __device__ __forceinline__ void store(const ht_plan &plan, const ht_row_facts<ROWS> &facts, int64_t row,
                                                 int group, tile &sums, chain &chains)
    {
        int column = group * HT_GROUP + threadIdx.x % 32 / 4 * 8;
        int first = (threadIdx.x / 32 % WARPS) * WIDTH + threadIdx.x % 4 * 2;
        ht_weight_scales<8> w;
        if (group >= plan.groups)
            return;
        if (!FOLDS && !format::F16)
            w.load<format::INTEGER>(plan, 0, column);
        ht_writer writer;
        ht_eight residual;
        writer.begin(plan.p, column);
#pragma unroll
        for (int j = 0; j < TILES; j++)
#pragma unroll
            for (int e = 0; e < 2; e++) {
                int i = first + 8 * j + e;
                float v[8];
#pragma unroll
                for (int n = 0; n < 8; n++) {
                    sum s = sums[n / 2][j][n % 2 * 2 + e];
                    v[n] = FOLDS         ? chains[n / 2][j][n % 2 * 2 + e]
                           : format::F16 ? (float)s
                                         : ht_fold(ht_whole<FORMAT>(plan, s), facts.zero[0][i], w.sum[n],
                                                   facts.step[0][i], w.scale[n], 0.0f);
                }
                if (row + i >= plan.p.window.rows)
                    continue;
                if (writer.whole) {
                    writer.residual(plan.p, row + i, residual);
                    writer.write(plan.p, row + i, facts.image[i], v, residual);
                    continue;
                }
#pragma unroll
                for (int n = 0; n < 8; n++)
                    if (column + n < plan.p.window.cols)
                        ht_write(plan.p, row + i, facts.image[i], column + n, v[n]);
            }
    }

    static __device__ __forceinline__ void sync()
    {
        __syncthreads();
    }

    static __device__ __forceinline__ void run(const ht_plan &plan, uint8_t *memory)
    {
        ht_row_facts<ROWS> &facts = *(ht_row_facts<ROWS> *)(memory + STAGES * STAGE);
        int *last = (int *)(memory + STAGES * STAGE + sizeof facts);
        int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
        int tile_index = (int)blockIdx.x, group = tile_index % plan.group_tiles * GROUPS;
        int64_t row = (int64_t)(tile_index / plan.group_tiles) * ROWS;
        int begin = (int)((int64_t)plan.stages * blockIdx.y / plan.pick.splits);
        int end = (int)((int64_t)plan.stages * (blockIdx.y + 1) / plan.pick.splits);
        uint32_t base = ht_shared(memory), table[4];
        ht_table_of(table, plan);
        for (int i = threadIdx.x; i < ROWS; i += THREADS) {
            ht_row_fact fact;
            fact.load<2>(plan, row + i);
            fact.keep<2>(facts, i);
        }
        auto zero_of = [&](int input, int i) { return facts.zero[input][i]; };
        loader load;
        load.begin(plan, row, threadIdx.x, begin);
        __syncthreads();

        tile sums = {};
        chain chains = {};
        ht_segments segments;
        ht_weight_scales<8> scales;
        int mine = group + warp / WARPS, column = (mine < plan.groups ? mine : 0) * HT_GROUP + lane / 4 * 8;
        segments.begin();
        if (FOLDS)
            scales.template load<format::INTEGER>(plan, 0, column);

#pragma unroll
        for (int s = 0; s < STAGES - 1; s++) {
            if (begin + s < end) {
                load.template load<format::INTEGER>(plan, zero_of, base + s * STAGE);
                load_weights(plan, base + s * STAGE + ROWS * HT_STAGE, group, begin + s);
            }
            ht_copies_commit();
        }
        int slot = 0, free_slot = STAGES - 1;
        for (int stage = begin; stage < end; stage++) {
            ht_copies_wait<STAGES - 2>();
            __syncthreads();
            if (stage + STAGES - 1 < end) {
                load.template load<format::INTEGER>(plan, zero_of, base + free_slot * STAGE);
                load_weights(plan, base + free_slot * STAGE + ROWS * HT_STAGE, group, stage + STAGES - 1);
            }
            ht_copies_commit();
            uint32_t x = base + slot * STAGE + ((warp % WARPS) * WIDTH + lane % 8) * HT_STAGE;
            uint32_t w =
                base + slot * STAGE + ROWS * HT_STAGE + (warp / WARPS) * 2 * UNIT + lane * (format::FRAGMENT / 32);
#pragma unroll
            for (int unit = 0; unit < 2; unit++) {
                uint32_t b[TILES][4];
#pragma unroll
                for (int j = 0; j < TILES; j++)
                    ht_load_matrices(b[j], x + j * 8 * HT_STAGE + (((unit * 4 + lane / 8) ^ (lane % 8)) << 4));
#pragma unroll
                for (int step = 0; step < 2; step++) {
                    uint32_t a[4][4];
#pragma unroll
                    for (int f = 0; f < 4; f++)
                        ht_weights_of<FORMAT>(a[f], w + ((unit * 2 + step) * 4 + f) * format::FRAGMENT, plan.plain_int4,
                                              table);
                    if (FOLDS && plan.p.block == 16) {
#pragma unroll
                        for (int half = 0; half < 2; half++) {
#pragma unroll
                            for (int f = 0; f < 4; f++)
#pragma unroll
                                for (int j = 0; j < TILES; j++)
                                    multiply_half(sums[f][j], a[f], b[j] + 2 * step, half);
                            if (segments.ends(plan, segments.channel + 16 * half + 16)) {
                                fold(plan, facts, segments.input, scales, sums, chains);
                                next_scales(plan, segments, scales, column);
                            }
                        }
                    } else {
#pragma unroll
                        for (int f = 0; f < 4; f++)
#pragma unroll
                            for (int j = 0; j < TILES; j++)
                                multiply(sums[f][j], a[f], b[j][2 * step], b[j][2 * step + 1]);
                        if (FOLDS && segments.ends(plan, segments.channel + 32)) {
                            fold(plan, facts, segments.input, scales, sums, chains);
                            next_scales(plan, segments, scales, column);
                        }
                    }
                    if (FOLDS)
                        segments.next(plan);
                }
            }
            slot = slot + 1 == STAGES ? 0 : slot + 1;
            free_slot = free_slot + 1 == STAGES ? 0 : free_slot + 1;
        }
        if (!FOLDS && plan.pick.splits > 1 &&
            !ht_join_splits<16 * TILES, THREADS>(plan, &sums[0][0][0], tile_index, (int)blockIdx.y, threadIdx.x, last,
                                                 sync))
            return;
        store(plan, facts, row, mine, sums, chains);
    }

    static __device__ __forceinline__ void next_scales(const ht_plan &plan, ht_segments &segments,
                                                       ht_weight_scales<8> &scales, int column)
    {
        if (++segments.index < plan.segments)
            scales.template load<format::INTEGER>(plan, segments.index, column);
    }
};

template <class KERNEL>
__global__ __launch_bounds__(KERNEL::THREADS, KERNEL::PER_SM) void ht_mma_kernel(const __grid_constant__ ht_plan plan)
{
    extern __shared__ __align__(1024) uint8_t memory[];
    KERNEL::run(plan, memory);
}

template <class KERNEL> int ht_mma_start(const ht_plan *plan)
{
    static cudaError_t raised =
        cudaFuncSetAttribute(ht_mma_kernel<KERNEL>, cudaFuncAttributeMaxDynamicSharedMemorySize, KERNEL::SHARED);
    int error = ht_cuda_check(raised);
    if (error)
        return error;
    dim3 grid((unsigned)plan->tiles, (unsigned)plan->pick.splits);
    ht_mma_kernel<KERNEL><<<grid, KERNEL::THREADS, KERNEL::SHARED, ht_cuda_stream()>>>(*plan);
    return ht_cuda_launched();
}

template <int FORMAT, bool FOLDS> int ht_mma_launch(const ht_plan *plan)
{
    return plan->pick.tile == HT_TILE_64x64 ? ht_mma_start<ht_mma<FORMAT, 1, 4, 16, FOLDS>>(plan)
                                            : ht_mma_start<ht_mma<FORMAT, 2, 4, 32, FOLDS>>(plan);
}

#endif
