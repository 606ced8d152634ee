/* backend.c - compiling a graph for the CPU and running its stages: kernels chosen, weights packed, memory planned,
 * then nothing is allocated.
 *
 * Where a batch has an image for every thread, each thread walks through the operations of a stage by itself with some
 * images at a time: it waits for nobody, and what one operation writes is still in its second-level cache when the next
 * one reads it.  Images that are left over, and batches of fewer, are walked by all threads together: each does its
 * share of an operation and waits for the others. */
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
    const ht_op *op;
    const ht_kernel *kernel;
    const char *refused;
    const void *packed;
    double seconds; /* of the first thread */
    int64_t runs;
} step;

/* Who walks through operations: one thread, or all together. */
typedef struct walker {
    ht_call *calls; /* by operation */
    char *work, *shared;
    ht_barrier barrier; /* of one thread, which waits for itself */
} walker;

struct ht_program {
    ht_arena *arena;
    const ht_graph *graph;
    ht_plan plan;
    ht_isa isa;
    int threads;
    bool profile;
    step *steps; /* by operation */
    int *stage_steps[HT_STAGES], stage_length[HT_STAGES];
    bool stage_batched[HT_STAGES]; /* it makes something of each image */
    int at_once;                   /* images that a walker takes at a time */
    int walkers;                   /* threads; 1: only all together */
    walker *walker;                /* the first is also the one of all together */
    char *kept, *packed, *scratch;
    size_t scratch_bytes, shared_bytes, packed_bytes; /* of one thread; of a walker; of all weights */
    void *row;                                        /* of the last run */
    ht_crew *crew;
    atomic_int next; /* operation to pack, turn to take */
    ht_stage stage;  /* of the run that is going on */
    int images;
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
        p->stage_batched[stage] |= op->out->batched;
        s->op = op;
        p->packed_bytes += size_of(s->kernel->packed, op);
        size_t a = size_of(s->kernel->scratch, op), b = size_of(s->kernel->shared, op);
        p->scratch_bytes = a > p->scratch_bytes ? a : p->scratch_bytes;
        p->shared_bytes = b > p->shared_bytes ? b : p->shared_bytes;
    }
    return HT_OK;
}

/* ---- memory ---- */

/* Whether what op computes of some images does not depend on the others, and is nobody else's to write. */
static bool keeps_images_apart(const ht_program *p, const ht_op *op)
{
    if (op->out->batched || !p->stage_batched[ht_stage_of(op->out->deps)])
        return true;
    for (int i = 0; i < HT_INPUTS; i++)
        if (op->in[i] && op->in[i]->batched)
            return false;
    return p->plan.places[op->out->id].area == HT_AREA_WORK;
}

static int batch_of(const ht_graph *g)
{
    for (int i = 0; i < ht_graph_values(g); i++)
        if (ht_graph_value(g, i)->batched)
            return (int)ht_graph_value(g, i)->shape[0];
    return 1;
}

/* So many images at a time that weights, which are read once for them all, are not read more than activations, of which
 * each is written and read a few times. */
static ht_status plan_memory(ht_program *p)
{
    ht_status status = ht_plan_make(p->graph, 1, NULL, p->arena, &p->plan);
    int batch = batch_of(p->graph), most = batch / p->threads;
    bool apart = most > 0;
    for (int i = 0; !status && i < ht_graph_ops(p->graph); i++)
        apart = apart && keeps_images_apart(p, ht_graph_op(p->graph, i));
    if (status)
        return status;
    size_t wanted = p->packed_bytes / (4 * p->plan.work_bytes + 1) + 1;
    p->walkers = apart ? p->threads : 1;
    p->at_once = !apart ? batch : wanted < (size_t)most ? (int)wanted : most;
    return ht_plan_make(p->graph, p->at_once, NULL, p->arena, &p->plan);
}

static ht_status take_memory(ht_program *p)
{
    p->packed = big_alloc(p->packed_bytes);
    p->scratch = big_alloc(p->scratch_bytes * (size_t)p->threads);
    p->kept = big_alloc(p->plan.kept_bytes);
    p->walker = ht_alloc_array(p->arena, (size_t)p->walkers, sizeof *p->walker);
    if (!p->packed || !p->scratch || !p->kept || !p->walker)
        return HT_ERR_MEMORY;
    for (int i = 0; i < p->walkers; i++) {
        walker *w = &p->walker[i];
        w->calls = ht_alloc_array(p->arena, (size_t)ht_graph_ops(p->graph), sizeof *w->calls);
        w->work = big_alloc(p->plan.work_bytes);
        w->shared = big_alloc(p->shared_bytes);
        if (!w->calls || !w->work || !w->shared)
            return HT_ERR_MEMORY;
    }
    return HT_OK;
}

/* One operation at a time, whoever is free: their sizes differ much. */
static void pack_some(void *argument, const ht_team *team)
{
    ht_program *p = argument;
    (void)team;
    for (int i; (i = atomic_fetch_add(&p->next, 1)) < ht_graph_ops(p->graph);) {
        const step *s = &p->steps[i];
        if (s->kernel->pack)
            s->kernel->pack(s->op, p->packed + ((const char *)s->packed - p->packed));
    }
}

static void pack_weights(ht_program *p)
{
    char *at = p->packed;
    for (int i = 0; i < ht_graph_ops(p->graph); i++) {
        p->steps[i].packed = at;
        at += size_of(p->steps[i].kernel->packed, p->steps[i].op);
        for (int j = 0; j < p->walkers; j++) {
            p->walker[j].calls[i].op = p->steps[i].op;
            p->walker[j].calls[i].packed = p->steps[i].packed;
        }
    }
    ht_crew_run(p->crew, pack_some, p);
}

