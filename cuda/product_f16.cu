/* product_f16.cu - half times half, summed in float32. */
#include "cuda/product_mma.cuh"
#include "cuda/product_wgmma.cuh"

int ht_product_launch_f16(const ht_plan *plan)
{
    return ht_wg_serves(plan) ? ht_wg_launch<HT_CUDA_W_F16, false>(plan) : ht_mma_launch<HT_CUDA_W_F16, false>(plan);
}
