/* commands.h - the commands of the program, and the settings that several of them share. */
#ifndef HALFTONE_CLI_COMMANDS_H
#define HALFTONE_CLI_COMMANDS_H

#include "cli/options.h"
#include "cli/report.h"
#include "halftone.h"

extern const command sample_command, predict_command, calibrate_command, quantize_command, info_command, bench_command,
    fid_command, sweep_command;

/* Names of ht_sampler_name. */
#define SAMPLER_CHOICES "ddim|ddpm|euler|euler-a|heun|pndm|dpm++|dpm++-sde|unipc|deis|lcm"

/* What runs a model. */
typedef struct run_settings {
    int64_t threads;
    const char *backend, *isa, *dtype;
} run_settings;

/* The rows of a table whose settings have a member `run`. */
/* clang-format off */
#define RUN_OPTIONS(settings)                                                                                          \
    {.name = "threads", .argument = "N", .type = OPTION_INT, .at = offsetof(settings, run.threads), .max = 1024,        \
     .initial = "0", .help = "threads; 0: all processors; same result with any"},                                      \
    {.name = "backend", .argument = "NAME", .type = OPTION_CHOICE, .at = offsetof(settings, run.backend),              \
     .choices = "cpu|cuda|auto", .initial = "auto", .help = "where to run"},                                                \
    {.name = "isa", .argument = "NAME", .type = OPTION_CHOICE, .at = offsetof(settings, run.isa),                      \
     .choices = "scalar|avx2|avx512|avx512vnni|amx", .help = "the most that CPU kernels may use; same result with any"},  \
    {.name = "dtype", .argument = "NAME", .type = OPTION_CHOICE, .at = offsetof(settings, run.dtype),                  \
     .choices = "float16|float32", .initial = "float16", .help = "what a GPU keeps activations in"}
/* clang-format on */

ht_session_options run_session_options(const run_settings *run);

/* One JSON object and a newline on stdout; takes the object.  NULL (out of memory while it was built) is a failure.
 * Returns the exit code. */
int print_json(json_t *object);

double seconds_now(void); /* of a monotonic clock */

#endif
