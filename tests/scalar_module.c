/* scalar_module.c - the module that the backend for GPUs opens (cuda/module.h), in plain loops on the CPU: "device"
 * memory is memory, a recording is the list of what was launched.  With it tests hold everything about that backend but
 * its kernels to recorded evaluations, on machines without a GPU; the kernels are held to references of their own.
 *
 * Sums are in float32 or double as is simplest: nothing here is the definition of a bit. */
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/dtype.h"
#include "cuda/module.h"

enum { STEP = 8, MOST = 1 << 16 };

/* ---- elements ---- */

static float get(const ht_cuda_tensor *t, int64_t i)
{
    switch (t->dtype) {
    case HT_CUDA_F16:
        return ht_f32_from_f16(((const uint16_t *)t->data)[i]);
    case HT_CUDA_F32:
        return ((const float *)t->data)[i];
    case HT_CUDA_E4M3:
        return ht_f32_from_f8_e4m3(((const uint8_t *)t->data)[i]);
    default:
        return ((const uint8_t *)t->data)[i];
    }
}

static const float *scale_of(const ht_cuda_scales *s, int64_t row, int64_t per_image)
{
    return s->data + s->stride * (s->per_row ? row : row / per_image);
}

static void put(const ht_cuda_tensor *t, const ht_cuda_codes *c, int64_t i, int64_t row, int64_t per_image, float v)
{
    if (t->dtype == HT_CUDA_F16) {
        ((uint16_t *)t->data)[i] = ht_f16_from_f32(v);
    } else if (t->dtype == HT_CUDA_F32) {
        ((float *)t->data)[i] = v;
    } else if (t->dtype == HT_CUDA_E4M3) {
        ((uint8_t *)t->data)[i] = ht_f8_e4m3_from_f32(v / scale_of(&c->scale, row, per_image)[0]);
    } else {
        const float *s = scale_of(&c->scale, row, per_image);
        float y = rintf(v * (1 / s[0])) + s[1];
        y = y > 0 ? y : 0;
        ((uint8_t *)t->data)[i] = (uint8_t)(y < c->levels ? y : c->levels);
    }
}

static float sigmoid(float x)
{
    return (float)(1 / (1 + exp(-(double)x)));
}

static float gelu(float x)
{
    return (float)(0.5 * (double)x * (1 + erf((double)x * M_SQRT1_2)));
}

/* ---- what was launched while recording ---- */

typedef int (*kernel)(const void *arguments);

typedef struct launched {
    kernel run;
    void *arguments;
} launched;

struct ht_cuda_recording {
    launched *list;
    int n;
};

static struct {
    int recording, n;
    launched list[MOST];
    char words[200];
} the;

static int launch(kernel run, const void *arguments, size_t bytes)
{
    if (!the.recording)
        return run(arguments);
    void *copied = malloc(bytes);
    if (!copied || the.n == MOST)
        return 1;
    memcpy(copied, arguments, bytes);
    the.list[the.n++] = (launched){run, copied};
    return 0;
}

/* ---- products ---- */

static int padded(int channels)
{
    return (channels + STEP - 1) / STEP * STEP;
}

static int64_t stored(const ht_cuda_window *w)
{
    return (int64_t)w->kernel_w * w->kernel_h * (padded(w->c[0]) + padded(w->c[1]));
}

static size_t element(ht_cuda_weights format)
{
    return format == HT_CUDA_W_F32 ? 4 : format == HT_CUDA_W_F16 ? 2 : 1;
}

static int product_layout(const ht_cuda_product *p, ht_cuda_layout *layout)
{
    *layout = (ht_cuda_layout){STEP, 4, (size_t)(stored(&p->window) * p->window.cols) * element(p->format)};
    return 0;
}

static void product_pack(const ht_cuda_product *p, const void *from, void *to)
{
    memcpy(to, from, (size_t)(stored(&p->window) * p->window.cols) * element(p->format));
}

