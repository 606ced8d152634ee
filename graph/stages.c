/* stages.c - which part of a graph runs how often.  Sampling is a loop, so what the loop does not change runs outside
 * it. */
#include "graph/backend.h"

ht_stage ht_stage_of(unsigned deps)
{
    if (deps & HT_DEPENDS_X)
        return HT_STAGE_STEP;
    switch (deps & (HT_DEPENDS_T | HT_DEPENDS_COND)) {
    case HT_DEPENDS_T | HT_DEPENDS_COND:
        return HT_STAGE_T_COND;
    case HT_DEPENDS_T:
        return HT_STAGE_T;
    case HT_DEPENDS_COND:
        return HT_STAGE_COND;
    default:
        return HT_STAGE_ONCE;
    }
}

const char *ht_stage_name(ht_stage stage)
{
    static const char *const names[HT_STAGES] = {"once", "cond", "t", "t,cond", "step"};
    return names[stage];
}
