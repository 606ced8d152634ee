/* file.c - quantized layers in a safetensors file (docs/format.md).
 *
 * Names are those that ComfyUI and ModelOpt write: X.weight, X.weight_scale, X.weight_scale_2, X.input_scale,
 * X.pre_quant_scale, and a list of layers with their formats in the metadata `_quantization_metadata`.  What they have
 * no name for is ours: the second part of a split layer ends in `.1`, packed weights of 4 bits say their shape in the
 * list, input_zero_point and timesteps make a table of input_scale.
 *
 * A file lies in the order [out][in][taps] where codes are whole bytes, as every other program expects; in memory it is
 * [out][taps][in], as kernels walk it. */
#include "quant/file.h"

#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "core/json.h"
#include "quant/foreign.h"
#include "quant/low_rank.h"
#include "quant/rotate.h"

enum { MAX_GROUPS = 1024, MAX_INPUTS = 1 << 24 };

static const char *const list_name = "_quantization_metadata";

/* What other programs call a format of ours. */
static const struct {
    const char *theirs, *ours;
} aliases[] = {{"int8_tensorwise", "int8"}, {"float8_e4m3fn", "fp8_e4m3"}};

/* ---- reading ---- */

typedef struct reader {
    ht_arena *arena;
    const ht_safetensors *file;
    const char *path;
    ht_layer *layer; /* being read */
    bool foreign;    /* the list does not say its shape: another program wrote it */
    const float *timesteps;
    int n_timesteps;
} reader;

static const ht_tensor *find(const reader *r, int part, const char *what)
{
    char name[512];
    snprintf(name, sizeof name, "%s.%s%s", r->layer->name, what, part ? ".1" : "");
    return ht_safetensors_find(r->file, name);
}

static ht_status fail_tensor(const reader *r, int part, const char *what, const char *words)
{
    return ht_fail(HT_ERR_FORMAT, "%s.%s%s: %s", r->layer->name, what, part ? ".1" : "", words);
}

/* count float32 of a tensor that has as many, or one for all if `broadcast`. */
static ht_status read_floats(const reader *r, int part, const char *what, size_t count, bool broadcast, float **out)
{
    const ht_tensor *t = find(r, part, what);
    float *values = t ? ht_alloc_array(r->arena, count, sizeof *values) : NULL;
    if (!t)
        return fail_tensor(r, part, what, "is missing");
    if (!values)
        return HT_ERR_MEMORY;
    if (t->dtype != HT_F32 || (t->count != count && !(broadcast && t->count == 1)))
        return fail_tensor(r, part, what, "wants one float32 for each block of weights or group of timesteps");
    ht_convert_to_f32(t->dtype, t->data, 0, t->count, values);
    for (size_t i = 1; t->count == 1 && i < count; i++)
        values[i] = values[0];
    *out = values;
    return HT_OK;
}

/* What codes are stored as. */
static ht_dtype dtype_of(const ht_format *format)
{
    return format->grid.bits == 4 ? HT_U8 : format->grid.exponent_bits ? HT_F8_E4M3 : HT_I8;
}

/* Two codes of 4 bits a byte, rows one after the other; else the shape of the layer's part. */
static bool has_shape(const ht_tensor *t, const ht_layer *layer, int p, const ht_format_sizes *sizes)
{
    int64_t shape[4];
    memcpy(shape, layer->shape, sizeof shape);
    shape[1] = layer->format.grid.bits == 4 ? (int64_t)sizes->row_bytes : layer->part[p].count;
    int ndim = layer->format.grid.bits == 4 ? 2 : layer->ndim;
    return t->ndim == ndim && !memcmp(t->shape, shape, (size_t)ndim * sizeof *shape);
}

/* [out][in][taps] to [out][taps][in] and, `back`, the other way. */
static void turn(const ht_matrix *m, size_t taps, bool back, const uint8_t *from, uint8_t *to)
{
    size_t channels = m->in / taps;
    for (size_t n = 0; n < m->out; n++)
        for (size_t tap = 0; tap < taps; tap++)
            for (size_t i = 0; i < channels; i++) {
                size_t file = (n * channels + i) * taps + tap, memory = (n * taps + tap) * channels + i;
                if (back)
                    to[file] = from[memory];
                else
                    to[memory] = from[file];
            }
}

