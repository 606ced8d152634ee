/* halftone.h - libhalftone, a diffusion runtime: denoisers from the checkpoints people have, sampled on CPUs and GPUs.
 *
 * A complete program:
 *
 *     #include <halftone.h>
 *     #include <stdio.h>
 *     #include <stdlib.h>
 *
 *     enum { N = 16 };
 *
 *     static void check(ht_status status)
 *     {
 *         if (status) {
 *             fprintf(stderr, "%s\n", ht_error_message());
 *             exit(EXIT_FAILURE);
 *         }
 *     }
 *
 *     int main(void)
 *     {
 *         ht_model *m;
 *         ht_session *s;
 *         float *x = malloc(sizeof *x * N * 32 * 32 * 3);
 *         check(ht_model_open("models/cifar10", NULL, &m));
 *         check(ht_session_open(m, &(ht_session_options){.batch = 8}, &s));
 *         check(ht_sample(s, &(ht_sample_options){.steps = 50, .seed = 1}, 0, N, x));
 *         check(ht_image_save_grid("grid.png", x, N, 32, 32, 3, 0, "made by this program"));
 *         ht_session_close(s);
 *         ht_model_close(m);
 *         free(x);
 *         return EXIT_SUCCESS;
 *     }
 *
 * Conventions.  Images and activations are channels last, float32, row-major: [n,h,w,c].  Sizes are in elements, counts
 * of images int64_t.  Every function that can fail returns HT_OK (0) or a status above 0, and then ht_error_message()
 * says in one line what is wrong and what would be right; outputs through pointers are untouched unless a function says
 * otherwise. What an _open gave is the caller's until _close; every other pointer that comes out is borrowed from the
 * object it came from and dies with it.  An options struct may be zeroed: zero means the default everywhere.
 *
 * Threads.  Objects have no locks: one call per object at a time; different sessions of one model may run side by side.
 *
 * Determinism.  An image depends on (model, seed, settings, backend) and on nothing else: not on the batch size, its
 * place in the batch, the number of threads, or which instruction set the CPU kernels used.
 */
#ifndef HALFTONE_H
#define HALFTONE_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif
#ifdef __GNUC__
#pragma GCC visibility push(                                                                                           \
    default) /* the library is built with -fvisibility=hidden: what stands here is what it exports */
#endif

#define HT_VERSION "0.1.0"

typedef enum ht_status {
    HT_OK = 0,
    HT_ERR_ARGUMENT,    /* a parameter out of range, a name that is not in its table */
    HT_ERR_IO,          /* the system refused: missing file, full disk, no permission */
    HT_ERR_FORMAT,      /* a file is not what its format says */
    HT_ERR_SHAPE,       /* tensors and configuration do not fit one another */
    HT_ERR_UNSUPPORTED, /* well-formed, but not something this version can do */
    HT_ERR_MEMORY,      /* out of memory */
    HT_ERR_CANCELLED    /* a callback asked to stop */
} ht_status;

/* The message of the last failure in this thread; "" if there was none.  Valid until the thread's next failing call. */
const char *ht_error_message(void);

/* The library's version, "MAJOR.MINOR.PATCH". */
const char *ht_version(void);

/* ---- models ---- */

typedef struct ht_model ht_model;

/* Open a model and check that its weights fit its configuration.
 * path: a folder in the diffusers layout (model_index.json, unet/, scheduler/), one component's folder (config.json
 * beside its .safetensors), a folder with the original DDPM/DDIM config.json and names, or a .safetensors file with a
 * whole Stable Diffusion in the names of the original code, beside which unet.json and vae.json are their config.json.
 * component: which part of a pipeline to load; NULL means its denoiser.
 * Weights stay mapped, not copied: a file that somebody truncates while the model is open ends the process (SIGBUS).
 * Replace files by rename. */
ht_status ht_model_open(const char *path, const char *component, ht_model **model);
void ht_model_close(ht_model *model); /* NULL is allowed; close its sessions first */

