/* evaluate.c - sets against a reference: which outputs of the network the metrics need, what is gathered of a set, and
 * the metrics one after another. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/arena.h"
#include "eval/draw.h"
#include "eval/evaluator.h"
#include "eval/frechet.h"
#include "eval/inception_score.h"
#include "eval/kid.h"
#include "eval/manifold.h"

enum {
    ALL_METRICS = 255,
    PAIRED = HT_METRIC_PSNR | HT_METRIC_SSIM | HT_METRIC_DISTANCE,
    OF_FEATURES = HT_METRIC_FRECHET | HT_METRIC_KID | HT_METRIC_MANIFOLD | HT_METRIC_DISTANCE,
    OF_VECTORS = HT_METRIC_KID | HT_METRIC_MANIFOLD | HT_METRIC_DISTANCE,
    OF_MOMENTS = HT_METRIC_FRECHET
};

/* ---- opening ---- */

static ht_status copy_text(ht_arena *arena, const char **text)
{
    return !*text || (*text = ht_strdup(arena, *text)) ? HT_OK : HT_ERR_MEMORY;
}

static ht_status copy_options(ht_evaluator *e, const ht_evaluate_options *options)
{
    ht_evaluate_options *o = &e->options;
    *o = *options;
    o->metrics = o->metrics ? o->metrics : HT_METRIC_FRECHET;
    if (o->metrics & ~(unsigned)ALL_METRICS)
        return ht_fail(HT_ERR_ARGUMENT, "metrics 0x%x: there is none of that bit", o->metrics);
    if (o->threads < 0 || o->threads > 1024)
        return ht_fail(HT_ERR_ARGUMENT, "threads %d is out of range; wanted 0 (all) to 1024", o->threads);
    if (o->kid_subsets < 0 || o->kid_size < 0 || o->splits < 0 || o->neighbours < 0)
        return ht_fail(HT_ERR_ARGUMENT, "subsets, their size, splits and neighbours must be 0 (the default) or more");
    if (o->skip_bad && o->metrics & PAIRED)
        return ht_fail(HT_ERR_ARGUMENT, "PSNR, SSIM and distance are of pairs, of which none can be left out");
    e->threads = o->threads ? o->threads : ht_processors();
    ht_status status = copy_text(e->arena, &o->features);
    if (!status)
        status = copy_text(e->arena, &o->output);
    if (!status)
        status = copy_text(e->arena, &o->resize);
    return status ? status : copy_text(e->arena, &o->isa);
}

/* The output that stands for an image, by name. */
static ht_status choose_output(ht_evaluator *e)
{
    const ht_network_info *n = e->network;
    char known[128] = "";
    e->use[HT_USE_FEATURES] = n->use[HT_USE_FEATURES];
    if (!e->options.output)
        return HT_OK;
    for (int i = 0; i < n->outputs; i++) {
        if (!strcmp(n->output[i].name, e->options.output)) {
            e->use[HT_USE_FEATURES] = i;
            return HT_OK;
        }
        size_t at = strlen(known);
        snprintf(known + at, sizeof known - at, "%s%s", i ? ", " : "", n->output[i].name);
    }
    return ht_fail(HT_ERR_ARGUMENT, "%s has no output \"%s\"; it has %s", e->info.name, e->options.output, known);
}

static ht_status choose_uses(ht_evaluator *e)
{
    const ht_network_info *n = e->network;
    unsigned m = e->options.metrics;
    if (m & HT_METRIC_INCEPTION && n->use[HT_USE_LOGITS] < 0)
        return ht_fail(HT_ERR_ARGUMENT, "%s gives no classes for the Inception Score", e->info.name);
    if (m & HT_METRIC_SPATIAL && n->use[HT_USE_SPATIAL] < 0)
        return ht_fail(HT_ERR_ARGUMENT, "%s gives no spatial features for sFID; FID's InceptionV3 does", e->info.name);
    ht_status status = choose_output(e);
    e->use[HT_USE_LOGITS] = m & HT_METRIC_INCEPTION ? n->use[HT_USE_LOGITS] : -1;
    e->use[HT_USE_SPATIAL] = m & HT_METRIC_SPATIAL ? n->use[HT_USE_SPATIAL] : -1;
    return status;
}

static ht_status open_network(ht_evaluator *e)
{
    const char *name = e->options.resize;
    int resize = name ? ht_resize_find(name) : 0;
    if (resize < 0)
        return ht_fail(HT_ERR_ARGUMENT, "no resize is called \"%s\"; there are none, bilinear, tf1, bicubic", name);
    e->resize = (ht_resize)resize;
    if (!e->options.features)
        return HT_OK;
    ht_status status = ht_features_open(e->options.features, &e->features);
    if (status)
        return status;
    ht_features_get_info(e->features, &e->info);
    e->network = e->info.network;
    if (!name)
        e->resize = e->network->resize;
    return choose_uses(e);
}

