/* integer_tile.h - the multiply-and-add of the integer kernels: what a tile is. */
#ifndef HT_CPU_INTEGER_TILE_H
#define HT_CPU_INTEGER_TILE_H

#include <stdbool.h>
#include <stdint.h>

/* c[rows][width] = (first ? 0 : c) + a[rows][depth] . w[depth / 4][width][4]; rows of a are a_stride apart. */
typedef struct integer_tile {
    int rows, width;
    int64_t depth;
    const uint8_t *a;
    int64_t a_stride;
    const int8_t *w;
    int32_t *c;
    bool first;
    bool nibbles; /* no weight is beyond -64 .. 64: two products of one with codes fit 16 bits */
} integer_tile;

#endif