typedef struct ht_model_info {
    const char *class_name; /* as in config.json: "UNet2DModel" */
    const char *scheduler;  /* class name in scheduler_config.json; NULL if the model came without one */
    const char *sampler;    /* that ht_sample takes if it is not told: what serves the scheduler's class, else "ddim" */
    const char *spacing;    /* of timesteps, the same: the config's */
    const char
        *decoder; /* the pipeline's component that makes pictures of samples, as "vae"; NULL: samples are pictures */
    int in_channels, out_channels;
    int height, width; /* of the images it was made for; 0 if config.json does not say */
    int takes_class;   /* nonzero: every image needs a class label */
    int num_classes; /* rows of its class embedding; 0 if it takes none, or takes any number (embedded like a timestep)
                      */
    int class_embed_dim;     /* > 0: the model takes class embeddings as vectors of this length ("identity") */
    int cross_attention_dim; /* > 0: it takes encoder_hidden_states, vectors of this length, as those of a prompt */
    int text_embed_dim;      /* > 0: it takes text_embeds, a vector of this length an image (SDXL) */
    int time_ids;            /* > 0: it takes so many time_ids an image (SDXL: sizes and crops) */
    int timestep_cond_dim;   /* > 0: it takes timestep_cond, a vector of this length an image (LCM) */
    int has_null_class;      /* nonzero: class num_classes - 1 stands for none, as guidance needs it (DiT) */
    int attention_mask;      /* 1: it takes encoder_attention_mask (PixArt) */
    int resolution;          /* > 0: it takes so many numbers of resolution an image (PixArt-alpha) */
    int aspect_ratio;        /* 1: it takes aspect_ratio (the same) */
    int64_t parameters;      /* elements of all weights */
    int64_t weight_bytes;    /* bytes of all weights as stored */
    int layers;              /* that are quantized (ht_model_get_layer); 0: a model of floats */
    double average_bits;     /* that a weight of a linear map or convolution takes, scales included */
    const char *softmax;     /* what attention's softmax becomes: "float", "uint16", "uint8", "log2" */
} ht_model_info;

void ht_model_get_info(const ht_model *model, ht_model_info *info);

/* A layer of a quantized model. */
typedef struct ht_layer_info {
    const char *name;       /* "down_blocks.0.resnets.0.conv1" */
    const char *format;     /* of its weights: "int4" */
    const char *input;      /* of its inputs: "uint8", "float" */
    const char *input_mode; /* "static", "dynamic"; "float" */
    int groups;             /* of timesteps with input scales of their own; 1: one for all, 0: none */
    int parts;              /* 2: the two parts of a concatenation have their own parameters */
    int smooth;             /* whether its inputs are multiplied by a factor a channel before they become codes */
    int rank;               /* of the 16-bit branch beside its codes; 0: none */
    int64_t weights;
    double bits;                 /* a weight, scales, factors and branch included */
    int weight_bits, input_bits; /* of a code; 32 for floats */
    double error;                /* of its output, squared and relative, on the calibration set; negative: not known */
} ht_layer_info;

/* Layer i of 0 .. layers-1. */
void ht_model_get_layer(const ht_model *model, int i, ht_layer_info *info);

/* ---- sessions: a model compiled for a batch and an image size on a backend ---- */

typedef struct ht_session ht_session;

typedef struct ht_session_options {
    int batch;         /* images evaluated at once, at most; 0 means 1 */
    int height, width; /* of the sample; 0 means the model's own */
    int tokens;        /* of encoder_hidden_states; 0 means 77 */
    int threads;       /* 0: the processors this process may use */
    const char
        *backend; /* "cpu", "cuda", "auto"; NULL means auto: a GPU if there is one that can be used, else the CPU */
    const char *dtype; /* what a GPU keeps activations in between: "float16", "float32"; NULL means float16.  Sums are
                          float32 or exact with both.  The CPU does not ask. */
    int device;        /* which GPU, counted round those that there are; a process uses one */
    const char *isa;   /* the most that CPU kernels may use: "scalar", "avx2", "avx512", "avx512vnni", "amx"; NULL: what
                          the machine has.  Same results. */
    int profile;       /* nonzero: ht_session_op reports seconds, at the cost of two clock reads an op */
} ht_session_options;

/* Compile a model.  Weights are packed and the memory of activations is taken here.  ht_predict and ht_sample take what
 * else they need when they are called; the session keeps a table with a row for each timestep of the longest schedule
 * so far; no step allocates anything.  HT_ERR_ARGUMENT names the option that is out of range, also if a size is neither
 * in the options nor in config.json. */
ht_status ht_session_open(ht_model *model, const ht_session_options *options, ht_session **session);
void ht_session_close(ht_session *session);

