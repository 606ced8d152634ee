/* test_eval.c - what is measured of sets of images: moments, the Frechet distance, PSNR.  Held to
 * closed forms where there are any, and to recorded figures of pytorch-fid and scikit-image. */
#include <float.h>
#include <math.h>

#include "core/png.h"
#include "core/rng.h"
#include "eval/frechet.h"
#include "eval/psnr.h"
#include "eval/statistics.h"
#include "tests/folder.h"
#include "tests/goldens.h"

#pragma GCC diagnostic ignored "-Wunused-function"
#define STB_IMAGE_STATIC
#define STB_IMAGE_IMPLEMENTATION
#define STBI_ONLY_PNG
#include <stb/stb_image.h>

#include "core/pixel.h"

#define REFERENCE_SET "models/cifar10/cifar10-train-resnet18_w24.npz"

/* A number within a tolerance relative to what is wanted; NaN is not. */
static void assert_near(const char *what, double got, double want, double tolerance)
{
    if (!(fabs(got - want) <= tolerance * fabs(want)))
        fail_msg("%s is %.17g, want %.17g within %g", what, got, want, tolerance);
}

/* ---- statistics ---- */

enum { DIM = 13, VECTORS = 333 };

/* Vectors whose mean is far from 0 and whose coordinates go together. */
static float *draw_vectors(unsigned seed, double offset)
{
    ht_mt19937 rng;
    float *x = malloc((size_t)VECTORS * DIM * sizeof *x);
    assert_non_null(x);
    ht_mt19937_seed(&rng, seed);
    ht_mt19937_randn(&rng, (size_t)VECTORS * DIM, x);
    for (int i = 0; i < VECTORS; i++)
        for (int j = 0; j < DIM; j++)
            x[i * DIM + j] = (float)(offset + x[i * DIM + j] * (1 + j) + (j ? 0.5 * x[i * DIM + j - 1] : 0));
    return x;
}

/* In chunks of `chunk`, or of 1, 2, 3, ... if that is 0. */
static ht_moments moments_of(int64_t n, int dim, const float *x, int chunk)
{
    ht_statistics *s;
    ht_moments m;
    assert_ok(ht_statistics_open(dim, &s));
    for (int64_t at = 0, some = chunk ? chunk : 1; at < n; at += some, some += !chunk)
        assert_ok(ht_statistics_add(s, at + some > n ? n - at : some, x + at * dim));
    assert_int_equal(ht_statistics_count(s), n);
    assert_ok(ht_statistics_moments(s, &m));
    ht_statistics_close(s);
    return m;
}

/* Element [i][j] of the covariance in two passes and long double; i < 0: of the mean. */
static long double two_pass(const float *x, int i, int j)
{
    long double mean[2] = {0, 0}, sum = 0;
    for (int k = 0; k < VECTORS; k++) {
        mean[0] += x[k * DIM + (i < 0 ? 0 : i)];
        mean[1] += x[k * DIM + j];
    }
    mean[0] /= VECTORS;
    mean[1] /= VECTORS;
    for (int k = 0; i >= 0 && k < VECTORS; k++)
        sum += (x[k * DIM + i] - mean[0]) * (x[k * DIM + j] - mean[1]);
    return i < 0 ? mean[1] : sum / (VECTORS - 1);
}

static void moments_are_those_of_two_passes(void **state)
{
    (void)state;
    for (int far = 0; far < 2; far++) {
        float *x = draw_vectors(1, far ? 1e4 : 0);
        ht_moments m = moments_of(VECTORS, DIM, x, 10);
        for (int j = 0; j < DIM; j++) {
            if (!(fabs(m.mu[j] - (double)two_pass(x, -1, j)) <= 1e-12 * (far ? 1e4 : 1)))
                fail_msg("mu[%d] is %.17g", j, m.mu[j]);
            for (int i = 0; i < DIM; i++) {
                double scale = sqrt(m.sigma[i * DIM + i] * m.sigma[j * DIM + j]), want = (double)two_pass(x, i, j);
                if (!(fabs(m.sigma[i * DIM + j] - want) <= 1e-11 * scale))
                    fail_msg("sigma[%d][%d] is %.17g, want %.17g", i, j, m.sigma[i * DIM + j], want);
                assert_true(m.sigma[i * DIM + j] == m.sigma[j * DIM + i]);
            }
        }
        ht_moments_free(&m);
        free(x);
    }
}

