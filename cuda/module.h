/* module.h - what libhalftone-cuda.so offers to the program that opens it: memory, a stream, captured graphs, and one
 * launch function per kind of kernel.
 *
 * The module knows no graph, no model and no file: everything it gets is plain numbers and device addresses in one
 * struct per kernel.  It links nothing of libhalftone and prints nothing.  All functions may be called from one thread
 * at a time.  Kernels run in the order of their launches, on the module's one stream; those of a device that was
 * opened.
 *
 * Activations are rows of channels, as in cpu/window.h.  A tensor says what its elements are; kernels that are hot take
 * only some of these and say so (HT_CUDA_REFUSED): the caller asks before it launches.  Reductions have an order that
 * does not depend on the number of images. */
#ifndef HT_CUDA_MODULE_H
#define HT_CUDA_MODULE_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum { HT_CUDA_VERSION = 2 }; /* of this file: a module of another is not used */

typedef enum ht_cuda_dtype {
    HT_CUDA_F32,
    HT_CUDA_F16,
    HT_CUDA_U8,  /* codes with a step and a zero point: value = step (code - zero) */
    HT_CUDA_E4M3 /* codes of FP8: value = step * e4m3(code) */
} ht_cuda_dtype;

typedef struct ht_cuda_tensor {
    void *data; /* device memory, 16-byte aligned; NULL: absent */
    ht_cuda_dtype dtype;
} ht_cuda_tensor;

typedef struct ht_cuda_device {
    char name[256];
    int major, minor; /* compute capability */
    int multiprocessors;
    size_t memory; /* bytes in all */
} ht_cuda_device;

/* 0: launched.  HT_CUDA_REFUSED: no kernel for these arguments, nothing was launched.  Else an error, of which `error`
 * has the words. */
enum { HT_CUDA_OK = 0, HT_CUDA_REFUSED = -1 };

/* Rows for the images of a batch: row of image i at data + i * stride (floats), stride 0: one for all.  float32. */
typedef struct ht_cuda_rows {
    const float *data; /* NULL: absent */
    int64_t stride;
} ht_cuda_rows;

/* Step and zero point, two floats.  Of row m of a product or norm: data + stride * (per_row ? m : image of m). */
typedef struct ht_cuda_scales {
    const float *data; /* NULL: absent */
    int64_t stride;    /* 0: one for all; 2 otherwise */
    int per_row;
} ht_cuda_scales;

/* What an element becomes as it is written: plain, or a code clamp(round(v * (1 / step)) + zero, 0, levels) where the
 * output is HT_CUDA_U8, or nearest e4m3 of v / step, saturating at 448, where it is HT_CUDA_E4M3. */
typedef struct ht_cuda_codes {
    ht_cuda_scales scale;
    float levels;
} ht_cuda_codes;

/* ---- products: conv2d and linear (graph/ops.def) ----
 *
 * out[m][n] = ((sum_k a[m][k] w[n][k] + bias[n]) + row[image][n] + residual[m][n]) * scale, then ReLU if asked for.
 * A row m is an output pixel; the window is that of cpu/window.h: taps of kernel_w x kernel_h, stride, padding,
 * nearest upsampling before.  A linear layer has one tap, h = 1, w = out_w = rows_per_image.
 *
 * k on the device is ordered by input, then tap, then channel: all taps of X's channels, then all of X2's.  Each tap's
 * channels are filled up with weights of 0 to a multiple of `channel_step` (module->product_layout): k_stored = taps *
 * (padded c[0] + padded c[1]). */
typedef enum ht_cuda_weights {
    HT_CUDA_W_F32,  /* [cols][k_stored] */
    HT_CUDA_W_F16,  /* [cols][k_stored] */
    HT_CUDA_W_S8,   /* whole weights, times scales; inputs U8 */
    HT_CUDA_W_S4,   /* codes of 4 bits, whole weight = values[code]; inputs U8 */
    HT_CUDA_W_E4M3, /* inputs E4M3 */
    HT_CUDA_W_F4    /* codes of 4 bits, values[code] is the e4m3 code they stand for; inputs E4M3 */
} ht_cuda_weights;

typedef struct ht_cuda_window {
    int64_t rows, rows_per_image; /* rows of all images */
    int cols;
    int c[2]; /* channels of X and X2; c[1] 0: no X2 */
    int kernel_w, kernel_h, stride, pad_top, pad_left, upsample;
    int h, w, out_w; /* of X as it lies in memory; of the output */
} ht_cuda_window;

