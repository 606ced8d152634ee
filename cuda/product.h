/* product.h - what the files of product kernels share on the host: what is derived from a product's arguments, and the
 * launch of each family. */
#ifndef HT_CUDA_PRODUCT_H
#define HT_CUDA_PRODUCT_H

#include "cuda/device.h"
#include "cuda/pick.h"

/* The depth in memory is cut into units of 64 bytes of an activation, two of which are a stage of the pipeline.  Packed
 * weights are, for each group of 64 columns, its units one after the other; a unit is two steps of 32 bytes:
 *
 *     step 0: fragment 0, 1, 2, 3    step 1: fragment 0, 1, 2, 3
 *
 * A fragment is what a warp gives mma as A (m16n8k32 of bytes, m16n8k16 of halves): 16 columns, of which lane l holds,
 * of columns 8 (l / 4) + 2 fragment (+ 1) of the group,
 *
 *     column, bytes 4 (l % 4) .. + 3    column + 1, the same    column, 16 bytes further    column + 1, likewise
 *
 * 16 bytes in all, lanes one after the other.  So over its four fragments a lane has 8 neighbouring columns, which it
 * writes at once.  Of 4-bit codes a lane has 8 bytes: a word holds columns' two groups of four codes, in the order of
 * their nibbles, or even and odd nibbles if they are widened without a table (ht_widen_plain). */
enum { HT_UNIT = 64, HT_STAGE = 128, HT_GROUP = 64, HT_UNIT_CODES = HT_GROUP * HT_UNIT };

enum { HT_INT4_SHIFT = 4 }; /* ht_widen_plain makes 16 times the value */

typedef enum ht_family {
    HT_FAMILY_PLAIN, /* one thread, one output: anything */
    HT_FAMILY_SIMT,  /* tiles of float32 arithmetic */
    HT_FAMILY_ROWS,  /* a warp a column: a linear layer of one row per image */
    HT_FAMILY_MMA
} ht_family;

typedef struct ht_plan {
    ht_cuda_product p;
    ht_family family;
    int plain_int4; /* values are two's complement */
    int element;    /* bytes of an activation */
    int taps;
    int bytes[2];   /* of the channels of X and X2 */
    int padded[2];  /* likewise, filled up to the channel step */
    int units[2];   /* of X, of X2 */
    int unit_bytes; /* of packed weights */
    int groups, cols_padded;
    int64_t k_stored;
    int stages;   /* of the whole depth */
    int segments; /* of the weights' scales */
    int flat;     /* one tap at each pixel of X */
    ht_pick pick;
    int group_tiles;
    int64_t tiles;
    unsigned *counters; /* of splits that are done, by tile; 0 between launches */
} ht_plan;

int ht_product_has_wgmma(void); /* the module was built for sm_90a */
int ht_product_launch_simt(const ht_plan *plan);
int ht_product_launch_rows(const ht_plan *plan);
int ht_product_launch_plain(const ht_plan *plan);
int ht_product_launch_f16(const ht_plan *plan);
int ht_product_launch_s8(const ht_plan *plan);
int ht_product_launch_s4(const ht_plan *plan);
int ht_product_launch_e4m3(const ht_plan *plan);
int ht_product_launch_f4(const ht_plan *plan);

#endif
