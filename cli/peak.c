/* peak.c - the machine's peaks in float32 and in 8-bit integers, measured: multiply-adds on registers alone, in as many
 * independent chains as hide the latency.
 *
 * An FMA has a latency of 4 or 5 cycles and up to two start in each: 10 chains would do, 14 leave room and still fit
 * AVX2's 16 registers with the two constants.  The best of several short runs is taken: the peak is what the machine
 * can do, not what it did on average. */
#include "cli/peak.h"

#include <cpuid.h>
#include <immintrin.h>
#include <pthread.h>
#include <sched.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

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

/* ---- 8-bit integers ---- */

__attribute__((target("amx-tile,amx-int8"))) static float loop_amx(int64_t rounds)
{
    struct {
        uint8_t palette, start, reserved[14];
        uint16_t row_bytes[16];
        uint8_t rows[16];
    } config = {.palette = 1};
    for (int i = 0; i < 8; i++) {
        config.row_bytes[i] = 64;
        config.rows[i] = 16;
    }
    __asm__ volatile("" ::: "memory"); /* gcc's intrinsic says that it reads 8 bytes of the 64 */
    _tile_loadconfig(&config);
    /* tiles 0 to 5 are sums, 6 and 7 what they are sums of; a multiplication takes 16 cycles */
    for (rounds /= 16; rounds-- > 0;) {
        _tile_dpbusd(0, 6, 7);
        _tile_dpbusd(1, 6, 7);
        _tile_dpbusd(2, 6, 7);
        _tile_dpbusd(3, 6, 7);
        _tile_dpbusd(4, 6, 7);
        _tile_dpbusd(5, 6, 7);
    }
    _tile_release();
    return 0;
}

__attribute__((target("avx512f,avx512vnni"))) static float loop_avx512vnni(int64_t rounds)
{
    const __m512i a = _mm512_set1_epi8(3), b = _mm512_set1_epi8(-2);
#define START(i) __m512i x##i = _mm512_set1_epi32(i);
#define STEP(i)  x##i = _mm512_dpbusd_epi32(x##i, a, b);
#define SUM(i)   sum = _mm512_add_epi32(sum, x##i);
    EACH_CHAIN(START)
    while (rounds-- > 0) {
        EACH_CHAIN(STEP)
    }
    __m512i sum = _mm512_setzero_si512();
    EACH_CHAIN(SUM)
    return (float)_mm512_reduce_add_epi32(sum);
#undef START
#undef STEP
#undef SUM
}

__attribute__((target("avx2"))) static float loop_integers_avx2(int64_t rounds)
{
    const __m256i b = _mm256_set1_epi16(-2);
#define START(i) __m256i x##i = _mm256_set1_epi32(i);
#define STEP(i)  x##i = _mm256_add_epi32(_mm256_madd_epi16(x##i, b), x##i);
#define SUM(i)   sum = _mm256_add_epi32(sum, x##i);
    EACH_CHAIN(START)
    while (rounds-- > 0) {
        EACH_CHAIN(STEP)
    }
    __m256i sum = _mm256_setzero_si256();
    EACH_CHAIN(SUM)
    return (float)_mm256_extract_epi32(sum, 0);
#undef START
#undef STEP
#undef SUM
}

/* ---- which ---- */

typedef struct peak_loop {
    const char *isa;
    double operations; /* of one round; a multiplication and an addition are two */
    float (*run)(int64_t rounds);
} peak_loop;

static peak_loop pick_loop(void)
{
    if (__builtin_cpu_supports("avx512f"))
        return (peak_loop){"avx512", 2 * CHAINS * 16, loop_avx512};
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
        return (peak_loop){"avx2", 2 * CHAINS * 8, loop_avx2};
    return (peak_loop){"sse2", 2 * CHAINS * 4, loop_sse2};
}

/* Linux gives tiles to a process that asks for them, as often as it likes. */
static bool may_use_amx(void)
{
    enum { TILES = 1 << 24, INT8 = 1 << 25, REQUEST_PERMISSION = 0x1023, TILE_DATA = 18 };
    unsigned a, b, c, d;
    return __get_cpuid_count(7, 0, &a, &b, &c, &d) && (d & TILES) && (d & INT8) &&
           syscall(SYS_arch_prctl, REQUEST_PERMISSION, TILE_DATA) == 0;
}

/* The best loop of so much of the machine. */
static peak_loop pick_integer_loop(const char *isa)
{
    if ((!isa || !strcmp(isa, "amx")) && may_use_amx())
        return (peak_loop){"amx", 2.0 * 6 * 16 * 16 * 64 / 16, loop_amx};
    if ((!isa || !strcmp(isa, "amx") || !strcmp(isa, "avx512vnni")) && __builtin_cpu_supports("avx512vnni"))
        return (peak_loop){"avx512vnni", 2 * CHAINS * 64, loop_avx512vnni};
    if (__builtin_cpu_supports("avx2"))
        return (peak_loop){"avx2", 2 * CHAINS * 16, loop_integers_avx2};
    return pick_loop();
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
    return started < threads ? 0 : loop.operations * (double)ROUNDS * threads / (seconds_now() - start);
}

static double measure(peak_loop loop, int threads)
{
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
    return best;
}

double peak_measure(int threads, const char **isa)
{
    peak_loop loop = pick_loop();
    *isa = loop.isa;
    return measure(loop, threads);
}

double peak_measure_integers(int threads, const char *limit, const char **isa)
{
    peak_loop loop = pick_integer_loop(limit);
    *isa = loop.isa;
    return measure(loop, threads);
}
