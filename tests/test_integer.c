/* The integer kernels of quantized layers against the scalar ones, bit for bit, over drawn layers: formats, blocks, two
 * parts, two inputs in one part, scales of the tensor, the image and the token, every epilogue, codes out, extreme
 * codes and weights; one to three threads.  Buffers lie between canaries.  A kernel that this machine cannot run is
 * counted and named. */
#include <float.h>

#include "cpu/reference.h"
#include "tests/kernels.h"

enum { CASES = 40, MAX_KERNELS = 32 };

/* ---- drawing ---- */

enum { ORDINARY, HIGHEST, LOWEST, KINDS }; /* all codes the highest, all weights the lowest or the highest */

static const char *const formats[] = {"int8",     "int8",     "int8",      "int4",     "int4",     "int4",
                                      "int4_g32", "int4_g64", "int4_g128", "fp4_e2m1", "fp4_e1m2", "fp4_e3m0",
                                      "mxfp4",    "nvfp4",    "nvint4",    "mxint8"};

static float draw_float(float low, float high)
{
    return low + (high - low) * (float)draw(0, 1 << 20) / (1 << 20);
}

static void draw_scales(const ht_format *f, size_t count, void *scales)
{
    for (size_t i = 0; i < count; i++)
        if (f->scale == HT_F32)
            ((float *)scales)[i] = draw_float(1e-4f, 1e-2f) * (one_in(4) ? -1.0f : 1.0f);
        else
            ((uint8_t *)scales)[i] = (uint8_t)(f->scale == HT_F8_E8M0 ? draw(110, 127) : draw(1, 0x7e));
}

/* Codes of all kinds; past the end of an odd row of 4 bits, zero. */
static void draw_codes(const scene *s, const ht_format *f, size_t rows, size_t in, uint8_t *codes)
{
    size_t row_bytes = f->grid.bits == 4 ? (in + 1) / 2 : in;
    uint8_t low = ht_grid_encode(&f->grid, f->grid.lowest), high = ht_grid_encode(&f->grid, f->grid.highest);
    for (size_t i = 0; i < rows * in; i++) {
        size_t k = i % in;
        uint8_t code = (uint8_t)draw(0, (1 << f->grid.bits) - 1), *at = codes + i / in * row_bytes;
        code = s->kind == LOWEST ? low : s->kind == HIGHEST ? high : code;
        if (f->grid.bits == 4)
            at[k / 2] |= (uint8_t)(code << k % 2 * 4);
        else
            at[k] = code;
    }
}

static void draw_part(scene *s, ht_layer *l, int p, int64_t begin, int64_t count)
{
    ht_layer_part *part = &l->part[p];
    float *table = room(s, 2 * sizeof *table);
    ht_format_sizes sizes;
    part->begin = begin;
    part->count = count;
    ht_matrix m = ht_layer_matrix(l, p);
    assert_int_equal(ht_format_measure(&l->format, &m, &sizes), HT_OK);
    assert_int_equal(ht_quantized_alloc(s->arena, &l->format, &m, &part->weight), HT_OK);
    part->weight.tensor_scale = l->format.scale == HT_F8_E4M3 ? 0.001f : 1;
    draw_scales(&l->format, sizes.scale_count, part->weight.scales);
    draw_codes(s, &l->format, m.out, m.in, part->weight.codes);
    table[0] = draw_float(1e-3f, 1e-1f);
    table[1] = (float)draw(0, (int64_t)l->input.grid.highest);
    part->input = (ht_input_table){.groups = 1, .step = table, .zero = table + 1};
}

/* A layer for a weight of this shape, reading `first` channels and then the rest; 0: in one part. */
static void draw_layer(scene *s, int i, const char *format, int ndim, const int64_t *shape, int64_t first)
{
    static const char *const names[] = {"w", "w2"};
    ht_layer *l = &s->layer[i];
    *l = (ht_layer){.name = names[i], .ndim = ndim, .parts = first ? 2 : 1, .mode = HT_INPUT_STATIC};
    memcpy(l->shape, shape, (size_t)ndim * sizeof *shape);
    assert_int_equal(ht_format_find(format, &l->format), HT_OK);
    assert_int_equal(ht_format_find(one_in(5) ? "uint4" : "uint8", &l->input), HT_OK);
    draw_part(s, l, 0, 0, first ? first : shape[1]);
    if (first)
        draw_part(s, l, 1, first, shape[1] - first);
    assert_true(ht_layer_is_integer(l));
}

/* A width that blocks of the format divide; with narrow ones about the tiles' edges. */
static int64_t draw_channels(const char *format)
{
    static const int widths[] = {1,  3,  4,  5,  8,  15, 16,  17,  24,  31,  32,
                                 33, 48, 63, 64, 65, 72, 100, 128, 129, 192, 200};
    ht_format f;
    assert_int_equal(ht_format_find(format, &f), HT_OK);
    if (f.block)
        return f.block * draw(1, f.block > 64 ? 2 : 4);
    return widths[draw(0, sizeof widths / sizeof *widths - 1)];
}

