/* gather.c - streaming a source through a network into sums.
 *
 * A chunk of images is loaded, decoded and resized by all threads, then run by all threads, then taken in by one in the
 * order of the images: so no sum depends on threads, and memory is that of a chunk.  Where processes share the source,
 * each makes every N-th chunk, and all take in all chunks in order: what has become of the pictures, the bad ones
 * too, and their features. */
#include "eval/gather.h"

#include <stdlib.h>
#include <string.h>

#include "core/arena.h"
#include "eval/share.h"

enum { COLOURS = 3, MOST_NAMED = 20 };

/* What a chunk of images came to. */
typedef struct chunk {
    ht_status status; /* of drawing, loading and running it */
    char message[HT_SHARE_MESSAGE];
    int n;                             /* pictures that were looked at */
    ht_loaded loaded[HT_SOURCE_CHUNK]; /* how each was; their pixels are gone */
    float rows[];                      /* outputs of those that are well, one wanted output after the other */
} chunk;

typedef struct gather {
    const ht_gather_options *o;
    ht_source *source;
    const char *path;
    const ht_network_info *network;
    ht_gathered *out;
    int64_t room;  /* of out's vectors and logits */
    size_t values; /* of an input */
    float *inputs; /* [HT_SOURCE_CHUNK][values] */
    ht_blocks chunks;
    size_t at[HT_NETWORK_OUTPUTS]; /* of each output in a chunk's rows */
    ht_statistics *features, *spatial;
    unsigned wanted;
    char first_bad[640];
} gather;

void ht_gathered_free(ht_gathered *g)
{
    ht_moments_free(&g->features);
    ht_moments_free(&g->spatial);
    free(g->vectors);
    free(g->logits);
    *g = (ht_gathered){0};
}

ht_vectors ht_gathered_vectors(const ht_gathered *g)
{
    return (ht_vectors){g->n, g->vector_dim, g->vectors};
}

ht_vectors ht_gathered_logits(const ht_gathered *g)
{
    return (ht_vectors){g->n, g->logit_dim, g->logits};
}

static ht_status make_input(void *user, int i, const ht_pixels *picture)
{
    const gather *g = user;
    return ht_features_input(g->o->features, g->o->resize, picture, g->inputs + (size_t)i * g->values);
}

/* ---- opening ---- */

static ht_status allocate(gather *g)
{
    const ht_network_info *n = g->network;
    size_t bytes = 0;
    g->values = (size_t)n->height * (size_t)n->width * COLOURS;
    if (!ht_mul_size(g->values, sizeof(float[HT_SOURCE_CHUNK]), &bytes) || !(g->inputs = malloc(bytes)))
        return ht_fail(HT_ERR_MEMORY, "out of memory for %d images of %d x %d", HT_SOURCE_CHUNK, n->width, n->height);
    size_t numbers = 0;
    for (int u = 0; u < HT_NETWORK_USES; u++)
        g->wanted |= g->o->use[u] >= 0 ? 1u << g->o->use[u] : 0;
    for (int i = 0; i < n->outputs; i++) {
        g->at[i] = numbers * HT_SOURCE_CHUNK;
        numbers += g->wanted >> i & 1 ? (size_t)n->output[i].dim : 0;
    }
    ht_status status =
        ht_blocks_open(g->o->share, sizeof(chunk) + numbers * sizeof(float[HT_SOURCE_CHUNK]), &g->chunks);
    if (!status && g->o->moments)
        status = ht_statistics_open(n->output[g->o->use[HT_USE_FEATURES]].dim, &g->features);
    if (!status && g->o->spatial_moments)
        status = ht_statistics_open(n->output[g->o->use[HT_USE_SPATIAL]].dim, &g->spatial);
    return status;
}

static void free_gather(gather *g)
{
    ht_statistics_close(g->features);
    ht_statistics_close(g->spatial);
    ht_blocks_close(&g->chunks);
    free(g->inputs);
}

/* ---- taking in ---- */

static ht_status grow(float **rows, int dim, int64_t room)
{
    size_t count = 0, bytes = 0;
    float *more = NULL;
    if (ht_mul_size((size_t)room, (size_t)dim, &count) && ht_mul_size(count, sizeof **rows, &bytes))
        more = realloc(*rows, bytes);
    if (!more)
        return ht_fail(HT_ERR_MEMORY, "out of memory for the features of %lld images; the Frechet distance needs none",
                       (long long)room);
    *rows = more;
    return HT_OK;
}

/* Room for n more vectors. */
static ht_status make_room(gather *g, int n)
{
    ht_gathered *out = g->out;
    ht_status status = HT_OK;
    if (out->n + n <= g->room)
        return HT_OK;
    int64_t all = ht_source_count(g->source), room = g->room ? 2 * g->room : 1024;
    room = room > all ? all : room;
    if (out->vector_dim)
        status = grow(&out->vectors, out->vector_dim, room);
    if (!status && out->logit_dim)
        status = grow(&out->logits, out->logit_dim, room);
    if (!status)
        g->room = room;
    return status;
}

static void keep(const gather *g, ht_network_use use, int n, const chunk *c, float *rows, int dim)
{
    if (rows && dim)
        memcpy(rows + g->out->n * dim, c->rows + g->at[g->o->use[use]], (size_t)n * (size_t)dim * sizeof *rows);
}

