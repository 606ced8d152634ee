/* foreign.c - NVFP4 as ComfyUI stores it, which is what Blackwell's tensor cores read: scales of a block in tiles of
 * 128 rows by 4 columns (padded with zeros), inside a tile the byte of row r and column c at (r % 32) * 16 + r / 32 * 4
 * + c (cuBLAS documentation, "1D block scaling factors layout"); codes with the high nibble first. */
#include "quant/foreign.h"

#include <string.h>

#include "core/json.h"

enum { TILE_ROWS = 128, TILE_COLUMNS = 4, TILE = TILE_ROWS * TILE_COLUMNS };

static size_t tiles_of(size_t n, size_t tile)
{
    return n / tile + (n % tile != 0);
}

bool ht_foreign_is_tiled(size_t count, size_t rows, size_t columns)
{
    return count / TILE == tiles_of(rows, TILE_ROWS) * tiles_of(columns, TILE_COLUMNS) && count % TILE == 0;
}

void ht_foreign_untile(const uint8_t *tiles, size_t rows, size_t columns, uint8_t *out)
{
    size_t across = tiles_of(columns, TILE_COLUMNS);
    for (size_t row = 0; row < rows; row++)
        for (size_t column = 0; column < columns; column++) {
            size_t tile = row / TILE_ROWS * across + column / TILE_COLUMNS, r = row % TILE_ROWS;
            out[row * columns + column] = tiles[tile * TILE + r % 32 * 16 + r / 32 * 4 + column % TILE_COLUMNS];
        }
}

void ht_foreign_swap_nibbles(const uint8_t *from, size_t bytes, uint8_t *to)
{
    for (size_t i = 0; i < bytes; i++)
        to[i] = (uint8_t)(from[i] << 4 | from[i] >> 4);
}

ht_status ht_foreign_list(const ht_safetensors *file, json_t **list)
{
    static const char end[] = ".comfy_quant";
    json_t *layers = NULL;
    ht_status status = HT_OK;
    for (size_t i = 0; !status && i < ht_safetensors_count(file); i++) {
        const ht_tensor *t = ht_safetensors_at(file, i);
        size_t n = strlen(t->name), stem = n > sizeof end - 1 ? n - (sizeof end - 1) : 0;
        json_t *entry = NULL;
        if (!stem || strcmp(t->name + stem, end) != 0)
            continue;
        if (t->dtype != HT_U8 || t->bytes > 4096)
            status = ht_fail(HT_ERR_FORMAT, "%s is not the text of a format", t->name);
        if (!status)
            status = ht_json_parse_strict(t->data, t->bytes, t->name, &entry);
        layers = layers ? layers : json_object();
        char name[512] = "";
        memcpy(name, t->name, stem < sizeof name ? stem : sizeof name - 1);
        if (!status)
            json_object_set_new(layers, name, entry);
    }
    *list = layers && !status ? json_pack("{s:o}", "layers", layers) : NULL;
    if (!status)
        return HT_OK;
    json_decref(layers);
    return ht_fail_in(HT_ERR_FORMAT, "%s", ht_safetensors_path(file));
}
