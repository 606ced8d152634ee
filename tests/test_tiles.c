/* test_tiles.c - decoding in tiles: what diffusers' AutoencoderKL.tiled_decode makes, here written out again over tiles
 * that are each decoded at once; and what is the same as without tiles. */
#include <math.h>

#include "core/rng.h"
#include "sampler/latents.h"
#include "tests/goldens.h"

#define PIPELINE GOLDENS "/pipeline/sd1"

enum { FACTOR = 2, CHANNELS = 4, COLOURS = 3, MOST = 64 };

/* A decoded tile. */
typedef struct tile {
    int h, w; /* pixels */
    float *x; /* [h,w,COLOURS] */
} tile;

static ht_arena *arena;
static ht_model *autoencoder;

static ht_latents *latents_of(int h, int w)
{
    ht_latents *l;
    assert_ok(ht_latents_open(autoencoder, &(ht_session_options){.threads = 1}, h, w, &l));
    return l;
}

static float *drawn_latents(int h, int w)
{
    float *z = ht_alloc_array(arena, (size_t)(h * w * CHANNELS), sizeof *z);
    ht_image_randn(3, 0, 0, (size_t)(h * w * CHANNELS), z);
    return z;
}

/* z[y:y+side, x:x+side], decoded by itself. */
static tile decode(const float *z, int h, int w, int y, int x, int side)
{
    int rows = h - y < side ? h - y : side, columns = w - x < side ? w - x : side;
    tile t = {rows * FACTOR, columns * FACTOR, NULL};
    float *part = ht_alloc_array(arena, (size_t)(rows * columns * CHANNELS), sizeof *part);
    for (int i = 0; i < rows; i++)
        memcpy(part + (size_t)(i * columns * CHANNELS), z + (size_t)(((y + i) * w + x) * CHANNELS),
               (size_t)(columns * CHANNELS) * sizeof *part);
    t.x = ht_alloc_array(arena, (size_t)(t.h * t.w * COLOURS), sizeof *t.x);
    ht_latents *l = latents_of(rows, columns);
    assert_ok(ht_latents_decode(l, part, t.x));
    ht_latents_close(l);
    return t;
}

static float *at(const tile *t, int y, int x, int c)
{
    assert_true(y >= 0 && y < t->h && x >= 0 && x < t->w);
    return t->x + (y * t->w + x) * COLOURS + c;
}

static int least(int a, int b, int c)
{
    int least = a < b ? a : b;
    return least < c ? least : c;
}

/* blend_v and blend_h of autoencoder_kl.py, b in place. */
static void blend_v(const tile *a, tile *b, int extent)
{
    extent = least(a->h, b->h, extent);
    for (int y = 0; y < extent; y++)
        for (int x = 0; x < b->w; x++)
            for (int c = 0; c < COLOURS; c++)
                *at(b, y, x, c) = *at(a, a->h - extent + y, x, c) * (1 - (float)y / (float)extent) +
                                  *at(b, y, x, c) * ((float)y / (float)extent);
}

static void blend_h(const tile *a, tile *b, int extent)
{
    extent = least(a->w, b->w, extent);
    for (int x = 0; x < extent; x++)
        for (int y = 0; y < b->h; y++)
            for (int c = 0; c < COLOURS; c++)
                *at(b, y, x, c) = *at(a, y, a->w - extent + x, c) * (1 - (float)x / (float)extent) +
                                  *at(b, y, x, c) * ((float)x / (float)extent);
}

