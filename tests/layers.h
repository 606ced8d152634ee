/* layers.h - quantized layers for tests, drawn: of any format, kernel, parts and tables. */
#ifndef HT_TESTS_LAYERS_H
#define HT_TESTS_LAYERS_H

#include "quant/file.h"
#include "tests/goldens.h"
#include "tests/small_model.h"

enum { OUT = 6, MOST = 64 };

static ht_arena *arena;
static ht_mt19937 rng;
static const float timesteps[] = {900, 500, 20};

static inline int open_all(void **state)
{
    ht_mt19937_seed(&rng, 7);
    arena = ht_arena_create();
    return arena ? make_root(state) : -1;
}

static inline int close_all(void **state)
{
    ht_arena_free(arena);
    return remove_root(state);
}

typedef struct request {
    const char *name, *format, *input; /* input NULL: floats */
    ht_input_mode mode;
    int parts, kernel, groups; /* kernel 0: linear */
    int64_t channels[2];
} request;

static inline ht_input_table table_of(int groups, bool asymmetric)
{
    ht_input_table t = {.groups = groups, .timesteps = groups > 1 ? timesteps : NULL};
    float *step = ht_alloc_array(arena, (size_t)groups, sizeof *step),
          *zero = ht_alloc_array(arena, (size_t)groups, sizeof *zero);
    assert_true(step && zero);
    for (int i = 0; i < groups; i++) {
        step[i] = 0.01f + (float)(ht_mt19937_u32(&rng) % 1000) * 1e-4f;
        zero[i] = asymmetric ? (float)(ht_mt19937_u32(&rng) % 16) : 0;
    }
    t.step = step;
    t.zero = zero;
    return t;
}

/* Factors for the inputs of every part. */
static inline void smooth_layer(ht_layer *layer)
{
    for (int p = 0; p < layer->parts; p++) {
        float *factors = ht_alloc_array(arena, (size_t)layer->part[p].count, sizeof *factors);
        assert_non_null(factors);
        for (int64_t i = 0; i < layer->part[p].count; i++)
            factors[i] = 0.01f + (float)(ht_mt19937_u32(&rng) % 1000) * 1e-2f;
        layer->part[p].smooth = factors;
    }
}

/* A branch of rank 3. */
static inline void branch_layer(ht_layer *layer)
{
    size_t up = 3 * (size_t)layer->shape[0], down = 3 * (size_t)(ht_layer_inputs(layer) * ht_layer_taps(layer));
    uint16_t *x = ht_alloc_array(arena, up + down, sizeof *x);
    assert_non_null(x);
    for (size_t i = 0; i < up + down; i++)
        x[i] = ht_f16_from_f32((float)(ht_mt19937_u32(&rng) % 1000) * 1e-3f);
    layer->rank = 3;
    layer->up = x;
    layer->down = x + up;
}

static inline ht_layer make_layer(const request *r)
{
    ht_layer layer = {.name = r->name, .ndim = r->kernel ? 4 : 2, .parts = r->parts, .mode = r->mode, .error = 0.25};
    int64_t in = r->channels[0] + (r->parts == 2 ? r->channels[1] : 0), begin = 0;
    memcpy(layer.shape, (int64_t[]){OUT, in, r->kernel, r->kernel}, (size_t)layer.ndim * sizeof in);
    assert_ok(ht_format_find(r->format, &layer.format));
    if (r->input)
        assert_ok(ht_format_find(r->input, &layer.input));
    for (int p = 0; p < r->parts && p < 2; p++) {
        layer.part[p].begin = begin;
        layer.part[p].count = r->channels[p];
        begin += r->channels[p];
        ht_matrix m = ht_layer_matrix(&layer, p);
        float *values = ht_alloc_array(arena, m.out * m.in, sizeof *values);
        assert_non_null(values);
        ht_mt19937_randn(&rng, m.out * m.in, values);
        m.values = values;
        assert_ok(ht_quantized_alloc(arena, &layer.format, &m, &layer.part[p].weight));
        assert_ok(
            ht_format_quantize(&layer.format, &m, &(ht_scale_options){.method = HT_SCALE_MSE}, &layer.part[p].weight));
        if (r->mode == HT_INPUT_STATIC)
            layer.part[p].input = table_of(r->groups, layer.input.asymmetric);
    }
    assert_ok(ht_layer_check(&layer));
    return layer;
}

/* ---- through a file ---- */

static const char file_name[] = "layers.safetensors";

static inline ht_status write_file(const ht_tensor *tensors, size_t n, const char *metadata)
{
    const ht_metadata m = {"_quantization_metadata", metadata};
    return ht_safetensors_write(in_root(file_name), tensors, n, &m, metadata != NULL);
}

#define CASE(test) cmocka_unit_test_setup_teardown(test, open_all, close_all)

#endif
