/* product_fp8.cu - codes of e4m3 times weights of e4m3, or of 4 bits that are widened to it. */
#include "cuda/product_mma.cuh"
#include "cuda/product_wgmma.cuh"

template <int FORMAT> static int launch(const ht_plan *plan)
{
    if (ht_wg_serves(plan))
        return plan->segments > 1 ? ht_wg_launch<FORMAT, true>(plan) : ht_wg_launch<FORMAT, false>(plan);
    return plan->segments > 1 ? ht_mma_launch<FORMAT, true>(plan) : ht_mma_launch<FORMAT, false>(plan);
}

int ht_product_launch_e4m3(const ht_plan *plan)
{
    return launch<HT_CUDA_W_E4M3>(plan);
}

int ht_product_launch_f4(const ht_plan *plan)
{
    return launch<HT_CUDA_W_F4>(plan);
}
