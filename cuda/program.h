/* program.h - a graph compiled for a GPU, for the files of cuda/ only.
 *
 * Every value has a dtype on the device.  With `half`, what is made in each step or of a prompt is float16, and sums,
 * statistics and everything that depends on timesteps alone stay float32; without it all values are float32.  Codes are
 * bytes.  */
#ifndef HT_CUDA_PROGRAM_H
#define HT_CUDA_PROGRAM_H

#include "cuda/open.h"
#include "graph/plan.h"

typedef struct ht_cuda_step {
    const ht_op *op;
    const char *kernel;
    ht_cuda_product product;  /* of conv2d and linear: all that does not change from run to run */
    const float *constant[2]; /* device: weight and bias of a norm, a table, a row */
    const float *table[3];    /* device: timesteps, step and zero of input_scale */
    double seconds;
    int64_t runs;
} ht_cuda_step;

enum { HT_CUDA_RECORDINGS = 4 }; /* of a stage, for different numbers of images */

typedef struct ht_cuda_stage {
    int *steps, length;
    int n[HT_CUDA_RECORDINGS];
    ht_cuda_recording *recording[HT_CUDA_RECORDINGS];
    int next; /* the recording that is given up next */
} ht_cuda_stage;

struct ht_program {
    ht_arena *arena;
    const ht_graph *graph;
    const ht_cuda_module *module;
    ht_cuda_device device;
    const char *isa;
    bool half, profile;
    ht_cuda_dtype *dtypes; /* by value id */
    unsigned char *widths;
    ht_plan plan;
    char *kept, *work, *row;
    float *staging; /* a value in float32 on its way out */
    void *workspace;
    size_t weight_bytes, staging_bytes, workspace_bytes;
    void **owned; /* device memory of constants and weights */
    int n_owned, cap_owned;
    ht_cuda_step *steps; /* by operation */
    ht_cuda_stage stages[HT_STAGES];
};

/* dtypes.c: what every value is on the device; fills p->dtypes and p->widths. */
ht_status ht_cuda_choose_dtypes(ht_program *p);

/* prepare.c: bring what op needs of the checkpoint to the device. */
ht_status ht_cuda_prepare(ht_program *p, ht_cuda_step *s);

/* Host memory to device memory that the program owns.  NULL: message set. */
void *ht_cuda_keep(ht_program *p, const void *data, size_t bytes);

/* weights.c: weights of a product in the device's order, and their scales. */
ht_status ht_cuda_prepare_product(ht_program *p, ht_cuda_step *s);

/* What runs as a product of the device's. */
static inline bool ht_cuda_is_product(const ht_op *op)
{
    return ht_op_is_product(op) || op->kind == HT_OP_rotate;
}

/* launch.c: run op for n images.  HT_CUDA_OK, or what the module said.  ht_cuda_runs: whether there is a way to. */
int ht_cuda_launch(const ht_program *p, const ht_cuda_step *s, int n);
bool ht_cuda_runs(ht_op_kind kind);
size_t ht_cuda_workspace(const ht_program *p, const ht_cuda_step *s, int n);
/* The kernel that op gets, where the module has several; else it is called as the operation is. */
void ht_cuda_name_kernel(const ht_program *p, ht_cuda_step *s, int n);

/* Where v lies. */
static inline ht_cuda_tensor ht_cuda_tensor_of(const ht_program *p, const ht_value *v)
{
    if (!v || v->data)
        return (ht_cuda_tensor){0};
    const ht_place *place = &p->plan.places[v->id];
    char *area = place->area == HT_AREA_KEPT ? p->kept : place->area == HT_AREA_ROW ? p->row : p->work;
    return (ht_cuda_tensor){place->area == HT_AREA_NONE ? NULL : area + place->offset, p->dtypes[v->id]};
}

static inline int64_t ht_cuda_images(const ht_value *v, int n)
{
    return v->batched ? n : v->shape[0];
}

/* Rows of v in a run of n images: all dimensions but the channels. */
static inline int64_t ht_cuda_rows_of(const ht_value *v, int n)
{
    int64_t rows = ht_cuda_images(v, n);
    for (int i = 1; i < v->ndim - 1; i++)
        rows *= v->shape[i];
    return rows;
}

static inline int ht_cuda_channels(const ht_value *v)
{
    return (int)v->shape[v->ndim - 1];
}

static inline int64_t ht_cuda_count(const ht_value *v, int n)
{
    return ht_cuda_rows_of(v, n) * ht_cuda_channels(v);
}

#endif
