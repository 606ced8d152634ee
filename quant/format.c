/* format.c - the table of number formats, and the names of those that are only simulated.
 *
 * Integers use all of two's complement, -8 .. 7 and not -7 .. 7.  The sixteenth level is free in kernels, which take s4
 * anyway (255 * 8 * 2^20 is below 2^31), and the searches may spend it on either side by a negative scale, so that
 * weights do without zero points.  On the weights of models/cifar10 with least squares scales, int4 keeps 19.0 dB
 * (signal to error); with positive scales only 18.9, on -7 .. 7 18.4, with a zero point 19.1; in groups of 32, 22.0
 * and 21.5.  The integer twins of the OCP and NVIDIA formats leave the level out, as their paper does and OCP MX 1.0
 * section 5.3.4 allows.
 *
 * Sources: OCP Microscaling Formats 1.0 (mxfp4, mxint8); NVIDIA's NVFP4; arXiv:2510.25602 (nvint4, mxint8);
 * LLM-FP4, arXiv:2310.16836, and FP4DiT, arXiv:2503.15465 (floats with a real exponent bias: that is a float32 scale).
 */
#include "quant/format.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* Members of an ht_grid. */
#define INTEGER(bits, lowest, highest, unit) bits, 0, bits, unit, lowest, highest, 0
#define FLOAT(exponent, mantissa, unit, highest)                                                                       \
    1 + exponent + mantissa, exponent, mantissa, unit, -(highest), highest, 0
#define INT8 INTEGER(8, -128, 127, 1)
#define INT4 INTEGER(4, -8, 7, 1)
#define E4M3 FLOAT(4, 3, 0x1p-9f, 448) /* OFP8: 0x7f is NaN, which leaves 448 */
#define E2M1 FLOAT(2, 1, 0.5f, 6)

/* name, grid, block, scale, asymmetric, simulated */
static const ht_format table[] = {
    {"int8", {INT8}, 0, HT_F32, false, false},
    {"int4", {INT4}, 0, HT_F32, false, false},
    {"int4_g32", {INT4}, 32, HT_F32, false, false},
    {"int4_g64", {INT4}, 64, HT_F32, false, false},
    {"int4_g128", {INT4}, 128, HT_F32, false, false},
    {"fp8_e4m3", {E4M3}, 0, HT_F32, false, false},
    {"fp4_e2m1", {E2M1}, 0, HT_F32, false, false},
    {"fp4_e1m2", {FLOAT(1, 2, 0.5f, 3.5f)}, 0, HT_F32, false, false},
    {"fp4_e3m0", {FLOAT(3, 0, 0.25f, 16)}, 0, HT_F32, false, false},
    {"mxfp4", {E2M1}, 32, HT_F8_E8M0, false, false},
    {"nvfp4", {E2M1}, 16, HT_F8_E4M3, false, false},
    {"nvint4", {INTEGER(4, -7, 7, 1)}, 16, HT_F8_E4M3, false, false},
    {"mxint8", {INTEGER(8, -127 * 0x1p-6f, 127 * 0x1p-6f, 0x1p-6f)}, 32, HT_F8_E8M0, false, false},
};

enum { FORMATS = sizeof table / sizeof *table, MAX_BLOCK = 65536 };

const ht_format *ht_format_at(int i)
{
    return i >= 0 && i < FORMATS ? &table[i] : NULL;
}

/* ---- names of simulated formats ---- */

static bool take_word(const char **s, const char *word)
{
    size_t n = strlen(word);
    if (strncmp(*s, word, n) != 0)
        return false;
    *s += n;
    return true;
}

/* A number without leading zeros. */
static bool take_number(const char **s, int min, int max, int *out)
{
    int value = 0;
    if (**s == '0' && (*s)[1] >= '0' && (*s)[1] <= '9')
        return false;
    const char *p = *s;
    for (; *p >= '0' && *p <= '9' && value <= max; p++)
        value = value * 10 + (*p - '0');
    if (p == *s || value < min || value > max)
        return false;
    *s = p;
    *out = value;
    return true;
}

static void set_integer(ht_format *f, int bits)
{
    float half = (float)(1 << (bits - 1));
    f->grid = (ht_grid){INTEGER(bits, f->asymmetric ? 0 : -half, f->asymmetric ? 2 * half - 1 : half - 1, 1)};
}

