/* sweep_share.c - which rank makes which cells of a sweep.
 *
 * Cells of one calibration stay together, so that it and the models quantized with it are made once, and removed when
 * the last of them is done.  A calibration with more cells than a rank's share is made beforehand, and only cells of
 * one quantized model stay together.  Such groups go, in the order of their first cells, to the rank with the fewest
 * cells. */
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

static bool same_calibration(const sweep_cell *a, const sweep_cell *b)
{
    return !a->is_float && !b->is_float && !strcmp(a->calibration, b->calibration);
}

static bool stay_together(const sweep_cell *a, const sweep_cell *b, bool split)
{
    return !strcmp(a->id, b->id) || (same_calibration(a, b) && (!split || !strcmp(a->quantization, b->quantization)));
}

static void find_split(const sweep_plan *plan, const sweep_results *results, bool *split)
{
    int missing = 0;
    for (int i = 0; i < plan->n; i++)
        missing += !results->rows[i];
    int share = (missing + ranks_count() - 1) / ranks_count();
    for (int i = 0; i < plan->n; i++) {
        int size = 0;
        for (int k = 0; k < plan->n; k++)
            size += !results->rows[k] && same_calibration(&plan->cells[i], &plan->cells[k]);
        split[i] = size > share;
    }
}

/* The cell before this one that goes to the same rank, or -1. */
static int companion(const sweep_plan *plan, const sweep_results *results, int at, bool split)
{
    for (int i = 0; i < at; i++)
        if (!results->rows[i] && stay_together(&plan->cells[i], &plan->cells[at], split))
            return i;
    return -1;
}

int sweep_share(const sweep_plan *plan, const sweep_results *results, sweep_shares *shares)
{
    int *rank = ht_alloc_array(results->arena, (size_t)plan->n, sizeof *rank);
    int *cells = ht_alloc_array(results->arena, (size_t)ranks_count(), sizeof *cells);
    bool *split = ht_alloc_array(results->arena, (size_t)plan->n, sizeof *split);
    if (!rank || !cells || !split)
        return report("out of memory");
    find_split(plan, results, split);
    memset(cells, 0, (size_t)ranks_count() * sizeof *cells);
    for (int i = 0; i < plan->n; i++) {
        int with = results->rows[i] ? -1 : companion(plan, results, i, split[i]);
        rank[i] = with < 0 ? idlest(cells) : rank[with];
        cells[rank[i]] += !results->rows[i];
    }
    *shares = (sweep_shares){rank, split};
    return 0;
}