static int64_t draw_inputs_of(const scene *s, const char *format)
{
    return s->wide ? one_in(2) && !strstr(format, "128") ? 64 : 128 : draw_channels(format);
}

/* What may follow: a row, a residual, a factor, a reader of codes. */
static ht_value *draw_epilogue(scene *s, ht_value *y, int64_t out)
{
    if (one_in(2))
        y = ht_add_row(s->graph, y,
                       one_in(2) ? input(s, "row", 2, (int64_t[]){s->batch, out})
                                 : ht_input(s->graph, "row", 2, (int64_t[]){1, out}, HT_DEPENDS_T));
    if (one_in(2))
        y = ht_add(s->graph, y, input(s, "residual", y->ndim, y->shape));
    if (one_in(4))
        y = ht_affine(s->graph, y, 0.7071f, 0);
    if (one_in(3)) {
        draw_layer(s, 1, "int8", 2, (int64_t[]){3, out}, 0);
        s->layers.n = 2;
        ht_linear_weights w = {weight_of(s, "w2.weight", 2, (int64_t[]){3, out}), NULL};
        y = ht_linear(s->graph, y, &w);
    }
    return y;
}

/* The input, or two of them; how many channels the first part of the layer has, 0 if it has one part. */
static ht_value *draw_inputs(scene *s, const char *format, int ndim, int64_t *shape, int64_t *first)
{
    shape[ndim - 1] = draw_inputs_of(s, format);
    ht_value *x = input(s, "x", ndim, shape);
    *first = 0;
    if (one_in(2))
        return x;
    *first = one_in(2) ? shape[ndim - 1] : 0;
    shape[ndim - 1] = draw_inputs_of(s, format);
    return ht_concat(s->graph, x, input(s, "x2", ndim, shape));
}

static void draw_mode(scene *s, bool concatenated)
{
    if (one_in(2) && (!concatenated || s->layer[0].parts == 2))
        s->layer[0].mode = HT_INPUT_DYNAMIC;
}

static void build_conv2d(scene *s, const char *format, int64_t *in_shape, int64_t k, int64_t out, ht_conv_shape shape,
                         bool upsample)
{
    int64_t first;
    ht_value *x = draw_inputs(s, format, 4, in_shape, &first);
    int64_t weight[] = {out, x->shape[3], k, k};
    bool concatenated = x->shape[3] != in_shape[3];
    draw_layer(s, 0, format, 4, weight, first);
    draw_mode(s, concatenated);
    if (!concatenated && upsample)
        x = ht_upsample(s->graph, x, 2);
    ht_conv_weights w = {weight_of(s, "w.weight", 4, weight),
                         one_in(2) ? weight_of(s, "w.bias", 1, (int64_t[]){out}) : NULL};
    snprintf(s->text, sizeof s->text, "%s %lldx%lld in %lld (%d parts) out %lld k%lld s%d", format,
             (long long)in_shape[1], (long long)in_shape[2], (long long)x->shape[3], s->layer[0].parts, (long long)out,
             (long long)k, shape.stride);
    ht_output_value(s->graph, draw_epilogue(s, ht_conv2d(s->graph, x, &w, shape), out), "y");
}

static void scene_conv2d(scene *s)
{
    const char *format = formats[draw(0, sizeof formats / sizeof *formats - 1)];
    int64_t k = draw(1, 3), out = draw_channels("int8"), in_shape[4] = {s->batch, draw(2, 9), draw(2, 9)};
    ht_conv_shape shape = {.stride = (int)draw(1, 2),
                           .pad_top = (int)draw(0, 1),
                           .pad_left = (int)draw(0, 1),
                           .pad_bottom = (int)draw(1, 2),
                           .pad_right = (int)draw(1, 2)};
    if (one_in(4)) {
        shape = (ht_conv_shape){.stride = 1};
        k = 1;
    }
    build_conv2d(s, format, in_shape, k, out, shape, !s->wide && one_in(3));
}

/* Of 16 or 32 columns, rows that make whole tiles. */
static void scene_wide_conv2d(scene *s)
{
    int stride = one_in(4) ? 2 : 1, pad = (int)draw(0, 1);
    bool upsample = stride == 1 && one_in(3);
    int64_t columns = 16 * draw(1, 2), rows = 2 * draw(1, 2), out = draw(1, 40);
    int64_t in_shape[4] = {s->batch, rows * stride, columns * stride};
    if (upsample) {
        in_shape[1] /= 2;
        in_shape[2] /= 2;
    }
    s->wide = true;
    build_conv2d(s, formats[draw(0, sizeof formats / sizeof *formats - 1)], in_shape, 3, out,
                 (ht_conv_shape){.stride = stride,
                                 .pad_top = pad,
                                 .pad_left = pad,
                                 .pad_bottom = 3 - stride - pad,
                                 .pad_right = 3 - stride - pad},
                 upsample);
}

