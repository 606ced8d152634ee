/* quantizing.h - what tests of quantizing whole models share: small models, their calibrations, and how far what is
 * made of them is from where it began. */
#ifndef HT_TESTS_QUANTIZING_H
#define HT_TESTS_QUANTIZING_H

#include "halftone.h"
#include "sampler/model.h"
#include "tests/goldens.h"
#include "tests/small_model.h"

static ht_arena *arena;

static inline int open_all(void **state)
{
    arena = ht_arena_create();
    return arena ? make_root(state) : -1;
}

static inline int close_all(void **state)
{
    ht_arena_free(arena);
    return remove_root(state);
}

/* Of few training timesteps: each is one more evaluation of what depends on time alone. */
#define SHORT "\"num_train_timesteps\":100"
static const small_model tiny = {.a = 8, .b = 16, .seed = 3, .scheduler = SHORT}, /* blocks of 16 divide none of its
                                                                                   first convolutions */
    least = {.a = 4, .b = 8, .seed = 3, .scheduler = SHORT}, wide = {.a = 32, .b = 32, .seed = 3, .scheduler = SHORT},
                         classes = {.a = 8, .b = 16, .seed = 3, .classes = 3, .scheduler = SHORT};

static inline void calibrate_quickly(ht_model *m)
{
    assert_ok(ht_calibrate(m, &(ht_calibrate_options){.steps = 6, .timesteps = 3, .per_step = 2, .threads = 1},
                           in_root("calib")));
}

/* A model, open, and its calibration: root/model, root/calib. */
static inline ht_model *open_calibrated(const small_model *m)
{
    ht_model *model;
    write_small_model(in_root("model"), m);
    assert_ok(ht_model_open(in_root("model"), NULL, &model));
    calibrate_quickly(model);
    return model;
}

static inline ht_quantize_options with_calibration(void)
{
    return (ht_quantize_options){.calibration = ht_strdup(arena, in_root("calib")), .threads = 1};
}

static inline const char *quantize(ht_model *m, const char *name, const ht_quantize_options *o)
{
    const char *path = ht_strdup(arena, in_root(name));
    if (ht_quantize(m, o, path))
        fail_msg("%s, layers %s, rounding %s: %s", o->scheme, o->layers, o->rounding, ht_error_message());
    return path;
}

static inline ht_model *opened(const char *path)
{
    ht_model *m;
    assert_ok(ht_model_open(path, NULL, &m));
    return m;
}

static inline bool same_model(const char *a, const char *b)
{
    return same_file(ht_sprintf(arena, "%s/" SMALL_WEIGHTS, a), ht_sprintf(arena, "%s/" SMALL_WEIGHTS, b)) &&
           same_file(ht_sprintf(arena, "%s/config.json", a), ht_sprintf(arena, "%s/config.json", b));
}

static inline void sample(ht_model *m, float *x)
{
    ht_session *s;
    const float label = 1;
    ht_cond cond = {.class_labels = m->info.num_classes ? &label : NULL};
    assert_ok(ht_session_open(m, &(ht_session_options){.threads = 1}, &s));
    assert_ok(ht_sample(s, &(ht_sample_options){.steps = 4, .seed = 9, .cond = &cond}, 0, 1, x));
    ht_session_close(s);
}

static inline double distance_of(ht_model *m, const char *quantized)
{
    float want[SMALL_PIXELS], got[SMALL_PIXELS];
    ht_model *q = opened(quantized);
    sample(m, want);
    sample(q, got);
    ht_model_close(q);
    return relative_error(got, want, SMALL_PIXELS);
}

static inline ht_model_info info_of(const char *path)
{
    ht_model *m = opened(path);
    ht_model_info info;
    ht_model_get_info(m, &info);
    ht_model_close(m);
    return info;
}

/* A weight on average, of the quantized layers. */
static inline double bits_of_layers(const char *path, int *layers)
{
    ht_model *m = opened(path);
    double bits = 0, weights = 0;
    for (*layers = 0; *layers < m->layers.n; ++*layers) {
        ht_layer_info l;
        ht_model_get_layer(m, *layers, &l);
        bits += l.bits * (double)l.weights;
        weights += (double)l.weights;
    }
    ht_model_close(m);
    return bits / weights;
}

#endif
