/* fuzz_layers.c - any bytes as a safetensors file with quantized layers: refused with a message, or layers that can be
 * read to the last weight and written again. */
#include <math.h>
#include <stdint.h>
#include <stdlib.h>

#include "quant/file.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size);

static void check_layer(const ht_layer *layer)
{
    size_t n = (size_t)(ht_layer_outputs(layer) * ht_layer_inputs(layer) * ht_layer_taps(layer));
    float values[64];
    size_t count = n < 64 ? n : 64;
    if (ht_layer_check(layer) || !(ht_layer_bits(layer) >= 4))
        abort();
    ht_layer_values(layer, 0, count, values);
    ht_layer_values(layer, n - count, count, values);
    for (size_t i = 0; i < count; i++)
        if (isnan(values[i])) /* a scale times a code may be infinite */
            abort();
    for (int p = 0; p < layer->parts && layer->mode == HT_INPUT_STATIC; p++) {
        int row = ht_input_group(&layer->part[p].input, 500);
        if (row < 0 || row >= layer->part[p].input.groups || !(layer->part[p].input.step[row] > 0))
            abort();
    }
}

static void write_again(ht_arena *arena, const ht_layers *layers)
{
    size_t n = 0;
    const char *list;
    ht_tensor *tensors = ht_alloc_array(arena, HT_LAYER_TENSORS * (size_t)layers->n + 1, sizeof *tensors);
    if (!tensors || ht_layers_write(arena, layers, tensors, &n, &list) || n > HT_LAYER_TENSORS * (size_t)layers->n)
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    ht_safetensors *file = NULL;
    ht_layers layers;
    ht_arena *arena = ht_arena_create();
    if (!arena || ht_safetensors_parse(bytes, size, "fuzz", &file))
        goto done;
    if (ht_layers_read(arena, file, &layers)) {
        if (layers.n || !*ht_error_message())
            abort();
        goto done;
    }
    for (int i = 0; i < layers.n; i++)
        check_layer(&layers.layer[i]);
    write_again(arena, &layers);
done:
    ht_safetensors_close(file);
    ht_arena_free(arena);
    return 0;
}
