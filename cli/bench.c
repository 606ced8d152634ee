/* bench.c - `halftone bench`: how fast evaluations are, where the time goes, and how near that is to the machine's
 * peaks, in float32 and, for products of integers, in 8-bit integers. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/commands.h"
#include "cli/peak.h"
#include "cli/text.h"

typedef struct bench_settings {
    const char *model, *component;
    option_ints batches;
    double seconds;
    option_size size;
    run_settings run;
    bool json;
} bench_settings;

#define AT(member) .at = offsetof(bench_settings, member)

/* clang-format off */
static const option bench_options[] = {
    {.argument = "MODEL", .type = OPTION_TEXT, AT(model), .help = "a model's folder, or that of one of its components"},
    {.name = "batch", .argument = "LIST", .type = OPTION_INTS, AT(batches), .min = 1, .max = 4096, .initial = "1,16", .help = "images at once"},
    {.name = "seconds", .argument = "X", .type = OPTION_REAL, AT(seconds), .min = 0, .max = 3600, .initial = "3",
     .help = "measure each batch for so long, at least 3 evaluations"},
    {.name = "component", .argument = "NAME", .type = OPTION_TEXT, AT(component), .help = "part of a pipeline, as unet; default: its denoiser"},
    {.name = "size", .argument = "WxH", .type = OPTION_SIZE, AT(size), .min = 1, .max = 16384, .help = "of the sample; default: the model's own"},
    RUN_OPTIONS(bench_settings),
    {.name = "json", .type = OPTION_FLAG, AT(json), .help = "print one JSON object"},
    {0}};
/* clang-format on */

enum { MAX_KINDS = 64, MAX_RUNS = 100000, MIN_RUNS = 3 };

typedef struct kind_total {
    const char *kind;
    bool integers;        /* products of integers are a kind of their own */
    double seconds, macs; /* of one evaluation of the batch */
} kind_total;

/* What the machine can do, in operations a second: what runs there, the processor or the GPU.  0: not known. */
typedef struct machine_peaks {
    double floats, integers;
    const char *floats_isa, *integers_isa;
} machine_peaks;

static double peak_of(const machine_peaks *peaks, const kind_total *kind)
{
    return kind->integers ? peaks->integers : peaks->floats;
}

/* The measured figures of one batch size. */
typedef struct measurement {
    int batch, runs, threads;
    char isa[96];
    double median, best; /* seconds an evaluation */
    double macs;         /* of one image */
    int kinds;
    kind_total kind[MAX_KINDS];
    double products;     /* share of their peaks that matrix products reach in their own time */
    double device_bytes; /* of weights and activations, on a GPU */
} measurement;

/* What a model is fed: noise-like numbers, the middle of the schedule, class 0. */
typedef struct inputs {
    float *x, *t, *out, *embeddings, *labels;
} inputs;

static void free_inputs(inputs *in)
{
    free(in->x);
    free(in->t);
    free(in->out);
    free(in->embeddings);
    free(in->labels);
}

static bool make_inputs(inputs *in, const ht_model_info *m, const ht_session_info *s)
{
    size_t n = (size_t)s->batch, pixels = n * (size_t)s->height * (size_t)s->width,
           count = pixels * (size_t)m->in_channels;
    *in = (inputs){.x = calloc(count, sizeof(float)),
                   .t = calloc(n, sizeof(float)),
                   .out = calloc(pixels * (size_t)m->out_channels, sizeof(float)),
                   .embeddings = calloc(n * (size_t)m->class_embed_dim + 1, sizeof(float)),
                   .labels = calloc(n, sizeof(float))};
    if (!in->x || !in->t || !in->out || !in->embeddings || !in->labels)
        return false;
    uint32_t state = 1;
    for (size_t i = 0; i < count; i++) {
        state = state * 1664525u + 1013904223u; /* Numerical Recipes' generator: any spread numbers will do */
        in->x[i] = (float)(state >> 8) / 8388608.0f - 1.0f;
    }
    for (size_t i = 0; i < n; i++)
        in->t[i] = 500;
    return true;
}

