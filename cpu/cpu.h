/* cpu.h - the inside of the CPU backend: kernels, how they are called, how they are listed.
 *
 * A kernel is run by all threads of a team at once; each does its share and may wait for the others (ht_team_wait).
 * Every kernel of an operation computes the same bits as the scalar one, which defines them: sums are chains of fused
 * multiply-adds in a stated order, exp is ours (cpu/math.h), and shares are cut so that the order of a sum never
 * depends on the number of threads. */
#ifndef HT_CPU_CPU_H
#define HT_CPU_CPU_H

#include "cpu/team.h"
#include "graph/graph.h"

/* Each has all before it. */
typedef enum ht_isa { HT_ISA_SCALAR, HT_ISA_AVX2, HT_ISA_AVX512, HT_ISA_AVX512_VNNI, HT_ISA_AMX, HT_ISAS } ht_isa;

/* What a product is computed in: float32 (of whatever the weights are stored in), or sums of integers (codes of 8 bits
 * at most times whole weights). */
typedef enum ht_arithmetic { HT_IN_FLOAT, HT_IN_INTEGERS } ht_arithmetic;

ht_isa ht_cpu_detect(void); /* the most that this machine has; AVX2 means AVX2 and FMA */
const char *ht_isa_name(ht_isa isa);
int ht_isa_find(const char *name); /* -1: no such name */

typedef struct ht_call {
    const ht_op *op;
    int n;                      /* images of this run; shapes in op are of the largest */
    const float *in[HT_INPUTS]; /* NULL for absent inputs and for weights; codes are bytes: ht_codes_in */
    float *out;                 /* bytes where the output's dtype is HT_U8 */
    const void *packed;         /* what kernel.pack made of the weights */
} ht_call;

typedef struct ht_kernel {
    const char *name; /* op_format_isa_tile; NULL ends a list */
    ht_op_kind op;
    ht_isa isa;
    ht_arithmetic arithmetic;
    const char *(*refuses)(const ht_op *op); /* NULL or the reason; may itself be NULL */
    size_t (*packed)(const ht_op *op);       /* bytes; all sizes may be NULL for 0, and are multiples of 64 */
    void (*pack)(const ht_op *op, void *packed);
    size_t (*scratch)(const ht_op *op);
    size_t (*shared)(const ht_op *op);
    void (*run)(const ht_call *call,
                const ht_team *team); /* NULL: there is nothing to do, the output is the input's memory */
} ht_kernel;

/* The scalar kernel of each operation (cpu/reference*.c), which never refuses; and the fast kernels of each instruction
 * set, a list in which those of one operation stand best first: the first that does not refuse runs. */
extern const ht_kernel *const ht_reference_kernels[HT_OP_KINDS];
extern const ht_kernel ht_ref_integer_product; /* of conv2d and linear alike */
extern const ht_kernel ht_avx2_kernels[];
extern const ht_kernel ht_avx512_kernels[];
extern const ht_kernel ht_avx2_quantized_kernels[];
extern const ht_kernel ht_avx512vnni_kernels[];
extern const ht_kernel ht_amx_kernels[];

/* All of these, the best instruction set first; NULL ends it. */
extern const ht_kernel *const ht_kernel_lists[];

static inline ht_arithmetic ht_arithmetic_of(const ht_op *op)
{
    return op->layer && op->in[HT_IN_X]->dtype == HT_U8 ? HT_IN_INTEGERS : HT_IN_FLOAT;
}

static inline const uint8_t *ht_codes_in(const ht_call *call, int slot)
{
    return (const uint8_t *)call->in[slot];
}

/* Rows of v in a run of n images: all dimensions but the channels. */
static inline int64_t ht_rows(const ht_value *v, int n)
{
    int64_t rows = v->batched ? n : v->shape[0];
    for (int i = 1; i < v->ndim - 1; i++)
        rows *= v->shape[i];
    return rows;
}

static inline int64_t ht_channels(const ht_value *v)
{
    return v->shape[v->ndim - 1];
}

/* Row vector of image i: rows with a batch of one serve every image. */
static inline const float *ht_row_of(const float *rows, const ht_value *v, int64_t i)
{
    return rows + (v->batched ? i * ht_channels(v) : 0);
}

static inline size_t ht_round64(size_t bytes)
{
    return (bytes + 63) / 64 * 64;
}

#endif
