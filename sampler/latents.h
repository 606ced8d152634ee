/* latents.h - between a denoiser's latents and pictures: a pipeline's autoencoder, with the factors that belong
 * between the two. */
#ifndef HT_SAMPLER_LATENTS_H
#define HT_SAMPLER_LATENTS_H

#include "halftone.h"
#include "sampler/coding.h"

typedef struct ht_latents ht_latents;

/* Latents of h x w.  options: threads, backend, isa.  Nothing is compiled until it is needed.  The model must outlive
 * it. */
ht_status ht_latents_open(ht_model *autoencoder, const ht_session_options *options, int h, int w, ht_latents **out);
void ht_latents_close(ht_latents *l); /* NULL is allowed */

/* One image of latents [h,w,c] -> a picture [h*factor, w*factor, channels]. */
ht_status ht_latents_decode(ht_latents *l, const float *latents, float *picture);

/* The same in tiles of `tile` pixels a side, which overlap by a quarter (sampler/latents_tiled.c): less memory, another
 * picture.  0, or no less than the picture: at once.  HT_ERR_ARGUMENT unless a tile is a multiple of 4 latents. */
ht_status ht_latents_decode_tiled(ht_latents *l, int tile, const float *latents, float *picture);

/* For those: h x w latents of a part.  Compiled for the size at hand, and again for another. */
ht_status ht_latents_decode_part(ht_latents *l, int h, int w, const float *latents, float *picture);

typedef struct ht_latents_size {
    int h, w, channels;  /* of latents */
    int colours, factor; /* of pixels, and pixels along a side of a latent */
} ht_latents_size;

ht_latents_size ht_latents_size_of(const ht_latents *l);

/* A picture -> latents, drawn from the posterior with noise [h,w,c] where the autoencoder has one. */
ht_status ht_latents_encode(ht_latents *l, const float *picture, const float *noise, float *latents);

#endif
