/* test_manual.c - the manual page tells of the same commands and options as --help, which is made of the tables that
 * parse them. */
#include "tests/program.h"

enum { MOST = 64 };

/* "-o, --output" or "--steps", with what is said of it. */
typedef struct told {
    char option[64];
    char text[2048]; /* of several that share a tag the last has it */
} told;

static char page[1 << 16];

/* The page as it is read: without fonts, "\-" as "-". */
static int read_page(void **state)
{
    (void)state;
    read_text("docs/halftone.1", page, sizeof page);
    char *to = page;
    for (const char *s = page; *s; s++) {
        if (*s == '\\' && s[1] == 'f')
            s += 2;
        else if (*s != '\\')
            *to++ = *s;
    }
    *to = 0;
    return 0;
}

static int setup(void **state)
{
    return read_page(state) || open_scratch(state);
}

static void append(char *text, size_t size, const char *from, size_t n)
{
    size_t used = strlen(text);
    assert_true(used + n < size);
    memcpy(text + used, from, n);
    text[used + n] = 0;
}

/* "-o, --output PATH" -> "-o, --output". */
static void take_option(told *t, const char *s)
{
    const char *name = strstr(s, "--");
    assert_non_null(name);
    t->option[0] = 0;
    append(t->option, sizeof t->option, s, (size_t)(name - s) + strcspn(name, " ;\n"));
}

/* The tags below .TP of a section, until the next. */
static int options_of_page(const char *command, told *list)
{
    char head[64];
    int n = 0;
    snprintf(head, sizeof head, "\n.SS %s\n", command);
    const char *s = strstr(page, head);
    if (!s)
        fail_msg("no section %s", command);
    s += strlen(head);
    while (*s && strncmp(s, ".S", 2) != 0) {
        const char *end = strchr(s, '\n');
        if (!strncmp(s, ".TP\n", 4)) {
            for (const char *at = end + 1; *at != '\n'; at += strcspn(at, ";\n")) {
                if (*at == ';')
                    at += 2;
                assert_in_range(n, 0, MOST - 1);
                list[n] = (told){0};
                take_option(&list[n++], at);
            }
            end = strchr(end + 1, '\n');
        } else if (n) {
            append(list[n - 1].text, sizeof list->text, s, (size_t)(end - s) + 1);
        }
        s = end + 1;
    }
    return n;
}

static int options_of_help(const char *help, told *list)
{
    int n = 0;
    for (const char *s = strchr(help, '\n'); s; s = strchr(s + 1, '\n')) {
        size_t indent = strspn(s + 1, " ");
        const char *at = s + 1 + indent;
        bool letter = indent == 2 && at[0] == '-' && at[2] == ',', name = indent == 6 && !strncmp(at, "--", 2);
        if (!letter && !name)
            continue;
        list[n] = (told){0};
        take_option(&list[n], at);
        append(list[n].text, sizeof list->text, at, strcspn(at, "\n"));
        n++;
    }
    return n;
}

static const told *find_told(const told *list, int n, const char *option)
{
    for (int i = 0; i < n; i++)
        if (!strcmp(list[i].option, option))
            return &list[i];
    return NULL;
}

/* Help ends with "[16]", the page says "Default: 16.", but where it refers to what is above. */
static void assert_same_default(const char *command, const told *help, const told *man)
{
    const char *open = strrchr(help->text, '[');
    size_t end = strlen(help->text);
    char wanted[128];
    if (!*man->text || !strncmp(man->text, "As above", 8) || !open || help->text[end - 1] != ']')
        return;
    snprintf(wanted, sizeof wanted, "Default: %.*s", (int)(help->text + end - 1 - (open + 1)), open + 1);
    if (!strstr(man->text, wanted))
        fail_msg("%s %s: the page does not say \"%s\" but \"%s\"", command, help->option, wanted, man->text);
}

static void compare(scratch *s, const char *command)
{
    static told man[MOST], all[MOST], help[MOST];
    assert_worked(s, run(s, command, "--help"));
    int n = options_of_help(s->out, help), m = options_of_page(command, man), a = options_of_page("All commands", all);
    assert_true(n > 4);
    for (int i = 0; i < n; i++) {
        const told *of_command = find_told(man, m, help[i].option), *of_all = find_told(all, a, help[i].option);
        if (!of_command && !of_all)
            fail_msg("the page does not tell of %s %s", command, help[i].option);
        if (of_command)
            assert_same_default(command, &help[i], of_command);
    }
    for (int i = 0; i < m + a; i++) {
        const char *option = i < m ? man[i].option : all[i - m].option;
        if (!find_told(help, n, option))
            fail_msg("the page tells of %s %s, which there is not", command, option);
    }
}

static void the_page_tells_of_every_option_and_of_no_other(void **state)
{
    scratch *s = *state;
    char names[16][32];
    int n = 0;
    assert_worked(s, run(s, "--help"));
    for (const char *line = strchr(s->out, '\n'); line; line = strchr(line + 1, '\n'))
        if (!strncmp(line, "\n  ", 3) && line[3] >= 'a' && line[3] <= 'z' && strncmp(line + 3, "halftone ", 9) != 0)
            assert_int_equal(sscanf(line + 3, "%31s", names[n++]), 1);
    assert_true(n >= 6);
    for (int i = 0; i < n; i++)
        compare(s, names[i]);
    int sections = 0;
    for (const char *at = page; (at = strstr(at, "\n.SS ")); at++)
        sections++;
    assert_int_equal(sections, n + 1); /* and all commands */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(the_page_tells_of_every_option_and_of_no_other, setup, close_scratch),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
