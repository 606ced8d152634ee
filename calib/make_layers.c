/* make_layers.c - all layers of a model, by as many threads as there are: rounding a layer needs no other. */
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>

#include "calib/quantizer.h"
#include "cpu/team.h"

typedef struct workshop {
    ht_quantizer *q;
    int n;
    const int *order; /* [n]: largest layers first, so that no thread is left with one at the end */
    atomic_int next;
    atomic_bool stopping; /* the caller wants no more, or a layer failed */
    pthread_mutex_t lock; /* of what follows */
    ht_status status;
    char message[512];
    int done;
} workshop;

bool ht_quantizer_may_widen(const ht_quantizer *q, int i)
{
    return q->choices[i].may_widen && q->choices[i].width == HT_WIDTH_LOW &&
           strcmp(q->scheme.low.name, q->scheme.wide.name) != 0;
}

/* Weights of a layer beyond which scales beside those found are not tried: that takes seven times as long, for 0.3 dB.
 */
enum { MOST_TRIED = 1 << 22 };

/* A thread at work: callbacks come from the caller's own. */
typedef struct worker {
    workshop *shop;
    bool tells;
} worker;

static bool wants_stop(void *user)
{
    const worker *me = user;
    workshop *w = me->shop;
    if (me->tells && !atomic_load(&w->stopping)) {
        pthread_mutex_lock(&w->lock);
        int done = w->done;
        pthread_mutex_unlock(&w->lock);
        if (ht_quantizer_advance(w->q, ht_quantizer_share(w->q, HT_SHARE_MAKE), done, w->n))
            atomic_store(&w->stopping, true);
    }
    return atomic_load(&w->stopping);
}

static ht_status make_one(worker *me, int i, const ht_format *format, ht_made *made)
{
    ht_quantizer *q = me->shop->q;
    ht_layer_request r = {.product = &q->products.product[i],
                          .format = format,
                          .input = q->choices[i].float_input ? NULL : &q->scheme.input,
                          .dynamic = q->options->dynamic,
                          .split = !q->options->no_split,
                          .moments = q->moments[i].h ? &q->moments[i] : NULL,
                          .smooth = q->smooth[i],
                          .rotate = ht_quantizer_runs_every_step(q, i) ? q->options->rotate : 0,
                          .ranges = &q->ranges[i],
                          .rounding = q->rounding,
                          .observer = q->observer,
                          .percentile = q->options->percentile,
                          .groups = q->options->groups,
                          .calibration = &q->calibration};
    r.rounding.outputs = format->grid.bits < 8 ? q->outputs[i] : NULL;
    r.rounding.stop = wants_stop;
    r.rounding.user = me;
    if (format->grid.bits == 8 || q->products.product[i].weights > MOST_TRIED) /* finer scales gain nothing at 8 bits */
        r.rounding.candidates = 0;
    if (format->grid.bits == 8) /* nothing to widen */
        r.rounding.powers = HT_POWERS_FREE;
    if (format->grid.bits < 8)
        r.rank = ht_quantizer_rank(q, i);
    return ht_layer_make(q->arenas[i], &r, &made->layer, &made->error);
}

static bool divides(const ht_format *format, const ht_model_product *p)
{
    return p->weights / p->weight->shape[0] % format->block == 0 && !p->parts[1];
}

/* At the scheme's width: of some formats the one that errs least. */
static ht_status make_low(worker *me, int i)
{
    ht_quantizer *q = me->shop->q;
    const ht_model_product *p = &q->products.product[i];
    const ht_scheme *s = &q->scheme;
    bool fine = s->fine.name[0] && p->role == HT_ROLE_LAST && divides(&s->fine, p);
    ht_status status = make_one(me, i, &s->low, &q->low[i]);
    for (int k = 0; !status && k < s->n_other + fine; k++) {
        ht_made made;
        status = make_one(me, i, k < s->n_other ? &s->other[k] : &s->fine, &made);
        if (!status && made.error.after < q->low[i].error.after)
            q->low[i] = made;
    }
    return status;
}

static ht_status make(worker *me, int i)
{
    ht_quantizer *q = me->shop->q;
    ht_status status = HT_OK;
    if (q->choices[i].width == HT_WIDTH_LOW)
        status = make_low(me, i);
    if (!status && (q->choices[i].width == HT_WIDTH_WIDE || ht_quantizer_may_widen(q, i) || q->choices[i].may_cache))
        status = make_one(me, i, &q->scheme.wide, &q->wide[i]);
    return status;
}

/* Returns whether to go on. */
static bool finish(worker *me, ht_status status)
{
    workshop *w = me->shop;
    pthread_mutex_lock(&w->lock);
    w->done++;
    if (status && !w->status) {
        w->status = status;
        strncpy(w->message, ht_error_message(), sizeof w->message - 1);
    }
    pthread_mutex_unlock(&w->lock);
    if (status)
        atomic_store(&w->stopping, true);
    return !wants_stop(me);
}

static void work(void *argument, const ht_team *team)
{
    worker me = {.shop = argument, .tells = !team->thread};
    const workshop *w = me.shop;
    for (int nth = atomic_fetch_add(&me.shop->next, 1); nth < w->n; nth = atomic_fetch_add(&me.shop->next, 1))
        if (!finish(&me, make(&me, w->order[nth])))
            return;
}

/* A layer that was stopped because another failed says so later than that one, or not. */
static ht_status outcome_of(const workshop *w)
{
    if (w->status && w->status != HT_ERR_CANCELLED)
        return ht_fail(w->status, "%s", w->message);
    return atomic_load(&w->stopping) ? ht_fail(HT_ERR_CANCELLED, "quantization was cancelled") : HT_OK;
}

static const int *by_size(ht_arena *arena, const ht_products *p, const int *list, int n)
{
    int *order = ht_alloc_array(arena, (size_t)n + 1, sizeof *order);
    for (int i = 0; order && i < n; i++) {
        int at = i;
        for (; at > 0 && p->product[order[at - 1]].weights < p->product[list[i]].weights; at--)
            order[at] = order[at - 1];
        order[at] = list[i];
    }
    return order;
}

ht_status ht_quantizer_make(ht_quantizer *q, const int *list, int n)
{
    ht_crew *crew = NULL;
    workshop w = {.q = q, .n = n, .order = by_size(q->arena, &q->products, list, n)};
    if (!w.order)
        return HT_ERR_MEMORY;
    for (int i = 0; i < n; i++)
        if (!(q->arenas[list[i]] = ht_arena_create()))
            return HT_ERR_MEMORY;
    ht_status status = ht_crew_open(q->options->threads ? q->options->threads : ht_processors(), &crew);
    if (status)
        return status;
    pthread_mutex_init(&w.lock, NULL);
    ht_crew_run(crew, work, &w);
    pthread_mutex_destroy(&w.lock);
    ht_crew_close(crew);
    q->before += ht_quantizer_share(q, HT_SHARE_MAKE);
    return outcome_of(&w);
}
