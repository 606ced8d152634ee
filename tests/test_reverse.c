/* Reverse mode: gradients are those of central finite differences of a forward in double that knows nothing of ours;
 * blocks found in a graph compute what the graph computes; threads and instruction sets change no bit. */
#include "cpu/backend.h"
#include "cpu/cpu.h"
#include "graph/reverse.h"
#include "tests/doubles.h"

enum { N = 2, H = 4, W = 4, C = 6 };

/* ---- a scene: a graph, its gradients, and values for its inputs ---- */

typedef struct scene {
    ht_graph *graph;
    ht_value *inputs[16], *y, *dy;
    int n_inputs, wanted; /* gradients by the first `wanted` inputs */
    ht_value *gradients[16];
    int forward_ops; /* before the gradients */
    float *data[16], *dy_data;
} scene;

static ht_value *input(scene *s, int ndim, const int64_t *shape)
{
    ht_value *v = ht_input(s->graph, "input", ndim, shape, HT_DEPENDS_X);
    s->inputs[s->n_inputs++] = v;
    return v;
}

static ht_value *weight(scene *s, int ndim, const int64_t *shape)
{
    ht_value *v = ht_constant_input(s->graph, "weight", ndim, shape);
    s->inputs[s->n_inputs++] = v;
    return v;
}

#define INPUT(s, ...)  input(s, SHAPE(__VA_ARGS__))
#define WEIGHT(s, ...) weight(s, SHAPE(__VA_ARGS__))

static void finish(scene *s, ht_value *y, int wanted)
{
    s->y = y;
    s->wanted = wanted;
    if (!y)
        fail_msg("the scene cannot be built: %s", ht_graph_finish(s->graph, false) ? ht_error_message() : "");
    s->dy = ht_input(s->graph, "dy", y->ndim, y->shape, HT_DEPENDS_X);
    s->forward_ops = y->producer ? y->id : 0;
    ht_gradients(s->graph, y, s->dy, wanted, s->inputs, s->gradients);
    ht_output_value(s->graph, y, "y");
    for (int i = 0; i < wanted && s->gradients[i]; i++)
        s->gradients[i]->tapped = true;
    if (ht_graph_finish(s->graph, false))
        fail_msg("%s", ht_error_message());
    for (int i = 0; i < s->n_inputs; i++)
        s->data[i] = draw((size_t)ht_value_count(s->inputs[i]), 1);
    s->dy_data = draw((size_t)ht_value_count(y), 1);
}

static void run(const scene *s, const char *isa, int threads, float *y, float *const *gradients)
{
    const ht_backend *b = &ht_cpu_backend;
    ht_program *p;
    if (b->compile(s->graph, &(ht_backend_options){.threads = threads, .isa = isa}, &p))
        fail_msg("%s", ht_error_message());
    for (int i = 0; i < s->n_inputs; i++)
        b->upload(p, s->inputs[i], s->data[i], N);
    b->upload(p, s->dy, s->dy_data, N);
    b->run(p, HT_STAGE_STEP, N, NULL);
    b->download(p, s->y, y, N);
    for (int i = 0; i < s->wanted; i++)
        b->download(p, s->gradients[i], gradients[i], N);
    b->close(p);
}

/* sum of dy y, in double, with what d has for the inputs. */
static double loss(const scene *s, doubles *d)
{
    double sum = 0;
    for (int i = 0; i < ht_graph_ops(s->graph); i++)
        if (ht_graph_op(s->graph, i)->out->id <= s->forward_ops)
            compute(ht_graph_op(s->graph, i), d);
    for (int64_t i = 0; i < ht_value_count(s->y); i++)
        sum += (double)s->dy_data[i] * d->of[s->y->id][i];
    return sum;
}

static void fill_doubles(const scene *s, doubles *d)
{
    for (int i = 0; i < ht_graph_values(s->graph); i++) {
        d->of[i] = ht_alloc_array(arena, (size_t)ht_value_count(ht_graph_value(s->graph, i)), sizeof(double));
        assert_non_null(d->of[i]);
    }
    for (int i = 0; i < s->n_inputs; i++)
        for (int64_t k = 0; k < ht_value_count(s->inputs[i]); k++)
            d->of[s->inputs[i]->id][k] = (double)s->data[i][k];
}

