/* sweep_measure.c - what is measured of a cell.
 *
 * Images: PSNR to those that the model of floats drew of the same noise, of values as they are; the other metrics of
 * halftone fid, of 8-bit images.  Output: eps of the quantized model against eps of the model of floats, on x_t of
 * trajectories that no cell was calibrated on, the same for all cells, so that the curves of cells that were calibrated
 * at other timesteps can be compared. */
#include <errno.h>
#include <glob.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/fid.h"
#include "cli/ranks.h"
#include "cli/sweep.h"
#include "core/safetensors.h"
#include "eval/psnr.h"

enum { OF_PAIRS = HT_METRIC_SSIM | HT_METRIC_DISTANCE };

struct sweep_measure {
    sweep_measure_options o;
    unsigned of_sets; /* metrics against the reference set; others are against the images of the model of floats */
    char network[PATH_MAX], reference[PATH_MAX];
    ht_evaluator *sets, *pairs;
    ht_evaluator_info info;
    char remark[160];                                          /* the last one */
    char samples[PATH_MAX], wanted[PATH_MAX], found[PATH_MAX]; /* files: x_t, eps of floats, eps of the model at hand */
};

/* ---- the network and the reference set ---- */

/* What is true of every cell is said once. */
static void on_remark(void *user, const char *line)
{
    sweep_measure *m = user;
    if (m->o.settings->quiet || !strncmp(m->remark, line, sizeof m->remark - 1))
        return;
    snprintf(m->remark, sizeof m->remark, "%s", line);
    fprintf(stderr, "halftone: warning: %s\n", line);
}

static ht_evaluate_options evaluate_options(sweep_measure *m, unsigned metrics)
{
    return (ht_evaluate_options){.features = m->network[0] ? m->network : NULL,
                                 .resize = m->network[0] ? m->o.plan->resize : NULL,
                                 .metrics = metrics,
                                 .threads = (int)m->o.settings->run.threads,
                                 .seed = 2020,
                                 .remark = on_remark,
                                 .user = m};
}

/* MODEL/SET-train-NETWORK.npz: statistics that came with the model. */
static bool find_statistics(sweep_measure *m)
{
    char pattern[PATH_MAX];
    glob_t found = {0};
    if (snprintf(pattern, sizeof pattern, "%s/*-train-%s.npz", m->o.settings->model, m->info.features) >=
        (int)sizeof pattern)
        return false;
    bool one = !glob(pattern, 0, NULL, &found) && found.gl_pathc == 1 && strlen(found.gl_pathv[0]) < PATH_MAX;
    if (one)
        strcpy(m->reference, found.gl_pathv[0]);
    globfree(&found);
    return one;
}

static int find_network(sweep_measure *m)
{
    const sweep_plan *plan = m->o.plan;
    fid_settings s = {.features = plan->features};
    char own[PATH_MAX];
    bool has_own = snprintf(own, sizeof own, "%s/features", m->o.settings->model) < PATH_MAX && !access(own, R_OK);
    if (!plan->says_metrics && !plan->features && !has_own)
        return 0; /* nobody asked, and the model brings none: PSNR alone */
    return fid_find_network(&s, m->o.settings->model, m->o.height, m->o.width, m->network);
}

static int open_sets(sweep_measure *m)
{
    ht_evaluate_options options = evaluate_options(m, m->of_sets);
    if (ht_evaluator_open(&options, &m->sets))
        return report_failure();
    ht_evaluator_get_info(m->sets, &m->info);
    if (m->o.plan->reference && strlen(m->o.plan->reference) < PATH_MAX)
        strcpy(m->reference, m->o.plan->reference);
    if (!m->reference[0] && !find_statistics(m)) {
        if (m->o.plan->says_metrics)
            return report("%s: no \"reference\": %s has no statistics of its training set (*-train-%s.npz); name a "
                          "folder, a zip or an .npz",
                          m->o.plan->file, m->o.settings->model, m->info.features);
        ht_evaluator_close(m->sets);
        m->sets = NULL;
        return 0;
    }
    ht_image_source source = {.path = m->reference, .share = ranks_source_share()};
    return ht_evaluator_reference(m->sets, &source) ? report_failure() : 0;
}

