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

/* clang-format off */
/* The chains are named one by one: with an array, gcc at -O2 keeps them in memory and the figure is four times too low.
 */
#define EACH_CHAIN(DO, by)                                                                                             \
    DO(0, by) DO(1, by) DO(2, by) DO(3, by) DO(4, by) DO(5, by) DO(6, by)                                              \
    DO(7, by) DO(8, by) DO(9, by) DO(10, by) DO(11, by) DO(12, by) DO(13, by)
/* clang-format on */
#define START(i, number) x##i = number(i);
#define STEP(i, step)    x##i = step(x##i, a, b);
#define SUM(i, add)      sum = add(sum, x##i);

/* name(rounds): all chains, x = step(x, a, b) each round; in the end their sum, so that none can be left out. */
#define LOOP(name, isa, vector, number, a_is, b_is, step, add, reduce)                                                 \
    __attribute__((target(isa))) static float name(int64_t rounds)                                                     \
    {                                                                                                                  \
        const vector a = a_is, b = b_is;                                                                               \
        vector x0, x1, x2, x3, x4, x5, x6, x7, x8, x9, x10, x11, x12, x13;                                             \
        (void)a;                                                                                                       \
        EACH_CHAIN(START, number)                                                                                      \
        while (rounds-- > 0) {                                                                                         \
            EACH_CHAIN(STEP, step)                                                                                     \
        }                                                                                                              \
        vector sum = number(0);                                                                                        \
        EACH_CHAIN(SUM, add)                                                                                           \
        return (float)reduce(sum);                                                                                     \
    }

#define SSE2_STEP(x, a, b) _mm_add_ps(_mm_mul_ps(x, a), b)

LOOP(loop_avx512, "avx512f", __m512, _mm512_set1_ps, _mm512_set1_ps(0.999f), _mm512_set1_ps(0.001f), _mm512_fmadd_ps,
     _mm512_add_ps, _mm512_reduce_add_ps)
LOOP(loop_avx2, "avx2,fma", __m256, _mm256_set1_ps, _mm256_set1_ps(0.999f), _mm256_set1_ps(0.001f), _mm256_fmadd_ps,
     _mm256_add_ps, _mm256_cvtss_f32)
LOOP(loop_sse2, "sse2", __m128, _mm_set1_ps, _mm_set1_ps(0.999f), _mm_set1_ps(0.001f), SSE2_STEP, _mm_add_ps,
     _mm_cvtss_f32)

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

#define AVX2_STEP(x, a, b) _mm256_add_epi32(_mm256_madd_epi16(x, b), x)
#define FIRST_OF_8(x)      _mm256_extract_epi32(x, 0)
#define FIRST_OF_16(x)     _mm_cvtsi128_si32(_mm512_castsi512_si128(x))

LOOP(loop_avx512vnni, "avx512f,avx512vnni", __m512i, _mm512_set1_epi32, _mm512_set1_epi8(3), _mm512_set1_epi8(-2),
     _mm512_dpbusd_epi32, _mm512_add_epi32, FIRST_OF_16)
LOOP(loop_integers_avx2, "avx2", __m256i, _mm256_set1_epi32, _mm256_set1_epi16(3), _mm256_set1_epi16(-2), AVX2_STEP,
     _mm256_add_epi32, FIRST_OF_8)

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
