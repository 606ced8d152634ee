/* choose.c - which layers get more than the scheme's width, by the measured error of the model's output.
 *
 * Inputs first.  A few layers hand the sample on: the shortcuts of the last blocks read what carries x_t, and in the
 * CIFAR-10 model three of them, 0.3 % of the weights and 2 % of the work, make 72 % of all the noise that 8-bit inputs
 * bring.  Their inputs stay floats, as those of the first and last layer do.  Then weights: layers are raised to 8 bits
 * in the order of error taken away by a bit spent, until the budget is spent.
 *
 * Trying out a layer takes one more compilation and some evaluations of the whole model.  Of a model as large as Stable
 * Diffusion's that would be days: there a layer's own error, squared and relative, stands for what it does to the
 * output, and inputs stay as the scheme has them. */
#include <stdlib.h>
#include <string.h>

#include "calib/quantizer.h"
#include "calib/sensitivity.h"
#include "calib/temporal.h"

enum { TRIAL_IMAGES = 1, TRIAL_TIMESTEPS = 7 };

static const double DEFAULT_BITS = 4.68; /* with which the CIFAR-10 model is 0.30 of its size in float16 */
static const double FLOAT_WORK = 0.03;   /* of all multiply-accumulates, with inputs that stay floats */
static const double FLOAT_ERROR = 0.02;  /* of the noise of all inputs, that a layer's must have to be worth it */

static const double MOST_MEASURED = 1e8; /* weights of a model whose layers are tried out */

static bool is_large(const ht_quantizer *q)
{
    double weights = 0;
    for (int i = 0; i < q->products.n; i++)
        weights += (double)q->products.product[i].weights;
    return weights > MOST_MEASURED;
}

/* ---- measuring ---- */

typedef struct trial {
    ht_quantizer *q;
    ht_layer *base, *candidates; /* [n] packed: of the products that are quantized */
    int n;
} trial;

static int on_trial(void *user, int64_t done, int64_t total)
{
    return ht_quantizer_advance(user, HT_SHARE_CHOOSE / 2, done, total);
}

/* error[products]: how much the output changes when layer i becomes its candidate. */
static ht_status measure(trial *t, double *error)
{
    ht_quantizer *q = t->q;
    double *measured = ht_alloc_array(q->arena, (size_t)t->n + 1, sizeof *measured);
    ht_sensitivity_options how = {.images = TRIAL_IMAGES,
                                  .threads = q->options->threads,
                                  .every = (q->calibration.groups + TRIAL_TIMESTEPS - 1) / TRIAL_TIMESTEPS,
                                  .weights = q->weights,
                                  .progress = on_trial,
                                  .user = q};
    ht_layers base = {.layer = t->base, .n = t->n};
    ht_status status = measured
                           ? ht_sensitivity_measure(q->model, &q->calibration, &base, t->candidates, &how, measured)
                           : HT_ERR_MEMORY;
    for (int i = q->products.n, used = t->n; !status && i-- > 0;)
        error[i] = ht_quantizer_layer(q, i) ? measured[--used] : 0;
    return status;
}

static const ht_layer *widest(const ht_quantizer *q, int i)
{
    return ht_quantizer_may_widen(q, i) ? &q->wide[i].layer : ht_quantizer_layer(q, i);
}

/* Every layer as wide as it can be, inputs as they are; no candidates yet.  Were the inputs of the others codes, a
 * layer's change would be rounded anew in all of them, and that noise is larger than what most layers do. */
static ht_status start_trial(ht_quantizer *q, trial *t)
{
    size_t n = (size_t)q->products.n;
    *t = (trial){.q = q,
                 .base = ht_alloc_array(q->arena, n, sizeof *t->base),
                 .candidates = ht_alloc_array(q->arena, n, sizeof *t->candidates)};
    if (!t->base || !t->candidates)
        return HT_ERR_MEMORY;
    for (int i = 0; i < q->products.n; i++)
        if (ht_quantizer_layer(q, i))
            t->base[t->n++] = *widest(q, i);
    for (int i = 0; i < t->n; i++)
        t->base[i].mode = HT_INPUT_FLOAT;
    return HT_OK;
}

/* ---- an order of gain by cost ---- */

typedef struct gain {
    int product;
    double error, cost;
} gain;

static int by_gain(const void *a, const void *b)
{
    const gain *x = a, *y = b;
    double left = x->error * y->cost, right = y->error * x->cost;
    return left != right ? (left < right) - (left > right) : x->product - y->product;
}

/* Take gains in their order as long as they fit, passing over those that do not. */
static void take(gain *gains, int n, double budget, void (*raise)(ht_quantizer *q, int i), ht_quantizer *q)
{
    qsort(gains, (size_t)n, sizeof *gains, by_gain);
    for (int i = 0; i < n; i++)
        if (gains[i].cost <= budget) {
            budget -= gains[i].cost;
            raise(q, gains[i].product);
        }
}

/* ---- inputs ---- */

static void leave_float(ht_quantizer *q, int i)
{
    q->choices[i].float_input = true;
    q->low[i].layer.mode = q->wide[i].layer.mode = HT_INPUT_FLOAT;
}

static bool may_stay_float(const ht_quantizer *q, int i)
{
    const ht_layer *layer = ht_quantizer_layer(q, i);
    return layer && layer->mode != HT_INPUT_FLOAT && q->choices[i].may_widen;
}