static void same_bits_however_vectors_are_cut(void **state)
{
    static const int chunks[] = {1, 7, 63, 64, 65, 128, VECTORS, 0};
    float *x = draw_vectors(2, 3);
    ht_moments want = moments_of(VECTORS, DIM, x, VECTORS);
    (void)state;
    for (size_t i = 0; i < sizeof chunks / sizeof *chunks; i++) {
        ht_moments m = moments_of(VECTORS, DIM, x, chunks[i]);
        assert_memory_equal(m.mu, want.mu, DIM * sizeof *m.mu);
        assert_memory_equal(m.sigma, want.sigma, sizeof(double[DIM][DIM]));
        ht_moments_free(&m);
    }
    ht_moments_free(&want);
    free(x);
}

static void reading_moments_changes_nothing(void **state)
{
    float *x = draw_vectors(2, 3);
    ht_moments want = moments_of(VECTORS, DIM, x, VECTORS), m, half;
    ht_statistics *s;
    (void)state;
    assert_ok(ht_statistics_open(DIM, &s));
    assert_ok(ht_statistics_add(s, 100, x));
    assert_ok(ht_statistics_moments(s, &half));
    assert_ok(ht_statistics_add(s, VECTORS - 100, x + 100 * DIM));
    assert_ok(ht_statistics_moments(s, &m));
    assert_memory_equal(m.sigma, want.sigma, sizeof(double[DIM][DIM]));
    ht_statistics_close(s);
    ht_moments_free(&half);
    ht_moments_free(&m);
    ht_moments_free(&want);
    free(x);
}

static void split_moments_add_up(void **state)
{
    static const int cuts[] = {0, 1, 64, 100, VECTORS - 1, VECTORS};
    float *x = draw_vectors(3, 5);
    ht_moments want = moments_of(VECTORS, DIM, x, VECTORS), m;
    (void)state;
    for (size_t i = 0; i < sizeof cuts / sizeof *cuts; i++) {
        ht_statistics *a, *b;
        assert_ok(ht_statistics_open(DIM, &a));
        assert_ok(ht_statistics_open(DIM, &b));
        assert_ok(ht_statistics_add(a, cuts[i], x));
        assert_ok(ht_statistics_add(b, VECTORS - cuts[i], x + cuts[i] * DIM));
        assert_ok(ht_statistics_merge(a, b));
        assert_int_equal(ht_statistics_count(a), VECTORS);
        assert_ok(ht_statistics_moments(a, &m));
        for (int k = 0; k < DIM * DIM; k++)
            if (!(fabs(m.sigma[k] - want.sigma[k]) <= 1e-12 * DIM * DIM) ||
                !(fabs(m.mu[k / DIM] - want.mu[k / DIM]) <= 1e-13 * 10))
                fail_msg("cut at %d: sigma[%d] is %.17g, want %.17g", cuts[i], k, m.sigma[k], want.sigma[k]);
        ht_moments_free(&m);
        ht_statistics_close(b);
        ht_statistics_close(a);
    }
    ht_moments_free(&want);
    free(x);
}