/* NVFP4 of ComfyUI, known by its scales. */
static bool is_tiled(const reader *r, int p, const ht_format_sizes *sizes)
{
    const ht_tensor *t = find(r, p, "weight_scale");
    return r->foreign && r->layer->format.scale == HT_F8_E4M3 && t &&
           ht_foreign_is_tiled(t->count, (size_t)ht_layer_outputs(r->layer), sizes->blocks);
}

static ht_status read_codes(const reader *r, int p, const ht_matrix *m, const ht_format_sizes *sizes)
{
    ht_layer_part *part = &r->layer->part[p];
    const ht_tensor *t = find(r, p, "weight");
    size_t taps = (size_t)ht_layer_taps(r->layer);
    if (!t)
        return fail_tensor(r, p, "weight", "is missing");
    if (t->dtype != dtype_of(&r->layer->format) || t->bytes != sizes->code_bytes || !has_shape(t, r->layer, p, sizes))
        return fail_tensor(r, p, "weight", "has not the type and shape that its format asks for");
    part->weight.codes = (uint8_t *)(uintptr_t)t->data; /* only read */
    bool tiled = is_tiled(r, p, sizes);
    if (!tiled && (taps == 1 || r->layer->format.grid.bits == 4))
        return HT_OK;
    part->weight.codes = ht_alloc(r->arena, sizes->code_bytes);
    if (!part->weight.codes)
        return HT_ERR_MEMORY;
    if (tiled)
        ht_foreign_swap_nibbles(t->data, sizes->code_bytes, part->weight.codes);
    else
        turn(m, taps, false, t->data, part->weight.codes);
    return HT_OK;
}

static ht_status read_scales(const reader *r, int p, const ht_format_sizes *sizes)
{
    ht_quantized *q = &r->layer->part[p].weight;
    const ht_tensor *t = find(r, p, "weight_scale");
    float *values = NULL;
    q->tensor_scale = 1;
    if (r->layer->format.scale == HT_F32) {
        ht_status status = read_floats(r, p, "weight_scale", sizes->scale_count, true, &values);
        q->scales = values;
        return status;
    }
    bool tiled = is_tiled(r, p, sizes);
    if (!t || (t->dtype != r->layer->format.scale && t->dtype != HT_U8) || (!tiled && t->bytes != sizes->scale_bytes))
        return fail_tensor(r, p, "weight_scale", "is missing, or has not the type and shape that its format asks for");
    q->scales = tiled ? ht_alloc(r->arena, sizes->scale_bytes) : (void *)(uintptr_t)t->data;
    if (!q->scales)
        return HT_ERR_MEMORY;
    if (tiled)
        ht_foreign_untile(t->data, (size_t)ht_layer_outputs(r->layer), sizes->blocks, q->scales);
    if (r->layer->format.scale != HT_F8_E4M3)
        return HT_OK;
    ht_status status = read_floats(r, p, "weight_scale_2", 1, false, &values);
    q->tensor_scale = status ? 1 : values[0];
    return status;
}

static ht_status read_table(const reader *r, int p)
{
    ht_input_table *t = &r->layer->part[p].input;
    const ht_tensor *scale = find(r, p, "input_scale");
    float *step = NULL, *zero = NULL;
    t->groups = scale && scale->count > 1 ? r->n_timesteps : 1;
    t->timesteps = t->groups > 1 ? r->timesteps : NULL;
    ht_status status = read_floats(r, p, "input_scale", (size_t)t->groups, false, &step);
    if (!status && r->layer->input.asymmetric)
        status = read_floats(r, p, "input_zero_point", (size_t)t->groups, false, &zero);
    else if (!status && !(zero = ht_alloc_array(r->arena, (size_t)t->groups, sizeof *zero)))
        status = HT_ERR_MEMORY;
    t->step = step;
    t->zero = zero;
    return status;
}

/* ModelOpt's smoothing: of the model's type. */
static ht_status read_smooth(const reader *r, int p)
{
    ht_layer_part *part = &r->layer->part[p];
    const ht_tensor *t = find(r, p, "pre_quant_scale");
    if (!t)
        return HT_OK;
    if ((t->dtype != HT_F32 && t->dtype != HT_F16 && t->dtype != HT_BF16) || t->count != (size_t)part->count)
        return fail_tensor(r, p, "pre_quant_scale", "wants a float for each input channel");
    float *values = ht_alloc_array(r->arena, t->count, sizeof *values);
    if (!values)
        return HT_ERR_MEMORY;
    ht_convert_to_f32(t->dtype, t->data, 0, t->count, values);
    part->smooth = values;
    return HT_OK;
}

