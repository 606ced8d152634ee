/* sweep_page.c - index.html: what a sweep's settings did, on one page that needs nothing else.
 *
 * The page is XML too (closed tags, escaped texts), so that what makes it can be checked. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "cli/plot.h"
#include "cli/sweep.h"
#include "cli/text.h"
#include "core/file.h"

enum { PICTURES = 1200000 /* bytes of pictures on a page, in base64 */, CURVES_IN_A_PLOT = 14 };

/* A number of a row, and how it is shown. */
typedef struct figure {
    const char *column, *title, *format;
    double factor;
    bool plotted;
} figure;

static const figure figures[] = {
    {"psnr", "PSNR, dB", "%.2f", 1, true},
    {"psnr_mean", "mean PSNR, dB", "%.2f", 1, false},
    {"fd", "FD", "%.3f", 1, true},
    {"sfid", "spatial FD", "%.3f", 1, true},
    {"kid", "KID", "%.5f", 1, true},
    {"is", "IS", "%.3f", 1, true},
    {"precision", "precision", "%.3f", 1, true},
    {"recall", "recall", "%.3f", 1, true},
    {"density", "density", "%.3f", 1, true},
    {"coverage", "coverage", "%.3f", 1, true},
    {"ssim", "SSIM", "%.4f", 1, true},
    {"distance", "feature distance", "%.3f", 1, true},
    {"error", "output error", "%.5f", 1, true},
    {"weight_bytes", "MB", "%.2f", 1e-6, false},
    {"bits", "bits a weight", "%.2f", 1, false},
    {"calibrate_seconds", "calibrating, s", "%.1f", 1, false},
    {"quantize_seconds", "quantizing, s", "%.1f", 1, false},
    {"sample_seconds", "drawing, s", "%.1f", 1, false},
};

enum { FIGURES = sizeof figures / sizeof *figures };

typedef struct page {
    FILE *out;
    const char *folder, *model;
    const sweep_plan *plan;
    const sweep_results *results;
    const char *features; /* the network of FD; "" if there is none */
    int done;
} page;

static const char style[] =
    "body{font:15px/1.45 system-ui,sans-serif;color:#1a1a1a;background:#fff;margin:2em auto;max-width:1180px;padding:0 "
    "1em}h1{font-size:1.5em;margin:0}h2{font-size:1.15em;margin:2em 0 .4em}p{margin:.4em 0;max-width:60em}"
    ".wide{overflow-x:auto}table{border-collapse:collapse;font-size:13px}"
    "th,td{padding:.25em .7em;text-align:right;border-bottom:1px solid #ddd;white-space:nowrap;"
    "font-variant-numeric:tabular-nums}"
    "th{vertical-align:bottom;border-bottom:2px solid #888;white-space:normal}"
    "th:first-child,td:first-child{text-align:left}"
    "svg{margin:.6em 1em .6em 0;font:12px system-ui,sans-serif;fill:#1a1a1a}svg .title{font-weight:600;font-size:13px}"
    "svg .grid{stroke:#e4e4e4}svg .axis{stroke:#777}svg .frame{fill:none;stroke:#777}"
    "figure{margin:.35em 0;display:flex;align-items:center;gap:1em}figcaption{width:24em;text-align:right;font-size:"
    "13px;overflow-wrap:anywhere}figure img{image-rendering:pixelated}";

/* ---- the table ---- */

static const char *const *row_of(const page *p, int cell)
{
    return p->results->rows[cell];
}

static double value_of(const page *p, int cell, const figure *f)
{
    return row_of(p, cell) ? sweep_row_value(p->results, row_of(p, cell), f->column) * f->factor : NAN;
}

static bool is_shown(const page *p, const figure *f)
{
    for (int i = 0; i < p->plan->n; i++)
        if (!isnan(value_of(p, i, f)))
            return true;
    return false;
}

/* "FD (resnet18_w24)": a distance is named with its network. */
static const char *title_of(const page *p, const figure *f, char buffer[96])
{
    bool is_fd = !strcmp(f->column, "fd") && p->features[0];
    snprintf(buffer, 96, is_fd ? "%s (%.60s)" : "%s", f->title, p->features);
    return buffer;
}

static void table_row(const page *p, int cell)
{
    fputs("<tr><td>", p->out);
    plot_escape(p->out, p->plan->cells[cell].name);
    fputs("</td>", p->out);
    for (int f = 0; f < FIGURES; f++) {
        double v = value_of(p, cell, &figures[f]);
        if (!is_shown(p, &figures[f]))
            continue;
        fputs("<td>", p->out);
        if (isfinite(v))
            fprintf(p->out, figures[f].format, v);
        else if (row_of(p, cell))
            fputs(isinf(v) ? "\xe2\x88\x9e" : "\xe2\x80\x93", p->out); /* infinity, a dash */
        fputs("</td>", p->out);
    }
    fputs("</tr>\n", p->out);
}

