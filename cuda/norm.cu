/* norm.cu   group_norm: y = (x - mean) a + bias, a = weight / sqrt(var + eps), over a group's channels of all positions
 * of an image, then SiLU and codes; layer_norm, modulate, rms_norm: the same over a row.
 *
 * Variances are never E[x^2] - E[x]^2.  A thread has one column of W channels and, of every few positions, takes for
 * each channel the sum s and, around its own mean, the sum of squares q; (s, q, n) of a part and another join as q =
 * q_1 + q_2 + (s_2 / n_2 - s_1 / n_1)^2 n_1 n_2 / (n_1 + n_2)              (Chan, Golub, LeVeque 1983) within the
 * thread, and in a group's parts as q = sum q_i + n_i (s_i / n_i - mean)^2.
 *
 *   whole_groups   a block has all positions of a few whole groups, in registers: one pass over memory.  Small images.
 *   group_sums     a block has all channels of one chunk of positions: S and Q of the chunk's groups go to memory as
 *                  [image][group][chunk].
 *   group_apply    joins the chunks' S and Q and writes y.
 *
 * Which of them, and all their sizes that sums depend on, follow from an image's size and the channels, never from the
 * number of images.  W is 8 where the channels of X and X2 are multiples of 8, else 1. */
#include "cuda/activation.cuh"
#include "cuda/device.h"
#include "cuda/vector.cuh"

enum {
    MOST_CHUNKS = 128,    /* of an image; group_apply reads those of all groups */
    MOST_CHANNELS = 6144, /* s and q of all channels are in 48 KiB of shared memory */
    MOST_GROUPS = 1024,
    SUM_BATCH = 8, /* positions that a thread of group_sums loads at once */
    APPLY_BATCH = 4,
    MOST_THREADS = 512,
    MOST_IMAGES = 65535
};

/* How the threads of a block lie over channels and positions. */
typedef struct norm_tile {
    int channels; /* of the block: all, or those of whole groups */
    int group;    /* channels of a group */
    int columns;  /* channels / W */
    int rows;     /* positions side by side */
    int threads;
    int chunk, chunks; /* positions of one; their number */
} norm_tile;

__device__ __forceinline__ float warp_sum(float v)
{
#pragma unroll
    for (int k = 16; k; k /= 2)
        v += __shfl_xor_sync(~0u, v, k);
    return v;
}

/* Channels ch .. of position p of an image. */
template <typename E, int W>
__device__ __forceinline__ ht_pack<E, W> input_at(const ht_cuda_group_norm &n, int64_t image, int64_t p, int ch)
{
    int second = ch >= n.c[0], width = n.c[second];
    const E *x = (const E *)(second ? n.x2.data : n.x.data);
    return *(const ht_pack<E, W> *)(x + (image * n.positions + p) * width + ch - (second ? n.c[0] : 0));
}

/* s, q of what came before, `before` values a channel, and the first `got` of v. */
template <typename E, int W, int K>
__device__ __forceinline__ void add_batch(float (&s)[W], float (&q)[W], int before, const ht_pack<E, W> (&v)[K],
                                          int got)
{
    float per = __frcp_rn((float)got), per_before = before ? __frcp_rn((float)before) : 0;
    float weight = (float)before * (float)got * __frcp_rn((float)(before + got));
#pragma unroll
    for (int i = 0; i < W; i++) {
        float sum = 0, squares = 0;
#pragma unroll
        for (int k = 0; k < K; k++)
            sum += k < got ? (float)v[k].at[i] : 0.0f;
        float mean = sum * per;
#pragma unroll
        for (int k = 0; k < K; k++) {
            float d = k < got ? (float)v[k].at[i] - mean : 0.0f;
            squares = __fmaf_rn(d, d, squares);
        }
        float off = mean - s[i] * per_before;
        q[i] += __fmaf_rn(off * off, weight, squares);
        s[i] += sum;
    }
}

