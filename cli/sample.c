/* sample.c - `halftone sample`: its options, and the command. */
#include <stdlib.h>

#include "cli/interrupt.h"
#include "cli/sample_job.h"

#define AT(member) .at = offsetof(sample_settings, member)

/* clang-format off */
static const option sample_options[] = {
    {.argument = "MODEL", .type = OPTION_TEXT, AT(model), .help = "a model's folder, in the layout of diffusers, or a single file of it"},
    {.name = "prompt", .letter = 'p', .argument = "TEXT", .type = OPTION_TEXTS, AT(prompts), .help = "what to draw; may be given more than once"},
    {.name = "prompts", .argument = "FILE", .type = OPTION_TEXT, AT(prompt_file), .help = "a prompt a line; - is standard input"},
    {.name = "negative", .argument = "TEXT", .type = OPTION_TEXT, AT(negative), .help = "what to lead away from"},
    {.name = "output", .letter = 'o', .argument = "PATH", .type = OPTION_TEXT, AT(output), .initial = "halftone.png",
     .help = "X.png: one picture, a grid if n > 1; a folder or DIR/: one PNG an image"},
    {.name = "steps", .argument = "N", .type = OPTION_INT, AT(steps), .min = 1, .max = 100000, .initial = "50", .record = "Steps",
     .help = "model evaluations an image; some methods take a few more"},
    {.name = "sampler", .argument = "NAME", .type = OPTION_CHOICE, AT(sampler),
     .choices = SAMPLER_CHOICES, .record = "Sampler",
     .help = "method; default: the model's own"},
    {.name = "sigmas", .argument = "NAME", .type = OPTION_CHOICE, AT(sigmas), .choices = "default|karras|exponential", .record = "Schedule type",
     .help = "noise levels; default: the model's own"},
    {.name = "guidance", .argument = "X", .type = OPTION_REAL, AT(guidance), .min = 0, .max = 1000, .nan_if_absent = true, .record = "CFG scale",
     .help = "how strongly prompt or class lead; 1: not guided, half the time; default: 7.5, of a class 4"},
    {.name = "guidance-channels", .argument = "N", .type = OPTION_INT, AT(guidance_channels), .min = 1, .max = 64, .record = "CFG channels",
     .help = "lead the first N channels of latents alone; default: all (facebook's DiT: 3)"},
    {.name = "guidance-rescale", .argument = "X", .type = OPTION_REAL, AT(guidance_rescale), .max = 1, .record = "CFG rescale",
     .help = "bring the spread back by this share: 0 not at all"},
    {.name = "seed", .argument = "N", .type = OPTION_SEED, AT(seed), .initial = "0", .record = "Seed",
     .help = "the same seed gives the same images"},
    {.name = "size", .argument = "WxH", .type = OPTION_SIZE, AT(size), .min = 1, .max = 16384, .record = "Size",
     .help = "in pixels; default: the model's own"},
    {.name = "width", .letter = 'W', .argument = "N", .type = OPTION_INT, AT(width), .min = 1, .max = 16384, .help = "in pixels, instead of --size"},
    {.name = "height", .letter = 'H', .argument = "N", .type = OPTION_INT, AT(height), .min = 1, .max = 16384, .help = "in pixels, instead of --size"},
    {.name = "beside", .argument = "MODEL", .type = OPTION_TEXT, AT(beside), .record = "Beside",
     .help = "draw the same noise with another model too, to the right of the first, in one grid"},
    {.name = "number", .letter = 'n', .argument = "N", .type = OPTION_INT, AT(n), .min = 1, .max = 100000000,
     .record = "Images", .help = "how many images, of each prompt; default: 16, or 1 of each prompt"},
    {.name = "first", .argument = "I", .type = OPTION_INT, AT(first), .max = 1000000000000, .initial = "0", .record = "First",
     .help = "draw images I .. I+n-1 of the seed"},
    {.name = "class", .argument = "LIST", .type = OPTION_INTS, AT(classes), .max = 1000000000, .record = "Class",
     .help = "class, or classes that images take in turn: 3 or 0,1,2"},
    {.name = "eta", .argument = "X", .type = OPTION_REAL, AT(eta), .max = 1, .initial = "0", .record = "Eta",
     .help = "noise that DDIM adds: 0 none, 1 as DDPM"},
    {.name = "spacing", .argument = "NAME", .type = OPTION_CHOICE, AT(spacing), .choices = "leading|trailing|linspace|uniform|quad|adm",
     .record = "Spacing", .help = "of timesteps; default: the model's own"},
    {.name = "init", .argument = "FILE", .type = OPTION_TEXT, AT(init), .record = "Init image", .help = "a picture to change"},
    {.name = "strength", .argument = "X", .type = OPTION_REAL, AT(strength), .min = 0.001, .max = 1, .record = "Denoising strength",
     .help = "with --init: how much of the way is drawn anew; default: 0.8, with --mask 1"},
    {.name = "mask", .argument = "FILE", .type = OPTION_TEXT, AT(mask), .record = "Mask", .help = "with --init: white where it is drawn anew"},    {.name = "cache", .argument = "N[,BRANCH]", .type = OPTION_INTS, AT(cache), .max = 1000, .record = "DeepCache",
     .help = "whole model every N steps, between them what is above a skip"},
    {.name = "tile", .argument = "N", .type = OPTION_INT, AT(tile), .min = 1, .max = 16384, .record = "VAE tile",
     .help = "decode latents in tiles of N pixels: less memory for large pictures; default: at once"},
    {.name = "clip-skip", .argument = "N", .type = OPTION_INT, AT(clip_skip), .min = 1, .max = 2, .record = "Clip skip",
     .help = "layer of the text encoder that is read, from its end: 1 the last"},
    {.name = "max-sequence-length", .argument = "N", .type = OPTION_INT, AT(max_sequence_length), .min = 1, .max = 16384, .record = "Prompt length",
     .help = "T5: tokens of a prompt that are read; default: 120 for PixArt-alpha, 300 for Sigma"},
    {.name = "plain-prompts", .type = OPTION_FLAG, AT(plain), .record = "Plain prompts", .help = "brackets are text, long prompts are cut"},
    {.name = "prompt-2", .argument = "TEXT", .type = OPTION_TEXT, AT(prompt_2), .record = "Prompt 2", .help = "SDXL: for the second text encoder"},
    {.name = "negative-2", .argument = "TEXT", .type = OPTION_TEXT, AT(negative_2), .record = "Negative prompt 2", .help = "SDXL: for the second text encoder"},
    {.name = "original-size", .argument = "WxH", .type = OPTION_SIZE, AT(original_size), .min = 1, .max = 65536, .record = "Original size",
     .help = "SDXL: size that the picture is said to come from; default: its own"},
    {.name = "target-size", .argument = "WxH", .type = OPTION_SIZE, AT(target_size), .min = 1, .max = 65536, .record = "Target size",
     .help = "SDXL: size that it is said to have; default: its own"},
    {.name = "crop", .argument = "TOP,LEFT", .type = OPTION_INTS, AT(crop), .max = 65536, .record = "Crop",
     .help = "SDXL: where it is said to be cut out; default: 0,0"},
    {.name = "rng", .argument = "NAME", .type = OPTION_CHOICE, AT(rng), .choices = "philox|torch-cpu|torch-cuda", .initial = "philox",
     .record = "RNG", .help = "noise; torch-*: as diffusers draws it"},
    {.name = "total", .argument = "N", .type = OPTION_INT, AT(total), .max = 1000000000000, .record = "Total",
     .help = "torch-*: images drawn at once in diffusers; default: first + images"},
    {.name = "batch", .argument = "N", .type = OPTION_INT, AT(batch), .min = 1, .max = 4096, .initial = "8",
     .help = "images evaluated at once; same images with any"},
    {.name = "show", .type = OPTION_FLAG, AT(show), .help = "show the picture in the terminal"},
    {.name = "preview", .type = OPTION_FLAG, AT(preview), .help = "show what comes, step by step"},
    {.name = "preview-model", .argument = "FOLDER", .type = OPTION_TEXT, AT(preview_model),
     .help = "a small decoder (TAESD) for previews"},
    {.name = "terminal", .argument = "NAME", .type = OPTION_CHOICE, AT(terminal), .choices = "auto|kitty|iterm2|sixel|blocks", .initial = "auto",
     .help = "what --show draws with; auto: what the environment names"},
    RUN_OPTIONS(sample_settings),
    {.name = "quiet", .letter = 'q', .type = OPTION_FLAG, AT(quiet), .help = "no progress, no summary"},
    {.name = "json", .type = OPTION_FLAG, AT(json), .help = "print one JSON object about what was made"},
    {0}};
