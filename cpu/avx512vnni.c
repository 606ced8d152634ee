/* avx512vnni.c - kernels of quantized layers for AVX-512 with VNNI, and the list of them.
 *
 * A tile is 6 x 64 sums: a step of 4 k is 24 vpdpbusd (the form that does not saturate; 64 multiply-adds each) on 4
 * loads of weights and 6 broadcasts of codes. */
#include <float.h>
#include <math.h>
#include <string.h>

#include "cpu/simd_avx512.h"

#include "cpu/integer.h"
#include "cpu/integer_avx512.h"
#include "cpu/integer_tile.h"

enum { INT_ROWS = 6, INT_PANEL = 4 * LANES, INT_DEPTH = 576, INT_TILES = 32, INT_UNIT = 1, INT_BAND_UNIT = 0 };
static const ht_integer_layout integer_layout = {.panel = INT_PANEL, .lanes = LANES, .step = 8};

static inline __m512i four_codes(const uint8_t *a)
{
    int32_t four;
    memcpy(&four, a, sizeof four);
    return _mm512_set1_epi32(four);
}

/* rows and vectors are constants where this is inlined. */
static inline __attribute__((always_inline)) void tile_body(int rows, int vectors, const integer_tile *t)
{
    __m512i sum[6][4];
    const uint8_t *a = t->a;
    const int8_t *w = t->w;
    const int64_t depth = t->depth, stride = t->a_stride;
#pragma GCC unroll 6
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 4
        for (int v = 0; v < vectors; v++)
            sum[r][v] = t->first ? _mm512_setzero_si512()
                                 : _mm512_loadu_si512(t->c + (int64_t)r * vectors * LANES + (int64_t)v * LANES);
    for (int64_t k = 0, end = t->left; k < depth; end += t->run, a += t->skip) {
        end = end < depth ? end : depth;
#pragma GCC unroll 2
        for (; k < end; k += 4) {
            __m512i wk[4];
#pragma GCC unroll 4
            for (int v = 0; v < vectors; v++)
                wk[v] = _mm512_loadu_si512(w + k * vectors * LANES + (int64_t)v * 64);
#pragma GCC unroll 6
            for (int r = 0; r < rows; r++) {
                __m512i ak = four_codes(a + r * stride + k);
#pragma GCC unroll 4
                for (int v = 0; v < vectors; v++)
                    sum[r][v] = _mm512_dpbusd_epi32(sum[r][v], ak, wk[v]);
            }
        }
    }
#pragma GCC unroll 6
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 4
        for (int v = 0; v < vectors; v++)
            _mm512_storeu_si512(t->c + (int64_t)r * vectors * LANES + (int64_t)v * LANES, sum[r][v]);
}

typedef void tile_function(const integer_tile *t);

/* clang-format off */
#define TILE(rows, vectors)                                                                                            \
    static void tile_##rows##x##vectors(const integer_tile *t)                                                         \
    {                                                                                                                  \
        tile_body(rows, vectors, t);                                                                                   \
    }
#define TILES(rows) EVERY_TILE_WIDTH(TILE, rows)
TILES(1) TILES(2) TILES(3) TILES(4) TILES(5) TILES(6)

#define ENTRY(rows, vectors) tile_##rows##x##vectors,
#define ENTRIES(rows) {EVERY_TILE_WIDTH(ENTRY, rows)},
static tile_function *const tile_functions[INT_ROWS][INT_PANEL / LANES] = {
    ENTRIES(1) ENTRIES(2) ENTRIES(3) ENTRIES(4) ENTRIES(5) ENTRIES(6)
};
/* clang-format on */

static inline void multiply_tile(const integer_tile *t)
{
    tile_functions[t->rows - 1][t->width / LANES - 1](t);
}

/* Tiles are cut evenly: 16 rows are 5 + 5 + 6. */
static inline int64_t first_row_of(int64_t tile, int64_t tiles, int64_t rows)
{
    return rows * tile / tiles;
}

static inline void begin_tiles(void)
{
}

static inline void end_tiles(void)
{
}

#include "cpu/integer.inc"

#include "cpu/quantize.inc"

const ht_kernel ht_avx512vnni_kernels[] = {
    {.name = "linear_i8_avx512vnni_6x64",
     .op = HT_OP_linear,
     .isa = HT_ISA_AVX512_VNNI,
     .arithmetic = HT_IN_INTEGERS,
     .refuses = integer_refuses,
     .packed = integer_bytes,
     .pack = integer_pack,
     .scratch = integer_scratch,
     .run = integer_run},
    {.name = "conv2d_i8_avx512vnni_6x64",
     .op = HT_OP_conv2d,
     .isa = HT_ISA_AVX512_VNNI,
     .arithmetic = HT_IN_INTEGERS,
     .refuses = integer_refuses,
     .packed = integer_bytes,
     .pack = integer_pack,
     .scratch = integer_scratch,
     .run = integer_run},
    {.name = "quantize_u8_avx512vnni",
     .op = HT_OP_quantize,
     .isa = HT_ISA_AVX512_VNNI,
     .refuses = quantize_refuses,
     .run = quantize_run},
    {.name = "input_range_avx512vnni", .op = HT_OP_input_range, .isa = HT_ISA_AVX512_VNNI, .run = input_range_run},
    {0},
};
