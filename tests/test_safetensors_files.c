/* test_safetensors_files.c - what is written is read back, shards are read as one, and nothing is lost when memory runs
 * out: linked with --wrap for the allocators, so that they can fail from the n-th call on. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <jansson.h>

#include "core/safetensors.h"
#include "tests/folder.h"

/* ---- an allocator that runs dry ---- */

static long allocations_left = -1; /* -1: as many as are wanted */

static int dry(void)
{
    if (allocations_left > 0)
        allocations_left--;
    return allocations_left == 0;
}

void *__real_malloc(size_t size);
void *__real_calloc(size_t count, size_t size);
void *__real_realloc(void *p, size_t size);
void *__real_aligned_alloc(size_t alignment, size_t size);
void *__wrap_malloc(size_t size);
void *__wrap_calloc(size_t count, size_t size);
void *__wrap_realloc(void *p, size_t size);
void *__wrap_aligned_alloc(size_t alignment, size_t size);

void *__wrap_malloc(size_t size)
{
    return dry() ? NULL : __real_malloc(size);
}

void *__wrap_calloc(size_t count, size_t size)
{
    return dry() ? NULL : __real_calloc(count, size);
}

void *__wrap_realloc(void *p, size_t size)
{
    return dry() ? NULL : __real_realloc(p, size);
}

void *__wrap_aligned_alloc(size_t alignment, size_t size)
{
    return dry() ? NULL : __real_aligned_alloc(alignment, size);
}

static void assert_says(const char *words)
{
    if (!strstr(ht_error_message(), words))
        fail_msg("message is '%s', want '%s' in it", ht_error_message(), words);
}

/* ---- writing ---- */

/* The bytes of the reference's own test of `serialize` (safetensors/src/tensor.rs,
 * test_serialization_forced_alignement). */
static void the_file_of_the_reference_is_reproduced(void **state)
{
    static const char head[] =
        "\x48\0\0\0\0\0\0\0{\"attn0\":{\"dtype\":\"F32\",\"shape\":[1,1,2,3],\"data_offsets\":[0,24]}}       ";
    static const float data[6] = {0, 1, 2, 3, 4, 5};
    ht_tensor t = {.name = "attn0", .dtype = HT_F32, .ndim = 4, .shape = {1, 1, 2, 3}, .data = data, .bytes = 24};
    char got[200];
    (void)state;
    if (ht_safetensors_write(in_folder("a.safetensors"), &t, 1, NULL, 0) != HT_OK)
        fail_msg("%s", ht_error_message());
    FILE *f = fopen(in_folder("a.safetensors"), "rb");
    assert_non_null(f);
    assert_int_equal(fread(got, 1, sizeof got, f), 104);
    fclose(f);
    assert_memory_equal(got, head, 80);
    assert_memory_equal(got + 80, data, 24);
}

static void metadata_comes_first_and_nothing_else_is_needed(void **state)
{
    static const char want[] = "\x28\0\0\0\0\0\0\0{\"__metadata__\":{\"framework\":\"pt\"}}     ";
    char got[200];
    (void)state;
    assert_int_equal(ht_safetensors_write(in_folder("a"), NULL, 0, &(ht_metadata){"framework", "pt"}, 1), HT_OK);
    FILE *f = fopen(in_folder("a"), "rb");
    assert_non_null(f);
    assert_int_equal(fread(got, 1, sizeof got, f), 48);
    fclose(f);
    assert_memory_equal(got, want, 48);
}

/* Two tensors of each dtype, and an empty one, in an order that is not the file's. */
static size_t make_all_dtypes(ht_tensor *t, char names[][32], const unsigned char *data)
{
    size_t n = 0;
    for (int i = 0; i < HT_DTYPES; i++) {
        for (int k = 2; k-- > 0; n++) {
            snprintf(names[n], 32, "%s.%d", ht_dtype_name((ht_dtype)i), k);
            t[n] =
                (ht_tensor){.name = names[n], .dtype = (ht_dtype)i, .ndim = 2, .shape = {2 + k, 4}, .data = data + n};
            t[n].bytes = (size_t)(2 + k) * 4 * (size_t)ht_dtype_bits((ht_dtype)i) / 8;
        }
    }
    t[n] = (ht_tensor){.name = "empty \"\\\n \xc3\xa9", .dtype = HT_F64, .ndim = 3, .shape = {4, 0, 2}};
    return n + 1;
}

