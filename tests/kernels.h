/* kernels.h - what tests of kernels share: cases that are drawn, buffers between canaries, a kernel run by a team, and
 * its output compared with the scalar one's bit by bit.
 *
 * A case that failed is run again alone by what the message ends with: --seed S --case I. */
#ifndef HT_TESTS_KERNELS_H
#define HT_TESTS_KERNELS_H

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "core/rng.h"
#include "cpu/cpu.h"

enum { CANARY = 64, MAX_THREADS = 3 };

/* A graph with the operation that is looked at, and what its inputs are like. */
typedef struct scene {
    ht_arena *arena;
    ht_graph *graph;
    int batch, n; /* planned for, and run */
    int kind, index;
    ht_layer layer[2]; /* of quantized ones: that of the operation, and one that reads its output as codes */
    ht_layers layers;
    char text[240];
} scene;

/* ---- drawing ---- */

static ht_mt19937 rng;
static unsigned seed;
static int only_case = -1;

static inline int64_t draw(int64_t low, int64_t high)
{
    return low + (int64_t)(ht_mt19937_u32(&rng) % (uint32_t)(high - low + 1));
}

static inline bool one_in(int n)
{
    return draw(1, n) == 1;
}

static inline int64_t one_of(const int *choices, int n)
{
    return choices[draw(0, n - 1)];
}

/* Of the command line; start is the seed of a run without. */
static inline void read_seed(int argc, char **argv, unsigned start)
{
    seed = start;
    for (int i = 1; i + 1 < argc; i += 2) {
        if (!strcmp(argv[i], "--seed"))
            seed = (unsigned)strtoul(argv[i + 1], NULL, 10);
        if (!strcmp(argv[i], "--case"))
            only_case = (int)strtol(argv[i + 1], NULL, 10);
    }
}

/* A scene without a graph's contents: batches of 1 to `batch`. */
static inline scene open_scene(int kind, int index, int batch)
{
    ht_mt19937_seed(&rng, seed * 1000003u + (unsigned)kind * 1009u + (unsigned)index);
    scene s = {.arena = ht_arena_create(), .batch = (int)draw(1, batch), .index = index};
    s.n = (int)draw(1, s.batch);
    s.graph = ht_graph_create(s.arena);
    assert_non_null(s.graph);
    return s;
}

/* Normal numbers with a sprinkle of exact zeros of both signs. */
static inline void fill_normal(float *x, size_t n, float scale)
{
    ht_mt19937_randn(&rng, n, x);
    for (size_t i = 0; i < n; i++)
        x[i] = draw(0, 31) ? x[i] * scale : draw(0, 1) ? 0.0f : -0.0f;
}

/* A NaN whose payload is all ones, as bytes of 0xff give it: its bits must not leak into an exponent. */
static inline float odd_nan(void)
{
    const uint32_t u = 0xffffffff;
    float x;
    memcpy(&x, &u, sizeof x);
    return x;
}

static inline const ht_tensor *weight_of(scene *s, const char *name, int ndim, const int64_t *shape)
{
    ht_tensor *t = ht_alloc(s->arena, sizeof *t);
    size_t count = 1;
    for (int i = 0; i < ndim; i++)
        count *= (size_t)shape[i];
    float *data = ht_alloc_array(s->arena, count, sizeof *data);
    assert_true(t && data);
    fill_normal(data, count, 1);
    *t = (ht_tensor){.name = name, .dtype = HT_F32, .ndim = ndim, .data = data, .count = count, .bytes = count * 4};
    memcpy(t->shape, shape, (size_t)ndim * sizeof *shape);
    return t;
}

static inline ht_value *input(scene *s, const char *name, int ndim, const int64_t *shape)
{
    return ht_input(s->graph, name, ndim, shape, HT_DEPENDS_X);
}

/* ---- running one kernel ---- */

/* bytes of junk between two rows of canaries */
static inline void *room(scene *s, size_t bytes)
{
    char *p = ht_alloc(s->arena, bytes + 2 * CANARY);
    assert_non_null(p);
    memset(p, 0xca, CANARY);
    memset(p + CANARY, 0xa5, bytes);
    memset(p + CANARY + bytes, 0xca, CANARY);
    return p + CANARY;
}

