/* png.c - a PNG with a text chunk (PNG specification, third edition, 5 and 11.3.3).
 *
 * stb_image_write filters the rows and lays out the file in memory, zlib compresses, and the text chunk is put between
 * IHDR, which is always the first 33 bytes, and IDAT.  stb computes in int and has global settings: sizes are checked
 * before it is called, the settings are never touched, and its functions are static here, so that they collide with
 * nobody's. */
#include "core/png.h"

#include <limits.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>

#include "core/file.h"

/* stb asks for memory that free() takes. */
static unsigned char *deflate_for_stb(unsigned char *data, int size, int *out_size, int level)
{
    uLongf bound = compressBound((uLong)size);
    unsigned char *out = bound <= INT_MAX - 1024 ? malloc(bound) : NULL; /* stb adds the chunks to it in int */
    if (out && compress2(out, &bound, data, (uLong)size, level) != Z_OK) {
        free(out);
        return NULL;
    }
    *out_size = (int)bound;
    return out;
}

#pragma GCC diagnostic ignored "-Wunused-function" /* not popped: gcc looks for these at the end of the file */
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wmissing-field-initializers"
#define STB_IMAGE_WRITE_STATIC
#define STB_IMAGE_WRITE_IMPLEMENTATION
#define STBI_WRITE_NO_STDIO
#define STBIW_ZLIB_COMPRESS deflate_for_stb
#include <stb/stb_image_write.h>
#pragma GCC diagnostic pop

enum { IHDR_END = 8 + 4 + 4 + 13 + 4 };

static const char KEYWORD[] = "parameters"; /* its NUL ends it in the file too */

/* Bytes of the UTF-8 sequence at s: 1 to 4, or 0 if it is none (RFC 3629: no overlong forms, no surrogates, no more
 * than U+10FFFF). */
static size_t utf8_length(const unsigned char *s)
{
    static const struct {
        unsigned char first, last, second_min, second_max, length;
    } forms[] = {{0x01, 0x7f, 0, 0xff, 1},    {0xc2, 0xdf, 0x80, 0xbf, 2}, {0xe0, 0xe0, 0xa0, 0xbf, 3},
                 {0xe1, 0xec, 0x80, 0xbf, 3}, {0xed, 0xed, 0x80, 0x9f, 3}, {0xee, 0xef, 0x80, 0xbf, 3},
                 {0xf0, 0xf0, 0x90, 0xbf, 4}, {0xf1, 0xf3, 0x80, 0xbf, 4}, {0xf4, 0xf4, 0x80, 0x8f, 4}};
    for (size_t f = 0; f < sizeof forms / sizeof *forms; f++) {
        if (s[0] < forms[f].first || s[0] > forms[f].last)
            continue;
        if (forms[f].length > 1 && (s[1] < forms[f].second_min || s[1] > forms[f].second_max))
            return 0;
        for (size_t i = 2; i < forms[f].length; i++)
            if ((s[i] & 0xc0) != 0x80)
                return 0;
        return forms[f].length;
    }
    return 0;
}

/* Copy text, mended to UTF-8; true if anything in it is not ASCII. */
static bool copy_utf8(unsigned char *out, const unsigned char *text)
{
    bool beyond_ascii = false;
    while (*text) {
        size_t n = utf8_length(text);
        if (n == 0) {
            *out++ = '?';
            text++;
            continue;
        }
        beyond_ascii |= n > 1;
        memcpy(out, text, n);
        out += n;
        text += n;
    }
    return beyond_ascii;
}

static unsigned char *put_u32(unsigned char *p, uint32_t x)
{
    p[0] = (unsigned char)(x >> 24), p[1] = (unsigned char)(x >> 16), p[2] = (unsigned char)(x >> 8),
    p[3] = (unsigned char)x;
    return p + 4;
}

/* The whole chunk, length to CRC.  iTXt has four bytes more between keyword and text: not compressed (two), an empty
 * language, an empty translated keyword.  The caller frees *chunk. */
static ht_status make_text_chunk(const char *text, unsigned char **chunk, size_t *size)
{
    enum { AROUND = 4 + 4 + 4, ITXT_FIELDS = 4 };
    size_t n = strlen(text);
    if (n > INT_MAX / 2)
        return ht_fail(HT_ERR_ARGUMENT, "the PNG text has %zu bytes; at most %d fit", n, INT_MAX / 2);
    unsigned char *mended = malloc(n + 1), *p = malloc(AROUND + sizeof KEYWORD + ITXT_FIELDS + n);
    *chunk = p;
    if (!mended || !p) {
        free(mended);
        free(p);
        return ht_fail(HT_ERR_MEMORY, "out of memory for %zu bytes of PNG text", n);
    }
    bool international = copy_utf8(mended, (const unsigned char *)text);
    size_t data = sizeof KEYWORD + (international ? ITXT_FIELDS : 0) + n;
    p = put_u32(p, (uint32_t)data);
    memcpy(p, international ? "iTXt" : "tEXt", 4);
    memcpy(p + 4, KEYWORD, sizeof KEYWORD);
    memset(p + 4 + sizeof KEYWORD, 0, ITXT_FIELDS);
    memcpy(p + 4 + data - n, mended, n);
    put_u32(p + 4 + data, (uint32_t)crc32(0, p, (uInt)(4 + data)));
    *size = AROUND + data;
    free(mended);
    return HT_OK;
}

static ht_status check_size(const char *path, int w, int h, int c)
{
    if (w < 1 || h < 1 || w > HT_PNG_MAX_SIDE || h > HT_PNG_MAX_SIDE)
        return ht_fail(HT_ERR_ARGUMENT, "%s: an image of %d x %d; PNG sides are 1 to %d here", path, w, h,
                       HT_PNG_MAX_SIDE);
    if (c != 1 && c != 3 && c != 4)
        return ht_fail(HT_ERR_ARGUMENT, "%s: an image with %d channels; a PNG has 1, 3 or 4", path, c);
    if (((int64_t)w * c + 1) * h > INT_MAX / 2)
        return ht_fail(HT_ERR_ARGUMENT, "%s: an image of %d x %d x %d is more than %d bytes", path, w, h, c,
                       INT_MAX / 2);
    return HT_OK;
}

ht_status ht_png_write(const char *path, const uint8_t *pixels, int w, int h, int c, const char *text)
{
    unsigned char *png = NULL, *chunk = NULL;
    size_t chunk_size = 0;
    int png_size = 0;
    ht_output *output = NULL;
    ht_status status = check_size(path, w, h, c);
    if (!status && text)
        status = make_text_chunk(text, &chunk, &chunk_size);
    if (status)
        goto done;
    png = stbi_write_png_to_mem(pixels, w * c, w, h, c, &png_size);
    if (!png) {
        status = ht_fail(HT_ERR_MEMORY, "%s: out of memory for a PNG of %d x %d x %d", path, w, h, c);
        goto done;
    }
    status = ht_output_open(path, &output);
    if (status)
        goto done;
    FILE *f = ht_output_stream(output);
    fwrite(png, 1, IHDR_END, f);
    if (chunk)
        fwrite(chunk, 1, chunk_size, f);
    fwrite(png + IHDR_END, 1, (size_t)png_size - IHDR_END, f);
    status = ht_output_commit(output); /* which reports what went wrong in the writes */
done:
    free(png);
    free(chunk);
    return status;
}
