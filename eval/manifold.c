/* manifold.c - balls around vectors and who is in them.
 *
 * Three passes over tiles of pairs: radii of either set, then the sets against one another, which gives all four. */
#include "eval/manifold.h"

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>

#include "core/arena.h"

enum { MAX_K = 64 };

/* A set around the reference's mean, with squared lengths and squared radii. */
typedef struct ball_set {
    ht_vectors v;
    float *rows;
    double *lengths;
    double *nearest; /* [n][k], rising: squared distances to neighbours; the last is the radius */
    int k;
} ball_set;

static void free_balls(ball_set *s)
{
    free(s->rows);
    free(s->lengths);
    free(s->nearest);
}

static void mean_of(const ht_vectors *v, double *mean)
{
    for (int i = 0; i < v->dim; i++)
        mean[i] = 0;
    for (int64_t k = 0; k < v->n; k++)
        for (int i = 0; i < v->dim; i++)
            mean[i] += (double)v->rows[k * v->dim + i];
    for (int i = 0; i < v->dim; i++)
        mean[i] /= (double)v->n;
}

static ht_status center(const ht_vectors *v, const double *mean, int k, ball_set *s)
{
    size_t count = 0, bytes = 0;
    bool fits = ht_mul_size((size_t)v->n, (size_t)v->dim, &count) && ht_mul_size(count, sizeof(float), &bytes);
    *s = (ball_set){.rows = fits ? malloc(bytes) : NULL,
                    .lengths = calloc((size_t)v->n, sizeof *s->lengths),
                    .nearest = calloc((size_t)v->n * (size_t)k, sizeof *s->nearest),
                    .k = k};
    if (!s->rows || !s->lengths || !s->nearest)
        return ht_fail(HT_ERR_MEMORY, "out of memory for %lld vectors of %d numbers", (long long)v->n, v->dim);
    for (size_t i = 0; i < count; i++) {
        s->rows[i] = (float)((double)v->rows[i] - mean[i % (size_t)v->dim]);
        s->lengths[i / (size_t)v->dim] += (double)s->rows[i] * (double)s->rows[i];
    }
    for (int64_t i = 0; i < v->n * k; i++)
        s->nearest[i] = INFINITY;
    s->v = (ht_vectors){v->n, v->dim, s->rows};
    return HT_OK;
}

static double squared(const ball_set *a, const ball_set *b, const ht_pairs_tile *t, int i, int j)
{
    double d = a->lengths[t->first_a + i] + b->lengths[t->first_b + j] -
               2 * (double)t->products[(size_t)i * HT_PAIRS_COLUMNS + (size_t)j];
    return d > 0 ? d : 0;
}

/* Keeps the k smallest, rising. */
static void insert(double *nearest, int k, double d)
{
    int at = k - 1;
    if (!(d < nearest[at]))
        return;
    for (; at > 0 && nearest[at - 1] > d; at--)
        nearest[at] = nearest[at - 1];
    nearest[at] = d;
}

static void find_neighbours(void *user, const ht_pairs_tile *t)
{
    ball_set *s = user;
    for (int i = 0; i < t->rows; i++)
        for (int j = 0; j < t->columns; j++)
            if (t->first_a + i != t->first_b + j)
                insert(s->nearest + (t->first_a + i) * s->k, s->k, squared(s, s, t, i, j));
}

static double radius(const ball_set *s, int64_t i)
{
    return s->nearest[i * s->k + s->k - 1];
}

typedef struct counts {
    const ball_set *made, *real;
    bool *made_in_real, *real_in_made, *real_has_made;
    int64_t balls; /* around real vectors, counted once for each made vector in them */
} counts;

static void count_tile(void *user, const ht_pairs_tile *t)
{
    counts *c = user;
    for (int i = 0; i < t->rows; i++)
        for (int j = 0; j < t->columns; j++) {
            int64_t made = t->first_a + i, real = t->first_b + j;
            double d = squared(c->made, c->real, t, i, j);
            if (d <= radius(c->real, real)) {
                c->made_in_real[made] = c->real_has_made[real] = true;
                c->balls++;
            }
            c->real_in_made[real] |= d <= radius(c->made, made);
        }
}

static double share(const bool *set, int64_t n)
{
    int64_t count = 0;
    for (int64_t i = 0; i < n; i++)
        count += set[i];
    return (double)count / (double)n;
}

static ht_status count_all(ht_pairs *p, const ball_set *made, const ball_set *real, ht_manifold *out)
{
    bool *flags = calloc((size_t)made->v.n + 2 * (size_t)real->v.n, sizeof *flags);
    if (!flags)
        return ht_fail(HT_ERR_MEMORY, "out of memory for precision and recall");
    counts c = {made, real, flags, flags + made->v.n, flags + made->v.n + real->v.n, 0};
    ht_status status = ht_pairs_run(p, &made->v, &real->v, count_tile, &c);
    if (!status)
        *out = (ht_manifold){.precision = share(c.made_in_real, made->v.n),
                             .recall = share(c.real_in_made, real->v.n),
                             .density = (double)c.balls / ((double)made->k * (double)made->v.n),
                             .coverage = share(c.real_has_made, real->v.n)};
    free(flags);
    return status;
}

ht_status ht_manifold_of(ht_pairs *p, const ht_vectors *made, const ht_vectors *real, int k, ht_manifold *out)
{
    ball_set a = {0}, b = {0};
    if (k < 1 || k > MAX_K || made->n <= k || real->n <= k)
        return ht_fail(HT_ERR_ARGUMENT,
                       "precision and recall with %d neighbours of %lld and %lld images; wanted more images than "
                       "neighbours, and 1 to %d of these",
                       k, (long long)made->n, (long long)real->n, MAX_K);
    double *mean = calloc((size_t)real->dim, sizeof *mean);
    ht_status status = mean ? HT_OK : ht_fail(HT_ERR_MEMORY, "out of memory for precision and recall");
    if (!status) {
        mean_of(real, mean);
        status = center(made, mean, k, &a);
    }
    if (!status)
        status = center(real, mean, k, &b);
    if (!status)
        status = ht_pairs_run(p, &a.v, &a.v, find_neighbours, &a);
    if (!status)
        status = ht_pairs_run(p, &b.v, &b.v, find_neighbours, &b);
    if (!status)
        status = count_all(p, &a, &b, out);
    free_balls(&b);
    free_balls(&a);
    free(mean);
    return status;
}
