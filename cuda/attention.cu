/* attention.cu   out[t] = sum_j softmax_j(q[t] k[j] scale + key_bias[j] + distance_bias[j - t]) v[j], per head and
 * image.
 *
 * attention_f16_mma: q, k, v F16, head dims up to 256.  FlashAttention-2 (Dao 2023): a warp has 16 or 32 queries and
 * walks over tiles of keys; products by mma.sync m16n8k16 with float32 sums, softmax online in float32, its
 * probabilities rounded to F16 as they are in the accumulators' layout, which is that of the next product's operand.
 *
 *     shared memory   q [16 MT WARPS][PITCH]   k, v [2][BN][PITCH] F16      PITCH = 16 KD + 8: an odd number of 16
 *                                                                           bytes, so that ldmatrix meets no bank twice
 *
 * While a tile is computed, cp.async brings the next.  Keys beyond the last are rows of zeros with scores of -inf, so
 * nothing is read past a tensor; channels beyond a head's are zeros in q and k.  Head dims that are no multiple of 8
 * are loaded an element at a time.  Keys are taken in ascending order in tiles whose size follows from the head dim
 * alone: neither the other images nor the other queries of a block change a row's bits.
 *
 * attention_stream: F32, and F16 of larger heads (the VAE's one head of 512).  The same order, in fma and float32;
 * scores of 32 queries x 32 keys at a time, up to 512 channels of the output a block.
 *
 * Tried and dropped (H100): tiles of 32 keys in a ring of 4, with the next tile's scores computed among the
 * exponentials of this one, as FlashAttention-3 does between warps: 15 to 50 % slower than two plain blocks a
 * multiprocessor, which overlap by themselves. */
#include <cuda_fp16.h>

#include "cuda/activation.cuh"
#include "cuda/device.h"
#include "cuda/vector.cuh"

#define LOG2E 1.44269504f

enum { WARPS = 4, THREADS = 32 * WARPS };

/* ---- instructions ---- */

__device__ __forceinline__ void copy_16(uint32_t to, const void *from)
{
    asm volatile("cp.async.cg.shared.global.L2::128B [%0], [%1], 16;" ::"r"(to), "l"(from) : "memory");
}

__device__ __forceinline__ void copy_16_or_0(uint32_t to, const void *from, bool there)
{
    int bytes = there ? 16 : 0; /* the rest is zeros */
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(from), "r"(bytes) : "memory");
}

__device__ __forceinline__ void copies_sent(void)
{
    asm volatile("cp.async.commit_group;" ::: "memory");
}

__device__ __forceinline__ void copies_done(void)
{
    asm volatile("cp.async.wait_group 0;" ::: "memory");
}

__device__ __forceinline__ void load_matrices(uint32_t (&r)[4], uint32_t at)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(at)
                 : "memory");
}

__device__ __forceinline__ void load_transposed(uint32_t (&r)[4], uint32_t at)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(at)
                 : "memory");
}

__device__ __forceinline__ void load_two_transposed(uint32_t (&r)[4], uint32_t at)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%0, %1}, [%2];"
                 : "=r"(r[0]), "=r"(r[1])
                 : "r"(at)
                 : "memory");
}

/* c += a b of 16 x 16 and 16 x 8 */
__device__ __forceinline__ void multiply(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1)
{
    asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
        "{%0, %1, %2, %3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

__device__ __forceinline__ uint32_t two_halves(float low, float high)
{
    uint32_t r;
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(r) : "f"(high), "f"(low));
    return r;
}

/* ---- attention_f16_mma ---- */

/* KD: steps of 16 channels in q k^T; ND: of 8 channels in p v; MT: tiles of 16 queries a warp. */
template <int KD, int ND, int MT> struct flash {
    static constexpr int BM = 16 * MT * WARPS, BN = KD > 10 ? 32 : 64, PITCH = KD * 16 + 8;
    static constexpr int Q_HALVES = BM * PITCH, TILE_HALVES = BN * PITCH;
    static constexpr size_t SHARED = (size_t)(Q_HALVES + 4 * TILE_HALVES) * sizeof(__half);
    static constexpr bool Q_IN_REGISTERS = MT == 2 ? KD <= 5 : KD <= 10;
};

