/* source.h - images of a set or of a caller's, some at a time, made ready by all threads. */
#ifndef HT_EVAL_SOURCE_H
#define HT_EVAL_SOURCE_H

#include "core/image_decode.h"
#include "cpu/team.h"
#include "halftone.h"

enum { HT_SOURCE_CHUNK = 32 };

typedef struct ht_source ht_source;

/* A folder, a zip, or what the caller draws; not an .npz.  crew: whose threads load, borrowed. */
ht_status ht_source_open(const ht_image_source *from, ht_crew *crew, int threads, ht_source **out);
void ht_source_close(ht_source *s); /* NULL is allowed */

int64_t ht_source_count(const ht_source *s);

typedef struct ht_loaded {
    ht_pixels picture; /* its data belongs to the source, until the next load */
    ht_status status;  /* of reading it and of what was to be done with it */
    bool unreadable;   /* the status is of reading it, and another picture may be well */
    char message[640];
} ht_loaded;

/* Something to do with picture i of a load, on any thread; NULL: nothing. */
typedef ht_status ht_prepare(void *user, int i, const ht_pixels *picture);

/* Load images first .. first+n-1, n <= HT_SOURCE_CHUNK, into out [n].  Fails if drawing does; pictures that cannot be
 * read say so themselves. */
ht_status ht_source_load(ht_source *s, int64_t first, int n, ht_prepare *prepare, void *user, ht_loaded *out);

/* The size of the first picture. */
ht_status ht_source_size(ht_source *s, int *height, int *width);

#endif
