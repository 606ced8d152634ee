/* test_dit.c - DiT and PixArt against what diffusers and facebookresearch/DiT computed: every case of
 * tests/goldens/index.json that is one, through the public API, at the case's own tolerance; which stage makes what;
 * configurations and models that are refused. */
#include "dit/dit.h"
#include "graph/backend.h"
#include "sampler/session.h"
#include "tests/predictions.h"

#define DIT    GOLDENS "/dit/dit"
#define ALPHA  GOLDENS "/dit/pixart-alpha"
#define SIGMA  GOLDENS "/dit/pixart-sigma"
#define DIT_P2 GOLDENS "/dit_original/dit-p2"

static void for_each_case(void (*checked)(const evaluation *))
{
    check = checked;
    evaluations = 0;
    assert_int_equal(golden_each("dit", NULL, for_each_evaluation_of), 3);
    assert_int_equal(golden_each("dit_original", NULL, for_each_evaluation_of), 2);
    assert_int_equal(evaluations, 5 + 6 + 6 + 2 * 5);
}

static void predictions_are_those_of_diffusers_and_facebook(void **state)
{
    (void)state;
    for_each_case(check_close);
}

static void predictions_do_not_depend_on_batch_threads_or_instructions(void **state)
{
    (void)state;
    for_each_case(check_batches);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(predictions_are_those_of_diffusers_and_facebook),
        cmocka_unit_test(predictions_do_not_depend_on_batch_threads_or_instructions),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
