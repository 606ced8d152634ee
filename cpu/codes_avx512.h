/* codes_avx512.h - codes of weights to 16 floats, for cpu/codes.inc, after cpu/simd_avx512.h. */
typedef struct vf_table {
    vf values; /* of codes 0 .. 15 */
} vf_table;

static inline vf_table vf_load_table(const float *values)
{
    return (vf_table){vf_load(values)};
}
/* Codes of 4 bits lie in 8 bytes, so that a broadcast and one shift bring each to the bottom of its lane: even lanes in
 * the low half, odd ones in the high half. */
static inline int vf_nibble_of_lane(int lane)
{
    return lane % 2 * 8 + lane / 2;
}
/* Bits above the code do not matter: vpermps looks at four. */
static inline vf vf_from_nibbles(const uint8_t *p, const vf_table *t)
{
    const __m512i shifts = _mm512_setr_epi32(0, 0, 4, 4, 8, 8, 12, 12, 16, 16, 20, 20, 24, 24, 28, 28);
    __m512i codes = _mm512_broadcastq_epi64(_mm_loadl_epi64((const __m128i *)p));
    return _mm512_permutexvar_ps(_mm512_srlv_epi32(codes, shifts), t->values);
}
static inline vf vf_from_int8(const uint8_t *p)
{
    return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)p)));
}
/* E4M3 is a half with fewer bits and another bias, subnormals too. */
static inline vf vf_from_e4m3(const uint8_t *p)
{
    __m256i wide = _mm256_slli_epi16(_mm256_cvtepi8_epi16(_mm_loadu_si128((const __m128i *)p)), 7);
    __m256i half = _mm256_and_si256(wide, _mm256_set1_epi16((short)0xbf80));
    return _mm512_mul_ps(_mm512_cvtph_ps(half), _mm512_set1_ps(0x1p8f));
}
/* A power of two: the exponent of a float.  Code 0 is 2^-127, a subnormal. */
static inline vf vf_from_e8m0(const uint8_t *p)
{
    __m512i exponent = _mm512_slli_epi32(_mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)p)), 23);
    return _mm512_castsi512_ps(_mm512_max_epi32(exponent, _mm512_set1_epi32(0x00400000)));
}
static inline vf vf_from_f16(const uint16_t *p)
{
    return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)p));
}
/* The upper half of a float. */
static inline vf vf_from_bf16(const uint16_t *p)
{
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)p)), 16));
}