static bool set_float(ht_format *f, int bits, int exponent, int mantissa)
{
    if (bits != 1 + exponent + mantissa)
        return false;
    int first = 2 - (1 << (exponent - 1)); /* the exponent of the smallest normal: 1 - bias */
    float unit = ldexpf(1, first - mantissa);
    float highest = ldexpf((float)((2 << mantissa) - 1), first - mantissa + (1 << exponent) - 2);
    if (exponent == 4 && mantissa == 3)
        highest = 448;
    if (exponent == 5 && mantissa == 2)
        highest = 57344; /* OFP8 keeps IEEE's infinity and NaNs in E5M2 */
    f->grid = (ht_grid){FLOAT(exponent, mantissa, unit, highest)};
    return true;
}

static bool take_grid(const char **s, ht_format *f)
{
    int bits, exponent, mantissa;
    if (take_word(s, "fp"))
        return take_number(s, 2, 8, &bits) && take_word(s, "_e") && take_number(s, 1, 7, &exponent) &&
               take_word(s, "m") && take_number(s, 0, 6, &mantissa) && set_float(f, bits, exponent, mantissa);
    f->asymmetric = take_word(s, "u");
    if (!take_word(s, "int") || !take_number(s, 2, 8, &bits))
        return false;
    set_integer(f, bits);
    return true;
}

static bool parse(const char *name, ht_format *f)
{
    const char *s = name;
    memset(f, 0, sizeof *f);
    f->scale = HT_F32;
    f->simulated = true;
    if (strlen(name) >= sizeof f->name || !take_grid(&s, f))
        return false;
    if (take_word(&s, "_g") && !take_number(&s, 1, MAX_BLOCK, &f->block))
        return false;
    strcpy(f->name, name);
    return *s == '\0';
}

ht_status ht_format_find(const char *name, ht_format *format)
{
    ht_format found;
    char names[256] = "";
    for (int i = 0; i < FORMATS; i++) {
        if (strcmp(name, table[i].name) == 0) {
            *format = table[i];
            return HT_OK;
        }
        strcat(strcat(names, table[i].name), ", ");
    }
    if (parse(name, &found)) {
        *format = found;
        return HT_OK;
    }
    return ht_fail(HT_ERR_ARGUMENT,
                   "number format \"%s\" is not known; there are %sand to simulate int2 .. int8, uint2 .. uint8, "
                   "fp<bits>_e<E>m<M> "
                   "(bits = 1 + E + M <= 8), each also with _g<block>",
                   name, names);
}

/* ---- sizes ---- */

ht_status ht_format_measure(const ht_format *format, const ht_matrix *matrix, ht_format_sizes *sizes)
{
    size_t block = format->block ? (size_t)format->block : matrix->in;
    size_t scale_size = (size_t)ht_dtype_bits(format->scale) / 8, values;
    ht_format_sizes s;
    if (matrix->out == 0 || matrix->in == 0)
        return ht_fail(HT_ERR_ARGUMENT, "%s: a weight of [%zu][%zu] has nothing to quantize", matrix->name, matrix->out,
                       matrix->in);
    if (matrix->in % block)
        return ht_fail(HT_ERR_SHAPE,
                       "%s: %zu inputs a channel do not divide into the groups of %zu that %s has; choose a format "
                       "with another group or none",
                       matrix->name, matrix->in, block, format->name);
    s.blocks = matrix->in / block;
    s.row_bytes = format->grid.bits == 4 ? matrix->in / 2 + matrix->in % 2 : matrix->in;
    if (!ht_mul_size(matrix->out, matrix->in, &values) || !ht_mul_size(values, sizeof(float), &values) ||
        !ht_mul_size(matrix->out, s.row_bytes, &s.code_bytes) || !ht_mul_size(matrix->out, s.blocks, &s.scale_count) ||
        !ht_mul_size(s.scale_count, scale_size, &s.scale_bytes))
        return ht_fail(HT_ERR_ARGUMENT, "%s: a weight of [%zu][%zu] is too large", matrix->name, matrix->out,
                       matrix->in);
    *sizes = s;
    return HT_OK;
}

ht_status ht_quantized_alloc(ht_arena *arena, const ht_format *format, const ht_matrix *matrix, ht_quantized *q)
{
    ht_format_sizes sizes = {0};
    ht_status status = ht_format_measure(format, matrix, &sizes);
    if (status)
        return status;
    ht_quantized made = {.tensor_scale = 1};
    made.codes = ht_alloc(arena, sizes.code_bytes);
    made.scales = ht_alloc(arena, sizes.scale_bytes);
    made.zeros = format->asymmetric ? ht_alloc(arena, sizes.scale_count) : NULL;
    if (!made.codes || !made.scales || (format->asymmetric && !made.zeros))
        return HT_ERR_MEMORY;
    *q = made;
    return HT_OK;
}
