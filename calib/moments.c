/* moments.c - gathering second moments: the gram operations of an observed graph, batch by batch, weighed by how much
 * the timestep matters. */
#include "calib/moments.h"

#include <stdlib.h>
#include <string.h>

#include "calib/batch.h"

typedef struct gathered {
    int product;
    const ht_value *value; /* the gram, or the input of what depends on {t} alone */
} gathered;

typedef struct gatherer {
    const ht_calibration *calibration;
    const ht_products *products;
    const int *list; /* [n] */
    int n;
    const ht_input_moments_options *options;
    ht_input_moments *moments;
    gathered *values; /* of every use of every product of the list */
    int n_values;
    float *room;
    int64_t done;
} gatherer;

size_t ht_input_moments_size(const ht_model_product *p, ht_input_moments *m)
{
    int64_t channels = p->parts[0] + p->parts[1];
    m->k = p->weights / p->weight->shape[0];
    m->span = m->k > HT_MOST_WINDOW && !ht_product_is_temporal(p) ? channels : m->k;
    return (size_t)(m->span * m->span) * sizeof *m->h;
}

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
    for (int at = 0; !status && at < a->n_values; at++) {
        const ht_value *v = a->values[at].value;
        int i = a->values[at].product;
        ht_input_moments *m = &a->moments[i];
        if (!ht_product_is_temporal(&a->products->product[i]))
            continue;
        status = ht_session_read(session, v, a->room);
        if (!status)
            add_rows(m, a->room, ht_session_value_count(session, v) / m->k, 1);
    }
    return status;
}

static ht_status add_batch(void *user, ht_session *session, int group, int64_t first, int n)
{
    gatherer *a = user;
    ht_status status = HT_OK;
    float weight = (float)a->options->weights[group];
    (void)first;
    for (int at = 0; !status && at < a->n_values; at++) {
        const ht_value *v = a->values[at].value;
        int i = a->values[at].product;
        ht_input_moments *m = &a->moments[i];
        if (ht_product_is_temporal(&a->products->product[i]))
            continue;
        status = ht_session_read(session, v, a->room);
        for (int64_t k = 0; !status && k < m->span * m->span; k++)
            m->h[k] += weight * a->room[k];
    }
    a->done += n;
    if (!status && a->options->progress && a->options->progress(a->options->user, a->done, a->calibration->samples))
        status = ht_fail(HT_ERR_CANCELLED, "quantization was cancelled");
    return status;
}

/* The value that moments of use number `use` come from; NULL: there is none. */
static const ht_value *find_value(ht_arena *arena, const ht_graph *g, const ht_model_product *p, int use)
{
    const ht_op *op = ht_product_op(g, p, use);
    const char *name =
        use ? ht_sprintf(arena, "%s.gram.%d", p->weight->name, use) : ht_sprintf(arena, "%s.gram", p->weight->name);
    return ht_product_is_temporal(p) && op ? op->in[HT_IN_X] : name ? ht_graph_find(g, name) : NULL;
}

static ht_status find_values(ht_arena *arena, const ht_graph *g, gatherer *a)
{
    int64_t largest = 1;
    size_t most = 0;
    for (int at = 0; at < a->n; at++)
        most += (size_t)a->products->product[a->list[at]].uses;
    if (!(a->values = ht_alloc_array(arena, most, sizeof *a->values)))
        return HT_ERR_MEMORY;
    for (int at = 0; at < a->n; at++) {
        int i = a->list[at];
        const ht_model_product *p = &a->products->product[i];
        ht_input_moments *m = &a->moments[i];
        for (int use = 0; use < p->uses; use++) {
            const ht_value *v = find_value(arena, g, p, use);
            if (!v)
                return ht_fail(HT_ERR_ARGUMENT, "%s: its inputs cannot be observed", p->name);
            a->values[a->n_values++] = (gathered){i, v};
            largest = ht_value_count(v) > largest ? ht_value_count(v) : largest;
        }
        m->h = ht_alloc_array(arena, ht_input_moments_size(p, m) / sizeof *m->h, sizeof *m->h);
        if (!m->h)
            return HT_ERR_MEMORY;
    }
    a->room = ht_alloc_array(arena, (size_t)largest, sizeof *a->room);
    return a->room ? HT_OK : HT_ERR_MEMORY;
}

ht_status ht_input_moments_gather(ht_arena *arena, ht_model *model, const ht_calibration *calibration,
                                  const ht_products *products, const int *list, int n,
                                  const ht_input_moments_options *options, ht_input_moments *moments)
{
    gatherer a = {
        .calibration = calibration, .products = products, .list = list, .n = n, .options = options, .moments = moments};
    const ht_tensor **only = ht_alloc_array(arena, (size_t)n + 1, sizeof(ht_tensor *));
    ht_session *session = NULL;
    bool once = false;
    if (!only)
        return HT_ERR_MEMORY;
    for (int i = 0; i < n; i++) {
        only[i] = products->product[list[i]].weight;
        once |= ht_product_is_temporal(&products->product[list[i]]);
    }
    ht_session_options how = {
        .backend = "cpu", .batch = options->batch, .threads = options->threads, .tokens = calibration->contexts.tokens};
    ht_session_extras extras = {
        .observe = {.windows = options->windows, .most = HT_MOST_WINDOW, .only = only, .n_only = n}};
    how.batch = ht_batch_within(model, &how, &extras);
    ht_status status = ht_session_open_with(model, &how, &extras, &session);
    if (!status)
        status = find_values(arena, ht_session_graph(session), &a);
    if (!status)
        status = ht_calibration_run(calibration, session, add_batch, &a);
    if (!status && once)
        status = ht_calibration_run_timesteps(calibration, session, add_timestep, &a);
    ht_session_close(session);
    return status;
}

void ht_input_moments_part(const ht_input_moments *m, int64_t channels, int64_t begin, int64_t count, float *out)
{
    int64_t taps = m->span / channels, k = taps * count;
    for (int64_t i = 0; i < k; i++) {
        const float *row = m->h + (i / count * channels + begin + i % count) * m->span;
        for (int64_t tap = 0; tap < taps; tap++)
            memcpy(out + i * k + tap * count, row + tap * channels + begin, (size_t)count * sizeof *out);
    }
}
