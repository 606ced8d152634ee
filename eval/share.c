/* share.c - what the parts of a share hand to each other: each makes its block, and gets all of them in order, so that
 * all take in the same in the same order. */
#include "eval/share.h"

#include <stdlib.h>

#include "core/arena.h"
#include "core/error.h"

ht_status ht_blocks_open(const ht_share *share, size_t bytes, ht_blocks *b)
{
    size_t all;
    *b = (ht_blocks){.share = share, .parts = 1};
    if (share && share->parts > 1) {
        b->part = share->part;
        b->parts = share->parts;
    }
    if (b->part < 0 || b->part >= b->parts)
        return ht_fail(HT_ERR_ARGUMENT, "part %d of %d: there is none of that number", b->part, b->parts);
    if (!ht_add_size(bytes, 15, &b->bytes) || !ht_mul_size(b->bytes &= ~(size_t)15, (size_t)b->parts, &all) ||
        !(b->mine = calloc(1, b->bytes)) || !(b->all = b->parts > 1 ? malloc(all) : b->mine)) {
        ht_blocks_close(b);
        return ht_fail(HT_ERR_MEMORY, "out of memory for what %d processes share", b->parts);
    }
    return HT_OK;
}

void ht_blocks_close(ht_blocks *b)
{
    if (b->all != b->mine)
        free(b->all);
    free(b->mine);
    *b = (ht_blocks){0};
}

static int64_t least(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

static ht_status exchange(const ht_blocks *b)
{
    if (b->parts > 1 && b->share->exchange(b->share->user, b->mine, b->bytes, b->all))
        return ht_fail(HT_ERR_CANCELLED, "stopped, as another process has, or was asked to");
    return HT_OK;
}

ht_status ht_blocks_run(const ht_blocks *b, int64_t all, int each, const ht_blocks_work *w)
{
    int64_t round = (int64_t)b->parts * each;
    ht_status status = HT_OK;
    for (int64_t at = 0; !status && at < all; at += round) {
        int64_t mine = at + (int64_t)b->part * each;
        if (mine < all)
            w->make(w->user, mine, (int)least(all - mine, each), b->mine);
        status = exchange(b);
        for (int part = 0; !status && part < b->parts && at + (int64_t)part * each < all; part++)
            status = w->take(w->user, b->all + (size_t)part * b->bytes);
        if (!status)
            status = w->done(w->user, least(at + round, all), all);
    }
    return status;
}
