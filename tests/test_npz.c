/* test_npz.c - NumPy's archives: arrays as numpy.save lays them out, in archives made here, and every kind of damage.
 */
#include <math.h>
#include <zip.h>

#include "eval/moments.h"
#include "eval/npz.h"
#include "tests/folder.h"
#include "tests/goldens.h"

typedef struct member {
    const char *name;
    const char *header; /* the dictionary; NULL: data alone */
    const void *data;
    size_t bytes;
    int version;
} member;

/* The bytes of a .npy, header padded as numpy pads it; libzip frees them. */
static void *npy_bytes(const member *m, size_t *size)
{
    size_t prefix = m->version > 1 ? 12 : 10, length = m->header ? strlen(m->header) : 0;
    size_t padded = (prefix + length + 1 + 63) / 64 * 64 - prefix;
    *size = m->header ? prefix + padded + m->bytes : m->bytes;
    if (!*size)
        return NULL;
    char *bytes = malloc(*size);
    assert_non_null(bytes);
    if (m->header) {
        memset(bytes, ' ', prefix + padded);
        memcpy(bytes, "\x93NUMPY", 6);
        for (size_t i = 6; i < prefix; i++)
            bytes[i] = (char)(i == 6 ? (size_t)m->version : i == 8 ? padded & 255 : i == 9 ? padded >> 8 : 0);
        memcpy(bytes + prefix, m->header, length);
        bytes[prefix + padded - 1] = '\n';
    }
    if (m->bytes)
        memcpy(bytes + *size - m->bytes, m->data, m->bytes);
    return bytes;
}

static const char *make_npz(const char *name, int n, const member *members, int method)
{
    const char *path = in_folder(name);
    int error;
    zip_t *zip = zip_open(path, ZIP_CREATE | ZIP_TRUNCATE, &error);
    assert_non_null(zip);
    for (int i = 0; i < n; i++) {
        size_t size;
        void *bytes = npy_bytes(&members[i], &size);
        zip_int64_t at = zip_file_add(zip, members[i].name, zip_source_buffer(zip, bytes, size, 1), 0);
        assert_true(at >= 0);
        assert_int_equal(zip_set_file_compression(zip, (zip_uint64_t)at, method, 0), 0);
    }
    assert_int_equal(zip_close(zip), 0);
    return path;
}

static ht_status read_one(const char *path, const char *name, ht_npy_array *a)
{
    ht_npz *npz;
    ht_status status = ht_npz_open(path, &npz);
    if (status)
        return status;
    status = ht_npz_read(npz, name, a);
    ht_npz_close(npz);
    return status;
}

static const double six[] = {1, 2, 3, 4, 5, 6.5};
static const float six_single[] = {1, 2, 3, 4, 5, 6.5f};

#define MATRIX(type, order) "{'descr': '" type "', 'fortran_order': " order ", 'shape': (2, 3), }"

static void arrays_are_read_stored_or_deflated_in_both_orders(void **state)
{
    static const member members[] = {
        {"c.npy", MATRIX("<f8", "False"), six, sizeof six, 1},
        {"fortran.npy", MATRIX("<f8", "True"), six, sizeof six, 1},
        {"single.npy", MATRIX("<f4", "False"), six_single, sizeof six_single, 2},
        {"other_keys_first.npy", "{'shape': (6,), 'descr': '<f8','fortran_order':True}", six, sizeof six, 3},
        {"scalar.npy", "{'descr': '<f8', 'fortran_order': False, 'shape': (), }", six, sizeof *six, 1},
        {"none.npy", "{'descr': '<f8', 'fortran_order': False, 'shape': (0, 7), }", NULL, 0, 1},
    };
    static const int methods[] = {ZIP_CM_STORE, ZIP_CM_DEFLATE};
    static const double turned[] = {1, 3, 5, 2, 4, 6.5}; /* what [2,3] holds, row by row, if columns came first */
    static const char *const names[] = {"c", "fortran", "single", "other_keys_first", "scalar", "none"};
    static const size_t counts[] = {6, 6, 6, 6, 1, 0};
    (void)state;
    for (int m = 0; m < 2; m++) {
        const char *path = make_npz("a.npz", 6, members, methods[m]);
        for (int i = 0; i < 6; i++) {
            ht_npy_array a = {0};
            assert_ok(read_one(path, names[i], &a));
            assert_int_equal(a.count, counts[i]);
            assert_int_equal(a.ndim, i < 3 || i == 5 ? 2 : i == 3 ? 1 : 0);
            assert_memory_equal(a.data, i == 1 ? turned : six, a.count * sizeof *a.data);
            free(a.data);
        }
    }
}

