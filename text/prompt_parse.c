/* prompt_parse.c - brackets, weights, escapes and BREAK.
 *
 * The rules are those of AUTOMATIC1111's prompt parser.  Where it stumbles this goes on: BREAK inside brackets breaks,
 * and a weight such as 1.2.3 is an error with its place instead of an exception.
 *
 * A bracket multiplies the weights of all pieces since it was opened; with at most HT_MOST_OPEN_BRACKETS of a kind
 * open, a text of n characters takes that many times n multiplications at worst. */
#include "text/prompt_parse.h"

#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "core/arena.h"
#include "text/prompt.h"

static const double BRACKET = 1.1;
static const char BREAK[] = "BREAK";

enum { BREAK_LENGTH = sizeof BREAK - 1, MOST_DIGITS = 15 };

/* The pieces that brackets of one kind begin with. */
typedef struct brackets {
    size_t open[HT_MOST_OPEN_BRACKETS];
    int n;
} brackets;

typedef struct parser {
    ht_pieces *out;
    const char *text;
    size_t size;
    brackets round, square;
} parser;

void ht_pieces_free(ht_pieces *p)
{
    free(p->text);
    free(p->at);
    *p = (ht_pieces){0};
}

/* ---- pieces ---- */

static ht_status add_piece(ht_pieces *p, const char *text, size_t size, bool is_break)
{
    if (p->n == p->cap) {
        size_t cap = p->cap ? 2 * p->cap : 64, bytes;
        ht_piece *at = ht_mul_size(cap, sizeof *at, &bytes) ? realloc(p->at, bytes) : NULL;
        if (!at)
            return ht_fail(HT_ERR_MEMORY, "out of memory for a prompt of %zu pieces", p->n);
        p->at = at;
        p->cap = cap;
    }
    memcpy(p->text + p->size, text, size);
    p->at[p->n++] = (ht_piece){p->size, p->size + size, 1, is_break};
    p->size += size;
    return HT_OK;
}

static void multiply(ht_pieces *p, size_t first, double weight)
{
    for (size_t i = first; i < p->n; i++)
        p->at[i].weight *= weight;
}

/* Neighbours of one weight become one piece; their text lies side by side already. */
static void join_pieces(ht_pieces *p)
{
    size_t n = 0;
    for (size_t i = 0; i < p->n; i++) {
        ht_piece *last = n ? &p->at[n - 1] : NULL, *piece = &p->at[i];
        bool same = last && !last->is_break && !piece->is_break && !(last->weight < piece->weight) &&
                    !(last->weight > piece->weight);
        if (same)
            last->end = piece->end;
        else
            p->at[n++] = *piece;
    }
    p->n = n;
}

/* ---- BREAK ---- */

static bool is_space(char c)
{
    return c == ' ' || (c >= '\t' && c <= '\r');
}

