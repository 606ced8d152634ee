/* Every kernel of every table against the scalar one, bit for bit, over drawn shapes: tile edges, odd channels, two
 * inputs, batches 1..9, one to three threads.  Outputs lie between canaries.  A kernel that this machine cannot run is
 * counted and named. */
#include "cpu/math.h"
#include "cpu/reference.h"
#include "graph/reverse.h"
#include "graph/weights.h"
#include "tests/kernels.h"

enum { CASES = 50, MOST_ROWS = 12 };

/* ---- drawing ---- */

/* Widths about the tiles' edges. */
static int64_t draw_channels(void)
{
    static const int widths[] = {1, 3, 7, 8, 9, 15, 16, 17, 24, 31, 32, 33, 48, 64, 65, 100, 200};
    return one_of(widths, sizeof widths / sizeof *widths);
}

enum { ORDINARY, TINY, LARGE, POISONED };

/* Values from several distributions; a sprinkle of exact zeros of both signs; some NaN and infinity if poisoned. */
static void fill(float *x, size_t n, int kind)
{
    fill_normal(x, n, kind == TINY ? 1e-30f : kind == LARGE ? 1e4f : 1);
    for (int i = 0; kind == POISONED && i < 3; i++)
        x[(size_t)draw(0, 1 << 30) % n] = i ? (draw(0, 1) ? INFINITY : -INFINITY) : odd_nan();
}

#define WEIGHT(s, ...)                                                                                                 \
    weight_of(s, "w.weight", (int)(sizeof((int64_t[]){__VA_ARGS__}) / sizeof(int64_t)), (const int64_t[]){__VA_ARGS__})

#define INPUT(s, name, ...)                                                                                            \
    input(s, name, (int)(sizeof((int64_t[]){__VA_ARGS__}) / sizeof(int64_t)), (const int64_t[]){__VA_ARGS__})

