/* norm.cu   group_norm: y = (x - mean) a + bias, a = weight / sqrt(var + eps), over a group's channels of all positions
 * of an image, then SiLU and codes; layer_norm, modulate, rms_norm: the same over a row.
 *
 * Variances are never E[x^2] - E[x]^2.  A thread has a column of W channels, which lie in one group (low) or two (low
 * and high), of some positions: of each group's part it takes the sum s and, around its own mean, the sum of squares q.
 * Parts (s, q, n) join as q = sum q_i + n_i (s_i / n_i - mean)^2, mean that of all   (Chan, Golub, LeVeque 1983).
 *
 *   whole_groups   a block has all positions of a few whole groups in registers: one pass over memory, squares around
 *                  the group's mean itself.  Small images.
 *   group_sums     a block has all channels of one chunk of positions: S and Q (around the chunk's mean) of its groups
 *                  go to memory as [image][group][chunk].
 *   group_apply    joins the chunks' S and Q and writes y.
 *
 * Which of them, and all their sizes that sums depend on, follow from an image's size and the channels, never from the
 * number of images.  W is 8 where the channels of X and X2 are multiples of 8 and no 8 lie in three groups, else 1. */
#include "cuda/activation.cuh"
#include "cuda/device.h"
#include "cuda/vector.cuh"

