/* sweep_results.c - results.csv: a row a cell, as text, so that rows that are read again are written as they were.
 *
 * The format is RFC 4180's with lines that end as Unix's.  The file is replaced whole: a kill at any moment leaves the
 * rows before or the rows after. */
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/fid.h"
#include "cli/sweep.h"
#include "core/file.h"

enum { MAX_COLUMNS = 128 };

static const struct {
    const char *prefix;
    const command *command;
    size_t at;
} sources[] = {{"calibrate", &calibrate_command, offsetof(sweep_cell, calibrate)},
               {"quantize", &quantize_command, offsetof(sweep_cell, quantize)},
               {"sample", &sample_command, offsetof(sweep_cell, sample)}};

enum { SOURCES = sizeof sources / sizeof *sources };

/* ---- columns ---- */

static void add_column(sweep_results *r, const char *name)
{
    if (name && r->n_columns < MAX_COLUMNS)
        r->columns[r->n_columns++] = name;
}

static bool make_columns(sweep_results *r)
{
    static const char *const head[] = {"cell", "id", "float"};
    static const char *const before[] = {"psnr", "psnr_mean", "features"};
    static const char *const after[] = {
        "error", "errors", "weight_bytes", "bits", "calibrate_seconds", "quantize_seconds", "sample_seconds"};
    if (!(r->columns = ht_alloc_array(r->arena, MAX_COLUMNS, sizeof *r->columns)))
        return false;
    for (size_t i = 0; i < 3; i++)
        add_column(r, head[i]);
    for (int i = 0; i < SOURCES; i++)
        for (const option *o = sources[i].command->options; !option_is_last(o); o++)
            if (sweep_takes(o))
                add_column(r, ht_sprintf(r->arena, "%s.%s", sources[i].prefix, o->name));
    for (size_t i = 0; i < 3; i++)
        add_column(r, before[i]);
    for (size_t i = 0; i < fid_columns_count; i++) {
        const fid_column *c = &fid_columns[i];
        if (c->metric == HT_METRIC_PSNR)
            continue;
        add_column(r, c->metric == HT_METRIC_FRECHET ? "fd" : c->key);
        if (c->deviation)
            add_column(r, ht_sprintf(r->arena, "%s_std", c->key));
    }
    for (size_t i = 0; i < sizeof after / sizeof *after; i++)
        add_column(r, after[i]);
    return true;
}

static int find_column(const sweep_results *r, const char *name)
{
    for (int i = 0; i < r->n_columns; i++)
        if (!strcmp(r->columns[i], name))
            return i;
    return -1;
}

/* ---- rows ---- */

static const char **empty_row(sweep_results *r)
{
    const char **row = ht_alloc_array(r->arena, (size_t)r->n_columns, sizeof *row);
    for (int i = 0; row && i < r->n_columns; i++)
        row[i] = "";
    return row;
}

void sweep_row_set(sweep_results *r, const char **row, const char *column, const char *text)
{
    int i = find_column(r, column);
    const char *kept = ht_strdup(r->arena, text);
    if (i >= 0 && kept)
        row[i] = kept;
}

void sweep_row_number(sweep_results *r, const char **row, const char *column, double value)
{
    char text[32] = "";
    if (!isnan(value)) /* bytes of weights have more than seven digits */
        snprintf(text, sizeof text, fabs(value) < 1e15 && value == floor(value) ? "%.0f" : "%.7g", value);
    sweep_row_set(r, row, column, text);
}

const char *sweep_row_text(const sweep_results *r, const char *const *row, const char *column)
{
    int i = find_column(r, column);
    return i < 0 ? "" : row[i];
}

double sweep_row_value(const sweep_results *r, const char *const *row, const char *column)
{
    const char *text = sweep_row_text(r, row, column);
    char *end;
    double value = strtod(text, &end);
    return *text && !*end ? value : NAN;
}

const char **sweep_row_new(sweep_results *r, const sweep_cell *cell)
{
    char name[96], value[OPTION_MAX_TEXT];
    const char **row = empty_row(r);
    if (!row)
        return NULL;
    sweep_row_set(r, row, "cell", cell->name);
    sweep_row_set(r, row, "id", cell->id);
    sweep_row_set(r, row, "float", cell->is_float ? "true" : "");
    for (int i = cell->is_float ? SOURCES - 1 : 0; i < SOURCES; i++)
        for (const option *o = sources[i].command->options; !option_is_last(o); o++) {
            snprintf(name, sizeof name, "%s.%s", sources[i].prefix, o->name ? o->name : "");
            if (sweep_takes(o))
                sweep_row_set(r, row, name, option_text(o, (const char *)cell + sources[i].at, value));
        }
    return row;
}

/* ---- reading ---- */

/* Where a reader is: bytes in memory that it takes apart in place. */
typedef struct reader {
    char *at;
    int line;
} reader;

/* A field, without its quotes.  *end: what came after it, ',' or '\n' or 0.  NULL: quotes that do not close. */
static const char *read_field(reader *in, char *end)
{
    char *start = in->at, *to = start, *s = start;
    if (*s == '"') {
        for (s++; *s && (*s != '"' || s[1] == '"'); s++) {
            s += *s == '"';
            in->line += *s == '\n';
            *to++ = *s;
        }
        if (*s++ != '"' || (*s && *s != ',' && *s != '\n'))
            return NULL;
    } else {
        while (*s && *s != ',' && *s != '\n')
            s++;
        to = s;
    }
    *end = *s;
    in->at = *s ? s + 1 : s;
    in->line += *s == '\n';
    *to = '\0';
    return start;
}

