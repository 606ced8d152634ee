/* evaluator.h - the inside of an evaluator, which eval/evaluate.c and eval/paired.c share. */
#ifndef HT_EVAL_EVALUATOR_H
#define HT_EVAL_EVALUATOR_H

#include "eval/gather.h"

struct ht_evaluator {
    ht_arena *arena;
    ht_evaluate_options options;
    ht_features *features; /* NULL: none was given */
    ht_features_info info;
    const ht_network_info *network;
    ht_resize resize;
    int use[HT_NETWORK_USES]; /* outputs that the metrics need; -1: not */
    int threads;
    ht_crew *crew;
    ht_pairs *pairs; /* NULL until it is needed */
    bool has_reference;
    ht_image_source reference_source;
    ht_gathered reference;
};

/* Whether a path is that of statistics: it ends in .npz. */
bool ht_is_npz(const char *path);

/* PSNR, SSIM and distance of image i with image i of the reference, and out->n, out->n_reference.  HT_ERR_SHAPE if the
 * sets are not as large, or two images have different sizes. */
ht_status ht_evaluate_pairs(ht_evaluator *e, const ht_image_source *source, const ht_gathered *a, ht_evaluation *out);

#endif
