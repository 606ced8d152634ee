/* test_safetensors.c - reading: sound files give their tensors, each kind of damage has its message. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "core/safetensors.h"

/* ---- files as bytes ---- */

typedef struct bytes {
    unsigned char *data;
    size_t size;
} bytes;

/* A file with this header and `data` bytes 0, 1, 2... after it; on the heap alone, for the sanitizer. */
static bytes make_file(const char *header, size_t data)
{
    size_t n = strlen(header);
    bytes f = {.data = malloc(8 + n + data), .size = 8 + n + data};
    assert_non_null(f.data);
    for (int i = 0; i < 8; i++)
        f.data[i] = (unsigned char)((uint64_t)n >> 8 * i);
    for (size_t i = 0; i < n; i++)
        f.data[8 + i] = (unsigned char)header[i];
    for (size_t i = 0; i < data; i++)
        f.data[8 + n + i] = (unsigned char)i;
    return f;
}

static void assert_says(const char *words)
{
    if (!strstr(ht_error_message(), words))
        fail_msg("message is '%s', want '%s' in it", ht_error_message(), words);
}

static void assert_refused(const void *data, size_t size, ht_status want, const char *words)
{
    ht_safetensors *st = NULL;
    ht_status status = ht_safetensors_parse(data, size, "m.safetensors", &st);
    if (status != want || st)
        fail_msg("status is %d, want %d with '%s'", status, want, words);
    assert_says("m.safetensors: ");
    assert_says(words);
}

#define F32_2 "{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}"
#define VALID                                                                                                          \
    "{\"__metadata__\":{\"format\":\"pt\"},\"b\":{\"dtype\":\"F32\",\"shape\":[1,2],\"data_offsets\":[0,8]},"          \
    "\"a\":{\"dtype\":\"F16\",\"shape\":[3],\"data_offsets\":[8,14]},"                                                 \
    "\"empty\":{\"dtype\":\"I64\",\"shape\":[0,5],\"data_offsets\":[8,8]},"                                            \
    "\"s\":{\"shape\":[],\"data_offsets\":[14,15],\"dtype\":\"U8\"}}"

/* ---- reading ---- */

static void a_sound_file_is_read(void **state)
{
    bytes f = make_file(VALID, 15);
    ht_safetensors *st = NULL;
    (void)state;
    if (ht_safetensors_parse(f.data, f.size, "m.safetensors", &st) != HT_OK)
        fail_msg("%s", ht_error_message());
    assert_string_equal(ht_safetensors_path(st), "m.safetensors");
    assert_int_equal(ht_safetensors_count(st), 4);
    for (size_t i = 0; i < 4; i++) {
        static const char *const names[] = {"a", "b", "empty", "s"};
        assert_string_equal(ht_safetensors_at(st, i)->name, names[i]);
        assert_ptr_equal(ht_safetensors_find(st, names[i]), ht_safetensors_at(st, i));
    }
    const ht_tensor *b = ht_safetensors_find(st, "b"), *empty = ht_safetensors_find(st, "empty"),
                    *s = ht_safetensors_find(st, "s");
    assert_true(b->dtype == HT_F32 && b->ndim == 2 && b->shape[0] == 1 && b->shape[1] == 2 && b->count == 2 &&
                b->bytes == 8);
    assert_ptr_equal(b->data, f.data + f.size - 15);
    assert_true(empty->dtype == HT_I64 && empty->count == 0 && empty->bytes == 0 && empty->shape[1] == 5);
    assert_true(s->ndim == 0 && s->count == 1 && s->bytes == 1);
    assert_null(ht_safetensors_find(st, "c"));
    assert_null(ht_safetensors_find(st, "__metadata__"));
    assert_string_equal(ht_safetensors_metadata(st, "format"), "pt");
    assert_null(ht_safetensors_metadata(st, "a"));
    ht_safetensors_close(st);
    ht_safetensors_close(NULL);
    free(f.data);
}

static void a_file_without_tensors_is_sound(void **state)
{
    ht_safetensors *st = NULL;
    (void)state;
    assert_int_equal(ht_safetensors_parse("\x08\0\0\0\0\0\0\0{}      ", 16, "m", &st), HT_OK);
    assert_int_equal(ht_safetensors_count(st), 0);
    assert_null(ht_safetensors_find(st, ""));
    ht_safetensors_close(st);
}