typedef struct ht_session_info {
    const char *backend, *isa; /* what runs */
    int batch, height, width, threads;
    int ops;                  /* operations after fusion, of all stages */
    int64_t activation_bytes; /* planned memory for values, all stages */
    int64_t packed_bytes;     /* weights in kernel layout */
} ht_session_info;

void ht_session_get_info(const ht_session *session, ht_session_info *info);

typedef struct ht_op_info {
    const char *name;    /* "down_blocks.0.resnets.0.conv1" */
    const char *layer;   /* whose weight it has, "" if none: a block\'s last layer is named after the block */
    const char *kind;    /* "conv2d" */
    const char *stage;   /* how often it runs: "once", "cond", "t", "t,cond", "step" */
    const char *kernel;  /* the kernel that was picked */
    const char *refused; /* better kernels that refused and why; "" if none did */
    const char *shape;   /* "[n,32,32,64] <- [n,32,32,3] k3 s1" */
    double macs;         /* multiply-accumulates an image; 0 for what is not a matrix product */
    double seconds;      /* spent in it since the session was opened, if profiling */
    int64_t runs;
} ht_op_info;

/* Operation i of 0 .. ops-1 in the order of execution. */
void ht_session_op(const ht_session *session, int i, ht_op_info *info);

/* On a GPU: what it reaches in products of its floats and of codes with nothing else in the way, in operations a
 * second, measured anew.  0: not known, as of the CPU. */
void ht_session_peaks(ht_session *session, double *floats, double *codes);

/* What the model takes besides x and t, one row an image, finite; NULL members where the model takes none. */
typedef struct ht_cond {
    const float *class_labels; /* [n]: whole, 0 .. num_classes-1; or any number, where it is embedded like a timestep */
    const float *class_embeddings;      /* [n, class_embed_dim] */
    const float *encoder_hidden_states; /* [n, tokens of the session, cross_attention_dim] */
    const float *text_embeds;           /* [n, text_embed_dim] */
    const float *time_ids;      /* [n, time_ids]: original height, width, crop top, left, target height, width */
    const float *timestep_cond; /* [n, timestep_cond_dim] */
    const float *encoder_attention_mask; /* [n, tokens]: 1, or 0 for a token that is not looked at; NULL: all are */
    const float *resolution;             /* [n, resolution]: height and width */
    const float *aspect_ratio;           /* [n, aspect_ratio]: height by width */
} ht_cond;

/* out = model(x, t, cond), once for n images.   x [n,h,w,in_channels], out [n,h,w,out_channels], not overlapping.
 * t: [n] training timesteps, not indices; need not be whole numbers.  n may exceed the session's batch (it runs in
 * turns). cond: borrowed until return; NULL if the model takes nothing else. HT_ERR_ARGUMENT if cond lacks what the
 * model needs or has what it does not take, or a value of cond or t is out of range or not finite; out is untouched
 * then. For an epsilon-predicting model out is eps of DDIM (arXiv:2010.02502) eq. 12. */
ht_status ht_predict(ht_session *session, int64_t n, const float *x, const float *t, const ht_cond *cond, float *out);

/* done of total model evaluations of images are made; return nonzero to stop: the call then fails with
 * HT_ERR_CANCELLED. */
typedef int (*ht_progress)(void *user, int64_t done, int64_t total);

/* The same for files: reads the tensors `sample` [n,c,h,w], `timestep` [1] or [n], and, if the model takes it,
 * `class_labels` [n] or [n,class_embed_dim], `encoder_hidden_states` [n,tokens,c], `encoder_attention_mask` [n,tokens],
 * `text_embeds`, `time_ids`, `timestep_cond`, `resolution` and `aspect_ratio` [n,c] (any real dtype) from the
 * safetensors file `in`; of a transformer the first may be called `hidden_states`, as diffusers has it, and of one of
 * facebook's `x`, `t` and `y` mean sample, timestep and class labels; writes `sample` to the file `out`, which
 * appears only when it is whole.  A file of ht_calibrate may have the conditions of each sample as a row of
 * `contexts.encoder_hidden_states` and the like, whose number is in `context`.  Other tensors are passed over, but a
 * condition that other denoisers take and this one does not, as `encoder_hidden_states`, is HT_ERR_ARGUMENT.  The
 * session is made for the tensors' size; options->batch 0 means n.  Of an autoencoder (component "vae", or its folder)
 * it is `z` [n,c,h,w] that is read, and `sample` that is written, with VQModel's `quantized` and `indices`; or `x`, a
 * picture, for `moments` (mean and log-variance) or `latents`: no scaling_factor is applied. progress (may be NULL) is
 * called after every batch, the last time before `out` is written. */
