/* plan.h - where every value lies, decided before the first step. */
#ifndef HT_GRAPH_PLAN_H
#define HT_GRAPH_PLAN_H

#include "graph/backend.h"

enum { HT_PLAN_ALIGN = 64 };

typedef enum ht_area {
    HT_AREA_NONE, /* weights, and values that fusion left without a reader */
    HT_AREA_KEPT, /* inputs, the output, taps, and what COND and T_COND hand on */
    HT_AREA_ROW,  /* what T hands on: a row of the table of timesteps */
    HT_AREA_WORK  /* born and dead within one run of one stage */
} ht_area;

typedef struct ht_place {
    ht_area area;
    size_t offset; /* bytes into the area */
} ht_place;

typedef struct ht_plan {
    ht_place *places; /* by value id; a view's is its source's */
    size_t kept_bytes, row_bytes, work_bytes;
} ht_plan;

/* Place every value of a finished graph, each aligned to HT_PLAN_ALIGN.  widths: bytes an element by value id, that of a
 * view being its source's; NULL: four, of codes one.  Values of the work area share memory when no operation needs both; there is room for `images` images in it, whatever the batch
 * of the graph, and for the batch if that is 0.  The plan lives in the arena. */
ht_status ht_plan_make(const ht_graph *g, int images, const unsigned char *widths, ht_arena *arena, ht_plan *plan);

#endif