static void every_dtype_survives_a_round_trip(void **state)
{
    enum { MOST = 2 * HT_DTYPES + 1 };
    unsigned char data[512];
    char names[MOST][32];
    ht_tensor t[MOST];
    const ht_metadata metadata[] = {{"z", "last"}, {"a", "\"quoted\" \xc3\xa9\n"}};
    ht_safetensors *st = NULL;
    (void)state;
    for (size_t i = 0; i < sizeof data; i++)
        data[i] = (unsigned char)(i * 7);
    size_t n = make_all_dtypes(t, names, data);
    if (ht_safetensors_write(in_folder("a"), t, n, metadata, 2) != HT_OK ||
        ht_safetensors_open(in_folder("a"), &st) != HT_OK)
        fail_msg("%s", ht_error_message());
    assert_int_equal(ht_safetensors_count(st), n);
    for (size_t i = 0; i < n; i++) {
        const ht_tensor *got = ht_safetensors_find(st, t[i].name);
        assert_non_null(got);
        assert_true(got->dtype == t[i].dtype && got->ndim == t[i].ndim && got->bytes == t[i].bytes);
        assert_memory_equal(got->shape, t[i].shape, sizeof got->shape);
        if (t[i].bytes)
            assert_memory_equal(got->data, t[i].data, t[i].bytes);
        if (ht_dtype_bits(t[i].dtype) >= 8)
            assert_int_equal((uintptr_t)got->data % ((unsigned)ht_dtype_bits(t[i].dtype) / 8), 0);
    }
    assert_string_equal(ht_safetensors_metadata(st, "a"), "\"quoted\" \xc3\xa9\n");
    assert_string_equal(ht_safetensors_metadata(st, "z"), "last");
    ht_safetensors_close(st);
}

static void data_lies_by_falling_alignment_then_by_name(void **state)
{
    static const char *const order[] = {"w", "b", "x", "a", "y"};
    static const unsigned char data[8] = {0};
    const ht_tensor t[] = {
        {.name = "y", .dtype = HT_BOOL, .ndim = 1, .shape = {1}, .data = data, .bytes = 1},
        {.name = "x", .dtype = HT_F32, .ndim = 1, .shape = {1}, .data = data, .bytes = 4},
        {.name = "a", .dtype = HT_F16, .ndim = 1, .shape = {1}, .data = data, .bytes = 2},
        {.name = "w", .dtype = HT_I64, .ndim = 1, .shape = {1}, .data = data, .bytes = 8},
        {.name = "b", .dtype = HT_F32, .ndim = 1, .shape = {1}, .data = data, .bytes = 4},
    };
    ht_safetensors *st = NULL;
    (void)state;
    assert_int_equal(ht_safetensors_write(in_folder("a"), t, 5, NULL, 0), HT_OK);
    assert_int_equal(ht_safetensors_open(in_folder("a"), &st), HT_OK);
    const unsigned char *at = ht_safetensors_find(st, order[0])->data;
    assert_int_equal((uintptr_t)at % 8, 0);
    for (int i = 0; i < 5; i++) {
        assert_ptr_equal(ht_safetensors_find(st, order[i])->data, at);
        at += ht_safetensors_find(st, order[i])->bytes;
    }
    ht_safetensors_close(st);
}

static void what_would_not_be_read_is_not_written(void **state)
{
    static const unsigned char data[8] = {0};
    const ht_tensor good = {.name = "a", .dtype = HT_F32, .ndim = 1, .shape = {2}, .data = data, .bytes = 8};
    ht_tensor few = good, negative = good, deep = good, unnamed = good, reserved = good, bare = good, half = good,
              latin = good, odd = good;
    few.bytes = 4;
    negative.shape[0] = -2;
    deep.ndim = 9;
    unnamed.name = NULL;
    reserved.name = "__metadata__";
    bare.data = NULL;
    half.dtype = HT_F4, half.shape[0] = 3, half.bytes = 2;
    latin.name = "\xe9";
    odd.dtype = HT_DTYPES;
    const struct {
        ht_tensor t;
        const char *words;
    } cases[] = {{few, "tensor a: has 4 bytes of data, its shape of F32 takes 8"},
                 {negative, "shape[0] is negative"},
                 {deep, "9 dimensions are out of range"},
                 {unnamed, "NULL is not a name"},
                 {reserved, "__metadata__ is not a name"},
                 {bare, "has 0 bytes of data"},
                 {half, "not whole bytes"},
                 {latin, "not UTF-8"},
                 {odd, "out of range"},
                 {good, "the name a is given twice"}};
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const ht_tensor pair[] = {good, cases[i].t};
        assert_int_equal(ht_safetensors_write(in_folder("a"), pair, 2, NULL, 0), HT_ERR_ARGUMENT);
        assert_says(cases[i].words);
    }
    const ht_metadata twice[] = {{"k", "1"}, {"k", "2"}}, latin_value = {"k", "\xe9"};
    assert_int_equal(ht_safetensors_write(in_folder("a"), &good, 1, twice, 2), HT_ERR_ARGUMENT);
    assert_says("the name k is given twice");
    assert_int_equal(ht_safetensors_write(in_folder("a"), &good, 1, &latin_value, 1), HT_ERR_ARGUMENT);
    assert_int_equal(files_in_folder(), 0);
}