static bool is_word(char c)
{
    return (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || c == '_' ||
           (unsigned char)c >= 0x80;
}

/* Plain text, cut at BREAK as a word, which takes the white space on both sides with it. */
static ht_status add_text(ht_pieces *p, const char *s, size_t n)
{
    ht_status status = HT_OK;
    size_t begin = 0;
    for (size_t i = 0; !status && i + BREAK_LENGTH <= n; i++) {
        size_t end = i, after = i + BREAK_LENGTH;
        if (memcmp(s + i, BREAK, BREAK_LENGTH) || (i && is_word(s[i - 1])) || (after < n && is_word(s[after])))
            continue;
        while (end > begin && is_space(s[end - 1]))
            end--;
        while (after < n && is_space(s[after]))
            after++;
        status = add_piece(p, s + begin, end - begin, false);
        if (!status)
            status = add_piece(p, "", 0, true);
        begin = after;
        i = after - 1;
    }
    return status ? status : add_piece(p, s + begin, n - begin, false);
}

/* ---- brackets ---- */

static ht_status open_bracket(brackets *b, size_t piece, size_t offset)
{
    if (b->n == HT_MOST_OPEN_BRACKETS)
        return ht_fail(HT_ERR_ARGUMENT, "the prompt has more than %d open brackets at offset %zu",
                       HT_MOST_OPEN_BRACKETS, offset);
    b->open[b->n++] = piece;
    return HT_OK;
}

static bool close_bracket(brackets *b, ht_pieces *p, double weight)
{
    if (!b->n)
        return false;
    multiply(p, b->open[--b->n], weight);
    return true;
}

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

/* ":1.2)" at a place: its length, 0 if it is something else.  number, digits: where the number is. */
static size_t weight_at(const char *s, size_t left, size_t *number, size_t *length)
{
    size_t i = 1;
    while (i < left && is_space(s[i]))
        i++;
    *number = i;
    i += i < left && (s[i] == '+' || s[i] == '-');
    size_t digits = i;
    while (i < left && (is_digit(s[i]) || s[i] == '.'))
        i++;
    *length = i - *number;
    if (i == digits)
        return 0;
    while (i < left && is_space(s[i]))
        i++;
    return i < left && s[i] == ')' ? i + 1 : 0;
}

/* A decimal number without an exponent, the same in every locale. */
static bool read_number(const char *s, size_t n, double *value)
{
    double digits = 0, divisor = 1;
    int count = 0, points = 0;
    for (size_t i = *s == '+' || *s == '-'; i < n; i++) {
        if (s[i] == '.') {
            points++;
            continue;
        }
        digits = digits * 10 + (s[i] - '0');
        divisor *= points ? 10 : 1;
        count++;
    }
    *value = (*s == '-' ? -digits : digits) / divisor;
    return count >= 1 && count <= MOST_DIGITS && points <= 1;
}

/* A colon at offset i; *n: the bytes that it takes. */
static ht_status read_colon(parser *p, size_t i, size_t *n)
{
    const char *s = p->text + i;
    size_t number, length, all = weight_at(s, p->size - i, &number, &length);
    double weight;
    *n = all ? all : 1;
    if (!all || !p->round.n)
        return add_piece(p->out, s, *n, false);
    if (!read_number(s + number, length, &weight))
        return ht_fail(HT_ERR_ARGUMENT, "the prompt's weight \"%.*s\" at offset %zu is not a number such as 1.2",
                       (int)(length < 40 ? length : 40), s + number, i + number);
    close_bracket(&p->round, p->out, weight);
    return HT_OK;
}

/* ---- the whole ---- */

/* What begins at offset i; *n: the bytes that it takes. */
static ht_status read_one(parser *p, size_t i, size_t *n)
{
    static const char marks[] = "\\()[]:";
    const char *s = p->text + i;
    size_t left = p->size - i;
    *n = 1;
    switch (*s) {
    case '\\':
        if (left < 2 || !s[1] || s[1] == ':' || !strchr(marks, s[1]))
            return HT_OK; /* alone it is nothing */
        *n = 2;
        return add_piece(p->out, s + 1, 1, false);
    case '(':
        return open_bracket(&p->round, p->out->n, i);
    case '[':
        return open_bracket(&p->square, p->out->n, i);
    case ')':
        return close_bracket(&p->round, p->out, BRACKET) ? HT_OK : add_piece(p->out, s, 1, false);
    case ']':
        return close_bracket(&p->square, p->out, 1 / BRACKET) ? HT_OK : add_piece(p->out, s, 1, false);
    case ':':
        return read_colon(p, i, n);
    default:
        while (*n < left && (!s[*n] || !strchr(marks, s[*n])))
            ++*n;
        return add_text(p->out, s, *n);
    }
}

static ht_status check_weights(const ht_pieces *p)
{
    for (size_t i = 0; i < p->n; i++)
        if (!isfinite((float)p->at[i].weight))
            return ht_fail(HT_ERR_ARGUMENT, "the prompt's weights multiply to %g, which is out of range",
                           p->at[i].weight);
    return HT_OK;
}

ht_status ht_pieces_parse(ht_pieces *out, const char *text, size_t size)
{
    parser p = {.out = out, .text = text, .size = size};
    ht_status status = HT_OK;
    if (!(out->text = malloc(size + 1)))
        return ht_fail(HT_ERR_MEMORY, "out of memory for a prompt of %zu bytes", size);
    for (size_t i = 0, n; !status && i < size; i += n)
        status = read_one(&p, i, &n);
    for (int i = 0; i < p.round.n; i++)
        multiply(out, p.round.open[i], BRACKET);
    for (int i = 0; i < p.square.n; i++)
        multiply(out, p.square.open[i], 1 / BRACKET);
    join_pieces(out);
    return status ? status : check_weights(out);
}
