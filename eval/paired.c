/* paired.c - metrics of pairs: the pictures of two sources side by side, a chunk at a time.  Means are sums in the
 * order of the pairs, divided once.  Processes that share the source compare every N-th chunk each, and all add
 * up all pairs. */
#include <math.h>
#include <stdio.h>

#include "eval/evaluator.h"
#include "eval/psnr.h"
#include "eval/share.h"
#include "eval/ssim.h"

enum { COLOURS = 3 };

typedef struct chunk {
    ht_status status; /* of the pair after those that are here */
    char message[HT_SHARE_MESSAGE];
    int n;
    double psnr[HT_SOURCE_CHUNK], ssim[HT_SOURCE_CHUNK];
} chunk;

typedef struct pairing {
    ht_evaluator *e;
    const ht_image_source *from;
    ht_source *a, *b;
    ht_blocks chunks;
    double psnr_sum, ssim_sum;
    ht_loaded left[HT_SOURCE_CHUNK], right[HT_SOURCE_CHUNK];
} pairing;

static ht_status same_size(const pairing *p, int64_t pair, const ht_pixels *a, const ht_pixels *b)
{
    if (a->height == b->height && a->width == b->width)
        return HT_OK;
    return ht_fail(HT_ERR_SHAPE, "pair %lld of %s and %s: %d x %d and %d x %d pixels; PSNR and SSIM take the same size",
                   (long long)pair, p->from->path, p->e->reference_source.path, a->width, a->height, b->width,
                   b->height);
}

static ht_status compare_pair(const pairing *p, int64_t pair, const ht_loaded *a, const ht_loaded *b, double *psnr,
                              double *ssim)
{
    const ht_loaded *bad = a->status ? a : b;
    unsigned metrics = p->e->options.metrics;
    *psnr = *ssim = 0;
    if (bad->status)
        return ht_fail(bad->status, "%s", bad->message);
    ht_status status = same_size(p, pair, &a->picture, &b->picture);
    int h = a->picture.height, w = a->picture.width;
    if (!status && metrics & HT_METRIC_PSNR)
        *psnr = ht_psnr_pixels((size_t)h * (size_t)w * COLOURS, a->picture.data, b->picture.data);
    if (!status && metrics & HT_METRIC_SSIM)
        status = ht_ssim_pixels(HT_SSIM_GAUSSIAN, h, w, COLOURS, a->picture.data, b->picture.data, ssim);
    return status;
}

static void make_chunk(void *user, int64_t at, int n, void *block)
{
    pairing *p = user;
    chunk *c = block;
    c->n = 0;
    c->status = ht_source_load(p->a, at, n, NULL, NULL, p->left);
    if (!c->status)
        c->status = ht_source_load(p->b, at, n, NULL, NULL, p->right);
    for (int i = 0; !c->status && i < n; i++) {
        c->status = compare_pair(p, at + i, &p->left[i], &p->right[i], &c->psnr[i], &c->ssim[i]);
        c->n += !c->status;
    }
    if (c->status)
        snprintf(c->message, sizeof c->message, "%s", ht_error_message());
}

static ht_status take_chunk(void *user, const void *block)
{
    pairing *p = user;
    const chunk *c = block;
    for (int i = 0; i < c->n; i++) {
        p->psnr_sum += c->psnr[i];
        p->ssim_sum += c->ssim[i];
    }
    return c->status ? ht_fail(c->status, "%s", c->message) : HT_OK;
}

static ht_status on_done(void *user, int64_t done, int64_t all)
{
    const ht_evaluate_options *o = &((const pairing *)user)->e->options;
    if (o->progress && o->progress(o->user, done, all))
        return ht_fail(HT_ERR_CANCELLED, "stopped after %lld of %lld pairs", (long long)done, (long long)all);
    return HT_OK;
}

/* Mean over the pairs of the distance of their features. */
static double distance(const ht_gathered *a, const ht_gathered *b)
{
    double sum = 0;
    for (int64_t i = 0; i < a->n; i++) {
        double squares = 0;
        for (int64_t k = i * a->vector_dim; k < (i + 1) * a->vector_dim; k++)
            squares +=
                ((double)a->vectors[k] - (double)b->vectors[k]) * ((double)a->vectors[k] - (double)b->vectors[k]);
        sum += sqrt(squares);
    }
    return sum / (double)a->n;
}

ht_status ht_evaluate_pairs(ht_evaluator *e, const ht_image_source *source, const ht_gathered *a, ht_evaluation *out)
{
    pairing p = {.e = e, .from = source};
    unsigned metrics = e->options.metrics;
    ht_status status = ht_blocks_open(source->share, sizeof(chunk), &p.chunks);
    if (!status)
        status = ht_source_open(source, e->crew, e->threads, &p.a);
    if (!status)
        status = ht_source_open(&e->reference_source, e->crew, e->threads, &p.b);
    int64_t n = status ? 0 : ht_source_count(p.a), n_b = status ? 0 : ht_source_count(p.b);
    if (!status && n != n_b)
        status = ht_fail(HT_ERR_SHAPE, "%s has %lld images, %s %lld; pairs take as many of each", source->path,
                         (long long)n, e->reference_source.path, (long long)n_b);
    if (!status && metrics & (HT_METRIC_PSNR | HT_METRIC_SSIM))
        status = ht_blocks_run(&p.chunks, n, HT_SOURCE_CHUNK, &(ht_blocks_work){make_chunk, take_chunk, on_done, &p});
    ht_source_close(p.a);
    ht_source_close(p.b);
    ht_blocks_close(&p.chunks);
    if (status)
        return status;
    out->n = n;
    out->n_reference = n_b;
    if (metrics & HT_METRIC_PSNR)
        out->psnr = p.psnr_sum / (double)n;
    if (metrics & HT_METRIC_SSIM)
        out->ssim = p.ssim_sum / (double)n;
    if (metrics & HT_METRIC_DISTANCE)
        out->distance = distance(a, &e->reference);
    return HT_OK;
}
