/* options.c - reading a command line by its table.
 *
 * Names are exact: no prefixes, so that a new option never changes the meaning of an old script.  A mistyped one is
 * answered with the nearest name by edit distance (Levenshtein 1966). */
#include "cli/options.h"

#include <ctype.h>
#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/report.h"
#include "cli/text.h"

enum { NAME_MAX_LENGTH = 63, NAMES_MAX = 63 };

int options_wrong(const command *c, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    int code = report_usage(c->name, format, args);
    va_end(args);
    return code;
}

bool option_is_last(const option *o)
{
    return !o->name && !o->argument;
}

/* ---- what was meant ---- */

static int edit_distance(const char *a, const char *b)
{
    int row[NAME_MAX_LENGTH + 1];
    int n = (int)strlen(b);
    for (int j = 0; j <= n; j++)
        row[j] = j;
    for (int i = 1; a[i - 1]; i++) {
        int diagonal = row[0];
        row[0] = i;
        for (int j = 1; j <= n; j++) {
            int best = diagonal + (a[i - 1] != b[j - 1]);
            diagonal = row[j];
            if (row[j] + 1 < best)
                best = row[j] + 1;
            if (row[j - 1] + 1 < best)
                best = row[j - 1] + 1;
            row[j] = best;
        }
    }
    return row[n];
}

const char *nearest_name(const char *word, const char *const *names)
{
    const char *nearest = NULL;
    int length = (int)strlen(word);
    if (length > NAME_MAX_LENGTH)
        return NULL;
    int best = length < 4 ? 2 : 3; /* distances below this are near: one slip in a short word, two in a longer one */
    for (; *names; names++) {
        int d = edit_distance(word, *names);
        if (d < best && d < (int)strlen(*names)) {
            best = d;
            nearest = *names;
        }
    }
    return nearest;
}

static int unknown_option(const command *c, const char *argument)
{
    const char *names[NAMES_MAX + 1];
    int n = 0;
    for (const option *o = c->options; !option_is_last(o); o++)
        if (o->name && n < NAMES_MAX - 1)
            names[n++] = o->name;
    names[n++] = "help";
    names[n] = NULL;
    char word[NAME_MAX_LENGTH + 1];
    const char *start = argument + strspn(argument, "-");
    snprintf(word, sizeof word, "%.*s", (int)strcspn(start, "="), start);
    const char *meant = nearest_name(word, names);
    if (meant)
        return options_wrong(c, "unknown option %s; did you mean --%s?", argument, meant);
    return options_wrong(c, "unknown option %s", argument);
}

/* ---- values ---- */

/* A whole number in [min, max] and nothing else; *end is where it stopped. */
static bool read_int(const char *text, double min, double max, int64_t *value, const char **end)
{
    char *stop;
    if (!isdigit((unsigned char)*text) && !(*text == '-' && isdigit((unsigned char)text[1])))
        return false;
    errno = 0;
    long long v = strtoll(text, &stop, 10);
    if (errno || (double)v < min || (double)v > max)
        return false;
    *value = v;
    *end = stop;
    return true;
}

static bool read_count(const char *text, double min, double max, int *value)
{
    int64_t v;
    const char *end;
    if (!read_int(text, min, max, &v, &end) || *end)
        return false;
    *value = (int)v;
    return true;
}

static bool read_seed(const char *text, uint64_t *value)
{
    char *stop;
    if (!isdigit((unsigned char)*text)) /* strtoull would take "-1" and blanks */
        return false;
    errno = 0;
    unsigned long long v = strtoull(text, &stop, 10);
    if (errno || *stop)
        return false;
    *value = v;
    return true;
}

static bool read_real(const char *text, double min, double max, double *value)
{
    char *stop;
    if (!*text || strspn(text, "+-.0123456789eE") != strlen(text)) /* no "nan", "inf", hexadecimal, blanks */
        return false;
    double v = strtod(text, &stop);
    if (*stop || !(v >= min && v <= max))
        return false;
    *value = v;
    return true;
}

static bool read_ints(const char *text, double min, double max, option_ints *list)
{
    list->count = 0;
    for (;;) {
        if (list->count == OPTION_MAX_INTS || !read_int(text, min, max, &list->value[list->count], &text))
            return false;
        list->count++;
        if (!*text)
            return true;
        if (*text++ != ',')
            return false;
    }
}

