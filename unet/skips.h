/* skips.h - what the way down keeps for the way up, consumed last first. */
#ifndef HT_UNET_SKIPS_H
#define HT_UNET_SKIPS_H

#include "unet/unet2d.h"

typedef struct ht_skips {
    ht_value *at[1 + HT_UNET_MAX_LEVELS * (HT_UNET_MAX_LAYERS + 1)];
    int n;
} ht_skips;

static inline ht_value *ht_keep(ht_skips *s, ht_value *x)
{
    return s->at[s->n++] = x;
}

static inline ht_value *ht_take(ht_skips *s)
{
    return s->at[--s->n];
}

#endif