static void a_file_cut_anywhere_is_refused(void **state)
{
    bytes f = make_file(VALID, 15);
    (void)state;
    for (size_t n = 0; n < f.size; n++) {
        unsigned char *cut = malloc(n + !n);
        assert_non_null(cut);
        memcpy(cut, f.data, n);
        assert_refused(cut, n, HT_ERR_FORMAT,
                       n < 8             ? "a safetensors file starts with a length of 8"
                       : n < f.size - 15 ? "is cut off"
                                         : "run past the end");
        free(cut);
    }
    assert_refused(NULL, 0, HT_ERR_FORMAT, "has 0 bytes");
    free(f.data);
}

/* Whatever one damaged byte does, it must be safe; where it is accepted, the tensors still tile the data. */
static void any_damaged_byte_is_safe(void **state)
{
    static const unsigned char flips[] = {0x01, 0x02, 0x04, 0x08, 0x10, 0x20, 0x40, 0x80, 0xff};
    bytes f = make_file(VALID, 15);
    (void)state;
    for (size_t i = 0; i < f.size - 15; i++) {
        for (size_t k = 0; k < sizeof flips; k++) {
            ht_safetensors *st = NULL;
            size_t total = 0;
            f.data[i] ^= flips[k];
            if (ht_safetensors_parse(f.data, f.size, "m", &st) == HT_OK) {
                for (size_t t = 0; t < ht_safetensors_count(st); t++)
                    total += ht_safetensors_at(st, t)->bytes;
                assert_int_equal(total, 15);
            }
            ht_safetensors_close(st);
            f.data[i] ^= flips[k];
        }
    }
    free(f.data);
}

static void wrong_lengths_of_the_header_are_refused(void **state)
{
    static const unsigned char huge[16] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, '{', '}'};
    static const unsigned char above[16] = {0x01, 0xe1, 0xf5, 0x05, 0, 0, 0, 0, '{', '}'}; /* 100 000 001 */
    static const unsigned char most[16] = {0x00, 0xe1, 0xf5, 0x05, 0, 0, 0, 0, '{', '}'};
    static const unsigned char zero[16] = {0, 0, 0, 0, 0, 0, 0, 0, '{', '}'};
    (void)state;
    assert_refused(huge, 16, HT_ERR_FORMAT, "its header would have 18446744073709551615 bytes");
    assert_refused(above, 16, HT_ERR_FORMAT, "its header would have 100000001 bytes, at most 100000000");
    assert_refused(most, 16, HT_ERR_FORMAT, "is cut off: its header should have 100000000 bytes, 8 are there");
    assert_refused(zero, 16, HT_ERR_FORMAT, "its header has length 0");
}

