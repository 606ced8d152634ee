/* test_metrics.c - KID, the Inception Score, precision and recall, SSIM and PSNR: the recorded figures of
 * torch-fidelity and scikit-image, and what must hold of any set. */
#include <dlfcn.h>

#include "core/file.h"
#include "core/image_decode.h"
#include "core/rng.h"
#include "eval/draw.h"
#include "eval/frechet.h"
#include "eval/inception_score.h"
#include "eval/kid.h"
#include "eval/manifold.h"
#include "eval/psnr.h"
#include "eval/ssim.h"
#include "eval/statistics.h"
#include "tests/goldens.h"

enum { DIM = 64, A = 500, B = 400 };

typedef struct fixture {
    ht_safetensors *golden;
    json_t *numbers;
    double tolerance;
    ht_vectors a, b;
    ht_pairs *pairs;
} fixture;

static fixture x;

static void find_case(const char *name, const json_t *entry)
{
    x.golden = golden_open(name, "golden.safetensors");
    x.tolerance = golden_real(entry, "tolerance");
    assert_ok(ht_json_read(GOLDENS "/eval/packages/numbers.json", &x.numbers));
}

static int open_fixture(void **state)
{
    (void)state;
    if (golden_each("packages", NULL, find_case) != 1)
        return -1;
    x.a = (ht_vectors){A, DIM, floats_of(x.golden, "features.a")};
    x.b = (ht_vectors){B, DIM, floats_of(x.golden, "features.b")};
    return ht_pairs_open(DIM, 2, &x.pairs) ? -1 : 0;
}

static int close_fixture(void **state)
{
    (void)state;
    free((void *)(uintptr_t)x.a.rows);
    free((void *)(uintptr_t)x.b.rows);
    ht_pairs_close(x.pairs);
    ht_safetensors_close(x.golden);
    json_decref(x.numbers);
    return 0;
}

static void assert_near(const char *what, double got, double want, double tolerance)
{
    if (!(fabs(got - want) <= tolerance * fabs(want)))
        fail_msg("%s is %.12g, want %.12g within %g", what, got, want, tolerance);
}

static double number(const char *object, const char *key)
{
    return golden_real(object ? json_object_get(x.numbers, object) : x.numbers, key);
}

static int64_t integer_of(const ht_tensor *t, size_t i)
{
    int32_t v;
    memcpy(&v, (const char *)t->data + i * sizeof v, sizeof v);
    return v;
}

/* ---- pairs ---- */

static void compare_tile(void *user, const ht_pairs_tile *t)
{
    int64_t *seen = user;
    for (int i = 0; i < t->rows; i++)
        for (int j = 0; j < t->columns; j++) {
            const float *a = x.a.rows + (t->first_a + i) * DIM, *b = x.b.rows + (t->first_b + j) * DIM;
            float want = 0;
            for (int k = 0; k < DIM; k++)
                want = fmaf(a[k], b[k], want);
            float got = t->products[(size_t)i * HT_PAIRS_COLUMNS + (size_t)j];
            if (got != want)
                fail_msg("pair %lld, %lld: %.9g, want %.9g", (long long)t->first_a + i, (long long)t->first_b + j,
                         (double)got, (double)want);
            ++*seen;
        }
}

static void products_are_chains_over_the_coordinates(void **state)
{
    int64_t seen = 0;
    (void)state;
    assert_ok(ht_pairs_run(x.pairs, &x.a, &x.b, compare_tile, &seen));
    assert_int_equal(seen, A * B);
    assert_refused(ht_pairs_run(x.pairs, &(ht_vectors){A, DIM - 1, x.a.rows}, &x.b, compare_tile, &seen), HT_ERR_SHAPE,
                   "vectors of 63 and of 64");
}

/* ---- drawing ---- */

