/* manifold.c - balls around vectors and who is in them.
 *
 * Three passes over tiles of pairs: radii of either set, then the sets against one another, which gives all four. */
#include "eval/manifold.h"

#include <math.h>
#include <stdbool.h>

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

static ht_status center(ht_arena *arena, const ht_vectors *v, const double *mean, int k, ball_set *s)
{
    size_t count = (size_t)v->n * (size_t)v->dim; /* as many as lie in v already */
    *s = (ball_set){.rows = ht_alloc_array(arena, count, sizeof *s->rows),
                    .lengths = ht_alloc_array(arena, (size_t)v->n, sizeof *s->lengths),
                    .nearest = ht_alloc_array(arena, (size_t)v->n, (size_t)k * sizeof *s->nearest),
                    .k = k};
    if (!s->rows || !s->lengths || !s->nearest)
        return HT_ERR_MEMORY;
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

static ht_status count_all(ht_arena *arena, ht_pairs *p, const ball_set *made, const ball_set *real, ht_manifold *out)
{
    size_t n = (size_t)made->v.n, m = (size_t)real->v.n;
    bool *flags = ht_alloc_array(arena, n + 2 * m, sizeof *flags);
    if (!flags)
        return HT_ERR_MEMORY;
    counts c = {made, real, flags, flags + n, flags + n + m, 0};
    ht_status status = ht_pairs_run(p, &made->v, &real->v, count_tile, &c);
    if (!status)
        *out = (ht_manifold){.precision = share(c.made_in_real, made->v.n),
                             .recall = share(c.real_in_made, real->v.n),
                             .density = (double)c.balls / ((double)made->k * (double)made->v.n),
                             .coverage = share(c.real_has_made, real->v.n)};
    return status;
}

static ht_status measure(ht_arena *arena, ht_pairs *p, const ht_vectors *made, const ht_vectors *real, int k,
                         ht_manifold *out)
{
    ball_set a, b;
    double *mean = ht_alloc_array(arena, (size_t)real->dim, sizeof *mean);
    if (!mean)
        return HT_ERR_MEMORY;
    mean_of(real, mean);
    ht_status status = center(arena, made, mean, k, &a);
    if (!status)
        status = center(arena, real, mean, k, &b);
    if (!status)
        status = ht_pairs_run(p, &a.v, &a.v, find_neighbours, &a);
    if (!status)
        status = ht_pairs_run(p, &b.v, &b.v, find_neighbours, &b);
    return status ? status : count_all(arena, p, &a, &b, out);
}

ht_status ht_manifold_of(ht_pairs *p, const ht_vectors *made, const ht_vectors *real, int k, ht_manifold *out)
{
    if (k < 1 || k > MAX_K || made->n <= k || real->n <= k)
        return ht_fail(HT_ERR_ARGUMENT,
                       "precision and recall with %d neighbours of %lld and %lld images; wanted more images than "
                       "neighbours, and 1 to %d of these",
                       k, (long long)made->n, (long long)real->n, MAX_K);
    ht_arena *arena = ht_arena_create();
    ht_status status = arena ? measure(arena, p, made, real, k, out) : HT_ERR_MEMORY;
    ht_arena_free(arena);
    return status;
}
