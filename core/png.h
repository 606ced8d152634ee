/* png.h - writing PNG: stb_image_write for the format, zlib for the compression, and a text chunk. */
#ifndef HT_CORE_PNG_H
#define HT_CORE_PNG_H

#include "core/error.h"

enum { HT_PNG_MAX_SIDE = 65535 };

/* Write pixels [h,w,c], 8 bits, c 1, 3 or 4 (gray, RGB, RGBA), sides 1 .. HT_PNG_MAX_SIDE, to a file that appears only
 * when whole.  text: NULL, or UTF-8 for a chunk with the keyword `parameters`: tEXt when it is all ASCII, iTXt
 * otherwise; bytes that are not UTF-8 become '?'.  HT_ERR_ARGUMENT for sizes out of range, HT_ERR_IO, HT_ERR_MEMORY. */
ht_status ht_png_write(const char *path, const uint8_t *pixels, int w, int h, int c, const char *text);

#endif
