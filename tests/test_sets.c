/* test_sets.c - sets of pictures: what is listed, how each kind of file becomes pixels, and what happens to files that
 * are damaged or absurd; statistics files, and results that do not depend on threads. */
#include <math.h>

#include "core/image_decode.h"
#include "core/zip.h"
#include "eval/moments.h"
#include "eval/npz.h"
#include "eval/set.h"
#include "tests/goldens.h"
#include "tests/pictures.h"
#include "tests/tree.h"

#include <jpeglib.h>

/* ---- listing ---- */

static void make_folders(const char *const *names, int n)
{
    for (int i = 0; i < n; i++)
        assert_int_equal(mkdir(in_root(names[i]), 0777), 0);
}

static void folders_are_listed_in_the_order_of_names(void **state)
{
    static const char *const folders[] = {"list", "list/b", "list/b/c", "list/.hidden"};
    static const char *const files[] = {"list/z.png",     "list/a.PNG",         "list/b/m.jpeg", "list/b/c/k.bmp",
                                        "list/notes.txt", "list/.hidden/x.png", "list/._z.png",  "list/b/dataset.json"};
    static const char *const want[] = {"a.PNG", "b/c/k.bmp", "b/m.jpeg", "z.png"};
    ht_set *set;
    (void)state;
    make_folders(folders, 4);
    for (size_t i = 0; i < sizeof files / sizeof *files; i++)
        write_bytes(in_root(files[i]), "x", 1);
    assert_ok(ht_set_open(in_root("list"), &set));
    assert_int_equal(ht_set_count(set), 4);
    for (int i = 0; i < 4; i++)
        assert_string_equal(ht_set_name(set, i), want[i]);
    ht_set_cut(set, 2);
    assert_int_equal(ht_set_count(set), 2);
    ht_set_close(set);
}

static void sets_without_pictures_are_refused(void **state)
{
    ht_set *set;
    (void)state;
    make_folders((const char *const[]){"empty"}, 1);
    assert_refused(ht_set_open(in_root("empty"), &set), HT_ERR_ARGUMENT, "empty: has no pictures");
    assert_refused(ht_set_open(in_root("missing"), &set), HT_ERR_IO, "No such file");
    write_bytes(in_root("not.zip"), "this is text", 12);
    assert_refused(ht_set_open(in_root("not.zip"), &set), HT_ERR_FORMAT, "not a zip");
    add_to_zip(in_root("empty.zip"), "dataset.json", "{}", 2);
    assert_refused(ht_set_open(in_root("empty.zip"), &set), HT_ERR_ARGUMENT, "has no pictures");
    assert_int_equal(symlink(".", in_root("empty/loop")), 0);
    assert_refused(ht_set_open(in_root("empty"), &set), HT_ERR_IO, "symbolic links");
}

/* ---- decoding ---- */

static ht_pixels decode(const file_bytes *f, int w, int h)
{
    ht_pixels p;
    assert_ok(ht_image_decode(f->data, f->size, "picture", &p));
    assert_true(p.width == w && p.height == h);
    return p;
}

static void pngs_of_every_kind_become_rgb(void **state)
{
    static file_bytes f;
    ht_pixels p;
    (void)state;
    make_png(&f, 2, 1, 8, 0, (const uint8_t[]){0, 7, 200}, 3); /* gray */
    p = decode(&f, 2, 1);
    assert_memory_equal(p.data, ((const uint8_t[]){7, 7, 7, 200, 200, 200}), 6);
    free(p.data);
    make_png(&f, 1, 2, 8, 4, (const uint8_t[]){0, 9, 0, 0, 250, 255}, 6); /* gray and alpha: 0 hides nothing */
    p = decode(&f, 1, 2);
    assert_memory_equal(p.data, ((const uint8_t[]){9, 9, 9, 250, 250, 250}), 6);
    free(p.data);
    make_png(&f, 1, 1, 8, 6, (const uint8_t[]){0, 1, 2, 3, 10}, 5); /* colours and alpha */
    p = decode(&f, 1, 1);
    assert_memory_equal(p.data, ((const uint8_t[]){1, 2, 3}), 3);
    free(p.data);
    make_png(&f, 1, 1, 16, 2, (const uint8_t[]){0, 0x12, 0xff, 0x80, 0x00, 0xff, 0x01}, 7); /* 16 bits */
    p = decode(&f, 1, 1);
    assert_memory_equal(p.data, ((const uint8_t[]){0x12, 0x80, 0xff}), 3);
    free(p.data);
    make_png(&f, 1, 1, 16, 0, (const uint8_t[]){0, 0xab, 0xcd}, 3); /* 16 bits of gray */
    p = decode(&f, 1, 1);
    assert_memory_equal(p.data, ((const uint8_t[]){0xab, 0xab, 0xab}), 3);
    free(p.data);
}