static void scene_linear(scene *s)
{
    const char *format = formats[draw(0, sizeof formats / sizeof *formats - 1)];
    int64_t out = draw_channels("int8"), first, in_shape[4] = {s->batch, draw(1, 40)};
    ht_value *x = draw_inputs(s, format, 3, in_shape, &first);
    int64_t weight[] = {out, x->shape[2]};
    draw_layer(s, 0, format, 2, weight, first);
    draw_mode(s, x->shape[2] != in_shape[2]);
    ht_linear_weights w = {weight_of(s, "w.weight", 2, weight),
                           one_in(2) ? weight_of(s, "w.bias", 1, (int64_t[]){out}) : NULL};
    snprintf(s->text, sizeof s->text, "%s %lld tokens in %lld (%d parts) out %lld", format, (long long)in_shape[1],
             (long long)x->shape[2], s->layer[0].parts, (long long)out);
    ht_output_value(s->graph, draw_epilogue(s, ht_linear(s->graph, x, &w), out), "y");
}

/* ---- comparing ---- */

/* How often each kernel of the lists was compared. */
static struct {
    const ht_kernel *kernel;
    int compared, refused;
} counts[MAX_KERNELS];

static bool is_quantized(const ht_kernel *k)
{
    return k->arithmetic == HT_IN_INTEGERS || k->op == HT_OP_quantize || k->op == HT_OP_input_range;
}

static void list_kernels(void)
{
    int n = 0;
    if (counts[0].kernel)
        return;
    for (int i = 0; ht_kernel_lists[i]; i++)
        for (const ht_kernel *k = ht_kernel_lists[i]; k->name; k++)
            if (is_quantized(k)) {
                assert_true(n < MAX_KERNELS);
                counts[n++].kernel = k;
            }
}

static void compare_all(scene *s, const ht_call *call, const void *want)
{
    list_kernels();
    for (int i = 0; i < MAX_KERNELS && counts[i].kernel; i++) {
        const ht_kernel *k = counts[i].kernel;
        if (k->op != call->op->kind || k->isa > ht_cpu_detect())
            continue;
        if (k->refuses && k->refuses(call->op)) {
            counts[i].refused++;
            continue;
        }
        compare(s, k, call, want);
        counts[i].compared++;
    }
}

/* ---- inputs ---- */

static void fill_floats(const scene *s, float *x, size_t n)
{
    const float odd[] = {odd_nan(), INFINITY, -INFINITY, FLT_MAX, -FLT_MAX, 1e-42f, 0.0f, -0.0f};
    ht_mt19937_randn(&rng, n, x);
    for (size_t i = 0; i < n; i++)
        if (s->kind == HIGHEST && one_in(8))
            x[i] = odd[draw(0, sizeof odd / sizeof *odd - 1)];
        else if (s->kind == LOWEST && one_in(2))
            x[i] = (float)draw(-40, 40) / 2; /* ties */
}

static void fill_codes(const scene *s, const ht_op *op, uint8_t *codes, size_t n)
{
    int64_t levels = op->layer ? (int64_t)op->layer->input.grid.highest : 255;
    for (size_t i = 0; i < n; i++)
        codes[i] = (uint8_t)(s->kind == ORDINARY ? draw(0, levels) : levels);
}

static void fill_scales(const scene *s, float levels, float *x, size_t n)
{
    for (size_t i = 0; i < n; i += 2) {
        x[i] = draw_float(1e-3f, 1e-1f);
        x[i + 1] = s->kind == ORDINARY ? (float)draw(0, (int64_t)levels) : one_in(2) ? 0 : levels;
    }
}

static void fill_inputs(scene *s, ht_call *call)
{
    for (int i = 0; i < HT_INPUTS; i++) {
        const ht_value *v = call->op->in[i];
        if (!v || v->data)
            continue;
        size_t count = (size_t)(ht_rows(v, s->n) * ht_channels(v));
        void *x = room(s, value_bytes(v, s->n));
        call->in[i] = x;
        if (v->dtype == HT_U8)
            fill_codes(s, call->op, x, count);
        else if (i == HT_IN_SCALE || i == HT_IN_SCALE2 || i == HT_IN_OUT_SCALE)
            fill_scales(s, call->op->layer ? call->op->layer->input.grid.highest : 255, x, count);
        else
            fill_floats(s, x, count);
    }
}

/* ---- cases ---- */

