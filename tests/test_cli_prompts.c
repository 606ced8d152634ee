/* test_cli_prompts.c - `halftone sample` with prompts, pictures to begin with, and pictures in the terminal. */
#include "halftone.h"
#include "tests/program.h"

#define MODEL "tests/goldens/pipeline/sd1"
#define SMALL "--size", "16", "--steps", "2", "-q"

static void write_bytes(const char *path, const void *bytes, size_t size)
{
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(bytes, 1, size, f), size);
    assert_int_equal(fclose(f), 0);
}

static void write_text(const char *path, const char *text)
{
    write_bytes(path, text, strlen(text));
}

static void assert_says(const char *text, const char *words)
{
    if (!strstr(text, words))
        fail_msg("<%.2000s> does not say <%s>", text, words);
}

static size_t read_bytes(const char *path, unsigned char *to, size_t size)
{
    FILE *f = fopen(path, "rb");
    assert_non_null(f);
    size_t n = fread(to, 1, size, f);
    fclose(f);
    return n;
}

/* The value of the picture's tEXt chunk `parameters`. */
static const char *parameters_of(const char *path)
{
    static unsigned char file[1 << 20];
    static char text[1 << 16];
    size_t n = read_bytes(path, file, sizeof file);
    unsigned char *at = memmem(file, n, "tEXtparameters", 15);
    assert_non_null(at);
    size_t length = (size_t)at[-4] << 24 | (size_t)at[-3] << 16 | (size_t)at[-2] << 8 | at[-1];
    snprintf(text, sizeof text, "%.*s", (int)(length - 11), (char *)at + 15);
    return text;
}

static void assert_same_picture(const char *a, const char *b, bool same)
{
    static unsigned char x[1 << 20], y[1 << 20];
    size_t n = read_bytes(a, x, sizeof x), m = read_bytes(b, y, sizeof y);
    assert_true(n > 100 && m > 100);
    unsigned char *p = memmem(x, n, "IDAT", 4), *q = memmem(y, m, "IDAT", 4); /* the texts differ */
    assert_true(p && q);
    bool equal = x + n - p == y + m - q && !memcmp(p, q, (size_t)(x + n - p));
    if (equal != same)
        fail_msg("%s and %s are %s", a, b, equal ? "the same picture" : "different pictures");
}

/* ---- the record ---- */

static void a_picture_has_its_prompt_in_the_words_of_a1111(void **state)
{
    scratch *s = *state;
    const char *picture = in_scratch(s, "a.png");
    assert_worked(s, run(s, "sample", MODEL, "-p", "a (cat:1.2), \"quoted\"", "--negative", "two\ndogs", "--sampler",
                         "dpm++", "--sigmas", "karras", "--guidance", "5", "--clip-skip", "2", SMALL, "-o", picture));
    const char *text = parameters_of(picture);
    assert_int_equal(strncmp(text, "a (cat:1.2), \"quoted\"\nNegative prompt: two dogs\nSteps: 2, ", 58), 0);
    assert_says(text,
                "Steps: 2, Sampler: DPM++ 2M, Schedule type: karras, CFG scale: 5, Seed: 0, Size: 16x16, Images: 1");
    assert_says(text, "Clip skip: 2");
    assert_says(text, "Model: sd1, Version: halftone ");
}

static void prompts_of_a_file_are_drawn_into_a_folder(void **state)
{
    scratch *s = *state;
    const char *list = in_scratch(s, "list.txt"), *one = in_scratch(s, "one.png");
    write_text(list, "# a comment\na cat\n\r\ntwo dogs\r\n");
    assert_worked(
        s, run(s, "sample", MODEL, "--prompts", list, "-n", "2", SMALL, "-o", in_scratch(s, "out/"), "--batch", "3"));
    assert_int_equal(count_files(in_scratch(s, "out")), 4);
    const char *last = in_scratch(s, "out/00003.png"), *text = parameters_of(last);
    assert_int_equal(strncmp(text, "two dogs\n", 9), 0);
    assert_says(text, "Images: 1, First: 1");
    assert_worked(s, run(s, "sample", MODEL, "-p", "two dogs", "--first", "1", SMALL, "-o", one));
    assert_same_picture(one, last, true);
    assert_worked(s, run(s, "sample", MODEL, "-p", "a cat", "-p", "two dogs", "-n", "2", SMALL, "--json", "-o", one));
    assert_says(s->out, "\"prompts\": [\n  \"a cat\",\n  \"two dogs\"\n ]");
    assert_says(s->out, "\"images\": 4");
    assert_int_equal(strncmp(parameters_of(one), "a cat\ntwo dogs\n", 15), 0);
}