static void vectors_that_are_not_finite_are_refused_whole(void **state)
{
    float *x = draw_vectors(4, 0);
    ht_statistics *s, *other;
    ht_moments m;
    (void)state;
    assert_ok(ht_statistics_open(DIM, &s));
    assert_ok(ht_statistics_open(DIM + 1, &other));
    assert_refused(ht_statistics_merge(s, other), HT_ERR_SHAPE, "14 numbers cannot join those of 13");
    x[7 * DIM + 2] = NAN;
    assert_refused(ht_statistics_add(s, 9, x), HT_ERR_ARGUMENT, "feature 2 of vector 7 (of 9) is not finite");
    assert_int_equal(ht_statistics_count(s), 0);
    assert_ok(ht_statistics_add(s, 1, x));
    assert_refused(ht_statistics_moments(s, &m), HT_ERR_ARGUMENT, "1 feature vector is not defined");
    assert_refused(ht_statistics_open(0, &other), HT_ERR_ARGUMENT, "features of 0 numbers");
    ht_statistics_close(other);
    ht_statistics_close(s);
    free(x);
}

/* ---- the Frechet distance ---- */

static double distance_of(const ht_moments *a, const ht_moments *b)
{
    double d = NAN;
    assert_ok(ht_frechet(a, b, &d));
    return d;
}

static void check_golden_distance(const char *name, const json_t *entry)
{
    /* Of singular covariances pytorch-fid takes the square root of a product, which is good to half the digits;
     * singular values of sqrt(S_a) sqrt(S_b), which need no root, agree with this library to 1e-14. */
    static const struct {
        const char *key;
        int rows; /* 0: all */
        double tolerance;
    } cases[] = {{"fid", 0, 1e-10}, {"fid_first40_singular", 40, 1e-7}};
    ht_safetensors *st = golden_open(name, "golden.safetensors");
    const ht_tensor *a = tensor_of(st, "features.a"), *b = tensor_of(st, "features.b");
    float *xa = floats_of(st, "features.a"), *xb = floats_of(st, "features.b");
    json_t *numbers;
    (void)entry;
    assert_ok(ht_json_read(GOLDENS "/eval/eval/numbers.json", &numbers));
    for (int i = 0; i < 2; i++) {
        int64_t na = cases[i].rows ? cases[i].rows : a->shape[0], nb = cases[i].rows ? cases[i].rows : b->shape[0];
        ht_moments ma = moments_of(na, (int)a->shape[1], xa, 0), mb = moments_of(nb, (int)b->shape[1], xb, 0);
        double want = golden_real(numbers, cases[i].key);
        assert_near(cases[i].key, distance_of(&ma, &mb), want, cases[i].tolerance);
        assert_near("the other way round", distance_of(&mb, &ma), want, cases[i].tolerance);
        ht_moments_free(&mb);
        ht_moments_free(&ma);
    }
    json_decref(numbers);
    free(xb);
    free(xa);
    ht_safetensors_close(st);
}

static void distances_are_those_of_pytorch_fid(void **state)
{
    (void)state;
    assert_int_equal(golden_each("eval", NULL, check_golden_distance), 1);
}

static void a_set_has_no_distance_to_itself(void **state)
{
    ht_moments m, moved;
    (void)state;
    assert_ok(ht_moments_read(REFERENCE_SET, &m));
    assert_ok(ht_moments_read(REFERENCE_SET, &moved));
    assert_int_equal(m.dim, 192);
    assert_true(distance_of(&m, &m) <= 1e-9);
    moved.mu[3] += 0.25; /* shows an error of the trace of either sign */
    if (!(fabs(distance_of(&m, &moved) - 0.0625) <= 1e-9))
        fail_msg("moved by 0.25: %.17g", distance_of(&m, &moved));
    ht_moments_free(&moved);
    ht_moments_free(&m);
}

/* Covariance diag(v), or u u^T, of numbers drawn from a seed. */
static ht_moments gaussian(int dim, unsigned seed, bool rank_1, float *numbers)
{
    ht_mt19937 rng;
    ht_moments m;
    ht_mt19937_seed(&rng, seed);
    ht_mt19937_randn(&rng, (size_t)dim, numbers);
    assert_ok(ht_moments_alloc(dim, &m));
    for (int i = 0; i < dim; i++)
        for (int j = 0; j < dim; j++)
            m.sigma[i * dim + j] = rank_1   ? (double)numbers[i] * (double)numbers[j]
                                   : i == j ? (double)numbers[i] * (double)numbers[i]
                                            : 0;
    return m;
}

