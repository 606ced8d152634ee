/* sweeps.h - files of sweeps and their results, for the tests that run them. */
#ifndef HALFTONE_TESTS_SWEEPS_H
#define HALFTONE_TESTS_SWEEPS_H

#include "tests/program.h"

static inline void put(const char *path, const char *text)
{
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fputs(text, f);
    assert_int_equal(fclose(f), 0);
}

/* A path in a folder that lies in the scratch folder. */
static inline const char *under(scratch *s, const char *folder, const char *name)
{
    char path[PATH_MAX];
    const char *slash = strrchr(folder, '/');
    assert_true(snprintf(path, sizeof path, "%s/%s", slash + 1, name) < PATH_MAX);
    return in_scratch(s, path);
}

/* The rows of results.csv without their seconds, to be freed. */
static inline char *rows_of(scratch *s, const char *out)
{
    static char text[1 << 16];
    read_text(under(s, out, "results.csv"), text, sizeof text);
    char *copy = calloc(1, strlen(text) + 1), *to = copy;
    assert_non_null(copy);
    for (char *line = text; *line;) {
        size_t n = strcspn(line, "\n"), kept = n;
        for (int commas = 0; kept && commas < 3;) /* without the seconds, the last three */
            commas += line[--kept] == ',';
        memcpy(to, line, kept);
        to += kept;
        *to++ = '\n';
        line += n + (line[n] == '\n');
    }
    return copy;
}

/* 0 if there is no such file. */
static inline int count_lines(const char *path)
{
    char text[1 << 15];
    int n = 0;
    if (!exists(path))
        return 0;
    read_text(path, text, sizeof text);
    for (const char *at = text; *at; at++)
        n += *at == '\n';
    return n;
}

#endif
