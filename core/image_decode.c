/* image_decode.c - PNG and BMP through stb_image behind checks, JPEG through libjpeg (core/jpeg.c).
 *
 * stb looks at no checksum of a PNG and takes what a BMP lacks for black: what the formats promise of a file's
 * wholeness is checked here (PNG specification 5.3: every chunk's CRC, an IEND at the end; BMP: rows of whole 32-bit
 * words).
 *
 * stb computes in int and allocates what a header says: sizes are looked at first.  Its settings are never touched and
 * its functions are static here, so that they collide with nobody's. */
#include "core/image_decode.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <zlib.h>

#include "core/jpeg.h"

#pragma GCC diagnostic ignored "-Wunused-function" /* not popped: gcc looks for these at the end of the file */
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wsign-compare"
#define STB_IMAGE_STATIC
#define STB_IMAGE_IMPLEMENTATION
#define STBI_ONLY_PNG
#define STBI_ONLY_BMP
#define STBI_NO_STDIO
#define STBI_MAX_DIMENSIONS HT_IMAGE_MAX_SIDE
#include <stb/stb_image.h>
#pragma GCC diagnostic pop

enum { COLOURS = 3 };

bool ht_image_is_named(const char *name)
{
    static const char *const endings[] = {".png", ".jpg", ".jpeg", ".bmp"};
    size_t n = strlen(name);
    for (size_t i = 0; i < sizeof endings / sizeof *endings; i++) {
        size_t m = strlen(endings[i]);
        if (n > m && !strcasecmp(name + n - m, endings[i]))
            return true;
    }
    return false;
}

/* ---- wholeness ---- */

static uint32_t u32_at(const uint8_t *p)
{
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

/* NULL, or what is wrong. */
static const char *png_fault(const uint8_t *p, size_t size)
{
    enum { SIGNATURE = 8, AROUND = 12 }; /* length, type and CRC of a chunk */
    size_t at = SIGNATURE;
    while (size - at >= AROUND) {
        size_t length = u32_at(p + at), left = size - at - AROUND;
        if (length > left)
            return "it ends early";
        if (crc32(0, p + at + 4, (uInt)(length + 4)) != u32_at(p + at + 8 + length))
            return "a chunk's checksum is wrong";
        if (!memcmp(p + at + 4, "IEND", 4))
            return NULL;
        at += length + AROUND;
    }
    return "it ends early";
}

static uint32_t little(const uint8_t *p, int bytes)
{
    uint32_t x = 0;
    while (bytes--)
        x = x << 8 | p[bytes];
    return x;
}

/* stb reads none that are compressed, so the size follows from the header. */
static const char *bmp_fault(const uint8_t *p, size_t size)
{
    enum { OFFSET = 10, HEADER = 14, OLD = 12, BITS = 28 };
    if (size < BITS + 2)
        return "it ends early";
    bool old = little(p + HEADER, 4) == OLD; /* OS/2's */
    uint64_t w = little(p + 18, old ? 2 : 4), h = little(p + (old ? 20 : 22), old ? 2 : 4);
    uint64_t bits = little(p + (old ? 24 : BITS), 2);
    h = !old && h > INT32_MAX ? (uint32_t)-h : h; /* from the top */
    if (w > HT_IMAGE_MAX_SIDE || h > HT_IMAGE_MAX_SIDE || bits > 32)
        return "its header is wrong, or its size absurd";
    uint64_t row = (w * bits + 31) / 32 * 4;
    return little(p + OFFSET, 4) + row * h > size + 3 ? "it ends early" : NULL; /* the last word may be cut */
}

static const struct {
    const char *bytes;
    size_t n;
    const char *(*fault)(const uint8_t *p, size_t size);
    ht_status (*decode)(const void *bytes, size_t size, const char *label, ht_pixels *out); /* NULL: stb_image */
} signatures[] = {
    {"\x89PNG\r\n\x1a\n", 8, png_fault, NULL}, {"\xff\xd8", 2, NULL, ht_jpeg_decode}, {"BM", 2, bmp_fault, NULL}};

enum { SIGNATURES = sizeof signatures / sizeof *signatures };

/* Which of the formats the bytes begin as; SIGNATURES: none. */
static size_t signature_of(const uint8_t *p, size_t size)
{
    size_t i = 0;
    while (i < SIGNATURES && (size < signatures[i].n || memcmp(p, signatures[i].bytes, signatures[i].n) != 0))
        i++;
    return i;
}

/* ---- decoding ---- */

ht_status ht_image_decode(const void *bytes, size_t size, const char *label, ht_pixels *out)
{
    int w, h, c;
    if (size > INT_MAX / 2)
        return ht_fail(HT_ERR_UNSUPPORTED, "%s: %zu bytes are no picture of a size that is read here", label, size);
    size_t format = signature_of(bytes, size);
    if (format == SIGNATURES)
        return ht_fail(HT_ERR_FORMAT, "%s: not a PNG, JPEG or BMP file", label);
    if (signatures[format].decode)
        return signatures[format].decode(bytes, size, label, out);
    if (!stbi_info_from_memory(bytes, (int)size, &w, &h, &c)) /* which has only the last format's reason */
        return ht_fail(HT_ERR_FORMAT, "%s: damaged picture (its header is wrong, or its size absurd)", label);
    if (w < 1 || h < 1 || w > HT_IMAGE_MAX_SIDE || h > HT_IMAGE_MAX_SIDE || (int64_t)w * h > HT_IMAGE_MAX_PIXELS)
        return ht_fail(HT_ERR_UNSUPPORTED, "%s: %d x %d pixels; at most %d, and sides of %d, are read", label, w, h,
                       HT_IMAGE_MAX_PIXELS, HT_IMAGE_MAX_SIDE);
    const char *fault = signatures[format].fault ? signatures[format].fault(bytes, size) : NULL;
    if (fault)
        return ht_fail(HT_ERR_FORMAT, "%s: damaged picture (%s)", label, fault);
    uint8_t *data = stbi_load_from_memory(bytes, (int)size, &w, &h, &c, COLOURS);
    if (!data) {
        const char *why = stbi_failure_reason();
        bool memory = why && !strcmp(why, "outofmem");
        return ht_fail(memory ? HT_ERR_MEMORY : HT_ERR_FORMAT, "%s: damaged picture (%s)", label, why ? why : "?");
    }
    *out = (ht_pixels){.height = h, .width = w, .data = data};
    return HT_OK;
}
