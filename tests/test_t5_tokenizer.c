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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ids_are_those_of_the_library),
    };
    return cmocka_run_group_tests(tests, open_t5, close_t5);
}
