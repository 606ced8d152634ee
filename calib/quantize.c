/* quantize.c - from a model of floats to a model of codes:
 *
 *     calibrate      a set of x_t and what every layer's input does on it, by timestep      (calib/make.c)
 *     smooth         if asked for: what inputs are multiplied by, and weights divided        (calib/smooth.c)
 *     moments        E[a a^T] of every layer's windows, weighed by timestep                  (calib/moments.c)
 *     make           every layer at the scheme's width, those that may be raised also at 8 bits (calib/make_layers.c)
 *     choose         what the most sensitive layers get more                                 (calib/choose.c)
 *     blocks         if asked for: rounding anew, block by block                             (calib/blocks.c)
 *     save           the folder                                                              (calib/save.c) */
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "calib/blocks.h"
#include "calib/identity.h"
#include "calib/output_moments.h"
#include "calib/quantizer.h"
#include "calib/save.h"
#include "calib/settings.h"
#include "calib/smooth.h"
#include "graph/reverse.h"

static const size_t MOST_MOMENTS = (size_t)1 << 30; /* bytes */

enum { WINDOWS = 64, PROBED = 2, CANDIDATES = 3, BLOCK_SAMPLES = 160, BATCH = 16 };

/* ---- progress: every part has its share of a thousand ---- */

int ht_quantizer_advance(ht_quantizer *q, int share, int64_t done, int64_t total)
{
    int64_t now = q->before + share * done / (total ? total : 1);
    int64_t all = 1000 + (q->options->blocks ? HT_SHARE_BLOCKS : 0);
    return q->options->progress ? q->options->progress(q->options->user, now, all) : 0;
}

int ht_quantizer_share(const ht_quantizer *q, int share)
{
    return share * q->group / q->products.n;
}

static int on_calibrate(void *user, int64_t done, int64_t total)
{
    return ht_quantizer_advance(user, HT_SHARE_CALIBRATE, done, total);
}

static int on_moments(void *user, int64_t done, int64_t total)
{
    return ht_quantizer_advance(user, ht_quantizer_share(user, HT_SHARE_MOMENTS), done, total);
}

static int on_smooth(void *user, int64_t done, int64_t total)
{
    return ht_quantizer_advance(user, HT_SHARE_SMOOTH, done, total);
}

static int on_outputs(void *user, int64_t done, int64_t total)
{
    return ht_quantizer_advance(user, HT_SHARE_OUTPUTS, done, total);
}

/* ---- options ---- */

/* With defaults in the place of what was left out; what the caller gave for bits stays: 0 is the default where it can
 * be had. */
static ht_status take_options(ht_quantizer *q, const ht_quantize_options *given)
{
    static const ht_quantize_options defaults;
    q->given = given ? *given : defaults;
    q->options = &q->given;
    ht_status status = ht_quantize_check(q->options);
    ht_settings_fill(ht_quantize_settings, &q->given);
    if (!status)
        status = ht_scheme_make(q->options, &q->scheme);
    if (status)
        return status;
    if (q->model->layers.n)
        return ht_fail(HT_ERR_ARGUMENT, "%s: is quantized already; quantize the model of floats it was made of",
                       q->model->path);
    q->rounding = (ht_round_options){.method = (ht_rounding)ht_rounding_find(q->options->rounding),
                                     .scale = (ht_scale_method)ht_scale_method_find(q->options->scale),
                                     .powers = (ht_scale_powers)ht_scale_powers_find(q->options->scale_powers),
                                     .percentile = q->options->percentile,
                                     .candidates = CANDIDATES};
    q->observer = (ht_scale_method)ht_scale_method_find(q->options->observer);
    return HT_OK;
}

/* ---- what is there, and what it sees ---- */