static void each_kind_of_damage_has_its_message(void **state)
{
    static const struct {
        const char *header;
        size_t data;
        const char *words;
    } cases[] = {
        {"{\"a\":\"\xff\"}", 0, "its header: is not UTF-8"},
        {"{\"a\":", 0, "its header: is not JSON"},
        {"[]", 0, "its header: is a JSON array, want an object"},
        {"{\"a\":" F32_2 ",\"a\":" F32_2 "}", 8, "its header: the name \"a\" is given twice"},
        {"{\"__metadata__\":{},\"__metadata__\":{}}", 0, "the name \"__metadata__\" is given twice"},
        {"{\"__metadata__\":3}", 0, "__metadata__ is not an object"},
        {"{\"__metadata__\":null}", 0, "__metadata__ is not an object"},
        {"{\"__metadata__\":{\"format\":3}}", 0, "__metadata__: \"format\" is not a string"},
        {"{\"__metadata__\":{\"format\":NaN}}", 0, "its header: is not JSON"},
        {"{\"__metadata__\":{\"x\":\"1\",\"x\":\"2\"}}", 0, "the name \"x\" is given twice"},
        {"{\"a\":3}", 0, "tensor a: its entry is not an object"},
        {"{\"a\":{\"shape\":[2],\"data_offsets\":[0,8]}}", 8, "tensor a: dtype is missing or not a string"},
        {"{\"a\":{\"dtype\":1,\"shape\":[2],\"data_offsets\":[0,8]}}", 8, "tensor a: dtype is missing or not a string"},
        {"{\"a\":{\"dtype\":\"F31\",\"shape\":[2],\"data_offsets\":[0,8]}}", 8,
         "tensor a: dtype \"F31\" is not one of the format"},
        {"{\"a\":{\"dtype\":\"F32\",\"data_offsets\":[0,8]}}", 8, "tensor a: shape is missing or not an array"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":2,\"data_offsets\":[0,8]}}", 8,
         "tensor a: shape is missing or not an array"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2,-1],\"data_offsets\":[0,8]}}", 8,
         "tensor a: shape[1] is not a non-negative integer"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2.0],\"data_offsets\":[0,8]}}", 8,
         "tensor a: shape[0] is not a non-negative integer"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[\"2\"],\"data_offsets\":[0,8]}}", 8,
         "shape[0] is not a non-negative integer"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[18446744073709551616],\"data_offsets\":[0,8]}}", 8, "too big integer"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[4294967296,4294967296],\"data_offsets\":[0,0]}}", 0,
         "tensor a: the product of its shape overflows"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[0,4294967296,4294967296],\"data_offsets\":[0,0]}}", 0,
         "the product of its shape overflows"},
        {"{\"a\":{\"dtype\":\"U8\",\"shape\":[9223372036854775807,2],\"data_offsets\":[0,8]}}", 8,
         "elements of U8 overflow"},
        {"{\"a\":{\"dtype\":\"F64\",\"shape\":[2305843009213693952],\"data_offsets\":[0,0]}}", 0,
         "elements of F64 overflow"},
        {"{\"a\":{\"dtype\":\"F4\",\"shape\":[3],\"data_offsets\":[0,2]}}", 2,
         "tensor a: 3 elements of F4 are not whole bytes"},
        {"{\"a\":{\"dtype\":\"F6_E2M3\",\"shape\":[2],\"data_offsets\":[0,2]}}", 2,
         "2 elements of F6_E2M3 are not whole bytes"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2]}}", 8, "tensor a: data_offsets is missing or not two integers"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":8}}", 8,
         "data_offsets is missing or not two integers"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0]}}", 8,
         "data_offsets is missing or not two integers"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8,8]}}", 8,
         "data_offsets is missing or not two integers"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8.0]}}", 8,
         "data_offsets is missing or not two integers"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[8,0]}}", 8,
         "tensor a: data_offsets [8, 0] are not a range"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[-8,0]}}", 8,
         "tensor a: data_offsets [-8, 0] are not a range"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}", 7,
         "tensor a: data_offsets [0, 8] run past the end; the file has 7 bytes"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[9223372036854775799,9223372036854775807]}}", 8,
         "run past the end"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[3],\"data_offsets\":[0,8]}}", 8,
         "tensor a: data_offsets [0, 8] hold 8 bytes, its shape of F32 takes 12"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[0],\"data_offsets\":[0,8]}}", 8,
         "hold 8 bytes, its shape of F32 takes 0"},
        {"{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8],\"crc\":1}}", 8,
         "tensor a: its entry has 4 keys"},
        {"{\"a\":" F32_2 ",\"b\":" F32_2 "}", 8, "they overlap"},
        {"{\"a\":{\"dtype\":\"U8\",\"shape\":[8],\"data_offsets\":[0,8]},\"b\":{\"dtype\":\"U8\",\"shape\":[8],\"data_"
         "offsets\":[7,15]}}",
         15, "tensor b: starts at byte 7 of the data, where a ends only at 8: they overlap"},
        {"{\"a\":{\"dtype\":\"U8\",\"shape\":[8],\"data_offsets\":[0,8]},\"b\":{\"dtype\":\"U8\",\"shape\":[0],\"data_"
         "offsets\":[4,4]}}",
         8, "tensor b: starts at byte 4"},
        {"{\"a\":{\"dtype\":\"U8\",\"shape\":[8],\"data_offsets\":[0,8]},\"b\":{\"dtype\":\"U8\",\"shape\":[4],\"data_"
         "offsets\":[9,13]}}",
         13, "tensor b: starts at byte 9 of the data, want 8: the bytes between belong to no tensor"},
        {"{\"a\":{\"dtype\":\"U8\",\"shape\":[8],\"data_offsets\":[1,9]}}", 9,
         "tensor a: starts at byte 1 of the data, want 0"},
        {"{\"a\":" F32_2 "}", 11, "the file goes on for 3 bytes after its last tensor"},
        {"{}", 1, "the file goes on for 1 bytes"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        bytes f = make_file(cases[i].header, cases[i].data);
        assert_refused(f.data, f.size, HT_ERR_FORMAT, cases[i].words);
        free(f.data);
    }
}

