/* unicode.c - code points, composition, kinds of characters.
 *
 * Normalization: Unicode Standard Annex 15.  utf8proc decomposes and composes; putting marks in order between the two
 * is done here, because its own exchange sort takes quadratic time on a long run of marks, and prompts come from
 * outside. */
#include "text/unicode.h"

#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

#include "core/arena.h"

enum { MOST_PARTS = 8, CLASSES = 256, DOTTED_CAPITAL_I = 0x130, DOT_ABOVE = 0x307 };

void ht_points_free(ht_points *points)
{
    free(points->at);
    *points = (ht_points){0};
}

ht_status ht_points_reserve(ht_points *points, size_t more)
{
    size_t wanted, bytes;
    if (more <= points->cap - points->n)
        return HT_OK;
    if (!ht_add_size(points->cap, points->cap / 2, &wanted) || !ht_add_size(wanted, more, &wanted) ||
        !ht_mul_size(wanted, sizeof *points->at, &bytes))
        return ht_fail(HT_ERR_MEMORY, "out of memory for a text");
    int32_t *at = realloc(points->at, bytes);
    if (!at)
        return ht_fail(HT_ERR_MEMORY, "out of memory for a text of %zu characters", points->n);
    points->at = at;
    points->cap = wanted;
    return HT_OK;
}

ht_status ht_points_decode(ht_points *points, const char *text, size_t size, size_t base)
{
    ht_status status = ht_points_reserve(points, size);
    for (size_t i = 0; !status && i < size;) {
        size_t left = size - i;
        utf8proc_ssize_t n = utf8proc_iterate((const utf8proc_uint8_t *)text + i, left < 4 ? (utf8proc_ssize_t)left : 4,
                                              points->at + points->n);
        if (n <= 0)
            return ht_fail(HT_ERR_ARGUMENT, "the text is not UTF-8: byte 0x%02x at offset %zu", (unsigned char)text[i],
                           base + i);
        points->n++;
        i += (size_t)n;
    }
    return status;
}

/* ---- composition ---- */

static int class_of(int32_t point)
{
    return utf8proc_get_property(point)->combining_class;
}

/* Stable order by combining class: a counting sort. */
static void order_marks(int32_t *marks, size_t n, int32_t *scratch)
{
    size_t begin[CLASSES + 1] = {0};
    for (size_t i = 0; i < n; i++)
        begin[class_of(marks[i]) + 1]++;
    for (int c = 0; c < CLASSES; c++)
        begin[c + 1] += begin[c];
    for (size_t i = 0; i < n; i++)
        scratch[begin[class_of(marks[i])]++] = marks[i];
    memcpy(marks, scratch, n * sizeof *marks);
}

/* Every run of marks (points whose class is not 0) on its own. */
static ht_status order_all_marks(ht_points *points)
{
    int32_t *scratch = NULL;
    for (size_t i = 0, end; i < points->n; i = end) {
        end = i + 1;
        if (!class_of(points->at[i]))
            continue;
        while (end < points->n && class_of(points->at[end]))
            end++;
        if (end - i < 2)
            continue;
        if (!scratch && !(scratch = malloc(points->n * sizeof *scratch)))
            return ht_fail(HT_ERR_MEMORY, "out of memory for a text of %zu characters", points->n);
        order_marks(points->at + i, end - i, scratch);
    }
    free(scratch);
    return HT_OK;
}

ht_status ht_points_compose(const ht_points *in, ht_points *out)
{
    ht_status status = HT_OK;
    out->n = 0;
    for (size_t i = 0; !status && i < in->n; i++) {
        int boundary = 0;
        if ((status = ht_points_reserve(out, MOST_PARTS)))
            break;
        utf8proc_ssize_t n = utf8proc_decompose_char(in->at[i], out->at + out->n, MOST_PARTS,
                                                     UTF8PROC_STABLE | UTF8PROC_DECOMPOSE, &boundary);
        if (n < 0 || n > MOST_PARTS)
            return ht_fail(HT_ERR_ARGUMENT, "the text has a character that cannot be decomposed, U+%04X",
                           (unsigned)in->at[i]);
        out->n += (size_t)n;
    }
    if (!status)
        status = order_all_marks(out);
    if (!status && out->n) {
        utf8proc_ssize_t n =
            utf8proc_normalize_utf32(out->at, (utf8proc_ssize_t)out->n, UTF8PROC_STABLE | UTF8PROC_COMPOSE);
        if (n < 0)
            return ht_fail(HT_ERR_ARGUMENT, "the text cannot be normalized: %s", utf8proc_errmsg(n));
        out->n = (size_t)n;
    }
    return status;
}

/* ---- kinds ---- */

bool ht_is_letter(int32_t point)
{
    utf8proc_category_t c = utf8proc_category(point);
    return c >= UTF8PROC_CATEGORY_LU && c <= UTF8PROC_CATEGORY_LO;
}

bool ht_is_number(int32_t point)
{
    utf8proc_category_t c = utf8proc_category(point);
    return c >= UTF8PROC_CATEGORY_ND && c <= UTF8PROC_CATEGORY_NO;
}

bool ht_is_space(int32_t point)
{
    utf8proc_category_t c = utf8proc_category(point);
    return (point >= '\t' && point <= '\r') || point == 0x85 ||
           (c >= UTF8PROC_CATEGORY_ZS && c <= UTF8PROC_CATEGORY_ZP);
}

/* The one character whose lower case is always two (SpecialCasing.txt): Turkish I with a dot. */
int ht_lower(int32_t point, int32_t to[2])
{
    to[0] = point == DOTTED_CAPITAL_I ? 'i' : utf8proc_tolower(point);
    to[1] = DOT_ABOVE;
    return point == DOTTED_CAPITAL_I ? 2 : 1;
}

int ht_utf8_encode(int32_t point, unsigned char to[4])
{
    return (int)utf8proc_encode_char(point, to);
}

bool ht_grapheme_ends(int32_t before, int32_t after, int32_t *state)
{
    return utf8proc_grapheme_break_stateful(before, after, state);
}