ht_status ht_predict_file(ht_model *model, const ht_session_options *options, const char *in, const char *out,
                          ht_progress progress, void *user);

/* Text encoders (CLIPTextModel, CLIPTextModelWithProjection, T5EncoderModel) are no denoisers and are not opened.  1 if
 * the folder, or its folder `component` (NULL: itself), has a config.json of one, else 0. */
int ht_is_text_encoder(const char *path, const char *component);

/* One evaluation of such a folder: reads `input_ids` [n,tokens] (whole numbers of any dtype) from the file `in`, writes
 * `last_hidden_state`, `hidden_states.-2`, `hidden_states.-2.final_layer_norm`, and `text_embeds` if the model has a
 * projection, else `pooler_output`.  Of T5's encoder `attention_mask` of the same shape is read too, if it is there,
 * and `last_hidden_state` alone is written.  Of options batch (0: n), threads, backend and isa count. */
ht_status ht_predict_text_file(const char *path, const char *component, const ht_session_options *options,
                               const char *in, const char *out, ht_progress progress, void *user);

/* ---- sampling ---- */

typedef enum ht_rng {
    HT_RNG_PHILOX = 0, /* one Philox4x32-10 stream an image index: image i of seed s is the same whatever n is */
    HT_RNG_TORCH_CPU,  /* torch.randn with a CPU generator: draws depend on how many images are drawn at once, as in
                          diffusers */
    HT_RNG_TORCH_CUDA  /* torch.randn with a CUDA generator */
} ht_rng;

/* Takes a finished image [h,w,c], borrowed until return; return nonzero to stop: the call then fails with
 * HT_ERR_CANCELLED. */
typedef int (*ht_deliver)(void *user, int64_t index, const float *image);

typedef struct ht_sample_options {
    int steps; /* 0 means 50; negative or more than the schedule has is an error; "uniform" can take a few more */
    const char *sampler; /* of ht_sampler_name; NULL: ht_model_info's */
    const char *spacing; /* "leading", "trailing", "linspace" as diffusers, "uniform", "quad" as DDIM, "adm" as ADM (the
                            last three with ddim and ddpm alone); NULL: the config's */
    const char *sigmas;  /* noise levels of euler, heun, dpm++, unipc, deis: "default", "karras" (arXiv:2206.00364 eq.
                            5),  "exponential"; NULL: the config's */
    double eta;          /* DDIM eq. 16; 0 is deterministic */
    uint64_t seed;
    ht_rng rng;
    int64_t total; /* images that a HT_RNG_TORCH_* draw covers, as the batch of a diffusers pipeline call; 0 means first
                      + n */
    const ht_cond *cond;     /* n rows; NULL if the model takes nothing besides x and t */
    const ht_cond *negative; /* n rows that images are led away from: classifier-free guidance (arXiv:2207.12598), as
                                one batch, so that a session's batch has room for half as many; NULL: none */
    double guidance;         /* with negative: eps = negative + guidance (own - negative) */
    int guidance_channels;   /* how many of x's channels are led, from the first; 0: all (facebook's DiT: 3).  A learned
                                variance never is */
    double guidance_rescale; /* share in which eps is brought back to the spread of its own (arXiv:2305.08891) */
    int64_t each; /* images of one prompt: image k has row k / each of cond and negative, and the noise of index first +
                     k % each; 0: a row and an index for every image */
    const float *noise;   /* [n,h,w,c] to start from instead of drawing; NULL: drawn */
    ht_progress progress; /* called after every step of every batch; may be NULL */
    ht_deliver
        deliver; /* called once for each image, in the order of their index, as soon as it is finished; may be NULL */
    void *user;  /* of both */
} ht_sample_options;

/* Sampler i of the table: "ddim", and in words "DDIM"; NULL after the last. */
const char *ht_sampler_name(int i, const char **words);

