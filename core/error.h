/* error.h - how a failure travels: a status goes up, the words stay in the thread's error sink.
 * The message is made where the facts are and says: where, what, found, wanted, remedy. */
#ifndef HT_CORE_ERROR_H
#define HT_CORE_ERROR_H

#include "halftone.h"

/* Set the message (one line, printf-style) and return the status: `return ht_fail(HT_ERR_IO, "%s: %s", path,
 * strerror(errno));` Longer than 1023 bytes is cut; control characters (from file names, JSON) become '?'. */
ht_status ht_fail(ht_status status, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* Put "WORDS: " in front of the message that is there, and return the status. */
ht_status ht_fail_in(ht_status status, const char *format, ...) __attribute__((format(printf, 2, 3)));

#endif
