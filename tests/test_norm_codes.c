/* The operations that write codes as they make their values (group norm with and without SiLU, layer norm, the gated
 * GELU, smoothing): the codes of every kernel are those of the scalar one, byte for byte, over drawn shapes, and those
 * of the scalar one are the codes of its floats. */
#include "cpu/reference.h"
#include "graph/weights.h"
#include "tests/kernels.h"

enum { CASES = 60 };

static int64_t draw_channels(void)
{
    static const int widths[] = {1, 3, 7, 8, 9, 15, 16, 17, 24, 31, 32, 33, 48, 64, 65, 100, 200};
    return one_of(widths, sizeof widths / sizeof *widths);
}

static ht_value *group_norm(scene *s, int64_t c)
{
    ht_norm_weights w = {weight_of(s, "n.weight", 1, &c), weight_of(s, "n.bias", 1, &c)};
    ht_value *x = input(s, "x", 4, (int64_t[]){s->batch, draw(1, 9), draw(1, 9), c});
    ht_value *y = ht_group_norm(s->graph, x, &w, 1, 1e-5f);
    return one_in(2) ? ht_silu(s->graph, y) : y;
}

static ht_value *layer_norm(scene *s, int64_t c)
{
    ht_norm_weights w = {weight_of(s, "n.weight", 1, &c), weight_of(s, "n.bias", 1, &c)};
    return ht_layer_norm(s->graph, input(s, "x", 3, (int64_t[]){s->batch, draw(1, 20), c}), &w, 1e-5f);
}

static ht_value *geglu(scene *s, int64_t c)
{
    return ht_geglu(s->graph, input(s, "x", 3, (int64_t[]){s->batch, draw(1, 20), 2 * c}));
}

static ht_value *smooth(scene *s, int64_t c)
{
    return ht_smooth(s->graph, input(s, "x", 3, (int64_t[]){s->batch, draw(1, 20), c}), weight_of(s, "f", 1, &c));
}

/* A layer that reads y as codes of one scale, and makes what the graph is for. */
static void read_codes(scene *s, ht_value *y, int64_t c, float *table)
{
    ht_layer *l = &s->layer[0];
    int64_t shape[4] = {2, c, 1, 1};
    *l = (ht_layer){.name = "w", .ndim = y->ndim == 4 ? 4 : 2, .parts = 1, .mode = HT_INPUT_STATIC};
    memcpy(l->shape, shape, sizeof shape);
    assert_int_equal(ht_format_find("int8", &l->format), HT_OK);
    assert_int_equal(ht_format_find(one_in(3) ? "uint4" : "uint8", &l->input), HT_OK);
    ht_layer_part *part = &l->part[0];
    part->count = c;
    ht_matrix m = ht_layer_matrix(l, 0);
    assert_int_equal(ht_quantized_alloc(s->arena, &l->format, &m, &part->weight), HT_OK);
    table[0] = 0.004f * (float)draw(1, 8);
    table[1] = (float)draw(0, (int64_t)l->input.grid.highest);
    part->input = (ht_input_table){.groups = 1, .step = table, .zero = table + 1};
    const ht_tensor *w = weight_of(s, "w.weight", l->ndim, shape);
    s->layers = (ht_layers){.layer = l, .n = 1};
    ht_graph_set_layers(s->graph, &s->layers);
    y = y->ndim == 4 ? ht_conv2d(s->graph, y, &(ht_conv_weights){w, NULL}, (ht_conv_shape){0})
                     : ht_linear(s->graph, y, &(ht_linear_weights){w, NULL});
    ht_output_value(s->graph, y, "y");
}

static const ht_op *find(const ht_graph *g, ht_op_kind kind)
{
    for (int i = 0; i < ht_graph_ops(g); i++)
        if (ht_graph_op(g, i)->kind == kind)
            return ht_graph_op(g, i);
    return NULL;
}

