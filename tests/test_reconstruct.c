/* Block reconstruction: the loss falls below that of nearest codes, a block never leaves worse than it came, and codes
 * are a function of the data and the seed alone. */
#include <math.h>

#include "calib/gate.h"
#include "calib/reconstruct.h"
#include "cpu/backend.h"
#include "tests/graphs.h"

enum { N = 48, H = 4, W = 4, C = 8, LAYERS = 3 };

static const ht_tensor *small_tensor(const char *name, int ndim, int64_t a, int64_t b, int64_t k, float scale)
{
    return tensor(name, ndim, (int64_t[]){a, b, k, k}, scale);
}

/* ---- a residual block over a concatenation, quantized ---- */

typedef struct block {
    ht_graph *graph;
    ht_region region;
    ht_layer layer[LAYERS];
    ht_layers layers;
    ht_reconstruct_data data;
    const float *inputs[4];
} block;

static ht_graph *build(void)
{
    ht_graph *g = ht_graph_create(arena);
    ht_norm_weights n1 = {small_tensor("b.norm1.weight", 1, 2 * C, 1, 1, 1), small_tensor("n", 1, 2 * C, 1, 1, 1)};
    ht_norm_weights n2 = {small_tensor("b.norm2.weight", 1, C, 1, 1, 1), small_tensor("n", 1, C, 1, 1, 1)};
    ht_conv_weights c1 = {small_tensor("b.conv1.weight", 4, C, 2 * C, 3, 0.1f), small_tensor("n", 1, C, 1, 1, 1)};
    ht_conv_weights c2 = {small_tensor("b.conv2.weight", 4, C, C, 3, 0.1f), small_tensor("n", 1, C, 1, 1, 1)};
    ht_conv_weights c3 = {small_tensor("b.shortcut.weight", 4, C, 2 * C, 1, 0.2f), NULL};
    const ht_conv_shape same_size = {1, 1, 1, 1, 1};
    ht_value *x = ht_input(g, "x", 4, (int64_t[]){1, H, W, C}, HT_DEPENDS_X);
    ht_value *skip = ht_input(g, "skip", 4, (int64_t[]){1, H, W, C}, HT_DEPENDS_X);
    ht_value *row = ht_input(g, "row", 2, (int64_t[]){1, C}, HT_DEPENDS_T);
    ht_value *cat = ht_concat(g, x, skip);
    ht_value *h = ht_conv2d(g, ht_silu(g, ht_group_norm(g, cat, &n1, 4, 1e-6f)), &c1, same_size);
    h = ht_silu(g, ht_group_norm(g, ht_add_row(g, h, row), &n2, 4, 1e-6f));
    h = ht_add(g, ht_conv2d(g, cat, &c3, (ht_conv_shape){0}), ht_conv2d(g, h, &c2, same_size));
    ht_output_value(g, ht_name(g, h, "b"), "b");
    assert_int_equal(ht_graph_finish(g, true), HT_OK);
    return g;
}

/* Nearest codes of part p, which has input channels begin .. begin + count - 1. */
static void quantize_part(ht_layer *l, const ht_tensor *t, int p, int64_t begin, int64_t count)
{
    ht_layer_part *part = &l->part[p];
    size_t taps = (size_t)(t->shape[2] * t->shape[3]), out = (size_t)t->shape[0], in = (size_t)t->shape[1];
    float *values = draw(out * taps * (size_t)count, 1), *all = draw(t->count, 1);
    part->begin = begin;
    part->count = count;
    ht_weight_channels_last(t, all);
    for (size_t o = 0; o < out * taps; o++)
        memcpy(values + o * (size_t)count, all + o * in + (size_t)begin, (size_t)count * sizeof *values);
    ht_matrix m = ht_layer_matrix(l, p);
    m.values = values;
    assert_int_equal(ht_quantized_alloc(arena, &l->format, &m, &part->weight), HT_OK);
    assert_int_equal(ht_format_quantize(&l->format, &m, &(ht_scale_options){.method = HT_SCALE_MSE}, &part->weight),
                     HT_OK);
    float *table = ht_alloc_array(arena, 6, sizeof *table);
    memcpy(table, (float[]){100, 800, 0.08f, 0.07f, 100, 128}, 6 * sizeof *table);
    part->input = (ht_input_table){.groups = 2, .timesteps = table, .step = table + 2, .zero = table + 4};
}

