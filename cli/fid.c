/* fid.c - `halftone fid`: distances between sets of images. */
#include "cli/fid.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/interrupt.h"
#include "cli/ranks.h"
#include "cli/text.h"

#define AT(member) .at = offsetof(fid_settings, member)

/* clang-format off */
static const option fid_options[] = {
    {.argument = "A... B", .type = OPTION_TEXTS, AT(sets), .min = 2,
     .help = "sets to measure, and last the reference: a folder or zip of pictures, an .npz of mu and sigma, or a model"},
    {.name = "metrics", .letter = 'm', .argument = "LIST", .type = OPTION_TEXT, AT(metrics), .initial = "fid", .record = "Metrics",
     .help = "of fid, sfid, kid, is, pr, psnr, ssim, distance; see below"},
    {.name = "features", .letter = 'f', .argument = "NAME", .type = OPTION_TEXT, AT(features), .record = "Features",
     .help = "network: inception, resnet18_w24, resnet18_w24_emoji, a folder or a .safetensors; default: see below"},
    {.name = "output", .argument = "NAME", .type = OPTION_CHOICE, AT(output), .choices = "64|192|768|2048", .record = "Output",
     .help = "of the network; default: its last features"},
    {.name = "resize", .argument = "NAME", .type = OPTION_CHOICE, AT(resize), .choices = "bilinear|tf1|bicubic|none", .record = "Resize",
     .help = "as pytorch-fid, torch-fidelity and ADM, clean-fid; default: bilinear for inception, else none"},
    {.name = "number", .letter = 'n', .argument = "N", .type = OPTION_INT, AT(n), .min = 1, .max = 100000000, .initial = "10000",
     .record = "Images", .help = "images that a model draws"},
    {.name = "steps", .argument = "N", .type = OPTION_INT, AT(steps), .min = 1, .max = 100000, .initial = "50", .record = "Steps",
     .help = "model evaluations an image"},
    {.name = "seed", .argument = "N", .type = OPTION_SEED, AT(seed), .initial = "0", .record = "Seed", .help = "of a model's images"},
    {.name = "sampler", .argument = "NAME", .type = OPTION_CHOICE, AT(sampler), .choices = SAMPLER_CHOICES, .record = "Sampler",
     .help = "of a model; default: its own"},
    {.name = "spacing", .argument = "NAME", .type = OPTION_CHOICE, AT(spacing), .choices = "leading|trailing|linspace|uniform|quad|adm",
     .record = "Spacing", .help = "of timesteps; default: the model's own"},
    {.name = "eta", .argument = "X", .type = OPTION_REAL, AT(eta), .max = 1, .initial = "0", .record = "Eta", .help = "noise that DDIM adds"},
    {.name = "prompts", .argument = "FILE", .type = OPTION_TEXT, AT(prompts), .record = "Prompts",
     .help = "a prompt a line, that a model's images take in turn"},
    {.name = "negative", .argument = "TEXT", .type = OPTION_TEXT, AT(negative), .record = "Negative prompt",
     .help = "what to lead away from"},
    {.name = "guidance", .argument = "X", .type = OPTION_REAL, AT(guidance), .min = 0, .max = 1000, .nan_if_absent = true,
     .record = "CFG scale", .help = "how strongly prompt or class lead; 1: not guided; default: 7.5, of a class 4"},
    {.name = "class", .argument = "LIST", .type = OPTION_INTS, AT(classes), .max = 1000000000, .record = "Class",
     .help = "classes that a model's images take in turn: 3 or 0,1,2"},
    {.name = "batch", .argument = "N", .type = OPTION_INT, AT(batch), .min = 1, .max = 4096, .initial = "16",
     .help = "images that a model draws at once; same images with any"},
    {.name = "save-stats", .type = OPTION_FLAG, AT(save_stats), .help = "keep mu and sigma beside each set, as SET.NETWORK.npz; of a model, the name tells settings apart"},
    {.name = "skip-bad", .type = OPTION_FLAG, AT(skip_bad), .record = "Skip-bad", .help = "leave out pictures that cannot be read"},
    {.name = "kid-subsets", .argument = "N", .type = OPTION_INT, AT(kid_subsets), .min = 1, .max = 100000, .initial = "100",
     .record = "KID-subsets", .help = "that KID is the mean of"},
    {.name = "kid-size", .argument = "N", .type = OPTION_INT, AT(kid_size), .min = 2, .max = 1000000, .initial = "1000",
     .record = "KID-size", .help = "images of a subset"},
    {.name = "splits", .argument = "N", .type = OPTION_INT, AT(splits), .min = 1, .max = 1000000, .initial = "10", .record = "Splits",
     .help = "that IS is the mean of"},
    {.name = "neighbours", .argument = "K", .type = OPTION_INT, AT(neighbours), .min = 1, .max = 64, .initial = "3",
     .record = "Neighbours", .help = "of precision, recall, density, coverage"},
    {.name = "metric-seed", .argument = "N", .type = OPTION_SEED, AT(metric_seed), .initial = "2020", .record = "Metric-seed",
     .help = "of KID's subsets and IS's order; 2020: torch-fidelity's"},
    RUN_OPTIONS(fid_settings),
    {.name = "quiet", .letter = 'q', .type = OPTION_FLAG, AT(quiet), .help = "no progress, no warnings"},
    {.name = "json", .type = OPTION_FLAG, AT(json), .help = "print one JSON object"},
    {0}};