/* The n pictures of a chunk that are well. */
static ht_status take(gather *g, int n, const chunk *c)
{
    ht_status status = make_room(g, n);
    if (!status && g->features)
        status = ht_statistics_add(g->features, n, c->rows + g->at[g->o->use[HT_USE_FEATURES]]);
    if (!status && g->spatial)
        status = ht_statistics_add(g->spatial, n, c->rows + g->at[g->o->use[HT_USE_SPATIAL]]);
    if (status)
        return status;
    keep(g, HT_USE_FEATURES, n, c, g->out->vectors, g->out->vector_dim);
    keep(g, HT_USE_LOGITS, n, c, g->out->logits, g->out->logit_dim);
    g->out->n += n;
    return HT_OK;
}

/* ---- bad pictures ---- */

static void remark(const ht_evaluate_options *o, const char *line)
{
    if (o->remark)
        o->remark(o->user, line);
}

/* Tells of a chunk's bad pictures; returns how many others there are, or -1 after a failure that is not a picture's
 * own. */
static int count_well(gather *g, const chunk *c, ht_status *status)
{
    int well = 0;
    for (int i = 0; i < c->n; i++) {
        const ht_loaded *l = &c->loaded[i];
        if (!l->status) {
            well++;
            continue;
        }
        if (!l->unreadable) {
            *status = ht_fail(l->status, "%s", l->message);
            return -1;
        }
        if (!g->out->skipped++)
            memcpy(g->first_bad, l->message, sizeof g->first_bad);
        if (g->o->options->skip_bad && g->out->skipped <= MOST_NAMED)
            remark(g->o->options, l->message);
    }
    return well;
}

static ht_status judge_bad(const gather *g)
{
    char line[700];
    long long bad = g->out->skipped;
    if (!bad)
        return HT_OK;
    if (!g->o->options->skip_bad)
        return ht_fail(HT_ERR_FORMAT, "%s: %lld of %lld pictures cannot be read; the first: %s", g->path, bad,
                       (long long)ht_source_count(g->source), g->first_bad);
    snprintf(line, sizeof line, "%s: %lld of %lld pictures cannot be read and are left out", g->path, bad,
             (long long)ht_source_count(g->source));
    remark(g->o->options, line);
    return HT_OK;
}

/* ---- all of it ---- */

/* Inputs of the pictures that are well move together; returns how many these are. */
static int close_ranks(const gather *g, const chunk *c)
{
    int well = 0;
    for (int i = 0; i < c->n; i++) {
        if (c->loaded[i].status)
            continue;
        if (well != i)
            memcpy(g->inputs + (size_t)well * g->values, g->inputs + (size_t)i * g->values,
                   g->values * sizeof *g->inputs);
        well++;
    }
    return well;
}

/* Once a picture is bad and may not be, the rest is only looked at, to be counted. */
static void make_chunk(void *user, int64_t at, int n, void *block)
{
    gather *g = user;
    chunk *c = block;
    float *outputs[HT_NETWORK_OUTPUTS];
    c->status = ht_source_load(g->source, at, n, make_input, g, c->loaded);
    c->n = c->status ? 0 : n;
    int well = close_ranks(g, c);
    for (int i = 0; i < HT_NETWORK_OUTPUTS; i++)
        outputs[i] = c->rows + g->at[i];
    if (well > 0 && (g->o->options->skip_bad || (!g->out->skipped && well == c->n)))
        c->status = ht_features_run_outputs(g->o->features, well, g->inputs, &g->o->run, g->wanted, outputs);
    if (c->status)
        snprintf(c->message, sizeof c->message, "%s", ht_error_message());
}

static ht_status take_chunk(void *user, const void *block)
{
    gather *g = user;
    const chunk *c = block;
    ht_status status = HT_OK;
    int well = count_well(g, c, &status);
    if (!status && c->status)
        status = ht_fail(c->status, "%s", c->message);
    if (!status && well > 0 && (g->o->options->skip_bad || !g->out->skipped))
        status = take(g, well, c);
    return status;
}

static ht_status on_done(void *user, int64_t done, int64_t all)
{
    const gather *g = user;
    const ht_evaluate_options *e = g->o->options;
    if (e->progress && e->progress(e->user, done, all))
        return ht_fail(HT_ERR_CANCELLED, "stopped after %lld of %lld images of %s", (long long)done, (long long)all,
                       g->path);
    return HT_OK;
}

static ht_status stream(gather *g)
{
    const ht_blocks_work work = {make_chunk, take_chunk, on_done, g};
    ht_status status = ht_blocks_run(&g->chunks, ht_source_count(g->source), HT_SOURCE_CHUNK, &work);
    return status ? status : judge_bad(g);
}

static ht_status finish(gather *g)
{
    ht_status status = HT_OK;
    if (g->out->n < 1)
        return ht_fail(HT_ERR_ARGUMENT, "%s: no picture can be read", g->path);
    if (g->features)
        status = ht_statistics_moments(g->features, &g->out->features);
    if (!status && g->spatial)
        status = ht_statistics_moments(g->spatial, &g->out->spatial);
    return status ? ht_fail_in(status, "%s", g->path) : HT_OK;
}

ht_status ht_gather(const ht_gather_options *o, ht_source *source, const char *path, ht_gathered *out)
{
    ht_features_info info;
    ht_gathered made = {0};
    ht_features_get_info(o->features, &info);
    gather g = {.o = o, .source = source, .path = path, .network = info.network, .out = &made};
    made.vector_dim = o->vectors ? info.network->output[o->use[HT_USE_FEATURES]].dim : 0;
    made.logit_dim = o->use[HT_USE_LOGITS] >= 0 ? info.network->output[o->use[HT_USE_LOGITS]].dim : 0;
    ht_status status = allocate(&g);
    if (!status)
        status = stream(&g);
    if (!status)
        status = finish(&g);
    free_gather(&g);
    if (status)
        ht_gathered_free(&made);
    else
        *out = made;
    return status;
}
