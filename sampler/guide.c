/* guide.c - classifier-free guidance (arXiv:2207.12598 eq. 6), its rescaling (arXiv:2305.08891 eq. 14 to 16), and the
 * embedding by which a distilled model is told of it. */
#include "sampler/guide.h"

#include <math.h>

#include "core/elementary.h"

/* Of the guided channels, with n - 1, as torch.std; sums in double in the order of the values. */
static double deviation(const ht_guidance *g, const float *x)
{
    double sum = 0, squares = 0, n = (double)g->pixels * g->guided;
    for (size_t p = 0; p < g->pixels; p++)
        for (int c = 0; c < g->guided; c++)
            sum += (double)x[p * (size_t)g->channels + (size_t)c];
    for (size_t p = 0; p < g->pixels; p++)
        for (int c = 0; c < g->guided; c++) {
            double d = (double)x[p * (size_t)g->channels + (size_t)c] - sum / n;
            squares += d * d;
        }
    return n > 1 ? sqrt(squares / (n - 1)) : 0;
}

void ht_guide(const ht_guidance *g, float *negative, const float *positive)
{
    float scale = (float)g->scale;
    for (size_t p = 0; p < g->pixels; p++)
        for (int c = 0; c < g->channels; c++) {
            size_t i = p * (size_t)g->channels + (size_t)c;
            negative[i] = c < g->guided ? negative[i] + scale * (positive[i] - negative[i]) : positive[i];
        }
    double spread = g->rescale > 0 ? deviation(g, negative) : 0;
    if (!(spread > 0))
        return;
    float factor = (float)(g->rescale * deviation(g, positive) / spread + (1 - g->rescale));
    for (size_t p = 0; p < g->pixels; p++)
        for (int c = 0; c < g->guided; c++)
            negative[p * (size_t)g->channels + (size_t)c] *= factor;
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
