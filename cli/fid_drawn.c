/* fid_drawn.c - a model as a set of images: drawn while they are measured, never on disk. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/fid.h"
#include "cli/ranks.h"

bool drawn_is_model(const char *path)
{
    static const char *const marks[] = {"model_index.json", "config.json"};
    char name[PATH_MAX];
    for (size_t i = 0; i < sizeof marks / sizeof *marks; i++)
        if (snprintf(name, sizeof name, "%s/%s", path, marks[i]) < (int)sizeof name && !access(name, F_OK))
            return true;
    return false;
}

static int check_kind(const drawn *d)
{
    const ht_model_info *model = &d->info.model;
    if (d->info.channels != 3)
        return report("%s: draws samples of %d channels; feature networks take 3", d->path, d->info.channels);
    if (d->info.takes_mask)
        return report("%s: an inpainting model needs a picture and a mask for each image, which this command has not",
                      d->path);
    if (d->s->classes.count && !model->takes_class)
        return report("%s: takes no class; leave --class out", d->path);
    if (model->takes_class && !d->s->classes.count)
        return report("%s: needs a class for each image; see --class", d->path);
    return 0;
}

/* A set without the pictures of some would be another set: so one that
 * cannot be read is an error. */
static int check_prompts(const drawn *d)
{
    if (!d->info.takes_prompt)
        return d->prompts->n ? report("%s: takes no prompt; leave --prompts out", d->path) : 0;
    if (!d->prompts->n)
        return report("%s: needs prompts; see --prompts", d->path);
    for (int64_t i = 0; i < d->prompts->n; i++)
        if (ht_pipeline_check_prompt(d->pipeline, d->prompts->text[i], 0))
            return report("%s: %s", d->prompts->where[i], ht_error_message());
    return 0;
}

int drawn_open(const char *path, const fid_settings *s, const prompt_list *prompts, drawn *d)
{
    ht_session_options options = run_session_options(&s->run);
    *d = (drawn){.s = s, .prompts = prompts, .path = path};
    options.batch = (int)(s->n < s->batch ? s->n : s->batch);
    if (ht_pipeline_open(path, &options, &d->pipeline))
        return report_failure();
    ht_pipeline_get_info(d->pipeline, &d->info);
    int code = check_kind(d);
    return code ? code : check_prompts(d);
}

void drawn_close(drawn *d)
{
    ht_pipeline_close(d->pipeline);
    *d = (drawn){0};
}

static int stop(void *user, int64_t done, int64_t total)
{
    (void)user;
    (void)done;
    (void)total;
    return ranks_stopped();
}

/* What images first .. first+n-1 take in turn: a class or a prompt, and the noise of their own index. */
ht_status drawn_draw(void *user, int64_t first, int64_t n, float *images)
{
    const drawn *d = user;
    const fid_settings *s = d->s;
    float *labels = calloc((size_t)n, sizeof *labels);
    const char **texts = calloc((size_t)n * 2, sizeof *texts), **negatives = texts ? texts + n : NULL;
    const ht_cond cond = {.class_labels = labels};
    ht_draw_options options = {.sample = {.steps = (int)s->steps,
                                          .sampler = s->sampler,
                                          .spacing = s->spacing,
                                          .eta = s->eta,
                                          .seed = s->seed,
                                          .guidance = isnan(s->guidance) ? 0 : s->guidance,
                                          .cond = d->info.model.takes_class ? &cond : NULL,
                                          .progress = stop},
                               .prompts = d->info.takes_prompt ? n : 0,
                               .prompt = texts,
                               .negative = s->negative ? negatives : NULL,
                               .own_noise = 1,
                               .no_guidance = s->guidance <= 1};
    ht_status status = labels && texts ? HT_OK : HT_ERR_MEMORY;
    for (int64_t i = 0; !status && i < n; i++) {
        if (s->classes.count)
            labels[i] = (float)s->classes.value[(first + i) % s->classes.count];
        texts[i] = options.prompts ? d->prompts->text[(first + i) % d->prompts->n] : NULL;
        negatives[i] = s->negative;
    }
    if (!status)
        status = ht_pipeline_draw(d->pipeline, &options, first, n, images);
    free(labels);
    free(texts);
    return status;
}