static float weight_at(const ht_cuda_product *p, int64_t i)
{
    switch (p->format) {
    case HT_CUDA_W_F32:
        return ((const float *)p->weights)[i];
    case HT_CUDA_W_F16:
        return ht_f32_from_f16(((const uint16_t *)p->weights)[i]);
    case HT_CUDA_W_S8:
        return ((const int8_t *)p->weights)[i];
    case HT_CUDA_W_S4:
        return p->values[((const uint8_t *)p->weights)[i]];
    case HT_CUDA_W_E4M3:
        return ht_f32_from_f8_e4m3(((const uint8_t *)p->weights)[i]);
    default:
        return ht_f32_from_f8_e4m3((uint8_t)p->values[((const uint8_t *)p->weights)[i]]);
    }
}

/* One input's part of a row of windows: a[k], of codes less their zero point, so that padding is 0. */
static void gather(const ht_cuda_product *p, int64_t row, int input, float *a)
{
    const ht_cuda_window *w = &p->window;
    const ht_cuda_tensor *x = input ? &p->x2 : &p->x;
    int64_t image = row / w->rows_per_image, m = row % w->rows_per_image;
    float zero = p->format == HT_CUDA_W_S8 || p->format == HT_CUDA_W_S4
                     ? scale_of(&p->x_scale[input], row, w->rows_per_image)[1]
                     : 0;
    for (int tap = 0; tap < w->kernel_w * w->kernel_h; tap++, a += padded(w->c[input])) {
        int y = (int)(m / w->out_w) * w->stride - w->pad_top + tap / w->kernel_w,
            at = (int)(m % w->out_w) * w->stride - w->pad_left + tap % w->kernel_w;
        int inside = y >= 0 && at >= 0 && y < w->h * w->upsample && at < w->w * w->upsample;
        int64_t pixel = (image * w->h + y / w->upsample) * w->w + at / w->upsample;
        for (int c = 0; c < padded(w->c[input]); c++)
            a[c] = inside && c < w->c[input] ? get(x, pixel * w->c[input] + c) - zero : 0;
    }
}

/* Segments one after the other: each a sum of products, times step and scale. */
static float row_times_column(const ht_cuda_product *p, const float *a, const float *weights, int64_t row, int n)
{
    const ht_cuda_window *w = &p->window;
    int cols = (w->cols + 3) / 4 * 4, taps = w->kernel_w * w->kernel_h, segment = 0;
    int codes = p->format != HT_CUDA_W_F32 && p->format != HT_CUDA_W_F16;
    float sum = 0;
    double part = 0;
    for (int i = 0; i < 2; i++) {
        int last_of_part = p->parts == 2 ? w->c[i] > 0 : i == (w->c[1] > 0);
        for (int tap = 0; tap < taps; tap++)
            for (int c = 0; c < padded(w->c[i]); c++) {
                part += (double)*a++ * (double)*weights++;
                int ends = p->block ? (c + 1) % p->block == 0 && c < w->c[i]
                                    : last_of_part && tap == taps - 1 && c == padded(w->c[i]) - 1;
                if (!ends)
                    continue;
                float scale = !codes ? 1
                                     : scale_of(&p->x_scale[i], row, w->rows_per_image)[0] *
                                           p->weight_scales[(int64_t)segment * cols + n];
                sum = fmaf((float)part, scale, sum);
                part = 0;
                segment++;
            }
    }
    return sum;
}

static int run_product(const void *arguments)
{
    const ht_cuda_product *p = arguments;
    const ht_cuda_window *w = &p->window;
    int64_t depth = stored(w), first = (int64_t)w->kernel_w * w->kernel_h * padded(w->c[0]);
    float *weights = malloc((size_t)(depth * w->cols) * sizeof *weights), *a = malloc((size_t)depth * sizeof *a);
    for (int64_t i = 0; i < depth * w->cols; i++)
        weights[i] = weight_at(p, i);
    for (int64_t m = 0; m < w->rows; m++) {
        gather(p, m, 0, a);
        if (w->c[1])
            gather(p, m, 1, a + first);
        for (int n = 0; n < w->cols; n++) {
            float v = row_times_column(p, a, weights + n * depth, m, n) + (p->bias ? p->bias[n] : 0);
            if (p->row.data)
                v += p->row.data[m / w->rows_per_image * p->row.stride + n];
            if (p->residual.data)
                v += get(&p->residual, m * w->cols + n);
            v *= p->scale;
            put(&p->out, &p->codes, m * w->cols + n, m, w->rows_per_image, p->relu && v < 0 ? 0 : v);
        }
    }
    free(weights);
    free(a);
    return 0;
}