/* ROWS rows of a head into [ROWS][PITCH]; those from `there` on are zeros.  `from`: the head's channels of row 0.  A
 * row has LANES threads side by side, so that a copy costs an addition: one tile in six would else be arithmetic. */
template <int KD, int ROWS>
__device__ __forceinline__ void load_rows(__half *to, const __half *from, int there, int width, int dim)
{
    constexpr int PITCH = KD * 16 + 8, LANES = KD <= 2 ? 4 : KD <= 4 ? 8 : KD <= 8 ? 16 : 32, AT_ONCE = THREADS / LANES;
    if (dim % 8 == 0) {
        int row = threadIdx.x / LANES, channel = threadIdx.x % LANES * 8;
        if (channel >= dim)
            return;
        uint32_t at = (uint32_t)__cvta_generic_to_shared(to + row * PITCH + channel);
        const int64_t step = (int64_t)AT_ONCE * width;
        const __half *source = from + (int64_t)row * width + channel;
        if (there >= ROWS) {
#pragma unroll
            for (int i = 0; i < ROWS / AT_ONCE; i++, source += step)
                copy_16(at + i * AT_ONCE * PITCH * 2, source);
        } else {
            for (int i = 0; i < ROWS / AT_ONCE; i++, source += step) {
                bool is_there = row + i * AT_ONCE < there;
                copy_16_or_0(at + i * AT_ONCE * PITCH * 2, is_there ? source : from, is_there);
            }
        }
    } else {
        for (int i = threadIdx.x; i < ROWS * KD * 16; i += THREADS) {
            int row = i / (KD * 16), channel = i % (KD * 16);
            to[row * PITCH + channel] =
                row < there && channel < dim ? from[(int64_t)row * width + channel] : __float2half_rn(0);
        }
    }
}

/* Channels that copies do not write, of ROWS rows. */
template <int KD, int ROWS> __device__ __forceinline__ void clear_rest(__half *to, int dim)
{
    constexpr int PITCH = KD * 16 + 8;
    int rest = KD * 2 - dim / 8;
    for (int i = threadIdx.x; dim % 8 == 0 && i < ROWS * rest; i += THREADS)
        *(uint4 *)(to + i / rest * PITCH + dim + i % rest * 8) = make_uint4(0, 0, 0, 0);
}

/* What is the same for all tiles of keys. */
struct head_of_image {
    const float *key_bias, *distance; /* distance: at [j - t] */
    float factor;                     /* of scores in the exponent of 2 */
    int keys, causal, row;            /* row: the thread's first query */
};

/* Scores become exponents of 2, biased, and -inf where there is no key to see. */
template <int BN, int MT>
__device__ __forceinline__ void bias_and_mask(float (&s)[MT][BN / 8][4], const head_of_image &h, int first, bool biased)
{
#pragma unroll
    for (int m = 0; m < MT; m++)
#pragma unroll
        for (int n = 0; n < BN / 8; n++)
#pragma unroll
            for (int i = 0; i < 4; i++) {
                int t = h.row + m * 16 + i / 2 * 8, j = first + n * 8 + threadIdx.x % 4 * 2 + i % 2;
                bool seen = j < h.keys && !(h.causal && j > t);
                if (biased && seen) {
                    float bias = h.key_bias ? h.key_bias[j] : 0;
                    bias = h.distance ? __fadd_rn(bias, h.distance[j - t]) : bias;
                    s[m][n][i] = __fmaf_rn(s[m][n][i], h.factor, __fmul_rn(bias, LOG2E));
                }
                s[m][n][i] = seen ? s[m][n][i] : -INFINITY;
            }
}

