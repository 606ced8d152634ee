/* team.c - the threads of a session: how they are started, given work, and wait for one another.
 *
 * A barrier by generations: the last to arrive begins the next one.  A waiting thread spins for a moment (the others
 * are microseconds away) and then sleeps until it is woken, so that on a machine with other work a thread that lost its
 * processor is not waited for by one that burns its own.  OpenMP did this before: libgomp's barrier spins for
 * milliseconds, so that one busy neighbour on two processors made an evaluation forty times slower, and it ends the
 * process when a thread cannot be started. */
#include "cpu/team.h"

#include <errno.h>
#include <immintrin.h>
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

/* In ticks of the time stamp counter: some tens of microseconds, about what sleeping and waking cost. */
enum { SPIN_TICKS = 100000 };

/* ---- waiting ---- */

static void futex(_Atomic uint32_t *word, int operation, uint32_t value)
{
    syscall(SYS_futex, (uint32_t *)word, operation | FUTEX_PRIVATE_FLAG, value, NULL, NULL, 0);
}

static void release(ht_barrier *b)
{
    atomic_store(&b->arrived, 0);
    atomic_fetch_add(&b->generation, 1);
    if (atomic_load(&b->sleepers)) /* one who counts itself after this finds the new generation and does not sleep */
        futex(&b->generation, FUTEX_WAKE, INT32_MAX);
}

void ht_team_wait(const ht_team *team)
{
    ht_barrier *b = team->barrier;
    uint32_t generation = atomic_load(&b->generation);
    if (atomic_fetch_add(&b->arrived, 1) + 1 == (uint32_t)team->threads) {
        release(b);
        return;
    }
    unsigned long long start = __rdtsc();
    while (__rdtsc() - start < SPIN_TICKS) {
        if (atomic_load_explicit(&b->generation, memory_order_acquire) != generation)
            return;
        _mm_pause();
    }
    atomic_fetch_add(&b->sleepers, 1);
    while (atomic_load(&b->generation) == generation)
        futex(&b->generation, FUTEX_WAIT, generation);
    atomic_fetch_sub(&b->sleepers, 1);
}

/* ---- a crew ---- */

typedef struct member {
    ht_crew *crew;
    ht_team team;
    pthread_t id;
} member;

struct ht_crew {
    ht_barrier barrier;
    int threads, started; /* started: members that have a thread of their own, all but the caller */
    ht_work *work;        /* NULL: go home */
    void *argument;
    member members[]; /* [threads]; the first is whoever calls ht_crew_run */
};

int ht_processors(void)
{
    cpu_set_t set;
    int n = sched_getaffinity(0, sizeof set, &set) ? 0 : CPU_COUNT(&set);
    return n > 0 ? n : 1;
}

/* Between two meetings at the barrier there is either work for all, or nothing more. */
static void *serve(void *argument)
{
    member *m = argument;
    ht_crew *crew = m->crew;
    for (;;) {
        ht_team_wait(&m->team);
        if (!crew->work)
            return NULL;
        crew->work(crew->argument, &m->team);
        ht_team_wait(&m->team);
    }
}

/* Signals go to the caller's threads, not to ours. */
static int start_member(member *m)
{
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int error = pthread_create(&m->id, NULL, serve, m);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return error;
}

ht_status ht_crew_open(int threads, ht_crew **out)
{
    ht_crew *crew = calloc(1, sizeof *crew + (size_t)threads * sizeof crew->members[0]);
    if (!crew)
        return ht_fail(HT_ERR_MEMORY, "out of memory for %d threads", threads);
    crew->threads = threads;
    for (int i = 0; i < threads; i++)
        crew->members[i] = (member){.crew = crew, .team = {.thread = i, .threads = threads, .barrier = &crew->barrier}};
    for (int i = 1; i < threads; i++) {
        int error = start_member(&crew->members[i]);
        if (error) {
            ht_crew_close(crew);
            return ht_fail(HT_ERR_IO, "cannot start thread %d of %d: %s", i + 1, threads, strerror(error));
        }
        crew->started++;
    }
    *out = crew;
    return HT_OK;
}

void ht_crew_run(ht_crew *crew, ht_work *work, void *argument)
{
    const ht_team *me = &crew->members[0].team;
    crew->work = work;
    crew->argument = argument;
    ht_team_wait(me);
    work(argument, me);
    ht_team_wait(me);
}

/* Those who came wait for the whole crew; the ones who never started are counted in for them. */
void ht_crew_close(ht_crew *crew)
{
    if (!crew)
        return;
    crew->work = NULL;
    atomic_fetch_add(&crew->barrier.arrived, (uint32_t)(crew->threads - 1 - crew->started));
    ht_team_wait(&crew->members[0].team);
    for (int i = 1; i <= crew->started; i++)
        pthread_join(crew->members[i].id, NULL);
    free(crew);
}
