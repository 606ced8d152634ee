/* share.h - chunks of work that several processes make in turn, and all take in. */
#ifndef HT_EVAL_SHARE_H
#define HT_EVAL_SHARE_H

#include <stddef.h>

#include "halftone.h"

enum { HT_SHARE_MESSAGE = 1024 }; /* of ht_error_message */

/* Equal blocks of bytes: the one that this part makes, and those of all parts in order, in one allocation. */
typedef struct ht_blocks {
    const ht_share *share;
    int part, parts;
    size_t bytes;
    void *mine;
    char *all; /* [parts][bytes]; mine itself if there is one part */
} ht_blocks;

/* share: NULL for one part.  bytes is rounded up, so that a block may begin with any type. */
ht_status ht_blocks_open(const ht_share *share, size_t bytes, ht_blocks *b);
void ht_blocks_close(ht_blocks *b); /* zeroed is allowed */

typedef struct ht_blocks_work {
    void (*make)(void *user, int64_t at, int n, void *block); /* work at .. at+n-1; a failure is put into the block */
    ht_status (*take)(void *user, const void *block);         /* in the order of the work, in every part */
    ht_status (*done)(void *user, int64_t done, int64_t all); /* so far, after every round */
    void *user;
} ht_blocks_work;

/* Work 0 .. all-1, `each` to a block.  Fails as take and done do, and with HT_ERR_CANCELLED if a part has stopped. */
ht_status ht_blocks_run(const ht_blocks *b, int64_t all, int each, const ht_blocks_work *w);

#endif
