/* file.h - whole files: mapped for reading, written under a temporary name and renamed when complete. */
#ifndef HT_CORE_FILE_H
#define HT_CORE_FILE_H

#include <stdio.h>

#include "core/error.h"

typedef struct ht_mapping {
    const unsigned char *data; /* NULL when size is 0 */
    size_t size;
} ht_mapping;

/* Map a regular file read-only.  A directory, device or FIFO is refused with a message, not waited for. */
ht_status ht_map_file(const char *path, ht_mapping *mapping);
void ht_unmap_file(ht_mapping *mapping);

/* A file that appears under its name only if all went well:
 *     ht_output *o;  ht_output_open(path, &o);  fwrite(..., ht_output_stream(o));  ht_output_commit(o)  or
 * ht_output_discard(o); The temporary lives beside the target, so the rename is atomic.  Commit flushes, checks every
 * earlier write (a full disk is reported here), syncs, renames; whatever it returns, the object is gone and on failure
 * so is the temporary. An existing target is replaced; a target that is a directory or cannot be written is an error
 * from _open. If the target exists and is not a regular file (/dev/null, /dev/stdout, a FIFO), it is written in place.
 */
typedef struct ht_output ht_output;
ht_status ht_output_open(const char *path, ht_output **output);
FILE *ht_output_stream(ht_output *output);
ht_status ht_output_commit(ht_output *output);
void ht_output_discard(ht_output *output);

#endif