/* Gradients in float32 have sums of some hundred terms: 1e-5 of the largest of an input is ample for their rounding. */
static void check_gradient(const scene *s, doubles *d, int which, const float *gradient)
{
    double *x = d->of[s->inputs[which]->id], largest = 0, h = 1e-5;
    int64_t count = ht_value_count(s->inputs[which]), stride = count > 150 ? count / 97 : 1;
    for (int64_t i = 0; i < count; i++)
        largest = fabs((double)gradient[i]) > largest ? fabs((double)gradient[i]) : largest;
    assert_true(largest > 1e-3);
    for (int64_t i = 0; i < count; i += stride) {
        double was = x[i];
        x[i] = was + h;
        double up = loss(s, d);
        x[i] = was - h;
        double want = (up - loss(s, d)) / (2 * h), error = fabs((double)gradient[i] - want);
        x[i] = was;
        if (!(error <= 2e-5 * largest))
            fail_msg("gradient of input %d, element %lld: %.8g, want %.8g", which, (long long)i, (double)gradient[i],
                     want);
    }
}

static void check(scene *s)
{
    static const char *const isas[] = {"scalar", "avx2", "avx512"};
    float *y = draw((size_t)ht_value_count(s->y), 1), *other = draw((size_t)ht_value_count(s->y), 1);
    float *want[16], *got[16];
    doubles d = {{NULL}};
    assert_true(ht_graph_values(s->graph) < 256);
    for (int i = 0; i < s->wanted; i++) {
        want[i] = draw((size_t)ht_value_count(s->inputs[i]), 1);
        got[i] = draw((size_t)ht_value_count(s->inputs[i]), 1);
    }
    run(s, "scalar", 1, y, want);
    fill_doubles(s, &d);
    loss(s, &d);
    for (int64_t i = 0; i < ht_value_count(s->y); i++)
        if (!(fabs((double)y[i] - d.of[s->y->id][i]) <= 1e-4))
            fail_msg("y[%lld] = %g, want %g", (long long)i, (double)y[i], d.of[s->y->id][i]);
    for (int i = 0; i < s->wanted; i++)
        check_gradient(s, &d, i, want[i]);
    for (int isa = 0; isa < 3; isa++)
        for (int threads = 1; threads <= 3 && ht_isa_find(isas[isa]) <= (int)ht_cpu_detect(); threads++) {
            run(s, isas[isa], threads, other, got);
            assert_memory_equal(other, y, (size_t)ht_value_count(s->y) * sizeof *y);
            for (int i = 0; i < s->wanted; i++)
                assert_memory_equal(got[i], want[i], (size_t)ht_value_count(s->inputs[i]) * sizeof *y);
        }
}

/* ---- operations ---- */

static scene open_scene(void)
{
    scene s = {.graph = ht_graph_create(arena)};
    assert_non_null(s.graph);
    return s;
}

static void convolutions_have_their_gradients(void **state)
{
    (void)state;
    static const struct {
        int64_t in, out, k;
        ht_conv_shape shape;
    } cases[] = {
        {3, 5, 3, {1, 1, 1, 1, 1}},  {6, 70, 1, {0}},
        {17, 2, 3, {1, 0, 0, 1, 1}}, {4, 3, 3, {2, 0, 0, 1, 1}},
        {2, 3, 2, {1, 1, 0, 0, 1}},  {20, 33, 3, {1, 1, 1, 1, 1}},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        scene s = open_scene();
        ht_value *x = INPUT(&s, N, H, W, cases[i].in);
        ht_value *w = WEIGHT(&s, cases[i].out, cases[i].k, cases[i].k, cases[i].in), *b = WEIGHT(&s, 1, cases[i].out);
        finish(&s, ht_conv2d_by(s.graph, x, w, i % 2 ? b : NULL, cases[i].shape), 2);
        check(&s);
    }
}

static void norms_and_activations_have_their_gradients(void **state)
{
    (void)state;
    for (int groups = 1; groups <= 3; groups++) {
        scene s = open_scene();
        ht_norm_weights w = {TENSOR("n.weight", C), TENSOR("n.bias", C)};
        ht_value *x = INPUT(&s, N, H, W, C);
        finish(&s, ht_silu(s.graph, ht_group_norm(s.graph, ht_affine(s.graph, x, 3, 2), &w, groups, 1e-5f)), 1);
        check(&s);
    }
}

