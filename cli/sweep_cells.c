/* sweep_cells.c - making the cells of a sweep, one after the other.
 *
 * Everything that costs time lies in the folder under a name that is the hash of what it depends on, and appears there
 * when it is whole: images of the model of floats (float-KEY), x_t for the error curves (error-KEY), calibrations and
 * quantized models (cache/).  So whatever was made is found again, by the next cell or by the next run.
 *
 * Ranks draw the images of the model of floats together, before any cell; then each makes its cells, and tells rank 0
 * of the rows, which it writes as they come.  So a rank that is killed takes along no row but the one it was at. */
#include <ftw.h>
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cli/fid.h"
#include "cli/interrupt.h"
#include "cli/ranks.h"
#include "cli/sweep.h"
#include "cli/text.h"
#include "core/file.h"

typedef struct run {
    const sweep_settings *s;
    ht_model *model; /* of floats */
    const ht_pipeline_info *info;
    const sweep_plan *plan;
    sweep_results *results;
    sweep_measure *measure;
    progress bar;
    char label[64];
    int at; /* the cell at hand */
    sweep_images images;
    char calibration[PATH_MAX], quantized[PATH_MAX], picture[PATH_MAX], csv[PATH_MAX], path[PATH_MAX];
    int made, failed;
    sweep_shares shares;
    int told; /* exit code of what came of another rank's word */
} run;

static int on_progress(void *user, int64_t done, int64_t total)
{
    run *r = user;
    r->bar.total = total;
    progress_update(&r->bar, done);
    return ranks_stopped();
}

static void begin(run *r, const char *what)
{
    snprintf(r->label, sizeof r->label, "[%d/%d] %s", r->at + 1, r->plan->n, what);
    progress_begin(&r->bar, r->label, 0);
}

static ht_status name_file(char path[PATH_MAX], const char *folder, const char *kind, const char *key, const char *end)
{
    int n = snprintf(path, PATH_MAX, "%s/%s%s%s", folder, kind, key, end);
    return n < PATH_MAX ? HT_OK : ht_fail(HT_ERR_ARGUMENT, "%s: the name is too long", folder);
}

/* ---- seconds of what lies in the cache, beside it ---- */

static ht_status write_seconds(run *r, const char *path, double seconds)
{
    ht_output *o;
    if (snprintf(r->path, sizeof r->path, "%s.seconds", path) >= (int)sizeof r->path)
        return ht_fail(HT_ERR_ARGUMENT, "%s: the name is too long", path);
    ht_status status = ht_output_open(r->path, &o);
    if (status)
        return status;
    fprintf(ht_output_stream(o), "%.3f\n", seconds);
    return ht_output_commit(o);
}

static double read_seconds(const char *path)
{
    char name[PATH_MAX];
    double seconds = NAN;
    FILE *f = snprintf(name, sizeof name, "%s.seconds", path) < PATH_MAX ? fopen(name, "r") : NULL;
    if (f && fscanf(f, "%lf", &seconds) != 1)
        seconds = NAN;
    if (f)
        fclose(f);
    return seconds;
}

/* What the model of floats draws, once for all cells of the same noise. */
static ht_status take_reference(run *r, const sweep_cell *c)
{
    bool found;
    ht_status status = sweep_images_find(&r->images, &c->sample, c->drawing, &found);
    if (!status && !found) {
        begin(r, "drawing with floats");
        status = sweep_images_make(&r->images, &c->sample, c->drawing);
        progress_end(&r->bar);
    }
    return status;
}

/* ---- calibration and quantization ---- */

static ht_status name_calibration(run *r, const sweep_cell *c)
{
    return name_file(r->calibration, r->s->output, "cache/calib-", c->calibration, ".safetensors");
}

static ht_status calibrate(run *r, const sweep_cell *c)
{
    ht_calibrate_options options = c->calibrate.options;
    options.batch = (int)r->s->batch;
    options.threads = (int)r->s->run.threads;
    options.progress = on_progress;
    options.user = r;
    if (!access(r->calibration, R_OK))
        return HT_OK;
    begin(r, "calibrating");
    double start = seconds_now();
    ht_status status = ht_calibrate(r->model, &options, r->calibration);
    progress_end(&r->bar);
    return status ? status : write_seconds(r, r->calibration, seconds_now() - start);
}

