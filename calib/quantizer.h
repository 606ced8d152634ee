/* quantizer.h - the state of ht_quantize, for the files that its steps are in. */
#ifndef HT_CALIB_QUANTIZER_H
#define HT_CALIB_QUANTIZER_H

#include "calib/layer_maker.h"

/* Shares of the work, in thousandths: what progress tells. */
enum {
    HT_SHARE_CALIBRATE = 200,
    HT_SHARE_MOMENTS = 100,
    HT_SHARE_SMOOTH = 50,
    HT_SHARE_OUTPUTS = 50,
    HT_SHARE_MAKE = 400,
    HT_SHARE_CHOOSE = 200,
    HT_SHARE_BLOCKS = 9000
};

typedef struct ht_made {
    ht_layer layer;
    ht_round_error error;
} ht_made;

typedef struct ht_quantizer {
    ht_arena *arena;
    ht_arena **arenas; /* [n]: of each layer, which threads make side by side */
    ht_model *model;
    ht_quantize_options given; /* with defaults */
    const ht_quantize_options *options;
    ht_scheme scheme;
    ht_round_options rounding;
    ht_scale_method observer;
    ht_calibration calibration;
    ht_products products;
    ht_choice *choices;        /* [n] */
    ht_input_moments *moments; /* [n] */
    const float **outputs;     /* [n], of output moments; NULL where there are none */
    bool *smoothed;            /* [n]: whose inputs are smoothed */
    ht_channel_ranges *ranges; /* [n], of these */
    const float **smooth;      /* [n], their factors */
    double *weights;           /* [groups] */
    ht_made *low, *wide;       /* [n]: at the scheme's width, and at 8 bits */
    ht_layer *layers;          /* [n_layers]: what is saved */
    int n_layers;
    double losses[2];       /* of blocks before and after reconstruction */
    const char *unfinished; /* the file that keeps blocks that are done */
    int before;             /* thousandths that are done */
    int group;              /* products that are made together, whose part of a share is told */
} ht_quantizer;

/* The part of a step's share that belongs to this group of products. */
int ht_quantizer_share(const ht_quantizer *q, int share);

/* Tell progress that `done` of `total` of a step that has this share are done; nonzero: the caller wants to stop. */
int ht_quantizer_advance(ht_quantizer *q, int share, int64_t done, int64_t total);

/* Make of the n products of list those layers that are quantized, at the width that their choice names, and also at 8
 * bits where they may be raised. */
ht_status ht_quantizer_make(ht_quantizer *q, const int *list, int n);

/* Whether the budget may raise layer i to 8 bits. */
bool ht_quantizer_may_widen(const ht_quantizer *q, int i);

/* Whether product i depends on more than timestep and condition. */
bool ht_quantizer_runs_every_step(const ht_quantizer *q, int i);

/* Of the branch that layer i has beside codes of the scheme's width; 0: none. */
int ht_quantizer_rank(const ht_quantizer *q, int i);

/* Leave the inputs of the most sensitive layers floats, and raise the most sensitive weights to 8 bits, by the measured
 * error of the model's output. */
ht_status ht_quantizer_choose(ht_quantizer *q);

/* The layer as it is chosen; NULL if it stays as it is. */
ht_layer *ht_quantizer_layer(const ht_quantizer *q, int i);

/* Bits of a weight on average, of all products, scales included. */
double ht_quantizer_bits(const ht_quantizer *q);

#endif
