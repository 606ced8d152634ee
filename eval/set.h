/* set.h - a set of pictures on disk: a folder, or a zip as EDM's dataset_tool makes them. */
#ifndef HT_EVAL_SET_H
#define HT_EVAL_SET_H

#include <stdbool.h>

#include "core/image_decode.h"

typedef struct ht_set ht_set;
typedef struct ht_set_reader ht_set_reader; /* a thread's own */

/* List the files of a folder and of those in it, or the members of a zip, whose names end as ht_image_is_named says, in
 * the order of their names (strcmp).  What begins with a dot is left out, and so is what is no picture, as EDM's
 * dataset.json.  HT_ERR_IO, HT_ERR_FORMAT if the file is no zip, HT_ERR_ARGUMENT if there is no picture at all. */
ht_status ht_set_open(const char *path, ht_set **out);
void ht_set_close(ht_set *set); /* NULL is allowed; close its readers first */

/* Pictures there are, but no more than the set was cut to. */
int64_t ht_set_count(const ht_set *set);
void ht_set_cut(ht_set *set, int64_t count);
const char *ht_set_path(const ht_set *set);
const char *ht_set_name(const ht_set *set, int64_t i); /* below the path */

ht_status ht_set_reader_open(const ht_set *set, ht_set_reader **out);
void ht_set_reader_close(ht_set_reader *reader); /* NULL is allowed */

/* Picture i.  Errors as of ht_map_file, ht_zip_read and ht_image_decode. */
ht_status ht_set_read(ht_set_reader *reader, int64_t i, ht_pixels *out);

#endif
