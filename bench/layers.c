/* layers.c - how fast single quantized layers are: time, rate and share of the integer peak that is measured beside
 * them, for every instruction set with integer kernels of its own, weights of 8 and of 4 bits, one thread and two.
 *
 *     make benches && build/release/bench/layers [--seconds X] [--isa NAME] [--batch N] [--layer N] [--weights FORMAT]
 *
 * Layers are those of the CIFAR-10 model and, smaller in number, of Stable Diffusion 1.5 and DiT-XL/2.  A layer runs
 * again and again on the same memory: what it finds in caches is what a model leaves there at best. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

#include "cli/peak.h"
#include "core/rng.h"
#include "cpu/reference.h"

enum { ROUNDS = 5 }; /* peak and layer in turn, the best of each: machines have neighbours, who come and go */

typedef struct layer_shape {
    int batch, size, in, out, kernel; /* size x size positions; of a linear layer one row of size * size tokens */
    bool linear;
} layer_shape;

static const layer_shape shapes[] = {
    {16, 32, 64, 64, 3, false},   {16, 32, 128, 64, 3, false},   {16, 16, 128, 128, 3, false},
    {16, 16, 256, 128, 3, false}, {16, 8, 128, 128, 3, false},   {16, 4, 256, 128, 3, false},
    {16, 16, 256, 128, 1, false}, {16, 16, 128, 128, 1, true},   {1, 32, 64, 64, 3, false},
    {1, 32, 128, 64, 3, false},   {1, 16, 128, 128, 3, false},   {1, 16, 256, 128, 3, false},
    {1, 8, 128, 128, 3, false},   {1, 4, 256, 128, 3, false},    {1, 16, 128, 128, 1, true},
    {2, 64, 320, 320, 3, false},  {2, 16, 1280, 1280, 3, false}, {2, 64, 320, 1280, 1, true},
    {1, 16, 1152, 4608, 1, true},
};

static const char *const formats[] = {"int8", "int4", "int4_g64"};

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

double seconds_now(void); /* what cli/peak.c wants of its program */
double seconds_now(void)
{
    return now();
}

static void fail(const char *what);

/* In huge pages where the system gives them, as the backend has its memory. */
static void *big_alloc(size_t bytes)
{
    enum { HUGE_PAGE = 2 << 20 };
    size_t rounded = (bytes + HUGE_PAGE - 1) / HUGE_PAGE * HUGE_PAGE;
    void *p = aligned_alloc(HUGE_PAGE, rounded);
    if (!p)
        fail("out of memory");
    madvise(p, rounded, MADV_HUGEPAGE);
    return memset(p, 0, rounded);
}

static void fail(const char *what)
{
    fprintf(stderr, "layers: %s\n", what);
    exit(EXIT_FAILURE);
}

static void *filled(ht_arena *arena, size_t bytes)
{
    static uint32_t state = 1;
    uint8_t *p = bytes ? ht_alloc(arena, bytes) : NULL;
    if (bytes && !p)
        fail(ht_error_message());
    for (size_t i = 0; i < bytes; i++) {
        state = state * 1664525u + 1013904223u; /* Numerical Recipes' generator: any spread numbers will do */
        p[i] = (uint8_t)(state >> 24);
    }
    return p;
}

