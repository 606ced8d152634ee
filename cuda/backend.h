/* backend.h - NVIDIA GPUs as a backend (graph/backend.h).  Always compiled; what runs on the device is in a module that
 * is opened when it is needed (cuda/open.h). */
#ifndef HT_CUDA_BACKEND_H
#define HT_CUDA_BACKEND_H

#include "graph/backend.h"

extern const ht_backend ht_cuda_backend;

#endif
