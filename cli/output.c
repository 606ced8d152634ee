/* output.c - finding out that a result cannot be written before an hour of work, not after. */
#include "cli/output.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cli/commands.h"

enum { NAME_ROOM = 32 }; /* for "/", the number of an image, ".png" */

/* Make a file in the folder and remove it: permissions alone do not tell about read-only and virtual file systems. */
static int probe_folder(const char *folder)
{
    char name[PATH_MAX];
    if (snprintf(name, sizeof name, "%s/.halftone-XXXXXX", folder) >= (int)sizeof name)
        return ENAMETOOLONG;
    int fd = mkstemp(name);
    if (fd < 0)
        return errno;
    close(fd);
    unlink(name);
    return 0;
}

static int probe_parent(const char *path)
{
    char folder[PATH_MAX] = ".";
    const char *slash = strrchr(path, '/');
    size_t length = slash ? (size_t)(slash - path) : 0;
    if (length >= sizeof folder)
        return ENAMETOOLONG;
    if (slash) {
        memcpy(folder, path, length);
        folder[length] = 0;
    }
    return probe_folder(folder);
}

int output_check_file(const char *path)
{
    struct stat status;
    int error = 0;
    if (stat(path, &status)) {
        error = errno == ENOENT ? probe_parent(path) : errno;
    } else if (S_ISDIR(status.st_mode)) {
        return report("%s: is a folder, a file's name is needed", path);
    } else if (access(path, W_OK)) {
        error = errno;
    } else if (S_ISREG(status.st_mode)) { /* devices and pipes are written in place */
        error = probe_parent(path);
    }
    return error ? report("%s: cannot be written: %s", path, strerror(error)) : 0;
}

bool output_is_folder(const char *path)
{
    struct stat status;
    size_t length = strlen(path);
    return (length && path[length - 1] == '/') || (!stat(path, &status) && S_ISDIR(status.st_mode));
}

/* mkdir -p.  *made: whether the last one is new. */
static int make_folders(const char *path, bool *made)
{
    char folder[PATH_MAX];
    size_t length = strlen(path);
    if (length >= sizeof folder)
        return ENAMETOOLONG;
    memcpy(folder, path, length + 1);
    while (length > 1 && folder[length - 1] == '/')
        folder[--length] = 0;
    for (size_t i = 1; i <= length; i++) {
        if (folder[i] && folder[i] != '/')
            continue;
        folder[i] = 0;
        *made = !mkdir(folder, 0777);
        if (!*made && errno != EEXIST && errno != EISDIR)
            return errno;
        folder[i] = i < length ? '/' : 0;
    }
    return 0;
}

int output_open_folder(const char *path, output *out)
{
    struct stat status;
    *out = (output){.path = path};
    int error = strlen(path) + NAME_ROOM < PATH_MAX ? make_folders(path, &out->made) : ENAMETOOLONG;
    if (!error && !stat(path, &status) && !S_ISDIR(status.st_mode))
        error = ENOTDIR;
    if (!error)
        error = probe_folder(path);
    if (!error)
        return 0;
    output_close(out);
    return report("%s: pictures cannot be written there: %s", path, strerror(error));
}

const char *output_file(output *out, int64_t index)
{
    const char *slash = out->path[strlen(out->path) - 1] == '/' ? "" : "/";
    snprintf(out->name, sizeof out->name, "%s%s%05" PRId64 ".png", out->path, slash, index);
    return out->name;
}

void output_close(output *out)
{
    if (out->made)
        rmdir(out->path); /* fails, as it should, once there is a picture in it */
}
