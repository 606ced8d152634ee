/* dense.c - matrix products and a blocked Cholesky factorization in double.
 *
 * A tile of the result stays in registers while k runs; each of its elements is one sum in the order of k, one rounding
 * for the product and one for the sum, whatever the width of the registers.  That is why there is no fused
 * multiply-add, and why the same source may be compiled for three instruction sets.  GCC does not keep plain arrays in
 * registers here (a tenth of the speed), so the tile is of vectors.
 *
 * Cholesky, right-looking by blocks, with symmetric pivoting as LAPACK's dpstrf (Lucas, LAPACK working note 161) but
 * for the smallest pivot: a panel of columns is factored while the diagonal of what is left is kept up to date, then
 * the panel's product with its own transpose is taken from the rest. */
#include "quant/dense.h"

#include <math.h>

#define CLONES __attribute__((target_clones("avx512f", "avx2", "default")))
#define INLINE static inline __attribute__((always_inline))

enum { TALL = 4, VECTOR = 4, VECTORS = 2, WIDE = VECTOR * VECTORS };

typedef double vector __attribute__((vector_size(VECTOR * sizeof(double)), aligned(sizeof(double)), may_alias));

INLINE void whole_tile(const ht_product *p, size_t i, size_t j)
{
    const double *a = p->a + i * p->a_stride, *b = p->b + j;
    double *out = p->out + i * p->out_stride + j;
    vector sum[TALL][VECTORS];
    for (size_t r = 0; r < TALL; r++)
        for (size_t v = 0; v < VECTORS; v++)
            sum[r][v] = *(const vector *)(out + r * p->out_stride + v * VECTOR);
    for (size_t k = 0; k < p->depth; k++, b += p->b_stride)
        for (size_t r = 0; r < TALL; r++)
            for (size_t v = 0; v < VECTORS; v++)
                sum[r][v] += a[r * p->a_stride + k] * *(const vector *)(b + v * VECTOR);
    for (size_t r = 0; r < TALL; r++)
        for (size_t v = 0; v < VECTORS; v++)
            *(vector *)(out + r * p->out_stride + v * VECTOR) = sum[r][v];
}

/* Rows i .. end of the columns from j on, where no whole tile fits. */
INLINE void edge(const ht_product *p, size_t i, size_t end, size_t j)
{
    for (; i < end; i++)
        for (size_t k = 0; k < p->depth; k++) {
            double x = p->a[i * p->a_stride + k];
            for (size_t c = j; c < p->columns; c++)
                p->out[i * p->out_stride + c] += x * p->b[k * p->b_stride + c];
        }
}

CLONES void ht_product_add(const ht_product *p)
{
    size_t tall = p->rows - p->rows % TALL, wide = p->columns - p->columns % WIDE;
    for (size_t i = 0; i < tall; i += TALL)
        for (size_t j = 0; j < wide; j += WIDE)
            whole_tile(p, i, j);
    edge(p, 0, tall, wide);
    edge(p, tall, p->rows, 0);
}

CLONES void ht_add_scaled(size_t n, double a, const double *restrict x, double *restrict y)
{
    for (size_t i = 0; i < n; i++)
        y[i] += a * x[i];
}

CLONES void ht_add_scaled_f32(size_t n, double a, const float *restrict x, double *restrict y)
{
    for (size_t i = 0; i < n; i++)
        y[i] += a * (double)x[i];
}

/* ---- Cholesky ---- */

typedef struct factoring {
    size_t n, from, to;  /* the panel's columns */
    double *a, *columns; /* the panel transposed, [HT_CHOLESKY_PANEL][n], its parts below the diagonal */
    double *left;        /* [n], of the diagonal */
    size_t *order;
} factoring;

static void swap(double *x, double *y)
{
    double t = *x;
    *x = *y;
    *y = t;
}

/* Rows and columns j < q, j in the panel, in the lower triangle. */
static void swap_inputs(const factoring *f, size_t j, size_t q)
{
    size_t n = f->n, t = f->order[j];
    f->order[j] = f->order[q];
    f->order[q] = t;
    swap(&f->left[j], &f->left[q]);
    swap(&f->a[j * n + j], &f->a[q * n + q]);
    for (size_t k = 0; k < j; k++)
        swap(&f->a[j * n + k], &f->a[q * n + k]);
    for (size_t i = j + 1; i < q; i++)
        swap(&f->a[i * n + j], &f->a[q * n + i]);
    for (size_t i = q + 1; i < n; i++)
        swap(&f->a[i * n + j], &f->a[i * n + q]);
    for (size_t k = 0; k < j - f->from; k++)
        swap(&f->columns[k * n + j], &f->columns[k * n + q]);
}

static void choose_pivot(const factoring *f, size_t j)
{
    size_t least = j;
    for (size_t i = j + 1; i < f->n; i++)
        least = f->left[i] < f->left[least] ? i : least;
    if (least != j)
        swap_inputs(f, j, least);
}

static void finish_column(const factoring *f, size_t j)
{
    size_t n = f->n, below = n - j - 1;
    double *column = f->columns + (j - f->from) * n, pivot = sqrt(f->left[j]);
    for (size_t i = j + 1; i < n; i++)
        column[i] = f->a[i * n + j];
    for (size_t k = 0; k < j - f->from; k++)
        ht_add_scaled(below, -f->columns[k * n + j], f->columns + k * n + j + 1, column + j + 1);
    f->a[j * n + j] = pivot;
    for (size_t i = j + 1; i < n; i++) {
        column[i] /= pivot;
        f->left[i] -= column[i] * column[i];
        f->a[i * n + j] = column[i];
    }
}

/* What the panel leaves of the rest. */
static void take_away(const factoring *f)
{
    size_t n = f->n, to = f->to, width = to - f->from;
    for (size_t k = 0; k < width; k++)
        for (size_t i = to; i < n; i++)
            f->columns[k * n + i] = -f->columns[k * n + i];
    for (size_t i = to; i < n; i += HT_CHOLESKY_PANEL) { /* rows i .., as far as their diagonal */
        size_t rows = n - i < HT_CHOLESKY_PANEL ? n - i : HT_CHOLESKY_PANEL;
        ht_product_add(&(ht_product){rows, width, i + rows - to, f->a + i * n + f->from, f->columns + to,
                                     f->a + i * n + to, n, n, n});
    }
}

bool ht_cholesky(size_t n, double *a, size_t *order, double least, double *scratch)
{
    factoring f = {n, 0, 0, a, scratch, scratch + HT_CHOLESKY_PANEL * n, order};
    for (; f.from < n; f.from = f.to) {
        f.to = n - f.from < HT_CHOLESKY_PANEL ? n : f.from + HT_CHOLESKY_PANEL;
        for (size_t i = f.from; i < n; i++)
            f.left[i] = a[i * n + i];
        for (size_t j = f.from; j < f.to; j++) {
            if (order)
                choose_pivot(&f, j);
            if (!(f.left[j] > least)) /* NaN too */
                return false;
            finish_column(&f, j);
        }
        take_away(&f);
    }
    return true;
}
