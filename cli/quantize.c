/* quantize.c - `halftone quantize`: from a model of floats to a folder of codes. */
#include <stdio.h>
#include <stdlib.h>

#include "cli/commands.h"
#include "cli/interrupt.h"
#include "cli/job.h"
#include "cli/progress.h"
#include "cli/settings.h"
#include "cli/text.h"

#define AT(member)     .at = offsetof(quantize_settings, member)
#define OPTION(member) AT(options.member)

/* clang-format off */
static const option quantize_options[] = {
    {.argument = "MODEL", .type = OPTION_TEXT, AT(model), .help = "a model of floats: its folder"},
    {.name = "output", .letter = 'o', .required = true, .argument = "FOLDER", .type = OPTION_TEXT, AT(output), .help = "a new folder"},
    {.name = "scheme", .letter = 's', .argument = "NAME", .type = OPTION_CHOICE, OPTION(scheme), .initial = "w4a8",
     .choices = "w4a8|w8a8|w4a32|w8a32|w4a6|w4a4|fp8|fp4|fp4a8|mxfp4|nvfp4|nvint4", .record = "Scheme", .help = "what weights and inputs become"},
    {.name = "layers", .argument = "SET", .type = OPTION_CHOICE, OPTION(layers), .initial = "default", .choices = "default|all|tfmq",
     .record = "Layers", .help = "which layers, at what width: see below"},
    {.name = "bits", .argument = "B", .type = OPTION_REAL, OPTION(bits), .min = 1, .max = 16,
     .record = "Bits", .help = "a weight, on average, that layers at 8 bits may raise it to; default: 4.68 where the scheme takes less"},
    {.name = "calib", .argument = "FILE", .type = OPTION_TEXT, OPTION(calibration), .help = "of halftone calibrate; default: calibrate with its defaults"},
    {.name = "prompts", .argument = "FILE", .type = OPTION_TEXT, OPTION(prompts), .record = "Prompts",
     .help = "for that, one a line, of models that take a text; default: a few of its own"},
    {.name = "rounding", .argument = "NAME", .type = OPTION_CHOICE, OPTION(rounding), .initial = "gptq+descent",
     .choices = "nearest|gptq|descent|gptq+descent|adaround", .record = "Rounding", .help = "of weights"},
    {.name = "couple", .type = OPTION_SWITCH, OPTION(couple), .record = "Couple", .help = "round outputs of 4-bit layers together; pays with --layers all"},
    {.name = "scale", .argument = "NAME", .type = OPTION_CHOICE, OPTION(scale), .initial = "mse", .choices = "standard|minmax|percentile|mse|l2.4",
     .record = "Scale", .help = "how weights' scales are searched"},
    {.name = "scale-powers", .argument = "NAME", .type = OPTION_CHOICE, OPTION(scale_powers), .initial = "free", .choices = "free|each|tensor",
     .record = "Scale-powers", .help = "4-bit weights' scales: powers of two, or those times one of the tensor"},
    {.name = "smooth", .argument = "ALPHA", .type = OPTION_REAL, OPTION(smooth), .max = 1, .initial = "0",
     .record = "Smooth", .help = "SmoothQuant: inputs' channels by their largest to this power; 0: none"},
    {.name = "rotate", .argument = "N", .type = OPTION_COUNT, OPTION(rotate), .max = 1024, .initial = "0",
     .record = "Rotate", .help = "Hadamard rotation of N channels at a time, a power of 4; with --dynamic; 0: none"},
    {.name = "low-rank", .argument = "R", .type = OPTION_COUNT, OPTION(low_rank), .max = 256, .initial = "0",
     .record = "Low-rank", .help = "SVDQuant: a branch of this rank in 16 bits beside 4-bit weights; 0: none"},
    {.name = "softmax", .argument = "NAME", .type = OPTION_CHOICE, OPTION(softmax), .choices = "float|uint16|uint8|log2",
     .record = "Softmax", .help = "what attention's softmax becomes; default: float"},
    {.name = "observer", .argument = "NAME", .type = OPTION_CHOICE, OPTION(observer), .initial = "minmax", .choices = "minmax|percentile|mse|l2.4",
     .record = "Observer", .help = "how inputs' ranges are found"},
    {.name = "percentile", .argument = "P", .type = OPTION_REAL, OPTION(percentile), .min = 1, .max = 100, .initial = "99.9", .record = "Percentile", .help = "of those that cut there"},
    {.name = "groups", .argument = "N", .type = OPTION_COUNT, OPTION(groups), .max = 1024, .initial = "0",
     .record = "Groups", .help = "of timesteps with input scales of their own; 0: as many as were calibrated, 1: one for all"},
    {.name = "dynamic", .type = OPTION_SWITCH, OPTION(dynamic), .record = "Dynamic", .help = "input scales as inputs come, of each token or image"},
    {.name = "no-split", .type = OPTION_SWITCH, OPTION(no_split), .record = "No-split", .help = "quantize concatenations as one"},
    {.name = "temporal", .argument = "NAME", .type = OPTION_CHOICE, OPTION(temporal), .initial = "cache", .choices = "cache|quantized|select",
     .record = "Temporal", .help = "what depends on the timestep alone"},
    {.name = "blocks", .argument = "N", .type = OPTION_COUNT, OPTION(blocks), .max = 1000000, .initial = "0",
     .record = "Blocks", .help = "iterations of block reconstruction after rounding; 0: none"},
    {.name = "weights", .argument = "FORMAT", .type = OPTION_TEXT, OPTION(weights), .record = "Weights", .help = "instead of the scheme's, as int4_g64; of several, as fp4_e2m1,fp4_e3m0,int4, each layer takes what errs least"},
    {.name = "inputs", .argument = "FORMAT", .type = OPTION_TEXT, OPTION(inputs), .record = "Inputs", .help = "instead of the scheme's, as uint8 or float"},
    {.name = "seed", .argument = "N", .type = OPTION_SEED, OPTION(seed), .initial = "0", .record = "Seed", .help = "of calibration and reconstruction"},
    {.name = "component", .argument = "NAME", .type = OPTION_TEXT, AT(component), .help = "part of a pipeline, as unet; default: its denoiser"},
    {.name = "batch", .argument = "N", .type = OPTION_COUNT, OPTION(batch), .min = 1, .max = 4096, .initial = "16", .help = "images evaluated at once"},
    {.name = "threads", .argument = "N", .type = OPTION_COUNT, OPTION(threads), .max = 1024, .initial = "0", .help = "threads; 0: all processors"},
    {.name = "quiet", .letter = 'q', .type = OPTION_FLAG, AT(quiet), .help = "no progress, no summary"},
    {.name = "json", .type = OPTION_FLAG, AT(json), .help = "print one JSON object about what was made"},
    {0}};
