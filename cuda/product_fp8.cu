/* product_fp8.cu - codes of e4m3 times weights of e4m3, or of 4 bits that are widened to it. */
#include "cuda/product_mma.cuh"

int ht_product_launch_e4m3(const ht_plan *plan)
{
    return plan->segments > 1 ? ht_mma_launch<HT_CUDA_W_E4M3, true>(plan) : ht_mma_launch<HT_CUDA_W_E4M3, false>(plan);
}

int ht_product_launch_f4(const ht_plan *plan)
{
    return plan->segments > 1 ? ht_mma_launch<HT_CUDA_W_F4, true>(plan) : ht_mma_launch<HT_CUDA_W_F4, false>(plan);
}
