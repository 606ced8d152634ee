/* jpeg.h - JPEG files as 8-bit RGB. */
#ifndef HT_CORE_JPEG_H
#define HT_CORE_JPEG_H

#include "core/image_decode.h"

/* As ht_image_decode, of bytes that begin as a JPEG does. */
ht_status ht_jpeg_decode(const void *bytes, size_t size, const char *label, ht_pixels *out);

#endif
