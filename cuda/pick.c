/* pick.c - tile and splits of a product.
 *
 * A layer that makes few tiles of 128 x 128 is split along its depth until two images have about a tile for each
 * multiprocessor: a network runs with at least two (guidance), and more make the launch fuller.  That number must not
 * depend on the batch.  The tile may, since an output's sum is the same chain in all tiles of one
 * instruction; among these the one is taken that needs least time in whole waves of all multiprocessors. */
#include "cuda/pick.h"

static int64_t ceil_div(int64_t a, int64_t b)
{
    return (a + b - 1) / b;
}

void ht_pick_tile_size(ht_pick_tile tile, int *groups, int *rows)
{
    static const int size[HT_TILES][2] = {{1, 64}, {2, 128}, {2, 128}, {2, 192}, {2, 256}};
    *groups = size[tile][0];
    *rows = size[tile][1];
}

static int64_t tiles_of(const ht_pick_shape *s, ht_pick_tile tile, int64_t rows)
{
    int groups, tile_rows;
    ht_pick_tile_size(tile, &groups, &tile_rows);
    return ceil_div(s->groups, groups) * ceil_div(rows, tile_rows);
}

static int splits_of(const ht_pick_shape *s)
{
    int64_t tiles = tiles_of(s, HT_TILE_128x128, 2 * s->rows_per_image), splits = s->multiprocessors / tiles;
    if (s->folds || splits < 2)
        return 1;
    int64_t most = s->stages / HT_PICK_MIN_STAGES;
    splits = splits < most ? splits : most;
    splits = splits < HT_PICK_SPLITS ? splits : HT_PICK_SPLITS;
    return splits < 1 ? 1 : (int)splits;
}

/* Time of a launch in units of 64 x 64 outputs on one multiprocessor: whole waves, of tiles that run two or three at a
 * time on a multiprocessor if they are small.  Small tiles move more bytes for an operation. */
static double cost_of(const ht_pick_shape *s, ht_pick_tile tile, int splits)
{
    static const double weight[HT_TILES] = {1.6, 1.0, 1.15, 1.0, 1.0};
    int groups, rows;
    ht_pick_tile_size(tile, &groups, &rows);
    int64_t waves = ceil_div(tiles_of(s, tile, s->rows) * splits, s->multiprocessors);
    return (double)waves * groups * rows / 64 * weight[tile];
}

ht_pick ht_pick_product(const ht_pick_shape *s)
{
    ht_pick best = {s->hopper ? HT_TILE_128x128_WG : HT_TILE_64x64, splits_of(s)};
    ht_pick_tile last = !s->hopper ? HT_TILE_128x128 : s->folds ? HT_TILE_128x128_WG : HT_TILE_128x256_WG;
    for (int t = best.tile; t <= (int)last; t++)
        if (cost_of(s, (ht_pick_tile)t, best.splits) <= cost_of(s, best.tile, best.splits))
            best.tile = (ht_pick_tile)t;
    return best;
}
