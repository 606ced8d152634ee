/* Products of weights that stay codes, and second moments: every row of the tables that takes them against the scalar
 * kernel, bit for bit, over drawn formats and shapes, with one to three threads.  Outputs, packed weights and scratch
 * lie between canaries.  Codes and scales are drawn, so that every code of a format comes up, scales of both signs and
 * powers of two down to subnormals. */
#include "tests/kernels.h"

enum { CASES = 60, GRAM_CASES = 32 };

/* ---- drawing ---- */

static int64_t gcd(int64_t a, int64_t b)
{
    while (b) {
        int64_t rest = a % b;
        a = b;
        b = rest;
    }
    return a;
}

/* Widths about the tiles' edges. */
static int64_t draw_width(void)
{
    static const int widths[] = {1, 3, 7, 8, 9, 15, 16, 17, 24, 31, 32, 33, 48, 63, 64, 65, 100, 130};
    return widths[draw(0, sizeof widths / sizeof *widths - 1)];
}

/* ---- a quantized layer ---- */

/* Those of the table, and some that are only simulated. */
static void draw_format(ht_format *f)
{
    static const char *const simulated[] = {"uint4", "uint8_g32", "int3", "int6_g16", "fp6_e2m3", "fp8_e5m2"};
    int n = 0;
    while (ht_format_at(n))
        n++;
    int i = (int)draw(0, n + 2);
    if (i < n)
        *f = *ht_format_at(i);
    else
        assert_int_equal(ht_format_find(simulated[draw(0, (int64_t)(sizeof simulated / sizeof *simulated) - 1)], f),
                         HT_OK);
}

static uint8_t draw_code(const ht_grid *grid)
{
    for (;;) {
        uint8_t code = (uint8_t)draw(0, (1 << grid->bits) - 1);
        if (!isnan(ht_grid_decode(grid, code)))
            return code;
    }
}

enum { ORDINARY, TINY, ANY };

/* Scales are ordinary most of the time; the rest are the least that there are, or anything finite that a file may
 * hold. */
static void draw_scale(const ht_format *f, int kind, void *scale)
{
    if (f->scale == HT_F32) {
        float x;
        fill_normal(&x, 1, kind ? 1e-38f : 0.1f);
        memcpy(scale, &x, sizeof x);
    } else if (f->scale == HT_F8_E8M0)
        *(uint8_t *)scale = (uint8_t)(kind == TINY ? draw(0, 2) : kind == ANY ? draw(0, 254) : draw(120, 130));
    else
        *(uint8_t *)scale = (uint8_t)(draw(0, kind == TINY ? 9 : 126) + 128 * (kind == ANY && draw(0, 1)));
}

static void draw_codes(scene *s, ht_layer_part *part, const ht_matrix *m)
{
    const ht_format *f = &s->layer->format;
    int kind = (int)draw(0, 7);
    kind = kind > ANY ? ORDINARY : kind;
    ht_format_sizes sizes;
    assert_int_equal(ht_format_measure(f, m, &sizes), HT_OK);
    assert_int_equal(ht_quantized_alloc(s->arena, f, m, &part->weight), HT_OK);
    uint8_t *codes = ht_alloc(s->arena, m->in);
    assert_non_null(codes);
    for (size_t row = 0; row < m->out; row++) {
        for (size_t k = 0; k < m->in; k++)
            codes[k] = draw_code(&f->grid);
        ht_codes_pack(f, m->in, codes, part->weight.codes + row * sizes.row_bytes);
    }
    for (size_t i = 0; i < sizes.scale_count; i++) {
        draw_scale(f, kind, (char *)part->weight.scales + i * (sizes.scale_bytes / sizes.scale_count));
        if (f->asymmetric)
            part->weight.zeros[i] = (uint8_t)draw(0, (1 << f->grid.bits) - 1);
    }
    if (f->scale == HT_F8_E4M3)
        part->weight.tensor_scale = kind ? 0x1p-120f : 0.0123f;
    assert_int_equal(ht_format_check(f, &part->weight, m), HT_OK);
}

