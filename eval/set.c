/* set.c - listing a folder or a zip, and reading its pictures one by one.
 *
 * A set knows names alone; bytes are read when they are asked for, so memory is that of the names.  libzip's handles
 * are one thread's: every reader opens its own on the same mapping. */
#include "eval/set.h"

#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "core/arena.h"
#include "core/zip.h"

enum { MAX_FILE = 1 << 28, MAX_DEPTH = 64 };

typedef struct entry {
    const char *name;
    int64_t member; /* of the zip */
} entry;

struct ht_set {
    ht_arena *arena;
    const char *path;
    bool is_zip;
    ht_mapping mapping; /* of the zip */
    entry *entries;
    size_t count, room;
};

struct ht_set_reader {
    const ht_set *set;
    ht_zip *zip; /* NULL: a folder */
};

/* ---- listing ---- */

static ht_status add(ht_set *s, const char *name, int64_t member)
{
    if (s->count == s->room) {
        size_t room = s->room ? 2 * s->room : 256, bytes;
        if (!ht_mul_size(room, sizeof *s->entries, &bytes))
            return ht_fail(HT_ERR_MEMORY, "%s: too many files", s->path);
        entry *more = realloc(s->entries, bytes);
        if (!more)
            return ht_fail(HT_ERR_MEMORY, "%s: out of memory for %zu names", s->path, room);
        s->entries = more;
        s->room = room;
    }
    entry e = {ht_strdup(s->arena, name), member};
    if (!e.name)
        return HT_ERR_MEMORY;
    s->entries[s->count++] = e;
    return HT_OK;
}

static ht_status list_folder(ht_set *s, const char *below, int depth);

/* One name in a folder: a picture, a folder, or nothing of ours. */
static ht_status list_one(ht_set *s, const char *below, const char *name, int depth)
{
    const char *inner = ht_sprintf(s->arena, "%s%s", below, name);
    const char *full = inner ? ht_sprintf(s->arena, "%s/%s", s->path, inner) : NULL;
    struct stat status;
    if (!full)
        return HT_ERR_MEMORY;
    if (stat(full, &status))
        return ht_fail(HT_ERR_IO, "%s: %s", full, strerror(errno));
    if (!S_ISDIR(status.st_mode))
        return ht_image_is_named(name) ? add(s, inner, 0) : HT_OK;
    const char *folder = ht_sprintf(s->arena, "%s/", inner);
    return folder ? list_folder(s, folder, depth + 1) : HT_ERR_MEMORY;
}

static ht_status list_folder(ht_set *s, const char *below, int depth)
{
    const char *full = ht_sprintf(s->arena, "%s/%s", s->path, below);
    if (!full)
        return HT_ERR_MEMORY;
    if (depth > MAX_DEPTH) /* a link that leads back to a folder above it */
        return ht_fail(HT_ERR_ARGUMENT, "%s: folders lie more than %d deep in one another", full, MAX_DEPTH);
    DIR *dir = opendir(full);
    if (!dir)
        return ht_fail(HT_ERR_IO, "%s: %s", full, strerror(errno));
    ht_status status = HT_OK;
    for (const struct dirent *e; !status && (e = readdir(dir));)
        if (e->d_name[0] != '.')
            status = list_one(s, below, e->d_name, depth);
    closedir(dir);
    return status;
}

static ht_status list_zip(ht_set *s)
{
    ht_zip *zip = NULL;
    ht_status status = ht_map_file(s->path, &s->mapping);
    if (!status)
        status = ht_zip_open(&s->mapping, s->path, &zip);
    for (int64_t i = 0; !status && i < ht_zip_count(zip); i++) {
        const char *name = ht_zip_name(zip, i), *slash = name ? strrchr(name, '/') : NULL;
        const char *last = slash ? slash + 1 : name;
        if (name && last[0] != '.' && ht_image_is_named(last))
            status = add(s, name, i);
    }
    ht_zip_close(zip);
    return status;
}

