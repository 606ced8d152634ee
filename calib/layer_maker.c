/* layer_maker.c - quantizing one layer: parts, input tables, scales and codes. */
#include "calib/layer_maker.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "quant/low_rank.h"
#include "quant/rotate.h"

/* ---- inputs ---- */

/* Groups first .. last-1 of an input together; of both inputs if they are quantized as one. */
static ht_status merge(const ht_layer_request *r, int slot, int first, int last, ht_input_statistics *out)
{
    bool both = r->product->parts[1] && !r->split;
    *out = (ht_input_statistics){0};
    for (int s = both ? 0 : slot; s <= (both ? 1 : slot); s++) {
        const ht_observed *seen = ht_calibration_find(r->calibration, r->product->name, s);
        if (!seen)
            return ht_fail(HT_ERR_ARGUMENT, "%s: the calibration has not seen input %d of this layer; calibrate anew",
                           r->product->name, s);
        for (int g = first; g < last; g++)
            ht_input_statistics_merge(out, &seen->by_step[g]);
    }
    return HT_OK;
}

/* The same from ranges of channels, each times its factor: of a part's channels, or all. */
static ht_block smoothed_range(const ht_layer_request *r, const ht_layer_part *part, int first, int last)
{
    float low = 0, high = 0;
    for (int64_t g = first; g < last; g++)
        for (int64_t c = part->begin; c < part->begin + part->count; c++) {
            low = fminf(low, r->ranges->low[g * r->ranges->channels + c] * r->smooth[c]);
            high = fmaxf(high, r->ranges->high[g * r->ranges->channels + c] * r->smooth[c]);
        }
    return ht_format_block_of_range(r->input, low, high);
}

static ht_status make_table(ht_arena *arena, const ht_layer_request *r, int slot, ht_layer_part *part)
{
    const ht_calibration *c = r->calibration;
    int wanted = r->product->timeless ? 1 : r->groups, groups = wanted && wanted < c->groups ? wanted : c->groups;
    float *timesteps = ht_alloc_array(arena, (size_t)groups, sizeof *timesteps);
    float *step = ht_alloc_array(arena, (size_t)groups, sizeof *step),
          *zero = ht_alloc_array(arena, (size_t)groups, sizeof *zero);
    ht_input_statistics *seen = ht_alloc(arena, sizeof *seen);
    ht_status status = timesteps && step && zero && seen ? HT_OK : HT_ERR_MEMORY;
    for (int g = 0; !status && g < groups; g++) {
        int first = c->groups * g / groups, last = c->groups * (g + 1) / groups;
        status = merge(r, slot, first, last, seen);
        if (status)
            break;
        ht_block b = r->smooth ? smoothed_range(r, part, first, last)
                               : ht_input_statistics_range(seen, r->input, r->observer, r->percentile);
        for (int i = first; i < last; i++)
            timesteps[g] += c->timesteps[i] / (float)(last - first);
        step[g] = b.scale;
        zero[g] = (float)b.grid.zero;
    }
    part->input =
        (ht_input_table){.groups = groups, .timesteps = groups > 1 ? timesteps : NULL, .step = step, .zero = zero};
    return status;
}

/* ---- weights ---- */

/* [out][in][taps] of the checkpoint to [out][taps][count] of a part. */
static float *part_values(ht_arena *arena, const ht_layer *layer, const ht_tensor *weight, int p)
{
    size_t out = (size_t)ht_layer_outputs(layer), in = (size_t)ht_layer_inputs(layer),
           taps = (size_t)ht_layer_taps(layer);
    size_t begin = (size_t)layer->part[p].begin, count = (size_t)layer->part[p].count;
    float *values = ht_alloc_array(arena, out * taps * count, sizeof *values), *row = malloc(in * taps * sizeof *row);
    for (size_t n = 0; values && row && n < out; n++) {
        ht_convert_to_f32(weight->dtype, weight->data, n * in * taps, in * taps, row);
        for (size_t tap = 0; tap < taps; tap++)
            for (size_t i = 0; i < count; i++)
                values[(n * taps + tap) * count + i] = row[(begin + i) * taps + tap];
    }
    if (!row)
        ht_fail(HT_ERR_MEMORY, "out of memory for a row of %s", layer->name);
    free(row);
    return row ? values : NULL;
}

/* Inputs of a part times their factors: weights are divided by them, moments multiplied.  h may be NULL; of [k][k]. */
static void smooth_part(const ht_layer_part *part, size_t out, size_t in, float *values, size_t k, float *h)
{
    size_t count = (size_t)part->count;
    for (size_t i = 0; i < out * in; i++)
        values[i] /= part->smooth[i % in % count];
    for (size_t i = 0; h && i < k * k; i++)
        h[i] *= part->smooth[i / k % count] * part->smooth[i % k % count];
}