/* clang-format on */

ht_rng sample_rng(const char *name)
{
    return !strcmp(name, "torch-cpu")    ? HT_RNG_TORCH_CPU
           : !strcmp(name, "torch-cuda") ? HT_RNG_TORCH_CUDA
                                         : HT_RNG_PHILOX;
}

static int run_sample(const void *settings)
{
    job *j = calloc(1, sizeof *j);
    if (!j)
        return report("out of memory");
    j->s = *(const sample_settings *)settings;
    interrupt_watch();
    int status = sample_prepare(j);
    if (!status)
        status = sample_draw(j);
    if (!status && j->left_out)
        status = EXIT_FAILURE;
    json_decref(j->files);
    free(j->labels);
    free(j->images);
    free(j->init);
    free(j->mask);
    prompts_free(&j->prompts);
    ht_pipeline_close(j->pipeline);
    if (j->to_folder)
        output_close(&j->out);
    free(j);
    return status;
}

const command sample_command = {
    .name = "sample",
    .summary = "draw images with a model",
    .description =
        "An image depends on model, prompt, seed, its index, and settings, not on n, other prompts, batch, threads or "
        "instruction set (with --rng philox).\n"
        "A prompt that cannot be read is named and left out; the others are drawn.\n"
        "The PNG's text `parameters` says how it was made.  Ctrl-C stops at the next step and leaves whole files only.",
    .examples = "halftone sample models/cifar10                            # a grid of 16 in halftone.png\n"
                "halftone sample models/cifar10 -n 64 --seed 7 -o grid.png\n"
                "halftone sample models/cifar10 -n 10000 -o samples/       # samples/00000.png on\n"
                "halftone sample models/cifar10 -n 1 --first 41 -o 41.png  # number 41 of them again\n"
                "halftone sample models/cifar10 --rng torch-cpu --seed 0   # the noise of torch.manual_seed(0)\n"
                "halftone sample models/emoji -p \"a penguin\" --guidance 5  # from a prompt\n"
                "halftone sample models/emoji --prompts list.txt -n 4 -o out/  # four of each line\n"
                "halftone sample models/emoji -p \"a cat face\" --init penguin.png --strength 0.6\n"
                "halftone sample models/emoji-dit --class 1,27,42 -n 3 -o three.png  # a bird, a tongue, a heart",
    .options = sample_options,
    .settings_size = sizeof(sample_settings),
    .run = run_sample,
    .shares = true};