static void transformers_parts_have_their_gradients(void **state)
{
    (void)state;
    for (int64_t c = 5; c <= 40; c += 35) {
        scene s = open_scene();
        ht_norm_weights w = {TENSOR("n.weight", c), TENSOR("n.bias", c)};
        ht_value *x = INPUT(&s, N, 5, c), *gate = INPUT(&s, N, 3, 2 * c);
        ht_value *normed = ht_layer_norm(s.graph, ht_affine(s.graph, x, 3, 2), &w, 1e-5f);
        finish(&s, ht_scores(s.graph, normed, ht_geglu(s.graph, gate), 1, 0.2f), 2);
        check(&s);
    }
}

static void rows_and_sums_have_their_gradients(void **state)
{
    (void)state;
    scene s = open_scene();
    ht_value *x = INPUT(&s, N, H, W, C), *row = INPUT(&s, N, C), *other = INPUT(&s, N, H, W, C);
    ht_value *scale = INPUT(&s, N, C), *shift = INPUT(&s, N, C);
    ht_value *h = ht_add(s.graph, ht_silu(s.graph, ht_add_row(s.graph, x, row)), other);
    finish(&s, ht_add(s.graph, ht_scale_shift(s.graph, h, scale, shift), ht_silu(s.graph, x)), 3);
    check(&s);
}

static void resampling_and_joining_have_their_gradients(void **state)
{
    (void)state;
    scene s = open_scene();
    ht_value *a = INPUT(&s, N, H, W, C), *b = INPUT(&s, N, H, W, 3);
    ht_value *joined =
        ht_concat(s.graph, ht_upsample(s.graph, ht_avg_pool(s.graph, ht_silu(s.graph, a)), 2), ht_silu(s.graph, b));
    finish(&s, ht_silu(s.graph, ht_reshape(s.graph, joined, 3, (int64_t[]){N, (int64_t)H * W, C + 3})), 2);
    check(&s);
}

static void attention_has_its_gradients(void **state)
{
    (void)state;
    static const struct {
        int heads;
        int64_t tq, tk, d;
    } cases[] = {{1, 5, 7, 6}, {3, 9, 4, 2}, {2, 17, 20, 17}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        scene s = open_scene();
        int64_t c = cases[i].heads * cases[i].d;
        ht_value *q = INPUT(&s, N, cases[i].tq, c), *k = INPUT(&s, N, cases[i].tk, c),
                 *v = INPUT(&s, N, cases[i].tk, c);
        ht_value *p = ht_softmax(s.graph, ht_scores(s.graph, q, k, cases[i].heads, 0.4f), cases[i].heads);
        finish(&s, ht_mix(s.graph, p, v, cases[i].heads, 0.7f), 3);
        check(&s);
    }
}

/* A value that is read twice gets the sum; one in the middle has its own. */
static void inner_values_have_gradients_too(void **state)
{
    (void)state;
    scene s = open_scene();
    ht_value *x = INPUT(&s, N, 3, C), *gradient;
    ht_value *inner = ht_affine(s.graph, x, 2, 0), *y = ht_add(s.graph, inner, ht_affine(s.graph, inner, 3, 1));
    ht_value *dy = ht_input(s.graph, "dy", 3, y->shape, HT_DEPENDS_X);
    ht_gradients(s.graph, y, dy, 1, &inner, &gradient);
    ht_output_value(s.graph, gradient, "gradient");
    assert_int_equal(ht_graph_finish(s.graph, false), HT_OK);
    float *in = draw(N * 3 * C, 1), out[N * 3 * C];
    ht_program *p;
    assert_int_equal(ht_cpu_backend.compile(s.graph, &(ht_backend_options){.threads = 1}, &p), HT_OK);
    ht_cpu_backend.upload(p, dy, in, N);
    ht_cpu_backend.run(p, HT_STAGE_STEP, N, NULL);
    ht_cpu_backend.download(p, gradient, out, N);
    ht_cpu_backend.close(p);
    for (int i = 0; i < N * 3 * C; i++)
        assert_float_equal(out[i], 4 * in[i], 1e-5f);
}