static void quantize(block *b, const char *format)
{
    for (int i = 0; i < LAYERS; i++) {
        const ht_tensor *t = b->region.layers[i]->in[HT_IN_WEIGHT]->data;
        ht_layer *l = &b->layer[i];
        *l = (ht_layer){.name = ht_sprintf(arena, "%.*s", (int)strlen(t->name) - 7, t->name), .ndim = t->ndim};
        memcpy(l->shape, t->shape, sizeof l->shape);
        assert_int_equal(ht_format_find(format, &l->format), HT_OK);
        assert_int_equal(ht_format_find("uint8", &l->input), HT_OK);
        l->mode = HT_INPUT_STATIC;
        l->parts = t->shape[2] == 1 ? 2 : 1;
        for (int p = 0; p < l->parts; p++)
            quantize_part(l, t, p, p * C, t->shape[1] / l->parts);
    }
    for (int i = 0; i < LAYERS; i++) /* by name */
        for (int j = i + 1; j < LAYERS; j++)
            if (strcmp(b->layer[i].name, b->layer[j].name) > 0) {
                ht_layer l = b->layer[i];
                b->layer[i] = b->layer[j];
                b->layer[j] = l;
            }
    b->layers = (ht_layers){.layer = b->layer, .n = LAYERS};
}

/* What the float block makes of the inputs, one by one. */
static float *targets_of(const block *b)
{
    float *y = draw((size_t)N * H * W * C, 1);
    const ht_backend *backend = &ht_cpu_backend;
    ht_program *p;
    assert_int_equal(backend->compile(b->graph, &(ht_backend_options){.threads = 1}, &p), HT_OK);
    for (int i = 0; i < N; i++) {
        for (int k = 0; k < b->region.n_inputs; k++) {
            const ht_value *v = b->region.inputs[k];
            backend->upload(p, v, b->inputs[k] + i * ht_value_count(v), 1);
        }
        backend->run(p, HT_STAGE_STEP, 1, NULL);
        backend->download(p, ht_graph_output(b->graph), y + (size_t)i * H * W * C, 1);
    }
    backend->close(p);
    return y;
}

/* Channels that are mixtures of a few, as a network's are: what makes the choice of codes matter. */
static float *draw_alike(size_t positions)
{
    enum { FEW = 3 };
    float *mix = draw(FEW * C, 0.6f), *few = draw(positions * FEW, 1), *x = draw(positions * C, 0.05f);
    for (size_t i = 0; i < positions * C; i++)
        for (size_t k = 0; k < FEW; k++)
            x[i] += few[i / C * FEW + k] * mix[k * C + i % C];
    return x;
}

static block *make_block(const char *format)
{
    block *b = ht_alloc(arena, sizeof *b);
    assert_non_null(b);
    b->graph = build();
    ht_region *regions;
    int n;
    assert_int_equal(ht_regions_find(b->graph, arena, &regions, &n), HT_OK);
    assert_int_equal(n, 1);
    b->region = regions[0];
    assert_int_equal(b->region.n_layers, LAYERS);
    assert_int_equal(b->region.n_inputs, 3);
    quantize(b, format);
    for (int i = 0; i < 3; i++)
        b->inputs[i] = draw_alike((size_t)N * H * W);
    float *timesteps = draw(N, 1);
    for (int i = 0; i < N; i++)
        timesteps[i] = (float)(i % 2 ? 120 : 900);
    b->data = (ht_reconstruct_data){.n = N, .inputs = b->inputs, .timesteps = timesteps};
    b->data.targets = targets_of(b);
    return b;
}

