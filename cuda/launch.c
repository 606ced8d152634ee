/* launch.c - from an operation of the graph to the struct that its kernel takes: a function per operation, and the
 * table that names it. */
#include "cuda/program.h"

typedef int (*launcher)(const ht_program *p, const ht_cuda_step *s, int n);

/* ---- what structs share ---- */

static ht_cuda_tensor in(const ht_program *p, const ht_op *op, int slot)
{
    return ht_cuda_tensor_of(p, op->in[slot]);
}

static int64_t rows_per_image(const ht_value *v)
{
    return ht_cuda_rows_of(v, 1) / ht_cuda_images(v, 1);
}

static ht_cuda_rows rows_of(const ht_program *p, const ht_value *v)
{
    return (ht_cuda_rows){ht_cuda_tensor_of(p, v).data, v && v->batched ? ht_cuda_channels(v) : 0};
}

/* Values of [1,2], [n,2] or [n,tokens,2]. */
static ht_cuda_scales scales_of(const ht_program *p, const ht_value *v)
{
    return (ht_cuda_scales){ht_cuda_tensor_of(p, v).data, v && v->batched ? 2 : 0, v && v->batched && v->ndim == 3};
}

static ht_cuda_codes codes_of(const ht_program *p, const ht_op *op, int slot)
{
    return op->in[slot] && op->attrs.codes ? (ht_cuda_codes){scales_of(p, op->in[slot]), op->attrs.codes->grid.highest}
                                           : (ht_cuda_codes){{0}, 0};
}

/* ---- products ---- */

static ht_cuda_product product_of(const ht_program *p, const ht_cuda_step *s, int n)
{
    const ht_op *op = s->op;
    ht_cuda_product q = s->product;
    q.window.rows = ht_cuda_rows_of(op->out, n);
    q.x = in(p, op, HT_IN_X);
    q.x2 = in(p, op, HT_IN_X2);
    q.x2.dtype = q.x.dtype;
    q.x_scale[0] = scales_of(p, op->in[HT_IN_SCALE]);
    q.x_scale[1] = scales_of(p, op->in[q.parts == 2 ? HT_IN_SCALE2 : HT_IN_SCALE]);
    q.row = rows_of(p, op->in[HT_IN_ROW]);
    q.residual = in(p, op, HT_IN_RESIDUAL);
    q.out = ht_cuda_tensor_of(p, op->out);
    q.codes = codes_of(p, op, HT_IN_OUT_SCALE);
    q.workspace = p->workspace;
    return q;
}

static int product(const ht_program *p, const ht_cuda_step *s, int n)
{
    ht_cuda_product q = product_of(p, s, n);
    return p->module->product(&q);
}

/* ---- norms ---- */

static ht_cuda_group_norm group_norm_of(const ht_program *p, const ht_cuda_step *s, int n)
{
    const ht_op *op = s->op;
    const ht_value *x2 = op->in[HT_IN_X2];
    ht_cuda_group_norm a = {.images = (int)ht_cuda_images(op->out, n),
                            .positions = (int)rows_per_image(op->out),
                            .c = {ht_cuda_channels(op->in[HT_IN_X]), x2 ? ht_cuda_channels(x2) : 0},
                            .groups = op->attrs.groups,
                            .x = in(p, op, HT_IN_X),
                            .x2 = in(p, op, HT_IN_X2),
                            .weight = s->constant[0],
                            .bias = s->constant[1],
                            .eps = op->attrs.eps,
                            .silu = op->attrs.activation == HT_ACT_SILU,
                            .out = ht_cuda_tensor_of(p, op->out),
                            .codes = codes_of(p, op, HT_IN_OUT_SCALE),
                            .workspace = p->workspace};
    return a;
}

static int group_norm(const ht_program *p, const ht_cuda_step *s, int n)
{
    ht_cuda_group_norm a = group_norm_of(p, s, n);
    return p->module->group_norm(&a);
}

