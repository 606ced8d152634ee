/* dtype.c - one row a dtype: its name and width in the safetensors format, and how one element becomes a float.
 *
 * Narrow floats are converted on the bits.  Downwards, a normal result rounds by adding half of the last place that
 * stays, less one unless that place is odd (ties to even), before the shift; the carry may run into the exponent, which
 * is then right as well.  A subnormal result comes from one addition of a power of two whose last place is the
 * target's: the FPU rounds.
 *
 * Sources: IEEE 754-2019 section 3.6; OCP 8-bit Floating Point Specification (OFP8) 1.0; OCP Microscaling Formats 1.0
 * (E8M0, E2M1); for the FNUZ pair arXiv:2206.02915 (bias one higher, no infinity, no -0: its code is NaN). */
#include "core/dtype.h"

#include <math.h>
#include <string.h>

#include "core/bits.h"

/* The decoders are inline here and wrapped below: position-independent code may not inline what it exports. */
static inline float decode_f16(uint16_t h)
{
    uint32_t sign = (uint32_t)(h & 0x8000) << 16, rest = h & 0x7fff;
    uint32_t is_small = -(uint32_t)(rest < 0x400); /* masks: with ?: the loops stay scalar */
    uint32_t is_special = -(uint32_t)(rest >= 0x7c00), is_nan = -(uint32_t)(rest > 0x7c00);
    uint32_t small = ht_bits_of((float)(int32_t)rest * 0x1p-24f);
    uint32_t normal = (rest << 13) + (112u << 23) + (is_special & (112u << 23));
    normal |= is_nan & 0x400000; /* quiet, as from hardware */
    return ht_float_of(sign | (normal & ~is_small) | (small & is_small));
}

static inline float decode_bf16(uint16_t b)
{
    return ht_float_of((uint32_t)b << 16);
}

/* exponent: of a normal float */
static inline float power_of_2(int exponent)
{
    return ht_float_of((uint32_t)(exponent + 127) << 23);
}

/* sign, exponent, mantissa of an 8-bit code without its special values */
static inline float decode_f8(uint8_t q, int mantissa_bits, int bias)
{
    uint32_t rest = q & 0x7f;
    float normal = ht_float_of((rest << (23 - mantissa_bits)) + ((uint32_t)(127 - bias) << 23));
    float magnitude = rest >> mantissa_bits ? normal : (float)rest * power_of_2(1 - bias - mantissa_bits);
    return q & 0x80 ? -magnitude : magnitude;
}

/* |f| as an 8-bit code: to nearest, ties to even, at most `largest`.  f is a number. */
static uint8_t encode_f8(float f, int mantissa_bits, int bias, uint8_t largest)
{
    uint32_t x = ht_bits_of(f) & 0x7fffffff;
    uint8_t sign = (uint8_t)(ht_bits_of(f) >> 24 & 0x80);
    int drop = 23 - mantissa_bits;
    if (ht_float_of(x) >= decode_f8(largest, mantissa_bits, bias))
        return sign | largest;
    if (ht_float_of(x) < power_of_2(1 - bias)) {
        float magic = power_of_2(1 - bias + drop); /* its last place is 2^(1 - bias - mantissa_bits) */
        return sign | (uint8_t)(ht_bits_of(ht_float_of(x) + magic) - ht_bits_of(magic));
    }
    x -= (uint32_t)(127 - bias) << 23;
    x += (1u << (drop - 1)) - 1 + (x >> drop & 1);
    return sign | (uint8_t)(x >> drop);
}

/* ---- conversions ---- */

float ht_f32_from_f16(uint16_t h)
{
    return decode_f16(h);
}

uint16_t ht_f16_from_f32(float f)
{
    uint32_t x = ht_bits_of(f) & 0x7fffffff;
    uint16_t sign = (uint16_t)(ht_bits_of(f) >> 16 & 0x8000);
    if (x > 0x7f800000)
        return sign | 0x7e00 | (uint16_t)(x >> 13 & 0x1ff);
    if (x >= 0x47800000) /* 65536; what lies between 65520 and it rounds up to infinity below */
        return sign | 0x7c00;
    if (x < 0x38800000) /* 2^-14: the last place of 0.5f is 2^-24 */
        return sign | (uint16_t)(ht_bits_of(ht_float_of(x) + 0.5f) - ht_bits_of(0.5f));
    x -= 112u << 23;
    return sign | (uint16_t)((x + 0xfff + (x >> 13 & 1)) >> 13);
}

