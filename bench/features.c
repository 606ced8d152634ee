/* features.c - how many images a second a feature network takes.
 *
 *     build/release/bench/features NETWORK [-t THREADS] [-n IMAGES] [-s SECONDS] [-c CHECK.safetensors]
 *
 * Prints JSON: network, threads, images a call, and the median and least seconds of a call.  -c writes `input`
 * [n,h,w,3] and `features` [n,dim] of one call, for who wants to compare them. */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "core/rng.h"
#include "core/safetensors.h"
#include "eval/features.h"

enum { MOST = 1000 };

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
    fprintf(stderr, "features: %s\n", ht_error_message());
    exit(EXIT_FAILURE);
}

static int rising(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void write_check(const char *path, const ht_features_info *info, int64_t n, const float *in, const float *out)
{
    size_t values = (size_t)n * (size_t)info->height * (size_t)info->width * 3,
           features = (size_t)n * (size_t)info->dim;
    const ht_tensor tensors[] = {{.name = "input",
                                  .dtype = HT_F32,
                                  .ndim = 4,
                                  .shape = {n, info->height, info->width, 3},
                                  .data = in,
                                  .count = values,
                                  .bytes = values * sizeof *in},
                                 {.name = "features",
                                  .dtype = HT_F32,
                                  .ndim = 2,
                                  .shape = {n, info->dim},
                                  .data = out,
                                  .count = features,
                                  .bytes = features * sizeof *out}};
    check(ht_safetensors_write(path, tensors, 2, NULL, 0));
}

int main(int argc, char **argv)
{
    const char *checked = NULL;
    int threads = 0, n = 16, runs = 0;
    double seconds = 5, times[MOST];
    for (int c; (c = getopt(argc, argv, "t:n:s:c:")) != -1;) {
        if (c == 't')
            threads = atoi(optarg);
        else if (c == 'n')
            n = atoi(optarg);
        else if (c == 's')
            seconds = atof(optarg);
        else if (c == 'c')
            checked = optarg;
        else
            return 2;
    }
    if (optind + 1 != argc || n < 1)
        return 2;
    ht_features *f;
    ht_features_info info;
    check(ht_features_open(argv[optind], &f));
    ht_features_get_info(f, &info);
    size_t values = (size_t)n * (size_t)info.height * (size_t)info.width * 3;
    float *in = malloc(values * sizeof *in), *out[HT_NETWORK_OUTPUTS] = {NULL};
    float *features = malloc((size_t)n * (size_t)info.dim * sizeof *features);
    int use = info.network->use[HT_USE_FEATURES];
    ht_features_options options = {.threads = threads};
    if (!in || !features)
        return EXIT_FAILURE;
    ht_mt19937 rng;
    ht_mt19937_seed(&rng, 1);
    ht_mt19937_rand(&rng, values, in);
    out[use] = features;
    check(ht_features_run_outputs(f, n, in, &options, 1u << use, out)); /* which compiles */
    for (double end = now() + seconds; runs < 3 || (runs < MOST && now() < end); runs++) {
        double start = now();
        check(ht_features_run_outputs(f, n, in, &options, 1u << use, out));
        times[runs] = now() - start;
    }
    if (checked)
        write_check(checked, &info, n, in, features);
    qsort(times, (size_t)runs, sizeof *times, rising);
    printf("{\"network\": \"%s\", \"threads\": %d, \"images\": %d, \"median_s\": %.6f, \"least_s\": %.6f}\n", info.name,
           threads, n, times[runs / 2], times[0]);
    free(features);
    free(in);
    ht_features_close(f);
    return EXIT_SUCCESS;
}
