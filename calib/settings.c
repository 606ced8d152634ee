/* settings.c - the settings of calibration and quantization as tables, and what is read from them. */
#include "calib/settings.h"

#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "calib/calibration.h"
#include "calib/scheme.h"
#include "quant/low_rank.h"
#include "quant/rotate.h"
#include "quant/round.h"
#include "quant/softmax.h"
#include "sampler/steps.h"

enum { MAX_THREADS = 1024, MAX_BATCH = 65536 };

#define AT(member) .at = offsetof(ht_calibrate_options, member)

/* clang-format off */
const ht_setting ht_calibrate_settings[] = {
    {"steps", HT_SETTING_INT, AT(steps), .number = 40, .least = 1, .most = HT_MAX_TRAIN_TIMESTEPS},
    {"spacing", HT_SETTING_TEXT, AT(spacing), .find = ht_spacing_find},
    {"distribution", HT_SETTING_TEXT, AT(distribution), .text = "uniform", .find = ht_distribution_find},
    {"timesteps", HT_SETTING_INT, AT(timesteps), .number = 20, .least = 1, .most = HT_MAX_CALIBRATION_SAMPLES},
    {"per_step", HT_SETTING_INT, AT(per_step), .number = 16, .least = 1, .most = HT_MAX_CALIBRATION_SAMPLES},
    {"guidance", HT_SETTING_REAL, AT(guidance), .most = 1000, .optional = true},
    {"seed", HT_SETTING_SEED, AT(seed)},
    {0}};
/* clang-format on */

#undef AT
#define AT(member) .at = offsetof(ht_quantize_options, member)

/* clang-format off */
const ht_setting ht_quantize_settings[] = {
    {"scheme", HT_SETTING_TEXT, AT(scheme), .text = "w4a8"},
    {"layers", HT_SETTING_TEXT, AT(layers), .text = "default"},
    {"weights", HT_SETTING_TEXT, AT(weights)},
    {"inputs", HT_SETTING_TEXT, AT(inputs)},
    {"bits", HT_SETTING_REAL, AT(bits)},
    {"scale", HT_SETTING_TEXT, AT(scale), .text = "mse"},
    {"scale_powers", HT_SETTING_TEXT, AT(scale_powers), .text = "free"},
    {"smooth", HT_SETTING_REAL, AT(smooth)},
    {"rotate", HT_SETTING_INT, AT(rotate)},
    {"low_rank", HT_SETTING_INT, AT(low_rank)},
    {"rounding", HT_SETTING_TEXT, AT(rounding), .text = "gptq+descent"},
    {"couple", HT_SETTING_YES, AT(couple)},
    {"softmax", HT_SETTING_TEXT, AT(softmax), .text = "float"},
    {"observer", HT_SETTING_TEXT, AT(observer), .text = "minmax"},
    {"percentile", HT_SETTING_REAL, AT(percentile), .number = 99.9},
    {"temporal", HT_SETTING_TEXT, AT(temporal), .text = "cache"},
    {"groups", HT_SETTING_INT, AT(groups)},
    {"blocks", HT_SETTING_INT, AT(blocks)},
    {"dynamic", HT_SETTING_YES, AT(dynamic)},
    {"split", HT_SETTING_NO, AT(no_split)},
    {"seed", HT_SETTING_SEED, AT(seed)},
    {0}};
/* clang-format on */

void ht_settings_fill(const ht_setting *rows, void *options)
{
    for (const ht_setting *s = rows; s->name; s++) {
        void *at = (char *)options + s->at;
        if (s->type == HT_SETTING_TEXT && !*(const char **)at)
            *(const char **)at = s->text;
        if (s->type == HT_SETTING_INT && !*(int *)at)
            *(int *)at = (int)s->number;
        if (s->type == HT_SETTING_REAL && *(double *)at == 0)
            *(double *)at = s->number;
    }
}

/* JSON's whole numbers are signed: a larger seed is a text. */
static json_t *seed_json(uint64_t seed)
{
    return seed <= INT64_MAX ? json_integer((json_int_t)seed) : json_sprintf("%llu", (unsigned long long)seed);
}

static json_t *value_json(const ht_setting *s, const void *options)
{
    const void *at = (const char *)options + s->at;
    switch (s->type) {
    case HT_SETTING_TEXT:
        return *(const char *const *)at ? json_string(*(const char *const *)at) : json_null();
    case HT_SETTING_INT:
        return json_integer(*(const int *)at);
    case HT_SETTING_REAL:
        return json_real(*(const double *)at);
    case HT_SETTING_YES:
    case HT_SETTING_NO:
        return json_boolean((*(const int *)at != 0) == (s->type == HT_SETTING_YES));
    default:
        return seed_json(*(const uint64_t *)at);
    }
}

