/* npy.c - the .npy format (NumPy Enhancement Proposal 1): "\x93NUMPY", a version (1.0: a 16-bit header length, 2.0 and
 * 3.0: 32-bit), a header that is the text of a Python dictionary, {'descr': '<f8', 'fortran_order': False, 'shape':
 * (192, 192), }, and the elements.  Only what numpy.save writes is understood of Python's syntax: the three keys in any
 * order, no nested values. */
#include "eval/npy.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "core/arena.h"
#include "core/dtype.h"

/* ---- the header ---- */

/* A place in the bytes of a member. */
typedef struct text {
    const char *at, *end;
} text;

static void skip_spaces(text *t)
{
    while (t->at < t->end && (*t->at == ' ' || *t->at == '\n'))
        t->at++;
}

static bool take(text *t, const char *word)
{
    size_t n = strlen(word);
    skip_spaces(t);
    if ((size_t)(t->end - t->at) < n || memcmp(t->at, word, n) != 0)
        return false;
    t->at += n;
    return true;
}

static bool take_number(text *t, int64_t *out)
{
    int64_t n = 0;
    skip_spaces(t);
    const char *start = t->at;
    for (; t->at < t->end && *t->at >= '0' && *t->at <= '9'; t->at++) {
        if (n > HT_NPY_MAX_BYTES)
            return false;
        n = 10 * n + (*t->at - '0');
    }
    *out = n;
    return t->at > start;
}

typedef struct npy {
    char descr[16];
    bool fortran_order;
    int ndim;
    int64_t shape[HT_NPY_MAX_DIMS];
    bool has_descr, has_order, has_shape;
} npy;

static bool parse_descr(text *t, npy *header)
{
    size_t n = 0;
    if (!take(t, "'"))
        return false;
    for (; t->at < t->end && *t->at != '\''; t->at++) {
        if (n + 1 == sizeof header->descr)
            return false;
        header->descr[n++] = *t->at;
    }
    header->descr[n] = '\0';
    header->has_descr = true;
    return take(t, "'");
}

/* "()", "(3,)", "(3, 4)" */
static bool parse_shape(text *t, npy *header)
{
    if (!take(t, "("))
        return false;
    while (!take(t, ")")) {
        if (header->ndim == HT_NPY_MAX_DIMS || !take_number(t, &header->shape[header->ndim++]))
            return false;
        if (take(t, ","))
            continue;
        if (header->ndim == 1 || !take(t, ")")) /* "(3)" is a number, not a tuple */
            return false;
        break;
    }
    header->has_shape = true;
    return true;
}

static bool parse_entry(text *t, npy *header)
{
    if (!header->has_descr && take(t, "'descr'"))
        return take(t, ":") && parse_descr(t, header);
    if (!header->has_shape && take(t, "'shape'"))
        return take(t, ":") && parse_shape(t, header);
    if (header->has_order || !take(t, "'fortran_order'") || !take(t, ":"))
        return false;
    header->has_order = true;
    header->fortran_order = take(t, "True");
    return header->fortran_order || take(t, "False");
}

static bool parse_dictionary(text *t, npy *header)
{
    if (!take(t, "{"))
        return false;
    while (!take(t, "}"))
        if (!parse_entry(t, header) || (!take(t, ",") && (t->at == t->end || *t->at != '}')))
            return false;
    skip_spaces(t);
    return t->at == t->end && header->has_descr && header->has_order && header->has_shape;
}

/* From the start of a member; what is left are the elements. */
static bool parse_header(text *t, npy *header)
{
    size_t left = (size_t)(t->end - t->at), prefix, length = 0;
    if (left < 12 || memcmp(t->at, "\x93NUMPY", 6) != 0 || t->at[6] < 1 || t->at[6] > 3)
        return false;
    prefix = t->at[6] == 1 ? 10 : 12;
    for (size_t i = prefix; i-- > 8;)
        length = length << 8 | (unsigned char)t->at[i];
    if (length > left - prefix)
        return false;
    text dictionary = {t->at + prefix, t->at + prefix + length};
    t->at = dictionary.end;
    return parse_dictionary(&dictionary, header);
}

/* ---- the elements ---- */

/* From Fortran's order, first index fastest, to C's, last index fastest. */
static void to_row_major(const double *from, const ht_npy_array *a)
{
    int64_t index[HT_NPY_MAX_DIMS] = {0};
    for (size_t i = 0; i < a->count; i++) {
        size_t at = 0;
        for (int d = 0; d < a->ndim; d++)
            at = at * (size_t)a->shape[d] + (size_t)index[d];
        a->data[at] = from[i];
        for (int d = 0; d < a->ndim && ++index[d] == a->shape[d]; d++)
            index[d] = 0;
    }
}

static void convert(ht_dtype dtype, const char *bytes, size_t count, double *out)
{
    for (size_t i = 0; i < count; i++) {
        float single;
        if (dtype == HT_F64) {
            memcpy(&out[i], bytes + i * sizeof *out, sizeof *out);
            continue;
        }
        memcpy(&single, bytes + i * sizeof single, sizeof single);
        out[i] = (double)single;
    }
}

static ht_status read_elements(const char *where, const text *t, const npy *header, ht_npy_array *out)
{
    ht_npy_array a = {.ndim = header->ndim, .count = 1};
    bool single = !strcmp(header->descr, "<f4");
    size_t left = (size_t)(t->end - t->at), bytes = 0;
    if (!single && strcmp(header->descr, "<f8") != 0)
        return ht_fail(HT_ERR_UNSUPPORTED, "%s: elements of type %s; wanted <f4 or <f8", where, header->descr);
    bool fits = true;
    for (int i = 0; i < a.ndim; i++) {
        a.shape[i] = header->shape[i];
        fits = fits && ht_mul_size(a.count, (size_t)a.shape[i], &a.count);
    }
    if (!fits || !ht_mul_size(a.count, single ? 4 : 8, &bytes) || bytes != left)
        return ht_fail(HT_ERR_FORMAT, "%s: %zu bytes of elements, the shape wants %zu", where, left, bytes);
    bool turn = header->fortran_order && a.ndim > 1;
    a.data = malloc((a.count + 1) * sizeof *a.data);
    double *straight = turn ? malloc((a.count + 1) * sizeof *straight) : a.data;
    if (!a.data || !straight) {
        if (turn)
            free(straight);
        free(a.data);
        return ht_fail(HT_ERR_MEMORY, "%s: out of memory for %zu elements", where, a.count);
    }
    convert(single ? HT_F32 : HT_F64, t->at, a.count, straight);
    if (turn) {
        to_row_major(straight, &a);
        free(straight);
    }
    *out = a;
    return HT_OK;
}

ht_status ht_npy_parse(const void *bytes, size_t size, const char *label, ht_npy_array *out)
{
    npy header = {.ndim = 0};
    text t = {bytes, (const char *)bytes + size};
    if (!parse_header(&t, &header))
        return ht_fail(HT_ERR_FORMAT, "%s: its header is not that of a .npy", label);
    return read_elements(label, &t, &header, out);
}