template <int KD, int ND, int MT>
__global__ void __launch_bounds__(THREADS, KD <= 10 ? 2 : 1)
    attention_f16_mma(const __grid_constant__ ht_cuda_attention a)
{
    using tile = flash<KD, ND, MT>;
    constexpr int BN = tile::BN, PITCH = tile::PITCH, PAIRS = (ND + 1) / 2;
    extern __shared__ __align__(16) __half memory[];
    __half *const shared_q = memory, *const shared_k = memory + tile::Q_HALVES,
                  *const shared_v = shared_k + 2 * tile::TILE_HALVES;
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, first_query = blockIdx.x * tile::BM;
    const int head = blockIdx.y, image = blockIdx.z, kv_image = a.kv_images == 1 ? 0 : image;
    const int width = a.heads * a.dim, dim = a.dim;
    const __half *q = (const __half *)a.q.data + ((int64_t)image * a.queries + first_query) * width + head * dim;
    const __half *k = (const __half *)a.k.data + (int64_t)kv_image * a.keys * width + head * dim;
    const __half *v = (const __half *)a.v.data + (int64_t)kv_image * a.keys * width + head * dim;

    if (dim < KD * 16) {
        clear_rest<KD, tile::BM>(shared_q, dim);
        clear_rest<KD, 2 * BN>(shared_k, dim);
    }
    load_rows<KD, tile::BM>(shared_q, q, a.queries - first_query, width, dim);
    load_rows<KD, BN>(shared_k, k, a.keys, width, dim);
    load_rows<KD, BN>(shared_v, v, a.keys, width, dim);
    copies_sent();

    const bool biased = a.key_bias || a.distance_bias || a.scale <= 0;
    const head_of_image h = {
        a.key_bias ? a.key_bias + image * a.key_bias_stride : NULL,
        a.distance_bias ? a.distance_bias + (int64_t)head * (a.queries + a.keys - 1) + a.queries - 1 : NULL,
        __fmul_rn(a.scale, LOG2E),
        a.keys,
        a.causal,
        first_query + warp * 16 * MT + lane / 4};
    const float factor = biased ? 1.0f : h.factor;
    const int end = a.causal ? min(a.keys, first_query + tile::BM) : a.keys, tiles = (end + BN - 1) / BN;

    /* Addresses of the thread's rows for ldmatrix. */
    const uint32_t at_q =
        (uint32_t)__cvta_generic_to_shared(shared_q + (warp * 16 * MT + lane % 16) * PITCH + lane / 16 * 8);
    const uint32_t at_k =
        (uint32_t)__cvta_generic_to_shared(shared_k + (lane % 8 + lane / 16 * 8) * PITCH + lane / 8 % 2 * 8);
    const uint32_t at_v = (uint32_t)__cvta_generic_to_shared(shared_v + lane % 16 * PITCH + lane / 16 * 8);

    float o[MT][ND][4], most[MT][2], sum[MT][2];
#pragma unroll
    for (int m = 0; m < MT; m++) {
        most[m][0] = most[m][1] = -INFINITY;
        sum[m][0] = sum[m][1] = 0;
#pragma unroll
        for (int n = 0; n < ND; n++)
            o[m][n][0] = o[m][n][1] = o[m][n][2] = o[m][n][3] = 0;
    }

    copies_done();
    __syncthreads();
    uint32_t q_held[tile::Q_IN_REGISTERS ? KD : 1][MT][4];
    if (tile::Q_IN_REGISTERS)
#pragma unroll
        for (int d = 0; d < KD; d++)
#pragma unroll
            for (int m = 0; m < MT; m++)
                load_matrices(q_held[tile::Q_IN_REGISTERS ? d : 0][m], at_q + (uint32_t)(m * 16 * PITCH + d * 16) * 2);

    for (int j = 0; j < tiles; j++) {
        const uint32_t stage = (uint32_t)(j & 1) * tile::TILE_HALVES * 2;
        if (j) {
            copies_done();
            __syncthreads();
        }
        if (j + 1 < tiles) {
            int next = (j + 1) * BN, other = (~j & 1) * tile::TILE_HALVES;
            load_rows<KD, BN>(shared_k + other, k + (int64_t)next * width, a.keys - next, width, dim);
            load_rows<KD, BN>(shared_v + other, v + (int64_t)next * width, a.keys - next, width, dim);
            copies_sent();
        }

        float s[MT][BN / 8][4];
#pragma unroll
        for (int m = 0; m < MT; m++)
#pragma unroll
            for (int n = 0; n < BN / 8; n++)
                s[m][n][0] = s[m][n][1] = s[m][n][2] = s[m][n][3] = 0;
#pragma unroll
        for (int d = 0; d < KD; d++) {
            uint32_t q_now[MT][4];
#pragma unroll
            for (int m = 0; m < MT; m++) {
                if (tile::Q_IN_REGISTERS)
#pragma unroll
                    for (int i = 0; i < 4; i++)
                        q_now[m][i] = q_held[tile::Q_IN_REGISTERS ? d : 0][m][i];
                else
                    load_matrices(q_now[m], at_q + (uint32_t)(m * 16 * PITCH + d * 16) * 2);
            }
#pragma unroll
            for (int n = 0; n < BN / 16; n++) {
                uint32_t b[4];
                load_matrices(b, at_k + stage + (uint32_t)(n * 16 * PITCH + d * 16) * 2);
#pragma unroll
                for (int m = 0; m < MT; m++) {
                    multiply(s[m][2 * n], q_now[m], b[0], b[1]);
                    multiply(s[m][2 * n + 1], q_now[m], b[2], b[3]);
                }
            }
        }

        int first = j * BN;
        if (biased || first + BN > a.keys || (a.causal && first + BN > first_query + warp * 16 * MT))
            bias_and_mask<BN, MT>(s, h, first, biased);

#pragma unroll
        for (int m = 0; m < MT; m++)
#pragma unroll
            for (int half = 0; half < 2; half++) {
                float top = most[m][half];
#pragma unroll
                for (int n = 0; n < BN / 8; n++)
                    top = fmaxf(top, fmaxf(s[m][n][half * 2], s[m][n][half * 2 + 1]));
                top = fmaxf(top, __shfl_xor_sync(~0u, top, 1));
                top = fmaxf(top, __shfl_xor_sync(~0u, top, 2));
                float base = top == -INFINITY ? 0 : -__fmul_rn(top, factor); /* no key seen yet */
                /* exactly 1 where the largest score stays */
                float shrink = ht_exp2_approx(__fadd_rn(__fmul_rn(most[m][half], factor), base));
                most[m][half] = top;
                float total = 0;
#pragma unroll
                for (int n = 0; n < BN / 8; n++)
#pragma unroll
                    for (int i = half * 2; i < half * 2 + 2; i++) {
                        s[m][n][i] = ht_exp2_approx(__fmaf_rn(s[m][n][i], factor, base));
                        total = __fadd_rn(total, s[m][n][i]);
                    }
                sum[m][half] = __fmaf_rn(sum[m][half], shrink, total);
#pragma unroll
                for (int n = 0; n < ND; n++) {
                    o[m][n][half * 2] = __fmul_rn(o[m][n][half * 2], shrink);
                    o[m][n][half * 2 + 1] = __fmul_rn(o[m][n][half * 2 + 1], shrink);
                }
            }

#pragma unroll
        for (int kk = 0; kk < BN / 16; kk++) {
            uint32_t p[MT][4];
#pragma unroll
            for (int m = 0; m < MT; m++) {
                p[m][0] = two_halves(s[m][2 * kk][0], s[m][2 * kk][1]);
                p[m][1] = two_halves(s[m][2 * kk][2], s[m][2 * kk][3]);
                p[m][2] = two_halves(s[m][2 * kk + 1][0], s[m][2 * kk + 1][1]);
                p[m][3] = two_halves(s[m][2 * kk + 1][2], s[m][2 * kk + 1][3]);
            }
#pragma unroll
            for (int n = 0; n < PAIRS; n++) {
                uint32_t b[4];
                uint32_t at = at_v + stage + (uint32_t)(kk * 16 * PITCH + n * 16) * 2;
                if (2 * n + 1 < ND)
                    load_transposed(b, at);
                else
                    load_two_transposed(b, at);
#pragma unroll
                for (int m = 0; m < MT; m++) {
                    multiply(o[m][2 * n], p[m], b[0], b[1]);
                    if (2 * n + 1 < ND)
                        multiply(o[m][2 * n + 1 < ND ? 2 * n + 1 : 0], p[m], b[2], b[3]);
                }
            }
        }
    }

#pragma unroll
    for (int m = 0; m < MT; m++)
#pragma unroll
        for (int half = 0; half < 2; half++) {
            float total = sum[m][half];
            total += __shfl_xor_sync(~0u, total, 1);
            total += __shfl_xor_sync(~0u, total, 2);
            float per = __frcp_rn(total);
            int t = h.row + m * 16 + half * 8;
            if (t >= a.queries)
                continue;
            int64_t at = ((int64_t)image * a.queries + t) * width + head * dim;
#pragma unroll
            for (int n = 0; n < ND; n++) {
                int channel = n * 8 + lane % 4 * 2;
                float x = o[m][n][half * 2] * per, y = o[m][n][half * 2 + 1] * per;
                if (a.out.dtype == HT_CUDA_F16 && width % 2 == 0 && dim % 2 == 0) {
                    if (channel < dim)
                        *(uint32_t *)((__half *)a.out.data + at + channel) = two_halves(x, y);
                } else {
                    if (channel < dim)
                        ht_store(a.out, {}, at + channel, 0, 1, x);
                    if (channel + 1 < dim)
                        ht_store(a.out, {}, at + channel + 1, 0, 1, y);
                }
            }
        }
}