/* clang-format on */

/* ---- metrics by name ---- */

#define OF(member) offsetof(ht_evaluation, member)

const fid_column fid_columns[] = {
    {"fid", "FID", HT_METRIC_FRECHET, OF(frechet), 0}, /* "fd", unless the network is FID's */
    {"sfid", "sFID", HT_METRIC_SPATIAL, OF(spatial), 0},
    {"kid", "KID", HT_METRIC_KID, OF(kid), OF(kid_deviation)},
    {"is", "IS", HT_METRIC_INCEPTION, OF(inception), OF(inception_deviation)},
    {"precision", "precision", HT_METRIC_MANIFOLD, OF(precision), 0},
    {"recall", "recall", HT_METRIC_MANIFOLD, OF(recall), 0},
    {"density", "density", HT_METRIC_MANIFOLD, OF(density), 0},
    {"coverage", "coverage", HT_METRIC_MANIFOLD, OF(coverage), 0},
    {"psnr", "PSNR dB", HT_METRIC_PSNR, OF(psnr), 0},
    {"ssim", "SSIM", HT_METRIC_SSIM, OF(ssim), 0},
    {"distance", "distance", HT_METRIC_DISTANCE, OF(distance), 0},
};

const size_t fid_columns_count = sizeof fid_columns / sizeof *fid_columns;

unsigned fid_metric_named(const char *name, size_t length)
{
    static const struct {
        const char *name;
        unsigned metrics;
    } others[] = {{"fd", HT_METRIC_FRECHET}, {"pr", HT_METRIC_MANIFOLD}};
    for (size_t i = 0; i < sizeof others / sizeof *others; i++)
        if (strlen(others[i].name) == length && !strncmp(others[i].name, name, length))
            return others[i].metrics;
    for (size_t i = 0; i < fid_columns_count; i++)
        if (strlen(fid_columns[i].key) == length && !strncmp(fid_columns[i].key, name, length))
            return fid_columns[i].metric;
    return 0;
}

/* "fid,kid" -> bits.  0, or an exit code. */
static int read_metrics(const char *list, unsigned *metrics)
{
    *metrics = 0;
    for (const char *at = list;; at++) {
        size_t length = strcspn(at, ",");
        unsigned m = fid_metric_named(at, length);
        if (!m)
            return options_wrong(&fid_command,
                                 "--metrics %.60s: '%.*s' is none of fid, sfid, kid, is, pr, psnr, ssim, distance",
                                 list, (int)(length < 40 ? length : 40), at);
        *metrics |= m;
        at += length;
        if (!*at)
            return 0;
    }
}

/* ---- a run ---- */

typedef struct job {
    const fid_settings *s;
    unsigned metrics;
    ht_evaluator *evaluator;
    ht_evaluator_info info;
    char network[PATH_MAX];
    bool needs_network;
    progress bar;
    prompt_list prompts;
    drawn reference; /* stays open: pairs draw it again */
    double seconds;
    int n;
    ht_evaluation results[OPTION_MAX_TEXTS];
} job;