int sweep_measure_open(const sweep_measure_options *options, sweep_measure **measure)
{
    sweep_measure *m = calloc(1, sizeof *m);
    if (!m)
        return report("out of memory");
    *measure = m;
    m->o = *options;
    const char *folder = options->folder, *key = options->plan->error_key;
    if (snprintf(m->samples, PATH_MAX, "%s/error-%s.safetensors", folder, key) >= PATH_MAX ||
        snprintf(m->wanted, PATH_MAX, "%s/error-%s-eps.safetensors", folder, key) >= PATH_MAX ||
        snprintf(m->found, PATH_MAX, "%s/cache/eps-%d.safetensors", folder, ranks_index()) >= PATH_MAX)
        return report("%s: the name is too long", folder);
    m->of_sets = options->plan->metrics & ~(unsigned)OF_PAIRS;
    unsigned needs = m->of_sets | (options->plan->metrics & HT_METRIC_DISTANCE);
    int code = needs ? find_network(m) : 0;
    if (!code && m->of_sets && m->network[0])
        code = open_sets(m);
    return code;
}

void sweep_measure_close(sweep_measure *m)
{
    if (!m)
        return;
    ht_evaluator_close(m->sets);
    ht_evaluator_close(m->pairs);
    free(m);
}

const char *sweep_measure_features(const sweep_measure *m, bool *is_fid)
{
    *is_fid = m->sets && m->info.is_fid;
    return m->sets ? m->info.features : NULL;
}

/* ---- images ---- */

typedef struct drawn_images {
    const float *images;
    size_t values;
} drawn_images;

static ht_status hand_out(void *user, int64_t first, int64_t n, float *images)
{
    const drawn_images *d = user;
    memcpy(images, d->images + (size_t)first * d->values, (size_t)n * d->values * sizeof *images);
    return HT_OK;
}

static void put_evaluation(sweep_results *r, const char **row, const ht_evaluation *e, unsigned metrics)
{
    for (size_t i = 0; i < fid_columns_count; i++) {
        const fid_column *c = &fid_columns[i];
        char name[48];
        if (!(c->metric & metrics))
            continue;
        const char *key = c->metric == HT_METRIC_FRECHET ? "fd" : c->key;
        sweep_row_number(r, row, key, *(const double *)((const char *)e + c->at));
        snprintf(name, sizeof name, "%s_std", c->key);
        if (c->deviation)
            sweep_row_number(r, row, name, *(const double *)((const char *)e + c->deviation));
    }
}

/* Pairs get an evaluator of their own for each cell: its reference are images of the cell's noise. */
static ht_status measure_pairs(sweep_measure *m, const ht_image_source *reference, const ht_image_source *images,
                               ht_evaluation *e)
{
    ht_evaluate_options options = evaluate_options(m, m->o.plan->metrics & OF_PAIRS);
    ht_status status = ht_evaluator_open(&options, &m->pairs);
    if (!status)
        status = ht_evaluator_reference(m->pairs, reference);
    if (!status)
        status = ht_evaluator_compare(m->pairs, images, e);
    ht_evaluator_close(m->pairs);
    m->pairs = NULL;
    return status;
}

ht_status sweep_measure_images(sweep_measure *m, int64_t n, const int size[3], const float *reference,
                               const float *images, sweep_results *results, const char **row)
{
    size_t values = (size_t)size[0] * (size_t)size[1] * (size_t)size[2];
    drawn_images mine = {images, values}, theirs = {reference, values};
    ht_image_source a = {
        .path = "the cell's images", .n = n, .height = size[0], .width = size[1], .draw = hand_out, .user = &mine};
    ht_image_source b = a;
    b.path = "images of floats";
    b.user = &theirs;
    ht_evaluation e;
    ht_psnr psnr;
    ht_status status = ht_psnr_images(n, values, reference, images, &psnr);
    if (status)
        return status;
    sweep_row_number(results, row, "psnr", psnr.pooled);
    sweep_row_number(results, row, "psnr_mean", psnr.mean);
    if (m->sets && !(status = ht_evaluator_compare(m->sets, &a, &e))) {
        put_evaluation(results, row, &e, m->of_sets);
        sweep_row_set(results, row, "features", m->info.features);
    }
    if (!status && m->o.plan->metrics & OF_PAIRS && !(status = measure_pairs(m, &b, &a, &e)))
        put_evaluation(results, row, &e, m->o.plan->metrics & OF_PAIRS);
    return status;
}