static void permutations_are_those_of_numpy(void **state)
{
    const ht_tensor *a = tensor_of(x.golden, "kid.indices.a"), *b = tensor_of(x.golden, "kid.indices.b");
    const ht_tensor *is = tensor_of(x.golden, "is.permutation");
    int64_t order[A];
    ht_mt19937 rng;
    (void)state;
    ht_mt19937_seed(&rng, 2020);
    for (int s = 0; s < 10; s++) {
        ht_draw_permutation(&rng, A, order);
        for (int i = 0; i < 100; i++)
            assert_int_equal(order[i], integer_of(a, (size_t)(s * 100 + i)));
        ht_draw_permutation(&rng, B, order);
        for (int i = 0; i < 100; i++)
            assert_int_equal(order[i], integer_of(b, (size_t)(s * 100 + i)));
    }
    ht_mt19937_seed(&rng, 2020);
    ht_draw_permutation(&rng, A, order);
    for (int i = 0; i < A; i++)
        assert_int_equal(order[i], integer_of(is, (size_t)i));
}

/* ---- KID ---- */

static void kid_is_that_of_torch_fidelity(void **state)
{
    ht_kid k;
    double all;
    (void)state;
    assert_ok(ht_kid_of(x.pairs, &x.a, &x.b, &(ht_kid_options){10, 100, 2020}, &k));
    assert_near("KID", k.mean, number("kid", "kernel_inception_distance_mean"), x.tolerance);
    assert_near("its deviation", k.deviation, number("kid", "kernel_inception_distance_std"), x.tolerance);
    assert_ok(ht_kid_mmd2(x.pairs, &(ht_vectors){B, DIM, x.a.rows}, &x.b, &all));
    assert_near("KID of 400 rows", all, number(NULL, "kid_all_rows"), x.tolerance);
}

static void kid_of_a_small_set_takes_all_of_it(void **state)
{
    ht_kid k;
    (void)state;
    assert_ok(ht_kid_of(x.pairs, &(ht_vectors){7, DIM, x.a.rows}, &x.b, &(ht_kid_options){3, 0, 1}, &k));
    assert_true(k.size == 7 && k.subsets == 3);
    assert_refused(ht_kid_of(x.pairs, &(ht_vectors){1, DIM, x.a.rows}, &x.b, &(ht_kid_options){3, 0, 1}, &k),
                   HT_ERR_ARGUMENT, "subsets of 1 images");
    double d;
    assert_refused(ht_kid_mmd2(x.pairs, &x.a, &x.b, &d), HT_ERR_ARGUMENT, "as many of each");
}

/* ---- the Inception Score ---- */

static void inception_score_is_that_of_torch_fidelity(void **state)
{
    const ht_tensor *is = tensor_of(x.golden, "is.permutation");
    float *logits = malloc((size_t)A * DIM * sizeof *logits);
    int64_t order[A];
    ht_inception_score s;
    (void)state;
    assert_non_null(logits);
    for (int i = 0; i < A * DIM; i++)
        logits[i] = 1.5f * x.a.rows[i];
    for (int i = 0; i < A; i++)
        order[i] = integer_of(is, (size_t)i);
    ht_vectors v = {A, DIM, logits};
    assert_ok(ht_inception_score_of(&v, order, 10, &s));
    assert_near("IS", s.mean, number("is_shuffled_10_splits", "inception_score_mean"), x.tolerance);
    assert_near("its deviation", s.deviation, number("is_shuffled_10_splits", "inception_score_std"), x.tolerance);
    assert_ok(ht_inception_score_of(&v, NULL, 5, &s));
    assert_near("IS in order", s.mean, number("is_in_order_5_splits", "inception_score_mean"), x.tolerance);
    assert_near("its deviation", s.deviation, number("is_in_order_5_splits", "inception_score_std"), x.tolerance);
    assert_refused(ht_inception_score_of(&v, NULL, A + 1, &s), HT_ERR_ARGUMENT, "an image a split");
    free(logits);
}

static void inception_score_has_its_ends(void **state)
{
    float sure[8 * 8], flat[8 * 8] = {0};
    ht_inception_score s;
    (void)state;
    for (int i = 0; i < 64; i++)
        sure[i] = i / 8 == i % 8 ? 200 : 0;
    assert_ok(ht_inception_score_of(&(ht_vectors){8, 8, sure}, NULL, 1, &s));
    assert_near("eight classes, each sure", s.mean, 8, 1e-9);
    assert_ok(ht_inception_score_of(&(ht_vectors){8, 8, flat}, NULL, 1, &s));
    assert_near("nothing known", s.mean, 1, 1e-9);
}

