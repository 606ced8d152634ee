/* scale.c - which scale a block of weights gets: the format's standard, min-max, a percentile, or the best of a list of
 * candidates.
 *
 * Standards.  OCP MX 1.0 section 6.3: the power of two at most max |w|, over the largest power of two on the grid; so
 * up to a third of a binade is clipped.  NVFP4: a float32 for the tensor, max |w| / (448 * 6), then for every block max
 * |w| / 6 in units of it, rounded to E4M3 to nearest.  A block of zeros, or so small that its scale would vanish, gets
 * the smallest scale that is not zero, and no scale is below FLT_MIN: kernels that flush subnormals read what is meant.
 *
 * Powers.  ZeroQuant-FP (arXiv:2307.09782, section 4) takes the next power of two above a scale (M1), or above its
 * ratio to the largest scale (M2).  Here the powers around it are tried, and beside the largest scale seven smaller
 * ones in its place: on the FP4 weights of models/emoji-dit, rounded to nearest, M1 errs 35 % more than free scales
 * (geometric mean of its layers), M2 51 %; `each` 24 %, `tensor` 22 %.
 *
 * The searches sum in units of the block's largest power of two, so that nothing over- or underflows: terms in float32,
 * their sum in double over 8 lanes by index modulo 8, lanes then added in order. */
#include <float.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "core/elementary.h"
#include "quant/format.h"

enum { PIECE = 64, LANES = 8, FIRST_PERCENT = 150, LAST_PERCENT = 21, BASES = 8 };

static const float E4M3_MAX = 448;
static const double LN_2 = 0.69314718055994531;
static const float LARGEST_WEIGHT = 0x1p126f; /* twice of it is a float32: what rounds up is finite */

static const char *const method_names[HT_SCALE_METHODS] = {
    [HT_SCALE_STANDARD] = "standard", [HT_SCALE_MINMAX] = "minmax", [HT_SCALE_PERCENTILE] = "percentile",
    [HT_SCALE_MSE] = "mse",           [HT_SCALE_L2_4] = "l2.4",
};

const char *ht_scale_method_name(ht_scale_method method)
{
    return (unsigned)method < HT_SCALE_METHODS ? method_names[method] : "?";
}

int ht_scale_method_find(const char *name)
{
    for (int i = 0; i < HT_SCALE_METHODS; i++)
        if (strcmp(name, method_names[i]) == 0)
            return i;
    return -1;
}

static const char *const powers_names[HT_SCALE_POWERS] = {"free", "each", "tensor"};

const char *ht_scale_powers_name(ht_scale_powers powers)
{
    return (unsigned)powers < HT_SCALE_POWERS ? powers_names[powers] : "?";
}

int ht_scale_powers_find(const char *name)
{
    for (int i = 0; i < HT_SCALE_POWERS; i++)
        if (strcmp(name, powers_names[i]) == 0)
            return i;
    return -1;
}

/* ---- ranges ---- */

typedef struct range {
    float low, high; /* low <= 0 <= high */
} range;

static range range_of(const float *w, size_t n)
{
    range r = {0, 0};
    for (size_t i = 0; i < n; i++) {
        r.low = w[i] < r.low ? w[i] : r.low;
        r.high = w[i] > r.high ? w[i] : r.high;
    }
    return r;
}

static float largest(range r)
{
    return r.high > -r.low ? r.high : -r.low;
}

