/* safetensors.c - the reader.  Format: github.com/huggingface/safetensors, README "Format".
 *
 * A file is read in three steps: the header's JSON becomes an array of tensors, each checked by itself; sorted by
 * place, they must tile the data without overlap or hole; sorted by name, they are what callers search.  Names and
 * metadata live in an arena, data stays in the mapping.  An index only says which files to read so; then its map and
 * the files must agree in both directions.
 *
 * The reference ignores unknown keys of an entry; we do not: what means something must not be dropped in silence. */
#include "core/safetensors.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/arena.h"
#include "core/file.h"
#include "core/json.h"
#include "core/safetensors_layout.h"

enum { LENGTH_BYTES = 8, NAME_SHOWN = 200 }; /* of a name in a message, so that what follows is not cut off */

struct ht_safetensors {
    ht_arena *arena;
    const char *path;
    ht_mapping *files;
    size_t n_files;
    ht_tensor *tensors; /* by name */
    size_t count;
    ht_metadata *metadata;
    size_t n_metadata;
};

/* One file: where its bytes are and what is in them. */
typedef struct part {
    const char *label;
    const unsigned char *data; /* after the header */
    size_t size;
    ht_tensor *tensors;
    size_t count;
    ht_metadata *metadata;
    size_t n_metadata;
} part;

/* ---- one tensor ---- */

__attribute__((format(printf, 3, 4))) static ht_status fail(const part *p, const char *name, const char *format, ...)
{
    char what[400];
    va_list args;
    va_start(args, format);
    vsnprintf(what, sizeof what, format, args);
    va_end(args);
    return ht_fail(HT_ERR_FORMAT, "%s: tensor %.*s: %s", p->label, NAME_SHOWN, name, what);
}

ht_status ht_safetensors_measure(const char *label, ht_tensor *t)
{
    size_t count = 1, bits;
    size_t filled = 1; /* without the zeros, so that no product of some of the sizes overflows either */
    const char *dtype = ht_dtype_name(t->dtype);
    for (int i = 0; i < t->ndim; i++) {
        size_t n = (size_t)t->shape[i];
        if (n && !ht_mul_size(filled, n, &filled))
            return ht_fail(HT_ERR_FORMAT, "%s: tensor %.*s: the product of its shape overflows", label, NAME_SHOWN,
                           t->name);
        count *= n;
    }
    if (filled > INT64_MAX || !ht_mul_size(count, (size_t)ht_dtype_bits(t->dtype), &bits))
        return ht_fail(HT_ERR_FORMAT, "%s: tensor %.*s: %zu elements of %s overflow", label, NAME_SHOWN, t->name,
                       filled, dtype);
    if (bits % 8)
        return ht_fail(HT_ERR_FORMAT, "%s: tensor %.*s: %zu elements of %s are not whole bytes", label, NAME_SHOWN,
                       t->name, count, dtype);
    t->count = count;
    t->bytes = bits / 8;
    return HT_OK;
}

static ht_status read_dtype(const part *p, const json_t *value, ht_tensor *t)
{
    if (!json_is_string(value))
        return fail(p, t->name, "dtype is missing or not a string");
    int dtype = ht_dtype_find(json_string_value(value));
    if (dtype < 0)
        return fail(p, t->name, "dtype \"%.60s\" is not one of the format", json_string_value(value));
    t->dtype = (ht_dtype)dtype;
    return HT_OK;
}

static ht_status read_shape(const part *p, const json_t *value, ht_tensor *t)
{
    size_t n = json_array_size(value);
    if (!json_is_array(value))
        return fail(p, t->name, "shape is missing or not an array");
    for (size_t i = 0; i < n; i++) {
        const json_t *size = json_array_get(value, i);
        if (!json_is_integer(size) || json_integer_value(size) < 0)
            return fail(p, t->name, "shape[%zu] is not a non-negative integer", i);
        if (i < HT_MAX_DIMS)
            t->shape[i] = json_integer_value(size);
    }
    if (n > HT_MAX_DIMS)
        return ht_fail(HT_ERR_UNSUPPORTED, "%s: tensor %.*s: has %zu dimensions; this version knows up to %d", p->label,
                       NAME_SHOWN, t->name, n, HT_MAX_DIMS);
    t->ndim = (int)n;
    return HT_OK;
}

