/* show.c - pictures in a terminal: by the graphics protocols of kitty and iTerm2, as sixels (DEC's VT240), else by the
 * character "upper half block", whose two colours are two pixels.
 *
 * Sixel colours are the 6x6x6 cube, spread by ordered dithering (Bayer's 4x4 matrix). */
#include "cli/show.h"

#include <math.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

enum { GAP = 2, DEFAULT_COLUMNS = 80, KITTY_CHUNK = 4096 };

typedef struct raster {
    uint8_t *rgb; /* [h][w][3] */
    int h, w;
} raster;

static uint8_t to_byte(float x)
{
    float unit = x / 2 + 0.5f;
    return !(unit > 0) ? 0 : unit < 1 ? (uint8_t)rintf(unit * 255) : 255;
}

/* All pictures in one; rgb NULL: out of memory, or too large to be looked at. */
static raster assemble(const shown *s)
{
    int columns = s->columns < 1 ? 1 : s->n < s->columns ? (int)s->n : s->columns;
    int64_t rows = (s->n + columns - 1) / columns;
    int64_t h = rows * (s->height + GAP) - GAP, w = (int64_t)columns * (s->width + GAP) - GAP;
    raster r = {NULL, (int)h, (int)w};
    if (h < 1 || w < 1 || h > 32768 || w > 32768 || !(r.rgb = malloc((size_t)(h * w) * 3)))
        return r;
    memset(r.rgb, 255, (size_t)(h * w) * 3);
    for (int64_t i = 0; i < s->n; i++)
        for (int y = 0; y < s->height; y++)
            for (int x = 0; x < s->width; x++) {
                const float *from = s->images + ((i * s->height + y) * s->width + x) * s->channels;
                uint8_t *to =
                    r.rgb + (((i / columns) * (s->height + GAP) + y) * w + (i % columns) * (s->width + GAP) + x) * 3;
                for (int c = 0; c < 3; c++)
                    to[c] = to_byte(from[s->channels < 3 ? 0 : c]);
            }
    return r;
}

/* ---- half blocks ---- */

/* The mean colour of what a cell of a smaller picture covers. */
static void mean_of(const raster *r, const int box[4], unsigned mean[3])
{
    uint64_t sums[3] = {0}, n = 0;
    for (int y = box[0]; y < box[1]; y++)
        for (int x = box[2]; x < box[3]; x++, n++)
            for (int c = 0; c < 3; c++)
                sums[c] += r->rgb[((size_t)y * (size_t)r->w + (size_t)x) * 3 + (size_t)c];
    for (int c = 0; c < 3; c++)
        mean[c] = n ? (unsigned)((sums[c] + n / 2) / n) : 0;
}

static int blocks(FILE *out, const raster *r, int columns)
{
    int w = r->w < columns ? r->w : columns, h = (int)(((int64_t)r->h * w + r->w / 2) / r->w);
    h = h < 2 ? 2 : h + h % 2;
    for (int y = 0; y < h; y += 2) {
        for (int x = 0; x < w; x++) {
            unsigned colour[2][3];
            for (int half = 0; half < 2; half++) {
                int64_t top = (int64_t)(y + half) * r->h / h, end = (int64_t)(y + half + 1) * r->h / h;
                int64_t left = (int64_t)x * r->w / w, right = (int64_t)(x + 1) * r->w / w;
                const int box[4] = {(int)top, (int)(end > top ? end : top + 1), (int)left,
                                    (int)(right > left ? right : left + 1)};
                mean_of(r, box, colour[half]);
            }
            fprintf(out, "\033[38;2;%u;%u;%um\033[48;2;%u;%u;%um\u2580", colour[0][0], colour[0][1], colour[0][2],
                    colour[1][0], colour[1][1], colour[1][2]);
        }
        fputs("\033[0m\n", out);
    }
    return h / 2;
}

int show_blocks(FILE *out, const shown *s, int columns)
{
    raster r = assemble(&(shown){s->images, 1, s->height, s->width, s->channels, 1});
    int rows = r.rgb ? blocks(out, &r, columns) : 0;
    free(r.rgb);
    return rows;
}

static int columns_of(FILE *out)
{
    struct winsize size;
    if (!ioctl(fileno(out), TIOCGWINSZ, &size) && size.ws_col)
        return size.ws_col;
    const char *columns = getenv("COLUMNS");
    int n = columns ? atoi(columns) : 0;
    return n > 0 ? n : DEFAULT_COLUMNS;
}

/* ---- kitty, iTerm2 ---- */

static void base64(FILE *out, const uint8_t *bytes, size_t n)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    for (size_t i = 0; i < n; i += 3) {
        unsigned left = n - i < 3 ? (unsigned)(n - i) : 3;
        unsigned v =
            (unsigned)bytes[i] << 16 | (left > 1 ? (unsigned)bytes[i + 1] << 8 : 0) | (left > 2 ? bytes[i + 2] : 0);
        fputc(digits[v >> 18], out);
        fputc(digits[v >> 12 & 63], out);
        fputc(left > 1 ? digits[v >> 6 & 63] : '=', out);
        fputc(left > 2 ? digits[v & 63] : '=', out);
    }
}

