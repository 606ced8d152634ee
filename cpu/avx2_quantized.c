/* avx2_quantized.c - kernels of quantized layers for AVX2, and the list of them.
 *
 * vpmaddubsw multiplies codes of 8 bits with weights of 8 bits, but saturates the sum of two such products at 16 bits.
 * So it serves 4-bit weights alone, of which the largest is 64 (FP4 E3M0) and 2 * 255 * 64 < 2^15.  For 8 bits, codes
 * and weights are split into those of even and odd k, 16 bits each, which vpmaddwd multiplies exactly. */
#include <float.h>
#include <math.h>
#include <string.h>

#include "cpu/simd_avx2.h"

#include "cpu/integer.h"
#include "cpu/integer_tile.h"

enum {
    INT_ROWS = 4,
    INT_PANEL = TILE_VECTORS * LANES,
    INT_DEPTH = 576,
    INT_TILES = 32,
    INT_UNIT = 1,
    INT_BAND_UNIT = 0
};
static const ht_integer_layout integer_layout = {.panel = INT_PANEL, .lanes = LANES, .step = 8};

static inline void copy_codes(uint8_t *to, const uint8_t *from, int64_t n)
{
    memcpy(to, from, (size_t)n);
}

static inline void fill_codes(uint8_t *to, uint8_t code, int64_t n)
{
    memset(to, code, (size_t)n);
}

/* 2 rows of `row` bytes, a multiple of 32, from one of pairs of codes. */
static inline void unpack_row(const int8_t *values, const uint8_t *codes, int64_t row, int8_t *to)
{
    const __m256i table = _mm256_broadcastsi128_si256(_mm_load_si128((const __m128i *)values));
    const __m256i low = _mm256_set1_epi8(15);
    for (int64_t i = 0; i < row; i += 32) {
        __m256i pairs = _mm256_loadu_si256((const __m256i *)(codes + i));
        _mm256_storeu_si256((__m256i *)(to + i), _mm256_shuffle_epi8(table, _mm256_and_si256(pairs, low)));
        pairs = _mm256_and_si256(_mm256_srli_epi16(pairs, 4), low);
        _mm256_storeu_si256((__m256i *)(to + row + i), _mm256_shuffle_epi8(table, pairs));
    }
}

typedef __m256i vi;

static inline vi vi_load(const int32_t *p)
{
    return _mm256_loadu_si256((const __m256i *)p);
}

static inline vi vi_scale(vi a, int32_t by)
{
    return _mm256_mullo_epi32(a, _mm256_set1_epi32(by));
}

static inline vf sums_to_floats(const int32_t *sums, vi correction)
{
    return _mm256_cvtepi32_ps(_mm256_sub_epi32(vi_load(sums), correction));
}

static inline __m256i four_codes(const uint8_t *a)
{
    int32_t four;
    memcpy(&four, a, sizeof four);
    return _mm256_set1_epi32(four);
}

/* One step of 4 k: sums += a . w. */
static inline __attribute__((always_inline)) __m256i step_nibbles(__m256i sum, __m256i a, __m256i w)
{
    return _mm256_add_epi32(sum, _mm256_madd_epi16(_mm256_maddubs_epi16(a, w), _mm256_set1_epi16(1)));
}

static inline __attribute__((always_inline)) __m256i step_bytes(__m256i sum, __m256i a, __m256i w)
{
    __m256i even = _mm256_srai_epi16(_mm256_slli_epi16(w, 8), 8), odd = _mm256_srai_epi16(w, 8);
    __m256i products = _mm256_madd_epi16(_mm256_and_si256(a, _mm256_set1_epi16(255)), even);
    return _mm256_add_epi32(_mm256_add_epi32(sum, products), _mm256_madd_epi16(_mm256_srli_epi16(a, 8), odd));
}