static const char *reference_of(const job *j)
{
    return j->s->sets.value[j->s->sets.count - 1];
}

static bool is_npz(const char *path)
{
    size_t n = strlen(path);
    return n > 4 && !strcmp(path + n - 4, ".npz");
}

static int on_progress(void *user, int64_t done, int64_t total)
{
    job *j = user;
    j->bar.total = total;
    progress_update(&j->bar, done);
    return ranks_stopped();
}

static void on_remark(void *user, const char *line)
{
    job *j = user;
    if (j->s->quiet || ranks_index())
        return;
    progress_end(&j->bar);
    char *clean = strdup(line);
    if (clean)
        text_clean(clean);
    fprintf(stderr, "halftone: warning: %s\n", clean ? clean : "out of memory");
    free(clean);
    progress_begin(&j->bar, "measuring", j->bar.total);
}

static int failed(job *j, ht_status status)
{
    progress_end(&j->bar);
    if (status == HT_ERR_CANCELLED && interrupt_signal()) {
        report("interrupted: nothing was measured");
        return 128 + interrupt_signal();
    }
    return report_failure();
}

/* The network is chosen by the first set of which something is known. */
static int choose_network(job *j)
{
    const option_texts *sets = &j->s->sets;
    const char *model = NULL, *pictures = NULL;
    int height = 0, width = 0;
    for (int i = 0; i < sets->count; i++) {
        if (drawn_is_model(sets->value[i]))
            model = model ? model : sets->value[i];
        else if (!is_npz(sets->value[i]))
            pictures = pictures ? pictures : sets->value[i];
    }
    j->needs_network = (model || pictures || j->s->features) &&
                       (j->s->save_stats || j->metrics & ~(unsigned)(HT_METRIC_PSNR | HT_METRIC_SSIM));
    if (!j->needs_network)
        return 0;
    if (!j->s->features && pictures && ht_image_source_size(pictures, &height, &width))
        return report_failure();
    if (!j->s->features && !pictures) {
        drawn d;
        int code = drawn_open(model, j->s, &j->prompts, &d);
        height = d.info.height;
        width = d.info.width;
        drawn_close(&d);
        if (code)
            return code;
    }
    return fid_find_network(j->s, model, height, width, j->network);
}

static int open_evaluator(job *j)
{
    const fid_settings *s = j->s;
    ht_evaluate_options options = {.features = j->needs_network ? j->network : NULL,
                                   .output = s->output,
                                   .resize = s->resize,
                                   .metrics = j->metrics,
                                   .skip_bad = s->skip_bad,
                                   .threads = ranks_threads(s->run.threads),
                                   .isa = s->run.isa,
                                   .seed = s->metric_seed,
                                   .kid_subsets = (int)s->kid_subsets,
                                   .kid_size = (int)s->kid_size,
                                   .splits = (int)s->splits,
                                   .neighbours = (int)s->neighbours,
                                   .progress = on_progress,
                                   .remark = on_remark,
                                   .user = j};
    if (ht_evaluator_open(&options, &j->evaluator))
        return report_failure();
    ht_evaluator_get_info(j->evaluator, &j->info);
    return 0;
}

/* Opens a set as a source: d is opened if it is a model, name is room for save. */
static int open_set(job *j, const char *path, drawn *d, char name[PATH_MAX], ht_image_source *source)
{
    bool is_model = drawn_is_model(path);
    *source = (ht_image_source){.path = path, .share = ranks_source_share()};
    *d = (drawn){0};
    if (j->s->save_stats && !is_npz(path)) {
        if (fid_statistics_name(j->s, is_model ? &j->prompts : NULL, &j->info, path, name))
            return EXIT_FAILURE;
        source->save = name;
    }
    if (!is_model)
        return 0;
    int code = drawn_open(path, j->s, &j->prompts, d);
    source->n = j->s->n;
    source->height = d->info.height;
    source->width = d->info.width;
    source->draw = drawn_draw;
    source->user = d;
    return code;
}