/* Straight through: the gradient of x where x fits the grid, 0 where it is cut off. */
static void codes_pass_gradients_within_their_range(void **state)
{
    (void)state;
    static const char *const formats[] = {"uint4", "uint8", "fp8_e4m3"};
    for (size_t f = 0; f < sizeof formats / sizeof *formats; f++) {
        ht_format format;
        assert_int_equal(ht_format_find(formats[f], &format), HT_OK);
        scene s = open_scene();
        ht_value *x = INPUT(&s, N, 2, C), *scale = INPUT(&s, N, 2), *gradient;
        ht_value *y = ht_simulate(s.graph, x, scale, &format);
        ht_value *dy = ht_input(s.graph, "dy", 3, x->shape, HT_DEPENDS_X);
        ht_gradients(s.graph, y, dy, 1, &x, &gradient);
        ht_output_value(s.graph, y, "y");
        gradient->tapped = true;
        assert_int_equal(ht_graph_finish(s.graph, false), HT_OK);
        float steps[2 * N] = {0.25f, 0, 0.01f, 0}, in[N * 2 * C], out[N * 2 * C], got[N * 2 * C];
        float zero = format.grid.exponent_bits ? 0 : 5;
        float *g = draw(N * 2 * C, 1);
        steps[1] = steps[3] = zero;
        for (int i = 0; i < N * 2 * C; i++)
            in[i] = ((float)i - 6.2f) * (i < 12 ? 0.3f : 5.0f);
        ht_program *p;
        assert_int_equal(ht_cpu_backend.compile(s.graph, &(ht_backend_options){.threads = 2}, &p), HT_OK);
        ht_cpu_backend.upload(p, x, in, N);
        ht_cpu_backend.upload(p, scale, steps, N);
        ht_cpu_backend.upload(p, dy, g, N);
        ht_cpu_backend.run(p, HT_STAGE_STEP, N, NULL);
        ht_cpu_backend.download(p, y, out, N);
        ht_cpu_backend.download(p, gradient, got, N);
        ht_cpu_backend.close(p);
        for (int i = 0; i < N * 2 * C; i++) {
            float step = steps[i / 12 * 2];
            ht_grid grid = format.grid.exponent_bits ? format.grid : ht_grid_with_zero(&format.grid, 5);
            float want = ht_grid_round(&grid, in[i] / step) * step;
            bool inside = in[i] / step > grid.lowest && in[i] / step < grid.highest;
            bool outside = in[i] / step < grid.lowest - 1 || in[i] / step > grid.highest + 1;
            assert_float_equal(out[i], want, fabsf(want) * 1e-5f + 1e-6f);
            if (inside)
                assert_float_equal(got[i], g[i], 0);
            if (outside)
                assert_float_equal(got[i], 0, 0);
        }
    }
}

static void what_has_no_gradient_is_refused(void **state)
{
    (void)state;
    scene s = open_scene();
    ht_value *x = INPUT(&s, N, C), *gradient, *dy = INPUT(&s, N, C);
    ht_gradients(s.graph, ht_relu(s.graph, x), dy, 1, &x, &gradient);
    ht_output_value(s.graph, x, "x");
    assert_int_equal(ht_graph_finish(s.graph, false), HT_ERR_UNSUPPORTED);
    assert_non_null(strstr(ht_error_message(), "relu"));
    s = open_scene();
    x = INPUT(&s, N, C);
    ht_value *other = INPUT(&s, N, C);
    ht_gradients(s.graph, ht_silu(s.graph, x), other, 1, &other, &gradient);
    ht_output_value(s.graph, x, "x");
    assert_int_equal(ht_graph_finish(s.graph, false), HT_ERR_ARGUMENT);
}

/* ---- regions ---- */

static ht_conv_weights conv(const char *name, int64_t in, int64_t out, int64_t k)
{
    return (ht_conv_weights){TENSOR(name, out, in, k, k), TENSOR("bias", out)};
}

static ht_linear_weights linear(const char *name, int64_t in, int64_t out)
{
    return (ht_linear_weights){TENSOR(name, out, in), TENSOR("bias", out)};
}