/* Diagonal: tr = sum (|u_i| - |v_i|)^2.  Rank 1, u u^T and v v^T: |u|^2 + |v|^2 - 2 |u . v|. */
static void closed_forms_hold(void **state)
{
    enum { MOST = 33 };
    float u[MOST], v[MOST];
    (void)state;
    for (int dim = 1; dim <= MOST; dim += 8)
        for (int rank_1 = 0; rank_1 < 2; rank_1++) {
            ht_moments a = gaussian(dim, 10, rank_1, u), b = gaussian(dim, 11, rank_1, v);
            double squares = 0, product = 0;
            for (int i = 0; i < dim; i++) {
                squares += (double)u[i] * (double)u[i] + (double)v[i] * (double)v[i];
                product += rank_1 ? (double)u[i] * (double)v[i] : fabs((double)u[i] * (double)v[i]);
            }
            a.mu[0] = 3;
            if (!(fabs(distance_of(&a, &b) - (9 + squares - 2 * fabs(product))) <= 1e-6))
                fail_msg("dim %d: %.17g, want %.17g", dim, distance_of(&a, &b), 9 + squares - 2 * fabs(product));
            ht_moments_free(&b);
            ht_moments_free(&a);
        }
}

static void moments_without_a_distance_are_refused(void **state)
{
    float u[5];
    double d = 7;
    ht_moments a = gaussian(4, 1, false, u), b = gaussian(5, 2, false, u), c = gaussian(5, 3, false, u);
    (void)state;
    assert_refused(ht_frechet(&a, &b, &d), HT_ERR_SHAPE, "features of 4 and of 5");
    c.sigma[24] = INFINITY;
    assert_refused(ht_frechet(&b, &c, &d), HT_ERR_ARGUMENT, "the second of the two sets");
    assert_refused(ht_frechet(&c, &b, &d), HT_ERR_ARGUMENT, "the first of the two sets");
    assert_true(d == 7);
    ht_moments_free(&c);
    ht_moments_free(&b);
    ht_moments_free(&a);
}

/* ---- PSNR ---- */

/* 8-bit pixels as the values in [-1,1] that round to them; free it. */
static float *values_of(const ht_tensor *pixels)
{
    float *x = malloc(pixels->count * sizeof *x);
    assert_non_null(x);
    for (size_t i = 0; i < pixels->count; i++)
        x[i] = (float)((const uint8_t *)pixels->data)[i] / 255 * 2 - 1;
    return x;
}

static void check_golden_psnr(const char *name, const json_t *entry)
{
    ht_safetensors *st = golden_open(name, "golden.safetensors");
    json_t *numbers;
    (void)entry;
    assert_ok(ht_json_read(GOLDENS "/eval/eval/numbers.json", &numbers));
    for (int i = 0; i < 2; i++) {
        char key[3][32];
        ht_psnr r;
        snprintf(key[0], sizeof key[0], "pair%d.a", i);
        snprintf(key[1], sizeof key[1], "pair%d.b", i);
        snprintf(key[2], sizeof key[2], "pair%d", i);
        const ht_tensor *t = tensor_of(st, key[0]);
        float *a = values_of(t), *b = values_of(tensor_of(st, key[1]));
        double want = golden_real(json_object_get(numbers, key[2]), "psnr");
        assert_ok(ht_psnr_images(1, t->count, a, b, &r));
        assert_near("pooled, rounded", r.pooled_rounded, want, 1e-12);
        assert_near("mean, rounded", r.mean_rounded, want, 1e-12);
        assert_near("pooled", r.pooled, want, 1e-6); /* of float32 values */
        free(b);
        free(a);
    }
    json_decref(numbers);
    ht_safetensors_close(st);
}

static void psnr_is_that_of_scikit_image(void **state)
{
    (void)state;
    assert_int_equal(golden_each("eval", NULL, check_golden_psnr), 1);
}

