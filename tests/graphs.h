/* graphs.h - weights and shapes for graphs that tests build. */
#ifndef HT_TESTS_GRAPHS_H
#define HT_TESTS_GRAPHS_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "core/rng.h"
#include "graph/graph.h"

static ht_arena *arena;
static ht_mt19937 rng;

static inline int open_arena(void **state)
{
    (void)state;
    ht_mt19937_seed(&rng, 3);
    return !(arena = ht_arena_create());
}

static inline int close_arena(void **state)
{
    (void)state;
    ht_arena_free(arena);
    return 0;
}

static inline float *draw(size_t n, float scale)
{
    float *x = ht_alloc_array(arena, n, sizeof *x);
    assert_non_null(x);
    ht_mt19937_randn(&rng, n, x);
    for (size_t i = 0; i < n; i++)
        x[i] *= scale;
    return x;
}

static inline const ht_tensor *tensor(const char *name, int ndim, const int64_t *shape, float scale)
{
    ht_tensor *t = ht_alloc(arena, sizeof *t);
    size_t count = 1;
    assert_non_null(t);
    for (int i = 0; i < ndim; i++)
        count *= (size_t)shape[i];
    *t = (ht_tensor){
        .name = name, .dtype = HT_F32, .ndim = ndim, .data = draw(count, scale), .count = count, .bytes = count * 4};
    memcpy(t->shape, shape, (size_t)ndim * sizeof *shape);
    return t;
}

#define SHAPE(...)                                                                                                     \
    (int)(sizeof((int64_t[]){__VA_ARGS__}) / sizeof(int64_t)), (const int64_t[])                                       \
    {                                                                                                                  \
        __VA_ARGS__                                                                                                    \
    }
#define TENSOR(name, ...) tensor(name, SHAPE(__VA_ARGS__), 1)

#endif