float ht_f32_from_bf16(uint16_t b)
{
    return decode_bf16(b);
}

uint16_t ht_bf16_from_f32(float f)
{
    uint32_t x = ht_bits_of(f);
    if ((x & 0x7fffffff) > 0x7f800000)
        return (uint16_t)(x >> 16 | 0x40); /* quiet: a payload in the low half alone would round to infinity */
    return (uint16_t)((x + 0x7fff + (x >> 16 & 1)) >> 16);
}

float ht_f32_from_f8_e4m3(uint8_t q)
{
    return (q & 0x7f) == 0x7f ? copysignf(NAN, q & 0x80 ? -1.0f : 1.0f) : decode_f8(q, 3, 7);
}

uint8_t ht_f8_e4m3_from_f32(float f)
{
    return isnan(f) ? (uint8_t)(0x7f | (ht_bits_of(f) >> 24 & 0x80)) : encode_f8(f, 3, 7, 0x7e);
}

float ht_f32_from_f8_e5m2(uint8_t q)
{
    return decode_f16((uint16_t)(q << 8)); /* E5M2 is the upper half of a binary16 */
}

uint8_t ht_f8_e5m2_from_f32(float f)
{
    return isnan(f) ? (uint8_t)(0x7f | (ht_bits_of(f) >> 24 & 0x80)) : encode_f8(f, 2, 15, 0x7b);
}

/* ---- one element from unaligned memory ---- */

static inline uint16_t read_u16(const unsigned char *p)
{
    uint16_t v;
    memcpy(&v, p, sizeof v);
    return v;
}

static inline uint32_t read_u32(const unsigned char *p)
{
    uint32_t v;
    memcpy(&v, p, sizeof v);
    return v;
}

static inline uint64_t read_u64(const unsigned char *p)
{
    uint64_t v;
    memcpy(&v, p, sizeof v);
    return v;
}

static float load_bool(const unsigned char *p)
{
    return *p ? 1.0f : 0.0f;
}

static float load_u8(const unsigned char *p)
{
    return *p;
}

static float load_i8(const unsigned char *p)
{
    return (int8_t)*p;
}

static float load_f8_e5m2(const unsigned char *p)
{
    return ht_f32_from_f8_e5m2(*p);
}

static float load_f8_e4m3(const unsigned char *p)
{
    return ht_f32_from_f8_e4m3(*p);
}

static float load_f8_e8m0(const unsigned char *p)
{
    return *p == 0xff ? NAN : *p ? power_of_2(*p - 127) : 0x1p-127f;
}

static float load_f8_e4m3fnuz(const unsigned char *p)
{
    return *p == 0x80 ? NAN : decode_f8(*p, 3, 8);
}

static float load_f8_e5m2fnuz(const unsigned char *p)
{
    return *p == 0x80 ? NAN : decode_f8(*p, 2, 16);
}

static float load_i16(const unsigned char *p)
{
    return (int16_t)read_u16(p);
}

static float load_u16(const unsigned char *p)
{
    return read_u16(p);
}

static float load_f16(const unsigned char *p)
{
    return decode_f16(read_u16(p));
}

static float load_bf16(const unsigned char *p)
{
    return decode_bf16(read_u16(p));
}

static float load_i32(const unsigned char *p)
{
    return (float)(int32_t)read_u32(p);
}

static float load_u32(const unsigned char *p)
{
    return (float)read_u32(p);
}

static float load_f32(const unsigned char *p)
{
    return ht_float_of(read_u32(p));
}

static float load_f64(const unsigned char *p)
{
    double d;
    memcpy(&d, p, sizeof d);
    return (float)d;
}

static float load_i64(const unsigned char *p)
{
    return (float)(int64_t)read_u64(p);
}

static float load_u64(const unsigned char *p)
{
    return (float)read_u64(p);
}

