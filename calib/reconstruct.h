/* reconstruct.h - block reconstruction: the rounding of a block's weights is chosen so that the block's output comes
 * close to what the float network has there (BRECQ, arXiv:2102.05426; Q-Diffusion, arXiv:2302.04304, section 3.2).
 *
 *     ht_regions_find(graph, arena, &regions, &n);                 in order of execution
 *     for each region: inputs from the network quantized so far, targets from the float network,
 *         ht_reconstruct(&regions[i], &layers, &data, &options, &report); */
#ifndef HT_CALIB_RECONSTRUCT_H
#define HT_CALIB_RECONSTRUCT_H

#include "core/error.h"
#include "graph/backend.h"
#include "graph/reverse.h"
#include "halftone.h"

/* Zero stands for the default in brackets. */
typedef struct ht_reconstruct_options {
    int iterations;               /* [20000] */
    int batch;                    /* samples an iteration [32] */
    double learning_rate;         /* of Adam [1e-3] */
    double weight;                /* of the rounding term [0.01] */
    double warmup;                /* part of the iterations without that term [0.2] */
    double beta_first, beta_last; /* its exponent, falling linearly after the warm-up [20, 2] */
    int most_bits;                /* layers of wider formats keep their codes [6] */
    bool from_codes;              /* start at the codes that are given (GPTQ's, say), not at the weights */
    double confidence;            /* how near to them, 0.5 to 1 [0.9] */
    bool simulate;                /* inputs of layers become codes, by the layers' modes and tables */
    uint64_t seed;                /* of the batches */
    int threads;                  /* [all] */
    const char *isa;              /* as ht_backend_options */
    ht_progress progress;         /* of iterations; may be NULL */
    void *user;
} ht_reconstruct_options;

typedef struct ht_reconstruct_data {
    int64_t n;                  /* samples */
    const float *const *inputs; /* of each of the region's inputs: [n,...], channels last; rows of {t} are [n,c] too */
    const float *targets;       /* of the region's output: [n,...] */
    const float *timesteps;     /* [n], for tables of more than one group */
} ht_reconstruct_data;

/* Losses: squared error summed over channels, averaged over all samples and positions. */
typedef struct ht_reconstruct_report {
    double before;            /* with the codes that were given */
    double soft;              /* with gates as the last iteration left them */
    double after;             /* with the codes they decide for */
    int64_t weights, changed; /* that had a choice of formats; whose code is another now */
    bool kept;                /* the result was not better, and the codes that were given stay */
} ht_reconstruct_report;

/* Choose the codes of those layers of the region that `layers` has in formats of at most most_bits.  Their codes, in
 * memory that can be written, are the only thing that changes; scales stay.  Other layers that `layers` has are taken
 * as quantized, the rest as floats.  The region is of an unquantized graph, which gives the weights and must still be
 * there.
 *
 * HT_ERR_ARGUMENT for options out of range and if no layer can be chosen; HT_ERR_UNSUPPORTED for an operation that has
 * no gradient; HT_ERR_CANCELLED if progress says so: then codes are as they were.  Deterministic: threads and
 * instruction sets do not matter. */
ht_status ht_reconstruct(const ht_region *region, const ht_layers *layers, const ht_reconstruct_data *data,
                         const ht_reconstruct_options *options, ht_reconstruct_report *report);

#endif
