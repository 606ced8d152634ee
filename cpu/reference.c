/* reference.c - the scalar kernels: one readable definition of every operation.  All other kernels are held to these,
 * bit for bit.
 *
 * They work on float32.  Sums are chains of fmaf in the order of the loops; cpu/reference_reduce.c has the operations
 * that reduce. */
#include "cpu/reference.h"

#include <assert.h>
#include <math.h>
#include <string.h>

#include "core/elementary.h"
#include "cpu/math.h"

#define ONE_OVER_TWO_PI 0.15915494309189535

/* ---- weights that stay as they are, in float32 ---- */

void ht_convert_weight(const ht_value *v, float *out)
{
    int converted = ht_convert_to_f32(v->data->dtype, v->data->data, 0, v->data->count, out);
    assert(converted); /* binding refuses dtypes that are not real (graph/weights.c) */
    (void)converted;
}

void ht_product_weights(const ht_op *op, size_t first, size_t n, float *out)
{
    const ht_tensor *t = op->in[HT_IN_WEIGHT]->data;
    if (op->layer)
        ht_layer_values(op->layer, first, n, out);
    else
        ht_convert_to_f32(t->dtype, t->data, first, n, out);
}

/* ---- elementwise and row operations ---- */

/* diffusers' get_timestep_embedding: frequency i is exp(-ln(10000) i / (half - shift)), all products in float32 as the
 * libraries round them; the functions between are ours, the same on every machine. */
static void timestep_embedding(const ht_call *c, const ht_team *team)
{
    const ht_attrs *a = &c->op->attrs;
    int64_t rows = ht_rows(c->op->out, c->n) * ht_channels(c->op->in[HT_IN_X]), half = a->dim / 2;
    if (team->thread)
        return;
    for (int64_t r = 0; r < rows; r++)
        for (int64_t i = 0; i < half; i++) {
            float exponent = -9.210340371976184f * (float)i / ((float)half - a->freq_shift);
            float angle = c->in[HT_IN_X][r] * (float)ht_exp((double)exponent);
            float *row = c->out + r * a->dim;
            double sine, cosine;
            ht_sincos_turns((double)angle * ONE_OVER_TWO_PI, &sine, &cosine);
            row[i + (a->flip_sin_to_cos ? half : 0)] = (float)sine;
            row[i + (a->flip_sin_to_cos ? 0 : half)] = (float)cosine;
            if (a->dim % 2)
                row[a->dim - 1] = 0;
        }
}

/* The rows are checked before they come here (ht_session_set_cond, ht_clip_encoder_run).  They are read where the
 * checkpoint has them: a vocabulary in float32 would be 150 MB that one prompt needs 77 rows of. */
static void embedding(const ht_call *c, const ht_team *team)
{
    int64_t rows = ht_rows(c->op->out, c->n), width = ht_channels(c->op->out);
    const ht_tensor *table = c->op->in[HT_IN_WEIGHT]->data;
    for (int64_t r = 0; !team->thread && r < rows; r++)
        ht_convert_to_f32(table->dtype, table->data, (size_t)((int64_t)c->in[HT_IN_X][r] * width), (size_t)width,
                          c->out + r * width);
}

static size_t table_bytes(const ht_op *op)
{
    return ht_round64((size_t)ht_value_count(op->in[HT_IN_WEIGHT]) * sizeof(float));
}

static void table_pack(const ht_op *op, void *packed)
{
    ht_convert_weight(op->in[HT_IN_WEIGHT], packed);
}

/* The squared distance is a chain over channels. */
static void nearest_row(const ht_call *c, const ht_team *team)
{
    const ht_value *table = c->op->in[HT_IN_WEIGHT];
    int64_t r, end, width = table->shape[1];
    ht_team_share(team, ht_rows(c->op->out, c->n), &r, &end);
    for (; r < end; r++) {
        const float *x = c->in[HT_IN_X] + r * width, *row = c->packed;
        float least = INFINITY;
        c->out[r] = 0;
        for (int64_t k = 0; k < table->shape[0]; k++, row += width) {
            float distance = 0;
            for (int64_t i = 0; i < width; i++)
                distance = fmaf(x[i] - row[i], x[i] - row[i], distance);
            if (distance < least) {
                least = distance;
                c->out[r] = (float)k;
            }
        }
    }
}