/* tiled_decode, up to the concatenation: what is shown of a tile is compared where it lies. */
static void check_against_diffusers(int h, int w, int side)
{
    static tile tiles[MOST][MOST];
    const float *z = drawn_latents(h, w);
    int step = side * 3 / 4, extent = side * FACTOR / 4, kept = side * FACTOR - extent;
    float *picture = ht_alloc_array(arena, (size_t)(h * w * FACTOR * FACTOR * COLOURS), sizeof *picture);
    ht_latents *l = latents_of(h, w);
    assert_ok(ht_latents_decode_tiled(l, side * FACTOR, z, picture));
    ht_latents_close(l);
    int64_t compared = 0;
    for (int i = 0; i * step < h; i++)
        for (int j = 0; j * step < w; j++)
            tiles[i][j] = decode(z, h, w, i * step, j * step, side);
    for (int i = 0; i * step < h; i++)
        for (int j = 0; j * step < w; j++) {
            tile *t = &tiles[i][j];
            if (i)
                blend_v(&tiles[i - 1][j], t, extent);
            if (j)
                blend_h(&tiles[i][j - 1], t, extent);
            for (int y = 0; y < t->h && y < kept; y++)
                for (int x = 0; x < t->w && x < kept; x++)
                    for (int c = 0; c < COLOURS; c++, compared++) {
                        int row = i * kept + y, column = j * kept + x;
                        float found = picture[(row * w * FACTOR + column) * COLOURS + c];
                        if (found != *at(t, y, x, c))
                            fail_msg("%dx%d in tiles of %d: [%d,%d,%d] is %.9g, want %.9g", h, w, side, row, column, c,
                                     (double)found, (double)*at(t, y, x, c));
                    }
        }
    assert_int_equal(compared, (int64_t)h * w * FACTOR * FACTOR * COLOURS); /* every pixel once */
}

static void tiles_are_blended_as_diffusers_does(void **state)
{
    static const int sizes[][3] = {{16, 16, 8}, {12, 14, 8}, {13, 6, 8}, {9, 25, 8}, {5, 9, 4}, {21, 20, 12}};
    (void)state;
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        check_against_diffusers(sizes[i][0], sizes[i][1], sizes[i][2]);
}

static void a_picture_of_one_tile_is_decoded_at_once(void **state)
{
    enum { H = 8, W = 6, PIXELS = H * W * FACTOR * FACTOR * COLOURS };
    static float tiled[PIXELS], whole[PIXELS];
    (void)state;
    const float *z = drawn_latents(H, W);
    ht_latents *l = latents_of(H, W);
    assert_ok(ht_latents_decode(l, z, whole));
    for (int side = 0; side <= 3 * H * FACTOR; side += H * FACTOR) {
        assert_ok(ht_latents_decode_tiled(l, side, z, tiled));
        assert_memory_equal(tiled, whole, sizeof whole);
    }
    assert_ok(ht_latents_decode_tiled(l, 4 * FACTOR, z, tiled));
    assert_memory_not_equal(tiled, whole, sizeof whole);
    assert_ok(ht_latents_decode(l, z, tiled)); /* compiled for a tile last, now for all again */
    assert_memory_equal(tiled, whole, sizeof whole);
    assert_refused(ht_latents_decode_tiled(l, 6 * FACTOR, z, tiled), HT_ERR_ARGUMENT, "wanted a multiple of 8");
    ht_latents_close(l);
}

static void a_pipeline_decodes_in_tiles(void **state)
{
    static float tiled[32 * 32 * COLOURS], whole[32 * 32 * COLOURS];
    ht_pipeline *p;
    (void)state;
    ht_draw_options o = {
        .sample = {.steps = 1, .seed = 2}, .prompts = 1, .prompt = (const char *const[]){"a cat"}, .no_guidance = 1};
    assert_ok(ht_pipeline_open(PIPELINE, &(ht_session_options){.height = 32, .width = 32, .threads = 1}, &p));
    assert_ok(ht_pipeline_draw(p, &o, 0, 1, whole));
    o.tile = 16;
    assert_ok(ht_pipeline_draw(p, &o, 0, 1, tiled));
    double difference = 0, power = 0;
    for (size_t i = 0; i < sizeof whole / sizeof *whole; i++) {
        difference += pow((double)tiled[i] - (double)whole[i], 2);
        power += pow((double)whole[i], 2);
    }
    assert_true(difference > 0 && difference < power); /* another picture of the same */
    o.tile = 12;
    assert_refused(ht_pipeline_draw(p, &o, 0, 1, tiled), HT_ERR_ARGUMENT, "tiles of 12 pixels: wanted a multiple of 8");
    ht_pipeline_close(p);
}

static int open_model(void **state)
{
    (void)state;
    arena = ht_arena_create();
    return !arena || ht_model_open(PIPELINE, "vae", &autoencoder);
}

static int close_model(void **state)
{
    (void)state;
    ht_model_close(autoencoder);
    ht_arena_free(arena);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(tiles_are_blended_as_diffusers_does),
        cmocka_unit_test(a_picture_of_one_tile_is_decoded_at_once),
        cmocka_unit_test(a_pipeline_decodes_in_tiles),
    };
    return cmocka_run_group_tests(tests, open_model, close_model);
}
