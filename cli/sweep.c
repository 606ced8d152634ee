/* sweep.c - `halftone sweep`: many calibrations and quantizations of a model, measured beside one another. */
#include "cli/sweep.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "calib/identity.h"
#include "cli/interrupt.h"
#include "cli/job.h"
#include "cli/output.h"
#include "cli/ranks.h"
#include "cli/text.h"
#include "core/file.h"

#define AT(member) .at = offsetof(sweep_settings, member)

/* clang-format off */
static const option sweep_options[] = {
    {.argument = "MODEL", .type = OPTION_TEXT, AT(model), .help = "a model of floats: its folder"},
    {.argument = "SWEEP.json", .type = OPTION_TEXT, AT(file), .help = "which settings to try: docs/sweep.md"},
    {.name = "output", .letter = 'o', .argument = "FOLDER", .type = OPTION_TEXT, AT(output),
     .help = "gets results.csv and index.html; needed, but for --dry-run"},
    {.name = "dry-run", .type = OPTION_FLAG, AT(dry_run), .help = "list the cells, and what they share, and do nothing"},
    {.name = "keep", .type = OPTION_FLAG, AT(keep), .help = "leave calibrations and quantized models in FOLDER/cache"},
    {.name = "batch", .argument = "N", .type = OPTION_INT, AT(batch), .min = 1, .max = 4096, .initial = "16",
     .help = "images evaluated at once; same results with any"},
    RUN_OPTIONS(sweep_settings),
    {.name = "quiet", .letter = 'q', .type = OPTION_FLAG, AT(quiet), .help = "no progress, no lines about cells"},
    {.name = "json", .type = OPTION_FLAG, AT(json), .help = "print one JSON object with all results"},
    {0}};
/* clang-format on */

typedef struct job {
    const sweep_settings *s;
    sweep_plan plan;
    sweep_results results;
    ht_model *model;
    ht_pipeline_info info; /* of the same with what makes its pictures */
    char csv[PATH_MAX];
    int lock, made, before;
    double seconds;
} job;

/* ---- before the work ---- */

/* FNV-1a of a file; what is none changes nothing. */
static int add_file(const char *path, uint64_t *sum)
{
    ht_mapping file;
    struct stat status;
    if (stat(path, &status) || !S_ISREG(status.st_mode))
        return 0;
    if (ht_map_file(path, &file))
        return report_failure();
    for (size_t k = 0; k < file.size; k++)
        *sum = (*sum ^ file.data[k]) * UINT64_C(1099511628211);
    ht_unmap_file(&file);
    return 0;
}

/* Of all files in a folder, in the order of their names. */
static int add_folder(const char *folder, uint64_t *sum)
{
    struct dirent **names = NULL;
    int n = scandir(folder, &names, NULL, alphasort), code = 0;
    for (int i = 0; i < n; i++) {
        char path[PATH_MAX];
        if (!code && snprintf(path, sizeof path, "%s/%s", folder, names[i]->d_name) < (int)sizeof path)
            code = add_file(path, sum);
        free(names[i]);
    }
    free(names);
    return code;
}

static const uint64_t fnv_start = UINT64_C(14695981039346656037);

/* Files whose words change what is drawn, beside the weights. */
static int add_configs(const char *model, char *text, size_t size)
{
    static const char *const names[] = {"config.json", "unet/config.json", "transformer/config.json",
                                        "scheduler_config.json", "scheduler/scheduler_config.json"};
    size_t used = strlen(text);
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        char path[PATH_MAX];
        uint64_t sum = fnv_start;
        if (snprintf(path, sizeof path, "%s/%s", model, names[i]) >= (int)sizeof path || access(path, R_OK))
            continue;
        if (add_file(path, &sum))
            return EXIT_FAILURE;
        used += (size_t)snprintf(text + used, size - used, " %016" PRIx64, sum);
    }
    return 0;
}

/* Of latents and prompts: all that lies in the folders of what stands around the denoiser. */
static int add_components(const job *j, char *text, size_t size)
{
    static const char *const folders[] = {"vae", "text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2"};
    size_t used = strlen(text);
    uint64_t sum = fnv_start;
    if (j->info.factor == 1 && !j->info.takes_prompt)
        return 0;
    for (size_t i = 0; i < sizeof folders / sizeof *folders; i++) {
        char path[PATH_MAX];
        if (snprintf(path, sizeof path, "%s/%s", j->s->model, folders[i]) >= (int)sizeof path)
            return report("%s: the name is too long", j->s->model);
        if (add_folder(path, &sum))
            return EXIT_FAILURE;
    }
    snprintf(text + used, size - used, " %016" PRIx64, sum);
    return 0;
}

