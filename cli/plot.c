/* plot.c - line plots as SVG.
 *
 * Colours are those of Okabe and Ito (jfly.uni-koeln.de/color, 2008), which differ for colour-blind eyes too, without
 * the yellow, which white swallows; after seven series the dashes change.  Ticks stand at 1, 2 or 5 times a power of
 * ten (Heckbert, "Nice Numbers for Graph Labels", Graphics Gems, 1990). */
#include "cli/plot.h"

#include <math.h>
#include <string.h>

enum { LEFT = 80, TOP = 30, BOTTOM = 48, RIGHT = 16, LEGEND_LINE = 17, LETTER = 7, COLORS = 7, LEGEND_LETTERS = 66 };

static const char *const colors[COLORS] = {"#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#000000"};
static const char *const dashes[] = {"", "6 3", "2 3", "9 3 2 3"};

/* An axis: values lo .. hi onto pixels 0 .. length. */
typedef struct scale {
    double lo, hi, length;
    bool is_log, falls;
} scale;

const char *plot_color(int style)
{
    return colors[style % COLORS];
}

void plot_escape(FILE *out, const char *text)
{
    for (; *text; text++) {
        if (*text == '&')
            fputs("&amp;", out);
        else if (*text == '<')
            fputs("&lt;", out);
        else if (*text == '>')
            fputs("&gt;", out);
        else if (*text == '"')
            fputs("&quot;", out);
        else
            fputc((unsigned char)*text < 32 || *text == 127 ? '?' : *text, out);
    }
}

static double place(const scale *s, double v)
{
    double at = s->is_log ? log10(v / s->lo) / log10(s->hi / s->lo) : (v - s->lo) / (s->hi - s->lo);
    return s->length * (s->falls ? 1 - at : at);
}

static bool is_drawn(const plot *p, double x, double y)
{
    return isfinite(x) && isfinite(y) && (!p->log_y || y > 0);
}

/* A step of 1, 2 or 5 times a power of ten that divides a span into about n. */
static double nice_step(double span, int n)
{
    double rough = span / n, power = pow(10, floor(log10(rough))), f = rough / power;
    return power * (f < 1.5 ? 1 : f < 3.5 ? 2 : f < 7.5 ? 5 : 10);
}

/* ---- ranges ---- */

static bool find_ranges(const plot *p, scale *x, scale *y)
{
    bool any = false;
    for (int i = 0; i < p->n_series; i++)
        for (int k = 0; k < p->series[i].n; k++) {
            double u = p->series[i].x[k], v = p->series[i].y[k];
            if (!is_drawn(p, u, v))
                continue;
            x->lo = any ? fmin(x->lo, u) : u;
            x->hi = any ? fmax(x->hi, u) : u;
            y->lo = any ? fmin(y->lo, v) : v;
            y->hi = any ? fmax(y->hi, v) : v;
            any = true;
        }
    return any;
}

static void widen(scale *s)
{
    if (s->is_log) {
        s->lo = pow(10, floor(log10(s->lo) * 4) / 4); /* quarters of a decade */
        s->hi = pow(10, ceil(log10(s->hi) * 4 + 1e-9) / 4);
        if (s->hi <= s->lo)
            s->hi = s->lo * 10;
        return;
    }
    double margin = s->hi > s->lo ? 0.06 * (s->hi - s->lo) : fmax(1e-9, 0.05 * fabs(s->hi));
    s->lo -= margin;
    s->hi += margin;
}

/* ---- axes ---- */

static void y_tick(FILE *out, const plot *p, double at, double value)
{
    fprintf(out,
            "<line x1=\"0\" y1=\"%.1f\" x2=\"%d\" y2=\"%.1f\" class=\"grid\"/><text x=\"-7\" y=\"%.1f\" "
            "text-anchor=\"end\">%.6g</text>\n",
            at, p->width, at, at + 4, value);
}

static void y_axis(FILE *out, const plot *p, const scale *y)
{
    if (!y->is_log) {
        double step = nice_step(y->hi - y->lo, 5);
        int last = (int)floor((y->hi - y->lo) / step) + 1;
        for (int i = 0; i <= last; i++) {
            double v = (ceil(y->lo / step) + i) * step;
            if (v <= y->hi)
                y_tick(out, p, place(y, v), fabs(v) < step / 1e6 ? 0 : v);
        }
        return;
    }
    static const struct {
        int n;
        double at[9];
    } few = {1, {1}}, some = {3, {1, 2, 5}}, many = {9, {1, 1.5, 2, 2.5, 3, 4, 5, 6, 8}}, *marks;
    double decades = log10(y->hi / y->lo);
    marks = decades > 3 ? &few : decades > 1 ? &some : &many;
    for (int e = (int)floor(log10(y->lo)); e <= (int)ceil(log10(y->hi)); e++)
        for (int m = 0; m < marks->n; m++) {
            double v = marks->at[m] * pow(10, e);
            if (v >= y->lo * 0.999 && v <= y->hi * 1.001)
                y_tick(out, p, place(y, v), v);
        }
}

static void x_tick(FILE *out, const plot *p, double at)
{
    fprintf(out,
            "<line x1=\"%.1f\" y1=\"%d\" x2=\"%.1f\" y2=\"%d\" class=\"axis\"/><text x=\"%.1f\" y=\"%d\" "
            "text-anchor=\"middle\">",
            at, p->height, at, p->height + 4, at, p->height + 18);
}

