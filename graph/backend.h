/* backend.h - a backend is one struct of function pointers, and a table from operation to kernels.
 *
 * A graph that is finished is compiled whole; its stages run one by one.  What crosses from a stage that runs seldom to
 * one that runs often (the rows of the time embedding, K and V of a prompt) lives in a buffer of the reader's choice,
 * so a table of timesteps is just an array of them. */
#ifndef HT_GRAPH_BACKEND_H
#define HT_GRAPH_BACKEND_H

#include "graph/graph.h"

/* How often a stage runs, in the order they run.  A stage is the operations with this set of dependencies. */
typedef enum ht_stage { HT_STAGE_ONCE, HT_STAGE_COND, HT_STAGE_T, HT_STAGE_T_COND, HT_STAGE_STEP, HT_STAGES } ht_stage;

ht_stage ht_stage_of(unsigned deps); /* nothing: ONCE; {cond}: COND; {t}: T; {t,cond}: T_COND; anything with x: STEP */
const char *ht_stage_name(ht_stage stage);

typedef struct ht_program ht_program;

typedef struct ht_backend_options {
    int threads;
    const char *isa; /* the most that may be used, NULL: all */
    bool half;       /* a GPU: activations in float16 */
    int device;      /* which GPU, counted round those that there are */
    bool profile;
} ht_backend_options;

typedef struct ht_program_info {
    const char *isa;
    int threads;
    int64_t activation_bytes, packed_bytes;
} ht_program_info;

typedef struct ht_backend {
    const char *name;

    /* Choose kernels, pack weights, plan memory.  The graph must outlive the program. */
    ht_status (*compile)(const ht_graph *g, const ht_backend_options *options, ht_program **program);
    void (*close)(ht_program *program);
    void (*info)(const ht_program *program, ht_program_info *info);

    /* Bytes of what stage HT_STAGE_T hands on: a row of the table.  0 if nothing depends on {t} alone. */
    size_t (*row_bytes)(const ht_program *program);

    /* Copy n images' worth of values into a graph input; out of the output or a tap.  Host memory. */
    ht_status (*upload)(ht_program *program, const ht_value *input, const float *data, int n);
    ht_status (*download)(ht_program *program, const ht_value *value, float *data, int n);

    /* Run one stage for n images, n <= the batch of the graph.  row: the table row that HT_STAGE_T writes and the
     * stages after it read (row_bytes, in the backend's memory: alloc).  The CPU allocates nothing; a GPU records a
     * number of images that is not the batch when it is first run. */
    ht_status (*run)(ht_program *program, ht_stage stage, int n, void *row);

    void *(*alloc)(ht_program *program, size_t bytes); /* NULL: out of memory, message set */
    void (*free)(ht_program *program, void *memory);

    /* What operation i of the graph got: the kernel's name, why better ones refused ("" if none), time spent if
     * profiling. */
    void (*op)(const ht_program *program, int i, const char **kernel, const char **refused, double *seconds,
               int64_t *runs);

    /* What the device can do, in operations a second, measured anew: products of its floats, and of codes.  NULL: the
     * processor's, which are measured elsewhere. */
    void (*peaks)(ht_program *program, double *floats, double *codes);
} ht_backend;

#endif
