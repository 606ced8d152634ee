/* reverse.c - the scalar kernels of the operations that reverse mode needs.  cpu/reverse.h states the order of sums. */
#include "cpu/reverse.h"

#include <string.h>

/* ---- convolutions ---- */

static void conv2d_by(const ht_call *c, const ht_team *team)
{
    ht_product_like like;
    ht_product_like_make(c->op, &like);
    ht_window w = ht_window_of(&like.op, c->n);
    int64_t m, end, taps = w.taps;
    ht_team_share(team, w.rows, &m, &end);
    for (; m < end; m++)
        for (int64_t o = 0; o < w.cols; o++) {
            const float *weight = c->in[HT_IN_WEIGHT] + o * w.depth;
            float sum = 0;
            for (int64_t t = 0; t < taps; t++)
                for (int64_t i = 0; i < w.c[0]; i++)
                    sum = fmaf(ht_window_input(c, &w, m, t, i), weight[t * w.c[0] + i], sum);
            c->out[m * w.cols + o] = sum + (c->in[HT_IN_BIAS] ? c->in[HT_IN_BIAS][o] : 0.0f);
        }
}

/* The gradient of the output whose tap (ky, kx) lies on the input's pixel (y, x) of an image; NULL if there is none. */
static const float *output_under(const ht_call *c, int64_t image, int64_t y, int64_t x)
{
    const ht_value *dy = c->op->in[HT_IN_GRADIENT];
    int64_t stride = c->op->attrs.stride;
    if (y < 0 || x < 0 || y % stride || x % stride || y / stride >= dy->shape[1] || x / stride >= dy->shape[2])
        return NULL;
    return c->in[HT_IN_GRADIENT] + ((image * dy->shape[1] + y / stride) * dy->shape[2] + x / stride) * dy->shape[3];
}

static void conv2d_dx(const ht_call *c, const ht_team *team)
{
    const ht_value *x = c->op->in[HT_IN_X], *w = c->op->in[HT_IN_WEIGHT];
    const ht_attrs *a = &c->op->attrs;
    int64_t m, end, taps = (int64_t)a->kernel * a->kernel, width = x->shape[3];
    ht_team_share(team, ht_rows(x, c->n), &m, &end);
    for (; m < end; m++)
        for (int64_t i = 0; i < width; i++) {
            int64_t image = m / (x->shape[1] * x->shape[2]), py = m / x->shape[2] % x->shape[1], px = m % x->shape[2];
            float sum = 0;
            for (int64_t t = taps; t-- > 0;) {
                const float *dy =
                    output_under(c, image, py + a->pad_top - t / a->kernel, px + a->pad_left - t % a->kernel);
                for (int64_t o = 0; o < w->shape[0]; o++)
                    sum = fmaf(dy ? dy[o] : 0.0f, c->in[HT_IN_WEIGHT][(o * taps + t) * width + i], sum);
            }
            c->out[m * width + i] = sum + 0.0f; /* as the bias that is not there */
        }
}

static void conv2d_dw(const ht_call *c, const ht_team *team)
{
    ht_window w = ht_window_of_dw(c->op, c->n);
    int64_t i, end;
    ht_team_share(team, w.cols * w.depth, &i, &end);
    for (; i < end; i++) {
        int64_t o = i / w.depth, k = i % w.depth;
        float sum = 0;
        for (int64_t m = 0; m < w.rows; m++)
            sum = fmaf(c->in[HT_IN_GRADIENT][m * w.cols + o], ht_window_input(c, &w, m, k / w.c[0], k % w.c[0]), sum);
        c->out[i] = sum;
    }
}

/* ---- attention in parts ---- */

static void heads(const ht_call *c, const ht_team *team)
{
    int64_t i, end, rows = c->op->out->shape[1];
    ht_team_share(team, c->n * c->op->attrs.heads * rows, &i, &end);
    for (; i < end; i++) {
        ht_head h = ht_head_of(c, i / rows);
        const float *a = h.a + i % rows * h.a_row;
        for (int64_t col = 0; col < h.cols; col++) {
            float sum = 0;
            for (int64_t k = 0; k < h.depth; k++)
                sum = fmaf(a[k * h.a_k], h.b[k * h.b_k + col * h.b_col], sum);
            h.out[i % rows * h.out_row + col] = sum * h.scale;
        }
    }
}

