/* gather.c - streaming a source through a network into sums.
 *
 * A chunk of images is loaded, decoded and resized by all threads, then run by all threads, then taken in by one in the
 * order of the images: so no sum depends on threads, and memory is that of a chunk. */
#include "eval/gather.h"

#include <stdlib.h>
#include <string.h>

#include "core/arena.h"

enum { COLOURS = 3, MOST_NAMED = 20 };

typedef struct gather {
    const ht_gather_options *o;
    ht_source *source;
    const char *path;
    const ht_network_info *network;
    ht_gathered *out;
    int64_t room;                              /* of out's vectors and logits */
    size_t values;                             /* of an input */
    float *inputs;                             /* [HT_SOURCE_CHUNK][values] */
    float *outputs[HT_NETWORK_OUTPUTS], *rows; /* in rows lie all that are wanted */
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
    for (int i = 0; i < n->outputs; i++)
        numbers += g->wanted >> i & 1 ? (size_t)n->output[i].dim : 0;
    if (!(g->rows = malloc((numbers + 1) * sizeof(float[HT_SOURCE_CHUNK]))))
        return ht_fail(HT_ERR_MEMORY, "out of memory for features");
    float *at = g->rows;
    for (int i = 0; i < n->outputs; i++)
        if (g->wanted >> i & 1) {
            g->outputs[i] = at;
            at += (size_t)n->output[i].dim * HT_SOURCE_CHUNK;
        }
    ht_status status = HT_OK;
    if (g->o->moments)
        status = ht_statistics_open(n->output[g->o->use[HT_USE_FEATURES]].dim, &g->features);
    if (!status && g->o->spatial_moments)
        status = ht_statistics_open(n->output[g->o->use[HT_USE_SPATIAL]].dim, &g->spatial);
    return status;
}

static void free_gather(gather *g)
{
    ht_statistics_close(g->features);
    ht_statistics_close(g->spatial);
    free(g->rows);
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

static void keep(const gather *g, ht_network_use use, int n, float *rows, int dim)
{
    if (rows && dim)
        memcpy(rows + g->out->n * dim, g->outputs[g->o->use[use]], (size_t)n * (size_t)dim * sizeof *rows);
}

static ht_status take(gather *g, int n)
{
    ht_status status = ht_features_run_outputs(g->o->features, n, g->inputs, &g->o->run, g->wanted, g->outputs);
    if (!status && g->features)
        status = ht_statistics_add(g->features, n, g->outputs[g->o->use[HT_USE_FEATURES]]);
    if (!status && g->spatial)
        status = ht_statistics_add(g->spatial, n, g->outputs[g->o->use[HT_USE_SPATIAL]]);
    if (!status)
        status = make_room(g, n);
    if (status)
        return status;
    keep(g, HT_USE_FEATURES, n, g->out->vectors, g->out->vector_dim);
    keep(g, HT_USE_LOGITS, n, g->out->logits, g->out->logit_dim);
    g->out->n += n;
    return HT_OK;
}

/* ---- bad pictures ---- */

static void remark(const ht_evaluate_options *o, const char *line)
{
    if (o->remark)
        o->remark(o->user, line);
}

/* Inputs of the pictures that are well move together; returns how many these are, or -1 after a failure that is not a
 * picture's own. */
static int close_ranks(gather *g, ht_loaded *loaded, int n, ht_status *status)
{
    int well = 0;
    for (int i = 0; i < n; i++) {
        if (!loaded[i].status) {
            if (well != i)
                memcpy(g->inputs + (size_t)well * g->values, g->inputs + (size_t)i * g->values,
                       g->values * sizeof *g->inputs);
            well++;
            continue;
        }
        if (!loaded[i].unreadable) {
            *status = ht_fail(loaded[i].status, "%s", loaded[i].message);
            return -1;
        }
        if (!g->out->skipped++)
            memcpy(g->first_bad, loaded[i].message, sizeof g->first_bad);
        if (g->o->options->skip_bad && g->out->skipped <= MOST_NAMED)
            remark(g->o->options, loaded[i].message);
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

/* Once a picture is bad and may not be, the rest is only looked at, to be counted. */
static ht_status stream(gather *g)
{
    ht_loaded loaded[HT_SOURCE_CHUNK];
    const ht_evaluate_options *e = g->o->options;
    int64_t all = ht_source_count(g->source);
    ht_status status = HT_OK;
    for (int64_t at = 0; !status && at < all; at += HT_SOURCE_CHUNK) {
        int n = all - at < HT_SOURCE_CHUNK ? (int)(all - at) : HT_SOURCE_CHUNK;
        status = ht_source_load(g->source, at, n, make_input, g, loaded);
        int well = status ? 0 : close_ranks(g, loaded, n, &status);
        if (!status && well > 0 && (e->skip_bad || !g->out->skipped))
            status = take(g, well);
        if (!status && e->progress && e->progress(e->user, at + n, all))
            status = ht_fail(HT_ERR_CANCELLED, "stopped after %lld of %lld images of %s", (long long)at + n,
                             (long long)all, g->path);
    }
    if (!status)
        status = judge_bad(g);
    return status;
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
