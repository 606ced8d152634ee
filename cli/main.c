/* main.c - the program: finds the command, hands it its settings, makes sure that what it printed arrived. */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "cli/commands.h"
#include "cli/interrupt.h"
#include "cli/ranks.h"

static const command *const commands[] = {&sample_command,   &predict_command, &calibrate_command,
                                          &quantize_command, &fid_command,     &sweep_command,
                                          &info_command,     &bench_command,   NULL};

int print_json(json_t *object)
{
    if (!object)
        return report("--json: out of memory");
    int failed = json_dumpf(object, stdout, JSON_INDENT(1) | JSON_REAL_PRECISION(9));
    json_decref(object);
    if (!failed)
        printf("\n");
    return failed && !ferror(stdout) ? report("--json: out of memory") : EXIT_SUCCESS; /* main tells of its writes */
}

double seconds_now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

ht_session_options run_session_options(const run_settings *run)
{
    return (ht_session_options){.threads = ranks_threads(run->threads),
                                .backend = run->backend,
                                .isa = run->isa,
                                .dtype = run->dtype,
                                .device = ranks_index()};
}

static void print_help(void)
{
    printf("halftone %s: a diffusion runtime\n\nusage: halftone COMMAND ...\n\n", ht_version());
    for (const command *const *c = commands; *c; c++)
        printf("  %-9s %s\n", (*c)->name, (*c)->summary);
    printf("\n  halftone COMMAND --help    what a command takes, with examples\n"
           "  halftone --version         the version\n\n"
           "example:\n"
           "  halftone sample models/cifar10 -n 64 -o grid.png\n\n"
           "Exit code 0, 1 after a failure, 2 after a wrong command line.\n");
}

static int unknown_command(const char *word)
{
    const char *names[sizeof commands / sizeof *commands];
    int n = 0;
    for (const command *const *c = commands; *c; c++)
        names[n++] = (*c)->name;
    names[n] = NULL;
    const char *meant = nearest_name(word, names);
    report("unknown command '%.100s'%s%s%s (see halftone --help)", word, meant ? "; did you mean " : "",
           meant ? meant : "", meant ? "?" : "");
    return EXIT_USAGE;
}

static int run_command(const command *c, int argc, char **argv)
{
    void *settings = calloc(1, c->settings_size);
    if (!settings)
        return report("out of memory");
    int status = options_parse(c, argc, argv, settings);
    if (status < 0 && ranks_count() > 1 && !c->shares)
        status = report("%s is the work of one process; sample, fid and sweep are shared by several", c->name);
    else if (status < 0)
        status = c->run(settings);
    free(settings);
    return status;
}

static int dispatch(int argc, char **argv)
{
    if (argc < 2) {
        report("no command given (see halftone --help)");
        return EXIT_USAGE;
    }
    if (!strcmp(argv[1], "--help") || !strcmp(argv[1], "-h")) {
        print_help();
        return EXIT_SUCCESS;
    }
    if (!strcmp(argv[1], "--version")) {
        printf("halftone %s\n", ht_version());
        printf("processes: %s\n", ranks_library() ? ranks_library() : "one (built without MPI)");
        return EXIT_SUCCESS;
    }
    for (const command *const *c = commands; *c; c++)
        if (!strcmp(argv[1], (*c)->name))
            return run_command(*c, argc - 1, argv + 1);
    return unknown_command(argv[1]);
}

/* The exit code, of a program whose results must have been printed. */
static int finish(int status)
{
    int early = ferror(stdout); /* nobody kept its errno */
    if (early || fflush(stdout)) {
        if (!status && interrupt_signal()) {
            report("interrupted: standard output is not whole");
            _exit(128 + interrupt_signal()); /* exit would wait once more for whoever reads */
        }
        int failed = report("standard output: %s", early ? "cannot be written" : strerror(errno));
        return status ? status : failed;
    }
    return status;
}

int main(int argc, char **argv)
{
    signal(SIGXFSZ, SIG_IGN); /* a limit on file sizes is then a failing write, like a full disk */
    int status = ranks_begin();
    return status ? status : ranks_end(finish(dispatch(argc, argv)));
}
