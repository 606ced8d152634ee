/* test_prompt.c - weights, escapes, BREAK and rows of 75: what the web UI makes of the same prompts. */
#include "tests/goldens.h"
#include "text/prompt.h"
#include "text/prompt_parse.h"

enum { START = 49406, END = 49407, A = 320, CAT = 2368, COMMA = 267 };

static ht_clip_tokenizer *clip;

static int open_clip(void **state)
{
    (void)state;
    return ht_clip_tokenizer_open(GOLDENS "/clip-tokenizer", &clip) ? -1 : 0;
}

static int close_clip(void **state)
{
    (void)state;
    ht_clip_tokenizer_close(clip);
    return 0;
}

/* Pieces as text: a|1 b|1.1, "/" for a break. */
static void assert_pieces(const char *prompt, const char *want)
{
    char got[1000] = "";
    size_t n = 0;
    ht_pieces p = {0};
    assert_ok(ht_pieces_parse(&p, prompt, strlen(prompt)));
    for (size_t i = 0; i < p.n; i++)
        n += (size_t)(p.at[i].is_break
                          ? snprintf(got + n, sizeof got - n, "/")
                          : snprintf(got + n, sizeof got - n, "{%.*s|%.4g}", (int)(p.at[i].end - p.at[i].begin),
                                     p.text + p.at[i].begin, p.at[i].weight));
    ht_pieces_free(&p);
    assert_string_equal(got, want);
}