/* Along both sides of h. */
static void rotate_part(int group, size_t out, size_t in, float *values, size_t k, float *h)
{
    ht_rotate(out * in, group, values);
    for (int side = 0; h && side < 2; side++) {
        ht_rotate(k * k, group, h);
        for (size_t i = 0; i < k; i++)
            for (size_t j = 0; j < i; j++) {
                float x = h[i * k + j];
                h[i * k + j] = h[j * k + i];
                h[j * k + i] = x;
            }
    }
    for (size_t i = 0; h && i < k; i++) /* symmetric, whatever was rounded */
        for (size_t j = 0; j < i; j++)
            h[i * k + j] = h[j * k + i];
}

/* What a part is rounded from: its weights and their inputs' moments, smoothed. */
typedef struct source {
    ht_matrix matrix;
    float *values, *h; /* h: [span][span], or NULL */
    size_t span;
} source;

static ht_status find_source(ht_arena *arena, const ht_layer_request *r, const ht_layer *layer, int p, source *s)
{
    const ht_layer_part *part = &layer->part[p];
    *s = (source){.matrix = ht_layer_matrix(layer, p)};
    s->matrix.values = s->values = part_values(arena, layer, r->product->weight, p);
    if (!s->values)
        return HT_ERR_MEMORY;
    if (r->moments) {
        s->span = r->moments->span == r->moments->k ? s->matrix.in : (size_t)part->count;
        s->h = ht_alloc_array(arena, s->span * s->span, sizeof *s->h);
        if (!s->h)
            return HT_ERR_MEMORY;
        ht_input_moments_part(r->moments, ht_layer_inputs(layer), part->begin, part->count, s->h);
    }
    if (part->smooth)
        smooth_part(part, s->matrix.out, s->matrix.in, s->values, s->span, s->h);
    return HT_OK;
}

/* ---- the branch of low rank ---- */

/* Both factors, [out][rank] and [rank][taps * in]; NULL where there is no branch. */
typedef struct branch {
    float *up, *down;
} branch;

/* Of the whole layer, whatever its parts. */
static ht_status find_branch(ht_arena *arena, const ht_layer_request *r, const ht_layer *layer, branch *b)
{
    ht_layer whole = *layer;
    ht_layer_request weights = *r;
    source s;
    weights.moments = NULL; /* they have no part in it */
    whole.parts = 1;
    whole.part[0] = (ht_layer_part){.count = ht_layer_inputs(layer), .smooth = r->smooth};
    ht_status status = find_source(arena, &weights, &whole, 0, &s);
    if (status)
        return status;
    size_t rank = (size_t)r->rank;
    b->up = ht_alloc_array(arena, s.matrix.out * rank, sizeof *b->up);
    b->down = ht_alloc_array(arena, s.matrix.in * rank, sizeof *b->down);
    if (!b->up || !b->down)
        return HT_ERR_MEMORY;
    return ht_low_rank(&s.matrix, r->rank, b->up, b->down);
}

/* [rank][taps][in] to the checkpoint's [rank][in][taps]; float16. */
static ht_status store_branch(ht_arena *arena, const ht_layer_request *r, const branch *b, ht_layer *layer)
{
    size_t rank = (size_t)r->rank, out = (size_t)ht_layer_outputs(layer), in = (size_t)ht_layer_inputs(layer),
           taps = (size_t)ht_layer_taps(layer);
    uint16_t *up = ht_alloc_array(arena, out * rank, sizeof *up),
             *down = ht_alloc_array(arena, rank * in * taps, sizeof *down);
    if (!up || !down)
        return HT_ERR_MEMORY;
    for (size_t i = 0; i < out * rank; i++)
        up[i] = ht_f16_from_f32(b->up[i]);
    for (size_t i = 0; i < rank * in * taps; i++) {
        size_t row = i / (in * taps), tap = i / in % taps, channel = i % in;
        down[(row * in + channel) * taps + tap] = ht_f16_from_f32(b->down[i]);
    }
    layer->rank = r->rank;
    layer->up = up;
    layer->down = down;
    return HT_OK;
}

