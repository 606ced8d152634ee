/* ranks.h - one command run by several processes, the ranks of MPI, that share its work.
 *
 * All ranks run the same command with the same words; work is split by index and results are put together in the order
 * of the indices, so they do not depend on how many ranks there are.  Rank 0 prints, and writes what all have made.  A
 * rank that fails ends all: one line, and the same exit code.  A plain run is rank 0 of 1, and so is every run of a
 * program that was built without MPI. */
#ifndef HALFTONE_CLI_RANKS_H
#define HALFTONE_CLI_RANKS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "halftone.h"

/* Before all else.  0, or an exit code after a line. */
int ranks_begin(void);
/* After all else, with what was printed flushed: waits for the others.  Returns the exit code of all. */
int ranks_end(int code);

int ranks_index(void);
int ranks_count(void);
/* "Open MPI 4.1.4"; NULL: built without. */
const char *ranks_library(void);

/* For an option where 0 means all processors: this rank's part of those of its host, at least one.  0 in a plain run.
 */
int ranks_threads(int64_t asked);
/* How many of n things are this rank's, and the first of them.  Shares lie in the order of the ranks; rank 0's is empty
 * only if n is 0. */
int64_t ranks_share(int64_t n, int64_t *first);
int64_t ranks_share_of(int rank, int64_t n, int64_t *first);

/* Whether to stop: a signal asked this rank to, or another rank failed.  Cheap: for every step of long work, which also
 * keeps messages moving.  Main thread alone, as all that follow. */
int ranks_stopped(void);
/* The exit code of a rank that stopped, after a line if it was a signal's doing. */
int ranks_end_early(void);

/* These are called by all ranks in the same order.  0, or not if the work has to stop. */

/* mine [bytes] of every rank -> all [count][bytes], on every rank.  As an ht_share's exchange; user: unused. */
int ranks_exchange(void *user, const void *mine, size_t bytes, void *all);
/* That, for libhalftone; NULL in a plain run. */
const ht_share *ranks_source_share(void);
/* items [n] of so many bytes, of which every rank has made its share -> all of them, on rank 0. */
int ranks_gather(void *items, int64_t n, size_t bytes);
int ranks_sum(int64_t *value);
int ranks_meet(void);

/* Texts to rank 0, in the order in which a rank sends them.  Rank 0 gets them while it is in one of the calls above. */
typedef void ranks_hear(void *user, const char *text);
void ranks_listen(ranks_hear *hear, void *user); /* rank 0 */
void ranks_tell(const char *text);               /* others */
int ranks_told_all(void);                        /* all ranks: rank 0 has heard everything */

/* report.c: keep a line for rank 0, which may have told of a failure already.  False: it is to be printed. */
bool ranks_keep(const char *line);

#endif