/* Draw images first .. first+n-1 of a seed into images [n,h,w,c], values about [-1,1] (not clipped).
 * Methods: those of diffusers' schedulers, as scheduler_config.json sets them; the sources in sampler/ name the papers.
 * images is working memory meanwhile: after a failure it holds nothing of use.  It may be NULL, for
 * images that are only delivered: then memory does not grow with n, except that with HT_RNG_TORCH_* the numbers of one
 * draw are held (`total` images), and also the n images if steps add noise, for then all take each step together and
 * none is finished before the last step. Options, cond and noise are checked before the first evaluation. HT_ERR_FORMAT
 * names the step after which an image had values that are not finite. */
ht_status ht_sample(ht_session *session, const ht_sample_options *options, int64_t first, int64_t n, float *images);

/* ---- pipelines: from prompts, classes or noise to pictures ---- */

/* A denoiser with what stands around it in its folder: tokenizers, text encoders, the autoencoder that makes pictures
 * of latents.  A denoiser that draws pictures by itself is a pipeline too. */
typedef struct ht_pipeline ht_pipeline;

/* As ht_model_open and ht_session_open; of options height and width are those of pictures (0: the model's own), batch
 * is in pictures.  Weights are mapped.  What runs is compiled when it is needed: text encoders only for as long as
 * prompts are encoded. */
ht_status ht_pipeline_open(const char *path, const ht_session_options *options, ht_pipeline **pipeline);
void ht_pipeline_close(ht_pipeline *pipeline); /* NULL is allowed */

typedef struct ht_pipeline_info {
    ht_model_info model;         /* of the denoiser */
    int height, width, channels; /* of pictures */
    int factor;                  /* pixels along a side of a latent; 1: there are none */
    int takes_prompt;            /* nonzero: every picture needs one */
    int takes_mask;              /* nonzero: an inpainting model, which needs a picture and a mask */
    double guidance;             /* that is taken if none is said: 7.5 of prompts, 4 of classes; 1: it cannot be led */
    int distilled;               /* nonzero: it is told of the guidance (LCM) and needs no second evaluation */
    ht_session_info session;     /* of the denoiser, once it has run; zeros before */
} ht_pipeline_info;

void ht_pipeline_get_info(const ht_pipeline *pipeline, ht_pipeline_info *info);

/* After a step, how the first picture of a batch will look as far as can be told: [h,w,3], borrowed until return. */
typedef void (*ht_preview)(void *user, int step, int steps, int height, int width, const float *image);

typedef struct ht_draw_options {
    ht_sample_options sample; /* deliver gets pictures; cond may hold class_labels, a row a picture; each is not read */
    int64_t prompts;          /* how many; picture k has prompt k / (n / prompts), and of these the i-th the noise of
                                 index first + i, whatever the other prompts are; with torch's generators all pictures are
                                 one draw, as a call of a diffusers pipeline with a list of prompts */
    int own_noise;            /* nonzero: picture k has the noise of index first + k, whatever its prompt */
    const char *const *prompt, *const *prompt_2;     /* UTF-8; the second encoder's text, NULL: the same */
    const char *const *negative, *const *negative_2; /* NULL, or an entry NULL: none, which is the empty text, or as the
                                                        model has it (SDXL: zeros) */
    int plain_prompts; /* nonzero: brackets are text, and what is longer than a row is cut, as diffusers has it; else as
                          docs/prompts.md says */
    int max_sequence_length; /* of T5: tokens of a prompt that are read, the end included; 0: 120 of PixArt-alpha, 300
                                of Sigma */
    int clip_skip;           /* 1: hidden states of the text encoder's last layer but one */
    int no_guidance; /* nonzero: no second evaluation; else sample.guidance, 0: ht_pipeline_info's, and 1: none either
                      */
    int original_size[2], crop[2], target_size[2]; /* SDXL: height and width, top and left, height and width; 0: of the
                                                      picture */
    const float *init;                             /* [h,w,channels] in [-1,1]: a picture to change; NULL: none */
    double strength;    /* with init: the share of the steps that is taken; 0: 0.8, with a mask 1 */
    const float *mask;  /* [h,w], above 0.5 where init is to be drawn anew; NULL: everywhere */
    int cache_interval; /* DeepCache (arXiv:2312.00858): the whole denoiser every so many steps, between them without
what is below a skip; 0 and 1: always whole */
    int cache_branch;   /* the skip, 0 the outermost: a higher one computes more and errs less */
    int tile;           /* pixels: latents become a picture in tiles of this side, blended where they overlap, as
                           diffusers' enable_vae_tiling: the memory of a tile; 0: at once */
    ht_preview preview; /* may be NULL */
    void *preview_user;
    const char *preview_model; /* folder of a small decoder (AutoencoderTiny) for previews; NULL: a linear map of the
                                  latents, a pixel each */
} ht_draw_options;

