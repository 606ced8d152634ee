/* file.c - mapping files and replacing them whole, with POSIX calls.
 *
 * Traps: fopen on a FIFO waits for the other side; a stream keeps the first write's failure only as a flag, so errno is
 * gone by the time anybody asks; mkstemp makes files that only their owner may read, whatever the umask says. */
#include "core/file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

/* ---- reading ---- */

static const char *kind_of(mode_t mode)
{
    return S_ISDIR(mode) ? "a folder" : S_ISFIFO(mode) ? "a FIFO" : S_ISSOCK(mode) ? "a socket" : "a device";
}

ht_status ht_map_file(const char *path, ht_mapping *mapping)
{
    ht_status status = HT_OK;
    struct stat st;
    void *data = NULL;
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    if (fd < 0)
        return ht_fail(HT_ERR_IO, "%s: cannot open: %s", path, strerror(errno));
    if (fstat(fd, &st) < 0) {
        status = ht_fail(HT_ERR_IO, "%s: cannot stat: %s", path, strerror(errno));
        goto done;
    }
    if (!S_ISREG(st.st_mode)) {
        status = ht_fail(HT_ERR_IO, "%s: is %s, want a file", path, kind_of(st.st_mode));
        goto done;
    }
    if (st.st_size > 0)
        data = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
    if (data == MAP_FAILED) {
        status = ht_fail(HT_ERR_IO, "%s: cannot map %lld bytes: %s", path, (long long)st.st_size, strerror(errno));
        goto done;
    }
    *mapping = (ht_mapping){.data = data, .size = (size_t)st.st_size};
done:
    close(fd);
    return status;
}

void ht_unmap_file(ht_mapping *mapping)
{
    if (mapping->data)
        munmap((void *)(uintptr_t)mapping->data, mapping->size);
    *mapping = (ht_mapping){0};
}

/* ---- writing ---- */

struct ht_output {
    FILE *stream;
    char *path;      /* as given, for messages */
    char *target;    /* what the rename replaces: path with its links followed */
    char *temporary; /* NULL: written in place */
};

static void free_output(ht_output *o)
{
    if (!o)
        return;
    free(o->temporary);
    free(o->target);
    free(o->path);
    free(o);
}

/* A name for an open descriptor.  Behind it may be a regular file, which who opened it does not want replaced. */
static bool names_descriptor(const char *path)
{
    return !strcmp(path, "/dev/stdout") || !strcmp(path, "/dev/stderr") || !strncmp(path, "/dev/fd/", 8) ||
           !strncmp(path, "/proc/self/fd/", 14);
}

static ht_status open_in_place(ht_output *o)
{
    o->stream = fopen(o->path, "wbe");
    return o->stream ? HT_OK : ht_fail(HT_ERR_IO, "%s: cannot write: %s", o->path, strerror(errno));
}

/* A new file beside the target.  The clock and the process make its name unlikely to be in use, O_EXCL makes it sure.
 */