/* ---- norms ---- */

static int run_group_norm(const void *arguments)
{
    const ht_cuda_group_norm *g = arguments;
    int channels = g->c[0] + g->c[1], size = channels / g->groups;
    for (int64_t image = 0; image < g->images; image++)
        for (int group = 0; group < g->groups; group++) {
            double mean = 0, var = 0, n = (double)g->positions * size;
            for (int pass = 0; pass < 3; pass++) {
                double r = pass == 2 ? 1 / sqrt(var / n + (double)g->eps) : 0;
                for (int64_t row = image * g->positions; row < (image + 1) * g->positions; row++)
                    for (int ch = group * size; ch < (group + 1) * size; ch++) {
                        int two = ch >= g->c[0];
                        double x = (double)get(two ? &g->x2 : &g->x, row * g->c[two] + ch - (two ? g->c[0] : 0));
                        if (pass == 0)
                            mean += x / n;
                        else if (pass == 1)
                            var += (x - mean) * (x - mean);
                        if (pass < 2)
                            continue;
                        float y = (float)((x - mean) * r * (double)g->weight[ch] + (double)g->bias[ch]);
                        put(&g->out, &g->codes, row * channels + ch, row, g->positions, g->silu ? y * sigmoid(y) : y);
                    }
            }
        }
    return 0;
}

static int run_row_norm(const void *arguments)
{
    const ht_cuda_row_norm *r = arguments;
    for (int64_t row = 0; row < r->rows; row++) {
        double mean = 0, var = 0;
        int64_t at = row * r->channels, image = row / r->rows_per_image;
        for (int c = 0; c < r->channels && r->kind != HT_CUDA_RMS_NORM; c++)
            mean += (double)get(&r->x, at + c) / r->channels;
        for (int c = 0; c < r->channels; c++)
            var += ((double)get(&r->x, at + c) - mean) * ((double)get(&r->x, at + c) - mean) / r->channels;
        for (int c = 0; c < r->channels; c++) {
            double y = ((double)get(&r->x, at + c) - mean) / sqrt(var + (double)r->eps);
            if (r->kind == HT_CUDA_MODULATE)
                y = y * (1 + (double)r->scale_row.data[image * r->scale_row.stride + c]) +
                    (double)r->shift_row.data[image * r->shift_row.stride + c];
            else
                y = y * (double)r->weight[c] + (r->kind == HT_CUDA_LAYER_NORM ? (double)r->bias[c] : 0);
            put(&r->out, &r->codes, at + c, row, r->rows_per_image, (float)y);
        }
    }
    return 0;
}

/* ---- attention ---- */

static void one_query(const ht_cuda_attention *a, int64_t image, int head, int t, double *p)
{
    int64_t width = (int64_t)a->heads * a->dim, of_keys = a->kv_images == 1 ? 0 : image * a->keys;
    int64_t q = (image * a->queries + t) * width + head * a->dim;
    double most = -HUGE_VAL, sum = 0;
    int seen = a->causal ? t + 1 : a->keys;
    for (int j = 0; j < seen; j++) {
        p[j] = 0;
        for (int c = 0; c < a->dim; c++)
            p[j] += (double)get(&a->q, q + c) * (double)get(&a->k, (of_keys + j) * width + head * a->dim + c);
        p[j] *= (double)a->scale;
        if (a->key_bias)
            p[j] += (double)a->key_bias[image * a->key_bias_stride + j];
        if (a->distance_bias)
            p[j] += (double)a->distance_bias[(int64_t)head * (a->queries + a->keys - 1) + j - t + a->queries - 1];
        most = p[j] > most ? p[j] : most;
    }
    for (int j = 0; j < seen; j++)
        sum += p[j] = exp(p[j] - most);
    for (int c = 0; c < a->dim; c++) {
        double o = 0;
        for (int j = 0; j < seen; j++)
            o += p[j] * (double)get(&a->v, (of_keys + j) * width + head * a->dim + c);
        put(&a->out, NULL, q + c, 0, 1, (float)(o / sum));
    }
}

