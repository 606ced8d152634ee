/* cuda_kernels.c - norms, attention, element-wise kernels and movement of libhalftone-cuda.so against double precision.
 *
 *     cuda_kernels MODULE [--only KERNEL] [--seed S] [--case I] [--bench]
 *
 * Shapes, dtypes and distributions are drawn.  Of every element the reference gives a value v and a bound b on what
 * float32 may be off by; stored is what some number of [v - b, v + b] becomes in the output's dtype, by the CPU's own
 * formulas (rounding is monotonic, so that is an interval too).  b = 0: the very bits.  Outputs are poisoned and lie
 * between canaries.  Each image of a batch is computed again alone and must have the same bits. */
#include <dlfcn.h>
#include <float.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/elementary.c" /* the embedding's exp, sine and cosine, which have the same bits everywhere */
#include "cuda/module.h"

#define U 0x1p-24 /* half a unit in the last place of float32, relative */

static const ht_cuda_module *gpu;
static int failures, cases_run;
static uint64_t seed = 0x51c3, state;
static int only = -1, number;
static const char *of_kind = ""; /* of these kernels only */
static char what[512];           /* parameters of the case */

/* ---- drawing ---- */

static uint64_t next(void)
{
    uint64_t z = (state += 0x9e3779b97f4a7c15u);
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
}

static int draw(int low, int high)
{
    return low + (int)(next() % (uint64_t)(high - low + 1));
}

static bool chance(int percent)
{
    return draw(1, 100) <= percent;
}

static double uniform(void)
{
    return (double)(next() >> 11) * 0x1p-53;
}

static double normal(void)
{
    double s, c;
    ht_sincos_turns(uniform(), &s, &c);
    return sqrt(-2 * log(uniform() + 1e-12)) * c;
}

static int pick(const int *from)
{
    int n = 0;
    while (from[n])
        n++;
    return from[draw(0, n - 1)];
}

/* ---- tensors on the host, and copies on the device ---- */

typedef struct tensor {
    ht_cuda_dtype dtype;
    int64_t count;
    void *bytes;
    double *value;
} tensor;

static void *pool[256];
static int pooled;

static void *keep(void *p)
{
    pool[pooled++] = p;
    return p;
}

static void *device[64];
static int on_device;

static int64_t size_of(ht_cuda_dtype d)
{
    return d == HT_CUDA_F32 ? 4 : d == HT_CUDA_F16 ? 2 : 1;
}

static tensor tensor_of(ht_cuda_dtype dtype, int64_t count, double scale, double offset)
{
    tensor t = {dtype, count, keep(malloc((size_t)(count * 4 + 16))),
                keep(malloc((size_t)(count + 1) * sizeof(double)))};
    for (int64_t i = 0; i < count; i++) {
        float v = (float)(normal() * scale + offset);
        if (dtype == HT_CUDA_F16)
            v = (float)(((_Float16 *)t.bytes)[i] = (_Float16)v);
        else
            ((float *)t.bytes)[i] = v;
        t.value[i] = (double)v;
    }
    return t;
}

static void set(tensor *t, int64_t i, float v)
{
    ((float *)t->bytes)[i] = v;
    t->value[i] = (double)v;
}

static void *on_gpu(const void *bytes, int64_t count)
{
    void *p = gpu->alloc((size_t)count + 16);
    if (!p || gpu->upload(p, bytes, (size_t)count)) {
        printf("%s\n", gpu->error());
        exit(1);
    }
    return device[on_device++] = p;
}

/* Elements first .. of t. */
static ht_cuda_tensor part_of(const tensor *t, int64_t first, int64_t count)
{
    return (ht_cuda_tensor){on_gpu((char *)t->bytes + first * size_of(t->dtype), count * size_of(t->dtype)), t->dtype};
}

static const float *floats_of(const tensor *t, int64_t first, int64_t count)
{
    return part_of(t, first, count).data;
}

enum { CANARY = 256 };

static ht_cuda_tensor output_of(ht_cuda_dtype dtype, int64_t count)
{
    size_t bytes = (size_t)(count * size_of(dtype)) + 2 * CANARY;
    unsigned char *poison = malloc(bytes);
    memset(poison, 0xff, bytes);
    char *p = on_gpu(poison, (int64_t)bytes);
    free(poison);
    return (ht_cuda_tensor){p + CANARY, dtype};
}

static void free_device(void)
{
    while (on_device)
        gpu->free(device[--on_device]);
}

static void free_case(void)
{
    free_device();
    while (pooled)
        free(pool[--pooled]);
}

static bool fail(const char *why)
{
    printf("FAILED %s: %s\n    again: --seed 0x%llx --case %d\n", what, why, (unsigned long long)seed, number);
    failures++;
    return false;
}

/* The bytes of an output, after its canaries were looked at; NULL: failed. */
static unsigned char *result_of(int status, const ht_cuda_tensor *out, int64_t count)
{
    size_t bytes = (size_t)(count * size_of(out->dtype)), all = bytes + 2 * CANARY;
    unsigned char *got = keep(malloc(all));
    if (status == HT_CUDA_REFUSED) {
        fail("refused");
        return NULL;
    }
    if (status || gpu->finish() || gpu->download(got, (char *)out->data - CANARY, all)) {
        fail(gpu->error());
        exit(1); /* nothing runs after an error of the device */
    }
    for (size_t i = 0; i < CANARY; i++)
        if (got[i] != 0xff || got[CANARY + bytes + i] != 0xff) {
            fail("wrote outside its output");
            return NULL;
        }
    return got + CANARY;
}

/* ---- what a float becomes ---- */

typedef struct codes {
    float step, zero, levels;
} codes;

static int code_of(float x, const codes *c)
{
    float y = rintf(x * (1 / c->step)) + c->zero;
    y = y > 0 ? y : 0;
    return (int)(y < c->levels ? y : c->levels);
}

/* Nearest e4m3, ties to even, saturating. */
static double e4m3_of(double y)
{
    double a = fabs(y);
    int exponent;
    if (a >= 448)
        return copysign(448, y);
    frexp(a, &exponent);
    double step = ldexp(1, exponent - 4 < -9 ? -9 : exponent - 4);
    return copysign(fmin(rint(a / step) * step, 448), y);
}

static double decoded(int code)
{
    int e = code >> 3 & 15, m = code & 7;
    double a = e ? ldexp(8 + m, e - 10) : ldexp(m, -9);
    return (code & 127) == 127 ? NAN : code & 128 ? -a : a;
}

static double stored(ht_cuda_dtype d, float x, const codes *c)
{
    return d == HT_CUDA_F32   ? (double)x
           : d == HT_CUDA_F16 ? (double)(_Float16)x
           : d == HT_CUDA_U8  ? code_of(x, c)
                              : e4m3_of((double)(x / c->step));
}

static double loaded(ht_cuda_dtype d, const unsigned char *bytes, int64_t i)
{
    return d == HT_CUDA_F32   ? (double)((const float *)bytes)[i]
           : d == HT_CUDA_F16 ? (double)((const _Float16 *)bytes)[i]
           : d == HT_CUDA_U8  ? bytes[i]
                              : decoded(bytes[i]);
}

static bool check(ht_cuda_dtype d, const unsigned char *got, int64_t i, double v, double b, const codes *c)
{
    double x = loaded(d, got, i), low = stored(d, (float)(v - b), c), high = stored(d, (float)(v + b), c);
    if (x >= low && x <= high)
        return true;
    char why[160];
    snprintf(why, sizeof why, "out[%lld] is %.9g, not in %.9g .. %.9g (%.9g within %.3g)", (long long)i, x, low, high,
             v, b);
    return fail(why);
}

static const char *const dtype_names[] = {"f32", "f16", "u8", "e4m3"};