ht_status ht_evaluator_open(const ht_evaluate_options *options, ht_evaluator **evaluator)
{
    ht_arena *arena = ht_arena_create();
    ht_evaluator *e = arena ? ht_alloc(arena, sizeof *e) : NULL;
    if (!e) {
        ht_arena_free(arena);
        return HT_ERR_MEMORY;
    }
    *e = (ht_evaluator){.arena = arena};
    ht_status status = copy_options(e, options);
    if (!status)
        status = open_network(e);
    if (!status)
        status = ht_crew_open(e->threads, &e->crew);
    if (status)
        ht_evaluator_close(e);
    else
        *evaluator = e;
    return status;
}

void ht_evaluator_close(ht_evaluator *e)
{
    if (!e)
        return;
    ht_gathered_free(&e->reference);
    ht_pairs_close(e->pairs);
    ht_features_close(e->features);
    ht_crew_close(e->crew);
    ht_arena_free(e->arena);
}

void ht_evaluator_get_info(const ht_evaluator *e, ht_evaluator_info *info)
{
    const ht_network_info *n = e->network;
    *info = (ht_evaluator_info){.resize = ht_resize_name(e->resize)};
    if (!n)
        return;
    info->features = e->info.name;
    info->dim = n->output[e->use[HT_USE_FEATURES]].dim;
    info->is_fid = n->is_inception && e->use[HT_USE_FEATURES] == n->use[HT_USE_FEATURES];
}

ht_status ht_image_source_size(const char *path, int *height, int *width)
{
    ht_crew *crew = NULL;
    ht_source *source = NULL;
    ht_status status = HT_OK;
    *height = *width = 0;
    if (ht_is_npz(path))
        return HT_OK;
    status = ht_crew_open(1, &crew);
    if (!status)
        status = ht_source_open(&(ht_image_source){.path = path}, crew, 1, &source);
    if (!status)
        status = ht_source_size(source, height, width);
    ht_source_close(source);
    ht_crew_close(crew);
    return status;
}

/* ---- a set ---- */

bool ht_is_npz(const char *path)
{
    size_t n = strlen(path);
    return n > 4 && !strcmp(path + n - 4, ".npz");
}

static ht_status gather_npz(const ht_evaluator *e, const ht_image_source *s, ht_gathered *out)
{
    ht_gathered g = {0};
    if (e->options.metrics & ~(unsigned)OF_MOMENTS)
        return ht_fail(HT_ERR_ARGUMENT, "%s: has a mean and a covariance alone; what was asked for needs images",
                       s->path);
    ht_status status = ht_moments_read_counted(s->path, &g.features, &g.n);
    if (!status && e->network && g.features.dim != e->network->output[e->use[HT_USE_FEATURES]].dim) {
        status = ht_fail(HT_ERR_SHAPE, "%s: is of %d numbers an image, %s gives %d; was it made with another network?",
                         s->path, g.features.dim, e->info.name, e->network->output[e->use[HT_USE_FEATURES]].dim);
        ht_gathered_free(&g);
    }
    if (!status)
        *out = g;
    return status;
}

static ht_status gather_images(const ht_evaluator *e, const ht_image_source *s, ht_gathered *out)
{
    unsigned m = e->options.metrics;
    ht_source *source = NULL;
    ht_gather_options o = {.features = e->features,
                           .run = {.threads = e->options.threads, .isa = e->options.isa},
                           .resize = e->resize,
                           .moments = m & HT_METRIC_FRECHET || s->save,
                           .spatial_moments = m & HT_METRIC_SPATIAL,
                           .vectors = m & OF_VECTORS,
                           .options = &e->options,
                           .share = s->share};
    memcpy(o.use, e->use, sizeof o.use);
    if (!e->features)
        return ht_fail(HT_ERR_ARGUMENT, "%s: images need a feature network", s->path);
    if (!(m & OF_FEATURES) && !s->save)
        o.use[HT_USE_FEATURES] = -1;
    ht_status status = ht_source_open(s, e->crew, e->threads, &source);
    if (!status)
        status = ht_gather(&o, source, s->path, out);
    ht_source_close(source);
    bool writes = s->save && (!s->share || !s->share->part);
    if (!status && writes && (status = ht_moments_write(s->save, &out->features, out->n)))
        ht_gathered_free(out);
    return status;
}

/* Metrics of pictures alone need no pass through the network. */
static bool only_pixels(const ht_evaluator *e, const ht_image_source *s)
{
    return !(e->options.metrics & ~(unsigned)(HT_METRIC_PSNR | HT_METRIC_SSIM)) && !s->save;
}

static ht_status gather_source(const ht_evaluator *e, const ht_image_source *s, ht_gathered *out)
{
    *out = (ht_gathered){0};
    if (!s->draw && ht_is_npz(s->path))
        return gather_npz(e, s, out);
    return only_pixels(e, s) ? HT_OK : gather_images(e, s, out);
}

