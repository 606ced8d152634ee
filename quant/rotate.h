/* rotate.h - a blockwise Hadamard rotation of channels: what is large in one of them is spread over its group, and so
 * easier to quantize.  Weights and inputs that are both rotated have the same products. */
#ifndef HT_QUANT_ROTATE_H
#define HT_QUANT_ROTATE_H

#include <stdbool.h>
#include <stddef.h>

enum { HT_MOST_ROTATED = 1024 };

/* Whether groups can be of this size: a power of 4 up to HT_MOST_ROTATED, above 1. */
bool ht_rotates(int group);

/* x, n numbers in groups, becomes R x: in every group the regular Hadamard matrix, which is the Kronecker product of
 *
 *      1  1  1 -1
 *      1  1 -1  1
 *      1 -1  1  1
 *     -1  1  1  1
 *
 * with itself, over the root of its size.  It is symmetric and its own inverse.  n is a multiple of group.  (ConvRot,
 * as ComfyUI's int8 checkpoints have it.) */
void ht_rotate(size_t n, int group, float *x);

#endif