static ht_status quantize(run *r, const sweep_cell *c)
{
    ht_quantize_options options = c->quantize.options;
    ht_status status = name_calibration(r, c);
    if (!status)
        status = name_file(r->quantized, r->s->output, "cache/model-", c->quantization, "");
    if (status || drawn_is_model(r->quantized))
        return status;
    status = calibrate(r, c);
    if (status)
        return status;
    options.calibration = r->calibration;
    options.batch = (int)r->s->batch;
    options.threads = (int)r->s->run.threads;
    options.progress = on_progress;
    options.user = r;
    begin(r, "quantizing");
    double start = seconds_now();
    status = ht_quantize(r->model, &options, r->quantized);
    progress_end(&r->bar);
    return status ? status : write_seconds(r, r->quantized, seconds_now() - start);
}

/* ---- a cell ---- */

static ht_status measure(run *r, const sweep_cell *c, ht_model *model, double seconds, const char **row)
{
    ht_model_info info;
    begin(r, "measuring");
    ht_status status = sweep_measure_images(r->measure, r->images.n, r->images.size, r->images.reference,
                                            r->images.drawn, r->results, row);
    if (!status && !c->is_float)
        status = sweep_measure_error(r->measure, model, r->results, row);
    progress_end(&r->bar);
    ht_model_get_info(model, &info);
    sweep_row_number(r->results, row, "weight_bytes", (double)info.weight_bytes);
    sweep_row_number(r->results, row, "bits", info.average_bits);
    sweep_row_number(r->results, row, "sample_seconds", seconds);
    if (!c->is_float) {
        sweep_row_number(r->results, row, "calibrate_seconds", read_seconds(r->calibration));
        sweep_row_number(r->results, row, "quantize_seconds", read_seconds(r->quantized));
    }
    return status;
}

/* The first images of a cell in a row, for the page. */
static ht_status save_picture(run *r, const sweep_cell *c)
{
    int64_t n = r->images.n < SWEEP_SHOWN ? r->images.n : SWEEP_SHOWN;
    ht_status status = name_file(r->path, r->s->output, "images/", c->id, ".png");
    if (!status)
        status = ht_image_save_grid(r->path, r->images.drawn, n, r->images.size[0], r->images.size[1],
                                    r->images.size[2], (int)n, c->name);
    if (!status)
        status = name_file(r->path, r->s->output, "images/", c->drawing, ".png");
    if (!status && access(r->path, R_OK))
        status = ht_image_save_grid(r->path, r->images.reference, n, r->images.size[0], r->images.size[1],
                                    r->images.size[2], (int)n, "floats");
    return status;
}

static ht_status make_cell(run *r, const sweep_cell *c, const char **row)
{
    ht_model *made = NULL;
    double seconds = 0;
    ht_status status = take_reference(r, c);
    if (!status && !c->is_float)
        status = quantize(r, c);
    if (!status && !c->is_float)
        status = ht_model_open(r->quantized, NULL, &made);
    if (!status && c->is_float) {
        seconds = r->images.reference_seconds;
        memcpy(r->images.drawn, r->images.reference, r->images.count * sizeof(float));
    } else if (!status) {
        begin(r, "drawing");
        status = sweep_images_draw(&r->images, r->quantized, &c->sample, r->images.drawn, &seconds);
        progress_end(&r->bar);
    }
    if (!status)
        status = measure(r, c, made ? made : r->model, seconds, row);
    if (!status)
        status = save_picture(r, c);
    ht_model_close(made);
    return status;
}

static void print_row(const run *r, int at, const char *const *row)
{
    if (r->s->quiet || r->s->json)
        return;
    printf("[%d/%d] ", at + 1, r->plan->n);
    text_print(r->plan->cells[at].name);
    double psnr = sweep_row_value(r->results, row, "psnr"), fd = sweep_row_value(r->results, row, "fd");
    if (isfinite(psnr))
        printf(": %.2f dB", psnr);
    if (isfinite(fd))
        printf("%s FD %.4g", isfinite(psnr) ? "," : ":", fd);
    printf(", %.2f MB\n", sweep_row_value(r->results, row, "weight_bytes") * 1e-6);
    fflush(stdout);
}

/* ---- what no later cell needs ---- */

static int remove_entry(const char *path, const struct stat *st, int type, struct FTW *at)
{
    (void)st;
    (void)type;
    (void)at;
    return remove(path);
}

