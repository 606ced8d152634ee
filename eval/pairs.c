/* pairs.c - products of pairs as the graph's `scores`: rows of one set are queries, those of the other keys, of one
 * head.  Tiles that are not full are computed with whatever is in the rest of their memory, which nobody looks at. */
#include "eval/pairs.h"

#include <stdlib.h>
#include <string.h>

#include "cpu/backend.h"
#include "graph/reverse.h"

struct ht_pairs {
    ht_arena *arena;
    ht_graph *graph;
    ht_program *program;
    int dim;
    float *a, *b, *products;
};

static ht_status compile(ht_pairs *p, int threads)
{
    ht_graph *g = p->graph = ht_graph_create(p->arena);
    if (!g)
        return HT_ERR_MEMORY;
    ht_value *a = ht_input(g, "a", 3, (const int64_t[]){1, HT_PAIRS_ROWS, p->dim}, HT_DEPENDS_X);
    ht_value *b = ht_input(g, "b", 3, (const int64_t[]){1, HT_PAIRS_COLUMNS, p->dim}, HT_DEPENDS_X);
    ht_output_value(g, ht_scores(g, a, b, 1, 1), "products");
    ht_status status = ht_graph_finish(g, true);
    return status ? status : ht_cpu_backend.compile(g, &(ht_backend_options){.threads = threads}, &p->program);
}

ht_status ht_pairs_open(int dim, int threads, ht_pairs **out)
{
    ht_arena *arena = ht_arena_create();
    ht_pairs *p = arena ? ht_alloc(arena, sizeof *p) : NULL;
    ht_status status = HT_ERR_MEMORY;
    if (!p) {
        ht_arena_free(arena);
        return status;
    }
    *p = (ht_pairs){.arena = arena,
                    .dim = dim,
                    .a = ht_alloc_array(arena, (size_t)dim, sizeof(float[HT_PAIRS_ROWS])),
                    .b = ht_alloc_array(arena, (size_t)dim, sizeof(float[HT_PAIRS_COLUMNS])),
                    .products = ht_alloc_array(arena, HT_PAIRS_ROWS, sizeof(float[HT_PAIRS_COLUMNS]))};
    if (p->a && p->b && p->products)
        status = compile(p, threads);
    if (status)
        ht_pairs_close(p);
    else
        *out = p;
    return status;
}

void ht_pairs_close(ht_pairs *p)
{
    if (!p)
        return;
    ht_cpu_backend.close(p->program); /* NULL is allowed */
    ht_arena_free(p->arena);
}

static int fill(const ht_vectors *v, int64_t first, int room, float *to)
{
    int n = v->n - first < room ? (int)(v->n - first) : room;
    memcpy(to, v->rows + first * v->dim, (size_t)n * (size_t)v->dim * sizeof *to);
    return n;
}

ht_status ht_pairs_run(ht_pairs *p, const ht_vectors *a, const ht_vectors *b, ht_pairs_take *take, void *user)
{
    if (a->dim != p->dim || b->dim != p->dim)
        return ht_fail(HT_ERR_SHAPE, "vectors of %d and of %d numbers; wanted %d", a->dim, b->dim, p->dim);
    ht_status status = HT_OK;
    for (int64_t i = 0; !status && i < a->n; i += HT_PAIRS_ROWS) {
        ht_pairs_tile tile = {.first_a = i, .rows = fill(a, i, HT_PAIRS_ROWS, p->a), .products = p->products};
        status = ht_cpu_backend.upload(p->program, ht_graph_input(p->graph, "a"), p->a, 1);
        for (int64_t j = 0; !status && j < b->n; j += HT_PAIRS_COLUMNS) {
            tile.first_b = j;
            tile.columns = fill(b, j, HT_PAIRS_COLUMNS, p->b);
            status = ht_cpu_backend.upload(p->program, ht_graph_input(p->graph, "b"), p->b, 1);
            if (!status)
                status = ht_cpu_backend.run(p->program, HT_STAGE_STEP, 1, NULL);
            if (!status)
                status = ht_cpu_backend.download(p->program, ht_graph_output(p->graph), p->products, 1);
            if (!status)
                take(user, &tile);
        }
    }
    return status;
}