/* Whether a prompt can be read at all: HT_ERR_ARGUMENT says what is wrong with it. */
ht_status ht_pipeline_check_prompt(const ht_pipeline *pipeline, const char *prompt, int plain);

/* Draw pictures first .. first+n-1 of a seed into images [n,h,w,channels], or deliver them one by one as ht_sample
 * does; index in deliver: first + k.  n is a multiple of prompts. */
ht_status ht_pipeline_draw(ht_pipeline *pipeline, const ht_draw_options *options, int64_t first, int64_t n,
                           float *images);

/* Read a PNG, JPEG or BMP file as [height,width,3] in [-1,1], resized if it has another size (bicubic). */
ht_status ht_picture_read(const char *path, int height, int width, float *out);

/* ---- calibration and quantization ---- */

typedef struct ht_calibrate_options {
    int steps;                /* of the float model's sampler; 0 means 40 */
    const char *spacing;      /* as in ht_sample_options; NULL: the config's */
    const char *distribution; /* of timesteps that give samples: "uniform" (Q-Diffusion), "quad", "normal" (PTQ4DM),
                                 "all", "one"; NULL: "uniform" */
    int timesteps;            /* how many of them; 0 means 20 */
    int per_step;             /* samples each; 0 means 16 */
    const char *prompts;      /* of models that a pipeline's text encoders serve: a file of prompts, one a line, that go
                                 round the trajectories; NULL: a few of our own */
    const char *conditions;   /* instead of prompts: a safetensors file of what the model takes besides x and t, as
                                 ht_predict_file names it, [n,...] each; negative_encoder_hidden_states and the like are
                                 of no prompt, for guidance */
    double guidance;          /* of trajectories with prompts, whose samples are half of the branch without: 1 for none,
                                 0 means 7.5 */
    uint64_t seed;            /* of trajectories; never those that ht_sample draws from the same seed */
    int batch, threads;       /* evaluated at once; 0 means 16 */
    ht_progress progress;     /* of model evaluations; may be NULL */
    void *user;
} ht_calibrate_options;

/* Whether these options can be right for a model at all: HT_ERR_ARGUMENT if not. ht_calibrate asks it first. */
ht_status ht_calibrate_check(const ht_calibrate_options *options);

/* Run the sampler, take x_t at a distribution of timesteps, observe every layer's inputs on them by timestep, and write
 * the set and the statistics to a safetensors file (`sample` [n,c,h,w] and `timestep` [n], which ht_predict_file reads
 * too).  The same options give the same bytes. */
ht_status ht_calibrate(ht_model *model, const ht_calibrate_options *options, const char *path);

/* What a calibration file has, as the text of a JSON object that the caller frees: how it was made (`settings`), of
 * which weights (`model`, SHA-256), `samples`, `timesteps`, and of every input of a layer its least and largest value
 * at each timestep (`inputs`). */
ht_status ht_calibration_json(const char *path, char **json);

#define HT_BITS_LEAST (-1.0)

