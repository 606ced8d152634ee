/* inception_weights.h - for tests: the 24 million weights of FID's InceptionV3 by the formula of the recorded cases
 * (tests/goldens/eval/packages), since the published ones cannot be shipped:
 *
 *     u(name, i) = (splitmix64((fnv1a64(name) xor splitmix64(seed)) + i) >> 40) / 2^24
 *     *.conv.weight, fc.weight: (2u - 1) sqrt(6 / fan_in);   bn.weight, bn.running_var: 0.8 + 0.4 u;   the others:
 *     0.4 u - 0.2      in double, rounded once */
#ifndef HT_TESTS_INCEPTION_WEIGHTS_H
#define HT_TESTS_INCEPTION_WEIGHTS_H

#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/safetensors.h"

static inline uint64_t fnv1a64(const char *name)
{
    uint64_t h = UINT64_C(0xCBF29CE484222325);
    for (; *name; name++)
        h = (h ^ (unsigned char)*name) * UINT64_C(0x100000001B3);
    return h;
}

static inline uint64_t splitmix64(uint64_t x)
{
    x += UINT64_C(0x9E3779B97F4A7C15);
    x = (x ^ x >> 30) * UINT64_C(0xBF58476D1CE4E5B9);
    x = (x ^ x >> 27) * UINT64_C(0x94D049BB133111EB);
    return x ^ x >> 31;
}

static inline bool ends_with(const char *name, const char *ending)
{
    size_t n = strlen(name), m = strlen(ending);
    return n >= m && !strcmp(name + n - m, ending);
}

/* Number i of a tensor with this many inputs an output. */
static inline float formula_weight(uint64_t seed, const char *name, double fan_in, size_t i)
{
    double u = (double)(splitmix64((fnv1a64(name) ^ splitmix64(seed)) + i) >> 40) / 16777216.0;
    if (ends_with(name, ".conv.weight") || ends_with(name, "fc.weight"))
        return (float)((2 * u - 1) * sqrt(6 / fan_in));
    if (ends_with(name, ".bn.weight") || ends_with(name, ".bn.running_var"))
        return (float)(0.8 + 0.4 * u);
    return (float)(0.4 * u - 0.2);
}

