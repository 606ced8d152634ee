/* pick.h - which tile a product is cut into, and into how many parts its depth: a pure function of its shape. */
#ifndef HT_CUDA_PICK_H
#define HT_CUDA_PICK_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum {
    HT_PICK_SPLITS = 8,        /* at most */
    HT_PICK_MIN_STAGES = 6,    /* of a split */
    HT_PICK_COUNTERS = 1 << 16 /* tiles of a product whose depth is split, at most */
};

typedef struct ht_pick_shape {
    int64_t rows, rows_per_image;
    int groups; /* of 64 columns */
    int stages; /* of the depth: 128 bytes each */
    int folds;  /* more than one segment: there are chains of floats beside the sums, and no splits */
    int hopper; /* the kernel on wgmma serves this product */
    int multiprocessors;
} ht_pick_shape;

typedef enum ht_pick_tile {
    HT_TILE_64x64, /* columns x rows, mma.sync */
    HT_TILE_128x128,
    HT_TILE_128x128_WG, /* wgmma */
    HT_TILE_128x192_WG,
    HT_TILE_128x256_WG,
    HT_TILES
} ht_pick_tile;

typedef struct ht_pick {
    ht_pick_tile tile;
    int splits; /* depends on the shape of one image alone: sums of floats must not change with the batch */
} ht_pick;

void ht_pick_tile_size(ht_pick_tile tile, int *groups, int *rows);
ht_pick ht_pick_product(const ht_pick_shape *s);

#ifdef __cplusplus
}
#endif

#endif