/* Positions that row r of `rows` has of `count`. */
__device__ __forceinline__ int share_of(int r, int rows, int count)
{
    return r < count ? (count - r + rows - 1) / rows : 0;
}

/* By a warp: S and Q (around the mean) of the group that begins at channel `first` of the tile, from s and q
 * [rows][channels]. */
__device__ __forceinline__ float2 join_rows(const norm_tile &t, const float *s, const float *q, int first, int count)
{
    int lane = threadIdx.x % 32, parts = t.rows * t.group;
    float sum = 0, squares = 0;
    for (int i = lane; i < parts; i += 32) {
        int r = i / t.group;
        sum += share_of(r, t.rows, count) ? s[r * t.channels + first + i - r * t.group] : 0;
    }
    sum = warp_sum(sum);
    float mean = sum / ((float)count * (float)t.group);
    for (int i = lane; i < parts; i += 32) {
        int r = i / t.group, n = share_of(r, t.rows, count), at = r * t.channels + first + i - r * t.group;
        if (n) {
            float off = s[at] / (float)n - mean;
            squares += __fmaf_rn(off * off, (float)n, q[at]);
        }
    }
    return make_float2(sum, warp_sum(squares));
}

template <typename E, int W>
__global__ void __launch_bounds__(MOST_THREADS)
    group_sums(const __grid_constant__ ht_cuda_group_norm n, const norm_tile t)
{
    extern __shared__ float part_s[]; /* [rows][channels], then q */
    float *part_q = part_s + t.rows * t.channels;
    int image = blockIdx.y, first = blockIdx.x * t.chunk, count = min(t.chunk, n.positions - first);
    int r = t.columns < (int)blockDim.x ? threadIdx.x / t.columns : 0;
    for (int column = threadIdx.x - r * t.columns; r < t.rows && column < t.columns; column += blockDim.x) {
        float s[W] = {}, q[W] = {};
        int before = 0;
        for (int p = r; p < count; p += SUM_BATCH * t.rows) {
            ht_pack<E, W> v[SUM_BATCH] = {};
            int got = min(SUM_BATCH, share_of(p, t.rows, count));
#pragma unroll
            for (int k = 0; k < SUM_BATCH; k++)
                if (k < got)
                    v[k] = input_at<E, W>(n, image, first + p + k * t.rows, column * W);
            add_batch<E, W, SUM_BATCH>(s, q, before, v, got);
            before += got;
        }
#pragma unroll
        for (int i = 0; i < W; i++) {
            part_s[r * t.channels + column * W + i] = s[i];
            part_q[r * t.channels + column * W + i] = q[i];
        }
    }
    __syncthreads();
    float2 *sums = (float2 *)n.workspace + (int64_t)image * n.groups * t.chunks + blockIdx.x;
    for (int g = threadIdx.x / 32; g < n.groups; g += blockDim.x / 32) {
        float2 joined = join_rows(t, part_s, part_q, g * t.group, count);
        if (threadIdx.x % 32 == 0)
            sums[g * t.chunks] = joined;
    }
}

/* By a warp: mean and 1 / sqrt(var + eps) of a group from its chunks. */
__device__ __forceinline__ float2 join_chunks(const norm_tile &t, const float2 *sums, int positions, float eps)
{
    float2 of_lane[MOST_CHUNKS / 32];
    float sum = 0, squares = 0, all = (float)positions * (float)t.group;
#pragma unroll
    for (int k = 0; k < MOST_CHUNKS / 32; k++) {
        int chunk = k * 32 + threadIdx.x % 32;
        of_lane[k] = chunk < t.chunks ? sums[chunk] : make_float2(0, 0);
        sum += of_lane[k].x;
    }
    float mean = warp_sum(sum) / all;
#pragma unroll
    for (int k = 0; k < MOST_CHUNKS / 32; k++) {
        int chunk = k * 32 + threadIdx.x % 32;
        if (chunk < t.chunks) {
            float count = (float)min(t.chunk, positions - chunk * t.chunk) * (float)t.group;
            float off = of_lane[k].x / count - mean;
            squares += __fmaf_rn(off * off, count, of_lane[k].y);
        }
    }
    return make_float2(mean, __frcp_rn(__fsqrt_rn(warp_sum(squares) / all + eps)));
}