static int row_norm(const ht_program *p, const ht_cuda_step *s, int n)
{
    const ht_op *op = s->op;
    bool modulates = op->kind == HT_OP_modulate;
    ht_cuda_row_norm a = {.kind = modulates                    ? HT_CUDA_MODULATE
                                  : op->kind == HT_OP_rms_norm ? HT_CUDA_RMS_NORM
                                                               : HT_CUDA_LAYER_NORM,
                          .rows = ht_cuda_rows_of(op->out, n),
                          .rows_per_image = rows_per_image(op->out),
                          .channels = ht_cuda_channels(op->out),
                          .x = in(p, op, HT_IN_X),
                          .weight = s->constant[0],
                          .bias = s->constant[1],
                          .eps = op->attrs.eps,
                          .out = ht_cuda_tensor_of(p, op->out),
                          .codes = codes_of(p, op, HT_IN_OUT_SCALE)};
    if (modulates) {
        a.scale_row = rows_of(p, op->in[HT_IN_ROW]);
        a.shift_row = rows_of(p, op->in[HT_IN_RESIDUAL]);
    }
    return p->module->row_norm(&a);
}

/* ---- attention ---- */

static ht_cuda_attention attention_of(const ht_program *p, const ht_cuda_step *s, int n)
{
    const ht_op *op = s->op;
    const ht_value *q = op->in[HT_IN_Q], *k = op->in[HT_IN_K], *keys = op->in[HT_IN_ROW];
    return (ht_cuda_attention){.images = (int)ht_cuda_images(op->out, n),
                               .queries = (int)q->shape[1],
                               .keys = (int)k->shape[1],
                               .heads = op->attrs.heads,
                               .dim = ht_cuda_channels(q) / op->attrs.heads,
                               .q = in(p, op, HT_IN_Q),
                               .k = in(p, op, HT_IN_K),
                               .v = in(p, op, HT_IN_V),
                               .out = ht_cuda_tensor_of(p, op->out),
                               .kv_images = (int)ht_cuda_images(k, n),
                               .scale = op->attrs.scale,
                               .causal = op->attrs.causal,
                               .key_bias = in(p, op, HT_IN_ROW).data,
                               .key_bias_stride = keys && keys->batched ? k->shape[1] : 0,
                               .distance_bias = s->constant[1]};
}

static int attention(const ht_program *p, const ht_cuda_step *s, int n)
{
    ht_cuda_attention a = attention_of(p, s, n);
    return p->module->attention(&a);
}

/* ---- one element at a time ---- */

static ht_cuda_map map_of(const ht_program *p, const ht_cuda_step *s, int n, ht_cuda_map_kind kind)
{
    const ht_op *op = s->op;
    return (ht_cuda_map){.kind = kind,
                         .rows = ht_cuda_rows_of(op->out, n),
                         .rows_per_image = rows_per_image(op->out),
                         .channels = ht_cuda_channels(op->out),
                         .x = in(p, op, HT_IN_X),
                         .out = ht_cuda_tensor_of(p, op->out)};
}

static int plain(const ht_program *p, const ht_cuda_step *s, int n)
{
    static const ht_cuda_map_kind kinds[HT_OP_KINDS] = {
        [HT_OP_silu] = HT_CUDA_SILU,           [HT_OP_gelu] = HT_CUDA_GELU, [HT_OP_quick_gelu] = HT_CUDA_QUICK_GELU,
        [HT_OP_gelu_tanh] = HT_CUDA_GELU_TANH, [HT_OP_relu] = HT_CUDA_RELU, [HT_OP_tanh] = HT_CUDA_TANH};
    ht_cuda_map a = map_of(p, s, n, kinds[s->op->kind]);
    return p->module->map(&a);
}

static int affine(const ht_program *p, const ht_cuda_step *s, int n)
{
    ht_cuda_map a = map_of(p, s, n, HT_CUDA_AFFINE);
    a.a = s->op->attrs.scale;
    a.b = s->op->attrs.shift;
    return p->module->map(&a);
}

/* Elements after which an input of fewer than the output begins again; 0: it has as many. */
static int64_t period_of(const ht_op *op, int slot, int n)
{
    int64_t count = ht_cuda_count(op->in[slot], n);
    return count == ht_cuda_count(op->out, n) ? 0 : count;
}

static int two(const ht_program *p, const ht_cuda_step *s, int n)
{
    ht_cuda_map a = map_of(p, s, n, s->op->kind == HT_OP_add ? HT_CUDA_ADD : HT_CUDA_MULTIPLY);
    a.y = in(p, s->op, HT_IN_X2);
    a.x_period = period_of(s->op, HT_IN_X, n);
    a.y_period = period_of(s->op, HT_IN_X2, n);
    return p->module->map(&a);
}

