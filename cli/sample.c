/* sample.c - `halftone sample`: draw images into a picture, a grid, or a folder. */
#include <ctype.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>

#include "cli/commands.h"
#include "cli/interrupt.h"
#include "cli/output.h"
#include "cli/parameters.h"
#include "cli/progress.h"
#include "cli/ranks.h"
#include "cli/settings.h"
#include "cli/text.h"

#define AT(member) .at = offsetof(sample_settings, member)

enum { MOST_BESIDE = 4096 };

/* clang-format off */
static const option sample_options[] = {
    {.argument = "MODEL", .type = OPTION_TEXT, AT(model), .help = "a model's folder, in the layout of diffusers"},
    {.name = "output", .letter = 'o', .argument = "PATH", .type = OPTION_TEXT, AT(output), .initial = "halftone.png",
     .help = "X.png: one picture, a grid if n > 1; a folder or DIR/: one PNG an image"},
    {.name = "beside", .argument = "MODEL", .type = OPTION_TEXT, AT(beside), .record = "Beside",
     .help = "draw the same noise with another model too, to the right of the first, in one grid"},
    {.name = "steps", .argument = "N", .type = OPTION_INT, AT(steps), .min = 1, .max = 100000, .initial = "50", .record = "Steps",
     .help = "model evaluations an image; --spacing uniform can take a few more"},
    {.name = "sampler", .argument = "NAME", .type = OPTION_CHOICE, AT(sampler), .choices = "ddim|ddpm", .record = "Sampler",
     .help = "method; default: the model's own"},
    {.name = "seed", .argument = "N", .type = OPTION_SEED, AT(seed), .initial = "0", .record = "Seed",
     .help = "the same seed gives the same images"},
    {.name = "size", .argument = "WxH", .type = OPTION_SIZE, AT(size), .min = 1, .max = 16384, .record = "Size",
     .help = "in pixels; default: the model's own"},
    {.name = "number", .letter = 'n', .argument = "N", .type = OPTION_INT, AT(n), .min = 1, .max = 100000000, .initial = "16",
     .record = "Images", .help = "how many images"},
    {.name = "first", .argument = "I", .type = OPTION_INT, AT(first), .max = 1000000000000, .initial = "0", .record = "First",
     .help = "draw images I .. I+n-1 of the seed"},
    {.name = "class", .argument = "LIST", .type = OPTION_INTS, AT(classes), .max = 1000000000, .record = "Class",
     .help = "class, or classes that images take in turn: 3 or 0,1,2"},
    {.name = "eta", .argument = "X", .type = OPTION_REAL, AT(eta), .max = 1, .initial = "0", .record = "Eta",
     .help = "noise that DDIM adds: 0 none, 1 as DDPM"},
    {.name = "spacing", .argument = "NAME", .type = OPTION_CHOICE, AT(spacing), .choices = "leading|trailing|linspace|uniform|quad|adm",
     .record = "Spacing", .help = "of timesteps; default: the model's own"},
    {.name = "rng", .argument = "NAME", .type = OPTION_CHOICE, AT(rng), .choices = "philox|torch-cpu|torch-cuda", .initial = "philox",
     .record = "RNG", .help = "noise; torch-*: as diffusers draws it"},
    {.name = "total", .argument = "N", .type = OPTION_INT, AT(total), .max = 1000000000000, .record = "Total",
     .help = "torch-*: images drawn at once in diffusers [first + n]"},
    {.name = "batch", .argument = "N", .type = OPTION_INT, AT(batch), .min = 1, .max = 4096, .initial = "8",
     .help = "images evaluated at once; same images with any"},
    RUN_OPTIONS(sample_settings),
    {.name = "quiet", .letter = 'q', .type = OPTION_FLAG, AT(quiet), .help = "no progress, no summary"},
    {.name = "json", .type = OPTION_FLAG, AT(json), .help = "print one JSON object about what was made"},
    {0}};
/* clang-format on */

