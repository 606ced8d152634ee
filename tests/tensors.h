/* tensors.h - what tests on golden files need: tensors as float32, channels last, and the distance of two. */
#ifndef HT_TESTS_TENSORS_H
#define HT_TESTS_TENSORS_H

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "core/safetensors.h"

/* The test fails, with the library's message, unless a call succeeds. */
#define assert_ok(call)                                                                                                \
    do {                                                                                                               \
        if ((call) != HT_OK)                                                                                           \
            fail_msg("%s: %s", #call, ht_error_message());                                                             \
    } while (0)

static inline const ht_tensor *tensor_of(const ht_safetensors *file, const char *name)
{
    const ht_tensor *t = ht_safetensors_find(file, name);
    if (!t)
        fail_msg("%s has no tensor %s", ht_safetensors_path(file), name);
    return t;
}

/* Any real dtype to float32; free it. */
static inline float *floats_of(const ht_safetensors *file, const char *name)
{
    const ht_tensor *t = tensor_of(file, name);
    float *x = malloc((t->count + 1) * sizeof *x);
    assert_non_null(x);
    assert_true(ht_convert_to_f32(t->dtype, t->data, 0, t->count, x));
    return x;
}

/* [n,c,h,w] to [n,h,w,c]; free it. */
static inline float *channels_last(const float *x, const int64_t shape[4])
{
    int64_t n = shape[0], c = shape[1], hw = shape[2] * shape[3];
    float *y = malloc((size_t)(n * c * hw) * sizeof *y);
    assert_non_null(y);
    for (int64_t i = 0; i < n; i++)
        for (int64_t j = 0; j < c; j++)
            for (int64_t p = 0; p < hw; p++)
                y[(i * hw + p) * c + j] = x[(i * c + j) * hw + p];
    return y;
}

/* An image tensor [n,c,h,w] of a file, channels last; free it. */
static inline float *images_of(const ht_safetensors *file, const char *name)
{
    const ht_tensor *t = tensor_of(file, name);
    assert_int_equal(t->ndim, 4);
    float *x = floats_of(file, name), *y = channels_last(x, t->shape);
    free(x);
    return y;
}

/* ||a - b|| / ||b||; NaN if any element is, or if b is 0. */
static inline double relative_error(const float *a, const float *b, size_t n)
{
    double difference = 0, norm = 0;
    for (size_t i = 0; i < n; i++) {
        difference += ((double)a[i] - b[i]) * ((double)a[i] - b[i]);
        norm += (double)b[i] * b[i];
    }
    return sqrt(difference) / sqrt(norm);
}

/* max |a - b|; NaN if any element is. */
static inline double largest_error(const float *a, const float *b, size_t n)
{
    double largest = 0;
    for (size_t i = 0; i < n; i++) {
        double error = fabs((double)a[i] - b[i]);
        if (!(error <= largest))
            largest = error;
        if (isnan(error))
            break;
    }
    return largest;
}

#endif
