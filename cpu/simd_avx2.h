/* simd_avx2.h - the vector type of the shared kernel bodies: 8 floats. */
#include <immintrin.h>
#include <stdint.h>

#include "cpu/math.h"

typedef __m256 vf;
enum { LANES = 8, TILE_VECTORS = 2 };
#define EVERY_TILE_WIDTH(T, rows) T(rows, 1) T(rows, 2)

static inline vf vf_zero(void)
{
    return _mm256_setzero_ps();
}
static inline vf vf_set(float x)
{
    return _mm256_set1_ps(x);
}
static inline vf vf_load(const float *p)
{
    return _mm256_loadu_ps(p);
}
static inline void vf_store(float *p, vf v)
{
    _mm256_storeu_ps(p, v);
}
static inline vf vf_fma(vf a, vf b, vf c)
{
    return _mm256_fmadd_ps(a, b, c);
}
/* c - a b */
static inline vf vf_fnma(vf a, vf b, vf c)
{
    return _mm256_fnmadd_ps(a, b, c);
}
static inline vf vf_add(vf a, vf b)
{
    return _mm256_add_ps(a, b);
}
static inline vf vf_sub(vf a, vf b)
{
    return _mm256_sub_ps(a, b);
}
static inline vf vf_mul(vf a, vf b)
{
    return _mm256_mul_ps(a, b);
}
static inline vf vf_div(vf a, vf b)
{
    return _mm256_div_ps(a, b);
}
/* The second if either is NaN. */
static inline vf vf_max(vf a, vf b)
{
    return _mm256_max_ps(a, b);
}
/* The larger; NaN if either is. */
static inline vf vf_max_nan(vf a, vf b)
{
    return _mm256_blendv_ps(_mm256_max_ps(a, b), a, _mm256_cmp_ps(a, a, _CMP_UNORD_Q));
}
static inline vf vf_min(vf a, vf b)
{
    return _mm256_min_ps(a, b);
}
/* 2^n for the integer n in the low bits of a, as cpu/math.h puts it there. */
static inline vf vf_power(vf a)
{
    return _mm256_castsi256_ps(
        _mm256_add_epi32(_mm256_slli_epi32(_mm256_castps_si256(a), 23), _mm256_set1_epi32(0x3f800000)));
}
/* LANES codes as ht_code_of makes them (cpu/reference.h). */
static inline void vf_store_codes(uint8_t *to, vf v, vf inv, vf zero, vf levels)
{
    vf y = _mm256_add_ps(_mm256_round_ps(_mm256_mul_ps(v, inv), _MM_FROUND_TO_NEAREST_INT), zero);
    y = _mm256_min_ps(_mm256_max_ps(y, _mm256_setzero_ps()), levels);
    __m256i codes = _mm256_cvtps_epi32(y);
    __m128i words = _mm_packs_epi32(_mm256_castsi256_si128(codes), _mm256_extracti128_si256(codes, 1));
    _mm_storel_epi64((__m128i *)to, _mm_packus_epi16(words, words));
}

/* The same of TILE_VECTORS vectors.  What cannot become an integer (NaN, too far below) becomes the least one, and the
 * packs saturate: below at 0, while the levels are the bound above. */
static inline void vf_store_codes_together(uint8_t *to, const vf *v, vf inv, vf zero, vf levels)
{
    const __m256i in_order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
    const vf most = _mm256_sub_ps(levels, zero);
    const __m256i offset = _mm256_packs_epi32(_mm256_cvtps_epi32(zero), _mm256_cvtps_epi32(zero));
    __m256i a = _mm256_cvtps_epi32(_mm256_min_ps(most, _mm256_mul_ps(v[0], inv)));
    __m256i b = _mm256_cvtps_epi32(_mm256_min_ps(most, _mm256_mul_ps(v[1], inv)));
    __m256i words = _mm256_adds_epi16(_mm256_packs_epi32(a, b), offset);
    __m256i codes = _mm256_permutevar8x32_epi32(_mm256_packus_epi16(words, words), in_order);
    _mm_storeu_si128((__m128i *)to, _mm256_castsi256_si128(codes));
}

/* The first estimate of ht_reciprocal_f32 (cpu/math.h). */
static inline vf vf_reciprocal_bits(vf d)
{
    return _mm256_castsi256_ps(_mm256_sub_epi32(_mm256_set1_epi32(HT_RECIPROCAL), _mm256_castps_si256(d)));
}