static ht_status calibrate(ht_quantizer *q)
{
    const ht_quantize_options *o = q->options;
    ht_calibrate_options how = {.prompts = o->prompts,
                                .seed = o->seed,
                                .batch = o->batch,
                                .threads = o->threads,
                                .progress = on_calibrate,
                                .user = q};
    ht_status status = o->calibration ? ht_calibration_read(q->arena, q->model, o->calibration, &q->calibration)
                                      : ht_calibration_make(q->arena, q->model, &how, &q->calibration);
    q->before += HT_SHARE_CALIBRATE;
    if (!status && !(q->weights = ht_alloc_array(q->arena, (size_t)q->calibration.groups, sizeof *q->weights)))
        status = HT_ERR_MEMORY;
    return status ? status : ht_calibration_weights(&q->calibration, q->model, q->weights);
}

/* Blocks are reconstructed after hours of other work: so whether they can be is found first. */
static ht_status check_blocks(const ht_quantizer *q, const ht_graph *g)
{
    ht_region *regions;
    int n = 0;
    ht_status status = q->options->blocks ? ht_regions_find(g, q->arena, &regions, &n) : HT_OK;
    for (int i = 0; !status && i < n; i++) {
        const ht_op *op = regions[i].n_layers ? ht_region_lacks(&regions[i]) : NULL;
        if (op)
            return ht_fail(HT_ERR_UNSUPPORTED, "%s: %s in this block cannot be reconstructed; leave out blocks",
                           regions[i].name, ht_op_kind_name(op->kind));
    }
    return status;
}

static ht_status list_products(ht_quantizer *q)
{
    ht_session *session = NULL;
    ht_session_options how = {.backend = "cpu", .batch = 1, .threads = 1};
    ht_status status = ht_session_open(q->model, &how, &session);
    if (!status)
        status = ht_products_list(q->arena, ht_session_graph(session), &q->products);
    if (!status)
        status = check_blocks(q, ht_session_graph(session));
    ht_session_close(session);
    size_t n = (size_t)q->products.n;
    if (status)
        return status;
    q->choices = ht_alloc_array(q->arena, n, sizeof *q->choices);
    q->moments = ht_alloc_array(q->arena, n, sizeof *q->moments);
    q->outputs = ht_alloc_array(q->arena, n, sizeof(float *));
    q->smoothed = ht_alloc_array(q->arena, n, sizeof *q->smoothed);
    q->ranges = ht_alloc_array(q->arena, n, sizeof *q->ranges);
    q->smooth = ht_alloc_array(q->arena, n, sizeof(float *));
    q->low = ht_alloc_array(q->arena, n, sizeof *q->low);
    q->wide = ht_alloc_array(q->arena, n, sizeof *q->wide);
    q->arenas = ht_alloc_array(q->arena, n, sizeof(ht_arena *));
    if (!q->choices || !q->moments || !q->outputs || !q->smoothed || !q->ranges || !q->smooth || !q->low || !q->wide ||
        !q->arenas)
        return HT_ERR_MEMORY;
    for (size_t i = 0; i < n; i++)
        q->choices[i] = ht_scheme_choice(&q->scheme, &q->products.product[i]);
    return HT_OK;
}

static ht_status check_finite(const ht_model_product *p)
{
    enum { CHUNK = 4096 };
    float values[CHUNK];
    for (size_t at = 0; at < p->weight->count; at += CHUNK) {
        size_t n = p->weight->count - at < CHUNK ? p->weight->count - at : CHUNK;
        ht_convert_to_f32(p->weight->dtype, p->weight->data, at, n, values);
        for (size_t i = 0; i < n; i++)
            if (!isfinite(values[i]))
                return ht_fail(HT_ERR_ARGUMENT, "%s: weight %zu is %g", p->name, at + i, (double)values[i]);
    }
    return HT_OK;
}

bool ht_quantizer_runs_every_step(const ht_quantizer *q, int i)
{
    const ht_model_product *p = &q->products.product[i];
    return !p->timeless && !ht_product_is_temporal(p) && p->role != HT_ROLE_CONDITION;
}

/* A branch that is larger than the codes is not worth having. */
int ht_quantizer_rank(const ht_quantizer *q, int i)
{
    const ht_model_product *p = &q->products.product[i];
    int64_t out = p->weight->shape[0], in = p->weights / out;
    bool small = 16.0 * q->options->low_rank * (double)(out + in) > q->scheme.low.grid.bits * (double)(out * in);
    return q->choices[i].width == HT_WIDTH_LOW && ht_quantizer_runs_every_step(q, i) && !small ? q->options->low_rank
                                                                                               : 0;
}

