/* statistics.h - what values an input of a layer takes: a histogram on a logarithmic axis that is the same for all, so
 * that counts of batches, timesteps and threads add up, and the exact ends.  Ranges for codes are found from it. */
#ifndef HT_CALIB_STATISTICS_H
#define HT_CALIB_STATISTICS_H

#include "quant/format.h"

/* Bins of |x|: HT_BINS_PER_OCTAVE from 2^HT_FIRST_OCTAVE up, for negative and for positive values; what is smaller
 * counts as zero, what is larger goes into the last. */
enum { HT_BINS_PER_OCTAVE = 16, HT_FIRST_OCTAVE = -14, HT_OCTAVES = 24, HT_SIDE = HT_BINS_PER_OCTAVE * HT_OCTAVES };
enum { HT_BINS = 2 * HT_SIDE + 1 }; /* negative from the largest down, zero, positive up */

typedef struct ht_input_statistics {
    float low, high; /* least and largest value, 0 at most and at least */
    uint32_t bin[HT_BINS];
} ht_input_statistics;

/* Count n values.  Returns false if one is not finite. */
bool ht_input_statistics_count(ht_input_statistics *s, size_t n, const float *x);

/* s += other; counts saturate. */
void ht_input_statistics_merge(ht_input_statistics *s, const ht_input_statistics *other);

/* Whether ends and counts can be of the same values: there are some, and the outermost are where the ends are. */
bool ht_input_statistics_agree(const ht_input_statistics *s);

/* The step and zero point of a format of codes for such an input (the format's grid, min-max of the range chosen):
 * standard and minmax take the ends; percentile cuts both at that of |x|; mse and l2.4 try both ends at 100 .. 21 % and
 * take the pair with the least sum of |x - q(x)|^p, a bin counting as its middle. */
ht_block ht_input_statistics_range(const ht_input_statistics *s, const ht_format *format, ht_scale_method method,
                                   double percentile);

#endif