static const uint8_t bmp[] = {'B', 'M', 70, 0, 0, 0, 0, 0,  0, 0, 54, 0, 0,  0,  40, 0, 0,  0,  1,  0, 0,
                              0,   2,   0,  0, 0, 1, 0, 24, 0, 0, 0,  0, 0,  8,  0,  0, 0,  0,  0,  0, 0,
                              0,   0,   0,  0, 0, 0, 0, 0,  0, 0, 0,  0, 30, 20, 10, 0, 33, 22, 11, 0};

static void bmps_are_read_from_the_bottom(void **state)
{
    ht_pixels p;
    (void)state;
    assert_ok(ht_image_decode(bmp, sizeof bmp, "b.bmp", &p));
    assert_true(p.width == 1 && p.height == 2);
    assert_memory_equal(p.data, ((const uint8_t[]){11, 22, 33, 10, 20, 30}), 6);
    free(p.data);
}

static void make_jpeg(file_bytes *f)
{
    uint8_t pixels[24 * 20 * 3];
    for (int i = 0; i < 24 * 20 * 3; i++)
        pixels[i] = (uint8_t)(i / 3 % 24 * 8 + i % 3 * 20);
    struct jpeg_error_mgr errors;
    struct jpeg_compress_struct jpeg = {.err = jpeg_std_error(&errors)};
    unsigned char *bytes = NULL;
    unsigned long size = 0;
    jpeg_create_compress(&jpeg);
    jpeg_mem_dest(&jpeg, &bytes, &size);
    jpeg.image_width = 24;
    jpeg.image_height = 20;
    jpeg.input_components = 3;
    jpeg.in_color_space = JCS_RGB;
    jpeg_set_defaults(&jpeg);
    jpeg_set_quality(&jpeg, 95, TRUE);
    jpeg_start_compress(&jpeg, TRUE);
    for (int y = 0; y < 20; y++)
        jpeg_write_scanlines(&jpeg, &(JSAMPROW){pixels + (size_t)y * 24 * 3}, 1);
    jpeg_finish_compress(&jpeg);
    jpeg_destroy_compress(&jpeg);
    f->size = 0;
    add_bytes(f, bytes, size);
    free(bytes);
}

static void jpegs_are_near_what_was_saved(void **state)
{
    static file_bytes f;
    (void)state;
    make_jpeg(&f);
    ht_pixels p = decode(&f, 24, 20);
    for (int i = 0; i < 24 * 20 * 3; i++)
        assert_in_range(p.data[i] + 8 - (i / 3 % 24 * 8 + i % 3 * 20), 0, 16);
    free(p.data);
}

/* ---- damage ---- */

static void refuse_cuts(const file_bytes *f, const char *what)
{
    for (size_t n = 0; n < f->size; n++) {
        ht_pixels p;
        uint8_t *cut = malloc(n + 1); /* so that a read past the end is seen */
        assert_non_null(cut);
        memcpy(cut, f->data, n);
        ht_status status = ht_image_decode(cut, n, "cut", &p);
        free(cut);
        if (!status)
            fail_msg("%s cut to %zu of %zu bytes is taken", what, n, f->size);
    }
}

static void cut_pictures_are_refused(void **state)
{
    static file_bytes f;
    (void)state;
    make_png(&f, 2, 1, 8, 0, (const uint8_t[]){0, 7, 200}, 3);
    refuse_cuts(&f, "a PNG");
    make_jpeg(&f);
    refuse_cuts(&f, "a JPEG");
    f.size = 0;
    add_bytes(&f, bmp, sizeof bmp - 3); /* the last row may be */
    refuse_cuts(&f, "a BMP");
}

