/* moments.c - gathering second moments: the gram operations of an observed graph, batch by batch, weighed by how much
 * the timestep matters. */
#include "calib/moments.h"

#include <stdlib.h>
#include <string.h>

typedef struct gatherer {
    const ht_calibration *calibration;
    const ht_products *products;
    const ht_input_moments_options *options;
    ht_input_moments *moments;
    const ht_value **values; /* [n]: the gram, or the input of what depends on {t} alone */
    float *room;
    int64_t done;
} gatherer;

/* h += weight * x x^T for each row of x. */
static void add_rows(ht_input_moments *m, const float *x, int64_t rows, float weight)
{
    for (int64_t r = 0; r < rows; r++, x += m->k)
        for (int64_t i = 0; i < m->k; i++) {
            float *h = m->h + i * m->k, f = weight * x[i];
            for (int64_t j = 0; j < m->k; j++)
                h[j] += f * x[j];
        }
}

static ht_status add_timestep(void *user, ht_session *session, int group, int64_t first, int n)
{
    gatherer *a = user;
    ht_status status = HT_OK;
    (void)group, (void)first, (void)n;
    for (int i = 0; !status && i < a->products->n; i++) {
        ht_input_moments *m = &a->moments[i];
        if (!ht_product_is_temporal(&a->products->product[i]))
            continue;
        status = ht_session_read(session, a->values[i], a->room);
        if (!status)
            add_rows(m, a->room, ht_session_value_count(session, a->values[i]) / m->k, 1);
    }
    return status;
}

static ht_status add_batch(void *user, ht_session *session, int group, int64_t first, int n)
{
    gatherer *a = user;
    ht_status status = HT_OK;
    float weight = (float)a->options->weights[group];
    (void)first;
    for (int i = 0; !status && i < a->products->n; i++) {
        ht_input_moments *m = &a->moments[i];
        if (ht_product_is_temporal(&a->products->product[i]))
            continue;
        status = ht_session_read(session, a->values[i], a->room);
        for (int64_t k = 0; !status && k < m->k * m->k; k++)
            m->h[k] += weight * a->room[k];
    }
    a->done += n;
    if (!status && a->options->progress && a->options->progress(a->options->user, a->done, a->calibration->samples))
        status = ht_fail(HT_ERR_CANCELLED, "quantization was cancelled");
    return status;
}

static ht_status find_values(ht_arena *arena, const ht_graph *g, gatherer *a)
{
    int64_t largest = 1;
    a->values = ht_alloc_array(arena, (size_t)a->products->n, sizeof *a->values);
    if (!a->values)
        return HT_ERR_MEMORY;
    for (int i = 0; i < a->products->n; i++) {
        const ht_model_product *p = &a->products->product[i];
        const ht_op *op = ht_product_op(g, p);
        char *name = ht_sprintf(arena, "%s.gram", p->weight->name);
        a->values[i] = ht_product_is_temporal(p) && op ? op->in[HT_IN_X] : name ? ht_graph_find(g, name) : NULL;
        if (!a->values[i])
            return ht_fail(HT_ERR_ARGUMENT, "%s: its inputs cannot be observed", p->name);
        ht_input_moments *m = &a->moments[i];
        m->k = ht_value_count(op->in[HT_IN_WEIGHT]) / op->in[HT_IN_WEIGHT]->shape[0];
        m->h = ht_alloc_array(arena, (size_t)(m->k * m->k), sizeof *m->h);
        if (!m->h)
            return HT_ERR_MEMORY;
        largest = ht_value_count(a->values[i]) > largest ? ht_value_count(a->values[i]) : largest;
    }
    a->room = ht_alloc_array(arena, (size_t)largest, sizeof *a->room);
    return a->room ? HT_OK : HT_ERR_MEMORY;
}

ht_status ht_input_moments_gather(ht_arena *arena, ht_model *model, const ht_calibration *calibration,
                                  const ht_products *products, const ht_input_moments_options *options,
                                  ht_input_moments *moments)
{
    gatherer a = {.calibration = calibration, .products = products, .options = options, .moments = moments};
    ht_session *session = NULL;
    ht_session_options how = {.batch = options->batch, .threads = options->threads, .tokens = calibration->contexts.tokens};
    ht_session_extras extras = {.observe = {.inputs = true, .windows = options->windows}};
    ht_status status = ht_session_open_with(model, &how, &extras, &session);
    if (!status)
        status = find_values(arena, ht_session_graph(session), &a);
    if (!status)
        status = ht_calibration_run(calibration, session, add_batch, &a);
    if (!status)
        status = ht_calibration_run_timesteps(calibration, session, add_timestep, &a);
    ht_session_close(session);
    return status;
}

void ht_input_moments_part(const ht_input_moments *m, int64_t channels, int64_t begin, int64_t count, float *out)
{
    int64_t taps = m->k / channels, k = taps * count;
    for (int64_t i = 0; i < k; i++) {
        const float *row = m->h + (i / count * channels + begin + i % count) * m->k;
        for (int64_t tap = 0; tap < taps; tap++)
            memcpy(out + i * k + tap * count, row + tap * channels + begin, (size_t)count * sizeof *out);
    }
}