/* The layer of weight "w.weight" [out][first + second][k][k]; second is 0 if there is one input. */
static void draw_layer(scene *s, int ndim, const int64_t *shape, int64_t first, int64_t second)
{
    ht_layer *l = s->layer;
    l->name = "w";
    l->ndim = ndim;
    memcpy(l->shape, shape, sizeof l->shape);
    l->parts = second && (draw(0, 1) || (l->format.block && shape[1] * ht_layer_taps(l) % l->format.block)) ? 2 : 1;
    l->part[0].count = l->parts == 2 ? first : first + second;
    l->part[1].begin = first;
    l->part[1].count = second;
    for (int p = 0; p < l->parts; p++) {
        ht_matrix m = ht_layer_matrix(l, p);
        draw_codes(s, &l->part[p], &m);
    }
    s->layers = (ht_layers){.layer = l, .n = 1};
    ht_graph_set_layers(s->graph, &s->layers);
}

/* Channels of which taps make whole blocks. */
static int64_t draw_channels(const ht_format *f, int64_t taps)
{
    int64_t block = f->block ? f->block : 1, unit = block / gcd(block, taps);
    return unit > 1 ? unit * draw(1, unit < 64 ? 5 : 2) : draw_width();
}

/* ---- products ---- */

/* One input, or a concatenation of two. */
static ht_value *draw_inputs(scene *s, int ndim, const int64_t *shape, int64_t first, int64_t second)
{
    int64_t one[4], two[4];
    memcpy(one, shape, sizeof one);
    memcpy(two, shape, sizeof two);
    one[ndim - 1] = first;
    two[ndim - 1] = second;
    ht_value *x = input(s, "x", ndim, one);
    return second ? ht_concat(s->graph, x, input(s, "x2", ndim, two)) : x;
}

static ht_value *make_conv2d(scene *s)
{
    int64_t k = draw(1, 3), first = draw_channels(&s->layer->format, k * k), out = draw_width();
    int64_t second = draw(0, 1) ? draw_channels(&s->layer->format, k * k) : 0;
    ht_conv_shape shape = {(int)draw(1, 2), (int)draw(0, 1), (int)draw(0, 1), 1, 1};
    ht_value *x = draw_inputs(s, 4, (int64_t[]){s->batch, draw(2, 7), draw(2, 7), 0}, first, second);
    if (draw(0, 3) == 0)
        x = ht_upsample(s->graph, x, 2);
    ht_conv_weights w = {weight_of(s, "w.weight", 4, (int64_t[]){out, first + second, k, k}),
                         draw(0, 1) ? weight_of(s, "w.bias", 1, &out) : NULL};
    draw_layer(s, 4, (int64_t[]){out, first + second, k, k}, first, second);
    ht_value *y = ht_conv2d(s->graph, x, &w, shape);
    if (draw(0, 1))
        y = ht_add_row(s->graph, y, input(s, "row", 2, (int64_t[]){s->batch, out}));
    if (draw(0, 1))
        y = ht_add(s->graph, y, input(s, "residual", 4, y->shape));
    snprintf(s->text, sizeof s->text, "%s in %lld|%lld out %lld k%lld s%d, %d parts", s->layer->format.name,
             (long long)first, (long long)second, (long long)out, (long long)k, shape.stride, s->layer->parts);
    return y;
}

static ht_value *make_linear(scene *s)
{
    int64_t first = draw_channels(&s->layer->format, 1), out = draw_width(), tokens = draw(1, 40);
    int64_t second = draw(0, 1) ? draw_channels(&s->layer->format, 1) : 0;
    if (!s->layer->format.block && draw(0, 2) == 0)
        first = draw(180, 420);
    ht_value *x = draw_inputs(s, 3, (int64_t[]){s->batch, tokens, 0, 0}, first, second);
    ht_linear_weights w = {weight_of(s, "w.weight", 2, (int64_t[]){out, first + second}),
                           draw(0, 1) ? weight_of(s, "w.bias", 1, &out) : NULL};
    draw_layer(s, 2, (int64_t[]){out, first + second, 0, 0}, first, second);
    ht_value *y = ht_linear(s->graph, x, &w);
    snprintf(s->text, sizeof s->text, "%s in %lld|%lld out %lld tokens %lld, %d parts", s->layer->format.name,
             (long long)first, (long long)second, (long long)out, (long long)tokens, s->layer->parts);
    return y;
}

/* ---- running ---- */

