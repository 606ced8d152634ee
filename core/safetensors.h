/* safetensors.h - the safetensors format (github.com/huggingface/safetensors): an 8-byte length, a JSON header, the
 * data. */
#ifndef HT_CORE_SAFETENSORS_H
#define HT_CORE_SAFETENSORS_H

#include "core/error.h"
#include "core/tensor.h"

typedef struct ht_safetensors ht_safetensors;

/* Open a .safetensors file, or a *.safetensors.index.json whose shards lie beside it.  Files are mapped; tensors are
 * views into the mapping, valid until _close, sorted by name.  Everything the format promises is checked before
 * anything is handed out: the header's length, its JSON, dtypes, shapes, offsets that overlap, leave gaps, or run past
 * the end, names given twice, products that overflow.  HT_ERR_IO, HT_ERR_FORMAT, HT_ERR_MEMORY, or HT_ERR_UNSUPPORTED
 * for more than HT_MAX_DIMS dimensions; the message names the file and the tensor.  If somebody truncates a mapped
 * file, touching what is gone raises SIGBUS. */
ht_status ht_safetensors_open(const char *path, ht_safetensors **out);

/* The same for bytes in memory, borrowed until _close.  label stands for the file name in messages. */
ht_status ht_safetensors_parse(const void *bytes, size_t size, const char *label, ht_safetensors **out);

void ht_safetensors_close(ht_safetensors *st); /* NULL is allowed */

size_t ht_safetensors_count(const ht_safetensors *st);
const ht_tensor *ht_safetensors_at(const ht_safetensors *st, size_t i);
const ht_tensor *ht_safetensors_find(const ht_safetensors *st, const char *name); /* NULL if absent */
const char *ht_safetensors_metadata(const ht_safetensors *st, const char *key);   /* of __metadata__, NULL if absent */
const char *ht_safetensors_path(const ht_safetensors *st);

typedef struct ht_metadata {
    const char *key, *value;
} ht_metadata;

/* Write tensors (data of tensors[i].bytes each) to a file that appears only when whole.  Data is laid out by falling
 * alignment of the dtype and then by name, as the reference writer does; the header is padded with spaces to 8 bytes.
 */
ht_status ht_safetensors_write(const char *path, const ht_tensor *tensors, size_t n, const ht_metadata *metadata,
                               size_t n_metadata);

#endif