static void check_op(scene *s, const ht_op *op)
{
    ht_call call = {.op = op, .n = s->n};
    const ht_kernel *scalar =
        ht_arithmetic_of(op) == HT_IN_INTEGERS ? &ht_ref_integer_product : ht_reference_kernels[op->kind];
    fill_inputs(s, &call);
    const void *want = run_kernel(s, scalar, &call, 1);
    compare(s, scalar, &call, want);
    compare_all(s, &call, want);
}

/* Every operation of the graph that is of one of two kinds. */
static void check_case(void (*make)(scene *), int index, ht_op_kind a, ht_op_kind b)
{
    scene s = open_scene((int)a, index, index % 4 ? 3 : 9);
    s.kind = one_in(2) ? ORDINARY : (int)draw(0, KINDS - 1);
    s.layers = (ht_layers){.layer = s.layer, .n = 1};
    make(&s);
    ht_graph_set_layers(s.graph, &s.layers);
    if (ht_graph_finish(s.graph, true))
        fail_msg("%s", ht_error_message());
    for (int i = 0; i < ht_graph_ops(s.graph); i++) {
        const ht_op *op = ht_graph_op(s.graph, i);
        if (op->kind == a || op->kind == b)
            check_op(&s, op);
    }
    ht_arena_free(s.arena);
}

static void check(void (*make)(scene *), ht_op_kind a, ht_op_kind b)
{
    for (int index = 0; index < CASES; index++)
        if (only_case < 0 || only_case == index)
            check_case(make, index, a, b);
}

static void integer_convolutions_equal_scalar(void **state)
{
    (void)state;
    check(scene_conv2d, HT_OP_conv2d, HT_OP_conv2d);
}

static void integer_convolutions_that_read_bands_equal_scalar(void **state)
{
    (void)state;
    for (int index = 0; index < CASES / 4; index++)
        if (only_case < 0 || only_case == index)
            check_case(scene_wide_conv2d, index, HT_OP_conv2d, HT_OP_conv2d);
}

static void integer_linears_equal_scalar(void **state)
{
    (void)state;
    check(scene_linear, HT_OP_linear, HT_OP_linear);
}

static void codes_and_ranges_equal_scalar(void **state)
{
    (void)state;
    check(scene_linear, HT_OP_quantize, HT_OP_input_range);
    check(scene_conv2d, HT_OP_quantize, HT_OP_input_range);
}

/* Sums as large as they get, 65536 inputs deep: int32 holds 255 * 128 * 2^16, and one input more is refused. */
static void scene_deep(scene *s)
{
    int64_t in = HT_INTEGER_DEPTH + (s->index & 1);
    int64_t shape[] = {3, in}, x[] = {s->batch, 1, in};
    s->kind = s->index & 2 ? LOWEST : HIGHEST;
    draw_layer(s, 0, "int8", 2, shape, 0);
    ht_linear_weights w = {weight_of(s, "w.weight", 2, shape), NULL};
    snprintf(s->text, sizeof s->text, "%lld inputs", (long long)in);
    ht_output_value(s->graph, ht_linear(s->graph, input(s, "x", 3, x), &w), "y");
}

static void the_deepest_sums_fit(void **state)
{
    (void)state;
    for (int index = 0; index < 4; index++)
        check_case(scene_deep, index, HT_OP_linear, HT_OP_linear);
    for (int i = 0; i < MAX_KERNELS && counts[i].kernel; i++)
        if (counts[i].kernel->op == HT_OP_linear && counts[i].kernel->isa <= ht_cpu_detect())
            assert_true(counts[i].refused >= 2);
}

static void every_listed_kernel_was_compared(void **state)
{
    int absent = 0, compared = 0;
    (void)state;
    list_kernels();
    for (int i = 0; i < MAX_KERNELS && counts[i].kernel; i++) {
        if (counts[i].kernel->isa > ht_cpu_detect()) {
            print_message("%s: not compared, this machine has no %s\n", counts[i].kernel->name,
                          ht_isa_name(counts[i].kernel->isa));
            absent++;
            continue;
        }
        print_message("%s: compared %d times, refused %d\n", counts[i].kernel->name, counts[i].compared,
                      counts[i].refused);
        assert_true(counts[i].compared > 0 || only_case >= 0);
        compared++;
    }
    print_message("%d kernels compared, %d absent\n", compared, absent);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(integer_convolutions_equal_scalar),
        cmocka_unit_test(integer_convolutions_that_read_bands_equal_scalar),
        cmocka_unit_test(integer_linears_equal_scalar),
        cmocka_unit_test(codes_and_ranges_equal_scalar),
        cmocka_unit_test(the_deepest_sums_fit),
        cmocka_unit_test(every_listed_kernel_was_compared),
    };
    read_seed(argc, argv, 11);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
