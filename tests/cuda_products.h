/* cuda_products.h - drawn products for tests of the module: numbers, a case, and its buffers on host and device. */
#ifndef HT_TESTS_CUDA_PRODUCTS_H
#define HT_TESTS_CUDA_PRODUCTS_H

#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cuda/module.h"

enum { CANARY = 256 }; /* bytes after an output that nothing may write */

static const ht_cuda_module *gpu;

/* ---- numbers ---- */

static uint64_t state;

static uint32_t draw(void)
{
    state = state * 6364136223846793005u + 1442695040888963407u;
    uint32_t x = (uint32_t)((state >> 18 ^ state) >> 27), r = (uint32_t)(state >> 59);
    return x >> r | x << (-r & 31);
}

static int below(int n)
{
    return (int)(draw() % (uint32_t)n);
}

static float uniform(void)
{
    return (float)draw() * 0x1p-31f - 1;
}

static float half_value(uint16_t h)
{
    int e = h >> 10 & 31, m = h & 1023;
    float v = e ? ldexpf((float)(1024 + m), e - 25) : ldexpf((float)m, -24);
    return h >> 15 ? -v : v;
}

static float e4m3_value(uint8_t c)
{
    int e = c >> 3 & 15, m = c & 7;
    float v = e == 15 && m == 7 ? NAN : e ? ldexpf((float)(8 + m), e - 10) : ldexpf((float)m, -9);
    return c >> 7 ? -v : v;
}

/* Nearest of the values of codes 0 .. most, to even. */
static unsigned nearest(float v, unsigned most, float (*value)(unsigned))
{
    unsigned low = 0, high = most;
    while (high - low > 1) {
        unsigned mid = (low + high) / 2;
        if (value(mid) <= v)
            low = mid;
        else
            high = mid;
    }
    double down = (double)v - value(low), up = (double)value(high) - v;
    return down < up || (down == up && low % 2 == 0) ? low : high;
}

static float half_of_code(unsigned c)
{
    return c == 0x7c00 ? 65536.0f : half_value((uint16_t)c);
}

static float e4m3_of_code(unsigned c)
{
    return e4m3_value((uint8_t)c);
}

static uint16_t half_of(float v)
{
    return (uint16_t)(nearest(fabsf(v), 0x7c00, half_of_code) | (signbit(v) ? 0x8000u : 0));
}

static uint8_t e4m3_of(float v)
{
    return (uint8_t)(nearest(fminf(fabsf(v), 448), 0x7e, e4m3_of_code) | (signbit(v) ? 0x80u : 0));
}

/* ---- a case ---- */

typedef struct product_case {
    uint64_t seed;
    int images, h, w, c[2], cols, kernel_w, kernel_h, stride, pad_top, pad_left, pad_bottom, pad_right, upsample;
    int format, x, parts, block, table, scales, row, residual, relu, out;
} product_case;

static const char *const format_names[] = {"f32", "f16", "s8", "s4", "e4m3", "f4"};
static const char *const dtype_names[] = {"f32", "f16", "u8", "e4m3"};

static void print_case(const product_case *c)
{
    printf(
        "  n=%d x=%dx%dx%d|%d:%s k=%dx%d s=%d pad=%d,%d,%d,%d up=%d cols=%d w=%s parts=%d block=%d table=%d scales=%d "
        "row=%d residual=%d relu=%d out=%s  again: --seed %llu --cases 1\n",
        c->images, c->h, c->w, c->c[0], c->c[1], dtype_names[c->x], c->kernel_w, c->kernel_h, c->stride, c->pad_top,
        c->pad_left, c->pad_bottom, c->pad_right, c->upsample, c->cols, format_names[c->format], c->parts, c->block,
        c->table, c->scales, c->row, c->residual, c->relu, dtype_names[c->out], (unsigned long long)c->seed);
}

typedef struct buffers {
    size_t x_bytes[2], out_bytes;
    uint8_t *x[2], *out, *weights; /* weights: [cols][stored] as the host prepares them */
    float *x_scale[2], *weight_scales, *bias, *row, *out_scale;
    int32_t *weight_sums;
    uint8_t *residual;
    int padded[2]; /* channels as stored */
    int64_t stored, segments, cols_padded;
} buffers;

static void *zeroed(size_t bytes)
{
    void *p = calloc(bytes ? bytes : 1, 1);
    if (!p)
        abort();
    return p;
}

static void must(int status, const char *what)
{
    if (status) {
        printf("%s: %s\n", what, status == HT_CUDA_REFUSED ? "refused" : gpu->error());
        exit(1);
    }
}

static void *to_device(const void *from, size_t bytes)
{
    uint8_t *p = gpu->alloc(bytes + CANARY);
    if (!p)
        must(1, "alloc");
    must(gpu->upload(p, from, bytes), "upload");
    return p;
}

static int is_codes(const product_case *c)
{
    return c->format >= HT_CUDA_W_S8;
}

static int is_integer(const product_case *c)
{
    return c->format == HT_CUDA_W_S8 || c->format == HT_CUDA_W_S4;
}

