/* json.c - configuration files.  jansson parses; this file says in our words what is wrong, and where.
 *
 * Traps: Python writes infinities and NaN as bare words, which JSON does not have, and diffusers puts
 * `"lambda_min_clipped": -Infinity` into every DPM-Solver configuration.  Such words become strings before parsing, so
 * a file that has them can be read and a key that has one is refused where a number is wanted.  jansson quotes the
 * token it stumbled over only if that is short: names given twice are found again in the text. */
#include "core/json.h"

#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/arena.h"
#include "core/file.h"

enum { MAX_FILE = 64 << 20 };

/* ---- reading ---- */

/* The string that ends before bytes[end]: jansson stops there on a key it has seen. */
static ht_status fail_duplicate(const char *bytes, size_t end, const char *label)
{
    size_t begin = end ? end - 1 : 0;
    while (begin > 0) {
        size_t slashes = 0;
        begin--;
        while (slashes < begin && bytes[begin - 1 - slashes] == '\\')
            slashes++;
        if (bytes[begin] == '"' && slashes % 2 == 0)
            break;
    }
    int length = end > begin + 2 ? (int)(end - begin - 2) : 0;
    return ht_fail(HT_ERR_FORMAT, "%s: the name \"%.*s\" is given twice", label, length < 300 ? length : 300,
                   bytes + begin + 1);
}

ht_status ht_json_parse_strict(const char *bytes, size_t size, const char *label, json_t **out)
{
    json_error_t error = {0};
    json_t *root = json_loadb(size ? bytes : "", size, JSON_REJECT_DUPLICATES, &error);
    if (json_is_object(root)) {
        *out = root;
        return HT_OK;
    }
    if (root) {
        json_decref(root);
        return ht_fail(HT_ERR_FORMAT, "%s: is a JSON array, want an object", label);
    }
    enum json_error_code code = json_error_code(&error);
    if (code == json_error_duplicate_key && error.position > 0)
        return fail_duplicate(bytes, (size_t)error.position, label);
    if (code == json_error_out_of_memory || !error.text[0]) /* it has no words when a new object does not fit */
        return ht_fail(HT_ERR_MEMORY, "%s: out of memory", label);
    return ht_fail(HT_ERR_FORMAT, "%s: is not %s: %s (line %d, column %d)", label,
                   code == json_error_invalid_utf8 ? "UTF-8" : "JSON", error.text, error.line, error.column);
}

/* The length of Infinity, -Infinity or NaN at s, 0 if it is something else. */
static size_t python_word(const char *s, size_t left)
{
    static const char *const words[] = {"Infinity", "-Infinity", "NaN"};
    for (size_t i = 0; i < sizeof words / sizeof *words; i++) {
        size_t n = strlen(words[i]);
        if (left >= n && memcmp(s, words[i], n) == 0)
            return n;
    }
    return 0;
}

/* Copy with Python's words quoted, at most 2 bytes more for each; to NULL only counts the words. */
static size_t quote_python_words(const char *bytes, size_t size, char *to)
{
    size_t words = 0, length;
    bool in_string = false;
    for (size_t i = 0; i < size; i += length) {
        size_t word = in_string ? 0 : python_word(bytes + i, size - i);
        length = word ? word : in_string && bytes[i] == '\\' && i + 1 < size ? 2 : 1;
        words += word > 0;
        in_string ^= bytes[i] == '"';
        if (to) {
            if (word)
                *to++ = '"';
            memcpy(to, bytes + i, length);
            to += length;
            if (word)
                *to++ = '"';
        }
    }
    return words;
}

ht_status ht_json_parse(const char *bytes, size_t size, const char *label, json_t **out)
{
    size_t words = quote_python_words(bytes, size, NULL), total;
    if (words == 0)
        return ht_json_parse_strict(bytes, size, label, out);
    char *text = ht_mul_size(words, 2, &total) && ht_add_size(total, size, &total) ? malloc(total) : NULL;
    if (!text)
        return ht_fail(HT_ERR_MEMORY, "%s: out of memory", label);
    quote_python_words(bytes, size, text);
    ht_status status = ht_json_parse_strict(text, total, label, out);
    free(text);
    return status;
}

ht_status ht_json_read(const char *path, json_t **out)
{
    ht_mapping file;
    ht_status status = ht_map_file(path, &file);
    if (status != HT_OK)
        return status;
    if (file.size > MAX_FILE)
        status = ht_fail(HT_ERR_FORMAT, "%s: has %zu bytes; a configuration has at most 64 MiB", path, file.size);
    else
        status = ht_json_parse((const char *)file.data, file.size, path, out);
    ht_unmap_file(&file);
    return status;
}

/* ---- typed access ---- */

/* NULL: absent, null, or an earlier call failed. */
static const json_t *get(const ht_json *j, const char *key)
{
    const json_t *value = j->status == HT_OK ? json_object_get(j->object, key) : NULL;
    return json_is_null(value) ? NULL : value;
}

/* The beginning of a value as JSON text. */
static const char *text_of(const json_t *value, char *text, size_t size)
{
    enum { DOTS = 4 };
    if (json_is_string(value)) {
        bool cut = json_string_length(value) > size - DOTS - 2;
        snprintf(text, size, "\"%.*s%s\"", (int)(size - DOTS - 2), json_string_value(value), cut ? "..." : "");
        return text;
    }
    memset(text, 0, size);
    size_t room = size - DOTS; /* json_dumpb leaves out what does not fit and goes on counting */
    size_t n = json_dumpb(value, text, room, JSON_ENCODE_ANY | JSON_COMPACT);
    if (n > room)
        memcpy(text + strlen(text), "...", DOTS);
    return n ? text : "a value that cannot be shown";
}

