/* kid.c - the Kernel Inception Distance, over subsets. */
#include "eval/kid.h"

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "core/arena.h"
#include "eval/draw.h"

typedef struct kernel_sum {
    double per_dim, sum;
    bool skip_diagonal;
} kernel_sum;

static void add_tile(void *user, const ht_pairs_tile *t)
{
    kernel_sum *k = user;
    for (int i = 0; i < t->rows; i++) {
        double row = 0;
        for (int j = 0; j < t->columns; j++) {
            if (k->skip_diagonal && t->first_a + i == t->first_b + j)
                continue;
            double x = (double)t->products[(size_t)i * HT_PAIRS_COLUMNS + (size_t)j] * k->per_dim + 1;
            row += x * x * x;
        }
        k->sum += row;
    }
}

ht_status ht_kid_mmd2(ht_pairs *p, const ht_vectors *a, const ht_vectors *b, double *out)
{
    double m = (double)a->n, per_dim = 1.0 / a->dim;
    kernel_sum aa = {per_dim, 0, true}, bb = {per_dim, 0, true}, ab = {per_dim, 0, false};
    if (a->n != b->n || a->n < 2)
        return ht_fail(HT_ERR_ARGUMENT, "KID of %lld and %lld vectors; wanted as many of each, and two at least",
                       (long long)a->n, (long long)b->n);
    ht_status status = ht_pairs_run(p, a, a, add_tile, &aa);
    if (!status)
        status = ht_pairs_run(p, b, b, add_tile, &bb);
    if (!status)
        status = ht_pairs_run(p, a, b, add_tile, &ab);
    if (!status)
        *out = (aa.sum + bb.sum) / (m * (m - 1)) - 2 * ab.sum / (m * m);
    return status;
}

/* `size` different vectors of a set, drawn. */
static void choose(ht_mt19937 *rng, const ht_vectors *v, int64_t size, int64_t *order, float *to)
{
    ht_draw_permutation(rng, v->n, order);
    for (int64_t i = 0; i < size; i++)
        memcpy(to + i * v->dim, v->rows + order[i] * v->dim, (size_t)v->dim * sizeof *to);
}

typedef struct workspace {
    int64_t *order;
    float *a, *b;
    double *values;
} workspace;

static ht_status run_subsets(ht_pairs *p, const ht_vectors *a, const ht_vectors *b, uint64_t seed, workspace *w,
                             ht_kid *out)
{
    ht_mt19937 rng;
    ht_status status = HT_OK;
    ht_mt19937_seed(&rng, seed);
    out->mean = 0;
    for (int i = 0; !status && i < out->subsets; i++) {
        choose(&rng, a, out->size, w->order, w->a);
        choose(&rng, b, out->size, w->order, w->b);
        status = ht_kid_mmd2(p, &(ht_vectors){out->size, a->dim, w->a}, &(ht_vectors){out->size, b->dim, w->b},
                             &w->values[i]);
        out->mean += w->values[i] / out->subsets;
    }
    double squares = 0;
    for (int i = 0; !status && i < out->subsets; i++)
        squares += (w->values[i] - out->mean) * (w->values[i] - out->mean);
    out->deviation = sqrt(squares / out->subsets);
    return status;
}

ht_status ht_kid_of(ht_pairs *p, const ht_vectors *a, const ht_vectors *b, const ht_kid_options *options, ht_kid *out)
{
    int64_t most = a->n > b->n ? a->n : b->n, least = a->n < b->n ? a->n : b->n;
    ht_kid k = {.subsets = options->subsets ? options->subsets : 100, .size = options->size ? options->size : 1000};
    size_t bytes = 0;
    k.size = least < k.size ? (int)least : k.size;
    if (k.subsets < 1 || k.size < 2)
        return ht_fail(HT_ERR_ARGUMENT, "KID of %d subsets of %d images; wanted one at least, of two or more",
                       k.subsets, k.size);
    if (!ht_mul_size((size_t)k.size, (size_t)a->dim * sizeof(float), &bytes))
        return ht_fail(HT_ERR_MEMORY, "KID: subsets of %d vectors are too large", k.size);
    workspace w = {calloc((size_t)most, sizeof *w.order), malloc(bytes), malloc(bytes),
                   calloc((size_t)k.subsets, sizeof *w.values)};
    ht_status status = w.order && w.a && w.b && w.values ? run_subsets(p, a, b, options->seed, &w, &k)
                                                         : ht_fail(HT_ERR_MEMORY, "out of memory for KID");
    free(w.values);
    free(w.b);
    free(w.a);
    free(w.order);
    if (!status)
        *out = k;
    return status;
}