typedef struct ht_cuda_product {
    ht_cuda_window window;
    ht_cuda_tensor x, x2;      /* of the same dtype */
    ht_cuda_scales x_scale[2]; /* of U8 and E4M3: those of X and X2 */
    ht_cuda_weights format;
    const void *weights;        /* as module->product_pack laid them out; device memory */
    const float *weight_scales; /* [segments][cols_padded]: scale of a weight, by segment; not of F32, F16 */
    const int32_t *weight_sums; /* [segments][cols_padded]: sum of a segment's whole weights; S8, S4 */
    int parts;                  /* of U8 and E4M3: 2 if X and X2 have segments of their own, 1 if all is one part */
    int block;                  /* k of a segment in weights' scales: 16, 32, 64 or 128, which divides c[0] and c[1], so
                                   that segments go on by input, tap and channel; 0: a part is one segment */
    signed char values[16];     /* S4: whole weights; F4: e4m3 codes */
    const float *bias;          /* [cols] or NULL */
    ht_cuda_rows row;
    ht_cuda_tensor residual; /* [rows][cols], F32 or F16 */
    float scale;
    int relu;
    ht_cuda_tensor out;  /* [rows][cols] */
    ht_cuda_codes codes; /* where out is U8 or E4M3 */
    void *workspace;     /* of module->product_workspace bytes, shared by all launches */
} ht_cuda_product;

/* How weights of a product must be prepared by the host before product_pack. */
typedef struct ht_cuda_layout {
    int channel_step; /* channels of each tap and input are padded to a multiple of this */
    int col_step;     /* columns are padded to a multiple of this */
    size_t bytes;     /* of the packed weights */
} ht_cuda_layout;

/* ---- norms ---- */

typedef struct ht_cuda_group_norm {
    int images, positions; /* of one image: h * w */
    int c[2], groups;
    ht_cuda_tensor x, x2; /* F32 or F16, alike */
    const float *weight, *bias;
    float eps;
    int silu;
    ht_cuda_tensor out; /* [images][positions][c0 + c1] */
    ht_cuda_codes codes;
    float *workspace; /* module->group_norm_workspace bytes */
} ht_cuda_group_norm;

typedef enum ht_cuda_row_norm_kind {
    HT_CUDA_LAYER_NORM, /* (x - mean) r weight + bias */
    HT_CUDA_MODULATE,   /* (x - mean) r (1 + scale row) + shift row */
    HT_CUDA_RMS_NORM    /* x r weight */
} ht_cuda_row_norm_kind;

typedef struct ht_cuda_row_norm {
    ht_cuda_row_norm_kind kind;
    int64_t rows, rows_per_image;
    int channels;
    ht_cuda_tensor x;
    const float *weight, *bias;
    ht_cuda_rows scale_row, shift_row;
    float eps;
    ht_cuda_tensor out;
    ht_cuda_codes codes;
} ht_cuda_row_norm;

/* ---- attention: softmax(q k^T scale + bias) v per head ---- */

typedef struct ht_cuda_attention {
    int images, queries, keys, heads, dim; /* dim: channels of a head */
    ht_cuda_tensor q, k, v, out;           /* [images][tokens][heads * dim]; F32 or F16, q, k and v alike */
    int kv_images;                         /* images that k and v have: `images`, or 1 for all */
    float scale;
    int causal;
    const float *key_bias; /* [images][keys], added to scores; NULL: nothing */
    int64_t key_bias_stride;
    const float *distance_bias; /* [heads][queries + keys - 1], at j - t + queries - 1; NULL: nothing */
} ht_cuda_attention;

/* ---- everything else: one element of the output at a time, or one row ---- */

typedef enum ht_cuda_map_kind {
    HT_CUDA_SILU,
    HT_CUDA_GELU,
    HT_CUDA_QUICK_GELU,
    HT_CUDA_GELU_TANH,
    HT_CUDA_RELU,
    HT_CUDA_TANH,
    HT_CUDA_COPY,   /* converts */
    HT_CUDA_AFFINE, /* x * a + b */
    HT_CUDA_ADD,    /* x + y; either may be repeated */
    HT_CUDA_MULTIPLY,
    HT_CUDA_ADD_ROW,     /* x + row */
    HT_CUDA_SCALE_SHIFT, /* x (1 + row) + row2, SiLU if a is not 0 */
    HT_CUDA_GATE,        /* x row + y */
    HT_CUDA_GEGLU,       /* x [rows][2 c] -> first half * gelu(second half) */
    HT_CUDA_QUANTIZE,    /* x to codes; to U8 or E4M3, or where out is F16 or F32 to the float grid's value */
    HT_CUDA_ADD_TABLE,   /* x + table[row % a][channel] */
    HT_CUDA_TIMES_TABLE  /* x * the same */
} ht_cuda_map_kind;

typedef struct ht_cuda_map {
    ht_cuda_map_kind kind;
    int64_t rows, rows_per_image;
    int channels; /* of the output */
    ht_cuda_tensor x, y, out;
    int64_t x_period, y_period; /* elements after which x and y begin again; 0: never */
    ht_cuda_rows row, row2;
    const float *table;
    float a, b;
    ht_cuda_codes codes;
    int exponent_bits, mantissa_bits; /* of a float grid that is simulated; unit and highest of the grid */
    float unit, highest, lowest;
} ht_cuda_map;