static ht_status read_part(const reader *r, int p)
{
    ht_format_sizes sizes;
    ht_matrix m = ht_layer_matrix(r->layer, p);
    ht_status status = ht_format_measure(&r->layer->format, &m, &sizes);
    if (!status)
        status = read_codes(r, p, &m, &sizes);
    if (!status)
        status = read_scales(r, p, &sizes);
    if (!status && r->layer->mode == HT_INPUT_STATIC)
        status = read_table(r, p);
    if (!status)
        status = read_smooth(r, p);
    return status;
}

static ht_status read_format(const char *name, ht_format *format)
{
    for (size_t i = 0; i < sizeof aliases / sizeof *aliases; i++)
        if (!strcmp(name, aliases[i].theirs))
            name = aliases[i].ours;
    return ht_format_find(name, format);
}

/* That of the tensor: of bytes, or of two codes a byte of a linear map. */
static void infer_shape(const ht_tensor *t, ht_layer *layer)
{
    bool packed = layer->format.grid.bits == 4;
    if (t->ndim > 4 || (packed && t->ndim != 2))
        return;
    layer->ndim = t->ndim;
    memcpy(layer->shape, t->shape, (size_t)t->ndim * sizeof *t->shape);
    if (packed && layer->shape[1] <= MAX_INPUTS)
        layer->shape[1] *= 2;
}

/* The shape in the list; without one what the tensor says of it. */
static ht_status read_shape(reader *r, ht_json *j)
{
    int shape[4];
    const ht_tensor *t = find(r, 0, "weight");
    ht_layer *layer = r->layer;
    layer->ndim = ht_json_ints(j, "shape", shape, 4, 1, MAX_INPUTS);
    if (j->status)
        return j->status;
    for (int i = 0; i < layer->ndim; i++)
        layer->shape[i] = shape[i];
    r->foreign = !layer->ndim;
    if (r->foreign && t)
        infer_shape(t, layer);
    for (int i = 0; i < layer->ndim; i++)
        if (layer->shape[i] < 1 || layer->shape[i] > MAX_INPUTS)
            return fail_tensor(r, 0, "weight", "its shape is out of range");
    if (layer->ndim != 2 && layer->ndim != 4)
        return fail_tensor(r, 0, "weight", "wants a shape of 2 or 4 dimensions");
    if (ht_layer_taps(layer) > 64 * 64 || ht_layer_inputs(layer) * ht_layer_taps(layer) > MAX_INPUTS)
        return fail_tensor(r, 0, "weight", "has too many inputs");
    return HT_OK;
}

/* A branch of low rank has both its tensors. */
static ht_status read_branch(const reader *r)
{
    ht_layer *layer = r->layer;
    const ht_tensor *down = find(r, 0, "low_rank_down"), *up = find(r, 0, "low_rank_up");
    if (!down && !up)
        return HT_OK;
    if (!down || !up)
        return fail_tensor(r, 0, down ? "low_rank_up" : "low_rank_down", "is missing");
    if (down->dtype != HT_F16 || down->ndim != layer->ndim || down->shape[0] < 1 || down->shape[0] > HT_MOST_RANK ||
        memcmp(down->shape + 1, layer->shape + 1, (size_t)(layer->ndim - 1) * sizeof *down->shape) != 0)
        return fail_tensor(r, 0, "low_rank_down", "wants float16 [rank,in] or [rank,in,k,k], as its weight is");
    if (up->dtype != HT_F16 || up->ndim != 2 || up->shape[0] != ht_layer_outputs(layer) ||
        up->shape[1] != down->shape[0])
        return fail_tensor(r, 0, "low_rank_up", "wants float16 [out,rank]");
    uint16_t *halves[2] = {ht_alloc_array(r->arena, down->count, 2), ht_alloc_array(r->arena, up->count, 2)};
    if (!halves[0] || !halves[1])
        return HT_ERR_MEMORY;
    memcpy(halves[0], down->data, down->bytes); /* which need not be aligned */
    memcpy(halves[1], up->data, up->bytes);
    layer->rank = (int)down->shape[0];
    layer->down = halves[0];
    layer->up = halves[1];
    return HT_OK;
}

