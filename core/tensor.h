/* tensor.h - a named array: a view of memory that somebody else owns. */
#ifndef HT_CORE_TENSOR_H
#define HT_CORE_TENSOR_H

#include "core/dtype.h"

enum { HT_MAX_DIMS = 8 };

typedef struct ht_tensor {
    const char *name;
    ht_dtype dtype;
    int ndim; /* 0: a scalar */
    int64_t shape[HT_MAX_DIMS];
    const void *data; /* row-major, little-endian; need not be aligned to its element */
    size_t count;     /* elements: the product of shape */
    size_t bytes;
} ht_tensor;

#endif
