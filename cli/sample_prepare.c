/* sample_prepare.c - `halftone sample` before it draws: everything that can be found wrong now is. */
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <strings.h>
#include <sys/stat.h>

#include "cli/commands.h"
#include "cli/ranks.h"
#include "cli/sample_job.h"

enum { MOST_BESIDE = 4096, IMAGES = 16 };

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
    if (s->total && s->total < s->first + j->images_n)
        return options_wrong(&sample_command, "--total %" PRId64 ": must be at least first + n, %" PRId64, s->total,
                             s->first + j->images_n);
    if (s->total && !strcmp(s->rng, "philox"))
        return options_wrong(&sample_command,
                             "--total is for --rng torch-cpu and torch-cuda; philox draws each image by itself");
    if (s->beside && (j->to_folder || j->images_n > MOST_BESIDE))
        return options_wrong(&sample_command, "--beside makes one grid of at most %d images a model: -o NAME.png",
                             MOST_BESIDE);
    if (s->mask && !s->init)
        return options_wrong(&sample_command, "--mask belongs to a picture: --init FILE");
    if (s->strength > 0 && !s->init)
        return options_wrong(&sample_command, "--strength belongs to a picture: --init FILE");
    if (s->crop.count && s->crop.count != 2)
        return options_wrong(&sample_command, "--crop wants two numbers: TOP,LEFT");
    if (s->cache.count && s->cache.value[0] < 1)
        return options_wrong(&sample_command, "--cache 0: the whole model every 0 steps; wanted 1 or more");
    if (s->cache.count > 2)
        return options_wrong(&sample_command, "--cache wants one number or two: INTERVAL,BRANCH");
    if ((s->width || s->height) && s->size.width)
        return options_wrong(&sample_command, "--size says width and height; leave --width and --height out");
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

/* "ddim" as people write it. */
static const char *words_of(const char *sampler)
{
    const char *name, *words;
    for (int i = 0; (name = ht_sampler_name(i, &words)); i++)
        if (!strcmp(name, sampler))
            return words;
    return sampler;
}

/* What the model has where nothing was said; settings it does not have are not recorded. */
static void fill_in(job *j)
{
    sample_settings *s = &j->s;
    const ht_model_info *model = &j->info.model;
    j->sampler = s->sampler;
    const char *name = j->sampler ? j->sampler : model->sampler;
    s->sampler = words_of(name);
    s->size = (option_size){j->info.width, j->info.height};
    if (!s->spacing)
        s->spacing = model->spacing;
    if (strcmp(name, "ddim") != 0)
        s->eta = NAN;
    if (isnan(s->guidance))
        s->guidance = j->info.guidance;
    if (!(j->info.guidance > 1))
        s->guidance = NAN;
    if (!(s->guidance > 1))
        s->guidance_channels = 0;
}

static int check_model(const job *j)
{
    const ht_model_info *model = &j->info.model;
    int c = j->info.channels;
    if (c != 1 && c != 3 && c != 4)
        return report("%s: draws samples of %d channels; a picture has 1, 3 or 4", j->s.model, c);
    if (j->s.classes.count && !model->takes_class)
        return report("%s: takes no class; leave --class out", j->s.model);
    if (model->takes_class && !j->s.classes.count)
        return report("%s: needs a class for each image; see --class", j->s.model);
    if (j->info.takes_prompt && !j->prompts.n)
        return report("%s: needs a prompt; see --prompt", j->s.model);
    if (!j->info.takes_prompt && j->prompts.n)
        return report("%s: takes no prompt; leave --prompt out", j->s.model);
    if (j->info.takes_mask && !j->s.mask)
        return report("%s: an inpainting model needs a picture and a mask; see --init and --mask", j->s.model);
    if (j->s.init && c != 3)
        return report("%s: draws pictures of %d channels; --init is for those of 3", j->s.model, c);
    return 0;
}

static int open_pipeline(job *j)
{
    ht_session_options options = run_session_options(&j->s.run);
    options.batch = (int)(j->images_n < j->s.batch ? j->images_n : j->s.batch);
    options.height = j->s.height ? (int)j->s.height : j->s.size.height;
    options.width = j->s.width ? (int)j->s.width : j->s.size.width;
    if (ht_pipeline_open(j->s.model, &options, &j->pipeline))
        return report_failure();
    ht_pipeline_get_info(j->pipeline, &j->info);
    int status = check_model(j);
    if (!status)
        fill_in(j);
    return status;
}

/* Those that cannot be read are named and left out. */
static int check_prompts(job *j)
{
    for (int64_t i = 0; j->info.takes_prompt && i < j->prompts.n;) {
        if (!ht_pipeline_check_prompt(j->pipeline, j->prompts.text[i], j->s.plain)) {
            i++;
            continue;
        }
        report("%s: %s", j->prompts.where[i], ht_error_message());
        prompts_drop(&j->prompts, i);
        j->left_out++;
        j->images_n -= j->s.n;
    }
    return j->left_out && !j->prompts.n ? EXIT_FAILURE : 0;
}