json_t *ht_settings_json(const ht_setting *rows, const void *options)
{
    json_t *object = json_object();
    for (const ht_setting *s = rows; object && s->name; s++)
        if (json_object_set_new(object, s->name, value_json(s, options))) {
            json_decref(object);
            object = NULL;
        }
    return object;
}

static bool is_sensible(const ht_setting *s, const json_t *value)
{
    double number = json_number_value(value);
    switch (s->type) {
    case HT_SETTING_TEXT:
        return json_is_string(value) && (!s->find || s->find(json_string_value(value)) >= 0);
    case HT_SETTING_INT:
        return json_is_integer(value) && number >= s->least && number <= s->most;
    case HT_SETTING_REAL:
        return json_is_number(value) && number >= s->least && number <= s->most;
    case HT_SETTING_YES:
    case HT_SETTING_NO:
        return json_is_boolean(value);
    default:
        return json_is_string(value) || (json_is_integer(value) && json_integer_value(value) >= 0);
    }
}

ht_status ht_settings_check_json(const ht_setting *rows, const json_t *object, const char *where)
{
    if (!json_is_object(object))
        return ht_fail(HT_ERR_FORMAT, "%s: its settings are no JSON object", where);
    for (const ht_setting *s = rows; s->name; s++) {
        const json_t *value = json_object_get(object, s->name);
        if (!value && s->optional)
            continue;
        if (!value)
            return ht_fail(HT_ERR_FORMAT, "%s: its settings do not say \"%s\"", where, s->name);
        if (!is_sensible(s, value))
            return ht_fail(HT_ERR_FORMAT, "%s: the \"%s\" of its settings makes no sense", where, s->name);
    }
    return HT_OK;
}

/* ---- what is asked for ---- */

static ht_status find_name(const char *what, int found, const char *name, const char *known)
{
    return found >= 0 ? HT_OK : ht_fail(HT_ERR_ARGUMENT, "no %s is called \"%s\"; there are %s", what, name, known);
}

static ht_status check_running(int batch, int threads)
{
    if (batch < 0 || batch > MAX_BATCH)
        return ht_fail(HT_ERR_ARGUMENT, "batch %d is out of range; wanted 1 to %d", batch, MAX_BATCH);
    if (threads < 0 || threads > MAX_THREADS)
        return ht_fail(HT_ERR_ARGUMENT, "threads %d is out of range; wanted 0 (all) to %d", threads, MAX_THREADS);
    return HT_OK;
}

ht_status ht_calibrate_check(const ht_calibrate_options *options)
{
    ht_calibrate_options o = *options;
    ht_settings_fill(ht_calibrate_settings, &o);
    ht_status status = find_name("distribution of timesteps", ht_distribution_find(o.distribution), o.distribution,
                                 "uniform, quad, normal, all, one");
    if (!status && o.spacing)
        status = find_name("spacing of timesteps", ht_spacing_find(o.spacing), o.spacing,
                           "leading, trailing, linspace, uniform, quad, adm");
    if (status)
        return status;
    if (o.steps < 1)
        return ht_fail(HT_ERR_ARGUMENT, "%d steps of the sampler; wanted 1 or more", o.steps);
    if (o.timesteps < 1 || o.per_step < 1 || (int64_t)o.timesteps * o.per_step > HT_MAX_CALIBRATION_SAMPLES)
        return ht_fail(HT_ERR_ARGUMENT, "%d timesteps of %d samples: wanted at least 1 of 1, and at most %d in all",
                       o.timesteps, o.per_step, HT_MAX_CALIBRATION_SAMPLES);
    if (!(o.guidance >= 0 && o.guidance <= 1000))
        return ht_fail(HT_ERR_ARGUMENT, "guidance %g; wanted 1 (none) to 1000, 0 for the default", o.guidance);
    return check_running(o.batch, o.threads);
}

static ht_status check_names(const ht_quantize_options *o)
{
    ht_status status = find_name("search for scales", ht_scale_method_find(o->scale), o->scale,
                                 "standard, minmax, percentile, mse, l2.4");
    if (!status)
        status = find_name("constraint of scales", ht_scale_powers_find(o->scale_powers), o->scale_powers,
                           "free, each, tensor");
    if (!status)
        status = find_name("format of softmax", ht_softmax_find(o->softmax), o->softmax, "float, uint16, uint8, log2");
    if (!status)
        status = find_name("observer", ht_scale_method_find(o->observer), o->observer, "minmax, percentile, mse, l2.4");
    if (!status)
        status = find_name("rounding", ht_rounding_find(o->rounding), o->rounding,
                           "nearest, gptq, descent, gptq+descent, adaround");
    return status;
}

