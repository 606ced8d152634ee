/* reconstruct.c - block reconstruction: two programs of one block, one with gradients and one without, whose weights
 * are uploaded anew each iteration.
 *
 * The schedule is BRECQ's as Q-Diffusion runs it: Adam on the gates alone, batches drawn without replacement, no
 * rounding term during the warm-up, then its exponent falls linearly.  All samples are measured before and after, so a
 * block never leaves worse than it came. */
#include "calib/reconstruct.h"

#include <stdlib.h>
#include <string.h>

#include "calib/gate.h"
#include "core/rng.h"
#include "cpu/backend.h"
#include "cpu/team.h"

/* The block as a program. */
typedef struct block_program {
    ht_graph *graph;
    ht_region_copy copy;
    ht_value *target, **gradients; /* gradients by chosen layer; NULL where there are none */
    ht_program *program;
} block_program;

/* A layer of the block. */
typedef struct block_layer {
    const ht_layer *layer; /* NULL: floats */
    int index;             /* in the region */
    float *weights;        /* [out][taps][in] as they are uploaded */
    ht_gates gates;        /* of chosen layers */
    float *gradient;
    uint8_t *given[2]; /* codes, part by part */
    size_t given_bytes[2];
} block_layer;

typedef struct reconstruction {
    const ht_region *region;
    const ht_layers *layers;
    const ht_reconstruct_data *data;
    ht_reconstruct_options o;
    ht_arena *arena;
    const ht_backend *backend;
    ht_crew *crew;
    block_program with_gradients, forward;
    block_layer *all;     /* [region->n_layers] */
    block_layer **chosen; /* those with gates */
    int n_chosen;
    int64_t *samples;  /* a permutation, the batch first */
    int64_t *in_order; /* [batch] */
    float *staging;    /* one value of a batch */
    ht_gate_step step;
    size_t gate_total; /* of all chosen layers */
} reconstruction;

/* ---- options ---- */

static void set_default(double *value, double standard)
{
    *value = *value != 0 ? *value : standard;
}

static ht_status check_options(reconstruction *r)
{
    ht_reconstruct_options *o = &r->o;
    o->iterations = o->iterations ? o->iterations : 20000;
    o->batch = o->batch ? o->batch : 32;
    o->most_bits = o->most_bits ? o->most_bits : 6;
    o->threads = o->threads ? o->threads : ht_processors();
    set_default(&o->learning_rate, 1e-3);
    set_default(&o->weight, 0.01);
    set_default(&o->warmup, 0.2);
    set_default(&o->beta_first, 20);
    set_default(&o->beta_last, 2);
    set_default(&o->confidence, 0.9);
    if (o->iterations < 1 || o->batch < 1 || o->threads < 1 || o->threads > 1024 || r->data->n < 1)
        return ht_fail(HT_ERR_ARGUMENT, "%s: iterations, batch, threads and samples must be at least 1",
                       r->region->name);
    if (!(o->learning_rate > 0 && o->weight >= 0 && o->warmup >= 0 && o->warmup < 1 && o->beta_first >= 1 &&
          o->beta_last >= 1 && o->confidence >= 0.5 && o->confidence < 1.08))
        return ht_fail(HT_ERR_ARGUMENT,
                       "%s: reconstruction wants a learning rate above 0, a weight of at least 0, a warm-up of 0 to 1, "
                       "exponents of at least 1 and a confidence of 0.5 to 1",
                       r->region->name);
    if (o->batch > r->data->n)
        o->batch = (int)r->data->n;
    return HT_OK;
}

/* ---- layers ---- */

static size_t weight_count(const ht_op *op)
{
    return op->in[HT_IN_WEIGHT]->data->count;
}

/* What the layer computes with now: its codes, or the floats. */
static ht_status current_weights(const block_layer *l, const ht_op *op, float *weights)
{
    ht_tensor t = *op->in[HT_IN_WEIGHT]->data;
    if (!l->layer) {
        ht_weight_channels_last(&t, weights);
        return HT_OK;
    }
    float *values = malloc(t.count * sizeof *values);
    if (!values)
        return ht_fail(HT_ERR_MEMORY, "%s: out of memory for its weights", l->layer->name);
    ht_layer_values(l->layer, 0, t.count, values);
    t.dtype = HT_F32;
    t.data = values;
    ht_weight_channels_last(&t, weights);
    free(values);
    return HT_OK;
}