/* ---- attention_stream ---- */

enum {
    STREAM_THREADS = 256,
    STREAM_TILE = 32,
    STREAM_STEP = 64,
    STREAM_PITCH = STREAM_STEP + 4,
    STREAM_CHANNELS = 512
};

/* 8 channels from `channel` on of a row; 0 beyond `dim` or where there is no row. */
__device__ __forceinline__ void load_8(float (&x)[8], const ht_cuda_tensor &t, int64_t row_at, int channel, int dim,
                                       bool there, bool wide)
{
    if (wide && there && channel + 8 <= dim)
        ht_load_n<8>(x, t, row_at + channel);
    else
#pragma unroll
        for (int i = 0; i < 8; i++)
            x[i] = there && channel + i < dim ? ht_load(t, row_at + channel + i) : 0.0f;
}

/* 32 rows, channels first .. first + 63, of a head; a thread brings 8. */
__device__ __forceinline__ void stream_load(float *to, const ht_cuda_tensor &t, int64_t at, int width, int rows,
                                            int first, int dim, bool wide)
{
    int row = threadIdx.x / 8, channel = threadIdx.x % 8 * 8;
    float x[8];
    load_8(x, t, at + (int64_t)row * width, first + channel, dim, row < rows, wide);
    float4 *out = (float4 *)(to + row * STREAM_PITCH + channel);
    out[0] = make_float4(x[0], x[1], x[2], x[3]);
    out[1] = make_float4(x[4], x[5], x[6], x[7]);
}

