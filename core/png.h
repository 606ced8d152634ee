/* png.h - writing PNG: stb_image_write for the format, zlib for the compression, and a tEXt chunk. */
#ifndef HT_CORE_PNG_H
#define HT_CORE_PNG_H

#include "core/error.h"

/* Write pixels [h,w,c], 8 bits, c 1, 3 or 4, to a file that appears only when whole.  text: NULL, or the value of a tEXt chunk with the keyword
 * `parameters` (Latin-1; written as iTXt when it has anything beyond ASCII). */
ht_status ht_png_write(const char *path, const uint8_t *pixels, int w, int h, int c, const char *text);

#endif
