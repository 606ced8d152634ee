/* test_gptq.c - GPTQ against the way its paper writes it, and the linear algebra below it. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "quant/dense.h"
#include "tests/rounding.h"

static void products_are_sums_in_order(void **state)
{
    static const size_t sizes[][3] = {{1, 1, 1}, {4, 3, 8}, {5, 64, 17}, {16, 70, 9}, {3, 2, 31}};
    static double a[16 * 70], b[70 * 31], out[16 * 31], want[16 * 31];
    uint32_t seed = 3;
    (void)state;
    for (size_t c = 0; c < sizeof sizes / sizeof *sizes; c++) {
        size_t rows = sizes[c][0], depth = sizes[c][1], columns = sizes[c][2];
        for (size_t i = 0; i < rows * depth; i++)
            a[i] = bell(&seed);
        for (size_t i = 0; i < depth * columns; i++)
            b[i] = bell(&seed);
        for (size_t i = 0; i < rows * columns; i++) {
            double sum = out[i] = bell(&seed);
            for (size_t k = 0; k < depth; k++)
                sum += a[i / columns * depth + k] * b[k * columns + i % columns];
            want[i] = sum;
        }
        ht_product_add(&(ht_product){rows, depth, columns, a, b, out, depth, columns, columns});
        assert_memory_equal(out, want, rows * columns * sizeof *out);
    }
}

/* L L^T = H in the order that came out, and every pivot is the least that was left: the error at (i, j). */
static double factor_error(const float *h, size_t n, const double *l, const size_t *order)
{
    double worst = 0;
    for (size_t i = 0; i < n; i++)
        for (size_t j = 0; j <= i; j++) {
            double sum = 0, want = h[order[i] * n + order[j]];
            for (size_t k = 0; k <= j; k++)
                sum += l[i * n + k] * l[j * n + k];
            worst =
                fmax(worst, fabs(sum - want) / sqrt((double)h[order[i] * n + order[i]] * h[order[j] * n + order[j]]));
        }
    return worst;
}

static void the_factor_times_itself_is_the_matrix(void **state)
{
    static const size_t sizes[] = {1, 2, 63, 64, 65, 150};
    uint32_t seed = 11;
    (void)state;
    for (int pivot = 0; pivot < 2; pivot++)
        for (size_t c = 0; c < sizeof sizes / sizeof *sizes; c++) {
            size_t n = sizes[c], order[150];
            float *h = malloc(n * n * sizeof *h);
            double *l = malloc(n * n * sizeof *l), *scratch = malloc((HT_CHOLESKY_PANEL + 1) * n * sizeof *scratch);
            assert_true(h && l && scratch);
            fill_moments(h, n, 2 * n + 9, n, &seed);
            for (size_t i = 0; i < n * n; i++)
                l[i] = h[i];
            for (size_t i = 0; i < n; i++)
                order[i] = i;
            assert_true(ht_cholesky(n, l, pivot ? order : NULL, 0, scratch));
            assert_true(factor_error(h, n, l, order) < 1e-12);
            for (size_t i = 1; pivot && i < n; i++) /* L_00^2 is the least of the diagonal */
                assert_true(h[order[0] * n + order[0]] <= h[order[i] * n + order[i]]);
            free(scratch);
            free(l);
            free(h);
        }
}

static void indefinite_matrices_have_no_factor(void **state)
{
    double a[4] = {1, 0, 2, 1}, b[4] = {1, 0, NAN, 1}, scratch[(HT_CHOLESKY_PANEL + 1) * 2];
    (void)state;
    assert_false(ht_cholesky(2, a, NULL, 0, scratch));
    assert_false(ht_cholesky(2, b, NULL, 0, scratch));
}

/* GPTQ as its paper writes it, for one row: the inverse's upper Cholesky factor, column by column, the error of each
 * spread over those to come.  order: of rounding. */
static void invert(size_t n, double *a, double *inverse)
{
    for (size_t i = 0; i < n * n; i++)
        inverse[i] = i / n == i % n;
    for (size_t k = 0; k < n; k++) { /* Gauss and Jordan */
        double pivot = a[k * n + k];
        for (size_t j = 0; j < n; j++) {
            a[k * n + j] /= pivot;
            inverse[k * n + j] /= pivot;
        }
        for (size_t i = 0; i < n; i++) {
            double x = a[i * n + k];
            for (size_t j = 0; i != k && j < n; j++) {
                a[i * n + j] -= x * a[k * n + j];
                inverse[i * n + j] -= x * inverse[k * n + j];
            }
        }
    }
}

