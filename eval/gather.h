/* gather.h - what metrics need to know of a set: moments, and vectors where these are not enough. */
#ifndef HT_EVAL_GATHER_H
#define HT_EVAL_GATHER_H

#include "eval/features.h"
#include "eval/pairs.h"
#include "eval/source.h"

typedef struct ht_gathered {
    int64_t n, skipped;
    ht_moments features, spatial; /* dim 0: not gathered */
    float *vectors, *logits;      /* [n,dim]; NULL: not gathered */
    int vector_dim, logit_dim;
} ht_gathered;

void ht_gathered_free(ht_gathered *g); /* zeroed is allowed */
ht_vectors ht_gathered_vectors(const ht_gathered *g);
ht_vectors ht_gathered_logits(const ht_gathered *g);

typedef struct ht_gather_options {
    ht_features *features;
    ht_features_options run;
    ht_resize resize;
    int use[HT_NETWORK_USES];               /* which outputs, of the network's; -1: not wanted */
    bool moments, spatial_moments, vectors; /* of the features; of the spatial ones */
    const ht_evaluate_options *options;     /* skip_bad, progress, remark, user */
    const ht_share *share;                  /* of the source; NULL: all of it */
} ht_gather_options;

/* Run all images of a source through the network.  path: for messages. */
ht_status ht_gather(const ht_gather_options *o, ht_source *source, const char *path, ht_gathered *out);

#endif
