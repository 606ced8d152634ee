/* test_quantized_graph.c - layers put into a graph: what is inserted once, what is fused, what splits; and a quantized
 * model computes the same bits whatever instructions, batch, threads and fusion it runs with. */
#include "cpu/cpu.h"
#include "graph/graph.h"
#include "sampler/session.h"
#include "tests/goldens.h"
#include "tests/small_model.h"

enum { N = 2, H = 4, W = 4, C = 16, OUT = 8 };

static ht_arena *arena;
static ht_mt19937 rng;
static const float timesteps[] = {800, 100};

static int open_all(void **state)
{
    ht_mt19937_seed(&rng, 11);
    arena = ht_arena_create();
    return arena ? make_root(state) : -1;
}

static int close_all(void **state)
{
    ht_arena_free(arena);
    return remove_root(state);
}

/* ---- layers of given weights ---- */

typedef struct way {
    const char *format, *input; /* input NULL: floats */
    ht_input_mode mode;
    int groups;
    float step; /* of static inputs */
} way;

static ht_input_table table_of(const way *w, bool asymmetric)
{
    ht_input_table t = {.groups = w->groups, .timesteps = w->groups > 1 ? timesteps : NULL};
    float *step = ht_alloc_array(arena, 2, sizeof *step), *zero = ht_alloc_array(arena, 2, sizeof *zero);
    assert_true(step && zero);
    for (int i = 0; i < 2; i++) {
        step[i] = w->step * (1 + 0.25f * (float)i);
        zero[i] = asymmetric ? (float)(127 + i) : 0;
    }
    t.step = step;
    t.zero = zero;
    return t;
}

/* The weight's channels begin .. begin + count - 1 in the order of a part. */
static const float *part_of(const ht_layer *layer, const ht_tensor *weight, int p)
{
    size_t taps = (size_t)ht_layer_taps(layer), in = (size_t)ht_layer_inputs(layer),
           begin = (size_t)layer->part[p].begin, count = (size_t)layer->part[p].count;
    float *values = ht_alloc_array(arena, (size_t)layer->shape[0] * taps * count, sizeof *values);
    const float *x = weight->data;
    assert_non_null(values);
    for (size_t n = 0; n < (size_t)layer->shape[0]; n++)
        for (size_t tap = 0; tap < taps; tap++)
            for (size_t i = 0; i < count; i++)
                values[(n * taps + tap) * count + i] = x[(n * in + begin + i) * taps + tap];
    return values;
}

/* split: channels of the first part; 0: one part. */
static ht_layer quantized(const ht_tensor *weight, const way *w, int64_t split)
{
    size_t n = strlen(weight->name) - strlen(".weight");
    ht_layer layer = {.name = ht_sprintf(arena, "%.*s", (int)n, weight->name),
                      .ndim = weight->ndim,
                      .parts = split ? 2 : 1,
                      .mode = w->mode,
                      .error = -1};
    memcpy(layer.shape, weight->shape, sizeof layer.shape);
    layer.part[0].count = split ? split : weight->shape[1];
    layer.part[1] = (ht_layer_part){.begin = split, .count = weight->shape[1] - split};
    assert_ok(ht_format_find(w->format, &layer.format));
    if (w->input)
        assert_ok(ht_format_find(w->input, &layer.input));
    for (int p = 0; p < layer.parts; p++) {
        ht_matrix m = ht_layer_matrix(&layer, p);
        m.values = part_of(&layer, weight, p);
        assert_ok(ht_quantized_alloc(arena, &layer.format, &m, &layer.part[p].weight));
        assert_ok(ht_format_quantize(&layer.format, &m, NULL, &layer.part[p].weight));
        if (w->mode == HT_INPUT_STATIC)
            layer.part[p].input = table_of(w, layer.input.asymmetric);
    }
    return layer;
}

/* ---- printed graphs ---- */

static const ht_tensor *tensor(const char *name, int ndim, const int64_t *shape)
{
    ht_tensor *t = ht_alloc(arena, sizeof *t);
    assert_non_null(t);
    *t = (ht_tensor){.name = name, .dtype = HT_F32, .ndim = ndim, .count = 1};
    for (int i = 0; i < ndim; i++)
        t->count *= (size_t)(t->shape[i] = shape[i]);
    float *data = ht_alloc_array(arena, t->count, sizeof *data);
    assert_non_null(data);
    ht_mt19937_randn(&rng, t->count, data);
    t->data = data;
    t->bytes = t->count * sizeof *data;
    return t;
}

