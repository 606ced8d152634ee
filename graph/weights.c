/* weights.c - a checkpoint's tensors by name, and the binding of a block's struct to them.
 *
 * Tensors are copied (the views, not the data) under the names that the model code uses and sorted by them.  Each
 * remembers whether a layer asked for it, so that a checkpoint of another model is noticed even when all the names that
 * were asked for are there. */
#include "graph/weights.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { LONGEST_NAME = 256, LONGEST_SHAPE = 192 };

typedef struct entry {
    ht_tensor tensor;      /* under its new name */
    const char *file_name; /* what the checkpoint calls it */
    bool quantized;
    bool bound;
} entry;

struct ht_weights {
    const char *path;
    entry *entries; /* sorted by tensor.name */
    size_t count;
    int64_t parameters, bytes;
    ht_status status;
    char message[1024]; /* of the first error: later failures of the thread must not replace it */
};

static ht_status keep_error(ht_weights *w, ht_status status)
{
    w->status = status;
    snprintf(w->message, sizeof w->message, "%s", ht_error_message());
    return status;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const entry *)a)->tensor.name, ((const entry *)b)->tensor.name);
}

static entry *find(const ht_weights *w, const char *name)
{
    entry key = {.tensor.name = name};
    return w->count ? bsearch(&key, w->entries, w->count, sizeof key, by_name) : NULL;
}

static ht_status refuse_duplicates(const ht_weights *w)
{
    for (size_t i = 1; i < w->count; i++)
        if (!by_name(&w->entries[i - 1], &w->entries[i]))
            return ht_fail(HT_ERR_FORMAT, "%s: %s and %s are two names of the same tensor, %s; one of them must go",
                           w->path, w->entries[i - 1].file_name, w->entries[i].file_name, w->entries[i].tensor.name);
    return HT_OK;
}

ht_status ht_weights_open(ht_arena *arena, const ht_safetensors *file, ht_rename rename, const void *context,
                          ht_weights **out)
{
    size_t n = ht_safetensors_count(file);
    ht_weights *w = ht_alloc(arena, sizeof *w);
    if (!w || !(w->path = ht_strdup(arena, ht_safetensors_path(file))) ||
        !(w->entries = ht_alloc_array(arena, n, sizeof *w->entries)))
        return HT_ERR_MEMORY;
    for (size_t i = 0; i < n; i++) {
        const ht_tensor *t = ht_safetensors_at(file, i);
        const char *name = rename ? rename(arena, t->name, context) : t->name;
        if (!name)
            continue;
        entry *e = &w->entries[w->count++];
        e->tensor = *t;
        e->tensor.name = name;
        e->file_name = t->name;
    }
    if (w->count)
        qsort(w->entries, w->count, sizeof *w->entries, by_name);
    ht_status status = refuse_duplicates(w);
    if (!status)
        *out = w;
    return status;
}

/* The layer that a tensor belongs to: NAME.weight, NAME.weight_scale, ... but not NAME.bias. */
static const ht_layer *owner(const ht_layers *layers, const char *name)
{
    for (int i = 0; i < layers->n; i++) {
        size_t n = strlen(layers->layer[i].name);
        if (!strncmp(name, layers->layer[i].name, n) && name[n] == '.' && strcmp(name + n, ".bias") != 0)
            return &layers->layer[i];
    }
    return NULL;
}

void ht_weights_set_layers(ht_weights *w, const ht_layers *layers)
{
    for (size_t i = 0; i < w->count; i++) {
        entry *e = &w->entries[i];
        const ht_layer *layer = owner(layers, e->tensor.name);
        if (!layer)
            continue;
        size_t stored = e->tensor.bytes;
        e->bound = true;
        e->quantized = !strcmp(e->tensor.name + strlen(layer->name), ".weight");
        w->bytes += (int64_t)stored;
        if (!e->quantized)
            continue;
        e->tensor.ndim = layer->ndim;
        memcpy(e->tensor.shape, layer->shape, sizeof layer->shape);
        e->tensor.count = 1;
        for (int d = 0; d < layer->ndim; d++)
            e->tensor.count *= (size_t)layer->shape[d];
        w->parameters += (int64_t)e->tensor.count;
        e->bound = false; /* until the model asks for it */
    }
}