/* ---- precision, recall ---- */

static void precision_and_recall_are_those_of_torch_fidelity(void **state)
{
    static const struct {
        int k;
        const char *key;
    } cases[] = {{3, "precision_recall_k3"}, {5, "precision_recall_k5"}};
    ht_manifold m;
    (void)state;
    for (size_t i = 0; i < 2; i++) {
        assert_ok(ht_manifold_of(x.pairs, &x.a, &x.b, cases[i].k, &m));
        assert_near("precision", m.precision, number(cases[i].key, "precision"), 1e-7);
        assert_near("recall", m.recall, number(cases[i].key, "recall"), 1e-7);
    }
}

/* The definitions, pair by pair. */
static void density_and_coverage_are_as_defined(void **state)
{
    enum { N = 60, M = 47, K = 5 };
    ht_vectors made = {N, DIM, x.a.rows}, real = {M, DIM, x.b.rows};
    double balls = 0, covered = 0;
    ht_manifold m;
    (void)state;
    for (int j = 0; j < M; j++) {
        double nearest[M], least = INFINITY;
        int n = 0, in = 0;
        for (int pass = 0; pass < 2; pass++)
            for (int i = 0; i < (pass ? N : M); i++) {
                double d = 0;
                for (int c = 0; c < DIM; c++) {
                    double e = (double)(pass ? made.rows : real.rows)[i * DIM + c] - (double)real.rows[j * DIM + c];
                    d += e * e;
                }
                if (!pass && i != j) {
                    int at = n++;
                    for (; at > 0 && nearest[at - 1] > d; at--)
                        nearest[at] = nearest[at - 1];
                    nearest[at] = d;
                } else if (pass) {
                    in += d <= nearest[K - 1];
                    least = fmin(least, d);
                }
            }
        balls += in;
        covered += least <= nearest[K - 1];
    }
    assert_ok(ht_manifold_of(x.pairs, &made, &real, K, &m));
    assert_near("density", m.density, balls / (K * N), 1e-12);
    assert_near("coverage", m.coverage, covered / M, 1e-12);
}

static void a_set_covers_itself(void **state)
{
    ht_manifold m;
    (void)state;
    assert_ok(ht_manifold_of(x.pairs, &x.a, &x.a, 3, &m));
    assert_true(m.precision == 1 && m.recall == 1 && m.coverage == 1 && m.density >= 1);
    assert_refused(ht_manifold_of(x.pairs, &(ht_vectors){3, DIM, x.a.rows}, &x.b, 3, &m), HT_ERR_ARGUMENT,
                   "more images than neighbours");
}

/* ---- Frechet ---- */

static void assert_frechet(int64_t n_a, int64_t n_b, const char *key, double tolerance)
{
    ht_statistics *s;
    ht_moments m[2];
    const ht_vectors *sets[] = {&x.a, &x.b};
    double d;
    for (int i = 0; i < 2; i++) {
        assert_ok(ht_statistics_open(DIM, &s));
        assert_ok(ht_statistics_add(s, i ? n_b : n_a, sets[i]->rows));
        assert_ok(ht_statistics_moments(s, &m[i]));
        ht_statistics_close(s);
    }
    assert_ok(ht_frechet(&m[0], &m[1], &d));
    assert_near(key, d, number(NULL, key), tolerance);
    ht_moments_free(&m[0]);
    ht_moments_free(&m[1]);
}

static void frechet_distances_are_those_of_pytorch_fid_and_adm(void **state)
{
    (void)state;
    assert_frechet(A, B, "fid", 1e-7);
    assert_frechet(A, B, "adm_frechet", 1e-7);
    assert_frechet(40, 40, "fid_first40_singular", 1e-7);
}

