/* folder.h - a folder of its own for a test's files: made under $TMPDIR or /tmp, removed with what is left in it. */
#ifndef TESTS_FOLDER_H
#define TESTS_FOLDER_H

#include <glob.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static char folder[256];

static int make_folder(void **state)
{
    const char *base = getenv("TMPDIR");
    (void)state;
    snprintf(folder, sizeof folder, "%s/halftone-test-XXXXXX", base && *base ? base : "/tmp");
    return mkdtemp(folder) ? 0 : -1;
}

/* A path in the folder, in one of four buffers that take turns. */
static inline const char *in_folder(const char *name)
{
    static char paths[4][600];
    static int turn;
    char *path = paths[turn++ % 4];
    snprintf(path, sizeof paths[0], "%s/%s", folder, name);
    return path;
}

static inline int files_in_folder(void)
{
    glob_t found;
    int n = glob(in_folder("*"), 0, NULL, &found) == 0 ? (int)found.gl_pathc : 0;
    globfree(&found);
    return n;
}

static inline void put_file(const char *name, const void *bytes, size_t size)
{
    FILE *f = fopen(in_folder(name), "wb");
    if (!f || fwrite(bytes, 1, size, f) != size || fclose(f) != 0)
        abort();
}

static int remove_folder(void **state)
{
    glob_t found;
    (void)state;
    if (glob(in_folder("*"), 0, NULL, &found) == 0)
        for (size_t i = 0; i < found.gl_pathc; i++)
            unlink(found.gl_pathv[i]);
    globfree(&found);
    return rmdir(folder); /* fails, and the test with it, if a hidden file is left */
}

#endif
