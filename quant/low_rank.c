/* low_rank.c - the best product of two thin matrices for a weight.
 *
 * With U the eigenvectors of W W^T's largest eigenvalues, U U^T W is the nearest matrix of this rank (Eckart and Young
 * 1936): so up = U, down = U^T W.  That is the singular value decomposition of SVDQuant; nearest in the norm of the
 * layer's outputs, W H W^T in the place of W W^T, is worse: what is left is then quantized, and that errs by how large
 * it is, whatever its inputs are.  Rank 8 beside int4 on models/emoji-dit, geometric mean of its layers' errors after
 * gptq+descent: no branch 1.70e-3, by outputs 1.28e-3, plain 1.16e-3.
 *
 * U by orthogonal iteration from fixed numbers (Golub and Van Loan, section 8.2.4), in double and in a fixed order: the
 * same bits on every machine, which LAPACK does not promise.  Eigenvalues that lie close are not told apart after 40
 * steps; they do not matter either.  Both factors are rounded to float16, a power of two moved between them so that
 * `down` is near 1; what that rounding costs stays in what is left of the weight, and is quantized with it. */
#include "quant/low_rank.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "quant/dense.h"

enum { STEPS = 40 };

static double dot(size_t n, const double *a, const double *b)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += a[i] * b[i];
    return sum;
}

/* Rows of q become orthonormal, twice for accuracy; one that depends on those before becomes 0. */
static void orthonormalize(size_t rows, size_t n, double *q)
{
    for (size_t i = 0; i < rows; i++) {
        double *row = q + i * n, before = sqrt(dot(n, row, row));
        for (int pass = 0; pass < 2; pass++)
            for (size_t k = 0; k < i; k++)
                ht_add_scaled(n, -dot(n, row, q + k * n), q + k * n, row);
        double after = sqrt(dot(n, row, row)), scale = after > before * 1e-12 ? 1 / after : 0;
        for (size_t k = 0; k < n; k++)
            row[k] *= scale;
    }
}

/* q[rank][out]: eigenvectors of the largest eigenvalues of W W^T, which is never made: W is wide or tall, and W^T q
 * thin. turned: W^T.  scratch: [rank][in]. */
static void iterate(size_t rank, size_t out, size_t in, const double *w, const double *turned, double *q,
                    double *scratch)
{
    uint32_t state = 1;
    for (size_t i = 0; i < rank * out; i++) {
        state ^= state << 13; /* xorshift32, Marsaglia 2003 */
        state ^= state >> 17;
        state ^= state << 5;
        q[i] = (double)state / 2147483648.0 - 1;
    }
    for (int step = 0; step < STEPS; step++) {
        memset(scratch, 0, rank * in * sizeof *scratch);
        ht_product_add(&(ht_product){rank, out, in, q, w, scratch, out, in, in});
        memset(q, 0, rank * out * sizeof *q);
        ht_product_add(&(ht_product){rank, in, out, scratch, turned, q, in, out, out});
        orthonormalize(rank, out, q);
    }
}

static float to_half(double x)
{
    return ht_f32_from_f16(ht_f16_from_f32((float)x));
}

/* up and down from q, each row's power of two moved so that down's largest is at most 1. */
static void split(const ht_matrix *m, size_t rank, const double *q, const double *w, double *product, float *up,
                  float *down)
{
    memset(product, 0, rank * m->in * sizeof *product);
    ht_product_add(&(ht_product){rank, m->out, m->in, q, w, product, m->out, m->in, m->in});
    for (size_t r = 0; r < rank; r++) {
        double most = 0;
        int exponent = 0;
        for (size_t i = 0; i < m->in; i++)
            most = fmax(most, fabs(product[r * m->in + i]));
        frexp(most, &exponent);
        exponent = exponent > 15 ? 15 : exponent < -30 ? -30 : exponent; /* what up has room for */
        for (size_t i = 0; i < m->in; i++)
            down[r * m->in + i] = to_half(ldexp(product[r * m->in + i], -exponent));
        for (size_t n = 0; n < m->out; n++)
            up[n * rank + r] = to_half(ldexp(q[r * m->out + n], exponent));
    }
}

ht_status ht_low_rank(const ht_matrix *m, int rank, float *up, float *down)
{
    size_t out = m->out, in = m->in, n = (size_t)rank;
    if (rank < 1 || rank > HT_MOST_RANK || n >= out || n >= in)
        return ht_fail(HT_ERR_ARGUMENT,
                       "%s: a branch of rank %d; wanted 1 to %d, and less than its %zu inputs and %zu outputs", m->name,
                       rank, HT_MOST_RANK, in, out);
    double *w = malloc(out * in * sizeof *w), *turned = malloc(out * in * sizeof *turned),
           *q = malloc(n * out * sizeof *q), *thin = malloc(n * in * sizeof *thin);
    ht_status status = HT_OK;
    if (!w || !turned || !q || !thin) {
        status = ht_fail(HT_ERR_MEMORY, "%s: out of memory for a branch of %zu x %zu weights", m->name, out, in);
        goto done;
    }
    for (size_t i = 0; i < out * in; i++)
        turned[i % in * out + i / in] = w[i] = m->values[i];
    iterate(n, out, in, w, turned, q, thin);
    split(m, n, q, w, thin, up, down);
done:
    free(thin);
    free(q);
    free(turned);
    free(w);
    return status;
}

void ht_low_rank_subtract(size_t out, size_t in, int rank, const float *up, const float *down, float *values)
{
    for (size_t n = 0; n < out; n++)
        for (int r = 0; r < rank; r++) {
            float u = up[n * (size_t)rank + (size_t)r];
            for (size_t i = 0; i < in; i++)
                values[n * in + i] -= u * down[(size_t)r * in + i];
        }
}

double ht_output_signal(const ht_matrix *m, const float *moments, size_t span)
{
    enum { ROWS = 16 };
    size_t n = moments ? span : m->in;
    double sum = 0, *h = moments ? malloc(n * n * sizeof *h) : NULL, *w = malloc(2 * ROWS * n * sizeof *w);
    if (!w || (moments && !h)) {
        free(h);
        free(w);
        return -1;
    }
    for (size_t i = 0; moments && i < n * n; i++)
        h[i] = moments[i];
    for (size_t at = 0; at < m->out * m->in; at += ROWS * n) { /* spans follow one another, row after row */
        size_t left = (m->out * m->in - at) / n, rows = left < ROWS ? left : ROWS;
        for (size_t i = 0; i < rows * n; i++)
            w[i] = m->values[at + i];
        memset(w + ROWS * n, 0, ROWS * n * sizeof *w);
        if (moments)
            ht_product_add(&(ht_product){rows, n, n, w, h, w + ROWS * n, n, n, n});
        sum += dot(rows * n, w, moments ? w + ROWS * n : w);
    }
    free(h);
    free(w);
    return sum;
}
