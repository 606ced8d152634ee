/* session_private.h - the inside of a session, for session*.c only. */
#ifndef HT_SAMPLER_SESSION_PRIVATE_H
#define HT_SAMPLER_SESSION_PRIVATE_H

#include "graph/backend.h"
#include "sampler/conditions.h"
#include "sampler/session.h"

struct ht_session {
    ht_arena *arena;
    const ht_model *model;
    ht_graph *graph;
    const ht_backend *backend;
    ht_program *program;
    int batch, height, width, tokens;
    int n; /* images of the last _set_cond */
    size_t row_bytes;
    char *table;      /* [rows][row_bytes], the backend's memory */
    float *timesteps; /* [rows], of malloc: it grows with the table */
    int rows, table_rows;
    const ht_value *sample, *timestep, *class_labels; /* inputs; NULL where the model has none */
    const ht_value *conditions[HT_CONDITIONS];        /* the same */
    float *ones;                                      /* for conditions that are left out; NULL: none can be */
    const ht_value *cached;                           /* DeepCache's; NULL: none */
    float *tap;                                       /* room for the largest tap */
    const char **descriptions;                        /* by operation: shapes in words */
    const char **layers;                              /* by operation: whose weight it has, or "" */
};

/* Fill in s->descriptions. */
ht_status ht_session_describe(ht_session *s);

#endif