static ht_linear_weights linear(const char *name, int64_t in, int64_t out)
{
    return (ht_linear_weights){tensor(name, 2, (int64_t[]){out, in}), NULL};
}

static ht_conv_weights conv(const char *name, int64_t in, int64_t out, int64_t k)
{
    return (ht_conv_weights){tensor(name, 4, (int64_t[]){out, in, k, k}), NULL};
}

static ht_norm_weights norm(int64_t c)
{
    return (ht_norm_weights){tensor("norm.weight", 1, &c), tensor("norm.bias", 1, &c)};
}

static const char *print(ht_graph *g, const ht_layers *layers, bool fuse)
{
    ht_graph_set_layers(g, layers);
    assert_ok(ht_graph_finish(g, fuse));
    const char *text = ht_graph_print(g, arena);
    assert_non_null(text);
    return text;
}

static int count_of(const char *text, const char *words)
{
    int n = 0;
    for (const char *at = text; (at = strstr(at, words)); at++)
        n++;
    return n;
}

static void assert_count(const char *text, const char *words, int wanted)
{
    if (count_of(text, words) != wanted)
        fail_msg("\"%s\" %d times, wanted %d:\n%s", words, count_of(text, words), wanted, text);
}

/* The line of the first operation of a kind; static. */
static const char *line_of(const char *text, const char *words)
{
    static char line[1024];
    const char *at = strstr(text, words);
    if (!at)
        fail_msg("no \"%s\" in\n%s", words, text);
    while (at > text && at[-1] != '\n')
        at--;
    snprintf(line, sizeof line, "%.*s", (int)strcspn(at, "\n"), at);
    return line;
}

/* Factors of smoothing: 1 to 4 of turns; NULL if there are none. */
static const float *factors_of(int64_t n, int first)
{
    float *f = first < 0 ? NULL : ht_alloc_array(arena, (size_t)n, sizeof *f);
    for (int64_t i = 0; f && i < n; i++)
        f[i] = 1 + (float)((first + i) % 4);
    return f;
}

/* norm -> q, k, v -> attention, all three with the same table of inputs.  smooth: see factors_of; of v the last. */
static const char *smooth_attention_graph(const way *w, bool fuse, int smooth, int smooth_v)
{
    static const char *const names[] = {"q.weight", "k.weight", "v.weight"};
    ht_linear_weights qkv[3];
    ht_value *heads[3];
    ht_layer *layers = ht_alloc_array(arena, 3, sizeof *layers);
    ht_norm_weights norms = norm(C);
    ht_graph *g = ht_graph_create(arena);
    assert_true(g && layers);
    ht_timestep(g);
    ht_value *x = ht_input(g, "x", 4, (int64_t[]){N, H, W, C}, HT_DEPENDS_X);
    ht_value *tokens = ht_reshape(g, ht_group_norm(g, x, &norms, 4, 1e-6f), 3, (int64_t[]){N, (int64_t)H * W, C});
    for (int i = 0; i < 3; i++) {
        qkv[i] = linear(names[i], C, C);
        layers[i] = quantized(qkv[i].weight, w, 0);
        layers[i].part[0].smooth = factors_of(C, i == 2 ? smooth_v : smooth);
        heads[i] = ht_linear(g, tokens, &qkv[i]);
    }
    ht_output_value(g, ht_attention(g, heads[0], heads[1], heads[2], 2, 0.25f), "out");
    ht_layers *all = ht_alloc(arena, sizeof *all);
    assert_non_null(all);
    *all = (ht_layers){.layer = layers, .n = 3};
    return print(g, all, fuse);
}

static const char *attention_graph(const way *w, bool fuse)
{
    return smooth_attention_graph(w, fuse, -1, -1);
}

static void what_q_k_and_v_read_is_smoothed_once(void **state)
{
    (void)state;
    const way w = {"int4", "uint8", HT_INPUT_STATIC, 2, 0.01f};
    const char *text = smooth_attention_graph(&w, false, 0, 0);
    assert_count(text, "= smooth", 1);
    assert_count(text, "= quantize", 1);
    text = smooth_attention_graph(&w, false, 0, 1); /* v by other factors */
    assert_count(text, "= smooth", 2);
    assert_count(text, "= quantize", 2);
    text = smooth_attention_graph(&w, false, 0, -1);
    assert_count(text, "= smooth", 1);
    assert_count(text, "= quantize", 2);
}

