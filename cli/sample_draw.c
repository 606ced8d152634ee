/* sample_draw.c - `halftone sample` draws, writes, shows, and tells of what came of it. */
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <unistd.h>

#include "cli/interrupt.h"
#include "cli/parameters.h"
#include "cli/ranks.h"
#include "cli/sample_job.h"
#include "cli/show.h"
#include "cli/text.h"

enum { PREVIEW_COLUMNS = 64 };

/* ---- while it draws ---- */

static int on_step(void *user, int64_t done, int64_t total)
{
    job *j = user;
    j->evaluations = total / j->share.n * j->images_n;
    j->bar.total = total;
    progress_update(&j->bar, done);
    return ranks_stopped();
}

/* Below the progress line, and the cursor back on it: by half blocks, which every terminal can be made to overwrite. */
static void on_preview(void *user, int step, int steps, int height, int width, const float *image)
{
    job *j = user;
    (void)step;
    (void)steps;
    fputs("\n", stderr);
    j->preview_rows = show_blocks(stderr, &(shown){image, 1, height, width, 3, 1}, PREVIEW_COLUMNS);
    fprintf(stderr, "\033[%dA", j->preview_rows + 1);
}

/* What the last preview left below the line goes. */
static void end_bar(job *j)
{
    if (j->preview_rows)
        fputs("\r\033[J", stderr);
    j->preview_rows = 0;
    progress_end(&j->bar);
}

/* ---- writing ---- */

/* The record of pictures k .. k+n-1 of all.  Steps stay what was asked for: with them the images can be drawn again. */
static char *picture_text(const job *j, int64_t k, int64_t n)
{
    char results[256] = "";
    ht_pipeline_info info;
    sample_settings made = j->s;
    int64_t each = j->s.n, prompts = j->prompts.n;
    bool one = prompts && n == 1;
    made.first = j->s.first + (strcmp(made.rng, "philox") || !prompts ? k : k % each);
    made.n = prompts && n > 1 ? each : n;
    if (!made.total && strcmp(made.rng, "philox"))
        made.total = j->s.first + j->images_n;
    if (j->evaluations != j->images_n * j->s.steps)
        snprintf(results, sizeof results, "Evaluations: %" PRId64 ", ", j->evaluations / j->images_n);
    ht_pipeline_get_info(j->pipeline, &info);
    if (info.session.backend && strcmp(info.session.backend, "cpu") != 0) { /* of the CPU all make the same picture */
        size_t used = strlen(results);
        snprintf(results + used, sizeof results - used, "Backend: %s (%s), ", info.session.backend,
                 strrchr(info.session.isa, ' ') ? strrchr(info.session.isa, ' ') + 1 : info.session.isa);
    }
    return parameters_text(&sample_command, &made,
                           &(picture_words){.prompts = prompts ? j->prompts.text + (one ? k / each : 0) : NULL,
                                            .n = one ? 1 : prompts,
                                            .negative = j->s.negative,
                                            .results = results,
                                            .model = j->s.model});
}

static int interrupted(const job *j)
{
    int64_t left = j->images_n - j->written;
    if (ranks_count() > 1)
        report("interrupted: not all of %" PRId64 " images were written", j->images_n);
    else
        report("interrupted: %" PRId64 " of %" PRId64 " images not written", left, j->images_n);
    return 128 + interrupt_signal();
}

static void show(const job *j, const char *path, int64_t n, const float *images, int columns)
{
    shown s = {images, n, j->info.height, j->info.width, j->info.channels, columns};
    if (j->s.show && !j->s.json && !ranks_index())
        show_picture(stdout, j->s.terminal, &s, path);
}

/* Several images of several prompts are rows of a grid; otherwise it is nearly square. */
static int grid_columns(const job *j)
{
    return j->prompts.n > 1 && j->s.n > 1 ? (int)j->s.n : 0;
}

static int square(int64_t n)
{
    int columns = 1;
    while ((int64_t)columns * columns < n)
        columns++;
    return columns;
}

