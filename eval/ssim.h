/* ssim.h - structural similarity of two pictures. */
#ifndef HT_EVAL_SSIM_H
#define HT_EVAL_SSIM_H

#include "core/error.h"

typedef enum ht_ssim_window {
    HT_SSIM_GAUSSIAN, /* 11 x 11, sigma 1.5, as Wang et al. (IEEE TIP 13, 2004, section III C) */
    HT_SSIM_UNIFORM7  /* 7 x 7 with the sample covariance: scikit-image's default */
} ht_ssim_window;

/* Mean over all windows that lie inside and over the channels, of pictures [h,w,c] of 8 bits, K1 0.01, K2 0.03.  In
 * double, row after row.  HT_ERR_SHAPE if the pictures are smaller than a window. */
ht_status ht_ssim_pixels(ht_ssim_window window_kind, int h, int w, int c, const uint8_t *a, const uint8_t *b,
                         double *out);

#endif