/* ---- the table ---- */

static const struct {
    const char *name;
    int bits;
    float (*load)(const unsigned char *p); /* NULL: not whole bytes, or not real */
} table[HT_DTYPES] = {
    [HT_BOOL] = {"BOOL", 8, load_bool},
    [HT_F4] = {"F4", 4, NULL},
    [HT_F6_E2M3] = {"F6_E2M3", 6, NULL},
    [HT_F6_E3M2] = {"F6_E3M2", 6, NULL},
    [HT_U8] = {"U8", 8, load_u8},
    [HT_I8] = {"I8", 8, load_i8},
    [HT_F8_E5M2] = {"F8_E5M2", 8, load_f8_e5m2},
    [HT_F8_E4M3] = {"F8_E4M3", 8, load_f8_e4m3},
    [HT_F8_E8M0] = {"F8_E8M0", 8, load_f8_e8m0},
    [HT_F8_E4M3FNUZ] = {"F8_E4M3FNUZ", 8, load_f8_e4m3fnuz},
    [HT_F8_E5M2FNUZ] = {"F8_E5M2FNUZ", 8, load_f8_e5m2fnuz},
    [HT_I16] = {"I16", 16, load_i16},
    [HT_U16] = {"U16", 16, load_u16},
    [HT_F16] = {"F16", 16, load_f16},
    [HT_BF16] = {"BF16", 16, load_bf16},
    [HT_I32] = {"I32", 32, load_i32},
    [HT_U32] = {"U32", 32, load_u32},
    [HT_F32] = {"F32", 32, load_f32},
    [HT_C64] = {"C64", 64, NULL},
    [HT_F64] = {"F64", 64, load_f64},
    [HT_I64] = {"I64", 64, load_i64},
    [HT_U64] = {"U64", 64, load_u64},
};

const char *ht_dtype_name(ht_dtype dtype)
{
    return (unsigned)dtype < HT_DTYPES ? table[dtype].name : "?";
}

int ht_dtype_bits(ht_dtype dtype)
{
    return (unsigned)dtype < HT_DTYPES ? table[dtype].bits : 0;
}

int ht_dtype_find(const char *name)
{
    for (int i = 0; i < HT_DTYPES; i++)
        if (strcmp(name, table[i].name) == 0)
            return i;
    return -1;
}

static void convert_f4(const unsigned char *p, size_t first, size_t n, float *out)
{
    static const float e2m1[16] = {0,     0.5f,  1,     1.5f,  2,     3,     4,     6,
                                   -0.0f, -0.5f, -1.0f, -1.5f, -2.0f, -3.0f, -4.0f, -6.0f};
    for (size_t i = 0; i < n; i++) {
        size_t k = first + i;
        out[i] = e2m1[k & 1 ? p[k / 2] >> 4 : p[k / 2] & 15];
    }
}

static void convert_f16(const unsigned char *p, size_t n, float *out)
{
    for (size_t i = 0; i < n; i++)
        out[i] = decode_f16(read_u16(p + 2 * i));
}

static void convert_bf16(const unsigned char *p, size_t n, float *out)
{
    for (size_t i = 0; i < n; i++)
        out[i] = decode_bf16(read_u16(p + 2 * i));
}

int ht_convert_to_f32(ht_dtype dtype, const void *data, size_t first, size_t n, float *out)
{
    size_t width = (size_t)ht_dtype_bits(dtype) / 8;
    const unsigned char *p = data;
    if (dtype != HT_F4 && ((unsigned)dtype >= HT_DTYPES || !table[dtype].load))
        return 0;
    if (n == 0)
        return 1;
    switch (dtype) { /* what weights are stored as gets a loop that vectorizes */
    case HT_F4:
        convert_f4(p, first, n, out);
        break;
    case HT_F32:
        memcpy(out, p + 4 * first, 4 * n);
        break;
    case HT_F16:
        convert_f16(p + 2 * first, n, out);
        break;
    case HT_BF16:
        convert_bf16(p + 2 * first, n, out);
        break;
    default:
        for (size_t i = 0; i < n; i++)
            out[i] = table[dtype].load(p + (first + i) * width);
    }
    return 1;
}
