/* backends.h - which backend runs a graph. */
#ifndef HT_SAMPLER_BACKENDS_H
#define HT_SAMPLER_BACKENDS_H

#include "graph/backend.h"

/* By its name.  NULL and "auto": a GPU if there is one that can be used, else the CPU. */
ht_status ht_find_backend(const char *name, const ht_backend **backend);

/* Compile for the backend of that name.  "auto" takes the CPU also where the GPU has no kernel for an operation, or too
 * little memory. */
ht_status ht_compile(const char *name, const ht_graph *g, const ht_backend_options *options, const ht_backend **backend,
                     ht_program **program);

/* Whether activations on a GPU are float16: "float16" and NULL, or "float32". */
ht_status ht_find_half(const char *dtype, bool *half);

#endif