static void pngs_with_a_flipped_bit_are_refused(void **state)
{
    static file_bytes f;
    ht_pixels p;
    (void)state;
    make_png(&f, 2, 1, 8, 0, (const uint8_t[]){0, 7, 200}, 3);
    for (size_t i = 0; i < f.size * 8; i++) {
        f.data[i / 8] ^= (uint8_t)(1 << i % 8);
        if (!ht_image_decode(f.data, f.size, "flipped", &p))
            fail_msg("bit %zu of byte %zu of %zu flipped is taken", i % 8, i / 8, f.size);
        f.data[i / 8] ^= (uint8_t)(1 << i % 8);
    }
}

static void absurd_sizes_are_refused(void **state)
{
    static file_bytes f;
    ht_pixels p;
    (void)state;
    make_png(&f, 100000, 100000, 8, 2, "", 0);
    assert_refused(ht_image_decode(f.data, f.size, "huge", &p), HT_ERR_FORMAT, "its size absurd");
    make_png(&f, 12000, 12000, 8, 2, "", 0);
    assert_refused(ht_image_decode(f.data, f.size, "huge", &p), HT_ERR_UNSUPPORTED, "12000 x 12000 pixels; at most");
    assert_refused(ht_image_decode("GIF89a", 6, "a.gif", &p), HT_ERR_FORMAT, "not a PNG, JPEG or BMP");
}

/* ---- zips ---- */

static void read_all(const char *path, int n, uint8_t *pixels)
{
    ht_set *set;
    ht_set_reader *reader;
    assert_ok(ht_set_open(path, &set));
    assert_int_equal(ht_set_count(set), n);
    assert_ok(ht_set_reader_open(set, &reader));
    for (int i = n; i-- > 0;) { /* in any order */
        ht_pixels p;
        assert_ok(ht_set_read(reader, i, &p));
        assert_true(p.width == 5 && p.height == 5);
        memcpy(pixels + i * 75, p.data, 75);
        free(p.data);
    }
    ht_set_reader_close(reader);
    ht_set_close(set);
}

static void a_zip_gives_what_its_folder_gives(void **state)
{
    static const char *const names[] = {"00001/img2.png", "00000/img1.png", "00000/img0.png"};
    uint8_t folder_pixels[3 * 75], zip_pixels[3 * 75];
    char path[64];
    (void)state;
    make_folders((const char *const[]){"edm", "edm/00000", "edm/00001"}, 3);
    for (unsigned i = 0; i < 3; i++) {
        snprintf(path, sizeof path, "edm/%s", names[i]);
        assert_int_equal(write_drawn(in_root(path), i, 5, 5, 3), 0);
        add_drawn_to_zip(in_root("edm.zip"), names[i], i, 5, in_root("scratch.png"));
    }
    add_to_zip(in_root("edm.zip"), "dataset.json", "{\"labels\": null}", 16);
    add_to_zip(in_root("edm.zip"), "__MACOSX/00000/._img0.png", "junk", 4);
    read_all(in_root("edm"), 3, folder_pixels);
    read_all(in_root("edm.zip"), 3, zip_pixels);
    assert_memory_equal(folder_pixels, zip_pixels, sizeof zip_pixels);
}

static ht_status read_first(const char *path)
{
    ht_set *set;
    ht_set_reader *reader;
    ht_pixels p;
    assert_ok(ht_set_open(path, &set));
    assert_ok(ht_set_reader_open(set, &reader));
    ht_status status = ht_set_read(reader, 0, &p);
    if (!status)
        free(p.data);
    ht_set_reader_close(reader);
    ht_set_close(set);
    return status;
}

static void a_zip_with_a_wrong_checksum_is_refused(void **state)
{
    static uint8_t bytes[1 << 16];
    (void)state;
    add_drawn_to_zip(in_root("crc.zip"), "a.png", 1, 5, in_root("scratch.png"));
    assert_ok(read_first(in_root("crc.zip")));
    size_t n = read_bytes(in_root("crc.zip"), bytes, sizeof bytes);
    bytes[find_bytes(bytes, n, "IDAT", 4) + 6] ^= 1;
    write_bytes(in_root("crc.zip"), bytes, n);
    assert_refused(read_first(in_root("crc.zip")), HT_ERR_FORMAT, "crc.zip: a.png is damaged: CRC error");
}