typedef struct ht_quantize_options {
    const char *scheme;           /* "w4a8", "w8a8", "w4a32", ... (ht_scheme_name); NULL: "w4a8" */
    const char *weights, *inputs; /* formats by name instead of the scheme's; "float" leaves inputs as they are; of
                                     several weights' ("fp4_e2m1,fp4_e3m0") each layer takes the one that errs least */
    const char *layers;           /* which: "default", "all", "tfmq"; NULL: "default" (docs/quantization.md) */
    double bits;                  /* a weight, on average, that layers at 8 bits may raise it to; 0 means 4.68 where the
                                     scheme takes less; HT_BITS_LEAST: none are raised */
    const char *scale;            /* of weights: "minmax", "percentile", "mse", "l2.4"; NULL: "mse" */
    const char *scale_powers; /* of 4-bit weights: "free"; "each": powers of two; "tensor": those times one number, as
                                 FP4 that is widened to FP8 by shifts wants it; NULL: "free" */
    const char *rounding;     /* "nearest", "gptq", "descent", "gptq+descent", "adaround"; NULL: "gptq+descent" */
    int couple;               /* nonzero: outputs of a layer of 4 bits are rounded together, so that what reads them
                                 errs little (docs/quantization.md) */
    double smooth;            /* above 0, at most 1: channels of inputs are evened out against those of weights, with
                                                this exponent (SmoothQuant's alpha); 0: they are not */
    int rotate; /* above 0: groups of so many channels, a power of 4, are rotated by a Hadamard matrix, in weights and,
                   as they come, inputs, which are dynamic or float; 0: none */
    int low_rank;        /* above 0: 16-bit weights of this rank beside those of less than 8 bits (SVDQuant); 0: none */
    const char *softmax; /* of every attention, before it multiplies values: "float", "uint16", "uint8", "log2" (4
                            bits), on the CPU; NULL: "float" */
    const char *observer; /* of input ranges: "minmax", "percentile", "mse", "l2.4"; NULL: "minmax" */
    double percentile;    /* of "percentile"; 0 means 99.9 */
    int groups;   /* of timesteps with input scales of their own; 0: as many as were calibrated, 1: one for all */
    int dynamic;  /* nonzero: input scales are found as inputs come, of each token or image */
    int no_split; /* nonzero: concatenations are quantized as one */
    const char *temporal; /* what depends on the timestep alone: "cache" (weights in 8 bits, computed in float once a
                             schedule), "quantized", "select"; NULL: "cache" */
    int blocks;           /* iterations of block reconstruction after rounding; 0: none */
    uint64_t seed;
    const char *calibration; /* a file of ht_calibrate; NULL: calibrate with its defaults and this seed */
    const char *prompts;     /* for that: as in ht_calibrate_options */
    int batch, threads;
    ht_progress progress; /* done of total, in thousandths of all work; may be NULL */
    void *user;
} ht_quantize_options;

/* Whether these options can be right for a model at all: HT_ERR_ARGUMENT if not. ht_quantize asks it first. */
ht_status ht_quantize_check(const ht_quantize_options *options);

/* Quantize a model of floats and write it as a model folder.  Before the work HT_ERR_ARGUMENT names what cannot be:
 * path is there and no empty folder, or another process is making it; bits are fewer than the scheme takes.  The folder
 * is there, empty, while it is made; what is in it comes at once, when it is whole.  After a failure it is gone, if it
 * was not there before. */
ht_status ht_quantize(ht_model *model, const ht_quantize_options *options, const char *path);

/* Scheme i of the table: its name, and in words what it stores; NULL after the last. */
const char *ht_scheme_name(int i, const char **words);

/* ---- evaluation: distances between sets of images ---- */

enum {                          /* ht_evaluate_options.metrics */
       HT_METRIC_FRECHET = 1,   /* FD; FID, if the network is FID's (arXiv:1706.08500) */
       HT_METRIC_SPATIAL = 2,   /* the same of the network's spatial features: sFID (arXiv:2103.03841) */
       HT_METRIC_KID = 4,       /* arXiv:1801.01401 */
       HT_METRIC_INCEPTION = 8, /* Inception Score (arXiv:1606.03498), of the set alone */
       HT_METRIC_MANIFOLD = 16, /* precision, recall (arXiv:1904.06991), density, coverage (arXiv:2002.09797) */
       HT_METRIC_PSNR = 32,     /* this one and the next two: of pairs, image i with image i */
       HT_METRIC_SSIM = 64,
       HT_METRIC_DISTANCE = 128 /* Euclidean, of features */
};

/* Several processes that measure the same sets, each a part of every set: pictures are loaded, drawn and run through
 * the network by one of them each, and all add up what all have made, in the order of the pictures, so that every
 * process has the results that one alone would have, bit for bit.  Sets, options and models must be the same in all. */
typedef struct ht_share {
    int part, parts; /* this process, 0 .. parts-1 */
    /* mine [bytes] of every part -> all [parts][bytes] in every process.  Nonzero to stop: the call then fails with
     * HT_ERR_CANCELLED. */
    int (*exchange)(void *user, const void *mine, size_t bytes, void *all);
    void *user;
} ht_share;