static void smoothing_makes_the_codes_itself(void **state)
{
    (void)state;
    const char *text = smooth_attention_graph(&(way){"int4", "uint8", HT_INPUT_STATIC, 2, 0.01f}, true, 0, 0);
    assert_count(text, "= quantize", 0);
    assert_non_null(strstr(line_of(text, "= smooth"), " codes=uint8"));
    text = smooth_attention_graph(&(way){"int4", "uint8", HT_INPUT_DYNAMIC, 0, 0}, true, 0, 0);
    assert_count(text, "= quantize", 1); /* not before their range is known */
    text = smooth_attention_graph(&(way){"int4", NULL, HT_INPUT_FLOAT, 0, 0}, true, 0, 0);
    assert_count(text, "= smooth", 1); /* the weight was divided, whatever its inputs are */
}

/* conv(x) + residual, the layer with a branch. */
static const char *branch_graph(const way *w, bool linear_map, bool fuse)
{
    ht_graph *g = ht_graph_create(arena);
    ht_layers *all = ht_alloc(arena, sizeof *all);
    ht_layer *layer = ht_alloc(arena, sizeof *layer);
    uint16_t *halves = ht_alloc_array(arena, 3 * C * 10, sizeof *halves);
    assert_true(g && all && layer && halves);
    ht_timestep(g);
    ht_value *x = ht_input(g, "x", 4, (int64_t[]){N, H, W, C}, HT_DEPENDS_X);
    ht_conv_weights c = conv("c.weight", C, C, 3);
    ht_linear_weights l = linear("c.weight", C, C);
    ht_value *y = linear_map ? ht_linear(g, x, &l) : ht_conv2d(g, x, &c, (ht_conv_shape){1, 1, 1, 1, 1});
    *layer = quantized(linear_map ? l.weight : c.weight, w, 0);
    layer->rank = 3;
    layer->up = layer->down = halves;
    *all = (ht_layers){.layer = layer, .n = 1};
    ht_output_value(g, ht_add(g, y, x), "out");
    return print(g, all, fuse);
}

static void a_branch_is_two_thin_products_beside_the_codes(void **state)
{
    static const way ways[] = {{"int4", "uint8", HT_INPUT_STATIC, 1, 0.01f}, {"int4", NULL, HT_INPUT_FLOAT, 0, 0}};
    (void)state;
    for (int i = 0; i < 8; i++) {
        const char *text = branch_graph(&ways[i & 1], i & 2, i & 4);
        assert_count(text, i & 2 ? "= linear" : "= conv2d", 3);
        assert_count(text, "[3,16", 1);                         /* down */
        assert_count(text, i & 2 ? "[16,3]" : "[16,3,1,1]", 1); /* up */
        assert_count(text, "= quantize", i & 1 ? 0 : 1);
        assert_count(text, "= add",
                     i & 4 ? 0 : 1); /* the residual goes into the branch, and with it into the product */
    }
}

static void what_q_k_and_v_read_is_quantized_once(void **state)
{
    (void)state;
    const char *text = attention_graph(&(way){"int4", "uint8", HT_INPUT_STATIC, 2, 0.01f}, false);
    assert_count(text, "= quantize", 1);
    assert_count(text, "= input_scale", 1);
    assert_count(text, " int4", 3);
    assert_count(text, "]u8 ", 4); /* made once, read three times */
}

static void a_norm_makes_the_codes_itself(void **state)
{
    (void)state;
    const char *text = attention_graph(&(way){"int4", "uint8", HT_INPUT_STATIC, 2, 0.01f}, true);
    assert_count(text, "= quantize", 0);
    assert_count(text, "= group_norm", 1);
    assert_non_null(strstr(line_of(text, "= group_norm"), " codes=uint8"));
    assert_non_null(strstr(line_of(text, "= group_norm"), " out_scale "));
}

static void scales_by_timestep_are_of_the_timesteps_stage(void **state)
{
    (void)state;
    const char *text = attention_graph(&(way){"int8", "uint8", HT_INPUT_STATIC, 2, 0.01f}, true);
    assert_non_null(strstr(line_of(text, "= input_scale"), "# t:"));
}

static void one_scale_for_all_is_made_once_a_model(void **state)
{
    (void)state;
    const char *text = attention_graph(&(way){"int8", "uint8", HT_INPUT_STATIC, 1, 0.01f}, true);
    assert_non_null(strstr(line_of(text, "= input_scale"), "# once:"));
}

