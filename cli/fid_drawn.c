/* fid_drawn.c - a model as a set of images: drawn while they are measured, never on disk. */
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

static int check_model(const drawn *d)
{
    if (d->info.decoder)
        return report("%s: draws latents that its %s makes pictures of, which this version cannot", d->path,
                      d->info.decoder);
    if (d->info.in_channels != 3)
        return report("%s: draws samples of %d channels; feature networks take 3", d->path, d->info.in_channels);
    if (d->s->classes.count && !d->info.takes_class)
        return report("%s: takes no class; leave --class out", d->path);
    if (d->info.takes_class && !d->s->classes.count)
        return report("%s: needs a class for each image; see --class", d->path);
    return 0;
}

int drawn_open(const char *path, const fid_settings *s, drawn *d)
{
    ht_session_options options = run_session_options(&s->run);
    ht_session_info running;
    *d = (drawn){.s = s, .path = path};
    options.batch = (int)(s->n < s->batch ? s->n : s->batch);
    if (ht_model_open(path, NULL, &d->model))
        return report_failure();
    ht_model_get_info(d->model, &d->info);
    int code = check_model(d);
    if (code)
        return code;
    if (ht_session_open(d->model, &options, &d->session))
        return report_failure();
    ht_session_get_info(d->session, &running);
    d->height = running.height;
    d->width = running.width;
    return 0;
}

void drawn_close(drawn *d)
{
    ht_session_close(d->session);
    ht_model_close(d->model);
    *d = (drawn){0};
}

static int stop(void *user, int64_t done, int64_t total)
{
    (void)user;
    (void)done;
    (void)total;
    return ranks_stopped();
}

ht_status drawn_draw(void *user, int64_t first, int64_t n, float *images)
{
    const drawn *d = user;
    const fid_settings *s = d->s;
    float *labels = calloc((size_t)n, sizeof *labels);
    ht_cond cond = {.class_labels = labels};
    ht_sample_options options = {.steps = (int)s->steps,
                                 .sampler = s->sampler,
                                 .spacing = s->spacing,
                                 .eta = s->eta,
                                 .seed = s->seed,
                                 .cond = d->info.takes_class ? &cond : NULL,
                                 .progress = stop};
    if (!labels)
        return HT_ERR_MEMORY;
    for (int64_t i = 0; s->classes.count && i < n; i++)
        labels[i] = (float)s->classes.value[(first + i) % s->classes.count];
    ht_status status = ht_sample(d->session, &options, first, n, images);
    free(labels);
    return status;
}
