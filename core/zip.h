/* zip.h - reading zip archives: libzip finds, inflates and checks the members. */
#ifndef HT_CORE_ZIP_H
#define HT_CORE_ZIP_H

#include "core/file.h"

typedef struct ht_zip ht_zip;

/* Open an archive that lies in memory, borrowed until _close; several may be open on the same bytes, one a thread.
 * label goes in front of messages.  HT_ERR_FORMAT if it is no zip, HT_ERR_MEMORY. */
ht_status ht_zip_open(const ht_mapping *bytes, const char *label, ht_zip **out);
void ht_zip_close(ht_zip *zip); /* NULL is allowed */

int64_t ht_zip_count(const ht_zip *zip);
const char *ht_zip_name(const ht_zip *zip, int64_t i);    /* of member i, as it is stored; NULL if it has none */
int64_t ht_zip_find(const ht_zip *zip, const char *name); /* -1: none */

/* All bytes of member i, of malloc, with a zero byte after them.  HT_ERR_UNSUPPORTED if the archive says that there are
 * more than `limit` (nothing of that size is allocated then), HT_ERR_FORMAT if they are not as many as it says or their
 * checksum is wrong. */
ht_status ht_zip_read(ht_zip *zip, int64_t i, size_t limit, char **bytes, size_t *size);

#endif