static void table(const page *p)
{
    char title[96];
    fputs("<h2>Cells</h2>\n<div class=\"wide\"><table>\n<tr><th>cell</th>", p->out);
    for (int f = 0; f < FIGURES; f++) {
        if (!is_shown(p, &figures[f]))
            continue;
        fputs("<th>", p->out);
        plot_escape(p->out, title_of(p, &figures[f], title));
        fputs("</th>", p->out);
    }
    fputs("</tr>\n", p->out);
    for (int i = 0; i < p->plan->n; i++)
        table_row(p, i);
    fputs("</table></div>\n", p->out);
}

/* ---- metrics against settings ---- */

/* All cells of the grid as dots, and the mean over those of a value as a line. */
static void plot_setting(const page *p, int a, const figure *f)
{
    const sweep_axis *axis = &p->plan->axes[a];
    size_t n = (size_t)p->plan->n, m = (size_t)axis->n;
    double *memory = calloc(2 * n + 3 * m, sizeof *memory);
    char title[96], heading[224];
    if (!memory)
        return;
    double *x = memory, *y = x + n, *at = y + n, *mean = at + m, *count = mean + m;
    int dots = 0;
    for (int i = 0; i < p->plan->n; i++) {
        int k = p->plan->cells[i].point[a];
        double v = value_of(p, i, f);
        if (k < 0 || !isfinite(v))
            continue;
        x[dots] = k;
        y[dots++] = v;
        mean[k] += v;
        count[k] += 1;
    }
    for (int k = 0; k < axis->n; k++) {
        at[k] = k;
        mean[k] = count[k] > 0 ? mean[k] / count[k] : NAN;
    }
    const plot_series series[] = {{.x = x, .y = y, .n = dots, .dots_only = true, .is_faint = true},
                                  {.x = at, .y = mean, .n = axis->n}};
    title_of(p, f, title);
    snprintf(heading, sizeof heading, "%s against %s", title, axis->name);
    plot drawing = {.title = heading,
                    .x_label = axis->name,
                    .y_label = title,
                    .names = axis->values,
                    .n_names = axis->n,
                    .series = series,
                    .n_series = 2,
                    .width = 440,
                    .height = 210};
    plot_write(p->out, &drawing);
    free(memory);
}

static void settings_plots(const page *p)
{
    if (!p->plan->n_axes)
        return;
    fputs("<h2>What each setting does</h2>\n<p>A grey dot is a cell; the line joins the means over all cells with a "
          "value. Values are evenly spaced.</p>\n<div>\n",
          p->out);
    for (int a = 0; a < p->plan->n_axes; a++)
        for (int f = 0; p->plan->axes[a].n > 1 && f < FIGURES; f++)
            if (figures[f].plotted && is_shown(p, &figures[f]))
                plot_setting(p, a, &figures[f]);
    fputs("</div>\n", p->out);
}

/* ---- error against timestep ---- */

/* "981:0.012 932:0.013" -> numbers; returns how many. */
static int read_curve(const char *text, double *t, double *e, int most)
{
    int n = 0;
    char *end;
    while (n < most && *text) {
        t[n] = strtod(text, &end);
        if (*end != ':')
            break;
        e[n++] = strtod(end + 1, &end);
        text = end + strspn(end, " ");
    }
    return n;
}

/* The curves of `most` cells, first .. of those that have one; returns the cell after the last. */
static int plot_curves(const page *p, int first, int most)
{
    enum { POINTS = 1000 };
    double *memory = calloc(2 * CURVES_IN_A_PLOT, POINTS * sizeof *memory);
    plot_series series[CURVES_IN_A_PLOT];
    int n = 0, i = first;
    for (; memory && i < p->plan->n && n < most; i++) {
        const char *curve = row_of(p, i) ? sweep_row_text(p->results, row_of(p, i), "errors") : "";
        double *t = memory + (ptrdiff_t)2 * n * POINTS, *e = t + POINTS;
        if (!*curve)
            continue;
        series[n] = (plot_series){.name = p->plan->cells[i].name, .x = t, .y = e, .style = n};
        series[n].n = read_curve(curve, t, e, POINTS);
        n++;
    }
    plot drawing = {.title = "Relative error of the model's output",
                    .x_label = "timestep (sampling goes from left to right)",
                    .y_label = "relative error",
                    .log_y = true,
                    .falling_x = true,
                    .series = series,
                    .n_series = n,
                    .width = 560,
                    .height = 300};
    if (n)
        plot_write(p->out, &drawing);
    free(memory);
    return memory ? i : p->plan->n;
}

static void curves(const page *p)
{
    fputs("<h2>Error against timestep</h2>\n<p>Of the quantized model's output against the output of the model of "
          "floats, on the same x_t for all cells, from trajectories that no cell was calibrated on.</p>\n<div>\n",
          p->out);
    int n = 0;
    for (int i = 0; i < p->plan->n; i++)
        n += row_of(p, i) && *sweep_row_text(p->results, row_of(p, i), "errors");
    int plots = (n + CURVES_IN_A_PLOT - 1) / CURVES_IN_A_PLOT; /* about as many in each */
    for (int i = 0; plots && i < p->plan->n;)
        i = plot_curves(p, i, (n + plots - 1) / plots);
    fputs("</div>\n", p->out);
}

/* ---- pictures ---- */

