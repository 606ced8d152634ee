/* codes_avx2.h - codes of weights to 8 floats, for cpu/codes.inc, after cpu/simd_avx2.h.  Half precision is F16C,
 * which is older than AVX2. */
typedef struct vf_table {
    vf low, high; /* values of codes 0 .. 7, 8 .. 15 */
} vf_table;

static inline vf_table vf_load_table(const float *values)
{
    return (vf_table){vf_load(values), vf_load(values + 8)};
}
/* Codes of 4 bits lie in 4 bytes, in the order of lanes. */
static inline int vf_nibble_of_lane(int lane)
{
    return lane;
}
/* vpermps looks at three bits; the fourth, brought to the sign, chooses. */
static inline vf vf_from_nibbles(const uint8_t *p, const vf_table *t)
{
    const __m256i down = _mm256_setr_epi32(0, 4, 8, 12, 16, 20, 24, 28);
    const __m256i up = _mm256_setr_epi32(28, 24, 20, 16, 12, 8, 4, 0);
    int32_t bytes;
    memcpy(&bytes, p, sizeof bytes);
    __m256i codes = _mm256_set1_epi32(bytes), index = _mm256_srlv_epi32(codes, down);
    return _mm256_blendv_ps(_mm256_permutevar8x32_ps(t->low, index), _mm256_permutevar8x32_ps(t->high, index),
                            _mm256_castsi256_ps(_mm256_sllv_epi32(codes, up)));
}
static inline vf vf_from_int8(const uint8_t *p)
{
    return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)p)));
}
/* E4M3 is a half with fewer bits and another bias, subnormals too. */
static inline vf vf_from_e4m3(const uint8_t *p)
{
    __m128i wide = _mm_slli_epi16(_mm_cvtepi8_epi16(_mm_loadl_epi64((const __m128i *)p)), 7);
    __m128i half = _mm_and_si128(wide, _mm_set1_epi16((short)0xbf80));
    return _mm256_mul_ps(_mm256_cvtph_ps(half), _mm256_set1_ps(0x1p8f));
}
/* A power of two: the exponent of a float.  Code 0 is 2^-127, a subnormal. */
static inline vf vf_from_e8m0(const uint8_t *p)
{
    __m256i exponent = _mm256_slli_epi32(_mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)p)), 23);
    return _mm256_castsi256_ps(_mm256_max_epi32(exponent, _mm256_set1_epi32(0x00400000)));
}
static inline vf vf_from_f16(const uint16_t *p)
{
    return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)p));
}
/* The upper half of a float. */
static inline vf vf_from_bf16(const uint16_t *p)
{
    return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)p)), 16));
}