/* A layer of random weights: a graph of it, and the operation. */
static const ht_op *make_layer(ht_arena *arena, const layer_shape *s, const char *format)
{
    static const float step = 0.01f, zero = 128;
    ht_layer *l = ht_alloc(arena, sizeof *l);
    ht_layers *layers = ht_alloc(arena, sizeof *layers);
    ht_tensor *w = ht_alloc(arena, sizeof *w);
    if (!l || !layers || !w)
        fail(ht_error_message());
    *l = (ht_layer){.name = "w",
                    .ndim = s->linear ? 2 : 4,
                    .parts = 1,
                    .mode = HT_INPUT_STATIC,
                    .shape = {s->out, s->in, s->linear ? 0 : s->kernel, s->linear ? 0 : s->kernel}};
    l->part[0] = (ht_layer_part){.count = s->in, .input = {.groups = 1, .step = &step, .zero = &zero}};
    *layers = (ht_layers){.layer = l, .n = 1};
    size_t count = (size_t)s->out * (size_t)s->in * (size_t)s->kernel * (size_t)s->kernel;
    *w = (ht_tensor){.name = "w.weight", .dtype = HT_F32, .ndim = l->ndim, .count = count, .bytes = count * 4};
    memcpy(w->shape, l->shape, sizeof w->shape);
    w->data = ht_alloc(arena, w->bytes);
    ht_matrix m = {.name = "w", .values = w->data, .out = (size_t)s->out, .in = count / (size_t)s->out};
    if (!w->data || ht_format_find(format, &l->format) || ht_format_find("uint8", &l->input) ||
        ht_quantized_alloc(arena, &l->format, &m, &l->part[0].weight))
        fail(ht_error_message());
    l->part[0].weight.codes = filled(arena, l->format.grid.bits == 4 ? count / 2 : count);
    ht_graph *g = ht_graph_create(arena);
    int64_t image[] = {s->batch, s->size, s->size, s->in}, tokens[] = {s->batch, (int64_t)s->size * s->size, s->in};
    ht_value *x = ht_input(g, "x", s->linear ? 3 : 4, s->linear ? tokens : image, HT_DEPENDS_X);
    int pad = s->kernel / 2;
    ht_value *y = s->linear ? ht_linear(g, x, &(ht_linear_weights){w, NULL})
                            : ht_conv2d(g, x, &(ht_conv_weights){w, NULL}, (ht_conv_shape){1, pad, pad, pad, pad});
    ht_output_value(g, y, "y");
    ht_graph_set_layers(g, layers);
    if (ht_graph_finish(g, true))
        fail(ht_error_message());
    return ht_graph_output(g)->producer;
}

/* The kernel that a machine of this instruction set takes. */
static const ht_kernel *find_kernel(const ht_op *op, ht_isa isa)
{
    for (int i = 0; ht_kernel_lists[i]; i++)
        for (const ht_kernel *k = ht_kernel_lists[i]; k->name; k++)
            if (k->op == op->kind && k->arithmetic == HT_IN_INTEGERS && k->isa <= isa &&
                (!k->refuses || !k->refuses(op)))
                return k;
    return NULL;
}

typedef struct job {
    const ht_kernel *kernel;
    ht_call call;
    char *scratch;
    size_t scratch_bytes;
} job;

static void do_share(void *argument, const ht_team *member)
{
    job *j = argument;
    ht_team team = *member;
    team.scratch = j->scratch + (size_t)team.thread * j->scratch_bytes;
    j->kernel->run(&j->call, &team);
}

/* The least time of a run, in seconds. */
static double time_layer(job *j, int threads, double seconds)
{
    ht_crew *crew;
    double best = 1e9;
    if (ht_crew_open(threads, &crew))
        fail(ht_error_message());
    ht_crew_run(crew, do_share, j);
    for (double end = now() + seconds; now() < end;) {
        double start = now();
        ht_crew_run(crew, do_share, j);
        double t = now() - start;
        best = t < best ? t : best;
    }
    ht_crew_close(crew);
    return best;
}

