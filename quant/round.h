/* round.h - which of the codes near it a weight gets: rounding against what the layer's inputs are like.
 *
 * With H = E[x x^T] of the layer's inputs, an output row w that became v errs by E[|(w - v) x|^2] = (w - v) H (w -
 * v)^T. Every method takes that quadratic and nothing else, so a layer needs no data but H, and rows need not each
 * other:
 *
 *     nearest        the nearest code, H only weighs the search for scales: the baseline
 *     gptq           one pass over the inputs, each rounding's error handed on to the inputs still to come
 *                    (GPTQ, arXiv:2210.17323, as the LDLQ of QuIP, arXiv:2307.13304)
 *     descent        coordinate descent from nearest: a weight moves to its best code given all others, until none does
 *     gptq+descent   the same from where GPTQ ends; the default of what Halftone ships
 *     adaround       AdaRound (arXiv:2004.10568): a relaxed choice between the two neighbours, by Adam
 *
 * The methods with descent also fit scales to codes; these and gptq can try scales beside those that were found.
 *
 * int4 on the second moments of two 3x3 convolutions of models/cifar10, signal to noise in dB, one core:
 *
 *                                         [128][1152]     [128][2304]
 *     nearest, min-max scales                23.0            23.6
 *     nearest, scales by HT_SCALE_MSE        25.2            27.0
 *     descent                                31.2            33.8
 *     adaround                               33.3 (42 s)
 *     gptq, act_order                        33.3            36.3
 *     gptq                                   33.6 (0.2 s)    36.7 (1.2 s)
 *     gptq+descent, keep_scales              33.8            36.9
 *     gptq+descent                           33.8 (0.3 s)    36.9 (1.4 s)
 *     gptq+descent, 3 candidates             34.1 (1.0 s)    37.1 (3.7 s)
 *
 *     ht_round_options o = {.method = HT_ROUND_GPTQ_DESCENT, .scale = HT_SCALE_MSE};
 *     ht_quantized_alloc(arena, &f, &matrix, &q);
 *     ht_round(&f, &matrix, moments, &o, &q, &error);       scales and codes */
#ifndef HT_QUANT_ROUND_H
#define HT_QUANT_ROUND_H

#include <stdbool.h>

#include "quant/format.h"

typedef enum ht_rounding {
    HT_ROUND_NEAREST,
    HT_ROUND_GPTQ,
    HT_ROUND_DESCENT,
    HT_ROUND_GPTQ_DESCENT,
    HT_ROUND_ADAROUND,
    HT_ROUNDINGS
} ht_rounding;

const char *ht_rounding_name(ht_rounding rounding); /* "nearest", "gptq", "descent", "gptq+descent", "adaround" */
int ht_rounding_find(const char *name);             /* the ht_rounding, or -1 */

/* Zero stands for the default in brackets. */
typedef struct ht_round_options {
    ht_rounding method;
    ht_scale_method scale;    /* the search for scales that comes first; weighed by the diagonal of H */
    double percentile;        /* of HT_SCALE_PERCENTILE */
    ht_scale_powers powers;   /* not free: scales stay as they were found too */
    bool keep_scales;         /* leave the scales as they were found */
    size_t moments_block;     /* of inputs: H is zero but for blocks of so many on its diagonal, all alike, and one of
                                 them is given; must divide the inputs [all of them] */
    int candidates;           /* of gptq and descent: scales a channel tries on either side of the one found [0] */
    int sweeps;               /* of descent, at most [32] */
    double dampening;         /* of gptq: added to H's diagonal, as a part of its mean [0.01] */
    bool act_order;           /* of gptq: its paper's order of inputs, by falling diagonal, not ours (gptq.c) */
    int iterations;           /* of adaround [1000] */
    double rate, weight;      /* of adaround: Adam's step, the weight of what makes choices hard [0.05, 20] */
    bool (*stop)(void *user); /* asked every few rows and passes; true ends the call with HT_ERR_CANCELLED [never] */
    void *user;

    /* Of gptq and descent: [out][out], E[g g^T] of the gradients of the model's error by the layer's outputs, times any
     * positive factor.  Rows are then rounded so that what reads them errs little (quant/coupled.c).  NULL: rows do not
     * know each other, all count alike. */
    const float *outputs;
} ht_round_options;

/* Sums over rows of (w - v) H (w - v)^T by those of w H w^T: noise to signal at the layer's output, before its bias.
 * With output moments G, sums over pairs of rows instead, each times G_nm. */
typedef struct ht_round_error {
    double before; /* nearest codes on the scales that the search found */
    double after;
    double signal; /* what both are relative to */
} ht_round_error;

/* Scales, zero points and codes of the whole weight, into the buffers of q.
 *
 * moments: float32 [in][in], symmetric, E[x x^T] times any positive factor; an input that is always 0 has a row and a
 * column of zeros.  With moments_block, [block][block]: what a 3x3 convolution of many channels sees, tap by tap. NULL:
 * as if inputs were independent and alike (the identity).  error may be NULL.
 *
 * HT_ERR_ARGUMENT, naming the layer, for an option out of range, for weights as ht_format_scales, and for moments that
 * are not finite, not symmetric, or that no inputs can have; HT_ERR_SHAPE as ht_format_measure; HT_ERR_MEMORY: one
 * matrix of [in][in] doubles is most of what is needed.  After an error what q holds is undefined.
 *
 * Deterministic, and a row's codes and scales depend on no other row (but through the tensor's scale of NVFP4).  Calls
 * may run side by side. */
ht_status ht_round(const ht_format *format, const ht_matrix *matrix, const float *moments,
                   const ht_round_options *options, ht_quantized *q, ht_round_error *error);

#endif
