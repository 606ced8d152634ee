/* integer_avx512.h - what the integer kernels of AVX-512 VNNI and AMX share: runs of bytes, 4 bits to 8, integers to
 * floats. */
#include <immintrin.h>
#include <stdint.h>

static inline __mmask64 first_bytes(int64_t n) /* 1 .. 64 */
{
    return ~(__mmask64)0 >> (64 - n);
}

static inline void copy_codes(uint8_t *to, const uint8_t *from, int64_t n)
{
    for (; n >= 64; n -= 64, to += 64, from += 64)
        _mm512_storeu_si512(to, _mm512_loadu_si512(from));
    if (n > 0)
        _mm512_mask_storeu_epi8(to, first_bytes(n), _mm512_maskz_loadu_epi8(first_bytes(n), from));
}

static inline void fill_codes(uint8_t *to, uint8_t code, int64_t n)
{
    for (; n > 64; n -= 64, to += 64)
        _mm512_storeu_si512(to, _mm512_set1_epi8((char)code));
    if (n > 0)
        _mm512_mask_storeu_epi8(to, first_bytes(n), _mm512_set1_epi8((char)code));
}

/* 2 rows of `row` bytes, a multiple of 64, from one of pairs of codes. */
static inline void unpack_row(const int8_t *values, const uint8_t *codes, int64_t row, int8_t *to)
{
    const __m512i table = _mm512_broadcast_i32x4(_mm_load_si128((const __m128i *)values));
    const __m512i low = _mm512_set1_epi8(15);
    for (int64_t i = 0; i < row; i += 64) {
        __m512i pairs = _mm512_loadu_si512(codes + i);
        _mm512_storeu_si512(to + i, _mm512_shuffle_epi8(table, _mm512_and_si512(pairs, low)));
        pairs = _mm512_and_si512(_mm512_srli_epi16(pairs, 4), low);
        _mm512_storeu_si512(to + row + i, _mm512_shuffle_epi8(table, pairs));
    }
}

typedef __m512i vi;

static inline vi vi_load(const int32_t *p)
{
    return _mm512_loadu_si512(p);
}

static inline vi vi_scale(vi a, int32_t by)
{
    return _mm512_mullo_epi32(a, _mm512_set1_epi32(by));
}

static inline __m512 sums_to_floats(const int32_t *sums, vi correction)
{
    return _mm512_cvtepi32_ps(_mm512_sub_epi32(vi_load(sums), correction));
}