static void pooled_and_mean_psnr_are_what_they_say(void **state)
{
    /* Errors of 0.1 and 0.01 of the range; and one below half a level, which rounding takes away. */
    const float a[] = {0, 0, 0, 0}, b[] = {0.2f, -0.2f, 0.02f, 0.02f}, near[] = {0.001f, 0.001f, 0.001f, 0.001f};
    ht_psnr r;
    (void)state;
    assert_ok(ht_psnr_images(2, 2, a, b, &r));
    assert_near("mean", r.mean, (20 + 40) / 2.0, 1e-6);
    assert_near("pooled", r.pooled, -10 * log10((0.01 + 0.0001) / 2), 1e-6);
    assert_ok(ht_psnr_images(1, 4, a, a, &r));
    assert_true(r.pooled == INFINITY && r.mean == INFINITY && r.pooled_rounded == INFINITY);
    assert_ok(ht_psnr_images(1, 4, a, near, &r));
    assert_near("half a level", r.pooled, -20 * log10(0.0005), 1e-6);
    assert_true(r.pooled_rounded == INFINITY && r.mean_rounded == INFINITY);
}

static void psnr_is_of_pictures(void **state)
{
    const float outside[] = {-7, 5, INFINITY, -1}, edge[] = {-1, 1, 1, -INFINITY}, none[] = {0, 0, NAN, 0};
    ht_psnr r;
    (void)state;
    assert_ok(ht_psnr_images(1, 4, outside, edge, &r));
    assert_true(r.pooled == INFINITY && r.pooled_rounded == INFINITY);
    assert_refused(ht_psnr_images(2, 2, edge, none, &r), HT_ERR_ARGUMENT, "image 1 of 2 has a NaN");
    assert_refused(ht_psnr_images(0, 2, edge, none, &r), HT_ERR_ARGUMENT, "0 images");
    assert_refused(ht_psnr_images(1, 0, edge, none, &r), HT_ERR_ARGUMENT, "0 values");
}

static void pixels_are_those_of_the_files_that_are_written(void **state)
{
    enum { W = 64, H = 48 };
    static float x[W * H];
    int w = 0, h = 0, c;
    ht_mt19937 rng;
    (void)state;
    ht_mt19937_seed(&rng, 8);
    ht_mt19937_randn(&rng, W * H, x);
    for (int i = 0; i < 511; i++) /* every level, and half-way between two */
        x[i] = (float)i / 255 - 1;
    x[600] = NAN;
    x[601] = INFINITY;
    x[602] = -INFINITY;
    const char *path = in_folder("x.png");
    assert_ok(ht_image_save(path, x, H, W, 1, NULL));
    uint8_t *pixels = stbi_load(path, &w, &h, &c, 1);
    assert_non_null(pixels);
    assert_true(w == W && h == H);
    for (int i = 0; i < W * H; i++)
        if (ht_pixel_of(x[i]) != pixels[i])
            fail_msg("%.9g is %d in a file, %d here", (double)x[i], pixels[i], ht_pixel_of(x[i]));
    stbi_image_free(pixels);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(moments_are_those_of_two_passes),
        cmocka_unit_test(same_bits_however_vectors_are_cut),
        cmocka_unit_test(reading_moments_changes_nothing),
        cmocka_unit_test(split_moments_add_up),
        cmocka_unit_test(vectors_that_are_not_finite_are_refused_whole),
        cmocka_unit_test(distances_are_those_of_pytorch_fid),
        cmocka_unit_test(a_set_has_no_distance_to_itself),
        cmocka_unit_test(closed_forms_hold),
        cmocka_unit_test(moments_without_a_distance_are_refused),
        cmocka_unit_test(psnr_is_that_of_scikit_image),
        cmocka_unit_test(pooled_and_mean_psnr_are_what_they_say),
        cmocka_unit_test(psnr_is_of_pictures),
        cmocka_unit_test(pixels_are_those_of_the_files_that_are_written),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