static int run_attention(const void *arguments)
{
    const ht_cuda_attention *a = arguments;
    double *p = malloc((size_t)a->keys * sizeof *p);
    for (int64_t image = 0; image < a->images; image++)
        for (int head = 0; head < a->heads; head++)
            for (int t = 0; t < a->queries; t++)
                one_query(a, image, head, t, p);
    free(p);
    return 0;
}

/* ---- one element at a time ---- */

/* As ht_grid_simulate: the nearest multiple of the local step, ties to the even one. */
static float on_grid(const ht_cuda_map *m, float y)
{
    float size = fabsf(y);
    int exponent;
    if (!m->exponent_bits || size < m->unit * (float)(1 << m->mantissa_bits))
        size = rintf(size / m->unit) * m->unit;
    else {
        frexpf(size, &exponent);
        float step = ldexpf(1, exponent - 1 - m->mantissa_bits);
        size = rintf(size / step) * step;
    }
    size = size < m->highest ? size : m->highest;
    return copysignf(size, y);
}

static float map_value(const ht_cuda_map *m, int64_t i, int64_t row)
{
    int64_t image = row / m->rows_per_image, c = i % m->channels;
    float x = get(&m->x, m->kind == HT_CUDA_GEGLU ? row * 2 * m->channels + c : m->x_period ? i % m->x_period : i);
    float y = m->y.data ? get(&m->y, m->y_period ? i % m->y_period : i) : 0;
    float r = m->row.data ? m->row.data[image * m->row.stride + c] : 0, v;
    switch (m->kind) {
    case HT_CUDA_SILU:
        return x * sigmoid(x);
    case HT_CUDA_GELU:
        return gelu(x);
    case HT_CUDA_QUICK_GELU:
        return x * sigmoid(1.702f * x);
    case HT_CUDA_GELU_TANH:
        return x * sigmoid(1.5957691216f * (x + 0.044715f * x * x * x));
    case HT_CUDA_RELU:
        return x < 0 ? 0 : x;
    case HT_CUDA_TANH:
        return tanhf(x);
    case HT_CUDA_AFFINE:
        return fmaf(x, m->a, m->b);
    case HT_CUDA_ADD:
        return x + y;
    case HT_CUDA_MULTIPLY:
        return x * y;
    case HT_CUDA_ADD_ROW:
        return x + r;
    case HT_CUDA_SCALE_SHIFT:
        v = fmaf(x, 1 + r, m->row2.data[image * m->row2.stride + c]);
        return m->a != 0 ? v * sigmoid(v) : v;
    case HT_CUDA_GATE:
        return fmaf(x, r, y);
    case HT_CUDA_GEGLU:
        return x * gelu(get(&m->x, (row * 2 + 1) * m->channels + c));
    case HT_CUDA_ADD_TABLE:
        return x + m->table[row % (int64_t)m->a * m->channels + c];
    case HT_CUDA_TIMES_TABLE:
        return x * m->table[row % (int64_t)m->a * m->channels + c];
    case HT_CUDA_QUANTIZE:
        if (m->out.dtype != HT_CUDA_F16 && m->out.dtype != HT_CUDA_F32)
            return x;
        v = scale_of(&m->codes.scale, row, m->rows_per_image)[0];
        return on_grid(m, x / v) * v;
    default:
        return x;
    }
}

