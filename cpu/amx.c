/* amx.c - the integer products for AMX's tiles, and the list of them.
 *
 * tdpbusd multiplies 16 rows of 64 codes with 64 x 16 weights in 16 cycles.  Two tiles of rows by two of columns make
 * 32 x 32 sums: a step of 64 k is 4 multiplications on 4 loads.  A panel of 32 columns stays in the first-level cache
 * while the tiles of a block pass by.  Sums leave the tiles through memory, as AMX has no other way. */
#include <string.h>

#include "cpu/simd_avx512.h"

#include "cpu/integer.h"
#include "cpu/integer_avx512.h"
#include "cpu/integer_tile.h"

enum { INT_ROWS = 32, INT_PANEL = 2 * LANES, INT_DEPTH = 576, INT_TILES = 8, INT_UNIT = 16, INT_BAND_UNIT = 16 };
static const ht_integer_layout integer_layout = {.panel = INT_PANEL, .lanes = LANES, .step = 64};

/* gcc's intrinsics do not say that they touch memory, or how much. */
#define MEMORY_IS_READ_OR_WRITTEN() __asm__ volatile("" ::: "memory")

/* The operand of ldtilecfg. */
typedef struct tile_config {
    uint8_t palette, start, reserved[14];
    uint16_t row_bytes[16];
    uint8_t rows[16];
} tile_config;

static inline void begin_tiles(void)
{
    tile_config config = {.palette = 1};
    for (int i = 0; i < 8; i++) {
        config.row_bytes[i] = 64;
        config.rows[i] = 16;
    }
    MEMORY_IS_READ_OR_WRITTEN();
    _tile_loadconfig(&config);
}

static inline void end_tiles(void)
{
    _tile_release();
}

/* Sums are tiles 0 1 (rows 0..15) and 2 3 (rows 16..31), codes 4 and 5, weights 6 and 7.  The two flags are constants
 * where this is inlined. */
static inline __attribute__((always_inline)) void tile_body(bool tall, bool wide, const integer_tile *t)
{
    const int64_t a = t->a_stride, w = (int64_t)t->width * 4, c = w;
    const int64_t half = t->half, run = t->run, skip = t->skip;
    const uint8_t *codes = t->a;
    int64_t left = t->left;
    const int8_t *weights = t->w;
    MEMORY_IS_READ_OR_WRITTEN();
    if (t->first) {
        _tile_zero(0);
        _tile_zero(1);
        _tile_zero(2);
        _tile_zero(3);
    } else {
        _tile_loadd(0, t->c, c);
        if (wide)
            _tile_loadd(1, t->c + 16, c);
        if (tall)
            _tile_loadd(2, t->c + (int64_t)16 * t->width, c);
        if (tall && wide)
            _tile_loadd(3, t->c + (int64_t)16 * t->width + 16, c);
    }
    for (int64_t k = 0; k < t->depth; k += 64, codes += 64, weights += 16 * w) {
        _tile_loadd(6, weights, w);
        _tile_loadd(4, codes, a);
        _tile_dpbusd(0, 4, 6);
        if (wide) {
            _tile_loadd(7, weights + 64, w);
            _tile_dpbusd(1, 4, 7);
        }
        if (tall) {
            _tile_loadd(5, codes + half, a);
            _tile_dpbusd(2, 5, 6);
        }
        if (tall && wide)
            _tile_dpbusd(3, 5, 7);
        left -= 64;
        if (!left) {
            codes += skip;
            left = run;
        }
    }
    _tile_stored(0, t->c, c);
    if (wide)
        _tile_stored(1, t->c + 16, c);
    if (tall)
        _tile_stored(2, t->c + (int64_t)16 * t->width, c);
    if (tall && wide)
        _tile_stored(3, t->c + (int64_t)16 * t->width + 16, c);
    MEMORY_IS_READ_OR_WRITTEN();
}

static inline void multiply_tile(const integer_tile *t)
{
    bool tall = t->rows > 16, wide = t->width > 16;
    if (tall && wide)
        tile_body(true, true, t);
    else if (wide)
        tile_body(false, true, t);
    else if (tall)
        tile_body(true, false, t);
    else
        tile_body(false, false, t);
}

/* Tiles are full but for the last: the hardware computes 16 rows at a time anyway. */
static inline int64_t first_row_of(int64_t tile, int64_t tiles, int64_t rows)
{
    (void)tiles;
    return tile * INT_ROWS < rows ? tile * INT_ROWS : rows;
}

#include "cpu/integer.inc"

const ht_kernel ht_amx_kernels[] = {
    {.name = "linear_i8_amx_32x32",
     .op = HT_OP_linear,
     .isa = HT_ISA_AMX,
     .arithmetic = HT_IN_INTEGERS,
     .refuses = integer_refuses,
     .packed = integer_bytes,
     .pack = integer_pack,
     .scratch = integer_scratch,
     .run = integer_run},
    {.name = "conv2d_i8_amx_32x32",
     .op = HT_OP_conv2d,
     .isa = HT_ISA_AMX,
     .arithmetic = HT_IN_INTEGERS,
     .refuses = integer_refuses,
     .packed = integer_bytes,
     .pack = integer_pack,
     .scratch = integer_scratch,
     .run = integer_run},
    {0},
};
