/* test_cuda.c - what a program says that has no GPU, or no module for it: one line, and the CPU where that is asked
 * for. */
#include <string.h>

#include "tests/tensors.h"

static void what_is_missing_is_one_line(void **state)
{
    (void)state;
    ht_model *m;
    ht_session *s;
    assert_ok(ht_model_open("models/cifar10-w4a8", NULL, &m));
    assert_int_equal(ht_session_open(m, &(ht_session_options){.backend = "cuda"}, &s), HT_ERR_UNSUPPORTED);
    const char *words = ht_error_message();
    assert_true(strstr(words, "make cuda") || strstr(words, "--backend cpu"));
    assert_null(strchr(words, '\n'));
    ht_model_close(m);
}

static void auto_takes_the_cpu_where_there_is_no_gpu(void **state)
{
    (void)state;
    ht_model *m;
    ht_session *s;
    ht_session_info info;
    assert_ok(ht_model_open("models/cifar10-w4a8", NULL, &m));
    assert_ok(ht_session_open(m, &(ht_session_options){.backend = "auto"}, &s));
    ht_session_get_info(s, &info);
    assert_string_equal(info.backend, "cpu");
    ht_session_close(s);
    ht_model_close(m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_missing_is_one_line),
        cmocka_unit_test(auto_takes_the_cpu_where_there_is_no_gpu),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