/* All codes of the block, a number a byte. */
static size_t codes_of(const block *b, uint8_t *codes)
{
    size_t n = 0;
    for (int i = 0; i < LAYERS; i++)
        for (int p = 0; p < b->layer[i].parts; p++) {
            ht_matrix m = ht_layer_matrix(&b->layer[i], p);
            ht_format_sizes sizes;
            assert_int_equal(ht_format_measure(&b->layer[i].format, &m, &sizes), HT_OK);
            memcpy(codes + n, b->layer[i].part[p].weight.codes, sizes.code_bytes);
            n += sizes.code_bytes;
        }
    return n;
}

static ht_reconstruct_report reconstruct(block *b, ht_reconstruct_options o)
{
    ht_reconstruct_report r;
    o.iterations = o.iterations ? o.iterations : 300;
    o.batch = 16;
    o.learning_rate = o.learning_rate != 0 ? o.learning_rate : 1e-2;
    o.threads = o.threads ? o.threads : 1;
    if (ht_reconstruct(&b->region, &b->layers, &b->data, &o, &r))
        fail_msg("%s", ht_error_message());
    return r;
}

static void loss_falls_below_that_of_nearest_codes(void **state)
{
    (void)state;
    static const char *const formats[] = {"int4", "uint4", "int4_g8", "fp4_e2m1", "int3", "fp4_e3m0"};
    for (size_t i = 0; i < sizeof formats / sizeof *formats; i++) {
        block *b = make_block(formats[i]);
        ht_reconstruct_report r = reconstruct(b, (ht_reconstruct_options){.seed = 1});
        assert_false(r.kept);
        assert_true(r.changed > 0);
        assert_int_equal(r.weights, C * 2 * C * 9 + C * C * 9 + C * 2 * C);
        if (!(r.after < 0.8 * r.before))
            fail_msg("%s: %g before, %g soft, %g after", formats[i], r.before, r.soft, r.after);
    }
}

/* The second run measures what the first one left, and starts there. */
static void what_is_reported_is_what_the_codes_do(void **state)
{
    (void)state;
    block *b = make_block("int4");
    ht_reconstruct_report first = reconstruct(b, (ht_reconstruct_options){.seed = 1});
    ht_reconstruct_report second = reconstruct(b, (ht_reconstruct_options){.seed = 2, .from_codes = true});
    assert_true(second.before == first.after);
    assert_true(second.after <= second.before || second.kept);
}

static void a_block_never_leaves_worse_than_it_came(void **state)
{
    (void)state;
    uint8_t before[8192], after[8192];
    block *b = make_block("int4");
    reconstruct(b, (ht_reconstruct_options){.seed = 1});
    size_t n = codes_of(b, before);
    assert_true(n <= sizeof before);
    /* One step from the float weights is nearest rounding: worse than what is there. */
    ht_reconstruct_report r = reconstruct(b, (ht_reconstruct_options){.iterations = 1, .learning_rate = 1e-9});
    assert_true(r.kept);
    codes_of(b, after);
    assert_memory_equal(before, after, n);
}

static void codes_depend_on_the_seed_and_not_on_threads(void **state)
{
    (void)state;
    static uint8_t codes[5][8192];
    size_t n = 0;
    for (int i = 0; i < 5; i++) {
        ht_mt19937_seed(&rng, 9);
        block *b = make_block("int4");
        reconstruct(b, (ht_reconstruct_options){.iterations = 60,
                                                .seed = i == 4 ? 6 : 5,
                                                .threads = i == 1   ? 2
                                                           : i == 2 ? 3
                                                                    : 1,
                                                .isa = i == 3 ? "scalar" : NULL});
        n = codes_of(b, codes[i]);
    }
    for (int i = 1; i < 4; i++)
        assert_memory_equal(codes[0], codes[i], n);
    assert_memory_not_equal(codes[0], codes[4], n);
}

