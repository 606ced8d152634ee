/* Graphs: errors stick, stages follow from dependencies, fusion computes the same bits with fewer operations, the
 * memory plan never lets two values meet. */
#include "cpu/backend.h"
#include "graph/plan.h"
#include "tests/graphs.h"

enum { N = 2, H = 4, W = 5, C = 8, E = 12 };

static ht_conv_weights conv(const char *name, int in, int out, int k)
{
    return (ht_conv_weights){TENSOR(name, out, in, k, k), TENSOR("bias", out)};
}

/* A small U-Net's worth of patterns: time row, two resnet convolutions, a skip that is concatenated, upsampling,
 * attention. */
static ht_graph *small_unet(bool fuse, bool tap)
{
    ht_mt19937_seed(&rng, 5); /* the same weights each time */
    ht_graph *g = ht_graph_create(arena);
    ht_norm_weights n8 = {TENSOR("n8", C), TENSOR("n8b", C)}, n16 = {TENSOR("n16", 2 * C), TENSOR("n16b", 2 * C)};
    ht_conv_weights conv1 = conv("conv1.weight", C, C, 3), conv2 = conv("conv2.weight", C, C, 3),
                    up = conv("up.weight", C, C, 3);
    ht_conv_weights shortcut = conv("shortcut.weight", 2 * C, C, 1), last = conv("last.weight", 2 * C, C, 3);
    ht_linear_weights time1 = {TENSOR("time1.weight", E, C), TENSOR("b", E)},
                      row = {TENSOR("row.weight", C, E), TENSOR("b", C)};
    ht_linear_weights q = {TENSOR("q.weight", C, C), TENSOR("b", C)},
                      out = {TENSOR("out.weight", C, C), TENSOR("b", C)};
    ht_value *x = ht_input(g, "x", 4, (int64_t[]){N, H, W, C}, HT_DEPENDS_X);
    ht_value *temb = ht_silu(g, ht_linear(g, ht_timestep_embedding(g, ht_timestep(g), C, false, 1), &time1));
    ht_value *h = ht_conv2d(g, ht_silu(g, ht_group_norm(g, x, &n8, 2, 1e-6f)), &conv1, (ht_conv_shape){1, 1, 1, 1, 1});
    h = ht_add_row(g, h, ht_linear(g, temb, &row));
    h = ht_conv2d(g, ht_silu(g, ht_group_norm(g, h, &n8, 2, 1e-6f)), &conv2, (ht_conv_shape){1, 1, 1, 1, 1});
    h = ht_name(g, ht_affine(g, ht_add(g, x, h), 0.5f, 0), "resnet");
    ht_value *tokens = ht_reshape(g, ht_group_norm(g, h, &n8, 4, 1e-6f), 3, (int64_t[]){N, (int64_t)H * W, C});
    ht_value *k = ht_linear(g, tokens, &q);
    ht_value *a = ht_linear(g, ht_attention(g, k, k, tokens, 2, 0.5f), &out);
    h = ht_add(g, ht_reshape(g, a, 4, (int64_t[]){N, H, W, C}), h);
    ht_value *pooled = ht_conv2d(g, ht_upsample(g, ht_avg_pool(g, h), 2), &up, (ht_conv_shape){1, 1, 1, 1, 2});
    ht_value *cat = ht_concat(g, pooled, h);
    ht_value *y =
        ht_conv2d(g, ht_silu(g, ht_group_norm(g, cat, &n16, 4, 1e-6f)), &last, (ht_conv_shape){1, 1, 1, 1, 1});
    ht_output_value(g, ht_add(g, ht_conv2d(g, cat, &shortcut, (ht_conv_shape){0}), y), "out");
    if (tap)
        ht_tap(g, "conv2");
    assert_int_equal(ht_graph_finish(g, fuse), HT_OK);
    return g;
}

static int count_kind(const ht_graph *g, ht_op_kind kind)
{
    int n = 0;
    for (int i = 0; i < ht_graph_ops(g); i++)
        n += ht_graph_op(g, i)->kind == kind;
    return n;
}

static void fusion_leaves_no_pass_over_memory_that_an_epilogue_can_do(void **state)
{
    (void)state;
    const ht_graph *plain = small_unet(false, false), *fused = small_unet(true, false);
    assert_int_equal(count_kind(plain, HT_OP_concat), 1);
    assert_int_equal(count_kind(plain, HT_OP_silu), 4);
    assert_int_equal(count_kind(fused, HT_OP_silu), 1); /* the time embedding's own */
    const ht_op_kind gone[] = {HT_OP_concat, HT_OP_upsample, HT_OP_add, HT_OP_add_row, HT_OP_affine};
    for (size_t i = 0; i < sizeof gone / sizeof *gone; i++)
        assert_int_equal(count_kind(fused, gone[i]), 0);
}

