/* copy.h - files and folders under a second name. */
#ifndef HT_CORE_COPY_H
#define HT_CORE_COPY_H

#include "core/error.h"

/* Give a file, or every file of a folder, a second name: a hard link where the file system has them, else a copy.
 * Symbolic links are followed; in folders, what begins with a dot and what is neither file nor folder is left out.  to
 * must not be there.  HT_ERR_IO names the path; what was made until then stays. */
ht_status ht_link_tree(const char *from, const char *to);

#endif