/* Bits of product i, scales included, in a format. */
static ht_status measure_bits(const ht_quantizer *q, int i, const ht_format *format, double *bits)
{
    const ht_model_product *p = &q->products.product[i];
    int parts = p->parts[1] && !q->options->no_split && !q->choices[i].float_input ? 2 : 1;
    size_t out = (size_t)p->weight->shape[0], all = (size_t)(p->parts[0] + p->parts[1]);
    ht_status status = HT_OK;
    size_t thin = out + p->weight->count / out;
    *bits = format->grid.bits < 8 ? 16.0 * ht_quantizer_rank(q, i) * (double)thin : 0;
    for (int part = 0; !status && part < parts; part++) {
        size_t channels = parts == 2 ? (size_t)p->parts[part] : all;
        ht_format_sizes sizes;
        ht_matrix m = {.name = p->name, .out = out, .in = p->weight->count / out / all * channels};
        status = ht_format_measure(format, &m, &sizes);
        if (!status)
            *bits += 8 * (double)(sizes.code_bytes + sizes.scale_bytes);
    }
    return status;
}

/* A scheme that a layer cannot take, weights that are no numbers, and a budget that cannot be kept are refused before
 * the work. */
static ht_status check_layers(const ht_quantizer *q)
{
    double bits = 0, weights = 0, budget = q->options->bits;
    for (int i = 0; i < q->products.n; i++) {
        const ht_model_product *p = &q->products.product[i];
        double of_layer = ht_dtype_bits(p->weight->dtype) * (double)p->weights;
        ht_status status = check_finite(p);
        if (!status && q->choices[i].width != HT_WIDTH_FLOAT)
            status =
                measure_bits(q, i, q->choices[i].width == HT_WIDTH_LOW ? &q->scheme.low : &q->scheme.wide, &of_layer);
        if (status)
            return status;
        bits += of_layer;
        weights += (double)p->weights;
    }
    if (budget > 0 && budget < bits / weights)
        return ht_fail(HT_ERR_ARGUMENT,
                       "%g bits a weight on average cannot be kept: %s of the layers \"%s\" takes %.4f at least",
                       budget, q->options->scheme, q->scheme.layers, ceil(bits / weights * 1e4) / 1e4);
    return HT_OK;
}

/* Of a group of products; h lies in the arena. */
static ht_status gather_moments(ht_quantizer *q, ht_arena *arena, const int *list, int n)
{
    const ht_quantize_options *o = q->options;
    ht_input_moments_options how = {.batch = BATCH,
                                    .threads = o->threads,
                                    .windows = WINDOWS,
                                    .weights = q->weights,
                                    .progress = on_moments,
                                    .user = q};
    ht_status status = HT_OK;
    if (q->rounding.method != HT_ROUND_NEAREST)
        status = ht_input_moments_gather(arena, q->model, &q->calibration, &q->products, list, n, &how, q->moments);
    q->before += ht_quantizer_share(q, HT_SHARE_MOMENTS);
    return status;
}

static ht_status gather_outputs(ht_quantizer *q)
{
    const ht_quantize_options *o = q->options;
    ht_status status = HT_OK;
    ht_output_moments_options back = {
        .images = PROBED, .threads = o->threads, .weights = q->weights, .progress = on_outputs, .user = q};
    if (o->couple && q->rounding.method != HT_ROUND_NEAREST && q->scheme.low.grid.bits < 8)
        status = ht_output_moments_gather(q->arena, q->model, &q->calibration, &q->products, &back, q->outputs);
    q->before += HT_SHARE_OUTPUTS;
    return status;
}

/* Layers that take codes every step. */
static bool is_smoothed(const ht_quantizer *q, int i)
{
    return q->choices[i].width != HT_WIDTH_FLOAT && !q->choices[i].float_input && ht_quantizer_runs_every_step(q, i);
}