static ht_cuda_product product_of(const product_case *c)
{
    ht_cuda_product p;
    memset(&p, 0, sizeof p);
    int out_h = (c->h * c->upsample + c->pad_top + c->pad_bottom - c->kernel_h) / c->stride + 1;
    int out_w = (c->w * c->upsample + c->pad_left + c->pad_right - c->kernel_w) / c->stride + 1;
    p.window = (ht_cuda_window){(int64_t)c->images * out_h * out_w,
                                (int64_t)out_h * out_w,
                                c->cols,
                                {c->c[0], c->c[1]},
                                c->kernel_w,
                                c->kernel_h,
                                c->stride,
                                c->pad_top,
                                c->pad_left,
                                c->upsample,
                                c->h,
                                c->w,
                                out_w};
    p.x.dtype = p.x2.dtype = (ht_cuda_dtype)c->x;
    p.format = (ht_cuda_weights)c->format;
    p.parts = c->parts;
    p.block = c->block;
    p.scale = 1.25f;
    p.relu = c->relu;
    p.out.dtype = (ht_cuda_dtype)c->out;
    p.codes.levels = 255;
    for (int i = 0; i < 16; i++) {
        int levels[] = {-97, -66, -45, -33, -22, -13, -8, -3, 2, 5, 11, 19, 30, 44, 71, 120};
        uint8_t fp4[] = {0x00, 0x30, 0x38, 0x3c, 0x40, 0x44, 0x48, 0x4c,
                         0x80, 0xb0, 0xb8, 0xbc, 0xc0, 0xc4, 0xc8, 0xcc};
        p.values[i] = (signed char)(c->format == HT_CUDA_W_F4 ? (int)fp4[i]
                                    : c->table                ? levels[i]
                                    : i < 8                   ? i
                                                              : i - 16);
    }
    return p;
}

static size_t bytes_of(int dtype)
{
    return dtype == HT_CUDA_F32 ? 4 : dtype == HT_CUDA_F16 ? 2 : 1;
}

static void fill(uint8_t *to, size_t n, int dtype)
{
    for (size_t i = 0; i < n; i++) {
        float v = uniform();
        if (dtype == HT_CUDA_F32)
            memcpy(to + 4 * i, &v, 4);
        else if (dtype == HT_CUDA_F16) {
            uint16_t h = (uint16_t)((draw() & 0x83ff) | (uint32_t)(8 + below(8)) << 10);
            memcpy(to + 2 * i, &h, 2);
        } else if (dtype == HT_CUDA_U8)
            to[i] = (uint8_t)draw();
        else
            to[i] = (uint8_t)((draw() & 0x87) | (uint32_t)(3 + below(8)) << 3);
    }
}

static int whole_weight(const ht_cuda_product *p, uint8_t code)
{
    return p->format == HT_CUDA_W_S4 ? p->values[code & 15] : (signed char)code;
}

/* The segment of a stored k; -1: it fills a tap up. */
static int64_t segment_of(const ht_cuda_product *p, int input, int tap, int channel)
{
    const ht_cuda_window *w = &p->window;
    if (channel >= w->c[input])
        return -1;
    if (!p->block)
        return p->parts == 2 ? input : 0;
    return (input ? (int64_t)w->kernel_w * w->kernel_h * w->c[0] / p->block : 0) +
           (int64_t)tap * w->c[input] / p->block + channel / p->block;
}

static void draw_weights(const product_case *c, const ht_cuda_product *p, const ht_cuda_layout *l, buffers *b)
{
    const ht_cuda_window *w = &p->window;
    int taps = w->kernel_w * w->kernel_h, *padded = b->padded;
    size_t size = p->format == HT_CUDA_W_F32 ? 4 : p->format == HT_CUDA_W_F16 ? 2 : 1;
    for (int i = 0; i < 2; i++)
        padded[i] = (w->c[i] + l->channel_step - 1) / l->channel_step * l->channel_step;
    b->stored = (int64_t)taps * (padded[0] + padded[1]);
    b->segments = !is_codes(c) ? 1 : p->block ? (int64_t)taps * (w->c[0] + w->c[1]) / p->block : p->parts;
    b->cols_padded = (w->cols + l->col_step - 1) / l->col_step * l->col_step;
    b->weights = zeroed((size_t)(w->cols * b->stored) * size);
    b->weight_scales = zeroed((size_t)(b->segments * b->cols_padded) * 4);
    b->weight_sums = zeroed((size_t)(b->segments * b->cols_padded) * 4);
    for (int64_t i = 0; i < b->segments * b->cols_padded; i++)
        b->weight_scales[i] = (1.5f + uniform()) * 0x1p-8f;
    for (int64_t n = 0; n < w->cols; n++) {
        uint8_t *at = b->weights + (size_t)(n * b->stored) * size;
        for (int input = 0; input < 2; input++)
            for (int tap = 0; tap < taps; tap++)
                for (int ch = 0; ch < padded[input]; ch++, at += size) {
                    int64_t segment = segment_of(p, input, tap, ch);
                    if (segment < 0)
                        continue;
                    if (c->format == HT_CUDA_W_S4 || c->format == HT_CUDA_W_F4)
                        *at = (uint8_t)(draw() & 15);
                    else
                        fill(at, 1,
                             c->format == HT_CUDA_W_S8     ? HT_CUDA_U8
                             : c->format == HT_CUDA_W_E4M3 ? HT_CUDA_E4M3
                                                           : c->format);
                    if (is_integer(c))
                        b->weight_sums[segment * b->cols_padded + n] += whole_weight(p, *at);
                }
    }
}