/* A run of the command. */
typedef struct job {
    sample_settings s;   /* with what the model decided filled in, as it is recorded */
    const char *sampler; /* as the library calls it; NULL: the model's own */
    char sampler_label[16];
    ht_model *model;
    ht_model_info info;
    ht_session *session;
    ht_session_info running;
    bool to_folder;
    output out;
    float *labels; /* of all images, NULL without classes */
    float *images; /* of a grid */
    progress bar;
    int64_t evaluations; /* of all images, known once the first step is done */
    int64_t written;
    int write_failed; /* exit code of a failure that is reported already */
    json_t *files;
    double seconds;
} job;

/* ---- before sampling: everything that can be found wrong now ---- */

static bool ends_with_png(const char *path)
{
    size_t length = strlen(path);
    return length > 4 && !strcasecmp(path + length - 4, ".png");
}

/* /dev/stdout, a FIFO: names that need no ending. */
static bool is_special(const char *path)
{
    struct stat status;
    return !stat(path, &status) && !S_ISREG(status.st_mode);
}

static int check_settings(const job *j)
{
    const sample_settings *s = &j->s;
    if (s->total && s->total < s->first + s->n)
        return options_wrong(&sample_command, "--total %" PRId64 ": must be at least first + n, %" PRId64, s->total,
                             s->first + s->n);
    if (s->total && !strcmp(s->rng, "philox"))
        return options_wrong(&sample_command,
                             "--total is for --rng torch-cpu and torch-cuda; philox draws each image by itself");
    if (s->beside && (j->to_folder || s->n > MOST_BESIDE))
        return options_wrong(&sample_command, "--beside makes one grid of at most %d images a model: -o NAME.png",
                             MOST_BESIDE);
    if (!j->to_folder && !ends_with_png(s->output) && !is_special(s->output))
        return options_wrong(&sample_command,
                             "--output %.200s: pictures are PNG: NAME.png, or FOLDER/ for one file an image",
                             s->output);
    return 0;
}

/* The folder that rank 0 makes is there when the others look. */
static int open_output(job *j)
{
    int status = 0;
    if (ranks_index() && ranks_meet())
        return ranks_end_early();
    if (j->to_folder)
        status = output_open_folder(j->s.output, &j->out);
    else if (!ranks_index())
        status = output_check_file(j->s.output);
    if (!status && !ranks_index() && ranks_meet())
        return ranks_end_early();
    return status;
}

/* "ddim" as the field writes it. */
static const char *label_sampler(const char *name, char label[16])
{
    snprintf(label, 16, "%s", name);
    for (char *at = label; *at; at++)
        *at = (char)toupper((unsigned char)*at);
    return label;
}

static int open_model(job *j)
{
    if (ht_model_open(j->s.model, NULL, &j->model))
        return report_failure();
    ht_model_get_info(j->model, &j->info);
    if (j->info.decoder)
        return report("%s: draws latents that its %s makes pictures of, which this version cannot", j->s.model,
                      j->info.decoder);
    int c = j->info.in_channels;
    if (c != 1 && c != 3 && c != 4)
        return report("%s: draws samples of %d channels; a picture has 1, 3 or 4", j->s.model, c);
    if (j->s.classes.count && !j->info.takes_class)
        return report("%s: takes no class; leave --class out", j->s.model);
    if (j->info.takes_class && !j->s.classes.count)
        return report("%s: needs a class for each image; see --class", j->s.model);
    j->sampler = j->s.sampler;
    j->s.sampler = label_sampler(j->sampler ? j->sampler : j->info.sampler, j->sampler_label);
    if (!j->s.spacing)
        j->s.spacing = j->info.spacing;
    if (!strcmp(j->sampler ? j->sampler : j->info.sampler, "ddpm"))
        j->s.eta = NAN; /* has none: not recorded */
    return 0;
}

static int open_session(job *j)
{
    ht_session_options options = run_session_options(&j->s.run);
    options.batch = (int)(j->s.n < j->s.batch ? j->s.n : j->s.batch);
    options.height = j->s.size.height;
    options.width = j->s.size.width;
    if (ht_session_open(j->model, &options, &j->session))
        return report_failure();
    ht_session_get_info(j->session, &j->running);
    j->s.size = (option_size){j->running.width, j->running.height};
    return 0;
}

