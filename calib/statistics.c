/* statistics.c - counting values and choosing the range that codes cover. */
#include "calib/statistics.h"

#include <math.h>
#include <string.h>

#include "core/elementary.h"

enum { MANTISSA_SHIFT = 23 - 4 }; /* HT_BINS_PER_OCTAVE = 2^4 bins an octave */

static const float SMALLEST = 0x1p-14f; /* 2^HT_FIRST_OCTAVE */

/* The upper bits of a float are a logarithm: exponent and four bits of the mantissa. */
static int bin_of(float x)
{
    uint32_t bits;
    float a = fabsf(x);
    if (a < SMALLEST)
        return HT_SIDE;
    memcpy(&bits, &a, sizeof bits);
    int i = (int)(bits >> MANTISSA_SHIFT) - ((127 + HT_FIRST_OCTAVE) << 4);
    i = i < HT_SIDE ? i : HT_SIDE - 1;
    return x < 0 ? HT_SIDE - 1 - i : HT_SIDE + 1 + i;
}

/* The middle of a bin. */
static double middle_of(int bin)
{
    int i = bin < HT_SIDE ? HT_SIDE - 1 - bin : bin - HT_SIDE - 1;
    if (bin == HT_SIDE)
        return 0;
    double x = ldexp(1 + (i % HT_BINS_PER_OCTAVE + 0.5) / HT_BINS_PER_OCTAVE, HT_FIRST_OCTAVE + i / HT_BINS_PER_OCTAVE);
    return bin < HT_SIDE ? -x : x;
}

static void add(uint32_t *bin, uint32_t count)
{
    *bin = *bin > UINT32_MAX - count ? UINT32_MAX : *bin + count;
}

bool ht_input_statistics_count(ht_input_statistics *s, size_t n, const float *x)
{
    bool finite = true;
    float low = s->low, high = s->high;
    for (size_t i = 0; i < n; i++) {
        low = x[i] < low ? x[i] : low;
        high = x[i] > high ? x[i] : high;
        finite &= fabsf(x[i]) <= 3.402823466e38f;
    }
    if (!finite)
        return false;
    for (size_t i = 0; i < n; i++)
        add(&s->bin[bin_of(x[i])], 1);
    s->low = low;
    s->high = high;
    return true;
}

void ht_input_statistics_merge(ht_input_statistics *s, const ht_input_statistics *other)
{
    s->low = other->low < s->low ? other->low : s->low;
    s->high = other->high > s->high ? other->high : s->high;
    for (int i = 0; i < HT_BINS; i++)
        add(&s->bin[i], other->bin[i]);
}

bool ht_input_statistics_agree(const ht_input_statistics *s)
{
    int first = 0, last = HT_BINS - 1;
    while (first < HT_BINS && !s->bin[first])
        first++;
    while (last > first && !s->bin[last])
        last--;
    if (first == HT_BINS) /* nothing was counted */
        return false;
    return (s->low < 0 ? first == bin_of(s->low) : first >= HT_SIDE) &&
           (s->high > 0 ? last == bin_of(s->high) : last <= HT_SIDE);
}

/* The magnitude below which a share of all values lies, to half a bin. */
static float percentile_of(const ht_input_statistics *s, double percentile)
{
    double total = 0, seen = s->bin[HT_SIDE];
    for (int i = 0; i < HT_BINS; i++)
        total += s->bin[i];
    for (int i = 0; i < HT_SIDE; i++) {
        seen += (double)s->bin[HT_SIDE + 1 + i] + (double)s->bin[HT_SIDE - 1 - i];
        if (seen >= total * percentile / 100)
            return (float)middle_of(HT_SIDE + 1 + i);
    }
    return (float)middle_of(HT_BINS - 1);
}

static double error_of(const ht_input_statistics *s, const ht_block *b, double power)
{
    double sum = 0, inv = 1 / (double)b->scale;
    for (int i = 0; i < HT_BINS; i++) {
        if (!s->bin[i])
            continue;
        double x = middle_of(i), y = (double)ht_grid_round(&b->grid, (float)(x * inv)) * (double)b->scale,
               e = fabs(x - y);
        /* Inside a bin values are spread evenly, and so is what rounding takes from them when a step is finer. */
        double step = (double)b->scale * (double)b->grid.unit;
        if (!b->grid.exponent_bits && e <= step / 2 && fabs(x) / (2.0 * HT_BINS_PER_OCTAVE) > step / 4)
            e = step / sqrt(12.0);
        sum += s->bin[i] * (power == 2 ? e * e : ht_pow(e, power));
    }
    return sum;
}

static ht_block search(const ht_input_statistics *s, const ht_format *format, double power)
{
    ht_block best = ht_format_block_of_range(format, s->low, s->high);
    double least = error_of(s, &best, power);
    for (int down = 0; down < 2; down++) /* shrink the upper end alone, then both: what SiLU leaves below is short */
        for (int percent = 99; percent >= 21; percent -= percent > 60 ? 1 : 3) {
            float p = (float)percent / 100;
            ht_block b = ht_format_block_of_range(format, down ? s->low * p : s->low, s->high * p);
            double error = error_of(s, &b, power);
            if (error < least) {
                least = error;
                best = b;
            }
        }
    return best;
}

ht_block ht_input_statistics_range(const ht_input_statistics *s, const ht_format *format, ht_scale_method method,
                                   double percentile)
{
    float limit;
    switch (method) {
    case HT_SCALE_PERCENTILE:
        limit = percentile_of(s, percentile ? percentile : 99.9);
        return ht_format_block_of_range(format, s->low < -limit ? -limit : s->low, s->high > limit ? limit : s->high);
    case HT_SCALE_MSE:
        return search(s, format, 2);
    case HT_SCALE_L2_4:
        return search(s, format, 2.4);
    default:
        return ht_format_block_of_range(format, s->low, s->high);
    }
}
