/* npz.c - reading NumPy's archives: libzip finds, inflates and checks a member, eval/npy.c reads it. */
#include "eval/npz.h"

#include <stdlib.h>
#include <zip.h>

#include "core/arena.h"
#include "core/file.h"

struct ht_npz {
    ht_arena *arena;
    const char *path;
    ht_mapping mapping;
    zip_t *zip;
};

static ht_status open_zip(ht_npz *npz)
{
    zip_error_t error;
    zip_error_init(&error);
    zip_source_t *source = zip_source_buffer_create(npz->mapping.data, npz->mapping.size, 0, &error);
    npz->zip = source ? zip_open_from_source(source, ZIP_RDONLY, &error) : NULL;
    ht_status status = HT_OK;
    if (!npz->zip) {
        status = zip_error_code_zip(&error) == ZIP_ER_MEMORY ? HT_ERR_MEMORY : HT_ERR_FORMAT;
        ht_fail(status, "%s: not an npz: %s", npz->path, zip_error_strerror(&error));
        zip_source_free(source); /* NULL is allowed */
    }
    zip_error_fini(&error);
    return status;
}

ht_status ht_npz_open(const char *path, ht_npz **out)
{
    ht_arena *arena = ht_arena_create();
    ht_npz *npz = arena ? ht_alloc(arena, sizeof *npz) : NULL;
    ht_status status = HT_ERR_MEMORY;
    if (!npz) {
        ht_arena_free(arena);
        return status;
    }
    *npz = (ht_npz){.arena = arena, .path = ht_strdup(arena, path)};
    if (npz->path && !(status = ht_map_file(path, &npz->mapping)) && !(status = open_zip(npz))) {
        *out = npz;
        return HT_OK;
    }
    ht_npz_close(npz);
    return status;
}

void ht_npz_close(ht_npz *npz)
{
    if (!npz)
        return;
    if (npz->zip)
        zip_discard(npz->zip);
    ht_unmap_file(&npz->mapping);
    ht_arena_free(npz->arena);
}

/* All of a member, and the end after it, so that libzip compares the checksum. */
static ht_status read_member(ht_npz *npz, const char *member, size_t size, char *bytes)
{
    zip_file_t *file = zip_fopen(npz->zip, member, 0);
    if (!file)
        return ht_fail(HT_ERR_FORMAT, "%s: %s: %s", npz->path, member, zip_strerror(npz->zip));
    size_t at = 0;
    zip_int64_t n = 1;
    while (n > 0 && at <= size) { /* one byte more than there should be */
        n = zip_fread(file, bytes + at, size + 1 - at);
        at += n > 0 ? (size_t)n : 0;
    }
    ht_status status = HT_OK;
    if (n < 0 || at != size)
        status = ht_fail(HT_ERR_FORMAT, "%s: %s is damaged: %s", npz->path, member,
                         n < 0 ? zip_file_strerror(file) : "its size is not the one that the archive gives");
    zip_fclose(file);
    return status;
}

ht_status ht_npz_read(ht_npz *npz, const char *name, ht_npy_array *out)
{
    zip_stat_t stat;
    const char *member = ht_sprintf(npz->arena, "%s.npy", name);
    const char *label = ht_sprintf(npz->arena, "%s: %s", npz->path, member);
    if (!member || !label)
        return HT_ERR_MEMORY;
    if (zip_stat(npz->zip, member, 0, &stat) || !(stat.valid & ZIP_STAT_SIZE))
        return ht_fail(HT_ERR_FORMAT, "%s: has no array %s", npz->path, name);
    if (stat.size > HT_NPY_MAX_BYTES)
        return ht_fail(HT_ERR_UNSUPPORTED, "%s: %s has %llu bytes; at most %d are read", npz->path, member,
                       (unsigned long long)stat.size, HT_NPY_MAX_BYTES);
    size_t size = (size_t)stat.size;
    char *bytes = calloc(size + 1, 1);
    if (!bytes)
        return ht_fail(HT_ERR_MEMORY, "%s: out of memory for %zu bytes of %s", npz->path, size, member);
    ht_status status = read_member(npz, member, size, bytes);
    if (!status)
        status = ht_npy_parse(bytes, size, label, out);
    free(bytes);
    return status;
}
