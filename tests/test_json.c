/* test_json.c - configuration files: what is wrong is named, what is right is typed. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "core/json.h"
#include "tests/folder.h"

static void assert_says(const char *words)
{
    if (!strstr(ht_error_message(), words))
        fail_msg("message is '%s', want '%s' in it", ht_error_message(), words);
}

static json_t *parse(const char *text)
{
    json_t *root = NULL;
    if (ht_json_parse(text, strlen(text), "config.json", &root) != HT_OK)
        fail_msg("%s", ht_error_message());
    return root;
}

/* ---- parsing ---- */

static void damaged_text_is_refused_with_its_place(void **state)
{
    static const struct {
        const char *text, *words;
    } cases[] = {
        {"", "config.json: is not JSON"},
        {" ", "is not JSON"},
        {"{", "is not JSON"},
        {"[1]", "is a JSON array, want an object"},
        {"3", "is not JSON"},
        {"null", "is not JSON"},
        {"{\"a\": 1,}", "line 1, column 9"},
        {"{\n\"a\": x}", "line 2, column 6"},
        {"{\"a\": 1} {", "end of file expected"},
        {"{\"a\": \"\xff\"}", "config.json: is not UTF-8: unable to decode byte 0xff"},
        {"{\"a\": \"\\u0000\"}", "\\u0000"},
        {"{\"a\": 01}", "is not JSON"},
        {"{\"a\": 123456789012345678901234567890}", "too big integer"},
        {"{\"a\": 1e999}", "real number overflow"},
        {"{\"a\": Inf}", "is not JSON"},
        {"{\"a\": +Infinity}", "is not JSON"},
        {"{NaN: 1", "is not JSON"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        json_t *root = NULL;
        ht_status status = ht_json_parse(cases[i].text, strlen(cases[i].text), "config.json", &root);
        if (status != HT_ERR_FORMAT || root)
            fail_msg("'%s' gives status %d", cases[i].text, status);
        assert_says(cases[i].words);
    }
}

static void a_name_given_twice_is_named(void **state)
{
    json_t *root = NULL;
    const char *deep =
        "{\"a\": {\"down_blocks.0.resnets.0.conv1.weight\": 1, \"down_blocks.0.resnets.0.conv1.weight\" : 2}}";
    const char *quoted = "{\"a\\\"b\": 1, \"a\\\"b\": 2}";
    (void)state;
    assert_int_equal(ht_json_parse(deep, strlen(deep), "x", &root), HT_ERR_FORMAT);
    assert_says("x: the name \"down_blocks.0.resnets.0.conv1.weight\" is given twice");
    assert_int_equal(ht_json_parse(quoted, strlen(quoted), "x", &root), HT_ERR_FORMAT);
    assert_says("x: the name \"a\\\"b\" is given twice");
    assert_null(root);
}

static void depth_is_limited(void **state)
{
    enum { DEPTH = 1000000 };
    static const char start[5] = {'{', '"', 'a', '"', ':'};
    char *text = malloc(DEPTH + 5);
    json_t *root = NULL;
    (void)state;
    assert_non_null(text);
    memset(text, '[', DEPTH + 5);
    memcpy(text, start, sizeof start);
    assert_int_equal(ht_json_parse(text, DEPTH + 5, "x", &root), HT_ERR_FORMAT);
    assert_says("depth");
    free(text);
}

static void words_of_python_can_be_read_over_but_are_no_numbers(void **state)
{
    const char *text = "{\"lambda_min_clipped\": -Infinity, \"b\": [NaN,Infinity], \"NaN \\\" Infinity\": "
                       "\"-Infinity\", \"beta\": 0.5}";
    json_t *root = parse(text);
    ht_json j = {.object = root, .where = "scheduler_config.json"};
    double x[2];
    (void)state;
    assert_true(ht_json_real(&j, "beta", 0) == 0.5);
    assert_string_equal(ht_json_string(&j, "NaN \" Infinity", ""), "-Infinity");
    assert_true(ht_json_real(&j, "lambda_min_clipped", 3) == 3);
    assert_int_equal(j.status, HT_ERR_FORMAT);
    assert_says("scheduler_config.json: lambda_min_clipped is \"-Infinity\", want a finite number");
    j.status = HT_OK;
    assert_int_equal(ht_json_reals(&j, "b", x, 2), 0);
    assert_int_equal(j.status, HT_ERR_FORMAT);
    json_decref(root);
    assert_int_equal(ht_json_parse_strict(text, strlen(text), "x", &root), HT_ERR_FORMAT);
}

static void files_are_read_with_their_path_in_messages(void **state)
{
    json_t *root = NULL;
    (void)state;
    put_file("good.json", "{\"a\": 1}", 8);
    put_file("bad.json", "{\"a\": 1", 7);
    put_file("empty.json", "", 0);
    assert_int_equal(ht_json_read(in_folder("good.json"), &root), HT_OK);
    assert_int_equal(json_object_size(root), 1);
    json_decref(root);
    assert_int_equal(ht_json_read(in_folder("bad.json"), &root), HT_ERR_FORMAT);
    assert_says("bad.json: is not JSON");
    assert_int_equal(ht_json_read(in_folder("empty.json"), &root), HT_ERR_FORMAT);
    assert_int_equal(ht_json_read(in_folder("absent.json"), &root), HT_ERR_IO);
    assert_says("absent.json");
    assert_int_equal(ht_json_read(folder, &root), HT_ERR_IO);
}

static void a_file_beyond_64_mib_is_refused(void **state)
{
    json_t *root = NULL;
    (void)state;
    put_file("big.json", "{}", 2);
    assert_int_equal(truncate(in_folder("big.json"), (64 << 20) + 1), 0);
    assert_int_equal(ht_json_read(in_folder("big.json"), &root), HT_ERR_FORMAT);
    assert_says("64 MiB");
}

/* ---- typed access ---- */

static const char *const modes[] = {"leading", "trailing", NULL};

static void right_types_are_read(void **state)
{
    json_t *root =
        parse("{\"b\": true, \"f\": false, \"i\": -3, \"r\": 1e-5, \"one\": 1, \"s\": \"x\", \"m\": \"trailing\","
              " \"is\": [1, 2], \"rs\": [1, 0.5], \"ms\": [\"trailing\", \"leading\"], \"none\": []}");
    ht_json j = {.object = root, .where = "config.json"};
    int is[2];
    double rs[2];
    (void)state;
    assert_true(ht_json_bool(&j, "b", false));
    assert_false(ht_json_bool(&j, "f", true));
    assert_int_equal(ht_json_int(&j, "i", 0, -3, -3), -3);
    assert_true(ht_json_real(&j, "r", 0) == 1e-5);
    assert_true(ht_json_real(&j, "one", 0) == 1);
    assert_string_equal(ht_json_string(&j, "s", NULL), "x");
    assert_int_equal(ht_json_choice(&j, "m", 0, modes), 1);
    assert_int_equal(ht_json_ints(&j, "is", is, 2, 1, 2), 2);
    assert_true(is[0] == 1 && is[1] == 2);
    assert_int_equal(ht_json_reals(&j, "rs", rs, 2), 2);
    assert_true(rs[0] == 1 && rs[1] == 0.5);
    assert_int_equal(ht_json_choices(&j, "ms", is, 2, modes), 2);
    assert_true(is[0] == 1 && is[1] == 0);
    assert_int_equal(ht_json_ints(&j, "none", NULL, 0, 0, 0), 0);
    assert_int_equal(j.status, HT_OK);
    json_decref(root);
}

static void absent_and_null_give_the_fallback(void **state)
{
    static const char *const keys[] = {"absent", "null"};
    json_t *root = parse("{\"null\": null}");
    ht_json j = {.object = root, .where = "config.json"};
    int i = 7;
    double x = 7;
    (void)state;
    for (int k = 0; k < 2; k++) {
        assert_true(ht_json_bool(&j, keys[k], true));
        assert_int_equal(ht_json_int(&j, keys[k], 99, 0, 1), 99);
        assert_true(isinf(ht_json_real(&j, keys[k], INFINITY)));
        assert_null(ht_json_string(&j, keys[k], NULL));
        assert_int_equal(ht_json_choice(&j, keys[k], -1, modes), -1);
        assert_int_equal(ht_json_ints(&j, keys[k], &i, 1, 0, 1), 0);
        assert_int_equal(ht_json_reals(&j, keys[k], &x, 1), 0);
        assert_int_equal(ht_json_choices(&j, keys[k], &i, 1, modes), 0);
    }
    assert_int_equal(j.status, HT_OK);
    assert_true(i == 7 && x == 7);
    json_decref(root);
}

enum { BOOL, INT, REAL, STRING, CHOICE, INTS, REALS, CHOICES };

static void call(ht_json *j, int reader)
{
    int is[2];
    double rs[2];
    switch (reader) {
    case BOOL:
        assert_true(ht_json_bool(j, "k", true));
        break;
    case INT:
        assert_int_equal(ht_json_int(j, "k", 99, 0, 10), 99);
        break;
    case REAL:
        assert_true(ht_json_real(j, "k", 99) == 99);
        break;
    case STRING:
        assert_string_equal(ht_json_string(j, "k", "fallback"), "fallback");
        break;
    case CHOICE:
        assert_int_equal(ht_json_choice(j, "k", 99, modes), 99);
        break;
    case INTS:
        assert_int_equal(ht_json_ints(j, "k", is, 2, 0, 10), 0);
        break;
    case REALS:
        assert_int_equal(ht_json_reals(j, "k", rs, 2), 0);
        break;
    default:
        assert_int_equal(ht_json_choices(j, "k", is, 2, modes), 0);
    }
}

static void wrong_types_name_key_value_and_wish(void **state)
{
    static const struct {
        int reader;
        const char *value, *words;
    } cases[] = {
        {BOOL, "1", "config.json: k is 1, want true or false"},
        {BOOL, "\"true\"", "k is \"true\", want true or false"},
        {INT, "-1", "k is -1, want an integer from 0 to 10"},
        {INT, "11", "k is 11, want an integer from 0 to 10"},
        {INT, "4294967297", "k is 4294967297, want"},
        {INT, "-9223372036854775808", "want an integer from 0 to 10"},
        {INT, "2.0", "k is 2.0, want an integer"},
        {INT, "true", "k is true, want an integer"},
        {INT, "[1]", "k is [1], want an integer"},
        {REAL, "\"1\"", "k is \"1\", want a finite number"},
        {REAL, "{\"a\":{}}", "k is {\"a\":{}}, want a finite number"},
        {STRING, "3", "k is 3, want a string"},
        {STRING, "[\"x\"]", "want a string"},
        {CHOICE, "\"linspace\"", "config.json: k \"linspace\" is not supported; this version knows leading, trailing"},
        {CHOICE, "3", "k 3 is not supported; this version knows leading, trailing"},
        {INTS, "3", "k is 3, want an array of at most 2"},
        {INTS, "[1,2,3]", "k is [1,2,3], want an array of at most 2"},
        {INTS, "[1,\"2\"]", "k is \"2\", want an integer from 0 to 10"},
        {INTS, "[1,null]", "k is null, want an integer"},
        {REALS, "[1,true]", "k is true, want a finite number"},
        {REALS, "{}", "k is {}, want an array of at most 2"},
        {CHOICES, "[\"leading\",\"x\"]", "k \"x\" is not supported; this version knows leading, trailing"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char text[100];
        snprintf(text, sizeof text, "{\"k\": %s}", cases[i].value);
        json_t *root = parse(text);
        ht_json j = {.object = root, .where = "config.json"};
        call(&j, cases[i].reader);
        assert_true(j.status == HT_ERR_FORMAT || j.status == HT_ERR_UNSUPPORTED);
        assert_says(cases[i].words);
        json_decref(root);
    }
}

static void long_values_are_cut_in_messages(void **state)
{
    char text[2000];
    (void)state;
    for (int container = 0; container < 2; container++) {
        snprintf(text, sizeof text, container ? "{\"k\": [1, \"%01900d\"]}" : "{\"k\": \"%01900d\"}", 1);
        json_t *root = parse(text);
        ht_json j = {.object = root, .where = "config.json"};
        assert_int_equal(ht_json_int(&j, "k", 5, 0, 9), 5);
        assert_says("...");
        assert_says("want an integer from 0 to 9");
        assert_true(strlen(ht_error_message()) < 200);
        json_decref(root);
    }
}

static void the_first_failure_sticks(void **state)
{
    json_t *root = parse("{\"a\": \"x\", \"b\": 1, \"c\": \"y\"}");
    ht_json j = {.object = root, .where = "config.json"};
    int i = 7;
    (void)state;
    assert_int_equal(ht_json_int(&j, "a", 5, 0, 9), 5);
    assert_int_equal(ht_json_int(&j, "b", 5, 0, 9), 5);
    assert_int_equal(ht_json_int(&j, "c", 5, 0, 9), 5);
    assert_int_equal(ht_json_ints(&j, "b", &i, 1, 0, 9), 0);
    assert_int_equal(j.status, HT_ERR_FORMAT);
    assert_says("config.json: a is \"x\"");
    json_decref(root);
}

static void keys_that_are_not_listed_are_named(void **state)
{
    static const char *const keys[] = {"a", "b", NULL};
    json_t *root = parse("{\"a\": 1, \"_c\": 2, \"d\": null}");
    ht_json j = {.object = root, .where = "config.json"};
    (void)state;
    ht_json_allow(&j, "UNet2DModel", keys);
    assert_int_equal(j.status, HT_OK);
    json_object_set_new(root, "d", json_integer(3));
    ht_json_allow(&j, "UNet2DModel", keys);
    assert_int_equal(j.status, HT_ERR_UNSUPPORTED);
    assert_says("config.json: d is not a setting of UNet2DModel");
    json_decref(root);
}

static void what_exists_in_one_way_is_refused_in_the_other(void **state)
{
    json_t *root = parse("{\"yes\": true, \"no\": false}");
    ht_json j = {.object = root, .where = "config.json"};
    (void)state;
    ht_json_only(&j, "yes", true);
    ht_json_only(&j, "no", false);
    ht_json_only(&j, "absent", true);
    assert_int_equal(j.status, HT_OK);
    ht_json_only(&j, "no", true);
    assert_int_equal(j.status, HT_ERR_UNSUPPORTED);
    assert_says("config.json: no false is not supported; this version knows true");
    json_decref(root);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(damaged_text_is_refused_with_its_place),
        cmocka_unit_test(a_name_given_twice_is_named),
        cmocka_unit_test(depth_is_limited),
        cmocka_unit_test(words_of_python_can_be_read_over_but_are_no_numbers),
        cmocka_unit_test_setup_teardown(files_are_read_with_their_path_in_messages, make_folder, remove_folder),
        cmocka_unit_test_setup_teardown(a_file_beyond_64_mib_is_refused, make_folder, remove_folder),
        cmocka_unit_test(right_types_are_read),
        cmocka_unit_test(absent_and_null_give_the_fallback),
        cmocka_unit_test(wrong_types_name_key_value_and_wish),
        cmocka_unit_test(long_values_are_cut_in_messages),
        cmocka_unit_test(the_first_failure_sticks),
        cmocka_unit_test(keys_that_are_not_listed_are_named),
        cmocka_unit_test(what_exists_in_one_way_is_refused_in_the_other),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
