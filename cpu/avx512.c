/* avx512.c - the fast float32 kernels for this instruction set: the shared bodies, and the list of them. */
#include <math.h>
#include <string.h>

#include "cpu/simd_avx512.h"

#include "cpu/math.h"
#include "cpu/reference.h"
#include "cpu/reverse.h"
#include "cpu/window.h"

#include "cpu/product.inc"

#include "cpu/codes_avx512.h"

#include "cpu/codes.inc"

#include "cpu/halves.inc"

#include "cpu/gram.inc"

#include "cpu/norm.inc"

#include "cpu/attention.inc"

#include "cpu/transformer.inc"

#include "cpu/adaptive.inc"

#include "cpu/smooth.inc"

#include "cpu/reverse.inc"

#include "cpu/pool.inc"

const ht_kernel ht_avx512_kernels[] = {
    {.name = "linear_w4f32_avx512_6x64",
     .op = HT_OP_linear,
     .isa = HT_ISA_AVX512,
     .refuses = w4_refuses,
     .packed = codes_bytes,
     .pack = codes_pack,
     .scratch = codes_scratch,
     .run = codes_run},
    {.name = "conv2d_w4f32_avx512_6x64",
     .op = HT_OP_conv2d,
     .isa = HT_ISA_AVX512,
     .refuses = w4_refuses,
     .packed = codes_bytes,
     .pack = codes_pack,
     .scratch = codes_scratch,
     .run = codes_run},
    {.name = "linear_w8f32_avx512_6x64",
     .op = HT_OP_linear,
     .isa = HT_ISA_AVX512,
     .refuses = w8_refuses,
     .packed = codes_bytes,
     .pack = codes_pack,
     .scratch = codes_scratch,
     .run = codes_run},
    {.name = "conv2d_w8f32_avx512_6x64",
     .op = HT_OP_conv2d,
     .isa = HT_ISA_AVX512,
     .refuses = w8_refuses,
     .packed = codes_bytes,
     .pack = codes_pack,
     .scratch = codes_scratch,
     .run = codes_run},
    HALVES_KERNELS(AVX512, "avx512_6x64"),
    {.name = "linear_f32_avx512_6x64",
     .op = HT_OP_linear,
     .isa = HT_ISA_AVX512,
     .packed = product_bytes,
     .pack = product_pack,
     .scratch = product_scratch,
     .run = product_run},
    {.name = "conv2d_f32_avx512_6x64",
     .op = HT_OP_conv2d,
     .isa = HT_ISA_AVX512,
     .packed = product_bytes,
     .pack = product_pack,
     .scratch = product_scratch,
     .run = product_run},
    {.name = "group_norm_f32_avx512",
     .op = HT_OP_group_norm,
     .isa = HT_ISA_AVX512,
     .packed = ht_group_norm_bytes,
     .pack = ht_group_norm_pack,
     .shared = ht_group_norm_shared,
     .run = group_norm_run},
    {.name = "max_pool_f32_avx512", .op = HT_OP_max_pool, .isa = HT_ISA_AVX512, .run = max_pool_run},
    {.name = "mean_pool_f32_avx512", .op = HT_OP_mean_pool, .isa = HT_ISA_AVX512, .run = mean_pool_run},
    {.name = "silu_f32_avx512", .op = HT_OP_silu, .isa = HT_ISA_AVX512, .run = silu_run},
    {.name = "attention_f32_avx512_6x64",
     .op = HT_OP_attention,
     .isa = HT_ISA_AVX512,
     .packed = ht_attention_bytes,
     .pack = ht_attention_pack,
     .scratch = attention_scratch,
     .shared = attention_shared,
     .run = attention_run},
    {.name = "gram_f32_avx512_6x64",
     .op = HT_OP_gram,
     .isa = HT_ISA_AVX512,
     .scratch = gram_scratch,
     .shared = gram_shared,
     .run = gram_run},
    TRANSFORMER_KERNELS(AVX512, "avx512"),
    ADAPTIVE_KERNELS(AVX512, "avx512"),
    SMOOTH_KERNEL(AVX512, "avx512"),
    REVERSE_KERNELS(AVX512, "avx512", "avx512_6x64"),
    {0},
};