static void silu(const ht_call *c, const ht_team *team)
{
    int64_t i, end;
    ht_team_share(team, ht_rows(c->op->out, c->n) * ht_channels(c->op->out), &i, &end);
    for (; i < end; i++)
        c->out[i] = ht_silu_f32(c->in[HT_IN_X][i]);
}

static void geglu(const ht_call *c, const ht_team *team)
{
    int64_t r, end, width = ht_channels(c->op->out);
    ht_team_share(team, ht_rows(c->op->out, c->n), &r, &end);
    for (; r < end; r++)
        for (int64_t i = 0; i < width; i++) {
            const float *x = c->in[HT_IN_X] + r * 2 * width;
            ht_store(c, r * width + i, x[i] * ht_gelu_f32(x[width + i]));
        }
}

/* Made in double and rounded once; where e^2x is 1 to double's precision, x is its own tangent. */
static void hyperbolic_tangent(const ht_call *c, const ht_team *team)
{
    int64_t i, end;
    ht_team_share(team, ht_rows(c->op->out, c->n) * ht_channels(c->op->out), &i, &end);
    for (; i < end; i++) {
        double x = (double)c->in[HT_IN_X][i], bound = x > 20 ? 20 : x < -20 ? -20 : x; /* NaN stays */
        double e = fabs(x) < 1e-8 || isnan(x) ? 1 : ht_exp(2 * bound);
        c->out[i] = (float)(e == 1 ? x : (e - 1) / (e + 1));
    }
}

static void relu(const ht_call *c, const ht_team *team)
{
    int64_t i, end;
    ht_team_share(team, ht_rows(c->op->out, c->n) * ht_channels(c->op->out), &i, &end);
    for (; i < end; i++)
        c->out[i] = ht_relu_f32(c->in[HT_IN_X][i]);
}

static void affine(const ht_call *c, const ht_team *team)
{
    int64_t i, end;
    ht_team_share(team, ht_rows(c->op->out, c->n) * ht_channels(c->op->out), &i, &end);
    for (; i < end; i++)
        c->out[i] = fmaf(c->in[HT_IN_X][i], c->op->attrs.scale, c->op->attrs.shift);
}

static void add(const ht_call *c, const ht_team *team)
{
    const ht_value *a = c->op->in[HT_IN_X], *b = c->op->in[HT_IN_X2];
    int64_t i, end, count = ht_rows(c->op->out, c->n) * ht_channels(c->op->out);
    int64_t period_a = ht_rows(a, c->n) * ht_channels(a), period_b = ht_rows(b, c->n) * ht_channels(b);
    ht_team_share(team, count, &i, &end);
    for (; i < end; i++)
        c->out[i] = c->in[HT_IN_X][period_a == count ? i : i % period_a] +
                    c->in[HT_IN_X2][period_b == count ? i : i % period_b];
}

/* Rows of an image, and the image of a row. */
static int64_t rows_per_image(const ht_call *c)
{
    return ht_rows(c->op->out, c->n) / (c->op->out->batched ? c->n : c->op->out->shape[0]);
}

static void add_row(const ht_call *c, const ht_team *team)
{
    int64_t r, end, width = ht_channels(c->op->out), per_image = rows_per_image(c);
    ht_team_share(team, ht_rows(c->op->out, c->n), &r, &end);
    for (; r < end; r++) {
        const float *row = ht_row_of(c->in[HT_IN_ROW], c->op->in[HT_IN_ROW], r / per_image);
        for (int64_t i = 0; i < width; i++)
            c->out[r * width + i] = c->in[HT_IN_X][r * width + i] + row[i];
    }
}

