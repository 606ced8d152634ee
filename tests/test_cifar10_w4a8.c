/* test_cifar10_w4a8.c - the quantized model that comes with Halftone: what its card promises. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/stat.h>

#include <cmocka.h>

#include "cpu/cpu.h"
#include "eval/psnr.h"
#include "halftone.h"

enum { PIXELS = 32 * 32 * 3, IMAGES = 3, STEPS = 10 };

static ht_model *quantized;

static int open_models(void **state)
{
    (void)state;
    return ht_model_open("models/cifar10-w4a8", NULL, &quantized) != HT_OK;
}

static int close_models(void **state)
{
    (void)state;
    ht_model_close(quantized);
    return 0;
}

static void draw(ht_model *model, int batch, int threads, const char *isa, int steps, int n, float *images)
{
    ht_session *s;
    if (ht_session_open(model, &(ht_session_options){.batch = batch, .threads = threads, .isa = isa}, &s) ||
        ht_sample(s, &(ht_sample_options){.steps = steps, .seed = 11}, 0, n, images))
        fail_msg("%s", ht_error_message());
    ht_session_close(s);
}

static void its_images_are_near_those_of_the_model_of_floats(void **state)
{
    (void)state;
    static float have[IMAGES * PIXELS], want[IMAGES * PIXELS];
    ht_model *floats;
    ht_psnr p;
    assert_int_equal(ht_model_open("models/cifar10", NULL, &floats), HT_OK);
    draw(quantized, IMAGES, 0, NULL, STEPS, IMAGES, have);
    draw(floats, IMAGES, 0, NULL, STEPS, IMAGES, want);
    ht_model_close(floats);
    assert_int_equal(ht_psnr_images(IMAGES, PIXELS, want, have, &p), HT_OK);
    print_message("%.2f dB\n", p.pooled);
    assert_true(p.pooled > 36);
}

static void images_are_the_same_on_every_instruction_set(void **state)
{
    (void)state;
    static float have[PIXELS], want[PIXELS];
    int compared = 0;
    draw(quantized, 1, 1, ht_isa_name(HT_ISA_AVX2 <= ht_cpu_detect() ? HT_ISA_AVX2 : HT_ISA_SCALAR), 2, 1, want);
    for (int isa = HT_ISA_AVX2 + 1; isa <= (int)ht_cpu_detect(); isa++, compared++) {
        draw(quantized, 1, 2, ht_isa_name((ht_isa)isa), 2, 1, have);
        assert_memory_equal(have, want, sizeof want);
    }
    print_message("%d instruction sets compared with avx2\n", compared);
}

static void images_are_the_same_at_any_batch_size_and_thread_count(void **state)
{
    (void)state;
    static float have[IMAGES * PIXELS], want[IMAGES * PIXELS];
    draw(quantized, 1, 1, NULL, 2, IMAGES, want);
    for (int batch = 1; batch <= IMAGES; batch++)
        for (int threads = 1; threads <= 3; threads++) {
            draw(quantized, batch, threads, NULL, 2, IMAGES, have);
            assert_memory_equal(have, want, sizeof want);
        }
}

static void it_is_at_most_three_tenths_of_the_float16_file(void **state)
{
    (void)state;
    struct stat small, large;
    ht_model_info info;
    assert_int_equal(stat("models/cifar10-w4a8/unet/diffusion_pytorch_model.safetensors", &small), 0);
    assert_int_equal(stat("models/cifar10/unet/diffusion_pytorch_model.safetensors", &large), 0);
    ht_model_get_info(quantized, &info);
    assert_true((double)small.st_size <= 0.30 * (double)large.st_size);
    assert_true(info.average_bits <= 4.7);
    assert_int_equal(info.layers, 111); /* of 113: the first and the last stay */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(its_images_are_near_those_of_the_model_of_floats),
        cmocka_unit_test(images_are_the_same_on_every_instruction_set),
        cmocka_unit_test(images_are_the_same_at_any_batch_size_and_thread_count),
        cmocka_unit_test(it_is_at_most_three_tenths_of_the_float16_file),
    };
    return cmocka_run_group_tests(tests, open_models, close_models);
}
