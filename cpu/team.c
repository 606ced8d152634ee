/* team.c - how the threads of a run wait for one another.
 *
 * A barrier by generations: the last to arrive begins the next one.  A waiting thread spins for a moment (the others
 * are microseconds away) and then sleeps until it is woken, so that on a machine with other work a thread that lost its
 * processor is not waited for by one that burns its own: with libgomp's barrier, which spins for milliseconds, one busy
 * neighbour on two processors made an evaluation forty times slower. */
#include <immintrin.h>
#include <linux/futex.h>
#include <stdatomic.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "cpu/cpu.h"

/* In ticks of the time stamp counter: some tens of microseconds, about what sleeping and waking cost. */
enum { SPIN_TICKS = 100000 };

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