static bool read_size(const char *text, double min, double max, option_size *size)
{
    int64_t w, h;
    if (!read_int(text, min, max, &w, &text))
        return false;
    h = w;
    if (*text == 'x' && !read_int(text + 1, min, max, &h, &text))
        return false;
    size->width = (int)w;
    size->height = (int)h;
    return !*text;
}

/* An operand is not empty; a prompt may be. */
static bool add_text(const option *o, const char *text, option_texts *list)
{
    if ((!*text && !o->name) || list->count == OPTION_MAX_TEXTS)
        return false;
    list->value[list->count++] = text;
    return true;
}

static bool is_choice(const char *text, const char *choices)
{
    size_t length = strlen(text);
    for (const char *s = choices; length && *s; s += *s == '|') {
        size_t n = strcspn(s, "|");
        if (n == length && !strncmp(s, text, n))
            return true;
        s += n;
    }
    return false;
}

bool option_read(const option *o, const char *text, void *settings)
{
    void *at = (char *)settings + o->at;
    const char *end;
    switch (o->type) {
    case OPTION_FLAG:
        *(bool *)at = true;
        return true;
    case OPTION_SWITCH:
        *(int *)at = 1;
        return true;
    case OPTION_COUNT:
        return read_count(text, o->min, o->max, at);
    case OPTION_INT:
        return read_int(text, o->min, o->max, at, &end) && !*end;
    case OPTION_SEED:
        return read_seed(text, at);
    case OPTION_REAL:
        return read_real(text, o->min, o->max, at);
    case OPTION_INTS:
        return read_ints(text, o->min, o->max, at);
    case OPTION_SIZE:
        return read_size(text, o->min, o->max, at);
    case OPTION_TEXTS:
        return add_text(o, text, at);
    case OPTION_CHOICE:
        if (!is_choice(text, o->choices))
            return false;
        break;
    case OPTION_TEXT:
        if (!*text)
            return false;
        break;
    }
    *(const char **)at = text;
    return true;
}

const char *option_wanted(const option *o, char *buffer, size_t size)
{
    switch (o->type) {
    case OPTION_INT:
    case OPTION_COUNT:
        snprintf(buffer, size, "a whole number from %.0f to %.0f", o->min, o->max);
        break;
    case OPTION_SEED:
        snprintf(buffer, size, "a whole number from 0 to %" PRIu64, UINT64_MAX);
        break;
    case OPTION_REAL:
        snprintf(buffer, size, "a number from %g to %g", o->min, o->max);
        break;
    case OPTION_INTS:
        snprintf(buffer, size, "whole numbers from %.0f to %.0f, separated by commas, at most %d", o->min, o->max,
                 OPTION_MAX_INTS);
        break;
    case OPTION_SIZE:
        snprintf(buffer, size, "WIDTHxHEIGHT, each from %.0f to %.0f", o->min, o->max);
        break;
    case OPTION_TEXTS:
        snprintf(buffer, size, "not empty, and one of %d at most", OPTION_MAX_TEXTS);
        break;
    case OPTION_CHOICE:
        snprintf(buffer, size, "one of %s", o->choices);
        for (char *s = buffer; (s = strchr(s, '|'));)
            *s = ' ';
        break;
    default:
        snprintf(buffer, size, "not empty");
    }
    return buffer;
}

static int wrong_value(const command *c, const option *o, const char *text)
{
    char wanted[160];
    option_wanted(o, wanted, sizeof wanted);
    if (o->name)
        return options_wrong(c, "--%s %.100s: must be %s", o->name, *text ? text : "''", wanted);
    return options_wrong(c, "%s '%.100s': must be %s", o->argument, text, wanted);
}

/* ---- the command line ---- */

/* Where in the command line the parser is. */
typedef struct cursor {
    int argc, next;
    char **argv;
    bool only_operands; /* "--" was met */
    const option *operand;
} cursor;

static const option *find_option(const command *c, const char *argument)
{
    const char *name = argument + 2;
    size_t length = strcspn(name, "=");
    for (const option *o = c->options; !option_is_last(o); o++) {
        if (!o->name)
            continue;
        if (argument[1] == '-' ? strlen(o->name) == length && !strncmp(o->name, name, length)
                               : o->letter && argument[1] == o->letter && !argument[2])
            return o;
    }
    return NULL;
}