static void x_axis(FILE *out, const plot *p, const scale *x)
{
    for (int i = 0; i < p->n_names; i++) {
        x_tick(out, p, place(x, i));
        plot_escape(out, p->names[i]);
        fputs("</text>\n", out);
    }
    if (p->names)
        return;
    double step = nice_step(x->hi - x->lo, 6);
    int last = (int)floor((x->hi - x->lo) / step) + 1;
    for (int i = 0; i <= last; i++) {
        double v = (ceil(x->lo / step) + i) * step;
        if (v > x->hi)
            break;
        x_tick(out, p, place(x, v));
        fprintf(out, "%.6g</text>\n", fabs(v) < step / 1e6 ? 0 : v);
    }
}

static void labels(FILE *out, const plot *p)
{
    fprintf(out,
            "<rect x=\"0\" y=\"0\" width=\"%d\" height=\"%d\" class=\"frame\"/>\n<text x=\"0\" y=\"-12\" "
            "class=\"title\">",
            p->width, p->height);
    plot_escape(out, p->title);
    fprintf(out, "</text>\n<text x=\"%d\" y=\"%d\" text-anchor=\"middle\">", p->width / 2, p->height + 38);
    plot_escape(out, p->x_label);
    fprintf(out, "</text>\n<text transform=\"translate(-64 %d) rotate(-90)\" text-anchor=\"middle\">", p->height / 2);
    plot_escape(out, p->y_label);
    fputs("</text>\n", out);
}

/* ---- series ---- */

static void stroke(FILE *out, const plot_series *s)
{
    fprintf(out, "stroke=\"%s\"", s->is_faint ? "#bbbbbb" : plot_color(s->style));
    int dash = s->style / COLORS % (int)(sizeof dashes / sizeof *dashes);
    if (!s->is_faint && dash)
        fprintf(out, " stroke-dasharray=\"%s\"", dashes[dash]);
}

static void series(FILE *out, const plot *p, const plot_series *s, const scale *x, const scale *y)
{
    if (!s->dots_only) {
        fputs("<polyline fill=\"none\" stroke-width=\"1.8\" ", out);
        stroke(out, s);
        fputs(" points=\"", out);
        for (int k = 0; k < s->n; k++)
            if (is_drawn(p, s->x[k], s->y[k]))
                fprintf(out, "%.1f,%.1f ", place(x, s->x[k]), place(y, s->y[k]));
        fputs("\"/>\n", out);
    }
    for (int k = 0; k < s->n; k++)
        if (is_drawn(p, s->x[k], s->y[k]))
            fprintf(out, "<circle cx=\"%.1f\" cy=\"%.1f\" r=\"%s\" fill=\"%s\"/>\n", place(x, s->x[k]),
                    place(y, s->y[k]), s->dots_only ? "3" : "2.2", s->is_faint ? "#bbbbbb" : plot_color(s->style));
}

static int legend_rows(const plot *p, size_t *letters)
{
    int rows = 0;
    *letters = 0;
    for (int i = 0; i < p->n_series; i++) {
        size_t n = p->series[i].name ? strlen(p->series[i].name) : 0;
        rows += n > 0;
        *letters = n > *letters ? n : *letters;
    }
    *letters = *letters > LEGEND_LETTERS ? LEGEND_LETTERS : *letters;
    return rows;
}

static void legend(FILE *out, const plot *p)
{
    int row = 0, left = p->width + 14;
    for (int i = 0; i < p->n_series; i++) {
        const plot_series *s = &p->series[i];
        int at = row * LEGEND_LINE + 8;
        char name[LEGEND_LETTERS + 1];
        if (!s->name || !*s->name)
            continue;
        row++;
        snprintf(name, sizeof name, "%.*s", LEGEND_LETTERS, s->name);
        if (s->dots_only)
            fprintf(out, "<circle cx=\"%d\" cy=\"%d\" r=\"3\" fill=\"%s\"/>", left + 11, at,
                    s->is_faint ? "#bbbbbb" : plot_color(s->style));
        else
            fprintf(out, "<line x1=\"%d\" y1=\"%d\" x2=\"%d\" y2=\"%d\" stroke-width=\"2\" ", left, at, left + 22, at);
        if (!s->dots_only) {
            stroke(out, s);
            fputs("/>", out);
        }
        fprintf(out, "<text x=\"%d\" y=\"%d\">", left + 28, at + 4);
        plot_escape(out, name);
        fputs("</text>\n", out);
    }
}

void plot_write(FILE *out, const plot *p)
{
    scale x = {.length = p->width, .falls = p->falling_x};
    scale y = {.length = p->height, .is_log = p->log_y, .falls = true}; /* pixels grow downwards */
    size_t letters;
    int rows = legend_rows(p, &letters);
    if (!find_ranges(p, &x, &y))
        return;
    if (p->names) {
        x.lo = 0;
        x.hi = p->n_names > 1 ? p->n_names - 1 : 1;
    }
    widen(&x);
    widen(&y);
    int width = LEFT + p->width + RIGHT + (rows ? 34 + (int)letters * LETTER : 0), height = TOP + p->height + BOTTOM;
    int needed = TOP + rows * LEGEND_LINE + 8;
    height = needed > height ? needed : height;
    fprintf(out,
            "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%d\" height=\"%d\" viewBox=\"0 0 %d %d\" "
            "role=\"img\"><g transform=\"translate(%d %d)\">\n",
            width, height, width, height, LEFT, TOP);
    y_axis(out, p, &y);
    x_axis(out, p, &x);
    labels(out, p);
    for (int i = 0; i < p->n_series; i++)
        series(out, p, &p->series[i], &x, &y);
    legend(out, p);
    fputs("</g></svg>\n", out);
}