static const ht_conv_shape same_size = {1, 1, 1, 1, 1};

/* A residual block that reads a concatenation, with a time row, as unet/blocks.c builds it. */
static ht_value *resnet(ht_graph *g, ht_value *x, ht_value *temb, int64_t in)
{
    ht_norm_weights n1 = {TENSOR("up.resnets.0.norm1.weight", in), TENSOR("b", in)};
    ht_norm_weights n2 = {TENSOR("up.resnets.0.norm2.weight", C), TENSOR("b", C)};
    ht_linear_weights proj = linear("up.resnets.0.time_emb_proj.weight", C, C);
    ht_conv_weights c1 = conv("up.resnets.0.conv1.weight", in, C, 3), c2 = conv("up.resnets.0.conv2.weight", C, C, 3);
    ht_conv_weights shortcut = conv("up.resnets.0.conv_shortcut.weight", in, C, 1);
    ht_value *row = ht_linear(g, ht_silu(g, temb), &proj);
    ht_value *h = ht_conv2d(g, ht_silu(g, ht_group_norm(g, x, &n1, 1, 1e-6f)), &c1, same_size);
    h = ht_silu(g, ht_group_norm(g, ht_add_row(g, h, row), &n2, 2, 1e-6f));
    h = ht_add(g, ht_conv2d(g, x, &shortcut, (ht_conv_shape){0}), ht_conv2d(g, h, &c2, same_size));
    return ht_name(g, ht_affine(g, h, 0.7f, 0), "up.resnets.0");
}

static ht_value *attention(ht_graph *g, ht_value *x)
{
    ht_norm_weights norm = {TENSOR("up.attentions.0.group_norm.weight", C), TENSOR("b", C)};
    ht_linear_weights q = linear("up.attentions.0.to_q.weight", C, C), k = linear("up.attentions.0.to_k.weight", C, C),
                      v = linear("up.attentions.0.to_v.weight", C, C),
                      out = linear("up.attentions.0.to_out.0.weight", C, C);
    ht_value *h = ht_reshape(g, ht_group_norm(g, x, &norm, 3, 1e-6f), 3, (int64_t[]){x->shape[0], (int64_t)H * W, C});
    h = ht_attention(g, ht_linear(g, h, &q), ht_linear(g, h, &k), ht_linear(g, h, &v), 2, 0.5f);
    h = ht_add(g, ht_linear(g, h, &out), ht_reshape(g, x, 3, (int64_t[]){x->shape[0], (int64_t)H * W, C}));
    return ht_name(g, ht_reshape(g, h, 4, x->shape), "up.attentions.0");
}

/* A transformer's block whose keys and values of the context come from outside, as unet/transformer.c builds it. */
static ht_value *transformer(ht_graph *g, ht_value *x, ht_value *k, ht_value *v)
{
    ht_norm_weights norm1 = {TENSOR("t.norm1.weight", C), TENSOR("b", C)};
    ht_norm_weights norm2 = {TENSOR("t.norm2.weight", C), TENSOR("b", C)};
    ht_linear_weights q = linear("t.to_q.weight", C, C), out = linear("t.to_out.0.weight", C, C),
                      in = linear("t.ff_in.weight", C, (int64_t)8 * C),
                      back = linear("t.ff_out.weight", (int64_t)4 * C, C);
    ht_value *h = ht_linear(g, ht_layer_norm(g, x, &norm1, 1e-5f), &q);
    x = ht_add(g, ht_linear(g, ht_attention(g, h, k, v, 2, 0.5f), &out), x);
    h = ht_geglu(g, ht_linear(g, ht_layer_norm(g, x, &norm2, 1e-5f), &in));
    return ht_name(g, ht_add(g, ht_linear(g, h, &back), x), "t");
}

static ht_graph *transformer_model(bool fuse)
{
    ht_mt19937_seed(&rng, 5);
    ht_graph *g = ht_graph_create(arena);
    ht_linear_weights key = linear("t.to_k.weight", 3, C), value = linear("t.to_v.weight", 3, C);
    ht_value *context = ht_input(g, "context", 3, (int64_t[]){N, 7, 3}, HT_DEPENDS_COND);
    ht_value *x = ht_input(g, "sample", 3, (int64_t[]){N, 5, C}, HT_DEPENDS_X);
    ht_output_value(g, transformer(g, x, ht_linear(g, context, &key), ht_linear(g, context, &value)), "t");
    if (ht_graph_finish(g, fuse))
        fail_msg("%s", ht_error_message());
    return g;
}

