/* What a user sees of determinism: the same seed gives the same PNG pixels one image at a time and sixty-four at once,
 * in any batch, with one thread and two.  Files are written by the program's own calls and read back with stb_image. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wunused-function"
#pragma GCC diagnostic ignored "-Wsign-compare"
#pragma GCC diagnostic ignored "-Wshadow"
#define STB_IMAGE_IMPLEMENTATION
#define STBI_ONLY_PNG
#include <stb/stb_image.h>
#pragma GCC diagnostic pop

#include "halftone.h"
#include "tests/folder.h"

enum { SIDE = 32, PIXELS = SIDE * SIDE * 3, MANY = 64, GAP = 2, COLUMNS = 8 };

static ht_model *model;

static int open_model(void **state)
{
    (void)state;
    return ht_model_open("models/cifar10", NULL, &model) != HT_OK;
}

static int close_model(void **state)
{
    (void)state;
    ht_model_close(model);
    return 0;
}

/* Images first .. first+n-1 of seed 5 after one step; tests/test_session.c takes more, with noise in between. */
static float *sample(int side, int batch, int threads, int64_t first, int64_t n)
{
    ht_session *s;
    ht_session_options options = {.batch = batch, .threads = threads, .height = side, .width = side};
    float *images = malloc(sizeof *images * (size_t)n * (size_t)(side * side * 3));
    assert_non_null(images);
    if (ht_session_open(model, &options, &s) ||
        ht_sample(s, &(ht_sample_options){.steps = 1, .seed = 5}, first, n, images))
        fail_msg("%s", ht_error_message());
    ht_session_close(s);
    return images;
}

static unsigned char *read_png(const char *path, int w, int h)
{
    int got_w, got_h, c;
    unsigned char *pixels = stbi_load(path, &got_w, &got_h, &c, 3);
    assert_non_null(pixels);
    assert_int_equal(got_w, w);
    assert_int_equal(got_h, h);
    return pixels;
}

/* Image i of the grid has the pixels of a PNG of its own. */
static void check_image(const unsigned char *grid, int grid_width, int i, const char *path)
{
    unsigned char *one = read_png(path, SIDE, SIDE);
    const unsigned char *corner = grid + ((i / COLUMNS) * (SIDE + GAP) * grid_width + (i % COLUMNS) * (SIDE + GAP)) * 3;
    for (int y = 0; y < SIDE; y++)
        if (memcmp(one + y * SIDE * 3, corner + y * grid_width * 3, SIDE * 3) != 0)
            fail_msg("image %d differs in row %d", i, y);
    stbi_image_free(one);
}

static void one_image_has_the_pixels_it_has_among_sixty_four(void **state)
{
    const struct {
        int image, batch, threads;
    } singles[] = {{0, 1, 1}, {0, 1, 2}, {1, 3, 2}, {37, 1, 1}, {63, 64, 2}};
    int width = COLUMNS * (SIDE + GAP) - GAP;
    (void)state;
    float *images = sample(SIDE, 16, 2, 0, MANY);
    assert_int_equal(ht_image_save_grid(in_folder("grid.png"), images, MANY, SIDE, SIDE, 3, COLUMNS, NULL), HT_OK);
    free(images);
    unsigned char *grid = read_png(in_folder("grid.png"), width, width);
    for (size_t i = 0; i < sizeof singles / sizeof *singles; i++) {
        images = sample(SIDE, singles[i].batch, singles[i].threads, singles[i].image, 1);
        assert_int_equal(ht_image_save(in_folder("one.png"), images, SIDE, SIDE, 3, NULL), HT_OK);
        free(images);
        check_image(grid, width, singles[i].image, in_folder("one.png"));
    }
    stbi_image_free(grid);
}

/* At half the size, which is a quarter of the work. */
static void sixty_four_at_once_are_the_same_in_any_batch_with_any_threads(void **state)
{
    enum { HALF = SIDE / 2 };
    const int runs[][2] = {{64, 1}, {7, 2}};
    float *want = sample(HALF, 16, 2, 0, MANY);
    (void)state;
    for (size_t i = 0; i < sizeof runs / sizeof *runs; i++) {
        float *got = sample(HALF, runs[i][0], runs[i][1], 0, MANY);
        assert_memory_equal(got, want, sizeof *got * MANY * HALF * HALF * 3);
        free(got);
    }
    free(want);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(one_image_has_the_pixels_it_has_among_sixty_four, make_folder, remove_folder),
        cmocka_unit_test(sixty_four_at_once_are_the_same_in_any_batch_with_any_threads),
    };
    return cmocka_run_group_tests(tests, open_model, close_model);
}