/* ---- the model's output ---- */

static ht_status predict(sweep_measure *m, ht_model *model, const char *out)
{
    const sweep_settings *s = m->o.settings;
    ht_session_options options = run_session_options(&s->run);
    options.batch = (int)s->batch;
    return ht_predict_file(model, &options, m->samples, out, m->o.progress, m->o.user);
}

/* The same for all cells, made by the first sweep that needs it, kept for the next. */
ht_status sweep_measure_samples(sweep_measure *m)
{
    ht_calibrate_options options = m->o.plan->error.options;
    ht_status status = HT_OK;
    options.batch = (int)m->o.settings->batch;
    options.threads = (int)m->o.settings->run.threads;
    options.progress = m->o.progress;
    options.user = m->o.user;
    if (access(m->samples, R_OK))
        status = ht_calibrate(m->o.model, &options, m->samples);
    if (!status && access(m->wanted, R_OK))
        status = predict(m, m->o.model, m->wanted);
    return status;
}

/* Sums over the samples of a timestep, which lie beside one another: "981:0.0123 932:0.0119", and the root of the mean
 * of the squares as `error`. */
static void put_errors(const ht_tensor *t, const ht_tensor *wanted, const ht_tensor *found, sweep_results *results,
                       const char **row)
{
    const float *times = t->data, *w = wanted->data, *f = found->data;
    size_t n = (size_t)wanted->shape[0], values = wanted->count / n, used = 0, curve_size = t->count * 32 + 1;
    char *curve = ht_alloc(results->arena, curve_size);
    double all = 0;
    int groups = 0;
    for (size_t i = 0; curve && i < n;) {
        double difference = 0, power = 0;
        size_t first = i;
        for (; i < n && times[i] == times[first]; i++)
            for (size_t k = i * values; k < (i + 1) * values; k++) {
                difference += ((double)f[k] - (double)w[k]) * ((double)f[k] - (double)w[k]);
                power += (double)w[k] * (double)w[k];
            }
        double relative = power > 0 ? difference / power : 0;
        all += relative;
        groups++;
        used += (size_t)snprintf(curve + used, curve_size - used, "%s%g:%.5g", used ? " " : "", (double)times[first],
                                 sqrt(relative));
    }
    if (curve && groups) {
        sweep_row_set(results, row, "errors", curve);
        sweep_row_number(results, row, "error", sqrt(all / groups));
    }
}

static bool fits(const ht_tensor *t, const ht_tensor *a, const ht_tensor *b)
{
    return t && a && b && t->dtype == HT_F32 && a->dtype == HT_F32 && b->dtype == HT_F32 && a->count == b->count &&
           a->ndim > 1 && a->shape[0] > 0 && t->count == (size_t)a->shape[0];
}

ht_status sweep_measure_error(sweep_measure *m, ht_model *model, sweep_results *results, const char **row)
{
    ht_safetensors *samples = NULL, *wanted = NULL, *found = NULL;
    ht_status status = sweep_measure_samples(m);
    if (!status)
        status = predict(m, model, m->found);
    if (!status)
        status = ht_safetensors_open(m->samples, &samples);
    if (!status)
        status = ht_safetensors_open(m->wanted, &wanted);
    if (!status)
        status = ht_safetensors_open(m->found, &found);
    if (!status) {
        const ht_tensor *t = ht_safetensors_find(samples, "timestep"), *a = ht_safetensors_find(wanted, "sample"),
                        *b = ht_safetensors_find(found, "sample");
        if (fits(t, a, b))
            put_errors(t, a, b, results, row);
        else
            status = ht_fail(HT_ERR_FORMAT, "%s: is not what a sweep left there; remove it", m->wanted);
    }
    ht_safetensors_close(samples);
    ht_safetensors_close(wanted);
    ht_safetensors_close(found);
    unlink(m->found);
    return status;
}
