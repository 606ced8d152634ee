/* open.h - finding libhalftone-cuda.so, and a device that it can use. */
#ifndef HT_CUDA_OPEN_H
#define HT_CUDA_OPEN_H

#include <stdbool.h>

#include "core/error.h"
#include "cuda/module.h"

/* Whether the module and a GPU are there.  Nothing is opened but the module. */
bool ht_cuda_is_there(void);

/* The module, its device opened; ht_cuda_close gives it back.  Looked for beside the program, in ../lib from there, and
 * where the system looks for libraries.  index: which GPU, counted round those that there are.  A process uses one for
 * good: the first that it opened.  HT_ERR_UNSUPPORTED with what is missing: the module, a driver, a GPU, one
 * that is new enough. */
ht_status ht_cuda_open(int index, const ht_cuda_module **module, ht_cuda_device *device);
void ht_cuda_close(const ht_cuda_module *module);

/* What the module said last, as an error of ours: HT_ERR_MEMORY where the device's memory is too little, else
 * HT_ERR_IO: that is no reason to go on without it. */
ht_status ht_cuda_fail(const ht_cuda_module *module, const char *what);

#endif