static ht_status read_parts(const reader *r, ht_json *j)
{
    int split[2];
    ht_layer *layer = r->layer;
    int n = ht_json_ints(j, "split", split, 2, 1, MAX_INPUTS);
    if (j->status)
        return j->status;
    if (n == 1)
        return ht_fail(HT_ERR_FORMAT, "%s: split wants the channels of two parts", j->where);
    layer->parts = n == 2 ? 2 : 1;
    layer->part[0].count = n == 2 ? split[0] : ht_layer_inputs(layer);
    layer->part[1].begin = layer->part[0].count;
    layer->part[1].count = n == 2 ? split[1] : 0;
    ht_status status = HT_OK;
    for (int p = 0; !status && p < layer->parts; p++)
        status = read_part(r, p);
    return status;
}

/* What inputs can become: codes with a zero point, or floats, with one scale. */
static bool is_input(const ht_format *f)
{
    return !f->block && f->scale == HT_F32 && (f->asymmetric || f->grid.exponent_bits);
}

static ht_status read_layer(reader *r, const json_t *object)
{
    ht_layer *layer = r->layer;
    const char *where = ht_sprintf(r->arena, "%s of %s", layer->name, list_name);
    ht_json j = {.object = object, .where = where};
    static const char *const modes[] = {"float", "static", "dynamic", NULL};
    const char *format = ht_json_string(&j, "format", NULL), *input = ht_json_string(&j, "input", NULL);
    layer->mode = (ht_input_mode)ht_json_choice(&j, "input_mode", HT_INPUT_FLOAT, modes);
    layer->error = ht_json_real(&j, "error", -1);
    if (json_is_true(json_object_get(object, "convrot")))
        layer->rotate = ht_json_int(&j, "convrot_groupsize", 256, 4, HT_MOST_ROTATED);
    if (!where)
        return HT_ERR_MEMORY;
    if (j.status)
        return j.status;
    if (!format)
        return ht_fail(HT_ERR_FORMAT, "%s: format is missing", where);
    ht_status status = read_format(format, &layer->format);
    if (!status && layer->mode != HT_INPUT_FLOAT && !input)
        return ht_fail(HT_ERR_FORMAT, "%s: input is missing", where);
    if (!status && layer->mode != HT_INPUT_FLOAT)
        status = read_format(input, &layer->input);
    if (status)
        return ht_fail_in(HT_ERR_UNSUPPORTED, "%s", where);
    if (layer->format.simulated)
        return ht_fail(HT_ERR_UNSUPPORTED, "%s: weights as %s can only be simulated; no file holds them", where,
                       layer->format.name);
    if (layer->mode != HT_INPUT_FLOAT && !is_input(&layer->input))
        return ht_fail(HT_ERR_UNSUPPORTED, "%s: inputs as %s; this version takes uint2 to uint8 and floats", where,
                       layer->input.name);
    status = read_shape(r, &j);
    if (!status)
        status = read_parts(r, &j);
    if (!status)
        status = read_branch(r);
    return status ? status : ht_layer_check(layer);
}

static ht_status read_timesteps(reader *r, const json_t *list)
{
    ht_json j = {.object = list, .where = list_name};
    double *values = malloc(MAX_GROUPS * sizeof *values);
    float *timesteps = ht_alloc_array(r->arena, MAX_GROUPS, sizeof *timesteps);
    if (!values || !timesteps) {
        free(values);
        return HT_ERR_MEMORY;
    }
    r->n_timesteps = ht_json_reals(&j, "timesteps", values, MAX_GROUPS);
    for (int i = 0; i < r->n_timesteps; i++)
        timesteps[i] = (float)values[i];
    r->timesteps = timesteps;
    free(values);
    return j.status;
}

/* Of every attention; absent: floats. */
static ht_status read_softmax(const json_t *list, ht_softmax_format *softmax)
{
    ht_json j = {.object = list, .where = list_name};
    const char *name = ht_json_string(&j, "softmax", ht_softmax_name(HT_SOFTMAX_FLOAT));
    if (j.status)
        return j.status;
    int which = ht_softmax_find(name);
    if (which < 0)
        return ht_fail(HT_ERR_UNSUPPORTED, "softmax of %s is \"%.64s\", which this version does not know", list_name,
                       name);
    *softmax = (ht_softmax_format)which;
    return HT_OK;
}

