/* softmax.h - what attention's softmax becomes before it multiplies values: a format of its own, for its values lie in
 * 0 .. 1 and most are near 0 (Q-Diffusion arXiv:2302.04304 keeps 16 bits there; log2: FQ-ViT arXiv:2111.13824).
 * Codes are unsigned, without a zero point, and each row of a query and a head has a scale of its own: the row's
 * largest value is the largest code.
 *
 * Kernels have a row as e[j] = exp(s[j] - max s), of which the largest is 1, and divide by its sum at the end.  So the
 * codes are of e, the sum is that of e before it is rounded, and the row's scale is 1 / (levels sum). */
#ifndef HT_QUANT_SOFTMAX_H
#define HT_QUANT_SOFTMAX_H

#include <stdint.h>
#include <string.h>

typedef enum ht_softmax_format {
    HT_SOFTMAX_FLOAT,  /* as it comes */
    HT_SOFTMAX_UINT16, /* steps of 1/65535 of the largest */
    HT_SOFTMAX_UINT8,  /* of 1/255 */
    HT_SOFTMAX_LOG2,   /* 4 bits: code c is 2^-c times the largest, the last code 0 */
    HT_SOFTMAXES
} ht_softmax_format;

const char *ht_softmax_name(int softmax); /* "float", "uint16", "uint8", "log2"; NULL past the last */
int ht_softmax_find(const char *name);    /* -1: there is none */

/* What a code is divided by. */
static inline float ht_softmax_levels(ht_softmax_format softmax)
{
    return softmax == HT_SOFTMAX_UINT16 ? 65535 : softmax == HT_SOFTMAX_UINT8 ? 255 : 1;
}

/* The nearest whole number, of two the even one; 0 <= x < 2^22.  Both operations are exact but for this rounding, and
 * NaN stays NaN. */
static inline float ht_softmax_whole(float x)
{
    return (x + 0x1.8p23f) - 0x1.8p23f;
}

/* The nearest power of two by its logarithm, 0 below 2^-14.5: the exponent goes up where the mantissa is above
 * sqrt(2).  NaN stays NaN. */
static inline float ht_softmax_power(float x)
{
    enum { ABOVE_ROOT = 0x3504f4, ONE = 0x800000 };
    uint32_t bits;
    float power;
    memcpy(&bits, &x, sizeof bits);
    bits = (bits + (ONE - ABOVE_ROOT)) & 0xff800000u;
    memcpy(&power, &bits, sizeof power);
    power = power < 0x1p-14f ? 0 : power;
    return x == x ? power : x;
}

/* e[n] in 0 .. 1 becomes what its codes stand for, times the levels.  One loop for all instruction sets: every step of
 * it is exact or rounds once. */
static inline void ht_softmax_round(ht_softmax_format softmax, float *e, int64_t n)
{
    float levels = ht_softmax_levels(softmax);
    if (softmax == HT_SOFTMAX_LOG2)
        for (int64_t i = 0; i < n; i++)
            e[i] = ht_softmax_power(e[i]);
    else if (softmax != HT_SOFTMAX_FLOAT)
        for (int64_t i = 0; i < n; i++)
            e[i] = ht_softmax_whole(e[i] * levels);
}

#endif
