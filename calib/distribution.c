/* distribution.c - which steps of a trajectory give calibration samples. */
#include <math.h>
#include <string.h>

#include "calib/calibration.h"
#include "core/rng.h"

static const char *const names[HT_DISTRIBUTIONS] = {"uniform", "quad", "normal", "all", "one"};

const char *ht_distribution_name(int distribution)
{
    return distribution >= 0 && distribution < HT_DISTRIBUTIONS ? names[distribution] : NULL;
}

int ht_distribution_find(const char *name)
{
    for (int i = 0; i < HT_DISTRIBUTIONS; i++)
        if (!strcmp(name, names[i]))
            return i;
    return -1;
}

/* Draws around 0.4 of the way with half the way as deviation, those outside drawn again: PTQ4DM eq. 9 and its best
 * mean. */
static void draw_normal(int steps, int draws, uint64_t seed, int *counts)
{
    uint32_t turn = 0;
    for (int taken = 0; taken < draws;) {
        float z[64];
        ht_image_randn(seed, 0, turn++, 64, z);
        for (int i = 0; i < 64 && taken < draws; i++) {
            double at = floor((0.4 + 0.5 * (double)z[i]) * steps);
            if (at < 0 || at >= steps)
                continue;
            counts[(int)at]++;
            taken++;
        }
    }
}

void ht_distribution_counts(ht_distribution distribution, int steps, int chosen, int each, uint64_t seed, int *counts)
{
    memset(counts, 0, (size_t)steps * sizeof *counts);
    chosen = chosen < steps ? chosen : steps;
    if (distribution == HT_DISTRIBUTION_ALL)
        chosen = steps;
    for (int i = 0; i < chosen; i++) {
        double way = ((double)i + 0.5) / chosen;
        int at = (int)(way * steps);
        if (distribution == HT_DISTRIBUTION_QUAD)
            at = (int)((1 - (1 - way) * (1 - way)) * steps);
        if (distribution == HT_DISTRIBUTION_UNIFORM || distribution == HT_DISTRIBUTION_ALL ||
            distribution == HT_DISTRIBUTION_QUAD)
            counts[at] = each;
    }
    if (distribution == HT_DISTRIBUTION_ONE)
        counts[steps / 2] = each;
    if (distribution == HT_DISTRIBUTION_NORMAL)
        draw_normal(steps, chosen * each, seed, counts);
}
