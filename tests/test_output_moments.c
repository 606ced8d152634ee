/* test_output_moments.c - what the model's error asks of every layer's output. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "calib/output_moments.h"
#include "tests/small_model.h"

static const small_model plain = {.a = 8, .b = 16, .seed = 3}, classes = {.a = 8, .b = 16, .classes = 4, .seed = 4};

enum { GROUPS = 3, IMAGES = 2 };

typedef struct seen {
    ht_arena *arena;
    ht_model *model;
    ht_calibration calibration;
    ht_products products;
    double weights[GROUPS];
} seen;

static seen look_at(const small_model *m)
{
    seen s = {.arena = ht_arena_create(), .weights = {1, 2, 0.5}};
    ht_calibrate_options o = {.steps = GROUPS, .timesteps = GROUPS, .per_step = IMAGES};
    ht_session *session;
    write_small_model(in_root("model"), m);
    assert_ok(ht_model_open(in_root("model"), NULL, &s.model));
    assert_ok(ht_calibration_make(s.arena, s.model, &o, &s.calibration));
    assert_int_equal(s.calibration.groups, GROUPS);
    assert_ok(ht_session_open(s.model, &(ht_session_options){.batch = 1}, &session));
    assert_ok(ht_products_list(s.arena, ht_session_graph(session), &s.products));
    ht_session_close(session);
    return s;
}

static const float **gather(seen *s, int images)
{
    const float **moments = ht_alloc_array(s->arena, (size_t)s->products.n, sizeof(float *));
    ht_output_moments_options o = {.images = images, .weights = s->weights};
    assert_non_null(moments);
    assert_ok(ht_output_moments_gather(s->arena, s->model, &s->calibration, &s->products, &o, moments));
    return moments;
}

static void close_all(seen *s)
{
    ht_model_close(s->model);
    ht_arena_free(s->arena);
    remove_path(in_root("model"));
}

/* The gradient by the last layer's output is the direction itself. */
static void the_last_layers_are_those_of_the_directions(void **state)
{
    (void)state;
    for (int images = 1; images <= IMAGES; images++) {
        seen s = look_at(&plain);
        const float **moments = gather(&s, images);
        float direction[SMALL_PIXELS];
        double want[9] = {0};
        for (int g = 0; g < GROUPS; g++)
            for (int i = 0; i < images; i++) {
                ht_image_randn(0, (uint64_t)(g * images + i), 0, SMALL_PIXELS, direction);
                for (int at = 0; at < SMALL_PIXELS; at += 3)
                    for (int k = 0; k < 9; k++)
                        want[k] += s.weights[g] * direction[at + k / 3] * direction[at + k % 3];
            }
        for (int i = 0; i < s.products.n; i++)
            for (int k = 0; k < 9 && s.products.product[i].role == HT_ROLE_LAST; k++)
                assert_true(fabs(moments[i][k] - want[k]) <= 1e-3 * want[0]);
        close_all(&s);
    }
}

static void every_layer_of_a_step_has_some_and_no_other_has(void **state)
{
    const small_model *models[] = {&plain, &classes};
    (void)state;
    for (int m = 0; m < 2; m++) {
        seen s = look_at(models[m]);
        const float **moments = gather(&s, IMAGES);
        for (int i = 0; i < s.products.n; i++) {
            const ht_model_product *p = &s.products.product[i];
            if (ht_product_is_temporal(p) || p->role == HT_ROLE_CONDITION) {
                assert_null(moments[i]);
                continue;
            }
            int64_t n = p->weight->shape[0];
            double trace = 0;
            for (int64_t k = 0; k < n; k++)
                trace += moments[i][k * n + k];
            if (!(trace > 0 && isfinite(trace)))
                fail_msg("%s: the moments of its output sum to %g", p->name, trace);
        }
        close_all(&s);
    }
}

static void timesteps_count_by_their_weight(void **state)
{
    seen s = look_at(&plain);
    const float **once = gather(&s, IMAGES);
    (void)state;
    for (int g = 0; g < GROUPS; g++)
        s.weights[g] *= 4;
    const float **four = gather(&s, IMAGES);
    for (int i = 0; i < s.products.n; i++)
        for (int64_t k = 0, n = s.products.product[i].weight->shape[0]; once[i] && k < n; k++)
            assert_true(fabsf(four[i][k * n + k] - 4 * once[i][k * n + k]) <= 1e-4f * four[i][k * n + k]);
    close_all(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_last_layers_are_those_of_the_directions),
        cmocka_unit_test(every_layer_of_a_step_has_some_and_no_other_has),
        cmocka_unit_test(timesteps_count_by_their_weight),
    };
    return cmocka_run_group_tests(tests, make_root, remove_root);
}