__device__ __forceinline__ float chain(float sum, float4 x, float4 y)
{
    return __fmaf_rn(x.w, y.w, __fmaf_rn(x.z, y.z, __fmaf_rn(x.y, y.y, __fmaf_rn(x.x, y.x, sum))));
}

/* QN: queries of a thread; it has 8 channels of each.  256 / (32 / QN) threads lie side by side over channels. */
template <int QN>
__global__ void __launch_bounds__(STREAM_THREADS)
    attention_stream(const __grid_constant__ ht_cuda_attention a, int slices)
{
    constexpr int ACROSS = STREAM_THREADS * QN / STREAM_TILE;
    __shared__ __align__(16) float shared_q[STREAM_TILE * STREAM_PITCH], shared_k[STREAM_TILE * STREAM_PITCH];
    __shared__ __align__(16) float p[STREAM_TILE][STREAM_TILE + 4]; /* [key][query] */
    __shared__ float shrinks[STREAM_TILE], sums[STREAM_TILE];
    const int tid = threadIdx.x, image = blockIdx.z / slices, slice = blockIdx.z % slices, head = blockIdx.y;
    const int first_query = blockIdx.x * STREAM_TILE, width = a.heads * a.dim;
    const int64_t at_q = ((int64_t)image * a.queries + first_query) * width + head * a.dim;
    const int64_t at_k = (a.kv_images == 1 ? 0 : (int64_t)image) * a.keys * width + head * a.dim;
    const int channel = slice * STREAM_CHANNELS + tid % ACROSS * 8, mine = tid / ACROSS * QN;
    const bool wide = a.dim % 8 == 0;
    const float *key_bias = a.key_bias ? a.key_bias + image * a.key_bias_stride : NULL;
    const float *distance =
        a.distance_bias ? a.distance_bias + (int64_t)head * (a.queries + a.keys - 1) + a.queries - 1 : NULL;
    const int end = a.causal ? min(a.keys, first_query + STREAM_TILE) : a.keys;

    float o[QN][8] = {}, most = -INFINITY, sum = 0; /* most, sum: of query tid / 8, the same in all 8 threads */
    for (int first = 0; first < end; first += STREAM_TILE) {
        float s[2][2] = {};
        for (int d = 0; d < a.dim; d += STREAM_STEP) {
            __syncthreads();
            stream_load(shared_q, a.q, at_q, width, a.queries - first_query, d, a.dim, wide);
            stream_load(shared_k, a.k, at_k + (int64_t)first * width, width, a.keys - first, d, a.dim, wide);
            __syncthreads();
            const float *q = shared_q + tid / 16 * STREAM_PITCH, *k = shared_k + tid % 16 * STREAM_PITCH;
#pragma unroll
            for (int i = 0; i < STREAM_STEP; i += 4) {
                float4 q0 = *(const float4 *)(q + i), q1 = *(const float4 *)(q + 16 * STREAM_PITCH + i);
                float4 k0 = *(const float4 *)(k + i), k1 = *(const float4 *)(k + 16 * STREAM_PITCH + i);
                s[0][0] = chain(s[0][0], q0, k0);
                s[0][1] = chain(s[0][1], q0, k1);
                s[1][0] = chain(s[1][0], q1, k0);
                s[1][1] = chain(s[1][1], q1, k1);
            }
        }
#pragma unroll
        for (int i = 0; i < 4; i++) {
            int t = tid / 16 + i / 2 * 16, j = tid % 16 + i % 2 * 16, key = first + j, query = first_query + t;
            bool seen = key < a.keys && query < a.queries && !(a.causal && key > query);
            float score = -INFINITY;
            if (seen) {
                score = key_bias ? __fmaf_rn(s[i / 2][i % 2], a.scale, key_bias[key]) : s[i / 2][i % 2] * a.scale;
                score = distance ? __fadd_rn(score, distance[key - query]) : score;
            }
            p[j][t] = score;
        }
        __syncthreads();
        {
            int t = tid / 8, j = tid % 8;
            float score[4], top = most, total = 0;
#pragma unroll
            for (int i = 0; i < 4; i++) {
                score[i] = p[j + i * 8][t];
                top = fmaxf(top, score[i]);
            }
#pragma unroll
            for (int i = 1; i < 8; i *= 2)
                top = fmaxf(top, __shfl_xor_sync(~0u, top, i));
            float base = top == -INFINITY ? 0 : top;
#pragma unroll
            for (int i = 0; i < 4; i++) {
                float e = score[i] == -INFINITY ? 0 : ht_exp_limited(score[i] - base);
                p[j + i * 8][t] = e;
                total += e;
            }
#pragma unroll
            for (int i = 1; i < 8; i *= 2)
                total += __shfl_xor_sync(~0u, total, i);
            float shrink = most == -INFINITY ? 0 : ht_exp_limited(most - base);
            most = top;
            sum = __fmaf_rn(sum, shrink, total);
            if (j == 0) {
                shrinks[t] = shrink;
                sums[t] = sum;
            }
        }
        __syncthreads();
#pragma unroll
        for (int i = 0; i < QN; i++)
#pragma unroll
            for (int c = 0; c < 8; c++)
                o[i][c] *= shrinks[mine + i];
        if (channel < a.dim)
            for (int j = 0; j < min(STREAM_TILE, a.keys - first); j++) {
                float v[8];
                load_8(v, a.v, at_k + (int64_t)(first + j) * width, channel, a.dim, true, wide);
#pragma unroll
                for (int i = 0; i < QN; i++)
#pragma unroll
                    for (int c = 0; c < 8; c++)
                        o[i][c] = __fmaf_rn(p[j][mine + i], v[c], o[i][c]);
            }
    }
    for (int i = 0; i < QN; i++) {
        int t = mine + i;
        float per = 1 / sums[t];
        for (int c = 0; c < 8; c++)
            if (first_query + t < a.queries && channel + c < a.dim)
                ht_store(a.out, {}, at_q + (int64_t)t * width + channel + c, 0, 1, o[i][c] * per);
    }
}