static ht_status keep_codes(reconstruction *r, block_layer *l)
{
    for (int p = 0; p < l->layer->parts; p++) {
        ht_matrix m = ht_layer_matrix(l->layer, p);
        ht_format_sizes sizes;
        ht_status status = ht_format_measure(&l->layer->format, &m, &sizes);
        if (status)
            return status;
        if (!(l->given[p] = ht_alloc(r->arena, sizes.code_bytes)))
            return HT_ERR_MEMORY;
        l->given_bytes[p] = sizes.code_bytes;
        memcpy(l->given[p], l->layer->part[p].weight.codes, sizes.code_bytes);
    }
    return HT_OK;
}

static void restore_codes(const reconstruction *r)
{
    for (int i = 0; i < r->n_chosen; i++)
        for (int p = 0; p < r->chosen[i]->layer->parts; p++)
            memcpy(r->chosen[i]->layer->part[p].weight.codes, r->chosen[i]->given[p], r->chosen[i]->given_bytes[p]);
}

static ht_status open_gates(reconstruction *r, block_layer *l, const ht_op *op)
{
    size_t n = weight_count(op);
    float *floats = malloc(n * sizeof *floats);
    l->gradient = ht_alloc_array(r->arena, n, sizeof *l->gradient);
    ht_status status = l->gradient ? keep_codes(r, l) : HT_ERR_MEMORY;
    if (!floats)
        status = ht_fail(HT_ERR_MEMORY, "%s: out of memory for its weights", l->layer->name);
    if (!status) {
        ht_weight_channels_last(op->in[HT_IN_WEIGHT]->data, floats);
        status = ht_gates_make(r->arena, l->layer, floats, r->o.from_codes ? r->o.confidence : 0, &l->gates);
    }
    free(floats);
    r->gate_total += n;
    r->chosen[r->n_chosen++] = l;
    return status;
}

static ht_status check_shape(const ht_layer *layer, const ht_op *op)
{
    const ht_value *w = op->in[HT_IN_WEIGHT];
    if (layer->ndim == w->ndim && !memcmp(layer->shape, w->shape, (size_t)w->ndim * sizeof *w->shape))
        return HT_OK;
    return ht_fail(HT_ERR_SHAPE, "%s: the quantized layer has another shape than the model", layer->name);
}

static ht_status open_layers(reconstruction *r)
{
    int n = r->region->n_layers;
    ht_status status = HT_OK;
    r->all = ht_alloc_array(r->arena, (size_t)n + 1, sizeof *r->all);
    r->chosen = ht_alloc_array(r->arena, (size_t)n + 1, sizeof(block_layer *));
    if (!r->all || !r->chosen)
        return HT_ERR_MEMORY;
    for (int i = 0; !status && i < n; i++) {
        const ht_op *op = r->region->layers[i];
        block_layer *l = &r->all[i];
        *l = (block_layer){.layer = ht_layers_of_weight(r->layers, op->in[HT_IN_WEIGHT]->name), .index = i};
        l->weights = ht_alloc_array(r->arena, weight_count(op), sizeof *l->weights);
        status = !l->weights ? HT_ERR_MEMORY : l->layer ? check_shape(l->layer, op) : HT_OK;
        if (!status && l->layer && l->layer->format.grid.bits <= r->o.most_bits)
            status = open_gates(r, l, op);
    }
    if (!status && !r->n_chosen)
        status = ht_fail(HT_ERR_ARGUMENT, "%s: no layer of this block has weights of at most %d bits", r->region->name,
                         r->o.most_bits);
    return status;
}

/* ---- programs ---- */