/* Needs dtype and shape. */
static ht_status read_offsets(const part *p, const json_t *value, ht_tensor *t)
{
    const json_t *first = json_array_get(value, 0), *second = json_array_get(value, 1);
    if (json_array_size(value) != 2 || !json_is_integer(first) || !json_is_integer(second))
        return fail(p, t->name, "data_offsets is missing or not two integers");
    json_int_t begin = json_integer_value(first), end = json_integer_value(second);
    if (begin < 0 || begin > end)
        return fail(p, t->name, "data_offsets [%lld, %lld] are not a range", (long long)begin, (long long)end);
    if ((uint64_t)end > p->size)
        return fail(p, t->name, "data_offsets [%lld, %lld] run past the end; the file has %zu bytes of data",
                    (long long)begin, (long long)end, p->size);
    if ((uint64_t)(end - begin) != t->bytes)
        return fail(p, t->name, "data_offsets [%lld, %lld] hold %lld bytes, its shape of %s takes %zu",
                    (long long)begin, (long long)end, (long long)(end - begin), ht_dtype_name(t->dtype), t->bytes);
    t->data = p->data + begin;
    return HT_OK;
}

/* t->name is set. */
static ht_status read_tensor(const part *p, const json_t *entry, ht_tensor *t)
{
    ht_status status;
    if (!json_is_object(entry))
        return fail(p, t->name, "its entry is not an object");
    if ((status = read_dtype(p, json_object_get(entry, "dtype"), t)) != HT_OK ||
        (status = read_shape(p, json_object_get(entry, "shape"), t)) != HT_OK ||
        (status = ht_safetensors_measure(p->label, t)) != HT_OK ||
        (status = read_offsets(p, json_object_get(entry, "data_offsets"), t)) != HT_OK)
        return status;
    if (json_object_size(entry) != 3)
        return fail(p, t->name, "its entry has %zu keys, want dtype, shape and data_offsets", json_object_size(entry));
    return HT_OK;
}

/* ---- one file ---- */

static ht_status read_metadata(ht_arena *arena, part *p, json_t *map)
{
    const char *key;
    json_t *value;
    if (!json_is_object(map))
        return ht_fail(HT_ERR_FORMAT, "%s: %s is not an object", p->label, HT_SAFETENSORS_METADATA);
    p->metadata = ht_alloc_array(arena, json_object_size(map), sizeof *p->metadata);
    if (!p->metadata)
        return HT_ERR_MEMORY;
    json_object_foreach(map, key, value)
    {
        ht_metadata *m = &p->metadata[p->n_metadata++];
        if (!json_is_string(value))
            return ht_fail(HT_ERR_FORMAT, "%s: %s: \"%.*s\" is not a string", p->label, HT_SAFETENSORS_METADATA,
                           NAME_SHOWN, key);
        if (!(m->key = ht_strdup(arena, key)) || !(m->value = ht_strdup(arena, json_string_value(value))))
            return HT_ERR_MEMORY;
    }
    return HT_OK;
}

static ht_status read_entries(ht_arena *arena, part *p, json_t *header)
{
    const char *key;
    json_t *value;
    ht_status status = HT_OK;
    p->tensors = ht_alloc_array(arena, json_object_size(header), sizeof *p->tensors);
    if (!p->tensors)
        return HT_ERR_MEMORY;
    json_object_foreach(header, key, value)
    {
        if (strcmp(key, HT_SAFETENSORS_METADATA) == 0) {
            status = read_metadata(arena, p, value);
        } else {
            ht_tensor *t = &p->tensors[p->count++];
            t->name = ht_strdup(arena, key);
            status = t->name ? read_tensor(p, value, t) : HT_ERR_MEMORY;
        }
        if (status != HT_OK)
            break;
    }
    return status;
}

