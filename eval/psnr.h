/* psnr.h - how far pictures are from others, pixel by pixel: the peak signal-to-noise ratio. */
#ifndef HT_EVAL_PSNR_H
#define HT_EVAL_PSNR_H

#include "core/error.h"

/* In decibels, -10 log10(mean squared error) of pictures in [0,1]; infinity where there is no difference. */
typedef struct ht_psnr {
    double pooled, mean;                 /* of the values as they are, clamped to the range of a picture */
    double pooled_rounded, mean_rounded; /* of both rounded to 8 bits first, as PNG files of them are */
} ht_psnr;

/* n > 0 pairs of images in [-1,1], of `values` > 0 numbers each.  pooled: of the squared error of all images together;
 * mean: over the images, of the ratio of each.  Sums are in double, value after value and image after image.
 * HT_ERR_ARGUMENT for empty sets and for values that are NaN: these have no distance. */
ht_status ht_psnr_images(int64_t n, size_t values, const float *a, const float *b, ht_psnr *out);

/* Of two pictures of `values` > 0 numbers of 8 bits. */
double ht_psnr_pixels(size_t values, const uint8_t *a, const uint8_t *b);

#endif
