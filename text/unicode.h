/* unicode.h - what tokenizers need of Unicode: code points of UTF-8, canonical composition, kinds of characters, lower
 * case.  The tables are utf8proc's. */
#ifndef HT_TEXT_UNICODE_H
#define HT_TEXT_UNICODE_H

#include <stdbool.h>
#include <stdint.h>

#include "core/error.h"

/* A list of code points that grows; {0} is empty. */
typedef struct ht_points {
    int32_t *at;
    size_t n, cap;
} ht_points;

void ht_points_free(ht_points *points);

/* Decode UTF-8.  HT_ERR_ARGUMENT names the offset of the first byte that is not: a stray byte, an overlong form, a
 * surrogate, a sequence that is cut off.  base is what offsets in the message begin at. */
ht_status ht_points_decode(ht_points *points, const char *text, size_t size, size_t base);

/* Normalization Form C of `in`, in time that is linear in its length whatever it holds. */
ht_status ht_points_compose(const ht_points *in, ht_points *out);

/* Room for `more` further points. */
ht_status ht_points_reserve(ht_points *points, size_t more);

bool ht_is_letter(int32_t point); /* \p{L} */
bool ht_is_number(int32_t point); /* \p{N} */
bool ht_is_space(int32_t point);  /* White_Space: not U+180E and not U+200B */

/* Lower case without regard to what stands around (no final sigma); writes one or two points, returns how many. */
int ht_lower(int32_t point, int32_t to[2]);

/* Whether an extended grapheme cluster ends between two neighbours (Standard Annex 29).  state: 0 at the start of a
 * text, carried from pair to pair. */
bool ht_grapheme_ends(int32_t before, int32_t after, int32_t *state);

/* 1 to 4 bytes of UTF-8; returns how many. */
int ht_utf8_encode(int32_t point, unsigned char to[4]);

#endif
