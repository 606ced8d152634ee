/* quantize.c - from a model of floats to a model of codes:
 *
 *     calibrate      a set of x_t and what every layer's input does on it, by timestep      (calib/make.c)
 *     moments        E[a a^T] of every layer's windows, weighed by timestep                  (calib/moments.c)
 *     make           every layer at the scheme's width, those that may be raised also at 8 bits (calib/layer_maker.c)
 *     choose         under a budget of bits the layers that gain most by 8                   (calib/sensitivity.c)
 *     save           the folder                                                              (calib/save.c) */
#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "calib/identity.h"
#include "calib/layer_maker.h"
#include "calib/save.h"
#include "calib/sensitivity.h"
#include "cpu/team.h"

enum { SHARE_CALIBRATE = 250, SHARE_MOMENTS = 250, SHARE_MAKE = 350, SHARE_CHOOSE = 150 }; /* thousandths */
enum { WINDOWS = 64, TRIAL_IMAGES = 2, TRIAL_EVERY = 2, CANDIDATES = 3 };

static const double DEFAULT_BITS = 4.7;

typedef struct made {
    ht_layer layer;
    ht_round_error error;
} made;

typedef struct quantizer {
    ht_arena *arena;
    ht_arena **arenas; /* [n]: of each layer, which threads make side by side */
    ht_model *model;
    const ht_quantize_options *options;
    ht_scheme scheme;
    ht_round_options rounding;
    ht_scale_method observer;
    ht_calibration calibration;
    ht_products products;
    ht_choice *choices;        /* [n] */
    ht_input_moments *moments; /* [n] */
    double *weights;           /* [groups] */
    made *low, *wide;          /* [n] */
    ht_layer *layers;          /* [n_layers]: what is saved */
    int n_layers;
    int before; /* thousandths that are done */
    /* of the threads that make layers */
    atomic_int next;
    pthread_mutex_t lock;
    ht_status status;
    char message[512];
    int done;
} quantizer;

/* ---- progress: every part has its share of a thousand ---- */

static int advance(quantizer *q, int share, int64_t done, int64_t total)
{
    int64_t now = q->before + share * done / (total ? total : 1);
    return q->options->progress ? q->options->progress(q->options->user, now, 1000) : 0;
}

static int on_calibrate(void *user, int64_t done, int64_t total)
{
    return advance(user, SHARE_CALIBRATE, done, total);
}

static int on_moments(void *user, int64_t done, int64_t total)
{
    return advance(user, SHARE_MOMENTS, done, total);
}

static int on_choose(void *user, int64_t done, int64_t total)
{
    return advance(user, SHARE_CHOOSE, done, total);
}

/* ---- options ---- */

static ht_status find_name(const char *what, int found, const char *name, const char *known)
{
    return found >= 0 ? HT_OK : ht_fail(HT_ERR_ARGUMENT, "no %s is called \"%s\"; there are %s", what, name, known);
}

static ht_status check_options(quantizer *q)
{
    const ht_quantize_options *o = q->options;
    const char *scale = o->scale ? o->scale : "mse", *rounding = o->rounding ? o->rounding : "gptq+descent",
               *observer = o->observer ? o->observer : "minmax";
    int scale_found = ht_scale_method_find(scale), observer_found = ht_scale_method_find(observer),
        rounding_found = ht_rounding_find(rounding);
    ht_status status = ht_scheme_make(o, &q->scheme);
    if (!status)
        status = find_name("search for scales", scale_found, scale, "standard, minmax, percentile, mse, l2.4");
    if (!status)
        status = find_name("observer", observer_found, observer, "minmax, percentile, mse, l2.4");
    if (!status)
        status = find_name("rounding", rounding_found, rounding, "nearest, gptq, descent, gptq+descent, adaround");
    if (!status && !(o->bits == 0 || (o->bits >= 1 && o->bits <= 16)))
        status = ht_fail(HT_ERR_ARGUMENT, "a budget of %g bits a weight; wanted 1 to 16", o->bits);
    if (!status && o->groups < 0)
        status = ht_fail(HT_ERR_ARGUMENT, "%d groups of timesteps; wanted 1 or more, 0 for all", o->groups);
    if (!status && q->model->layers.n)
        status = ht_fail(HT_ERR_ARGUMENT, "%s: is quantized already; quantize the model of floats it was made of",
                         q->model->path);
    q->rounding = (ht_round_options){.method = (ht_rounding)rounding_found,
                                     .scale = (ht_scale_method)scale_found,
                                     .percentile = o->percentile,
                                     .candidates = CANDIDATES};
    q->observer = (ht_scale_method)observer_found;
    return status;
}

