/* Tiles of products on a GPU: a plain function of a shape, so it is held here, where there is none. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "cuda/pick.h"

static const int rows_of_images[] = {1, 16, 64, 77, 256, 1024, 4096, 16384};

/* Sums of floats are joined by split: were it another number in a larger batch, so would be the pixels. */
static void splits_do_not_depend_on_the_batch(void **state)
{
    (void)state;
    for (size_t r = 0; r < sizeof rows_of_images / sizeof *rows_of_images; r++)
        for (int groups = 1; groups <= 160; groups = groups * 3 / 2 + 1)
            for (int stages = 1; stages <= 200; stages = stages * 2 + 1)
                for (int hopper = 0; hopper < 2; hopper++) {
                    ht_pick_shape s = {.rows = rows_of_images[r],
                                       .rows_per_image = rows_of_images[r],
                                       .groups = groups,
                                       .stages = stages,
                                       .hopper = hopper,
                                       .multiprocessors = 132};
                    int splits = ht_pick_product(&s).splits;
                    assert_true(splits >= 1 && splits <= HT_PICK_SPLITS && splits <= stages);
                    for (int images = 2; images <= 9; images++) {
                        s.rows = images * s.rows_per_image;
                        ht_pick pick = ht_pick_product(&s);
                        assert_int_equal(pick.splits, splits);
                        assert_int_equal(pick.tile >= HT_TILE_128x128_WG, hopper);
                    }
                }
}

/* Chains of floats over segments cannot be cut, and with them only the smallest tile fits a warpgroup's registers. */
static void segments_are_not_split(void **state)
{
    (void)state;
    ht_pick_shape s = {.rows = 8192,
                       .rows_per_image = 64,
                       .groups = 20,
                       .stages = 90,
                       .folds = 1,
                       .hopper = 1,
                       .multiprocessors = 132};
    assert_int_equal(ht_pick_product(&s).splits, 1);
    assert_int_equal(ht_pick_product(&s).tile, HT_TILE_128x128_WG);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(splits_do_not_depend_on_the_batch),
        cmocka_unit_test(segments_are_not_split),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
