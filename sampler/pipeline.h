/* pipeline.h - the inside of a pipeline, for sampler/pipeline*.c. */
#ifndef HT_SAMPLER_PIPELINE_H
#define HT_SAMPLER_PIPELINE_H

#include "sampler/latents.h"
#include "sampler/sample.h"
#include "sampler/texts.h"

struct ht_pipeline {
    ht_session_options options;       /* as given; texts in them are the caller's */
    ht_model *denoiser, *autoencoder; /* the latter NULL: samples are pictures */
    ht_texts *texts;                  /* NULL: it takes no prompts */
    ht_latents *latents;              /* with autoencoder */
    int h, w, factor;                 /* of latents; pixels along a side of one */
    int channels, latent_channels;    /* of pictures; of samples */
    ht_session *session;              /* NULL: not compiled yet */
    ht_session *shallow;              /* the same without what is below `branch`; NULL: no cache */
    int tokens, batch, branch;        /* that it is compiled for; branch -1: no cache */
};

/* Strength of guidance if nothing is said, as diffusers' pipelines have it; 1: there is none. */
double ht_pipeline_guidance(const ht_pipeline *p);

/* The denoiser for so many tokens and images of the model at a time; kept for the next call. */
ht_status ht_pipeline_need_session(ht_pipeline *p, int tokens, int batch, int branch);

/* What img2img and inpainting start from (sampler/pipeline_init.c). */
typedef struct ht_start {
    int64_t first, n; /* pictures, and where what follows lies: the caller's */
    ht_arena *arena;
    float *init, *mask, *extra; /* of latents; NULL where there is none */
    float *noise;               /* [n,h,w,latent_channels] */
    ht_noise generator;
    int skip;
    bool from_init;
} ht_start;

/* Encodes and draws, in the order in which diffusers' pipelines do.  options: their generator, steps, each and total.
 */
ht_status ht_start_make(ht_pipeline *p, const ht_draw_options *o, const ht_sample_options *options, ht_start *s);

/* Whether a pipeline and what is asked of it go together. */
ht_status ht_start_check(const ht_pipeline *p, const ht_draw_options *o);

#endif