static inline void check_canaries(const scene *s, const ht_kernel *k, const char *what, const void *at, size_t bytes)
{
    const unsigned char *p = at;
    for (size_t i = 0; i < CANARY; i++)
        if (p[i - CANARY] != 0xca || p[bytes + i] != 0xca)
            fail_msg("%s writes outside %s: %s; again: --seed %u --case %d", k->name, what, s->text, seed, s->index);
}

static inline size_t size_of(size_t (*size)(const ht_op *), const ht_op *op)
{
    size_t bytes = size ? size(op) : 0;
    assert_int_equal(bytes % 64, 0);
    return bytes;
}

static inline size_t value_bytes(const ht_value *v, int n)
{
    return (size_t)(ht_rows(v, n) * ht_channels(v)) * (v->dtype == HT_U8 ? 1 : sizeof(float));
}

typedef struct job {
    const ht_kernel *kernel;
    ht_call call;
    void *shared, *scratch[MAX_THREADS];
} job;

static inline void do_share(void *argument, const ht_team *member)
{
    job *j = argument;
    ht_team team = *member;
    team.shared = j->shared;
    team.scratch = j->scratch[team.thread];
    j->kernel->run(&j->call, &team);
}

static inline const void *run_kernel(scene *s, const ht_kernel *k, const ht_call *call, int threads)
{
    const ht_op *op = call->op;
    size_t out_bytes = value_bytes(op->out, s->n), packed_bytes = size_of(k->packed, op);
    size_t shared_bytes = size_of(k->shared, op), scratch_bytes = size_of(k->scratch, op);
    void *out = room(s, out_bytes), *packed = room(s, packed_bytes), *shared = room(s, shared_bytes);
    job j = {.kernel = k, .call = *call, .shared = shared};
    ht_crew *crew;
    for (int i = 0; i < threads; i++)
        j.scratch[i] = room(s, scratch_bytes);
    if (k->pack)
        k->pack(op, packed);
    j.call.out = out;
    j.call.packed = packed;
    assert_int_equal(ht_crew_open(threads, &crew), HT_OK);
    ht_crew_run(crew, do_share, &j);
    ht_crew_close(crew);
    check_canaries(s, k, "its output", out, out_bytes);
    check_canaries(s, k, "its packed weights", packed, packed_bytes);
    check_canaries(s, k, "what the team shares", shared, shared_bytes);
    for (int i = 0; i < threads; i++)
        check_canaries(s, k, "its scratch", j.scratch[i], scratch_bytes);
    return out;
}

/* ---- comparing ---- */

static inline bool same_float(float x, float y)
{
    return !memcmp(&x, &y, sizeof x) || (isnan(x) && isnan(y));
}

static inline void compare_output(scene *s, const ht_kernel *k, const ht_call *call, const void *got, const void *want,
                                  int threads)
{
    size_t bytes = value_bytes(call->op->out, s->n);
    bool codes = call->op->out->dtype == HT_U8;
    for (size_t i = 0; i < bytes / (codes ? 1 : sizeof(float)); i++) {
        double x = codes ? ((const uint8_t *)got)[i] : (double)((const float *)got)[i],
               y = codes ? ((const uint8_t *)want)[i] : (double)((const float *)want)[i];
        if (codes ? x != y : !same_float(((const float *)got)[i], ((const float *)want)[i]))
            fail_msg("%s differs from scalar: out[%zu] = %.9g, want %.9g (%d threads, %d of batch %d, kind %d, %s); "
                     "again: --seed %u --case %d",
                     k->name, i, x, y, threads, s->n, s->batch, s->kind, s->text, seed, s->index);
    }
}

/* With every number of threads. */
static inline void compare(scene *s, const ht_kernel *k, const ht_call *call, const void *want)
{
    for (int threads = 1; threads <= MAX_THREADS; threads++)
        compare_output(s, k, call, run_kernel(s, k, call, threads), want, threads);
}

#endif