static void write_base64(FILE *out, const unsigned char *s, size_t n)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    for (size_t i = 0; i < n; i += 3) {
        unsigned v = (unsigned)s[i] << 16 | (i + 1 < n ? (unsigned)s[i + 1] << 8 : 0) | (i + 2 < n ? s[i + 2] : 0u);
        fputc(digits[v >> 18], out);
        fputc(digits[v >> 12 & 63], out);
        fputc(i + 1 < n ? digits[v >> 6 & 63] : '=', out);
        fputc(i + 2 < n ? digits[v & 63] : '=', out);
    }
}

/* Twice as large as it is.  Returns the bytes that it took; 0: none are left, or there is no picture. */
static size_t picture(const page *p, const char *key, const char *name, size_t left)
{
    char path[PATH_MAX];
    ht_mapping file;
    if (snprintf(path, sizeof path, "%s/images/%s.png", p->folder, key) >= (int)sizeof path || ht_map_file(path, &file))
        return 0;
    size_t size = (file.size + 2) / 3 * 4;
    if (size <= left && file.size > 24) {
        /* PNG: the width is at byte 16 */
        unsigned width = (unsigned)file.data[16] << 24 | (unsigned)file.data[17] << 16 | (unsigned)file.data[18] << 8 |
                         file.data[19];
        fputs("<figure><figcaption>", p->out);
        plot_escape(p->out, name);
        fprintf(p->out, "</figcaption><img alt=\"\" width=\"%u\" src=\"data:image/png;base64,", 2 * width);
        write_base64(p->out, file.data, file.size);
        fputs("\"/></figure>\n", p->out);
    } else {
        size = 0;
    }
    ht_unmap_file(&file);
    return size;
}

static void pictures(const page *p)
{
    size_t left = PICTURES;
    int missing = 0;
    const char *drawing = "";
    fputs("<h2>Images of the same noise</h2>\n", p->out);
    for (int i = 0; i < p->plan->n; i++) {
        const sweep_cell *c = &p->plan->cells[i];
        if (!row_of(p, i))
            continue;
        if (strcmp(drawing, c->drawing) != 0)
            left -= picture(p, c->drawing, "model of floats", left);
        drawing = c->drawing;
        size_t used = c->is_float ? 1 : picture(p, c->id, c->name, left);
        left -= c->is_float ? 0 : used;
        missing += !used;
    }
    if (missing)
        fprintf(p->out, "<p>Pictures of %d more cells lie in images/, under the id of results.csv.</p>\n", missing);
}

/* ---- the page ---- */

static void head(const page *p)
{
    const char *name = p->plan->name ? p->plan->name : "Sweep";
    const sample_settings *s = &p->plan->cells[0].sample;
    fputs("<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"/><title>", p->out);
    plot_escape(p->out, name);
    fprintf(p->out, "</title><style>%s</style></head><body>\n<h1>", style);
    plot_escape(p->out, name);
    fputs("</h1>\n<p>halftone sweep of <b>", p->out);
    plot_escape(p->out, p->model);
    fprintf(p->out, "</b>: %d of %d cells; ", p->done, p->plan->n);
    bool same = true;
    for (int i = 1; i < p->plan->n; i++)
        same = same && !strcmp(p->plan->cells[i].drawing, p->plan->cells[0].drawing);
    if (same)
        fprintf(p->out, "%lld images of %lld steps, seed %llu", (long long)s->n, (long long)s->steps,
                (unsigned long long)s->seed);
    else
        fputs("how images were drawn differs between cells", p->out);
    fputs(". PSNR is to the images that the model of floats draws of the same noise, of all squared errors together; "
          "mean PSNR is the mean over images.",
          p->out);
    if (p->features[0]) {
        fputs(" FD is the Fr\xc3\xa9"
              "chet distance to the reference set in the features of ",
              p->out);
        plot_escape(p->out, p->features);
        fputs(strncmp(p->features, "pt_inception", 12) != 0 ? ", which is not FID." : ".", p->out);
    }
    fputs(" All settings are in results.csv.</p>\n", p->out);
}

static void write_page(page *p)
{
    p->features = "";
    for (int i = 0; i < p->plan->n; i++) {
        if (!row_of(p, i))
            continue;
        p->done++;
        if (!p->features[0])
            p->features = sweep_row_text(p->results, row_of(p, i), "features");
    }
    head(p);
    table(p);
    settings_plots(p);
    curves(p);
    pictures(p);
    fprintf(p->out, "<p>halftone %s</p>\n</body></html>\n", ht_version());
}

int sweep_page_write(const char *folder, const char *model, const sweep_plan *plan, const sweep_results *results)
{
    char path[PATH_MAX];
    ht_output *o;
    if (snprintf(path, sizeof path, "%s/index.html", folder) >= (int)sizeof path)
        return report("%s: the name is too long", folder);
    if (ht_output_open(path, &o))
        return report_failure();
    page p = {.out = ht_output_stream(o), .folder = folder, .model = model, .plan = plan, .results = results};
    write_page(&p);
    return ht_output_commit(o) ? report_failure() : 0;
}
