/* test_t5_tokenizer.c - T5's tokenizer: every recorded string exactly, models that are damaged, rows as pipelines feed
 * them. */
#include "core/file.h"
#include "tests/folder.h"
#include "tests/goldens.h"
#include "text/spiece.h"
#include "text/t5_tokenizer.h"

#define FOLDER GOLDENS "/t5-tokenizer"

static ht_t5_tokenizer *t5;

static int open_t5(void **state)
{
    (void)state;
    if (!ht_t5_tokenizer_open(FOLDER, &t5))
        return make_folder(state);
    print_message("%s\n", ht_error_message());
    return -1;
}

static int close_t5(void **state)
{
    ht_t5_tokenizer_close(t5);
    return remove_folder(state);
}

static void check_row(const json_t *row)
{
    const json_t *text = json_object_get(row, "text"), *want = json_object_get(row, "ids");
    const char *s = json_string_value(text);
    ht_ids ids = {0};
    assert_ok(ht_t5_tokenize(t5, s, json_string_length(text), &ids));
    assert_ok(ht_ids_add(&ids, ht_t5_tokenizer_tokens(t5)->end));
    if (json_array_size(want) != ids.n)
        fail_msg("\"%.60s\": %zu ids, want %zu", s, ids.n, json_array_size(want));
    for (size_t i = 0; i < ids.n; i++)
        if (json_integer_value(json_array_get(want, i)) != ids.at[i])
            fail_msg("\"%.60s\": id %zu is %d, want %d", s, i, ids.at[i],
                     (int)json_integer_value(json_array_get(want, i)));
    ht_ids_free(&ids);
}

static void ids_are_those_of_the_library(void **state)
{
    (void)state;
    size_t i;
    json_error_t error;
    json_t *row, *rows = json_load_file(GOLDENS "/tokenizer/t5/golden.json", JSON_ALLOW_NUL, &error);
    if (!json_is_array(rows))
        fail_msg("golden.json: %s", error.text);
    json_array_foreach(rows, i, row) check_row(row);
    assert_int_equal(i, 63);
    json_decref(rows);
}

static void rows_end_are_padded_and_cut(void **state)
{
    (void)state;
    enum { LENGTH = 6 };
    static const int32_t padded[LENGTH] = {9, 113, 1, 0, 0, 0}, full[LENGTH] = {9, 113, 100, 286, 38, 1};
    static const char cat[] = "a photo of a cat";
    int32_t row[LENGTH];
    float mask[LENGTH];
    size_t cut;
    assert_ok(ht_t5_encode(t5, "a p", 3, LENGTH, row, mask, &cut));
    assert_memory_equal(row, padded, sizeof row);
    for (int i = 0; i < LENGTH; i++)
        assert_int_equal(mask[i] > 0, i < 3);
    assert_int_equal(cut, 0);
    assert_ok(ht_t5_encode(t5, cat, sizeof cat - 1, LENGTH, row, mask, &cut));
    assert_memory_equal(row, full, sizeof row);
    assert_int_equal(cut, 4);
    assert_refused(ht_t5_encode(t5, cat, 1, 0, row, mask, &cut), HT_ERR_ARGUMENT, "a row of 0 tokens");
}

static void text_that_is_not_utf8_is_refused_with_the_byte(void **state)
{
    (void)state;
    ht_ids ids = {0};
    assert_refused(ht_t5_tokenize(t5, "</s>ab\xff", 7, &ids), HT_ERR_ARGUMENT, "0xff at offset 6");
    ht_ids_free(&ids);
}

/* Where spaces may be anywhere, and words as long as a text. */
static void long_words_take_time_that_is_linear(void **state)
{
    (void)state;
    enum { SIZE = 200000 };
    char *text = malloc(SIZE);
    ht_ids ids = {0};
    assert_non_null(text);
    memset(text, 'a', SIZE);
    assert_ok(ht_t5_tokenize(t5, text, SIZE, &ids));
    assert_true(ids.n > SIZE / 32 && ids.n <= SIZE + 1);
    ht_ids_free(&ids);
    free(text);
}

/* Every beginning of the file, and the file with each of its first bytes changed: a message or a tokenizer, no more. */
static void damaged_models_are_refused_or_read(void **state)
{
    (void)state;
    enum { CHANGED = 400 };
    ht_mapping file;
    assert_ok(ht_map_file(GOLDENS "/pipeline/pixart-alpha/tokenizer/spiece.model", &file));
    unsigned char *copy = malloc(file.size);
    int refused = 0;
    assert_non_null(copy);
    for (size_t i = 0; i < CHANGED; i++) {
        ht_t5_tokenizer *t;
        size_t size = i % 2 ? file.size : file.size * i / CHANGED;
        memcpy(copy, file.data, file.size);
        copy[i] ^= i % 2 ? 0x80 >> i / 2 % 8 : 0;
        if (ht_t5_tokenizer_parse(copy, size, 100, &t)) {
            assert_true(*ht_error_message());
            refused++;
            continue;
        }
        ht_ids ids = {0};
        ht_status status = ht_t5_tokenize(t, "a photo of a cat", 16, &ids);
        assert_true(!status || *ht_error_message());
        ht_ids_free(&ids);
        ht_t5_tokenizer_close(t);
    }
    assert_true(refused > CHANGED / 4);
    free(copy);
    ht_unmap_file(&file);
}

static void other_kinds_of_models_are_named(void **state)
{
    (void)state;
    ht_t5_tokenizer *t;
    /* a piece "a" of score 0; trainer_spec with model_type 2 (BPE), or byte_fallback */
    static const unsigned char bpe[] = {0x0a, 3, 0x0a, 1, 'a', 0x12, 2, 0x18, 2};
    static const unsigned char fallback[] = {0x0a, 3, 0x0a, 1, 'a', 0x12, 3, 0x98, 2, 1};
    static const unsigned char plain[] = {0x0a, 3, 0x0a, 1, 'a'},
                               twice[] = {0x0a, 3, 0x0a, 1, 'a', 0x0a, 3, 0x0a, 1, 'a'};
    assert_refused(ht_t5_tokenizer_parse(bpe, sizeof bpe, 100, &t), HT_ERR_UNSUPPORTED, "another kind than unigram");
    assert_refused(ht_t5_tokenizer_parse(fallback, sizeof fallback, 100, &t), HT_ERR_UNSUPPORTED, "byte_fallback");
    assert_refused(ht_t5_tokenizer_parse(plain, sizeof plain, 100, &t), HT_ERR_FORMAT, "no piece <pad>");
    assert_refused(ht_t5_tokenizer_parse(twice, sizeof twice, 100, &t), HT_ERR_FORMAT, "are the same");
    assert_refused(ht_t5_tokenizer_open(in_folder("none"), &t), HT_ERR_IO, "spiece.model");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ids_are_those_of_the_library),
        cmocka_unit_test(rows_end_are_padded_and_cut),
        cmocka_unit_test(text_that_is_not_utf8_is_refused_with_the_byte),
        cmocka_unit_test(long_words_take_time_that_is_linear),
        cmocka_unit_test(damaged_models_are_refused_or_read),
        cmocka_unit_test(other_kinds_of_models_are_named),
    };
    return cmocka_run_group_tests(tests, open_t5, close_t5);
}
