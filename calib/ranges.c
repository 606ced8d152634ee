/* ranges.c - gathering ranges of channels: the inputs of an observed graph, batch by batch. */
#include "calib/ranges.h"

#include "calib/batch.h"

typedef struct used {
    int product;
    const ht_op *op;
} used;

typedef struct gatherer {
    const ht_calibration *calibration;
    const ht_products *products;
    const ht_channel_ranges_options *options;
    ht_channel_ranges *ranges;
    used *ops; /* of every use of every product that is meant */
    int n_ops;
    float *room;
    int64_t done;
} gatherer;

/* rows of x, into channels first .. first+width-1 of a group. */
static void widen(const ht_channel_ranges *r, int group, int64_t first, int64_t width, int64_t rows, const float *x)
{
    float *low = r->low + group * r->channels + first, *high = r->high + group * r->channels + first;
    for (; rows-- > 0; x += width)
        for (int64_t i = 0; i < width; i++) {
            low[i] = x[i] < low[i] ? x[i] : low[i];
            high[i] = x[i] > high[i] ? x[i] : high[i];
        }
}

static ht_status add_batch(void *user, ht_session *session, int group, int64_t first, int n)
{
    gatherer *a = user;
    ht_status status = HT_OK;
    (void)first;
    for (int k = 0; k < a->n_ops; k++)
        for (int slot = HT_IN_X, at = 0; slot <= HT_IN_X2 && !status; slot++) {
            const ht_value *x = a->ops[k].op->in[slot];
            int i = a->ops[k].product;
            int64_t width = a->products->product[i].parts[slot];
            if (!x)
                continue;
            status = ht_session_read(session, x, a->room);
            if (!status)
                widen(&a->ranges[i], group, at, width, ht_session_value_count(session, x) / width, a->room);
            at += (int)width;
        }
    a->done += n;
    if (!status && a->options->progress && a->options->progress(a->options->user, a->done, a->calibration->samples))
        status = ht_fail(HT_ERR_CANCELLED, "quantization was cancelled");
    return status;
}

static ht_status list_uses(const ht_graph *g, int i, gatherer *a, int64_t *largest)
{
    const ht_model_product *p = &a->products->product[i];
    for (int use = 0; use < p->uses; use++) {
        const ht_op *op = ht_product_op(g, p, use);
        if (!op)
            return ht_fail(HT_ERR_ARGUMENT, "%s: its inputs cannot be observed", p->name);
        a->ops[a->n_ops++] = (used){i, op};
        for (int slot = HT_IN_X; slot <= HT_IN_X2; slot++)
            if (op->in[slot] && ht_value_count(op->in[slot]) > *largest)
                *largest = ht_value_count(op->in[slot]);
    }
    return HT_OK;
}

static ht_status allocate(ht_arena *arena, const ht_graph *g, gatherer *a)
{
    int64_t largest = 1;
    ht_status status = HT_OK;
    if (!(a->ops = ht_alloc_array(arena, (size_t)ht_graph_ops(g), sizeof *a->ops)))
        return HT_ERR_MEMORY;
    for (int i = 0; !status && i < a->products->n; i++) {
        const ht_model_product *p = &a->products->product[i];
        ht_channel_ranges *r = &a->ranges[i];
        if (!a->options->only[i])
            continue;
        size_t count = (size_t)(p->parts[0] + p->parts[1]) * (size_t)a->calibration->groups;
        *r = (ht_channel_ranges){.channels = p->parts[0] + p->parts[1],
                                 .low = ht_alloc_array(arena, count, sizeof *r->low),
                                 .high = ht_alloc_array(arena, count, sizeof *r->high)};
        status = r->low && r->high ? list_uses(g, i, a, &largest) : HT_ERR_MEMORY;
    }
    a->room = ht_alloc_array(arena, (size_t)largest, sizeof *a->room);
    return status ? status : a->room ? HT_OK : HT_ERR_MEMORY;
}

ht_status ht_channel_ranges_gather(ht_arena *arena, ht_model *model, const ht_calibration *calibration,
                                   const ht_products *products, const ht_channel_ranges_options *options,
                                   ht_channel_ranges *ranges)
{
    gatherer a = {.calibration = calibration, .products = products, .options = options, .ranges = ranges};
    ht_session *session = NULL;
    ht_session_options how = {
        .batch = options->batch, .threads = options->threads, .tokens = calibration->contexts.tokens};
    ht_session_extras extras = {.observe = {.inputs = true}};
    how.batch = ht_batch_within(model, &how, &extras);
    ht_status status = ht_session_open_with(model, &how, &extras, &session);
    if (!status)
        status = allocate(arena, ht_session_graph(session), &a);
    if (!status)
        status = ht_calibration_run(calibration, session, add_batch, &a);
    ht_session_close(session);
    return status;
}
