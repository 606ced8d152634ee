/* latents_tiled.c - a large picture decoded in tiles that overlap by a quarter, so that memory is that of a tile: as
 * diffusers' AutoencoderKL.tiled_decode has it, which people know as enable_vae_tiling.
 *
 * Each tile is blended into the last quarter of the one above and then of the one to the left, in place, so that the
 * next one meets what was blended.  Tiles at the right and at the bottom are what is left, and may be small.
 *
 * Trap: norms and the attention of the middle see a tile, not the picture, so tiles change colours a little: that is
 * what the blending hides, and why the result is not that of decoding at once. */
#include <stdlib.h>
#include <string.h>

#include "sampler/latents.h"

/* Sides in latents; `step` from tile to tile. */
typedef struct tiling {
    ht_latents *latents;
    int h, w, channels, colours, factor; /* of the whole */
    int tile, step, columns;
    int blend, kept;  /* pixels: of the overlap that is blended, and of a tile's side that are shown */
    float *z;         /* a tile of latents */
    float *row[2];    /* the tiles of a row and of the one before, [columns] decoded tiles each */
    size_t tile_size; /* numbers of a decoded tile */
} tiling;

static int left(int all, int at, int most)
{
    return all - at < most ? all - at : most;
}

static int smaller(int a, int b)
{
    return a < b ? a : b;
}

/* b = a (1 - y / n) + b y / n in the n first rows of b, of which the n last of a are the other side. */
static void blend_rows(const float *a, int a_rows, float *b, size_t width, int n)
{
    for (int y = 0; y < n; y++)
        for (size_t x = 0; x < width; x++) {
            const float *from = a + (size_t)(a_rows - n + y) * width;
            float share = (float)y / (float)n, *to = b + (size_t)y * width;
            to[x] = from[x] * (1 - share) + to[x] * share;
        }
}

/* The same for columns; a has as many rows as b. */
static void blend_columns(const float *a, int a_width, float *b, int b_width, int rows, int colours, int n)
{
    for (int y = 0; y < rows; y++)
        for (int x = 0; x < n * colours; x++) {
            int column = x / colours;
            float share = (float)column / (float)n;
            float *to = b + (size_t)y * (size_t)(b_width * colours) + x;
            *to = a[(size_t)y * (size_t)(a_width * colours) + (size_t)((a_width - n) * colours + x)] * (1 - share) +
                  *to * share;
        }
}

/* Latents y.., x.. of the whole, h x w of them, into pixels. */
static ht_status decode_tile(const tiling *t, const float *latents, int y, int x, int h, int w, float *pixels)
{
    size_t row = (size_t)w * (size_t)t->channels;
    for (int i = 0; i < h; i++)
        memcpy(t->z + (size_t)i * row, latents + ((size_t)(y + i) * (size_t)t->w + (size_t)x) * (size_t)t->channels,
               row * sizeof *t->z);
    return ht_latents_decode_part(t->latents, h, w, t->z, pixels);
}

/* What is shown of a tile. */
static void place(const tiling *t, const float *pixels, int y, int x, int h, int w, float *picture)
{
    int rows = smaller(h, t->kept), width = smaller(w, t->kept), colours = t->colours;
    int top = y / t->step * t->kept, from_left = x / t->step * t->kept;
    for (int i = 0; i < rows; i++)
        memcpy(picture + ((size_t)(top + i) * (size_t)(t->w * t->factor) + (size_t)from_left) * (size_t)colours,
               pixels + (size_t)i * (size_t)(w * colours), (size_t)(width * colours) * sizeof *picture);
}

static ht_status decode_row(tiling *t, const float *latents, int y, float *picture)
{
    float *own = t->row[y / t->step % 2], *above = t->row[(y / t->step + 1) % 2];
    int f = t->factor, h = left(t->h, y, t->tile);
    ht_status status = HT_OK;
    for (int x = 0, k = 0; !status && x < t->w; x += t->step, k++) {
        int w = left(t->w, x, t->tile), before = left(t->w, x - t->step, t->tile);
        float *tile = own + (size_t)k * t->tile_size;
        status = decode_tile(t, latents, y, x, h, w, tile);
        if (status)
            break;
        if (y)
            blend_rows(above + (size_t)k * t->tile_size, left(t->h, y - t->step, t->tile) * f, tile,
                       (size_t)(w * f * t->colours), smaller(h * f, t->blend));
        if (x)
            blend_columns(tile - t->tile_size, before * f, tile, w * f, h * f, t->colours, smaller(w * f, t->blend));
        place(t, tile, y, x, h * f, w * f, picture);
    }
    return status;
}

static ht_status take_memory(tiling *t)
{
    size_t side = (size_t)t->tile * (size_t)t->factor, row;
    t->tile_size = side * side * (size_t)t->colours;
    if (!ht_mul_size(t->tile_size, (size_t)t->columns, &row))
        return ht_fail(HT_ERR_MEMORY, "out of memory for tiles of %zu pixels", side);
    t->z = malloc((size_t)t->tile * (size_t)t->tile * (size_t)t->channels * sizeof *t->z);
    t->row[0] = calloc(row, sizeof *t->row[0]);
    t->row[1] = calloc(row, sizeof *t->row[1]);
    return t->z && t->row[0] && t->row[1] ? HT_OK
                                          : ht_fail(HT_ERR_MEMORY, "out of memory for tiles of %zu pixels", side);
}

ht_status ht_latents_decode_tiled(ht_latents *l, int tile, const float *latents, float *picture)
{
    ht_latents_size s = ht_latents_size_of(l);
    tiling t = {.latents = l,
                .h = s.h,
                .w = s.w,
                .channels = s.channels,
                .colours = s.colours,
                .factor = s.factor,
                .tile = tile / s.factor};
    if (!tile || (s.h <= t.tile && s.w <= t.tile))
        return ht_latents_decode(l, latents, picture);
    t.step = t.tile * 3 / 4;
    if (tile % s.factor || t.tile % 4)
        return ht_fail(HT_ERR_ARGUMENT, "tiles of %d pixels: wanted a multiple of %d", tile, 4 * s.factor);
    t.columns = (s.w + t.step - 1) / t.step;
    t.blend = tile / 4;
    t.kept = tile - t.blend;
    ht_status status = take_memory(&t);
    for (int y = 0; !status && y < s.h; y += t.step)
        status = decode_row(&t, latents, y, picture);
    free(t.z);
    free(t.row[0]);
    free(t.row[1]);
    return status;
}