/* Takes the branch from what a part is rounded from. */
static ht_status subtract_branch(ht_arena *arena, const ht_layer *layer, int p, const branch *b, source *s)
{
    size_t rank = (size_t)layer->rank, in = (size_t)ht_layer_inputs(layer), count = (size_t)layer->part[p].count;
    float *down = ht_alloc_array(arena, rank * s->matrix.in, sizeof *down);
    if (!down)
        return HT_ERR_MEMORY;
    for (size_t i = 0; i < rank * s->matrix.in; i++) {
        size_t row = i / s->matrix.in, tap = i / count % (s->matrix.in / count), channel = i % count;
        down[i] = b->down[(row * (s->matrix.in / count) + tap) * in + (size_t)layer->part[p].begin + channel];
    }
    ht_low_rank_subtract(s->matrix.out, s->matrix.in, layer->rank, b->up, down, s->values);
    return HT_OK;
}

/* ---- a layer ---- */

static ht_status make_weight(ht_arena *arena, const ht_layer_request *r, ht_layer *layer, int p, const branch *b,
                             ht_round_error *error)
{
    ht_layer_part *part = &layer->part[p];
    ht_arena *meanwhile = ht_arena_create();
    ht_round_options rounding = r->rounding;
    source s = {0};
    ht_status status = meanwhile ? find_source(meanwhile, r, layer, p, &s) : HT_ERR_MEMORY;
    double signal = status || !layer->rank ? 0 : ht_output_signal(&s.matrix, s.h, s.span);
    if (signal < 0)
        status = ht_fail(HT_ERR_MEMORY, "%s: out of memory", layer->name);
    if (!status && layer->rank)
        status = subtract_branch(meanwhile, layer, p, b, &s);
    if (!status && layer->rotate)
        rotate_part(layer->rotate, s.matrix.out, s.matrix.in, s.values, s.span, s.h);
    if (!status)
        status = ht_quantized_alloc(arena, &layer->format, &s.matrix, &part->weight);
    rounding.moments_block = s.h ? s.span : 0;
    if (!status)
        status = ht_round(&layer->format, &s.matrix, s.h, &rounding, &part->weight, error);
    if (!status && signal > 0) /* with what the branch has of it */
        *error =
            (ht_round_error){error->before * error->signal / signal, error->after * error->signal / signal, signal};
    ht_arena_free(meanwhile);
    return status;
}

static ht_status make_parts(ht_arena *arena, const ht_layer_request *r, ht_layer *layer, const branch *b,
                            ht_round_error *error)
{
    ht_status status = HT_OK;
    for (int i = 0; !status && i < layer->parts; i++) {
        ht_round_error of_part = {0};
        status = make_weight(arena, r, layer, i, b, &of_part);
        error->before += of_part.before * of_part.signal;
        error->after += of_part.after * of_part.signal;
        error->signal += of_part.signal;
        if (!status && layer->mode == HT_INPUT_STATIC)
            status = make_table(arena, r, i, &layer->part[i]);
    }
    error->before /= error->signal > 0 ? error->signal : 1;
    error->after /= error->signal > 0 ? error->signal : 1;
    return status;
}

ht_status ht_layer_make(ht_arena *arena, const ht_layer_request *r, ht_layer *layer, ht_round_error *error)
{
    const ht_model_product *p = r->product;
    bool split = p->parts[1] && r->split && r->input;
    *layer =
        (ht_layer){.name = p->name, .ndim = p->weight->ndim, .format = *r->format, .parts = split ? 2 : 1, .error = -1};
    memcpy(layer->shape, p->weight->shape, sizeof layer->shape);
    layer->mode = !r->input ? HT_INPUT_FLOAT : r->dynamic ? HT_INPUT_DYNAMIC : HT_INPUT_STATIC;
    if (r->input)
        layer->input = *r->input;
    layer->part[0].count = split ? p->parts[0] : ht_layer_inputs(layer);
    layer->part[1] = (ht_layer_part){.begin = p->parts[0], .count = p->parts[1]};
    bool whole = r->rotate != 0;
    for (int i = 0; whole && i < layer->parts; i++)
        whole = layer->part[i].count % r->rotate == 0;
    layer->rotate = whole ? r->rotate : 0;
    for (int i = 0; r->smooth && i < layer->parts; i++)
        layer->part[i].smooth = r->smooth + layer->part[i].begin;
    *error = (ht_round_error){0};
    ht_arena *meanwhile = r->rank ? ht_arena_create() : NULL;
    branch b = {0};
    ht_status status = r->rank && !meanwhile ? HT_ERR_MEMORY : HT_OK;
    if (!status && r->rank)
        status = find_branch(meanwhile, r, layer, &b);
    if (!status && r->rank)
        status = store_branch(arena, r, &b, layer);
    if (!status)
        status = make_parts(arena, r, layer, &b, error);
    ht_arena_free(meanwhile);
    layer->error = error->after;
    return status;
}
