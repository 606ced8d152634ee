/* device.h - what the kernels' files share on the host: the stream, launch errors, and the table's parts. */
#ifndef HT_CUDA_DEVICE_H
#define HT_CUDA_DEVICE_H

#include <cuda_runtime.h>

#include "cuda/module.h"

cudaStream_t ht_cuda_stream(void);
int ht_cuda_multiprocessors(void);

/* After a launch: HT_CUDA_OK, or the error kept for module->error. */
int ht_cuda_launched(void);
int ht_cuda_check(cudaError_t error);

int ht_cuda_product_layout(const ht_cuda_product *p, ht_cuda_layout *layout);
void ht_cuda_product_pack(const ht_cuda_product *p, const void *from, void *to);
const char *ht_cuda_product_name(const ht_cuda_product *p);
size_t ht_cuda_product_workspace(const ht_cuda_product *p);
int ht_cuda_product_run(const ht_cuda_product *p);
size_t ht_cuda_group_norm_workspace(const ht_cuda_group_norm *n);
int ht_cuda_group_norm_run(const ht_cuda_group_norm *n);
int ht_cuda_row_norm_run(const ht_cuda_row_norm *n);
int ht_cuda_attention_run(const ht_cuda_attention *a);
const char *ht_cuda_attention_name(const ht_cuda_attention *a);
int ht_cuda_map_run(const ht_cuda_map *m);
int ht_cuda_move_run(const ht_cuda_move *m);
int ht_cuda_embedding_run(const ht_cuda_embedding *e);
int ht_cuda_input_scale_run(const ht_cuda_input_scale *s);
int ht_cuda_input_range_run(const ht_cuda_input_range *r);
double ht_cuda_peak(ht_cuda_weights format);

#endif