enum {
    MOST_CHUNKS = 128,    /* of an image; group_apply reads those of all groups */
    MOST_CHANNELS = 4096, /* W = 8: a column a thread */
    MOST_SINGLE = 2560,   /* W = 1: sums of all channels are in 48 KiB of shared memory */
    MOST_GROUPS = 1024,
    BATCH = 8, /* positions that a thread of group_sums loads at once */
    APPLY_BATCH = 4,
    JOINERS = 8, /* threads that join a group's parts */
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

/* The groups of a column that begins at channel ch of the tile: `low` has the first `split` channels, low + 1 the rest.
 */
typedef struct norm_column {
    int low, split;
} norm_column;

template <int W> __device__ __forceinline__ norm_column column_at(const norm_tile &t, int ch)
{
    int low = ch / t.group;
    return {low, min(W, (low + 1) * t.group - ch)};
}

__device__ __forceinline__ float warp_sum(float v)
{
#pragma unroll
    for (int k = 16; k; k /= 2)
        v += __shfl_xor_sync(~0u, v, k);
    return v;
}

/* Of JOINERS threads side by side. */
__device__ __forceinline__ float joiners_sum(float v)
{
#pragma unroll
    for (int k = JOINERS / 2; k; k /= 2)
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

/* v[i] of the low group and of the high. */
template <int W> __device__ __forceinline__ float2 by_group(const float (&v)[W], int split)
{
    float2 sum = {0, 0};
#pragma unroll
    for (int i = 0; i < W; i++) {
        sum.x += i < split ? v[i] : 0;
        sum.y += i < split ? 0 : v[i];
    }
    return sum;
}

/* Sums of K positions, those beyond the last are 0. */
template <typename E, int W, int K> __device__ __forceinline__ float2 sums_of(const ht_pack<E, W> (&v)[K], int split)
{
    float sum[W] = {};
#pragma unroll
    for (int k = 0; k < K; k++)
#pragma unroll
        for (int i = 0; i < W; i++)
            sum[i] += (float)v[k].at[i];
    return by_group<W>(sum, split);
}

/* Squares of the first `got` positions around the groups' means. */
template <typename E, int W, int K>
__device__ __forceinline__ float2 squares_of(const ht_pack<E, W> (&v)[K], int got, int split, float2 mean)
{
    float squares[W] = {};
#pragma unroll
    for (int k = 0; k < K; k++)
        if (k < got)
#pragma unroll
            for (int i = 0; i < W; i++) {
                float d = (float)v[k].at[i] - (i < split ? mean.x : mean.y);
                squares[i] = __fmaf_rn(d, d, squares[i]);
            }
    return by_group<W>(squares, split);
}

/* Sums of a tile's groups, totals[group], from those of threads: parts[low, high][rows][columns].  of_column: [low,
 * high][columns].  All threads of the block. */
template <int W>
__device__ __forceinline__ void join_parts(const norm_tile &t, const float *parts, float *of_column, float *totals)
{
    __syncthreads();
    if (t.rows == 1)
        of_column = (float *)parts;
    else if (t.rows <= 16) {
        for (int i = threadIdx.x; i < 2 * t.columns; i += blockDim.x) {
            const float *part = i < t.columns ? parts + i : parts + (t.rows - 1) * t.columns + i;
            float sum = 0;
            for (int r = 0; r < t.rows; r++)
                sum += part[r * t.columns];
            of_column[i] = sum;
        }
        __syncthreads();
    } else {
        for (int i = threadIdx.x / 32; i < 2 * t.columns; i += blockDim.x / 32) {
            const float *part = i < t.columns ? parts + i : parts + (t.rows - 1) * t.columns + i;
            float sum = 0;
            for (int r = threadIdx.x % 32; r < t.rows; r += 32)
                sum += part[r * t.columns];
            sum = warp_sum(sum);
            if (threadIdx.x % 32 == 0)
                of_column[i] = sum;
        }
        __syncthreads();
    }
    int groups = t.channels / t.group, lane = threadIdx.x % JOINERS;
    for (int first = 0; first < groups; first += blockDim.x / JOINERS) {
        int g = first + threadIdx.x / JOINERS, end = ((g + 1) * t.group - 1) / W + 1;
        float sum = 0;
        for (int c = g * t.group / W + lane; g < groups && c < end; c += JOINERS)
            sum += of_column[c * W < g * t.group ? t.columns + c : c];
        sum = joiners_sum(sum);
        if (lane == 0 && g < groups)
            totals[g] = sum;
    }
    __syncthreads();
}

/* Means of a column's two groups of `count` values each. */
__device__ __forceinline__ float2 means_of(const float *totals, norm_column c, int width, float count)
{
    float per = __frcp_rn(count);
    return make_float2(totals[c.low] * per, c.split < width ? totals[c.low + 1] * per : 0);
}

/* n (s / n - mean)^2 */
__device__ __forceinline__ float between(float s, float n, float mean)
{
    float off = n > 0 ? s * __frcp_rn(n) - mean : 0;
    return off * off * n;
}

/* Positions that row r of `rows` has of `count`. */
__device__ __forceinline__ int share_of(int r, int rows, int count)
{
    return r < count ? (count - r + rows - 1) / rows : 0;
}

template <typename E, int W>
__global__ void __launch_bounds__(MOST_THREADS)
    group_sums(const __grid_constant__ ht_cuda_group_norm n, const norm_tile t)
{
    extern __shared__ float part_s[]; /* [low, high][rows][columns]; of q; [low, high][columns] if rows > 1; [groups] */
    const int half = t.rows * t.columns;
    float *part_q = part_s + 2 * half, *of_column = part_q + 2 * half,
          *totals = of_column + (t.rows > 1 ? 2 * t.columns : 0);
    int image = blockIdx.y, first = blockIdx.x * t.chunk, count = min(t.chunk, n.positions - first);
    int r = t.columns < (int)blockDim.x ? threadIdx.x / t.columns : 0, column = threadIdx.x - r * t.columns;
    int mine = r < t.rows ? share_of(r, t.rows, count) : 0; /* positions */
    for (int c = column; r < t.rows && c < t.columns; c += blockDim.x) {
        float2 s = {0, 0}, q = {0, 0};
        int split = column_at<W>(t, c * W).split, at = r * t.columns + c;
        for (int before = 0; before < mine; before += BATCH) {
            ht_pack<E, W> v[BATCH] = {};
            int got = min(BATCH, mine - before);
#pragma unroll
            for (int k = 0; k < BATCH; k++)
                if (k < got)
                    v[k] = input_at<E, W>(n, image, first + r + (before + k) * t.rows, c * W);
            float2 sum = sums_of<E, W, BATCH>(v, split);
            float per_low = __frcp_rn((float)(got * split)), per_high = __frcp_rn((float)max(1, got * (W - split)));
            float2 mean = make_float2(sum.x * per_low, sum.y * per_high);
            float2 squares = squares_of<E, W, BATCH>(v, got, split, mean);
            float weight = (float)before * (float)got * __frcp_rn((float)(before + got)),
                  per = __frcp_rn((float)max(1, before));
            float off_low = mean.x - s.x * per * __frcp_rn((float)split);
            float off_high = mean.y - s.y * per * __frcp_rn((float)max(1, W - split));
            q.x += __fmaf_rn(off_low * off_low, weight * (float)split, squares.x);
            q.y += __fmaf_rn(off_high * off_high, weight * (float)(W - split), squares.y);
            s.x += sum.x;
            s.y += sum.y;
        }
        part_s[at] = s.x;
        part_s[half + at] = s.y;
        part_q[at] = q.x;
        part_q[half + at] = q.y;
    }
    join_parts<W>(t, part_s, of_column, totals);
    float2 *sums = (float2 *)n.workspace + (int64_t)image * n.groups * t.chunks + blockIdx.x;
    float all = (float)count * (float)t.group;
    for (int c = column; r < t.rows && c < t.columns; c += blockDim.x) {
        norm_column in = column_at<W>(t, c * W);
        float2 mean = means_of(totals, in, W, all);
        int at = r * t.columns + c;
        part_q[at] += between(part_s[at], (float)(mine * in.split), mean.x);
        part_q[half + at] += between(part_s[half + at], (float)(mine * (W - in.split)), mean.y);
    }
    for (int g = threadIdx.x; g < n.groups; g += blockDim.x)
        sums[g * t.chunks].x = totals[g];
    join_parts<W>(t, part_q, of_column, totals);
    for (int g = threadIdx.x; g < n.groups; g += blockDim.x)
        sums[g * t.chunks].y = totals[g];
}

/* Mean and 1 / sqrt(var + eps) of all groups from their chunks: JOINERS threads a group. */
__device__ __forceinline__ void join_chunks(const norm_tile &t, const float2 *sums, const ht_cuda_group_norm &n,
                                            float2 *of_group)
{
    const int lane = threadIdx.x % JOINERS, last = t.chunks - 1;
    const float full = (float)t.chunk * (float)t.group, per_full = __frcp_rn(full);
    const float rest = (float)(n.positions - last * t.chunk) * (float)t.group, per_rest = __frcp_rn(rest);
    const float per_all = __frcp_rn((float)n.positions * (float)t.group);
    for (int first = 0; first < n.groups; first += blockDim.x / JOINERS) {
        int g = first + threadIdx.x / JOINERS;
        float sum = 0, squares = 0;
        const float2 *of_chunk = sums + (int64_t)min(g, n.groups - 1) * t.chunks;
#pragma unroll 8
        for (int c = lane; c < t.chunks; c += JOINERS)
            sum += of_chunk[c].x;
        float mean = joiners_sum(sum) * per_all;
#pragma unroll 4
        for (int c = lane; c < t.chunks; c += JOINERS) { /* from the cache */
            float off = of_chunk[c].x * (c == last ? per_rest : per_full) - mean;
            squares += __fmaf_rn(off * off, c == last ? rest : full, of_chunk[c].y);
        }
        squares = joiners_sum(squares);
        if (lane == 0 && g < n.groups)
            of_group[g] = make_float2(mean, __frcp_rn(__fsqrt_rn(__fmaf_rn(squares, per_all, n.eps))));
    }
}

/* What a thread's channels become. */
template <int W> struct channel_scales {
    float mean[W], a[W], bias[W];
};

/* first: the tile's first channel; ch: the column's, in the tile. */
template <int W>
__device__ __forceinline__ channel_scales<W> scales_of(const ht_cuda_group_norm &n, const norm_tile &t,
                                                       const float2 *of_group, int first, int ch)
{
    channel_scales<W> c;
    norm_column in = column_at<W>(t, ch);
    float2 low = of_group[in.low], high = in.split < W ? of_group[in.low + 1] : low;
    ht_load_floats<W>(c.a, n.weight + first + ch);
    ht_load_floats<W>(c.bias, n.bias + first + ch);
#pragma unroll
    for (int i = 0; i < W; i++) {
        c.mean[i] = i < in.split ? low.x : high.x;
        c.a[i] *= i < in.split ? low.y : high.y;
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
    ht_coder coder = ht_coder_of(n.out, n.codes, image, 1);
    join_chunks(t, (const float2 *)n.workspace + (int64_t)image * n.groups * t.chunks, n, of_group);
    __syncthreads();
    if (!active)
        return;
    channel_scales<W> c = scales_of<W>(n, t, of_group, 0, ch);
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
    __shared__ float parts[2 * MOST_THREADS], of_column[2 * MOST_THREADS], totals[MOST_GROUPS];
    __shared__ float2 of_group[MOST_GROUPS];
    int image = blockIdx.y, first = blockIdx.x * t.channels;
    int r = threadIdx.x / t.columns, ch = (threadIdx.x - r * t.columns) * W, half = t.rows * t.columns;
    int got = r < t.rows ? share_of(r, t.rows, n.positions) : 0;
    norm_column in = column_at<W>(t, ch);
    float all = (float)n.positions * (float)t.group;
    ht_pack<E, W> v[K] = {};
#pragma unroll
    for (int k = 0; k < K; k++)
        if (k < got)
            v[k] = input_at<E, W>(n, image, r + k * t.rows, first + ch);
    ht_coder coder = ht_coder_of(n.out, n.codes, image, 1); /* unless each row has its own */
    if (got) {
        float2 s = sums_of<E, W, K>(v, in.split);
        parts[threadIdx.x] = s.x;
        parts[half + threadIdx.x] = s.y;
    }
    join_parts<W>(t, parts, of_column, totals);
    float2 mean = got ? means_of(totals, in, W, all) : make_float2(0, 0);
    for (int g = threadIdx.x; g < t.channels / t.group; g += blockDim.x)
        of_group[g].x = totals[g] * __frcp_rn(all);
    if (got) {
        float2 q = squares_of<E, W, K>(v, got, in.split, mean);
        parts[threadIdx.x] = q.x;
        parts[half + threadIdx.x] = q.y;
    }
    join_parts<W>(t, parts, of_column, totals);
    for (int g = threadIdx.x; g < t.channels / t.group; g += blockDim.x)
        of_group[g].y = __frcp_rn(__fsqrt_rn(__fmaf_rn(totals[g], __frcp_rn(all), n.eps)));
    __syncthreads();
    if (!got)
        return;
    channel_scales<W> c = scales_of<W>(n, t, of_group, first, ch);
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
    int group = channels_of(n) / n->groups;
    return n->c[0] % 8 == 0 && n->c[1] % 8 == 0 && (group >= 8 || group == 4) && ht_is_aligned(n->weight) &&
                   ht_is_aligned(n->bias)
               ? 8
               : 1;
}

static bool is_refused(const ht_cuda_group_norm *n)
{
    int channels = channels_of(n);
    return n->c[0] < 1 || n->c[1] < 0 || n->groups < 1 || n->groups > MOST_GROUPS || channels % n->groups ||
           channels > (width_of(n) == 8 ? MOST_CHANNELS : MOST_SINGLE) || n->images > MOST_IMAGES ||
           !ht_is_float(&n->x) || (n->c[1] && n->x2.dtype != n->x.dtype);
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
    return n->x.dtype == HT_CUDA_F16 ? 16 : 8;
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

/* That of group_sums and group_apply: a thread of group_sums has BATCH positions, or several times that where else the
 * chunks were too many. */
static norm_tile chunk_tile(const ht_cuda_group_norm *n)
{
    int width = width_of(n), channels = channels_of(n), columns = channels / width;
    bool large = (int64_t)n->positions * columns > (int64_t)MOST_CHUNKS * BATCH * 256;
    int aim = large ? MOST_THREADS : 256, rows = columns < aim ? aim / columns : 1;
    int threads = (rows * columns + 31) / 32 * 32, chunk = rows * BATCH;
    threads = threads < MOST_THREADS ? threads : MOST_THREADS;
    chunk *= (n->positions + chunk * MOST_CHUNKS - 1) / (chunk * MOST_CHUNKS);
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
    dim3 grid((unsigned)(channels_of(n) / t.channels), (unsigned)n->images);
    int held = (n->positions + t.rows - 1) / t.rows;
    if (held <= 2)
        whole_groups<E, W, 2><<<grid, (unsigned)t.threads, 0, ht_cuda_stream()>>>(*n, t);
    else if (held <= 4)
        whole_groups<E, W, 4><<<grid, (unsigned)t.threads, 0, ht_cuda_stream()>>>(*n, t);
    else if (held <= 8)
        whole_groups<E, W, 8><<<grid, (unsigned)t.threads, 0, ht_cuda_stream()>>>(*n, t);
    else
        whole_groups<E, W, sizeof(E) == 2 ? 16 : 8><<<grid, (unsigned)t.threads, 0, ht_cuda_stream()>>>(*n, t);
}

template <typename E, int W> static void launch_sums(const ht_cuda_group_norm *n, const norm_tile &t)
{
    int parts = 4 * t.rows * t.columns, of_columns = t.rows > 1 ? 2 * t.columns : 0;
    size_t shared = (size_t)(parts + of_columns + n->groups) * sizeof(float);
    dim3 grid((unsigned)t.chunks, (unsigned)n->images);
    group_sums<E, W><<<grid, (unsigned)t.threads, shared, ht_cuda_stream()>>>(*n, t);
}

/* Blocks take longer spans where there are more than the processors can hold: each reads the chunks' sums. */
template <typename E, int W> static void launch_apply(const ht_cuda_group_norm *n, const norm_tile &t)
{
    int span = t.rows * APPLY_BATCH, slices = (t.columns + t.threads - 1) / t.threads;
    int64_t wanted = (int64_t)ht_cuda_multiprocessors() * 3;
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
__device__ __forceinline__ void row_scales(const ht_cuda_row_norm &n, int64_t image, int ch, float (&w)[W],
                                           float (&b)[W])
{
    if (n.kind == HT_CUDA_MODULATE) {
        ht_load_floats<W>(w, n.scale_row.data + image * n.scale_row.stride + ch);
        ht_load_floats<W>(b, n.shift_row.data + image * n.shift_row.stride + ch);
    } else {
        ht_load_floats<W>(w, n.weight + ch);
        if (n.kind == HT_CUDA_LAYER_NORM)
            ht_load_floats<W>(b, n.bias + ch);
    }
}

template <int W>
__device__ __forceinline__ void norm_values(const ht_cuda_row_norm &n, const float (&w)[W], const float (&b)[W],
                                            float mean, float r, float (&x)[W])
{
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
    const int64_t row = T == 32 ? (int64_t)blockIdx.x * 4 + threadIdx.x / 32 : blockIdx.x;
    const int t = threadIdx.x % T, vectors = n.channels / 8;
    if (row >= n.rows) /* all of the row's threads */
        return;
    float x[V][8] = {}, sum = 0, squares = 0, mean = 0;
#pragma unroll
    for (int v = 0; v < V; v++)
        if (v * T + t < vectors)
            ht_load_n<8>(x[v], n.x, row * n.channels + (v * T + t) * 8);
    const ht_coder coder = ht_coder_of(n.out, n.codes, row, n.rows_per_image);
    const int64_t image = n.kind == HT_CUDA_MODULATE ? ht_divide(row, n.rows_per_image) : 0;
    if (n.kind != HT_CUDA_RMS_NORM) {
#pragma unroll
        for (int v = 0; v < V; v++)
#pragma unroll
            for (int i = 0; i < 8; i++)
                sum += x[v][i];
        mean = row_sum<T>(sum, of_warp) / (float)n.channels;
    }
#pragma unroll
    for (int v = 0; v < V; v++)
#pragma unroll
        for (int i = 0; i < 8; i++) {
            float d = v * T + t < vectors ? __fsub_rn(x[v][i], mean) : 0.0f;
            squares = __fmaf_rn(d, d, squares);
        }
    const float r = __frcp_rn(__fsqrt_rn(row_sum<T>(squares, of_warp) / (float)n.channels + n.eps));
#pragma unroll
    for (int v = 0; v < V; v++)
        if (v * T + t < vectors) {
            float w[8], b[8];
            row_scales<8>(n, image, (v * T + t) * 8, w, b);
            norm_values<8>(n, w, b, mean, r, x[v]);
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
        float w[1], b[1];
        row_scales<1>(n, n.kind == HT_CUDA_MODULATE ? ht_divide(row, n.rows_per_image) : 0, i, w, b);
        norm_values<1>(n, w, b, mean, r, x);
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