static void describe(scene *s, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void describe(scene *s, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vsnprintf(s->text, sizeof s->text, format, args);
    va_end(args);
}

/* ---- the operations, each with what fusion can put into it ---- */

static ht_value *maybe_concat(scene *s, ht_value *x, const char *name)
{
    int64_t shape[4];
    memcpy(shape, x->shape, sizeof shape);
    if (draw(0, 1))
        return x;
    shape[x->ndim - 1] = draw_channels();
    return ht_concat(s->graph, x, input(s, name, x->ndim, shape));
}

static void scene_conv2d(scene *s)
{
    int64_t h = draw(1, 9), w = draw(1, 9), in = draw_channels(), out = draw_channels(), k = draw(1, 3);
    ht_conv_shape shape = {.stride = (int)draw(1, 2),
                           .pad_top = (int)draw(0, 1),
                           .pad_left = (int)draw(0, 1),
                           .pad_bottom = 1,
                           .pad_right = 1};
    ht_value *x = maybe_concat(s, INPUT(s, "x", s->batch, h + 1, w + 1, in), "x2");
    if (draw(0, 3) == 0)
        x = ht_upsample(s->graph, x, 2);
    int64_t kh = draw(0, 3) ? k : draw(1, h + 1 < 7 ? h + 1 : 7);
    ht_conv_weights weights = {WEIGHT(s, out, x->shape[3], kh, k), draw(0, 1) ? WEIGHT(s, out) : NULL};
    ht_value *y = ht_conv2d(s->graph, x, &weights, shape);
    if (draw(0, 1))
        y = ht_add_row(s->graph, y,
                       draw(0, 1) ? INPUT(s, "row", s->batch, out)
                                  : ht_input(s->graph, "row", 2, (int64_t[]){1, out}, HT_DEPENDS_T));
    if (draw(0, 1))
        y = ht_add(s->graph, y, INPUT(s, "residual", y->shape[0], y->shape[1], y->shape[2], y->shape[3]));
    if (draw(0, 3) == 0)
        y = ht_affine(s->graph, y, 0.7071f, 0);
    if (draw(0, 1))
        y = ht_relu(s->graph, y);
    describe(s, "%lldx%lld in %lld out %lld k%lldx%lld s%d", (long long)h, (long long)w, (long long)x->shape[3],
             (long long)out, (long long)kh, (long long)k, shape.stride);
    ht_output_value(s->graph, y, "y");
}

static void scene_linear(scene *s)
{
    int64_t tokens = draw(1, 40), in = draw(0, 3) ? draw_channels() : draw(180, 420), out = draw_channels();
    ht_value *x = maybe_concat(s, INPUT(s, "x", s->batch, tokens, in), "x2");
    ht_linear_weights weights = {WEIGHT(s, out, x->shape[2]), draw(0, 1) ? WEIGHT(s, out) : NULL};
    ht_value *y = ht_linear(s->graph, x, &weights);
    if (draw(0, 1))
        y = ht_add(s->graph, y, INPUT(s, "residual", s->batch, tokens, out));
    if (draw(0, 3) == 0)
        y = ht_relu(s->graph, y);
    describe(s, "%lld tokens in %lld out %lld", (long long)tokens, (long long)x->shape[2], (long long)out);
    ht_output_value(s->graph, y, "y");
}

static void scene_group_norm(scene *s)
{
    int64_t groups = draw(1, 4), h = draw(1, 12), w = draw(1, 12);
    ht_value *x = maybe_concat(s, INPUT(s, "x", s->batch, h, w, draw_channels()), "x2");
    groups = x->shape[3] % groups ? 1 : groups;
    ht_norm_weights weights = {WEIGHT(s, x->shape[3]), WEIGHT(s, x->shape[3])};
    ht_value *y = ht_group_norm(s->graph, x, &weights, (int)groups, 1e-6f);
    if (draw(0, 1))
        y = ht_silu(s->graph, y);
    describe(s, "%lldx%lld channels %lld groups %lld", (long long)h, (long long)w, (long long)x->shape[3],
             (long long)groups);
    ht_output_value(s->graph, y, "y");
}

static void scene_silu(scene *s)
{
    int64_t c = draw_channels();
    describe(s, "channels %lld", (long long)c);
    ht_output_value(s->graph, ht_silu(s->graph, INPUT(s, "x", s->batch, draw(1, 20), c)), "y");
}

static void scene_pool(scene *s, bool mean)
{
    int64_t h = draw(3, 12), w = draw(3, 12), c = draw_channels();
    int k = (int)draw(1, 3);
    ht_conv_shape shape = {(int)draw(1, 3), (int)draw(0, k - 1), (int)draw(0, k - 1), (int)draw(0, k - 1),
                           (int)draw(0, k - 1)};
    ht_value *x = INPUT(s, "x", s->batch, h, w, c);
    describe(s, "%lldx%lld channels %lld k%d s%d", (long long)h, (long long)w, (long long)c, k, shape.stride);
    ht_output_value(s->graph, mean ? ht_mean_pool(s->graph, x, k, shape) : ht_max_pool(s->graph, x, k, shape), "y");
}

static void scene_max_pool(scene *s)
{
    scene_pool(s, false);
}

static void scene_mean_pool(scene *s)
{
    scene_pool(s, true);
}

static void scene_layer_norm(scene *s)
{
    int64_t c = draw_channels();
    ht_norm_weights weights = {WEIGHT(s, c), WEIGHT(s, c)};
    describe(s, "channels %lld", (long long)c);
    ht_output_value(s->graph, ht_layer_norm(s->graph, INPUT(s, "x", s->batch, draw(1, 20), c), &weights, 1e-5f), "y");
}

static void scene_gelu(scene *s)
{
    int64_t c = draw_channels();
    describe(s, "channels %lld", (long long)c);
    ht_output_value(s->graph, ht_gelu(s->graph, INPUT(s, "x", s->batch, draw(1, 20), c)), "y");
}

static void scene_quick_gelu(scene *s)
{
    int64_t c = draw_channels();
    describe(s, "channels %lld", (long long)c);
    ht_output_value(s->graph, ht_quick_gelu(s->graph, INPUT(s, "x", s->batch, draw(1, 20), c)), "y");
}

static void scene_embedding(scene *s)
{
    int64_t tokens = draw(1, 20), c = draw_channels();
    describe(s, "%lld tokens channels %lld", (long long)tokens, (long long)c);
    ht_output_value(s->graph, ht_embedding(s->graph, INPUT(s, "index", s->batch, tokens, 1), WEIGHT(s, MOST_ROWS, c)),
                    "y");
}

static void scene_add_position(scene *s)
{
    int64_t tokens = draw(1, 20), c = draw_channels();
    describe(s, "%lld tokens channels %lld", (long long)tokens, (long long)c);
    ht_output_value(s->graph,
                    ht_add_position(s->graph, INPUT(s, "x", s->batch, tokens, c), WEIGHT(s, tokens + draw(0, 3), c)),
                    "y");
}

static void scene_pick(scene *s)
{
    int64_t c = draw_channels();
    describe(s, "channels %lld", (long long)c);
    ht_value *x = INPUT(s, "x", s->batch, MOST_ROWS + draw(0, 9), c);
    ht_output_value(s->graph, ht_pick(s->graph, x, INPUT(s, "index", s->batch, 1)), "y");
}

static void scene_geglu(scene *s)
{
    int64_t c = draw_channels();
    describe(s, "channels %lld", (long long)c);
    ht_output_value(s->graph, ht_geglu(s->graph, INPUT(s, "x", s->batch, draw(1, 20), 2 * c)), "y");
}

static void scene_tanh(scene *s)
{
    int64_t c = draw_channels();
    describe(s, "channels %lld", (long long)c);
    ht_output_value(s->graph, ht_tanh(s->graph, INPUT(s, "x", s->batch, draw(1, 20), c)), "y");
}

static void scene_nearest_row(scene *s)
{
    int64_t tokens = draw(1, 20), c = draw_channels();
    describe(s, "%lld tokens channels %lld", (long long)tokens, (long long)c);
    ht_value *x = INPUT(s, "x", s->batch, tokens, c);
    ht_output_value(s->graph, ht_nearest_row(s->graph, x, WEIGHT(s, MOST_ROWS, c)), "y");
}

/* To twice the size, or a row or column less. */
static void scene_upsample(scene *s)
{
    int64_t h = draw(1, 9), w = draw(1, 9), c = draw_channels(), less_h = draw(0, 1), less_w = draw(0, 1);
    describe(s, "%lldx%lld to %lldx%lld channels %lld", (long long)h, (long long)w, (long long)(2 * h - less_h),
             (long long)(2 * w - less_w), (long long)c);
    ht_value *x = INPUT(s, "x", s->batch, h, w, c);
    ht_output_value(s->graph, ht_upsample_to(s->graph, x, 2 * h - less_h, 2 * w - less_w), "y");
}

/* With a softmax of one of the formats. */
static void output_attention(scene *s, ht_value *y)
{
    if (y)
        y->producer->attrs.softmax = (ht_softmax_format)draw(0, HT_SOFTMAXES - 1);
    ht_output_value(s->graph, y, "y");
}

static void scene_attention(scene *s)
{
    static const int widths[] = {1, 5, 8, 16, 31, 40, 64, 72, 200};
    int64_t heads = draw(1, 3), d = one_of(widths, sizeof widths / sizeof *widths), tq = draw(1, 40),
            tk = draw(0, 1) ? draw(1, 50) : tq; /* as many of both may be causal */
    ht_value *q = INPUT(s, "q", s->batch, tq, heads * d), *k = INPUT(s, "k", s->batch, tk, heads * d);
    ht_value *v = INPUT(s, "v", s->batch, tk, heads * d);
    describe(s, "%lld queries %lld keys %lld heads of %lld", (long long)tq, (long long)tk, (long long)heads,
             (long long)d);
    output_attention(s, tq == tk && draw(0, 2) ? ht_causal_attention(s->graph, q, k, v, (int)heads, 0.25f)
                                               : ht_attention(s->graph, q, k, v, (int)heads, 0.25f));
}

/* Scores to which something is added, by key, by distance, or both. */
static void scene_biased_attention(scene *s)
{
    static const int widths[] = {1, 8, 31, 64, 72};
    int64_t heads = draw(1, 3), d = one_of(widths, sizeof widths / sizeof *widths), tq = draw(1, 40), tk = draw(1, 50),
            which = draw(1, 3);
    ht_value *q = INPUT(s, "q", s->batch, tq, heads * d), *k = INPUT(s, "k", s->batch, tk, heads * d);
    ht_value *v = INPUT(s, "v", s->batch, tk, heads * d);
    ht_attention_bias bias = {which & 1 ? INPUT(s, "keys", s->batch, tk) : NULL,
                              which & 2 ? WEIGHT(s, heads, tq + tk - 1) : NULL};
    describe(s, "%lld queries %lld keys %lld heads of %lld, biases %lld", (long long)tq, (long long)tk,
             (long long)heads, (long long)d, (long long)which);
    output_attention(s, ht_biased_attention(s->graph, q, k, v, (int)heads, 0.25f, bias));
}

/* A row of each image, or of all. */
static ht_value *row_input(scene *s, const char *name, int64_t c)
{
    return draw(0, 1) ? INPUT(s, name, s->batch, c) : ht_input(s->graph, name, 2, (int64_t[]){1, c}, HT_DEPENDS_T);
}

static void scene_modulate(scene *s)
{
    int64_t c = draw_channels();
    ht_value *x = INPUT(s, "x", s->batch, draw(1, 20), c), *scale = row_input(s, "scale", c);
    describe(s, "channels %lld", (long long)c);
    ht_output_value(s->graph, ht_modulate(s->graph, x, scale, row_input(s, "shift", c), 1e-6f), "y");
}

static void scene_gate(scene *s)
{
    int64_t c = draw_channels(), tokens = draw(1, 20);
    ht_value *x = INPUT(s, "x", s->batch, tokens, c), *residual = INPUT(s, "residual", s->batch, tokens, c);
    describe(s, "channels %lld", (long long)c);
    ht_output_value(s->graph, ht_gate(s->graph, x, row_input(s, "row", c), residual), "y");
}

static void scene_rms_norm(scene *s)
{
    int64_t c = draw_channels();
    describe(s, "channels %lld", (long long)c);
    ht_output_value(s->graph, ht_rms_norm(s->graph, INPUT(s, "x", s->batch, draw(1, 20), c), WEIGHT(s, c), 1e-6f), "y");
}

static void scene_gelu_tanh(scene *s)
{
    int64_t c = draw_channels();
    describe(s, "channels %lld", (long long)c);
    ht_output_value(s->graph, ht_gelu_tanh(s->graph, INPUT(s, "x", s->batch, draw(1, 20), c)), "y");
}

static void scene_multiply(scene *s)
{
    int64_t c = draw_channels(), tokens = draw(1, 20);
    ht_value *x = INPUT(s, "x", s->batch, tokens, c);
    describe(s, "channels %lld", (long long)c);
    ht_output_value(s->graph, ht_multiply(s->graph, x, INPUT(s, "x2", s->batch, tokens, c)), "y");
}

static void scene_smooth(scene *s)
{
    int64_t c = draw_channels();
    describe(s, "channels %lld", (long long)c);
    ht_output_value(s->graph, ht_smooth(s->graph, INPUT(s, "x", s->batch, draw(1, 20), c), WEIGHT(s, c)), "y");
}

static void scene_unpatchify(scene *s)
{
    int64_t k = draw(1, 4), c = draw(1, 9);
    describe(s, "patches of %lld, channels %lld", (long long)k, (long long)c);
    ht_value *x = INPUT(s, "x", s->batch, draw(1, 5), draw(1, 5), k * k * c);
    ht_output_value(s->graph, ht_unpatchify(s->graph, x, (int)k), "y");
}

/* ---- the operations of reverse mode, as gradients bring them ---- */

/* The gradient of y by v becomes the scene's output. */
static void gradient_output(scene *s, ht_value *y, ht_value *v)
{
    ht_value *gradient = NULL, *dy = input(s, "dy", y->ndim, y->shape);
    ht_gradients(s->graph, y, dy, 1, &v, &gradient);
    ht_output_value(s->graph, gradient, "gradient");
}

static void scene_conv2d_by(scene *s, ht_op_kind kind)
{
    int64_t h = draw(3, 9), w = draw(3, 9), in = draw_channels(), out = draw_channels(), k = draw(1, 3);
    ht_conv_shape shape = {(int)draw(1, 2), (int)draw(0, 2), (int)draw(0, 2), (int)draw(0, 2), (int)draw(0, 2)};
    ht_value *x = INPUT(s, "x", s->batch, h, w, in);
    ht_value *weight = ht_constant_input(s->graph, "w", 4, (int64_t[]){out, k, k, in});
    ht_value *bias = draw(0, 1) ? ht_constant_input(s->graph, "b", 2, (int64_t[]){1, out}) : NULL;
    describe(s, "%lldx%lld in %lld out %lld k%lld s%d", (long long)h, (long long)w, (long long)in, (long long)out,
             (long long)k, shape.stride);
    ht_value *y = ht_conv2d_by(s->graph, x, weight, bias, shape);
    if (kind == HT_OP_conv2d_by)
        ht_output_value(s->graph, y, "y");
    else
        gradient_output(s, y, kind == HT_OP_conv2d_dx ? x : weight);
}

static void scene_by(scene *s)
{
    scene_conv2d_by(s, HT_OP_conv2d_by);
}

static void scene_dx(scene *s)
{
    scene_conv2d_by(s, HT_OP_conv2d_dx);
}

static void scene_dw(scene *s)
{
    scene_conv2d_by(s, HT_OP_conv2d_dw);
}

static void scene_silu_dx(scene *s)
{
    int64_t c = draw_channels();
    describe(s, "channels %lld", (long long)c);
    ht_value *x = INPUT(s, "x", s->batch, draw(1, 20), c);
    gradient_output(s, ht_silu(s->graph, x), x);
}

static void scene_layer_norm_dx(scene *s)
{
    int64_t c = draw_channels();
    ht_norm_weights weights = {WEIGHT(s, c), WEIGHT(s, c)};
    describe(s, "channels %lld", (long long)c);
    ht_value *x = INPUT(s, "x", s->batch, draw(1, 20), c);
    gradient_output(s, ht_layer_norm(s->graph, x, &weights, 1e-5f), x);
}

static void scene_geglu_dx(scene *s)
{
    int64_t c = draw_channels();
    describe(s, "channels %lld", (long long)c);
    ht_value *x = INPUT(s, "x", s->batch, draw(1, 20), 2 * c);
    gradient_output(s, ht_geglu(s->graph, x), x);
}

/* scores [n,tq,heads*tk], mix and mix_t of them. */
static void scene_heads(scene *s, ht_op_kind kind)
{
    static const int widths[] = {1, 5, 8, 16, 31, 64, 72, 200};
    int64_t heads = draw(1, 3), d = one_of(widths, sizeof widths / sizeof *widths), tq = draw(1, 40), tk = draw(1, 110);
    ht_value *q = INPUT(s, "q", s->batch, tq, heads * d), *k = INPUT(s, "k", s->batch, tk, heads * d);
    ht_value *p = kind == HT_OP_scores ? NULL : INPUT(s, "p", s->batch, tq, heads * tk);
    describe(s, "%lld queries %lld keys %lld heads of %lld", (long long)tq, (long long)tk, (long long)heads,
             (long long)d);
    if (kind == HT_OP_scores)
        ht_output_value(s->graph, ht_scores(s->graph, q, k, (int)heads, 0.25f), "y");
    else if (kind == HT_OP_mix)
        ht_output_value(s->graph, ht_mix(s->graph, p, k, (int)heads, 0.25f), "y");
    else if (kind == HT_OP_mix_t)
        ht_output_value(s->graph, ht_mix_t(s->graph, p, q, (int)heads, 0.25f), "y");
    else
        ht_output_value(s->graph, ht_softmax(s->graph, p, (int)heads), "y");
}

static void scene_scores(scene *s)
{
    scene_heads(s, HT_OP_scores);
}

static void scene_mix(scene *s)
{
    scene_heads(s, HT_OP_mix);
}

static void scene_mix_t(scene *s)
{
    scene_heads(s, HT_OP_mix_t);
}

static void scene_softmax(scene *s)
{
    scene_heads(s, HT_OP_softmax);
}

/* ---- running ---- */

static void fill_inputs(scene *s, ht_call *call)
{
    for (int i = 0; i < HT_INPUTS; i++) {
        const ht_value *v = call->op->in[i];
        if (!v || v->data)
            continue;
        size_t count = (size_t)(ht_rows(v, s->n) * ht_channels(v));
        float *x = room(s, count * sizeof *x);
        fill(x, count, s->kind);
        for (size_t j = 0; !strcmp(v->name, "index") && j < count; j++)
            x[j] = (float)draw(0, MOST_ROWS - 1);
        call->in[i] = x;
    }
}

static const struct {
    ht_op_kind kind;
    void (*make)(scene *);
} scenes[] = {
    {HT_OP_conv2d, scene_conv2d},
    {HT_OP_linear, scene_linear},
    {HT_OP_group_norm, scene_group_norm},
    {HT_OP_silu, scene_silu},
    {HT_OP_layer_norm, scene_layer_norm},
    {HT_OP_gelu, scene_gelu},
    {HT_OP_quick_gelu, scene_quick_gelu},
    {HT_OP_embedding, scene_embedding},
    {HT_OP_add_position, scene_add_position},
    {HT_OP_pick, scene_pick},
    {HT_OP_geglu, scene_geglu},
    {HT_OP_tanh, scene_tanh},
    {HT_OP_nearest_row, scene_nearest_row},
    {HT_OP_upsample, scene_upsample},
    {HT_OP_attention, scene_attention},
    {HT_OP_attention, scene_biased_attention},
    {HT_OP_modulate, scene_modulate},
    {HT_OP_gate, scene_gate},
    {HT_OP_rms_norm, scene_rms_norm},
    {HT_OP_gelu_tanh, scene_gelu_tanh},
    {HT_OP_multiply, scene_multiply},
    {HT_OP_unpatchify, scene_unpatchify},
    {HT_OP_smooth, scene_smooth},
    {HT_OP_max_pool, scene_max_pool},
    {HT_OP_mean_pool, scene_mean_pool},
    {HT_OP_conv2d_by, scene_by},
    {HT_OP_conv2d_dx, scene_dx},
    {HT_OP_conv2d_dw, scene_dw},
    {HT_OP_silu_dx, scene_silu_dx},
    {HT_OP_layer_norm_dx, scene_layer_norm_dx},
    {HT_OP_geglu_dx, scene_geglu_dx},
    {HT_OP_scores, scene_scores},
    {HT_OP_mix, scene_mix},
    {HT_OP_mix_t, scene_mix_t},
    {HT_OP_softmax, scene_softmax},
};

static int compared, absent;

static void compare_list(scene *s, const ht_kernel *list, const ht_call *call, const float *want)
{
    for (const ht_kernel *k = list; k->name; k++) {
        if (k->op != call->op->kind || (k->refuses && k->refuses(call->op)))
            continue;
        if (k->isa > ht_cpu_detect()) {
            absent++;
            continue;
        }
        compare(s, k, call, want);
        compared++;
    }
}

static void check_case(ht_op_kind kind, void (*make)(scene *), int index)
{
    scene s = open_scene((int)kind, index, 9);
    s.kind = (int)draw(0, POISONED);
    make(&s);
    if (ht_graph_finish(s.graph, true))
        fail_msg("%s", ht_error_message());
    ht_call call = {.op = ht_graph_output(s.graph)->producer, .n = s.n};
    assert_int_equal(call.op->kind, kind);
    fill_inputs(&s, &call);
    const float *want = run_kernel(&s, ht_reference_kernels[kind], &call, 1);
    compare(&s, ht_reference_kernels[kind], &call, want);
    compare_list(&s, ht_avx2_kernels, &call, want);
    compare_list(&s, ht_avx512_kernels, &call, want);
    ht_arena_free(s.arena);
}

static void check(ht_op_kind kind)
{
    for (size_t i = 0; i < sizeof scenes / sizeof *scenes; i++)
        for (int index = 0; scenes[i].kind == kind && index < CASES; index++)
            if (only_case < 0 || only_case == index)
                check_case(kind, scenes[i].make, index);
}

static void convolutions_equal_scalar(void **state)
{
    (void)state;
    check(HT_OP_conv2d);
}

static void linears_equal_scalar(void **state)
{
    (void)state;
    check(HT_OP_linear);
}

static void group_norms_equal_scalar(void **state)
{
    (void)state;
    check(HT_OP_group_norm);
}

static void silus_equal_scalar(void **state)
{
    (void)state;
    check(HT_OP_silu);
}

static void text_encoders_operations_equal_scalar(void **state)
{
    (void)state;
    static const ht_op_kind kinds[] = {HT_OP_layer_norm, HT_OP_gelu,         HT_OP_quick_gelu, HT_OP_geglu,
                                       HT_OP_embedding,  HT_OP_add_position, HT_OP_pick};
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
        check(kinds[i]);
}

static void decoders_operations_do_not_depend_on_threads(void **state)
{
    (void)state;
    check(HT_OP_tanh);
    check(HT_OP_nearest_row);
    check(HT_OP_upsample);
}

static void diffusion_transformers_operations_equal_scalar(void **state)
{
    (void)state;
    static const ht_op_kind kinds[] = {HT_OP_modulate, HT_OP_gate,       HT_OP_rms_norm, HT_OP_gelu_tanh,
                                       HT_OP_multiply, HT_OP_unpatchify, HT_OP_smooth};
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
        check(kinds[i]);
}

static void attentions_equal_scalar(void **state)
{
    (void)state;
    check(HT_OP_attention);
}

static void pools_equal_scalar(void **state)
{
    (void)state;
    check(HT_OP_max_pool);
    check(HT_OP_mean_pool);
}

static void gradients_equal_scalar(void **state)
{
    (void)state;
    static const ht_op_kind kinds[] = {HT_OP_conv2d_by,     HT_OP_conv2d_dx, HT_OP_conv2d_dw, HT_OP_silu_dx,
                                       HT_OP_layer_norm_dx, HT_OP_geglu_dx,  HT_OP_scores,    HT_OP_mix,
                                       HT_OP_mix_t,         HT_OP_softmax};
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
        check(kinds[i]);
}

static void silu_is_x_over_one_plus_exp_of_minus_x(void **state)
{
    (void)state;
    for (int i = 0; i < 25000; i++) {
        double x = -86 + 0.00731 * i;
        double want = (double)(float)x / (1 + exp(-(double)(float)x)), got = (double)ht_silu_f32((float)x);
        if (!(fabs(got - want) <= 6e-7 * fabs(want)))
            fail_msg("silu(%.9g) is %.9g, want %.9g", x, got, want);
    }
    static const float far[] = {-87, -88, -89, -1000, -1e30f};
    for (size_t i = 0; i < sizeof far / sizeof *far; i++) /* nothing is left, and that is a number */
        assert_true(ht_silu_f32(far[i]) <= 0 && ht_silu_f32(far[i]) >= far[i] * 0x1p-118f);
    assert_true(isnan(ht_silu_f32(NAN)));
}

static void check_activation(float (*f)(float), double (*exact)(double), double formula)
{
    for (int i = 0; i < 25000; i++) {
        float x = (float)(-20 + 0.00161 * i);
        if (!(fabs((double)f(x) - exact((double)x)) <=
              formula * fabs((double)x) + (6e-7 + 1.2e-7 * fabs((double)x)) * fabs(exact((double)x))))
            fail_msg("of %.9g is %.9g, want %.9g", (double)x, (double)f(x), exact((double)x));
    }
    assert_true(isnan(f(NAN)));
    assert_true(f(INFINITY) == INFINITY && fabsf(f(-1e30f)) < 1e-5f);
}

static double exact_gelu(double x)
{
    return x * erfc(-x * sqrt(0.5)) / 2;
}

static double exact_gelu_slope(double x)
{
    return erfc(-x * sqrt(0.5)) / 2 + x * exp(-x * x / 2) / sqrt(2 * 3.14159265358979323846);
}

static double exact_quick_gelu(double x)
{
    return x / (1 + exp(-1.702 * x));
}

static double exact_gelu_tanh(double x)
{
    return x * (1 + tanh(0.79788456080286536 * (x + 0.044715 * x * x * x))) / 2;
}

/* The formula for erfc is within 1.5e-7, half of which is multiplied with x; the rest is rounding, of the exponent too.
 */
static void gelus_are_what_they_are_called(void **state)
{
    (void)state;
    check_activation(ht_gelu_f32, exact_gelu, 0.75e-7);
    check_activation(ht_quick_gelu_f32, exact_quick_gelu, 0);
    check_activation(ht_gelu_tanh_f32, exact_gelu_tanh, 1e-7); /* the exponent grows as the cube of x */
}

/* Beside a slope of about 1 all errors are absolute: that of erfc's formula, and rounding. */
static void the_slope_of_gelu_is_that_of_the_exact_one(void **state)
{
    (void)state;
    for (int i = 0; i < 25000; i++) {
        float x = (float)(-20 + 0.00161 * i);
        double got = (double)ht_gelu_slope_f32(x), want = exact_gelu_slope((double)x);
        if (!(fabs(got - want) <= 4e-7))
            fail_msg("slope at %.9g is %.9g, want %.9g", (double)x, got, want);
    }
    assert_true(ht_gelu_slope_f32(0) == 0.5f && ht_gelu_slope_f32(INFINITY) == 1);
    assert_true(fabsf(ht_gelu_slope_f32(-INFINITY)) < 1e-6f && isnan(ht_gelu_slope_f32(NAN)));
}

static void check_listed(const ht_kernel *list)
{
    for (const ht_kernel *k = list; k->name; k++) {
        size_t i = 0;
        while (i < sizeof scenes / sizeof *scenes && scenes[i].kind != k->op)
            i++;
        if (i == sizeof scenes / sizeof *scenes && k->op != HT_OP_gram) /* tests/test_codes.c compares that */
            fail_msg("%s is compared with nothing", k->name);
    }
}

static void every_fast_kernel_is_compared(void **state)
{
    (void)state;
    check_listed(ht_avx2_kernels);
    check_listed(ht_avx512_kernels);
    print_message("%d comparisons; %d left out for want of the instruction set\n", compared, absent);
    assert_true(compared > 0 || ht_cpu_detect() == HT_ISA_SCALAR);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(convolutions_equal_scalar),
        cmocka_unit_test(linears_equal_scalar),
        cmocka_unit_test(group_norms_equal_scalar),
        cmocka_unit_test(silus_equal_scalar),
        cmocka_unit_test(text_encoders_operations_equal_scalar),
        cmocka_unit_test(decoders_operations_do_not_depend_on_threads),
        cmocka_unit_test(diffusion_transformers_operations_equal_scalar),
        cmocka_unit_test(attentions_equal_scalar),
        cmocka_unit_test(pools_equal_scalar),
        cmocka_unit_test(gradients_equal_scalar),
        cmocka_unit_test(silu_is_x_over_one_plus_exp_of_minus_x),
        cmocka_unit_test(gelus_are_what_they_are_called),
        cmocka_unit_test(the_slope_of_gelu_is_that_of_the_exact_one),
        cmocka_unit_test(every_fast_kernel_is_compared),
    };
    read_seed(argc, argv, 7);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