/* Scales for outputs of about `size`: one for all, of images or of rows. */
typedef struct scales {
    tensor t;
    int64_t stride;
    int per_row;
    float levels;
} scales;

static scales draw_scales(ht_cuda_dtype d, int64_t images, int64_t rows, double size)
{
    scales s = {.levels = chance(80) ? 255 : 15};
    int kind = draw(0, 2);
    s.stride = kind ? 2 : 0;
    s.per_row = kind == 2;
    s.t = tensor_of(HT_CUDA_F32, 2 * (kind == 2 ? rows : kind ? images : 1), 1, 0);
    for (int64_t i = 0; i < s.t.count; i += 2) {
        double step = d == HT_CUDA_U8 ? 6 * size / (double)s.levels : size / 100;
        set(&s.t, i, (float)(step * (0.5 + uniform())));
        set(&s.t, i + 1, (float)draw(0, (int)s.levels));
    }
    return s;
}

static codes codes_at(const scales *s, int64_t row, int64_t rows_per_image)
{
    const float *p = (const float *)s->t.bytes + s->stride * (s->per_row ? row : s->stride ? row / rows_per_image : 0);
    return (codes){p[0], p[1], s->levels};
}

/* Those of images first .. */
static ht_cuda_codes codes_of_images(const scales *s, int64_t first, int64_t count, int64_t rows_per_image)
{
    int64_t from = s->stride * first * (s->per_row ? rows_per_image : 1);
    int64_t n = s->stride ? 2 * count * (s->per_row ? rows_per_image : 1) : 2;
    return (ht_cuda_codes){{floats_of(&s->t, from, n), s->stride, s->per_row}, s->levels};
}

static ht_cuda_dtype draw_input(void)
{
    return chance(60) ? HT_CUDA_F16 : HT_CUDA_F32;
}

static ht_cuda_dtype draw_output(void)
{
    return (ht_cuda_dtype)draw(0, 3);
}

/* An image alone has the bits it has among others. */
static void same_alone(const unsigned char *all, const unsigned char *one, int64_t image, int64_t bytes)
{
    if (all && one && memcmp(all + image * bytes, one, (size_t)bytes))
        fail("other bits alone than among other images");
}

/* ---- group_norm ---- */

typedef struct group_case {
    int images, positions, c[2], groups, silu;
    ht_cuda_dtype out;
    tensor x[2], weight, bias;
    scales codes;
    float eps;
} group_case;

static unsigned char *run_group(const group_case *g, int first, int n)
{
    int channels = g->c[0] + g->c[1];
    int64_t count = (int64_t)n * g->positions;
    ht_cuda_group_norm a = {.images = n,
                            .positions = g->positions,
                            .c = {g->c[0], g->c[1]},
                            .groups = g->groups,
                            .x = part_of(&g->x[0], (int64_t)first * g->positions * g->c[0], count * g->c[0]),
                            .weight = floats_of(&g->weight, 0, channels),
                            .bias = floats_of(&g->bias, 0, channels),
                            .eps = g->eps,
                            .silu = g->silu,
                            .out = output_of(g->out, count * channels),
                            .codes = codes_of_images(&g->codes, first, n, g->positions)};
    if (g->c[1])
        a.x2 = part_of(&g->x[1], (int64_t)first * g->positions * g->c[1], count * g->c[1]);
    size_t bytes = gpu->group_norm_workspace(&a);
    unsigned char *poison = malloc(bytes + 1);
    memset(poison, 0xff, bytes + 1);
    a.workspace = on_gpu(poison, (int64_t)bytes);
    free(poison);
    return result_of(gpu->group_norm(&a), &a.out, count * channels);
}

static double group_input(const group_case *g, int64_t image, int64_t p, int ch)
{
    int second = ch >= g->c[0];
    return g->x[second].value[(image * g->positions + p) * g->c[second] + ch - (second ? g->c[0] : 0)];
}

static double silu(double x)
{
    return x / (1 + exp(-x));
}

/* Sums are 64 additions deep at most, so with A the mean of |x| and s the standard deviation (eps within) the mean is
 * off by 64 U A, deviations from it by that and more of their own rounding, the variance by 64 U (1 + A / s) of itself;
 * what is left is a handful of roundings of y and its terms.  SiLU's slope is below 1.1. */
static bool check_group(const group_case *g, const unsigned char *got, int64_t image, int group)
{
    int channels = g->c[0] + g->c[1], size = channels / g->groups, first = group * size;
    double n = (double)g->positions * size, mean = 0, var = 0, absolute = 0;
    for (int64_t p = 0; p < g->positions; p++)
        for (int ch = first; ch < first + size; ch++) {
            mean += group_input(g, image, p, ch);
            absolute += fabs(group_input(g, image, p, ch));
        }
    mean /= n;
    absolute /= n;
    for (int64_t p = 0; p < g->positions; p++)
        for (int ch = first; ch < first + size; ch++)
            var += pow(group_input(g, image, p, ch) - mean, 2);
    double s = sqrt(var / n + (double)g->eps);
    for (int64_t p = 0; p < g->positions; p++)
        for (int ch = first; ch < first + size; ch++) {
            double a = g->weight.value[ch] / s, term = (group_input(g, image, p, ch) - mean) * a;
            double y = term + g->bias.value[ch];
            double b =
                fabs(a) * 64 * U * absolute + fabs(term) * 64 * U * (1 + absolute / s) + 4 * U * (fabs(term) + fabs(y));
            codes c = codes_at(&g->codes, image * g->positions + p, g->positions);
            if (g->silu) {
                y = silu(y);
                b = 1.1 * b + 1e-6 * fabs(y);
            }
            if (!check(g->out, got, (image * g->positions + p) * channels + ch, y, b, &c))
                return false;
        }
    return true;
}

static void group_norm_case(void)
{
    static const int sizes[] = {1, 4, 16, 49, 64, 99, 256, 1024, 4096, 0};
    static const int counts[] = {1, 2, 3, 8, 16, 32, 0};
    group_case g = {
        .positions = pick(sizes), .groups = pick(counts), .silu = chance(60), .out = draw_output(), .eps = 1e-5f};
    int channels = g.groups * (chance(60) ? 8 * draw(1, 5) / (g.groups >= 8 ? 2 : 1) : draw(1, 20));
    while ((int64_t)g.positions * channels > 600000)
        g.positions /= 2;
    g.images = chance(30) ? 1 : draw(2, (int64_t)g.positions * channels > 100000 ? 2 : 9);
    g.c[1] = chance(40) && channels > 8 ? chance(60) ? channels / 8 / 2 * 8 : draw(1, channels - 1) : 0;
    g.c[0] = channels - g.c[1];
    ht_cuda_dtype in = draw_input();
    double size = chance(20) ? 100 : 1, offset = chance(25) ? 1000 * uniform() : uniform();
    for (int k = 0; k < 2; k++)
        g.x[k] = tensor_of(in, (int64_t)g.images * g.positions * g.c[k], size * (k ? 2 : 1), offset);
    g.weight = tensor_of(HT_CUDA_F32, channels, 0.3, 1);
    g.bias = tensor_of(HT_CUDA_F32, channels, 0.5, 0);
    g.codes = draw_scales(g.out, g.images, (int64_t)g.images * g.positions, 1);
    snprintf(what, sizeof what, "group_norm %dx%dx%d+%d groups=%d silu=%d %s -> %s per_row=%d", g.images, g.positions,
             g.c[0], g.c[1], g.groups, g.silu, dtype_names[in], dtype_names[g.out], g.codes.per_row);
    unsigned char *all = run_group(&g, 0, g.images);
    for (int i = 0; all && i < g.images; i++)
        for (int k = 0; k < g.groups; k++)
            if (!check_group(&g, all, i, k))
                return;
    free_device();
    int image = draw(0, g.images - 1);
    same_alone(all, run_group(&g, image, 1), image, (int64_t)g.positions * channels * size_of(g.out));
}

