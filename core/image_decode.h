/* image_decode.h - pictures of PNG, JPEG and BMP files as 8-bit RGB. */
#ifndef HT_CORE_IMAGE_DECODE_H
#define HT_CORE_IMAGE_DECODE_H

#include <stdbool.h>

#include "core/error.h"

enum { HT_IMAGE_MAX_SIDE = 32768, HT_IMAGE_MAX_PIXELS = 1 << 26 };

typedef struct ht_pixels {
    int height, width;
    uint8_t *data; /* [height,width,3]; free it */
} ht_pixels;

/* Whether a name ends as the files that are decoded here do: .png, .jpg, .jpeg, .bmp, in any case. */
bool ht_image_is_named(const char *name);

/* Decode a file's bytes.  Gray becomes three equal colours, palettes their colours; of 16 bits the higher eight are
 * taken; an alpha channel is left out, as PIL's convert("RGB") does.  label goes in front of messages.  HT_ERR_FORMAT
 * if it is none of the formats or damaged, HT_ERR_UNSUPPORTED if it has more than HT_IMAGE_MAX_PIXELS pixels or a side
 * of more than HT_IMAGE_MAX_SIDE, HT_ERR_MEMORY.  Any thread. */
ht_status ht_image_decode(const void *bytes, size_t size, const char *label, ht_pixels *out);

#endif
