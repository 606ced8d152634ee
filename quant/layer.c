/* layer.c - what can be said of a quantized layer without knowing its model. */
#include "quant/layer.h"

#include <math.h>
#include <string.h>

#include "quant/rotate.h"

static const char *const mode_names[] = {"float", "static", "dynamic"};

const char *ht_input_mode_name(ht_input_mode mode)
{
    return mode_names[mode];
}

int ht_input_mode_find(const char *name)
{
    for (int i = 0; i < 3; i++)
        if (!strcmp(name, mode_names[i]))
            return i;
    return -1;
}

/* ---- names ---- */

static const ht_layer *find(const ht_layers *layers, const char *name, size_t length)
{
    for (int i = 0; layers && i < layers->n; i++)
        if (!strncmp(layers->layer[i].name, name, length) && !layers->layer[i].name[length])
            return &layers->layer[i];
    return NULL;
}

const ht_layer *ht_layers_find(const ht_layers *layers, const char *name)
{
    return find(layers, name, strlen(name));
}

size_t ht_layer_name_length(const char *weight)
{
    static const char end[] = ".weight";
    size_t n = strlen(weight), m = sizeof end - 1;
    return n > m && !strcmp(weight + n - m, end) ? n - m : n;
}

const ht_layer *ht_layers_of_weight(const ht_layers *layers, const char *weight)
{
    size_t n = ht_layer_name_length(weight);
    return weight[n] ? find(layers, weight, n) : NULL;
}

/* ---- shapes ---- */

int64_t ht_layer_outputs(const ht_layer *layer)
{
    return layer->shape[0];
}

int64_t ht_layer_inputs(const ht_layer *layer)
{
    return layer->shape[1];
}

int64_t ht_layer_taps(const ht_layer *layer)
{
    return layer->ndim == 4 ? layer->shape[2] * layer->shape[3] : 1;
}

ht_matrix ht_layer_matrix(const ht_layer *layer, int p)
{
    return (ht_matrix){.name = layer->name,
                       .out = (size_t)ht_layer_outputs(layer),
                       .in = (size_t)(layer->part[p].count * ht_layer_taps(layer))};
}

/* ---- numbers ---- */

bool ht_grid_is_integer(const ht_grid *grid)
{
    return grid->highest / grid->unit <= 127 && grid->lowest / grid->unit >= -128;
}

bool ht_layer_is_integer(const ht_layer *layer)
{
    return layer->mode != HT_INPUT_FLOAT && !layer->input.grid.exponent_bits && !layer->format.asymmetric &&
           ht_grid_is_integer(&layer->format.grid);
}

static float value_at(const ht_layer *layer, const ht_layer_part *part, size_t row, size_t k)
{
    size_t in = (size_t)(part->count * ht_layer_taps(layer)),
           block = layer->format.block ? (size_t)layer->format.block : in;
    size_t row_bytes = layer->format.grid.bits == 4 ? (in + 1) / 2 : in;
    const uint8_t *codes = part->weight.codes + row * row_bytes;
    uint8_t code = layer->format.grid.bits == 4 ? (uint8_t)(codes[k / 2] >> k % 2 * 4 & 15) : codes[k];
    ht_block b = ht_format_block(&layer->format, &part->weight, row * (in / block) + k / block);
    return ht_grid_decode(&b.grid, code) * b.scale;
}

void ht_layer_values(const ht_layer *layer, size_t first, size_t n, float *values)
{
    size_t taps = (size_t)ht_layer_taps(layer), in = (size_t)ht_layer_inputs(layer);
    for (size_t i = 0; i < n; i++) {
        size_t at = first + i, row = at / (in * taps), channel = at / taps % in, tap = at % taps;
        const ht_layer_part *part = &layer->part[layer->parts == 2 && (int64_t)channel >= layer->part[1].begin];
        values[i] = value_at(layer, part, row, tap * (size_t)part->count + channel - (size_t)part->begin);
    }
}

int ht_input_group(const ht_input_table *table, float timestep)
{
    int best = 0;
    for (int i = 1; i < table->groups; i++)
        if (fabsf(table->timesteps[i] - timestep) < fabsf(table->timesteps[best] - timestep))
            best = i;
    return best;
}

double ht_layer_bits(const ht_layer *layer)
{
    double bits =
               16.0 * layer->rank * (double)(ht_layer_outputs(layer) + ht_layer_inputs(layer) * ht_layer_taps(layer)),
           weights = 0;
    for (int p = 0; p < layer->parts; p++) {
        ht_matrix m = ht_layer_matrix(layer, p);
        ht_format_sizes sizes;
        if (ht_format_measure(&layer->format, &m, &sizes))
            return 0;
        bits += layer->part[p].smooth ? 32 * (double)layer->part[p].count : 0;
        bits += 8 * (double)(sizes.code_bytes + sizes.scale_bytes);
        weights += (double)(m.out * m.in);
    }
    return bits / weights;
}

