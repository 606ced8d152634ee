/* scheme.c - schemes and layer sets, a table each.
 *
 *     default   first and last layer as they are (0.04 % of the weights; x_t through an 8-bit conv_in costs 15 dB);
 *               what depends on the timestep alone in 8-bit weights, computed in float once a schedule; all else at the
 *               scheme's width, but for what calib/choose.c gives more
 *     all       every layer, as Q-Diffusion's code does
 *     tfmq      what TFMQ-DM's code quantizes: not first and last, shortcuts, downsampling and the first layer behind
 *               the sinusoids; weights only of the second one there and of the first block's first convolution */
#include "calib/scheme.h"

#include <stdio.h>
#include <string.h>

static const struct {
    const char *name, *weights, *wide, *input, *words;
} schemes[] = {
    {"w4a8", "int4,fp4_e2m1", "int8", "uint8", "4-bit weights (int4 or FP4 E2M1, a layer), 8-bit inputs"},
    {"w8a8", "int8", "int8", "uint8", "8-bit integer weights and inputs"},
    {"w4a32", "int4,fp4_e2m1", "int8", "float", "4-bit weights, inputs as they are"},
    {"w8a32", "int8", "int8", "float", "8-bit integer weights, inputs as they are"},
    {"w4a6", "int4,fp4_e2m1", "int8", "uint6", "4-bit weights, inputs of 6 bits (simulated in 8)"},
    {"w4a4", "int4,fp4_e2m1", "int8", "uint4", "4-bit weights, inputs of 4 bits (simulated in 8)"},
    {"fp8", "fp8_e4m3", "fp8_e4m3", "fp8_e4m3",
     "FP8 E4M3 weights and inputs (simulated on the CPU: multiplied in float32)"},
    {"fp4", "fp4_e2m1", "fp8_e4m3", "fp8_e4m3",
     "FP4 E2M1 weights, FP8 E4M3 inputs (simulated on the CPU: multiplied in float32)"},
    {"fp4a8", "fp4_e2m1", "int8", "uint8", "FP4 E2M1 weights, 8-bit integer inputs"},
    {"mxfp4", "mxfp4", "int8", "uint8", "MXFP4 weights, 8-bit integer inputs"},
    {"nvfp4", "nvfp4", "int8", "uint8", "NVFP4 weights, 8-bit integer inputs"},
    {"nvint4", "nvint4", "int8", "uint8", "NVINT4 weights, 8-bit integer inputs"},
};

enum { SCHEMES = sizeof schemes / sizeof *schemes };

/* A scale an output is a scale for 576 weights, in a last layer of three outputs; with one for 64, the CIFAR-10 model's
 * errs by a third of that. */
static const char FINE[] = "int4_g64";

static const char *const layer_sets[] = {"default", "all", "tfmq"};
static const char *const temporals[HT_TEMPORALS] = {"cache", "quantized", "select"};

const char *ht_scheme_name(int i, const char **words)
{
    if (i < 0 || i >= SCHEMES)
        return NULL;
    if (words)
        *words = schemes[i].words;
    return schemes[i].name;
}

static ht_status find(const char *what, const char *name, const char *const *names, int n, int *found)
{
    char known[128] = "";
    size_t used = 0;
    for (int i = 0; i < n; i++) {
        if (!strcmp(name, names[i])) {
            *found = i;
            return HT_OK;
        }
        used += (size_t)snprintf(known + used, sizeof known - used, "%s%s", i ? ", " : "", names[i]);
    }
    return ht_fail(HT_ERR_ARGUMENT, "no %s is called \"%s\"; there are %s", what, name, known);
}

static ht_status find_input(const char *name, ht_scheme *s)
{
    s->float_inputs = !strcmp(name, "float");
    if (s->float_inputs)
        return HT_OK;
    ht_status status = ht_format_find(name, &s->input);
    if (status)
        return status;
    if (s->input.block || s->input.scale != HT_F32 || (!s->input.asymmetric && !s->input.grid.exponent_bits))
        return ht_fail(HT_ERR_ARGUMENT, "inputs as %s: wanted uint2 to uint8, a float format as fp8_e4m3, or float",
                       name);
    return HT_OK;
}

/* Integer inputs want weights that are whole numbers. */
static ht_status check_integers(ht_scheme *s)
{
    if (s->float_inputs || s->input.grid.exponent_bits)
        return HT_OK;
    for (int i = -1; i < s->n_other; i++) {
        const ht_format *f = i < 0 ? &s->low : &s->other[i];
        if (!ht_grid_is_integer(&f->grid))
            return ht_fail(HT_ERR_ARGUMENT,
                           "weights as %s with inputs as %s; integer inputs want weights that are whole numbers of "
                           "8 bits, as int8, int4 or fp4_e2m1",
                           f->name, s->input.name);
    }
    return ht_grid_is_integer(&s->wide.grid) ? HT_OK : ht_format_find("int8", &s->wide);
}