typedef enum ht_cuda_move_kind {
    HT_CUDA_SLICE,      /* channels begin .. */
    HT_CUDA_CONCAT,     /* x | y */
    HT_CUDA_UPSAMPLE,   /* nearest, twice; out h x w may be one less */
    HT_CUDA_AVG_POOL,   /* 2x2 */
    HT_CUDA_UNPATCHIFY, /* [n,h,w,k k c] -> [n,h k,w k,c] */
    HT_CUDA_PICK,       /* [n,tokens,c], y token numbers [n] -> [n,c] */
    HT_CUDA_LOOKUP,     /* table row number x[row]: F32 table */
    HT_CUDA_MEAN        /* over positions: [n,positions,c] -> [n,c] */
} ht_cuda_move_kind;

typedef struct ht_cuda_move {
    ht_cuda_move_kind kind;
    int64_t rows; /* of the output: all but channels */
    int c[2];     /* channels of x, and of y */
    int channels; /* of the output */
    int begin;
    int h, w, out_h, out_w, k; /* of x, of the output; k of unpatchify */
    int64_t positions;         /* of x in an image: tokens, h * w */
    ht_cuda_tensor x, y, out;
    const float *table;
} ht_cuda_move;

typedef struct ht_cuda_embedding { /* timestep_embedding of graph/ops.def */
    int64_t rows;
    int dim, flip_sin_to_cos;
    float freq_shift;
    const float *x;
    float *out;
} ht_cuda_embedding;

typedef struct ht_cuda_input_scale { /* the row of a table by timestep: the nearest, of two the first */
    int groups;
    const float *timesteps, *step, *zero, *x; /* x NULL: row 0 */
    float *out;
} ht_cuda_input_scale;

typedef struct ht_cuda_input_range { /* ht_format_block_of_range of each of `rows` spans of `count` elements */
    int64_t rows, count;
    ht_cuda_tensor x;
    float levels;
    float *out; /* [rows][2] */
} ht_cuda_input_range;

typedef struct ht_cuda_recording ht_cuda_recording; /* a captured graph */

typedef struct ht_cuda_module {
    int version;
    int (*devices)(void); /* how many there are; below 0: an error */
    int (*open)(int device, ht_cuda_device *found);
    void (*close)(void);
    const char *(*error)(void); /* the words of the last error */

    void *(*alloc)(size_t bytes); /* NULL: an error.  Zeroed */
    void (*free)(void *memory);
    int (*upload)(void *to, const void *from, size_t bytes);   /* returns when `from` may be changed */
    int (*download)(void *to, const void *from, size_t bytes); /* after everything launched before is done */
    int (*copy)(void *to, const void *from, size_t bytes);     /* on the stream */
    int (*use)(void);    /* the device that was opened is the calling thread's from here on */
    int (*finish)(void); /* wait for everything; an error that kernels had */

    int (*record)(void); /* launches from here on are captured instead of run */
    int (*recorded)(ht_cuda_recording **recording);
    int (*replay)(ht_cuda_recording *recording);
    void (*forget)(ht_cuda_recording *recording);

    /* Time of what lies between: milliseconds, the stream's own clock.  Not while recording. */
    int (*mark)(int which);              /* 0 .. 1 */
    int (*elapsed)(float *milliseconds); /* from mark 0 to mark 1; waits */

    /* Product weights: how they must be laid out, and laying them out (host memory to host memory).
     * `from` is [cols][k_stored] in the order above, of F32: float, F16: half bits, S8: int8, E4M3: codes, a byte each;
     * of S4 and F4: codes, a byte each; columns that are padding are not in it. */
    int (*product_layout)(const ht_cuda_product *p, ht_cuda_layout *layout); /* HT_CUDA_REFUSED: no kernel */
    void (*product_pack)(const ht_cuda_product *p, const void *from, void *to);
    const char *(*product_name)(const ht_cuda_product *p); /* the kernel that would run */
    size_t (*product_workspace)(const ht_cuda_product *p);
    int (*product)(const ht_cuda_product *p);

    size_t (*group_norm_workspace)(const ht_cuda_group_norm *n);
    int (*group_norm)(const ht_cuda_group_norm *n);
    int (*row_norm)(const ht_cuda_row_norm *n);
    int (*attention)(const ht_cuda_attention *a);
    const char *(*attention_name)(const ht_cuda_attention *a);
    int (*map)(const ht_cuda_map *m);
    int (*move)(const ht_cuda_move *m);
    int (*embedding)(const ht_cuda_embedding *e);
    int (*input_scale)(const ht_cuda_input_scale *s);
    int (*input_range)(const ht_cuda_input_range *r);

    /* What the device reaches with products of these weights back to back, in operations a second, measured anew: of
     * HT_CUDA_W_F16, S8 and E4M3.  0: an error, or it has none. */
    double (*peak)(ht_cuda_weights format);
} ht_cuda_module;

/* The one symbol that the program looks up (tests also look up ht_cuda_pretend, cuda/product.cu). */
const ht_cuda_module *ht_cuda_module_get(void);

#ifdef __cplusplus
}
#endif

#endif