static int make_keys(job *j)
{
    char identity[256], extra[2 * PATH_MAX + 96];
    const run_settings *run = &j->s->run;
    bool as_ever = strcmp(run->backend, "cuda") != 0; /* rows of a GPU are others than the CPU's */
    const char *hash;
    if (ht_model_identity(j->plan.arena, j->model, &hash))
        return report_failure();
    snprintf(identity, sizeof identity, "%s %s", ht_version(), hash);
    int code = add_configs(j->s->model, identity, sizeof identity);
    if (!code)
        code = add_components(j, identity, sizeof identity);
    snprintf(extra, sizeof extra, "%s|%s%s%s", j->plan.features ? j->plan.features : "",
             j->plan.reference ? j->plan.reference : "", as_ever ? "" : "|cuda ", as_ever ? "" : run->dtype);
    return code ? code : sweep_plan_keys(&j->plan, identity, extra);
}

/* Prompts are read now, so that none stops the sweep later. */
static int check_prompts(const job *j, const ht_pipeline *pipeline)
{
    const prompt_list *prompts = &j->plan.prompts;
    if (j->info.takes_prompt && !prompts->n)
        return report("%s: needs prompts: \"prompts\" of \"sample\" in %s", j->s->model, j->s->file);
    if (!j->info.takes_prompt && prompts->n)
        return report("%s: takes no prompt; leave \"prompts\" out of %s", j->s->model, j->s->file);
    for (int64_t i = 0; i < prompts->n; i++)
        if (ht_pipeline_check_prompt(pipeline, prompts->text[i], j->plan.cells[0].sample.plain))
            return report("%s: %s", prompts->where[i], ht_error_message());
    return 0;
}

static int check_pipeline(job *j)
{
    const sample_settings *first = &j->plan.cells[0].sample;
    const ht_session_options how = {.height = first->size.height, .width = first->size.width, .threads = 1};
    ht_pipeline *pipeline = NULL;
    if (ht_pipeline_open(j->s->model, &how, &pipeline))
        return report_failure();
    ht_pipeline_get_info(pipeline, &j->info);
    int code = check_prompts(j, pipeline);
    ht_pipeline_close(pipeline);
    return code;
}

static int check_model(job *j)
{
    ht_model_info info;
    ht_model_get_info(j->model, &info);
    if (info.layers)
        return report("%s: is quantized already; a sweep wants a model of floats", j->s->model);
    int code = check_pipeline(j);
    if (code)
        return code;
    if (j->info.channels != 3)
        return report("%s: draws samples of %d channels; a sweep measures pictures of 3", j->s->model,
                      j->info.channels);
    if (j->info.takes_mask)
        return report("%s: an inpainting model needs a picture and a mask, which sweeps have not", j->s->model);
    for (int i = 0; i < j->plan.n; i++) {
        int classes = j->plan.cells[i].sample.classes.count;
        if (classes && !info.takes_class)
            return report("%s: takes no class; leave \"class\" out of %s", j->s->model, j->s->file);
        if (!classes && info.takes_class)
            return report("%s: needs a class for each image: \"class\" of \"sample\" in %s", j->s->model, j->s->file);
    }
    return 0;
}

/* Two sweeps in one folder would each undo what the other writes. */
static int lock_folder(job *j)
{
    char path[PATH_MAX];
    output folder;
    if (output_open_folder(j->s->output, &folder))
        return EXIT_FAILURE;
    if (snprintf(path, sizeof path, "%s/.lock", j->s->output) >= (int)sizeof path)
        return report("%s: the name is too long", j->s->output);
    j->lock = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0666);
    if (j->lock < 0)
        return report("%s: cannot be written: %s", path, strerror(errno));
    if (!flock(j->lock, LOCK_EX | LOCK_NB))
        return 0;
    return report("%s: another sweep is at work there; wait for it or name another folder", j->s->output);
}

/* Rank 0 makes and locks the folder, then the others begin. */
static int enter_folder(job *j)
{
    int code = ranks_index() ? 0 : lock_folder(j);
    if (!code && ranks_meet())
        code = ranks_end_early();
    return code;
}

static int open_results(job *j)
{
    const char *folder = j->s->output ? j->s->output : "/nonexistent";
    if (snprintf(j->csv, sizeof j->csv, "%s/results.csv", folder) >= (int)sizeof j->csv)
        return report("%s: the name is too long", folder);
    int code = sweep_results_open(j->csv, &j->plan, &j->results);
    for (int i = 0; !code && i < j->plan.n; i++)
        j->before += j->results.rows[i] != NULL;
    return code;
}

/* ---- what is told ---- */

/* The number of the first cell of the same key among those before, or its own. */
static int first_of(const sweep_plan *plan, int i, size_t key)
{
    const char *mine = (const char *)&plan->cells[i] + key;
    for (int k = 0; k < i; k++)
        if (!strcmp((const char *)&plan->cells[k] + key, mine))
            return k;
    return i;
}

static void print_share(const char *what, int first, int i)
{
    if (first == i)
        printf("  %-14s", what);
    else
        printf("  %s of %-*d", what, (int)(10 - strlen(what)), first + 1);
}