/* ---- row norms ---- */

typedef struct row_case {
    ht_cuda_row_norm_kind kind;
    int images, per_image, channels;
    ht_cuda_dtype out;
    tensor x, weight, bias, scale, shift;
    int64_t stride;
    scales codes;
    float eps;
} row_case;

static unsigned char *run_rows(const row_case *r, int first, int n)
{
    int64_t rows = (int64_t)n * r->per_image, count = rows * r->channels,
            of_rows = r->stride ? n * r->stride : r->channels;
    ht_cuda_row_norm a = {.kind = r->kind,
                          .rows = rows,
                          .rows_per_image = r->per_image,
                          .channels = r->channels,
                          .x = part_of(&r->x, (int64_t)first * r->per_image * r->channels, count),
                          .eps = r->eps,
                          .out = output_of(r->out, count),
                          .codes = codes_of_images(&r->codes, first, n, r->per_image)};
    if (r->kind == HT_CUDA_MODULATE) {
        a.scale_row = (ht_cuda_rows){floats_of(&r->scale, first * r->stride, of_rows), r->stride};
        a.shift_row = (ht_cuda_rows){floats_of(&r->shift, first * r->stride, of_rows), r->stride};
    } else {
        a.weight = floats_of(&r->weight, 0, r->channels);
        a.bias = r->kind == HT_CUDA_LAYER_NORM ? floats_of(&r->bias, 0, r->channels) : NULL;
    }
    return result_of(gpu->row_norm(&a), &a.out, count);
}

/* As group_norm; a thread's chain is 64 long at most, or channels / 256. */
static bool check_row(const row_case *r, const unsigned char *got, int64_t row)
{
    const double *x = r->x.value + row * r->channels;
    double mean = 0, square = 0, absolute = 0, n = r->channels, depth = 64 + n / 256;
    for (int i = 0; i < r->channels; i++) {
        mean += r->kind == HT_CUDA_RMS_NORM ? 0 : x[i];
        absolute += fabs(x[i]);
    }
    mean /= n;
    absolute /= n;
    for (int i = 0; i < r->channels; i++)
        square += (x[i] - mean) * (x[i] - mean);
    double s = sqrt(square / n + (double)r->eps);
    int64_t image = row / r->per_image;
    codes c = codes_at(&r->codes, row, r->per_image);
    for (int i = 0; i < r->channels; i++) {
        double w = r->kind == HT_CUDA_MODULATE ? 1 + r->scale.value[image * r->stride + i] : r->weight.value[i];
        double bias = r->kind == HT_CUDA_MODULATE   ? r->shift.value[image * r->stride + i]
                      : r->kind == HT_CUDA_RMS_NORM ? 0
                                                    : r->bias.value[i];
        double term = (x[i] - mean) / s * w, y = term + bias;
        double b = fabs(w / s) * depth * U * absolute + fabs(term) * depth * U * (1 + absolute / s) +
                   4 * U * (fabs(term) + fabs(y) + fabs((x[i] - mean) / s));
        if (!check(r->out, got, row * r->channels + i, y, b, &c))
            return false;
    }
    return true;
}

static void row_norm_case(void)
{
    static const int widths[] = {1,    7,    8,    64,   128,  255,  256,  320,  512,   640, 768,
                                 1024, 1152, 1280, 2048, 2304, 4096, 5000, 5120, 16384, 0};
    row_case r = {.kind = (ht_cuda_row_norm_kind)draw(0, 2),
                  .images = draw(1, 9),
                  .per_image = draw(1, 12),
                  .channels = pick(widths),
                  .out = draw_output(),
                  .eps = 1e-6f};
    ht_cuda_dtype in = draw_input();
    int64_t rows = (int64_t)r.images * r.per_image;
    r.stride = chance(70) ? r.channels : 0;
    r.x = tensor_of(in, rows * r.channels, chance(20) ? 50 : 1, chance(25) ? 500 * uniform() : uniform());
    r.weight = tensor_of(HT_CUDA_F32, r.channels, 0.3, 1);
    r.bias = tensor_of(HT_CUDA_F32, r.channels, 0.5, 0);
    r.scale = tensor_of(HT_CUDA_F32, (int64_t)r.channels * r.images, 0.3, 0);
    r.shift = tensor_of(HT_CUDA_F32, (int64_t)r.channels * r.images, 0.5, 0);
    r.codes = draw_scales(r.out, r.images, rows, 1);
    snprintf(what, sizeof what, "row_norm kind=%d %dx%dx%d %s -> %s stride=%d per_row=%d", r.kind, r.images,
             r.per_image, r.channels, dtype_names[in], dtype_names[r.out], (int)r.stride, r.codes.per_row);
    unsigned char *all = run_rows(&r, 0, r.images);
    for (int64_t i = 0; all && i < rows; i++)
        if (!check_row(&r, all, i))
            return;
    free_device();
    int image = draw(0, r.images - 1);
    same_alone(all, run_rows(&r, image, 1), image, (int64_t)r.per_image * r.channels * size_of(r.out));
}

/* ---- attention ---- */

typedef struct attention_case {
    int images, queries, keys, heads, dim, kv_images, causal;
    tensor q, k, v, key_bias, distance;
    bool has_key_bias, has_distance;
    int64_t key_stride;
    float scale;
    ht_cuda_dtype in, out;
} attention_case;

static ht_cuda_attention attention_of(const attention_case *a, int first, int n)
{
    int64_t width = (int64_t)a->heads * a->dim, q = a->queries * width, k = a->keys * width;
    int64_t kv_first = a->kv_images == 1 ? 0 : first, kv = a->kv_images == 1 ? 1 : n;
    ht_cuda_attention t = {.images = n,
                           .queries = a->queries,
                           .keys = a->keys,
                           .heads = a->heads,
                           .dim = a->dim,
                           .q = part_of(&a->q, first * q, n * q),
                           .k = part_of(&a->k, kv_first * k, kv * k),
                           .v = part_of(&a->v, kv_first * k, kv * k),
                           .out = output_of(a->out, n * q),
                           .kv_images = (int)kv,
                           .scale = a->scale,
                           .causal = a->causal,
                           .key_bias_stride = a->key_stride};
    if (a->has_key_bias)
        t.key_bias = floats_of(&a->key_bias, first * a->key_stride, a->key_stride ? (int64_t)n * a->keys : a->keys);
    if (a->has_distance)
        t.distance_bias = floats_of(&a->distance, 0, a->distance.count);
    return t;
}

/* A score is off by dim + 16 roundings (of tensor cores, to 2^-23) of the sum of |q k|, and by those of its biases and
 * of the exponent; a probability by twice that of itself, and by 2^-11, at least 2^-25, where it is rounded to F16. */
