/* test_progress.c - the progress line fits its terminal, cleans up behind itself, and stays out of pipes. */
#include <fcntl.h>
#include <poll.h>
#include <setjmp.h>
#include <stddef.h>
#include <stdlib.h>

#include "cli/progress.c" /* what composes the line is static */

#include <cmocka.h>

/* ---- the line ---- */

/* Columns on a terminal: every UTF-8 character used takes one. */
static int width(const char *s)
{
    int n = 0;
    for (; *s; s++)
        n += ((unsigned char)*s & 0xc0) != 0x80;
    return n;
}

static void assert_fits(const progress *p, double seconds, int columns)
{
    line l;
    compose(&l, p, seconds, columns);
    assert_int_equal(width(l.text), l.columns);
    assert_int_equal(strlen(l.text), l.bytes);
    assert_true(l.columns <= columns);
    compose_end(&l, p, seconds, columns);
    assert_true(width(l.text) == l.columns && l.columns <= columns);
}

static void the_line_is_never_wider_than_the_terminal(void **state)
{
    static const int64_t totals[] = {0, 1, 3200, 999999999, INT64_MAX};
    static const double seconds[] = {0, 0.01, 100, 1e6};
    (void)state;
    for (int i = 0; i < 5 * 4 * 3 * 2; i++) {
        int64_t total = totals[i % 5], done = i / 20 % 3 * (total / 2);
        progress p = {.label = "sampling", .total = total, .done = done, .utf8 = i / 60};
        for (int columns = 0; columns < 140; columns++)
            assert_fits(&p, seconds[i / 5 % 4], columns);
    }
}

static void the_line_reads_as_it_should(void **state)
{
    progress p = {.label = "sampling", .done = 400, .total = 1600};
    line l;
    (void)state;
    compose(&l, &p, 16, 79);
    assert_string_equal("sampling  [#######-----------------------]  25%   400/1600  25.0/s  0:48 left", l.text);
    p.utf8 = true;
    compose(&l, &p, 16, 79);
    assert_non_null(strstr(l.text, "\u2595\u2588\u2588\u2588\u2588\u2588\u2588\u2588\u258c "));
    compose(&l, &p, 1600, 39);
    assert_string_equal(" 25%   400/1600  4.0 s each  1:20:00 le", l.text);
    compose_end(&l, &p, 125.4, 79);
    assert_string_equal("sampling  400 in 2:05  3.2/s", l.text);
}

/* ---- on a terminal and off it ---- */

/* What was written to fd arrives at a terminal's other side in its own time: a last byte says that it is all there. */
static void read_all(int fd, int reader, char *text, size_t size)
{
    struct pollfd ready = {.fd = reader, .events = POLLIN};
    size_t n = 0;
    assert_int_equal(1, write(fd, "\1", 1));
    while (!n || text[n - 1] != '\1') {
        assert_true(poll(&ready, 1, -1) == 1 && n < size);
        ssize_t got = read(reader, text + n, size - n);
        assert_true(got > 0);
        n += (size_t)got;
    }
    text[n - 1] = 0;
}

/* Let a bar run to `done` of 100 with standard error on fd; what arrives at the other side is in text. */
static void run_bar(progress *p, int fd, int reader, int64_t done, char *text, size_t size)
{
    int saved = dup(STDERR_FILENO);
    dup2(fd, STDERR_FILENO);
    progress_begin(p, "sampling", 100);
    progress_update(p, done);
    progress_end(p);
    dup2(saved, STDERR_FILENO);
    close(saved);
    read_all(fd, reader, text, size);
}

static int open_terminal(int *user_side)
{
    struct winsize w = {.ws_col = 60, .ws_row = 24};
    int terminal = posix_openpt(O_RDWR | O_NOCTTY | O_NONBLOCK);
    assert_true(terminal >= 0 && !grantpt(terminal) && !unlockpt(terminal));
    *user_side = open(ptsname(terminal), O_RDWR | O_NOCTTY);
    assert_true(*user_side >= 0 && !ioctl(*user_side, TIOCSWINSZ, &w));
    return terminal;
}

static void nothing_is_printed_into_a_pipe_or_when_quiet(void **state)
{
    int ends[2], user_side, terminal = open_terminal(&user_side);
    char text[1024];
    progress p = {0}, quiet = {.quiet = true};
    (void)state;
    assert_int_equal(0, pipe2(ends, O_NONBLOCK));
    run_bar(&p, ends[1], ends[0], 100, text, sizeof text);
    assert_string_equal("", text);
    run_bar(&quiet, user_side, terminal, 100, text, sizeof text);
    assert_string_equal("", text);
    close(ends[0]), close(ends[1]), close(user_side), close(terminal);
}

static void a_finished_bar_leaves_one_line_and_a_stopped_one_none(void **state)
{
    int user_side, terminal = open_terminal(&user_side);
    char text[1024];
    progress p = {0};
    (void)state;
    run_bar(&p, user_side, terminal, 100, text, sizeof text);
    assert_non_null(strstr(text, "\rsampling  100 in "));
    assert_string_equal("\r\n", text + strlen(text) - 2);
    run_bar(&p, user_side, terminal, 50, text, sizeof text);
    const char *last = strrchr(text, '\r');
    assert_string_equal("\r", last); /* the cursor is back at the start of */
    while (last > text && last[-1] == ' ')
        last--;
    assert_true(last > text && last[-1] == '\r'); /* a line of blanks */
    close(user_side), close(terminal);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_line_is_never_wider_than_the_terminal),
        cmocka_unit_test(the_line_reads_as_it_should),
        cmocka_unit_test(nothing_is_printed_into_a_pipe_or_when_quiet),
        cmocka_unit_test(a_finished_bar_leaves_one_line_and_a_stopped_one_none),
    };
    return cmocka_run_group_tests_name("progress", tests, NULL, NULL);
}