static void inputs_can_be_codes_meanwhile(void **state)
{
    (void)state;
    for (int mode = HT_INPUT_STATIC; mode <= HT_INPUT_DYNAMIC; mode++) {
        block *b = make_block("int4");
        for (int i = 0; i < LAYERS; i++)
            b->layer[i].mode = (ht_input_mode)mode;
        double floats = reconstruct(b, (ht_reconstruct_options){.iterations = 1}).before;
        ht_reconstruct_report r = reconstruct(b, (ht_reconstruct_options){.simulate = true});
        assert_true(r.before != floats);
        assert_true(fabs(r.before - floats) < 0.5 * floats);
        assert_true(r.after < r.before);
    }
}

static int stop_at_ten(void *user, int64_t done, int64_t total)
{
    *(int64_t *)user = total;
    return done == 10;
}

static void stopping_leaves_the_codes(void **state)
{
    (void)state;
    uint8_t before[8192], after[8192];
    int64_t total = 0;
    block *b = make_block("int4");
    size_t n = codes_of(b, before);
    ht_reconstruct_options o = {.iterations = 50, .threads = 1, .progress = stop_at_ten, .user = &total};
    assert_int_equal(ht_reconstruct(&b->region, &b->layers, &b->data, &o, NULL), HT_ERR_CANCELLED);
    assert_int_equal(total, 50);
    codes_of(b, after);
    assert_memory_equal(before, after, n);
}

static void what_cannot_be_done_is_said(void **state)
{
    (void)state;
    block *b = make_block("int8");
    ht_reconstruct_options o = {.iterations = 5, .threads = 1};
    assert_int_equal(ht_reconstruct(&b->region, &b->layers, &b->data, &o, NULL), HT_ERR_ARGUMENT);
    assert_non_null(strstr(ht_error_message(), "6 bits"));
    o.most_bits = 8;
    o.confidence = 2;
    assert_int_equal(ht_reconstruct(&b->region, &b->layers, &b->data, &o, NULL), HT_ERR_ARGUMENT);
    o.confidence = 0;
    b->layer[0].shape[0]++;
    assert_int_equal(ht_reconstruct(&b->region, &b->layers, &b->data, &o, NULL), HT_ERR_SHAPE);
}

/* ---- gates ---- */

/* Soft weights start as the weights, where the grid reaches; the decision is between the two neighbours. */
static void gates_start_at_the_weights(void **state)
{
    (void)state;
    block *b = make_block("uint4");
    const ht_layer *l = &b->layer[0];
    const ht_tensor *t = NULL;
    for (int i = 0; i < LAYERS; i++)
        if (ht_layers_of_weight(&b->layers, b->region.layers[i]->in[HT_IN_WEIGHT]->name) == l)
            t = b->region.layers[i]->in[HT_IN_WEIGHT]->data;
    assert_non_null(t);
    float *w = draw(t->count, 1), *soft = draw(t->count, 1);
    ht_gates gates;
    ht_weight_channels_last(t, w);
    assert_int_equal(ht_gates_make(arena, l, w, 0, &gates), HT_OK);
    ht_gates_weights(&gates, 0, gates.n, soft);
    int with_choice = 0;
    for (size_t i = 0; i < gates.n; i++)
        if (gates.step[i] != 0) {
            with_choice++;
            assert_float_equal(soft[i], w[i], 2e-6f * fabsf(gates.step[i]) + 1e-7f);
        }
    assert_true(with_choice > (int)gates.n * 3 / 4);
}