/* The table of the command line is that of the library. */
static void every_sampler_of_the_library_is_offered_and_draws(void **state)
{
    scratch *s = *state;
    char all[512] = "";
    const char *name;
    for (int i = 0; (name = ht_sampler_name(i, NULL)); i++) {
        size_t used = strlen(all);
        snprintf(all + used, sizeof all - used, "%s%s", i ? "|" : "(", name);
        assert_worked(s, run(s, "sample", MODEL, "-p", "a cat", "--sampler", name, "--size", "16", "--steps", "5", "-q",
                             "-o", in_scratch(s, "a.png")));
    }
    assert_worked(s, run(s, "sample", "--help"));
    assert_says(s->out, all);
}

/* ---- what is wrong ---- */

static void a_bad_prompt_is_named_and_the_others_are_drawn(void **state)
{
    scratch *s = *state;
    const char *list = in_scratch(s, "list.txt"), *folder = in_scratch(s, "out/"), *alone = in_scratch(s, "alone.png");
    write_text(list, "a cat\ncaf\xc3\ntwo dogs\n(a:1.2.3)\n");
    assert_int_equal(run(s, "sample", MODEL, "--prompts", list, SMALL, "-o", folder), 1);
    assert_says(s->err, "list.txt:2: ");
    assert_says(s->err, "list.txt:4: ");
    assert_int_equal(count_files(in_scratch(s, "out")), 2);
    assert_worked(s, run(s, "sample", MODEL, "-p", "two dogs", SMALL, "-o", alone));
    assert_same_picture(alone, in_scratch(s, "out/00001.png"), true);
    const char *none = in_scratch(s, "none.png");
    assert_refused(s, run(s, "sample", MODEL, "-p", "caf\xc3", SMALL, "-o", none), 1);
    assert_false(exists(none));
}

static void files_without_prompts_are_refused(void **state)
{
    scratch *s = *state;
    const char *list = in_scratch(s, "list.txt"), *none = in_scratch(s, "none.png");
    write_text(list, "# nothing\n\n");
    assert_refused(s, run(s, "sample", MODEL, "--prompts", list, SMALL, "-o", none), 1);
    assert_says(s->err, "holds no prompt");
    write_bytes(list, "a\0b\n", 4);
    assert_refused(s, run(s, "sample", MODEL, "--prompts", list, SMALL, "-o", none), 1);
    assert_says(s->err, "list.txt:1: holds a zero byte");
    assert_refused(s, run(s, "sample", MODEL, "--prompts", in_scratch(s, "missing"), SMALL, "-o", none), 1);
    assert_refused(s, run(s, "sample", MODEL, SMALL, "-o", none), 1);
    assert_says(s->err, "needs a prompt; see --prompt");
    assert_refused(s, run(s, "sample", "models/cifar10", "-p", "a cat", "-q", "-o", none), 1);
    assert_says(s->err, "takes no prompt");
    assert_false(exists(none));
}

/* 1 MB of words is cut by diffusers and here 75 tokens a row; more than 4 MiB is an error. */
static void a_prompt_of_a_megabyte_is_read_and_one_of_five_is_not(void **state)
{
    scratch *s = *state;
    const char *list = in_scratch(s, "list.txt"), *picture = in_scratch(s, "a.png");
    size_t size = 5 << 20;
    char *text = malloc(size);
    assert_non_null(text);
    for (size_t i = 0; i < size; i++)
        text[i] = i % 4 == 3 ? ' ' : 'a';
    write_bytes(list, text, 1 << 20);
    assert_worked(s, run(s, "sample", MODEL, "--prompts", list, "--plain-prompts", SMALL, "-o", picture));
    assert_true(exists(picture));
    assert_refused(s, run(s, "sample", MODEL, "--prompts", list, SMALL, "-o", in_scratch(s, "none.png")), 1);
    assert_says(s->err, "list.txt:1: the prompt fills 10"); /* said at once, not when all rows are encoded */
    assert_says(s->err, "rows of 77 tokens, at most 851 are read");
    write_bytes(list, text, size);
    assert_refused(s, run(s, "sample", MODEL, "--prompts", list, SMALL, "-o", in_scratch(s, "none.png")), 1);
    assert_says(s->err, "at most 4194304");
    free(text);
}

