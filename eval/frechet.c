/* frechet.c - the Frechet distance in double, from symmetric eigenvalues alone.
 *
 * S_a = V diag(l) V^T, so (S_a S_b)^(1/2) has the trace of (B^T S_b B)^(1/2) with B = V diag(sqrt(l)): sqrt(S_a) S_b
 * sqrt(S_a) in the basis V.  That matrix is symmetric with eigenvalues >= 0 but for rounding, which is cut off; the
 * general square root that others take of S_a S_b turns complex there.  LAPACK and BLAS are whichever the system has:
 * the last digits are theirs.  OpenBLAS cuts its sums by threads, as many as there are processors, so it works with
 * one: the distance is the same on any number of them, and in processes that mpirun has bound to some. */
#include "eval/frechet.h"

#include <cblas.h>
#include <dlfcn.h>
#include <lapacke.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef struct workspace {
    int dim;
    double *eigenvalues; /* [dim] */
    double *a, *b;       /* [dim,dim], column after column */
} workspace;

static ht_status check_finite(const ht_moments *m, const char *which)
{
    size_t dim = (size_t)m->dim;
    for (size_t i = 0; i < dim * (dim + 1); i++)
        if (!isfinite(i < dim ? m->mu[i] : m->sigma[i - dim]))
            return ht_fail(HT_ERR_ARGUMENT, "the %s of the two sets has features that are not finite", which);
    return HT_OK;
}

static ht_status check(const ht_moments *a, const ht_moments *b)
{
    if (a->dim != b->dim)
        return ht_fail(HT_ERR_SHAPE,
                       "features of %d and of %d numbers have no distance; were they made by one network?", a->dim,
                       b->dim);
    ht_status status = check_finite(a, "first");
    return status ? status : check_finite(b, "second");
}

/* Eigenvalues, rising; job 'V': eigenvectors take the place of a, one a column. */
static ht_status eigen(char job, int dim, double *a, double *eigenvalues)
{
    lapack_int info = LAPACKE_dsyevd(LAPACK_COL_MAJOR, job, 'U', dim, a, dim, eigenvalues);
    if (info == LAPACK_WORK_MEMORY_ERROR)
        return ht_fail(HT_ERR_MEMORY, "out of memory for the eigenvalues of a %d x %d matrix", dim, dim);
    if (info)
        return ht_fail(HT_ERR_ARGUMENT,
                       "the eigenvalues of a covariance of %d features do not converge (LAPACK dsyevd: %d)", dim,
                       (int)info);
    return HT_OK;
}

static double sqrt_or_0(double x)
{
    return x > 0 ? sqrt(x) : 0;
}

/* tr (S_a S_b)^(1/2) */
static ht_status trace_of_root(const ht_moments *a, const ht_moments *b, workspace *w, double *trace)
{
    int n = w->dim;
    size_t dim = (size_t)n;
    memcpy(w->a, a->sigma, dim * dim * sizeof *w->a);
    ht_status status = eigen('V', n, w->a, w->eigenvalues);
    if (status)
        return status;
    for (size_t j = 0; j < dim; j++)
        cblas_dscal(n, sqrt_or_0(w->eigenvalues[j]), w->a + j * dim, 1);
    double *product = w->b + dim * dim;
    cblas_dsymm(CblasColMajor, CblasLeft, CblasUpper, n, n, 1, b->sigma, n, w->a, n, 0, w->b, n);
    cblas_dgemm(CblasColMajor, CblasTrans, CblasNoTrans, n, n, n, 1, w->a, n, w->b, n, 0, product, n);
    if ((status = eigen('N', n, product, w->eigenvalues)))
        return status;
    *trace = 0;
    for (size_t i = 0; i < dim; i++)
        *trace += sqrt_or_0(w->eigenvalues[i]);
    return HT_OK;
}

/* OpenBLAS's threads, if BLAS is OpenBLAS; returns how many there were. */
static int set_threads(int n)
{
    int (*get)(void);
    void (*set)(int);
    *(void **)&get = dlsym(RTLD_DEFAULT, "openblas_get_num_threads"); /* POSIX's way to take a function from dlsym */
    *(void **)&set = dlsym(RTLD_DEFAULT, "openblas_set_num_threads");
    int before = get ? get() : 1;
    if (set)
        set(n);
    return before;
}

static ht_status trace_on_one_thread(const ht_moments *a, const ht_moments *b, workspace *w, double *trace)
{
    int before = set_threads(1);
    ht_status status = trace_of_root(a, b, w, trace);
    set_threads(before);
    return status;
}

ht_status ht_frechet(const ht_moments *a, const ht_moments *b, double *distance)
{
    ht_status status = check(a, b);
    if (status)
        return status;
    size_t dim = (size_t)a->dim;
    workspace w = {.dim = a->dim,
                   .eigenvalues = malloc(dim * sizeof(double)),
                   .a = malloc(dim * dim * sizeof(double)),
                   .b = malloc(2 * dim * dim * sizeof(double))};
    double sum = 0, root = 0;
    if (!w.eigenvalues || !w.a || !w.b)
        status = ht_fail(HT_ERR_MEMORY, "out of memory for the distance of %d features", a->dim);
    else
        status = trace_on_one_thread(a, b, &w, &root);
    for (size_t i = 0; i < dim; i++) {
        double difference = a->mu[i] - b->mu[i];
        sum += difference * difference + a->sigma[i * dim + i] + b->sigma[i * dim + i];
    }
    if (!status)
        *distance = fmax(sum - 2 * root, 0);
    free(w.b);
    free(w.a);
    free(w.eigenvalues);
    return status;
}
