/* pictures.h - for tests: files of pictures of every kind that is read, and zips of them. */
#ifndef HT_TESTS_PICTURES_H
#define HT_TESTS_PICTURES_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <zip.h>
#include <zlib.h>

#include "core/png.h"
#include "core/rng.h"

/* ---- pixels ---- */

/* n numbers of 8 bits: a ramp that the seed shifts, and noise. */
static inline void draw_pixels(unsigned seed, size_t n, uint8_t *out)
{
    ht_mt19937 rng;
    ht_mt19937_seed(&rng, seed);
    for (size_t i = 0; i < n; i++)
        out[i] = (uint8_t)((i * 2 + seed * 37 + ht_mt19937_u32(&rng) % 64) % 256);
}

/* A PNG of drawn pixels. */
static inline int write_drawn(const char *path, unsigned seed, int w, int h, int c)
{
    uint8_t *pixels = malloc((size_t)w * (size_t)h * (size_t)c);
    if (!pixels)
        abort();
    draw_pixels(seed, (size_t)w * (size_t)h * (size_t)c, pixels);
    int status = ht_png_write(path, pixels, w, h, c, NULL);
    free(pixels);
    return status;
}

/* ---- bytes ---- */

typedef struct file_bytes {
    uint8_t data[1 << 16];
    size_t size;
} file_bytes;

static inline void add_bytes(file_bytes *f, const void *bytes, size_t n)
{
    if (f->size + n > sizeof f->data)
        abort();
    if (n)
        memcpy(f->data + f->size, bytes, n);
    f->size += n;
}

static inline void add_big(file_bytes *f, uint32_t x)
{
    add_bytes(f, (const uint8_t[]){(uint8_t)(x >> 24), (uint8_t)(x >> 16), (uint8_t)(x >> 8), (uint8_t)x}, 4);
}

static inline void add_chunk(file_bytes *f, const char *type, const void *bytes, size_t n)
{
    add_big(f, (uint32_t)n);
    size_t start = f->size;
    add_bytes(f, type, 4);
    add_bytes(f, bytes, n);
    add_big(f, (uint32_t)crc32(0, f->data + start, (uInt)(n + 4)));
}

/* A PNG from its header's fields and its rows as they are, each with a filter byte. */
static inline void make_png(file_bytes *f, uint32_t w, uint32_t h, int bits, int colour_type, const void *rows,
                            size_t n)
{
    file_bytes header = {.size = 0};
    uint8_t deflated[4096];
    uLongf size = sizeof deflated;
    f->size = 0;
    add_bytes(f, "\x89PNG\r\n\x1a\n", 8);
    add_big(&header, w);
    add_big(&header, h);
    add_bytes(&header, (const uint8_t[]){(uint8_t)bits, (uint8_t)colour_type, 0, 0, 0}, 5);
    add_chunk(f, "IHDR", header.data, header.size);
    if (compress(deflated, &size, rows, n) != Z_OK)
        abort();
    add_chunk(f, "IDAT", deflated, size);
    add_chunk(f, "IEND", NULL, 0);
}

static inline void write_bytes(const char *path, const void *bytes, size_t n)
{
    FILE *f = fopen(path, "wb");
    if (!f || fwrite(bytes, 1, n, f) != n || fclose(f))
        abort();
}

static inline size_t read_bytes(const char *path, uint8_t *bytes, size_t room)
{
    FILE *f = fopen(path, "rb");
    if (!f)
        abort();
    size_t n = fread(bytes, 1, room, f);
    fclose(f);
    return n;
}

/* ---- zips ---- */

/* Put a file into a zip, which is made if it is missing; stored, so that its bytes can be found in it. */
static inline void add_to_zip(const char *zip, const char *name, const void *bytes, size_t n)
{
    zip_t *z = zip_open(zip, ZIP_CREATE, NULL);
    zip_source_t *source = z ? zip_source_buffer(z, bytes, n, 0) : NULL;
    zip_int64_t i = source ? zip_file_add(z, name, source, 0) : -1;
    if (i < 0 || zip_set_file_compression(z, (zip_uint64_t)i, ZIP_CM_STORE, 0) || zip_close(z))
        abort();
}

static inline void add_drawn_to_zip(const char *zip, const char *name, unsigned seed, int side, const char *scratch_png)
{
    static uint8_t bytes[1 << 16];
    if (write_drawn(scratch_png, seed, side, side, 3))
        abort();
    add_to_zip(zip, name, bytes, read_bytes(scratch_png, bytes, sizeof bytes));
    remove(scratch_png);
}

/* Where `part` lies in a file's bytes, for a test to damage it; the last place. */
static inline size_t find_bytes(const uint8_t *bytes, size_t n, const void *part, size_t m)
{
    for (size_t i = n - m + 1; i-- > 0;)
        if (!memcmp(bytes + i, part, m))
            return i;
    abort();
}

#endif