/* The features' numbers taken as those of fewer pictures with WIDE of them each, as OpenBLAS cuts only large sums. */
static double wide_frechet(int threads)
{
    enum { WIDE = 256 };
    ht_moments m[2];
    const ht_vectors *sets[] = {&x.a, &x.b};
    double d;
    void (*set)(int);
    *(void **)&set = dlsym(RTLD_DEFAULT, "openblas_set_num_threads");
    if (set)
        set(threads);
    for (int i = 0; i < 2; i++) {
        ht_statistics *s;
        assert_ok(ht_statistics_open(WIDE, &s));
        assert_ok(ht_statistics_add(s, sets[i]->n * DIM / WIDE, sets[i]->rows));
        assert_ok(ht_statistics_moments(s, &m[i]));
        ht_statistics_close(s);
    }
    assert_ok(ht_frechet(&m[0], &m[1], &d));
    ht_moments_free(&m[0]);
    ht_moments_free(&m[1]);
    return d;
}

static void frechet_distances_are_the_same_with_any_number_of_threads(void **state)
{
    (void)state;
    double want = wide_frechet(1);
    assert_true(want > 0);
    for (int threads = 2; threads < 5; threads++)
        assert_true(wide_frechet(threads) == want);
}

/* ---- pairs of pictures ---- */

static ht_pixels picture(const char *name)
{
    char path[256];
    ht_mapping file;
    ht_pixels p;
    snprintf(path, sizeof path, GOLDENS "/eval/packages/%s.png", name);
    assert_ok(ht_map_file(path, &file));
    assert_ok(ht_image_decode(file.data, file.size, path, &p));
    ht_unmap_file(&file);
    return p;
}

static void psnr_and_ssim_are_those_of_scikit_image(void **state)
{
    static const char *const pairs[] = {"pair0", "pair1"};
    (void)state;
    for (int i = 0; i < 2; i++) {
        char name[16];
        double s;
        snprintf(name, sizeof name, "%s_a", pairs[i]);
        ht_pixels a = picture(name);
        snprintf(name, sizeof name, "%s_b", pairs[i]);
        ht_pixels b = picture(name);
        assert_true(a.width == b.width && a.height == b.height);
        assert_near("PSNR", ht_psnr_pixels((size_t)a.width * (size_t)a.height * 3, a.data, b.data),
                    number(pairs[i], "psnr"), 1e-9);
        assert_ok(ht_ssim_pixels(HT_SSIM_GAUSSIAN, a.height, a.width, 3, a.data, b.data, &s));
        assert_near("SSIM", s, number(pairs[i], "ssim_gaussian"), 1e-7);
        assert_ok(ht_ssim_pixels(HT_SSIM_UNIFORM7, a.height, a.width, 3, a.data, b.data, &s));
        assert_near("SSIM, 7 x 7", s, number(pairs[i], "ssim_uniform7"), 1e-7);
        assert_ok(ht_ssim_pixels(HT_SSIM_GAUSSIAN, a.height, a.width, 3, a.data, a.data, &s));
        assert_near("SSIM of a picture with itself", s, 1, 1e-12);
        assert_true(isinf(ht_psnr_pixels(3, a.data, a.data)));
        assert_refused(ht_ssim_pixels(HT_SSIM_GAUSSIAN, 10, 40, 3, a.data, b.data, &s), HT_ERR_SHAPE, "11 x 11");
        free(a.data);
        free(b.data);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(products_are_chains_over_the_coordinates),
        cmocka_unit_test(permutations_are_those_of_numpy),
        cmocka_unit_test(kid_is_that_of_torch_fidelity),
        cmocka_unit_test(kid_of_a_small_set_takes_all_of_it),
        cmocka_unit_test(inception_score_is_that_of_torch_fidelity),
        cmocka_unit_test(inception_score_has_its_ends),
        cmocka_unit_test(precision_and_recall_are_those_of_torch_fidelity),
        cmocka_unit_test(density_and_coverage_are_as_defined),
        cmocka_unit_test(a_set_covers_itself),
        cmocka_unit_test(frechet_distances_are_those_of_pytorch_fid_and_adm),
        cmocka_unit_test(frechet_distances_are_the_same_with_any_number_of_threads),
        cmocka_unit_test(psnr_and_ssim_are_those_of_scikit_image),
    };
    return cmocka_run_group_tests(tests, open_fixture, close_fixture);
}