static int with_row(const ht_program *p, const ht_cuda_step *s, int n)
{
    static const ht_cuda_map_kind kinds[HT_OP_KINDS] = {
        [HT_OP_add_row] = HT_CUDA_ADD_ROW, [HT_OP_scale_shift] = HT_CUDA_SCALE_SHIFT, [HT_OP_gate] = HT_CUDA_GATE};
    const ht_op *op = s->op;
    ht_cuda_map a = map_of(p, s, n, kinds[op->kind]);
    a.row = rows_of(p, op->in[HT_IN_ROW]);
    a.a = op->attrs.activation == HT_ACT_SILU;
    if (op->kind == HT_OP_gate)
        a.y = in(p, op, HT_IN_RESIDUAL);
    else if (op->kind == HT_OP_scale_shift)
        a.row2 = rows_of(p, op->in[HT_IN_RESIDUAL]);
    return p->module->map(&a);
}

static int geglu(const ht_program *p, const ht_cuda_step *s, int n)
{
    ht_cuda_map a = map_of(p, s, n, HT_CUDA_GEGLU);
    a.codes = codes_of(p, s->op, HT_IN_OUT_SCALE);
    return p->module->map(&a);
}

static int quantize(const ht_program *p, const ht_cuda_step *s, int n)
{
    ht_cuda_map a = map_of(p, s, n, HT_CUDA_QUANTIZE);
    const ht_grid *grid = &s->op->attrs.codes->grid;
    a.codes = codes_of(p, s->op, HT_IN_SCALE);
    a.exponent_bits = grid->exponent_bits;
    a.mantissa_bits = grid->mantissa_bits;
    a.unit = grid->unit;
    a.highest = grid->highest;
    a.lowest = grid->lowest;
    return p->module->map(&a);
}

static int add_position(const ht_program *p, const ht_cuda_step *s, int n)
{
    ht_cuda_map a = map_of(p, s, n, HT_CUDA_ADD_TABLE);
    a.table = s->constant[0];
    a.a = (float)s->op->out->shape[1];
    return p->module->map(&a);
}

/* A number a channel, the same for every row. */
static int smooth(const ht_program *p, const ht_cuda_step *s, int n)
{
    ht_cuda_map a = map_of(p, s, n, HT_CUDA_TIMES_TABLE);
    a.table = s->constant[0];
    a.a = 1;
    a.codes = codes_of(p, s->op, HT_IN_OUT_SCALE);
    return p->module->map(&a);
}

/* A row of a table: a constant of the graph. */
static int row(const ht_program *p, const ht_cuda_step *s, int n)
{
    ht_cuda_map a = map_of(p, s, n, HT_CUDA_COPY);
    a.x = (ht_cuda_tensor){(void *)(uintptr_t)s->constant[0], HT_CUDA_F32};
    return p->module->map(&a);
}

/* ---- movement ---- */

static int move(const ht_program *p, const ht_cuda_step *s, int n)
{
    static const ht_cuda_move_kind kinds[HT_OP_KINDS] = {
        [HT_OP_slice] = HT_CUDA_SLICE,           [HT_OP_concat] = HT_CUDA_CONCAT,
        [HT_OP_upsample] = HT_CUDA_UPSAMPLE,     [HT_OP_avg_pool] = HT_CUDA_AVG_POOL,
        [HT_OP_unpatchify] = HT_CUDA_UNPATCHIFY, [HT_OP_pick] = HT_CUDA_PICK,
        [HT_OP_embedding] = HT_CUDA_LOOKUP,      [HT_OP_mean] = HT_CUDA_MEAN};
    const ht_op *op = s->op;
    const ht_value *x = op->in[HT_IN_X], *y = op->in[HT_IN_X2], *out = op->out;
    ht_cuda_move a = {.kind = kinds[op->kind],
                      .rows = ht_cuda_rows_of(out, n),
                      .c = {ht_cuda_channels(x), y ? ht_cuda_channels(y) : 0},
                      .channels = ht_cuda_channels(out),
                      .begin = op->attrs.begin,
                      .h = x->ndim == 4 ? (int)x->shape[1] : 1,
                      .w = x->ndim == 4 ? (int)x->shape[2] : 1,
                      .out_h = out->ndim == 4 ? (int)out->shape[1] : 1,
                      .out_w = out->ndim == 4 ? (int)out->shape[2] : 1,
                      .k = op->attrs.kernel,
                      .positions = rows_per_image(x),
                      .x = in(p, op, HT_IN_X),
                      .y = in(p, op, HT_IN_X2),
                      .out = ht_cuda_tensor_of(p, out),
                      .table = s->constant[0]};
    return p->module->move(&a);
}

/* ---- timesteps and scales ---- */