static void remove_with_seconds(const char *path)
{
    char name[PATH_MAX];
    nftw(path, remove_entry, 8, FTW_DEPTH | FTW_PHYS);
    if (snprintf(name, sizeof name, "%s.seconds", path) < PATH_MAX)
        unlink(name);
}

static void tidy(run *r)
{
    const sweep_cell *cells = r->plan->cells, *c = &cells[r->at];
    bool calibration = !r->shares.split[r->at], quantized = true;
    if (r->s->keep || c->is_float)
        return;
    for (int i = r->at + 1; i < r->plan->n; i++) {
        if (r->results->rows[i])
            continue;
        calibration = calibration && strcmp(cells[i].calibration, c->calibration) != 0;
        quantized = quantized && strcmp(cells[i].quantization, c->quantization) != 0;
    }
    if (calibration)
        remove_with_seconds(r->calibration);
    if (quantized)
        remove_with_seconds(r->quantized);
}

/* ---- all ---- */

/* Cells that are the same have the same row, each under its own name. */
static int keep_row(run *r, int at, const char **row)
{
    const char *id = r->plan->cells[at].id;
    for (int i = at; i < r->plan->n; i++) {
        if (strcmp(r->plan->cells[i].id, id) != 0)
            continue;
        const char **mine = ht_alloc_array(r->results->arena, (size_t)r->results->n_columns, sizeof *mine);
        if (!mine)
            return report_failure();
        memcpy(mine, row, (size_t)r->results->n_columns * sizeof *mine);
        sweep_row_set(r->results, mine, "cell", r->plan->cells[i].name);
        r->results->rows[i] = mine;
    }
    return 0;
}

static int write_row(run *r, int at, const char **row)
{
    int code = sweep_results_write(r->csv, r->results);
    r->made += !code;
    if (!code)
        print_row(r, at, row);
    return code;
}

/* ---- words between ranks: "17 ROW", or "- LINE" about a cell that cannot be ---- */

static int tell_row(const run *r, const char **row)
{
    char *line = sweep_row_pack(r->results, row);
    char *text = line ? ht_sprintf(r->results->arena, "%d %s", r->at, line) : NULL;
    free(line);
    if (!text)
        return report("out of memory");
    ranks_tell(text);
    return 0;
}

static void on_word(void *user, const char *text)
{
    run *r = user;
    const char *line = strchr(text, ' ') + 1;
    int at = (int)strtol(text, NULL, 10);
    progress_end(&r->bar);
    if (*text == '-') {
        r->failed++;
        report("%s", line);
        return;
    }
    const char **row = sweep_row_unpack(r->results, line);
    int code = row ? keep_row(r, at, row) : report("out of memory");
    if (!code)
        code = write_row(r, at, row);
    r->told = r->told ? r->told : code;
}

/* ---- a cell that cannot be ---- */

static bool ends_sweep(ht_status status)
{
    return status == HT_ERR_IO || status == HT_ERR_MEMORY || status == HT_ERR_CANCELLED;
}

static int interrupted(const run *r)
{
    report("interrupted: %d cells were made; the same command goes on", r->made);
    return 128 + interrupt_signal();
}

/* A cell that cannot be is told of, and the others are made; a full disk or Ctrl-C ends the sweep. */
static int failed(run *r, ht_status status)
{
    const char *name = r->plan->cells[r->at].name;
    bool ends = ends_sweep(status);
    if (status == HT_ERR_CANCELLED && interrupt_signal())
        return interrupted(r);
    char *word =
        ranks_index() && !ends ? ht_sprintf(r->results->arena, "- cell \"%s\": %s", name, ht_error_message()) : NULL;
    if (word) {
        ranks_tell(word);
        return 0;
    }
    r->failed++;
    report("cell \"%s\": %s", name, ht_error_message());
    return ends ? EXIT_FAILURE : 0;
}

static int next_cell(run *r)
{
    const sweep_cell *c = &r->plan->cells[r->at];
    const char **row = sweep_row_new(r->results, c);
    if (!row)
        return report_failure();
    ht_status status = make_cell(r, c, row);
    progress_end(&r->bar);
    int code = status ? failed(r, status) : keep_row(r, r->at, row);
    if (!status && !code)
        code = ranks_index() ? tell_row(r, row) : write_row(r, r->at, row);
    if (!status && !code)
        tidy(r);
    return code ? code : r->told;
}