static void dynamic_scales_are_found_once_every_step(void **state)
{
    (void)state;
    for (int fuse = 0; fuse < 2; fuse++) {
        const char *text = attention_graph(&(way){"int8", "uint8", HT_INPUT_DYNAMIC, 0, 0}, fuse);
        assert_count(text, "= input_range", 1);
        assert_count(text, "= input_scale", 0);
        assert_non_null(strstr(line_of(text, "= input_range"), "# step:"));
        assert_count(text, "= quantize", 1); /* nobody can make codes before the range is known */
    }
}

static void weights_alone_need_no_codes(void **state)
{
    (void)state;
    const char *text = attention_graph(&(way){"int4", NULL, HT_INPUT_FLOAT, 0, 0}, true);
    assert_count(text, "]u8", 0);
    assert_count(text, "= input_scale", 0);
    assert_count(text, " int4", 3);
}

/* A concatenation read by a 3x3 and a 1x1 convolution; parts: of the layers. */
static ht_graph *skip_graph(const way *w, int64_t split, ht_layers *layers)
{
    ht_graph *g = ht_graph_create(arena);
    ht_layer *two = ht_alloc_array(arena, 2, sizeof *two);
    assert_true(g && two);
    ht_timestep(g);
    ht_value *a = ht_input(g, "a", 4, (int64_t[]){N, H, W, C}, HT_DEPENDS_X),
             *b = ht_input(g, "b", 4, (int64_t[]){N, H, W, OUT}, HT_DEPENDS_X), *cat = ht_concat(g, a, b);
    ht_conv_weights conv1 = conv("conv1.weight", C + OUT, C, 3), shortcut = conv("shortcut.weight", C + OUT, C, 1);
    two[0] = quantized(conv1.weight, w, split);
    two[1] = quantized(shortcut.weight, w, split);
    ht_value *h = ht_conv2d(g, cat, &conv1, (ht_conv_shape){1, 1, 1, 1, 1}),
             *s = ht_conv2d(g, cat, &shortcut, (ht_conv_shape){0});
    ht_output_value(g, ht_add(g, h, s), "out");
    *layers = (ht_layers){.layer = two, .n = 2};
    return g;
}

static void layers_of_two_parts_read_the_two_sides_of_a_concatenation(void **state)
{
    (void)state;
    for (int fuse = 0; fuse < 2; fuse++) {
        ht_layers *layers = ht_alloc(arena, sizeof *layers);
        assert_non_null(layers);
        ht_graph *g = skip_graph(&(way){"int4", "uint8", HT_INPUT_STATIC, 2, 0.02f}, C, layers);
        const char *text = print(g, layers, fuse);
        assert_count(text, "= concat", 0);
        assert_count(text, "= quantize", 2); /* each side once, for both layers */
        assert_count(text, " scale2 ", 2);
    }
}

static void a_layer_of_one_part_stays_one(void **state)
{
    (void)state;
    ht_layers layers;
    ht_graph *g = skip_graph(&(way){"int4", "uint8", HT_INPUT_STATIC, 2, 0.02f}, 0, &layers);
    const char *text = print(g, &layers, false);
    assert_count(text, "= concat", 1);
    assert_count(text, "= quantize", 1);
}

static void parts_that_the_model_does_not_read_are_refused(void **state)
{
    (void)state;
    ht_layers layers;
    for (int64_t split = 1; split < C + OUT; split += 7) {
        ht_graph *g = skip_graph(&(way){"int8", NULL, HT_INPUT_FLOAT, 0, 0}, split, &layers);
        ht_graph_set_layers(g, &layers);
        ht_status status = ht_graph_finish(g, true);
        if (split == C ? status != HT_OK : status != HT_ERR_SHAPE || !strstr(ht_error_message(), "conv1"))
            fail_msg("split after %d: status %d, \"%s\"", (int)split, status, ht_error_message());
    }
}

static void a_layer_of_another_shape_is_refused(void **state)
{
    (void)state;
    ht_layers layers;
    ht_graph *g = skip_graph(&(way){"int8", NULL, HT_INPUT_FLOAT, 0, 0}, 0, &layers);
    ht_conv_weights other = conv("conv1.weight", C, C, 3);
    ht_layer layer = quantized(other.weight, &(way){"int8", NULL, HT_INPUT_FLOAT, 0, 0}, 0);
    ht_graph_set_layers(g, &(ht_layers){.layer = &layer, .n = 1});
    assert_refused(ht_graph_finish(g, true), HT_ERR_SHAPE, "conv1");
}

