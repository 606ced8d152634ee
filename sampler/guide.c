/* guide.c - classifier-free guidance (arXiv:2207.12598 eq. 6), its rescaling (arXiv:2305.08891 eq. 14 to 16), and the
 * embedding by which a distilled model is told of it. */
#include "sampler/guide.h"

#include <math.h>

#include "core/elementary.h"

/* With n - 1, as torch.std; sums in double in the order of the values. */
static double deviation(size_t n, const float *x)
{
    double sum = 0, squares = 0;
    for (size_t i = 0; i < n; i++)
        sum += (double)x[i];
    for (size_t i = 0; i < n; i++) {
        double d = (double)x[i] - sum / (double)n;
        squares += d * d;
    }
    return n > 1 ? sqrt(squares / (double)(n - 1)) : 0;
}

void ht_guide(size_t n, float *negative, const float *positive, double guidance, double rescale)
{
    float g = (float)guidance;
    for (size_t i = 0; i < n; i++)
        negative[i] += g * (positive[i] - negative[i]);
    double spread = rescale > 0 ? deviation(n, negative) : 0;
    if (!(spread > 0))
        return;
    float factor = (float)(rescale * deviation(n, positive) / spread + (1 - rescale));
    for (size_t i = 0; i < n; i++)
        negative[i] *= factor;
}

void ht_guidance_embedding(double guidance, int dim, float *out)
{
    int half = dim / 2;
    float w = (float)((guidance - 1) * 1000), step = (float)(ht_log(10000) / (half > 1 ? half - 1 : 1));
    for (int i = 0; i < dim; i++)
        out[i] = 0; /* an odd dim ends with a 0 */
    for (int i = 0; i < half; i++) {
        double sine, cosine, x = (double)(w * (float)ht_exp((double)((float)i * -step)));
        ht_sincos_turns(x / 6.283185307179586, &sine, &cosine);
        out[i] = (float)sine;
        out[half + i] = (float)cosine;
    }
}