/* dy of the mean over samples and positions of the squared error. */
static void add_gradients(reconstruction *r, block_program *b)
{
    ht_value *y = b->copy.output, **weights = ht_alloc_array(r->arena, (size_t)r->n_chosen, sizeof(ht_value *));
    if (!weights) {
        ht_graph_fail(b->graph, HT_ERR_MEMORY, "%s: out of memory for its gradients", r->region->name);
        return;
    }
    int64_t places = ht_value_count(y) / y->shape[y->ndim - 1];
    b->target = ht_input(b->graph, "target", y->ndim, y->shape, HT_DEPENDS_X);
    ht_value *dy =
        ht_affine(b->graph, ht_add(b->graph, y, ht_affine(b->graph, b->target, -1, 0)), (float)(2 / (double)places), 0);
    for (int i = 0; i < r->n_chosen; i++)
        weights[i] = b->copy.layers[r->chosen[i]->index].weight;
    ht_gradients(b->graph, y, dy, r->n_chosen, weights, b->gradients);
    for (int i = 0; i < r->n_chosen && b->gradients[i]; i++)
        b->gradients[i]->tapped = true;
}

static ht_status open_program(reconstruction *r, bool gradients, block_program *b)
{
    ht_backend_options options = {.threads = r->o.threads, .isa = r->o.isa};
    b->graph = ht_graph_create(r->arena);
    b->gradients = ht_alloc_array(r->arena, (size_t)r->n_chosen, sizeof(ht_value *));
    if (!b->graph || !b->gradients)
        return HT_ERR_MEMORY;
    ht_region_build(r->region, r->o.batch, r->o.simulate ? r->layers : NULL, b->graph, r->arena, &b->copy);
    if (gradients && b->copy.output)
        add_gradients(r, b);
    if (b->copy.output)
        ht_output_value(b->graph, b->copy.output, "output");
    ht_status status = ht_graph_finish(b->graph, false);
    return status ? status : r->backend->compile(b->graph, &options, &b->program);
}

static ht_status upload_biases(const reconstruction *r, const block_program *b)
{
    ht_status status = HT_OK;
    for (int i = 0; !status && i < r->region->n_layers; i++) {
        const ht_layer_copy *l = &b->copy.layers[i];
        if (!l->bias)
            continue;
        const ht_tensor *t = l->op->in[HT_IN_BIAS]->data;
        ht_convert_to_f32(t->dtype, t->data, 0, t->count, r->staging);
        status = r->backend->upload(b->program, l->bias, r->staging, 1);
    }
    return status;
}

static ht_status upload_weights(const reconstruction *r, const block_program *b, int i)
{
    return r->backend->upload(b->program, b->copy.layers[i].weight, r->all[i].weights, 1);
}

/* All as they are in codes or floats. */
static ht_status upload_current(const reconstruction *r, const block_program *b)
{
    ht_status status = HT_OK;
    for (int i = 0; !status && i < r->region->n_layers; i++) {
        status = current_weights(&r->all[i], r->region->layers[i], r->all[i].weights);
        if (!status)
            status = upload_weights(r, b, i);
    }
    return status;
}

/* ---- samples ---- */

static size_t per_sample(const reconstruction *r, const ht_value *v)
{
    return (size_t)(ht_value_count(v) / r->o.batch);
}

static ht_status upload_samples(const reconstruction *r, const block_program *b, const ht_value *v, const float *from,
                                const int64_t *samples, int n)
{
    size_t count = per_sample(r, v);
    for (int i = 0; i < n; i++)
        memcpy(r->staging + (size_t)i * count, from + (size_t)samples[i] * count, count * sizeof *from);
    return r->backend->upload(b->program, v, r->staging, n);
}

static ht_status upload_scales(const reconstruction *r, const block_program *b, const int64_t *samples, int n)
{
    ht_status status = HT_OK;
    for (int i = 0; i < r->region->n_layers; i++)
        for (int p = 0; !status && p < 2; p++) {
            const ht_value *scale = b->copy.layers[i].scale[p];
            if (!scale)
                continue;
            const ht_input_table *t = &r->all[i].layer->part[p].input;
            if (t->groups > 1 && !r->data->timesteps)
                return ht_fail(HT_ERR_ARGUMENT,
                               "%s: has input scales by timestep; say which timesteps the samples have",
                               r->all[i].layer->name);
            for (int k = 0; k < n; k++) {
                int group = t->groups > 1 ? ht_input_group(t, r->data->timesteps[samples[k]]) : 0;
                r->staging[2 * k] = t->step[group];
                r->staging[2 * k + 1] = t->zero[group];
            }
            status = r->backend->upload(b->program, scale, r->staging, n);
        }
    return status;
}