/* A grid needs all its images at once. */
static int allocate(job *j)
{
    size_t image = (size_t)j->running.width * (size_t)j->running.height * (size_t)j->info.in_channels;
    size_t n = (size_t)j->s.n;
    j->files = json_array();
    if (!j->to_folder)
        j->images = calloc(n, image * sizeof *j->images);
    if (j->s.classes.count)
        j->labels = calloc(n, sizeof *j->labels);
    if (!j->files || (!j->to_folder && !j->images) || (j->s.classes.count && !j->labels))
        return report("out of memory for %" PRId64 " images%s", j->s.n, j->to_folder ? "" : "; -o FOLDER/ needs less");
    for (int64_t i = 0; j->s.classes.count && i < j->s.n; i++)
        j->labels[i] = (float)j->s.classes.value[(j->s.first + i) % j->s.classes.count];
    return 0;
}

static int prepare(job *j)
{
    j->to_folder = output_is_folder(j->s.output);
    int status = check_settings(j);
    if (!status)
        status = open_model(j);
    if (!status)
        status = open_output(j);
    if (!status)
        status = open_session(j);
    return status ? status : allocate(j);
}

/* ---- sampling ---- */

static int on_step(void *user, int64_t done, int64_t total)
{
    job *j = user;
    int64_t first, mine = ranks_share(j->s.n, &first);
    j->evaluations = total / mine * j->s.n;
    j->bar.total = total;
    progress_update(&j->bar, done);
    return ranks_stopped();
}

ht_rng sample_rng(const char *name)
{
    return !strcmp(name, "torch-cpu")    ? HT_RNG_TORCH_CPU
           : !strcmp(name, "torch-cuda") ? HT_RNG_TORCH_CUDA
                                         : HT_RNG_PHILOX;
}

/* The record of images first .. first+n-1; the caller frees it.  Steps stay what was asked for: with them the images
 * can be drawn again. */
static char *picture_text(const job *j, int64_t first, int64_t n)
{
    char results[48] = "";
    sample_settings made = j->s;
    made.first = first;
    made.n = n;
    if (!made.total && strcmp(made.rng, "philox"))
        made.total = j->s.first + j->s.n;
    if (j->evaluations != j->s.n * j->s.steps)
        snprintf(results, sizeof results, "Evaluations: %" PRId64 ", ", j->evaluations / j->s.n);
    return parameters_text(&sample_command, &made, results, j->s.model);
}

static int interrupted(const job *j)
{
    int64_t left = j->s.n - j->written;
    if (ranks_count() > 1)
        report("interrupted: not all of %" PRId64 " images were written", j->s.n);
    else
        report("interrupted: %" PRId64 " of %" PRId64 " images not written", left, j->s.n);
    return 128 + interrupt_signal();
}

/* Write images first .. first+n-1 as one file.  0, or an exit code after a line on stderr. */
static int write_picture(job *j, const char *path, int64_t first, int64_t n, const float *images)
{
    int w = j->running.width, h = j->running.height, c = j->info.in_channels;
    char *text = picture_text(j, first, n);
    ht_status status = HT_OK;
    if (text && n > 1)
        status = ht_image_save_grid(path, images, n, h, w, c, 0, text);
    else if (text)
        status = ht_image_save(path, images, h, w, c, text);
    if (!text || status) {
        progress_end(&j->bar);
        j->write_failed = !text                ? report("out of memory for the parameters of a picture")
                          : interrupt_signal() ? interrupted(j) /* a wait for a FIFO's reader, as it seems */
                                               : report_failure();
    } else {
        j->written += n;
        json_array_append_new(j->files, text_json(path));
    }
    free(text);
    return j->write_failed;
}

static int on_image(void *user, int64_t index, const float *image)
{
    job *j = user;
    return interrupt_signal() || write_picture(j, output_file(&j->out, index), index, 1, image);
}