/* Rows of one head of one token, and their width. */
static int64_t head_rows(const ht_call *c, int64_t *width)
{
    *width = ht_channels(c->op->out) / c->op->attrs.heads;
    return ht_rows(c->op->out, c->n) * c->op->attrs.heads;
}

static void softmax(const ht_call *c, const ht_team *team)
{
    int64_t i, end, width, rows = head_rows(c, &width);
    ht_team_share(team, rows, &i, &end);
    for (; i < end; i++) {
        float *p = c->out + i * width;
        memcpy(p, c->in[HT_IN_X] + i * width, (size_t)width * sizeof *p);
        float sum = ht_softmax_sum(p, width);
        for (int64_t j = 0; j < width; j++)
            p[j] = ht_probability(p[j], sum);
    }
}

/* ds = p (dp - sum of p dp), the sum in double. */
static void softmax_dx(const ht_call *c, const ht_team *team)
{
    int64_t i, end, width, rows = head_rows(c, &width);
    ht_team_share(team, rows, &i, &end);
    for (; i < end; i++) {
        const float *p = c->in[HT_IN_X] + i * width, *dp = c->in[HT_IN_GRADIENT] + i * width;
        double sum = 0;
        for (int64_t j = 0; j < width; j++)
            sum += (double)p[j] * (double)dp[j];
        for (int64_t j = 0; j < width; j++)
            c->out[i * width + j] = p[j] * (dp[j] - (float)sum);
    }
}

/* ---- norm, activations ---- */

static void silu_dx(const ht_call *c, const ht_team *team)
{
    int64_t i, end;
    ht_team_share(team, ht_rows(c->op->out, c->n) * ht_channels(c->op->out), &i, &end);
    for (; i < end; i++)
        c->out[i] = ht_silu_dx_f32(c->in[HT_IN_X][i], c->in[HT_IN_GRADIENT][i]);
}

/* Sums by channel of one image, in double: of x - mean squared, of dy, of dy (x - mean); and what comes of them. */
typedef struct norm_sums {
    double *mean, *squares, *dy, *dy_x;
    float *by_dy, *by_x, *shift, *center; /* dx = dy by_dy + ((x - center) by_x + shift) */
} norm_sums;

static size_t norm_scratch(const ht_op *op)
{
    return ht_round64((size_t)ht_channels(op->out) * 4 * (sizeof(double) + sizeof(float)));
}

static norm_sums norm_sums_in(void *scratch, int64_t channels)
{
    double *d = scratch;
    float *f = (float *)(d + 4 * channels);
    memset(scratch, 0, (size_t)channels * 4 * (sizeof *d + sizeof *f));
    return (norm_sums){d, d + channels, d + 2 * channels, d + 3 * channels,
                       f, f + channels, f + 2 * channels, f + 3 * channels};
}

static void norm_add_up(const float *x, const float *dy, int64_t positions, const ht_op *op, norm_sums *s)
{
    int64_t channels = ht_channels(op->out), group = channels / op->attrs.groups;
    for (int64_t p = 0; p < positions; p++)
        for (int64_t i = 0; i < channels; i++)
            s->mean[i] += (double)x[p * channels + i];
    for (int64_t first = 0; first < channels; first += group) {
        double mean = 0;
        for (int64_t i = first; i < first + group; i++)
            mean += s->mean[i];
        for (int64_t i = first; i < first + group; i++)
            s->mean[i] = mean / (double)(positions * group);
    }
    for (int64_t p = 0; p < positions; p++)
        for (int64_t i = 0; i < channels; i++) {
            double d = (double)x[p * channels + i] - s->mean[i], g = (double)dy[p * channels + i];
            s->squares[i] += d * d;
            s->dy[i] += g;
            s->dy_x[i] += g * d;
        }
}