static void brackets_weigh_what_they_hold(void **state)
{
    (void)state;
    static const char *const cases[][2] = {
        {"normal text", "{normal text|1}"},
        {"an (important) word", "{an |1}{important|1.1}{ word|1}"},
        {"(unbalanced", "{unbalanced|1.1}"},
        {"\\(literal\\]", "{(literal]|1}"},
        {"(unnecessary)(parens)", "{unnecessaryparens|1.1}"},
        {"a (((house:1.3)) [on] a (hill:0.5), sun, (((sky))).",
         "{a |1}{house|1.573}{ |1.1}{on|1}{ a |1.1}{hill|0.55}{, sun, |1.1}{sky|1.464}{.|1.1}"},
        {"[a]", "{a|0.9091}"},
        {"[[a] b", "{a|0.8264}{ b|0.9091}"},
        {"(a:-0.5)(b:+2)(c: .5 )", "{a|-0.5}{b|2}{c|0.5}"},
        {"(a:0)", "{a|0}"},
        {"a) b] c:1.2)", "{a) b] c:1.2)|1}"},
        {"time 12:30 (now)", "{time 12:30 |1}{now|1.1}"},
        {"back\\slash \\\\", "{backslash \\|1}"},
        {"(a [b) c]", "{a |1.1}{b|1}{ c|0.9091}"},
        {"(:1.2)()", ""},
        {"", ""},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        assert_pieces(cases[i][0], cases[i][1]);
}

static void break_cuts_as_a_word(void **state)
{
    (void)state;
    assert_pieces("a BREAK b", "{a|1}/{b|1}");
    assert_pieces("aBREAK BREAKb break BREAK", "{aBREAK BREAKb break|1}/{|1}");
    assert_pieces("(a BREAK b:1.5)", "{a|1.5}/{b|1.5}");
    assert_pieces("BREAKBREAK", "{BREAKBREAK|1}");
}

static void weights_that_are_no_numbers_are_refused(void **state)
{
    (void)state;
    static const struct {
        const char *prompt, *words;
    } cases[] = {
        {"(a:1.2.3)", "\"1.2.3\" at offset 3 is not a number"},
        {"(a:.)", "\".\" at offset 3"},
        {"(a:1234567890123456)", "is not a number"},
        {"((((a:999999999999999):999999999999999):999999999999999):1)", "weights multiply to"},
        {"(a:1) \xff", "byte 0xff at offset 6"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        ht_prompt p;
        assert_refused(ht_prompt_read(clip, cases[i].prompt, strlen(cases[i].prompt), &p), HT_ERR_ARGUMENT,
                       cases[i].words);
    }
    char brackets[300];
    ht_prompt p;
    memset(brackets, '(', sizeof brackets);
    assert_refused(ht_prompt_read(clip, brackets, sizeof brackets, &p), HT_ERR_ARGUMENT, "open brackets at offset 256");
}

static ht_prompt read_prompt(const char *text)
{
    ht_prompt p;
    assert_ok(ht_prompt_read(clip, text, strlen(text), &p));
    assert_int_equal(p.length, 77);
    for (int64_t i = 0; i < p.chunks; i++) {
        assert_int_equal(p.ids[i * 77], START);
        assert_int_equal(p.ids[i * 77 + 76], END);
        assert_true(p.weights[i * 77] == 1 && p.weights[i * 77 + 76] == 1);
    }
    return p;
}

/* n times `unit`, and the tail. */
static const char *many(const char *unit, int n, const char *tail)
{
    static char text[4000];
    size_t at = 0;
    for (int i = 0; i < n; i++)
        at += (size_t)snprintf(text + at, sizeof text - at, "%s", unit);
    snprintf(text + at, sizeof text - at, "%s", tail);
    return text;
}

/* Tokens of a row before its end. */
static int row_tokens(const ht_prompt *p, int64_t row)
{
    int n = 0;
    while (p->ids[row * p->length + 1 + n] != END)
        n++;
    return n;
}

static void assert_rows(const char *text, int rows, const int *tokens)
{
    ht_prompt p = read_prompt(text);
    assert_int_equal(p.chunks, rows);
    for (int i = 0; i < rows; i++)
        assert_int_equal(row_tokens(&p, i), tokens[i]);
    ht_prompt_free(&p);
}

static void long_prompts_go_on_in_further_rows(void **state)
{
    (void)state;
    assert_rows("", 1, (int[]){0});
    assert_rows(many("a ", 75, ""), 1, (int[]){75});
    assert_rows(many("a ", 76, ""), 2, (int[]){75, 1});
    assert_rows(many("a ", 400, ""), 6, (int[]){75, 75, 75, 75, 75, 25});
    assert_rows("a BREAK cat", 2, (int[]){1, 1});
    assert_rows("BREAK a", 2, (int[]){0, 1});
    assert_rows("a BREAK BREAK a", 3, (int[]){1, 0, 1});
    assert_rows("a BREAK", 1, (int[]){1});
}

static void a_full_row_breaks_after_a_comma_that_is_near(void **state)
{
    (void)state;
    char tail[200] = ",";
    for (int i = 0; i < 12; i++)
        strcat(tail, " cat");
    assert_rows(many("a ", 65, tail), 2, (int[]){66, 12}); /* 65 a, comma, 9 cats: the cats move */
    assert_rows(many("a ", 55, tail), 1, (int[]){68});
    for (int i = 0; i < 10; i++)
        strcat(tail, " cat");
    assert_rows(many("a ", 54, tail), 2, (int[]){75, 2});  /* the comma is 21 back */
    assert_rows(many("a ", 55, tail), 2, (int[]){56, 22}); /* 20 */
    assert_rows(many("a ", 75, ", cat"), 2, (int[]){75, 2});
    assert_rows(many("a ", 74, ", cat"), 2, (int[]){75, 1});
    ht_prompt p = read_prompt(many("a ", 74, ", cat"));
    assert_int_equal(p.ids[75], COMMA);
    assert_int_equal(p.ids[77 + 1], CAT);
    ht_prompt_free(&p);
}

static void weights_stand_beside_their_tokens(void **state)
{
    (void)state;
    const float want[] = {1, 1, 1.5f, 1.5f, 1, 1};
    const int32_t ids[] = {START, A, CAT, CAT, A, END};
    ht_prompt p = read_prompt("a (cat cat:1.5) a");
    assert_true(p.weighted);
    assert_memory_equal(p.ids, ids, sizeof ids);
    assert_memory_equal(p.weights, want, sizeof want);
    ht_prompt_free(&p);
    p = read_prompt("a cat");
    assert_false(p.weighted);
    ht_prompt_free(&p);
}

static void weighing_keeps_the_mean(void **state)
{
    (void)state;
    enum { CHANNELS = 3 };
    float x[77 * CHANNELS], y[77 * CHANNELS];
    double before = 0, after = 0;
    for (int i = 0; i < 77 * CHANNELS; i++)
        before += (double)(y[i] = x[i] = 1 + sinf((float)i));
    ht_prompt p = read_prompt("a cat");
    ht_prompt_weigh(&p, y, CHANNELS);
    assert_memory_equal(x, y, sizeof x);
    ht_prompt_free(&p);
    p = read_prompt("a (cat:1.5)");
    ht_prompt_weigh(&p, y, CHANNELS);
    for (int i = 0; i < 77 * CHANNELS; i++)
        after += (double)y[i];
    assert_true(fabs(before - after) < 1e-4);
    assert_true(fabsf(y[2 * CHANNELS] / x[2 * CHANNELS] / (y[0] / x[0]) - 1.5f) < 1e-5f);
    ht_prompt_free(&p);
}

static void a_megabyte_of_brackets_is_read(void **state)
{
    (void)state;
    static const char *const units[] = {"(a)", "a)", "\\(", "a BREAK ", "[a:", ":", "(a:1.01)"};
    enum { SIZE = 1 << 20 };
    char *text = malloc(SIZE + 16);
    for (size_t i = 0; i < sizeof units / sizeof *units; i++) {
        size_t n = strlen(units[i]), at = 0;
        ht_prompt p;
        for (; at + n <= (i == 4 ? 700 : SIZE); at += n)
            memcpy(text + at, units[i], n);
        assert_ok(ht_prompt_read(clip, text, at, &p));
        ht_prompt_free(&p);
    }
    free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(brackets_weigh_what_they_hold),
        cmocka_unit_test(break_cuts_as_a_word),
        cmocka_unit_test(weights_that_are_no_numbers_are_refused),
        cmocka_unit_test(long_prompts_go_on_in_further_rows),
        cmocka_unit_test(a_full_row_breaks_after_a_comma_that_is_near),
        cmocka_unit_test(weights_stand_beside_their_tokens),
        cmocka_unit_test(weighing_keeps_the_mean),
        cmocka_unit_test(a_megabyte_of_brackets_is_read),
    };
    return cmocka_run_group_tests(tests, open_clip, close_clip);
}