static void a_full_disk_is_reported(void **state)
{
    static const unsigned char data[1 << 16];
    ht_tensor t = {.name = "a", .dtype = HT_U8, .ndim = 1, .shape = {1}, .data = data, .bytes = 1};
    (void)state;
    assert_int_equal(ht_safetensors_write("/dev/full", &t, 1, NULL, 0), HT_ERR_IO);
    assert_says("/dev/full: cannot write");
    t.shape[0] = 1 << 16, t.bytes = 1 << 16;
    assert_int_equal(ht_safetensors_write("/dev/full", &t, 1, NULL, 0), HT_ERR_IO);
    assert_says("/dev/full: cannot write");
}

/* ---- files and shards ---- */

static void what_cannot_be_opened_is_named(void **state)
{
    ht_safetensors *st = NULL;
    (void)state;
    put_file("empty.safetensors", "", 0);
    assert_int_equal(ht_safetensors_open(in_folder("absent.safetensors"), &st), HT_ERR_IO);
    assert_says("absent.safetensors: cannot open");
    assert_int_equal(ht_safetensors_open(folder, &st), HT_ERR_IO);
    assert_says("is a folder");
    assert_int_equal(ht_safetensors_open(in_folder("empty.safetensors"), &st), HT_ERR_FORMAT);
    assert_says("empty.safetensors: has 0 bytes");
    assert_null(st);
}

/* Shard one has a and c, shard two has b. */
static void put_shards(const char *index)
{
    static const unsigned char data[] = {1, 2, 3};
    const ht_tensor one[] = {{.name = "a", .dtype = HT_U8, .ndim = 1, .shape = {1}, .data = data, .bytes = 1},
                             {.name = "c", .dtype = HT_U8, .ndim = 1, .shape = {1}, .data = data + 2, .bytes = 1}};
    const ht_tensor two = {.name = "b", .dtype = HT_U8, .ndim = 1, .shape = {1}, .data = data + 1, .bytes = 1};
    const ht_metadata first = {"format", "pt"}, second[] = {{"format", "np"}, {"only", "two"}};
    assert_int_equal(ht_safetensors_write(in_folder("1.safetensors"), one, 2, &first, 1), HT_OK);
    assert_int_equal(ht_safetensors_write(in_folder("2.safetensors"), &two, 1, second, 2), HT_OK);
    put_file("m.safetensors.index.json", index, strlen(index));
}

static void shards_are_read_as_one(void **state)
{
    ht_safetensors *st = NULL;
    (void)state;
    put_shards("{\"metadata\":{\"total_size\":3},\"weight_map\":{\"c\":\"1.safetensors\",\"a\":\"1.safetensors\",\"b\":"
               "\"2.safetensors\"}}");
    const char *path = in_folder("m.safetensors.index.json");
    if (ht_safetensors_open(path, &st) != HT_OK)
        fail_msg("%s", ht_error_message());
    assert_string_equal(ht_safetensors_path(st), path);
    assert_int_equal(ht_safetensors_count(st), 3);
    for (size_t i = 0; i < 3; i++) {
        const char name[] = {(char)('a' + i), '\0'};
        assert_string_equal(ht_safetensors_at(st, i)->name, name);
        assert_int_equal(*(const unsigned char *)ht_safetensors_find(st, name)->data, i + 1);
    }
    assert_string_equal(ht_safetensors_metadata(st, "format"), "pt"); /* of the first shard that has it */
    assert_string_equal(ht_safetensors_metadata(st, "only"), "two");
    ht_safetensors_close(st);
}

