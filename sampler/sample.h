/* sample.h - ht_sample with what pipelines add to it. */
#ifndef HT_SAMPLER_SAMPLE_H
#define HT_SAMPLER_SAMPLE_H

#include "sampler/noise.h"
#include "sampler/session.h"

/* After a step: x0 as it is predicted [h,w,c], of the first image of a batch; borrowed until return. */
typedef void (*ht_glance)(void *user, int step, int steps, const float *x0);

typedef struct ht_sample_extras {
    int skip;            /* steps that are left out at the start */
    const float *init;   /* [h,w,c], of all images; NULL: there is none */
    bool from_init;      /* images begin as init with noise, not as noise */
    const float *mask;   /* [h,w]: 1 where an image may differ from init, 0 where it is init; NULL: everywhere */
    int extra_channels;  /* that the model takes after those of x */
    const float *extra;  /* [h,w,extra_channels], of all images */
    bool steps_twice;    /* torch's generators: the noise of a step covers twice the images (ht_noise_steps_twice) */
    bool one_draw;       /* every image has an index of its own, whatever `each` says */
    ht_noise *noise;     /* a generator that has given the noise to start from; NULL: one is made */
    ht_session *shallow; /* the same model without what is below a branch; the other keeps it.  NULL: no cache */
    int interval;        /* with it: every so many steps the whole model is evaluated */
    ht_glance glance;    /* may be NULL */
    void *glance_user;
} ht_sample_extras;

ht_status ht_sample_with(ht_session *session, const ht_sample_options *options, const ht_sample_extras *extras,
                         int64_t first, int64_t n, float *images);

#endif
