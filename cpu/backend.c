/* backend.c - compiling a graph for the CPU and running its stages: kernels chosen, weights packed, memory planned,
 * then nothing is allocated.
 *
 * In a run every thread walks the stage's operations, does its share of each and waits for the
 * others. */
#include "cpu/backend.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#include "cpu/cpu.h"
#include "graph/plan.h"

enum { HUGE_PAGE = 2 << 20 };

typedef struct step {
    const ht_kernel *kernel;
    const char *refused;
    ht_call call;
    double seconds;
    int64_t runs;
} step;

struct ht_program {
    ht_arena *arena;
    const ht_graph *graph;
    ht_plan plan;
    ht_isa isa;
    int threads;
    bool profile;
    step *steps; /* by operation */
    int *stage_steps[HT_STAGES], stage_length[HT_STAGES];
    char *kept, *work, *packed, *scratch, *shared;
    size_t scratch_bytes, packed_bytes; /* of one thread; of all weights */
    void *row;                          /* of the last run */
    ht_crew *crew;
    atomic_int next_to_pack;
    ht_stage stage; /* of the run that is going on */
};

/* Memory that is touched often: aligned, and in huge pages where the system gives them. */
static void *big_alloc(size_t bytes)
{
    size_t align = bytes >= HUGE_PAGE ? HUGE_PAGE : HT_PLAN_ALIGN;
    void *p = bytes <= SIZE_MAX - HUGE_PAGE ? aligned_alloc(align, (bytes + align) / align * align) : NULL;
    if (!p)
        ht_fail(HT_ERR_MEMORY, "out of memory for %zu bytes", bytes);
    else if (align == HUGE_PAGE)
        madvise(p, bytes, MADV_HUGEPAGE);
    return p;
}

/* ---- choosing kernels ---- */

const ht_kernel *const ht_kernel_lists[] = {ht_amx_kernels,  ht_avx512vnni_kernels,     ht_avx512_kernels,
                                            ht_avx2_kernels, ht_avx2_quantized_kernels, NULL};

/* The first kernel of a list that takes op; what those before it said is added to s->refused. */
static ht_status choose_from(ht_program *p, const ht_kernel *list, const ht_op *op, step *s)
{
    for (const ht_kernel *k = list; !s->kernel && k->name; k++) {
        if (k->op != op->kind || k->arithmetic != ht_arithmetic_of(op) || k->isa > p->isa)
            continue;
        const char *why = k->refuses ? k->refuses(op) : NULL;
        if (!why)
            s->kernel = k;
        else if (!(s->refused = ht_sprintf(p->arena, "%s%s%s: %s", s->refused, *s->refused ? "; " : "", k->name, why)))
            return HT_ERR_MEMORY;
    }
    return HT_OK;
}

static ht_status choose_kernel(ht_program *p, const ht_op *op, step *s)
{
    ht_status status = HT_OK;
    s->refused = "";
    for (int i = 0; !status && ht_kernel_lists[i]; i++)
        status = choose_from(p, ht_kernel_lists[i], op, s);
    if (!status && !s->kernel)
        s->kernel = ht_arithmetic_of(op) == HT_IN_INTEGERS ? &ht_ref_integer_product : ht_reference_kernels[op->kind];
    return status;
}

static size_t size_of(size_t (*size)(const ht_op *), const ht_op *op)
{
    return size ? size(op) : 0;
}