/* "NAME OUT IN HEIGHT WIDTH": every convolution of the network. */
static const struct {
    const char *name;
    int out, in, height, width;
} inception_convs[] = {
    {"Conv2d_1a_3x3", 32, 3, 3, 3},
    {"Conv2d_2a_3x3", 32, 32, 3, 3},
    {"Conv2d_2b_3x3", 64, 32, 3, 3},
    {"Conv2d_3b_1x1", 80, 64, 1, 1},
    {"Conv2d_4a_3x3", 192, 80, 3, 3},
    {"Mixed_5b.branch1x1", 64, 192, 1, 1},
    {"Mixed_5b.branch5x5_1", 48, 192, 1, 1},
    {"Mixed_5b.branch5x5_2", 64, 48, 5, 5},
    {"Mixed_5b.branch3x3dbl_1", 64, 192, 1, 1},
    {"Mixed_5b.branch3x3dbl_2", 96, 64, 3, 3},
    {"Mixed_5b.branch3x3dbl_3", 96, 96, 3, 3},
    {"Mixed_5b.branch_pool", 32, 192, 1, 1},
    {"Mixed_5c.branch1x1", 64, 256, 1, 1},
    {"Mixed_5c.branch5x5_1", 48, 256, 1, 1},
    {"Mixed_5c.branch5x5_2", 64, 48, 5, 5},
    {"Mixed_5c.branch3x3dbl_1", 64, 256, 1, 1},
    {"Mixed_5c.branch3x3dbl_2", 96, 64, 3, 3},
    {"Mixed_5c.branch3x3dbl_3", 96, 96, 3, 3},
    {"Mixed_5c.branch_pool", 64, 256, 1, 1},
    {"Mixed_5d.branch1x1", 64, 288, 1, 1},
    {"Mixed_5d.branch5x5_1", 48, 288, 1, 1},
    {"Mixed_5d.branch5x5_2", 64, 48, 5, 5},
    {"Mixed_5d.branch3x3dbl_1", 64, 288, 1, 1},
    {"Mixed_5d.branch3x3dbl_2", 96, 64, 3, 3},
    {"Mixed_5d.branch3x3dbl_3", 96, 96, 3, 3},
    {"Mixed_5d.branch_pool", 64, 288, 1, 1},
    {"Mixed_6a.branch3x3", 384, 288, 3, 3},
    {"Mixed_6a.branch3x3dbl_1", 64, 288, 1, 1},
    {"Mixed_6a.branch3x3dbl_2", 96, 64, 3, 3},
    {"Mixed_6a.branch3x3dbl_3", 96, 96, 3, 3},
    {"Mixed_6b.branch1x1", 192, 768, 1, 1},
    {"Mixed_6b.branch7x7_1", 128, 768, 1, 1},
    {"Mixed_6b.branch7x7_2", 128, 128, 1, 7},
    {"Mixed_6b.branch7x7_3", 192, 128, 7, 1},
    {"Mixed_6b.branch7x7dbl_1", 128, 768, 1, 1},
    {"Mixed_6b.branch7x7dbl_2", 128, 128, 7, 1},
    {"Mixed_6b.branch7x7dbl_3", 128, 128, 1, 7},
    {"Mixed_6b.branch7x7dbl_4", 128, 128, 7, 1},
    {"Mixed_6b.branch7x7dbl_5", 192, 128, 1, 7},
    {"Mixed_6b.branch_pool", 192, 768, 1, 1},
    {"Mixed_6c.branch1x1", 192, 768, 1, 1},
    {"Mixed_6c.branch7x7_1", 160, 768, 1, 1},
    {"Mixed_6c.branch7x7_2", 160, 160, 1, 7},
    {"Mixed_6c.branch7x7_3", 192, 160, 7, 1},
    {"Mixed_6c.branch7x7dbl_1", 160, 768, 1, 1},
    {"Mixed_6c.branch7x7dbl_2", 160, 160, 7, 1},
    {"Mixed_6c.branch7x7dbl_3", 160, 160, 1, 7},
    {"Mixed_6c.branch7x7dbl_4", 160, 160, 7, 1},
    {"Mixed_6c.branch7x7dbl_5", 192, 160, 1, 7},
    {"Mixed_6c.branch_pool", 192, 768, 1, 1},
    {"Mixed_6d.branch1x1", 192, 768, 1, 1},
    {"Mixed_6d.branch7x7_1", 160, 768, 1, 1},
    {"Mixed_6d.branch7x7_2", 160, 160, 1, 7},
    {"Mixed_6d.branch7x7_3", 192, 160, 7, 1},
    {"Mixed_6d.branch7x7dbl_1", 160, 768, 1, 1},
    {"Mixed_6d.branch7x7dbl_2", 160, 160, 7, 1},
    {"Mixed_6d.branch7x7dbl_3", 160, 160, 1, 7},
    {"Mixed_6d.branch7x7dbl_4", 160, 160, 7, 1},
    {"Mixed_6d.branch7x7dbl_5", 192, 160, 1, 7},
    {"Mixed_6d.branch_pool", 192, 768, 1, 1},
    {"Mixed_6e.branch1x1", 192, 768, 1, 1},
    {"Mixed_6e.branch7x7_1", 192, 768, 1, 1},
    {"Mixed_6e.branch7x7_2", 192, 192, 1, 7},
    {"Mixed_6e.branch7x7_3", 192, 192, 7, 1},
    {"Mixed_6e.branch7x7dbl_1", 192, 768, 1, 1},
    {"Mixed_6e.branch7x7dbl_2", 192, 192, 7, 1},
    {"Mixed_6e.branch7x7dbl_3", 192, 192, 1, 7},
    {"Mixed_6e.branch7x7dbl_4", 192, 192, 7, 1},
    {"Mixed_6e.branch7x7dbl_5", 192, 192, 1, 7},
    {"Mixed_6e.branch_pool", 192, 768, 1, 1},
    {"Mixed_7a.branch3x3_1", 192, 768, 1, 1},
    {"Mixed_7a.branch3x3_2", 320, 192, 3, 3},
    {"Mixed_7a.branch7x7x3_1", 192, 768, 1, 1},
    {"Mixed_7a.branch7x7x3_2", 192, 192, 1, 7},
    {"Mixed_7a.branch7x7x3_3", 192, 192, 7, 1},
    {"Mixed_7a.branch7x7x3_4", 192, 192, 3, 3},
    {"Mixed_7b.branch1x1", 320, 1280, 1, 1},
    {"Mixed_7b.branch3x3_1", 384, 1280, 1, 1},
    {"Mixed_7b.branch3x3_2a", 384, 384, 1, 3},
    {"Mixed_7b.branch3x3_2b", 384, 384, 3, 1},
    {"Mixed_7b.branch3x3dbl_1", 448, 1280, 1, 1},
    {"Mixed_7b.branch3x3dbl_2", 384, 448, 3, 3},
    {"Mixed_7b.branch3x3dbl_3a", 384, 384, 1, 3},
    {"Mixed_7b.branch3x3dbl_3b", 384, 384, 3, 1},
    {"Mixed_7b.branch_pool", 192, 1280, 1, 1},
    {"Mixed_7c.branch1x1", 320, 2048, 1, 1},
    {"Mixed_7c.branch3x3_1", 384, 2048, 1, 1},
    {"Mixed_7c.branch3x3_2a", 384, 384, 1, 3},
    {"Mixed_7c.branch3x3_2b", 384, 384, 3, 1},
    {"Mixed_7c.branch3x3dbl_1", 448, 2048, 1, 1},
    {"Mixed_7c.branch3x3dbl_2", 384, 448, 3, 3},
    {"Mixed_7c.branch3x3dbl_3a", 384, 384, 1, 3},
    {"Mixed_7c.branch3x3dbl_3b", 384, 384, 3, 1},
    {"Mixed_7c.branch_pool", 192, 2048, 1, 1},
};