static int take_reference(job *j)
{
    char name[PATH_MAX];
    ht_image_source source;
    int code = open_set(j, reference_of(j), &j->reference, name, &source);
    if (code)
        return code;
    progress_begin(&j->bar, "reference", 0);
    ht_status status = ht_evaluator_reference(j->evaluator, &source);
    if (status)
        return failed(j, status);
    progress_end(&j->bar);
    return 0;
}

static int measure(job *j, const char *path, ht_evaluation *out)
{
    char name[PATH_MAX];
    ht_image_source source;
    drawn d;
    int code = open_set(j, path, &d, name, &source);
    if (!code) {
        progress_begin(&j->bar, "measuring", 0);
        ht_status status = ht_evaluator_compare(j->evaluator, &source, out);
        code = status ? failed(j, status) : 0;
        progress_end(&j->bar);
    }
    drawn_close(&d);
    return code;
}

/* ---- results ---- */

static double value_at(const ht_evaluation *e, size_t at)
{
    return *(const double *)((const char *)e + at);
}

static bool is_frechet(const fid_column *c)
{
    return c->metric == HT_METRIC_FRECHET || c->metric == HT_METRIC_SPATIAL;
}

/* Distances are FID's under its own network alone. */
static const char *key_of(const job *j, const fid_column *c)
{
    return c->metric == HT_METRIC_FRECHET && !j->info.is_fid ? "fd" : c->key;
}

/* Infinity, PSNR of equal pictures, has no number in JSON. */
static json_t *number(double x)
{
    return isfinite(x) ? json_real(x) : json_null();
}

static json_t *metrics_json(const job *j, const ht_evaluation *e)
{
    json_t *object = json_object();
    int failures = 0;
    for (size_t i = 0; i < fid_columns_count; i++) {
        const fid_column *c = &fid_columns[i];
        char key[32];
        if (!(j->metrics & c->metric))
            continue;
        failures += json_object_set_new(object, key_of(j, c), number(value_at(e, c->at)));
        snprintf(key, sizeof key, "%s_std", c->key);
        if (c->deviation)
            failures += json_object_set_new(object, key, number(value_at(e, c->deviation)));
    }
    if (!failures)
        return object;
    json_decref(object);
    return NULL;
}

static json_t *result_json(const job *j, int i)
{
    const ht_evaluation *e = &j->results[i];
    return json_pack("{s:o, s:[I,I], s:I, s:o}", "a", text_json(j->s->sets.value[i]), "n", (json_int_t)e->n,
                     (json_int_t)e->n_reference, "skipped", (json_int_t)e->skipped, "metrics", metrics_json(j, e));
}

static int print_results_json(const job *j)
{
    json_t *object = j->n == 1 ? result_json(j, 0) : json_object(), *list = j->n == 1 ? NULL : json_array();
    for (int i = 0; list && i < j->n; i++)
        json_array_append_new(list, result_json(j, i));
    json_t *about = json_pack("{s:o, s:s, s:o, s:o, s:s, s:f}", "features",
                              j->info.features ? text_json(j->info.features) : json_null(), "resize", j->info.resize,
                              "b", text_json(reference_of(j)), "settings", options_json(&fid_command, j->s), "version",
                              ht_version(), "seconds", j->seconds);
    bool whole = object && about && (j->n == 1 || (list && json_array_size(list) == (size_t)j->n));
    if (whole && list && json_object_set(object, "results", list))
        whole = false;
    if (whole && json_object_update(object, about))
        whole = false;
    json_decref(about);
    json_decref(list);
    if (!whole) {
        json_decref(object);
        object = NULL;
    }
    return print_json(object);
}

static void print_value(const ht_evaluation *e, const fid_column *c)
{
    char text[48];
    int n = snprintf(text, sizeof text, "%.*g", 6, value_at(e, c->at));
    if (c->deviation)
        snprintf(text + n, sizeof text - (size_t)n, " +- %.2g", value_at(e, c->deviation));
    printf("  %*s", c->deviation ? 20 : 10, text);
}

static const char *title_of(const job *j, const fid_column *c)
{
    return c->metric == HT_METRIC_FRECHET && !j->info.is_fid ? "FD" : c->title;
}

