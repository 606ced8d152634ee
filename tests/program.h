/* program.h - running the halftone program in a test: its exit code, what it printed, what it left in a scratch folder.
 */
#ifndef HALFTONE_TESTS_PROGRAM_H
#define HALFTONE_TESTS_PROGRAM_H

#include <dirent.h>
#include <fcntl.h>
#include <limits.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

enum { MAX_ARGUMENTS = 32 };

/* A scratch folder, and what the last program printed.  Every path of a test lies in the folder. */
typedef struct scratch {
    char root[PATH_MAX]; /* the repository */
    char folder[PATH_MAX];
    char program[2 * PATH_MAX];
    char out[1 << 18], err[1 << 14];
    size_t file_limit;     /* of the next run, in bytes; 0: none */
    const char *directory; /* where the next run works; NULL: the repository */
    char captured_out[PATH_MAX + 16], captured_err[PATH_MAX + 16];
    char names[1 << 18]; /* of in_scratch */
    size_t names_used;
} scratch;

static inline int open_scratch(void **state)
{
    scratch *s = calloc(1, sizeof *s);
    const char *tmp = getenv("TMPDIR");
    assert_non_null(s);
    assert_non_null(getcwd(s->root, sizeof s->root));
    snprintf(s->program, sizeof s->program, "%s/%s", s->root, HALFTONE_PROGRAM);
    snprintf(s->folder, sizeof s->folder, "%s/halftone-XXXXXX", tmp && *tmp ? tmp : "/tmp");
    assert_non_null(mkdtemp(s->folder));
    snprintf(s->captured_out, sizeof s->captured_out, "%s/.stdout", s->folder);
    snprintf(s->captured_err, sizeof s->captured_err, "%s/.stderr", s->folder);
    *state = s;
    return 0;
}

static inline void remove_tree(const char *path)
{
    DIR *d = opendir(path);
    for (struct dirent *e; d && (e = readdir(d));) {
        char name[PATH_MAX];
        struct stat status;
        if (!strcmp(e->d_name, ".") || !strcmp(e->d_name, ".."))
            continue;
        assert_true(snprintf(name, sizeof name, "%s/%s", path, e->d_name) < (int)sizeof name);
        if (!lstat(name, &status) && S_ISDIR(status.st_mode))
            remove_tree(name);
        else
            unlink(name);
    }
    if (d)
        closedir(d);
    rmdir(path);
}

static inline int close_scratch(void **state)
{
    scratch *s = *state;
    remove_tree(s->folder);
    free(s);
    return 0;
}

/* A path in the scratch folder; lives as long as it. */
static inline const char *in_scratch(scratch *s, const char *name)
{
    char *path = s->names + s->names_used;
    size_t room = sizeof s->names - s->names_used;
    int n = snprintf(path, room, "%s/%s", s->folder, name);
    assert_true(n >= 0 && (size_t)n < room);
    s->names_used += (size_t)n + 1;
    return path;
}

static inline void read_text(const char *path, char *buffer, size_t size)
{
    FILE *f = fopen(path, "rb");
    assert_non_null(f);
    size_t n = fread(buffer, 1, size - 1, f);
    buffer[n] = 0;
    fclose(f);
}

static inline void become(const scratch *s, const char *const *argv)
{
    int out = open(s->captured_out, O_WRONLY | O_CREAT | O_TRUNC, 0666);
    int err = open(s->captured_err, O_WRONLY | O_CREAT | O_TRUNC, 0666);
    dup2(out, 1);
    dup2(err, 2);
    struct rlimit limit = {s->file_limit, s->file_limit};
    if ((s->file_limit && setrlimit(RLIMIT_FSIZE, &limit)) || (s->directory && chdir(s->directory)))
        _exit(126);
    execv(s->program, (char *const *)(uintptr_t)argv);
    _exit(127);
}

/* Start the program with these arguments (NULL-terminated). */
static inline pid_t start_program(scratch *s, const char *const *arguments)
{
    const char *argv[MAX_ARGUMENTS + 2] = {"halftone"};
    for (int i = 0; arguments[i]; i++) {
        assert_in_range(i, 0, MAX_ARGUMENTS - 1);
        argv[i + 1] = arguments[i];
    }
    fflush(NULL);
    pid_t child = fork();
    assert_true(child >= 0);
    if (!child)
        become(s, argv);
    return child;
}

/* The exit code, or 1000 + the signal that killed it. */
static inline int finish_program(scratch *s, pid_t child)
{
    int status;
    assert_int_equal(waitpid(child, &status, 0), child);
    read_text(s->captured_out, s->out, sizeof s->out);
    read_text(s->captured_err, s->err, sizeof s->err);
    unlink(s->captured_out);
    unlink(s->captured_err);
    s->file_limit = 0;
    return WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + WTERMSIG(status);
}

/* run(s, "sample", "models/cifar10", "-n", "4") -> the exit code. */
#define run(s, ...) finish_program(s, start_program(s, (const char *const[]){__VA_ARGS__, NULL}))

/* Entries of a folder, hidden ones too. */
static inline int count_files(const char *folder)
{
    int n = 0;
    DIR *d = opendir(folder);
    assert_non_null(d);
    for (struct dirent *e; (e = readdir(d));)
        n += strcmp(e->d_name, ".") && strcmp(e->d_name, "..");
    closedir(d);
    return n;
}

static inline bool exists(const char *path)
{
    struct stat status;
    return !lstat(path, &status);
}

/* The run failed as every failure must: this exit code, one line on stderr that begins with the program's name, nothing
 * on stdout. */
static inline void assert_refused(const scratch *s, int code, int wanted)
{
    const char *newline = strchr(s->err, '\n');
    if (code != wanted || s->out[0] || strncmp(s->err, "halftone", 8) || !newline || newline[1])
        fail_msg("exit code %d, wanted %d; stderr: <%s>; stdout: <%.200s>", code, wanted, s->err, s->out);
}

static inline void assert_worked(const scratch *s, int code)
{
    if (code || s->err[0])
        fail_msg("exit code %d; stderr: <%s>", code, s->err);
}

static inline void copy_file(const char *from, const char *to)
{
    char buffer[1 << 16];
    FILE *in = fopen(from, "rb"), *out = fopen(to, "wb");
    assert_non_null(in);
    assert_non_null(out);
    for (size_t n; (n = fread(buffer, 1, sizeof buffer, in)) > 0;)
        assert_int_equal(fwrite(buffer, 1, n, out), n);
    fclose(in);
    assert_int_equal(fclose(out), 0);
}

#endif
