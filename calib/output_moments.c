/* output_moments.c - one way forward and one back through the whole model for each sample: the model of floats, built
 * anew from operations that have gradients (graph/reverse.h), with what depends on {t} or {cond} alone as inputs. */
#include "calib/output_moments.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/rng.h"
#include "cpu/backend.h"
#include "graph/plan.h"
#include "graph/reverse.h"

enum { WINDOWS = 64 }; /* places of an image, about, whose gradients are summed */

static const size_t MOST_BYTES = (size_t)4 << 30; /* of what is kept on the way forward for the way back */

typedef struct gatherer {
    ht_arena *arena;
    const ht_calibration *calibration;
    const ht_output_moments_options *options;
    ht_region region;
    const char **names; /* of the region's inputs, NULL-terminated */
    ht_graph *graph;
    ht_region_copy copy;
    ht_value *probe, **grams; /* grams by layer of the region */
    float **sums;             /* by layer of the region */
    ht_program *program;
    float *staging;
    int64_t done;
} gatherer;

/* ---- the program ---- */

static void build(gatherer *a)
{
    int n = a->region.n_layers;
    ht_value **outputs = ht_alloc_array(a->arena, (size_t)n + 1, sizeof(ht_value *)),
             **gradients = ht_alloc_array(a->arena, (size_t)n + 1, sizeof(ht_value *));
    a->grams = ht_alloc_array(a->arena, (size_t)n + 1, sizeof(ht_value *));
    if (!outputs || !gradients || !a->grams) {
        ht_graph_fail(a->graph, HT_ERR_MEMORY, "out of memory for gradients");
        return;
    }
    ht_region_build(&a->region, a->options->images, NULL, a->graph, a->arena, &a->copy);
    ht_value *y = a->copy.output;
    if (!y)
        return;
    for (int i = 0; i < n; i++)
        outputs[i] = a->copy.layers[i].output;
    a->probe = ht_input(a->graph, "probe", y->ndim, y->shape, HT_DEPENDS_X);
    ht_gradients(a->graph, y, a->probe, n, outputs, gradients);
    for (int i = 0; i < n; i++)
        if ((a->grams[i] = ht_channel_gram(a->graph, gradients[i], WINDOWS)))
            a->grams[i]->tapped = true;
    ht_output_value(a->graph, y, "output");
}

static ht_status make_room(gatherer *a)
{
    size_t most = 1;
    for (int i = 0; i < ht_graph_values(a->graph); i++) {
        const ht_value *v = ht_graph_value(a->graph, i);
        if ((!v->producer || v->tapped) && (size_t)ht_value_count(v) > most)
            most = (size_t)ht_value_count(v);
    }
    a->staging = ht_alloc_array(a->arena, most, sizeof *a->staging);
    a->sums = ht_alloc_array(a->arena, (size_t)a->region.n_layers + 1, sizeof(float *));
    for (int i = 0; a->sums && i < a->region.n_layers; i++)
        if (!(a->sums[i] = ht_alloc_array(a->arena, (size_t)ht_value_count(a->grams[i]), sizeof(float))))
            return HT_ERR_MEMORY;
    return a->staging && a->sums ? HT_OK : HT_ERR_MEMORY;
}

static ht_status upload_layers(const gatherer *a)
{
    ht_status status = HT_OK;
    for (int i = 0; !status && i < a->region.n_layers; i++) {
        const ht_layer_copy *l = &a->copy.layers[i];
        ht_weight_channels_last(l->op->in[HT_IN_WEIGHT]->data, a->staging);
        status = ht_cpu_backend.upload(a->program, l->weight, a->staging, 1);
        if (status || !l->bias)
            continue;
        const ht_tensor *t = l->op->in[HT_IN_BIAS]->data;
        ht_convert_to_f32(t->dtype, t->data, 0, t->count, a->staging);
        status = ht_cpu_backend.upload(a->program, l->bias, a->staging, 1);
    }
    return status;
}

/* Rows are rounded one by one where it does not fit. */
static ht_status check_size(gatherer *a)
{
    ht_plan plan;
    ht_status status = ht_plan_make(a->graph, a->options->images, NULL, a->arena, &plan);
    if (!status && plan.kept_bytes + plan.work_bytes > MOST_BYTES)
        status = ht_fail(HT_ERR_UNSUPPORTED, "gradients of the whole model take %zu bytes",
                         plan.kept_bytes + plan.work_bytes);
    return status;
}

static ht_status open_program(gatherer *a)
{
    ht_backend_options how = {.threads = a->options->threads};
    a->graph = ht_graph_create(a->arena);
    if (!a->graph)
        return HT_ERR_MEMORY;
    build(a);
    ht_status status = ht_graph_finish(a->graph, false);
    if (!status)
        status = check_size(a);
    if (!status)
        status = make_room(a);
    if (!status)
        status = ht_cpu_backend.compile(a->graph, &how, &a->program);
    return status ? status : upload_layers(a);
}