static void print_table(const job *j)
{
    int width = 8;
    for (int i = 0; i < j->n; i++) {
        int length = (int)strlen(j->s->sets.value[i]);
        width = length > width ? length : width;
    }
    printf("reference: ");
    text_print(reference_of(j));
    if (j->results[0].n_reference)
        printf(", %" PRId64 " images", j->results[0].n_reference);
    if (j->info.features) {
        printf("\nfeatures: ");
        text_print(j->info.features);
        printf(", %d numbers an image, resize %s", j->info.dim, j->info.resize);
    }
    printf("\n\n%-*s  %8s", width, "set", "images");
    for (size_t c = 0; c < fid_columns_count; c++) {
        char title[64];
        if (!(j->metrics & fid_columns[c].metric))
            continue;
        bool named = is_frechet(&fid_columns[c]) && !j->info.is_fid && j->info.features;
        snprintf(title, sizeof title, named ? "%s (%s)" : "%s", title_of(j, &fid_columns[c]), j->info.features);
        printf("  %*s", fid_columns[c].deviation ? 20 : 10, title);
    }
    printf("\n");
    for (int i = 0; i < j->n; i++) {
        text_print(j->s->sets.value[i]);
        printf("%*s  %8" PRId64, width - (int)strlen(j->s->sets.value[i]), "", j->results[i].n);
        for (size_t c = 0; c < fid_columns_count; c++)
            if (j->metrics & fid_columns[c].metric)
                print_value(&j->results[i], &fid_columns[c]);
        printf("\n");
    }
}

/* ---- the command ---- */

static int prepare(job *j)
{
    int code = read_metrics(j->s->metrics, &j->metrics);
    if (code)
        return code;
    if (j->s->skip_bad && j->metrics & (HT_METRIC_PSNR | HT_METRIC_SSIM | HT_METRIC_DISTANCE))
        return options_wrong(&fid_command,
                             "--skip-bad: psnr, ssim and distance are of pairs, of which none can be left out");
    code = prompts_read(&j->prompts, &(option_texts){0}, j->s->prompts);
    if (!code)
        code = choose_network(j);
    return code ? code : open_evaluator(j);
}

static int run_fid(const void *settings)
{
    job *j = calloc(1, sizeof *j);
    if (!j)
        return report("out of memory");
    j->s = settings;
    j->bar.quiet = j->s->quiet || ranks_index();
    interrupt_watch();
    double start = seconds_now();
    int code = prepare(j);
    if (!code)
        code = take_reference(j);
    for (; !code && j->n < j->s->sets.count - 1; j->n += !code)
        code = measure(j, j->s->sets.value[j->n], &j->results[j->n]);
    j->seconds = seconds_now() - start;
    if (!code && j->s->json)
        code = print_results_json(j);
    else if (!code)
        print_table(j);
    ht_evaluator_close(j->evaluator);
    drawn_close(&j->reference);
    prompts_free(&j->prompts);
    free(j);
    return code;
}

const command fid_command = {
    .name = "fid",
    .summary = "measure sets of images against a reference",
    .description =
        "Metrics: fid (Frechet distance; FD under another network than FID's), sfid, kid, is, pr (precision, recall, "
        "density, coverage);\npsnr, ssim and distance are of pairs, image i of A with image i of B.\n"
        "Network: features/ of a model among the sets, resnet18_w24 for pictures of 32x32, resnet18_w24_emoji of "
        "64x64, FID's InceptionV3 for others.\n"
        "Figures under different networks or ways to resize cannot be compared.",
    .examples = "halftone fid samples/ models/cifar10/cifar10-train-resnet18_w24.npz\n"
                "halftone fid cifar10-test.zip cifar10-train.zip --metrics fid,kid,pr --json\n"
                "halftone fid models/cifar10 models/cifar10-w4a8 models/cifar10/cifar10-train-resnet18_w24.npz -n 2000 "
                "--steps 20\n"
                "halftone fid emoji-w4a8 models/emoji --prompts captions.txt -n 1000 --steps 20 --metrics psnr,ssim\n"
                "halftone fid cifar10-w4a8.out/ cifar10.out/ --metrics psnr,ssim\n"
                "halftone fid samples/ train/ --features inception --save-stats",
    .options = fid_options,
    .settings_size = sizeof(fid_settings),
    .run = run_fid,
    .shares = true};
