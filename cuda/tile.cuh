/* tile.cuh - a tile's activations on their way to shared memory: the walk over units of the depth, and the window.
 *
 * A stage holds, for each row m of the tile, 128 bytes of k: 8 pieces of 16 bytes, piece i at (i ^ m % 8) * 16.  So
 * eight rows' pieces i lie in all 32 banks, and this is what wgmma calls the 128-byte swizzle. */
#ifndef HT_CUDA_TILE_CUH
#define HT_CUDA_TILE_CUH

#include "cuda/mma.cuh"
#include "cuda/product.h"

/* The tap and channel of a thread's unit; input 2: past the end. */
struct ht_walk {
    int input, ky, kx, channel, padded; /* channel: in bytes; padded: bytes of a tap of this input */

    /* A stage further; true: at another tap. */
    __device__ __forceinline__ bool next(const ht_plan &plan)
    {
        channel += HT_STAGE;
        if (channel < padded || input > 1)
            return false;
        do {
            channel -= padded;
            if (++kx < plan.p.window.kernel_w)
                continue;
            kx = 0;
            if (++ky < plan.p.window.kernel_h)
                continue;
            ky = 0;
            input += plan.padded[1] && !input ? 1 : 2;
            padded = plan.padded[1];
        } while (input < 2 && channel >= padded);
        return true;
    }

    __device__ __forceinline__ void begin(const ht_plan &plan, int unit)
    {
        ky = kx = channel = padded = 0;
        if (unit >= plan.units[0] + plan.units[1]) {
            input = 2;
            return;
        }
        input = unit >= plan.units[0];
        unit -= input ? plan.units[0] : 0;
        padded = plan.padded[input];
        int per_tap = padded / HT_UNIT, tap = unit / per_tap;
        channel = unit % per_tap * HT_UNIT;
        ky = tap / plan.p.window.kernel_w;
        kx = tap % plan.p.window.kernel_w;
    }
};

/* What the rows of a tile need besides their pixels. */
template <int ROWS> struct ht_row_facts {
    float step[2][ROWS];
    int zero[2][ROWS];
    int image[ROWS];
};

/* One row's, and keeping them; between the two there may be a wait. */
struct ht_row_fact {
    float step[2];
    int zero[2], image;

    template <int PARTS> __device__ __forceinline__ void load(const ht_plan &plan, int64_t m)
    {
        const ht_cuda_window &w = plan.p.window;
        m = m < w.rows ? m : w.rows - 1;
        image = (int)((unsigned)m / (unsigned)w.rows_per_image);
#pragma unroll
        for (int part = 0; part < PARTS; part++) {
            const ht_cuda_scales &s = plan.p.x_scale[plan.p.parts == 2 ? part : 0];
            step[part] = 1;
            zero[part] = 0;
            if (s.data) {
                const float *v = s.data + s.stride * (s.per_row ? m : s.stride ? image : 0);
                step[part] = v[0];
                zero[part] = (int)v[1];
            }
        }
    }

    template <int PARTS, int ROWS> __device__ __forceinline__ void keep(ht_row_facts<ROWS> &facts, int i) const
    {
        facts.image[i] = image;
#pragma unroll
        for (int part = 0; part < PARTS; part++) {
            facts.step[part][i] = step[part];
            facts.zero[part][i] = zero[part];
        }
    }
};

/* One thread's pieces of each stage: always the same of the 8, in every (THREADS / 8)th row.  Where they are is found
 * anew when the walk comes to another tap. */
