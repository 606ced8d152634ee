/* file.h - quantized layers in a safetensors file.  docs/format.md is the specification. */
#ifndef HT_QUANT_FILE_H
#define HT_QUANT_FILE_H

#include "core/safetensors.h"
#include "quant/layer.h"

/* The layers that the metadata `_quantization_metadata` of a file lists, checked; none if it has no
 * such entry.  Codes and scales that lie in the file as kernels' packing wants them are views of it.  HT_ERR_FORMAT
 * naming file, layer and what is wrong; HT_ERR_UNSUPPORTED for formats that this version does not know. */
ht_status ht_layers_read(ht_arena *arena, const ht_safetensors *file, ht_layers *layers);

/* The tensors and the text of `_quantization_metadata` that ht_layers_read makes these layers of again.  All in the
 * arena.  tensors: room for HT_LAYER_TENSORS for each layer; n: how many there are. */
enum { HT_LAYER_TENSORS = 14 };
ht_status ht_layers_write(ht_arena *arena, const ht_layers *layers, ht_tensor *tensors, size_t *n,
                          const char **metadata);

#endif
