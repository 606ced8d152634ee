/* statistics.h - mean and covariance of feature vectors, gathered as they come. */
#ifndef HT_EVAL_STATISTICS_H
#define HT_EVAL_STATISTICS_H

#include "eval/moments.h"

typedef struct ht_statistics ht_statistics;

/* Of vectors of dim numbers; none yet. */
ht_status ht_statistics_open(int dim, ht_statistics **out);
void ht_statistics_close(ht_statistics *s); /* NULL is allowed */

int ht_statistics_dim(const ht_statistics *s);
int64_t ht_statistics_count(const ht_statistics *s);

/* Take in rows [n,dim].  The bits of the result depend on the vectors and their order alone, not on how many come in a
 * call.  HT_ERR_ARGUMENT names the first vector that is not finite; then none of the n is taken. */
ht_status ht_statistics_add(ht_statistics *s, int64_t n, const float *rows);

/* Take in all that `from` has, as if its vectors had come here, but for rounding.  HT_ERR_SHAPE if dim differs. */
ht_status ht_statistics_merge(ht_statistics *s, const ht_statistics *from);

/* Mean, and covariance divided by n - 1; more may be added afterwards.  HT_ERR_ARGUMENT if there are fewer than two. */
ht_status ht_statistics_moments(const ht_statistics *s, ht_moments *out);

#endif