static void scale_shift(const ht_call *c, const ht_team *team)
{
    int64_t r, end, width = ht_channels(c->op->out), per_image = rows_per_image(c);
    ht_team_share(team, ht_rows(c->op->out, c->n), &r, &end);
    for (; r < end; r++) {
        const float *scale = ht_row_of(c->in[HT_IN_ROW], c->op->in[HT_IN_ROW], r / per_image);
        const float *shift = ht_row_of(c->in[HT_IN_RESIDUAL], c->op->in[HT_IN_RESIDUAL], r / per_image);
        for (int64_t i = 0; i < width; i++) {
            float v = fmaf(c->in[HT_IN_X][r * width + i], 1.0f + scale[i], shift[i]);
            c->out[r * width + i] = c->op->attrs.activation ? ht_silu_f32(v) : v;
        }
    }
}

/* ---- movement ---- */

static void slice(const ht_call *c, const ht_team *team)
{
    int64_t r, end, from = ht_channels(c->op->in[HT_IN_X]), to = ht_channels(c->op->out);
    ht_team_share(team, ht_rows(c->op->out, c->n), &r, &end);
    for (; r < end; r++)
        memcpy(c->out + r * to, c->in[HT_IN_X] + r * from + c->op->attrs.begin, (size_t)to * sizeof(float));
}

static void concat(const ht_call *c, const ht_team *team)
{
    int64_t r, end, a = ht_channels(c->op->in[HT_IN_X]), b = ht_channels(c->op->in[HT_IN_X2]);
    ht_team_share(team, ht_rows(c->op->out, c->n), &r, &end);
    for (; r < end; r++) {
        memcpy(c->out + r * (a + b), c->in[HT_IN_X] + r * a, (size_t)a * sizeof(float));
        memcpy(c->out + r * (a + b) + a, c->in[HT_IN_X2] + r * b, (size_t)b * sizeof(float));
    }
}

static void upsample(const ht_call *c, const ht_team *team)
{
    const ht_value *in = c->op->in[HT_IN_X], *out = c->op->out;
    int64_t r, end, h = out->shape[1], w = out->shape[2], width = out->shape[3];
    ht_team_share(team, ht_rows(out, c->n), &r, &end);
    for (; r < end; r++) {
        int64_t image = r / (h * w), y = r / w % h, x = r % w;
        const float *from = c->in[HT_IN_X] + ((image * in->shape[1] + y / 2) * in->shape[2] + x / 2) * width;
        memcpy(c->out + r * width, from, (size_t)width * sizeof(float));
    }
}

static void avg_pool(const ht_call *c, const ht_team *team)
{
    const ht_value *in = c->op->in[HT_IN_X], *out = c->op->out;
    int64_t r, end, h = out->shape[1], w = out->shape[2], width = out->shape[3], in_row = in->shape[2] * width;
    ht_team_share(team, ht_rows(out, c->n), &r, &end);
    for (; r < end; r++) {
        int64_t image = r / (h * w), y = r / w % h, x = r % w;
        const float *from = c->in[HT_IN_X] + (image * in->shape[1] + 2 * y) * in_row + 2 * x * width;
        for (int64_t i = 0; i < width; i++)
            c->out[r * width + i] = (from[i] + from[width + i] + from[in_row + i] + from[in_row + width + i]) * 0.25f;
    }
}

/* Pixel (y, x) of an image's window under output pixel r; NULL outside. */
static const float *pool_pixel(const ht_call *c, int64_t r, int ky, int kx)
{
    const ht_value *in = c->op->in[HT_IN_X], *out = c->op->out;
    const ht_attrs *a = &c->op->attrs;
    int64_t h = out->shape[1], w = out->shape[2], image = r / (h * w);
    int64_t y = r / w % h * a->stride - a->pad_top + ky, x = r % w * a->stride - a->pad_left + kx;
    if (y < 0 || x < 0 || y >= in->shape[1] || x >= in->shape[2])
        return NULL;
    return c->in[HT_IN_X] + ((image * in->shape[1] + y) * in->shape[2] + x) * in->shape[3];
}

