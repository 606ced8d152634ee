/* json.h - typed, checked access to JSON configuration files; jansson does the parsing. */
#ifndef HT_CORE_JSON_H
#define HT_CORE_JSON_H

#include <jansson.h>
#include <stdbool.h>

#include "core/error.h"

/* Read a file (at most 64 MiB) whose top level is an object; duplicate keys are an error.  The caller owns *out
 * (json_decref). Python's Infinity, -Infinity and NaN, which diffusers writes, come out as strings of that name. */
ht_status ht_json_read(const char *path, json_t **out);
ht_status ht_json_parse(const char *bytes, size_t size, const char *label, json_t **out);
ht_status ht_json_parse_strict(const char *bytes, size_t size, const char *label,
                               json_t **out); /* those words are errors */

/* A reader with a sticky error: after the first failure every call returns its fallback and keeps the first message.
 * `where` goes in front of messages ("unet/config.json").  A key that is absent or null gives the fallback; one of the
 * wrong type or out of range is an error that names key, value and what is wanted. */
typedef struct ht_json {
    const json_t *object;
    const char *where;
    ht_status status;
} ht_json;

bool ht_json_bool(ht_json *j, const char *key, bool fallback);
int ht_json_int(ht_json *j, const char *key, int fallback, int min, int max);
double ht_json_real(ht_json *j, const char *key, double fallback);
const char *ht_json_string(ht_json *j, const char *key, const char *fallback); /* borrowed from object */

/* One of a NULL-terminated list of names; its index.  Anything else: `where: key "x" is not supported; this version
 * knows a, b, c`. */
int ht_json_choice(ht_json *j, const char *key, int fallback, const char *const *names);

/* A setting that may only be what it is when absent; the other value is an error that names both. */
void ht_json_only(ht_json *j, const char *key, bool value);

/* Arrays.  Absent or null: 0 and nothing written.  More than max entries or a wrong type: an error. */
int ht_json_ints(ht_json *j, const char *key, int *out, int max_count, int min, int max);
int ht_json_reals(ht_json *j, const char *key, double *out, int max_count);
int ht_json_choices(ht_json *j, const char *key, int *out, int max_count, const char *const *names);

/* Refuse a key that is not in a NULL-terminated list: `where: key is not a setting of owner that this version knows`.
 * Keys that are null, and those that begin with an underscore (diffusers' own notes), pass. */
void ht_json_allow(ht_json *j, const char *owner, const char *const *keys);

#endif