static ht_status choose_kernels(ht_program *p)
{
    int n = ht_graph_ops(p->graph);
    size_t packed = 0, scratch = 0, shared = 0;
    p->steps = ht_alloc_array(p->arena, (size_t)n, sizeof *p->steps);
    for (int i = 0; i < HT_STAGES; i++)
        if (!(p->stage_steps[i] = ht_alloc_array(p->arena, (size_t)n, sizeof(int))))
            return HT_ERR_MEMORY;
    if (!p->steps)
        return HT_ERR_MEMORY;
    for (int i = 0; i < n; i++) {
        const ht_op *op = ht_graph_op(p->graph, i);
        step *s = &p->steps[i];
        ht_status status = choose_kernel(p, op, s);
        if (status)
            return status;
        ht_stage stage = ht_stage_of(op->out->deps);
        if (s->kernel->run)
            p->stage_steps[stage][p->stage_length[stage]++] = i;
        s->call.op = op;
        packed += size_of(s->kernel->packed, op);
        size_t a = size_of(s->kernel->scratch, op), b = size_of(s->kernel->shared, op);
        scratch = a > scratch ? a : scratch;
        shared = b > shared ? b : shared;
    }
    p->scratch_bytes = scratch;
    p->packed_bytes = packed;
    p->packed = big_alloc(packed);
    p->scratch = big_alloc(scratch * (size_t)p->threads);
    p->shared = big_alloc(shared);
    p->kept = big_alloc(p->plan.kept_bytes);
    p->work = big_alloc(p->plan.work_bytes);
    return p->packed && p->scratch && p->shared && p->kept && p->work ? HT_OK : HT_ERR_MEMORY;
}

/* One operation at a time, whoever is free: their sizes differ much. */
static void pack_some(void *argument, const ht_team *team)
{
    ht_program *p = argument;
    (void)team;
    for (int i; (i = atomic_fetch_add(&p->next_to_pack, 1)) < ht_graph_ops(p->graph);) {
        const step *s = &p->steps[i];
        if (s->kernel->pack)
            s->kernel->pack(s->call.op, p->packed + ((const char *)s->call.packed - p->packed));
    }
}

static void pack_weights(ht_program *p)
{
    char *at = p->packed;
    for (int i = 0; i < ht_graph_ops(p->graph); i++) {
        p->steps[i].call.packed = at;
        at += size_of(p->steps[i].kernel->packed, p->steps[i].call.op);
    }
    ht_crew_run(p->crew, pack_some, p);
}

/* ---- a program ---- */

static void cpu_close(ht_program *p)
{
    if (!p)
        return;
    ht_crew_close(p->crew);
    free(p->kept);
    free(p->work);
    free(p->packed);
    free(p->scratch);
    free(p->shared);
    ht_arena_free(p->arena);
}

static ht_status choose_isa(const char *name, ht_isa *isa)
{
    int wanted = name ? ht_isa_find(name) : HT_ISAS;
    *isa = ht_cpu_detect();
    if (wanted < 0)
        return ht_fail(HT_ERR_ARGUMENT,
                       "no instruction set is called \"%s\"; there are scalar, avx2, avx512, avx512vnni, amx", name);
    if (name && wanted > (int)*isa)
        return ht_fail(HT_ERR_ARGUMENT, "this machine has no %s; it has %s", name, ht_isa_name(*isa));
    *isa = name ? (ht_isa)wanted : *isa;
    return HT_OK;
}

static ht_status cpu_compile(const ht_graph *g, const ht_backend_options *options, ht_program **program)
{
    ht_arena *arena = ht_arena_create();
    ht_program *p = arena ? ht_alloc(arena, sizeof *p) : NULL;
    ht_status status = HT_ERR_MEMORY;
    if (!p) {
        ht_arena_free(arena);
        return status;
    }
    *p = (ht_program){.arena = arena, .graph = g, .threads = options->threads, .profile = options->profile};
    if (p->threads < 1)
        p->threads = ht_processors();
    if (!(status = choose_isa(options->isa, &p->isa)) && !(status = ht_plan_make(g, arena, &p->plan)) &&
        !(status = choose_kernels(p)) && !(status = ht_crew_open(p->threads, &p->crew))) {
        pack_weights(p);
        *program = p;
        return HT_OK;
    }
    cpu_close(p);
    return status;
}