/* https://sw.kovidgoyal.net/kitty/graphics-protocol: raw RGB in chunks of 4096 characters of base64. */
static void kitty(FILE *out, const raster *r)
{
    size_t n = (size_t)r->h * (size_t)r->w * 3, chunk = KITTY_CHUNK / 4 * 3;
    for (size_t at = 0; at < n; at += chunk) {
        size_t count = n - at < chunk ? n - at : chunk;
        if (at == 0)
            fprintf(out, "\033_Ga=T,f=24,s=%d,v=%d,m=%d;", r->w, r->h, at + count < n);
        else
            fprintf(out, "\033_Gm=%d;", at + count < n);
        base64(out, r->rgb + at, count);
        fputs("\033\\", out);
    }
    fputc('\n', out);
}

/* https://iterm2.com/documentation-images.html: the file itself. */
static bool iterm2(FILE *out, const char *file)
{
    FILE *in = file ? fopen(file, "rbe") : NULL;
    uint8_t *bytes = NULL;
    long size = in && !fseek(in, 0, SEEK_END) ? ftell(in) : 0;
    bool read = size > 0 && !fseek(in, 0, SEEK_SET) && (bytes = malloc((size_t)size)) &&
                fread(bytes, 1, (size_t)size, in) == (size_t)size;
    if (read) {
        fprintf(out, "\033]1337;File=inline=1;size=%ld:", size);
        base64(out, bytes, (size_t)size);
        fputs("\a\n", out);
    }
    free(bytes);
    if (in)
        fclose(in);
    return read;
}

/* ---- sixels ---- */

static int cube_of(const uint8_t *rgb, int x, int y)
{
    static const int bayer[4][4] = {{0, 8, 2, 10}, {12, 4, 14, 6}, {3, 11, 1, 9}, {15, 7, 13, 5}};
    int colour = 0, threshold = bayer[y & 3][x & 3] * 2 + 1; /* of 32 */
    for (int c = 0; c < 3; c++) {
        int scaled = rgb[c] * 5 * 32 + threshold * 255;
        int level = scaled / (255 * 32);
        colour = colour * 6 + (level > 5 ? 5 : level);
    }
    return colour;
}

static void run_of(FILE *out, int character, int n)
{
    if (n > 3)
        fprintf(out, "!%d%c", n, character);
    else
        for (int i = 0; i < n; i++)
            fputc(character, out);
}

/* Six rows: each colour that is in them, from the left. */
static void band(FILE *out, const raster *r, int top)
{
    enum { CUBE = 216 };
    bool used[CUBE] = {false};
    int rows = r->h - top < 6 ? r->h - top : 6;
    for (int y = 0; y < rows; y++)
        for (int x = 0; x < r->w; x++)
            used[cube_of(r->rgb + ((size_t)(top + y) * (size_t)r->w + (size_t)x) * 3, x, top + y)] = true;
    for (int colour = 0; colour < CUBE; colour++) {
        int last = 0, n = 0;
        if (!used[colour])
            continue;
        fprintf(out, "#%d", colour);
        for (int x = 0; x < r->w; x++) {
            int bits = 0;
            for (int y = 0; y < rows; y++)
                bits |= (cube_of(r->rgb + ((size_t)(top + y) * (size_t)r->w + (size_t)x) * 3, x, top + y) == colour)
                        << y;
            if (bits != last) {
                run_of(out, '?' + last, n);
                n = 0;
            }
            last = bits;
            n++;
        }
        run_of(out, '?' + last, n);
        fputc('$', out);
    }
    fputc('-', out);
}

static void sixel(FILE *out, const raster *r)
{
    fprintf(out, "\033Pq\"1;1;%d;%d", r->w, r->h);
    for (int colour = 0; colour < 216; colour++)
        fprintf(out, "#%d;2;%d;%d;%d", colour, colour / 36 * 20, colour / 6 % 6 * 20, colour % 6 * 20);
    for (int top = 0; top < r->h; top += 6)
        band(out, r, top);
    fputs("\033\\\n", out);
}

/* ---- which ---- */

static const char *terminal_of_environment(void)
{
    const char *term = getenv("TERM"), *program = getenv("TERM_PROGRAM");
    if (getenv("KITTY_WINDOW_ID") || (term && strstr(term, "kitty")) || (program && !strcmp(program, "ghostty")))
        return "kitty";
    if (program && (!strcmp(program, "iTerm.app") || !strcmp(program, "WezTerm")))
        return "iterm2";
    if (term && (strstr(term, "sixel") || !strcmp(term, "mlterm") || !strcmp(term, "foot")))
        return "sixel";
    return "blocks";
}

void show_picture(FILE *out, const char *terminal, const shown *s, const char *file)
{
    raster r = assemble(s);
    if (!strcmp(terminal, "auto"))
        terminal = terminal_of_environment();
    if (r.rgb && !strcmp(terminal, "kitty"))
        kitty(out, &r);
    else if (r.rgb && !strcmp(terminal, "sixel"))
        sixel(out, &r);
    else if (r.rgb && (strcmp(terminal, "iterm2") != 0 || !iterm2(out, file)))
        blocks(out, &r, columns_of(out));
    fflush(out);
    free(r.rgb);
}
