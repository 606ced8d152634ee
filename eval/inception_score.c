/* inception_score.c - the Inception Score.  KL(p || q) = sum p (log p - log q), log p from log-softmax. */
#include "eval/inception_score.h"

#include <math.h>
#include <stdlib.h>

/* log softmax of an image's logits. */
static void log_softmax(const float *logits, int n, double *out)
{
    double largest = (double)logits[0], sum = 0;
    for (int i = 1; i < n; i++)
        largest = fmax(largest, (double)logits[i]);
    for (int i = 0; i < n; i++)
        sum += exp((double)logits[i] - largest);
    for (int i = 0; i < n; i++)
        out[i] = (double)logits[i] - largest - log(sum);
}

/* Of images first .. end-1.  log_p, mean: [dim], scratch. */
static double score(const ht_vectors *v, const int64_t *order, int64_t first, int64_t end, double *log_p, double *mean)
{
    double kl = 0, n = (double)(end - first);
    for (int i = 0; i < v->dim; i++)
        mean[i] = 0;
    for (int64_t k = first; k < end; k++) { /* sum p log p of each, and the mean of p */
        log_softmax(v->rows + (order ? order[k] : k) * v->dim, v->dim, log_p);
        for (int i = 0; i < v->dim; i++) {
            double p = exp(log_p[i]);
            kl += p > 0 ? p * log_p[i] / n : 0;
            mean[i] += p / n;
        }
    }
    for (int i = 0; i < v->dim; i++)
        kl -= mean[i] > 0 ? mean[i] * log(mean[i]) : 0;
    return exp(kl);
}

ht_status ht_inception_score_of(const ht_vectors *logits, const int64_t *order, int splits, ht_inception_score *out)
{
    ht_inception_score s = {.splits = splits ? splits : 10};
    if (logits->n < 1 || s.splits < 1 || s.splits > logits->n)
        return ht_fail(HT_ERR_ARGUMENT, "Inception Score of %lld images in %d splits; wanted an image a split at least",
                       (long long)logits->n, s.splits);
    double *scratch = calloc((size_t)logits->dim * 2 + (size_t)s.splits, sizeof *scratch);
    if (!scratch)
        return ht_fail(HT_ERR_MEMORY, "out of memory for the Inception Score");
    double *values = scratch + 2 * (size_t)logits->dim, squares = 0;
    for (int i = 0; i < s.splits; i++) {
        int64_t first = logits->n * i / s.splits, end = logits->n * (i + 1) / s.splits;
        values[i] = score(logits, order, first, end, scratch, scratch + logits->dim);
        s.mean += values[i] / s.splits;
    }
    for (int i = 0; i < s.splits; i++)
        squares += (values[i] - s.mean) * (values[i] - s.mean);
    s.deviation = sqrt(squares / s.splits);
    free(scratch);
    *out = s;
    return HT_OK;
}