static int parse_option(const command *c, cursor *at, const char *argument, const option *o, void *settings)
{
    const char *value = argument[1] == '-' ? strchr(argument, '=') : NULL;
    if (o->type == OPTION_FLAG || o->type == OPTION_SWITCH) {
        if (value)
            return options_wrong(c, "--%s takes no value", o->name);
    } else if (value) {
        value++;
    } else if (at->next < at->argc) {
        value = at->argv[at->next++];
    } else {
        return options_wrong(c, "--%s needs a value: %s", o->name, o->argument);
    }
    return option_read(o, value, settings) ? -1 : wrong_value(c, o, value);
}

static const option *next_operand(const option *o)
{
    while (!option_is_last(o) && o->name)
        o++;
    return o;
}

static int parse_operand(const command *c, cursor *at, const char *argument, void *settings)
{
    const option *o = at->operand;
    if (option_is_last(o))
        return options_wrong(c, "unexpected argument '%s'", argument);
    if (o->type != OPTION_TEXTS)
        at->operand = next_operand(o + 1);
    return option_read(o, argument, settings) ? -1 : wrong_value(c, o, argument);
}

static int parse_argument(const command *c, cursor *at, void *settings)
{
    const char *argument = at->argv[at->next++];
    if (at->only_operands || argument[0] != '-' || !argument[1])
        return parse_operand(c, at, argument, settings);
    if (!strcmp(argument, "--")) {
        at->only_operands = true;
        return -1;
    }
    if (!strcmp(argument, "--help") || !strcmp(argument, "-h")) {
        options_help(c);
        return EXIT_SUCCESS;
    }
    const option *o = find_option(c, argument);
    return o ? parse_option(c, at, argument, o, settings) : unknown_option(c, argument);
}

static int check_required(const command *c, const cursor *at, const void *settings)
{
    const option *rest = at->operand;
    if (!option_is_last(rest) && rest->type != OPTION_TEXTS)
        return options_wrong(c, "%s is missing", rest->argument);
    if (!option_is_last(rest) && ((const option_texts *)((const char *)settings + rest->at))->count < (int)rest->min)
        return options_wrong(c, "too few of %s; wanted %.0f at least", rest->argument, rest->min);
    for (const option *o = c->options; !option_is_last(o); o++)
        if (o->required && !*(const char *const *)((const char *)settings + o->at))
            return options_wrong(c, "--%s %s is missing", o->name, o->argument);
    return -1;
}

void options_defaults(const command *c, void *settings)
{
    for (const option *o = c->options; !option_is_last(o); o++) {
        if (o->nan_if_absent)
            *(double *)((char *)settings + o->at) = NAN;
        if (o->initial)
            option_read(o, o->initial, settings);
    }
}

int options_parse(const command *c, int argc, char **argv, void *settings)
{
    cursor at = {.argc = argc, .next = 1, .argv = argv, .operand = next_operand(c->options)};
    options_defaults(c, settings);
    while (at.next < argc) {
        int status = parse_argument(c, &at, settings);
        if (status >= 0)
            return status;
    }
    return check_required(c, &at, settings);
}

/* ---- help and records ---- */

static void print_row(const option *o)
{
    enum { HELP_COLUMN = 28 };
    char left[64], choices[96] = "";
    if (!o->name)
        snprintf(left, sizeof left, "  %s", o->argument);
    else
        snprintf(left, sizeof left, "  %c%c%c --%s%s%s", o->letter ? '-' : ' ', o->letter ? o->letter : ' ',
                 o->letter ? ',' : ' ', o->name, o->argument ? " " : "", o->argument ? o->argument : "");
    if (o->choices)
        snprintf(choices, sizeof choices, " (%s)", o->choices);
    printf("%-*s %s%s", HELP_COLUMN, left, o->help, choices);
    if (o->initial)
        printf(" [%s]", o->initial);
    printf("\n");
}

void options_help(const command *c)
{
    printf("usage: halftone %s", c->name);
    for (const option *o = c->options; !option_is_last(o); o++)
        if (!o->name)
            printf(" %s", o->argument);
    for (const option *o = c->options; !option_is_last(o); o++)
        if (o->name && o->required)
            printf(" %c%c %s", '-', o->letter, o->argument);
    printf(" [options]\n\n%c%s.\n", toupper((unsigned char)c->summary[0]), c->summary + 1);
    if (c->description)
        printf("%s\n", c->description);
    printf("\n");
    for (const option *o = c->options; !option_is_last(o); o++)
        if (!o->name)
            print_row(o);
    printf("\noptions, with their [default]:\n");
    for (const option *o = c->options; !option_is_last(o); o++)
        if (o->name)
            print_row(o);
    printf("  -h, --help                 this text\n\nexamples:\n");
    for (const char *s = c->examples; *s; s += *s == '\n') {
        int n = (int)strcspn(s, "\n");
        printf("  %.*s\n", n, s);
        s += n;
    }
}

