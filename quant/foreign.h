/* foreign.h - how other programs lay out what has the names of quant/file.h. */
#ifndef HT_QUANT_FOREIGN_H
#define HT_QUANT_FOREIGN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <jansson.h>

#include "core/safetensors.h"

/* Whether this many scales are [rows][columns] in tiles. */
bool ht_foreign_is_tiled(size_t count, size_t rows, size_t columns);

/* out[rows][columns] from tiles. */
void ht_foreign_untile(const uint8_t *tiles, size_t rows, size_t columns, uint8_t *out);

/* Two codes a byte, high nibble first, to low nibble first. */
void ht_foreign_swap_nibbles(const uint8_t *from, size_t bytes, uint8_t *to);

/* The list of layers that ComfyUI writes as a tensor for each, X.comfy_quant, the text of a JSON object; NULL: there
 * are none.  HT_ERR_FORMAT names the tensor that is no such text. */
ht_status ht_foreign_list(const ht_safetensors *file, json_t **list);

#endif
