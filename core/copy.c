/* copy.c - giving files a second name: link(2), and reading and writing where that does not go (another file system,
 * one without links, a file of somebody else's under fs.protected_hardlinks). */
#include "core/copy.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/file.h"

enum { MAX_DEPTH = 16, MAX_NAME = 4096 };

static ht_status copy_file(const char *from, const char *to)
{
    ht_mapping bytes;
    ht_output *output = NULL;
    ht_status status = ht_map_file(from, &bytes);
    if (status)
        return status;
    status = ht_output_open(to, &output);
    if (!status) {
        fwrite(bytes.data, 1, bytes.size, ht_output_stream(output)); /* a failure is told by the commit */
        status = ht_output_commit(output);
    }
    ht_unmap_file(&bytes);
    return status;
}

static ht_status link_any(const char *from, const char *to, int depth);

static ht_status link_folder(const char *from, const char *to, int depth)
{
    char name[MAX_NAME], second[MAX_NAME];
    ht_status status = HT_OK;
    if (depth == MAX_DEPTH)
        return ht_fail(HT_ERR_IO, "%s: more than %d folders in one another", from, MAX_DEPTH);
    DIR *dir = opendir(from);
    if (!dir)
        return ht_fail(HT_ERR_IO, "%s: %s", from, strerror(errno));
    if (mkdir(to, 0777))
        status = ht_fail(HT_ERR_IO, "%s: %s", to, strerror(errno));
    for (struct dirent *e; !status && (e = readdir(dir));) {
        if (e->d_name[0] == '.')
            continue;
        if (snprintf(name, sizeof name, "%s/%s", from, e->d_name) >= MAX_NAME ||
            snprintf(second, sizeof second, "%s/%s", to, e->d_name) >= MAX_NAME)
            status = ht_fail(HT_ERR_IO, "%s/%s: the path is too long", from, e->d_name);
        else
            status = link_any(name, second, depth + 1);
    }
    closedir(dir);
    return status;
}

static ht_status link_any(const char *from, const char *to, int depth)
{
    struct stat st;
    if (stat(from, &st))
        return ht_fail(HT_ERR_IO, "%s: %s", from, strerror(errno));
    if (S_ISDIR(st.st_mode))
        return link_folder(from, to, depth);
    if (!S_ISREG(st.st_mode) || !linkat(AT_FDCWD, from, AT_FDCWD, to, AT_SYMLINK_FOLLOW))
        return HT_OK;
    return copy_file(from, to);
}

ht_status ht_link_tree(const char *from, const char *to)
{
    return link_any(from, to, 0);
}
