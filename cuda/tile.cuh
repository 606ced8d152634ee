/* tile.cuh - a tile's activations on their way to shared memory: the walk over units of the depth, and the window.
 *
 * A stage holds, for each row m of the tile, 128 bytes of k: 8 pieces of 16 bytes, piece i at (i ^ m % 8) * 16.  So
 * eight rows' pieces i lie in all 32 banks, and this is what wgmma calls the 128-byte swizzle. */
#ifndef HT_CUDA_TILE_CUH
#define HT_CUDA_TILE_CUH

#include "cuda/mma.cuh"
#include "cuda/product.h"

/* The tap and channel of a unit; input 2: past the end. */
struct ht_walk {
    int input, ky, kx, channel; /* channel: in bytes */

    __device__ __forceinline__ void next(const ht_plan &plan)
    {
        if (input > 1)
            return;
        channel += HT_UNIT;
        if (channel < plan.padded[input])
            return;
        channel = 0;
        if (++kx < plan.p.window.kernel_w)
            return;
        kx = 0;
        if (++ky < plan.p.window.kernel_h)
            return;
        ky = 0;
        input += plan.padded[1] && !input ? 1 : 2;
    }

    __device__ __forceinline__ void begin(const ht_plan &plan, int unit)
    {
        if (unit >= plan.units[0] + plan.units[1]) {
            input = 2;
            return;
        }
        input = unit >= plan.units[0];
        unit -= input ? plan.units[0] : 0;
        int per_tap = plan.padded[input] / HT_UNIT, tap = unit / per_tap;
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

template <int ROWS, int THREADS>
__device__ __forceinline__ void ht_facts_of(ht_row_facts<ROWS> &facts, const ht_plan &plan, int64_t first, int thread)
{
    const ht_cuda_window &w = plan.p.window;
    for (int i = thread; i < ROWS; i += THREADS) {
        int64_t m = first + i < w.rows ? first + i : w.rows - 1;
        facts.image[i] = (int)((unsigned)m / (unsigned)w.rows_per_image);
        for (int part = 0; part < 2; part++) {
            const ht_cuda_scales &s = plan.p.x_scale[plan.p.parts == 2 ? part : 0];
            facts.step[part][i] = 1;
            facts.zero[part][i] = 0;
            if (s.data) {
                const float *v = s.data + s.stride * (s.per_row ? m : s.stride ? facts.image[i] : 0);
                facts.step[part][i] = v[0];
                facts.zero[part][i] = (int)v[1];
            }
        }
    }
}

/* One thread's pieces of each stage: always the same of the 8, in every (THREADS / 8)th row. */
template <int ROWS, int THREADS> struct ht_loader {
    static constexpr int STRIDE = THREADS / 8, COUNT = ROWS / STRIDE;
    static_assert(STRIDE % 8 == 0 && ROWS % STRIDE == 0, "all rows of a thread have one swizzle");
    int corner[COUNT]; /* y << 16 | x of the window's first tap, before upsampling is undone */
    int base[COUNT];   /* pixel of the image's first pixel; below 0: past the last row */
    ht_walk walk;
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
    }

    /* This thread's pieces of the walk's stage to `stage`, and on to the next.  ZEROS: codes in the padding of the
     * window are zero_of(input, row of the tile). */
    template <bool ZEROS, class ZERO>
    __device__ __forceinline__ void load(const ht_plan &plan, const ZERO &zero_of, uint32_t stage)
    {
        const ht_cuda_window &w = plan.p.window;
        int input = walk.input & 1, at = walk.channel + (piece % 4) * 16, width = plan.bytes[input];
        bool any = walk.input < 2 && at < width;
        const uint8_t *x = (const uint8_t *)(input ? plan.p.x2.data : plan.p.x.data);
        int high = w.h * w.upsample, wide = w.w * w.upsample;
        unsigned padding = 0; /* of these pieces, those in the padding whose zero point is to be written */
#pragma unroll
        for (int i = 0; i < COUNT; i++) {
            int64_t pixel = base[i];
            bool read = any && base[i] >= 0;
            if (!plan.flat) {
                int iy = (corner[i] >> 16) + walk.ky, ix = (short)corner[i] + walk.kx;
                bool inside = (unsigned)iy < (unsigned)high && (unsigned)ix < (unsigned)wide;
                if (w.upsample == 2) {
                    iy >>= 1;
                    ix >>= 1;
                } else if (w.upsample > 2) {
                    iy /= w.upsample;
                    ix /= w.upsample;
                }
                pixel += iy * w.w + ix;
                if (ZEROS && read && !inside) {
                    padding |= 1u << i;
                    continue;
                }
                read = read && inside;
            }
            ht_copy_async(stage + to + i * STRIDE * HT_STAGE, read ? x + pixel * width + at : x, read ? 16 : 0);
        }
        for (; padding; padding &= padding - 1) {
            int i = __ffs((int)padding) - 1;
            ht_shared_store(stage + to + i * STRIDE * HT_STAGE,
                            (uint32_t)zero_of(input, row + i * STRIDE) * 0x01010101u);
        }
        walk.next(plan);
        walk.next(plan);
    }
};

#endif
