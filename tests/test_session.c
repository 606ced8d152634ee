/* Sessions: an image depends on (model, seed, settings) alone, and the sampling loop allocates nothing.
 * Linked with --wrap of the allocator (Makefile), so that allocations can be counted. */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "cpu/cpu.h"
#include "sampler/session.h"

enum { SIDE = 32, PIXELS = SIDE * SIDE * 3 };

static _Atomic long allocations;
void *__real_malloc(size_t size);
void *__real_calloc(size_t n, size_t size);
void *__real_realloc(void *p, size_t size);
void *__real_aligned_alloc(size_t align, size_t size);
void *__wrap_malloc(size_t size);
void *__wrap_calloc(size_t n, size_t size);
void *__wrap_realloc(void *p, size_t size);
void *__wrap_aligned_alloc(size_t align, size_t size);

void *__wrap_malloc(size_t size)
{
    allocations++;
    return __real_malloc(size);
}

void *__wrap_calloc(size_t n, size_t size)
{
    allocations++;
    return __real_calloc(n, size);
}

void *__wrap_realloc(void *p, size_t size)
{
    allocations++;
    return __real_realloc(p, size);
}

void *__wrap_aligned_alloc(size_t align, size_t size)
{
    allocations++;
    return __real_aligned_alloc(align, size);
}

static ht_model *model;

static int open_model(void **state)
{
    (void)state;
    return ht_model_open("models/cifar10", NULL, &model) != HT_OK;
}

static int close_model(void **state)
{
    (void)state;
    ht_model_close(model);
    return 0;
}

/* n images of seed 11 from `first` on, 2 steps. */
static float *sample(ht_session_options options, int64_t first, int64_t n, double eta)
{
    ht_session *s;
    float *images = malloc(sizeof *images * (size_t)n * PIXELS);
    assert_non_null(images);
    if (ht_session_open(model, &options, &s))
        fail_msg("%s", ht_error_message());
    if (ht_sample(s, &(ht_sample_options){.steps = 2, .seed = 11, .eta = eta}, first, n, images))
        fail_msg("%s", ht_error_message());
    ht_session_close(s);
    return images;
}

static void same_pixels_at_any_batch_size(void **state)
{
    (void)state;
    const struct {
        int batch;
        int64_t n;
    } runs[] = {{1, 1}, {1, 3}, {2, 5}, {3, 5}, {5, 5}, {64, 5}};
    float *want = sample((ht_session_options){.batch = 5}, 0, 5, 0.5);
    for (size_t i = 0; i < sizeof runs / sizeof *runs; i++) {
        float *got = sample((ht_session_options){.batch = runs[i].batch}, 0, runs[i].n, 0.5);
        assert_memory_equal(got, want, sizeof *got * (size_t)runs[i].n * PIXELS);
        free(got);
    }
    free(want);
}

static void image_i_is_the_same_whichever_image_is_first(void **state)
{
    (void)state;
    float *all = sample((ht_session_options){.batch = 4}, 0, 6, 0),
          *some = sample((ht_session_options){.batch = 3}, 2, 4, 0);
    assert_memory_equal(some, all + 2 * PIXELS, sizeof *some * 4 * PIXELS);
    free(all);
    free(some);
}

static void same_pixels_at_any_number_of_threads(void **state)
{
    (void)state;
    float *want = sample((ht_session_options){.batch = 3, .threads = 1}, 0, 3, 0.5);
    for (int threads = 2; threads <= 3; threads++) {
        float *got = sample((ht_session_options){.batch = 3, .threads = threads}, 0, 3, 0.5);
        assert_memory_equal(got, want, sizeof *got * 3 * PIXELS);
        free(got);
    }
    free(want);
}

/* Images that threads take alone, those that are left over for all together, and batches of fewer images than threads.
 */