static int run_map(const void *arguments)
{
    const ht_cuda_map *m = arguments;
    for (int64_t i = 0; i < m->rows * m->channels; i++)
        put(&m->out, &m->codes, i, i / m->channels, m->rows_per_image, map_value(m, i, i / m->channels));
    return 0;
}

static float move_value(const ht_cuda_move *m, int64_t row, int c)
{
    int64_t per_image = (int64_t)m->out_h * m->out_w, image = row / per_image;
    int y = (int)(row % per_image / m->out_w), x = (int)(row % m->out_w), k = m->k;
    float v = 0;
    switch (m->kind) {
    case HT_CUDA_SLICE:
        return get(&m->x, row * m->c[0] + m->begin + c);
    case HT_CUDA_CONCAT:
        return c < m->c[0] ? get(&m->x, row * m->c[0] + c) : get(&m->y, row * m->c[1] + c - m->c[0]);
    case HT_CUDA_UPSAMPLE:
        return get(&m->x, ((image * m->h + y / 2) * m->w + x / 2) * m->c[0] + c);
    case HT_CUDA_AVG_POOL:
        for (int i = 0; i < 4; i++)
            v += get(&m->x, ((image * m->h + 2 * y + i / 2) * m->w + 2 * x + i % 2) * m->c[0] + c);
        return v / 4;
    case HT_CUDA_UNPATCHIFY:
        return get(&m->x, ((image * m->h + y / k) * m->w + x / k) * m->c[0] + (y % k * k + x % k) * m->channels + c);
    case HT_CUDA_PICK:
        return get(&m->x, (row * m->positions + (int64_t)get(&m->y, row)) * m->c[0] + c);
    case HT_CUDA_LOOKUP:
        return m->table[(int64_t)get(&m->x, row) * m->channels + c];
    default:
        for (int64_t i = 0; i < m->positions; i++)
            v += get(&m->x, (row * m->positions + i) * m->c[0] + c) / (float)m->positions;
        return v;
    }
}

static int run_move(const void *arguments)
{
    const ht_cuda_move *m = arguments;
    for (int64_t row = 0; row < m->rows; row++)
        for (int c = 0; c < m->channels; c++)
            put(&m->out, NULL, row * m->channels + c, 0, 1, move_value(m, row, c));
    return 0;
}

/* ---- timesteps and scales ---- */

static int run_embedding(const void *arguments)
{
    const ht_cuda_embedding *e = arguments;
    int half = e->dim / 2;
    for (int64_t row = 0; row < e->rows; row++)
        for (int i = 0; i < half; i++) {
            float exponent = -9.210340371976184f * (float)i / ((float)half - e->freq_shift);
            double angle = (double)(e->x[row] * (float)exp((double)exponent));
            e->out[row * e->dim + i + (e->flip_sin_to_cos ? half : 0)] = (float)sin(angle);
            e->out[row * e->dim + i + (e->flip_sin_to_cos ? 0 : half)] = (float)cos(angle);
        }
    return 0;
}

static int run_input_scale(const void *arguments)
{
    const ht_cuda_input_scale *s = arguments;
    int best = 0;
    for (int i = 1; s->x && s->timesteps && i < s->groups; i++)
        if (fabsf(s->timesteps[i] - *s->x) < fabsf(s->timesteps[best] - *s->x))
            best = i;
    s->out[0] = s->step[best];
    s->out[1] = s->zero[best];
    return 0;
}

static int run_input_range(const void *arguments)
{
    const ht_cuda_input_range *r = arguments;
    for (int64_t row = 0; row < r->rows; row++) {
        float low = 0, high = 0;
        for (int64_t i = row * r->count; i < (row + 1) * r->count; i++) {
            low = fminf(low, get(&r->x, i));
            high = fmaxf(high, get(&r->x, i));
        }
        float step = fmaxf((high - low) / r->levels, 1.17549435e-38f);
        r->out[2 * row] = step;
        r->out[2 * row + 1] = fminf(rintf(-low / step), r->levels);
    }
    return 0;
}