/* ---- which one ---- */

typedef struct variant {
    const char *name;
    int steps, ends, queries; /* KD, ND, BM */
    void (*run)(const ht_cuda_attention);
    size_t shared;
} variant;

template <int KD, int ND, int MT> static variant variant_of(const char *name)
{
    using tile = flash<KD, ND, MT>;
    return {name, KD, ND, tile::BM, attention_f16_mma<KD, ND, MT>, tile::SHARED};
}

/* By head dim; of one head dim that with more queries a block first: it reads k and v from shared memory half as often,
 * but wants many queries. */
static const variant variants[] = {
    variant_of<2, 4, 2>("attention_f16_mma_128x64x32"),   variant_of<2, 4, 1>("attention_f16_mma_64x64x32"),
    variant_of<3, 5, 2>("attention_f16_mma_128x64x40"),   variant_of<3, 5, 1>("attention_f16_mma_64x64x40"),
    variant_of<4, 8, 2>("attention_f16_mma_128x64x64"),   variant_of<4, 8, 1>("attention_f16_mma_64x64x64"),
    variant_of<5, 9, 2>("attention_f16_mma_128x64x72"),   variant_of<5, 9, 1>("attention_f16_mma_64x64x72"),
    variant_of<5, 10, 2>("attention_f16_mma_128x64x80"),  variant_of<5, 10, 1>("attention_f16_mma_64x64x80"),
    variant_of<6, 12, 2>("attention_f16_mma_128x64x96"),  variant_of<6, 12, 1>("attention_f16_mma_64x64x96"),
    variant_of<8, 16, 2>("attention_f16_mma_128x64x128"), variant_of<8, 16, 1>("attention_f16_mma_64x64x128"),
    variant_of<10, 20, 1>("attention_f16_mma_64x64x160"), variant_of<12, 24, 1>("attention_f16_mma_64x32x192"),
    variant_of<16, 32, 1>("attention_f16_mma_64x32x256"),
};