/* Where images come from. */
typedef struct ht_image_source {
    const char *path;  /* a folder (also what lies in folders there; PNG, JPEG, BMP), a zip of such files, or an .npz of
                          mu  and sigma, as pytorch-fid's; with draw: a name for messages */
    int64_t n;         /* with draw: how many; else at most so many of the files, in the order of their names; 0: all */
    int height, width; /* with draw: of an image */
    /* Images first .. first+n-1 -> [n,h,w,3] in [-1,1], which are rounded to 8 bits.  NULL: read from path. */
    ht_status (*draw)(void *user, int64_t first, int64_t n, float *images);
    void *user;
    const char *save; /* file for mu and sigma of these images (.npz), which part 0 writes; NULL: they are not kept */
    const ht_share *share; /* borrowed; NULL: this process measures all of it */
} ht_image_source;

/* The size of a folder's or a zip's first image; 0 x 0 for an .npz. */
ht_status ht_image_source_size(const char *path, int *height, int *width);

typedef struct ht_evaluate_options {
    const char *features; /* the network: a folder with config.json and weights, or a .safetensors of FID's InceptionV3
                             in the names of pytorch-fid; NULL: none, for .npz alone */
    const char *output;   /* of the network, that stands for an image: "64", "192", "768", "2048"; NULL: the last */
    const char *resize;   /* "bilinear" as pytorch-fid, "tf1" as torch-fidelity and ADM, "bicubic" as clean-fid, "none";
                             NULL: the network's own */
    unsigned metrics;     /* HT_METRIC_* bits; 0: HT_METRIC_FRECHET */
    int skip_bad;         /* nonzero: images that cannot be read are left out */
    int threads;
    const char *isa; /* as in ht_session_options */
    uint64_t seed;   /* of KID's subsets and of the order for IS; 2020 gives torch-fidelity's */
    int kid_subsets, kid_size, splits, neighbours; /* 0 means 100, 1000, 10, 3 */
    ht_progress progress;                          /* images of the source at hand; may be NULL */
    void (*remark)(void *user, const char *line);  /* images that are left out, and warnings; may be NULL */
    void *user;                                    /* of both */
} ht_evaluate_options;

typedef struct ht_evaluator ht_evaluator;

/* Options are copied, their texts too. */
ht_status ht_evaluator_open(const ht_evaluate_options *options, ht_evaluator **evaluator);
void ht_evaluator_close(ht_evaluator *evaluator); /* NULL is allowed */

typedef struct ht_evaluator_info {
    const char *features; /* the network's name, that of its file; NULL: none */
    int dim;              /* numbers an image */
    const char *resize;
    int is_fid; /* nonzero: FID's network and its last features, so that the Frechet distance is called FID */
} ht_evaluator_info;

void ht_evaluator_get_info(const ht_evaluator *evaluator, ht_evaluator_info *info);

/* Take in the reference set.  Images are read, decoded and resized by all threads, some at a time: memory does not grow
 * with the set, but for the vectors that KID, IS, the manifold and the distance need.  Results do not depend on
 * threads. What cannot be read is named through remark; unless it is to be skipped, the call fails and says how many
 * there are. HT_ERR_SHAPE if an image has not the size that is wanted and none is resized, HT_ERR_ARGUMENT if an .npz
 * is given and a metric needs images. */
ht_status ht_evaluator_reference(ht_evaluator *evaluator, const ht_image_source *source);

typedef struct ht_evaluation {
    int64_t n, n_reference, skipped; /* images taken; 0 of an .npz that does not say */
    double frechet, spatial, kid, kid_deviation, inception, inception_deviation;
    double precision, recall, density, coverage;
    double psnr, ssim, distance; /* means over the pairs; psnr is infinite where a pair is the same */
} ht_evaluation;                 /* NaN for what was not asked for */

/* Measure a set against the reference, any number of them in turn.  Errors as above. */
ht_status ht_evaluator_compare(ht_evaluator *evaluator, const ht_image_source *source, ht_evaluation *out);

/* ---- images ---- */

/* Write one image [h,w,c] or a grid of n (columns 0: nearly square; 2 pixels between), c 1, 3 or 4, values [-1,1]
 * clipped and rounded to 8 bits as round((x / 2 + 0.5) * 255), as a PNG with a tEXt chunk `parameters` (NULL: none).
 * The file appears under its name only when whole. */
ht_status ht_image_save(const char *path, const float *image, int h, int w, int c, const char *parameters);
ht_status ht_image_save_grid(const char *path, const float *images, int64_t n, int h, int w, int c, int columns,
                             const char *parameters);

#ifdef __GNUC__
#pragma GCC visibility pop
#endif
#ifdef __cplusplus
}
#endif
#endif