/* Row by row: the first, then any that is larger; NaN, once met, stays. */
static void max_pool(const ht_call *c, const ht_team *team)
{
    int64_t r, end, width = ht_channels(c->op->out);
    int k = c->op->attrs.kernel;
    ht_team_share(team, ht_rows(c->op->out, c->n), &r, &end);
    for (; r < end; r++) {
        float *to = c->out + r * width;
        for (int64_t i = 0; i < width; i++)
            to[i] = -INFINITY;
        for (int t = 0; t < k * k; t++) {
            const float *from = pool_pixel(c, r, t / k, t % k);
            for (int64_t i = 0; from && i < width; i++)
                to[i] = isnan(to[i]) || to[i] > from[i] ? to[i] : from[i];
        }
    }
}

/* A chain of sums row by row, divided by their number. */
static void mean_pool(const ht_call *c, const ht_team *team)
{
    int64_t r, end, width = ht_channels(c->op->out);
    int k = c->op->attrs.kernel;
    ht_team_share(team, ht_rows(c->op->out, c->n), &r, &end);
    for (; r < end; r++) {
        float *to = c->out + r * width;
        int inside = 0;
        memset(to, 0, (size_t)width * sizeof *to);
        for (int t = 0; t < k * k; t++) {
            const float *from = pool_pixel(c, r, t / k, t % k);
            inside += from != NULL;
            for (int64_t i = 0; from && i < width; i++)
                to[i] += from[i];
        }
        for (int64_t i = 0; i < width; i++)
            to[i] /= (float)inside;
    }
}

/* The sum in double, position after position; divided in double and rounded once. */
static void mean(const ht_call *c, const ht_team *team)
{
    const ht_value *in = c->op->in[HT_IN_X];
    int64_t i, end, width = in->shape[3], positions = in->shape[1] * in->shape[2];
    ht_team_share(team, ht_rows(c->op->out, c->n) * width, &i, &end);
    for (; i < end; i++) {
        const float *from = c->in[HT_IN_X] + i / width * positions * width + i % width;
        double sum = 0;
        for (int64_t p = 0; p < positions; p++)
            sum += (double)from[p * width];
        c->out[i] = (float)(sum / (double)positions);
    }
}

/* ---- the table ---- */

#define PLAIN(kind) const ht_kernel ht_ref_##kind = {.name = #kind "_f32_scalar", .op = HT_OP_##kind, .run = kind}
PLAIN(timestep_embedding);
PLAIN(embedding);
PLAIN(silu);
PLAIN(geglu);
PLAIN(relu);
PLAIN(affine);
PLAIN(add);
PLAIN(add_row);
PLAIN(scale_shift);
PLAIN(slice);
PLAIN(concat);
PLAIN(upsample);
PLAIN(avg_pool);
PLAIN(max_pool);
PLAIN(mean_pool);
PLAIN(mean);
const ht_kernel ht_ref_reshape = {.name = "view", .op = HT_OP_reshape}; /* the plan gave both values the same memory */
const ht_kernel ht_ref_tanh = {.name = "tanh_f32_scalar", .op = HT_OP_tanh, .run = hyperbolic_tangent};
const ht_kernel ht_ref_nearest_row = {.name = "nearest_row_f32_scalar",
                                      .op = HT_OP_nearest_row,
                                      .packed = table_bytes,
                                      .pack = table_pack,
                                      .run = nearest_row};

const ht_kernel *const ht_reference_kernels[HT_OP_KINDS] = {
#define OP(name, ...) [HT_OP_##name] = &ht_ref_##name,
#include "graph/ops.def"
#undef OP
};