/* ---- checks ---- */

static ht_status check_table(const ht_layer *layer, const ht_input_table *t)
{
    float levels = layer->input.asymmetric ? layer->input.grid.highest : 0;
    if (t->groups < 1 || (t->groups > 1 && !t->timesteps))
        return ht_fail(HT_ERR_FORMAT, "%s: an input scale for %d groups of timesteps", layer->name, t->groups);
    for (int i = 0; i < t->groups; i++) {
        if (!(t->step[i] >= 0x1p-126f && t->step[i] <= 0x1p126f))
            return ht_fail(HT_ERR_FORMAT, "%s: input scale %d is %g; a number from %.3g to %.3g is wanted", layer->name,
                           i, (double)t->step[i], 0x1p-126, 0x1p126);
        if (!(t->zero[i] >= 0 && t->zero[i] <= levels && t->zero[i] == rintf(t->zero[i])))
            return ht_fail(HT_ERR_FORMAT, "%s: the input's zero point %d is %g; a whole number of 0 to %g is wanted",
                           layer->name, i, (double)t->zero[i], (double)levels);
        if (t->groups > 1 && !isfinite(t->timesteps[i]))
            return ht_fail(HT_ERR_FORMAT, "%s: timestep %d of the input's table is not a number", layer->name, i);
    }
    return HT_OK;
}

static ht_status check_smooth(const ht_layer *layer, const ht_layer_part *part)
{
    for (int64_t i = 0; part->smooth && i < part->count; i++)
        if (!(part->smooth[i] >= 0x1p-64f && part->smooth[i] <= 0x1p64f))
            return ht_fail(HT_ERR_FORMAT, "%s: pre_quant_scale %lld is %g; a number from %.3g to %.3g is wanted",
                           layer->name, (long long)i, (double)part->smooth[i], 0x1p-64, 0x1p64);
    return HT_OK;
}

static ht_status check_halves(const ht_layer *layer, const char *what, const uint16_t *x, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        if (!isfinite(ht_f32_from_f16(x[i])))
            return ht_fail(HT_ERR_FORMAT, "%s: number %lld of %s is not finite", layer->name, (long long)i, what);
    return HT_OK;
}

static ht_status check_branch(const ht_layer *layer)
{
    ht_status status =
        check_halves(layer, "low_rank_down", layer->down, layer->rank * ht_layer_inputs(layer) * ht_layer_taps(layer));
    return status ? status : check_halves(layer, "low_rank_up", layer->up, layer->rank * ht_layer_outputs(layer));
}

static ht_status check_rotation(const ht_layer *layer)
{
    for (int p = 0; layer->rotate && p < layer->parts; p++)
        if (!ht_rotates(layer->rotate) || layer->part[p].count % layer->rotate)
            return ht_fail(HT_ERR_FORMAT,
                           "%s: rotated in groups of %d; wanted a power of 4 up to %d that divides its %lld channels",
                           layer->name, layer->rotate, HT_MOST_ROTATED, (long long)layer->part[p].count);
    return HT_OK;
}

ht_status ht_layer_check(const ht_layer *layer)
{
    int64_t at = 0;
    ht_status status = HT_OK;
    if (layer->mode != HT_INPUT_FLOAT && !layer->input.grid.exponent_bits && !ht_layer_is_integer(layer))
        return ht_fail(HT_ERR_UNSUPPORTED,
                       "%s: weights as %s with inputs as %s; integer inputs want weights that are whole "
                       "numbers of 8 bits",
                       layer->name, layer->format.name, layer->input.name);
    for (int p = 0; !status && p < layer->parts; p++) {
        const ht_layer_part *part = &layer->part[p];
        ht_matrix m = ht_layer_matrix(layer, p);
        if (part->begin != at || part->count < 1)
            return ht_fail(HT_ERR_FORMAT, "%s: its parts do not follow one another", layer->name);
        at += part->count;
        status = ht_format_check(&layer->format, &part->weight, &m);
        if (!status && layer->mode == HT_INPUT_STATIC)
            status = check_table(layer, &part->input);
        if (!status)
            status = check_smooth(layer, part);
    }
    if (!status)
        status = check_branch(layer);
    if (!status)
        status = check_rotation(layer);
    if (!status && at != ht_layer_inputs(layer))
        return ht_fail(HT_ERR_FORMAT, "%s: its parts cover %lld of %lld input channels", layer->name, (long long)at,
                       (long long)ht_layer_inputs(layer));
    return status;
}