enum { INCEPTION_CONVS = sizeof inception_convs / sizeof *inception_convs };

typedef struct inception_file {
    ht_tensor *tensors;
    size_t n;
} inception_file;

static inline void add_formula(inception_file *f, uint64_t seed, const char *name, int ndim, const int *shape)
{
    ht_tensor t = {.name = strdup(name), .dtype = HT_F32, .ndim = ndim, .count = 1};
    double fan_in = 1;
    uint64_t key = fnv1a64(name) ^ splitmix64(seed);
    for (int d = 0; d < ndim; d++) {
        t.shape[d] = shape[d];
        t.count *= (size_t)shape[d];
        fan_in *= d ? shape[d] : 1;
    }
    float *data = malloc(t.count * sizeof *data);
    if (!data || !t.name)
        abort();
    bool matrix = ends_with(name, ".conv.weight") || ends_with(name, "fc.weight");
    double bound = sqrt(6 / fan_in);
    for (size_t i = 0; i < t.count; i++) {
        double u = (double)(splitmix64(key + i) >> 40) / 16777216.0;
        data[i] = matrix ? (float)((2 * u - 1) * bound) : formula_weight(seed, name, fan_in, i);
    }
    t.data = data;
    t.bytes = t.count * sizeof *data;
    f->tensors[f->n++] = t;
}

/* Write them all to a file, 95 MB. */
static inline ht_status write_inception(const char *path, uint64_t seed)
{
    static const char *const parts[] = {"bn.weight", "bn.bias", "bn.running_mean", "bn.running_var"};
    inception_file f = {calloc(5 * INCEPTION_CONVS + 2, sizeof(ht_tensor)), 0};
    char name[128];
    for (int i = 0; i < INCEPTION_CONVS; i++) {
        const int shape[] = {inception_convs[i].out, inception_convs[i].in, inception_convs[i].height,
                             inception_convs[i].width};
        snprintf(name, sizeof name, "%s.conv.weight", inception_convs[i].name);
        add_formula(&f, seed, name, 4, shape);
        for (int k = 0; k < 4; k++) {
            snprintf(name, sizeof name, "%s.%s", inception_convs[i].name, parts[k]);
            add_formula(&f, seed, name, 1, shape);
        }
    }
    add_formula(&f, seed, "fc.weight", 2, (const int[]){1008, 2048});
    add_formula(&f, seed, "fc.bias", 1, (const int[]){1008});
    ht_status status = ht_safetensors_write(path, f.tensors, f.n, NULL, 0);
    for (size_t i = 0; i < f.n; i++) {
        free((char *)(uintptr_t)f.tensors[i].name);
        free((void *)(uintptr_t)f.tensors[i].data);
    }
    free(f.tensors);
    return status;
}

#endif
