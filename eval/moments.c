/* moments.c - mean and covariance, from a file and checked. */
#include "eval/moments.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/arena.h"
#include "eval/npz.h"

enum { MAX_DIM = 1 << 14 };

ht_status ht_moments_alloc(int dim, ht_moments *out)
{
    if (dim < 1 || dim > MAX_DIM)
        return ht_fail(HT_ERR_ARGUMENT, "features of %d numbers; wanted 1 to %d", dim, MAX_DIM);
    ht_moments m = {.dim = dim,
                    .mu = calloc((size_t)dim, sizeof *m.mu),
                    .sigma = calloc((size_t)dim * (size_t)dim, sizeof *m.sigma)};
    if (m.mu && m.sigma) {
        *out = m;
        return HT_OK;
    }
    ht_moments_free(&m);
    return ht_fail(HT_ERR_MEMORY, "out of memory for the covariance of %d numbers", dim);
}

void ht_moments_free(ht_moments *m)
{
    free(m->mu);
    free(m->sigma);
    *m = (ht_moments){0};
}

static ht_status check_finite(const char *path, const char *name, const ht_npy_array *a)
{
    for (size_t i = 0; i < a->count; i++)
        if (!isfinite(a->data[i]))
            return ht_fail(HT_ERR_FORMAT, "%s: %s[%zu] (of %zu) is not finite", path, name, i, a->count);
    return HT_OK;
}

/* Rounding aside: NumPy's own covariances are symmetric to the last bits, or altogether. */
static ht_status check_covariance(const char *path, int dim, const double *sigma)
{
    double largest = 0;
    for (int i = 0; i < dim; i++)
        largest = fmax(largest, fabs(sigma[(size_t)i * (size_t)dim + (size_t)i]));
    for (int i = 0; i < dim; i++)
        if (sigma[(size_t)i * (size_t)dim + (size_t)i] < 0)
            return ht_fail(HT_ERR_FORMAT, "%s: sigma is no covariance: the variance [%d,%d] is %g", path, i, i,
                           sigma[(size_t)i * (size_t)dim + (size_t)i]);
    for (int i = 0; i < dim; i++)
        for (int j = 0; j < i; j++) {
            double a = sigma[(size_t)i * (size_t)dim + (size_t)j], b = sigma[(size_t)j * (size_t)dim + (size_t)i];
            if (!(fabs(a - b) <= 1e-6 * largest))
                return ht_fail(HT_ERR_FORMAT, "%s: sigma is no covariance: [%d,%d] is %g, [%d,%d] is %g", path, i, j, a,
                               j, i, b);
        }
    return HT_OK;
}

static ht_status check(const char *path, const ht_npy_array *mu, const ht_npy_array *sigma)
{
    if (mu->ndim != 1 || mu->shape[0] < 1 || mu->shape[0] > MAX_DIM)
        return ht_fail(HT_ERR_SHAPE, "%s: mu has %d dimensions and %zu numbers; wanted a vector of 1 to %d", path,
                       mu->ndim, mu->count, MAX_DIM);
    if (sigma->ndim != 2 || sigma->shape[0] != mu->shape[0] || sigma->shape[1] != mu->shape[0])
        return ht_fail(
            HT_ERR_SHAPE, "%s: mu is [%lld], so sigma must be [%lld,%lld]; it has %d dimensions and %zu numbers", path,
            (long long)mu->shape[0], (long long)mu->shape[0], (long long)mu->shape[0], sigma->ndim, sigma->count);
    ht_status status = check_finite(path, "mu", mu);
    if (!status)
        status = check_finite(path, "sigma", sigma);
    return status ? status : check_covariance(path, (int)mu->shape[0], sigma->data);
}

/* How many vectors: a number of either kind that NumPy stores. */
static ht_status read_count(ht_npz *npz, const char *path, int64_t *n)
{
    ht_npy_array a = {0};
    *n = 0;
    if (!ht_npz_has(npz, "n"))
        return HT_OK;
    ht_status status = ht_npz_read(npz, "n", &a);
    if (!status && (a.count != 1 || !(a.data[0] >= 0 && a.data[0] < 1e15)))
        status = ht_fail(HT_ERR_FORMAT, "%s: n must be one number, how many images there were", path);
    if (!status)
        *n = (int64_t)a.data[0];
    free(a.data);
    return status;
}

ht_status ht_moments_read(const char *path, ht_moments *out)
{
    int64_t n;
    return ht_moments_read_counted(path, out, &n);
}

ht_status ht_moments_read_counted(const char *path, ht_moments *out, int64_t *n)
{
    ht_npz *npz = NULL;
    ht_npy_array mu = {0}, sigma = {0};
    ht_status status = ht_npz_open(path, &npz);
    if (!status)
        status = read_count(npz, path, n);
    if (!status)
        status = ht_npz_read(npz, "mu", &mu);
    if (!status)
        status = ht_npz_read(npz, "sigma", &sigma);
    if (!status)
        status = check(path, &mu, &sigma);
    ht_npz_close(npz);
    if (!status) {
        *out = (ht_moments){.dim = (int)mu.shape[0], .mu = mu.data, .sigma = sigma.data};
        return HT_OK;
    }
    free(mu.data);
    free(sigma.data);
    return status;
}
