/* psnr.c - the peak signal-to-noise ratio of pairs of images. */
#include "eval/psnr.h"

#include <math.h>

#include "core/pixel.h"

/* Squared errors of one image, summed: of its values in [0,1], and of its 8-bit levels (these are whole numbers). */
typedef struct squares {
    double exact, levels;
} squares;

static double unit(float x)
{
    double u = (double)x / 2 + 0.5;
    return u < 0 ? 0 : u > 1 ? 1 : u; /* NaN stays */
}

static squares compare(size_t values, const float *a, const float *b)
{
    squares s = {0, 0};
    for (size_t i = 0; i < values; i++) {
        double d = unit(a[i]) - unit(b[i]);
        int level = ht_pixel_of(a[i]) - ht_pixel_of(b[i]);
        s.exact += d * d;
        s.levels += (double)(level * level);
    }
    return s;
}

static double decibels(double squared_error)
{
    return -10 * log10(squared_error);
}

ht_status ht_psnr_images(int64_t n, size_t values, const float *a, const float *b, ht_psnr *out)
{
    const double peak = 255.0 * 255.0, count = (double)values;
    squares all = {0, 0};
    ht_psnr r = {0, 0, 0, 0};
    if (n < 1 || !values)
        return ht_fail(HT_ERR_ARGUMENT, "PSNR of %lld images of %zu values; wanted at least one of each", (long long)n,
                       values);
    for (int64_t i = 0; i < n; i++) {
        squares s = compare(values, a + (size_t)i * values, b + (size_t)i * values);
        if (isnan(s.exact))
            return ht_fail(HT_ERR_ARGUMENT, "image %lld of %lld has a NaN in one of the two sets", (long long)i,
                           (long long)n);
        all.exact += s.exact;
        all.levels += s.levels;
        r.mean += decibels(s.exact / count) / (double)n;
        r.mean_rounded += decibels(s.levels / (count * peak)) / (double)n;
    }
    r.pooled = decibels(all.exact / (count * (double)n));
    r.pooled_rounded = decibels(all.levels / (count * peak * (double)n));
    *out = r;
    return HT_OK;
}

double ht_psnr_pixels(size_t values, const uint8_t *a, const uint8_t *b)
{
    double sum = 0;
    for (size_t i = 0; i < values; i++)
        sum += (double)((a[i] - b[i]) * (a[i] - b[i]));
    return decibels(sum / ((double)values * 255.0 * 255.0));
}
