/* peak.c - the machine's float32 peak, measured: multiply-adds on registers alone, in as many independent chains as
 * hide the latency.
 *
 * An FMA has a latency of 4 or 5 cycles and up to two start in each: 10 chains would do, 14 leave room and still fit
 * AVX2's 16 registers with the two constants.  The best of several short runs is taken: the peak is what the machine
 * can do, not what it did on average. */
#include "cli/peak.h"

#include <immintrin.h>
#include <pthread.h>
#include <sched.h>
#include <stdint.h>
#include <stdlib.h>

#include "cli/commands.h"

enum { CHAINS = 14, ROUNDS = 2000000, REPEATS = 5 };

/* The chains are named one by one: with an array, gcc at -O2 keeps them in memory and the figure is four times too low.
 */
#define EACH_CHAIN(DO) DO(0) DO(1) DO(2) DO(3) DO(4) DO(5) DO(6) DO(7) DO(8) DO(9) DO(10) DO(11) DO(12) DO(13)

__attribute__((target("avx512f"))) static float loop_avx512(int64_t rounds)
{
    const __m512 a = _mm512_set1_ps(0.999f), b = _mm512_set1_ps(0.001f);
#define START(i) __m512 x##i = _mm512_set1_ps((float)i);
#define STEP(i)  x##i = _mm512_fmadd_ps(x##i, a, b);
#define SUM(i)   sum = _mm512_add_ps(sum, x##i);
    EACH_CHAIN(START)
    while (rounds-- > 0) {
        EACH_CHAIN(STEP)
    }
    __m512 sum = _mm512_setzero_ps();
    EACH_CHAIN(SUM)
    return _mm512_reduce_add_ps(sum);
#undef START
#undef STEP
#undef SUM
}

__attribute__((target("avx2,fma"))) static float loop_avx2(int64_t rounds)
{
    const __m256 a = _mm256_set1_ps(0.999f), b = _mm256_set1_ps(0.001f);
#define START(i) __m256 x##i = _mm256_set1_ps((float)i);
#define STEP(i)  x##i = _mm256_fmadd_ps(x##i, a, b);
#define SUM(i)   sum = _mm256_add_ps(sum, x##i);
    EACH_CHAIN(START)
    while (rounds-- > 0) {
        EACH_CHAIN(STEP)
    }
    __m256 sum = _mm256_setzero_ps();
    EACH_CHAIN(SUM)
    return _mm256_cvtss_f32(sum);
#undef START
#undef STEP
#undef SUM
}

static float loop_sse2(int64_t rounds)
{
    const __m128 a = _mm_set1_ps(0.999f), b = _mm_set1_ps(0.001f);
#define START(i) __m128 x##i = _mm_set1_ps((float)i);
#define STEP(i)  x##i = _mm_add_ps(_mm_mul_ps(x##i, a), b);
#define SUM(i)   sum = _mm_add_ps(sum, x##i);
    EACH_CHAIN(START)
    while (rounds-- > 0) {
        EACH_CHAIN(STEP)
    }
    __m128 sum = _mm_setzero_ps();
    EACH_CHAIN(SUM)
    return _mm_cvtss_f32(sum);
#undef START
#undef STEP
#undef SUM
}

typedef struct peak_loop {
    const char *isa;
    int width; /* floats in a register */
    float (*run)(int64_t rounds);
} peak_loop;

static peak_loop pick_loop(void)
{
    if (__builtin_cpu_supports("avx512f"))
        return (peak_loop){"avx512", 16, loop_avx512};
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
        return (peak_loop){"avx2", 8, loop_avx2};
    return (peak_loop){"sse2", 4, loop_sse2};
}

typedef struct peak_run {
    pthread_t thread;
    float (*run)(int64_t rounds);
    volatile float sink; /* keeps the loop from being thrown away */
} peak_run;

static void *run_loop(void *argument)
{
    peak_run *r = argument;
    r->sink = r->run(ROUNDS);
    return NULL;
}

/* Operations a second of so many threads at once; 0 if they cannot be had. */
static double measure_once(peak_loop loop, int threads, peak_run *runs)
{
    int started = 0;
    double start = seconds_now();
    while (started < threads) {
        runs[started].run = loop.run;
        if (pthread_create(&runs[started].thread, NULL, run_loop, &runs[started]))
            break;
        started++;
    }
    for (int i = 0; i < started; i++)
        pthread_join(runs[i].thread, NULL);
    return started < threads ? 0 : 2.0 * CHAINS * loop.width * (double)ROUNDS * threads / (seconds_now() - start);
}

double peak_measure(int threads, const char **isa)
{
    peak_loop loop = pick_loop();
    double best = 0;
    cpu_set_t set;
    if (!threads)
        threads = sched_getaffinity(0, sizeof set, &set) ? 1 : CPU_COUNT(&set);
    peak_run *runs = calloc((size_t)threads, sizeof *runs);
    for (int i = 0; runs && i < REPEATS; i++) {
        double rate = measure_once(loop, threads, runs);
        best = rate > best ? rate : best;
    }
    free(runs);
    *isa = loop.isa;
    return best;
}
