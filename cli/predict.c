/* predict.c - `halftone predict`: one evaluation on given tensors, so that anyone can check parity with anything. */
#include <stdio.h>
#include <stdlib.h>

#include "cli/commands.h"
#include "cli/interrupt.h"
#include "cli/job.h"
#include "cli/output.h"
#include "cli/text.h"

typedef struct predict_settings {
    const char *model, *input, *output, *component;
    int64_t batch;
    run_settings run;
    bool quiet, json;
} predict_settings;

#define AT(member) .at = offsetof(predict_settings, member)

/* clang-format off */
static const option predict_options[] = {
    {.argument = "MODEL", .type = OPTION_TEXT, AT(model), .help = "a model's folder, or that of one of its components"},
    {.argument = "IN.safetensors", .type = OPTION_TEXT, AT(input), .help = "`sample` [n,c,h,w], `timestep`, and conditions; or an autoencoder's `z` or `x`"},
    {.name = "output", .letter = 'o', .required = true, .argument = "OUT.safetensors", .type = OPTION_TEXT, AT(output),
     .help = "gets the tensor `sample`, or what an autoencoder makes"},
    {.name = "component", .argument = "NAME", .type = OPTION_TEXT, AT(component), .help = "part of a pipeline, as unet; default: its denoiser"},
    {.name = "batch", .argument = "N", .type = OPTION_INT, AT(batch), .max = 4096, .initial = "0",
     .help = "images evaluated at once; 0: all; same result with any"},
    RUN_OPTIONS(predict_settings),
    {.name = "quiet", .letter = 'q', .type = OPTION_FLAG, AT(quiet), .help = "no summary"},
    {.name = "json", .type = OPTION_FLAG, AT(json), .help = "print one JSON object about what was made"},
    {0}};
/* clang-format on */

static int print_made(const predict_settings *s, const char *what, double seconds)
{
    if (s->json)
        return print_json(json_pack("{s:o, s:o, s:o, s:s, s:f}", "model", text_json(s->model), "input",
                                    text_json(s->input), "output", text_json(s->output), "version", ht_version(),
                                    "seconds", seconds));
    if (!s->quiet) {
        text_print(s->output);
        printf(": %s, %.3f s\n", what, seconds);
    }
    return EXIT_SUCCESS;
}

static int on_batch(void *user, int64_t done, int64_t total)
{
    (void)user, (void)done, (void)total;
    return interrupt_signal();
}

static int predict(const void *settings, ht_model *model)
{
    const predict_settings *s = settings;
    int refused = output_check_file(s->output);
    if (refused)
        return refused;
    ht_session_options options = run_session_options(&s->run);
    options.batch = (int)s->batch;
    double start = seconds_now();
    ht_status status = ht_predict_file(model, &options, s->input, s->output, on_batch, NULL);
    int code = job_result(status, s->output);
    return code >= 0 ? code : print_made(s, "sample", seconds_now() - start);
}

static int predict_text(const predict_settings *s)
{
    int refused = output_check_file(s->output);
    if (refused)
        return refused;
    interrupt_watch();
    ht_session_options options = run_session_options(&s->run);
    options.batch = (int)s->batch;
    double start = seconds_now();
    ht_status status = ht_predict_text_file(s->model, s->component, &options, s->input, s->output, on_batch, NULL);
    int code = job_result(status, s->output);
    return code >= 0 ? code : print_made(s, "hidden states", seconds_now() - start);
}

static int run_predict(const void *settings)
{
    const predict_settings *s = settings;
    if (ht_is_text_encoder(s->model, s->component))
        return predict_text(s);
    return job_run(s->model, s->component, predict, s);
}

const command predict_command = {
    .name = "predict",
    .summary = "evaluate a model once on the tensors of a file",
    .description = "Tensors are float32 or integers, NCHW, and named as the arguments and outputs of the model's "
                   "forward in diffusers; of a text encoder (CLIP, T5) `input_ids` gives `last_hidden_state` and "
                   "what else it has.  Ctrl-C stops after the batch that runs, without a file; the second one kills.",
    .examples = "halftone predict models/cifar10 in.safetensors -o out.safetensors\n"
                "halftone predict models/cifar10 --component unet in.safetensors -o out.safetensors --isa scalar",
    .options = predict_options,
    .settings_size = sizeof(predict_settings),
    .run = run_predict};