static int by_place(const void *a, const void *b)
{
    const ht_tensor *s = a, *t = b;
    const char *p = s->data, *q = t->data;
    if (p != q)
        return p < q ? -1 : 1;
    return (s->bytes > t->bytes) - (s->bytes < t->bytes); /* an empty tensor goes before what starts at the same byte */
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const ht_tensor *)a)->name, ((const ht_tensor *)b)->name);
}

/* The tensors, sorted by place, must tile the data: the format has no holes, where a file could hide something. */
static ht_status check_tiling(const part *p)
{
    size_t end = 0;
    for (size_t i = 0; i < p->count; i++) {
        const ht_tensor *t = &p->tensors[i];
        size_t begin = (size_t)((const unsigned char *)t->data - p->data);
        if (begin < end)
            return fail(p, t->name, "starts at byte %zu of the data, where %.100s ends only at %zu: they overlap",
                        begin, t[-1].name, end);
        if (begin > end)
            return fail(p, t->name, "starts at byte %zu of the data, want %zu: the bytes between belong to no tensor",
                        begin, end);
        end = begin + t->bytes;
    }
    if (end != p->size)
        return ht_fail(HT_ERR_FORMAT, "%s: the file goes on for %zu bytes after its last tensor", p->label,
                       p->size - end);
    return HT_OK;
}

/* The header's length, checked; p->data and p->size become what follows the header. */
static ht_status find_header(part *p, const unsigned char *bytes, size_t size, size_t *length)
{
    uint64_t n = 0;
    if (size < LENGTH_BYTES)
        return ht_fail(HT_ERR_FORMAT, "%s: has %zu bytes; a safetensors file starts with a length of 8", p->label,
                       size);
    for (int i = LENGTH_BYTES; i-- > 0;)
        n = n << 8 | bytes[i];
    if (n == 0)
        return ht_fail(HT_ERR_FORMAT, "%s: its header has length 0", p->label);
    if (n > HT_SAFETENSORS_MAX_HEADER)
        return ht_fail(HT_ERR_FORMAT,
                       "%s: its header would have %" PRIu64 " bytes, at most %d are allowed; is it a safetensors file?",
                       p->label, n, HT_SAFETENSORS_MAX_HEADER);
    if (n > size - LENGTH_BYTES)
        return ht_fail(HT_ERR_FORMAT, "%s: is cut off: its header should have %" PRIu64 " bytes, %zu are there",
                       p->label, n, size - LENGTH_BYTES);
    *length = (size_t)n;
    p->data = bytes + LENGTH_BYTES + n;
    p->size = size - LENGTH_BYTES - (size_t)n;
    return HT_OK;
}

/* p->label is set.  Leaves the tensors sorted by name. */
static ht_status read_part(ht_arena *arena, part *p, const unsigned char *bytes, size_t size)
{
    json_t *header = NULL;
    size_t length = 0;
    ht_status status = find_header(p, bytes, size, &length);
    if (status != HT_OK)
        return status;
    status = ht_json_parse_strict((const char *)bytes + LENGTH_BYTES, length, "its header", &header);
    if (status != HT_OK)
        return ht_fail_in(status, "%s", p->label);
    status = read_entries(arena, p, header);
    json_decref(header);
    if (status != HT_OK)
        return status;
    qsort(p->tensors, p->count, sizeof *p->tensors, by_place);
    status = check_tiling(p);
    qsort(p->tensors, p->count, sizeof *p->tensors, by_name);
    return status;
}

/* ---- an index and its shards ---- */

typedef struct shards {
    const char *label;  /* the index */
    json_t *map;        /* tensor -> file name */
    const char **names; /* the files, sorted, each once; borrowed from map */
    part *parts;
    size_t count;
} shards;