static ht_status smooth(ht_quantizer *q)
{
    const ht_quantize_options *o = q->options;
    ht_channel_ranges_options how = {
        .batch = BATCH, .threads = o->threads, .only = q->smoothed, .progress = on_smooth, .user = q};
    ht_status status = HT_OK;
    for (int i = 0; i < q->products.n; i++)
        q->smoothed[i] = o->smooth > 0 && is_smoothed(q, i);
    if (o->smooth > 0)
        status = ht_channel_ranges_gather(q->arena, q->model, &q->calibration, &q->products, &how, q->ranges);
    for (int i = 0; !status && i < q->products.n; i++)
        if (q->smoothed[i])
            status = ht_smooth_factors(q->arena, &q->products, q->smoothed, q->ranges, q->calibration.groups, i,
                                       o->smooth, &q->smooth[i]);
    q->before += HT_SHARE_SMOOTH;
    return status;
}

/* From product `first` on, those whose moments fit into memory together, one at least. */
static int next_group(const ht_quantizer *q, int first)
{
    size_t bytes = 0;
    int n = 0;
    for (int i = first; i < q->products.n; i++, n++) {
        ht_input_moments m;
        bytes += ht_input_moments_size(&q->products.product[i], &m);
        if (n && bytes > MOST_MOMENTS && q->rounding.method != HT_ROUND_NEAREST)
            break;
    }
    return n;
}

/* Moments of a group of layers, and the layers; then the next: whole windows of Stable Diffusion would take 28 GB. */
static ht_status make_layers(ht_quantizer *q)
{
    ht_status status = smooth(q);
    if (!status)
        status = gather_outputs(q);
    int *list = ht_alloc_array(q->arena, (size_t)q->products.n, sizeof *list);
    for (int i = 0; list && i < q->products.n; i++)
        list[i] = i;
    if (!list)
        return HT_ERR_MEMORY;
    for (int first = 0; !status && first < q->products.n; first += q->group) {
        ht_arena *arena = ht_arena_create();
        q->group = next_group(q, first);
        status = arena ? gather_moments(q, arena, list + first, q->group) : HT_ERR_MEMORY;
        if (!status)
            status = ht_quantizer_make(q, list + first, q->group);
        for (int i = first; i < first + q->group; i++)
            q->moments[i].h = NULL;
        ht_arena_free(arena);
    }
    return status;
}

/* ---- the end ---- */

/* Formats by their names, and the bits that came out, in the place of what was asked for. */
static json_t *describe(const ht_quantizer *q, const char *hash)
{
    json_error_t error;
    json_t *calibration = json_loads(q->calibration.settings, 0, &error);
    json_t *how = json_pack("{s:s, s:s}", "quant_method", "halftone", "version", ht_version());
    json_t *settings = ht_settings_json(ht_quantize_settings, q->options);
    json_t *made = json_pack("{s:s, s:s, s:f, s:s, s:o}", "weights",
                             q->options->weights ? q->options->weights : q->scheme.low.name, "inputs",
                             q->scheme.float_inputs ? "float" : q->scheme.input.name, "bits", ht_quantizer_bits(q),
                             "source_sha256", hash, "calibration", calibration ? calibration : json_object());
    int failed = !how || !settings || !made || json_object_update(how, settings) || json_object_update(how, made);
    json_decref(settings);
    json_decref(made);
    if (failed) {
        json_decref(how);
        return NULL;
    }
    return how;
}

/* What was cached because quantizing disturbed it is known only now. */
static ht_status check_budget(const ht_quantizer *q)
{
    double bits = ht_quantizer_bits(q);
    if (q->options->bits > 0 && bits > q->options->bits + 1e-9)
        return ht_fail(HT_ERR_ARGUMENT,
                       "%g bits a weight on average cannot be kept: with the features that temporal \"%s\" keeps in 8 "
                       "bits they are %.4f",
                       q->options->bits, q->options->temporal, ceil(bits * 1e4) / 1e4);
    return HT_OK;
}