static void pictures_to_begin_with_that_are_none_are_refused(void **state)
{
    scratch *s = *state;
    const char *init = in_scratch(s, "init.png"), *none = in_scratch(s, "none.png");
    static unsigned char png[1 << 16];
    assert_worked(s, run(s, "sample", MODEL, "-p", "a cat", SMALL, "-o", init));
    size_t n = read_bytes(init, png, sizeof png);
    assert_refused(s, run(s, "sample", MODEL, "-p", "a", "--init", in_scratch(s, "missing.png"), SMALL, "-o", none), 1);
    write_text(init, "no picture");
    assert_refused(s, run(s, "sample", MODEL, "-p", "a", "--init", init, SMALL, "-o", none), 1);
    assert_says(s->err, "init.png");
    write_bytes(init, png, n / 2);
    assert_refused(s, run(s, "sample", MODEL, "-p", "a", "--init", init, SMALL, "-o", none), 1);
    png[16] = png[20] = 0x7f; /* two thousand million pixels wide and high, it says */
    write_bytes(init, png, n);
    assert_refused(s, run(s, "sample", MODEL, "-p", "a", "--init", init, SMALL, "-o", none), 1);
    assert_false(exists(none));
}

static void a_picture_is_changed_by_its_strength_where_the_mask_is_white(void **state)
{
    scratch *s = *state;
    const char *init = in_scratch(s, "init.png"), *a = in_scratch(s, "a.png"), *b = in_scratch(s, "b.png");
    assert_worked(s, run(s, "sample", MODEL, "-p", "two dogs", "--seed", "3", SMALL, "-o", init));
    assert_worked(s, run(s, "sample", MODEL, "-p", "a cat", "--init", init, "--strength", "0.5", SMALL, "-o", a));
    assert_says(parameters_of(a), "Denoising strength: 0.5");
    assert_worked(s, run(s, "sample", MODEL, "-p", "a cat", "--init", init, "--strength", "1", SMALL, "-o", b));
    assert_same_picture(a, b, false);
    assert_worked(s, run(s, "sample", MODEL, "-p", "a cat", "--init", init, "--mask", init, SMALL, "-o", a));
    assert_same_picture(a, b, false);
}

/* ---- the terminal ---- */

static void a_picture_is_shown_as_the_terminal_takes_it(void **state)
{
    scratch *s = *state;
    static const struct {
        const char *terminal, *begins, *holds;
    } rows[] = {
        {"blocks", "\033[38;2;", "\u2580"},
        {"kitty", "\033_Ga=T,f=24,s=16,v=16,m=0;", "\033\\"},
        {"iterm2", "\033]1337;File=inline=1;size=", "iVBORw0KGgo"}, /* a PNG's first bytes */
        {"sixel", "\033Pq\"1;1;16;16#0;2;0;0;0", "\033\\"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        assert_worked(s, run(s, "sample", MODEL, "-p", "a cat", SMALL, "--show", "--terminal", rows[i].terminal, "-o",
                             in_scratch(s, "a.png")));
        if (strncmp(s->out, rows[i].begins, strlen(rows[i].begins)) != 0 || !strstr(s->out, rows[i].holds))
            fail_msg("%s: <%.100s>", rows[i].terminal, s->out);
    }
}

/* 8 latents a side are 4 rows of half blocks, after which the cursor is where it was. */
static void every_step_is_previewed(void **state)
{
    scratch *s = *state;
    int found = 0;
    assert_int_equal(run(s, "sample", MODEL, "-p", "a cat", SMALL, "--preview", "-o", in_scratch(s, "a.png")), 0);
    for (const char *at = s->err; (at = strstr(at, "\033[5A")); at++)
        found++;
    assert_int_equal(found, 2);
    assert_says(s->err, "\r\033[J");
}

#define CASE(name) cmocka_unit_test_setup_teardown(name, open_scratch, close_scratch)

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(a_picture_has_its_prompt_in_the_words_of_a1111),
        CASE(prompts_of_a_file_are_drawn_into_a_folder),
        CASE(every_sampler_of_the_library_is_offered_and_draws),
        CASE(a_bad_prompt_is_named_and_the_others_are_drawn),
        CASE(files_without_prompts_are_refused),
        CASE(a_prompt_of_a_megabyte_is_read_and_one_of_five_is_not),
        CASE(pictures_to_begin_with_that_are_none_are_refused),
        CASE(a_picture_is_changed_by_its_strength_where_the_mask_is_white),
        CASE(a_picture_is_shown_as_the_terminal_takes_it),
        CASE(every_step_is_previewed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