static float *draw_scales(int64_t count)
{
    float *s = zeroed((size_t)count * 8);
    for (int64_t i = 0; i < count; i++) {
        s[2 * i] = (1.5f + uniform()) * 0x1p-6f;
        s[2 * i + 1] = (float)below(256);
    }
    return s;
}

/* Scales: 0 one for all, 1 per image, 2 per row. */
static ht_cuda_scales scales_of(const product_case *c, const ht_cuda_product *p, float **host)
{
    int64_t count = c->scales == 0 ? 1 : c->scales == 1 ? c->images : p->window.rows;
    *host = draw_scales(count);
    return (ht_cuda_scales){to_device(*host, (size_t)count * 8), c->scales ? 2 : 0, c->scales == 2};
}

static const float *scale_at(const product_case *c, const ht_cuda_product *p, const float *host, int64_t m)
{
    return host + 2 * (c->scales == 0 ? 0 : c->scales == 1 ? m / p->window.rows_per_image : m);
}

static void prepare(const product_case *c, ht_cuda_product *p, buffers *b)
{
    ht_cuda_layout l;
    memset(b, 0, sizeof *b);
    must(gpu->product_layout(p, &l), "product_layout");
    draw_weights(c, p, &l, b);
    void *packed = zeroed(l.bytes);
    gpu->product_pack(p, b->weights, packed);
    p->weights = to_device(packed, l.bytes);
    free(packed);
    for (int i = 0; i < 2; i++) {
        size_t n = (size_t)c->images * (size_t)c->h * (size_t)c->w * (size_t)c->c[i];
        b->x_bytes[i] = n * bytes_of(c->x);
        b->x[i] = zeroed(b->x_bytes[i]);
        fill(b->x[i], n, c->x);
        void *device = n ? to_device(b->x[i], b->x_bytes[i]) : NULL;
        *(i ? &p->x2 : &p->x) = (ht_cuda_tensor){device, (ht_cuda_dtype)c->x};
        if (is_codes(c))
            p->x_scale[i] = scales_of(c, p, &b->x_scale[i]);
    }
    size_t rows = (size_t)p->window.rows, cols = (size_t)c->cols;
    if (is_codes(c)) {
        p->weight_scales = to_device(b->weight_scales, (size_t)(b->segments * b->cols_padded) * 4);
        p->weight_sums = to_device(b->weight_sums, (size_t)(b->segments * b->cols_padded) * 4);
    }
    b->bias = zeroed(cols * 4);
    fill((uint8_t *)b->bias, cols, HT_CUDA_F32);
    p->bias = to_device(b->bias, cols * 4);
    b->row = zeroed((size_t)c->images * cols * 4);
    fill((uint8_t *)b->row, (size_t)c->images * cols, HT_CUDA_F32);
    if (c->row)
        p->row = (ht_cuda_rows){to_device(b->row, (size_t)c->images * cols * 4), c->row == 2 ? c->cols : 0};
    b->residual = zeroed(rows * cols * 4);
    fill(b->residual, rows * cols, c->residual == 2 ? HT_CUDA_F16 : HT_CUDA_F32);
    if (c->residual)
        p->residual =
            (ht_cuda_tensor){to_device(b->residual, rows * cols * 4), c->residual == 2 ? HT_CUDA_F16 : HT_CUDA_F32};
    p->codes.scale = scales_of(c, p, &b->out_scale);
    b->out_bytes = rows * cols * bytes_of(c->out);
    b->out = zeroed(b->out_bytes + CANARY);
    memset(b->out, 0xff, b->out_bytes + CANARY);
    p->out.data = gpu->alloc(b->out_bytes + CANARY);
    size_t workspace = gpu->product_workspace(p);
    p->workspace = workspace ? gpu->alloc(workspace) : NULL;
}

static void discard(ht_cuda_product *p, buffers *b)
{
    const void *device[] = {p->weights,       p->x.data,           p->x2.data,  p->x_scale[0].data, p->x_scale[1].data,
                            p->weight_scales, p->weight_sums,      p->bias,     p->row.data,        p->residual.data,
                            p->out.data,      p->codes.scale.data, p->workspace};
    void *host[] = {b->x[0],          b->x[1],        b->out,  b->weights, b->x_scale[0], b->x_scale[1],
                    b->weight_scales, b->weight_sums, b->bias, b->row,     b->out_scale,  b->residual};
    for (size_t i = 0; i < sizeof device / sizeof *device; i++)
        gpu->free((void *)(uintptr_t)device[i]);
    for (size_t i = 0; i < sizeof host / sizeof *host; i++)
        free(host[i]);
}

#endif