/* ---- what is there, and what it sees ---- */

static ht_status calibrate(quantizer *q)
{
    const ht_quantize_options *o = q->options;
    ht_calibrate_options how = {
        .seed = o->seed, .batch = o->batch, .threads = o->threads, .progress = on_calibrate, .user = q};
    ht_status status = o->calibration ? ht_calibration_read(q->arena, q->model, o->calibration, &q->calibration)
                                      : ht_calibration_make(q->arena, q->model, &how, &q->calibration);
    q->before += SHARE_CALIBRATE;
    if (!status && !(q->weights = ht_alloc_array(q->arena, (size_t)q->calibration.groups, sizeof *q->weights)))
        status = HT_ERR_MEMORY;
    return status ? status : ht_calibration_weights(&q->calibration, q->model, q->weights);
}

static ht_status list_products(quantizer *q)
{
    ht_session *session = NULL;
    ht_session_options how = {.batch = 1, .threads = 1};
    ht_status status = ht_session_open(q->model, &how, &session);
    if (!status)
        status = ht_products_list(q->arena, ht_session_graph(session), &q->products);
    ht_session_close(session);
    size_t n = (size_t)q->products.n;
    if (status)
        return status;
    q->choices = ht_alloc_array(q->arena, n, sizeof *q->choices);
    q->moments = ht_alloc_array(q->arena, n, sizeof *q->moments);
    q->low = ht_alloc_array(q->arena, n, sizeof *q->low);
    q->wide = ht_alloc_array(q->arena, n, sizeof *q->wide);
    q->layers = ht_alloc_array(q->arena, n, sizeof *q->layers);
    q->arenas = ht_alloc_array(q->arena, n, sizeof(ht_arena *));
    if (!q->choices || !q->moments || !q->low || !q->wide || !q->layers || !q->arenas)
        return HT_ERR_MEMORY;
    for (size_t i = 0; i < n; i++)
        q->choices[i] = ht_scheme_choice(&q->scheme, &q->products.product[i]);
    return HT_OK;
}

/* A scheme that a layer cannot take is refused before the work. */
static ht_status check_layers(const quantizer *q)
{
    ht_status status = HT_OK;
    for (int i = 0; !status && i < q->products.n; i++) {
        const ht_product *p = &q->products.product[i];
        size_t out = (size_t)p->weight->shape[0], parts = p->parts[1] && !q->options->no_split ? 2 : 1;
        for (size_t part = 0; !status && q->choices[i].width == HT_WIDTH_LOW && part < parts; part++) {
            size_t channels = parts == 2 ? (size_t)p->parts[part] : (size_t)(p->parts[0] + p->parts[1]);
            ht_format_sizes sizes;
            ht_matrix m = {.name = p->name,
                           .out = out,
                           .in = p->weight->count / out / (size_t)(p->parts[0] + p->parts[1]) * channels};
            status = ht_format_measure(&q->scheme.low, &m, &sizes);
        }
    }
    return status;
}

static ht_status gather_moments(quantizer *q)
{
    const ht_quantize_options *o = q->options;
    ht_input_moments_options how = {.batch = o->batch ? o->batch : 16,
                                    .threads = o->threads,
                                    .windows = WINDOWS,
                                    .weights = q->weights,
                                    .progress = on_moments,
                                    .user = q};
    ht_status status = HT_OK;
    if (q->rounding.method != HT_ROUND_NEAREST)
        status = ht_input_moments_gather(q->arena, q->model, &q->calibration, &q->products, &how, q->moments);
    q->before += SHARE_MOMENTS;
    return status;
}

/* ---- making layers ---- */

static bool may_widen(const quantizer *q, int i)
{
    return q->choices[i].may_widen && q->choices[i].width == HT_WIDTH_LOW &&
           strcmp(q->scheme.low.name, q->scheme.wide.name) != 0;
}

static ht_status make_layer(quantizer *q, int i, bool wide)
{
    made *m = wide ? &q->wide[i] : &q->low[i];
    ht_layer_request r = {.product = &q->products.product[i],
                          .format = wide ? &q->scheme.wide : &q->scheme.low,
                          .input = q->choices[i].float_input ? NULL : &q->scheme.input,
                          .dynamic = q->options->dynamic,
                          .split = !q->options->no_split,
                          .moments = q->moments[i].h ? &q->moments[i] : NULL,
                          .rounding = q->rounding,
                          .observer = q->observer,
                          .percentile = q->options->percentile,
                          .groups = q->options->groups,
                          .calibration = &q->calibration};
    if (wide) /* finer scales gain nothing at 8 bits */
        r.rounding.candidates = 0;
    return ht_layer_make(q->arenas[i], &r, &m->layer, &m->error);
}