static ht_status check_numbers(const ht_quantize_options *o)
{
    if (!(o->bits == 0 || o->bits == HT_BITS_LEAST || (o->bits >= 1 && o->bits <= 16)))
        return ht_fail(HT_ERR_ARGUMENT, "a budget of %g bits a weight; wanted 1 to 16", o->bits);
    if (o->groups < 0)
        return ht_fail(HT_ERR_ARGUMENT, "%d groups of timesteps; wanted 1 or more, 0 for all", o->groups);
    if (!(o->percentile >= 0 && o->percentile <= 100))
        return ht_fail(HT_ERR_ARGUMENT, "percentile %g; wanted above 0 and at most 100", o->percentile);
    if (!(o->smooth >= 0 && o->smooth <= 1))
        return ht_fail(HT_ERR_ARGUMENT, "smoothing with exponent %g; wanted above 0 and at most 1, 0 for none",
                       o->smooth);
    if (o->smooth > 0 && !o->dynamic && ht_scale_method_find(o->observer) != HT_SCALE_MINMAX)
        return ht_fail(HT_ERR_ARGUMENT,
                       "smoothed inputs have ranges by observer \"minmax\" alone, not \"%s\"; or make them dynamic",
                       o->observer);
    if (o->smooth > 0 && o->blocks)
        return ht_fail(HT_ERR_ARGUMENT,
                       "blocks of smoothed layers cannot be reconstructed; leave out blocks, or smooth");
    if (o->low_rank < 0 || o->low_rank > HT_MOST_RANK)
        return ht_fail(HT_ERR_ARGUMENT, "a branch of rank %d; wanted 1 to %d, 0 for none", o->low_rank, HT_MOST_RANK);
    if (o->low_rank && (o->blocks || o->couple))
        return ht_fail(HT_ERR_ARGUMENT, "%s of layers with a branch of low rank cannot be; leave out one of them",
                       o->blocks ? "reconstruction of blocks" : "coupled rounding");
    if (o->rotate && !ht_rotates(o->rotate))
        return ht_fail(HT_ERR_ARGUMENT, "rotation in groups of %d channels; wanted a power of 4 up to %d, 0 for none",
                       o->rotate, HT_MOST_ROTATED);
    if (o->rotate && o->blocks)
        return ht_fail(HT_ERR_ARGUMENT,
                       "blocks of rotated layers cannot be reconstructed; leave out blocks, or rotate");
    if (o->blocks < 0)
        return ht_fail(HT_ERR_ARGUMENT, "%d iterations of block reconstruction; wanted 1 or more, 0 for none",
                       o->blocks);
    if (o->calibration && o->prompts)
        return ht_fail(HT_ERR_ARGUMENT, "prompts are to calibrate with, and %s has its own; leave one of them out",
                       o->calibration);
    if (o->dynamic && o->no_split)
        return ht_fail(HT_ERR_ARGUMENT, "dynamic scales of a concatenation's inputs need a layer of two parts: leave "
                                        "out dynamic, or no_split");
    return check_running(o->batch, o->threads);
}

ht_status ht_quantize_check(const ht_quantize_options *options)
{
    ht_quantize_options o = *options;
    ht_scheme scheme;
    ht_settings_fill(ht_quantize_settings, &o);
    ht_status status = ht_scheme_make(&o, &scheme);
    if (!status)
        status = check_names(&o);
    if (!status)
        status = check_numbers(&o);
    if (!status && ht_scale_powers_find(o.scale_powers) != HT_POWERS_FREE && scheme.low.scale != HT_F32)
        status = ht_fail(HT_ERR_ARGUMENT,
                         "scale_powers \"%s\" of weights as %s, whose scales are %s already; wanted a "
                         "format with float32 scales, as fp4_e2m1",
                         o.scale_powers, scheme.low.name, ht_dtype_name(scheme.low.scale));
    if (!status && o.rotate && !o.dynamic && !scheme.float_inputs)
        status = ht_fail(HT_ERR_ARGUMENT, "rotated inputs have no ranges by timestep; make them dynamic, or float");
    if (!status && o.dynamic && !scheme.float_inputs && !scheme.input.asymmetric)
        status = ht_fail(HT_ERR_ARGUMENT, "dynamic scales of inputs as %s; wanted uint2 to uint8", scheme.input.name);
    return status;
}
