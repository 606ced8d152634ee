/* step.c - one step of one image: predict x0, bound it, combine it with x and with what earlier steps kept.
 *
 * Plain loops in a fixed order, one rounding an operation, so the bits do not depend on how the compiler vectorizes
 * them. Thresholding ("dynamic thresholding", Imagen, arXiv:2205.11487, section 2.3) needs an order statistic: bits of
 * floats that are not negative order as the floats do, so it is found digit by digit with a histogram, without moving
 * anything. */
#include <math.h>
#include <string.h>

#include "core/elementary.h"
#include "sampler/trajectory.h"

/* The k-th smallest (from 0) of |x|; NaN counts as the largest. */
static float select_abs(const float *x, size_t n, size_t k)
{
    uint32_t prefix = 0, mask = 0;
    for (int shift = 24; shift >= 0; shift -= 8) {
        size_t histogram[256] = {0};
        uint32_t digit = 0;
        for (size_t i = 0; i < n; i++) {
            uint32_t bits;
            memcpy(&bits, &x[i], sizeof bits);
            bits &= 0x7fffffffu;
            histogram[bits >> shift & 255] += (bits & mask) == prefix;
        }
        while (k >= histogram[digit])
            k -= histogram[digit++];
        prefix |= digit << shift;
        mask |= 255u << shift;
    }
    float value;
    memcpy(&value, &prefix, sizeof value);
    return value;
}

/* torch.quantile(|x|, ratio): linear between the neighbours, the rank in float32. */
static float quantile_abs(const float *x, size_t n, float ratio)
{
    float rank = ratio * (float)(n - 1);
    size_t below = (size_t)rank < n ? (size_t)rank : n - 1; /* float32 may round n - 1 up */
    size_t above = below + 1 < n ? below + 1 : below;
    float lower = select_abs(x, n, below), upper = select_abs(x, n, above);
    return lower + (rank - (float)below) * (upper - lower);
}

/* NaN stays NaN: both comparisons are false. */
static float clamp(float x, float bound)
{
    return x < -bound ? -bound : x > bound ? bound : x;
}

static void threshold(const ht_schedule_config *config, size_t n, float *x0)
{
    float s = quantile_abs(x0, n, (float)config->dynamic_thresholding_ratio);
    float most = (float)config->sample_max_value;
    s = s < 1 ? 1 : s;
    s = s > most ? most : s;
    for (size_t i = 0; i < n; i++)
        x0[i] = clamp(x0[i], s) / s;
}

static void bound_x0(const ht_trajectory *trajectory, size_t n, float *x0)
{
    float range = (float)trajectory->config->clip_sample_range;
    if (trajectory->bound == HT_BOUND_THRESHOLD)
        threshold(trajectory->config, n, x0);
    else if (trajectory->bound == HT_BOUND_CLIP)
        for (size_t i = 0; i < n; i++)
            x0[i] = clamp(x0[i], range);
}

static float learned_std(const ht_step_row *row, float v)
{
    if (row->noise == HT_NOISE_LEARNED)
        return sqrtf(v);
    float share = (v + 1) * 0.5f; /* arXiv:2102.09672 eq. 15 */
    float x = 0.5f * (share * row->max_log + (1 - share) * row->min_log);
    if (!(x > -100 && x < 88)) /* below the smallest float, above the largest, NaN */
        return x < 0 ? 0 : x + INFINITY;
    return (float)ht_exp((double)x);
}

static void add_learned_noise(const ht_step_row *row, const ht_step_image *m)
{
    size_t channels = (size_t)m->channels;
    for (size_t p = 0; p < m->pixels; p++) {
        const float *v = m->output + p * (size_t)m->output_channels + channels;
        for (size_t c = 0; c < channels; c++)
            m->x[p * channels + c] += learned_std(row, v[c]) * m->noise[p * channels + c];
    }
}

/* y += factor of slot s, for all s in their order. */
static void add_slots(const float *factors, const ht_step_image *m, size_t n, float *y)
{
    for (size_t s = 0; s < HT_STEP_SLOTS; s++) {
        const float *slot = m->slots + s * n;
        if (factors[s] < 0 || factors[s] > 0)
            for (size_t k = 0; k < n; k++)
                y[k] += factors[s] * slot[k];
    }
}

/* What the step keeps for later ones, and its correction of x. */
static void keep(const ht_step_row *row, const ht_step_image *m, size_t n)
{
    size_t channels = (size_t)m->channels;
    float *x = m->x, *to = m->slots + (size_t)(row->keep > 0 ? row->keep : 0) * n;
    for (size_t p = 0; row->keep >= 0 && p < m->pixels; p++)
        for (size_t c = 0, k = p * channels; c < channels; c++, k++)
            to[k] = (row->keep_of_x0 * m->scratch[k] + row->keep_of_x * x[k]) +
                    row->keep_of_out * m->output[p * (size_t)m->output_channels + c];
    if (row->corrects) {
        for (size_t k = 0; k < n; k++)
            x[k] *= row->correct_x;
        add_slots(row->correct_slot, m, n, x);
    }
    if (row->keep_x >= 0)
        memcpy(m->slots + (size_t)row->keep_x * n, x, n * sizeof *x);
}

void ht_trajectory_step(const ht_trajectory *trajectory, int i, const ht_step_image *m)
{
    const ht_step_row *row = &trajectory->rows[i];
    size_t n = m->pixels * (size_t)m->channels;
    /* Without a second half to step over, the image is one long run. */
    size_t width = m->output_channels == m->channels ? n : (size_t)m->channels;
    size_t stride = m->output_channels == m->channels ? n : (size_t)m->output_channels;
    float *x = m->x, *x0 = m->scratch;
    for (size_t p = 0, at = 0; at < n; p++, at += width)
        for (size_t c = 0; c < width; c++)
            x0[at + c] = row->x0_of_x * x[at + c] + row->x0_of_out * m->output[p * stride + c];
    bound_x0(trajectory, n, x0);
    if (trajectory->slots)
        keep(row, m, n);
    for (size_t p = 0, at = 0; at < n; p++, at += width)
        for (size_t c = 0; c < width; c++)
            x[at + c] = (row->of_x0 * x0[at + c] + row->of_x * x[at + c]) + row->of_out * m->output[p * stride + c];
    if (trajectory->slots)
        add_slots(row->of_slot, m, n, x);
    if (row->noise == HT_NOISE_FIXED)
        for (size_t k = 0; k < n; k++)
            x[k] += row->std * m->noise[k];
    else if (row->noise != HT_NOISE_NONE)
        add_learned_noise(row, m);
}

void ht_add_noise(const ht_step_row *row, size_t n, const float *x0, const float *noise, float *out)
{
    for (size_t i = 0; i < n; i++)
        out[i] = row->signal * x0[i] + row->sigma * noise[i];
}