static int read_pictures(job *j)
{
    size_t pixels = (size_t)j->info.width * (size_t)j->info.height;
    if (!j->s.init)
        return 0;
    j->init = calloc(pixels, 3 * sizeof *j->init);
    j->mask = j->s.mask ? calloc(pixels, 3 * sizeof *j->mask) : NULL;
    if (!j->init || (j->s.mask && !j->mask))
        return report("out of memory for a picture of %dx%d", j->info.width, j->info.height);
    if (ht_picture_read(j->s.init, j->info.height, j->info.width, j->init) ||
        (j->mask && ht_picture_read(j->s.mask, j->info.height, j->info.width, j->mask)))
        return report_failure();
    for (size_t i = 0; j->mask && i < pixels; i++) /* gray in [0,1]: the weights of ITU-R 601, as PIL's "L" */
        j->mask[i] = (0.299f * j->mask[3 * i] + 0.587f * j->mask[3 * i + 1] + 0.114f * j->mask[3 * i + 2]) / 2 + 0.5f;
    return 0;
}

/* A grid needs all its images at once. */
static int allocate(job *j)
{
    size_t image = (size_t)j->info.width * (size_t)j->info.height * (size_t)j->info.channels;
    size_t n = (size_t)j->images_n;
    j->files = json_array();
    if (!j->to_folder)
        j->images = calloc(n, image * sizeof *j->images);
    if (j->s.classes.count)
        j->labels = calloc(n, sizeof *j->labels);
    if (!j->files || (!j->to_folder && !j->images) || (j->s.classes.count && !j->labels))
        return report("out of memory for %" PRId64 " images%s", j->images_n,
                      j->to_folder ? "" : "; -o FOLDER/ needs less");
    for (int64_t i = 0; j->s.classes.count && i < j->images_n; i++)
        j->labels[i] = (float)j->s.classes.value[(j->s.first + i) % j->s.classes.count];
    return 0;
}

int sample_prepare(job *j)
{
    int status = prompts_read(&j->prompts, &j->s.prompts, j->s.prompt_file);
    if (status)
        return status;
    j->to_folder = output_is_folder(j->s.output);
    j->s.n = j->s.n ? j->s.n : j->prompts.n ? 1 : IMAGES;
    j->images_n = j->prompts.n ? j->s.n * j->prompts.n : j->s.n;
    status = check_settings(j);
    if (!status)
        status = open_pipeline(j);
    if (!status)
        status = check_prompts(j);
    if (!status)
        status = read_pictures(j);
    if (!status)
        status = open_output(j);
    return status ? status : allocate(j);
}

/* ---- what is asked of the library ---- */

static int same_for_all(const job *j, const char *text, const char ***list)
{
    if (!text)
        return 0;
    *list = calloc((size_t)j->prompts.n + 1, sizeof **list);
    if (!*list)
        return report("out of memory for %" PRId64 " prompts", j->prompts.n);
    for (int64_t i = 0; i < j->prompts.n; i++)
        (*list)[i] = text;
    return 0;
}

ht_draw_options sample_draw_options(const sample_settings *s)
{
    return (ht_draw_options){.sample = {.steps = (int)s->steps,
                                        .sampler = s->sampler,
                                        .spacing = s->spacing,
                                        .sigmas = s->sigmas,
                                        .eta = isnan(s->eta) ? 0 : s->eta,
                                        .guidance = isnan(s->guidance) ? 0 : s->guidance,
                                        .guidance_channels = (int)s->guidance_channels,
                                        .guidance_rescale = s->guidance_rescale,
                                        .seed = s->seed,
                                        .rng = sample_rng(s->rng),
                                        .total = s->total},
                             .plain_prompts = s->plain,
                             .max_sequence_length = (int)s->max_sequence_length,
                             .clip_skip = s->clip_skip == 2,
                             .no_guidance = s->guidance <= 1,
                             .original_size = {s->original_size.height, s->original_size.width},
                             .crop = {(int)s->crop.value[0], (int)s->crop.value[1]},
                             .target_size = {s->target_size.height, s->target_size.width},
                             .strength = s->strength,
                             .cache_interval = (int)s->cache.value[0],
                             .cache_branch = (int)s->cache.value[1],
                             .tile = (int)s->tile};
}

int sample_request_make(const job *j, sample_request *r)
{
    const sample_settings *s = &j->s;
    *r = (sample_request){.draw = sample_draw_options(s)};
    r->draw.sample.sampler = j->sampler;
    r->draw.prompts = j->prompts.n;
    r->draw.prompt = j->prompts.text;
    r->draw.init = j->init;
    r->draw.mask = j->mask;
    int code = same_for_all(j, s->prompt_2, &r->same[0]);
    code = code ? code : same_for_all(j, s->negative, &r->same[1]);
    code = code ? code : same_for_all(j, s->negative_2, &r->same[2]);
    r->draw.prompt_2 = r->same[0];
    r->draw.negative = r->same[1];
    r->draw.negative_2 = r->same[2];
    return code;
}

void sample_request_free(sample_request *r)
{
    for (int i = 0; i < 3; i++)
        free(r->same[i]);
}