static ht_graph *model(bool fuse)
{
    ht_mt19937_seed(&rng, 5); /* the same weights each time */
    ht_graph *g = ht_graph_create(arena);
    ht_conv_weights in = conv("conv_in.weight", 3, C, 3), past = conv("skip.weight", C, C, 1),
                    up = conv("up.upsamplers.0.conv.weight", C, C, 3), last = conv("conv_out.weight", C, 3, 3);
    ht_norm_weights norm = {TENSOR("conv_norm_out.weight", C), TENSOR("b", C)};
    ht_linear_weights time = linear("time.weight", C, C);
    ht_value *x = ht_input(g, "sample", 4, (int64_t[]){N, H, W, 3}, HT_DEPENDS_X);
    ht_value *temb = ht_linear(g, ht_timestep_embedding(g, ht_timestep(g), C, false, 1), &time);
    ht_value *h = ht_conv2d(g, x, &in, same_size), *skip = ht_conv2d(g, h, &past, (ht_conv_shape){0});
    h = resnet(g, ht_concat(g, h, skip), temb, 2 * C);
    h = attention(g, h);
    h = ht_name(g, ht_conv2d(g, ht_upsample(g, h, 2), &up, same_size), "up.upsamplers.0");
    h = ht_silu(g, ht_group_norm(g, h, &norm, 2, 1e-6f));
    ht_output_value(g, ht_conv2d(g, h, &last, same_size), "out");
    ht_tap(g, "up.resnets.0");
    ht_tap(g, "up.attentions.0");
    ht_tap(g, "up.upsamplers.0");
    if (ht_graph_finish(g, fuse))
        fail_msg("%s", ht_error_message());
    return g;
}

static void blocks_are_found_in_order_of_execution(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        int layers, inputs;
    } want[] = {{"conv_in", 1, 1},         {"skip", 1, 1},    {"up.resnets.0", 3, 3}, {"up.attentions.0", 4, 1},
                {"up.upsamplers.0", 1, 1}, {"conv_out", 1, 1}};
    for (int fuse = 0; fuse < 2; fuse++) {
        ht_region *r;
        int n;
        assert_int_equal(ht_regions_find(model(fuse), arena, &r, &n), HT_OK);
        assert_int_equal(n, 6);
        for (int i = 0; i < n; i++) {
            assert_string_equal(r[i].name, want[i].name);
            assert_int_equal(r[i].n_layers, want[i].layers);
            assert_int_equal(r[i].n_inputs, want[i].inputs);
        }
    }
}

/* All values of one run of the model: taps by name. */
static void run_model(const ht_graph *g, const float *x, const char *name, float *out)
{
    ht_program *p;
    float t = 37;
    const ht_backend *b = &ht_cpu_backend;
    assert_int_equal(b->compile(g, &(ht_backend_options){.threads = 1}, &p), HT_OK);
    void *row = b->alloc(p, b->row_bytes(p) + 64);
    b->upload(p, ht_graph_input(g, "sample"), x, N);
    b->upload(p, ht_graph_input(g, "timestep"), &t, 1);
    for (int stage = 0; stage < HT_STAGES; stage++)
        b->run(p, stage, N, row);
    b->download(p, ht_graph_find(g, name), out, N);
    b->free(p, row);
    b->close(p);
}