static bool check_query(const attention_case *a, const unsigned char *got, int image, int head, int t, double *p)
{
    int64_t width = (int64_t)a->heads * a->dim, kv = a->kv_images == 1 ? 0 : image, seen = a->causal ? t + 1 : a->keys;
    const double *q = a->q.value + ((int64_t)image * a->queries + t) * width + head * a->dim;
    const double *k = a->k.value + kv * a->keys * width + head * a->dim;
    const double *v = a->v.value + kv * a->keys * width + head * a->dim;
    double top = -INFINITY, off = 0, sum = 0;
    seen = seen < a->keys ? seen : a->keys;
    for (int64_t j = 0; j < seen; j++) {
        double s = 0, absolute = 0, key = 0, far = 0;
        for (int d = 0; d < a->dim; d++) {
            s += q[d] * k[j * width + d];
            absolute += fabs(q[d] * k[j * width + d]);
        }
        if (a->has_key_bias)
            key = a->key_bias.value[image * a->key_stride + j];
        if (a->has_distance)
            far = a->distance.value[head * (a->queries + a->keys - 1) + j - t + a->queries - 1];
        p[j] = s * (double)a->scale + key + far;
        top = fmax(top, p[j]);
        off = fmax(off, (a->dim + 16) * 2 * U * absolute * fabs((double)a->scale) +
                            8 * U * (fabs(s * (double)a->scale) + fabs(key) + fabs(far) + 1));
    }
    for (int64_t j = 0; j < seen; j++)
        sum += p[j] = exp(p[j] - top);
    bool half = a->in == HT_CUDA_F16 && a->dim <= 256;
    for (int d = 0; d < a->dim; d++) {
        double o = 0, absolute = 0, most = 0;
        for (int64_t j = 0; j < seen; j++) {
            o += p[j] * v[j * width + d];
            absolute += p[j] * fabs(v[j * width + d]);
            most = fmax(most, fabs(v[j * width + d]));
        }
        double b = absolute / sum * (4 * off + (double)(seen + 64) * 4 * U + (half ? 0x1p-10 : 0)) +
                   (half ? (double)seen * 0x1p-25 * most : 0);
        if (!check(a->out, got, ((int64_t)image * a->queries + t) * width + head * a->dim + d, o / sum, b, NULL))
            return false;
    }
    return true;
}

static void attention_case_run(void)
{
    static const int dims[] = {1,  4,  8,  20,  32,  40,  40,  48,  63,  64,  64,  72, 72,
                               80, 80, 96, 100, 128, 160, 192, 256, 264, 512, 520, 0};
    static const int keys[] = {1, 16, 63, 64, 65, 77, 77, 128, 130, 256, 300, 0};
    static const int queries[] = {1, 15, 64, 77, 128, 129, 200, 256, 0};
    attention_case a = {.images = draw(1, 5),
                        .queries = pick(queries),
                        .keys = pick(keys),
                        .heads = draw(1, 4),
                        .dim = pick(dims),
                        .in = chance(75) ? HT_CUDA_F16 : HT_CUDA_F32,
                        .has_key_bias = chance(25),
                        .has_distance = chance(25)};
    a.causal = chance(25);
    a.images = a.dim > 128 && a.images > 2 ? 2 : a.images;
    a.heads = a.dim > 256 ? 1 : a.heads;
    if (a.causal || chance(30))
        a.keys = a.queries;
    if (chance(15)) { /* enough blocks for the kernels of many queries */
        a.heads = a.dim > 128 ? 8 : 16;
        a.images = 9;
        a.queries = 256 + draw(0, 3);
        a.keys = a.causal ? a.queries : draw(1, 80);
        a.dim = a.dim > 128 ? 64 : a.dim;
    }
    a.kv_images = chance(25) ? 1 : a.images;
    a.out = chance(70) ? a.in : HT_CUDA_F32;
    a.scale = (float)(1 / sqrt(a.dim) * (chance(20) ? 8 : 1) * (chance(5) ? -1 : 1));
    int64_t width = (int64_t)a.heads * a.dim;
    a.q = tensor_of(a.in, a.images * a.queries * width, 1, 0);
    a.k = tensor_of(a.in, a.kv_images * a.keys * width, 1, 0);
    a.v = tensor_of(a.in, a.kv_images * a.keys * width, chance(20) ? 30 : 1, 0.1);
    a.key_stride = chance(70) ? a.keys : 0;
    a.key_bias = tensor_of(HT_CUDA_F32, (int64_t)a.images * a.keys, 2, 0);
    for (int64_t i = 0; i < a.key_bias.count; i++)
        if (i % a.keys && chance(20)) /* as masks have it */
            set(&a.key_bias, i, -10000);
    a.distance = tensor_of(HT_CUDA_F32, (int64_t)a.heads * (a.queries + a.keys - 1), 1, 0);
    ht_cuda_attention t = attention_of(&a, 0, a.images);
    snprintf(what, sizeof what,
             "%s images=%d queries=%d keys=%d heads=%d dim=%d kv=%d causal=%d key_bias=%d distance=%d scale=%g -> %s",
             gpu->attention_name(&t), a.images, a.queries, a.keys, a.heads, a.dim, a.kv_images, a.causal,
             a.has_key_bias, a.has_distance, (double)a.scale, dtype_names[a.out]);
    unsigned char *all = result_of(gpu->attention(&t), &t.out, a.images * a.queries * width);
    double *p = keep(malloc((size_t)a.keys * sizeof *p));
    int64_t checks = (int64_t)a.images * a.heads * a.queries, stride = 1 + checks * a.keys * a.dim / 20000000;
    for (int64_t i = 0; all && i < checks; i += stride)
        if (!check_query(&a, all, (int)(i / a.queries / a.heads), (int)(i / a.queries % a.heads), (int)(i % a.queries),
                         p))
            return;
    free_device();
    int image = draw(0, a.images - 1);
    t = attention_of(&a, image, 1);
    same_alone(all, result_of(gpu->attention(&t), &t.out, a.queries * width), image,
               a.queries * width * size_of(a.out));
}

/* ---- element by element ---- */

static float grid_round(const ht_cuda_map *m, float y)
{
    float limit = signbit(y) ? -m->lowest : m->highest, a = fabsf(y);
    int exponent;
    a = a < limit ? a : limit;
    frexpf(a, &exponent);
    float step = a > 0 ? ldexpf(1, exponent - 1 - m->mantissa_bits) : 0;
    step = step > m->unit ? step : m->unit;
    return copysignf(rintf(a / step) * step, y); /* a / step is exact; rintf, like the addition, takes the even */
}

typedef struct map_values {
    float x, y, row, row2, table, second;
} map_values;

/* Value and bound of an element. */
static double map_reference(const ht_cuda_map *m, const map_values *e, float step, double *b)
{
    double x = (double)e->x, y, v;
    *b = 0;
    switch (m->kind) {
    case HT_CUDA_SILU:
        v = silu(x);
        *b = 1e-6 * fabs(v) + 1e-37;
        return v;
    case HT_CUDA_GELU:
    case HT_CUDA_GEGLU:
        y = m->kind == HT_CUDA_GELU ? x : (double)e->second;
        v = y * 0.5 * erfc(-y / sqrt(2));
        *b = 1e-6 * fabs(v) + 1.6e-7 * fabs(y) + 2 * y * y * U * fabs(v) + 1e-37;
        if (m->kind == HT_CUDA_GELU)
            return v;
        *b = *b * fabs(x) + U * fabs(v * x);
        return v * x;
    case HT_CUDA_QUICK_GELU:
        y = -(double)1.702f * x;
        v = x / (1 + exp(y));
        *b = fabs(v) * (1e-6 + 3 * U * fabs(y)) + 1e-35;
        return v;
    case HT_CUDA_GELU_TANH:
        y = x * ((double)-0.0713548163f * x * x + (double)-1.59576912f);
        v = x / (1 + exp(y));
        *b = fabs(v) * (1e-6 + 5 * U * fabs(y)) + 1e-35;
        return v;
    case HT_CUDA_TANH:
        *b = 5e-7 * fabs(tanh(x));
        return tanh(x);
    case HT_CUDA_RELU:
        return e->x < 0 ? 0 : x;
    case HT_CUDA_AFFINE:
        return (double)fmaf(e->x, m->a, m->b);
    case HT_CUDA_ADD:
        return (double)(e->x + e->y);
    case HT_CUDA_MULTIPLY:
        return (double)(e->x * e->y);
    case HT_CUDA_ADD_ROW:
        return (double)(e->x + e->row);
    case HT_CUDA_SCALE_SHIFT:
        v = (double)fmaf(e->x, 1.0f + e->row, e->row2);
        *b = m->a != 0 ? 1e-6 * fabs(silu(v)) + 1e-37 : 0;
        return m->a != 0 ? silu(v) : v;
    case HT_CUDA_GATE:
        return (double)fmaf(e->x, e->row, e->y);
    case HT_CUDA_ADD_TABLE:
        return (double)(e->x + e->table);
    case HT_CUDA_TIMES_TABLE:
        return (double)(e->x * e->table);
    case HT_CUDA_QUANTIZE:
        if (m->out.dtype == HT_CUDA_F32 || m->out.dtype == HT_CUDA_F16)
            return (double)(grid_round(m, e->x / step) * step);
        return x;
    default:
        return x;
    }
}

