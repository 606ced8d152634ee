/* detect.c - what the processor has. */
#include <string.h>

#include "cpu/cpu.h"

static const char *const isa_names[HT_ISAS] = {"scalar", "avx2", "avx512"};

ht_isa ht_cpu_detect(void)
{
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
        __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("fma"))
        return HT_ISA_AVX512;
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
        return HT_ISA_AVX2;
    return HT_ISA_SCALAR;
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
