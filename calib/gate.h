/* gate.h - to which of two neighbours on the grid each weight of a layer is rounded, as variables that gradients move:
 * the rectified sigmoid of AdaRound (arXiv:2004.10568, eq. 21 to 24).
 *
 *     w = low + h(v) step,  h(v) = clip(1.2 sigmoid(v) - 0.1, 0, 1);      loss + weight sum(1 - |2 h - 1|^beta) */
#ifndef HT_CALIB_GATE_H
#define HT_CALIB_GATE_H

#include "quant/layer.h"

/* Of one layer, in the order [out][taps][in]. */
typedef struct ht_gates {
    size_t n;
    float *low, *step;      /* step 0: there is no choice */
    float *v;               /* the variables */
    float *mean, *square;   /* Adam's moments (arXiv:1412.6980) */
    uint8_t *below, *above; /* codes */
} ht_gates;

/* Gates between the neighbours of weights [out][taps][in] on the layer's scales, in the arena.
 * confidence 0: the soft weights are the weights.  Else the layer's codes are where they start, h being confidence away
 * from the other neighbour (0.5 .. 1): that on the weight's side of the code. */
ht_status ht_gates_make(ht_arena *arena, const ht_layer *layer, const float *weights, double confidence,
                        ht_gates *gates);

typedef struct ht_gate_step {
    int64_t number; /* from 1 */
    double rate;    /* of Adam */
    double weight;  /* of the term that makes gates decide; 0: not there */
    double beta;
} ht_gate_step;

/* One step of Adam of gates [begin, end), by the gradient of the loss by the soft weights; then those. */
void ht_gates_move(const ht_gates *gates, const ht_gate_step *step, const float *gradient, size_t begin, size_t end,
                   float *weights);

/* The soft weights of gates [begin, end). */
void ht_gates_weights(const ht_gates *gates, size_t begin, size_t end, float *weights);

/* The nearer neighbours into the layer's codes; the number of codes that changed. */
ht_status ht_gates_decide(const ht_gates *gates, const ht_layer *layer, int64_t *changed);

#endif