/* ---- binding ---- */

/* What a layer can compute with.  Integers are codes of a quantization: without their scales they are not weights. */
static bool is_real(ht_dtype dtype)
{
    return dtype == HT_F16 || dtype == HT_BF16 || dtype == HT_F32 || dtype == HT_F64 || dtype == HT_F8_E4M3 ||
           dtype == HT_F8_E5M2;
}

static bool same_shape(const ht_tensor *t, int ndim, const int64_t *shape)
{
    return t->ndim == ndim && (!ndim || !memcmp(t->shape, shape, (size_t)ndim * sizeof *shape));
}

static const char *shape_text(char text[LONGEST_SHAPE], int ndim, const int64_t *shape)
{
    size_t at = (size_t)snprintf(text, LONGEST_SHAPE, "[");
    for (int i = 0; i < ndim; i++)
        at += (size_t)snprintf(text + at, LONGEST_SHAPE - at, "%s%lld", i ? "," : "", (long long)shape[i]);
    snprintf(text + at, LONGEST_SHAPE - at, "]");
    return text;
}

static ht_status check(const ht_weights *w, const entry *e, int ndim, const int64_t *shape)
{
    const ht_tensor *t = &e->tensor;
    char found[LONGEST_SHAPE], wanted[LONGEST_SHAPE], renamed[LONGEST_NAME + 32] = "";
    if (strcmp(t->name, e->file_name))
        snprintf(renamed, sizeof renamed, " (%.*s in the file)", LONGEST_NAME, e->file_name);
    if (!is_real(t->dtype) && !e->quantized)
        return ht_fail(HT_ERR_UNSUPPORTED,
                       "%s: %s%s is of type %s; a weight must be F64, F32, F16, BF16, F8_E4M3 or F8_E5M2", w->path,
                       t->name, renamed, ht_dtype_name(t->dtype));
    if (!same_shape(t, ndim, shape))
        return ht_fail(HT_ERR_SHAPE, "%s: %s%s is %s, config.json asks for %s", w->path, t->name, renamed,
                       shape_text(found, t->ndim, t->shape), shape_text(wanted, ndim, shape));
    return HT_OK;
}

/* Any of the n shapes will do; the first is the one that a message asks for. */
static const ht_tensor *bind(ht_weights *w, const char *name, int n, const int *ndims, const int64_t *const *shapes)
{
    entry *e = find(w, name);
    int which = 0;
    if (!e) {
        keep_error(w, ht_fail(HT_ERR_SHAPE, "%s: %s is missing, config.json asks for it", w->path, name));
        return NULL;
    }
    for (int i = 1; i < n; i++)
        if (same_shape(&e->tensor, ndims[i], shapes[i]))
            which = i;
    ht_status status = check(w, e, ndims[which], shapes[which]);
    if (status) {
        keep_error(w, status);
        return NULL;
    }
    if (!e->bound && !e->quantized) {
        w->parameters += (int64_t)e->tensor.count;
        w->bytes += (int64_t)e->tensor.bytes;
    }
    e->bound = true;
    return &e->tensor;
}

/* PREFIX.LEAF, cut if too long (no tensor is found then, and the message says which). */
static const char *join(char name[LONGEST_NAME], const char *leaf, const char *prefix, va_list args)
{
    int n = vsnprintf(name, LONGEST_NAME, prefix, args);
    if (n >= 0 && n < LONGEST_NAME)
        snprintf(name + n, (size_t)(LONGEST_NAME - n), "%s", leaf);
    return name;
}

static const ht_tensor *bind_one(ht_weights *w, const char *name, int ndim, const int64_t *shape)
{
    return w->status ? NULL : bind(w, name, 1, &ndim, &shape);
}

