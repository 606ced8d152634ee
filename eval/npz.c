/* npz.c - reading NumPy's archives: core/zip.h finds, inflates and checks a member, eval/npy.c reads it. */
#include "eval/npz.h"

#include <stdlib.h>

#include "core/arena.h"
#include "core/zip.h"

struct ht_npz {
    ht_arena *arena;
    const char *path;
    ht_mapping mapping; /* of no bytes if they are the caller's */
    ht_zip *zip;
};

static ht_status open_npz(const char *path, const ht_mapping *bytes, ht_npz **out)
{
    ht_arena *arena = ht_arena_create();
    ht_npz *npz = arena ? ht_alloc(arena, sizeof *npz) : NULL;
    ht_status status = HT_ERR_MEMORY;
    if (!npz) {
        ht_arena_free(arena);
        return status;
    }
    *npz = (ht_npz){.arena = arena, .path = ht_strdup(arena, path)};
    if (npz->path && (bytes || !(status = ht_map_file(path, &npz->mapping)))) {
        status = ht_zip_open(bytes ? bytes : &npz->mapping, path, &npz->zip);
        if (status == HT_ERR_FORMAT)
            ht_fail_in(status, "not an npz");
    }
    if (!status) {
        *out = npz;
        return HT_OK;
    }
    ht_npz_close(npz);
    return status;
}

ht_status ht_npz_open(const char *path, ht_npz **out)
{
    return open_npz(path, NULL, out);
}

ht_status ht_npz_parse(const void *bytes, size_t size, const char *label, ht_npz **out)
{
    return open_npz(label, &(ht_mapping){bytes, size}, out);
}

void ht_npz_close(ht_npz *npz)
{
    if (!npz)
        return;
    ht_zip_close(npz->zip);
    ht_unmap_file(&npz->mapping);
    ht_arena_free(npz->arena);
}

static int64_t find(ht_npz *npz, const char *name)
{
    const char *member = ht_sprintf(npz->arena, "%s.npy", name);
    return member ? ht_zip_find(npz->zip, member) : -1;
}

bool ht_npz_has(ht_npz *npz, const char *name)
{
    return find(npz, name) >= 0;
}

ht_status ht_npz_read(ht_npz *npz, const char *name, ht_npy_array *out)
{
    const char *label = ht_sprintf(npz->arena, "%s: %s.npy", npz->path, name);
    int64_t i = find(npz, name);
    char *bytes;
    size_t size;
    if (!label)
        return HT_ERR_MEMORY;
    if (i < 0)
        return ht_fail(HT_ERR_FORMAT, "%s: has no array %s", npz->path, name);
    ht_status status = ht_zip_read(npz->zip, i, HT_NPY_MAX_BYTES, &bytes, &size);
    if (status)
        return status;
    status = ht_npy_parse(bytes, size, label, out);
    free(bytes);
    return status;
}
