/* What kernels keep in memory: large weights of 16 bits stay so, with the bits of float32; attention takes memory by
 * the token. */
#include "cpu/reference.h"
#include "graph/weights.h"
#include "tests/kernels.h"

#define INPUT(s, name, ...)                                                                                            \
    input(s, name, (int)(sizeof((int64_t[]){__VA_ARGS__}) / sizeof(int64_t)), (const int64_t[]){__VA_ARGS__})

static int compared;

static void compare_list(scene *s, const ht_kernel *list, const ht_call *call, const float *want)
{
    for (const ht_kernel *k = list; k->name; k++)
        if (k->op == call->op->kind && k->isa <= ht_cpu_detect() && !(k->refuses && k->refuses(call->op))) {
            compare(s, k, call, want);
            compared++;
        }
}

static void fill_inputs(scene *s, ht_call *call)
{
    for (int i = 0; i < HT_INPUTS; i++) {
        const ht_value *v = call->op->in[i];
        size_t count = v && !v->data ? (size_t)(ht_rows(v, s->n) * ht_channels(v)) : 0;
        float *x = count ? room(s, count * sizeof *x) : NULL;
        if (x)
            fill_normal(x, count, 1);
        call->in[i] = x;
    }
}

/* Weights of 16 bits, as many as stay so in memory. */
static const ht_tensor *many_halves(scene *s, int ndim, const int64_t *shape)
{
    const ht_tensor *floats = weight_of(s, "w.weight", ndim, shape);
    ht_tensor *t = ht_alloc(s->arena, sizeof *t);
    uint16_t *data = ht_alloc_array(s->arena, floats->count, sizeof *data);
    assert_true(t && data);
    *t = *floats;
    t->dtype = draw(0, 1) ? HT_F16 : HT_BF16;
    for (size_t i = 0; i < t->count; i++) {
        float x = ((const float *)floats->data)[i] * (draw(0, 63) ? 1.0f : 1e-6f); /* subnormal halves too */
        data[i] = t->dtype == HT_F16 ? ht_f16_from_f32(x) : ht_bf16_from_f32(x);
    }
    t->data = data;
    t->bytes = t->count * sizeof *data;
    return t;
}

static void scene_many_halves(scene *s)
{
    int64_t in = draw(700, 720), out = draw(3010, 3100), taps = draw(0, 1) ? 1 : 2;
    s->batch = s->n = 1;
    if (taps == 1) {
        ht_linear_weights w = {many_halves(s, 2, (int64_t[]){out, in}),
                               draw(0, 1) ? weight_of(s, "w.bias", 1, &out) : NULL};
        ht_output_value(s->graph, ht_linear(s->graph, INPUT(s, "x", 1, draw(1, 8), in), &w), "y");
    } else {
        in /= 3;
        ht_conv_weights w = {many_halves(s, 4, (int64_t[]){out, in, 2, 2}), NULL};
        ht_value *x = ht_concat(s->graph, INPUT(s, "x", 1, 3, 2, 17), INPUT(s, "x2", 1, 3, 2, in - 17));
        ht_output_value(s->graph, ht_conv2d(s->graph, x, &w, (ht_conv_shape){0}), "y");
    }
    snprintf(s->text, sizeof s->text, "%lld in %lld out", (long long)in, (long long)out);
}

static void weights_of_16_bits_give_the_bits_of_float32(void **state)
{
    (void)state;
    int before = compared;
    for (int index = 0; index < 4; index++)
        if (only_case < 0 || only_case == index) {
            scene s = open_scene(1000, index, 1);
            scene_many_halves(&s);
            if (ht_graph_finish(s.graph, true))
                fail_msg("%s", ht_error_message());
            ht_call call = {.op = ht_graph_output(s.graph)->producer, .n = 1};
            fill_inputs(&s, &call);
            const float *want = run_kernel(&s, ht_reference_kernels[call.op->kind], &call, 1);
            compare_list(&s, ht_avx2_kernels, &call, want);
            compare_list(&s, ht_avx512_kernels, &call, want);
            ht_arena_free(s.arena);
        }
    assert_true(compared >= before + 4 || ht_cpu_detect() < HT_ISA_AVX2 || only_case >= 0);
}

/* Bytes of a kernel for tokens that attend to one another: a thread's scratch, and what the team shares. */
static size_t attention_bytes(const ht_kernel *k, int64_t tokens)
{
    scene s = open_scene(0, 0, 1);
    ht_value *x = INPUT(&s, "x", 1, tokens, 320);
    ht_output_value(s.graph, ht_attention(s.graph, x, x, x, 8, 0.1f), "y");
    if (ht_graph_finish(s.graph, true))
        fail_msg("%s", ht_error_message());
    const ht_op *op = ht_graph_output(s.graph)->producer;
    size_t bytes = size_of(k->scratch, op) + size_of(k->shared, op);
    ht_arena_free(s.arena);
    return bytes;
}

/* Never tokens x tokens: at most a few times queries, keys and values. */
static void attention_takes_memory_by_the_token(void **state)
{
    (void)state;
    for (int i = 0; ht_kernel_lists[i]; i++)
        for (const ht_kernel *k = ht_kernel_lists[i]; k->name; k++) {
            if (k->op != HT_OP_attention)
                continue;
            size_t some = attention_bytes(k, 4096), twice = attention_bytes(k, 8192);
            if (twice > 2 * some + 4096 || some > 3 * 4096 * 320 * sizeof(float))
                fail_msg("%s takes %zu bytes for 4096 tokens, %zu for 8192", k->name, some, twice);
        }
    assert_true(attention_bytes(&ht_ref_attention, 8192) <= 2 * attention_bytes(&ht_ref_attention, 4096));
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(weights_of_16_bits_give_the_bits_of_float32),
        cmocka_unit_test(attention_takes_memory_by_the_token),
    };
    read_seed(argc, argv, 17);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