static void an_index_that_disagrees_with_its_shards_is_refused(void **state)
{
#define REST "\"a\":\"1.safetensors\",\"b\":\"2.safetensors\""
    static const struct {
        const char *index;
        ht_status status;
        const char *words;
    } cases[] = {
        {"{", HT_ERR_FORMAT, "m.safetensors.index.json: is not JSON"},
        {"{}", HT_ERR_FORMAT, "m.safetensors.index.json: has no weight_map"},
        {"{\"weight_map\":[]}", HT_ERR_FORMAT, "has no weight_map"},
        {"{\"weight_map\":{\"a\":3}}", HT_ERR_FORMAT, "tensor a: its value is not the name of a file"},
        {"{\"weight_map\":{\"a\":\"\"}}", HT_ERR_FORMAT, "is not the name of a file"},
        {"{\"weight_map\":{\"a\":\"..\"}}", HT_ERR_FORMAT, "tensor a: .. is not the name of a file beside the index"},
        {"{\"weight_map\":{\"a\":\"../1.safetensors\"}}", HT_ERR_FORMAT, "../1.safetensors is not the name of a file"},
        {"{\"weight_map\":{\"a\":\"/etc/passwd\"}}", HT_ERR_FORMAT, "/etc/passwd is not the name of a file"},
        {"{\"weight_map\":{\"a\":\"3.safetensors\"}}", HT_ERR_IO, "3.safetensors: cannot open"},
        {"{\"weight_map\":{" REST "}}", HT_ERR_FORMAT, "1.safetensors: tensor c: is not in the index"},
        {"{\"weight_map\":{\"c\":\"2.safetensors\"," REST "}}", HT_ERR_FORMAT,
         "tensor c: is here, the index says in 2.safetensors"},
        {"{\"weight_map\":{\"c\":\"1.safetensors\",\"d\":\"2.safetensors\"," REST "}}", HT_ERR_FORMAT,
         "index.json: tensor d is missing in 2.safetensors"},
        {"{\"weight_map\":{\"c\":\"1.safetensors\",\"c\":\"1.safetensors\"," REST "}}", HT_ERR_FORMAT,
         "the name \"c\" is given twice"},
        {"{\"weight_map\":{\"a\":\"m.safetensors.index.json\"}}", HT_ERR_FORMAT,
         "m.safetensors.index.json: its header would have"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        ht_safetensors *st = NULL;
        put_shards(cases[i].index);
        ht_status status = ht_safetensors_open(in_folder("m.safetensors.index.json"), &st);
        if (status != cases[i].status || st)
            fail_msg("%s gives status %d, want %d", cases[i].index, status, cases[i].status);
        assert_says(cases[i].words);
    }
}

/* ---- memory ---- */

static ht_status open_and_close(void)
{
    ht_safetensors *st = NULL;
    ht_status status = ht_safetensors_open(in_folder("m.safetensors.index.json"), &st);
    ht_safetensors_close(st);
    return status;
}

static ht_status write_again(void)
{
    static const unsigned char data[16];
    const ht_tensor t[] = {{.name = "a", .dtype = HT_U8, .ndim = 1, .shape = {1}, .data = data, .bytes = 1},
                           {.name = "b", .dtype = HT_F32, .ndim = 2, .shape = {2, 2}, .data = data, .bytes = 16}};
    return ht_safetensors_write(in_folder("again"), t, 2, &(ht_metadata){"format", "pt"}, 1);
}

/* From the n-th allocation on everything fails, for all n until nothing does; the sanitizer and valgrind watch for
 * leaks. */
static void assert_survives_without_memory(ht_status (*work)(void), int files)
{
    ht_status status = HT_ERR_MEMORY;
    json_malloc_t old_malloc;
    json_free_t old_free;
    json_get_alloc_funcs(&old_malloc, &old_free);
    json_set_alloc_funcs(__wrap_malloc, old_free);
    long n = 0;
    while (status != HT_OK && n < 10000) {
        ht_fail(HT_OK, "%s", "");
        allocations_left = ++n;
        status = work();
        allocations_left = -1;
        if (status != HT_OK && (!*ht_error_message() || files_in_folder() != files))
            break;
    }
    json_set_alloc_funcs(old_malloc, old_free);
    if (status != HT_OK)
        fail_msg("with %ld allocations: status %d, message '%s', %d files", n - 1, status, ht_error_message(),
                 files_in_folder());
    assert_true(n > 10);
}

static void running_out_of_memory_is_an_error_like_others(void **state)
{
    (void)state;
    put_shards("{\"weight_map\":{\"c\":\"1.safetensors\",\"a\":\"1.safetensors\",\"b\":\"2.safetensors\"}}");
    assert_survives_without_memory(open_and_close, 3);
    assert_survives_without_memory(write_again, 3);
    assert_int_equal(files_in_folder(), 4);
}

#define IN_FOLDER(claim) cmocka_unit_test_setup_teardown(claim, make_folder, remove_folder)

int main(void)
{
    const struct CMUnitTest tests[] = {
        IN_FOLDER(the_file_of_the_reference_is_reproduced),
        IN_FOLDER(metadata_comes_first_and_nothing_else_is_needed),
        IN_FOLDER(every_dtype_survives_a_round_trip),
        IN_FOLDER(data_lies_by_falling_alignment_then_by_name),
        IN_FOLDER(what_would_not_be_read_is_not_written),
        cmocka_unit_test(a_full_disk_is_reported),
        IN_FOLDER(what_cannot_be_opened_is_named),
        IN_FOLDER(shards_are_read_as_one),
        IN_FOLDER(an_index_that_disagrees_with_its_shards_is_refused),
        IN_FOLDER(running_out_of_memory_is_an_error_like_others),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