/* What a thread's channels become. */
template <int W> struct channel_scales {
    float mean[W], a[W], bias[W];
};

template <int W>
__device__ __forceinline__ channel_scales<W> scales_of(const ht_cuda_group_norm &n, const float2 *of_group, int group,
                                                       int first, int ch)
{
    channel_scales<W> c;
#pragma unroll
    for (int i = 0; i < W; i++) {
        float2 g = of_group[(ch - first + i) / group];
        c.mean[i] = g.x;
        c.a[i] = n.weight[ch + i] * g.y;
        c.bias[i] = n.bias[ch + i];
    }
    return c;
}

template <typename E, int W>
__device__ __forceinline__ void write_position(const ht_cuda_group_norm &n, const channel_scales<W> &c, ht_coder coder,
                                               const ht_pack<E, W> &v, int64_t row, int ch)
{
    float y[W];
    if (n.codes.scale.per_row)
        coder = ht_coder_of(n.out, n.codes, row, n.positions);
#pragma unroll
    for (int i = 0; i < W; i++)
        y[i] = __fmaf_rn((float)v.at[i] - c.mean[i], c.a[i], c.bias[i]);
    if (n.silu)
#pragma unroll
        for (int i = 0; i < W; i++)
            y[i] = ht_silu_f32(y[i]);
    ht_store_n<W>(n.out, coder, row * (n.c[0] + n.c[1]) + ch, y);
}

/* A block has `span` positions.  The first inputs are on their way while the chunks are joined. */
template <typename E, int W>
__global__ void __launch_bounds__(MOST_THREADS)
    group_apply(const __grid_constant__ ht_cuda_group_norm n, const norm_tile t, int span)
{
    __shared__ float2 of_group[MOST_GROUPS];
    int image = blockIdx.y, p = blockIdx.x * span, end = min(p + span, n.positions);
    int r = t.columns < (int)blockDim.x ? threadIdx.x / t.columns : 0;
    int column = blockIdx.z * blockDim.x + threadIdx.x - r * t.columns, ch = column * W;
    bool active = r < t.rows && column < t.columns;
    ht_pack<E, W> v[APPLY_BATCH] = {};
    p += r;
    if (active)
#pragma unroll
        for (int k = 0; k < APPLY_BATCH; k++)
            if (p + k * t.rows < end)
                v[k] = input_at<E, W>(n, image, p + k * t.rows, ch);
    for (int g = threadIdx.x / 32; g < n.groups; g += blockDim.x / 32) {
        float2 joined = join_chunks(t, (const float2 *)n.workspace + ((int64_t)image * n.groups + g) * t.chunks,
                                    n.positions, n.eps);
        if (threadIdx.x % 32 == 0)
            of_group[g] = joined;
    }
    __syncthreads();
    if (!active)
        return;
    channel_scales<W> c = scales_of<W>(n, of_group, t.group, 0, ch);
    ht_coder coder = ht_coder_of(n.out, n.codes, (int64_t)image * n.positions, n.positions);
    while (p < end) {
#pragma unroll
        for (int k = 0; k < APPLY_BATCH; k++)
            if (p + k * t.rows < end)
                write_position<E, W>(n, c, coder, v[k], (int64_t)image * n.positions + p + k * t.rows, ch);
        p += APPLY_BATCH * t.rows;
#pragma unroll
        for (int k = 0; k < APPLY_BATCH; k++)
            if (p + k * t.rows < end)
                v[k] = input_at<E, W>(n, image, p + k * t.rows, ch);
    }
}