static void members_that_are_no_arrays_are_refused(void **state)
{
    static const struct {
        member m;
        ht_status status;
        const char *words;
    } cases[] = {
        {{"x.npy", MATRIX(">f8", "False"), six, sizeof six, 1}, HT_ERR_UNSUPPORTED, "elements of type >f8"},
        {{"x.npy", MATRIX("<i8", "False"), six, sizeof six, 1}, HT_ERR_UNSUPPORTED, "wanted <f4 or <f8"},
        {{"x.npy", MATRIX("<f8", "False"), six, sizeof six - 1, 1}, HT_ERR_FORMAT, "47 bytes of elements"},
        {{"x.npy", MATRIX("<f4", "False"), six, sizeof six, 1}, HT_ERR_FORMAT, "the shape wants 24"},
        {{"x.npy", "{'descr': '<f8', 'shape': (6,), }", six, sizeof six, 1}, HT_ERR_FORMAT, "header"},
        {{"x.npy", "{'descr': '<f8', 'fortran_order': False, 'shape': (6), }", six, sizeof six, 1},
         HT_ERR_FORMAT,
         "header"},
        {{"x.npy", "{'descr': '<f8', 'fortran_order': False, 'shape': (1, 2 3), }", six, sizeof six, 1},
         HT_ERR_FORMAT,
         "header"},
        {{"x.npy", "{'descr': '<f8', 'fortran_order': False, 'shape': (-6,), }", six, sizeof six, 1},
         HT_ERR_FORMAT,
         "header"},
        {{"x.npy", "{'descr': '<f8', 'fortran_order': False, 'shape': (1000000000, 1000000000, 1000000000), }", six,
          sizeof six, 1},
         HT_ERR_FORMAT,
         "bytes of elements"},
        {{"x.npy", "{'descr': [('a', '<f8')], 'fortran_order': False, 'shape': (6,), }", six, sizeof six, 1},
         HT_ERR_FORMAT,
         "header"},
        {{"x.npy", "{'descr': '<f8', 'fortran_order': False, 'shape': (6,), ", six, sizeof six, 1},
         HT_ERR_FORMAT,
         "header"},
        {{"x.npy", MATRIX("<f8", "False"), six, sizeof six, 4}, HT_ERR_FORMAT, "header"},
        {{"x.npy", NULL, "\x93NUMPY\x01", 7, 1}, HT_ERR_FORMAT, "header"},
        {{"x.npy", NULL, "\x93NUMPY\x01\0\xff\xff{'desc", 16, 1}, HT_ERR_FORMAT, "header"},
        {{"x.npy", NULL, NULL, 0, 1}, HT_ERR_FORMAT, "header"},
        {{"y.npy", MATRIX("<f8", "False"), six, sizeof six, 1}, HT_ERR_FORMAT, "has no array x"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        ht_npy_array a;
        assert_refused(read_one(make_npz("bad.npz", 1, &cases[i].m, ZIP_CM_STORE), "x", &a), cases[i].status,
                       cases[i].words);
    }
}

static void files_that_are_no_archives_are_refused(void **state)
{
    static const member m = {"x.npy", MATRIX("<f8", "False"), six, sizeof six, 1};
    ht_npy_array a;
    (void)state;
    assert_refused(read_one(in_folder("missing.npz"), "x", &a), HT_ERR_IO, "missing.npz");
    assert_refused(read_one(folder, "x", &a), HT_ERR_IO, folder);
    put_file("text.npz", "no zip at all", 13);
    assert_refused(read_one(in_folder("text.npz"), "x", &a), HT_ERR_FORMAT, "not an npz");
    put_file("empty.npz", "", 0);
    assert_refused(read_one(in_folder("empty.npz"), "x", &a), HT_ERR_FORMAT, "");
    FILE *f = fopen(make_npz("torn.npz", 1, &m, ZIP_CM_STORE), "r+b");
    assert_non_null(f);
    assert_int_equal(fseek(f, 180, SEEK_SET), 0); /* among the elements: the checksum tells */
    assert_int_equal(fputc(0x5a, f), 0x5a);
    assert_int_equal(fclose(f), 0);
    assert_refused(read_one(in_folder("torn.npz"), "x", &a), HT_ERR_FORMAT, "damaged");
}

static void moments_that_do_not_fit_are_refused(void **state)
{
    static const double nan_pair[] = {1, NAN}, pair[] = {1, 2}, square[] = {2, 1, 1, 3}, skew[] = {2, 1, -1, 3},
                        negative[] = {2, 1, 1, -3};
    static const char vector[] = "{'descr': '<f8', 'fortran_order': False, 'shape': (2,), }";
    static const char matrix[] = "{'descr': '<f8', 'fortran_order': False, 'shape': (2, 2), }";
    static const member good[] = {{"mu.npy", vector, pair, sizeof pair, 1},
                                  {"sigma.npy", matrix, square, sizeof square, 1}};
    const struct {
        member mu, sigma;
        ht_status status;
        const char *words;
    } cases[] = {
        {{"mu.npy", matrix, square, sizeof square, 1}, good[1], HT_ERR_SHAPE, "wanted a vector"},
        {good[0], {"sigma.npy", vector, pair, sizeof pair, 1}, HT_ERR_SHAPE, "sigma must be [2,2]"},
        {{"mu.npy", vector, nan_pair, sizeof nan_pair, 1}, good[1], HT_ERR_FORMAT, "mu[1] (of 2) is not finite"},
        {good[0], {"sigma.npy", matrix, skew, sizeof skew, 1}, HT_ERR_FORMAT, "no covariance"},
        {good[0], {"sigma.npy", matrix, negative, sizeof negative, 1}, HT_ERR_FORMAT, "the variance [1,1] is -3"},
        {good[0], {"s.npy", matrix, square, sizeof square, 1}, HT_ERR_FORMAT, "has no array sigma"},
    };
    ht_moments m;
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        assert_refused(ht_moments_read(make_npz("m.npz", 2, (const member[]){cases[i].mu, cases[i].sigma}, 0), &m),
                       cases[i].status, cases[i].words);
    assert_ok(ht_moments_read(make_npz("m.npz", 2, good, ZIP_CM_DEFLATE), &m));
    assert_int_equal(m.dim, 2);
    assert_memory_equal(m.mu, pair, sizeof pair);
    assert_memory_equal(m.sigma, square, sizeof square);
    ht_moments_free(&m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(arrays_are_read_stored_or_deflated_in_both_orders),
        cmocka_unit_test(members_that_are_no_arrays_are_refused),
        cmocka_unit_test(files_that_are_no_archives_are_refused),
        cmocka_unit_test(moments_that_do_not_fit_are_refused),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
