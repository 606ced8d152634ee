/* integer_tile.h - the multiply-and-add of the integer kernels: what a tile is. */
#ifndef HT_CPU_INTEGER_TILE_H
#define HT_CPU_INTEGER_TILE_H

#include <stdbool.h>
#include <stdint.h>

/* c[rows][width] = (first ? 0 : c) + a[rows][depth] . w[depth / 4][width][4].
 *
 * Rows of a are a_stride apart and lie whole, unless they are windows in a band of an image (cpu/integer.inc): then
 * after `left` k, and after each `run` more, `skip` bytes are left out.  Row 16 is at a + half. */
typedef struct integer_tile {
    int rows, width;
    int64_t depth;
    const uint8_t *a;
    int64_t a_stride, half, left, run, skip;
    const int8_t *w;
    int32_t *c;
    bool first;
    bool nibbles; /* no weight is beyond -64 .. 64: two products of one with codes fit 16 bits */
} integer_tile;

#endif