/* rows, vectors and nibbles are constants where this is inlined. */
static inline __attribute__((always_inline)) void tile_body(int rows, int vectors, bool nibbles, const integer_tile *t)
{
    __m256i sum[INT_ROWS][TILE_VECTORS];
    const int64_t depth = t->depth;
    const uint8_t *a = t->a;
#pragma GCC unroll 4
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 2
        for (int v = 0; v < vectors; v++)
            sum[r][v] =
                t->first ? _mm256_setzero_si256() : vi_load(t->c + (int64_t)r * vectors * LANES + (int64_t)v * LANES);
    for (int64_t k = 0, end = t->left; k < depth; end += t->run, a += t->skip) {
        end = end < depth ? end : depth;
#pragma GCC unroll 1
        for (; k < end; k += 4) {
            __m256i wk[TILE_VECTORS];
#pragma GCC unroll 2
            for (int v = 0; v < vectors; v++)
                wk[v] = _mm256_loadu_si256((const __m256i *)(t->w + k * vectors * LANES + (int64_t)v * 32));
#pragma GCC unroll 4
            for (int r = 0; r < rows; r++) {
                __m256i ak = four_codes(a + r * t->a_stride + k);
#pragma GCC unroll 2
                for (int v = 0; v < vectors; v++)
                    sum[r][v] = nibbles ? step_nibbles(sum[r][v], ak, wk[v]) : step_bytes(sum[r][v], ak, wk[v]);
            }
        }
    }
#pragma GCC unroll 4
    for (int r = 0; r < rows; r++)
#pragma GCC unroll 2
        for (int v = 0; v < vectors; v++)
            _mm256_storeu_si256((__m256i *)(t->c + (int64_t)r * vectors * LANES + (int64_t)v * LANES), sum[r][v]);
}

typedef void tile_function(const integer_tile *t);

/* clang-format off */
#define TILE(rows, vectors)                                                                                            \
    static void tile_##rows##x##vectors(const integer_tile *t)                                                         \
    {                                                                                                                  \
        if (t->nibbles)                                                                                                \
            tile_body(rows, vectors, true, t);                                                                         \
        else                                                                                                           \
            tile_body(rows, vectors, false, t);                                                                        \
    }
#define TILES(rows) EVERY_TILE_WIDTH(TILE, rows)
TILES(1) TILES(2) TILES(3) TILES(4)

#define ENTRY(rows, vectors) tile_##rows##x##vectors,
#define ENTRIES(rows) {EVERY_TILE_WIDTH(ENTRY, rows)},
static tile_function *const tile_functions[INT_ROWS][TILE_VECTORS] = {
    ENTRIES(1) ENTRIES(2) ENTRIES(3) ENTRIES(4)
};
/* clang-format on */

static inline void multiply_tile(const integer_tile *t)
{
    tile_functions[t->rows - 1][t->width / LANES - 1](t);
}

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

const ht_kernel ht_avx2_quantized_kernels[] = {
    {.name = "linear_i8_avx2_4x16",
     .op = HT_OP_linear,
     .isa = HT_ISA_AVX2,
     .arithmetic = HT_IN_INTEGERS,
     .refuses = integer_refuses,
     .packed = integer_bytes,
     .pack = integer_pack,
     .scratch = integer_scratch,
     .run = integer_run},
    {.name = "conv2d_i8_avx2_4x16",
     .op = HT_OP_conv2d,
     .isa = HT_ISA_AVX2,
     .arithmetic = HT_IN_INTEGERS,
     .refuses = integer_refuses,
     .packed = integer_bytes,
     .pack = integer_pack,
     .scratch = integer_scratch,
     .run = integer_run},
    {.name = "quantize_u8_avx2",
     .op = HT_OP_quantize,
     .isa = HT_ISA_AVX2,
     .refuses = quantize_refuses,
     .run = quantize_run},
    {.name = "input_range_avx2", .op = HT_OP_input_range, .isa = HT_ISA_AVX2, .run = input_range_run},
    {0},
};