static ht_status run_samples(const reconstruction *r, const block_program *b, const int64_t *samples, int n)
{
    ht_status status = upload_scales(r, b, samples, n);
    for (int i = 0; !status && i < r->region->n_inputs; i++)
        status = upload_samples(r, b, b->copy.inputs[i], r->data->inputs[i], samples, n);
    if (!status && b->target)
        status = upload_samples(r, b, b->target, r->data->targets, samples, n);
    return status ? status : r->backend->run(b->program, HT_STAGE_STEP, n, NULL);
}

/* The loss over all samples with the weights that the forward program has. */
static ht_status measure(const reconstruction *r, double *loss)
{
    const block_program *b = &r->forward;
    const ht_value *y = b->copy.output;
    size_t count = per_sample(r, y);
    int64_t *samples = r->in_order;
    double sum = 0;
    for (int64_t at = 0, n; at < r->data->n; at += n) {
        n = r->data->n - at < r->o.batch ? r->data->n - at : r->o.batch;
        for (int64_t i = 0; i < n; i++)
            samples[i] = at + i;
        ht_status status = run_samples(r, b, samples, (int)n);
        if (!status)
            status = r->backend->download(b->program, y, r->staging, (int)n);
        if (status)
            return status;
        const float *target = r->data->targets + (size_t)at * count;
        for (size_t i = 0; i < (size_t)n * count; i++) {
            double d = (double)r->staging[i] - (double)target[i];
            sum += d * d;
        }
    }
    size_t places = (size_t)r->data->n * (count / (size_t)y->shape[y->ndim - 1]);
    *loss = sum / (double)places;
    return HT_OK;
}

static ht_status measure_current(const reconstruction *r, double *loss)
{
    ht_status status = upload_current(r, &r->forward);
    return status ? status : measure(r, loss);
}

static ht_status measure_soft(const reconstruction *r, double *loss)
{
    ht_status status = HT_OK;
    for (int i = 0; !status && i < r->n_chosen; i++)
        status = upload_weights(r, &r->forward, r->chosen[i]->index);
    return status ? status : measure(r, loss);
}

/* Room for one value of a batch, whichever it is. */
static ht_status open_samples(reconstruction *r)
{
    const ht_graph *g = r->with_gradients.graph;
    size_t most = 2;
    for (int i = 0; i < ht_graph_values(g); i++) {
        const ht_value *v = ht_graph_value(g, i);
        if (!v->producer && (size_t)ht_value_count(v) > most)
            most = (size_t)ht_value_count(v);
    }
    r->staging = ht_alloc_array(r->arena, most, sizeof *r->staging);
    r->samples = ht_alloc_array(r->arena, (size_t)r->data->n, sizeof *r->samples);
    r->in_order = ht_alloc_array(r->arena, (size_t)r->o.batch, sizeof *r->in_order);
    if (!r->staging || !r->samples || !r->in_order)
        return HT_ERR_MEMORY;
    for (int64_t i = 0; i < r->data->n; i++)
        r->samples[i] = i;
    return HT_OK;
}

/* ---- iterations ---- */

/* The first places of a shuffle (Fisher and Yates; Durstenfeld 1964). */
static void draw_batch(const reconstruction *r, ht_mt19937 *rng)
{
    for (int64_t i = 0; i < r->o.batch; i++) {
        int64_t j = ht_mt19937_randint(rng, i, r->data->n), other = r->samples[j];
        r->samples[j] = r->samples[i];
        r->samples[i] = other;
    }
}

static ht_gate_step step_of(const ht_reconstruct_options *o, int64_t iteration)
{
    double start = o->warmup * o->iterations, part = ((double)iteration - start) / (o->iterations - start);
    return (ht_gate_step){.number = iteration + 1,
                          .rate = o->learning_rate,
                          .weight = (double)iteration < start ? 0 : o->weight,
                          .beta = o->beta_last + (o->beta_first - o->beta_last) * (part < 1 ? 1 - part : 0)};
}