static void fail(quantizer *q, ht_status status)
{
    pthread_mutex_lock(&q->lock);
    if (!q->status) {
        q->status = status;
        strncpy(q->message, ht_error_message(), sizeof q->message - 1);
    }
    pthread_mutex_unlock(&q->lock);
}

/* Largest layers first, so that no thread is left with one at the end. */
static int nth_by_size(const quantizer *q, int nth)
{
    for (int i = 0; i < q->products.n; i++) {
        int larger = 0;
        for (int j = 0; j < q->products.n; j++)
            larger += q->products.product[j].weights > q->products.product[i].weights ||
                      (q->products.product[j].weights == q->products.product[i].weights && j < i);
        if (larger == nth)
            return i;
    }
    return 0;
}

static void make_some(void *argument, const ht_team *team)
{
    quantizer *q = argument;
    for (int nth; (nth = atomic_fetch_add(&q->next, 1)) < q->products.n;) {
        int i = nth_by_size(q, nth);
        ht_status status = HT_OK;
        if (q->choices[i].width == HT_WIDTH_LOW)
            status = make_layer(q, i, false);
        if (!status && (q->choices[i].width == HT_WIDTH_WIDE || may_widen(q, i)))
            status = make_layer(q, i, true);
        pthread_mutex_lock(&q->lock);
        int done = ++q->done;
        bool failed = q->status != HT_OK;
        pthread_mutex_unlock(&q->lock);
        if (status)
            fail(q, status);
        else if (!failed && !team->thread && advance(q, SHARE_MAKE, done, q->products.n))
            fail(q, ht_fail(HT_ERR_CANCELLED, "quantization was cancelled"));
        if (status || failed)
            return;
    }
}

static ht_status make_layers(quantizer *q)
{
    ht_crew *crew = NULL;
    for (int i = 0; i < q->products.n; i++)
        if (!(q->arenas[i] = ht_arena_create()))
            return HT_ERR_MEMORY;
    ht_status status = ht_crew_open(q->options->threads ? q->options->threads : ht_processors(), &crew);
    if (status)
        return status;
    pthread_mutex_init(&q->lock, NULL);
    ht_crew_run(crew, make_some, q);
    pthread_mutex_destroy(&q->lock);
    ht_crew_close(crew);
    q->before += SHARE_MAKE;
    return q->status ? ht_fail(q->status, "%s", q->message) : HT_OK;
}

/* ---- choosing widths ---- */

typedef struct gain {
    int product;
    double error; /* of the output, that 8 bits take away */
    double bits;  /* that they cost */
} gain;

static int by_gain(const void *a, const void *b)
{
    const gain *x = a, *y = b;
    double left = x->error * y->bits, right = y->error * x->bits;
    return left != right ? (left < right) - (left > right) : x->product - y->product;
}

/* All bits of all weights with the choices as they are, over the number of weights. */
static double average_bits(const quantizer *q)
{
    double bits = 0, weights = 0;
    for (int i = 0; i < q->products.n; i++) {
        const ht_product *p = &q->products.product[i];
        double each = ht_dtype_bits(p->weight->dtype);
        if (q->choices[i].width != HT_WIDTH_FLOAT)
            each = ht_layer_bits(q->choices[i].width == HT_WIDTH_LOW ? &q->low[i].layer : &q->wide[i].layer);
        bits += each * (double)p->weights;
        weights += (double)p->weights;
    }
    return bits / weights;
}

static ht_status measure(quantizer *q, double *error)
{
    int n = q->products.n, used = 0;
    ht_layer *base = ht_alloc_array(q->arena, (size_t)n, sizeof *base);
    ht_layer *candidates = ht_alloc_array(q->arena, (size_t)n, sizeof *candidates);
    double *measured = ht_alloc_array(q->arena, (size_t)n, sizeof *measured);
    if (!base || !candidates || !measured)
        return HT_ERR_MEMORY;
    for (int i = 0; i < n; i++) {
        bool widens = may_widen(q, i);
        if (q->choices[i].width == HT_WIDTH_FLOAT)
            continue;
        base[used] = widens || q->choices[i].width == HT_WIDTH_WIDE ? q->wide[i].layer : q->low[i].layer;
        candidates[used++] = widens ? q->low[i].layer : (ht_layer){0};
    }
    ht_sensitivity_options how = {.images = TRIAL_IMAGES,
                                  .threads = q->options->threads,
                                  .every = q->calibration.groups > 10 ? TRIAL_EVERY : 1,
                                  .weights = q->weights,
                                  .progress = on_choose,
                                  .user = q};
    ht_status status =
        ht_sensitivity_measure(q->model, &q->calibration, &(ht_layers){base, used}, candidates, &how, measured);
    for (int i = n; i-- > 0;)
        error[i] = q->choices[i].width == HT_WIDTH_FLOAT ? 0 : measured[--used];
    return status;
}