/* With z = (x - mean) r, r = 1 / sqrt(var + eps), y = w z + b, and averages over the group:
 *     dx = r (w dy - average(w dy) - z average(w dy z)). */
static void norm_join(const float *weight, int64_t positions, const ht_op *op, norm_sums *s)
{
    int64_t channels = ht_channels(op->out), group = channels / op->attrs.groups;
    double n = (double)(positions * group);
    for (int64_t first = 0; first < channels; first += group) {
        double var = 0, sum = 0, sum_x = 0;
        for (int64_t i = first; i < first + group; i++) {
            var += s->squares[i];
            sum += (double)weight[i] * s->dy[i];
            sum_x += (double)weight[i] * s->dy_x[i];
        }
        double r = 1 / sqrt(var / n + (double)op->attrs.eps);
        for (int64_t i = first; i < first + group; i++) {
            s->center[i] = (float)s->mean[i];
            s->by_dy[i] = (float)((double)weight[i] * r);
            s->by_x[i] = (float)(-r * r * r * (sum_x / n));
            s->shift[i] = (float)(-r * (sum / n));
        }
    }
}

static void group_norm_dx(const ht_call *c, const ht_team *team)
{
    const ht_value *x = c->op->in[HT_IN_X];
    int64_t i, end, channels = ht_channels(x), positions = ht_rows(x, c->n) / (x->batched ? c->n : x->shape[0]);
    ht_team_share(team, x->batched ? c->n : x->shape[0], &i, &end);
    for (; i < end; i++) {
        int64_t at = i * positions * channels;
        const float *xi = c->in[HT_IN_X] + at, *dy = c->in[HT_IN_GRADIENT] + at;
        norm_sums s = norm_sums_in(team->scratch, channels);
        norm_add_up(xi, dy, positions, c->op, &s);
        norm_join(c->packed, positions, c->op, &s);
        for (int64_t p = 0; p < positions; p++)
            for (int64_t k = 0; k < channels; k++) {
                int64_t e = p * channels + k;
                c->out[at + e] = dy[e] * s.by_dy[k] + ((xi[e] - s.center[k]) * s.by_x[k] + s.shift[k]);
            }
    }
}

/* The chains of layer_norm's sums. */
static float chains(const float *weight, const float *dy, const float *x, float mean, int64_t n, bool by_x)
{
    float lanes[HT_SOFTMAX_LANES] = {0};
    for (int64_t i = 0; i < n; i++) {
        float *lane = &lanes[i % HT_SOFTMAX_LANES], g = weight[i] * dy[i];
        *lane = by_x ? fmaf(g, x[i] - mean, *lane) : *lane + g;
    }
    return ht_join_lanes(lanes);
}

static void layer_norm_dx(const ht_call *c, const ht_team *team)
{
    int64_t row, end, n = ht_channels(c->op->out);
    const float *weight = c->packed;
    ht_team_share(team, ht_rows(c->op->out, c->n), &row, &end);
    for (; row < end; row++) {
        const float *x = c->in[HT_IN_X] + row * n, *dy = c->in[HT_IN_GRADIENT] + row * n;
        float mean = ht_row_sum(x, n, NULL) / (float)n;
        float r = 1 / sqrtf(ht_row_sum(x, n, &mean) / (float)n + c->op->attrs.eps);
        float a = chains(weight, dy, x, mean, n, false) / (float)n;
        float b = chains(weight, dy, x, mean, n, true) / (float)n * (r * r);
        for (int64_t i = 0; i < n; i++)
            c->out[row * n + i] = r * fmaf(-(x[i] - mean), b, weight[i] * dy[i] - a);
    }
}

static void geglu_dx(const ht_call *c, const ht_team *team)
{
    int64_t r, end, width = ht_channels(c->op->out) / 2;
    ht_team_share(team, ht_rows(c->op->out, c->n), &r, &end);
    for (; r < end; r++) {
        const float *x = c->in[HT_IN_X] + r * 2 * width, *gate = x + width, *dy = c->in[HT_IN_GRADIENT] + r * width;
        float *out = c->out + r * 2 * width;
        for (int64_t i = 0; i < width; i++) {
            out[i] = dy[i] * ht_gelu_f32(gate[i]);
            out[width + i] = (dy[i] * x[i]) * ht_gelu_slope_f32(gate[i]);
        }
    }
}