ht_status ht_evaluator_reference(ht_evaluator *e, const ht_image_source *source)
{
    ht_gathered g;
    ht_status status = gather_source(e, source, &g);
    if (status)
        return status;
    ht_gathered_free(&e->reference);
    e->reference = g;
    e->reference_source = *source;
    e->reference_source.save = NULL;
    e->has_reference = true;
    return copy_text(e->arena, &e->reference_source.path);
}

/* ---- metrics ---- */

static void warn_few(const ht_evaluator *e, const char *path, int64_t n, int dim)
{
    char line[512];
    if (n <= 0 || n > dim || !e->options.remark)
        return;
    snprintf(
        line, sizeof line,
        "%s: %lld images for %d features: the covariance is singular and the Frechet distance too large; take more "
        "than %d",
        path, (long long)n, dim, dim);
    e->options.remark(e->options.user, line);
}

static ht_status frechet(const ht_evaluator *e, const ht_image_source *s, const ht_gathered *a, ht_evaluation *out)
{
    const ht_gathered *b = &e->reference;
    ht_status status = HT_OK;
    if (e->options.metrics & HT_METRIC_FRECHET) {
        warn_few(e, s->path, a->n, a->features.dim);
        warn_few(e, e->reference_source.path, b->n, b->features.dim);
        status = ht_frechet(&a->features, &b->features, &out->frechet);
    }
    if (!status && e->options.metrics & HT_METRIC_SPATIAL) {
        warn_few(e, s->path, a->n, a->spatial.dim);
        warn_few(e, e->reference_source.path, b->n, b->spatial.dim);
        status = ht_frechet(&a->spatial, &b->spatial, &out->spatial);
    }
    return status;
}

static ht_status of_vectors(ht_evaluator *e, const ht_gathered *a, ht_evaluation *out)
{
    const ht_evaluate_options *o = &e->options;
    ht_vectors va = ht_gathered_vectors(a), vb = ht_gathered_vectors(&e->reference);
    ht_status status = HT_OK;
    if (!(o->metrics & (HT_METRIC_KID | HT_METRIC_MANIFOLD)))
        return HT_OK;
    if (!e->pairs)
        status = ht_pairs_open(va.dim, e->threads, &e->pairs);
    if (!status && o->metrics & HT_METRIC_KID) {
        ht_kid k;
        status = ht_kid_of(e->pairs, &va, &vb, &(ht_kid_options){o->kid_subsets, o->kid_size, o->seed}, &k);
        if (!status) {
            out->kid = k.mean;
            out->kid_deviation = k.deviation;
        }
    }
    if (!status && o->metrics & HT_METRIC_MANIFOLD) {
        ht_manifold m;
        status = ht_manifold_of(e->pairs, &va, &vb, o->neighbours ? o->neighbours : 3, &m);
        if (!status) {
            out->precision = m.precision;
            out->recall = m.recall;
            out->density = m.density;
            out->coverage = m.coverage;
        }
    }
    return status;
}

static ht_status inception_score(const ht_evaluator *e, const ht_gathered *a, ht_evaluation *out)
{
    ht_vectors logits = ht_gathered_logits(a);
    ht_inception_score score;
    ht_mt19937 rng;
    if (!(e->options.metrics & HT_METRIC_INCEPTION))
        return HT_OK;
    int64_t *order = calloc((size_t)logits.n, sizeof *order);
    if (!order)
        return ht_fail(HT_ERR_MEMORY, "out of memory for the Inception Score");
    ht_mt19937_seed(&rng, e->options.seed);
    ht_draw_permutation(&rng, logits.n, order);
    ht_status status = ht_inception_score_of(&logits, order, e->options.splits, &score);
    free(order);
    if (!status) {
        out->inception = score.mean;
        out->inception_deviation = score.deviation;
    }
    return status;
}

static ht_evaluation nothing_known(void)
{
    return (ht_evaluation){.frechet = NAN,
                           .spatial = NAN,
                           .kid = NAN,
                           .kid_deviation = NAN,
                           .inception = NAN,
                           .inception_deviation = NAN,
                           .precision = NAN,
                           .recall = NAN,
                           .density = NAN,
                           .coverage = NAN,
                           .psnr = NAN,
                           .ssim = NAN,
                           .distance = NAN};
}

ht_status ht_evaluator_compare(ht_evaluator *e, const ht_image_source *source, ht_evaluation *out)
{
    ht_gathered a;
    ht_evaluation made = nothing_known();
    if (!e->has_reference)
        return ht_fail(HT_ERR_ARGUMENT, "there is no reference to compare %s with", source->path);
    ht_status status = gather_source(e, source, &a);
    if (!status)
        status = frechet(e, source, &a, &made);
    if (!status)
        status = of_vectors(e, &a, &made);
    if (!status)
        status = inception_score(e, &a, &made);
    made.n = a.n;
    made.n_reference = e->reference.n;
    made.skipped = a.skipped;
    if (!status && e->options.metrics & PAIRED)
        status = ht_evaluate_pairs(e, source, &a, &made);
    ht_gathered_free(&a);
    if (!status)
        *out = made;
    return status;
}