static void measure_layer(const layer_shape *s, const char *format, ht_isa isa, double seconds)
{
    static const float scale[] = {0.01f, 128};
    ht_arena *arena = ht_arena_create();
    const ht_op *op = make_layer(arena, s, format);
    const ht_kernel *k = find_kernel(op, isa);
    job j = {.kernel = k, .call = {.op = op, .n = s->batch}};
    size_t positions = (size_t)s->batch * (size_t)s->size * (size_t)s->size;
    j.scratch_bytes = k->scratch(op);
    j.scratch = big_alloc(2 * j.scratch_bytes);
    void *packed = big_alloc(k->packed(op)), *x = big_alloc(positions * (size_t)s->in);
    float *out = big_alloc(positions * (size_t)s->out * sizeof(float));
    k->pack(op, packed);
    j.call.packed = packed;
    j.call.out = out;
    j.call.in[HT_IN_X] = memcpy(x, filled(arena, positions * (size_t)s->in), positions * (size_t)s->in);
    j.call.in[HT_IN_SCALE] = scale;
    printf("| %2d x %dx%d | %4d -> %4d %s%d | %-8s | %-25s |", s->batch, s->size, s->size, s->in, s->out,
           s->linear ? "linear " : "k", s->kernel, format, k->name);
    for (int threads = 1; threads <= 2; threads++) {
        double best = 1e9, peak = 0;
        for (int round = 0; round < ROUNDS; round++) {
            const char *name;
            double p = peak_measure_integers(threads, ht_isa_name(k->isa), &name);
            double t = time_layer(&j, threads, seconds / ROUNDS);
            peak = p > peak ? p : peak;
            best = t < best ? t : best;
        }
        double rate = 2 * ht_op_macs(op) * s->batch / best;
        printf(" %8.1f us %7.1f GOP/s %3.0f %% |", best * 1e6, rate * 1e-9, 100 * rate / peak);
    }
    printf("\n");
    fflush(stdout);
    free(j.scratch);
    free(packed);
    free(x);
    free(out);
    ht_arena_free(arena);
}

/* What is measured: 0 and NULL for all. */
typedef struct settings {
    double seconds;        /* for each layer */
    int isa, batch, layer; /* layer: its place in the list, from 1 on */
    const char *weights;
} settings;

static const char usage[] =
    "usage: layers [--seconds X] [--isa avx512vnni|amx] [--batch N] [--layer N] [--weights int8|int4|int4_g64]";

/* What follows option *i, which moves on to it. */
static const char *argument_of(int argc, char **argv, int *i)
{
    if (*i + 1 >= argc)
        fail(usage);
    return argv[++*i];
}

static double positive(const char *text)
{
    char *end;
    double x = strtod(text, &end);
    if (end == text || *end || !(x > 0))
        fail(usage);
    return x;
}

static settings read_settings(int argc, char **argv)
{
    settings s = {.seconds = 0.3};
    for (int i = 1; i < argc; i++) {
        if (!strcmp(argv[i], "--seconds"))
            s.seconds = positive(argument_of(argc, argv, &i));
        else if (!strcmp(argv[i], "--batch"))
            s.batch = (int)positive(argument_of(argc, argv, &i));
        else if (!strcmp(argv[i], "--layer"))
            s.layer = (int)positive(argument_of(argc, argv, &i));
        else if (!strcmp(argv[i], "--weights"))
            s.weights = argument_of(argc, argv, &i);
        else if (!strcmp(argv[i], "--isa") && (s.isa = ht_isa_find(argument_of(argc, argv, &i))) >= HT_ISA_AVX512_VNNI)
            continue;
        else
            fail(usage);
    }
    return s;
}

int main(int argc, char **argv)
{
    settings s = read_settings(argc, argv);
    int measured = 0;
    printf("| images | layer | weights | kernel | one thread | two threads |\n| --- | --- | --- | --- | --- | --- |\n");
    for (int isa = HT_ISA_AVX512_VNNI; isa <= (int)ht_cpu_detect(); isa++)
        for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
            for (size_t f = 0; f < sizeof formats / sizeof *formats; f++)
                if ((!s.isa || s.isa == isa) && (!s.batch || s.batch == shapes[i].batch) &&
                    (!s.layer || s.layer == (int)i + 1) && (!s.weights || !strcmp(s.weights, formats[f]))) {
                    measure_layer(&shapes[i], formats[f], (ht_isa)isa, s.seconds);
                    measured++;
                }
    if (!measured)
        fail("nothing here is of that instruction set, batch, number and weights");
    return 0;
}