static void map_case(void)
{
    static const int widths[] = {1, 3, 8, 16, 64, 77, 320, 1280, 0};
    ht_cuda_map m = {.kind = (ht_cuda_map_kind)draw(0, HT_CUDA_TIMES_TABLE),
                     .channels = pick(widths),
                     .a = (float)draw(0, 3),
                     .b = 0.25f};
    int images = draw(1, 9), per_image = draw(1, 30);
    int64_t rows = (int64_t)images * per_image, count = rows * m.channels, in_image = (int64_t)per_image * m.channels;
    ht_cuda_dtype in = draw_input(), in2 = draw_input(), out = draw_output();
    m.rows = rows;
    m.rows_per_image = per_image;
    m.a = m.kind >= HT_CUDA_ADD_TABLE ? (float)per_image : m.a;
    bool two = m.kind == HT_CUDA_ADD || m.kind == HT_CUDA_MULTIPLY, repeats = two && chance(40), second = chance(50);
    m.x_period = repeats && second ? in_image : 0;
    m.y_period = repeats && !second ? in_image : 0;
    int64_t x_count = m.kind == HT_CUDA_GEGLU ? 2 * count : m.x_period ? in_image : count;
    double size = chance(20) ? 20 : 2;
    tensor x = tensor_of(in, x_count, size, 0), y = tensor_of(in2, m.y_period ? in_image : count, size, 0);
    tensor row = tensor_of(HT_CUDA_F32, (int64_t)images * m.channels, 1, 0),
           row2 = tensor_of(HT_CUDA_F32, (int64_t)images * m.channels, 1, 0);
    tensor table = tensor_of(HT_CUDA_F32, (int64_t)per_image * m.channels, 1, 0);
    scales s = draw_scales(out, images, rows, m.kind == HT_CUDA_MULTIPLY ? size * size : size);
    int64_t stride = chance(70) ? m.channels : 0;
    m.mantissa_bits = draw(0, 3);
    m.exponent_bits = 4;
    m.unit = ldexpf(1, -6 - m.mantissa_bits);
    m.highest = m.mantissa_bits == 3 ? 448 : ldexpf(2 - ldexpf(1, -m.mantissa_bits), 8);
    m.lowest = -m.highest;
    m.x = part_of(&x, 0, x.count);
    m.y = part_of(&y, 0, y.count);
    m.out = output_of(out, count);
    m.row = (ht_cuda_rows){floats_of(&row, 0, row.count), stride};
    m.row2 = (ht_cuda_rows){floats_of(&row2, 0, row2.count), stride};
    m.table = floats_of(&table, 0, table.count);
    m.codes = codes_of_images(&s, 0, images, per_image);
    snprintf(what, sizeof what, "map kind=%d %dx%dx%d %s, %s -> %s periods=%d,%d stride=%d per_row=%d", m.kind, images,
             per_image, m.channels, dtype_names[in], dtype_names[in2], dtype_names[out], (int)m.x_period,
             (int)m.y_period, (int)stride, s.per_row);
    unsigned char *got = result_of(gpu->map(&m), &m.out, count);
    for (int64_t i = 0; got && i < count; i++) {
        int64_t r = i / m.channels, c = i % m.channels, at = r / per_image * stride + c;
        int64_t xi = m.kind == HT_CUDA_GEGLU ? i + r * m.channels : m.x_period ? i % m.x_period : i;
        map_values e = {(float)x.value[xi],    (float)y.value[m.y_period ? i % m.y_period : i],    (float)row.value[at],
                        (float)row2.value[at], (float)table.value[r % per_image * m.channels + c], 0};
        if (m.kind == HT_CUDA_GEGLU)
            e.second = (float)x.value[xi + m.channels];
        codes code = codes_at(&s, r, per_image);
        double b, v = map_reference(&m, &e, code.step, &b);
        if (!check(out, got, i, v, b, &code))
            return;
    }
}

/* ---- movement ---- */

static void move_case(void)
{
    static const int widths[] = {1, 3, 4, 8, 16, 40, 64, 77, 320, 0};
    ht_cuda_move m = {
        .kind = (ht_cuda_move_kind)draw(0, HT_CUDA_MEAN), .h = draw(2, 9), .w = draw(2, 9), .k = draw(1, 4)};
    int images = draw(1, 9);
    ht_cuda_dtype in = draw_input(), out = chance(70) ? in : draw_input(), in2 = chance(70) ? in : draw_input();
    int64_t pixels = (int64_t)m.h * m.w;
    m.c[0] = pick(widths);
    m.c[1] = pick(widths);
    m.channels = m.c[0];
    m.positions = pixels;
    m.out_h = m.h;
    m.out_w = m.w;
    m.rows = images * pixels;
    int64_t x_count = m.rows * m.c[0];
    if (m.kind == HT_CUDA_SLICE) {
        m.begin = chance(60) ? m.c[0] / 16 * 8 : draw(0, m.c[0] - 1);
        m.channels = chance(60) && m.c[0] - m.begin >= 8 ? (m.c[0] - m.begin) / 8 * 8 : draw(1, m.c[0] - m.begin);
    } else if (m.kind == HT_CUDA_CONCAT)
        m.channels = m.c[0] + m.c[1];
    else if (m.kind == HT_CUDA_UPSAMPLE) {
        m.out_h = 2 * m.h - draw(0, 1);
        m.out_w = 2 * m.w - draw(0, 1);
        m.rows = (int64_t)images * m.out_h * m.out_w;
    } else if (m.kind == HT_CUDA_AVG_POOL) {
        m.out_h = m.h / 2;
        m.out_w = m.w / 2;
        m.rows = (int64_t)images * m.out_h * m.out_w;
    } else if (m.kind == HT_CUDA_UNPATCHIFY) {
        m.channels = m.c[0];
        m.c[0] *= m.k * m.k;
        x_count = images * pixels * m.c[0];
        m.rows *= (int64_t)m.k * m.k;
        m.out_h *= m.k;
        m.out_w *= m.k;
    } else if (m.kind == HT_CUDA_PICK || m.kind == HT_CUDA_MEAN)
        m.rows = images;
    int64_t count = m.rows * m.channels;
    tensor x =
        tensor_of(m.kind == HT_CUDA_LOOKUP ? HT_CUDA_F32 : in, m.kind == HT_CUDA_LOOKUP ? m.rows : x_count, 1, 0);
    tensor y =
        tensor_of(m.kind == HT_CUDA_PICK ? HT_CUDA_F32 : in2, m.kind == HT_CUDA_PICK ? images : m.rows * m.c[1], 1, 0);
    tensor table = tensor_of(HT_CUDA_F32, 50LL * m.channels, 1, 0);
    for (int64_t i = 0; m.kind == HT_CUDA_PICK && i < images; i++)
        set(&y, i, (float)draw(0, (int)pixels - 1));
    for (int64_t i = 0; m.kind == HT_CUDA_LOOKUP && i < m.rows; i++)
        set(&x, i, (float)draw(0, 49));
    m.x = part_of(&x, 0, x.count);
    m.y = part_of(&y, 0, y.count);
    m.table = floats_of(&table, 0, table.count);
    m.out = output_of(out, count);
    snprintf(what, sizeof what, "move kind=%d %dx%dx%dx%d|%d -> %d, begin=%d k=%d %s, %s -> %s", m.kind, images, m.h,
             m.w, m.c[0], m.c[1], m.channels, m.begin, m.k, dtype_names[in], dtype_names[in2], dtype_names[out]);
    unsigned char *got = result_of(gpu->move(&m), &m.out, count);
    for (int64_t i = 0; got && i < count; i++) {
        int64_t r = i / m.channels, c = i % m.channels, image = r / ((int64_t)m.out_h * m.out_w);
        int64_t py = r / m.out_w % m.out_h, px = r % m.out_w, line = (int64_t)m.w * m.channels;
        const double *from = x.value;
        double v;
        switch (m.kind) {
        case HT_CUDA_SLICE:
            v = x.value[r * m.c[0] + m.begin + c];
            break;
        case HT_CUDA_CONCAT:
            v = c < m.c[0] ? x.value[r * m.c[0] + c] : y.value[r * m.c[1] + c - m.c[0]];
            break;
        case HT_CUDA_UPSAMPLE:
            v = x.value[((image * m.h + py / 2) * m.w + px / 2) * m.channels + c];
            break;
        case HT_CUDA_AVG_POOL:
            from += (image * m.h + 2 * py) * line + 2 * px * m.channels + c;
            v = (double)((((float)from[0] + (float)from[m.channels]) + (float)from[line] +
                          (float)from[line + m.channels]) *
                         0.25f);
            break;
        case HT_CUDA_UNPATCHIFY:
            v = x.value[((image * m.h + py / m.k) * m.w + px / m.k) * m.c[0] +
                        (py % m.k * m.k + px % m.k) * m.channels + c];
            break;
        case HT_CUDA_PICK:
            v = x.value[(r * pixels + (int64_t)y.value[r]) * m.channels + c];
            break;
        case HT_CUDA_LOOKUP:
            v = table.value[(int64_t)x.value[r] * m.channels + c];
            break;
        default:
            v = 0;
            for (int64_t p = 0; p < pixels; p++)
                v += x.value[(r * pixels + p) * m.channels + c];
            v /= (double)pixels;
        }
        if (!check(out, got, i, v, 0, NULL))
            return;
    }
}