static int dry_run(const job *j)
{
    const sweep_plan *plan = &j->plan;
    int calibrations = 0, models = 0, references = 0;
    for (int i = 0; i < plan->n; i++) {
        const sweep_cell *c = &plan->cells[i];
        int calibration = first_of(plan, i, offsetof(sweep_cell, calibration));
        int quantized = first_of(plan, i, offsetof(sweep_cell, quantization));
        int drawing = first_of(plan, i, offsetof(sweep_cell, drawing));
        printf("%4d  %-6s", i + 1, j->results.rows[i] ? "done" : "to do");
        if (c->is_float) {
            printf("  %-14s  %-14s", "float", "-");
        } else {
            print_share("calib", calibration, i);
            print_share("model", quantized, i);
            calibrations += calibration == i;
            models += quantized == i;
        }
        print_share("noise", drawing, i);
        references += drawing == i;
        printf("  ");
        text_print(c->name);
        printf("\n");
    }
    printf("%d cells, %d done: %d calibrations, %d quantized models, %d sets of images of the model of floats\n",
           plan->n, j->before, calibrations, models, references);
    return 0;
}

/* Numbers where the text is one; "" is null. */
static json_t *cell_json(const job *j, int i)
{
    json_t *object = json_object();
    const char *const *row = j->results.rows[i];
    for (int c = 0; object && row && c < j->results.n_columns; c++) {
        double value = sweep_row_value(&j->results, row, j->results.columns[c]);
        bool is_name = c < 2;
        json_t *v = !is_name && isfinite(value) ? json_real(value)
                    : *row[c] && !isinf(value)  ? text_json(row[c])
                                                : json_null();
        if (json_object_set_new(object, j->results.columns[c], v)) {
            json_decref(object);
            return NULL;
        }
    }
    return object;
}

static int print_all_json(const job *j)
{
    json_t *cells = json_array();
    for (int i = 0; cells && i < j->plan.n; i++)
        if (j->results.rows[i])
            json_array_append_new(cells, cell_json(j, i));
    return print_json(json_pack("{s:o, s:o, s:o, s:s, s:i, s:i, s:f, s:o}", "model", text_json(j->s->model), "sweep",
                                text_json(j->s->file), "output", text_json(j->s->output), "version", ht_version(),
                                "made", j->made, "reused", j->before, "seconds", j->seconds, "cells", cells));
}

/* ---- the command ---- */

static int prepare(job *j)
{
    int code = sweep_plan_read(j->s->file, &j->plan);
    if (!code && ht_model_open(j->s->model, NULL, &j->model))
        code = report_failure();
    if (!code)
        code = check_model(j);
    if (!code)
        code = make_keys(j);
    if (!code && !j->s->dry_run)
        code = enter_folder(j);
    if (!code)
        code = open_results(j);
    if (!code && ranks_meet()) /* all have read before anybody writes */
        code = ranks_end_early();
    return code;
}

static int work(job *j)
{
    interrupt_watch();
    int code = sweep_cells_run(j->s, j->model, &j->info, &j->plan, &j->results, &j->made);
    int page =
        !ranks_index() && (j->made || !code) ? sweep_page_write(j->s->output, j->s->model, &j->plan, &j->results) : 0;
    return code ? code : page;
}

static int run_sweep(const void *settings)
{
    const sweep_settings *s = settings;
    sweep_settings mine = *s;
    mine.run.threads = ranks_threads(s->run.threads);
    mine.quiet = s->quiet || ranks_index();
    if (!s->output && !s->dry_run)
        return options_wrong(&sweep_command, "--output FOLDER is missing");
    job *j = calloc(1, sizeof *j);
    if (!j)
        return report("out of memory");
    j->s = &mine;
    j->lock = -1;
    double start = seconds_now();
    int code = prepare(j);
    if (!code && s->dry_run)
        code = dry_run(j);
    else if (!code)
        code = work(j);
    j->seconds = seconds_now() - start;
    if (!code && s->json && !s->dry_run)
        code = print_all_json(j);
    else if (!code && !s->quiet && !s->dry_run)
        printf("%d cells, %d of them from before, in %.1f s; see index.html there\n", j->plan.n, j->before, j->seconds);
    sweep_results_close(&j->results);
    sweep_plan_close(&j->plan);
    ht_model_close(j->model);
    if (j->lock >= 0)
        close(j->lock);
    free(j);
    return code;
}

const command sweep_command = {
    .name = "sweep",
    .summary = "try many settings of calibrate and quantize",
    .description =
        "SWEEP.json has a \"grid\" of settings with lists of values, a list of \"cells\", or both (docs/sweep.md).\n"
        "Every cell is calibrated, quantized, drawn with the same noise, and measured; what cells share is made "
        "once.\nresults.csv grows by a row a cell.  After an interruption the same command goes on.",
    .examples = "halftone sweep models/cifar10 bench/calibration.json -o report/\n"
                "halftone sweep models/cifar10 bench/schemes.json --dry-run\n"
                "halftone sweep models/cifar10 my.json --keep -o report/",
    .options = sweep_options,
    .settings_size = sizeof(sweep_settings),
    .run = run_sweep,
    .shares = true};
