/* guide.h - classifier-free guidance (arXiv:2207.12598): two predictions of one image become one. */
#ifndef HT_SAMPLER_GUIDE_H
#define HT_SAMPLER_GUIDE_H

#include <stddef.h>

/* out = negative + guidance (positive - negative), in place of negative; n values of one image.  rescale above 0:
 * brought towards the spread of positive by that share (arXiv:2305.08891, section 3.4). */
void ht_guide(size_t n, float *negative, const float *positive, double guidance, double rescale);

/* LCM's embedding of a guidance scale (arXiv:2310.04378, section 4.2): dim numbers of w = guidance - 1. */
void ht_guidance_embedding(double guidance, int dim, float *out);

#endif
