/* backend.h - the CPU as a backend (graph/backend.h): x86-64, threads of one process. */
#ifndef HT_CPU_BACKEND_H
#define HT_CPU_BACKEND_H

#include "graph/backend.h"

extern const ht_backend ht_cpu_backend;

#endif
