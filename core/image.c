/* image.c - from a model's range to pixels: [-1,1] in float32 to 8 bits, one image or a grid.
 *
 * The arithmetic is diffusers': x / 2 + 0.5 clamped to [0,1], times 255, rounded to nearest with ties to even, all in
 * float32, so that a PNG is the one a diffusers pipeline saves from the same values. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/error.h"
#include "core/png.h"

enum { GAP = 2, GAP_COLOUR = 255 }; /* white, and opaque in RGBA */

static uint8_t to_u8(float x)
{
    float unit = x / 2 + 0.5f;
    if (!(unit > 0)) /* NaN too */
        return 0;
    return unit < 1 ? (uint8_t)rintf(unit * 255) : 255;
}

static int square_columns(int64_t n)
{
    int columns = 1;
    while ((int64_t)columns * columns < n)
        columns++;
    return columns;
}

static ht_status check(const char *path, int64_t n, int h, int w, int c, int columns)
{
    if (h < 1 || w < 1 || h > HT_PNG_MAX_SIDE || w > HT_PNG_MAX_SIDE || (c != 1 && c != 3 && c != 4))
        return ht_fail(HT_ERR_ARGUMENT, "%s: images of %d x %d with %d channels; sides are 1 to %d, channels 1, 3 or 4",
                       path, w, h, c, HT_PNG_MAX_SIDE);
    if (n < 1 || columns < 0)
        return ht_fail(HT_ERR_ARGUMENT,
                       "%s: a grid of %lld images in %d columns; it needs at least 1, and 0 columns or more", path,
                       (long long)n, columns);
    if (n > (int64_t)HT_PNG_MAX_SIDE * HT_PNG_MAX_SIDE)
        return ht_fail(HT_ERR_ARGUMENT, "%s: a grid of %lld images does not fit a PNG of side %d", path, (long long)n,
                       HT_PNG_MAX_SIDE);
    return HT_OK;
}

static void place(uint8_t *at, size_t row_bytes, const float *image, int h, size_t values)
{
    for (int y = 0; y < h; y++)
        for (size_t i = 0; i < values; i++)
            at[(size_t)y * row_bytes + i] = to_u8(image[(size_t)y * values + i]);
}

ht_status ht_image_save_grid(const char *path, const float *images, int64_t n, int h, int w, int c, int columns,
                             const char *parameters)
{
    ht_status status = check(path, n, h, w, c, columns);
    if (status)
        return status;
    columns = columns == 0 ? square_columns(n) : columns < n ? columns : (int)n;
    int64_t rows = (n + columns - 1) / columns;
    int64_t width = (int64_t)columns * (w + GAP) - GAP, height = rows * (h + GAP) - GAP;
    if (width > HT_PNG_MAX_SIDE || height > HT_PNG_MAX_SIDE)
        return ht_fail(HT_ERR_ARGUMENT, "%s: a grid of %lld x %lld pixels; PNG sides are at most %d here", path,
                       (long long)width, (long long)height, HT_PNG_MAX_SIDE);
    size_t row_bytes = (size_t)width * (size_t)c, bytes = row_bytes * (size_t)height;
    uint8_t *pixels = malloc(bytes);
    if (!pixels)
        return ht_fail(HT_ERR_MEMORY, "%s: out of memory for %zu bytes of pixels", path, bytes);
    memset(pixels, GAP_COLOUR, bytes);
    size_t values = (size_t)w * (size_t)c;
    for (int64_t i = 0; i < n; i++) {
        size_t y = (size_t)(i / columns) * (size_t)(h + GAP), x = (size_t)(i % columns) * (size_t)(w + GAP);
        place(pixels + y * row_bytes + x * (size_t)c, row_bytes, images + (size_t)i * (size_t)h * values, h, values);
    }
    status = ht_png_write(path, pixels, (int)width, (int)height, c, parameters);
    free(pixels);
    return status;
}

ht_status ht_image_save(const char *path, const float *image, int h, int w, int c, const char *parameters)
{
    return ht_image_save_grid(path, image, 1, h, w, c, 1, parameters);
}