static ht_status read_list(reader *r, const json_t *list, ht_layers *layers)
{
    const json_t *version = json_object_get(list, "format_version");
    if (version && (!json_is_string(version) || strncmp(json_string_value(version), "1.", 2) != 0))
        return ht_fail(HT_ERR_UNSUPPORTED, "%s has another format_version than \"1.0\"", list_name);
    const json_t *object = json_object_get(list, "layers");
    size_t n = json_object_size(object), i = 0;
    ht_layer *all = ht_alloc_array(r->arena, n + 1, sizeof *all);
    ht_softmax_format softmax = HT_SOFTMAX_FLOAT;
    ht_status status = all ? read_timesteps(r, list) : HT_ERR_MEMORY;
    if (!status)
        status = read_softmax(list, &softmax);
    if (!status && object && !json_is_object(object))
        return ht_fail(HT_ERR_FORMAT, "layers of %s is not an object", list_name);
    for (void *it = json_object_iter((json_t *)(uintptr_t)object); !status && it;
         it = json_object_iter_next((json_t *)(uintptr_t)object, it), i++) {
        r->layer = &all[i];
        if (!(all[i].name = ht_strdup(r->arena, json_object_iter_key(it))))
            return HT_ERR_MEMORY;
        if (!json_is_object(json_object_iter_value(it)))
            return ht_fail(HT_ERR_FORMAT, "%s of %s is not an object", all[i].name, list_name);
        status = read_layer(r, json_object_iter_value(it));
    }
    if (status)
        return status;
    *layers = (ht_layers){all, (int)n, softmax};
    return HT_OK;
}

ht_status ht_layers_read(ht_arena *arena, const ht_safetensors *file, ht_layers *layers)
{
    const char *text = ht_safetensors_metadata(file, list_name);
    reader r = {.arena = arena, .file = file, .path = ht_safetensors_path(file)};
    json_t *list = NULL;
    *layers = (ht_layers){0};
    const char *label = ht_sprintf(arena, "%s: %s", r.path, list_name);
    ht_status status = label ? HT_OK : HT_ERR_MEMORY;
    if (!status)
        status = text ? ht_json_parse_strict(text, strlen(text), label, &list) : ht_foreign_list(file, &list);
    if (!status && !list)
        return HT_OK;
    if (!status && (status = read_list(&r, list, layers)))
        status = ht_fail_in(status == HT_ERR_SHAPE ? HT_ERR_FORMAT : status, "%s", r.path);
    json_decref(list);
    return status;
}

/* ---- writing ---- */

typedef struct writer {
    ht_arena *arena;
    ht_tensor *tensors;
    size_t n;
    bool failed; /* out of memory */
} writer;

static void put(writer *w, const ht_layer *layer, int part, const char *what, const ht_tensor *t)
{
    ht_tensor *to = &w->tensors[w->n++];
    *to = *t;
    to->name = ht_sprintf(w->arena, "%s.%s%s", layer->name, what, part ? ".1" : "");
    to->count = 1;
    for (int i = 0; i < t->ndim; i++)
        to->count *= (size_t)t->shape[i];
    to->bytes = to->count * (size_t)ht_dtype_bits(t->dtype) / 8;
    w->failed |= !to->name;
}

static void put_weight(writer *w, const ht_layer *layer, int p)
{
    const ht_quantized *q = &layer->part[p].weight;
    ht_matrix m = ht_layer_matrix(layer, p);
    ht_format_sizes sizes;
    const uint8_t *codes = q->codes;
    bool bytes = layer->format.grid.bits != 4;
    if (ht_format_measure(&layer->format, &m, &sizes)) {
        w->failed = true;
        return;
    }
    if (bytes && ht_layer_taps(layer) > 1) {
        uint8_t *turned = ht_alloc(w->arena, sizes.code_bytes);
        if (turned)
            turn(&m, (size_t)ht_layer_taps(layer), true, q->codes, turned);
        w->failed |= !turned;
        codes = turned;
    }
    ht_tensor t = {
        .dtype = bytes ? HT_I8 : HT_U8, .data = codes, .ndim = 2, .shape = {(int64_t)m.out, (int64_t)sizes.row_bytes}};
    if (bytes && layer->format.grid.exponent_bits)
        t.dtype = HT_F8_E4M3;
    if (bytes) {
        t.ndim = layer->ndim;
        memcpy(t.shape, layer->shape, sizeof layer->shape);
        t.shape[1] = layer->part[p].count;
    }
    put(w, layer, p, "weight", &t);
    put(w, layer, p, "weight_scale",
        &(ht_tensor){.dtype = layer->format.scale,
                     .data = q->scales,
                     .ndim = 2,
                     .shape = {(int64_t)m.out, (int64_t)sizes.blocks}});
    if (layer->format.scale == HT_F8_E4M3)
        put(w, layer, p, "weight_scale_2", &(ht_tensor){.dtype = HT_F32, .data = &q->tensor_scale});
}