/* ---- a program ---- */

static void cpu_close(ht_program *p)
{
    if (!p)
        return;
    ht_crew_close(p->crew);
    for (int i = 0; p->walker && i < p->walkers; i++) {
        free(p->walker[i].work);
        free(p->walker[i].shared);
    }
    free(p->kept);
    free(p->packed);
    free(p->scratch);
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
    if (!(status = choose_isa(options->isa, &p->isa)) && !(status = choose_kernels(p)) && !(status = plan_memory(p)) &&
        !(status = take_memory(p)) && !(status = ht_crew_open(p->threads, &p->crew))) {
        pack_weights(p);
        *program = p;
        return HT_OK;
    }
    cpu_close(p);
    return status;
}

static void cpu_info(const ht_program *p, ht_program_info *info)
{
    *info =
        (ht_program_info){.isa = ht_isa_name(p->isa),
                          .threads = p->threads,
                          .activation_bytes = (int64_t)(p->plan.kept_bytes + (size_t)p->walkers * p->plan.work_bytes),
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

static size_t bytes_of(const ht_value *v, int n)
{
    return (size_t)(ht_rows(v, n) * ht_channels(v)) * (v->dtype == HT_U8 ? 1 : sizeof(float));
}

/* Where v lies, of the images from `first` on.  Each walker has a work area for those that it is at. */
static float *address(const ht_program *p, const walker *w, const ht_value *v, int first)
{
    if (!v)
        return NULL;
    const ht_place *place = &p->plan.places[v->id];
    switch (place->area) {
    case HT_AREA_KEPT:
        return (float *)(p->kept + place->offset + (v->batched ? bytes_of(v, first) : 0));
    case HT_AREA_ROW:
        return (float *)((char *)p->row + place->offset);
    case HT_AREA_WORK:
        return (float *)(w->work + place->offset);
    default:
        return NULL;
    }
}

static ht_status cpu_upload(ht_program *p, const ht_value *input, const float *data, int n)
{
    if (p->plan.places[input->id].area == HT_AREA_KEPT) /* an input that nothing reads has no place */
        memcpy(address(p, NULL, input, 0), data, bytes_of(input, n));
    return HT_OK;
}

static ht_status cpu_download(ht_program *p, const ht_value *value, float *data, int n)
{
    memcpy(data, address(p, NULL, value, 0), bytes_of(value, n));
    return HT_OK;
}

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void bind(const ht_program *p, walker *w, int first, int n)
{
    for (int i = 0; i < p->stage_length[p->stage]; i++) {
        ht_call *c = &w->calls[p->stage_steps[p->stage][i]];
        c->n = n;
        c->out = address(p, w, c->op->out, first);
        for (int j = 0; j < HT_INPUTS; j++)
            c->in[j] = address(p, w, c->op->in[j], first);
    }
}

/* A thread's way through the stage with images [first, first + n): its share of each operation, then wait for the
 * others of its team. */
static void walk(ht_program *p, walker *w, const ht_team *team, bool profile, int first, int n)
{
    if (!team->thread)
        bind(p, w, first, n);
    ht_team_wait(team);
    for (int i = 0; i < p->stage_length[p->stage]; i++) {
        step *s = &p->steps[p->stage_steps[p->stage][i]];
        double start = profile ? now() : 0;
        s->kernel->run(&w->calls[p->stage_steps[p->stage][i]], team);
        ht_team_wait(team);
        if (profile)
            s->seconds += now() - start;
    }
}

/* Turns of a run that single threads take, whoever is free.  All together take the others: fewer than would keep half
 * of the threads busy. */
static int turns_alone(const ht_program *p, int turns)
{
    int left = turns % p->threads;
    return p->walkers < p->threads ? 0 : 2 * left > p->threads ? turns : turns - left;
}

static void take_turns(void *argument, const ht_team *member)
{
    ht_program *p = argument;
    ht_team team = *member, alone = {.threads = 1};
    int at_once = p->stage_batched[p->stage] ? p->at_once : p->images, turns = (p->images + at_once - 1) / at_once,
        taken = p->stage_batched[p->stage] ? turns_alone(p, turns) : 0;
    bool profile = p->profile && !team.thread;
    alone.scratch = team.scratch = p->scratch + (size_t)team.thread * p->scratch_bytes;
    team.shared = p->walker[0].shared;
    if (taken) {
        walker *w = &p->walker[team.thread];
        alone.shared = w->shared;
        alone.barrier = &w->barrier;
        for (int turn, first; (turn = atomic_fetch_add(&p->next, 1)) < taken;) {
            first = turn * at_once;
            walk(p, w, &alone, profile, first, p->images - first < at_once ? p->images - first : at_once);
        }
        ht_team_wait(&team);
    }
    for (int first = taken * at_once; first < p->images; first += at_once)
        walk(p, p->walker, &team, profile, first, p->images - first < at_once ? p->images - first : at_once);
}

static ht_status cpu_run(ht_program *p, ht_stage stage, int n, void *row)
{
    p->row = row;
    p->stage = stage;
    p->images = n;
    atomic_store(&p->next, 0);
    for (int i = 0; i < p->stage_length[stage]; i++)
        p->steps[p->stage_steps[stage][i]].runs++;
    if (p->stage_length[stage])
        ht_crew_run(p->crew, take_turns, p);
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