/* K: positions that a thread holds. */
template <typename E, int W, int K>
__global__ void __launch_bounds__(MOST_THREADS)
    whole_groups(const __grid_constant__ ht_cuda_group_norm n, const norm_tile t)
{
    __shared__ float part_s[MOST_THREADS * W], part_q[MOST_THREADS * W];
    __shared__ float2 of_group[MOST_GROUPS];
    int image = blockIdx.y, first = blockIdx.x * t.channels;
    int r = threadIdx.x / t.columns, ch = (threadIdx.x - r * t.columns) * W;
    ht_pack<E, W> v[K] = {};
    int got = r < t.rows ? share_of(r, t.rows, n.positions) : 0;
    if (got) {
        float s[W] = {}, q[W] = {};
#pragma unroll
        for (int k = 0; k < K; k++)
            if (k < got)
                v[k] = input_at<E, W>(n, image, r + k * t.rows, first + ch);
        add_batch<E, W, K>(s, q, 0, v, got);
#pragma unroll
        for (int i = 0; i < W; i++) {
            part_s[r * t.channels + ch + i] = s[i];
            part_q[r * t.channels + ch + i] = q[i];
        }
    }
    __syncthreads();
    for (int g = threadIdx.x / 32; g < t.channels / t.group; g += blockDim.x / 32) {
        float2 joined = join_rows(t, part_s, part_q, g * t.group, n.positions);
        float all = (float)n.positions * (float)t.group;
        if (threadIdx.x % 32 == 0)
            of_group[g] = make_float2(joined.x / all, __frcp_rn(__fsqrt_rn(joined.y / all + n.eps)));
    }
    __syncthreads();
    if (!got)
        return;
    channel_scales<W> c = scales_of<W>(n, of_group, t.group, first, first + ch);
    ht_coder coder = ht_coder_of(n.out, n.codes, (int64_t)image * n.positions, n.positions);
#pragma unroll
    for (int k = 0; k < K; k++)
        if (k < got)
            write_position<E, W>(n, c, coder, v[k], (int64_t)image * n.positions + r + k * t.rows, first + ch);
}

/* ---- sizes ---- */

static int channels_of(const ht_cuda_group_norm *n)
{
    return n->c[0] + n->c[1];
}

static int width_of(const ht_cuda_group_norm *n)
{
    return n->c[0] % 8 == 0 && n->c[1] % 8 == 0 ? 8 : 1;
}

static bool is_refused(const ht_cuda_group_norm *n)
{
    int channels = channels_of(n);
    return n->c[0] < 1 || n->c[1] < 0 || n->groups < 1 || n->groups > MOST_GROUPS || channels % n->groups ||
           channels > MOST_CHANNELS || n->images > MOST_IMAGES || !ht_is_float(&n->x) ||
           (n->c[1] && n->x2.dtype != n->x.dtype);
}

static int least_multiple(int a, int b)
{
    int x = a, y = b;
    while (y) {
        int rest = x % y;
        x = y;
        y = rest;
    }
    return a / x * b;
}

/* Positions that a thread of whole_groups can hold. */
static int most_held(const ht_cuda_group_norm *n)
{
    return width_of(n) == 1 || n->x.dtype == HT_CUDA_F16 ? 16 : 8;
}

/* The tile of whole_groups; false: the image is too large.  Rows of 64 bytes at least, if there is room. */
static bool whole_tile(const ht_cuda_group_norm *n, norm_tile *t)
{
    int width = width_of(n), channels = channels_of(n), group = channels / n->groups;
    int unit = least_multiple(group, width);
    bool found = false;
    for (int c = unit; c <= channels; c += unit) {
        int columns = c / width, rows = columns <= MOST_THREADS ? MOST_THREADS / columns : 0;
        if (channels % c || rows == 0 || (n->positions + rows - 1) / rows > most_held(n))
            continue;
        rows = rows < n->positions ? rows : n->positions;
        *t = {c, group, columns, rows, (rows * columns + 31) / 32 * 32, n->positions, 1};
        found = true;
        if ((size_t)c * ht_dtype_bytes(n->x.dtype) >= 64)
            break;
    }
    return found;
}

