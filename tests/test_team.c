/* Crews: every member does its share, the barrier holds back those who are early, and threads that cannot be had are an
 * error, not an end. */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "cpu/team.h"

enum { MEMBERS = 5, ROUNDS = 400 };

typedef struct tally {
    int64_t done[MEMBERS][ROUNDS]; /* by member and round */
    _Atomic int64_t wrong;
} tally;

/* After each meeting, what every other member wrote before it must be there. */
static void take_turns(void *argument, const ht_team *team)
{
    tally *t = argument;
    for (int i = 0; i < ROUNDS; i++) {
        t->done[team->thread][i] = i + 1;
        ht_team_wait(team);
        for (int m = 0; m < team->threads; m++)
            t->wrong += t->done[m][i] != i + 1;
    }
}

static void nobody_passes_the_barrier_before_all_are_there(void **state)
{
    (void)state;
    for (int threads = 1; threads <= MEMBERS; threads++) {
        static tally t;
        ht_crew *crew;
        memset(&t, 0, sizeof t);
        assert_int_equal(ht_crew_open(threads, &crew), HT_OK);
        ht_crew_run(crew, take_turns, &t);
        ht_crew_close(crew);
        assert_int_equal(t.wrong, 0);
    }
}

static void count(void *argument, const ht_team *team)
{
    ((int64_t *)argument)[team->thread]++;
}

static void every_member_works_once_a_run(void **state)
{
    int64_t runs[MEMBERS] = {0};
    ht_crew *crew;
    (void)state;
    assert_int_equal(ht_crew_open(MEMBERS, &crew), HT_OK);
    for (int i = 0; i < ROUNDS; i++)
        ht_crew_run(crew, count, runs);
    ht_crew_close(crew);
    for (int m = 0; m < MEMBERS; m++)
        assert_int_equal(runs[m], ROUNDS);
}

static void shares_cover_everything_once(void **state)
{
    (void)state;
    for (int threads = 1; threads < 7; threads++)
        for (int64_t total = 0; total < 40; total++) {
            int64_t next = 0, begin, end;
            for (int i = 0; i < threads; i++) {
                ht_team_share(&(ht_team){.thread = i, .threads = threads}, total, &begin, &end);
                assert_int_equal(begin, next);
                assert_true(end >= begin);
                next = end;
            }
            assert_int_equal(next, total);
        }
}

/* No system maps a stack of this size. */
static void threads_that_cannot_be_had_are_an_error(void **state)
{
    pthread_attr_t usual, huge;
    ht_crew *crew;
    (void)state;
    assert_int_equal(pthread_getattr_default_np(&usual), 0);
    assert_int_equal(pthread_attr_init(&huge), 0);
    assert_int_equal(pthread_attr_setstacksize(&huge, (size_t)1 << 47), 0);
    assert_int_equal(pthread_setattr_default_np(&huge), 0);
    ht_status status = ht_crew_open(3, &crew);
    assert_int_equal(pthread_setattr_default_np(&usual), 0);
    assert_int_equal(status, HT_ERR_IO);
    assert_non_null(strstr(ht_error_message(), "cannot start thread 2 of 3"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nobody_passes_the_barrier_before_all_are_there),
        cmocka_unit_test(every_member_works_once_a_run),
        cmocka_unit_test(shares_cover_everything_once),
        cmocka_unit_test(threads_that_cannot_be_had_are_an_error),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