/* U with U^T U = a, upper. */
static void upper_factor(size_t n, const double *a, double *u)
{
    memset(u, 0, n * n * sizeof *u);
    for (size_t i = 0; i < n; i++)
        for (size_t j = i; j < n; j++) {
            double sum = a[i * n + j];
            for (size_t k = 0; k < i; k++)
                sum -= u[k * n + i] * u[k * n + j];
            u[i * n + j] = i == j ? sqrt(sum) : sum / u[i * n + i];
        }
}

static void falling_diagonal(const float *h, size_t n, size_t *order)
{
    for (size_t i = 0; i < n; i++) {
        size_t at = i;
        for (; at > 0 && h[order[at - 1] * n + order[at - 1]] < h[i * n + i]; at--)
            order[at] = order[at - 1];
        order[at] = i;
    }
}

static void textbook_gptq(const layer *l, const rounded *r, uint8_t *codes)
{
    enum { N = IN };
    static double a[N * N], inverse[N * N], u[N * N];
    size_t order[N];
    double mean = 0;
    falling_diagonal(l->h, N, order);
    for (size_t i = 0; i < N; i++)
        mean += l->h[i * N + i] / N;
    for (size_t i = 0; i < N * N; i++)
        a[i] = l->h[order[i / N] * N + order[i % N]] + (i / N == i % N ? 0.01 * mean : 0);
    invert(N, a, inverse);
    upper_factor(N, inverse, u);
    for (size_t row = 0; row < l->matrix.out; row++) {
        double w[N];
        for (size_t i = 0; i < N; i++)
            w[i] = l->w[row * N + order[i]];
        for (size_t i = 0; i < N; i++) {
            ht_block b = ht_format_block(&r->format, &r->q, row * r->sizes.blocks + order[i] * r->sizes.blocks / N);
            uint8_t code = ht_grid_encode(&b.grid, (float)(w[i] / b.scale));
            double error = (w[i] - (double)ht_grid_decode(&b.grid, code) * b.scale) / u[i * N + i];
            for (size_t j = i + 1; j < N; j++)
                w[j] -= error * u[i * N + j];
            codes[order[i]] = code;
        }
        codes += N;
    }
}

static void gptq_is_that_of_its_paper(void **state)
{
    (void)state;
    for (uint32_t seed = 20; seed < 24; seed++)
        for (int f = 0; f < FORMATS; f++) {
            layer l = layer_of(OUT, IN, SAMPLES, IN, seed);
            ht_round_options o = options_of(HT_ROUND_GPTQ);
            o.act_order = true;
            rounded r = round_layer(formats[f], &l, o);
            uint8_t want[OUT * IN], packed[IN];
            textbook_gptq(&l, &r, want);
            for (size_t row = 0; row < OUT; row++) {
                ht_codes_pack(&r.format, IN, want + row * IN, packed);
                assert_memory_equal(packed, r.q.codes + row * r.sizes.row_bytes, r.sizes.row_bytes);
            }
            ht_arena_free(r.arena);
            free_layer(&l);
        }
}

static void pivots_beat_falling_diagonals(void **state)
{
    double ours = 0, theirs = 0;
    (void)state;
    for (uint32_t seed = 30; seed < 40; seed++) {
        layer l = layer_of(OUT, IN, SAMPLES, IN, seed);
        ht_round_options o = options_of(HT_ROUND_GPTQ), act = o;
        act.act_order = true;
        rounded a = round_layer("int4", &l, o), b = round_layer("int4", &l, act);
        ours += a.error.after;
        theirs += b.error.after;
        ht_arena_free(b.arena);
        ht_arena_free(a.arena);
        free_layer(&l);
    }
    assert_true(ours < theirs);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(products_are_sums_in_order),         cmocka_unit_test(the_factor_times_itself_is_the_matrix),
        cmocka_unit_test(indefinite_matrices_have_no_factor), cmocka_unit_test(gptq_is_that_of_its_paper),
        cmocka_unit_test(pivots_beat_falling_diagonals),
    };
    return cmocka_run_group_tests_name("gptq", tests, NULL, NULL);
}