/* From codes: what is decided at once is what was given, whatever the codes are. */
static void gates_start_at_the_codes(void **state)
{
    (void)state;
    static const char *const formats[] = {"int4", "uint4", "fp4_e2m1", "int3_g8", "nvfp4"};
    for (size_t f = 0; f < sizeof formats / sizeof *formats; f++) {
        ht_layer l = {.name = "l", .ndim = 2, .shape = {8, 64}, .parts = 1, .part = {{.count = 64}}};
        assert_int_equal(ht_format_find(formats[f], &l.format), HT_OK);
        float *w = draw(512, 1);
        ht_matrix m = ht_layer_matrix(&l, 0);
        m.values = w;
        assert_int_equal(ht_quantized_alloc(arena, &l.format, &m, &l.part[0].weight), HT_OK);
        assert_int_equal(ht_format_quantize(&l.format, &m, NULL, &l.part[0].weight), HT_OK);
        float *other = draw(512, 1), *given = draw(512, 1), *decided = draw(512, 1);
        m.values = other; /* codes that have nothing to do with the weights */
        assert_int_equal(ht_format_encode(&l.format, &m, &l.part[0].weight), HT_OK);
        ht_layer_values(&l, 0, 512, given);
        ht_gates gates;
        int64_t changed;
        assert_int_equal(ht_gates_make(arena, &l, w, 0.9, &gates), HT_OK);
        assert_int_equal(ht_gates_decide(&gates, &l, &changed), HT_OK);
        ht_layer_values(&l, 0, 512, decided);
        for (int i = 0; i < 512; i++)
            assert_true(given[i] == decided[i]); /* the two zeros of a float are one */
    }
}

/* One step of Adam against the formulas in double. */
static void gates_move_as_adam_says(void **state)
{
    (void)state;
    enum { COUNT = 300 };
    float *v = draw(COUNT, 2), *was = draw(COUNT, 1), *gradient = draw(COUNT, 1), *zero = draw(2 * COUNT, 0);
    float *weights = draw(COUNT, 1), *step = draw(COUNT, 0.1f), *low = draw(COUNT, 1);
    memcpy(was, v, COUNT * sizeof *v);
    ht_gates g = {COUNT, low, step, v, zero, zero + COUNT, NULL, NULL};
    ht_gate_step s = {.number = 1, .rate = 1e-3, .weight = 0.01, .beta = 7.5};
    ht_gates_move(&g, &s, gradient, 0, COUNT, weights);
    for (int i = 0; i < COUNT; i++) {
        double sig = 1 / (1 + exp(-(double)was[i])), raw = 1.2 * sig - 0.1, h = raw < 0 ? 0 : raw > 1 ? 1 : raw;
        double open = h == raw ? 1.2 * sig * (1 - sig) : 0, d = 2 * h - 1;
        double by_v =
            ((double)gradient[i] * (double)step[i] - 0.01 * 7.5 * pow(fabs(d), 6.5) * (d < 0 ? -1 : 1) * 2) * open;
        assert_float_equal(g.mean[i], (float)(0.1 * by_v), 2e-6f);
        assert_float_equal(g.square[i], (float)(0.001 * by_v * by_v), 2e-7f);
        if (fabs(by_v) > 1e-4)
            assert_float_equal(was[i] - v[i], (float)(by_v < 0 ? -1e-3 : 1e-3), 2e-6f);
        if (open == 0)
            assert_true(v[i] == was[i]);
    }
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, open_arena, close_arena)
    const struct CMUnitTest tests[] = {
        TEST(loss_falls_below_that_of_nearest_codes),
        TEST(what_is_reported_is_what_the_codes_do),
        TEST(a_block_never_leaves_worse_than_it_came),
        TEST(codes_depend_on_the_seed_and_not_on_threads),
        TEST(inputs_can_be_codes_meanwhile),
        TEST(stopping_leaves_the_codes),
        TEST(what_cannot_be_done_is_said),
        TEST(gates_start_at_the_weights),
        TEST(gates_start_at_the_codes),
        TEST(gates_move_as_adam_says),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