/* That of group_sums and group_apply: about 8 vectors a thread. */
static norm_tile chunk_tile(const ht_cuda_group_norm *n)
{
    int width = width_of(n), channels = channels_of(n), columns = channels / width;
    int rows = columns < 256 ? 256 / columns : 1, threads = (rows * columns + 31) / 32 * 32;
    threads = threads < MOST_THREADS ? threads : MOST_THREADS;
    int64_t most = ((int64_t)n->positions * columns + 8 * threads - 1) / (8 * threads);
    int chunks = most < MOST_CHUNKS ? (int)most : MOST_CHUNKS;
    int chunk = ((n->positions + chunks - 1) / chunks + rows - 1) / rows * rows;
    return {channels, channels / n->groups, columns, rows, threads, chunk, (n->positions + chunk - 1) / chunk};
}

size_t ht_cuda_group_norm_workspace(const ht_cuda_group_norm *n)
{
    norm_tile t;
    if (is_refused(n) || whole_tile(n, &t))
        return 0;
    return (size_t)n->images * (size_t)n->groups * (size_t)chunk_tile(n).chunks * sizeof(float2);
}

/* ---- launches ---- */

template <typename E, int W> static void launch_whole(const ht_cuda_group_norm *n, const norm_tile &t)
{
    enum { MOST = W == 1 || sizeof(E) == 2 ? 16 : 8 };
    dim3 grid((unsigned)(channels_of(n) / t.channels), (unsigned)n->images);
    if ((n->positions + t.rows - 1) / t.rows <= 4)
        whole_groups<E, W, 4><<<grid, (unsigned)t.threads, 0, ht_cuda_stream()>>>(*n, t);
    else
        whole_groups<E, W, MOST><<<grid, (unsigned)t.threads, 0, ht_cuda_stream()>>>(*n, t);
}

template <typename E, int W> static void launch_sums(const ht_cuda_group_norm *n, const norm_tile &t)
{
    size_t shared = (size_t)t.rows * (size_t)t.channels * 2 * sizeof(float);
    dim3 grid((unsigned)t.chunks, (unsigned)n->images);
    group_sums<E, W><<<grid, (unsigned)t.threads, shared, ht_cuda_stream()>>>(*n, t);
}

/* Blocks take longer spans where there are more than the processors can hold: each reads the chunks' sums. */
template <typename E, int W> static void launch_apply(const ht_cuda_group_norm *n, const norm_tile &t)
{
    int span = t.rows * APPLY_BATCH, slices = (t.columns + t.threads - 1) / t.threads;
    int64_t wanted = (int64_t)ht_cuda_multiprocessors() * 8;
    int64_t blocks = ((int64_t)n->positions + span - 1) / span * n->images * slices;
    if (blocks > wanted)
        span *= (int)((blocks + wanted - 1) / wanted);
    dim3 grid((unsigned)((n->positions + span - 1) / span), (unsigned)n->images, (unsigned)slices);
    group_apply<E, W><<<grid, (unsigned)t.threads, 0, ht_cuda_stream()>>>(*n, t, span);
}