static int create_beside(const char *target, char **name)
{
    enum { SUFFIX = 32, KEPT = 200, ATTEMPTS = 100 }; /* names are at most 255 bytes */
    const char *slash = strrchr(target, '/'), *base = slash ? slash + 1 : target;
    int folder = (int)(base - target), fd = -1;
    size_t size = strlen(target) + SUFFIX;
    char *s = malloc(size);
    if (!s)
        return -1;
    for (unsigned attempt = 0; attempt < ATTEMPTS && fd < 0; attempt++) {
        struct timespec now;
        clock_gettime(CLOCK_REALTIME, &now);
        unsigned tag =
            ((unsigned)getpid() << 16) ^ (unsigned)now.tv_nsec ^ (unsigned)now.tv_sec * 2654435761u ^ attempt;
        snprintf(s, size, "%.*s.%.*s.%08x.tmp", folder, target, KEPT, base, tag);
        fd = open(s, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
        if (fd < 0 && errno != EEXIST)
            break;
    }
    int why = errno;
    if (fd >= 0)
        *name = s;
    else
        free(s);
    errno = why;
    return fd;
}

/* old: what is there now, or NULL.  Its permissions are kept. */
static ht_status open_temporary(ht_output *o, const struct stat *old)
{
    int fd = create_beside(o->target, &o->temporary);
    if (fd < 0)
        return ht_fail(HT_ERR_IO, "%s: cannot create a file there: %s", o->path, strerror(errno));
    if (old)
        (void)!fchmod(fd, old->st_mode & 0777); /* somebody else's file: ours has the umask's then */
    o->stream = fdopen(fd, "wb");
    if (o->stream)
        return HT_OK;
    close(fd);
    unlink(o->temporary);
    return ht_fail(HT_ERR_MEMORY, "%s: out of memory", o->path);
}

static ht_status open_target(ht_output *o)
{
    struct stat st, link;
    const char *path = o->path;
    bool exists = stat(path, &st) == 0;
    if (!exists && errno != ENOENT)
        return ht_fail(HT_ERR_IO, "%s: cannot write: %s", path, strerror(errno));
    if (!exists && lstat(path, &link) == 0)
        return ht_fail(HT_ERR_IO, "%s: is a link to a file that does not exist; name that file instead", path);
    if (exists && S_ISDIR(st.st_mode))
        return ht_fail(HT_ERR_IO, "%s: is a folder, want the name of a file", path);
    if (exists && faccessat(AT_FDCWD, path, W_OK, AT_EACCESS) < 0)
        return ht_fail(HT_ERR_IO, "%s: cannot write: %s", path, strerror(errno));
    if (exists && (!S_ISREG(st.st_mode) || names_descriptor(path)))
        return open_in_place(o);
    o->target = exists ? realpath(path, NULL) : strdup(path);
    if (!o->target)
        return ht_fail(HT_ERR_IO, "%s: cannot write: %s", path, strerror(errno));
    return open_temporary(o, exists ? &st : NULL);
}

ht_status ht_output_open(const char *path, ht_output **output)
{
    ht_status status;
    ht_output *o = calloc(1, sizeof *o);
    if (!o || !(o->path = strdup(path)))
        status = ht_fail(HT_ERR_MEMORY, "%s: out of memory", path);
    else if (!*path)
        status = ht_fail(HT_ERR_ARGUMENT, "the name of the output file is empty");
    else
        status = open_target(o);
    if (status == HT_OK)
        *output = o;
    else
        free_output(o);
    return status;
}

FILE *ht_output_stream(ht_output *output)
{
    return output->stream;
}

/* Push everything out and close.  The errno of the first thing that failed, 0 if all is well, -1 if an earlier write
 * failed and nobody kept its errno. */
static int close_stream(ht_output *o)
{
    int why = 0;
    bool ok = fflush(o->stream) == 0;
    if (ok && ferror(o->stream))
        why = -1;
    else if (!ok || (fsync(fileno(o->stream)) < 0 && o->temporary)) /* pipes and devices have nothing to sync */
        why = errno;
    if (fclose(o->stream) != 0 && !why)
        why = errno;
    o->stream = NULL;
    return why;
}

ht_status ht_output_commit(ht_output *o)
{
    ht_status status = HT_OK;
    int why = close_stream(o);
    if (why)
        status = ht_fail(HT_ERR_IO, "%s: cannot write: %s", o->path,
                         why > 0 ? strerror(why) : "a write failed; is the disk full?");
    else if (o->temporary && rename(o->temporary, o->target) < 0)
        status = ht_fail(HT_ERR_IO, "%s: cannot rename %s to it: %s", o->path, o->temporary, strerror(errno));
    if (status != HT_OK && o->temporary)
        unlink(o->temporary);
    free_output(o);
    return status;
}

void ht_output_discard(ht_output *o)
{
    if (!o)
        return;
    fclose(o->stream);
    if (o->temporary)
        unlink(o->temporary);
    free_output(o);
}
