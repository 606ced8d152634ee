/* source.c - loading images by a crew: whoever is free takes the next, its result goes to the place of its number. */
#include "eval/source.h"

#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "core/arena.h"
#include "core/pixel.h"
#include "eval/set.h"

enum { COLOURS = 3 };

struct ht_source {
    ht_image_source from; /* its draw, if there is no set */
    ht_set *set;
    int threads;
    ht_crew *crew;
    ht_set_reader **readers;           /* one a thread */
    float *drawn;                      /* [HT_SOURCE_CHUNK,h,w,3] */
    uint8_t *levels;                   /* the same, rounded */
    uint8_t *decoded[HT_SOURCE_CHUNK]; /* of a set */
};

static ht_status open_readers(ht_source *s)
{
    ht_status status = ht_set_open(s->from.path, &s->set);
    if (!status && s->from.n > 0)
        ht_set_cut(s->set, s->from.n);
    for (int i = 0; !status && i < s->threads; i++)
        status = ht_set_reader_open(s->set, &s->readers[i]);
    return status;
}

static ht_status open_drawn(ht_source *s)
{
    const ht_image_source *f = &s->from;
    size_t pixels = 0, levels = 0, bytes = 0;
    if (f->n < 1 || f->height < 1 || f->width < 1 || f->height > HT_IMAGE_MAX_SIDE || f->width > HT_IMAGE_MAX_SIDE)
        return ht_fail(HT_ERR_ARGUMENT, "%s: %lld images of %d x %d to be drawn; wanted one at least, sides of 1 to %d",
                       f->path, (long long)f->n, f->width, f->height, HT_IMAGE_MAX_SIDE);
    if (ht_mul_size((size_t)f->height, (size_t)f->width, &pixels) &&
        ht_mul_size(pixels, (size_t)COLOURS * HT_SOURCE_CHUNK, &levels) && ht_mul_size(levels, sizeof(float), &bytes)) {
        s->drawn = malloc(bytes);
        s->levels = malloc(levels);
    }
    return s->drawn && s->levels ? HT_OK : ht_fail(HT_ERR_MEMORY, "%s: out of memory for images", f->path);
}

ht_status ht_source_open(const ht_image_source *from, ht_crew *crew, int threads, ht_source **out)
{
    ht_source *s = calloc(1, sizeof *s);
    if (!s || !(s->readers = calloc((size_t)threads, sizeof(ht_set_reader *)))) {
        free(s);
        return ht_fail(HT_ERR_MEMORY, "out of memory for a set of images");
    }
    s->from = *from;
    s->crew = crew;
    s->threads = threads;
    ht_status status = from->draw ? open_drawn(s) : open_readers(s);
    if (status)
        ht_source_close(s);
    else
        *out = s;
    return status;
}

static void free_decoded(ht_source *s)
{
    for (int i = 0; i < HT_SOURCE_CHUNK; i++) {
        free(s->decoded[i]);
        s->decoded[i] = NULL;
    }
}

void ht_source_close(ht_source *s)
{
    if (!s)
        return;
    free_decoded(s);
    for (int i = 0; i < s->threads; i++)
        ht_set_reader_close(s->readers[i]);
    free(s->readers);
    ht_set_close(s->set);
    free(s->levels);
    free(s->drawn);
    free(s);
}

int64_t ht_source_count(const ht_source *s)
{
    return s->set ? ht_set_count(s->set) : s->from.n;
}

/* ---- loading ---- */

typedef struct load {
    ht_source *s;
    int64_t first;
    int n;
    ht_prepare *prepare;
    void *user;
    ht_loaded *out;
    atomic_int next;
} load;

static void keep_message(ht_loaded *l, ht_status status)
{
    l->status = status;
    strncpy(l->message, ht_error_message(), sizeof l->message - 1);
}

static ht_status picture_of_set(const load *job, ht_set_reader *reader, int i, ht_pixels *out)
{
    ht_status status = ht_set_read(reader, job->first + i, out);
    if (!status)
        job->s->decoded[i] = out->data;
    return status;
}

static void picture_of_drawn(const load *job, int i, ht_pixels *out)
{
    const ht_source *s = job->s;
    size_t values = (size_t)s->from.height * (size_t)s->from.width * COLOURS;
    *out = (ht_pixels){s->from.height, s->from.width, s->levels + (size_t)i * values};
    for (size_t k = 0; k < values; k++)
        out->data[k] = ht_pixel_of(s->drawn[(size_t)i * values + k]);
}

/* What a picture is called in messages. */
static ht_status fail_named(const load *job, int i, ht_status status)
{
    const ht_source *s = job->s;
    if (s->set)
        return ht_fail(status, "%s: %s: %s", s->from.path, ht_set_name(s->set, job->first + i), ht_error_message());
    return ht_fail(status, "%s: image %lld: %s", s->from.path, (long long)job->first + i, ht_error_message());
}

static void load_some(void *argument, const ht_team *team)
{
    load *job = argument;
    for (int i; (i = atomic_fetch_add(&job->next, 1)) < job->n;) {
        ht_loaded *l = &job->out[i];
        *l = (ht_loaded){.status = HT_OK};
        if (!job->s->set)
            picture_of_drawn(job, i, &l->picture);
        else
            l->status = picture_of_set(job, job->s->readers[team->thread], i, &l->picture);
        l->unreadable = l->status && l->status != HT_ERR_MEMORY;
        if (!l->status && job->prepare && (l->status = job->prepare(job->user, i, &l->picture)))
            fail_named(job, i, l->status);
        if (l->status)
            keep_message(l, l->status);
    }
}

ht_status ht_source_load(ht_source *s, int64_t first, int n, ht_prepare *prepare, void *user, ht_loaded *out)
{
    load job = {.s = s, .first = first, .n = n, .prepare = prepare, .user = user, .out = out};
    free_decoded(s);
    if (!s->set) {
        ht_status status = s->from.draw(s->from.user, first, n, s->drawn);
        if (status)
            return status;
    }
    ht_crew_run(s->crew, load_some, &job);
    return HT_OK;
}

ht_status ht_source_size(ht_source *s, int *height, int *width)
{
    ht_loaded first;
    ht_status status = ht_source_load(s, 0, 1, NULL, NULL, &first);
    if (status || first.status)
        return status ? status : ht_fail(first.status, "%s", first.message);
    *height = first.picture.height;
    *width = first.picture.width;
    return HT_OK;
}
