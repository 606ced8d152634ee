/* scheme.h - what each layer of a model is to become: schemes name formats, layer sets say who gets them. */
#ifndef HT_CALIB_SCHEME_H
#define HT_CALIB_SCHEME_H

#include "calib/products.h"

/* How a layer is to be stored. */
typedef enum ht_width {
    HT_WIDTH_FLOAT, /* as it is */
    HT_WIDTH_LOW,   /* the scheme's weights */
    HT_WIDTH_WIDE   /* 8 bits */
} ht_width;

typedef enum ht_temporal { HT_TEMPORAL_CACHE, HT_TEMPORAL_QUANTIZED, HT_TEMPORAL_SELECT, HT_TEMPORALS } ht_temporal;

/* Formats that a layer can be tried in, beside the first. */
enum { HT_OTHERS = 7 };

typedef struct ht_scheme {
    ht_format low, wide, input;
    ht_format other[HT_OTHERS]; /* [n_other], as large as low: each layer takes the one that errs least */
    int n_other;
    ht_format fine; /* low with more scales, for the last layer, which has few outputs; name "": there is none */
    bool float_inputs;
    const char *layers; /* "default", "all", "tfmq" */
    ht_temporal temporal;
} ht_scheme;

/* From the options: HT_ERR_ARGUMENT names what is not in its table and what is. */
ht_status ht_scheme_make(const ht_quantize_options *options, ht_scheme *scheme);

typedef struct ht_choice {
    ht_width width;
    bool float_input;
    bool may_widen; /* under the budget */
    bool may_cache; /* if its features would be disturbed */
} ht_choice;

/* What a layer set says of a product, before the budget. */
ht_choice ht_scheme_choice(const ht_scheme *scheme, const ht_model_product *product);

#endif