/* Write pictures k .. k+n-1 as one file.  0, or an exit code after a line on stderr. */
static int write_picture(job *j, const char *path, int64_t k, int64_t n, const float *images)
{
    int w = j->info.width, h = j->info.height, c = j->info.channels, columns = grid_columns(j);
    char *text = picture_text(j, k, n);
    ht_status status = HT_OK;
    if (text && n > 1)
        status = ht_image_save_grid(path, images, n, h, w, c, columns, text);
    else if (text)
        status = ht_image_save(path, images, h, w, c, text);
    if (!text || status) {
        end_bar(j);
        j->write_failed = !text                ? report("out of memory for the parameters of a picture")
                          : interrupt_signal() ? interrupted(j) /* a wait for a FIFO's reader, as it seems */
                                               : report_failure();
    } else {
        j->written += n;
        json_array_append_new(j->files, text_json(path));
        if (j->s.show)
            end_bar(j);
        show(j, path, n, images, columns ? columns : square(n));
    }
    free(text);
    return j->write_failed;
}

static int on_image(void *user, int64_t index, const float *image)
{
    job *j = user;
    int64_t k = index - j->share.first + j->share.at;
    return interrupt_signal() || write_picture(j, output_file(&j->out, j->s.first + k), k, 1, image);
}

/* ---- a part of the pictures ---- */

static const char *const *list_from(const char *const *list, int64_t at)
{
    return list ? list + at : NULL;
}

/* This rank draws some of the prompts, or some of the images if there is one prompt or none; pictures are the same
 * whatever share is drawn.  Those of a grid are then all with rank 0. */
static ht_status draw_share(job *j, ht_pipeline *pipeline, const ht_draw_options *all, float *images)
{
    bool lists = j->prompts.n > 1, one_draw = strcmp(j->s.rng, "philox");
    int64_t each = lists ? j->s.n : 1, at, n = ranks_share(j->images_n / each, &at);
    size_t image = (size_t)j->info.width * (size_t)j->info.height * (size_t)j->info.channels;
    const ht_cond cond = {.class_labels = j->labels ? j->labels + at * each : NULL};
    ht_draw_options mine = *all;
    ht_status status = HT_OK;
    j->share.at = at * each;
    j->share.n = n * each;
    j->share.first = j->s.first + (lists && !one_draw ? 0 : j->share.at);
    mine.sample.cond = j->labels ? &cond : NULL;
    if (one_draw && !mine.sample.total)
        mine.sample.total = j->s.first + j->images_n;
    if (lists) {
        mine.prompts = n;
        mine.prompt = list_from(all->prompt, at);
        mine.prompt_2 = list_from(all->prompt_2, at);
        mine.negative = list_from(all->negative, at);
        mine.negative_2 = list_from(all->negative_2, at);
    }
    if (n)
        status = ht_pipeline_draw(pipeline, &mine, j->share.first, j->share.n,
                                  images ? images + (size_t)j->share.at * image : NULL);
    if (!status && images && ranks_gather(images, j->images_n / each, (size_t)each * image * sizeof *images))
        status = HT_ERR_CANCELLED;
    return status;
}

/* Of a folder, where every rank has written its own. */
static ht_status count_written(job *j)
{
    int64_t mine = j->written;
    if (ranks_sum(&j->written))
        return HT_ERR_CANCELLED;
    for (int64_t i = mine; !ranks_index() && i < j->images_n; i++)
        json_array_append_new(j->files, text_json(output_file(&j->out, j->s.first + i)));
    return HT_OK;
}

/* ---- two models beside one another ---- */

/* What the other model draws of the same, in images of malloc; NULL after a line on stderr. */
static float *draw_other(job *j, const sample_request *r)
{
    size_t image = (size_t)j->info.width * (size_t)j->info.height * (size_t)j->info.channels;
    float *images = calloc((size_t)j->images_n, image * sizeof *images);
    ht_pipeline *other = NULL;
    ht_pipeline_info info;
    ht_session_options how = run_session_options(&j->s.run);
    how.batch = (int)(j->images_n < j->s.batch ? j->images_n : j->s.batch);
    how.height = j->info.height;
    how.width = j->info.width;
    if (!images) {
        j->write_failed = report("out of memory for %" PRId64 " more images", j->images_n);
        return NULL;
    }
    ht_status status = ht_pipeline_open(j->s.beside, &how, &other);
    if (!status)
        ht_pipeline_get_info(other, &info);
    bool fits = !status && info.channels == j->info.channels && info.model.takes_class == j->info.model.takes_class &&
                info.takes_prompt == j->info.takes_prompt;
    if (fits)
        status = draw_share(j, other, &r->draw, images);
    end_bar(j);
    if (status == HT_ERR_CANCELLED && interrupt_signal())
        j->write_failed = interrupted(j);
    else if (status)
        j->write_failed = report_failure();
    else if (!fits)
        j->write_failed = report("%s: draws other samples than %s", j->s.beside, j->s.model);
    ht_pipeline_close(other);
    if (j->write_failed) {
        free(images);
        return NULL;
    }
    return images;
}

