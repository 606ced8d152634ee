/* progress.c - a progress bar that behaves: only on terminals, never wider than the terminal, no escape sequences (a
 * shorter line is padded over a longer one), block characters only where the locale says UTF-8. */
#include "cli/progress.h"

#include <langinfo.h>
#include <locale.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

enum { BAR_MIN = 8, BAR_MAX = 40, FIGURES = 36, LINE_BYTES = 512 };

typedef struct line {
    char text[LINE_BYTES];
    int bytes, columns;
} line;

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static bool locale_is_utf8(void)
{
    locale_t l = newlocale(LC_CTYPE_MASK, "", 0);
    bool yes = l && !strcmp(nl_langinfo_l(CODESET, l), "UTF-8");
    if (l)
        freelocale(l);
    return yes;
}

static int terminal_columns(void)
{
    struct winsize w;
    return ioctl(STDERR_FILENO, TIOCGWINSZ, &w) == 0 && w.ws_col > 0 ? w.ws_col : 80;
}

/* ---- the line ---- */

/* ASCII; what does not fit is cut */
static __attribute__((format(printf, 2, 3))) void add(line *l, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    int n = vsnprintf(l->text + l->bytes, sizeof l->text - (size_t)l->bytes, format, args);
    va_end(args);
    int room = LINE_BYTES - 1 - l->bytes;
    n = n < 0 ? 0 : n < room ? n : room;
    l->bytes += n;
    l->columns += n;
}

static void add_glyph(line *l, const char *glyph)
{
    add(l, "%s", glyph);
    l->columns -= (int)strlen(glyph) - 1;
}

static void add_time(line *l, double seconds)
{
    int64_t s = (int64_t)((seconds < 3599999 ? seconds : 3599999) + 0.5); /* up to 999:59:59 */
    if (s >= 3600)
        add(l, "%lld:%02d:%02d", (long long)(s / 3600), (int)(s / 60 % 60), (int)(s % 60));
    else
        add(l, "%d:%02d", (int)(s / 60), (int)(s % 60));
}

static void add_rate(line *l, double per_second)
{
    if (per_second >= 100)
        add(l, "%.0f/s", per_second);
    else if (per_second >= 1)
        add(l, "%.1f/s", per_second);
    else
        add(l, "%.1f s each", 1 / per_second);
}

/* Eighths of a cell where the locale has them. */
static void add_bar(line *l, bool utf8, double fraction, int width)
{
    static const char *const eighths[] = {" ",      "\u258f", "\u258e", "\u258d", "\u258c",
                                          "\u258b", "\u258a", "\u2589", "\u2588"};
    int filled = (int)(fraction * width * 8);
    add_glyph(l, utf8 ? "\u2595" : "[");
    for (int i = 0; i < width; i++, filled -= 8) {
        int cell = filled < 0 ? 0 : filled > 8 ? 8 : filled;
        add_glyph(l, utf8 ? eighths[cell] : cell == 8 ? "#" : "-");
    }
    add_glyph(l, utf8 ? "\u258f" : "]");
}

/* What stands behind the bar:  42%  1344/3200  25.3/s  1:13 left */
static void add_figures(line *l, const progress *p, double seconds)
{
    double rate = seconds > 0 ? (double)p->done / seconds : 0;
    int digits = snprintf(NULL, 0, "%lld", (long long)p->total);
    if (p->total > 0)
        add(l, "%3d%%  %*lld/%lld", (int)(100.0 * (double)p->done / (double)p->total), digits, (long long)p->done,
            (long long)p->total);
    else
        add(l, "%lld", (long long)p->done);
    if (rate <= 0)
        return;
    add(l, "  ");
    add_rate(l, rate);
    if (p->total > 0) {
        add(l, "  ");
        add_time(l, (double)(p->total - p->done) / rate);
        add(l, " left");
    }
}

/* The bar takes what label and figures leave of `columns`; on a narrow terminal it goes first, then the label. */
static void compose(line *l, const progress *p, double seconds, int columns)
{
    line figures = {.bytes = 0};
    add_figures(&figures, p, seconds);
    *l = (line){.bytes = 0};
    if ((int)strlen(p->label) + 2 + figures.columns > columns) {
        add(l, "%.*s", columns, figures.text);
        return;
    }
    add(l, "%s  ", p->label);
    int steady = figures.columns > FIGURES ? figures.columns : FIGURES; /* so that the bar keeps its length */
    int room = columns - l->columns - 3 - steady;
    if (room >= BAR_MIN && p->total > 0) {
        add_bar(l, p->utf8, (double)p->done / (double)p->total, room < BAR_MAX ? room : BAR_MAX);
        add(l, " ");
    }
    add(l, "%s", figures.text);
}

static void compose_end(line *l, const progress *p, double seconds, int columns)
{
    line words = {.bytes = 0};
    add(&words, "%s  %lld in ", p->label, (long long)p->done);
    if (seconds < 10)
        add(&words, "%.1f s", seconds);
    else
        add_time(&words, seconds);
    if (seconds > 0 && p->done > 0) {
        add(&words, "  ");
        add_rate(&words, (double)p->done / seconds);
    }
    *l = (line){.bytes = 0};
    add(l, "%.*s", columns, words.text);
}

/* Put a line where the old one stands, and blanks over what is left of that. */
static void show(progress *p, const line *l, const char *end)
{
    int rest = p->columns > l->columns ? p->columns - l->columns : 0;
    fprintf(stderr, "\r%s%*s%s", l->text, rest, "", end);
    p->columns = l->columns;
}

/* ---- the bar's life ---- */

void progress_begin(progress *p, const char *label, int64_t total)
{
    *p = (progress){.quiet = p->quiet, .label = label, .total = total, .start = now()};
    p->visible = !p->quiet && isatty(STDERR_FILENO);
    p->utf8 = p->visible && locale_is_utf8();
    progress_update(p, 0);
}

void progress_update(progress *p, int64_t done)
{
    line l;
    p->done = p->total > 0 && done > p->total ? p->total : done;
    if (!p->visible)
        return;
    double t = now();
    if (t - p->drawn < 0.1)
        return;
    p->drawn = t;
    compose(&l, p, t - p->start, terminal_columns() - 1); /* the last column wraps on some terminals */
    show(p, &l, "");
}

void progress_end(progress *p)
{
    line l = {.bytes = 0};
    if (!p->visible)
        return;
    bool complete = p->total == 0 || p->done == p->total;
    if (complete)
        compose_end(&l, p, now() - p->start, terminal_columns() - 1);
    show(p, &l, complete ? "\n" : "\r");
    p->visible = false;
}
