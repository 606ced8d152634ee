/* mma.cuh - the instructions that C has no words for, one inline function each. */
#ifndef HT_CUDA_MMA_CUH
#define HT_CUDA_MMA_CUH

#include <cstdint>

__device__ __forceinline__ uint32_t ht_shared(const void *p)
{
    return (uint32_t)__cvta_generic_to_shared(p);
}

/* ---- copies from global to shared memory ---- */

/* 16 bytes, of which the first `bytes` (0 or 16) are read and the rest is 0. */
__device__ __forceinline__ void ht_copy_async(uint32_t to, const void *from, int bytes)
{
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(from), "r"(bytes) : "memory");
}

__device__ __forceinline__ void ht_copies_commit()
{
    asm volatile("cp.async.commit_group;" ::: "memory");
}

template <int LEFT> __device__ __forceinline__ void ht_copies_wait()
{
    asm volatile("cp.async.wait_group %0;" ::"n"(LEFT) : "memory");
}

__device__ __forceinline__ void ht_shared_store(uint32_t to, uint32_t word)
{
    asm volatile("st.shared.v4.b32 [%0], {%1, %1, %1, %1};" ::"r"(to), "r"(word) : "memory");
}

/* ---- shared memory to registers ---- */

/* Four matrices of 8 rows of 16 bytes; lane l gives the address of row l % 8 of matrix l / 8, and gets bytes
 * 4 (l % 4) .. of row l / 4 of each. */
__device__ __forceinline__ void ht_load_matrices(uint32_t (&r)[4], uint32_t from)
{
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
                 : "r"(from)
                 : "memory");
}

__device__ __forceinline__ uint4 ht_shared_load4(uint32_t from)
{
    uint4 v;
    asm volatile("ld.shared.v4.b32 {%0, %1, %2, %3}, [%4];"
                 : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
                 : "r"(from)
                 : "memory");
    return v;
}

__device__ __forceinline__ uint2 ht_shared_load2(uint32_t from)
{
    uint2 v;
    asm volatile("ld.shared.v2.b32 {%0, %1}, [%2];" : "=r"(v.x), "=r"(v.y) : "r"(from) : "memory");
    return v;
}

/* ---- matrix products of a warp: 16 weights' rows times 8 pixels, 32 bytes of k ---- */

__device__ __forceinline__ void ht_mma_s8(int (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1)
{
    asm volatile("mma.sync.aligned.m16n8k32.row.col.s32.s8.u8.s32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
                 "{%0, %1, %2, %3};"
                 : "+r"(c[0]), "+r"(c[1]), "+r"(c[2]), "+r"(c[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

/* 16 bytes of k. */
__device__ __forceinline__ void ht_mma_s8_half(int (&c)[4], uint32_t a0, uint32_t a1, uint32_t b0)
{
    asm volatile("mma.sync.aligned.m16n8k16.row.col.s32.s8.u8.s32 {%0, %1, %2, %3}, {%4, %5}, {%6}, {%0, %1, %2, %3};"
                 : "+r"(c[0]), "+r"(c[1]), "+r"(c[2]), "+r"(c[3])
                 : "r"(a0), "r"(a1), "r"(b0));
}

__device__ __forceinline__ void ht_mma_f16(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1)
{
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
                 "{%0, %1, %2, %3};"
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

/* From sm_89 on; the host does not launch it below. */
__device__ __forceinline__ void ht_mma_e4m3(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1)
{
#if __CUDA_ARCH__ >= 890
    asm volatile("mma.sync.aligned.m16n8k32.row.col.f32.e4m3.e4m3.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
                 "{%0, %1, %2, %3};"
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
#else
    __trap();
#endif
}

/* ---- codes of 4 bits to bytes ---- */

/* Eight nibbles of two's complement to eight bytes, 16 times their value: even nibbles, odd nibbles. */
__device__ __forceinline__ void ht_widen_plain(uint32_t codes, uint32_t &even, uint32_t &odd)
{
    even = codes << 4 & 0xf0f0f0f0u;
    odd = codes & 0xf0f0f0f0u;
}

/* Eight nibbles to eight bytes through a table of 16: nibbles 0 .. 3, nibbles 4 .. 7.  prmt picks one of 8 bytes by 3
 * bits, so there are two picks, and a third between them by each code's highest bit. */
__device__ __forceinline__ void ht_widen_table(uint32_t codes, const uint32_t (&table)[4], uint32_t &low,
                                               uint32_t &high)
{
    uint32_t pick = codes & 0x77777777u, half = (codes >> 1 & 0x44444444u) | 0x32103210u;
    low = __byte_perm(__byte_perm(table[0], table[1], pick), __byte_perm(table[2], table[3], pick), half);
    pick >>= 16;
    half >>= 16;
    high = __byte_perm(__byte_perm(table[0], table[1], pick), __byte_perm(table[2], table[3], pick), half);
}

#endif
