/* calibrate.c - `halftone calibrate`: what the inputs of a model's layers do on the sampler's way, by timestep. */
#include <stdio.h>
#include <stdlib.h>

#include "cli/commands.h"
#include "cli/interrupt.h"
#include "cli/job.h"
#include "cli/output.h"
#include "cli/progress.h"
#include "cli/settings.h"
#include "cli/text.h"

#define AT(member)     .at = offsetof(calibrate_settings, member)
#define OPTION(member) AT(options.member)

/* clang-format off */
static const option calibrate_options[] = {
    {.argument = "MODEL", .type = OPTION_TEXT, AT(model), .help = "a model of floats: its folder"},
    {.name = "output", .letter = 'o', .required = true, .argument = "CALIB.safetensors", .type = OPTION_TEXT, AT(output),
     .help = "gets the calibration set and the statistics"},
    {.name = "distribution", .argument = "NAME", .type = OPTION_CHOICE, OPTION(distribution), .choices = "uniform|quad|normal|all|one",
     .initial = "uniform", .record = "Distribution", .help = "of the timesteps that give samples"},
    {.name = "timesteps", .argument = "N", .type = OPTION_COUNT, OPTION(timesteps), .min = 1, .max = 1000, .initial = "20",
     .record = "Timesteps", .help = "how many of them"},
    {.name = "per-step", .letter = 'n', .argument = "N", .type = OPTION_COUNT, OPTION(per_step), .min = 1, .max = 65536, .initial = "16",
     .record = "Per-step", .help = "samples at each"},
    {.name = "steps", .argument = "N", .type = OPTION_COUNT, OPTION(steps), .min = 1, .max = 100000, .initial = "40",
     .record = "Steps", .help = "of the sampler (DDIM, deterministic) that makes them"},
    {.name = "spacing", .argument = "NAME", .type = OPTION_CHOICE, OPTION(spacing),
     .choices = "leading|trailing|linspace|uniform|quad|adm", .record = "Spacing", .help = "of its timesteps; default: the model's own"},
    {.name = "prompts", .argument = "FILE", .type = OPTION_TEXT, OPTION(prompts), .record = "Prompts",
     .help = "one a line, for models that take a text; default: a few of its own"},
    {.name = "conditions", .argument = "FILE.safetensors", .type = OPTION_TEXT, OPTION(conditions), .record = "Conditions",
     .help = "instead: encoder_hidden_states and what else the model takes, as halftone predict names it"},
    {.name = "guidance", .argument = "X", .type = OPTION_REAL, OPTION(guidance), .min = 1, .max = 1000, .record = "Guidance",
     .help = "of the sampler, if it has prompts; default: 7.5"},
    {.name = "seed", .argument = "N", .type = OPTION_SEED, OPTION(seed), .initial = "0", .record = "Seed", .help = "of its noise"},
    {.name = "component", .argument = "NAME", .type = OPTION_TEXT, AT(component), .help = "part of a pipeline, as unet; default: its denoiser"},
    {.name = "batch", .argument = "N", .type = OPTION_COUNT, OPTION(batch), .min = 1, .max = 4096, .initial = "16",
     .help = "images evaluated at once; same result with any"},
    {.name = "threads", .argument = "N", .type = OPTION_COUNT, OPTION(threads), .max = 1024, .initial = "0",
     .help = "threads; 0: all processors; same result with any"},
    {.name = "quiet", .letter = 'q', .type = OPTION_FLAG, AT(quiet), .help = "no progress, no summary"},
    {.name = "json", .type = OPTION_FLAG, AT(json), .help = "print one JSON object about what was made"},
    {0}};
/* clang-format on */

static int on_evaluation(void *user, int64_t done, int64_t total)
{
    progress *bar = user;
    bar->total = total;
    progress_update(bar, done);
    return interrupt_signal();
}

static int print_made(const calibrate_settings *s, double seconds)
{
    if (s->json)
        return print_json(json_pack("{s:o, s:o, s:s, s:o, s:f}", "model", text_json(s->model), "output",
                                    text_json(s->output), "version", ht_version(), "settings",
                                    options_json(&calibrate_command, s), "seconds", seconds));
    if (!s->quiet) {
        text_print(s->output);
        printf(": calibrated in %.1f s\n", seconds);
    }
    return EXIT_SUCCESS;
}

static int calibrate(const void *settings, ht_model *model)
{
    const calibrate_settings *s = settings;
    int refused = output_check_file(s->output);
    if (refused)
        return refused;
    progress bar = {.quiet = s->quiet};
    ht_calibrate_options options = s->options;
    options.progress = on_evaluation;
    options.user = &bar;
    double start = seconds_now();
    progress_begin(&bar, "calibrating", 0);
    ht_status status = ht_calibrate(model, &options, s->output);
    progress_end(&bar);
    int code = job_result(status, s->output);
    return code >= 0 ? code : print_made(s, seconds_now() - start);
}

static int run_calibrate(const void *settings)
{
    const calibrate_settings *s = settings;
    if (ht_calibrate_check(&s->options))
        return options_wrong(&calibrate_command, "%s", ht_error_message());
    return job_run(s->model, s->component, calibrate, s);
}

const command calibrate_command = {
    .name = "calibrate",
    .summary = "observe a model's layers by timestep",
    .description =
        "Runs the model's own sampler, takes x_t at the chosen timesteps, and counts what values every layer's "
        "inputs have there.\nThe same settings give the same file.  `sample` and `timestep` in it can be "
        "given to halftone predict.",
    .examples =
        "halftone calibrate models/cifar10 -o calib.safetensors\n"
        "halftone calibrate models/cifar10 --distribution normal -n 32 --seed 1 -o calib.safetensors\n"
        "halftone calibrate stable-diffusion-v1-5 --prompts captions.txt --timesteps 10 -n 4 -o calib.safetensors\n"
        "halftone info calib.safetensors",
    .options = calibrate_options,
    .settings_size = sizeof(calibrate_settings),
    .run = run_calibrate};
