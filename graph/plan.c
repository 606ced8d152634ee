/* plan.c - memory for values: lifetimes from the order of operations, offsets greedily by size (largest first, lowest
 * gap that fits; Pisarchyk and Lee, arXiv:2001.03288, section 5.2), which on U-Nets comes within a few percent of the
 * widest moment. */
#include "graph/plan.h"

#include <stdint.h>
#include <stdlib.h>

typedef struct span {
    const ht_value *value;
    ht_stage stage;
    int first, last; /* the operations that write and last read it */
    size_t bytes, offset;
    bool crosses; /* read by a stage that is not its own */
} span;

/* The value whose memory v is. */
static const ht_value *source(const ht_value *v)
{
    while (v->producer && ht_op_is_view(v->producer))
        v = v->producer->in[HT_IN_X];
    return v;
}

static bool bytes_of(const ht_value *v, const unsigned char *widths, size_t *bytes)
{
    size_t width = widths ? widths[v->id] : v->dtype == HT_U8 ? 1 : sizeof(float);
    return ht_mul_size((size_t)ht_value_count(v), width, bytes) &&
           ht_add_size(*bytes, HT_PLAN_ALIGN - 1, bytes) && (*bytes = *bytes / HT_PLAN_ALIGN * HT_PLAN_ALIGN, true);
}

static bool find_spans(const ht_graph *g, const unsigned char *widths, span *spans)
{
    for (int i = 0; i < ht_graph_ops(g); i++) {
        const ht_op *op = ht_graph_op(g, i);
        ht_stage stage = ht_stage_of(op->out->deps);
        span *out = &spans[source(op->out)->id];
        if (!ht_op_is_view(op))
            *out = (span){.value = op->out, .stage = stage, .first = i, .last = i};
        out->crosses |= op->out->tapped;
        if (!ht_op_is_view(op) && !bytes_of(op->out, widths, &out->bytes))
            return false;
        for (int j = 0; j < HT_INPUTS; j++) {
            if (!op->in[j] || op->in[j]->data)
                continue;
            span *in = &spans[source(op->in[j])->id];
            if (!in->value) { /* a graph input */
                *in = (span){.value = source(op->in[j]), .crosses = true, .stage = HT_STAGE_STEP};
                if (!bytes_of(in->value, widths, &in->bytes))
                    return false;
            }
            in->last = i;
            in->crosses |= in->stage != stage;
        }
    }
    return true;
}

static bool meet(const span *a, const span *b)
{
    return a->stage == b->stage && a->first <= b->last && b->first <= a->last;
}

static int by_size(const void *a, const void *b)
{
    const span *x = *(span *const *)a, *y = *(span *const *)b;
    if (x->bytes != y->bytes)
        return x->bytes < y->bytes ? 1 : -1;
    return x->value->id - y->value->id;
}

/* The lowest offset where s meets none of the spans placed before it, which are in the order of their offsets. */
static size_t lowest_gap(const span *s, span *const *placed, int n)
{
    size_t at = 0;
    for (int i = 0; i < n; i++) {
        if (!meet(s, placed[i]))
            continue;
        if (at + s->bytes <= placed[i]->offset)
            break;
        if (at < placed[i]->offset + placed[i]->bytes)
            at = placed[i]->offset + placed[i]->bytes;
    }
    return at;
}

/* Of a value in the work area: what it takes for so many images. */
static size_t bytes_of_images(const span *s, int images)
{
    if (!images || !s->value->batched)
        return s->bytes;
    size_t of_one = (s->bytes + (size_t)s->value->shape[0] - 1) / (size_t)s->value->shape[0];
    return (of_one * (size_t)images + HT_PLAN_ALIGN - 1) / HT_PLAN_ALIGN * HT_PLAN_ALIGN;
}

/* placed has room for n. */
static void place_work(span **work, int n, span **placed, ht_plan *plan)
{
    qsort(work, (size_t)n, sizeof *work, by_size);
    for (int i = 0; i < n; i++) {
        span *s = work[i];
        s->offset = lowest_gap(s, placed, i);
        plan->places[s->value->id] = (ht_place){HT_AREA_WORK, s->offset};
        if (plan->work_bytes < s->offset + s->bytes)
            plan->work_bytes = s->offset + s->bytes;
        int at = i;
        for (; at > 0 && placed[at - 1]->offset > s->offset; at--)
            placed[at] = placed[at - 1];
        placed[at] = s;
    }
}

ht_status ht_plan_make(const ht_graph *g, int images, const unsigned char *widths, ht_arena *arena, ht_plan *plan)
{
    size_t n = (size_t)ht_graph_values(g);
    span *spans = ht_alloc_array(arena, n + 1, sizeof *spans);
    span **work = ht_alloc_array(arena, n + 1, sizeof *work), **placed = ht_alloc_array(arena, n + 1, sizeof *placed);
    int n_work = 0;
    *plan = (ht_plan){.places = ht_alloc_array(arena, n + 1, sizeof *plan->places)};
    if (!spans || !work || !placed || !plan->places)
        return HT_ERR_MEMORY;
    if (!find_spans(g, widths, spans))
        return ht_fail(HT_ERR_MEMORY, "the values of the graph are larger than memory can be");
    for (size_t i = 0; i < n; i++) {
        span *s = &spans[i];
        if (!s->value)
            continue;
        bool row = s->crosses && s->stage == HT_STAGE_T && s->value->producer;
        size_t *end = row ? &plan->row_bytes : &plan->kept_bytes;
        if (!s->crosses) {
            s->bytes = bytes_of_images(s, images);
            work[n_work++] = s;
            continue;
        }
        plan->places[i] = (ht_place){row ? HT_AREA_ROW : HT_AREA_KEPT, *end};
        if (!ht_add_size(*end, s->bytes, end))
            return ht_fail(HT_ERR_MEMORY, "the values of the graph are larger than memory can be");
    }
    place_work(work, n_work, placed, plan);
    for (size_t i = 0; i < n; i++)
        plan->places[i] = plan->places[source(ht_graph_value(g, (int)i))->id];
    return HT_OK;
}
