/* layer.h - how one layer of a model is quantized: what its weights are stored in, and what its inputs become before
 * they meet them.  Nothing here knows a model or a file.
 *
 * A layer is a convolution or a linear map, weight [out,in] or [out,in,k,k].  Where it reads a concatenation it may
 * have two parts, each with its own parameters for weights and inputs (split shortcut, Q-Diffusion arXiv:2302.04304
 * section 3.3.2). */
#ifndef HT_QUANT_LAYER_H
#define HT_QUANT_LAYER_H

#include "quant/format.h"
#include "quant/softmax.h"

typedef enum ht_input_mode {
    HT_INPUT_FLOAT,  /* as they come: only weights are quantized */
    HT_INPUT_STATIC, /* a table by timestep, or one row for all */
    HT_INPUT_DYNAMIC /* min-max as they come: of each token of a linear layer, of each image of a convolution */
} ht_input_mode;

const char *ht_input_mode_name(ht_input_mode mode); /* "float", "static", "dynamic" */
int ht_input_mode_find(const char *name);           /* the ht_input_mode, or -1 */

/* Step and zero point of an input by group of timesteps: value = step * (code - zero).  A timestep belongs to the group
 * whose own is nearest, of two the earlier. */
typedef struct ht_input_table {
    int groups;               /* 1: the same at every timestep */
    const float *timesteps;   /* [groups]; NULL if there is one */
    const float *step, *zero; /* [groups]; steps are positive, zeros whole, 0 where the format has no zero point */
} ht_input_table;

typedef struct ht_layer_part {
    int64_t begin, count; /* input channels */
    ht_quantized weight;  /* [out][taps * count], input k = tap * count + channel */
    ht_input_table input; /* of HT_INPUT_STATIC */
    const float *smooth;  /* [count]: what inputs are multiplied by, channel by channel, before they become codes; the
                             weight was divided by it (SmoothQuant, arXiv:2211.10438).  NULL: they are not */
} ht_layer_part;

typedef struct ht_layer {
    const char *name; /* "down_blocks.0.resnets.0.conv1": the weight is called NAME.weight */
    int ndim;
    int64_t shape[4]; /* of the weight as the model has it */
    ht_format format; /* of the weights */
    ht_format input;  /* of the inputs' codes unless mode is HT_INPUT_FLOAT */
    ht_input_mode mode;
    int parts; /* 1 or 2 */
    ht_layer_part part[2];
    int rank; /* of a branch of float16 beside the codes: y = codes' product + up (down x).  0: there is none */
    const uint16_t *down; /* [rank,in] or [rank,in,k,k], of the smoothed inputs; float16 */
    const uint16_t *up;   /* [out,rank] */
    int rotate;   /* channels of a group that is rotated (quant/rotate.h), weights and, after smoothing, inputs; 0: none
                   */
    double error; /* of the layer's output, squared and relative, measured when it was made; negative: not known */
} ht_layer;

typedef struct ht_layers {
    const ht_layer *layer;
    int n;
    ht_softmax_format softmax; /* of every attention of the model */
} ht_layers;

const ht_layer *ht_layers_find(const ht_layers *layers, const char *name); /* NULL if absent; layers may be NULL */

/* How much of a weight's name is its layer's: all but ".weight". */
size_t ht_layer_name_length(const char *weight);

/* The layer of a weight's name, "NAME.weight"; NULL if absent. */
const ht_layer *ht_layers_of_weight(const ht_layers *layers, const char *weight);

int64_t ht_layer_outputs(const ht_layer *layer);
int64_t ht_layer_inputs(const ht_layer *layer); /* channels */
int64_t ht_layer_taps(const ht_layer *layer);   /* kernel * kernel */

/* Weights of part p as a matrix to quantize; values NULL. */
ht_matrix ht_layer_matrix(const ht_layer *layer, int p);

/* Whether the product of weights and inputs is a sum of integers: weights on a grid whose values are whole multiples of
 * its unit, at most 127 of them; inputs as codes of at most 8 bits. */
bool ht_layer_is_integer(const ht_layer *layer);

/* Whether the values of a weight format are whole multiples of the grid's unit and fit int8; unit: that multiple. */
bool ht_grid_is_integer(const ht_grid *grid);

/* n values of the weight from element `first` on, in the checkpoint's order [out][in][taps], dequantized. */
void ht_layer_values(const ht_layer *layer, size_t first, size_t n, float *values);

/* Row of the table that a timestep takes. */
int ht_input_group(const ht_input_table *table, float timestep);

/* Bits a weight of the layer takes with its scales. */
double ht_layer_bits(const ht_layer *layer);

/* Everything but names and files: parts cover the inputs, tables are positive and finite, weights as ht_format_check.
 * HT_ERR_FORMAT naming the layer. */
ht_status ht_layer_check(const ht_layer *layer);

#endif
