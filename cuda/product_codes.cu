/* product_codes.cu - codes of 8 bits times whole weights of 8 and 4 bits: exact int32 sums, equal to the scalar kernel
 * of cpu/reference_quantized.c bit for bit. */
#include "cuda/product_mma.cuh"
#include "cuda/product_wgmma.cuh"

template <int FORMAT> static int launch(const ht_plan *plan)
{
    if (ht_wg_serves(plan))
        return plan->segments > 1 ? ht_wg_launch<FORMAT, true>(plan) : ht_wg_launch<FORMAT, false>(plan);
    return plan->segments > 1 ? ht_mma_launch<FORMAT, true>(plan) : ht_mma_launch<FORMAT, false>(plan);
}

int ht_product_launch_s8(const ht_plan *plan)
{
    return launch<HT_CUDA_W_S8>(plan);
}

int ht_product_launch_s4(const ht_plan *plan)
{
    return launch<HT_CUDA_W_S4>(plan);
}

int ht_product_has_wgmma(void)
{
    static int has = -1;
    if (has < 0)
        has = ht_wg_is_built<HT_CUDA_W_S8>();
    return has;
}
