/* pixel.h - from a model's range to 8 bits: x / 2 + 0.5 clamped to [0,1], times 255, rounded to nearest with ties to
 * even, all in float32, as diffusers' pipelines do. */
#ifndef HT_CORE_PIXEL_H
#define HT_CORE_PIXEL_H

#include <math.h>
#include <stdint.h>

static inline uint8_t ht_pixel_of(float x)
{
    float unit = x / 2 + 0.5f;
    if (!(unit > 0)) /* NaN too */
        return 0;
    return unit < 1 ? (uint8_t)rintf(unit * 255) : 255;
}

#endif
