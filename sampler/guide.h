/* guide.h - classifier-free guidance (arXiv:2207.12598): two predictions of one image become one. */
#ifndef HT_SAMPLER_GUIDE_H
#define HT_SAMPLER_GUIDE_H

#include <stddef.h>

/* One image's predictions, [pixels,channels]: the first `guided` channels are led, the others, such as a learned
 * variance, stay those of the positive condition. */
typedef struct ht_guidance {
    double scale, rescale;
    size_t pixels;
    int channels, guided;
} ht_guidance;

/* out = negative + scale (positive - negative), in place of negative.  rescale above 0:
 * brought towards the spread of positive by that share (arXiv:2305.08891, section 3.4). */
void ht_guide(const ht_guidance *g, float *negative, const float *positive);

/* LCM's embedding of a guidance scale (arXiv:2310.04378, section 4.2): dim numbers of w = guidance - 1. */
void ht_guidance_embedding(double guidance, int dim, float *out);

#endif