static void same_values_whoever_takes_which_images(void **state)
{
    (void)state;
    enum { SMALL = 8 * 8 * 3, MOST = 7 };
    static float x[MOST * SMALL], want[MOST * SMALL], got[MOST * SMALL];
    const float t[MOST] = {321, 321, 321, 321, 321, 321, 321};
    const int batches[] = {1, 2, 3, 5, MOST};
    for (int i = 0; i < MOST * SMALL; i++)
        x[i] = (float)(i * 7919 % 1009) / 500 - 1;
    for (int threads = 1; threads <= 4; threads++)
        for (size_t b = 0; b < sizeof batches / sizeof *batches; b++) {
            ht_session *s;
            ht_session_options options = {.batch = batches[b], .threads = threads, .height = 8, .width = 8};
            if (ht_session_open(model, &options, &s))
                fail_msg("%s", ht_error_message());
            for (int n = 1; n <= MOST; n++) {
                float *out = threads == 1 && !b && n == MOST ? want : got;
                memset(out, 0, sizeof got);
                assert_int_equal(ht_predict(s, n, x, t, NULL, out), HT_OK);
                if ((threads > 1 || b) && memcmp(out, want, sizeof *out * (size_t)n * SMALL))
                    fail_msg("%d images in batches of %d by %d threads are others than one by one", n, batches[b],
                             threads);
            }
            ht_session_close(s);
        }
}

/* One evaluation at 8x8, where the scalar kernels take their time but not minutes. */
static void evaluate_small(const char *isa, float *out)
{
    ht_session *s;
    float x[8 * 8 * 3], t = 321;
    for (int i = 0; i < 8 * 8 * 3; i++)
        x[i] = (float)(i * 7919 % 1000) / 500 - 1;
    if (ht_session_open(model, &(ht_session_options){.height = 8, .width = 8, .isa = isa}, &s) ||
        ht_predict(s, 1, x, &t, NULL, out))
        fail_msg("%s", ht_error_message());
    ht_session_close(s);
}

static void same_bits_with_every_instruction_set(void **state)
{
    float want[8 * 8 * 3], got[8 * 8 * 3];
    (void)state;
    evaluate_small("scalar", want);
    for (int isa = HT_ISA_SCALAR + 1; isa <= (int)ht_cpu_detect(); isa++) {
        evaluate_small(ht_isa_name((ht_isa)isa), got);
        assert_memory_equal(got, want, sizeof got);
    }
    print_message("%d instruction sets compared with scalar, of %d\n", (int)ht_cpu_detect(), HT_ISAS - 1);
}

static void *sample_in_a_thread(void *images)
{
    ht_session *s;
    if (ht_session_open(model, &(ht_session_options){.batch = 2}, &s))
        return NULL;
    ht_status status = ht_sample(s, &(ht_sample_options){.steps = 2, .seed = 11}, 0, 2, images);
    ht_session_close(s);
    return status ? NULL : images;
}

static void sessions_of_one_model_run_side_by_side(void **state)
{
    (void)state;
    static float images[2][2 * PIXELS];
    float *want = sample((ht_session_options){.batch = 2}, 0, 2, 0);
    pthread_t threads[2];
    for (int i = 0; i < 2; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, sample_in_a_thread, images[i]), 0);
    for (int i = 0; i < 2; i++) {
        void *done;
        assert_int_equal(pthread_join(threads[i], &done), 0);
        assert_non_null(done);
        assert_memory_equal(images[i], want, sizeof images[i]);
    }
    free(want);
}

/* The model as it was built, op by op, and after fusion. */
static void fusion_changes_no_bit(void **state)
{
    (void)state;
    float x[PIXELS], out[2][PIXELS], t = 500;
    for (int i = 0; i < PIXELS; i++)
        x[i] = (float)(i * 7919 % 1000) / 500 - 1;
    for (int fuse = 0; fuse < 2; fuse++) {
        ht_session *s;
        assert_int_equal(ht_session_open_taps(model, NULL, NULL, fuse, &s), HT_OK);
        assert_int_equal(ht_predict(s, 1, x, &t, NULL, out[fuse]), HT_OK);
        ht_session_close(s);
    }
    assert_memory_equal(out[0], out[1], sizeof out[0]);
}

