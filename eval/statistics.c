/* statistics.c - streaming mean and covariance, in double.
 *
 * Vectors wait until a block of BLOCK is full; its mean and its scatter around it join what is there as two sets do:
 *     delta = mean_b - mean_a;   mean = mean_a + delta n_b / n;   scatter = scatter_a + scatter_b + delta delta^T n_a
 * n_b / n (Chan, Golub, LeVeque 1983, eq. 2.1).  Blocks begin at every BLOCK-th vector, so the order of every sum is
 * that of the vectors: the block's mean is one chain a coordinate, and an element of the scatter is one chain over the
 * block's vectors that goes on from the element's value, then the term of the means.  Only the upper triangle is kept.
 */
#include "eval/statistics.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/arena.h"

enum { BLOCK = 64 };

struct ht_statistics {
    int64_t n;       /* joined */
    ht_moments sums; /* mu: the mean; sigma: the scatter, its upper triangle */
    int waiting;
    float *block;       /* [BLOCK,dim], the vectors that wait */
    double *deviations; /* [BLOCK+1,dim]: scratch */
};

ht_status ht_statistics_open(int dim, ht_statistics **out)
{
    ht_statistics *s = calloc(1, sizeof *s);
    if (!s)
        return ht_fail(HT_ERR_MEMORY, "out of memory for statistics");
    ht_status status = ht_moments_alloc(dim, &s->sums);
    if (!status) {
        s->block = calloc((size_t)BLOCK * (size_t)dim, sizeof *s->block);
        s->deviations = calloc((size_t)(BLOCK + 1) * (size_t)dim, sizeof *s->deviations);
        if (!s->block || !s->deviations)
            status = ht_fail(HT_ERR_MEMORY, "out of memory for the statistics of %d numbers", dim);
    }
    if (status)
        ht_statistics_close(s);
    else
        *out = s;
    return status;
}

void ht_statistics_close(ht_statistics *s)
{
    if (!s)
        return;
    ht_moments_free(&s->sums);
    free(s->block);
    free(s->deviations);
    free(s);
}

int ht_statistics_dim(const ht_statistics *s)
{
    return s->sums.dim;
}

int64_t ht_statistics_count(const ht_statistics *s)
{
    return s->n + s->waiting;
}

/* scatter += sum of rows^T rows, the upper triangle. */
static void add_products(ht_moments *sums, int rows, const double *row)
{
    size_t dim = (size_t)sums->dim;
    for (size_t i = 0; i < dim; i++) {
        double *to = sums->sigma + i * dim;
        for (int k = 0; k < rows; k++) {
            const double *from = row + (size_t)k * dim;
            double a = from[i];
            for (size_t j = i; j < dim; j++)
                to[j] += a * from[j];
        }
    }
}

/* Move the mean from that of n vectors to that of n and n_b more with the mean mean_b; the term of the means that the
 * scatter gets is left as a row. */
static void join_means(ht_moments *sums, int64_t n, int64_t n_b, const double *mean_b, double *row)
{
    double share = (double)n_b / (double)(n + n_b), weight = sqrt((double)n * share);
    for (int i = 0; i < sums->dim; i++) {
        double delta = mean_b[i] - sums->mu[i];
        sums->mu[i] += delta * share;
        row[i] = delta * weight;
    }
}

/* The vectors that wait join the sums of n others. */
static void join_block(const ht_statistics *s, ht_moments *sums, int64_t n)
{
    size_t dim = (size_t)sums->dim;
    double *mean = s->deviations + (size_t)s->waiting * dim; /* the last row */
    if (!s->waiting)
        return;
    memset(mean, 0, dim * sizeof *mean);
    for (int k = 0; k < s->waiting; k++)
        for (size_t i = 0; i < dim; i++)
            mean[i] += (double)s->block[(size_t)k * dim + i];
    for (size_t i = 0; i < dim; i++)
        mean[i] /= s->waiting;
    for (int k = 0; k < s->waiting; k++)
        for (size_t i = 0; i < dim; i++)
            s->deviations[(size_t)k * dim + i] = (double)s->block[(size_t)k * dim + i] - mean[i];
    join_means(sums, n, s->waiting, mean, mean);
    add_products(sums, s->waiting + 1, s->deviations);
}

static void flush(ht_statistics *s)
{
    join_block(s, &s->sums, s->n);
    s->n += s->waiting;
    s->waiting = 0;
}

static ht_status check_finite(const ht_statistics *s, int64_t n, const float *rows)
{
    int64_t dim = s->sums.dim;
    for (int64_t i = 0; i < n * dim; i++)
        if (!isfinite(rows[i]))
            return ht_fail(HT_ERR_ARGUMENT, "feature %lld of vector %lld (of %lld) is not finite", (long long)(i % dim),
                           (long long)(i / dim), (long long)n);
    return HT_OK;
}

ht_status ht_statistics_add(ht_statistics *s, int64_t n, const float *rows)
{
    ht_status status = check_finite(s, n, rows);
    size_t dim = (size_t)s->sums.dim;
    for (int64_t i = 0; !status && i < n; i++) {
        memcpy(s->block + (size_t)s->waiting * dim, rows + (size_t)i * dim, dim * sizeof *rows);
        if (++s->waiting == BLOCK)
            flush(s);
    }
    return status;
}

ht_status ht_statistics_merge(ht_statistics *s, const ht_statistics *from)
{
    size_t dim = (size_t)s->sums.dim;
    ht_moments other = {0};
    if (from->sums.dim != s->sums.dim)
        return ht_fail(HT_ERR_SHAPE, "statistics of %d numbers cannot join those of %d", from->sums.dim, s->sums.dim);
    if (!ht_statistics_count(from))
        return HT_OK;
    ht_status status = ht_moments_alloc(s->sums.dim, &other);
    if (status)
        return status;
    memcpy(other.mu, from->sums.mu, dim * sizeof *other.mu);
    memcpy(other.sigma, from->sums.sigma, dim * dim * sizeof *other.sigma);
    join_block(from, &other, from->n);
    flush(s);
    join_means(&s->sums, s->n, ht_statistics_count(from), other.mu, s->deviations);
    add_products(&s->sums, 1, s->deviations);
    for (size_t i = 0; i < dim * dim; i++)
        s->sums.sigma[i] += other.sigma[i];
    s->n += ht_statistics_count(from);
    ht_moments_free(&other);
    return HT_OK;
}

ht_status ht_statistics_moments(const ht_statistics *s, ht_moments *out)
{
    int64_t n = ht_statistics_count(s);
    size_t dim = (size_t)s->sums.dim;
    if (n < 2)
        return ht_fail(HT_ERR_ARGUMENT, "the covariance of %lld feature vector%s is not defined; it takes two or more",
                       (long long)n, n == 1 ? "" : "s");
    ht_status status = ht_moments_alloc(s->sums.dim, out);
    if (status)
        return status;
    memcpy(out->mu, s->sums.mu, dim * sizeof *out->mu);
    memcpy(out->sigma, s->sums.sigma, dim * dim * sizeof *out->sigma);
    join_block(s, out, s->n);
    for (size_t i = 0; i < dim; i++)
        for (size_t j = i; j < dim; j++)
            out->sigma[j * dim + i] = out->sigma[i * dim + j] /= (double)(n - 1);
    return HT_OK;
}