/* Fields of a line, which stay in the text; -1: it is damaged. */
static int read_line(reader *in, const char **fields)
{
    char end = ',';
    int n = 0;
    while (end == ',') {
        if (n == MAX_COLUMNS || !(fields[n++] = read_field(in, &end)))
            return -1;
    }
    return end == '\n' ? n : -1;
}

/* To the cells that are the same, under their names; else behind all cells. */
static bool place_row(sweep_results *r, const sweep_plan *plan, const char **row)
{
    const char *id = sweep_row_text(r, row, "id");
    bool placed = false;
    for (int i = 0; i < plan->n; i++) {
        if (strcmp(plan->cells[i].id, id) != 0)
            continue;
        const char **mine = empty_row(r);
        if (!mine)
            return false;
        memcpy(mine, row, (size_t)r->n_columns * sizeof *row);
        sweep_row_set(r, mine, "cell", plan->cells[i].name);
        r->rows[i] = mine;
        placed = true;
    }
    if (!placed)
        r->rows[r->n_rows++] = row;
    return true;
}

static int read_rows(const char *path, const sweep_plan *plan, sweep_results *r, char *text)
{
    const char *fields[MAX_COLUMNS];
    int to[MAX_COLUMNS];
    reader in = {text, 1};
    int n = read_line(&in, fields);
    for (int i = 0; i < n; i++)
        to[i] = find_column(r, fields[i]);
    if (n < 2 || strcmp(fields[0], "cell") != 0 || strcmp(fields[1], "id") != 0)
        return report("%s: is not the results of a sweep; remove it or name another folder", path);
    while (*in.at) {
        int line = in.line;
        const char **row = read_line(&in, fields) == n ? empty_row(r) : NULL;
        if (!row)
            return report("%s: line %d is damaged; remove the line, and its cell is made again", path, line);
        for (int i = 0; i < n; i++)
            if (to[i] >= 0)
                row[to[i]] = fields[i];
        if (!place_row(r, plan, row))
            return report_failure();
    }
    return 0;
}

int sweep_results_open(const char *path, const sweep_plan *plan, sweep_results *r)
{
    ht_mapping file;
    int lines = 0;
    *r = (sweep_results){.arena = ht_arena_create()};
    if (!r->arena || !make_columns(r))
        return report("out of memory");
    if (access(path, F_OK) && errno == ENOENT)
        file = (ht_mapping){0};
    else if (ht_map_file(path, &file))
        return report_failure();
    char *text = ht_alloc(r->arena, file.size + 1);
    if (text && file.size)
        memcpy(text, file.data, file.size);
    bool there = file.size;
    ht_unmap_file(&file);
    for (const char *s = text; s && *s; s++)
        lines += *s == '\n';
    r->rows = ht_alloc_array(r->arena, (size_t)plan->n + (size_t)lines, sizeof *r->rows);
    r->n_rows = plan->n;
    if (!text || !r->rows)
        return report_failure();
    return there ? read_rows(path, plan, r, text) : 0;
}

void sweep_results_close(sweep_results *r)
{
    ht_arena_free(r->arena);
    *r = (sweep_results){0};
}

const char **sweep_row_unpack(sweep_results *r, const char *text)
{
    const char **row = empty_row(r), *fields[MAX_COLUMNS];
    reader in = {ht_strdup(r->arena, text), 1};
    if (!row || !in.at || read_line(&in, fields) != r->n_columns)
        return NULL;
    memcpy(row, fields, (size_t)r->n_columns * sizeof *row);
    return row;
}

/* ---- writing ---- */

static void write_field(FILE *out, const char *text)
{
    if (!strpbrk(text, ",\"\n\r")) {
        fputs(text, out);
        return;
    }
    fputc('"', out);
    for (; *text; text++) {
        if (*text == '"')
            fputc('"', out);
        fputc(*text, out);
    }
    fputc('"', out);
}

static void write_line(FILE *out, const char *const *fields, int n)
{
    for (int i = 0; i < n; i++) {
        if (i)
            fputc(',', out);
        write_field(out, fields[i]);
    }
    fputc('\n', out);
}

char *sweep_row_pack(const sweep_results *r, const char *const *row)
{
    char *text = NULL;
    size_t size;
    FILE *out = open_memstream(&text, &size);
    if (!out)
        return NULL;
    write_line(out, row, r->n_columns);
    if (!fclose(out))
        return text;
    free(text);
    return NULL;
}

int sweep_results_write(const char *path, const sweep_results *r)
{
    ht_output *o;
    if (ht_output_open(path, &o))
        return report_failure();
    write_line(ht_output_stream(o), r->columns, r->n_columns);
    for (int i = 0; i < r->n_rows; i++)
        if (r->rows[i])
            write_line(ht_output_stream(o), r->rows[i], r->n_columns);
    return ht_output_commit(o) ? report_failure() : 0;
}
