/* goldens.h - for tests: the recorded cases of tests/goldens, found through their index, compared at its tolerances. */
#ifndef HT_TESTS_GOLDENS_H
#define HT_TESTS_GOLDENS_H

#include <stdio.h>
#include <string.h>

#include "core/json.h"
#include "tests/tensors.h"

#define GOLDENS "tests/goldens"

/* A call that must fail in this way, with these words in the message. */
#define assert_refused(call, wanted_status, words)                                                                     \
    do {                                                                                                               \
        ht_status status_ = (call);                                                                                    \
        if (status_ != (wanted_status) || !strstr(ht_error_message(), words))                                          \
            fail_msg("%s: status %d, message \"%s\"; want %d with \"%s\"", #call, status_, ht_error_message(),         \
                     wanted_status, words);                                                                            \
    } while (0)

/* Call check(name, case) for every case of a kind (and of a library class, unless NULL); returns the count. */
static inline int golden_each(const char *kind, const char *library_class,
                              void (*check)(const char *name, const json_t *entry))
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

static inline double golden_real(const json_t *object, const char *key)
{
    return json_number_value(json_object_get(object, key));
}

static inline const char *golden_string(const json_t *object, const char *key)
{
    return json_string_value(json_object_get(object, key));
}

static inline ht_safetensors *golden_open(const char *name, const char *file)
{
    char path[512];
    ht_safetensors *st;
    snprintf(path, sizeof path, GOLDENS "/%s/%s", name, file);
    assert_ok(ht_safetensors_open(path, &st));
    return st;
}

static inline void assert_close(const char *what, const float *got, const float *want, size_t n, double tolerance)
{
    double error = relative_error(got, want, n);
    if (!(error <= tolerance))
        fail_msg("%s: relative error %.3g, tolerance %.3g", what, error, tolerance);
}

#endif
