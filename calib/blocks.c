/* blocks.c - block reconstruction of a whole model (BRECQ arXiv:2102.05426 as Q-Diffusion arXiv:2302.04304 uses it):
 * for each block in order of execution, what reaches it in the quantized model, what the model of floats makes of it,
 * and then calib/reconstruct.c.
 *
 * What is done is kept in a file, so that an interrupted run goes on with the block after the last. */
#include "calib/blocks.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "calib/reconstruct.h"
#include "quant/file.h"

enum { MOST_BITS = 6, FEW_ITERATIONS = 5000 };

/* Adam's step of the papers is made for 20,000 iterations; with a few hundred, four times as much ends lower
 * (mid_block.resnets.0 of models/cifar10, 300 iterations: 0.55 of 0.70 left, against 0.35). */
static const double RATE = 1e-3, RATE_OF_FEW = 4e-3;

typedef struct walker {
    ht_arena *arena;
    ht_model *model;
    ht_calibration set; /* the samples that are used */
    ht_layer *layers;
    int n;
    const ht_blocks_options *options;
    ht_region *regions;
    int n_regions, region; /* region: that is being done */
    double *losses;
} walker;

/* ---- what values are on them ---- */

typedef struct recorder {
    const char *const *names; /* NULL-terminated */
    float **to;               /* each [samples,...] */
    int64_t samples;
} recorder;

static ht_status record_one(recorder *r, ht_session *session, int i, int64_t first, int n)
{
    const ht_value *v = ht_graph_find(ht_session_graph(session), r->names[i]);
    if (!v)
        return ht_fail(HT_ERR_ARGUMENT, "%s: is not there to be observed", r->names[i]);
    size_t each = (size_t)(ht_value_count(v) / (v->batched ? v->shape[0] : 1));
    if (!r->to[i] && !(r->to[i] = malloc((size_t)r->samples * each * sizeof(float))))
        return ht_fail(HT_ERR_MEMORY, "%s: out of memory for its values on %lld samples", r->names[i],
                       (long long)r->samples);
    float *to = r->to[i] + (size_t)first * each;
    ht_status status = ht_session_read(session, v, to);
    for (int k = 1; !status && !v->batched && k < n; k++)
        memcpy(to + (size_t)k * each, to, each * sizeof *to);
    return status;
}

static ht_status record_batch(void *user, ht_session *session, int group, int64_t first, int n)
{
    recorder *r = user;
    ht_status status = HT_OK;
    (void)group;
    for (int i = 0; !status && r->names[i]; i++)
        status = record_one(r, session, i, first, n);
    return status;
}

/* Values by name, with these layers (NULL: those of floats), into arrays of malloc. */
static ht_status record(walker *w, const ht_layers *layers, const char *const *names, float **to)
{
    static const ht_layers none = {0};
    recorder r = {.names = names, .to = to, .samples = w->set.samples};
    ht_session *session = NULL;
    ht_session_options how = {
        .backend = "cpu", .batch = w->options->batch, .threads = w->options->threads, .tokens = w->set.contexts.tokens};
    ht_session_extras extras = {.taps = names, .layers = layers ? layers : &none};
    ht_status status = ht_session_open_with(w->model, &how, &extras, &session);
    if (!status)
        status = ht_calibration_run(&w->set, session, record_batch, &r);
    ht_session_close(session);
    return status;
}

/* ---- one block ---- */

static int on_iteration(void *user, int64_t done, int64_t total)
{
    walker *w = user;
    int64_t now = 1000 * (int64_t)w->region + 1000 * done / (total ? total : 1);
    return w->options->progress ? w->options->progress(w->options->user, now, 1000 * (int64_t)w->n_regions) : 0;
}

static bool has_choice(const walker *w, const ht_region *region)
{
    ht_layers all = {.layer = w->layers, .n = w->n};
    for (int i = 0; i < region->n_layers; i++) {
        const ht_layer *layer = ht_layers_of_weight(&all, region->layers[i]->in[HT_IN_WEIGHT]->name);
        if (layer && layer->format.grid.bits <= MOST_BITS)
            return true;
    }
    return false;
}

static double power_of(const float *x, size_t n)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += (double)x[i] * (double)x[i];
    return sum;
}

static ht_status choose_codes(walker *w, const ht_region *region, float *const *inputs, const float *targets)
{
    const ht_blocks_options *o = w->options;
    ht_layers layers = {.layer = w->layers, .n = w->n};
    ht_reconstruct_report report;
    float *timesteps = malloc((size_t)w->set.samples * sizeof *timesteps);
    if (!timesteps)
        return ht_fail(HT_ERR_MEMORY, "out of memory for %lld timesteps", (long long)w->set.samples);
    int64_t at = 0;
    for (int g = 0; g < w->set.groups; g++)
        for (int k = 0; k < w->set.counts[g]; k++)
            timesteps[at++] = w->set.timesteps[g];
    ht_reconstruct_data data = {
        .n = w->set.samples, .inputs = (const float *const *)inputs, .targets = targets, .timesteps = timesteps};
    ht_reconstruct_options how = {.iterations = o->iterations,
                                  .batch = o->batch,
                                  .learning_rate = o->iterations < FEW_ITERATIONS ? RATE_OF_FEW : RATE,
                                  .most_bits = MOST_BITS,
                                  .from_codes = true,
                                  .seed = o->seed + (uint64_t)w->region,
                                  .threads = o->threads,
                                  .progress = on_iteration,
                                  .user = w};
    ht_status status = ht_reconstruct(region, &layers, &data, &how, &report);
    if (!status && w->losses) {
        const ht_value *out = region->output;
        int64_t each = ht_value_count(out) / out->shape[0], positions = each / out->shape[out->ndim - 1];
        double signal =
            power_of(targets, (size_t)(w->set.samples * each)) / ((double)w->set.samples * (double)positions);
        w->losses[0] += report.before / signal;
        w->losses[1] += (report.kept ? report.before : report.after) / signal;
    }
    free(timesteps);
    return status;
}