static int by_name(const void *a, const void *b)
{
    const entry *x = a, *y = b;
    int order = strcmp(x->name, y->name);
    return order ? order : (x->member > y->member) - (x->member < y->member);
}

ht_status ht_set_open(const char *path, ht_set **out)
{
    ht_arena *arena = ht_arena_create();
    ht_set *s = arena ? ht_alloc(arena, sizeof *s) : NULL;
    ht_status status = HT_ERR_MEMORY;
    struct stat kind;
    if (!s) {
        ht_arena_free(arena);
        return status;
    }
    *s = (ht_set){.arena = arena, .path = ht_strdup(arena, path)};
    if (s->path && stat(path, &kind))
        status = ht_fail(HT_ERR_IO, "%s: %s", path, strerror(errno));
    else if (s->path) {
        s->is_zip = !S_ISDIR(kind.st_mode);
        status = s->is_zip ? list_zip(s) : list_folder(s, "", 0);
    }
    if (!status && !s->count)
        status =
            ht_fail(HT_ERR_ARGUMENT, "%s: has no pictures; wanted files that end in .png, .jpg, .jpeg or .bmp", path);
    if (status) {
        ht_set_close(s);
        return status;
    }
    qsort(s->entries, s->count, sizeof *s->entries, by_name);
    *out = s;
    return HT_OK;
}

void ht_set_close(ht_set *s)
{
    if (!s)
        return;
    ht_unmap_file(&s->mapping);
    free(s->entries);
    ht_arena_free(s->arena);
}

int64_t ht_set_count(const ht_set *s)
{
    return (int64_t)s->count;
}

void ht_set_cut(ht_set *s, int64_t count)
{
    s->count = (size_t)count < s->count ? (size_t)count : s->count;
}

const char *ht_set_path(const ht_set *s)
{
    return s->path;
}

const char *ht_set_name(const ht_set *s, int64_t i)
{
    return s->entries[i].name;
}

/* ---- reading ---- */

ht_status ht_set_reader_open(const ht_set *set, ht_set_reader **out)
{
    ht_set_reader *r = calloc(1, sizeof *r);
    if (!r)
        return ht_fail(HT_ERR_MEMORY, "out of memory for a reader of %s", set->path);
    r->set = set;
    ht_status status = set->is_zip ? ht_zip_open(&set->mapping, set->path, &r->zip) : HT_OK;
    if (status)
        free(r);
    else
        *out = r;
    return status;
}

void ht_set_reader_close(ht_set_reader *r)
{
    if (!r)
        return;
    ht_zip_close(r->zip);
    free(r);
}

static ht_status read_file(const char *path, ht_pixels *out)
{
    ht_mapping file;
    ht_status status = ht_map_file(path, &file);
    if (status)
        return status;
    status = file.size > MAX_FILE
                 ? ht_fail(HT_ERR_UNSUPPORTED, "%s has %zu bytes; at most %d are read", path, file.size, MAX_FILE)
                 : ht_image_decode(file.data, file.size, path, out);
    ht_unmap_file(&file);
    return status;
}

ht_status ht_set_read(ht_set_reader *r, int64_t i, ht_pixels *out)
{
    const entry *e = &r->set->entries[i];
    char *bytes, *label = NULL;
    size_t size, room = strlen(r->set->path) + strlen(e->name) + 3;
    ht_status status = (label = malloc(room)) ? HT_OK : ht_fail(HT_ERR_MEMORY, "out of memory for a name");
    if (status)
        return status;
    snprintf(label, room, r->zip ? "%s: %s" : "%s/%s", r->set->path, e->name);
    if (!r->zip) {
        status = read_file(label, out);
    } else if (!(status = ht_zip_read(r->zip, e->member, MAX_FILE, &bytes, &size))) {
        status = ht_image_decode(bytes, size, label, out);
        free(bytes);
    }
    free(label);
    return status;
}