static void fill_inputs(scene *s, ht_call *call, const float *table)
{
    for (int i = 0; i < HT_INPUTS; i++) {
        const ht_value *v = call->op->in[i];
        if (!v || v->data)
            continue;
        size_t count = (size_t)(ht_rows(v, s->n) * ht_channels(v));
        float *x = room(s, count * sizeof *x);
        if (i == HT_IN_OUT_SCALE)
            memcpy(x, table, 2 * sizeof *x);
        else
            fill_normal(x, count, one_in(8) ? 1e3f : 1);
        if (i != HT_IN_OUT_SCALE && one_in(8))
            x[(size_t)draw(0, 1 << 30) % count] = one_in(2) ? odd_nan() : INFINITY;
        call->in[i] = x;
    }
}

/* The same operation without OUT_SCALE gives floats: their codes are what is wanted. */
static void check_codes_of_floats(scene *s, const ht_call *call, const uint8_t *codes, const float *table)
{
    ht_op op = *call->op;
    ht_value out = *op.out;
    out.dtype = HT_F32;
    op.out = &out;
    op.in[HT_IN_OUT_SCALE] = NULL;
    ht_call floats = *call;
    floats.op = &op;
    floats.in[HT_IN_OUT_SCALE] = NULL;
    const float *y = run_kernel(s, ht_reference_kernels[op.kind], &floats, 1);
    for (int64_t i = 0; i < ht_rows(&out, s->n) * ht_channels(&out); i++)
        assert_int_equal(codes[i], ht_code_of(y[i], 1 / table[0], table[1], call->op->attrs.codes->grid.highest));
}

static int compared;

static void compare_list(scene *s, const ht_kernel *list, const ht_call *call, const void *want)
{
    for (const ht_kernel *k = list; k->name; k++)
        if (k->op == call->op->kind && k->isa <= ht_cpu_detect()) {
            compare(s, k, call, want);
            compared++;
        }
}

static void check_case(ht_op_kind kind, ht_value *(*make)(scene *, int64_t), int index)
{
    scene s = open_scene((int)kind, index, 5);
    float table[2];
    int64_t c = draw_channels();
    read_codes(&s, make(&s, c), c, table);
    snprintf(s.text, sizeof s.text, "%lld channels", (long long)c);
    if (ht_graph_finish(s.graph, true))
        fail_msg("%s", ht_error_message());
    ht_call call = {.op = find(s.graph, kind), .n = s.n};
    assert_non_null(call.op);
    assert_int_equal(call.op->out->dtype, HT_U8); /* nothing makes codes after it */
    assert_null(find(s.graph, HT_OP_quantize));
    fill_inputs(&s, &call, table);
    const void *want = run_kernel(&s, ht_reference_kernels[kind], &call, 1);
    check_codes_of_floats(&s, &call, want, table);
    compare(&s, ht_reference_kernels[kind], &call, want);
    compare_list(&s, ht_avx2_kernels, &call, want);
    compare_list(&s, ht_avx512_kernels, &call, want);
    ht_arena_free(s.arena);
}

static void check(ht_op_kind kind, ht_value *(*make)(scene *, int64_t))
{
    compared = 0;
    for (int index = 0; index < CASES; index++)
        if (only_case < 0 || only_case == index)
            check_case(kind, make, index);
    assert_true(compared > 0 || ht_cpu_detect() == HT_ISA_SCALAR);
}

static void group_norms_make_the_codes_of_their_floats(void **state)
{
    (void)state;
    check(HT_OP_group_norm, group_norm);
}

static void layer_norms_make_the_codes_of_their_floats(void **state)
{
    (void)state;
    check(HT_OP_layer_norm, layer_norm);
}

static void gates_make_the_codes_of_their_floats(void **state)
{
    (void)state;
    check(HT_OP_geglu, geglu);
}

static void smoothing_makes_the_codes_of_its_floats(void **state)
{
    (void)state;
    check(HT_OP_smooth, smooth);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(group_norms_make_the_codes_of_their_floats),
        cmocka_unit_test(layer_norms_make_the_codes_of_their_floats),
        cmocka_unit_test(gates_make_the_codes_of_their_floats),
        cmocka_unit_test(smoothing_makes_the_codes_of_its_floats),
    };
    read_seed(argc, argv, 13);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
