/* config.h - what the readers of U-Nets' and autoencoders' configurations share.  Errors stick to the reader. */
#ifndef HT_UNET_CONFIG_H
#define HT_UNET_CONFIG_H

#include "core/json.h"

/* There, and null. */
bool ht_unet_is_null(const ht_json *j, const char *key);

/* The only values that are supported, all of one meaning, spelled out so that the message says so. */
void ht_unet_accept_only(ht_json *j, const char *key, const char *const *names);

/* A number that is still one, and not zero, in float32. */
float ht_unet_positive_real(ht_json *j, const char *key, double fallback);

/* sample_size: a number, or [height, width]; 0 if absent. */
void ht_unet_sample_size(ht_json *j, int *height, int *width);

/* Whether there is a list with an entry a level; an empty one is an error. */
bool ht_unet_has_list(ht_json *j, const char *key);

/* quantization_config: of us, or an error. */
void ht_unet_quantization(ht_json *j);

#endif
