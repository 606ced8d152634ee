/* predict_private.h - what predict_file.c and predict_coding.c share. */
#ifndef HT_SAMPLER_PREDICT_PRIVATE_H
#define HT_SAMPLER_PREDICT_PRIVATE_H

#include "core/safetensors.h"
#include "halftone.h"
#include "sampler/model.h"

/* The file of inputs; memory for what is read of it. */
typedef struct ht_input_file {
    ht_arena *arena;
    const char *path; /* for messages */
    const ht_safetensors *tensors;
} ht_input_file;

/* n images, channels last. */
typedef struct ht_image_tensor {
    int64_t n, c, h, w;
    float *x;
} ht_image_tensor;

/* `input_ids` [n,tokens] of a file. */
typedef struct ht_ids_tensor {
    int64_t n, tokens;
    int32_t *ids;
} ht_ids_tensor;

ht_status ht_read_ids(const ht_input_file *f, ht_ids_tensor *out);

/* What the caller of ht_predict_file said. */
typedef struct ht_predict_how {
    const ht_session_options *options; /* may be NULL */
    ht_progress progress;              /* may be NULL */
    void *user;
} ht_predict_how;

/* A tensor of the file in float32; images [n,channels,h,w] channels last. */
ht_status ht_read_tensor(const ht_input_file *f, const char *name, const ht_tensor **tensor, float **values);
ht_status ht_read_images(const ht_input_file *f, const char *name, int channels, ht_image_tensor *images);

/* [n,from,to] -> [n,to,from]: planes to pixels, and back. */
void ht_transpose(const float *in, float *out, int64_t n, int64_t from, int64_t to);

/* Tell how far it is; HT_ERR_CANCELLED if the caller wants to stop. */
ht_status ht_predict_go_on(const ht_predict_how *how, int64_t done, int64_t total);

/* ht_predict_text_file of a folder of T5's encoder (sampler/predict_t5.c). */
ht_status ht_predict_t5(const ht_input_file *in, const char *folder, const ht_predict_how *how, const char *out);

/* ht_predict_file of an autoencoder: `z` decoded or `x` encoded. */
ht_status ht_predict_coding(const ht_input_file *f, ht_model *model, const ht_predict_how *how, const char *out);

#endif
