/* zip.c - members of a zip, whole and checked. */
#include "core/zip.h"

#include <stdlib.h>
#include <zip.h>

#include "core/arena.h"

struct ht_zip {
    ht_arena *arena;
    const char *label;
    zip_t *zip;
};

static ht_status open_archive(ht_zip *z, const ht_mapping *bytes)
{
    zip_error_t error;
    zip_error_init(&error);
    zip_source_t *source = zip_source_buffer_create(bytes->data, bytes->size, 0, &error);
    z->zip = source ? zip_open_from_source(source, ZIP_RDONLY, &error) : NULL;
    ht_status status = HT_OK;
    if (!z->zip) {
        status = zip_error_code_zip(&error) == ZIP_ER_MEMORY ? HT_ERR_MEMORY : HT_ERR_FORMAT;
        ht_fail(status, "%s: not a zip: %s", z->label, zip_error_strerror(&error));
        zip_source_free(source); /* NULL is allowed */
    }
    zip_error_fini(&error);
    return status;
}

ht_status ht_zip_open(const ht_mapping *bytes, const char *label, ht_zip **out)
{
    ht_arena *arena = ht_arena_create();
    ht_zip *z = arena ? ht_alloc(arena, sizeof *z) : NULL;
    ht_status status = HT_ERR_MEMORY;
    if (!z) {
        ht_arena_free(arena);
        return status;
    }
    *z = (ht_zip){.arena = arena, .label = ht_strdup(arena, label)};
    if (z->label && !(status = open_archive(z, bytes))) {
        *out = z;
        return HT_OK;
    }
    ht_zip_close(z);
    return status;
}

void ht_zip_close(ht_zip *z)
{
    if (!z)
        return;
    if (z->zip)
        zip_discard(z->zip);
    ht_arena_free(z->arena);
}

int64_t ht_zip_count(const ht_zip *z)
{
    return zip_get_num_entries(z->zip, 0);
}

const char *ht_zip_name(const ht_zip *z, int64_t i)
{
    return zip_get_name(z->zip, (zip_uint64_t)i, 0);
}

int64_t ht_zip_find(const ht_zip *z, const char *name)
{
    return zip_name_locate(z->zip, name, 0);
}

/* size bytes, and the end after them, so that libzip compares the checksum. */
static ht_status read_whole(ht_zip *z, int64_t i, const char *name, size_t size, char *bytes)
{
    zip_file_t *file = zip_fopen_index(z->zip, (zip_uint64_t)i, 0);
    if (!file)
        return ht_fail(HT_ERR_FORMAT, "%s: %s: %s", z->label, name, zip_strerror(z->zip));
    size_t at = 0;
    zip_int64_t n = 1;
    while (n > 0 && at <= size) { /* one byte more than there should be */
        n = zip_fread(file, bytes + at, size + 1 - at);
        at += n > 0 ? (size_t)n : 0;
    }
    ht_status status = HT_OK;
    if (n < 0 || at != size)
        status = ht_fail(HT_ERR_FORMAT, "%s: %s is damaged: %s", z->label, name,
                         n < 0 ? zip_file_strerror(file) : "its size is not the one that the archive gives");
    zip_fclose(file);
    return status;
}

ht_status ht_zip_read(ht_zip *z, int64_t i, size_t limit, char **bytes, size_t *size)
{
    zip_stat_t stat;
    const char *name = ht_zip_name(z, i);
    if (!name || zip_stat_index(z->zip, (zip_uint64_t)i, 0, &stat) || !(stat.valid & ZIP_STAT_SIZE))
        return ht_fail(HT_ERR_FORMAT, "%s: member %lld has no name or no size", z->label, (long long)i);
    if (stat.size > limit)
        return ht_fail(HT_ERR_UNSUPPORTED, "%s: %s has %llu bytes; at most %zu are read", z->label, name,
                       (unsigned long long)stat.size, limit);
    size_t n = (size_t)stat.size;
    char *data = malloc(n + 1);
    if (!data)
        return ht_fail(HT_ERR_MEMORY, "%s: out of memory for %zu bytes of %s", z->label, n, name);
    ht_status status = read_whole(z, i, name, n, data);
    if (status) {
        free(data);
        return status;
    }
    data[n] = '\0';
    *bytes = data;
    *size = n;
    return HT_OK;
}