static void cpu_info(const ht_program *p, ht_program_info *info)
{
    *info = (ht_program_info){.isa = ht_isa_name(p->isa),
                              .threads = p->threads,
                              .activation_bytes = (int64_t)(p->plan.kept_bytes + p->plan.work_bytes),
                              .packed_bytes = (int64_t)p->packed_bytes};
}

static size_t cpu_row_bytes(const ht_program *p)
{
    return p->plan.row_bytes;
}

static void *cpu_alloc(ht_program *p, size_t bytes)
{
    (void)p;
    return big_alloc(bytes);
}

static void cpu_free(ht_program *p, void *memory)
{
    (void)p;
    free(memory);
}

/* ---- running ---- */

static float *address(const ht_program *p, const ht_value *v)
{
    if (!v)
        return NULL;
    const ht_place *place = &p->plan.places[v->id];
    switch (place->area) {
    case HT_AREA_KEPT:
        return (float *)(p->kept + place->offset);
    case HT_AREA_ROW:
        return (float *)((char *)p->row + place->offset);
    case HT_AREA_WORK:
        return (float *)(p->work + place->offset);
    default:
        return NULL;
    }
}

static size_t bytes_of(const ht_value *v, int n)
{
    return (size_t)(ht_rows(v, n) * ht_channels(v)) * (v->dtype == HT_U8 ? 1 : sizeof(float));
}

static ht_status cpu_upload(ht_program *p, const ht_value *input, const float *data, int n)
{
    if (p->plan.places[input->id].area == HT_AREA_KEPT) /* an input that nothing reads has no place */
        memcpy(address(p, input), data, bytes_of(input, n));
    return HT_OK;
}

static ht_status cpu_download(ht_program *p, const ht_value *value, float *data, int n)
{
    memcpy(data, address(p, value), bytes_of(value, n));
    return HT_OK;
}

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void bind(ht_program *p, const int *steps, int length, int n)
{
    for (int i = 0; i < length; i++) {
        ht_call *c = &p->steps[steps[i]].call;
        c->n = n;
        c->out = address(p, c->op->out);
        for (int j = 0; j < HT_INPUTS; j++)
            c->in[j] = address(p, c->op->in[j]);
    }
}

/* A thread's way through the stage: its share of each operation, then wait for the others. */
static void walk(void *argument, const ht_team *member)
{
    ht_program *p = argument;
    ht_team team = *member;
    team.scratch = p->scratch + (size_t)team.thread * p->scratch_bytes;
    team.shared = p->shared;
    for (int i = 0; i < p->stage_length[p->stage]; i++) {
        step *s = &p->steps[p->stage_steps[p->stage][i]];
        double start = p->profile && !team.thread ? now() : 0;
        s->kernel->run(&s->call, &team);
        ht_team_wait(&team);
        if (!team.thread) {
            s->seconds += p->profile ? now() - start : 0;
            s->runs++;
        }
    }
}

static ht_status cpu_run(ht_program *p, ht_stage stage, int n, void *row)
{
    p->row = row;
    p->stage = stage;
    bind(p, p->stage_steps[stage], p->stage_length[stage], n);
    if (p->stage_length[stage])
        ht_crew_run(p->crew, walk, p);
    return HT_OK;
}

static void cpu_op(const ht_program *p, int i, const char **kernel, const char **refused, double *seconds,
                   int64_t *runs)
{
    *kernel = p->steps[i].kernel->name;
    *refused = p->steps[i].refused;
    *seconds = p->steps[i].seconds;
    *runs = p->steps[i].runs;
}

const ht_backend ht_cpu_backend = {
    .name = "cpu",
    .compile = cpu_compile,
    .close = cpu_close,
    .info = cpu_info,
    .row_bytes = cpu_row_bytes,
    .upload = cpu_upload,
    .download = cpu_download,
    .run = cpu_run,
    .alloc = cpu_alloc,
    .free = cpu_free,
    .op = cpu_op,
};