static void fill_inputs(scene *s, ht_call *call)
{
    bool poisoned = draw(0, 7) == 0;
    for (int i = 0; i < HT_INPUTS; i++) {
        const ht_value *v = call->op->in[i];
        if (!v || v->data)
            continue;
        size_t count = (size_t)(ht_rows(v, s->n) * ht_channels(v));
        float *x = room(s, count * sizeof *x);
        fill_normal(x, count, 1);
        if (poisoned)
            x[(size_t)draw(0, (1 << 20) - 1) * count >> 20] = draw(0, 1) ? NAN : -INFINITY;
        call->in[i] = x;
    }
}

static int compared, of_codes;

/* All rows that take the operation, not only the first. */
static void compare_list(scene *s, const ht_kernel *list, const ht_call *call, const float *want)
{
    for (const ht_kernel *k = list; k->name; k++) {
        if (k->op != call->op->kind || k->arithmetic != HT_IN_FLOAT || (k->refuses && k->refuses(call->op)) ||
            k->isa > ht_cpu_detect())
            continue;
        compare(s, k, call, want);
        compared++;
        of_codes += strstr(k->name, "_w4") || strstr(k->name, "_w8");
    }
}

static void check_op(scene *s, const ht_op *op)
{
    ht_call call = {.op = op, .n = s->n};
    fill_inputs(s, &call);
    const float *want = run_kernel(s, ht_reference_kernels[op->kind], &call, 1);
    compare_list(s, ht_avx2_kernels, &call, want);
    compare_list(s, ht_avx512_kernels, &call, want);
}

static void check_products(ht_op_kind kind, ht_value *(*make)(scene *))
{
    for (int i = 0; i < CASES; i++) {
        if (only_case >= 0 && only_case != i)
            continue;
        scene s = open_scene((int)kind, i, 5);
        draw_format(&s.layer[0].format);
        ht_output_value(s.graph, make(&s), "y");
        if (ht_graph_finish(s.graph, true))
            fail_msg("%s", ht_error_message());
        const ht_op *op = ht_graph_output(s.graph)->producer;
        assert_int_equal(op->kind, kind);
        assert_ptr_equal(op->layer, &s.layer[0]);
        check_op(&s, op);
        ht_arena_free(s.arena);
    }
}

static void convolutions_of_codes_equal_scalar(void **state)
{
    (void)state;
    check_products(HT_OP_conv2d, make_conv2d);
}

static void linears_of_codes_equal_scalar(void **state)
{
    (void)state;
    check_products(HT_OP_linear, make_linear);
    assert_true(of_codes > CASES || only_case >= 0 || ht_cpu_detect() == HT_ISA_SCALAR);
}

/* ---- what is listed, and what it takes ---- */

static const ht_kernel *first_kernel(const ht_kernel *list, const ht_op *op)
{
    while (list->name &&
           (list->op != op->kind || list->arithmetic != HT_IN_FLOAT || (list->refuses && list->refuses(op))))
        list++;
    return list;
}

/* A convolution 3x3 of 128 to 128 channels whose weights are in a format. */
static const ht_op *plain_op(scene *s, const char *format)
{
    static const int64_t shape[] = {128, 128, 3, 3};
    assert_int_equal(ht_format_find(format, &s->layer->format), HT_OK);
    s->graph = ht_graph_create(s->arena);
    ht_value *x = input(s, "x", 4, (int64_t[]){1, 4, 4, 128});
    draw_layer(s, 4, shape, 128, 0);
    ht_conv_weights w = {weight_of(s, "w.weight", 4, shape), NULL};
    ht_output_value(s->graph, ht_conv2d(s->graph, x, &w, (ht_conv_shape){1, 1, 1, 1, 1}), "y");
    assert_int_equal(ht_graph_finish(s->graph, true), HT_OK);
    return ht_graph_output(s->graph)->producer;
}

/* Whole vectors of columns: codes, their scales, and a few bytes a layer. */
static void packed_weights_are_as_small_as_their_codes(void **state)
{
    (void)state;
    const ht_kernel *lists[] = {ht_avx2_kernels, ht_avx512_kernels};
    for (int i = 0; ht_format_at(i); i++)
        for (int j = 0; j < 2; j++) {
            scene s = {.arena = ht_arena_create(), .batch = 1, .n = 1};
            const ht_op *op = plain_op(&s, ht_format_at(i)->name);
            size_t wanted = (size_t)(ht_layer_bits(&s.layer[0]) * 128 * 128 * 9 / 8);
            const ht_kernel *k = first_kernel(lists[j], op);
            assert_non_null(k->name);
            if (size_of(k->packed, op) > wanted + 1024)
                fail_msg("%s packs %s into %zu bytes, want %zu", k->name, s.layer[0].format.name,
                         size_of(k->packed, op), wanted);
            ht_arena_free(s.arena);
        }
}

