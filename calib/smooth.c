/* smooth.c - factors of smoothing, from ranges of inputs and the weights that read them. */
#include "calib/smooth.h"

#include <math.h>
#include <stdlib.h>

#include "core/elementary.h"

static const double LARGEST = 0x1p32; /* of a factor, and of what it divides weights by */

/* most[channels] of |W|, over outputs and taps, [out][channels][taps]. */
static ht_status largest_weights(const ht_model_product *p, float *most)
{
    size_t channels = (size_t)(p->parts[0] + p->parts[1]), out = (size_t)p->weight->shape[0];
    size_t row = p->weight->count / out, taps = row / channels;
    float *values = malloc(row * sizeof *values);
    if (!values)
        return ht_fail(HT_ERR_MEMORY, "out of memory for a row of %s", p->name);
    for (size_t n = 0; n < out; n++) {
        ht_convert_to_f32(p->weight->dtype, p->weight->data, n * row, row, values);
        for (size_t k = 0; k < row; k++)
            most[k / taps] = fmaxf(most[k / taps], fabsf(values[k]));
    }
    free(values);
    return HT_OK;
}

static float largest_input(const ht_channel_ranges *r, int groups, int64_t channel)
{
    float most = 0;
    for (int64_t g = 0; g < groups; g++)
        most = fmaxf(most, fmaxf(-r->low[g * r->channels + channel], r->high[g * r->channels + channel]));
    return most;
}

static float factor_of(double input, double weight, double alpha)
{
    if (!(input > 0 && weight > 0))
        return 1;
    double s = ht_exp(alpha * ht_log(input) - (1 - alpha) * ht_log(weight));
    return (float)(1 / fmin(fmax(s, 1 / LARGEST), LARGEST));
}

ht_status ht_smooth_factors(ht_arena *arena, const ht_products *products, const bool *only,
                            const ht_channel_ranges *ranges, int groups, int i, double alpha, const float **factors)
{
    const ht_model_product *p = &products->product[i];
    const ht_channel_ranges *r = &ranges[i];
    float *f = ht_alloc_array(arena, (size_t)r->channels, sizeof *f);
    ht_status status = f ? HT_OK : HT_ERR_MEMORY;
    for (int k = 0; !status && k < products->n; k++) {
        const ht_model_product *other = &products->product[k];
        if (only[k] && other->reads[0] == p->reads[0] && other->reads[1] == p->reads[1])
            status = largest_weights(other, f);
    }
    for (int64_t c = 0; !status && c < r->channels; c++)
        f[c] = factor_of((double)largest_input(r, groups, c), (double)f[c], alpha);
    *factors = f;
    return status;
}