/* ---- samples ---- */

static ht_status upload_input(const gatherer *a, ht_session *session, int i, int n)
{
    const ht_value *v = ht_graph_find(ht_session_graph(session), a->names[i]);
    if (!v)
        return ht_fail(HT_ERR_UNSUPPORTED, "%s: is not there to be observed", a->names[i]);
    size_t each = (size_t)(ht_value_count(v) / (v->batched ? v->shape[0] : 1));
    ht_status status = ht_session_read(session, v, a->staging);
    for (int k = 1; !status && !v->batched && k < n; k++) /* one row serves all images */
        memcpy(a->staging + (size_t)k * each, a->staging, each * sizeof *a->staging);
    return status ? status : ht_cpu_backend.upload(a->program, a->copy.inputs[i], a->staging, n);
}

/* Random directions of the output, a sample's own. */
static ht_status upload_probe(const gatherer *a, int group, int64_t first, int n)
{
    size_t each = (size_t)(ht_value_count(a->probe) / a->options->images);
    float root = (float)sqrt(a->options->weights[group]);
    for (int k = 0; k < n; k++)
        ht_image_randn(0, (uint64_t)(first + k), 0, each, a->staging + (size_t)k * each);
    for (size_t i = 0; i < (size_t)n * each; i++)
        a->staging[i] *= root;
    return ht_cpu_backend.upload(a->program, a->probe, a->staging, n);
}

static ht_status add_batch(void *user, ht_session *session, int group, int64_t first, int n)
{
    gatherer *a = user;
    ht_status status = upload_probe(a, group, first, n);
    for (int i = 0; !status && i < a->region.n_inputs; i++)
        status = upload_input(a, session, i, n);
    if (!status)
        status = ht_cpu_backend.run(a->program, HT_STAGE_STEP, n, NULL);
    for (int i = 0; !status && i < a->region.n_layers; i++) {
        status = ht_cpu_backend.download(a->program, a->grams[i], a->staging, 1);
        for (int64_t k = 0; !status && k < ht_value_count(a->grams[i]); k++)
            a->sums[i][k] += a->staging[k];
    }
    a->done += n;
    if (!status && a->options->progress && a->options->progress(a->options->user, a->done, a->calibration->samples))
        status = ht_fail(HT_ERR_CANCELLED, "quantization was cancelled");
    return status;
}

/* ---- the model ---- */

static ht_status find_region(gatherer *a, const ht_graph *g)
{
    ht_status status = ht_region_whole(g, a->arena, &a->region);
    if (!status && !(a->names = ht_alloc_array(a->arena, (size_t)a->region.n_inputs + 1, sizeof(char *))))
        status = HT_ERR_MEMORY;
    for (int i = 0; !status && i < a->region.n_inputs; i++)
        a->names[i] = a->region.inputs[i]->name;
    return status;
}

/* Of a weight that several operations have, their sums together. */
static void hand_over(const gatherer *a, const ht_products *products, const float **moments)
{
    for (int i = 0; i < a->region.n_layers; i++)
        for (int k = 0; k < products->n; k++) {
            if (products->product[k].weight != a->region.layers[i]->in[HT_IN_WEIGHT]->data)
                continue;
            for (int64_t j = 0; moments[k] && j < ht_value_count(a->grams[i]); j++)
                a->sums[i][j] += moments[k][j];
            moments[k] = a->sums[i];
        }
}

ht_status ht_output_moments_gather(ht_arena *arena, ht_model *model, const ht_calibration *calibration,
                                   const ht_products *products, const ht_output_moments_options *options,
                                   const float **moments)
{
    static const ht_layers none = {0};
    ht_calibration some;
    gatherer a = {.arena = arena, .calibration = &some, .options = options};
    ht_session *shape = NULL, *session = NULL;
    ht_session_options how = {.backend = "cpu",
                              .batch = options->images,
                              .threads = options->threads,
                              .tokens = calibration->contexts.tokens};
    for (int i = 0; i < products->n; i++)
        moments[i] = NULL;
    ht_status status = ht_calibration_first(arena, calibration, options->images, &some);
    if (!status)
        status = ht_session_open_with(model, &how, &(ht_session_extras){.layers = &none}, &shape);
    if (!status)
        status = find_region(&a, ht_session_graph(shape));
    if (!status)
        status = open_program(&a);
    if (status == HT_ERR_UNSUPPORTED) { /* rows are rounded one by one, then */
        ht_session_close(shape);
        return HT_OK;
    }
    if (!status)
        status = ht_session_open_with(model, &how, &(ht_session_extras){.layers = &none, .taps = a.names}, &session);
    if (!status)
        status = ht_calibration_run(&some, session, add_batch, &a);
    if (!status)
        hand_over(&a, products, moments);
    ht_session_close(session);
    ht_session_close(shape);
    if (a.program)
        ht_cpu_backend.close(a.program);
    return status;
}