static ht_status reconstruct_block(walker *w)
{
    const ht_region *region = &w->regions[w->region];
    ht_layers layers = {.layer = w->layers, .n = w->n};
    size_t n = (size_t)region->n_inputs;
    const char **names = ht_alloc_array(w->arena, n + 1, sizeof(char *)), *output[] = {region->output->name, NULL};
    float **inputs = ht_alloc_array(w->arena, n + 1, sizeof(float *)), *targets = NULL;
    if (!names || !inputs)
        return HT_ERR_MEMORY;
    for (size_t i = 0; i < n; i++)
        names[i] = region->inputs[i]->name;
    ht_status status = record(w, &layers, names, inputs);
    if (!status)
        status = record(w, NULL, output, &targets);
    if (!status)
        status = choose_codes(w, region, inputs, targets);
    for (size_t i = 0; i < n; i++)
        free(inputs[i]);
    free(targets);
    return status;
}

/* ---- going on ---- */

static ht_status keep(const walker *w)
{
    ht_arena *arena = ht_arena_create();
    ht_tensor *tensors = arena ? ht_alloc_array(arena, HT_LAYER_TENSORS * (size_t)w->n, sizeof *tensors) : NULL;
    const char *list = NULL;
    char done[32];
    size_t n = 0;
    ht_status status = tensors ? ht_layers_write(arena, &(ht_layers){.layer = w->layers, .n = w->n}, tensors, &n, &list)
                               : HT_ERR_MEMORY;
    snprintf(done, sizeof done, "%d", w->region + 1);
    ht_metadata metadata[] = {{"_quantization_metadata", list}, {"identity", w->options->identity}, {"blocks", done}};
    if (!status)
        status = ht_safetensors_write(w->options->resume, tensors, n, metadata, 3);
    ht_arena_free(arena);
    return status;
}

/* Whether a layer of an earlier run is this one but for its codes. */
static bool same_but_codes(const ht_layer *a, const ht_layer *b)
{
    bool same = a && a->ndim == b->ndim && a->parts == b->parts && !strcmp(a->format.name, b->format.name) &&
                !memcmp(a->shape, b->shape, (size_t)a->ndim * sizeof *a->shape);
    for (int p = 0; same && p < b->parts; p++) {
        ht_matrix m = ht_layer_matrix(b, p);
        ht_format_sizes sizes;
        same = a->part[p].count == b->part[p].count && !ht_format_measure(&b->format, &m, &sizes) &&
               !memcmp(a->part[p].weight.scales, b->part[p].weight.scales, sizes.scale_bytes);
    }
    return same;
}

static void take_codes(ht_layer *layer, const ht_layer *from)
{
    for (int p = 0; p < layer->parts; p++) {
        ht_matrix m = ht_layer_matrix(layer, p);
        ht_format_sizes sizes;
        if (!ht_format_measure(&layer->format, &m, &sizes))
            memcpy(layer->part[p].weight.codes, from->part[p].weight.codes, sizes.code_bytes);
    }
}

/* Codes of what was done before; returns the blocks that are, 0 if there is nothing of this very run. */
static int go_on(walker *w)
{
    ht_safetensors *file = NULL;
    ht_layers before = {0};
    long done = 0;
    if (!w->options->resume || access(w->options->resume, R_OK) || ht_safetensors_open(w->options->resume, &file))
        return 0;
    const char *identity = ht_safetensors_metadata(file, "identity"), *blocks = ht_safetensors_metadata(file, "blocks");
    if (identity && blocks && !strcmp(identity, w->options->identity) && !ht_layers_read(w->arena, file, &before))
        done = strtol(blocks, NULL, 10);
    for (int i = 0; done && i < w->n; i++)
        if (!same_but_codes(ht_layers_find(&before, w->layers[i].name), &w->layers[i]))
            done = 0;
    done = done < 0 || done > w->n_regions ? 0 : done;
    for (int i = 0; done && i < w->n; i++)
        take_codes(&w->layers[i], ht_layers_find(&before, w->layers[i].name));
    ht_safetensors_close(file);
    return (int)done;
}

ht_status ht_blocks_reconstruct(ht_model *model, const ht_calibration *calibration, ht_layer *layers, int n,
                                const ht_blocks_options *options, double losses[2])
{
    static const ht_layers none = {0};
    ht_arena *arena = ht_arena_create();
    walker w = {.arena = arena, .model = model, .layers = layers, .n = n, .options = options, .losses = losses};
    ht_session *floats = NULL;
    ht_session_options how = {
        .backend = "cpu", .batch = options->batch, .threads = 1, .tokens = calibration->contexts.tokens};
    ht_status status = arena ? ht_calibration_first(arena, calibration, options->samples / calibration->groups, &w.set)
                             : HT_ERR_MEMORY;
    if (!status)
        status = ht_session_open_with(model, &how, &(ht_session_extras){.layers = &none}, &floats);
    if (!status)
        status = ht_regions_find(ht_session_graph(floats), arena, &w.regions, &w.n_regions);
    for (w.region = status ? 0 : go_on(&w); !status && w.region < w.n_regions; w.region++) {
        if (!has_choice(&w, &w.regions[w.region]))
            continue;
        status = reconstruct_block(&w);
        if (!status && options->resume)
            status = keep(&w);
    }
    ht_session_close(floats);
    ht_arena_free(arena);
    return status;
}