template <int ROWS, int THREADS> struct ht_loader {
    static constexpr int STRIDE = THREADS / 8, COUNT = ROWS / STRIDE;
    static_assert(STRIDE % 8 == 0 && ROWS % STRIDE == 0, "all rows of a thread have one swizzle");
    int corner[COUNT]; /* y << 16 | x of the window's first tap, before upsampling is undone */
    int base[COUNT];   /* pixel of the image's first pixel; below 0: past the last row */
    int pixel[COUNT];  /* under this tap; below 0: none */
    unsigned padding;  /* of these pieces, those in the padding of the window */
    ht_walk walk;
    const uint8_t *from; /* this thread's piece of pixel 0, but for the channel */
    int width;           /* of a pixel, in bytes */
    uint32_t to;
    int piece, row;

    /* `stage` is the first to be loaded. */
    __device__ __forceinline__ void begin(const ht_plan &plan, int64_t first, int thread, int stage)
    {
        const ht_cuda_window &w = plan.p.window;
        piece = thread % 8;
        row = thread / 8;
        to = row * HT_STAGE + ((piece ^ row % 8) << 4);
        walk.begin(plan, 2 * stage + piece / 4);
#pragma unroll
        for (int i = 0; i < COUNT; i++) {
            int64_t m = first + row + i * STRIDE;
            corner[i] = 0;
            base[i] = (int)m;
            if (!plan.flat) {
                unsigned per_image = (unsigned)w.rows_per_image, image = (unsigned)m / per_image;
                int at = (int)((unsigned)m - image * per_image), y = (int)((unsigned)at / (unsigned)w.out_w);
                int x = at - y * w.out_w;
                base[i] = (int)image * w.h * w.w;
                corner[i] = (int)((unsigned)(y * w.stride - w.pad_top) << 16) | (x * w.stride - w.pad_left & 0xffff);
            }
            if (m >= w.rows)
                base[i] = -1;
        }
        locate(plan);
    }

    __device__ __forceinline__ void locate(const ht_plan &plan)
    {
        const ht_cuda_window &w = plan.p.window;
        int second = walk.input & 1, high = w.h * w.upsample, wide = w.w * w.upsample;
        width = plan.bytes[second];
        from = (const uint8_t *)(second ? plan.p.x2.data : plan.p.x.data) + piece % 4 * 16;
        padding = 0;
#pragma unroll
        for (int i = 0; i < COUNT; i++) {
            pixel[i] = base[i];
            if (plan.flat || base[i] < 0)
                continue;
            int iy = (corner[i] >> 16) + walk.ky, ix = (short)corner[i] + walk.kx;
            bool inside = (unsigned)iy < (unsigned)high && (unsigned)ix < (unsigned)wide;
            if (w.upsample == 2) {
                iy >>= 1;
                ix >>= 1;
            } else if (w.upsample > 2) {
                iy /= w.upsample;
                ix /= w.upsample;
            }
            pixel[i] = inside ? base[i] + iy * w.w + ix : -1;
            padding |= (inside ? 0u : 1u) << i;
        }
    }

    /* This thread's pieces of the walk's stage to `stage`, and on to the next.  ZEROS: codes in the padding of the
     * window are zero_of(input, row of the tile); else they are 0, as are channels that fill a tap up. */
    template <bool ZEROS, class ZERO>
    __device__ __forceinline__ void load(const ht_plan &plan, const ZERO &zero_of, uint32_t stage)
    {
        bool any = walk.input < 2 && walk.channel + piece % 4 * 16 < width;
        unsigned zeros = ZEROS && any ? padding : 0;
        const uint8_t *x = from + (any ? walk.channel : 0);
#pragma unroll
        for (int i = 0; i < COUNT; i++) {
            bool read = any && pixel[i] >= 0;
            if (!ZEROS || !(zeros >> i & 1))
                ht_copy_async(stage + to + i * STRIDE * HT_STAGE, x + (int64_t)max(pixel[i], 0) * width, read ? 16 : 0);
        }
        for (; zeros; zeros &= zeros - 1) {
            int i = __ffs((int)zeros) - 1;
            ht_shared_store(stage + to + i * STRIDE * HT_STAGE,
                            (uint32_t)zero_of(walk.input, row + i * STRIDE) * 0x01010101u);
        }
        if (walk.next(plan) && walk.input < 2)
            locate(plan);
    }
};

#endif
