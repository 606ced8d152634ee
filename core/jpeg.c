/* jpeg.c - decoding through libjpeg, with its defaults (the accurate integer transform, chroma upsampled by triangles).
 *
 * stb_image decodes JPEG too, within a level or three of it; but pytorch-fid, clean-fid and whoever made the published
 * statistics read files with libjpeg, and a distance sees the difference: 0.12824 instead of 0.12829 on CIFAR-10's test
 * images.  Debian 12's stb_image also writes past a table when a Huffman table has too many codes (tests/fuzz_image.c
 * found it). */
#include "core/jpeg.h"

#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>

#include <jerror.h>
#include <jpeglib.h>

enum { COLOURS = 3, CMYK = 4, LEVEL = 255 };

/* libjpeg leaves by longjmp: all that must outlive it stands here. */
typedef struct decoder {
    struct jpeg_decompress_struct jpeg;
    struct jpeg_error_mgr errors;
    jmp_buf failed;
    char why[JMSG_LENGTH_MAX];
    uint8_t *pixels, *row; /* row: of four inks */
} decoder;

static void fail(j_common_ptr jpeg)
{
    decoder *d = jpeg->client_data;
    jpeg->err->format_message(jpeg, d->why);
    longjmp(d->failed, 1);
}

/* Of a file that is whole there are no warnings, but of bytes between its segments, which do no harm. */
static void warn(j_common_ptr jpeg, int level)
{
    if (level < 0 && jpeg->err->msg_code != JWRN_EXTRANEOUS_DATA)
        fail(jpeg);
}

/* Inks are stored inverted, as Adobe's programs do: a level is what is left of the light. */
static void from_inks(const uint8_t *inks, unsigned width, int inverted, uint8_t *to)
{
    for (unsigned x = 0; x < width; x++)
        for (int c = 0; c < COLOURS; c++) {
            int ink = inks[x * CMYK + (unsigned)c], black = inks[x * CMYK + COLOURS];
            ink = inverted ? ink : LEVEL - ink;
            black = inverted ? black : LEVEL - black;
            to[x * COLOURS + (unsigned)c] = (uint8_t)((ink * black + LEVEL / 2) / LEVEL);
        }
}

static int read_header(decoder *d, const void *bytes, size_t size)
{
    if (setjmp(d->failed))
        return 0;
    jpeg_create_decompress(&d->jpeg);
    jpeg_mem_src(&d->jpeg, bytes, (unsigned long)size);
    jpeg_read_header(&d->jpeg, TRUE);
    return 1;
}

static int read_rows(decoder *d)
{
    struct jpeg_decompress_struct *j = &d->jpeg;
    if (setjmp(d->failed))
        return 0;
    j->out_color_space = j->num_components == CMYK ? JCS_CMYK : JCS_RGB;
    jpeg_start_decompress(j);
    while (j->output_scanline < j->output_height) {
        uint8_t *to = d->pixels + (size_t)j->output_scanline * j->output_width * COLOURS;
        JSAMPROW row = j->num_components == CMYK ? d->row : to;
        jpeg_read_scanlines(j, &row, 1);
        if (j->num_components == CMYK)
            from_inks(d->row, j->output_width, j->saw_Adobe_marker, to);
    }
    jpeg_finish_decompress(j);
    return 1;
}

static ht_status decode(decoder *d, const void *bytes, size_t size, const char *label, ht_pixels *out)
{
    d->jpeg.err = jpeg_std_error(&d->errors);
    d->jpeg.client_data = d;
    d->errors.error_exit = fail;
    d->errors.emit_message = warn;
    if (!read_header(d, bytes, size))
        return ht_fail(HT_ERR_FORMAT, "%s: damaged picture (%s)", label, d->why);
    unsigned w = d->jpeg.image_width, h = d->jpeg.image_height;
    if (w < 1 || h < 1 || w > HT_IMAGE_MAX_SIDE || h > HT_IMAGE_MAX_SIDE || (size_t)w * h > HT_IMAGE_MAX_PIXELS)
        return ht_fail(HT_ERR_UNSUPPORTED, "%s: %u x %u pixels; at most %d, and sides of %d, are read", label, w, h,
                       HT_IMAGE_MAX_PIXELS, HT_IMAGE_MAX_SIDE);
    d->pixels = malloc((size_t)w * h * COLOURS);
    d->row = malloc((size_t)w * CMYK);
    if (!d->pixels || !d->row)
        return ht_fail(HT_ERR_MEMORY, "%s: out of memory for %u x %u pixels", label, w, h);
    if (!read_rows(d))
        return ht_fail(HT_ERR_FORMAT, "%s: damaged picture (%s)", label, d->why);
    *out = (ht_pixels){.height = (int)h, .width = (int)w, .data = d->pixels};
    d->pixels = NULL;
    return HT_OK;
}

ht_status ht_jpeg_decode(const void *bytes, size_t size, const char *label, ht_pixels *out)
{
    decoder *d = calloc(1, sizeof *d);
    if (!d)
        return ht_fail(HT_ERR_MEMORY, "%s: out of memory", label);
    ht_status status = decode(d, bytes, size, label, out);
    jpeg_destroy_decompress(&d->jpeg);
    free(d->row);
    free(d->pixels);
    free(d);
    return status;
}
