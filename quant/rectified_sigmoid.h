/* rectified_sigmoid.h - AdaRound's relaxed choice between two codes (arXiv:2004.10568, eq. 23):
 * h(v) = clip(1.2 sigmoid(v) - 0.1, 0, 1), which, unlike a sigmoid, reaches 0 and 1. */
#ifndef HT_QUANT_RECTIFIED_SIGMOID_H
#define HT_QUANT_RECTIFIED_SIGMOID_H

#include "core/elementary.h"

#define HT_GATE_STRETCH 1.2
#define HT_GATE_OFFSET  (-0.1)

/* The v of which h, 0 .. 1, is the gate. */
static inline double ht_gate_logit(double h)
{
    double sigmoid = (h - HT_GATE_OFFSET) / HT_GATE_STRETCH;
    return ht_log(sigmoid / (1 - sigmoid));
}

/* h before it is clipped, of a sigmoid. */
static inline double ht_gate_raw(double sigmoid)
{
    return HT_GATE_STRETCH * sigmoid + HT_GATE_OFFSET;
}

#endif