/* ---- embeddings and scales ---- */

static void embedding_case(void)
{
    ht_cuda_embedding e = {
        .rows = draw(1, 9), .dim = draw(2, 321), .flip_sin_to_cos = draw(0, 1), .freq_shift = (float)draw(0, 1)};
    e.freq_shift = e.dim / 2 > 1 ? e.freq_shift : 0;
    tensor x = tensor_of(HT_CUDA_F32, e.rows, 1, 0);
    for (int64_t i = 0; i < e.rows; i++)
        set(&x, i, chance(80) ? (float)draw(0, 999) : (float)(1000 * uniform()));
    ht_cuda_tensor out = output_of(HT_CUDA_F32, e.rows * e.dim);
    e.x = floats_of(&x, 0, e.rows);
    e.out = out.data;
    snprintf(what, sizeof what, "embedding %dx%d flip=%d shift=%g", (int)e.rows, e.dim, e.flip_sin_to_cos,
             (double)e.freq_shift);
    float *got = (float *)(void *)result_of(gpu->embedding(&e), &out, e.rows * e.dim);
    int half = e.dim / 2;
    for (int64_t i = 0; got && i < e.rows * half; i++) {
        float exponent = -9.210340371976184f * (float)(i % half) / ((float)half - e.freq_shift);
        float angle = (float)x.value[i / half] * (float)ht_exp((double)exponent);
        double sine, cosine;
        ht_sincos_turns((double)angle * 0.15915494309189535, &sine, &cosine);
        const float *row = got + i / half * e.dim + i % half;
        if (!(row[e.flip_sin_to_cos ? half : 0] == (float)sine && row[e.flip_sin_to_cos ? 0 : half] == (float)cosine &&
              (e.dim % 2 == 0 || got[i / half * e.dim + e.dim - 1] == 0))) {
            fail("other bits than the CPU's");
            return;
        }
    }
}

static void scale_case(void)
{
    ht_cuda_input_scale s = {.groups = draw(1, 60)};
    tensor t = tensor_of(HT_CUDA_F32, s.groups, 1, 0), step = tensor_of(HT_CUDA_F32, s.groups, 1, 0),
           zero = tensor_of(HT_CUDA_F32, s.groups, 1, 0);
    tensor x = tensor_of(HT_CUDA_F32, 1, 1, 0);
    for (int i = 0; i < s.groups; i++)
        set(&t, i, (float)(990 - 16 * i));
    set(&x, 0, (float)draw(0, 999));
    ht_cuda_tensor out = output_of(HT_CUDA_F32, 2);
    s.timesteps = floats_of(&t, 0, s.groups);
    s.step = floats_of(&step, 0, s.groups);
    s.zero = floats_of(&zero, 0, s.groups);
    s.x = chance(80) ? floats_of(&x, 0, 1) : NULL;
    s.out = out.data;
    snprintf(what, sizeof what, "input_scale groups=%d x=%g given=%d", s.groups, x.value[0], s.x != NULL);
    float *got = (float *)(void *)result_of(gpu->input_scale(&s), &out, 2);
    int best = 0;
    for (int i = 1; s.x && i < s.groups; i++)
        if (fabs(t.value[i] - x.value[0]) < fabs(t.value[best] - x.value[0]))
            best = i;
    if (got && !((double)got[0] == step.value[best] && (double)got[1] == zero.value[best]))
        fail("not the nearest timestep's row");
}

static void range_case(void)
{
    static const int sizes[] = {1, 3, 8, 77, 320, 1152, 4096, 8192, 8200, 20001, 81920, 300000, 0};
    ht_cuda_input_range r = {.count = pick(sizes), .rows = draw(1, 9), .levels = chance(80) ? 255 : 15};
    ht_cuda_dtype in = draw_input();
    int kind = draw(0, 5); /* all of one sign, zeros */
    tensor x = tensor_of(in, r.rows * r.count, kind ? 2 : 0, 0.3);
    for (int64_t i = 0; kind < 3 && i < x.count; i++) {
        float v = kind == 0 ? 0 : kind == 1 ? fabsf((float)x.value[i]) : -fabsf((float)x.value[i]);
        if (in == HT_CUDA_F16)
            ((_Float16 *)x.bytes)[i] = (_Float16)v;
        else
            ((float *)x.bytes)[i] = v;
        x.value[i] = (double)v;
    }
    ht_cuda_tensor out = output_of(HT_CUDA_F32, 2 * r.rows);
    r.x = part_of(&x, 0, x.count);
    r.out = out.data;
    snprintf(what, sizeof what, "input_range %dx%d %s kind=%d", (int)r.rows, (int)r.count, dtype_names[in], kind);
    unsigned char *got = result_of(gpu->input_range(&r), &out, 2 * r.rows);
    for (int64_t i = 0; got && i < r.rows; i++) {
        float low = 0, high = 0, want[2];
        for (int64_t k = 0; k < r.count; k++) {
            float v = (float)x.value[i * r.count + k];
            low = v < low ? v : low;
            high = v > high ? v : high;
        }
        float step = (high - low) / r.levels;
        want[0] = step > FLT_MIN ? step : FLT_MIN;
        float zero = rintf(-low / want[0]);
        want[1] = zero < r.levels ? zero : r.levels;
        if (memcmp(got + i * 8, want, 8)) {
            fail("other bits than the CPU's");
            return;
        }
    }
}

/* ---- times ---- */

enum { LAUNCHES = 20, REPEATS = 25 };

