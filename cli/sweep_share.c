/* sweep_share.c - which rank makes which cells of a sweep.
 *
 * Cells of one calibration stay together, for it and the models quantized with it are made once, and removed when the
 * last of them is done.  Such groups go, in the order of their first cells, to the rank that has the fewest cells. */
#include <string.h>

#include "cli/ranks.h"
#include "cli/sweep.h"

static int idlest(const int *cells)
{
    int rank = 0;
    for (int i = 1; i < ranks_count(); i++)
        rank = cells[i] < cells[rank] ? i : rank;
    return rank;
}

/* The cell before this one that is made with the same calibration, or -1. */
static int companion(const sweep_plan *plan, const sweep_results *results, int at)
{
    for (int i = 0; i < at; i++)
        if (!results->rows[i] && !strcmp(plan->cells[i].calibration, plan->cells[at].calibration))
            return i;
    return -1;
}

int *sweep_share(const sweep_plan *plan, const sweep_results *results)
{
    int *rank = ht_alloc_array(results->arena, (size_t)plan->n, sizeof *rank);
    int *cells = ht_alloc_array(results->arena, (size_t)ranks_count(), sizeof *cells);
    if (!rank || !cells)
        return NULL;
    memset(cells, 0, (size_t)ranks_count() * sizeof *cells);
    for (int i = 0; i < plan->n; i++) {
        int with = results->rows[i] ? -1 : companion(plan, results, i);
        rank[i] = with < 0 ? idlest(cells) : rank[with];
        cells[rank[i]] += !results->rows[i];
    }
    return rank;
}