/* What is saved, one after the other; codes are those of q. */
static ht_status collect(ht_quantizer *q)
{
    q->layers = ht_alloc_array(q->arena, (size_t)q->products.n, sizeof *q->layers);
    for (int i = 0; q->layers && i < q->products.n; i++)
        if (ht_quantizer_layer(q, i))
            q->layers[q->n_layers++] = *ht_quantizer_layer(q, i);
    return q->layers ? HT_OK : HT_ERR_MEMORY;
}

/* Beside the folder, whether or not its name was given with a slash. */
static const char *name_unfinished(ht_arena *arena, const char *path)
{
    size_t n = strlen(path);
    while (n > 1 && path[n - 1] == '/')
        n--;
    return ht_sprintf(arena, "%.*s.unfinished", (int)n, path);
}

static int on_blocks(void *user, int64_t done, int64_t total)
{
    return ht_quantizer_advance(user, HT_SHARE_BLOCKS, done, total);
}

static ht_status reconstruct_blocks(ht_quantizer *q)
{
    const ht_quantize_options *o = q->options;
    const char *hash = NULL;
    ht_status status = ht_model_identity(q->arena, q->model, &hash);
    json_t *how = status ? NULL : describe(q, hash);
    char *identity = how ? json_dumps(how, JSON_COMPACT) : NULL;
    ht_blocks_options options = {.iterations = o->blocks,
                                 .samples = BLOCK_SAMPLES,
                                 .batch = BATCH,
                                 .threads = o->threads,
                                 .seed = o->seed,
                                 .resume = q->unfinished,
                                 .identity = identity,
                                 .progress = on_blocks,
                                 .user = q};
    if (!status && (!identity || !options.resume))
        status = ht_fail(HT_ERR_MEMORY, "out of memory");
    if (!status)
        status = ht_blocks_reconstruct(q->model, &q->calibration, q->layers, q->n_layers, &options, q->losses);
    free(identity);
    json_decref(how);
    return status;
}

static ht_status save(ht_quantizer *q, const char *path)
{
    const char *hash = NULL;
    ht_status status = ht_model_identity(q->arena, q->model, &hash);
    json_t *how = status ? NULL : describe(q, hash);
    if (!status && !how)
        status = ht_fail(HT_ERR_MEMORY, "out of memory");
    if (!status && q->options->blocks) /* relative to the blocks' outputs, summed */
        json_object_set_new(how, "block_losses", json_pack("[f,f]", q->losses[0], q->losses[1]));
    if (!status)
        status = ht_save_quantized(
            q->model, &(ht_layers){q->layers, q->n_layers, (ht_softmax_format)ht_softmax_find(q->options->softmax)},
            how, path);
    json_decref(how);
    return status;
}

/* The way, from the options to the folder. */
static ht_status make_model(ht_quantizer *q, const char *path)
{
    ht_status status = list_products(q);
    if (!status)
        status = check_layers(q);
    if (!status)
        status = calibrate(q);
    if (!status)
        status = make_layers(q);
    if (!status)
        status = ht_quantizer_choose(q);
    if (!status)
        status = check_budget(q);
    if (!status)
        status = collect(q);
    if (!status && q->options->blocks)
        status = reconstruct_blocks(q);
    if (!status)
        status = save(q, path);
    if (!status && q->options->blocks)
        unlink(q->unfinished);
    return status;
}

ht_status ht_quantize(ht_model *model, const ht_quantize_options *options, const char *path)
{
    ht_quantizer q = {.model = model};
    ht_save_claim claim;
    ht_status status = take_options(&q, options);
    if (!status)
        status = ht_save_claim_folder(path, &claim);
    if (status)
        return status;
    if (!(q.arena = ht_arena_create()) || !(q.unfinished = name_unfinished(q.arena, path)))
        status = HT_ERR_MEMORY;
    if (!status)
        status = make_model(&q, path);
    for (int i = 0; q.arenas && i < q.products.n; i++)
        ht_arena_free(q.arenas[i]);
    ht_arena_free(q.arena);
    ht_save_release(&claim, path);
    return status;
}
