/* rotate.c - the rotation by stages of four, as the fast Walsh-Hadamard transform goes by two: one stage for each digit
 * of a channel's number in base 4.  Every stage halves, so that the whole is over the root of the group's size. */
#include "quant/rotate.h"

bool ht_rotates(int group)
{
    int size = 4;
    while (size < group)
        size *= 4;
    return size == group && size <= HT_MOST_ROTATED;
}

void ht_rotate(size_t n, int group, float *x)
{
    for (size_t stride = 1; stride < (size_t)group; stride *= 4)
        for (size_t block = 0; block < n; block += 4 * stride)
            for (size_t i = block; i < block + stride; i++) {
                float a = x[i], b = x[i + stride], c = x[i + 2 * stride], d = x[i + 3 * stride];
                x[i] = ((a + b) + (c - d)) * 0.5f;
                x[i + stride] = ((a + b) - (c - d)) * 0.5f;
                x[i + 2 * stride] = ((a - b) + (c + d)) * 0.5f;
                x[i + 3 * stride] = ((b - a) + (c + d)) * 0.5f;
            }
}