static void a_table_by_timestep_needs_a_timestep(void **state)
{
    (void)state;
    ht_graph *g = ht_graph_create(arena);
    ht_value *x = ht_input(g, "x", 4, (int64_t[]){N, H, W, C}, HT_DEPENDS_X);
    ht_conv_weights one = conv("conv1.weight", C, C, 1);
    ht_layer layer = quantized(one.weight, &(way){"int8", "uint8", HT_INPUT_STATIC, 2, 0.1f}, 0);
    ht_output_value(g, ht_conv2d(g, x, &one, (ht_conv_shape){0}), "out");
    ht_graph_set_layers(g, &(ht_layers){.layer = &layer, .n = 1});
    assert_refused(ht_graph_finish(g, true), HT_ERR_SHAPE, "no timestep");
}

/* ---- a model ---- */

static const small_model model_of_tests = {.a = 16, .b = 16, .seed = 5};
static ht_model *model;

static int open_model(void **state)
{
    if (open_all(state))
        return -1;
    write_small_model(in_root("float"), &model_of_tests);
    return ht_model_open(in_root("float"), NULL, &model) ? -1 : 0;
}

static int close_model(void **state)
{
    ht_model_close(model);
    return close_all(state);
}

/* The up blocks' shortcuts read concatenations of 16 and 16 channels.  conv1 reads what a norm makes of one. */
static int64_t split_of(const char *name)
{
    return !strncmp(name, "up_blocks.", 10) && strstr(name, "conv_shortcut.weight") ? 16 : 0;
}

static ht_layers quantize_all(const way *w, bool split)
{
    size_t n = ht_weights_count(model->weights);
    ht_layer *layers = ht_alloc_array(arena, n, sizeof *layers);
    int count = 0;
    assert_non_null(layers);
    for (size_t i = 0; i < n; i++) {
        const ht_tensor *t = ht_weights_at(model->weights, i);
        if (t->ndim >= 2 && strcmp(t->name, "conv_in.weight") != 0)
            layers[count++] = quantized(t, w, split ? split_of(t->name) : 0);
    }
    return (ht_layers){.layer = layers, .n = count};
}

typedef struct setting {
    const char *isa;
    int batch, threads;
    bool unfused;
} setting;

enum { IMAGES = 4, VALUES = IMAGES * SMALL_PIXELS };

static void predict(const ht_layers *layers, const setting *how, float out[VALUES])
{
    ht_session *s;
    static float x[VALUES];
    const float t[IMAGES] = {900, 900, 60, 60};
    ht_image_randn(1, 0, 0, VALUES, x);
    assert_ok(ht_session_open_with(model,
                                   &(ht_session_options){.batch = how->batch, .threads = how->threads, .isa = how->isa},
                                   &(ht_session_extras){.layers = layers, .unfused = how->unfused}, &s));
    assert_ok(ht_predict(s, IMAGES, x, t, NULL, out));
    ht_session_close(s);
}

static bool same_bits(const void *a, const void *b, size_t bytes)
{
    return !memcmp(a, b, bytes);
}

/* What this machine has, and around it batches, threads and fusion. */
static void assert_same_everywhere(const way *w, bool split)
{
    static float want[VALUES], got[VALUES];
    ht_layers layers = quantize_all(w, split);
    const setting settings[] = {{"avx2", 1, 1, false},      {"avx512", 3, 2, false}, {"avx512vnni", 2, 3, false},
                                {"amx", 4, 1, false},       {NULL, 1, 3, false},     {NULL, 2, 1, true},
                                {"avx512vnni", 4, 2, true}, {"avx2", 3, 3, true},    {"amx", 1, 2, true},
                                {"scalar", 4, 2, true}};
    predict(&layers, &(setting){"scalar", 1, 1, false}, want);
    for (size_t i = 0; i < sizeof settings / sizeof *settings; i++) {
        const setting *how = &settings[i];
        if (how->isa && ht_isa_find(how->isa) > (int)ht_cpu_detect())
            continue;
        predict(&layers, how, got);
        if (!same_bits(got, want, sizeof want))
            fail_msg("%s weights, %s inputs (%s): %s, batch %d, %d threads, %s differ from scalar by %g", w->format,
                     w->input ? w->input : "float", ht_input_mode_name(w->mode), how->isa ? how->isa : "all",
                     how->batch, how->threads, how->unfused ? "unfused" : "fused", largest_error(got, want, VALUES));
    }
}

