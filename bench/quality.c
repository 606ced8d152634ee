/* quality.c - how far quantized models are from the model of floats: pictures of the same noise.
 *
 *     build/release/bench/quality REFERENCE [-n N] [-s STEPS] [-S SEED] [-b BATCH] [-r CACHE] MODEL...
 *
 * Prints a row for each model: PSNR in dB to REFERENCE's images in [0,1], unrounded, of the pooled squared error and as
 * the mean over images; with features and statistics beside REFERENCE (models/cifar10 has them) the Frechet distance of
 * the 8-bit images to the training set; megabytes of weights, bits of a weight, seconds of sampling.  -r keeps the
 * reference's images in a file, so that the next call need not draw them again. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "core/safetensors.h"
#include "eval/features.h"
#include "eval/frechet.h"
#include "eval/psnr.h"
#include "halftone.h"

typedef struct bench {
    const char *reference, *cache;
    int64_t n;
    int steps, batch;
    uint64_t seed;
    ht_model_info info;
    size_t size; /* of all images */
    float *images, *made;
    ht_features *features; /* NULL: there are none */
    ht_moments training;
} bench;

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static void check(ht_status status)
{
    if (!status)
        return;
    fprintf(stderr, "quality: %s\n", ht_error_message());
    exit(EXIT_FAILURE);
}

/* Images of a model; returns the seconds that they took. */
static double draw(const bench *b, const char *path, float *images, ht_model_info *info)
{
    ht_model *model;
    ht_session *session;
    check(ht_model_open(path, NULL, &model));
    ht_model_get_info(model, info);
    check(ht_session_open(model, &(ht_session_options){.batch = b->batch}, &session));
    double start = now();
    if (images)
        check(ht_sample(session, &(ht_sample_options){.steps = b->steps, .seed = b->seed}, 0, b->n, images));
    double seconds = now() - start;
    ht_session_close(session);
    ht_model_close(model);
    return seconds;
}

static int read_cache(const bench *b)
{
    ht_safetensors *file;
    int found = 0;
    if (!b->cache || access(b->cache, R_OK) || ht_safetensors_open(b->cache, &file))
        return 0;
    char key[64];
    snprintf(key, sizeof key, "%lld.%d.%llu", (long long)b->n, b->steps, (unsigned long long)b->seed);
    const ht_tensor *t = ht_safetensors_find(file, key);
    if (t && t->count == b->size) {
        memcpy(b->images, t->data, t->bytes);
        found = 1;
    }
    ht_safetensors_close(file);
    return found;
}

static void write_cache(const bench *b)
{
    char key[64];
    if (!b->cache)
        return;
    snprintf(key, sizeof key, "%lld.%d.%llu", (long long)b->n, b->steps, (unsigned long long)b->seed);
    ht_tensor t = {.name = key,
                   .dtype = HT_F32,
                   .ndim = 1,
                   .shape = {(int64_t)b->size},
                   .data = b->images,
                   .count = b->size,
                   .bytes = b->size * sizeof(float)};
    check(ht_safetensors_write(b->cache, &t, 1, NULL, 0));
}

static double distance(const bench *b, const float *images)
{
    ht_features_info info;
    ht_statistics *s;
    ht_moments seen;
    double d;
    if (!b->features)
        return NAN;
    ht_features_get_info(b->features, &info);
    check(ht_statistics_open(info.dim, &s));
    check(ht_features_statistics(b->features, b->n, images, 0, s));
    check(ht_statistics_moments(s, &seen));
    check(ht_frechet(&b->training, &seen, &d));
    ht_moments_free(&seen);
    ht_statistics_close(s);
    return d;
}

static void row(const bench *b, const char *path, const ht_model_info *info, const float *images, double seconds)
{
    ht_psnr p;
    check(ht_psnr_images(b->n, b->size / (size_t)b->n, b->images, images, &p));
    printf("%-40s %8.2f %8.2f %8.3f %8.3f %7.2f %9.1f\n", path, p.pooled, p.mean, distance(b, images),
           (double)info->weight_bytes * 1e-6, info->average_bits, seconds);
    fflush(stdout);
}

static void open_features(bench *b)
{
    char folder[4096], statistics[4200];
    snprintf(folder, sizeof folder, "%s/features", b->reference);
    snprintf(statistics, sizeof statistics, "%s/cifar10-train-resnet18_w24.npz", b->reference);
    if (access(folder, R_OK) || access(statistics, R_OK))
        return;
    check(ht_features_open(folder, &b->features));
    check(ht_moments_read(statistics, &b->training));
}

int main(int argc, char **argv)
{
    bench b = {.n = 64, .steps = 100, .batch = 16, .seed = 0};
    for (int c; (c = getopt(argc, argv, "n:s:S:b:r:")) != -1;) {
        if (c == 'n')
            b.n = atoll(optarg);
        else if (c == 's')
            b.steps = atoi(optarg);
        else if (c == 'S')
            b.seed = strtoull(optarg, NULL, 10);
        else if (c == 'b')
            b.batch = atoi(optarg);
        else if (c == 'r')
            b.cache = optarg;
        else
            return 2;
    }
    if (optind >= argc || b.n < 1)
        return 2;
    b.reference = argv[optind];
    draw(&b, b.reference, NULL, &b.info);
    b.size = (size_t)b.n * (size_t)b.info.height * (size_t)b.info.width * (size_t)b.info.in_channels;
    b.images = calloc(b.size, sizeof *b.images);
    b.made = calloc(b.size, sizeof *b.made);
    if (!b.images || !b.made) {
        free(b.images);
        free(b.made);
        return EXIT_FAILURE;
    }
    open_features(&b);
    double seconds = 0;
    if (!read_cache(&b)) {
        seconds = draw(&b, b.reference, b.images, &b.info);
        write_cache(&b);
    }
    printf("%lld images, %d DDIM steps, seed %llu\n", (long long)b.n, b.steps, (unsigned long long)b.seed);
    printf("%-40s %8s %8s %8s %8s %7s %9s\n", "model", "PSNR dB", "mean dB", "FD", "MB", "bits", "seconds");
    row(&b, b.reference, &b.info, b.images, seconds);
    for (int i = optind + 1; i < argc; i++) {
        ht_model_info info;
        seconds = draw(&b, argv[i], b.made, &info);
        row(&b, argv[i], &info, b.made, seconds);
    }
    ht_features_close(b.features);
    ht_moments_free(&b.training);
    free(b.images);
    free(b.made);
    return 0;
}