static void run(const ht_graph *g, const char *isa, float *out)
{
    float x[N * H * W * C], t = 37;
    ht_program *p;
    const ht_backend *b = &ht_cpu_backend;
    ht_mt19937 own;
    ht_mt19937_seed(&own, 1);
    ht_mt19937_randn(&own, sizeof x / sizeof *x, x);
    assert_int_equal(b->compile(g, &(ht_backend_options){.threads = 2, .isa = isa}, &p), HT_OK);
    void *row = b->alloc(p, b->row_bytes(p));
    assert_non_null(row);
    assert_int_equal(b->upload(p, ht_graph_find(g, "x"), x, N), HT_OK);
    assert_int_equal(b->upload(p, ht_graph_find(g, "timestep"), &t, 1), HT_OK);
    for (int s = 0; s < HT_STAGES; s++)
        assert_int_equal(b->run(p, (ht_stage)s, N, row), HT_OK);
    assert_int_equal(b->download(p, ht_graph_output(g), out, N), HT_OK);
    b->free(p, row);
    b->close(p);
}

static void fused_and_plain_graphs_compute_the_same_bits(void **state)
{
    (void)state;
    float plain[N * H * W * C], fused[N * H * W * C], tapped[N * H * W * C];
    run(small_unet(false, false), "scalar", plain);
    run(small_unet(true, false), "scalar", fused);
    assert_memory_equal(plain, fused, sizeof plain);
    run(small_unet(true, true), NULL, tapped);
    assert_memory_equal(plain, tapped, sizeof plain);
}

static void a_tapped_value_is_not_fused_away(void **state)
{
    (void)state;
    const ht_graph *g = small_unet(true, true);
    const ht_value *v = ht_graph_find(g, "conv2");
    assert_true(v && v->tapped && v->producer && v->producer->kind == HT_OP_conv2d && !v->producer->in[HT_IN_RESIDUAL]);
}

static void stages_follow_from_dependencies(void **state)
{
    (void)state;
    const ht_graph *g = small_unet(true, false);
    for (int i = 0; i < ht_graph_ops(g); i++) {
        const ht_op *op = ht_graph_op(g, i);
        bool temporal = !strcmp(op->out->name, "time1") || !strcmp(op->out->name, "row") ||
                        op->kind == HT_OP_timestep_embedding || op->kind == HT_OP_silu;
        assert_int_equal(ht_stage_of(op->out->deps), temporal ? HT_STAGE_T : HT_STAGE_STEP);
    }
    assert_int_equal(ht_stage_of(0), HT_STAGE_ONCE);
    assert_int_equal(ht_stage_of(HT_DEPENDS_COND), HT_STAGE_COND);
    assert_int_equal(ht_stage_of(HT_DEPENDS_T | HT_DEPENDS_COND), HT_STAGE_T_COND);
}

/* A class row added to the time embedding must not pull it out of the {t} stage, nor make a product of one row compute
 * n. */
static void a_sum_with_a_row_per_image_leaves_the_time_embedding_its_table(void **state)
{
    (void)state;
    ht_graph *g = ht_graph_create(arena);
    ht_linear_weights linear = {TENSOR("linear_2.weight", E, C), TENSOR("b", E)};
    ht_value *t = ht_linear(g, ht_timestep_embedding(g, ht_timestep(g), C, false, 1), &linear);
    ht_value *labels = ht_input(g, "class_labels", 2, (int64_t[]){N, 1}, HT_DEPENDS_COND);
    ht_output_value(g, ht_add(g, t, ht_embedding(g, labels, TENSOR("table", 10, E))), "out");
    assert_int_equal(ht_graph_finish(g, true), HT_OK);
    const ht_value *v = ht_graph_find(g, "linear_2");
    assert_true(v && ht_stage_of(v->deps) == HT_STAGE_T && v->shape[0] == 1);
    assert_int_equal(count_kind(g, HT_OP_add), 1);
    assert_int_equal(ht_stage_of(ht_graph_output(g)->deps), HT_STAGE_T_COND);
}

static size_t bytes_of(const ht_value *v)
{
    return (size_t)ht_value_count(v) * sizeof(float);
}

/* The operation that last reads v, through views. */
static int last_use(const ht_graph *g, const ht_value *v)
{
    int last = -1;
    for (int i = 0; i < ht_graph_ops(g); i++) {
        const ht_op *op = ht_graph_op(g, i);
        for (int j = 0; j < HT_INPUTS; j++)
            if (op->in[j] == v) {
                int use = op->kind == HT_OP_reshape ? last_use(g, op->out) : i;
                last = use > last ? use : last;
            }
    }
    return last;
}

