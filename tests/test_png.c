/* test_png.c - what is written decodes to the same pixels, is a sound PNG chunk by chunk, and appears whole or not at
 * all. */
#include <dirent.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zlib.h>

#include <cmocka.h>

#pragma GCC diagnostic ignored "-Wunused-function"
#define STB_IMAGE_STATIC
#define STB_IMAGE_IMPLEMENTATION
#define STBI_ONLY_PNG
#include <stb/stb_image.h>

#include "core/file.h"
#include "core/png.h"

/* ---- a folder for each test ---- */

static char folder[256], target[300];

static int make_folder(void **state)
{
    const char *tmp = getenv("TMPDIR");
    (void)state;
    snprintf(folder, sizeof folder, "%s/halftone-png-XXXXXX", tmp ? tmp : "/tmp");
    if (!mkdtemp(folder))
        return -1;
    snprintf(target, sizeof target, "%s/image.png", folder);
    return 0;
}

static int files_in_folder(void)
{
    int n = 0;
    DIR *d = opendir(folder);
    assert_non_null(d);
    for (struct dirent *e; (e = readdir(d));)
        n += e->d_name[0] != '.' || (strcmp(e->d_name, ".") && strcmp(e->d_name, ".."));
    closedir(d);
    return n;
}

static int remove_folder(void **state)
{
    (void)state;
    unlink(target);
    return rmdir(folder);
}

/* ---- reading back ---- */

typedef struct chunk {
    const unsigned char *data;
    size_t size;
} chunk;

static size_t u32_at(const unsigned char *p)
{
    return (size_t)p[0] << 24 | (size_t)p[1] << 16 | (size_t)p[2] << 8 | p[3];
}

/* Walk a PNG: signature, every length and CRC, IHDR first, IEND last with nothing behind it.  The one chunk of the type
 * is returned. */
static chunk checked_chunk(const ht_mapping *m, const char *type)
{
    chunk found = {0};
    size_t at = 8;
    assert_true(m->size > 8 && !memcmp(m->data, "\x89PNG\r\n\x1a\n", 8));
    assert_memory_equal("IHDR", m->data + 12, 4);
    while (at + 12 <= m->size) {
        const unsigned char *p = m->data + at;
        size_t size = u32_at(p);
        assert_true(size <= m->size - at - 12);
        assert_int_equal(crc32(0, p + 4, (uInt)size + 4), u32_at(p + 8 + size));
        if (!memcmp(p + 4, type, 4)) {
            assert_null(found.data);
            found = (chunk){p + 8, size};
        }
        at += size + 12;
        if (!memcmp(p + 4, "IEND", 4))
            break;
    }
    assert_int_equal(m->size, at);
    return found;
}

static ht_mapping map_target(void)
{
    ht_mapping m;
    if (ht_map_file(target, &m))
        fail_msg("%s", ht_error_message());
    return m;
}

static void assert_pixels(const uint8_t *want, int w, int h, int c)
{
    int got_w, got_h, got_c;
    ht_mapping m = map_target();
    uint8_t *got = stbi_load_from_memory(m.data, (int)m.size, &got_w, &got_h, &got_c, 0);
    assert_non_null(got);
    assert_int_equal(w, got_w);
    assert_int_equal(h, got_h);
    assert_int_equal(c, got_c);
    assert_memory_equal(want, got, (size_t)w * h * c);
    stbi_image_free(got);
    ht_unmap_file(&m);
}

static void assert_chunk(const char *type, const void *want, size_t size)
{
    ht_mapping m = map_target();
    chunk found = checked_chunk(&m, type);
    assert_non_null(found.data);
    assert_int_equal(size, found.size);
    assert_memory_equal(want, found.data, size);
    ht_unmap_file(&m);
}

static void assert_no_chunk(const char *type)
{
    ht_mapping m = map_target();
    assert_null(checked_chunk(&m, type).data);
    ht_unmap_file(&m);
}

static void assert_written(ht_status status)
{
    if (status)
        fail_msg("%s", ht_error_message());
    assert_int_equal(1, files_in_folder());
}

/* ---- pixels ---- */

static void pixels_come_back_for_all_channels_and_odd_sizes(void **state)
{
    static const int sides[][2] = {{1, 1}, {1, 37}, {41, 1}, {17, 23}, {256, 3}, {2000, 2}};
    static const int channels[] = {1, 3, 4};
    uint32_t noise = 1;
    (void)state;
    for (size_t i = 0; i < sizeof sides / sizeof *sides * 3; i++) {
        int w = sides[i / 3][0], h = sides[i / 3][1], c = channels[i % 3], n = w * h * c;
        uint8_t *pixels = malloc((size_t)n);
        assert_non_null(pixels);
        for (int k = 0; k < n; k++)
            pixels[k] = i % 2 ? (uint8_t)k : (uint8_t)((noise = noise * 1664525 + 1013904223) >> 24);
        assert_written(ht_png_write(target, pixels, w, h, c, NULL));
        assert_pixels(pixels, w, h, c);
        assert_no_chunk("tEXt");
        assert_no_chunk("iTXt");
        free(pixels);
    }
}