/* clang-format on */

static int on_progress(void *user, int64_t done, int64_t total)
{
    progress *bar = user;
    bar->total = total;
    progress_update(bar, done);
    return interrupt_signal();
}

static int print_made(const quantize_settings *s, double seconds)
{
    ht_model *made;
    ht_model_info info;
    if (s->quiet && !s->json)
        return EXIT_SUCCESS;
    if (ht_model_open(s->output, s->component, &made))
        return report_failure();
    ht_model_get_info(made, &info);
    ht_model_close(made);
    if (s->json)
        return print_json(json_pack("{s:o, s:o, s:s, s:o, s:f, s:I, s:f}", "model", text_json(s->model), "output",
                                    text_json(s->output), "version", ht_version(), "settings",
                                    options_json(&quantize_command, s), "seconds", seconds, "weight_bytes",
                                    (json_int_t)info.weight_bytes, "bits", info.average_bits));
    text_print(s->output);
    printf(": %.2f MB of weights, %.2f bits each on average, in %.1f s\n", (double)info.weight_bytes * 1e-6,
           info.average_bits, seconds);
    return EXIT_SUCCESS;
}

static int quantize(const void *settings, ht_model *model)
{
    const quantize_settings *s = settings;
    progress bar = {.quiet = s->quiet};
    ht_quantize_options options = s->options;
    options.progress = on_progress;
    options.user = &bar;
    double start = seconds_now();
    progress_begin(&bar, "quantizing", 0);
    ht_status status = ht_quantize(model, &options, s->output);
    progress_end(&bar);
    int code = job_result(status, s->output);
    return code >= 0 ? code : print_made(s, seconds_now() - start);
}

static int run_quantize(const void *settings)
{
    const quantize_settings *s = settings;
    if (ht_quantize_check(&s->options))
        return options_wrong(&quantize_command, "%s", ht_error_message());
    return job_run(s->model, s->component, quantize, s);
}

const command quantize_command = {
    .name = "quantize",
    .summary = "make a quantized model",
    .description = "Layers: `default` leaves the first and the last as they are, keeps what depends on the timestep "
                   "alone in 8 bits, and "
                   "raises the most\nsensitive others to 8 bits within --bits; `all` takes every layer, as "
                   "Q-Diffusion's code does; "
                   "`tfmq` those that TFMQ-DM's code takes.",
    .examples = "halftone quantize models/cifar10 -o cifar10-w4a8\n"
                "halftone quantize models/cifar10 --scheme w8a8 --calib calib.safetensors -o cifar10-w8a8\n"
                "halftone quantize models/cifar10 --scheme nvfp4 --layers all --rounding nearest -o plain\n"
                "halftone info cifar10-w4a8 --layers",
    .options = quantize_options,
    .settings_size = sizeof(quantize_settings),
    .run = run_quantize};