/* Rows of the first model's images with the other's to the right, as one grid. */
static void write_both(job *j, const float *other)
{
    size_t image = (size_t)j->info.width * (size_t)j->info.height * (size_t)j->info.channels, n = (size_t)j->images_n;
    size_t columns = grid_columns(j) ? (size_t)grid_columns(j) : (size_t)square(j->images_n);
    size_t rows = (n + columns - 1) / columns, cells = 2 * rows * columns;
    float *both = calloc(cells, image * sizeof *both);
    char *text = picture_text(j, 0, j->images_n);
    for (size_t i = 0; both && i < n; i++) {
        float *to = both + (i / columns * 2 * columns + i % columns) * image;
        memcpy(to, j->images + i * image, image * sizeof *both);
        memcpy(to + columns * image, other + i * image, image * sizeof *both);
    }
    if (!both || !text)
        j->write_failed = report("out of memory for %zu images", 2 * n);
    else if (ht_image_save_grid(j->s.output, both, (int64_t)cells, j->info.height, j->info.width, j->info.channels,
                                (int)(2 * columns), text))
        j->write_failed = report_failure();
    else
        j->written = j->images_n;
    if (!j->write_failed) {
        json_array_append_new(j->files, text_json(j->s.output));
        show(j, j->s.output, (int64_t)cells, both, (int)(2 * columns));
    }
    free(text);
    free(both);
}

/* ---- drawing ---- */

static ht_status draw(job *j, sample_request *r)
{
    const sample_settings *s = &j->s;
    r->draw.sample.progress = on_step;
    r->draw.sample.deliver = j->to_folder ? on_image : NULL;
    r->draw.sample.user = j;
    r->draw.preview = s->preview && !ranks_index() ? on_preview : NULL;
    r->draw.preview_user = j;
    r->draw.preview_model = s->preview_model;
    ht_status status = draw_share(j, j->pipeline, &r->draw, j->images);
    ht_pipeline_get_info(j->pipeline, &j->info);
    if (status || j->to_folder)
        return status ? status : count_written(j);
    if (!s->beside) {
        if (!ranks_index())
            write_picture(j, s->output, 0, j->images_n, j->images);
        return HT_OK;
    }
    float *other = draw_other(j, r);
    if (other && !ranks_index())
        write_both(j, other);
    free(other);
    return HT_OK;
}

/* ---- telling of it ---- */

static json_t *prompts_json(const job *j)
{
    json_t *list = json_array();
    for (int64_t i = 0; i < j->prompts.n; i++)
        json_array_append_new(list, text_json(j->prompts.text[i]));
    return list;
}

static int print_made(const job *j)
{
    const ht_session_info *running = &j->info.session;
    if (j->s.json) {
        json_t *settings = options_json(&sample_command, &j->s);
        return print_json(settings
                              ? json_pack("{s:O, s:I, s:I, s:o, s:o, s:o, s:s, s:s, s:s, s:i, s:f, s:f}", "files",
                                          j->files, "images", (json_int_t)j->written, "evaluations",
                                          (json_int_t)j->evaluations, "prompts", prompts_json(j), "settings", settings,
                                          "model", text_json(j->s.model), "version", ht_version(), "backend",
                                          running->backend, "isa", running->isa, "threads", running->threads, "seconds",
                                          j->seconds, "images_per_second", (double)j->written / j->seconds)
                              : NULL);
    }
    if (!j->s.quiet) {
        text_print(j->s.output);
        printf(": %" PRId64 " image%s, %" PRId64 " steps, %.1f s, %.2f images/s\n", j->written,
               j->written == 1 ? "" : "s", j->evaluations / j->images_n, j->seconds, (double)j->written / j->seconds);
    }
    return EXIT_SUCCESS;
}

int sample_draw(job *j)
{
    sample_request r;
    int code = sample_request_make(j, &r);
    double start = seconds_now();
    ht_status status = HT_OK;
    if (!code) {
        j->bar.quiet = j->s.quiet || ranks_index();
        progress_begin(&j->bar, "sampling", 0); /* the first step tells how many there are */
        status = draw(j, &r);
        end_bar(j);
        j->seconds = seconds_now() - start;
        code = j->write_failed;
    }
    sample_request_free(&r);
    if (code)
        return code;
    if (status == HT_ERR_CANCELLED && interrupt_signal())
        return interrupted(j);
    return status ? report_failure() : print_made(j);
}
