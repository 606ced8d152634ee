/* coding.h - one direction of an autoencoder, compiled for a batch and a size: pictures of latents, or latents of
 * pictures.  Factors between denoiser and autoencoder are the caller's to apply. */
#ifndef HT_SAMPLER_CODING_H
#define HT_SAMPLER_CODING_H

#include "halftone.h"
#include "sampler/model.h"

typedef struct ht_coding ht_coding;
typedef enum ht_direction { HT_DECODE, HT_ENCODE } ht_direction;

/* options: batch, threads, backend and isa as for a session; height and width are those of what goes in. */
ht_status ht_coding_open(ht_model *model, ht_direction direction, const ht_session_options *options,
                         ht_coding **coding);
void ht_coding_close(ht_coding *coding);
int ht_coding_batch(const ht_coding *coding);

/* Run it for n <= batch images [n,h,w,c].  Allocates nothing. */
ht_status ht_coding_run(ht_coding *coding, int n, const float *in);

/* Output i of ht_autoencoder_info's list; its shape is for the batch. */
const ht_value *ht_coding_output(const ht_coding *coding, int i);
/* What the last run made of it, of its n images. */
ht_status ht_coding_read(ht_coding *coding, int i, float *out);

#endif