/* Blocks one after the other, each reading what those before it made, give what the model gives. */
static void regions_compute_what_the_graph_computes(void **state)
{
    (void)state;
    for (int fuse = 0; fuse < 2; fuse++) {
        ht_graph *g = model(fuse);
        ht_region *r;
        int n;
        float *x = draw(N * H * W * 3, 1), *want = draw(4 * N * H * W * C, 1), *got = draw(4 * N * H * W * C, 1);
        assert_int_equal(ht_regions_find(g, arena, &r, &n), HT_OK);
        for (int i = 3; i <= 4; i++) { /* those with one input, a tap */
            ht_region_copy copy;
            ht_graph *to = ht_graph_create(arena);
            ht_region_build(&r[i], N, NULL, to, arena, &copy);
            ht_output_value(to, copy.output, "y");
            assert_int_equal(ht_graph_finish(to, false), HT_OK);
            ht_program *p;
            assert_int_equal(ht_cpu_backend.compile(to, &(ht_backend_options){.threads = 1}, &p), HT_OK);
            for (int l = 0; l < r[i].n_layers; l++) {
                const ht_op *op = copy.layers[l].op;
                float *w = draw(op->in[HT_IN_WEIGHT]->data->count, 1);
                ht_weight_channels_last(op->in[HT_IN_WEIGHT]->data, w);
                ht_cpu_backend.upload(p, copy.layers[l].weight, w, 1);
                ht_cpu_backend.upload(p, copy.layers[l].bias, op->in[HT_IN_BIAS]->data->data, 1);
            }
            run_model(g, x, r[i].inputs[0]->name, want);
            ht_cpu_backend.upload(p, copy.inputs[0], want, N);
            ht_cpu_backend.run(p, HT_STAGE_STEP, N, NULL);
            ht_cpu_backend.download(p, copy.output, got, N);
            ht_cpu_backend.close(p);
            run_model(g, x, r[i].name, want);
            for (int64_t k = 0; k < ht_value_count(copy.output); k++)
                assert_float_equal(got[k], want[k], 1e-4f);
        }
    }
}

static void check_block(const ht_region *r)
{
    ht_region_copy copy;
    scene s = open_scene();
    ht_region_build(r, N, NULL, s.graph, arena, &copy);
    for (int l = 0; l < r->n_layers; l++)
        s.inputs[s.n_inputs++] = copy.layers[l].weight;
    for (int k = 0; k < r->n_inputs; k++)
        s.inputs[s.n_inputs++] = copy.inputs[k];
    int wanted = s.n_inputs;
    for (int l = 0; l < r->n_layers; l++)
        s.inputs[s.n_inputs++] = copy.layers[l].bias;
    finish(&s, copy.output, wanted);
    for (int l = 0; l < r->n_layers; l++) /* about as large as a network's */
        for (int64_t k = 0; k < ht_value_count(s.inputs[l]); k++)
            s.data[l][k] *= 0.3f;
    check(&s);
}

/* The residual block and the attention block of the model, by all their weights and inputs. */
static void whole_blocks_have_their_gradients(void **state)
{
    (void)state;
    for (int fuse = 0; fuse < 2; fuse++)
        for (int i = 2; i <= 3; i++) {
            ht_region *r;
            int n;
            assert_int_equal(ht_regions_find(model(fuse), arena, &r, &n), HT_OK);
            check_block(&r[i]);
        }
}

/* Its keys and values of the context are inputs of the block, which it has gradients by too. */
static void a_block_that_attends_to_a_context_has_its_gradients(void **state)
{
    (void)state;
    for (int fuse = 0; fuse < 2; fuse++) {
        ht_region *r;
        int n;
        assert_int_equal(ht_regions_find(transformer_model(fuse), arena, &r, &n), HT_OK);
        assert_int_equal(n, 1);
        assert_string_equal(r[0].name, "t");
        assert_int_equal(r[0].n_layers, 4);
        assert_int_equal(r[0].n_inputs, 3);
        check_block(&r[0]);
    }
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, open_arena, close_arena)
    const struct CMUnitTest tests[] = {
        TEST(convolutions_have_their_gradients),
        TEST(norms_and_activations_have_their_gradients),
        TEST(transformers_parts_have_their_gradients),
        TEST(rows_and_sums_have_their_gradients),
        TEST(resampling_and_joining_have_their_gradients),
        TEST(attention_has_its_gradients),
        TEST(inner_values_have_gradients_too),
        TEST(codes_pass_gradients_within_their_range),
        TEST(what_has_no_gradient_is_refused),
        TEST(blocks_are_found_in_order_of_execution),
        TEST(regions_compute_what_the_graph_computes),
        TEST(whole_blocks_have_their_gradients),
        TEST(a_block_that_attends_to_a_context_has_its_gradients),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