static int by_value(const void *a, const void *b)
{
    float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

/* Cut both ends at the percentile of |w|.  scratch: [n] */
static range range_of_percentile(const float *w, size_t n, double percentile, float *scratch)
{
    range r = range_of(w, n);
    for (size_t i = 0; i < n; i++)
        scratch[i] = fabsf(w[i]);
    qsort(scratch, n, sizeof *scratch, by_value);
    double rank = percentile / 100 * (double)(n - 1);
    size_t below = (size_t)rank, above = below + 1 < n ? below + 1 : below;
    double cut = scratch[below] + (rank - (double)below) * ((double)scratch[above] - scratch[below]);
    float limit = (float)cut;
    r.low = r.low < -limit ? -limit : r.low;
    r.high = r.high > limit ? limit : r.high;
    return r;
}

/* The smallest scale at which the range is on a grid without zero point; 0 for an empty range. */
static float scale_of_range(const ht_grid *grid, range r)
{
    float above = r.high / grid->highest, below = r.low / grid->lowest;
    return below > above ? below : above; /* never -0 */
}

static float at_least(float scale, float smallest)
{
    return scale > smallest ? scale : smallest;
}

ht_block ht_format_block_of_range(const ht_format *format, float low, float high)
{
    range r = {low < 0 ? low : 0, high > 0 ? high : 0};
    if (!format->asymmetric)
        return (ht_block){format->grid, at_least(scale_of_range(&format->grid, r), FLT_MIN)};
    int last = (1 << format->grid.bits) - 1;
    float scale = at_least((r.high - r.low) / (float)last, FLT_MIN);
    ht_grid whole = {format->grid.bits, 0, format->grid.bits, 1, 0, (float)last, 0};
    return (ht_block){ht_grid_with_zero(&format->grid, (int)ht_grid_round(&whole, -r.low / scale)), scale};
}

/* ---- one block ---- */

/* A scale as it is stored, and what it means. */
typedef struct choice {
    ht_block block;
    uint8_t byte; /* E8M0 and E4M3 */
} choice;

typedef struct search {
    const ht_format *format;
    const ht_scale_options *options;
    float tensor_scale;
    float *scratch;          /* [block], for percentiles */
    const float *w;          /* the block */
    const float *importance; /* its part, or NULL */
    size_t n;
    float unit; /* errors are multiplied by this power of two */
    choice best;
    double best_error;
} search;

static choice choice_of_e8m0(const search *s, int exponent)
{
    exponent = exponent < -126 ? -126 : exponent > 127 ? 127 : exponent;
    return (choice){{s->format->grid, ldexpf(1, exponent)}, (uint8_t)(exponent + 127)};
}

static choice choice_of_e4m3(const search *s, uint8_t code)
{
    code = code ? code : 1;
    return (choice){{s->format->grid, ht_f32_from_f8_e4m3(code) * s->tensor_scale}, code};
}

/* largest / highest in units of the tensor's scale */
static float e4m3_scale(const search *s, range r)
{
    return scale_of_range(&s->format->grid, r) / s->tensor_scale;
}

/* The exponent of the largest power of two at most x; that of FLT_MIN for less. */
static int exponent_of(float x)
{
    int exponent;
    frexpf(at_least(x, FLT_MIN), &exponent);
    return exponent - 1;
}

static choice standard_choice(const search *s, range r)
{
    switch (s->format->scale) {
    case HT_F8_E8M0:
        return choice_of_e8m0(s, exponent_of(largest(r)) - exponent_of(s->format->grid.highest));
    case HT_F8_E4M3:
        return choice_of_e4m3(s, ht_f8_e4m3_from_f32(e4m3_scale(s, r)));
    default:
        return (choice){ht_format_block_of_range(s->format, r.low, r.high), 0};
    }
}

/* The smallest that clips nothing by more than the rounding of scales: the standard's, or the next. */
static choice minmax_choice(const search *s, range r)
{
    choice c = standard_choice(s, r);
    bool clips = scale_of_range(&s->format->grid, r) > c.block.scale * (1 + 0x1p-20f);
    if (clips && s->format->scale == HT_F8_E8M0)
        return choice_of_e8m0(s, c.byte - 127 + 1);
    if (clips && s->format->scale == HT_F8_E4M3)
        return choice_of_e4m3(s, c.byte + 1); /* at most 0x7e: the tensor's scale was made for 448 */
    return c;
}

/* ---- searching ---- */

/* |e|^2.4 to 1e-6, of |e| < 8.  With x = e^2 and r = x^(-1/5) that is x * x * r^4; r by Newton's method on r^-5 - x,
 * which does not divide, from a fifth of the exponent.  2^-100 keeps r^5 finite at 0. */
static inline float power_2_4(float e)
{
    float x = e * e + 0x1p-100f, r;
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    bits = 0x4c2b0000 - bits / 5; /* 6/5 of the bits of 1.0f, a little less: that centers the error */
    memcpy(&r, &bits, sizeof r);
    for (int i = 0; i < 3; i++) {
        float r2 = r * r;
        r *= (6.0f - x * (r2 * r2 * r)) * 0.2f;
    }
    return x * x * ((r * r) * (r * r));
}

static double error_of(const search *s, const ht_block *block)
{
    double lanes[LANES] = {0}, sum = 0;
    float terms[PIECE];
    bool squares = s->options->method == HT_SCALE_MSE;
    for (size_t at = 0; at < s->n; at += PIECE) {
        size_t n = s->n - at < PIECE ? s->n - at : PIECE;
        ht_grid_simulate(&block->grid, block->scale, n, s->w + at, terms);
        for (size_t i = 0; i < n; i++) {
            float e = (s->w[at + i] - terms[i]) * s->unit;
            terms[i] = squares ? e * e : power_2_4(e);
        }
        for (size_t i = 0; s->importance && i < n; i++)
            terms[i] *= s->importance[at + i];
        while (n % LANES)
            terms[n++] = 0;
        for (size_t i = 0; i < n; i += LANES)
            for (size_t lane = 0; lane < LANES; lane++)
                lanes[lane] += terms[i + lane];
    }
    for (size_t lane = 0; lane < LANES; lane++)
        sum += lanes[lane];
    return sum;
}

static void consider(search *s, choice c)
{
    double error = error_of(s, &c.block);
    if (error < s->best_error) {
        s->best_error = error;
        s->best = c;
    }
}

static void consider_float_scales(search *s, range r)
{
    const ht_grid *grid = &s->format->grid;
    int sides = !s->format->asymmetric && grid->lowest != -grid->highest ? 2 : 1;
    int first = grid->exponent_bits > 1 ? FIRST_PERCENT : 100;
    for (int mirrored = 0; mirrored < sides; mirrored++) {
        range side = mirrored ? (range){-r.high, -r.low} : r;
        for (int percent = first; percent >= LAST_PERCENT; percent--) {
            float p = (float)percent / 100;
            choice c = {ht_format_block_of_range(s->format, side.low * p, side.high * p), 0};
            c.block.scale = mirrored ? -c.block.scale : c.block.scale;
            consider(s, c);
        }
    }
}

static void consider_stored_scales(search *s, range r)
{
    if (s->format->scale == HT_F8_E8M0) {
        int exponent = standard_choice(s, r).byte - 127;
        for (int i = -1; i <= 1; i++)
            consider(s, choice_of_e8m0(s, exponent + i));
        return;
    }
    float scale = e4m3_scale(s, r);
    uint8_t last = ht_f8_e4m3_from_f32(scale * 1.5f);
    for (uint8_t code = ht_f8_e4m3_from_f32(scale * 0.5f); code <= last; code++)
        consider(s, choice_of_e4m3(s, code));
}

static choice choose(search *s)
{
    range r = range_of(s->w, s->n);
    switch (s->options->method) {
    case HT_SCALE_PERCENTILE:
        return minmax_choice(s, range_of_percentile(s->w, s->n, s->options->percentile, s->scratch));
    case HT_SCALE_MSE:
    case HT_SCALE_L2_4:
        s->unit = ldexpf(1, -exponent_of(largest(r)));
        s->best = minmax_choice(s, r);
        s->best_error = error_of(s, &s->best.block);
        if (s->format->scale == HT_F32)
            consider_float_scales(s, r);
        else
            consider_stored_scales(s, r);
        return s->best;
    case HT_SCALE_MINMAX:
        return minmax_choice(s, r);
    default:
        return standard_choice(s, r);
    }
}

/* ---- a weight ---- */

static ht_status check_weights(const ht_matrix *matrix)
{
    for (size_t i = 0; i < matrix->out * matrix->in; i++)
        if (!(fabsf(matrix->values[i]) < LARGEST_WEIGHT))
            return ht_fail(HT_ERR_ARGUMENT,
                           "%s: weight %zu (channel %zu, input %zu) is %g; a number below 2^126 is wanted",
                           matrix->name, i, i / matrix->in, i % matrix->in, (double)matrix->values[i]);
    return HT_OK;
}

static ht_status check_options(const ht_matrix *matrix, ht_scale_options *o)
{
    if ((unsigned)o->method >= HT_SCALE_METHODS)
        return ht_fail(HT_ERR_ARGUMENT, "%s: %d is not a way to find scales", matrix->name, (int)o->method);
    if ((unsigned)o->powers >= HT_SCALE_POWERS)
        return ht_fail(HT_ERR_ARGUMENT, "%s: %d is not a kind of powers of two", matrix->name, (int)o->powers);
    if (o->percentile == 0)
        o->percentile = 99.9;
    if (!(o->percentile > 0 && o->percentile <= 100))
        return ht_fail(HT_ERR_ARGUMENT, "%s: percentile %g is not above 0 and at most 100", matrix->name,
                       o->percentile);
    for (size_t i = 0; o->importance && i < matrix->in; i++)
        if (!(o->importance[i] >= 0 && isfinite(o->importance[i])))
            return ht_fail(HT_ERR_ARGUMENT, "%s: the importance of input %zu is %g; a number of at least 0 is wanted",
                           matrix->name, i, (double)o->importance[i]);
    return HT_OK;
}

/* So large that no block's scale leaves E4M3 by more than rounding, and no product of the two is subnormal. */
static float tensor_scale_of(const ht_format *format, const ht_matrix *matrix)
{
    if (format->scale != HT_F8_E4M3)
        return 1;
    float highest = format->grid.highest; /* these grids are symmetric */
    return at_least(largest(range_of(matrix->values, matrix->out * matrix->in)) / (E4M3_MAX * highest),
                    FLT_MIN * 0x1p9f);
}

static void store(const search *s, choice c, ht_quantized *q, size_t i)
{
    if (s->format->scale == HT_F32)
        memcpy((unsigned char *)q->scales + i * sizeof(float), &c.block.scale, sizeof(float));
    else
        ((uint8_t *)q->scales)[i] = c.byte;
    if (s->format->asymmetric)
        q->zeros[i] = (uint8_t)c.block.grid.zero;
}

static void look_at(search *s, const ht_matrix *matrix, size_t blocks, size_t i)
{
    s->w = matrix->values + i * s->n;
    s->importance = s->options->importance ? s->options->importance + i % blocks * s->n : NULL;
}

/* ---- powers of two ---- */

/* Octaves below the largest scale in which all values of the grid are E4M3's, the largest scale's being as large there
 * as they can: of multiples of the unit, at most so many bits apart as that format reaches from its smallest. */
static int octaves_of(const ht_grid *grid)
{
    float largest = -grid->lowest > grid->highest ? -grid->lowest : grid->highest;
    return exponent_of(E4M3_MAX / largest) + 9 + exponent_of(grid->unit);
}

/* The block's scale, becoming a power of two times the base by which it errs least. */
static void constrain_block(search *s, ht_block block, float base)
{
    int least =
        exponent_of(base) < -126 + octaves_of(&block.grid) ? -126 - exponent_of(base) : -octaves_of(&block.grid);
    int near = exponent_of(fabsf(block.scale) / base);
    s->best_error = INFINITY;
    for (int k = near - 1; k <= near + 2; k++) {
        int power = k < least ? least : k > 0 ? 0 : k;
        choice c = {{block.grid, copysignf(ldexpf(base, power), block.scale)}, 0};
        consider(s, c);
    }
}

/* The sum of errors on a base; with `to` the scales are stored there. */
static double constrain_all(search *s, const ht_matrix *matrix, const ht_format_sizes *sizes, float base,
                            const ht_quantized *from, ht_quantized *to)
{
    double sum = 0, power = s->options->method == HT_SCALE_MSE ? 2 : 2.4;
    for (size_t i = 0; i < sizes->scale_count; i++) {
        look_at(s, matrix, sizes->blocks, i);
        int exponent = exponent_of(largest(range_of(s->w, s->n)));
        s->unit = ldexpf(1, -exponent);
        constrain_block(s, ht_format_block(s->format, from, i), base);
        sum += s->best_error * ht_exp(power * exponent * LN_2);
        if (to)
            store(s, s->best, to, i);
    }
    return sum;
}

static void constrain(const search *free, const ht_matrix *matrix, const ht_format_sizes *sizes, ht_quantized *q)
{
    ht_scale_options o = *free->options;
    search s = *free;
    float most = 0, best = 0;
    double least = INFINITY;
    bool each = o.powers == HT_POWERS_EACH;
    if (o.method != HT_SCALE_L2_4)
        o.method = HT_SCALE_MSE;
    s.options = &o;
    for (size_t i = 0; i < sizes->scale_count; i++)
        most = at_least(fabsf(ht_format_block(s.format, q, i).scale), most);
    for (int j = 0; j < (each ? 2 : BASES); j++) {
        float base = each ? ldexpf(1, exponent_of(most) + 1 - j)
                          : at_least(most * (float)(2 * BASES - j) / (2 * BASES), FLT_MIN);
        double error = constrain_all(&s, matrix, sizes, base, q, NULL);
        if (error < least) {
            least = error;
            best = base;
        }
    }
    constrain_all(&s, matrix, sizes, best, q, q);
}

ht_status ht_format_scales(const ht_format *format, const ht_matrix *matrix, const ht_scale_options *options,
                           ht_quantized *q)
{
    ht_scale_options o = options ? *options : (ht_scale_options){0};
    search s = {.format = format, .options = &o};
    ht_format_sizes sizes;
    ht_status status = ht_format_measure(format, matrix, &sizes);
    if (!status)
        status = check_options(matrix, &o);
    if (!status)
        status = check_weights(matrix);
    if (status)
        return status;
    s.n = matrix->in / sizes.blocks;
    s.scratch = malloc(s.n * sizeof *s.scratch);
    if (!s.scratch)
        return ht_fail(HT_ERR_MEMORY, "%s: out of memory for a block of %zu weights", matrix->name, s.n);
    q->tensor_scale = s.tensor_scale = tensor_scale_of(format, matrix);
    for (size_t i = 0; i < sizes.scale_count; i++) {
        look_at(&s, matrix, sizes.blocks, i);
        store(&s, choose(&s), q, i);
    }
    if (o.powers != HT_POWERS_FREE && format->scale == HT_F32)
        constrain(&s, matrix, &sizes, q);
    free(s.scratch);
    return HT_OK;
}