static void ints_text(const option_ints *list, char *buffer)
{
    size_t used = 0; /* 256 numbers of 15 digits at most fit */
    for (int i = 0; i < list->count; i++)
        used += (size_t)snprintf(buffer + used, OPTION_MAX_TEXT - used, "%s%" PRId64, i ? "," : "", list->value[i]);
}

/* As few digits as give the same number back. */
static void real_text(double value, char *buffer)
{
    for (int digits = 1; digits <= 17; digits++) {
        snprintf(buffer, OPTION_MAX_TEXT, "%.*g", digits, value);
        if (strtod(buffer, NULL) == value)
            return;
    }
}

const char *option_text(const option *o, const void *settings, char *buffer)
{
    const void *at = (const char *)settings + o->at;
    const option_size *dim = at;
    buffer[0] = 0;
    switch (o->type) {
    case OPTION_FLAG:
        return strcpy(buffer, *(const bool *)at ? "true" : "");
    case OPTION_SWITCH:
        return strcpy(buffer, *(const int *)at ? "true" : "");
    case OPTION_COUNT:
        if (o->initial || *(const int *)at)
            snprintf(buffer, OPTION_MAX_TEXT, "%d", *(const int *)at);
        break;
    case OPTION_INT:
        if (o->initial || *(const int64_t *)at)
            snprintf(buffer, OPTION_MAX_TEXT, "%" PRId64, *(const int64_t *)at);
        break;
    case OPTION_SEED:
        snprintf(buffer, OPTION_MAX_TEXT, "%" PRIu64, *(const uint64_t *)at);
        break;
    case OPTION_REAL:
        if (!isnan(*(const double *)at) && (o->initial || o->nan_if_absent || *(const double *)at != 0))
            real_text(*(const double *)at, buffer);
        break;
    case OPTION_INTS:
        ints_text(at, buffer);
        break;
    case OPTION_SIZE:
        if (dim->width)
            snprintf(buffer, OPTION_MAX_TEXT, "%dx%d", dim->width, dim->height);
        break;
    case OPTION_TEXTS: /* not recorded */
        break;
    case OPTION_TEXT:
    case OPTION_CHOICE:
        if (*(const char *const *)at)
            snprintf(buffer, OPTION_MAX_TEXT, "%s", *(const char *const *)at);
        break;
    }
    return buffer;
}

static json_t *value_json(const option *o, const void *settings)
{
    char buffer[OPTION_MAX_TEXT];
    const void *at = (const char *)settings + o->at;
    if (o->type == OPTION_FLAG)
        return json_boolean(*(const bool *)at);
    if (o->type == OPTION_SWITCH)
        return json_boolean(*(const int *)at);
    if (!*option_text(o, settings, buffer))
        return json_null();
    if (o->type == OPTION_INT)
        return json_integer(*(const int64_t *)at);
    if (o->type == OPTION_COUNT)
        return json_integer(*(const int *)at);
    if (o->type == OPTION_REAL)
        return json_real(*(const double *)at);
    if (o->type == OPTION_SEED && *(const uint64_t *)at <= UINT64_C(1)
                                                               << 53) /* a larger one would lose digits: a string */
        return json_integer((json_int_t) * (const uint64_t *)at);
    return text_json(buffer);
}

json_t *options_json(const command *c, const void *settings)
{
    json_t *object = json_object();
    for (const option *o = c->options; object && !option_is_last(o); o++) {
        if (o->record && json_object_set_new(object, o->name, value_json(o, settings))) {
            json_decref(object);
            object = NULL;
        }
    }
    return object;
}

json_t *options_hashed_json(const command *c, const void *settings)
{
    json_t *object = options_json(c, settings), *value;
    const char *name;
    void *next;
    int failures = 0;
    json_object_foreach_safe(object, next, name, value)
    {
        if (json_is_null(value) || json_is_false(value))
            failures += json_object_del(object, name);
        else if (json_is_true(value))
            failures += json_object_set_new(object, name, json_string("true"));
    }
    if (!failures)
        return object;
    json_decref(object);
    return NULL;
}