int ht_cuda_group_norm_run(const ht_cuda_group_norm *n)
{
    if (is_refused(n) || !ht_is_output(&n->out, &n->codes))
        return HT_CUDA_REFUSED;
    if (n->images < 1 || n->positions < 1)
        return HT_CUDA_OK;
    bool half = n->x.dtype == HT_CUDA_F16, wide = width_of(n) == 8;
    norm_tile t;
    if (whole_tile(n, &t)) {
        (half   ? wide ? launch_whole<__half, 8> : launch_whole<__half, 1>
           : wide ? launch_whole<float, 8>
                : launch_whole<float, 1>)(n, t);
        return ht_cuda_launched();
    }
    t = chunk_tile(n);
    (half   ? wide ? launch_sums<__half, 8> : launch_sums<__half, 1>
       : wide ? launch_sums<float, 8>
            : launch_sums<float, 1>)(n, t);
    int status = ht_cuda_launched();
    if (status)
        return status;
    (half   ? wide ? launch_apply<__half, 8> : launch_apply<__half, 1>
       : wide ? launch_apply<float, 8>
            : launch_apply<float, 1>)(n, t);
    return ht_cuda_launched();
}

/* ---- norms of rows ---- */

/* A row belongs to T threads, each of which holds V vectors of 8 channels: vector v of thread t is number v T + t. */
template <int T> __device__ __forceinline__ float row_sum(float v, float *of_warp)
{
    v = warp_sum(v);
    if (T == 32)
        return v;
    __syncthreads(); /* those of the last sum have been read */
    if (threadIdx.x % 32 == 0)
        of_warp[threadIdx.x / 32] = v;
    __syncthreads();
    v = 0;
#pragma unroll
    for (int k = 0; k < T / 32; k++)
        v += of_warp[k];
    return v;
}

template <int W>
__device__ __forceinline__ void norm_values(const ht_cuda_row_norm &n, int64_t image, int ch, float mean, float r,
                                            float (&x)[W])
{
    float w[W], b[W];
    if (n.kind == HT_CUDA_MODULATE) {
        ht_load_floats<W>(w, n.scale_row.data + image * n.scale_row.stride + ch);
        ht_load_floats<W>(b, n.shift_row.data + image * n.shift_row.stride + ch);
    } else {
        ht_load_floats<W>(w, n.weight + ch);
        if (n.kind == HT_CUDA_LAYER_NORM)
            ht_load_floats<W>(b, n.bias + ch);
    }
#pragma unroll
    for (int i = 0; i < W; i++)
        x[i] = n.kind == HT_CUDA_RMS_NORM ? __fmul_rn(__fmul_rn(x[i], r), w[i])
                                          : __fmaf_rn(__fmul_rn(__fsub_rn(x[i], mean), r),
                                                      n.kind == HT_CUDA_MODULATE ? __fadd_rn(1.0f, w[i]) : w[i], b[i]);
}

template <int T, int V>
__global__ void __launch_bounds__(T < 128 ? 128 : T) row_norm_held(const __grid_constant__ ht_cuda_row_norm n)
{
    __shared__ float of_warp[T / 32];
    int64_t row = T == 32 ? (int64_t)blockIdx.x * 4 + threadIdx.x / 32 : blockIdx.x;
    int t = threadIdx.x % T, vectors = n.channels / 8;
    if (row >= n.rows) /* a whole warp, and then T is 32 */
        return;
    float x[V][8], sum = 0, squares = 0, mean = 0;
#pragma unroll
    for (int v = 0; v < V; v++)
        if (v * T + t < vectors)
            ht_load_n<8>(x[v], n.x, row * n.channels + (v * T + t) * 8);
    if (n.kind != HT_CUDA_RMS_NORM) {
#pragma unroll
        for (int v = 0; v < V; v++)
#pragma unroll
            for (int i = 0; i < 8; i++)
                sum += v * T + t < vectors ? x[v][i] : 0.0f;
        mean = row_sum<T>(sum, of_warp) / (float)n.channels;
    }
#pragma unroll
    for (int v = 0; v < V; v++)
#pragma unroll
        for (int i = 0; i < 8; i++) {
            float d = v * T + t < vectors ? __fsub_rn(x[v][i], mean) : 0.0f;
            squares = __fmaf_rn(d, d, squares);
        }
    float r = __frcp_rn(__fsqrt_rn(row_sum<T>(squares, of_warp) / (float)n.channels + n.eps));
    int64_t image = row / n.rows_per_image;
    ht_coder coder = ht_coder_of(n.out, n.codes, row, n.rows_per_image);
#pragma unroll
    for (int v = 0; v < V; v++)
        if (v * T + t < vectors) {
            norm_values<8>(n, image, (v * T + t) * 8, mean, r, x[v]);
            ht_store_n<8>(n.out, coder, row * n.channels + (v * T + t) * 8, x[v]);
        }
}