/* This rank's share of the images, as they are whatever share is drawn; those of a grid are then all with rank 0. */
static ht_status draw_share(const job *j, ht_session *session, const ht_sample_options *all, float *images)
{
    int64_t first, n = ranks_share(j->s.n, &first);
    size_t image = (size_t)j->running.width * (size_t)j->running.height * (size_t)j->info.in_channels;
    const ht_cond cond = {.class_labels = j->labels ? j->labels + first : NULL};
    ht_sample_options options = *all;
    ht_status status = HT_OK;
    options.cond = j->labels ? &cond : NULL;
    if (!options.total && options.rng != HT_RNG_PHILOX)
        options.total = j->s.first + j->s.n;
    if (n)
        status = ht_sample(session, &options, j->s.first + first, n, images ? images + (size_t)first * image : NULL);
    if (!status && images && ranks_gather(images, j->s.n, image * sizeof *images))
        status = HT_ERR_CANCELLED;
    return status;
}

/* Of a folder, where every rank has written its own. */
static ht_status count_written(job *j)
{
    int64_t mine = j->written;
    if (ranks_sum(&j->written))
        return HT_ERR_CANCELLED;
    for (int64_t i = mine; !ranks_index() && i < j->s.n; i++)
        json_array_append_new(j->files, text_json(output_file(&j->out, j->s.first + i)));
    return HT_OK;
}

/* ---- two models beside one another ---- */

/* What the other model draws of the same noise, in images of malloc; NULL after a line on stderr. */
static float *draw_other(job *j, ht_sample_options *options)
{
    size_t image = (size_t)j->running.width * (size_t)j->running.height * (size_t)j->info.in_channels;
    float *images = calloc((size_t)j->s.n, image * sizeof *images);
    ht_model *model = NULL;
    ht_session *session = NULL;
    ht_model_info info;
    ht_session_options how = run_session_options(&j->s.run);
    how.batch = (int)(j->s.n < j->s.batch ? j->s.n : j->s.batch);
    how.height = j->running.height;
    how.width = j->running.width;
    if (!images) {
        j->write_failed = report("out of memory for %" PRId64 " more images", j->s.n);
        return NULL;
    }
    ht_status status = ht_model_open(j->s.beside, NULL, &model);
    if (!status) {
        ht_model_get_info(model, &info);
        status = ht_session_open(model, &how, &session);
    }
    bool fits = !status && info.in_channels == j->info.in_channels && info.takes_class == j->info.takes_class;
    if (fits)
        status = draw_share(j, session, options, images);
    progress_end(&j->bar);
    if (status == HT_ERR_CANCELLED && interrupt_signal())
        j->write_failed = interrupted(j);
    else if (status)
        j->write_failed = report_failure();
    else if (!fits)
        j->write_failed = report("%s: draws other samples than %s", j->s.beside, j->s.model);
    ht_session_close(session);
    ht_model_close(model);
    if (j->write_failed) {
        free(images);
        return NULL;
    }
    return images;
}

/* Rows of the first model's images with the other's to the right, as one grid. */
static void write_both(job *j, const float *other)
{
    size_t image = (size_t)j->running.width * (size_t)j->running.height * (size_t)j->info.in_channels,
           n = (size_t)j->s.n;
    size_t columns = (size_t)ceil(sqrt((double)n)), rows = (n + columns - 1) / columns;
    float *both = calloc(2 * rows * columns, image * sizeof *both);
    char *text = picture_text(j, j->s.first, j->s.n);
    for (size_t i = 0; both && i < n; i++) {
        float *to = both + (i / columns * 2 * columns + i % columns) * image;
        memcpy(to, j->images + i * image, image * sizeof *both);
        memcpy(to + columns * image, other + i * image, image * sizeof *both);
    }
    if (!both || !text)
        j->write_failed = report("out of memory for %zu images", 2 * n);
    else if (ht_image_save_grid(j->s.output, both, (int64_t)(2 * rows * columns), j->running.height, j->running.width,
                                j->info.in_channels, (int)(2 * columns), text))
        j->write_failed = report_failure();
    else
        j->written = j->s.n;
    if (!j->write_failed)
        json_array_append_new(j->files, text_json(j->s.output));
    free(text);
    free(both);
}

