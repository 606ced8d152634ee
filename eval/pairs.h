/* pairs.h - products of all pairs of vectors of two sets, a tile of pairs at a time. */
#ifndef HT_EVAL_PAIRS_H
#define HT_EVAL_PAIRS_H

#include "core/error.h"

enum { HT_PAIRS_ROWS = 384, HT_PAIRS_COLUMNS = 1024 }; /* of a tile */

typedef struct ht_pairs ht_pairs;

/* For vectors of dim numbers.  threads: 0: the processors this process may use. */
ht_status ht_pairs_open(int dim, int threads, ht_pairs **out);
void ht_pairs_close(ht_pairs *p); /* NULL is allowed */

/* A set of n vectors [n,dim]. */
typedef struct ht_vectors {
    int64_t n;
    int dim;
    const float *rows;
} ht_vectors;

/* One tile: rows first_a .. first_a+rows-1 of a with columns first_b .. of b; products[i * HT_PAIRS_COLUMNS + j]. */
typedef struct ht_pairs_tile {
    int64_t first_a, first_b;
    int rows, columns;
    const float *products;
} ht_pairs_tile;

typedef void ht_pairs_take(void *user, const ht_pairs_tile *tile);

/* a_i . b_j of all pairs in float32 (chains over the coordinates, cpu/reverse.h), handed on tile by tile, in the order
 * of a and within it of b: sums that take() makes do not depend on threads. */
ht_status ht_pairs_run(ht_pairs *p, const ht_vectors *a, const ht_vectors *b, ht_pairs_take *take, void *user);

#endif
