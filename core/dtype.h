/* dtype.h - the element types that files hold, and their conversion to and from float32. */
#ifndef HT_CORE_DTYPE_H
#define HT_CORE_DTYPE_H

#include <stddef.h>
#include <stdint.h>

/* In the order of the table in dtype.c.  Names and widths are those of the safetensors format. */
typedef enum ht_dtype {
    HT_BOOL,
    HT_F4,
    HT_F6_E2M3,
    HT_F6_E3M2,
    HT_U8,
    HT_I8,
    HT_F8_E5M2,
    HT_F8_E4M3,
    HT_F8_E8M0,
    HT_F8_E4M3FNUZ,
    HT_F8_E5M2FNUZ,
    HT_I16,
    HT_U16,
    HT_F16,
    HT_BF16,
    HT_I32,
    HT_U32,
    HT_F32,
    HT_C64,
    HT_F64,
    HT_I64,
    HT_U64,
    HT_DTYPES
} ht_dtype;

const char *ht_dtype_name(ht_dtype dtype); /* "F8_E4M3" */
int ht_dtype_bits(ht_dtype dtype);         /* of one element: 4 for F4, 6 for F6_*, 64 for C64 */
int ht_dtype_find(const char *name);       /* the ht_dtype, or -1 */

float ht_f32_from_f16(uint16_t h);
uint16_t ht_f16_from_f32(float f); /* to nearest, ties to even; NaN stays NaN, overflow is infinity (IEEE 754) */
float ht_f32_from_bf16(uint16_t b);
uint16_t ht_bf16_from_f32(float f);   /* to nearest, ties to even; NaN stays NaN */
float ht_f32_from_f8_e4m3(uint8_t q); /* OCP OFP8 E4M3: no infinity, 0x7f and 0xff are NaN */
uint8_t
ht_f8_e4m3_from_f32(float f); /* to nearest, ties to even, saturating at 448 as OCP's saturating mode; NaN stays NaN */
float ht_f32_from_f8_e5m2(uint8_t q);
uint8_t ht_f8_e5m2_from_f32(float f); /* to nearest, ties to even; saturating at 57344 */

/* n elements from index `first` of packed data of any real dtype to float32 (integers converted; C64 is refused:
 * returns 0). F4 is E2M1, two a byte, low nibble first; F6 is not convertible here either.  Returns 1 when converted.
 */
int ht_convert_to_f32(ht_dtype dtype, const void *data, size_t first, size_t n, float *out);

#endif
