/* team.h - the threads of a session: a crew that is given work, and the team that each member of it sees. */
#ifndef HT_CPU_TEAM_H
#define HT_CPU_TEAM_H

#include <stdatomic.h>
#include <stdint.h>

#include "core/error.h"

typedef struct ht_barrier {
    _Atomic uint32_t generation, arrived, sleepers;
} ht_barrier;

typedef struct ht_team {
    int thread, threads;
    ht_barrier *barrier;
    void *scratch; /* this thread's: kernel.scratch bytes */
    void *shared;  /* the team's: kernel.shared bytes */
} ht_team;

void ht_team_wait(const ht_team *team); /* until every thread of the team is here */

/* Thread i of n does [begin, end) of total. */
static inline void ht_team_share(const ht_team *team, int64_t total, int64_t *begin, int64_t *end)
{
    *begin = total * team->thread / team->threads;
    *end = total * (team->thread + 1) / team->threads;
}

typedef struct ht_crew ht_crew;
typedef void ht_work(void *argument, const ht_team *team);

int ht_processors(void); /* that this process may use */

/* A crew of the calling thread and threads - 1 others, which sleep until there is work.  HT_ERR_IO if the system gives
 * no more threads. */
ht_status ht_crew_open(int threads, ht_crew **out);
void ht_crew_close(ht_crew *crew); /* NULL is allowed */

/* work(argument, team) by every member at once; returns when all are done.  One call at a time, from any thread. */
void ht_crew_run(ht_crew *crew, ht_work *work, void *argument);

#endif