/* (x / 2 + 0.5) * 255 in float32, to nearest: 0 and -0.4f are ties, 127.5 and 76.5, and go to the even side; clipped;
 * NaN is black. */
static void values_are_clipped_and_rounded(void **state)
{
    static const float values[] = {-1,        1,   0,      -0.4f, -0.8f,     -1.5f, 7,     INFINITY,
                                   -INFINITY, NAN, -0.99f, 0.99f, 1 / 255.f, 0.5f,  -0.25f};
    static const uint8_t want[] = {0, 255, 128, 76, 25, 0, 255, 255, 0, 0, 1, 254, 128, 191, 96};
    (void)state;
    assert_written(ht_image_save(target, values, 3, 5, 1, NULL));
    assert_pixels(want, 5, 3, 1);
}

/* Every pixel value survives the way to [-1,1], as a VAE or a data set maps it, and back. */
static void all_256_levels_survive_the_round_trip(void **state)
{
    float image[256];
    uint8_t want[256];
    (void)state;
    for (int i = 0; i < 256; i++) {
        image[i] = (float)i / 127.5f - 1;
        want[i] = (uint8_t)i;
    }
    assert_written(ht_image_save(target, image, 16, 16, 1, NULL));
    assert_pixels(want, 16, 16, 1);
}

/* Five images of 2 x 1 in the columns asked for; a cell that no image has is white like the gaps. */
static void check_grid(int c, int columns, int want_columns, int want_rows)
{
    enum { N = 5, W = 2, H = 1, GAP = 2 };
    float images[N * H * W * 4];
    uint8_t want[4096];
    int w = want_columns * (W + GAP) - GAP, h = want_rows * (H + GAP) - GAP;
    memset(want, 255, sizeof want);
    for (int i = 0; i < N * H * W * c; i++) {
        int image = i / (H * W * c), in_row = i % (W * c);
        int y = image / want_columns * (H + GAP), x = image % want_columns * (W + GAP);
        images[i] = (float)i / 127.5f - 1;
        want[(y * w + x) * c + in_row] = (uint8_t)i;
    }
    assert_written(ht_image_save_grid(target, images, N, H, W, c, columns, NULL));
    assert_pixels(want, w, h, c);
}

static void grids_place_images_row_by_row_with_white_gaps(void **state)
{
    static const int cases[][3] = {{0, 3, 2}, {1, 1, 5}, {2, 2, 3}, {3, 3, 2}, {4, 4, 2}, {5, 5, 1}, {9, 5, 1}};
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        for (int c = 1; c <= 4; c += c == 1 ? 2 : 1)
            check_grid(c, cases[i][0], cases[i][1], cases[i][2]);
}

/* ---- text ---- */

static void ascii_text_is_a_text_chunk_after_the_header(void **state)
{
    static const char want[] = "parameters\0a cat\nSteps: 50, Seed: 1";
    (void)state;
    assert_written(ht_png_write(target, (const uint8_t[]){1, 2, 3}, 1, 1, 3, want + 11));
    assert_chunk("tEXt", want, sizeof want - 1);
    assert_no_chunk("iTXt");
    assert_pixels((const uint8_t[]){1, 2, 3}, 1, 1, 3);
    ht_mapping m = map_target();
    assert_memory_equal("tEXt", m.data + 33 + 4, 4);
    ht_unmap_file(&m);
    assert_written(ht_png_write(target, (const uint8_t[]){1}, 1, 1, 1, ""));
    assert_chunk("tEXt", want, 11);
}

static void text_beyond_ascii_is_an_international_chunk(void **state)
{
    static const char want[] = "parameters\0\0\0\0\0caf\xc3\xa9 \xe7\x8c\xab \xf0\x9f\x90\x88";
    (void)state;
    assert_written(ht_png_write(target, (const uint8_t[]){9}, 1, 1, 1, want + 15));
    assert_chunk("iTXt", want, sizeof want - 1);
    assert_no_chunk("tEXt");
}

