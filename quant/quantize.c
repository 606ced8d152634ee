/* quantize.c - weights to codes and back: packing, and slow, plain loops that define what kernels compute with. */
#include "quant/format.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- packing ---- */

void ht_codes_pack(const ht_format *format, size_t n, const uint8_t *codes, uint8_t *row)
{
    if (format->grid.bits != 4) {
        memcpy(row, codes, n);
        return;
    }
    for (size_t i = 0; i + 1 < n; i += 2)
        row[i / 2] = (uint8_t)((codes[i] & 15) | codes[i + 1] << 4);
    if (n % 2)
        row[n / 2] = codes[n - 1] & 15;
}

void ht_codes_unpack(const ht_format *format, size_t n, const uint8_t *row, uint8_t *codes)
{
    if (format->grid.bits != 4) {
        memcpy(codes, row, n);
        return;
    }
    for (size_t i = 0; i < n; i++)
        codes[i] = i % 2 ? row[i / 2] >> 4 : row[i / 2] & 15;
}

/* ---- blocks ---- */

ht_block ht_format_block(const ht_format *format, const ht_quantized *q, size_t i)
{
    ht_block block = {format->grid, 0};
    ht_convert_to_f32(format->scale, q->scales, i, 1, &block.scale);
    block.scale *= q->tensor_scale;
    if (format->asymmetric)
        block.grid = ht_grid_with_zero(&format->grid, q->zeros[i]);
    return block;
}

/* ---- weights ---- */

ht_status ht_format_encode(const ht_format *format, const ht_matrix *matrix, ht_quantized *q)
{
    ht_format_sizes sizes;
    ht_status status = ht_format_measure(format, matrix, &sizes);
    if (status)
        return status;
    uint8_t *codes = malloc(matrix->in); /* a row, a byte each */
    if (!codes)
        return ht_fail(HT_ERR_MEMORY, "%s: out of memory for a row of %zu codes", matrix->name, matrix->in);
    size_t block = matrix->in / sizes.blocks;
    for (size_t row = 0; row < matrix->out; row++) {
        const float *w = matrix->values + row * matrix->in;
        for (size_t i = 0; i < sizes.blocks; i++) {
            ht_block b = ht_format_block(format, q, row * sizes.blocks + i);
            ht_grid_encode_array(&b.grid, b.scale, block, w + i * block, codes + i * block);
        }
        ht_codes_pack(format, matrix->in, codes, q->codes + row * sizes.row_bytes);
    }
    free(codes);
    return HT_OK;
}

ht_status ht_format_quantize(const ht_format *format, const ht_matrix *matrix, const ht_scale_options *options,
                             ht_quantized *q)
{
    ht_status status = ht_format_scales(format, matrix, options, q);
    return status ? status : ht_format_encode(format, matrix, q);
}

ht_status ht_format_dequantize(const ht_format *format, const ht_quantized *q, const ht_matrix *shape, float *values)
{
    ht_format_sizes sizes;
    ht_status status = ht_format_measure(format, shape, &sizes);
    if (status)
        return status;
    uint8_t *codes = malloc(shape->in);
    if (!codes)
        return ht_fail(HT_ERR_MEMORY, "%s: out of memory for a row of %zu codes", shape->name, shape->in);
    float value[256] = {0};
    for (int code = 0; code < 1 << format->grid.bits; code++)
        value[code] = ht_grid_decode(&format->grid, (uint8_t)code);
    size_t block = shape->in / sizes.blocks;
    for (size_t row = 0; row < shape->out; row++) {
        float *w = values + row * shape->in;
        ht_codes_unpack(format, shape->in, q->codes + row * sizes.row_bytes, codes);
        for (size_t i = 0; i < shape->in; i += block) {
            ht_block b = ht_format_block(format, q, row * sizes.blocks + i / block);
            for (size_t k = i; k < i + block; k++)
                w[k] = (value[codes[k]] - (float)b.grid.zero) * b.scale;
        }
    }
    free(codes);
    return HT_OK;
}

/* ---- what files must satisfy ---- */

static ht_status check_scales(const ht_format *format, const ht_quantized *q, const ht_matrix *shape, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        float scale = ht_format_block(format, q, i).scale;
        if (!isfinite(scale)) /* 0 is fine: other tools write it for blocks of zeros */
            return ht_fail(HT_ERR_FORMAT, "%s: scale %zu of %zu is %g; a finite number is wanted", shape->name, i, n,
                           (double)scale);
    }
    if (format->asymmetric && format->grid.bits < 8)
        for (size_t i = 0; i < n; i++)
            if (q->zeros[i] >> format->grid.bits)
                return ht_fail(HT_ERR_FORMAT, "%s: zero point %zu of %zu is %d, above the codes of %s", shape->name, i,
                               n, q->zeros[i], format->name);
    return HT_OK;
}

static ht_status check_codes(const ht_format *format, const ht_quantized *q, const ht_matrix *shape, size_t n)
{
    bool is_code[256] = {false}; /* a byte of two codes: all are */
    for (unsigned byte = 0; byte < 256; byte++)
        is_code[byte] = format->grid.bits == 4 ||
                        (byte >> format->grid.bits == 0 && !isnan(ht_grid_decode(&format->grid, (uint8_t)byte)));
    for (size_t i = 0; i < n; i++)
        if (!is_code[q->codes[i]])
            return ht_fail(HT_ERR_FORMAT, "%s: byte %zu of the codes is 0x%02x, which is no number in %s", shape->name,
                           i, q->codes[i], format->name);
    return HT_OK;
}

ht_status ht_format_check(const ht_format *format, const ht_quantized *q, const ht_matrix *shape)
{
    ht_format_sizes sizes;
    ht_status status = ht_format_measure(format, shape, &sizes);
    if (!status)
        status = check_scales(format, q, shape, sizes.scale_count);
    if (!status)
        status = check_codes(format, q, shape, sizes.code_bytes);
    return status;
}
