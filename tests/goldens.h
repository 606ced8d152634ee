/* goldens.h - for tests: the recorded cases of tests/goldens, found through their index and compared at its tolerances. */
#ifndef HT_TESTS_GOLDENS_H
#define HT_TESTS_GOLDENS_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/json.h"
#include "core/safetensors.h"

#define GOLDENS "tests/goldens"

/* A call that must succeed; the library's message if it did not. */
#define assert_ok(call)                                                                                                                    \
    do {                                                                                                                                   \
        if ((call) != HT_OK)                                                                                                               \
            fail_msg("%s: %s", #call, ht_error_message());                                                                                 \
    } while (0)

/* A call that must fail in this way, with these words in the message. */
#define assert_refused(call, wanted_status, words)                                                                                         \
    do {                                                                                                                                   \
        ht_status status_ = (call);                                                                                                        \
        if (status_ != (wanted_status) || !strstr(ht_error_message(), words))                                                              \
            fail_msg("%s: status %d, message \"%s\"; want %d with \"%s\"", #call, status_, ht_error_message(), wanted_status, words);      \
    } while (0)

/* Call check(name, case) for every case of a kind (and of a class, unless NULL); returns how many there were. */
static inline int golden_each(const char *kind, const char *library_class, void (*check)(const char *name, const json_t *entry))
{
    json_t *index, *entry;
    const char *name;
    int count = 0;
    assert_ok(ht_json_read(GOLDENS "/index.json", &index));
    json_object_foreach(json_object_get(index, "cases"), name, entry)
    {
        const char *class_name = json_string_value(json_object_get(entry, "library_class"));
        if (strcmp(json_string_value(json_object_get(entry, "kind")), kind))
            continue;
        if (library_class && (!class_name || strcmp(class_name, library_class)))
            continue;
        check(name, entry);
        count++;
    }
    json_decref(index);
    return count;
}

static inline ht_safetensors *golden_open(const char *name, const char *file)
{
    char path[512];
    ht_safetensors *st;
    snprintf(path, sizeof path, GOLDENS "/%s/%s", name, file);
    assert_ok(ht_safetensors_open(path, &st));
    return st;
}

static inline const ht_tensor *golden_find(const ht_safetensors *st, const char *name)
{
    const ht_tensor *t = ht_safetensors_find(st, name);
    if (!t)
        fail_msg("%s: no tensor %s", ht_safetensors_path(st), name);
    return t;
}

/* A tensor as float32, to be freed. */
static inline float *golden_floats(const ht_safetensors *st, const char *name)
{
    const ht_tensor *t = golden_find(st, name);
    float *out = malloc((t->count + 1) * sizeof *out);
    assert_non_null(out);
    assert_int_equal(ht_convert_to_f32(t->dtype, t->data, 0, t->count, out), 1);
    return out;
}

/* ||got - want|| / ||want||; NaN if either has one. */
static inline double relative_l2(const float *got, const float *want, size_t n)
{
    double difference = 0, norm = 0;
    for (size_t i = 0; i < n; i++) {
        difference += ((double)got[i] - want[i]) * ((double)got[i] - want[i]);
        norm += (double)want[i] * want[i];
    }
    return difference == 0 ? 0 : sqrt(difference / norm);
}

static inline void assert_close(const char *what, const float *got, const float *want, size_t n, double tolerance)
{
    double error = relative_l2(got, want, n);
    if (!(error <= tolerance))
        fail_msg("%s: relative error %.3g, tolerance %.3g", what, error, tolerance);
}

/* [c, pixels] <-> [pixels, c] of one image. */
static inline void channels_last(size_t pixels, size_t c, const float *in, float *out)
{
    for (size_t p = 0; p < pixels; p++)
        for (size_t k = 0; k < c; k++)
            out[p * c + k] = in[k * pixels + p];
}

static inline void channels_first(size_t pixels, size_t c, const float *in, float *out)
{
    for (size_t p = 0; p < pixels; p++)
        for (size_t k = 0; k < c; k++)
            out[k * pixels + p] = in[p * c + k];
}

#endif
