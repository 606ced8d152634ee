/* blocks.h - block reconstruction of a whole model, block by block in order of execution. */
#ifndef HT_CALIB_BLOCKS_H
#define HT_CALIB_BLOCKS_H

#include "calib/calibration.h"

typedef struct ht_blocks_options {
    int iterations; /* each block */
    int samples;    /* of the calibration set, evenly spread */
    int batch, threads;
    uint64_t seed;
    const char *resume;   /* a file that keeps what is done; NULL: none.  Who saved the layers removes it */
    const char *identity; /* of everything that the result depends on: another's file is not gone on with */
    ht_progress progress; /* of blocks, in thousandths; may be NULL */
    void *user;
} ht_blocks_options;

/* Choose the codes of all layers of at most 6 bits anew: inputs of a block from the model with these layers, those
 * already reconstructed and those not yet, targets from the model of floats (as Q-Diffusion's code does).  Codes must
 * be writable.  losses, if not NULL: [0] the sum over blocks of the loss before, relative to the block's output, [1]
 * after. */
ht_status ht_blocks_reconstruct(ht_model *model, const ht_calibration *calibration, ht_layer *layers, int n,
                                const ht_blocks_options *options, double losses[2]);

#endif