static int compare_doubles(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static ht_status evaluate(ht_session *session, const ht_model_info *m, const ht_session_info *s, const inputs *in)
{
    ht_cond cond = {.class_labels = m->takes_class ? in->labels : NULL,
                    .class_embeddings = m->class_embed_dim ? in->embeddings : NULL};
    return ht_predict(session, s->batch, in->x, in->t, &cond, in->out);
}

/* An operation's part of one evaluation: the time embedding's, which ran once for all of them, is next to nothing. */
static void add_kind(measurement *r, const ht_op_info *op, int evaluations)
{
    int k = 0;
    double times = (double)op->runs / evaluations;
    bool integers = strstr(op->kernel, "_i8_") || strstr(op->kernel, "a8_"); /* of the CPU, of a GPU */
    while (k < r->kinds && (strcmp(r->kind[k].kind, op->kind) || r->kind[k].integers != integers))
        k++;
    if (k == MAX_KINDS)
        return;
    if (k == r->kinds)
        r->kind[r->kinds++] = (kind_total){.kind = op->kind, .integers = integers};
    r->kind[k].macs += op->macs * times * r->batch;
    r->kind[k].seconds += op->seconds / evaluations;
    r->macs += op->macs * times;
}

static int compare_kinds(const void *a, const void *b)
{
    double x = ((const kind_total *)a)->seconds, y = ((const kind_total *)b)->seconds;
    return (x < y) - (x > y);
}

static void add_kinds(measurement *r, const ht_session *session, const machine_peaks *peaks, int evaluations)
{
    ht_session_info s;
    ht_session_get_info(session, &s);
    double seconds = 0, least = 0;
    for (int i = 0; i < s.ops; i++) {
        ht_op_info op;
        ht_session_op(session, i, &op);
        add_kind(r, &op, evaluations);
    }
    qsort(r->kind, (size_t)r->kinds, sizeof *r->kind, compare_kinds);
    for (int k = 0; k < r->kinds; k++) {
        if (r->kind[k].macs > 0) {
            seconds += r->kind[k].seconds;
            least += peak_of(peaks, &r->kind[k]) > 0 ? 2 * r->kind[k].macs / peak_of(peaks, &r->kind[k]) : 0;
        }
    }
    r->products = seconds > 0 ? least / seconds : 0;
}

/* Evaluations until the time is up; times [MAX_RUNS] gets the seconds of each. */
static ht_status time_runs(ht_session *session, const ht_model_info *m, const inputs *in, double seconds, double *times,
                           int *runs)
{
    ht_session_info s;
    ht_session_get_info(session, &s);
    ht_status status = evaluate(session, m, &s, in); /* the first touches the memory */
    double end = seconds_now() + seconds;
    for (*runs = 0; !status && *runs < MAX_RUNS && (*runs < MIN_RUNS || seconds_now() < end); ++*runs) {
        double start = seconds_now();
        status = evaluate(session, m, &s, in);
        times[*runs] = seconds_now() - start;
    }
    return status;
}

static bool on_gpu(const ht_session *session)
{
    ht_session_info s;
    ht_session_get_info(session, &s);
    return strcmp(s.backend, "cpu") != 0;
}

/* Whole evaluations.  Returns the exit code. */
static int time_session(const bench_settings *b, ht_session *session, const ht_model_info *m, measurement *r)
{
    ht_session_info s;
    inputs in;
    ht_session_get_info(session, &s);
    double *times = calloc(MAX_RUNS, sizeof *times);
    int code = EXIT_SUCCESS;
    if (!make_inputs(&in, m, &s) || !times)
        code = report("out of memory for the inputs of a batch of %d", s.batch);
    else if (time_runs(session, m, &in, b->seconds, times, &r->runs))
        code = report_failure();
    if (!code) {
        qsort(times, (size_t)r->runs, sizeof *times, compare_doubles);
        r->median = (times[(r->runs - 1) / 2] + times[r->runs / 2]) / 2;
        r->best = times[0];
        r->batch = s.batch;
        r->threads = s.threads;
        snprintf(r->isa, sizeof r->isa, "%s", s.isa);
        r->device_bytes = on_gpu(session) ? (double)(s.packed_bytes + s.activation_bytes) : 0;
    }
    free_inputs(&in);
    free(times);
    return code;
}

/* On a GPU operations are timed by a session of their own: that takes them out of the recording that is launched as
 * one. Returns the exit code. */
static int time_operations(ht_session *session, const ht_model_info *m, const machine_peaks *peaks, measurement *r)
{
    ht_session_info s;
    inputs in;
    ht_session_get_info(session, &s);
    int code =
        make_inputs(&in, m, &s) ? EXIT_SUCCESS : report("out of memory for the inputs of a batch of %d", s.batch);
    for (int i = 0; !code && i < MIN_RUNS; i++)
        code = evaluate(session, m, &s, &in) ? report_failure() : EXIT_SUCCESS;
    if (!code)
        add_kinds(r, session, peaks, MIN_RUNS);
    free_inputs(&in);
    return code;
}

static json_t *measurement_json(const measurement *r, const machine_peaks *peaks)
{
    json_t *kinds = json_array();
    double flops = 2 * r->macs * r->batch / r->median;
    for (int k = 0; k < r->kinds; k++)
        json_array_append_new(kinds,
                              json_pack("{s:s, s:b, s:f, s:f}", "kind", r->kind[k].kind, "integers",
                                        r->kind[k].integers, "ms", r->kind[k].seconds * 1e3, "gflops",
                                        r->kind[k].seconds > 0 ? 2e-9 * r->kind[k].macs / r->kind[k].seconds : 0.0));
    return json_pack("{s:i, s:i, s:s, s:i, s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:o}", "batch", r->batch, "threads",
                     r->threads, "isa", r->isa, "evaluations", r->runs, "median_ms", r->median * 1e3, "min_ms",
                     r->best * 1e3, "images_per_second", r->batch / r->median, "gflops", flops * 1e-9, "share_of_peak",
                     peaks->floats > 0 ? flops / peaks->floats : 0, "products_share_of_peak", r->products,
                     "gpu_memory_mb", r->device_bytes * 1e-6, "kinds", kinds);
}

static void print_measurement(const measurement *r, const machine_peaks *peaks)
{
    double flops = 2 * r->macs * r->batch / r->median;
    printf("batch %d (%s, %d thread%s): %.2f ms an evaluation (median of %d, min %.2f), %.2f images/s, %.1f GFLOP/s",
           r->batch, r->isa, r->threads, r->threads == 1 ? "" : "s", r->median * 1e3, r->runs, r->best * 1e3,
           r->batch / r->median, flops * 1e-9);
    if (peaks->floats > 0)
        printf(", %.0f %% of the %s peak\n  matrix products reach %.0f %% of their peaks in their time\n",
               100 * flops / peaks->floats, r->device_bytes > 0 ? "float16" : "float32", 100 * r->products);
    else
        printf("\n");
    if (r->device_bytes > 0)
        printf("  %.0f MB of the GPU's memory\n", r->device_bytes * 1e-6);
    for (int k = 0; k < r->kinds; k++) {
        const kind_total *kind = &r->kind[k];
        printf("  %-17s %2s %8.3f ms %5.1f %%", kind->kind, kind->integers ? "i8" : "", kind->seconds * 1e3,
               100 * kind->seconds / r->median);
        if (kind->macs > 0 && kind->seconds > 0)
            printf(" %8.1f GFLOP/s", 2e-9 * kind->macs / kind->seconds);
        if (kind->macs > 0 && kind->seconds > 0 && peak_of(peaks, kind) > 0)
            printf(", %.0f %% of peak", 200 * kind->macs / kind->seconds / peak_of(peaks, kind));
        printf("\n");
    }
}

/* Of what runs a session: a processor's are no measure for a GPU. */
static machine_peaks peaks_of(ht_session *session, const machine_peaks *processor)
{
    machine_peaks p = *processor;
    if (on_gpu(session))
        ht_session_peaks(session, &p.floats, &p.integers);
    return p;
}

/* Prints, or adds to results if that is not NULL. */
static int measure_batch(const bench_settings *b, ht_model *model, int64_t batch, const machine_peaks *processor,
                         json_t *results)
{
    ht_session_options options = run_session_options(&b->run);
    options.batch = (int)batch;
    options.height = b->size.height;
    options.width = b->size.width;
    ht_session *session;
    if (ht_session_open(model, &options, &session))
        return report_failure();
    ht_model_info m;
    ht_model_get_info(model, &m);
    measurement r = {0};
    bool gpu = on_gpu(session);
    machine_peaks peaks = peaks_of(session, processor);
    int code = gpu ? time_session(b, session, &m, &r) : EXIT_SUCCESS;
    ht_session_close(session);
    options.profile = 1;
    if (code || ht_session_open(model, &options, &session))
        return code ? code : report_failure();
    code = gpu ? time_operations(session, &m, &peaks, &r) : time_session(b, session, &m, &r);
    if (!code && !gpu)
        add_kinds(&r, session, &peaks, r.runs + 1); /* one more than was timed, to touch the memory */
    if (!code && results)
        json_array_append_new(results, measurement_json(&r, &peaks));
    else if (!code)
        print_measurement(&r, &peaks);
    ht_session_close(session);
    return code;
}

/* The most memory this process has had, in MB.  Not getrusage's: that counts what the process was before its exec. */
static double peak_memory(void)
{
    double kilobytes = 0;
    char line[128];
    FILE *f = fopen("/proc/self/status", "r");
    while (f && fgets(line, sizeof line, f))
        if (sscanf(line, "VmHWM: %lf", &kilobytes) == 1)
            break;
    if (f)
        fclose(f);
    return kilobytes * 1024e-6;
}

static int bench_model(const bench_settings *b, ht_model *model)
{
    machine_peaks peaks = {.floats_isa = "", .integers_isa = ""};
    bool processor = strcmp(b->run.backend, "cuda") != 0;
    if (processor) {
        peaks.floats = peak_measure((int)b->run.threads, &peaks.floats_isa);
        peaks.integers = peak_measure_integers((int)b->run.threads, b->run.isa, &peaks.integers_isa);
    }
    json_t *results = b->json ? json_array() : NULL;
    if (!b->json && processor) {
        text_print(b->model);
        printf(": peaks here: float32 %.1f GFLOP/s (%s), 8-bit integers %.1f GOP/s (%s)\n", peaks.floats * 1e-9,
               peaks.floats_isa, peaks.integers * 1e-9, peaks.integers_isa);
    }
    int status = EXIT_SUCCESS;
    for (int i = 0; !status && i < b->batches.count; i++)
        status = measure_batch(b, model, b->batches.value[i], &peaks, results);
    double megabytes = peak_memory();
    if (status) {
        json_decref(results);
    } else if (b->json) {
        status = print_json(json_pack("{s:o, s:s, s:s, s:f, s:s, s:f, s:f, s:o}", "model", text_json(b->model),
                                      "version", ht_version(), "peak_isa", peaks.floats_isa, "peak_gflops",
                                      peaks.floats * 1e-9, "integer_peak_isa", peaks.integers_isa, "integer_peak_gops",
                                      peaks.integers * 1e-9, "peak_memory_mb", megabytes, "results", results));
    } else {
        printf("peak memory %.0f MB\n", megabytes);
    }
    return status;
}

static int run_bench(const void *settings)
{
    const bench_settings *b = settings;
    ht_model *model;
    if (ht_model_open(b->model, b->component, &model))
        return report_failure();
    int status = bench_model(b, model);
    ht_model_close(model);
    return status;
}

const command bench_command = {.name = "bench",
                               .summary = "measure how fast a model runs here",
                               .description = "The peaks are measured in the same run.  Operations are timed one "
                                              "by one meanwhile (two clock reads each).",
                               .examples = "halftone bench models/cifar10\n"
                                           "halftone bench models/cifar10 --batch 1,4,16,64 --threads 1 --seconds 10\n"
                                           "halftone bench models/cifar10 --isa avx2 --json",
                               .options = bench_options,
                               .settings_size = sizeof(bench_settings),
                               .run = run_bench};
