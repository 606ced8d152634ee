/* ssim.c - structural similarity (Wang et al. 2004, eq. 13): moments under a sliding window, first along the columns
 * of a row of windows, then along the row. */
#include "eval/ssim.h"

#include <math.h>
#include <stdlib.h>

enum { WIDEST = 11, MOMENTS = 5 };

typedef struct window {
    int size;
    double weight[WIDEST]; /* of one direction, their sum 1 */
    double covariance;     /* times this */
} window;

static window window_of(ht_ssim_window kind)
{
    const double sigma = 1.5;
    window w = {.size = kind == HT_SSIM_GAUSSIAN ? 11 : 7, .covariance = 1};
    double sum = 0, n = w.size * w.size;
    int half = w.size / 2;
    for (int i = 0; i < w.size; i++) {
        double x = i - half;
        w.weight[i] = kind == HT_SSIM_GAUSSIAN ? exp(-0.5 * x * x / (sigma * sigma)) : 1;
        sum += w.weight[i];
    }
    for (int i = 0; i < w.size; i++)
        w.weight[i] /= sum;
    if (kind == HT_SSIM_UNIFORM7)
        w.covariance = n / (n - 1);
    return w;
}

/* a, b, a^2, b^2, ab under the window's columns: one entry a column. */
static void sum_columns(const window *w, const uint8_t *a, const uint8_t *b, size_t stride, double *moments)
{
    for (int m = 0; m < MOMENTS; m++)
        moments[m] = 0;
    for (int i = 0; i < w->size; i++) {
        double x = a[(size_t)i * stride], y = b[(size_t)i * stride], k = w->weight[i];
        moments[0] += k * x;
        moments[1] += k * y;
        moments[2] += k * x * x;
        moments[3] += k * y * y;
        moments[4] += k * x * y;
    }
}

static double similarity(const window *w, const double (*columns)[MOMENTS])
{
    const double c1 = 0.01 * 255 * 0.01 * 255, c2 = 0.03 * 255 * 0.03 * 255;
    double m[MOMENTS] = {0};
    for (int i = 0; i < w->size; i++)
        for (int k = 0; k < MOMENTS; k++)
            m[k] += w->weight[i] * columns[i][k];
    double va = w->covariance * (m[2] - m[0] * m[0]), vb = w->covariance * (m[3] - m[1] * m[1]);
    double vab = w->covariance * (m[4] - m[0] * m[1]);
    return (2 * m[0] * m[1] + c1) * (2 * vab + c2) / ((m[0] * m[0] + m[1] * m[1] + c1) * (va + vb + c2));
}

ht_status ht_ssim_pixels(ht_ssim_window window_kind, int h, int w, int c, const uint8_t *a, const uint8_t *b,
                         double *out)
{
    window win = window_of(window_kind);
    if (h < win.size || w < win.size || c < 1)
        return ht_fail(HT_ERR_SHAPE, "SSIM of pictures of %d x %d; wanted %d x %d at least", w, h, win.size, win.size);
    double(*columns)[MOMENTS] = calloc((size_t)w, sizeof *columns);
    double sum = 0;
    size_t row = (size_t)w * (size_t)c;
    if (!columns)
        return ht_fail(HT_ERR_MEMORY, "out of memory for SSIM");
    for (int channel = 0; channel < c; channel++)
        for (int y = 0; y + win.size <= h; y++) {
            for (int x = 0; x < w; x++) {
                size_t at = (size_t)y * row + (size_t)x * (size_t)c + (size_t)channel;
                sum_columns(&win, a + at, b + at, row, columns[x]);
            }
            for (int x = 0; x + win.size <= w; x++)
                sum += similarity(&win, columns + x);
        }
    *out = sum / ((double)(h - win.size + 1) * (double)(w - win.size + 1) * c);
    free(columns);
    return HT_OK;
}