static size_t weight_bytes(const ht_op *op)
{
    return ht_round64((size_t)ht_channels(op->out) * sizeof(float));
}

static void weight_pack(const ht_op *op, void *packed)
{
    ht_convert_weight(op->in[HT_IN_WEIGHT], packed);
}

/* ---- codes ---- */

static int64_t row_width(const ht_call *c, int64_t *rows, int64_t *per_image)
{
    const ht_value *x = c->op->in[HT_IN_X];
    *rows = ht_rows(x, c->n);
    *per_image = *rows / (x->batched ? c->n : x->shape[0]);
    return ht_channels(x);
}

static void simulate(const ht_call *c, const ht_team *team)
{
    const ht_grid *grid = &c->op->attrs.codes->grid;
    int64_t i, end, rows, per_image, width = row_width(c, &rows, &per_image);
    ht_team_share(team, rows, &i, &end);
    for (; i < end; i++) {
        const float *scale = ht_scale_of(c, HT_IN_SCALE, i, per_image), *x = c->in[HT_IN_X] + i * width;
        float *out = c->out + i * width, inv = 1 / scale[0];
        if (grid->exponent_bits) {
            ht_grid_simulate(grid, scale[0], (size_t)width, x, out);
            continue;
        }
        for (int64_t k = 0; k < width; k++)
            out[k] = ((float)ht_code_of(x[k], inv, scale[1], grid->highest) - scale[1]) * scale[0];
    }
}

/* Within the ends of the grid: codes that were not cut off. */
static void simulate_dx(const ht_call *c, const ht_team *team)
{
    const ht_grid *grid = &c->op->attrs.codes->grid;
    int64_t i, end, rows, per_image, width = row_width(c, &rows, &per_image);
    ht_team_share(team, rows, &i, &end);
    for (; i < end; i++) {
        const float *scale = ht_scale_of(c, HT_IN_SCALE, i, per_image), *x = c->in[HT_IN_X] + i * width;
        float low = grid->exponent_bits ? grid->lowest * scale[0] : -(scale[1] + 0.5f) * scale[0];
        float high = grid->exponent_bits ? grid->highest * scale[0] : (grid->highest - scale[1] + 0.5f) * scale[0];
        for (int64_t k = 0; k < width; k++)
            c->out[i * width + k] = x[k] >= low && x[k] <= high ? c->in[HT_IN_GRADIENT][i * width + k] : 0;
    }
}

/* ---- the rows of the table (cpu/reference.c) ---- */

#define PLAIN(kind, function)                                                                                          \
    const ht_kernel ht_ref_##kind = {.name = #kind "_f32_scalar", .op = HT_OP_##kind, .run = function}
PLAIN(conv2d_by, conv2d_by);
PLAIN(conv2d_dx, conv2d_dx);
PLAIN(conv2d_dw, conv2d_dw);
PLAIN(silu_dx, silu_dx);
PLAIN(geglu_dx, geglu_dx);
const ht_kernel ht_ref_layer_norm_dx = {.name = "layer_norm_dx_f32_scalar",
                                        .op = HT_OP_layer_norm_dx,
                                        .packed = weight_bytes,
                                        .pack = weight_pack,
                                        .run = layer_norm_dx};
PLAIN(scores, heads);
PLAIN(mix, heads);
PLAIN(mix_t, heads);
PLAIN(softmax, softmax);
PLAIN(softmax_dx, softmax_dx);
PLAIN(simulate, simulate);
PLAIN(simulate_dx, simulate_dx);
const ht_kernel ht_ref_group_norm_dx = {.name = "group_norm_dx_f32_scalar",
                                        .op = HT_OP_group_norm_dx,
                                        .packed = weight_bytes,
                                        .pack = weight_pack,
                                        .scratch = norm_scratch,
                                        .run = group_norm_dx};