static void integer_layers_give_the_same_bits_everywhere(void **state)
{
    (void)state;
    assert_same_everywhere(&(way){"int4", "uint8", HT_INPUT_STATIC, 2, 0.03f}, true);
    assert_same_everywhere(&(way){"int8", "uint8", HT_INPUT_STATIC, 1, 0.03f}, false);
}

static void dynamic_layers_give_the_same_bits_everywhere(void **state)
{
    (void)state;
    assert_same_everywhere(&(way){"int8", "uint8", HT_INPUT_DYNAMIC, 0, 0}, true);
    assert_same_everywhere(&(way){"fp4_e2m1", "uint8", HT_INPUT_DYNAMIC, 0, 0}, true);
}

static void float_layers_give_the_same_bits_everywhere(void **state)
{
    (void)state;
    assert_same_everywhere(&(way){"fp8_e4m3", "fp8_e4m3", HT_INPUT_STATIC, 2, 0.01f}, true);
    assert_same_everywhere(&(way){"int4", NULL, HT_INPUT_FLOAT, 0, 0}, false);
    assert_same_everywhere(&(way){"nvfp4", "uint8", HT_INPUT_STATIC, 2, 0.03f}, true);
}

static double error_of(const way *w, bool split)
{
    static float want[VALUES], got[VALUES];
    ht_layers layers = quantize_all(w, split), none = {0};
    predict(&none, &(setting){NULL, 2, 1, false}, want);
    predict(&layers, &(setting){NULL, 2, 1, false}, got);
    return relative_error(got, want, VALUES);
}

static void fine_steps_are_close_to_floats(void **state)
{
    (void)state;
    double dynamic = error_of(&(way){"int8", "uint8", HT_INPUT_DYNAMIC, 0, 0}, true),
           fixed = error_of(&(way){"int8", "uint8", HT_INPUT_STATIC, 1, 0.05f}, true),
           weights = error_of(&(way){"int8", NULL, HT_INPUT_FLOAT, 0, 0}, false),
           coarse = error_of(&(way){"int4", "uint8", HT_INPUT_DYNAMIC, 0, 0}, true);
    if (!(weights > 0 && weights < 0.03 && dynamic < 0.05 && fixed < 0.1 && coarse > 2 * dynamic && coarse < 1))
        fail_msg("relative errors: weights alone %g, dynamic %g, static %g, int4 %g", weights, dynamic, fixed, coarse);
}

/* The row of a table that a timestep takes is the nearest: with one that is far off the images differ. */
static void each_timestep_takes_its_row(void **state)
{
    (void)state;
    static float two[VALUES], one[VALUES];
    way w = {"int8", "uint8", HT_INPUT_STATIC, 2, 0.03f};
    ht_layers by_time = quantize_all(&w, true);
    w.groups = 1; /* keeps the first row, that of timestep 800 */
    ht_layers first = quantize_all(&w, true);
    predict(&by_time, &(setting){NULL, 2, 1, false}, two);
    predict(&first, &(setting){NULL, 2, 1, false}, one);
    assert_memory_equal(one, two, sizeof two / 2);
    assert_memory_not_equal(one + VALUES / 2, two + VALUES / 2, sizeof two / 2);
}

#define CASE(test)  cmocka_unit_test_setup_teardown(test, open_all, close_all)
#define MODEL(test) cmocka_unit_test_setup_teardown(test, open_model, close_model)

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(what_q_k_and_v_read_is_quantized_once),
        CASE(what_q_k_and_v_read_is_smoothed_once),
        CASE(smoothing_makes_the_codes_itself),
        CASE(a_branch_is_two_thin_products_beside_the_codes),
        CASE(a_norm_makes_the_codes_itself),
        CASE(scales_by_timestep_are_of_the_timesteps_stage),
        CASE(one_scale_for_all_is_made_once_a_model),
        CASE(dynamic_scales_are_found_once_every_step),
        CASE(weights_alone_need_no_codes),
        CASE(layers_of_two_parts_read_the_two_sides_of_a_concatenation),
        CASE(a_layer_of_one_part_stays_one),
        CASE(parts_that_the_model_does_not_read_are_refused),
        CASE(a_layer_of_another_shape_is_refused),
        CASE(a_table_by_timestep_needs_a_timestep),
        MODEL(integer_layers_give_the_same_bits_everywhere),
        MODEL(dynamic_layers_give_the_same_bits_everywhere),
        MODEL(float_layers_give_the_same_bits_everywhere),
        MODEL(fine_steps_are_close_to_floats),
        MODEL(each_timestep_takes_its_row),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
