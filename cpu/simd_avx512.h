/* simd_avx512.h - the vector type of the shared kernel bodies: 16 floats. */
#include <immintrin.h>
#include <stdint.h>

#include "cpu/math.h"

typedef __m512 vf;
enum { LANES = 16, TILE_VECTORS = 4 };
#define EVERY_TILE_WIDTH(T, rows) T(rows, 1) T(rows, 2) T(rows, 3) T(rows, 4)

static inline vf vf_zero(void)
{
    return _mm512_setzero_ps();
}
static inline vf vf_set(float x)
{
    return _mm512_set1_ps(x);
}
static inline vf vf_load(const float *p)
{
    return _mm512_loadu_ps(p);
}
static inline void vf_store(float *p, vf v)
{
    _mm512_storeu_ps(p, v);
}
static inline vf vf_fma(vf a, vf b, vf c)
{
    return _mm512_fmadd_ps(a, b, c);
}
/* c - a b */
static inline vf vf_fnma(vf a, vf b, vf c)
{
    return _mm512_fnmadd_ps(a, b, c);
}
static inline vf vf_add(vf a, vf b)
{
    return _mm512_add_ps(a, b);
}
static inline vf vf_sub(vf a, vf b)
{
    return _mm512_sub_ps(a, b);
}
static inline vf vf_mul(vf a, vf b)
{
    return _mm512_mul_ps(a, b);
}
static inline vf vf_div(vf a, vf b)
{
    return _mm512_div_ps(a, b);
}
/* The second if either is NaN. */
static inline vf vf_max(vf a, vf b)
{
    return _mm512_max_ps(a, b);
}
/* The larger; NaN if either is. */
static inline vf vf_max_nan(vf a, vf b)
{
    return _mm512_mask_mov_ps(_mm512_max_ps(a, b), _mm512_cmp_ps_mask(a, a, _CMP_UNORD_Q), a);
}
static inline vf vf_min(vf a, vf b)
{
    return _mm512_min_ps(a, b);
}
/* 2^n for the integer n in the low bits of a, as cpu/math.h puts it there. */
static inline vf vf_power(vf a)
{
    return _mm512_castsi512_ps(
        _mm512_add_epi32(_mm512_slli_epi32(_mm512_castps_si512(a), 23), _mm512_set1_epi32(0x3f800000)));
}
/* LANES codes as ht_code_of makes them (cpu/reference.h). */
static inline void vf_store_codes(uint8_t *to, vf v, vf inv, vf zero, vf levels)
{
    vf y = _mm512_add_ps(_mm512_roundscale_ps(_mm512_mul_ps(v, inv), _MM_FROUND_TO_NEAREST_INT), zero);
    y = _mm512_min_ps(_mm512_max_ps(y, _mm512_setzero_ps()), levels);
    _mm_storeu_si128((__m128i *)to, _mm512_cvtepi32_epi8(_mm512_cvtps_epi32(y)));
}

/* The same of TILE_VECTORS vectors.  What cannot become an integer (NaN, too far below) becomes the least one, and the
 * packs saturate: below at 0, while the levels are the bound above. */
static inline void vf_store_codes_together(uint8_t *to, const vf *v, vf inv, vf zero, vf levels)
{
    const __m512i in_order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
    const vf most = _mm512_sub_ps(levels, zero);
    const __m512i offset = _mm512_packs_epi32(_mm512_cvtps_epi32(zero), _mm512_cvtps_epi32(zero));
    __m512i code[4];
#pragma GCC unroll 4
    for (int i = 0; i < 4; i++)
        code[i] = _mm512_cvtps_epi32(_mm512_min_ps(most, _mm512_mul_ps(v[i], inv)));
    __m512i low = _mm512_adds_epi16(_mm512_packs_epi32(code[0], code[1]), offset);
    __m512i high = _mm512_adds_epi16(_mm512_packs_epi32(code[2], code[3]), offset);
    _mm512_storeu_si512(to, _mm512_permutexvar_epi32(in_order, _mm512_packus_epi16(low, high)));
}

/* The first estimate of ht_reciprocal_f32 (cpu/math.h). */
static inline vf vf_reciprocal_bits(vf d)
{
    return _mm512_castsi512_ps(_mm512_sub_epi32(_mm512_set1_epi32(HT_RECIPROCAL), _mm512_castps_si512(d)));
}