/* This rank's part of the calibrations that cells of several ranks need.  One that cannot be is told of by its cells.
 */
static ht_status make_calibrations(run *r)
{
    const sweep_cell *cells = r->plan->cells;
    ht_status status = HT_OK;
    int n = 0;
    for (r->at = 0; !ends_sweep(status) && r->at < r->plan->n; r->at++) {
        bool is_first = !r->results->rows[r->at] && r->shares.split[r->at];
        for (int i = 0; is_first && i < r->at; i++)
            is_first = r->results->rows[i] || strcmp(cells[i].calibration, cells[r->at].calibration) != 0;
        if (is_first && n++ % ranks_count() == ranks_index() && !(status = name_calibration(r, &cells[r->at])))
            status = calibrate(r, &cells[r->at]);
    }
    return ends_sweep(status) ? status : HT_OK;
}

/* What several ranks need: images of the model of floats, drawn by all, samples for the error curves, by rank 0, and
 * calibrations. */
static int make_common(run *r)
{
    ht_status status = HT_OK;
    bool errors = false;
    r->images.together = true;
    for (r->at = 0; !status && r->at < r->plan->n; r->at++) {
        const sweep_cell *c = &r->plan->cells[r->at];
        if (r->results->rows[r->at])
            continue;
        status = take_reference(r, c);
        errors = errors || !c->is_float;
    }
    r->images.together = false;
    r->images.drawing[0] = '\0'; /* all of them lie in files now */
    if (!status && errors && !ranks_index()) {
        begin(r, "error samples");
        status = sweep_measure_samples(r->measure);
        progress_end(&r->bar);
    }
    if (!status)
        status = make_calibrations(r);
    r->at = 0;
    if (status == HT_ERR_CANCELLED && interrupt_signal())
        return interrupted(r);
    if (status)
        return report_failure();
    return ranks_meet() ? ranks_end_early() : 0;
}

static int make_cells(run *r)
{
    int code = ranks_count() > 1 ? make_common(r) : 0;
    for (; !code && r->at < r->plan->n; r->at++)
        if (!r->results->rows[r->at] && r->shares.rank[r->at] == ranks_index())
            code = next_cell(r);
    if (!code && ranks_told_all())
        code = interrupt_signal() ? interrupted(r) : EXIT_FAILURE;
    return code ? code : r->told;
}

static int prepare(run *r)
{
    char path[PATH_MAX];
    const char *const folders[] = {"cache", "images"};
    for (int i = 0; i < 2; i++) {
        if (name_file(path, r->s->output, folders[i], "", ""))
            return report_failure();
        (void)!mkdir(path, 0777); /* what is missing shows when something is written there */
    }
    if (name_file(r->csv, r->s->output, "results.csv", "", ""))
        return report_failure();
    if (sweep_share(r->plan, r->results, &r->shares))
        return EXIT_FAILURE;
    ranks_listen(on_word, r);
    r->bar.quiet = r->s->quiet;
    sweep_measure_options options = {.plan = r->plan,
                                     .settings = r->s,
                                     .model = r->model,
                                     .height = r->info->height,
                                     .width = r->info->width,
                                     .folder = r->s->output,
                                     .progress = on_progress,
                                     .user = r};
    return sweep_measure_open(&options, &r->measure);
}

int sweep_cells_run(const sweep_settings *s, ht_model *model, const ht_pipeline_info *info, const sweep_plan *plan,
                    sweep_results *results, int *made)
{
    run *r = calloc(1, sizeof *r);
    if (!r)
        return report("out of memory");
    *r = (run){.s = s, .model = model, .info = info, .plan = plan, .results = results};
    r->images = (sweep_images){.settings = s, .prompts = &plan->prompts, .progress = on_progress, .user = r};
    int code = prepare(r);
    if (!code)
        code = make_cells(r);
    if (!code && !ranks_index())
        code = sweep_results_write(r->csv, results); /* also if nothing was missing: names may be new */
    if (!code && !ranks_index() && !s->keep && !r->failed && !name_file(r->path, s->output, "cache", "", ""))
        nftw(r->path, remove_entry, 8, FTW_DEPTH | FTW_PHYS);
    if (!code && r->failed)
        code = EXIT_FAILURE;
    *made = r->made;
    ranks_listen(NULL, NULL);
    sweep_measure_close(r->measure);
    sweep_images_close(&r->images);
    free(r);
    return code;
}
