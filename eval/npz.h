/* npz.h - arrays that NumPy saved together: a zip of .npy members, stored or deflated. */
#ifndef HT_EVAL_NPZ_H
#define HT_EVAL_NPZ_H

#include <stdbool.h>

#include "eval/npy.h"

typedef struct ht_npz ht_npz;

/* Open a file.  HT_ERR_IO, HT_ERR_FORMAT if it is no zip, HT_ERR_MEMORY. */
ht_status ht_npz_open(const char *path, ht_npz **out);
/* The same for bytes in memory, borrowed until _close.  label stands for the path in messages. */
ht_status ht_npz_parse(const void *bytes, size_t size, const char *label, ht_npz **out);
void ht_npz_close(ht_npz *npz); /* NULL is allowed */

bool ht_npz_has(ht_npz *npz, const char *name);

/* The array NAME, the member NAME.npy, of at most HT_NPY_MAX_BYTES.  HT_ERR_FORMAT if there is none of that name or if
 * its checksum is wrong, and what ht_npy_parse says. */
ht_status ht_npz_read(ht_npz *npz, const char *name, ht_npy_array *out);

#endif