static ht_status choose_inputs(ht_quantizer *q)
{
    size_t n = (size_t)q->products.n;
    double *error = ht_alloc_array(q->arena, n, sizeof *error), noise = 0, work = 0;
    gain *gains = ht_alloc_array(q->arena, n, sizeof *gains);
    trial t;
    int used = 0, candidates = 0;
    ht_status status = error && gains ? start_trial(q, &t) : HT_ERR_MEMORY;
    for (int i = 0; !status && i < q->products.n; i++) {
        if (!ht_quantizer_layer(q, i))
            continue;
        if (may_stay_float(q, i)) {
            t.candidates[used] = *widest(q, i);
            candidates++;
        }
        used++;
    }
    if (!status && candidates)
        status = measure(&t, error);
    if (status || !candidates)
        return status;
    for (int i = 0; i < q->products.n; i++) {
        noise += error[i];
        work += q->products.product[i].macs;
    }
    candidates = 0;
    for (int i = 0; i < q->products.n; i++)
        if (may_stay_float(q, i) && error[i] > FLOAT_ERROR * noise)
            gains[candidates++] = (gain){i, error[i], q->products.product[i].macs};
    take(gains, candidates, FLOAT_WORK * work, leave_float, q);
    return HT_OK;
}

/* ---- weights ---- */

static void widen(ht_quantizer *q, int i)
{
    q->choices[i].width = HT_WIDTH_WIDE;
}

static ht_status choose_widths(ht_quantizer *q)
{
    size_t n = (size_t)q->products.n;
    double budget = q->options->bits ? q->options->bits : DEFAULT_BITS, weights = 0;
    double *error = ht_alloc_array(q->arena, n, sizeof *error);
    gain *gains = ht_alloc_array(q->arena, n, sizeof *gains);
    trial t;
    int used = 0, candidates = 0;
    ht_status status = error && gains ? start_trial(q, &t) : HT_ERR_MEMORY;
    for (int i = 0; !status && i < q->products.n; i++) {
        const ht_model_product *p = &q->products.product[i];
        bool widens = ht_quantizer_may_widen(q, i);
        weights += (double)p->weights;
        if (widens) {
            t.candidates[used] = q->low[i].layer;
            t.candidates[used].mode = HT_INPUT_FLOAT;
            double bits = ht_layer_bits(&q->wide[i].layer) - ht_layer_bits(&q->low[i].layer);
            gains[candidates++] = (gain){.product = i, .cost = bits * (double)p->weights};
        }
        used += ht_quantizer_layer(q, i) != NULL;
    }
    double left = (budget - ht_quantizer_bits(q)) * weights;
    if (status || !candidates || left <= 0)
        return status;
    for (int i = 0; i < q->products.n; i++)
        error[i] = q->low[i].error.after - q->wide[i].error.after;
    if (!is_large(q))
        status = measure(&t, error);
    for (int i = 0; i < candidates; i++)
        gains[i].error = error[gains[i].product];
    if (!status)
        take(gains, candidates, left, widen, q);
    return status;
}

/* ---- temporal features ---- */

/* Where quantizing disturbs features that depend on the timestep alone by more than this (squared, relative), they come
 * from the cache instead (the selection of Temporal Feature Matters, arXiv:2407.19547, section 4.4). */
static const double DISTURBED = 1e-3;

static ht_status choose_temporal(ht_quantizer *q)
{
    size_t n = (size_t)q->products.n;
    double *error = ht_alloc_array(q->arena, n, sizeof *error);
    ht_layer *layers = ht_alloc_array(q->arena, n, sizeof *layers);
    int used = 0;
    if (!error || !layers)
        return HT_ERR_MEMORY;
    for (int i = 0; i < q->products.n; i++)
        if (ht_quantizer_layer(q, i))
            layers[used++] = *ht_quantizer_layer(q, i);
    ht_status status =
        ht_temporal_errors(q->model, &q->calibration, &q->products, &(ht_layers){.layer = layers, .n = used}, error);
    for (int i = 0; !status && i < q->products.n; i++) {
        if (!error[i] || !ht_quantizer_layer(q, i))
            continue;
        ht_quantizer_layer(q, i)->error = error[i];
        if (q->choices[i].may_cache && error[i] > DISTURBED) {
            leave_float(q, i);
            widen(q, i);
        }
    }
    return status;
}

ht_status ht_quantizer_choose(ht_quantizer *q)
{
    ht_status status = is_large(q) ? HT_OK : choose_inputs(q);
    q->before += HT_SHARE_CHOOSE / 2;
    if (!status)
        status = choose_temporal(q);
    if (!status)
        status = choose_widths(q);
    q->before += HT_SHARE_CHOOSE / 2;
    return status;
}

ht_layer *ht_quantizer_layer(const ht_quantizer *q, int i)
{
    switch (q->choices[i].width) {
    case HT_WIDTH_LOW:
        return &q->low[i].layer;
    case HT_WIDTH_WIDE:
        return &q->wide[i].layer;
    default:
        return NULL;
    }
}

double ht_quantizer_bits(const ht_quantizer *q)
{
    double bits = 0, weights = 0;
    for (int i = 0; i < q->products.n; i++) {
        const ht_model_product *p = &q->products.product[i];
        const ht_layer *layer = ht_quantizer_layer(q, i);
        bits += (layer ? ht_layer_bits(layer) : ht_dtype_bits(p->weight->dtype)) * (double)p->weights;
        weights += (double)p->weights;
    }
    return bits / weights;
}