/* 2^-127 is not a normal float. */
static void the_least_power_of_two_is_a_scale(void **state)
{
    (void)state;
    scene s = {.arena = ht_arena_create(), .batch = 1, .n = 1};
    const ht_op *op = plain_op(&s, "mxfp4");
    memset(s.layer[0].part[0].weight.scales, 0, (size_t)128 * 128 * 9 / 32);
    check_op(&s, op);
    ht_arena_free(s.arena);
}

static void simulated_formats_become_floats(void **state)
{
    (void)state;
    scene s = {.arena = ht_arena_create(), .batch = 1, .n = 1};
    assert_string_equal(first_kernel(ht_avx2_kernels, plain_op(&s, "uint4"))->name, "conv2d_f32_avx2_6x16");
    ht_arena_free(s.arena);
}

/* ---- second moments ---- */

/* An operation without a graph. */
typedef struct gram_case {
    ht_value x, x2, out;
    ht_op op;
} gram_case;

static void draw_gram(scene *s, gram_case *g, int ndim, const int64_t *shape, int64_t first, int64_t second)
{
    ht_attrs *a = &g->op.attrs;
    g->x = (ht_value){.ndim = ndim, .batched = true};
    memcpy(g->x.shape, shape, sizeof g->x.shape);
    g->x.shape[0] = s->batch;
    g->x2 = g->x;
    g->x.shape[ndim - 1] = first;
    g->x2.shape[ndim - 1] = second;
    a->count = (int)draw(1, 3);
    a->kernel = a->stride = a->upsample = 1;
    if (ndim == 4 && draw(0, 3)) {
        a->kernel = (int)draw(1, 3);
        a->stride = (int)draw(1, 2);
        a->upsample = (int)draw(1, 2);
        a->pad_top = (int)draw(0, 1);
        a->pad_left = (int)draw(0, 1);
        a->pad_bottom = a->pad_right = 1;
    }
    int64_t k = (first + second) * a->kernel * a->kernel;
    g->out = (ht_value){.ndim = 2, .shape = {k, k}};
    g->op.kind = HT_OP_gram;
    g->op.out = &g->out;
    g->op.in[HT_IN_X] = &g->x;
    g->op.in[HT_IN_X2] = second ? &g->x2 : NULL;
    snprintf(s->text, sizeof s->text, "%lldx%lld in %lld|%lld k%d s%d every %d", (long long)shape[1],
             ndim == 4 ? (long long)shape[2] : 1, (long long)first, (long long)second, a->kernel, a->stride, a->count);
}

/* Every eighth has more windows than a slab. */
static void grams_equal_scalar(void **state)
{
    (void)state;
    int before = compared;
    for (int i = 0; i < GRAM_CASES; i++) {
        gram_case g = {.op = {0}};
        scene s = open_scene(HT_OP_gram, i, 5);
        int64_t first = draw_width(), second = draw(0, 2) ? 0 : draw(1, 40), side = draw(2, 5);
        if (i % 8 == 0)
            draw_gram(&s, &g, 3, (int64_t[]){0, draw(400, 1500), 0, 0}, draw(60, 140), 0);
        else if (draw(0, 2) == 0)
            draw_gram(&s, &g, 3, (int64_t[]){0, draw(1, 60), 0, 0}, first, second);
        else
            draw_gram(&s, &g, 4, (int64_t[]){0, side, side + 1, 0}, first, second);
        check_op(&s, &g.op);
        ht_arena_free(s.arena);
    }
    assert_true(compared - before >= GRAM_CASES || ht_cpu_detect() == HT_ISA_SCALAR);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(convolutions_of_codes_equal_scalar),
        cmocka_unit_test(linears_of_codes_equal_scalar),
        cmocka_unit_test(packed_weights_are_as_small_as_their_codes),
        cmocka_unit_test(the_least_power_of_two_is_a_scale),
        cmocka_unit_test(simulated_formats_become_floats),
        cmocka_unit_test(grams_equal_scalar),
    };
    read_seed(argc, argv, 1);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
