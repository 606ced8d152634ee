/* dense.h - the linear algebra of rounding: matrix products and Cholesky's factor, in double.
 * All sums run in the order of their index, so bits are the same on every machine. */
#ifndef HT_QUANT_DENSE_H
#define HT_QUANT_DENSE_H

#include <stdbool.h>
#include <stddef.h>

/* out[i][j] += sum over k of a[i][k] * b[k][j], k rising.  Rows lie `stride` apart.  out overlaps neither. */
typedef struct ht_product {
    size_t rows, depth, columns;
    const double *a, *b;
    double *out;
    size_t a_stride, b_stride, out_stride;
} ht_product;

void ht_product_add(const ht_product *p);

/* y[i] += a * x[i] */
void ht_add_scaled(size_t n, double a, const double *x, double *y);
void ht_add_scaled_f32(size_t n, double a, const float *x, double *y);

enum { HT_CHOLESKY_PANEL = 64 };

/* a, [n][n] symmetric and positive definite, becomes L L^T = a: L in the lower triangle, what is above is destroyed.
 * Only the lower triangle is read.  With an order ([n], NULL: none), rows and columns are swapped so that every pivot
 * is the smallest that is left, and the order's entries with them.  scratch: [HT_CHOLESKY_PANEL + 1][n].  False, at a
 * pivot that is not above `least`. */
bool ht_cholesky(size_t n, double *a, size_t *order, double least, double *scratch);

#endif