static void refuse(ht_json *j, const char *key, const json_t *value, const char *wanted)
{
    char text[96];
    j->status =
        ht_fail(HT_ERR_FORMAT, "%s: %s is %s, want %s", j->where, key, text_of(value, text, sizeof text), wanted);
}

bool ht_json_bool(ht_json *j, const char *key, bool fallback)
{
    const json_t *value = get(j, key);
    if (!value)
        return fallback;
    if (json_is_boolean(value))
        return json_is_true(value);
    refuse(j, key, value, "true or false");
    return fallback;
}

static bool to_int(ht_json *j, const char *key, const json_t *value, const int range[2], int *out)
{
    json_int_t i = json_integer_value(value);
    if (json_is_integer(value) && i >= range[0] && i <= range[1]) {
        *out = (int)i;
        return true;
    }
    char wanted[80];
    snprintf(wanted, sizeof wanted, "an integer from %d to %d", range[0], range[1]);
    refuse(j, key, value, wanted);
    return false;
}

int ht_json_int(ht_json *j, const char *key, int fallback, int min, int max)
{
    const json_t *value = get(j, key);
    int i;
    return value && to_int(j, key, value, (int[]){min, max}, &i) ? i : fallback;
}

static bool to_real(ht_json *j, const char *key, const json_t *value, double *out)
{
    if (json_is_number(value)) {
        *out = json_number_value(value);
        return true;
    }
    refuse(j, key, value, "a finite number");
    return false;
}

double ht_json_real(ht_json *j, const char *key, double fallback)
{
    const json_t *value = get(j, key);
    double x;
    return value && to_real(j, key, value, &x) ? x : fallback;
}

const char *ht_json_string(ht_json *j, const char *key, const char *fallback)
{
    const json_t *value = get(j, key);
    if (!value)
        return fallback;
    if (json_is_string(value))
        return json_string_value(value);
    refuse(j, key, value, "a string");
    return fallback;
}

static bool to_choice(ht_json *j, const char *key, const json_t *value, const char *const *names, int *out)
{
    const char *s = json_string_value(value);
    for (int i = 0; s && names[i]; i++) {
        if (strcmp(s, names[i]) == 0) {
            *out = i;
            return true;
        }
    }
    char text[96], known[512];
    size_t used = 0;
    known[0] = '\0';
    for (int i = 0; names[i] && used < sizeof known; i++)
        used += (size_t)snprintf(known + used, sizeof known - used, "%s%s", i ? ", " : "", names[i]);
    j->status = ht_fail(s ? HT_ERR_UNSUPPORTED : HT_ERR_FORMAT, "%s: %s %s is not supported; this version knows %s",
                        j->where, key, text_of(value, text, sizeof text), known);
    return false;
}

int ht_json_choice(ht_json *j, const char *key, int fallback, const char *const *names)
{
    const json_t *value = get(j, key);
    int i;
    return value && to_choice(j, key, value, names, &i) ? i : fallback;
}

void ht_json_only(ht_json *j, const char *key, bool value)
{
    if (ht_json_bool(j, key, value) != value)
        j->status = ht_fail(HT_ERR_UNSUPPORTED, "%s: %s %s is not supported; this version knows %s", j->where, key,
                            value ? "false" : "true", value ? "true" : "false");
}

/* ---- arrays ---- */

static const json_t *get_array(ht_json *j, const char *key, int max_count)
{
    const json_t *value = get(j, key);
    char wanted[48];
    if (!value || (json_is_array(value) && json_array_size(value) <= (size_t)max_count))
        return value;
    snprintf(wanted, sizeof wanted, "an array of at most %d", max_count);
    refuse(j, key, value, wanted);
    return NULL;
}

int ht_json_ints(ht_json *j, const char *key, int *out, int max_count, int min, int max)
{
    const json_t *array = get_array(j, key, max_count);
    int n = (int)json_array_size(array);
    for (int i = 0; i < n; i++)
        if (!to_int(j, key, json_array_get(array, (size_t)i), (int[]){min, max}, &out[i]))
            return 0;
    return n;
}

int ht_json_reals(ht_json *j, const char *key, double *out, int max_count)
{
    const json_t *array = get_array(j, key, max_count);
    int n = (int)json_array_size(array);
    for (int i = 0; i < n; i++)
        if (!to_real(j, key, json_array_get(array, (size_t)i), &out[i]))
            return 0;
    return n;
}

int ht_json_choices(ht_json *j, const char *key, int *out, int max_count, const char *const *names)
{
    const json_t *array = get_array(j, key, max_count);
    int n = (int)json_array_size(array);
    for (int i = 0; i < n; i++)
        if (!to_choice(j, key, json_array_get(array, (size_t)i), names, &out[i]))
            return 0;
    return n;
}

/* ---- all keys ---- */

static bool contains(const char *const *list, const char *key)
{
    while (*list && strcmp(*list, key))
        list++;
    return *list != NULL;
}

void ht_json_allow(ht_json *j, const char *owner, const char *const *keys)
{
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)(uintptr_t)j->object, key, value)
    {
        if (j->status)
            return;
        if (key[0] != '_' && !json_is_null(value) && !contains(keys, key))
            j->status = ht_fail(HT_ERR_UNSUPPORTED, "%s: %s is not a setting of %s that this version knows", j->where,
                                key, owner);
    }
}
