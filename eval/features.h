/* features.h - a feature network: images to the vectors that distances between sets of images are measured in. */
#ifndef HT_EVAL_FEATURES_H
#define HT_EVAL_FEATURES_H

#include <stdbool.h>

#include "eval/network.h"
#include "eval/statistics.h"

typedef struct ht_features ht_features;

typedef struct ht_features_info {
    const char *name;  /* of the weights, their file's without its ending: distances compare only under one name */
    int dim;           /* numbers an image, of the output that stands for the image as a whole */
    int height, width; /* of the images it takes, three colours each */
    int64_t parameters;
    const ht_network_info *network; /* its outputs and what they are for */
} ht_features_info;

typedef struct ht_features_options {
    int threads;     /* 0: the processors this process may use */
    const char *isa; /* as in ht_session_options */
    bool unrounded;  /* float images: as they are.  Otherwise rounded to 8 bits first, as ht_image_save does: published
                        distances are those of files */
} ht_features_options;

/* Open a folder with config.json and one .safetensors file, or the file of a network that needs no configuration
 * (InceptionV3, in the names of pytorch-fid).  Errors as of ht_model_open. */
ht_status ht_features_open(const char *path, ht_features **out);
void ht_features_close(ht_features *f); /* NULL is allowed */
void ht_features_get_info(const ht_features *f, ht_features_info *info);

/* Features of n images [n,h,w,3] -> out [n,dim]: of values in [-1,1], or of 8-bit pixels.  options: NULL for the
 * defaults.  The bits of a vector depend on its image alone, not on n, threads or isa.  The first call, and one with
 * other threads or isa than the one before, compiles the network.  One call per object at a time. */
ht_status ht_features_run(ht_features *f, int64_t n, const float *images, const ht_features_options *options,
                          float *out);
ht_status ht_features_run_pixels(ht_features *f, int64_t n, const uint8_t *pixels, const ht_features_options *options,
                                 float *out);

/* Pixels of a picture, of any size if it is resized, as what the network takes: out [h,w,3].  Any thread. */
ht_status ht_features_input(const ht_features *f, ht_resize resize, const ht_pixels *picture, float *out);

/* Several outputs of n inputs [n,h,w,3] as ht_features_input makes them: those whose bits are in `wanted`, not 0,
 * output i into out[i] [n,dim of it]. */
ht_status ht_features_run_outputs(ht_features *f, int64_t n, const float *inputs, const ht_features_options *options,
                                  unsigned wanted, float *const *out);

/* The features of n images [n,h,w,3] in [-1,1], rounded to 8 bits, into statistics of as many numbers; so many images
 * at a time that memory does not grow with n.  On failure the statistics may have some of the images. */
ht_status ht_features_statistics(ht_features *f, int64_t n, const float *images, int threads,
                                 ht_statistics *accumulate);
ht_status ht_features_statistics_pixels(ht_features *f, int64_t n, const uint8_t *pixels, int threads,
                                        ht_statistics *accumulate);

#endif
