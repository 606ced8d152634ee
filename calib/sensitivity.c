/* sensitivity.c - measured sensitivity: the model runs with every layer wide and one narrow, and its output is compared
 * with the one where all are wide.  Errors of different layers add up well enough for a greedy choice (the first step
 * of mixed precision). */
#include "calib/sensitivity.h"

#include <stdlib.h>
#include <string.h>

typedef struct trial {
    ht_model *model;
    const ht_calibration *calibration;
    const ht_sensitivity_options *options;
    size_t size; /* of an output */
    int groups;  /* that are tried */
    float *reference, *out;
} trial;

static int64_t first_sample(const ht_calibration *c, int group)
{
    int64_t first = 0;
    for (int g = 0; g < group; g++)
        first += c->counts[g];
    return first;
}

/* Outputs of all samples tried, into out [groups][images][size]. */
static ht_status run(const trial *t, const ht_layers *layers, float *out)
{
    const ht_calibration *c = t->calibration;
    size_t in = (size_t)c->height * (size_t)c->width * (size_t)c->channels;
    int images = t->options->images;
    ht_session *session = NULL;
    float *room = malloc(ht_contexts_room(&c->contexts, images) * sizeof *room);
    ht_session_options how = {
        .backend = "cpu", .batch = images, .threads = t->options->threads, .tokens = c->contexts.tokens};
    ht_status status = room ? ht_session_open_with(t->model, &how, &(ht_session_extras){.layers = layers}, &session)
                            : ht_fail(HT_ERR_MEMORY, "out of memory for a batch");
    if (!status)
        status = ht_session_set_timesteps(session, c->groups, c->timesteps);
    for (int i = 0; !status && i < t->groups; i++) {
        int g = i * t->options->every, n = c->counts[g] < images ? c->counts[g] : images;
        int64_t at = first_sample(c, g);
        ht_cond cond = ht_calibration_cond(c, at, n, room);
        status = ht_session_set_cond(session, n, &cond);
        if (!status)
            status =
                ht_session_step(session, g, c->sample + (size_t)at * in, out + (size_t)i * (size_t)images * t->size);
    }
    ht_session_close(session);
    free(room);
    return status;
}

static double compare(const trial *t)
{
    double sum = 0;
    int images = t->options->images;
    for (int i = 0; i < t->groups; i++) {
        int g = i * t->options->every, n = t->calibration->counts[g] < images ? t->calibration->counts[g] : images;
        const float *a = t->out + (size_t)i * (size_t)images * t->size, *b = t->reference + (a - t->out);
        double noise = 0, signal = 0;
        for (size_t k = 0; k < (size_t)n * t->size; k++) {
            double d = (double)a[k] - (double)b[k];
            noise += d * d;
            signal += (double)b[k] * (double)b[k];
        }
        sum += t->options->weights[g] * noise / (signal > 0 ? signal : 1) / t->groups;
    }
    return sum;
}

static ht_status try_all(const trial *t, ht_layer *layers, int n, const ht_layer *candidates, double *error)
{
    ht_layers all = {.layer = layers, .n = n};
    ht_status status = HT_OK;
    for (int i = 0; !status && i < n; i++) {
        error[i] = 0;
        if (!candidates[i].name)
            continue;
        ht_layer wide = layers[i];
        layers[i] = candidates[i];
        status = run(t, &all, t->out);
        layers[i] = wide;
        error[i] = status ? 0 : compare(t);
        if (!status && t->options->progress && t->options->progress(t->options->user, i + 1, n))
            status = ht_fail(HT_ERR_CANCELLED, "quantization was cancelled");
    }
    return status;
}

ht_status ht_sensitivity_measure(ht_model *model, const ht_calibration *calibration, const ht_layers *base,
                                 const ht_layer *candidates, const ht_sensitivity_options *options, double *error)
{
    trial t = {.model = model, .calibration = calibration, .options = options};
    t.size = (size_t)calibration->height * (size_t)calibration->width * (size_t)model->info.out_channels;
    t.groups = (calibration->groups + options->every - 1) / options->every;
    size_t count = (size_t)t.groups * (size_t)options->images * t.size;
    ht_layer *layers = malloc((size_t)base->n * sizeof *layers);
    t.reference = malloc(count * sizeof(float));
    t.out = malloc(count * sizeof(float));
    ht_status status = HT_OK;
    if (!layers || !t.reference || !t.out)
        status = ht_fail(HT_ERR_MEMORY, "out of memory for the outputs of %zu samples", count / t.size);
    if (!status) {
        memcpy(layers, base->layer, (size_t)base->n * sizeof *layers);
        status = run(&t, base, t.reference);
    }
    if (!status)
        status = try_all(&t, layers, base->n, candidates, error);
    free(layers);
    free(t.reference);
    free(t.out);
    return status;
}