/* Any number of channels: a block reads its row three times. */
__global__ void __launch_bounds__(256) row_norm_plain(const __grid_constant__ ht_cuda_row_norm n)
{
    __shared__ float of_warp[8];
    int64_t row = blockIdx.x, first = row * n.channels;
    float sum = 0, squares = 0, mean = 0;
    if (n.kind != HT_CUDA_RMS_NORM) {
        for (int i = threadIdx.x; i < n.channels; i += 256)
            sum += ht_load(n.x, first + i);
        mean = row_sum<256>(sum, of_warp) / (float)n.channels;
    }
    for (int i = threadIdx.x; i < n.channels; i += 256) {
        float d = __fsub_rn(ht_load(n.x, first + i), mean);
        squares = __fmaf_rn(d, d, squares);
    }
    float r = __frcp_rn(__fsqrt_rn(row_sum<256>(squares, of_warp) / (float)n.channels + n.eps));
    ht_coder coder = ht_coder_of(n.out, n.codes, row, n.rows_per_image);
    for (int i = threadIdx.x; i < n.channels; i += 256) {
        float x[1] = {ht_load(n.x, first + i)};
        norm_values<1>(n, row / n.rows_per_image, i, mean, r, x);
        ht_store_n<1>(n.out, coder, first + i, x);
    }
}

static bool rows_fit_vectors(const ht_cuda_row_norm *n)
{
    return n->channels % 8 == 0 && n->channels <= 16384 && n->scale_row.stride % 4 == 0 &&
           n->shift_row.stride % 4 == 0 && ht_is_aligned(n->weight) && ht_is_aligned(n->bias) &&
           ht_is_aligned(n->scale_row.data) && ht_is_aligned(n->shift_row.data);
}

int ht_cuda_row_norm_run(const ht_cuda_row_norm *n)
{
    bool modulates = n->kind == HT_CUDA_MODULATE;
    if ((unsigned)n->kind > HT_CUDA_RMS_NORM || !ht_is_float(&n->x) || !ht_is_output(&n->out, &n->codes) ||
        (modulates ? !n->scale_row.data || !n->shift_row.data : !n->weight) ||
        (n->kind == HT_CUDA_LAYER_NORM && !n->bias))
        return HT_CUDA_REFUSED;
    if (n->rows < 1)
        return HT_CUDA_OK;
    cudaStream_t stream = ht_cuda_stream();
    unsigned rows = (unsigned)n->rows, quarters = (unsigned)((n->rows + 3) / 4);
    int vectors = n->channels / 8;
    if (!rows_fit_vectors(n))
        row_norm_plain<<<rows, 256, 0, stream>>>(*n);
    else if (vectors <= 32)
        row_norm_held<32, 1><<<quarters, 128, 0, stream>>>(*n);
    else if (vectors <= 64)
        row_norm_held<32, 2><<<quarters, 128, 0, stream>>>(*n);
    else if (vectors <= 128)
        row_norm_held<128, 1><<<rows, 128, 0, stream>>>(*n);
    else if (vectors <= 256)
        row_norm_held<128, 2><<<rows, 128, 0, stream>>>(*n);
    else if (vectors <= 512)
        row_norm_held<128, 4><<<rows, 128, 0, stream>>>(*n);
    else
        row_norm_held<512, 4><<<rows, 512, 0, stream>>>(*n);
    return ht_cuda_launched();
}