static int by_time(const void *a, const void *b)
{
    float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

/* Microseconds of one of LAUNCHES recorded ones; set by set. */
static double time_of(int (*launch)(const void *), const char *structs, size_t size, int sets)
{
    ht_cuda_recording *r = NULL;
    float times[REPEATS];
    int status = launch(structs); /* once before it is recorded */
    status = status ? status : gpu->finish();
    status = status ? status : gpu->record();
    for (int i = 0; !status && i < LAUNCHES; i++)
        status = launch(structs + (size_t)(i % sets) * size);
    if (status || gpu->recorded(&r)) {
        printf("FAILED to record: %s\n", gpu->error());
        failures++;
        return NAN;
    }
    for (int i = -3; !status && i < REPEATS; i++) {
        status = gpu->mark(0);
        status = status ? status : gpu->replay(r);
        status = status ? status : gpu->mark(1);
        status = status ? status : gpu->elapsed(&times[i < 0 ? 0 : i]);
    }
    gpu->forget(r);
    qsort(times, REPEATS, sizeof *times, by_time);
    return status ? NAN : 1e3 * (double)times[REPEATS / 2] / LAUNCHES;
}

static int launch_attention(const void *a)
{
    return gpu->attention(a);
}

static int launch_group_norm(const void *a)
{
    return gpu->group_norm(a);
}

static int launch_row_norm(const void *a)
{
    return gpu->row_norm(a);
}

static int launch_map(const void *a)
{
    return gpu->map(a);
}

static int launch_move(const void *a)
{
    return gpu->move(a);
}

/* Drawn once, 64 MB of it at most, and repeated. */
static ht_cuda_tensor random_on_gpu(ht_cuda_dtype dtype, int64_t count)
{
    int64_t drawn = count < 1 << 16 ? count : 1 << 16;
    tensor t = tensor_of(dtype, drawn, 1, 0);
    char *all = gpu->alloc((size_t)(count * size_of(dtype)) + 16);
    if (!all)
        exit(1);
    device[on_device++] = all;
    for (int64_t i = 0; i < count; i += drawn) {
        int64_t n = count - i < drawn ? count - i : drawn;
        gpu->upload(all + i * size_of(dtype), t.bytes, (size_t)(n * size_of(dtype)));
    }
    while (pooled)
        free(pool[--pooled]);
    return (ht_cuda_tensor){all, dtype};
}

static ht_cuda_tensor space_on_gpu(ht_cuda_dtype dtype, int64_t count)
{
    device[on_device] = gpu->alloc((size_t)(count * size_of(dtype)) + 16);
    return (ht_cuda_tensor){device[on_device++], dtype};
}

static void bench_attention(const char *name, int images, int queries, int keys, int heads, int dim, ht_cuda_dtype d)
{
    int64_t width = (int64_t)heads * dim;
    ht_cuda_attention a = {.images = images,
                           .queries = queries,
                           .keys = keys,
                           .heads = heads,
                           .dim = dim,
                           .kv_images = images,
                           .scale = (float)(1 / sqrt(dim)),
                           .q = random_on_gpu(d, images * queries * width),
                           .k = random_on_gpu(d, images * keys * width),
                           .v = random_on_gpu(d, images * keys * width),
                           .out = space_on_gpu(d, images * queries * width)};
    double us = time_of(launch_attention, (const char *)&a, sizeof a, 1);
    printf("%-22s %d x %4d x %4d x %2d x %3d %-30s %9.2f us %7.1f TFLOP/s\n", name, images, queries, keys, heads, dim,
           gpu->attention_name(&a), us, 4e-6 * images * (double)queries * keys * (double)width / us);
    free_device();
}

static int sets_of(double bytes)
{
    double sets = ceil(150e6 / bytes); /* three times the H100's cache */
    return sets < 2 ? 2 : sets > 8 ? 8 : (int)sets;
}

static void bench_line(const char *name, const char *shape, ht_cuda_dtype out, double bytes, double warm, double cold)
{
    printf("%-12s %-18s -> %-4s %8.2f us %6.0f GB/s   of other memory each time %8.2f us %6.0f GB/s\n", name, shape,
           dtype_names[out], warm, bytes / warm * 1e-3, cold, bytes / cold * 1e-3);
}

static ht_cuda_codes bench_codes(void)
{
    float scale[2] = {0.02f, 128};
    return (ht_cuda_codes){{on_gpu(scale, sizeof scale), 0, 0}, 255};
}

static void bench_group_norm(int images, int side, int channels, ht_cuda_dtype out)
{
    ht_cuda_group_norm n[8];
    int64_t count = (int64_t)images * side * side * channels;
    double bytes = (double)count * (double)(2 + size_of(out));
    int sets = sets_of(bytes);
    for (int i = 0; i < sets; i++) {
        n[i] = (ht_cuda_group_norm){.images = images,
                                    .positions = side * side,
                                    .c = {channels, 0},
                                    .groups = 32,
                                    .x = random_on_gpu(HT_CUDA_F16, count),
                                    .weight = random_on_gpu(HT_CUDA_F32, channels).data,
                                    .bias = random_on_gpu(HT_CUDA_F32, channels).data,
                                    .eps = 1e-5f,
                                    .silu = 1,
                                    .out = space_on_gpu(out, count),
                                    .codes = bench_codes()};
        n[i].workspace = space_on_gpu(HT_CUDA_U8, (int64_t)gpu->group_norm_workspace(&n[i])).data;
    }
    char shape[64];
    snprintf(shape, sizeof shape, "%dx%dx%dx%d", images, side, side, channels);
    bench_line("group_norm", shape, out, bytes, time_of(launch_group_norm, (char *)n, sizeof *n, 1),
               time_of(launch_group_norm, (char *)n, sizeof *n, sets));
    free_device();
}

static void bench_row_norm(int rows, int channels, ht_cuda_dtype out)
{
    ht_cuda_row_norm n[8];
    int64_t count = (int64_t)rows * channels;
    double bytes = (double)count * (double)(2 + size_of(out));
    int sets = sets_of(bytes);
    for (int i = 0; i < sets; i++)
        n[i] = (ht_cuda_row_norm){.kind = HT_CUDA_LAYER_NORM,
                                  .rows = rows,
                                  .rows_per_image = rows / 2,
                                  .channels = channels,
                                  .x = random_on_gpu(HT_CUDA_F16, count),
                                  .weight = random_on_gpu(HT_CUDA_F32, channels).data,
                                  .bias = random_on_gpu(HT_CUDA_F32, channels).data,
                                  .eps = 1e-5f,
                                  .out = space_on_gpu(out, count),
                                  .codes = bench_codes()};
    char shape[64];
    snprintf(shape, sizeof shape, "%dx%d", rows, channels);
    bench_line("layer_norm", shape, out, bytes, time_of(launch_row_norm, (char *)n, sizeof *n, 1),
               time_of(launch_row_norm, (char *)n, sizeof *n, sets));
    free_device();
}

static void bench_map(const char *name, ht_cuda_map_kind kind, int rows, int channels, ht_cuda_dtype out)
{
    ht_cuda_map m[8];
    int64_t count = (int64_t)rows * channels;
    int inputs = kind == HT_CUDA_GEGLU || kind == HT_CUDA_ADD ? 2 : 1;
    double bytes = (double)count * (double)(2 * inputs + size_of(out));
    int sets = sets_of(bytes);
    for (int i = 0; i < sets; i++)
        m[i] = (ht_cuda_map){.kind = kind,
                             .rows = rows,
                             .rows_per_image = rows / 2,
                             .channels = channels,
                             .x = random_on_gpu(HT_CUDA_F16, count * 2),
                             .y = random_on_gpu(HT_CUDA_F16, kind == HT_CUDA_ADD ? count : 8),
                             .out = space_on_gpu(out, count),
                             .codes = bench_codes()};
    char shape[64];
    snprintf(shape, sizeof shape, "%dx%d", rows, channels);
    bench_line(name, shape, out, bytes, time_of(launch_map, (char *)m, sizeof *m, 1),
               time_of(launch_map, (char *)m, sizeof *m, sets));
    free_device();
}

static void bench_move(const char *name, ht_cuda_move_kind kind, int side, int c0, int c1)
{
    ht_cuda_move m[8];
    int out = kind == HT_CUDA_UPSAMPLE ? 2 * side : side;
    int64_t pixels = 2LL * side * side, count = 2LL * out * out * (c0 + c1);
    double bytes = 2 * (double)(count + pixels * (c0 + c1));
    int sets = sets_of(bytes);
    for (int i = 0; i < sets; i++)
        m[i] = (ht_cuda_move){.kind = kind,
                              .rows = 2LL * out * out,
                              .c = {c0, c1},
                              .channels = c0 + c1,
                              .h = side,
                              .w = side,
                              .out_h = out,
                              .out_w = out,
                              .x = random_on_gpu(HT_CUDA_F16, pixels * c0),
                              .y = random_on_gpu(HT_CUDA_F16, pixels * c1 + 8),
                              .out = space_on_gpu(HT_CUDA_F16, count)};
    char shape[64];
    snprintf(shape, sizeof shape, "2x%dx%dx%d+%d", side, side, c0, c1);
    bench_line(name, shape, HT_CUDA_F16, bytes, time_of(launch_move, (char *)m, sizeof *m, 1),
               time_of(launch_move, (char *)m, sizeof *m, sets));
    free_device();
}

static void bench_all_attention(void)
{
    printf("attention: images x queries x keys x heads x channels\n");
    bench_attention("SD 1.5 self", 2, 4096, 4096, 8, 40, HT_CUDA_F16);
    bench_attention("SD 1.5 self", 2, 1024, 1024, 8, 80, HT_CUDA_F16);
    bench_attention("SD 1.5 self", 2, 256, 256, 8, 160, HT_CUDA_F16);
    bench_attention("SD 1.5 self", 2, 64, 64, 8, 160, HT_CUDA_F16);
    bench_attention("SD 1.5 cross", 2, 4096, 77, 8, 40, HT_CUDA_F16);
    bench_attention("SD 1.5 cross", 2, 1024, 77, 8, 80, HT_CUDA_F16);
    bench_attention("SD 1.5 cross", 2, 256, 77, 8, 160, HT_CUDA_F16);
    bench_attention("DiT-XL/2 256", 2, 256, 256, 16, 72, HT_CUDA_F16);
    bench_attention("DiT-XL/2 512", 2, 1024, 1024, 16, 72, HT_CUDA_F16);
    bench_attention("SDXL self", 2, 4096, 4096, 10, 64, HT_CUDA_F16);
    bench_attention("large", 2, 4096, 4096, 16, 72, HT_CUDA_F16);
    bench_attention("large", 2, 4096, 4096, 16, 80, HT_CUDA_F16);
    bench_attention("large", 2, 4096, 4096, 16, 128, HT_CUDA_F16);
    bench_attention("VAE", 1, 4096, 4096, 1, 512, HT_CUDA_F16);
    bench_attention("CIFAR-10", 16, 256, 256, 1, 256, HT_CUDA_F16);
    bench_attention("CIFAR-10", 16, 256, 256, 1, 256, HT_CUDA_F32);
}

static void bench(void)
{
    bench_all_attention();
    if (!strcmp(of_kind, "attention"))
        return;
    for (int k = 0; k < 2; k++) {
        ht_cuda_dtype out = k ? HT_CUDA_U8 : HT_CUDA_F16;
        bench_group_norm(2, 64, 320, out);
        bench_group_norm(2, 32, 640, out);
        bench_group_norm(2, 16, 1280, out);
        bench_group_norm(2, 8, 2560, out);
        bench_group_norm(1, 512, 128, out);
        bench_row_norm(8192, 320, out);
        bench_row_norm(2048, 640, out);
        bench_row_norm(512, 1152, out);
        bench_map("geglu", HT_CUDA_GEGLU, 8192, 1280, out);
        bench_map("geglu", HT_CUDA_GEGLU, 2048, 2560, out);
    }
    bench_group_norm(2, 32, 640, HT_CUDA_E4M3);
    bench_map("add", HT_CUDA_ADD, 8192, 320, HT_CUDA_F16);
    bench_map("silu", HT_CUDA_SILU, 8192, 1280, HT_CUDA_F16);
    bench_map("gelu_tanh", HT_CUDA_GELU_TANH, 8192, 1280, HT_CUDA_F16);
    bench_map("quantize", HT_CUDA_QUANTIZE, 8192, 320, HT_CUDA_U8);
    bench_move("concat", HT_CUDA_CONCAT, 64, 320, 320);
    bench_move("upsample", HT_CUDA_UPSAMPLE, 32, 640, 0);
}

/* ---- all of it ---- */

static const struct {
    const char *name;
    void (*run)(void);
    int cases;
} kinds[] = {{"group_norm", group_norm_case, 120},
             {"row_norm", row_norm_case, 120},
             {"attention", attention_case_run, 140},
             {"map", map_case, 400},
             {"move", move_case, 250},
             {"embedding", embedding_case, 20},
             {"input_scale", scale_case, 20},
             {"input_range", range_case, 40}};

static void run_cases(void)
{
    number = 0;
    for (size_t k = 0; k < sizeof kinds / sizeof *kinds; k++) {
        int before = failures;
        bool skipped = *of_kind && strcmp(of_kind, kinds[k].name);
        for (int i = 0; i < kinds[k].cases; i++, number++) {
            if (skipped || (only >= 0 && number != only))
                continue;
            state = seed + (uint64_t)number * 0x632be59bd9b4e019u;
            kinds[k].run();
            free_case();
            cases_run++;
            if (failures - before > 8)
                i = kinds[k].cases; /* enough of these */
        }
        printf("%-12s %s\n", kinds[k].name, skipped ? "left out" : failures == before ? "ok" : "FAILED");
        fflush(stdout);
    }
}

int main(int argc, char **argv)
{
    bool times = false;
    for (int i = 2; i < argc; i++) {
        if (!strcmp(argv[i], "--bench"))
            times = true;
        else if (!strcmp(argv[i], "--seed") && i + 1 < argc)
            seed = strtoull(argv[++i], NULL, 0);
        else if (!strcmp(argv[i], "--only") && i + 1 < argc)
            of_kind = argv[++i];
        else if (!strcmp(argv[i], "--case") && i + 1 < argc)
            only = atoi(argv[++i]);
        else
            argc = 1;
    }
    if (argc < 2) {
        fprintf(stderr, "usage: cuda_kernels MODULE [--only KERNEL] [--seed S] [--case I] [--bench]\n");
        return 2;
    }
    void *library = dlopen(argv[1], RTLD_NOW);
    const ht_cuda_module *(*get)(void) = NULL;
    if (library)
        *(void **)&get = dlsym(library, "ht_cuda_module_get");
    if (!get || get()->version != HT_CUDA_VERSION) {
        fprintf(stderr, "%s: %s\n", argv[1], get ? "another version" : dlerror());
        return 1;
    }
    gpu = get();
    ht_cuda_device found;
    if (gpu->devices() < 1) {
        printf("skipped: no GPU (%s)\n", gpu->error());
        return 77;
    }
    if (gpu->open(0, &found)) {
        fprintf(stderr, "%s\n", gpu->error());
        return 1;
    }
    printf("%s, %d.%d, seed 0x%llx\n", found.name, found.major, found.minor, (unsigned long long)seed);
    run_cases();
    printf("%d cases, %d failures\n", cases_run, failures);
    if (times)
        bench();
    gpu->close();
    return failures != 0;
}