/* Stray bytes, overlong forms, a surrogate, beyond U+10FFFF, a cut sequence: one '?' a byte, the rest stays. */
static void bytes_that_are_not_utf8_become_question_marks(void **state)
{
    static const char *const cases[][2] = {
        {"a\x80z", "a?z"},       {"\xc0\xaf", "??"},           {"\xe0\x80\xaf", "???"},
        {"\xed\xa0\x80", "???"}, {"\xf4\x90\x80\x80", "????"}, {"\xf0\x9f\x90", "???"},
        {"\xff\xfe", "??"},      {"\xe7\x8c", "??"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char want[64];
        size_t n = strlen(cases[i][1]);
        memcpy(want, "parameters", 11);
        memcpy(want + 11, cases[i][1], n);
        assert_written(ht_png_write(target, (const uint8_t[]){9}, 1, 1, 1, cases[i][0]));
        assert_chunk("tEXt", want, 11 + n);
    }
    assert_written(ht_png_write(target, (const uint8_t[]){9}, 1, 1, 1, "\xc3\xa9\xc3"));
    assert_chunk("iTXt", "parameters\0\0\0\0\0\xc3\xa9?", 18);
}

/* ---- failures ---- */

static void assert_refused(ht_status want, ht_status status, const char *words)
{
    assert_int_equal(want, status);
    if (!strstr(ht_error_message(), words))
        fail_msg("\"%s\" does not say \"%s\"", ht_error_message(), words);
    assert_int_equal(0, files_in_folder());
}

static void sizes_that_no_png_has_are_refused(void **state)
{
    static const uint8_t pixels[8] = {0};
    static const float image[8] = {0};
    const ht_status bad = HT_ERR_ARGUMENT;
    (void)state;
    assert_refused(bad, ht_png_write(target, pixels, 0, 1, 1, NULL), "0 x 1");
    assert_refused(bad, ht_png_write(target, pixels, 1, -1, 1, NULL), "1 x -1");
    assert_refused(bad, ht_png_write(target, pixels, 65536, 1, 1, NULL), "65536");
    assert_refused(bad, ht_png_write(target, pixels, 1, 1, 2, NULL), "2 channels");
    assert_refused(bad, ht_png_write(target, pixels, 65535, 65535, 4, NULL), "bytes");
    assert_refused(bad, ht_image_save(target, image, 0, 1, 1, NULL), "1 x 0");
    assert_refused(bad, ht_image_save(target, image, 1, 1, 5, NULL), "5 channels");
    assert_refused(bad, ht_image_save_grid(target, image, 0, 1, 1, 1, 0, NULL), "0 images");
    assert_refused(bad, ht_image_save_grid(target, image, 1, 1, 1, 1, -1, NULL), "-1 columns");
    assert_refused(bad, ht_image_save_grid(target, image, INT64_MAX, 1, 1, 1, 0, NULL), "does not fit");
    assert_refused(bad, ht_image_save_grid(target, image, 100000, 1, 1, 1, 1, NULL), "65535");
    assert_refused(bad, ht_image_save_grid(target, image, INT64_C(1) << 31, 32, 32, 3, 0, NULL), "65535");
}

static void an_output_that_cannot_be_written_is_an_error_and_leaves_nothing(void **state)
{
    static const uint8_t pixels[3] = {0};
    char missing[400];
    (void)state;
    snprintf(missing, sizeof missing, "%s/no/such/folder.png", folder);
    assert_refused(HT_ERR_IO, ht_png_write(missing, pixels, 1, 1, 3, NULL), missing);
    assert_refused(HT_ERR_IO, ht_png_write(folder, pixels, 1, 1, 3, NULL), folder);
}

static void a_full_disk_is_reported(void **state)
{
    static const uint8_t pixels[3] = {0};
    (void)state;
    assert_refused(HT_ERR_IO, ht_png_write("/dev/full", pixels, 1, 1, 3, "text"), "No space left");
}

#define IN_FOLDER(test) cmocka_unit_test_setup_teardown(test, make_folder, remove_folder)

int main(void)
{
    const struct CMUnitTest tests[] = {
        IN_FOLDER(pixels_come_back_for_all_channels_and_odd_sizes),
        IN_FOLDER(values_are_clipped_and_rounded),
        IN_FOLDER(all_256_levels_survive_the_round_trip),
        IN_FOLDER(grids_place_images_row_by_row_with_white_gaps),
        IN_FOLDER(ascii_text_is_a_text_chunk_after_the_header),
        IN_FOLDER(text_beyond_ascii_is_an_international_chunk),
        IN_FOLDER(bytes_that_are_not_utf8_become_question_marks),
        IN_FOLDER(sizes_that_no_png_has_are_refused),
        IN_FOLDER(an_output_that_cannot_be_written_is_an_error_and_leaves_nothing),
        IN_FOLDER(a_full_disk_is_reported),
    };
    return cmocka_run_group_tests_name("png", tests, NULL, NULL);
}
