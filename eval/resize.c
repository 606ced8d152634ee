/* resize.c - three ways to resize, which give distances that cannot be compared (Parmar, Zhang and Zhu,
 * arXiv:2104.11222, section 3): that is why each is here exactly.
 *
 *   bilinear   x = max((i + 0.5) in / out - 0.5, 0), neighbours floor(x) and the next, if there is one
 *   tf1        x = i in / out
 *   bicubic    Pillow's Resample.c: a cubic kernel with a = -1/2, stretched by in / out when that is above 1, whose
 *              weights are normalized; columns first, then rows, each pass rounded to float32 */
#include "eval/resize.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/arena.h"

enum { COLOURS = 3 };

static const char *const names[] = {"none", "bilinear", "tf1", "bicubic"};

const char *ht_resize_name(ht_resize r)
{
    return names[r];
}

int ht_resize_find(const char *name)
{
    for (int i = 0; i < HT_RESIZES; i++)
        if (!strcmp(names[i], name))
            return i;
    return -1;
}

/* ---- bilinear ---- */

typedef struct place {
    int first, second;
    float share; /* of the second */
} place;

static place place_of(ht_resize r, int i, int in, int out)
{
    float scale = (float)in / (float)out;
    float x = r == HT_RESIZE_TF1 ? (float)i * scale : scale * ((float)i + 0.5f) - 0.5f;
    x = x < 0 ? 0 : x;
    int first = (int)x < in ? (int)x : in - 1;
    return (place){first, first + 1 < in ? first + 1 : first, x - (float)first};
}

static void bilinear(ht_resize r, const ht_pixels *in, int height, int width, float *out)
{
    for (int y = 0; y < height; y++) {
        place v = place_of(r, y, in->height, height);
        const uint8_t *top = in->data + (size_t)v.first * (size_t)in->width * COLOURS;
        const uint8_t *bottom = in->data + (size_t)v.second * (size_t)in->width * COLOURS;
        for (int x = 0; x < width; x++) {
            place h = place_of(r, x, in->width, width);
            for (int c = 0; c < COLOURS; c++) {
                size_t a = (size_t)h.first * COLOURS + (size_t)c, b = (size_t)h.second * COLOURS + (size_t)c;
                float above = (1 - h.share) * (float)top[a] + h.share * (float)top[b];
                float below = (1 - h.share) * (float)bottom[a] + h.share * (float)bottom[b];
                *out++ = (1 - v.share) * above + v.share * below;
            }
        }
    }
}

/* ---- bicubic ---- */

/* The weights of one output's inputs first .. first+count-1. */
typedef struct window {
    int first, count;
} window;

typedef struct filter {
    int support; /* room for weights of an output */
    window *windows;
    double *weights; /* [out][support] */
} filter;

/* Keys' kernel with a = -1/2. */
static double cubic(double x)
{
    const double a = -0.5;
    x = fabs(x);
    if (x < 1)
        return ((a + 2) * x - (a + 3)) * x * x + 1;
    return x < 2 ? (((x - 5) * x + 8) * x - 4) * a : 0;
}

static void make_window(int i, int in, double scale, double stretch, window *at, double *weights)
{
    double center = (i + 0.5) * scale, reach = 2 * stretch, sum = 0;
    int first = (int)(center - reach + 0.5), end = (int)(center + reach + 0.5);
    first = center - reach + 0.5 < 0 ? 0 : first;
    end = end > in ? in : end;
    for (int k = 0; k < end - first; k++) {
        weights[k] = cubic((k + first - center + 0.5) / stretch);
        sum += weights[k];
    }
    for (int k = 0; k < end - first; k++)
        weights[k] /= sum;
    *at = (window){first, end - first};
}

static ht_status make_filter(int in, int out, filter *f)
{
    double scale = (double)in / out, stretch = scale < 1 ? 1 : scale;
    size_t n = 0;
    f->support = (int)ceil(2 * stretch) * 2 + 1;
    f->windows = calloc((size_t)out, sizeof *f->windows);
    f->weights = ht_mul_size((size_t)f->support, (size_t)out * sizeof *f->weights, &n) ? malloc(n) : NULL;
    if (!f->windows || !f->weights)
        return ht_fail(HT_ERR_MEMORY, "out of memory to resize %d pixels to %d", in, out);
    for (int i = 0; i < out; i++)
        make_window(i, in, scale, stretch, &f->windows[i], f->weights + (size_t)i * (size_t)f->support);
    return HT_OK;
}

static void free_filter(filter *f)
{
    free(f->windows);
    free(f->weights);
}

/* Sums of inputs, `step` floats apart, into one output. */
static float weigh(const filter *f, int i, const float *in, size_t step)
{
    const window *w = &f->windows[i];
    const double *weights = f->weights + (size_t)i * (size_t)f->support;
    double sum = 0;
    for (int k = 0; k < w->count; k++)
        sum += (double)in[(size_t)(w->first + k) * step] * weights[k];
    return (float)sum;
}

/* rows [in_height,in_width,3] -> between [in_height,width,3] -> out. */
static void bicubic_passes(const ht_pixels *in, const filter *across, const filter *down, int height, int width,
                           float *row, float *between, float *out)
{
    size_t line = (size_t)width * COLOURS, from = (size_t)in->width * COLOURS;
    for (int y = 0; y < in->height; y++) {
        for (size_t i = 0; i < from; i++)
            row[i] = in->data[(size_t)y * from + i];
        for (int x = 0; x < width; x++)
            for (size_t c = 0; c < COLOURS; c++)
                between[(size_t)y * line + (size_t)x * COLOURS + c] =
                    in->width == width ? row[(size_t)x * COLOURS + c] : weigh(across, x, row + c, COLOURS);
    }
    for (int y = 0; y < height; y++)
        for (size_t i = 0; i < line; i++) {
            float v = in->height == height ? between[(size_t)y * line + i] : weigh(down, y, between + i, line);
            out[(size_t)y * line + i] = v < 0 ? 0 : v > 255 ? 255 : v;
        }
}

static ht_status bicubic(const ht_pixels *in, int height, int width, float *out)
{
    filter across = {0}, down = {0};
    size_t values = 0;
    float *row = malloc((size_t)in->width * COLOURS * sizeof *row), *between = NULL;
    if (ht_mul_size((size_t)in->height * COLOURS * sizeof *between, (size_t)width, &values))
        between = malloc(values);
    ht_status status = row && between ? HT_OK : ht_fail(HT_ERR_MEMORY, "out of memory to resize a picture");
    if (!status)
        status = make_filter(in->width, width, &across);
    if (!status)
        status = make_filter(in->height, height, &down);
    if (!status)
        bicubic_passes(in, &across, &down, height, width, row, between, out);
    free_filter(&down);
    free_filter(&across);
    free(between);
    free(row);
    return status;
}

ht_status ht_resize_pixels(ht_resize r, const ht_pixels *in, int height, int width, float *out)
{
    if (r == HT_RESIZE_BICUBIC)
        return bicubic(in, height, width, out);
    if (r != HT_RESIZE_NONE) {
        bilinear(r, in, height, width, out);
        return HT_OK;
    }
    if (in->height != height || in->width != width)
        return ht_fail(HT_ERR_SHAPE, "%d x %d pixels, wanted %d x %d, or a way to resize", in->width, in->height, width,
                       height);
    for (size_t i = 0; i < (size_t)height * (size_t)width * COLOURS; i++)
        out[i] = in->data[i];
    return HT_OK;
}