static void check_plan(const ht_graph *g)
{
    ht_plan plan;
    assert_int_equal(ht_plan_make(g, 0, NULL, arena, &plan), HT_OK);
    for (int i = 0; i < ht_graph_ops(g); i++)
        for (int j = i + 1; j < ht_graph_ops(g); j++) {
            const ht_op *a = ht_graph_op(g, i), *b = ht_graph_op(g, j);
            const ht_place *pa = &plan.places[a->out->id], *pb = &plan.places[b->out->id];
            if (a->kind == HT_OP_reshape || b->kind == HT_OP_reshape || pa->area != pb->area)
                continue;
            bool apart = pa->offset + bytes_of(a->out) <= pb->offset || pb->offset + bytes_of(b->out) <= pa->offset;
            bool alive = pa->area != HT_AREA_WORK ||
                         (last_use(g, a->out) >= j && ht_stage_of(a->out->deps) == ht_stage_of(b->out->deps));
            if (!apart && alive)
                fail_msg("%s and %s share memory while both are needed", a->out->name, b->out->name);
        }
    assert_true(plan.row_bytes >= C * sizeof(float));
}

static void values_that_are_needed_together_never_share_memory(void **state)
{
    (void)state;
    check_plan(small_unet(false, false));
    check_plan(small_unet(true, false));
    check_plan(small_unet(true, true));
}

static void the_plan_is_smaller_than_the_sum_of_its_values(void **state)
{
    (void)state;
    const ht_graph *g = small_unet(false, false);
    ht_plan plan;
    size_t sum = 0;
    for (int i = 0; i < ht_graph_ops(g); i++)
        sum += bytes_of(ht_graph_op(g, i)->out);
    assert_int_equal(ht_plan_make(g, 0, NULL, arena, &plan), HT_OK);
    assert_true(plan.work_bytes < sum / 2);
}

static void the_first_error_sticks_and_names_the_shapes(void **state)
{
    (void)state;
    ht_graph *g = ht_graph_create(arena);
    ht_conv_weights w = conv("conv_in.weight", 4, 8, 3);
    ht_value *x = ht_input(g, "sample", 4, (int64_t[]){1, 8, 8, 3}, HT_DEPENDS_X);
    ht_value *y = ht_conv2d(g, x, &w, (ht_conv_shape){1, 1, 1, 1, 1});
    assert_null(y);
    assert_null(ht_silu(g, ht_add(g, y, x)));
    ht_graph_fail(g, HT_ERR_ARGUMENT, "a later error");
    assert_int_equal(ht_graph_finish(g, true), HT_ERR_SHAPE);
    assert_string_equal(
        ht_error_message(),
        "conv2d of sample [1,8,8,3] with conv_in.weight [8,4,3,3]: input channels and the weight's second "
        "dimension differ");
}

static void an_unknown_tap_is_an_error(void **state)
{
    (void)state;
    ht_graph *g = ht_graph_create(arena);
    ht_output_value(g, ht_silu(g, ht_input(g, "x", 2, (int64_t[]){1, 4}, HT_DEPENDS_X)), "out");
    ht_tap(g, "nowhere");
    assert_int_equal(ht_graph_finish(g, true), HT_ERR_ARGUMENT);
    assert_non_null(strstr(ht_error_message(), "nowhere"));
}

static void sizes_that_would_overflow_are_refused(void **state)
{
    (void)state;
    ht_graph *g = ht_graph_create(arena);
    assert_null(ht_input(g, "x", 4, (int64_t[]){1 << 20, 1 << 20, 1 << 20, 8}, HT_DEPENDS_X));
    assert_int_equal(ht_graph_finish(g, true), HT_ERR_SHAPE);
}

static void a_graph_prints_a_line_an_operation(void **state)
{
    (void)state;
    ht_graph *g = ht_graph_create(arena);
    ht_norm_weights n = {TENSOR("norm.weight", 4), TENSOR("norm.bias", 4)};
    ht_value *x = ht_input(g, "x", 4, (int64_t[]){1, 2, 2, 4}, HT_DEPENDS_X);
    ht_output_value(g, ht_silu(g, ht_group_norm(g, x, &n, 2, 1e-5f)), "out");
    assert_int_equal(ht_graph_finish(g, true), HT_OK);
    assert_string_equal(
        ht_graph_print(g, arena),
        "%4[1,2,2,4] = group_norm %0[1,2,2,4] norm.weight[4] norm.bias[4] groups=2 silu  # step: out\n");
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, open_arena, close_arena)
    const struct CMUnitTest tests[] = {
        TEST(fusion_leaves_no_pass_over_memory_that_an_epilogue_can_do),
        TEST(fused_and_plain_graphs_compute_the_same_bits),
        TEST(a_tapped_value_is_not_fused_away),
        TEST(stages_follow_from_dependencies),
        TEST(a_sum_with_a_row_per_image_leaves_the_time_embedding_its_table),
        TEST(values_that_are_needed_together_never_share_memory),
        TEST(the_plan_is_smaller_than_the_sum_of_its_values),
        TEST(the_first_error_sticks_and_names_the_shapes),
        TEST(an_unknown_tap_is_an_error),
        TEST(sizes_that_would_overflow_are_refused),
        TEST(a_graph_prints_a_line_an_operation),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