static bool as_large(const ht_format *a, const ht_format *b)
{
    return a->grid.bits == b->grid.bits && a->block == b->block && a->scale == b->scale;
}

/* One more format to try; all take as many bits, so that error alone decides. */
static ht_status add_weights(const char *name, size_t length, ht_scheme *s, int *n)
{
    char text[sizeof s->low.name] = "";
    ht_format found;
    if (*n > HT_OTHERS)
        return ht_fail(HT_ERR_ARGUMENT, "more than %d formats of weights to try", HT_OTHERS + 1);
    memcpy(text, name, length < sizeof text ? length : sizeof text - 1); /* what is cut is the name of no format */
    ht_status status = ht_format_find(text, &found);
    if (status)
        return status;
    if (found.simulated)
        return ht_fail(HT_ERR_ARGUMENT, "weights as %s can only be simulated; no file holds them", found.name);
    if (*n && !as_large(&s->low, &found))
        return ht_fail(HT_ERR_ARGUMENT,
                       "weights as %s or %s: formats to choose from want as many bits, blocks and scales alike",
                       s->low.name, found.name);
    *(*n ? &s->other[s->n_other++] : &s->low) = found;
    ++*n;
    return HT_OK;
}

/* "fp4_e2m1", or several with commas between. */
static ht_status find_weights(const char *names, ht_scheme *s)
{
    ht_status status = HT_OK;
    int n = 0;
    for (const char *at = names; !status; at += strcspn(at, ",") + 1) {
        status = add_weights(at, strcspn(at, ","), s, &n);
        if (!at[strcspn(at, ",")])
            break;
    }
    return status;
}

ht_status ht_scheme_make(const ht_quantize_options *o, ht_scheme *s)
{
    const char *names[SCHEMES];
    int row = 0, set = 0, temporal = 0;
    for (int i = 0; i < SCHEMES; i++)
        names[i] = schemes[i].name;
    ht_status status = find("scheme", o->scheme ? o->scheme : "w4a8", names, SCHEMES, &row);
    if (!status)
        status = find("set of layers", o->layers ? o->layers : "default", layer_sets, 3, &set);
    if (!status)
        status = find("way to keep temporal features", o->temporal ? o->temporal : "cache", temporals, HT_TEMPORALS,
                      &temporal);
    if (status)
        return status;
    *s = (ht_scheme){.layers = layer_sets[set], .temporal = (ht_temporal)temporal};
    status = find_weights(o->weights ? o->weights : schemes[row].weights, s);
    if (!status && !o->weights && s->n_other)
        status = ht_format_find(FINE, &s->fine);
    if (!status)
        status = ht_format_find(schemes[row].wide, &s->wide);
    if (!status)
        status = find_input(o->inputs ? o->inputs : schemes[row].input, s);
    return status ? status : check_integers(s);
}

static ht_choice choose_tfmq(const ht_model_product *p)
{
    bool stays = p->role != HT_ROLE_PLAIN && p->role != HT_ROLE_TEMPORAL && p->role != HT_ROLE_CONDITION;
    return (ht_choice){.width = stays ? HT_WIDTH_FLOAT : HT_WIDTH_LOW, .float_input = p->first_after || p->after_first};
}

ht_choice ht_scheme_choice(const ht_scheme *s, const ht_model_product *p)
{
    ht_choice c = {.width = HT_WIDTH_LOW, .may_widen = true};
    if (!strcmp(s->layers, "tfmq"))
        c = choose_tfmq(p);
    else if (!strcmp(s->layers, "all"))
        c.may_widen = false;
    else if (p->role == HT_ROLE_FIRST || p->role == HT_ROLE_LAST)
        c = (ht_choice){.width = HT_WIDTH_FLOAT};
    else if (p->role == HT_ROLE_CONDITION || (ht_product_is_temporal(p) && s->temporal == HT_TEMPORAL_CACHE))
        c = (ht_choice){.width = HT_WIDTH_WIDE, .float_input = true};
    else if (ht_product_is_temporal(p))
        c = (ht_choice){.width = HT_WIDTH_LOW, .may_cache = s->temporal == HT_TEMPORAL_SELECT};
    c.float_input |= s->float_inputs;
    return c;
}