/* Raise layers to 8 bits in the order of what a bit gains, passing over those that do not fit. */
static ht_status choose_widths(quantizer *q)
{
    int n = q->products.n, candidates = 0;
    double budget = q->options->bits ? q->options->bits : DEFAULT_BITS, weights = 0;
    double *error = ht_alloc_array(q->arena, (size_t)n, sizeof *error);
    gain *gains = ht_alloc_array(q->arena, (size_t)n, sizeof *gains);
    ht_status status = error && gains ? HT_OK : HT_ERR_MEMORY;
    for (int i = 0; i < n; i++) {
        weights += (double)q->products.product[i].weights;
        candidates += may_widen(q, i);
    }
    if (status || !candidates)
        return status;
    double left = (budget - average_bits(q)) * weights;
    if (left > 0)
        status = measure(q, error);
    candidates = 0;
    for (int i = 0; !status && i < n; i++)
        if (may_widen(q, i))
            gains[candidates++] = (gain){i, error[i],
                                         (ht_layer_bits(&q->wide[i].layer) - ht_layer_bits(&q->low[i].layer)) *
                                             (double)q->products.product[i].weights};
    qsort(gains, (size_t)candidates, sizeof *gains, by_gain);
    for (int i = 0; i < candidates; i++)
        if (gains[i].bits <= left) {
            left -= gains[i].bits;
            q->choices[gains[i].product].width = HT_WIDTH_WIDE;
        }
    return status;
}

/* ---- the end ---- */

static void collect_layers(quantizer *q)
{
    for (int i = 0; i < q->products.n; i++)
        if (q->choices[i].width != HT_WIDTH_FLOAT)
            q->layers[q->n_layers++] = q->choices[i].width == HT_WIDTH_LOW ? q->low[i].layer : q->wide[i].layer;
}

static json_t *describe(const quantizer *q, const char *hash)
{
    const ht_quantize_options *o = q->options;
    json_error_t error;
    json_t *calibration = json_loads(q->calibration.settings, 0, &error);
    return json_pack(
        "{s:s, s:s, s:s, s:s, s:s, s:s, s:f, s:s, s:s, s:s, s:i, s:b, s:b, s:s, s:I, s:o}", "quant_method", "halftone",
        "version", ht_version(), "scheme", o->scheme ? o->scheme : "w4a8", "layers", q->scheme.layers, "weights",
        q->scheme.low.name, "inputs", q->scheme.float_inputs ? "float" : q->scheme.input.name, "bits", average_bits(q),
        "scale", ht_scale_method_name(q->rounding.scale), "rounding", ht_rounding_name(q->rounding.method), "observer",
        ht_scale_method_name(q->observer), "groups", o->groups, "dynamic", o->dynamic, "split", !o->no_split,
        "source_sha256", hash, "seed", (json_int_t)o->seed, "calibration", calibration ? calibration : json_object());
}

static ht_status save(quantizer *q, const char *path)
{
    const char *hash = NULL;
    ht_status status = ht_model_identity(q->arena, q->model, &hash);
    json_t *how = status ? NULL : describe(q, hash);
    if (!status && !how)
        status = ht_fail(HT_ERR_MEMORY, "out of memory");
    if (!status)
        status = ht_save_quantized(q->model, &(ht_layers){q->layers, q->n_layers}, how, path);
    json_decref(how);
    return status;
}

ht_status ht_quantize(ht_model *model, const ht_quantize_options *options, const char *path)
{
    static const ht_quantize_options defaults;
    quantizer q = {.model = model, .options = options ? options : &defaults};
    ht_status status = check_options(&q);
    if (!status)
        status = ht_save_check(path);
    if (!status && !(q.arena = ht_arena_create()))
        status = HT_ERR_MEMORY;
    if (!status)
        status = list_products(&q);
    if (!status)
        status = check_layers(&q);
    if (!status)
        status = calibrate(&q);
    if (!status)
        status = gather_moments(&q);
    if (!status)
        status = make_layers(&q);
    if (!status)
        status = choose_widths(&q);
    if (!status) {
        collect_layers(&q);
        status = save(&q, path);
    }
    for (int i = 0; q.arenas && i < q.products.n; i++)
        ht_arena_free(q.arenas[i]);
    ht_arena_free(q.arena);
    return status;
}
