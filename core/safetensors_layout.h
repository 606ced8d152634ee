/* safetensors_layout.h - what the reader and the writer must agree on; private to the two. */
#ifndef HT_CORE_SAFETENSORS_LAYOUT_H
#define HT_CORE_SAFETENSORS_LAYOUT_H

#include "core/error.h"
#include "core/tensor.h"

#define HT_SAFETENSORS_METADATA "__metadata__" /* the one key of a header that is no tensor */

enum { HT_SAFETENSORS_MAX_HEADER = 100 * 1000 * 1000 }; /* as the reference */

/* Set t->count and t->bytes from name, dtype, ndim and shape; label goes in front of messages. */
ht_status ht_safetensors_measure(const char *label, ht_tensor *t);

#endif
