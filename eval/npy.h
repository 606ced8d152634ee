/* npy.h - an array as numpy.save writes it. */
#ifndef HT_EVAL_NPY_H
#define HT_EVAL_NPY_H

#include "core/error.h"

enum { HT_NPY_MAX_DIMS = 8, HT_NPY_MAX_BYTES = 1 << 30 };

typedef struct ht_npy_array {
    int ndim; /* 0: a scalar */
    int64_t shape[HT_NPY_MAX_DIMS];
    size_t count;
    double *data; /* [count], row-major; free it */
} ht_npy_array;

/* The bytes of a .npy as float64: float32 and float64, little-endian, in C or Fortran order.  label goes in front of
 * messages.  HT_ERR_FORMAT if the header does not parse or the size is not that of the shape, HT_ERR_UNSUPPORTED for
 * other types, HT_ERR_MEMORY. */
ht_status ht_npy_parse(const void *bytes, size_t size, const char *label, ht_npy_array *out);

#endif