static void a_step_allocates_nothing(void **state)
{
    (void)state;
    ht_session *s;
    float x[2 * PIXELS] = {0}, out[2 * PIXELS], t[3] = {900, 500, 100};
    assert_int_equal(ht_session_open(model, &(ht_session_options){.batch = 2}, &s), HT_OK);
    assert_int_equal(ht_session_set_timesteps(s, 3, t), HT_OK);
    assert_int_equal(ht_session_set_cond(s, 2, NULL), HT_OK);
    assert_int_equal(ht_session_step(s, 0, x, out), HT_OK); /* the thread team is made here */
    long before = allocations;
    for (int i = 0; i < 3; i++)
        assert_int_equal(ht_session_step(s, i, x, out), HT_OK);
    assert_int_equal(ht_session_set_timesteps(s, 3, t), HT_OK);
    assert_int_equal(allocations, before);
    ht_session_close(s);
}

static void memory_of_a_run_does_not_grow_with_its_steps(void **state)
{
    (void)state;
    ht_session *s;
    float image[PIXELS];
    long few, many;
    assert_int_equal(ht_session_open(model, NULL, &s), HT_OK);
    assert_int_equal(ht_sample(s, &(ht_sample_options){.steps = 4}, 0, 1, image), HT_OK);
    few = allocations;
    assert_int_equal(ht_sample(s, &(ht_sample_options){.steps = 2}, 0, 1, image), HT_OK);
    few = allocations - few;
    many = allocations;
    assert_int_equal(ht_sample(s, &(ht_sample_options){.steps = 4}, 0, 1, image), HT_OK);
    many = allocations - many;
    assert_int_equal(few, many);
    ht_session_close(s);
}

static void options_out_of_range_are_named(void **state)
{
    (void)state;
    const struct {
        ht_session_options options;
        const char *words;
    } rows[] = {
        {{.batch = -1}, "batch -1"},         {{.threads = -2}, "threads -2"},       {{.height = 30}, "height 30"},
        {{.width = 100000}, "width 100000"}, {{.backend = "opencl"}, "\"opencl\""}, {{.isa = "sse9"}, "\"sse9\""},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        ht_session *s;
        assert_int_equal(ht_session_open(model, &rows[i].options, &s), HT_ERR_ARGUMENT);
        if (!strstr(ht_error_message(), rows[i].words))
            fail_msg("\"%s\" does not say %s", ht_error_message(), rows[i].words);
    }
}

static int stop_at_once(void *user, int64_t done, int64_t total)
{
    (void)done, (void)total;
    return ++*(int *)user;
}

static void a_progress_callback_can_stop_the_run(void **state)
{
    (void)state;
    ht_session *s;
    float image[PIXELS];
    int calls = 0;
    assert_int_equal(ht_session_open(model, NULL, &s), HT_OK);
    assert_int_equal(
        ht_sample(s, &(ht_sample_options){.steps = 10, .progress = stop_at_once, .user = &calls}, 0, 1, image),
        HT_ERR_CANCELLED);
    assert_int_equal(calls, 1);
    ht_session_close(s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(same_pixels_at_any_batch_size),
        cmocka_unit_test(image_i_is_the_same_whichever_image_is_first),
        cmocka_unit_test(same_pixels_at_any_number_of_threads),
        cmocka_unit_test(same_values_whoever_takes_which_images),
        cmocka_unit_test(same_bits_with_every_instruction_set),
        cmocka_unit_test(sessions_of_one_model_run_side_by_side),
        cmocka_unit_test(fusion_changes_no_bit),
        cmocka_unit_test(a_step_allocates_nothing),
        cmocka_unit_test(memory_of_a_run_does_not_grow_with_its_steps),
        cmocka_unit_test(options_out_of_range_are_named),
        cmocka_unit_test(a_progress_callback_can_stop_the_run),
    };
    return cmocka_run_group_tests(tests, open_model, close_model);
}