static bool is_refused(const ht_cuda_attention *a)
{
    return !ht_is_float(&a->q) || a->k.dtype != a->q.dtype || a->v.dtype != a->q.dtype || !ht_is_float(&a->out) ||
           a->dim < 1 || a->heads < 1 || a->heads > 65535 || a->images > 65535 || a->keys < 1 ||
           (a->kv_images != 1 && a->kv_images != a->images);
}

/* NULL: attention_stream. */
static const variant *variant_for(const ht_cuda_attention *a)
{
    for (const variant *v = variants; a->q.dtype == HT_CUDA_F16 && v < variants + sizeof variants / sizeof *v; v++) {
        int64_t blocks = (int64_t)a->images * a->heads * ((a->queries + v->queries - 1) / v->queries);
        if (a->dim <= v->steps * 16 && a->dim <= v->ends * 8 &&
            (v->queries == 64 || blocks >= 2 * ht_cuda_multiprocessors()))
            return v;
    }
    return NULL;
}

const char *ht_cuda_attention_name(const ht_cuda_attention *a)
{
    if (is_refused(a))
        return "none";
    const variant *v = variant_for(a);
    return v ? v->name : a->q.dtype == HT_CUDA_F16 ? "attention_f16_stream" : "attention_f32_stream";
}

static int run_stream(const ht_cuda_attention *a)
{
    int slices = (a->dim + STREAM_CHANNELS - 1) / STREAM_CHANNELS;
    dim3 grid((unsigned)((a->queries + STREAM_TILE - 1) / STREAM_TILE), (unsigned)a->heads,
              (unsigned)(a->images * slices));
    cudaStream_t stream = ht_cuda_stream();
    if (grid.z > 65535)
        return HT_CUDA_REFUSED;
    if (a->dim <= 64)
        attention_stream<1><<<grid, STREAM_THREADS, 0, stream>>>(*a, slices);
    else if (a->dim <= 128)
        attention_stream<2><<<grid, STREAM_THREADS, 0, stream>>>(*a, slices);
    else if (a->dim <= 256)
        attention_stream<4><<<grid, STREAM_THREADS, 0, stream>>>(*a, slices);
    else
        attention_stream<8><<<grid, STREAM_THREADS, 0, stream>>>(*a, slices);
    return ht_cuda_launched();
}

int ht_cuda_attention_run(const ht_cuda_attention *a)
{
    if (is_refused(a))
        return HT_CUDA_REFUSED;
    if (a->images < 1 || a->queries < 1)
        return HT_CUDA_OK;
    const variant *v = variant_for(a);
    if (!v)
        return run_stream(a);
    int status =
        ht_cuda_check(cudaFuncSetAttribute(v->run, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)v->shared));
    if (status)
        return status;
    dim3 grid((unsigned)((a->queries + v->queries - 1) / v->queries), (unsigned)a->heads, (unsigned)a->images);
    v->run<<<grid, THREADS, v->shared, ht_cuda_stream()>>>(*a);
    return ht_cuda_launched();
}
