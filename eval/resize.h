/* resize.h - pictures to the size that a feature network takes, as the packages that distances are published with do.
 */
#ifndef HT_EVAL_RESIZE_H
#define HT_EVAL_RESIZE_H

#include "core/image_decode.h"

typedef enum ht_resize {
    HT_RESIZE_NONE,     /* pictures have the size */
    HT_RESIZE_BILINEAR, /* pytorch-fid: torch's interpolate, align_corners=False, no antialias */
    HT_RESIZE_TF1,      /* torch-fidelity, ADM: TensorFlow 1's resize_bilinear: source = destination * scale */
    HT_RESIZE_BICUBIC,  /* clean-fid: PIL's bicubic, antialiased, each channel in float32, clipped to [0,255] */
    HT_RESIZES
} ht_resize;

const char *ht_resize_name(ht_resize r); /* "none", "bilinear", "tf1", "bicubic" */
int ht_resize_find(const char *name);    /* -1: no such name */

/* in -> out [height,width,3] in [0,255].  HT_ERR_SHAPE if the sizes differ and r is HT_RESIZE_NONE, HT_ERR_MEMORY.
 * TF1 and BILINEAR in float32, in the order in which torch computes them; BICUBIC in double between rounding. */
ht_status ht_resize_pixels(ht_resize r, const ht_pixels *in, int height, int width, float *out);

#endif