/* ---- drawing ---- */

static ht_status draw(job *j)
{
    const sample_settings *s = &j->s;
    ht_sample_options options = {.steps = (int)s->steps,
                                 .sampler = j->sampler,
                                 .spacing = s->spacing,
                                 .eta = isnan(s->eta) ? 0 : s->eta,
                                 .seed = s->seed,
                                 .rng = sample_rng(s->rng),
                                 .total = s->total,
                                 .progress = on_step,
                                 .deliver = j->to_folder ? on_image : NULL,
                                 .user = j};
    ht_status status = draw_share(j, j->session, &options, j->images);
    if (status || j->to_folder)
        return status ? status : count_written(j);
    if (!s->beside) {
        if (!ranks_index())
            write_picture(j, s->output, s->first, s->n, j->images);
        return HT_OK;
    }
    float *other = draw_other(j, &options);
    if (other && !ranks_index())
        write_both(j, other);
    free(other);
    return HT_OK;
}

/* ---- the command ---- */

static int print_made(const job *j)
{
    if (j->s.json) {
        json_t *settings = options_json(&sample_command, &j->s);
        return print_json(
            settings ? json_pack("{s:O, s:I, s:I, s:o, s:o, s:s, s:s, s:s, s:i, s:f, s:f}", "files", j->files, "images",
                                 (json_int_t)j->written, "evaluations", (json_int_t)j->evaluations, "settings",
                                 settings, "model", text_json(j->s.model), "version", ht_version(), "backend",
                                 j->running.backend, "isa", j->running.isa, "threads", j->running.threads, "seconds",
                                 j->seconds, "images_per_second", (double)j->written / j->seconds)
                     : NULL);
    }
    if (!j->s.quiet) {
        text_print(j->s.output);
        printf(": %" PRId64 " image%s, %" PRId64 " steps, %.1f s, %.2f images/s\n", j->written,
               j->written == 1 ? "" : "s", j->evaluations / j->s.n, j->seconds, (double)j->written / j->seconds);
    }
    return EXIT_SUCCESS;
}

static int draw_all(job *j)
{
    double start = seconds_now();
    j->bar.quiet = j->s.quiet || ranks_index();
    progress_begin(&j->bar, "sampling", 0); /* the first step tells how many there are */
    ht_status status = draw(j);
    progress_end(&j->bar);
    j->seconds = seconds_now() - start;
    if (j->write_failed)
        return j->write_failed;
    if (status == HT_ERR_CANCELLED && interrupt_signal())
        return interrupted(j);
    return status ? report_failure() : print_made(j);
}

static int run_sample(const void *settings)
{
    job *j = calloc(1, sizeof *j);
    if (!j)
        return report("out of memory");
    j->s = *(const sample_settings *)settings;
    interrupt_watch();
    int status = prepare(j);
    if (!status)
        status = draw_all(j);
    json_decref(j->files);
    free(j->labels);
    free(j->images);
    ht_session_close(j->session);
    if (j->to_folder)
        output_close(&j->out);
    ht_model_close(j->model);
    free(j);
    return status;
}

const command sample_command = {
    .name = "sample",
    .summary = "draw images with a model",
    .description =
        "An image depends on model, seed, its index, and settings, not on n, batch, threads or instruction set (with "
        "--rng philox).\n"
        "The PNG's text `parameters` says how it was made.  Ctrl-C stops at the next step and leaves whole files only.",
    .examples = "halftone sample models/cifar10                            # a grid of 16 in halftone.png\n"
                "halftone sample models/cifar10 -n 64 --seed 7 -o grid.png\n"
                "halftone sample models/cifar10 -n 10000 -o samples/       # samples/00000.png on\n"
                "halftone sample models/cifar10 -n 1 --first 41 -o 41.png  # number 41 of them again\n"
                "halftone sample models/cifar10 --rng torch-cpu --seed 0   # the noise of torch.manual_seed(0)",
    .options = sample_options,
    .settings_size = sizeof(sample_settings),
    .run = run_sample,
    .shares = true};
