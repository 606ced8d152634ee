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

/* The step of the i-th of `chosen`, before collisions. */
static int step_at(ht_distribution distribution, int steps, int chosen, int i)
{
    double way = ((double)i + 0.5) / chosen;
    if (distribution == HT_DISTRIBUTION_QUAD)
        way = 1 - (1 - way) * (1 - way);
    return (int)(way * steps);
}

/* quad is denser than the steps at its end: where two would fall together the earlier ones make room, so that there are
 * as many as were asked for.  From the last back: there is room, for step_at(i) >= i where chosen <= steps. */
static void spread(ht_distribution distribution, int steps, int chosen, int each, int *counts)
{
    int next = steps;
    for (int i = chosen; i-- > 0;) {
        int at = step_at(distribution, steps, chosen, i);
        next = at < next ? at : next - 1;
        counts[next] = each;
    }
}

void ht_distribution_counts(ht_distribution distribution, int steps, int chosen, int each, uint64_t seed, int *counts)
{
    memset(counts, 0, (size_t)steps * sizeof *counts);
    chosen = chosen < steps ? chosen : steps;
    switch (distribution) {
    case HT_DISTRIBUTION_ONE:
        counts[steps / 2] = each;
        break;
    case HT_DISTRIBUTION_NORMAL:
        draw_normal(steps, chosen * each, seed, counts);
        break;
    default:
        spread(distribution, steps, distribution == HT_DISTRIBUTION_ALL ? steps : chosen, each, counts);
    }
}