static void move_gates(void *argument, const ht_team *team)
{
    const reconstruction *r = argument;
    for (int i = 0; i < r->n_chosen; i++) {
        const block_layer *l = r->chosen[i];
        int64_t begin, end;
        ht_team_share(team, (int64_t)l->gates.n, &begin, &end);
        ht_gates_move(&l->gates, &r->step, l->gradient, (size_t)begin, (size_t)end, l->weights);
    }
}

static ht_status iterate(reconstruction *r, int64_t iteration, ht_mt19937 *rng)
{
    const block_program *b = &r->with_gradients;
    draw_batch(r, rng);
    ht_status status = HT_OK;
    for (int i = 0; !status && i < r->n_chosen; i++)
        status = upload_weights(r, b, r->chosen[i]->index);
    if (!status)
        status = run_samples(r, b, r->samples, r->o.batch);
    for (int i = 0; !status && i < r->n_chosen; i++)
        status = r->backend->download(b->program, b->gradients[i], r->chosen[i]->gradient, 1);
    if (status)
        return status;
    r->step = step_of(&r->o, iteration);
    ht_crew_run(r->crew, move_gates, r);
    if (r->o.progress && r->o.progress(r->o.user, iteration + 1, r->o.iterations))
        return ht_fail(HT_ERR_CANCELLED, "%s: the reconstruction was stopped", r->region->name);
    return HT_OK;
}

static ht_status learn(reconstruction *r)
{
    ht_mt19937 rng;
    ht_mt19937_seed(&rng, r->o.seed);
    ht_status status = upload_current(r, &r->with_gradients);
    for (int i = 0; i < r->n_chosen; i++)
        ht_gates_weights(&r->chosen[i]->gates, 0, r->chosen[i]->gates.n, r->chosen[i]->weights);
    for (int64_t i = 0; !status && i < r->o.iterations; i++)
        status = iterate(r, i, &rng);
    return status;
}

static ht_status decide(reconstruction *r, ht_reconstruct_report *report)
{
    ht_status status = HT_OK;
    for (int i = 0; !status && i < r->n_chosen; i++) {
        int64_t changed = 0;
        status = ht_gates_decide(&r->chosen[i]->gates, r->chosen[i]->layer, &changed);
        report->changed += changed;
    }
    if (!status)
        status = measure_current(r, &report->after);
    report->kept = !(report->after < report->before);
    if (status || report->kept)
        restore_codes(r);
    return status;
}

static ht_status open_all(reconstruction *r)
{
    ht_status status = check_options(r);
    if (!status)
        status = open_layers(r);
    if (!status)
        status = open_program(r, true, &r->with_gradients);
    if (!status)
        status = open_program(r, false, &r->forward);
    if (!status)
        status = open_samples(r);
    if (!status)
        status = upload_biases(r, &r->with_gradients);
    if (!status)
        status = upload_biases(r, &r->forward);
    return status ? status : ht_crew_open(r->o.threads, &r->crew);
}

static void close_all(reconstruction *r)
{
    ht_crew_close(r->crew);
    if (r->with_gradients.program)
        r->backend->close(r->with_gradients.program);
    if (r->forward.program)
        r->backend->close(r->forward.program);
    ht_arena_free(r->arena);
}

ht_status ht_reconstruct(const ht_region *region, const ht_layers *layers, const ht_reconstruct_data *data,
                         const ht_reconstruct_options *options, ht_reconstruct_report *report)
{
    reconstruction r = {.region = region,
                        .layers = layers,
                        .data = data,
                        .o = *options,
                        .arena = ht_arena_create(),
                        .backend = &ht_cpu_backend};
    ht_reconstruct_report result = {0};
    ht_status status = r.arena ? open_all(&r) : HT_ERR_MEMORY;
    if (!status)
        status = measure_current(&r, &result.before);
    if (!status)
        status = learn(&r);
    if (!status)
        status = measure_soft(&r, &result.soft);
    if (!status)
        status = decide(&r, &result);
    result.weights = (int64_t)r.gate_total;
    close_all(&r);
    if (!status && report)
        *report = result;
    return status;
}
