/* safetensors_write.c - the writer.  Layout as the reference's `serialize`: metadata first, then tensors by falling
 * alignment of their dtype and by name, so that data is aligned to its element wherever the header ends on 8 bytes. */
#include "core/safetensors.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "core/arena.h"
#include "core/file.h"
#include "core/json.h"
#include "core/safetensors_layout.h"

static ht_status check_tensor(const char *path, const ht_tensor *t)
{
    ht_tensor measured = *t;
    if (!t->name || strcmp(t->name, HT_SAFETENSORS_METADATA) == 0)
        return ht_fail(HT_ERR_ARGUMENT, "%s: %s is not a name for a tensor", path, t->name ? t->name : "NULL");
    if ((unsigned)t->dtype >= HT_DTYPES || t->ndim < 0 || t->ndim > HT_MAX_DIMS)
        return ht_fail(HT_ERR_ARGUMENT, "%s: tensor %s: dtype %d or %d dimensions are out of range", path, t->name,
                       (int)t->dtype, t->ndim);
    for (int i = 0; i < t->ndim; i++)
        if (t->shape[i] < 0)
            return ht_fail(HT_ERR_ARGUMENT, "%s: tensor %s: shape[%d] is negative", path, t->name, i);
    if (ht_safetensors_measure(path, &measured) != HT_OK)
        return HT_ERR_ARGUMENT;
    if (t->bytes != measured.bytes || (t->bytes && !t->data))
        return ht_fail(HT_ERR_ARGUMENT, "%s: tensor %s: has %zu bytes of data, its shape of %s takes %zu", path,
                       t->name, t->data ? t->bytes : 0, ht_dtype_name(t->dtype), measured.bytes);
    return HT_OK;
}

/* The enum is in the reference's order, which is rising alignment. */
static int by_alignment(const void *a, const void *b)
{
    const ht_tensor *s = *(const ht_tensor *const *)a, *t = *(const ht_tensor *const *)b;
    if (s->dtype != t->dtype)
        return s->dtype < t->dtype ? 1 : -1;
    return strcmp(s->name, t->name);
}

/* Takes value, also when it fails. */
static ht_status add_new(const char *path, json_t *object, const char *key, json_t *value)
{
    if (json_object_get(object, key)) {
        json_decref(value);
        return ht_fail(HT_ERR_ARGUMENT, "%s: the name %s is given twice", path, key);
    }
    if (json_object_set_new(object, key, value) == 0)
        return HT_OK;
    return ht_fail(HT_ERR_ARGUMENT, "%s: %s: a name or value is not UTF-8, or memory is out", path, key);
}

/* NULL: out of memory. */
static json_t *entry_of(const ht_tensor *t, size_t begin)
{
    json_t *shape = json_array();
    for (int i = 0; i < t->ndim; i++) {
        if (json_array_append_new(shape, json_integer(t->shape[i])) < 0) {
            json_decref(shape);
            return NULL;
        }
    }
    json_int_t first = (json_int_t)begin, end = first + (json_int_t)t->bytes;
    return json_pack("{s:s, s:o, s:[I, I]}", "dtype", ht_dtype_name(t->dtype), "shape", shape, "data_offsets", first,
                     end);
}

static ht_status add_metadata(const char *path, json_t *header, const ht_metadata *metadata, size_t n)
{
    json_t *map = json_object();
    ht_status status = HT_OK;
    for (size_t i = 0; i < n && status == HT_OK; i++)
        status = add_new(path, map, metadata[i].key, json_string(metadata[i].value));
    if (status == HT_OK && n > 0)
        return add_new(path, header, HT_SAFETENSORS_METADATA, map);
    json_decref(map);
    return status;
}

static ht_status add_tensors(const char *path, json_t *header, const ht_tensor *const *order, size_t n)
{
    size_t begin = 0, end;
    for (size_t i = 0; i < n; i++) {
        if (!ht_add_size(begin, order[i]->bytes, &end) || end > INT64_MAX)
            return ht_fail(HT_ERR_ARGUMENT, "%s: the size of its tensors overflows", path);
        ht_status status = add_new(path, header, order[i]->name, entry_of(order[i], begin));
        if (status != HT_OK)
            return status;
        begin = end;
    }
    return HT_OK;
}

/* The length and the header, padded: the bytes before the data.  The caller frees *head. */
static ht_status make_head(const char *path, const json_t *header, char **head, size_t *size)
{
    size_t n = json_dumpb(header, NULL, 0, JSON_COMPACT), padded = (n + 7) / 8 * 8;
    if (padded > HT_SAFETENSORS_MAX_HEADER)
        return ht_fail(HT_ERR_ARGUMENT, "%s: names and metadata take %zu bytes, at most %d are allowed", path, padded,
                       HT_SAFETENSORS_MAX_HEADER);
    char *s = n ? malloc(8 + padded) : NULL;
    if (!s)
        return ht_fail(HT_ERR_MEMORY, "%s: out of memory", path);
    for (int i = 0; i < 8; i++)
        s[i] = (char)((uint64_t)padded >> 8 * i & 255);
    memset(s + 8, ' ', padded);
    json_dumpb(header, s + 8, n, JSON_COMPACT);
    *head = s;
    *size = 8 + padded;
    return HT_OK;
}

static ht_status write_file(const char *path, const char *head, size_t size, const ht_tensor *const *order, size_t n)
{
    ht_output *output;
    ht_status status = ht_output_open(path, &output);
    if (status != HT_OK)
        return status;
    FILE *f = ht_output_stream(output);
    bool ok = fwrite(head, 1, size, f) == size;
    for (size_t i = 0; i < n && ok; i++)
        ok = order[i]->bytes == 0 || fwrite(order[i]->data, 1, order[i]->bytes, f) == order[i]->bytes;
    return ht_output_commit(output); /* a write that failed is reported here */
}

ht_status ht_safetensors_write(const char *path, const ht_tensor *tensors, size_t n, const ht_metadata *metadata,
                               size_t n_metadata)
{
    ht_status status = HT_OK;
    size_t size = 0;
    char *head = NULL;
    json_t *header = json_object();
    const ht_tensor **order = calloc(n + 1, sizeof *order);
    if (!order || !header) {
        status = ht_fail(HT_ERR_MEMORY, "%s: out of memory", path);
        goto done;
    }
    for (size_t i = 0; i < n; i++) {
        if ((status = check_tensor(path, &tensors[i])) != HT_OK)
            goto done;
        order[i] = &tensors[i];
    }
    qsort(order, n, sizeof *order, by_alignment);
    if ((status = add_metadata(path, header, metadata, n_metadata)) == HT_OK &&
        (status = add_tensors(path, header, order, n)) == HT_OK &&
        (status = make_head(path, header, &head, &size)) == HT_OK)
        status = write_file(path, head, size, order, n);
done:
    free(head);
    free(order);
    json_decref(header);
    return status;
}