static void put_table(writer *w, const ht_layer *layer, int p)
{
    const ht_input_table *t = &layer->part[p].input;
    ht_tensor row = {.dtype = HT_F32, .data = t->step, .ndim = 1, .shape = {t->groups}};
    put(w, layer, p, "input_scale", &row);
    row.data = t->zero;
    if (layer->input.asymmetric)
        put(w, layer, p, "input_zero_point", &row);
}

static void put_branch(writer *w, const ht_layer *layer)
{
    ht_tensor down = {.dtype = HT_F16, .data = layer->down, .ndim = layer->ndim};
    memcpy(down.shape, layer->shape, sizeof layer->shape);
    down.shape[0] = layer->rank;
    put(w, layer, 0, "low_rank_down", &down);
    put(w, layer, 0, "low_rank_up",
        &(ht_tensor){.dtype = HT_F16, .data = layer->up, .ndim = 2, .shape = {layer->shape[0], layer->rank}});
}

static json_t *entry_of(const ht_layer *layer)
{
    json_t *e = json_pack("{s:s}", "format", layer->format.name), *shape = json_array();
    for (int i = 0; i < layer->ndim; i++)
        json_array_append_new(shape, json_integer(layer->shape[i]));
    json_object_set_new(e, "shape", shape);
    if (layer->parts == 2)
        json_object_set_new(e, "split",
                            json_pack("[I,I]", (json_int_t)layer->part[0].count, (json_int_t)layer->part[1].count));
    if (layer->mode != HT_INPUT_FLOAT) {
        json_object_set_new(e, "input", json_string(layer->input.name));
        json_object_set_new(e, "input_mode", json_string(ht_input_mode_name(layer->mode)));
    }
    if (layer->rotate) {
        json_object_set_new(e, "convrot", json_true());
        json_object_set_new(e, "convrot_groupsize", json_integer(layer->rotate));
    }
    if (layer->error >= 0)
        json_object_set_new(e, "error", json_real(layer->error));
    return e;
}

/* The timesteps that all tables share. */
static json_t *timesteps_of(const ht_layers *layers)
{
    json_t *list = json_array();
    for (int i = 0; i < layers->n; i++) {
        const ht_input_table *t = &layers->layer[i].part[0].input;
        if (layers->layer[i].mode != HT_INPUT_STATIC || t->groups < 2)
            continue;
        for (int k = 0; k < t->groups; k++)
            json_array_append_new(list, json_real((double)t->timesteps[k]));
        break;
    }
    return list;
}

ht_status ht_layers_write(ht_arena *arena, const ht_layers *layers, ht_tensor *tensors, size_t *n,
                          const char **metadata)
{
    writer w = {.arena = arena, .tensors = tensors};
    json_t *list = json_pack("{s:s}", "format_version", "1.0"), *entries = json_object();
    for (int i = 0; i < layers->n; i++) {
        const ht_layer *layer = &layers->layer[i];
        json_object_set_new(entries, layer->name, entry_of(layer));
        if (layer->rank)
            put_branch(&w, layer);
        for (int p = 0; p < layer->parts; p++) {
            put_weight(&w, layer, p);
            if (layer->mode == HT_INPUT_STATIC)
                put_table(&w, layer, p);
            if (layer->part[p].smooth)
                put(&w, layer, p, "pre_quant_scale",
                    &(ht_tensor){
                        .dtype = HT_F32, .data = layer->part[p].smooth, .ndim = 1, .shape = {layer->part[p].count}});
        }
    }
    json_t *timesteps = timesteps_of(layers);
    if (json_array_size(timesteps))
        json_object_set(list, "timesteps", timesteps);
    json_decref(timesteps);
    if (layers->softmax)
        json_object_set_new(list, "softmax", json_string(ht_softmax_name((int)layers->softmax)));
    json_object_set_new(list, "layers", entries);
    char *text = json_dumps(list, JSON_COMPACT | JSON_REAL_PRECISION(9));
    *metadata = text ? ht_strdup(arena, text) : NULL;
    *n = w.n;
    free(text);
    json_decref(list);
    if (!*metadata || w.failed)
        return ht_fail(HT_ERR_MEMORY, "out of memory for %d quantized layers", layers->n);
    return HT_OK;
}
