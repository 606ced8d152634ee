/* fuzz_safetensors.c - any bytes as a safetensors file: refused with a message, or views that tile the data. */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include "core/safetensors.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size);

static void check_tensor(const ht_safetensors *st, size_t i, const uint8_t *bytes, size_t size)
{
    const ht_tensor *t = ht_safetensors_at(st, i);
    const uint8_t *data = t->data;
    size_t count = 1, n;
    float out[64];
    for (int k = 0; k < t->ndim; k++)
        count *= (size_t)t->shape[k];
    if (data < bytes || data > bytes + size || t->bytes > (size_t)(bytes + size - data) || count != t->count ||
        t->bytes * 8 != count * (size_t)ht_dtype_bits(t->dtype) || ht_safetensors_find(st, t->name) != t)
        abort();
    n = count < 64 ? count : 64;
    ht_convert_to_f32(t->dtype, data, count - n, n, out);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    ht_safetensors *st = NULL;
    size_t total = 0;
    if (ht_safetensors_parse(bytes, size, "fuzz", &st) != HT_OK) {
        if (st || !*ht_error_message())
            abort();
        return 0;
    }
    for (size_t i = 0; i < ht_safetensors_count(st); i++) {
        check_tensor(st, i, bytes, size);
        total += ht_safetensors_at(st, i)->bytes;
    }
    if (total > size)
        abort();
    ht_safetensors_metadata(st, "format");
    ht_safetensors_close(st);
    return 0;
}
