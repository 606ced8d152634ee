/* detect.c - what the processor has, and what the system lets us use of it. */
#include <cpuid.h>
#include <stdbool.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "cpu/cpu.h"

static const char *const isa_names[HT_ISAS] = {"scalar", "avx2", "avx512", "avx512vnni", "amx"};

/* AMX's tiles are 8 KB of state, which Linux gives to a process that asks (Documentation/arch/x86/xstate.rst).  To ask
 * again is allowed. */
static bool has_amx(void)
{
    enum { TILES = 1 << 24, INT8 = 1 << 25, REQUEST_PERMISSION = 0x1023, TILE_DATA = 18 };
    unsigned a, b, c, d;
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d) || !(d & TILES) || !(d & INT8))
        return false;
    return syscall(SYS_arch_prctl, REQUEST_PERMISSION, TILE_DATA) == 0;
}

/* Half floats, which came after AVX and before AVX2; clang 14 has no name for them. */
static bool has_f16c(void)
{
    unsigned a, b, c, d;
    return __get_cpuid(1, &a, &b, &c, &d) && (c & bit_F16C);
}

ht_isa ht_cpu_detect(void)
{
    if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma") || !has_f16c())
        return HT_ISA_SCALAR;
    if (!__builtin_cpu_supports("avx512f") || !__builtin_cpu_supports("avx512bw") ||
        !__builtin_cpu_supports("avx512vl") || !__builtin_cpu_supports("avx512dq"))
        return HT_ISA_AVX2;
    if (!__builtin_cpu_supports("avx512vnni"))
        return HT_ISA_AVX512;
    return has_amx() ? HT_ISA_AMX : HT_ISA_AVX512_VNNI;
}

const char *ht_isa_name(ht_isa isa)
{
    return isa_names[isa];
}

int ht_isa_find(const char *name)
{
    for (int i = 0; i < HT_ISAS; i++)
        if (!strcmp(isa_names[i], name))
            return i;
    return -1;
}
