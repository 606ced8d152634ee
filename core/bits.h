/* bits.h - a float32 and the bits that hold it. */
#ifndef HT_CORE_BITS_H
#define HT_CORE_BITS_H

#include <stdint.h>
#include <string.h>

static inline float ht_float_of(uint32_t bits)
{
    float f;
    memcpy(&f, &bits, sizeof f);
    return f;
}

static inline uint32_t ht_bits_of(float f)
{
    uint32_t bits;
    memcpy(&bits, &f, sizeof bits);
    return bits;
}

#endif
