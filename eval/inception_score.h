/* inception_score.h - the Inception Score: how sure a classifier is of each image, and how many classes there are. */
#ifndef HT_EVAL_INCEPTION_SCORE_H
#define HT_EVAL_INCEPTION_SCORE_H

#include "eval/pairs.h"

typedef struct ht_inception_score {
    double mean, deviation; /* over the splits */
    int splits;
} ht_inception_score;

/* exp(mean over images of KL(p(y|x) || p(y))) (Salimans et al., arXiv:1606.03498, section 4) in double, of each of
 * `splits` (0 means 10; no more than there are images) parts of the logits, p = softmax of them; order: the images in
 * the order in which they are split (NULL: as they are). HT_ERR_ARGUMENT without images, or more splits than images. */
ht_status ht_inception_score_of(const ht_vectors *logits, const int64_t *order, int splits, ht_inception_score *out);

#endif