/* ---- launching ---- */

#define LAUNCH(name, type)                                                                                             \
    static int name(const type *arguments)                                                                             \
    {                                                                                                                  \
        return launch(run_##name, arguments, sizeof *arguments);                                                       \
    }
LAUNCH(product, ht_cuda_product)
LAUNCH(group_norm, ht_cuda_group_norm)
LAUNCH(row_norm, ht_cuda_row_norm)
LAUNCH(attention, ht_cuda_attention)
LAUNCH(map, ht_cuda_map)
LAUNCH(move, ht_cuda_move)
LAUNCH(embedding, ht_cuda_embedding)
LAUNCH(input_scale, ht_cuda_input_scale)
LAUNCH(input_range, ht_cuda_input_range)

/* ---- the device ---- */

static int devices(void)
{
    return 1;
}

static int open_device(int device, ht_cuda_device *found)
{
    *found = (ht_cuda_device){.name = "scalar", .major = 9, .multiprocessors = 1 + device, .memory = 1u << 30};
    return 0;
}

static void close_device(void)
{
}

static const char *error(void)
{
    return the.words;
}

static void *allocate(size_t bytes)
{
    return calloc(bytes ? bytes : 1, 1);
}

static int copy(void *to, const void *from, size_t bytes)
{
    memcpy(to, from, bytes);
    return 0;
}

static int nothing(void)
{
    return 0;
}

static int record(void)
{
    the.recording = 1;
    the.n = 0;
    return 0;
}

static int recorded(ht_cuda_recording **recording)
{
    ht_cuda_recording *r = malloc(sizeof *r);
    launched *list = malloc((size_t)the.n * sizeof *list + 1);
    the.recording = 0;
    if (!r || !list)
        return 1;
    memcpy(list, the.list, (size_t)the.n * sizeof *list);
    *r = (ht_cuda_recording){list, the.n};
    *recording = r;
    return 0;
}

static int replay(ht_cuda_recording *r)
{
    int status = 0;
    for (int i = 0; !status && i < r->n; i++)
        status = r->list[i].run(r->list[i].arguments);
    return status;
}

static void forget(ht_cuda_recording *r)
{
    for (int i = 0; r && i < r->n; i++)
        free(r->list[i].arguments);
    if (r)
        free(r->list);
    free(r);
}

static int mark(int which)
{
    return which < 0;
}

static int elapsed(float *milliseconds)
{
    *milliseconds = 1;
    return 0;
}

static const char *product_name(const ht_cuda_product *p)
{
    static const char *const names[] = {"scalar_f32", "scalar_f16",  "scalar_s8",
                                        "scalar_s4",  "scalar_e4m3", "scalar_f4"};
    return names[p->format];
}

static size_t product_workspace(const ht_cuda_product *p)
{
    return p->window.rows ? 16 : 0;
}

static size_t group_norm_workspace(const ht_cuda_group_norm *g)
{
    return g->images ? 16 : 0;
}

static const char *attention_name(const ht_cuda_attention *a)
{
    return a->causal ? "scalar_causal" : "scalar";
}

static double peak(ht_cuda_weights format)
{
    return format == HT_CUDA_W_F16 ? 1e9 : 2e9;
}

static const ht_cuda_module module = {
    HT_CUDA_VERSION,
    devices,
    open_device,
    close_device,
    error,
    allocate,
    free,
    copy,
    copy,
    copy,
    nothing,
    nothing,
    record,
    recorded,
    replay,
    forget,
    mark,
    elapsed,
    product_layout,
    product_pack,
    product_name,
    product_workspace,
    product,
    group_norm_workspace,
    group_norm,
    row_norm,
    attention,
    attention_name,
    map,
    move,
    embedding,
    input_scale,
    input_range,
    peak,
};

const ht_cuda_module *ht_cuda_module_get(void);
__attribute__((visibility("default"))) const ht_cuda_module *ht_cuda_module_get(void)
{
    return &module;
}
