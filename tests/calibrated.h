/* calibrated.h - small models and their calibrations, for tests. */
#ifndef HT_TESTS_CALIBRATED_H
#define HT_TESTS_CALIBRATED_H

#include "calib/calibration.h"
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
static const small_model plain = {.a = 8, .b = 16, .seed = 3, .scheduler = SHORT},
                         classes = {.a = 8, .b = 16, .seed = 3, .classes = 3, .scheduler = SHORT};
static const ht_calibrate_options options = {.steps = 6, .timesteps = 3, .per_step = 4, .threads = 1};

static inline ht_model *open_small(const char *name, const small_model *m)
{
    ht_model *model;
    const char *path = in_root(name);
    write_small_model(path, m);
    assert_ok(ht_model_open(path, NULL, &model));
    return model;
}

static inline const char *calibrate(ht_model *m, const char *name, ht_calibrate_options o)
{
    const char *path = ht_strdup(arena, in_root(name));
    assert_ok(ht_calibrate(m, &o, path));
    return path;
}

#define CASE(test) cmocka_unit_test_setup_teardown(test, open_all, close_all)

#endif
