/* layer_maker.h - one layer from its weight, its input's statistics and its moments. */
#ifndef HT_CALIB_LAYER_MAKER_H
#define HT_CALIB_LAYER_MAKER_H

#include "calib/moments.h"
#include "calib/ranges.h"
#include "calib/scheme.h"
#include "quant/round.h"

typedef struct ht_layer_request {
    const ht_model_product *product;
    const ht_format *format;
    const ht_format *input; /* NULL: inputs stay floats */
    bool dynamic, split;
    const ht_input_moments *moments; /* NULL: rounding to nearest */
    const float *smooth;             /* [channels] that inputs are multiplied by, and weights divided; NULL: none */
    const ht_channel_ranges *ranges; /* of the inputs before that */
    int rotate;                      /* channels of a group; 0: none */
    int rank;                        /* of the branch beside the codes; 0: none */
    ht_round_options rounding;
    ht_scale_method observer;
    double percentile;
    int groups; /* of timesteps; 0: the calibration's */
    const ht_calibration *calibration;
} ht_layer_request;

/* All memory from the arena, which only this call uses meanwhile.  error: of the output, as ht_round_error, over the
 * parts. */
ht_status ht_layer_make(ht_arena *arena, const ht_layer_request *request, ht_layer *layer, ht_round_error *error);

#endif