/* The bias that a weight's name implies, or the error that there is one too many. */
static const ht_tensor *bind_bias(ht_weights *w, char name[LONGEST_NAME], int64_t out, bool wanted)
{
    size_t stem = strlen(name) - strlen(".weight");
    if (w->status)
        return NULL;
    snprintf(name + stem, LONGEST_NAME - stem, ".bias");
    if (wanted)
        return bind_one(w, name, 1, &out);
    if (find(w, name))
        keep_error(w, ht_fail(HT_ERR_SHAPE, "%s: %s is there, config.json asks for a layer without", w->path, name));
    return NULL;
}

void ht_bind_linear(ht_weights *w, ht_linear_weights *layer, int64_t in, int64_t out, bool bias, const char *prefix,
                    ...)
{
    char name[LONGEST_NAME];
    va_list args;
    va_start(args, prefix);
    join(name, ".weight", prefix, args);
    va_end(args);
    *layer = (ht_linear_weights){0};
    if (w->status)
        return;
    /* A 1x1 convolution is the same matrix: original DDPM and LDM store attention's projections so. */
    layer->weight = bind(w, name, 2, (const int[]){2, 4},
                         (const int64_t *const[]){(const int64_t[]){out, in}, (const int64_t[]){out, in, 1, 1}});
    layer->bias = bind_bias(w, name, out, bias);
}

void ht_bind_conv(ht_weights *w, ht_conv_weights *layer, int64_t in, int64_t out, int kernel, bool bias,
                  const char *prefix, ...)
{
    char name[LONGEST_NAME];
    va_list args;
    va_start(args, prefix);
    join(name, ".weight", prefix, args);
    va_end(args);
    *layer = (ht_conv_weights){0};
    layer->weight = bind_one(w, name, 4, (const int64_t[]){out, in, kernel, kernel});
    layer->bias = bind_bias(w, name, out, bias);
}

void ht_bind_norm(ht_weights *w, ht_norm_weights *layer, int64_t channels, const char *prefix, ...)
{
    char name[LONGEST_NAME];
    va_list args;
    va_start(args, prefix);
    join(name, ".weight", prefix, args);
    va_end(args);
    *layer = (ht_norm_weights){0};
    layer->weight = bind_one(w, name, 1, &channels);
    layer->bias = bind_bias(w, name, channels, true);
}

const ht_tensor *ht_bind_tensor(ht_weights *w, int ndim, const int64_t *shape, const char *name, ...)
{
    char full[LONGEST_NAME];
    va_list args;
    va_start(args, name);
    join(full, "", name, args);
    va_end(args);
    const entry *e = w->status ? NULL : find(w, full);
    if (e && e->quantized) {
        keep_error(w, ht_fail(HT_ERR_UNSUPPORTED, "%s: %s is quantized; only linear maps and convolutions can be",
                              w->path, full));
        return NULL;
    }
    return bind_one(w, full, ndim, shape);
}

bool ht_weights_has(const ht_weights *w, const char *name)
{
    return find(w, name) != NULL;
}

/* ---- the end ---- */

ht_status ht_weights_finish(ht_weights *w)
{
    const entry *first = NULL;
    size_t unbound = 0;
    if (w->status)
        return ht_fail(w->status, "%s", w->message);
    for (size_t i = w->count; i-- > 0;)
        if (!w->entries[i].bound) {
            first = &w->entries[i];
            unbound++;
        }
    if (!unbound)
        return HT_OK;
    return ht_fail(HT_ERR_SHAPE, "%s: config.json has no place for %s (%zu such tensor%s): it is of another model",
                   w->path, first->file_name, unbound, unbound == 1 ? "" : "s");
}

size_t ht_weights_count(const ht_weights *w)
{
    return w->count;
}

const ht_tensor *ht_weights_at(const ht_weights *w, size_t i)
{
    return &w->entries[i].tensor;
}

int64_t ht_weights_parameters(const ht_weights *w)
{
    return w->parameters;
}

int64_t ht_weights_bytes(const ht_weights *w)
{
    return w->bytes;
}
