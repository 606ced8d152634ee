/* test_coupled.c - rounding rows that know each other (quant/coupled.c): what output moments change, and what not. */
#include "tests/rounding.h"

/* What the methods lessen: a tenth of each output's own moment is added. */
static double coupled_sum(const layer *l, const float *g, const double *d)
{
    double sum = 0, *dh = calloc(OUT * IN, sizeof *dh);
    assert_non_null(dh);
    for (size_t n = 0; n < OUT; n++)
        for (size_t k = 0; k < IN; k++)
            for (size_t j = 0; j < IN; j++)
                dh[n * IN + k] += d[n * IN + j] * (double)l->h[j * IN + k];
    for (size_t n = 0; n < OUT; n++)
        for (size_t m = 0; m < OUT; m++) {
            double dot = 0;
            for (size_t k = 0; k < IN; k++)
                dot += d[n * IN + k] * dh[m * IN + k];
            sum += (double)g[n * OUT + m] * (n == m ? 1.1 : 1) * dot;
        }
    free(dh);
    return sum;
}

static double coupled_error(const layer *l, const float *g, const rounded *r)
{
    double *d = difference(l, r), *w = malloc(OUT * IN * sizeof *w);
    assert_non_null(w);
    for (size_t i = 0; i < OUT * IN; i++)
        w[i] = l->w[i];
    double error = coupled_sum(l, g, d) / coupled_sum(l, g, w);
    free(d);
    free(w);
    return error;
}

static const ht_rounding methods[] = {HT_ROUND_GPTQ, HT_ROUND_DESCENT, HT_ROUND_GPTQ_DESCENT};

enum { METHODS = sizeof methods / sizeof *methods };

static void outputs_that_are_read_together_err_less_for_it(void **state)
{
    (void)state;
    for (uint32_t seed = 1; seed < 4; seed++) {
        layer l = layer_of(OUT, IN, SAMPLES, IN, seed);
        float g[OUT * OUT];
        fill_moments(g, OUT, SAMPLES, OUT, &seed);
        for (int f = 0; f < FORMATS; f++)
            for (int m = 0; m < METHODS; m++) {
                ht_round_options o = options_of(methods[m]);
                rounded alone = round_layer(formats[f], &l, o);
                o.outputs = g;
                rounded together = round_layer(formats[f], &l, o);
                double one = coupled_error(&l, g, &alone), all = coupled_error(&l, g, &together);
                if (!(all <= one * (1 + 1e-9)))
                    fail_msg("%s, %s: %g together, %g one by one", formats[f], ht_rounding_name(o.method), all, one);
                if (alone.format.grid.bits == 4 && m == 2 && !(all < 0.8 * one))
                    fail_msg("%s: %g together, %g one by one: nothing was gained", formats[f], all, one);
                ht_arena_free(alone.arena);
                ht_arena_free(together.arena);
            }
        free_layer(&l);
    }
}

static void errors_are_those_of_what_is_stored(void **state)
{
    layer l = layer_of(OUT, IN, SAMPLES, IN, 6);
    float g[OUT * OUT];
    uint32_t seed = 8;
    (void)state;
    fill_moments(g, OUT, SAMPLES, OUT, &seed);
    for (int f = 0; f < FORMATS; f++)
        for (int m = 0; m < METHODS; m++) {
            ht_round_options o = options_of(methods[m]);
            o.outputs = g;
            rounded r = round_layer(formats[f], &l, o);
            double stored = coupled_error(&l, g, &r);
            if (!(fabs(stored - r.error.after) <= 1e-3 * r.error.after))
                fail_msg("%s, %s: %g is reported, stored is %g", formats[f], ht_rounding_name(o.method), r.error.after,
                         stored);
            assert_true(r.error.before >= r.error.after);
            ht_arena_free(r.arena);
        }
    free_layer(&l);
}

static void an_output_that_nobody_reads_takes_what_is_left(void **state)
{
    layer l = layer_of(OUT, IN, SAMPLES, IN, 7);
    float g[OUT * OUT];
    uint32_t seed = 9;
    (void)state;
    fill_moments(g, OUT, SAMPLES, 3, &seed); /* output 3 */
    ht_round_options o = options_of(HT_ROUND_GPTQ_DESCENT);
    o.outputs = g;
    rounded r = round_layer("int4", &l, o);
    assert_true(isfinite(r.error.after) && r.error.after > 0);
    ht_arena_free(r.arena);
    memset(g, 0, sizeof g); /* nobody reads any: as if nothing were known */
    rounded unread = round_layer("int4", &l, o);
    o.outputs = NULL;
    rounded unknown = round_layer("int4", &l, o);
    assert_same_codes(&unread, &unknown, "int4");
    ht_arena_free(unread.arena);
    ht_arena_free(unknown.arena);
    free_layer(&l);
}

static void what_no_gradients_can_have_is_refused(void **state)
{
    layer l = layer_of(OUT, IN, SAMPLES, IN, 7);
    float g[OUT * OUT];
    (void)state;
    for (int wrong = 0; wrong < 3; wrong++) {
        uint32_t seed = 9;
        fill_moments(g, OUT, SAMPLES, OUT, &seed);
        g[2 * OUT + 5] = wrong == 0 ? NAN : wrong == 1 ? g[2 * OUT + 5] + g[2 * OUT + 2] : 1e9f;
        if (wrong == 2)
            g[5 * OUT + 2] = 1e9f;
        ht_round_options o = options_of(HT_ROUND_GPTQ_DESCENT);
        ht_format format;
        ht_quantized q;
        ht_arena *arena = ht_arena_create();
        o.outputs = g;
        assert_ok(ht_format_find("int4", &format));
        assert_ok(ht_quantized_alloc(arena, &format, &l.matrix, &q));
        assert_int_equal(ht_round(&format, &l.matrix, l.h, &o, &q, NULL), HT_ERR_ARGUMENT);
        assert_non_null(strstr(ht_error_message(), "outputs 5 and 2"));
        ht_arena_free(arena);
    }
    free_layer(&l);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(outputs_that_are_read_together_err_less_for_it),
        cmocka_unit_test(errors_are_those_of_what_is_stored),
        cmocka_unit_test(an_output_that_nobody_reads_takes_what_is_left),
        cmocka_unit_test(what_no_gradients_can_have_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