static void a_zip_with_an_absurd_size_is_refused(void **state)
{
    static uint8_t bytes[1 << 16];
    (void)state;
    add_drawn_to_zip(in_root("size.zip"), "a.png", 1, 5, in_root("scratch.png"));
    size_t n = read_bytes(in_root("size.zip"), bytes, sizeof bytes);
    size_t central = find_bytes(bytes, n, "PK\1\2", 4), local = find_bytes(bytes, n, "PK\3\4", 4);
    memset(bytes + central + 24, 0x7f, 4); /* uncompressed, 2 GB */
    memset(bytes + local + 22, 0x7f, 4);
    write_bytes(in_root("size.zip"), bytes, n);
    assert_refused(read_first(in_root("size.zip")), HT_ERR_UNSUPPORTED, "a.png has 2139062143 bytes; at most");
    bytes[central + 24] = bytes[local + 22] = 1; /* a little more than there is */
    memset(bytes + central + 25, 0, 3);
    memset(bytes + local + 23, 0, 3);
    bytes[central + 25] = bytes[local + 23] = 9;
    write_bytes(in_root("size.zip"), bytes, n);
    assert_int_not_equal(read_first(in_root("size.zip")), HT_OK);
}

/* ---- statistics ---- */

static void statistics_are_read_as_they_were_written(void **state)
{
    enum { DIM = 7 };
    ht_moments m, back;
    int64_t n;
    static uint8_t first[1 << 14], second[1 << 14];
    (void)state;
    assert_ok(ht_moments_alloc(DIM, &m));
    for (int i = 0; i < DIM; i++) {
        m.mu[i] = sqrt(i) - 1;
        for (int j = 0; j < DIM; j++)
            m.sigma[i * DIM + j] = 1.0 / (1 + i + j);
    }
    assert_ok(ht_moments_write(in_root("m.npz"), &m, 12345));
    assert_ok(ht_moments_read_counted(in_root("m.npz"), &back, &n));
    assert_int_equal(n, 12345);
    assert_int_equal(back.dim, DIM);
    assert_memory_equal(back.mu, m.mu, DIM * sizeof *m.mu);
    assert_memory_equal(back.sigma, m.sigma, DIM * DIM * sizeof *m.sigma);
    ht_moments_free(&back);
    assert_ok(ht_moments_read_counted("models/cifar10/cifar10-train-resnet18_w24.npz", &back, &n));
    assert_int_equal(n, 0); /* it does not say */
    ht_moments_free(&back);
    size_t size = read_bytes(in_root("m.npz"), first, sizeof first);
    assert_ok(ht_moments_write(in_root("m.npz"), &m, 12345));
    assert_int_equal(read_bytes(in_root("m.npz"), second, sizeof second), size);
    assert_memory_equal(first, second, size);
    assert_refused(ht_moments_write(in_root("no/such/m.npz"), &m, 1), HT_ERR_IO, "no/such");
    ht_moments_free(&m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(folders_are_listed_in_the_order_of_names),
        cmocka_unit_test(sets_without_pictures_are_refused),
        cmocka_unit_test(pngs_of_every_kind_become_rgb),
        cmocka_unit_test(bmps_are_read_from_the_bottom),
        cmocka_unit_test(jpegs_are_near_what_was_saved),
        cmocka_unit_test(cut_pictures_are_refused),
        cmocka_unit_test(pngs_with_a_flipped_bit_are_refused),
        cmocka_unit_test(absurd_sizes_are_refused),
        cmocka_unit_test(a_zip_gives_what_its_folder_gives),
        cmocka_unit_test(a_zip_with_a_wrong_checksum_is_refused),
        cmocka_unit_test(a_zip_with_an_absurd_size_is_refused),
        cmocka_unit_test(statistics_are_read_as_they_were_written),
    };
    return cmocka_run_group_tests(tests, make_root, remove_root);
}
