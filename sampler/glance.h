/* glance.h - how a picture will look, from the x0 that a step predicts: by a small decoder, or by a linear map. */
#ifndef HT_SAMPLER_GLANCE_H
#define HT_SAMPLER_GLANCE_H

#include "sampler/pipeline.h"

typedef struct ht_glances ht_glances;

/* model: the folder of a small autoencoder (AutoencoderTiny) for the same latents; NULL: a linear map from latents to
 * colours, a pixel each, which is measured from the pipeline's own autoencoder. */
ht_status ht_glances_open(ht_pipeline *p, const char *model, ht_glances **out);
void ht_glances_close(ht_glances *g); /* NULL is allowed */

/* x0 [h,w,c] -> a picture [height,width,3], borrowed until the next; NULL if it cannot be made. */
const float *ht_glances_look(ht_glances *g, const float *x0, int *height, int *width);

#endif
