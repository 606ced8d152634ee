/* ranges.c - gathering ranges of channels: the inputs of an observed graph, batch by batch. */
#include "calib/ranges.h"

#include "calib/batch.h"

typedef struct gatherer {
    const ht_calibration *calibration;
    const ht_products *products;
    const ht_channel_ranges_options *options;
    ht_channel_ranges *ranges;
    const ht_op **ops; /* [n]; NULL: not meant */
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
    for (int i = 0; i < a->products->n; i++)
        for (int slot = HT_IN_X, at = 0; a->ops[i] && slot <= HT_IN_X2 && !status; slot++) {
            const ht_value *x = a->ops[i]->in[slot];
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

static ht_status allocate(ht_arena *arena, const ht_graph *g, gatherer *a)
{
    int64_t largest = 1;
    a->ops = ht_alloc_array(arena, (size_t)a->products->n + 1, sizeof *a->ops);
    for (int i = 0; a->ops && i < a->products->n; i++) {
        const ht_model_product *p = &a->products->product[i];
        ht_channel_ranges *r = &a->ranges[i];
        if (!a->options->only[i])
            continue;
        size_t count = (size_t)(p->parts[0] + p->parts[1]) * (size_t)a->calibration->groups;
        *r = (ht_channel_ranges){.channels = p->parts[0] + p->parts[1],
                                 .low = ht_alloc_array(arena, count, sizeof *r->low),
                                 .high = ht_alloc_array(arena, count, sizeof *r->high)};
        if (!r->low || !r->high)
            return HT_ERR_MEMORY;
        if (!(a->ops[i] = ht_product_op(g, p)))
            return ht_fail(HT_ERR_ARGUMENT, "%s: its inputs cannot be observed", p->name);
        for (int slot = HT_IN_X; slot <= HT_IN_X2; slot++)
            if (a->ops[i]->in[slot] && ht_value_count(a->ops[i]->in[slot]) > largest)
                largest = ht_value_count(a->ops[i]->in[slot]);
    }
    a->room = a->ops ? ht_alloc_array(arena, (size_t)largest, sizeof *a->room) : NULL;
    return a->room ? HT_OK : HT_ERR_MEMORY;
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