static int timestep_embedding(const ht_program *p, const ht_cuda_step *s, int n)
{
    const ht_op *op = s->op;
    ht_cuda_embedding a = {.rows = ht_cuda_rows_of(op->out, n) * ht_cuda_channels(op->in[HT_IN_X]),
                           .dim = op->attrs.dim,
                           .flip_sin_to_cos = op->attrs.flip_sin_to_cos,
                           .freq_shift = op->attrs.freq_shift,
                           .x = in(p, op, HT_IN_X).data,
                           .out = ht_cuda_tensor_of(p, op->out).data};
    return p->module->embedding(&a);
}

static int input_scale(const ht_program *p, const ht_cuda_step *s, int n)
{
    (void)n;
    ht_cuda_input_scale a = {.groups = s->op->attrs.table->groups,
                             .timesteps = s->table[0],
                             .step = s->table[1],
                             .zero = s->table[2],
                             .x = in(p, s->op, HT_IN_X).data,
                             .out = ht_cuda_tensor_of(p, s->op->out).data};
    return p->module->input_scale(&a);
}

static int input_range(const ht_program *p, const ht_cuda_step *s, int n)
{
    const ht_value *x = s->op->in[HT_IN_X];
    int64_t rows = ht_cuda_rows_of(s->op->out, n);
    ht_cuda_input_range a = {.rows = rows,
                             .count = ht_cuda_count(x, n) / rows,
                             .x = in(p, s->op, HT_IN_X),
                             .levels = s->op->attrs.codes->grid.highest,
                             .out = ht_cuda_tensor_of(p, s->op->out).data};
    return p->module->input_range(&a);
}

/* ---- the table ---- */

static const launcher launchers[HT_OP_KINDS] = {
    [HT_OP_conv2d] = product,
    [HT_OP_linear] = product,
    [HT_OP_rotate] = product,
    [HT_OP_group_norm] = group_norm,
    [HT_OP_layer_norm] = row_norm,
    [HT_OP_modulate] = row_norm,
    [HT_OP_rms_norm] = row_norm,
    [HT_OP_attention] = attention,
    [HT_OP_silu] = plain,
    [HT_OP_gelu] = plain,
    [HT_OP_quick_gelu] = plain,
    [HT_OP_gelu_tanh] = plain,
    [HT_OP_relu] = plain,
    [HT_OP_tanh] = plain,
    [HT_OP_affine] = affine,
    [HT_OP_add] = two,
    [HT_OP_multiply] = two,
    [HT_OP_add_row] = with_row,
    [HT_OP_scale_shift] = with_row,
    [HT_OP_gate] = with_row,
    [HT_OP_geglu] = geglu,
    [HT_OP_quantize] = quantize,
    [HT_OP_add_position] = add_position,
    [HT_OP_smooth] = smooth,
    [HT_OP_row] = row,
    [HT_OP_slice] = move,
    [HT_OP_concat] = move,
    [HT_OP_upsample] = move,
    [HT_OP_avg_pool] = move,
    [HT_OP_unpatchify] = move,
    [HT_OP_pick] = move,
    [HT_OP_embedding] = move,
    [HT_OP_mean] = move,
    [HT_OP_timestep_embedding] = timestep_embedding,
    [HT_OP_input_scale] = input_scale,
    [HT_OP_input_range] = input_range,
};

bool ht_cuda_runs(ht_op_kind kind)
{
    return launchers[kind] || kind == HT_OP_reshape;
}

int ht_cuda_launch(const ht_program *p, const ht_cuda_step *s, int n)
{
    return launchers[s->op->kind](p, s, n);
}

size_t ht_cuda_workspace(const ht_program *p, const ht_cuda_step *s, int n)
{
    if (ht_cuda_is_product(s->op)) {
        ht_cuda_product q = product_of(p, s, n);
        return p->module->product_workspace(&q);
    }
    if (s->op->kind == HT_OP_group_norm) {
        ht_cuda_group_norm a = group_norm_of(p, s, n);
        return p->module->group_norm_workspace(&a);
    }
    return 0;
}

void ht_cuda_name_kernel(const ht_program *p, ht_cuda_step *s, int n)
{
    if (ht_cuda_is_product(s->op)) {
        ht_cuda_product q = product_of(p, s, n);
        s->kernel = p->module->product_name(&q);
    } else if (s->op->kind == HT_OP_attention) {
        ht_cuda_attention a = attention_of(p, s, n);
        s->kernel = p->module->attention_name(&a);
    }
}