static void eight_dimensions_are_the_most(void **state)
{
    bytes eight = make_file("{\"a\":{\"dtype\":\"U8\",\"shape\":[1,1,1,1,1,1,1,2],\"data_offsets\":[0,2]}}", 2);
    bytes nine = make_file("{\"a\":{\"dtype\":\"U8\",\"shape\":[1,1,1,1,1,1,1,1,2],\"data_offsets\":[0,2]}}", 2);
    ht_safetensors *st = NULL;
    (void)state;
    assert_int_equal(ht_safetensors_parse(eight.data, eight.size, "m", &st), HT_OK);
    assert_int_equal(ht_safetensors_at(st, 0)->ndim, 8);
    ht_safetensors_close(st);
    assert_refused(nine.data, nine.size, HT_ERR_UNSUPPORTED, "tensor a: has 9 dimensions; this version knows up to 8");
    free(eight.data);
    free(nine.data);
}

static void nesting_does_not_exhaust_the_stack(void **state)
{
    enum { DEPTH = 1 << 20 };
    char *header = malloc(DEPTH + 1);
    (void)state;
    assert_non_null(header);
    memset(header, '[', DEPTH);
    header[DEPTH] = '\0';
    memcpy(header, "{\"a\":", 5);
    bytes f = make_file(header, 0);
    assert_refused(f.data, f.size, HT_ERR_FORMAT, "depth");
    free(f.data);
    free(header);
}

static void long_names_do_not_push_the_reason_out(void **state)
{
    char header[5000] = "{\"";
    (void)state;
    memset(header + 2, 'n', 4000);
    strcpy(header + 4002, "\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,9]}}");
    bytes f = make_file(header, 9);
    assert_refused(f.data, f.size, HT_ERR_FORMAT, "hold 9 bytes, its shape of F32 takes 8");
    free(f.data);
}

static void thousands_of_tensors_are_found(void **state)
{
    enum { N = 30000 };
    size_t size = 100 * N, used = 1;
    char *header = malloc(size), name[16];
    ht_safetensors *st = NULL;
    (void)state;
    assert_non_null(header);
    header[0] = '{';
    for (int i = 0; i < N; i++) /* names fall, offsets rise */
        used += (size_t)snprintf(header + used, size - used,
                                 "%s\"%06d\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[%d,%d]}", i ? "," : "",
                                 N - 1 - i, i, i + 1);
    strcpy(header + used, "}");
    bytes f = make_file(header, N);
    if (ht_safetensors_parse(f.data, f.size, "m", &st) != HT_OK)
        fail_msg("%s", ht_error_message());
    assert_int_equal(ht_safetensors_count(st), N);
    for (int i = 0; i < N; i++) {
        snprintf(name, sizeof name, "%06d", i);
        const ht_tensor *t = ht_safetensors_find(st, name);
        assert_ptr_equal(t, ht_safetensors_at(st, (size_t)i));
        assert_int_equal(*(const unsigned char *)t->data, (N - 1 - i) & 255);
    }
    ht_safetensors_close(st);
    free(f.data);
    free(header);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_sound_file_is_read),
        cmocka_unit_test(a_file_without_tensors_is_sound),
        cmocka_unit_test(a_file_cut_anywhere_is_refused),
        cmocka_unit_test(any_damaged_byte_is_safe),
        cmocka_unit_test(wrong_lengths_of_the_header_are_refused),
        cmocka_unit_test(each_kind_of_damage_has_its_message),
        cmocka_unit_test(eight_dimensions_are_the_most),
        cmocka_unit_test(nesting_does_not_exhaust_the_stack),
        cmocka_unit_test(long_names_do_not_push_the_reason_out),
        cmocka_unit_test(thousands_of_tensors_are_found),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
