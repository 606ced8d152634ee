/* product_codes.cu - codes of 8 bits times whole weights of 8 and 4 bits: exact int32 sums, equal to the scalar kernel
 * of cpu/reference_quantized.c bit for bit. */
#include "cuda/product_mma.cuh"

int ht_product_launch_s8(const ht_plan *plan)
{
    return plan->segments > 1 ? ht_mma_launch<HT_CUDA_W_S8, true>(plan) : ht_mma_launch<HT_CUDA_W_S8, false>(plan);
}

int ht_product_launch_s4(const ht_plan *plan)
{
    return plan->segments > 1 ? ht_mma_launch<HT_CUDA_W_S4, true>(plan) : ht_mma_launch<HT_CUDA_W_S4, false>(plan);
}