static int by_string(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static bool is_plain_name(const char *s)
{
    return *s && !strchr(s, '/') && strcmp(s, ".") != 0 && strcmp(s, "..") != 0;
}

static ht_status list_shards(ht_arena *arena, shards *s)
{
    const char *key;
    json_t *value;
    size_t n = 0;
    if (!json_is_object(s->map))
        return ht_fail(HT_ERR_FORMAT, "%s: has no weight_map; is it the index of a sharded model?", s->label);
    s->names = ht_alloc_array(arena, json_object_size(s->map), sizeof *s->names);
    if (!s->names)
        return HT_ERR_MEMORY;
    json_object_foreach(s->map, key, value)
    {
        const char *file = json_string_value(value);
        if (!file || !is_plain_name(file))
            return ht_fail(HT_ERR_FORMAT, "%s: weight_map: tensor %.*s: %s is not the name of a file beside the index",
                           s->label, NAME_SHOWN, key, file ? file : "its value");
        s->names[n++] = file;
    }
    qsort(s->names, n, sizeof *s->names, by_string);
    for (size_t i = 0; i < n; i++)
        if (i == 0 || strcmp(s->names[i], s->names[s->count - 1]) != 0)
            s->names[s->count++] = s->names[i];
    return HT_OK;
}

/* Every tensor of shard i is there because the index says so. */
static ht_status check_shard(const shards *s, size_t i)
{
    for (size_t k = 0; k < s->parts[i].count; k++) {
        const char *name = s->parts[i].tensors[k].name;
        const char *file = json_string_value(json_object_get(s->map, name));
        if (!file)
            return fail(&s->parts[i], name, "is not in the index");
        if (strcmp(file, s->names[i]) != 0)
            return fail(&s->parts[i], name, "is here, the index says in %.200s", file);
    }
    return HT_OK;
}

static ht_status read_shards(ht_safetensors *st, shards *s)
{
    const char *slash = strrchr(st->path, '/');
    int folder = slash ? (int)(slash + 1 - st->path) : 0;
    s->parts = ht_alloc_array(st->arena, s->count, sizeof *s->parts);
    st->files = ht_alloc_array(st->arena, s->count, sizeof *st->files);
    if (!s->parts || !st->files)
        return HT_ERR_MEMORY;
    for (size_t i = 0; i < s->count; i++) {
        part *p = &s->parts[i];
        ht_mapping *file = &st->files[i];
        ht_status status;
        if (!(p->label = ht_sprintf(st->arena, "%.*s%s", folder, st->path, s->names[i])))
            return HT_ERR_MEMORY;
        if ((status = ht_map_file(p->label, file)) != HT_OK)
            return status;
        st->n_files++;
        if ((status = read_part(st->arena, p, file->data, file->size)) != HT_OK ||
            (status = check_shard(s, i)) != HT_OK)
            return status;
    }
    return HT_OK;
}

/* ---- the whole ---- */

static ht_status join_parts(ht_safetensors *st, const part *parts, size_t n)
{
    size_t tensors = 0, metadata = 0;
    for (size_t i = 0; i < n; i++) {
        tensors += parts[i].count;
        metadata += parts[i].n_metadata;
    }
    st->tensors = ht_alloc_array(st->arena, tensors, sizeof *st->tensors);
    st->metadata = ht_alloc_array(st->arena, metadata, sizeof *st->metadata);
    if (!st->tensors || !st->metadata)
        return HT_ERR_MEMORY;
    for (size_t i = 0; i < n; i++) {
        for (size_t k = 0; k < parts[i].count; k++)
            st->tensors[st->count++] = parts[i].tensors[k];
        for (size_t k = 0; k < parts[i].n_metadata; k++)
            st->metadata[st->n_metadata++] = parts[i].metadata[k];
    }
    qsort(st->tensors, st->count, sizeof *st->tensors, by_name);
    return HT_OK;
}

/* Every tensor of the index was found.  It was in the right shard then, since check_shard let it pass. */
static ht_status check_index(const ht_safetensors *st, json_t *map)
{
    const char *key;
    json_t *value;
    json_object_foreach(map, key, value)
    {
        if (!ht_safetensors_find(st, key))
            return ht_fail(HT_ERR_FORMAT, "%s: tensor %.*s is missing in %s", st->path, NAME_SHOWN, key,
                           json_string_value(value));
    }
    return HT_OK;
}

static ht_status open_index(ht_safetensors *st)
{
    json_t *index = NULL;
    shards s = {.label = st->path};
    ht_status status = ht_json_read(st->path, &index);
    if (status != HT_OK)
        return status;
    s.map = json_object_get(index, "weight_map");
    if ((status = list_shards(st->arena, &s)) == HT_OK && (status = read_shards(st, &s)) == HT_OK &&
        (status = join_parts(st, s.parts, s.count)) == HT_OK)
        status = check_index(st, s.map);
    json_decref(index);
    return status;
}

static ht_status open_bytes(ht_safetensors *st, const unsigned char *bytes, size_t size)
{
    part p = {.label = st->path};
    ht_status status = read_part(st->arena, &p, bytes, size);
    st->tensors = p.tensors;
    st->count = p.count;
    st->metadata = p.metadata;
    st->n_metadata = p.n_metadata;
    return status;
}

static ht_status open_file(ht_safetensors *st)
{
    st->files = ht_alloc(st->arena, sizeof *st->files);
    if (!st->files)
        return HT_ERR_MEMORY;
    ht_status status = ht_map_file(st->path, st->files);
    if (status != HT_OK)
        return status;
    st->n_files = 1;
    return open_bytes(st, st->files->data, st->files->size);
}

static ht_safetensors *create(const char *path)
{
    ht_arena *arena = ht_arena_create();
    ht_safetensors *st = arena ? ht_alloc(arena, sizeof *st) : NULL;
    if (st) {
        st->arena = arena;
        st->path = ht_strdup(arena, path);
    }
    if (st && st->path)
        return st;
    ht_arena_free(arena);
    return NULL;
}

ht_status ht_safetensors_open(const char *path, ht_safetensors **out)
{
    size_t n = strlen(path);
    ht_safetensors *st = create(path);
    if (!st)
        return HT_ERR_MEMORY;
    ht_status status = n > 5 && strcmp(path + n - 5, ".json") == 0 ? open_index(st) : open_file(st);
    if (status == HT_OK)
        *out = st;
    else
        ht_safetensors_close(st);
    return status;
}

ht_status ht_safetensors_parse(const void *bytes, size_t size, const char *label, ht_safetensors **out)
{
    ht_safetensors *st = create(label);
    if (!st)
        return HT_ERR_MEMORY;
    ht_status status = open_bytes(st, bytes, size);
    if (status == HT_OK)
        *out = st;
    else
        ht_safetensors_close(st);
    return status;
}

void ht_safetensors_close(ht_safetensors *st)
{
    if (!st)
        return;
    for (size_t i = 0; i < st->n_files; i++)
        ht_unmap_file(&st->files[i]);
    ht_arena_free(st->arena); /* st itself is in it */
}

size_t ht_safetensors_count(const ht_safetensors *st)
{
    return st->count;
}

const ht_tensor *ht_safetensors_at(const ht_safetensors *st, size_t i)
{
    return &st->tensors[i];
}

const ht_tensor *ht_safetensors_find(const ht_safetensors *st, const char *name)
{
    return bsearch(&(ht_tensor){.name = name}, st->tensors, st->count, sizeof *st->tensors, by_name);
}

const char *ht_safetensors_metadata(const ht_safetensors *st, const char *key)
{
    for (size_t i = 0; i < st->n_metadata; i++)
        if (strcmp(st->metadata[i].key, key) == 0)
            return st->metadata[i].value;
    return NULL;
}

const char *ht_safetensors_path(const ht_safetensors *st)
{
    return st->path;
}
