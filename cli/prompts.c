/* prompts.c - prompts of a command line and of a file, one a line. */
#include "cli/prompts.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/report.h"

static int out_of_memory(void)
{
    return report("out of memory for prompts");
}

/* A text that is kept until the end; NULL after a line on stderr. */
static const char *own(prompt_list *p, const char *from, size_t length)
{
    if (p->n_owned == p->cap_owned) {
        int64_t cap = p->cap_owned ? 2 * p->cap_owned : 16;
        char **grown = realloc(p->owned, (size_t)cap * sizeof *grown);
        if (!grown) {
            out_of_memory();
            return NULL;
        }
        p->owned = grown;
        p->cap_owned = cap;
    }
    char *text = strndup(from, length);
    if (!text)
        out_of_memory();
    else
        p->owned[p->n_owned++] = text;
    return text;
}

static int add(prompt_list *p, const char *text, const char *where)
{
    if (p->n == p->cap) {
        int64_t cap = p->cap ? 2 * p->cap : 16;
        const char **texts = realloc(p->text, (size_t)cap * sizeof *texts);
        if (texts)
            p->text = texts;
        const char **places = realloc(p->where, (size_t)cap * sizeof *places);
        if (places)
            p->where = places;
        if (!texts || !places)
            return out_of_memory();
        p->cap = cap;
    }
    p->text[p->n] = text;
    p->where[p->n++] = where;
    return 0;
}

/* A line without its end; "\r\n" ends one too. */
static int add_line(prompt_list *p, const char *file, long number, const char *line, size_t length)
{
    char where[4200];
    while (length && (line[length - 1] == '\n' || line[length - 1] == '\r'))
        length--;
    if (memchr(line, 0, length))
        return report("%s:%ld: holds a zero byte; wanted text", file, number);
    if (!length || line[0] == '#')
        return 0;
    snprintf(where, sizeof where, "%s:%ld", file, number);
    const char *text = own(p, line, length), *place = text ? own(p, where, strlen(where)) : NULL;
    return place ? add(p, text, place) : EXIT_FAILURE;
}

static int read_file(prompt_list *p, const char *file)
{
    FILE *in = strcmp(file, "-") ? fopen(file, "re") : stdin;
    char *line = NULL;
    size_t cap = 0;
    ssize_t length;
    int code = in ? 0 : report("%s: %s", file, strerror(errno));
    errno = 0;
    for (long number = 1; !code && (length = getline(&line, &cap, in)) >= 0; number++)
        code = add_line(p, file, number, line, (size_t)length);
    if (!code && ferror(in))
        code = report("%s: %s", file, strerror(errno));
    free(line);
    if (in && in != stdin)
        fclose(in);
    return code;
}

int prompts_read(prompt_list *p, const option_texts *given, const char *file)
{
    int code = 0;
    for (int i = 0; !code && i < given->count; i++)
        code = add(p, given->value[i], "--prompt");
    if (!code && file)
        code = read_file(p, file);
    if (!code && file && !p->n)
        code = report("%s: holds no prompt", file);
    return code;
}

void prompts_drop(prompt_list *p, int64_t i)
{
    p->n--;
    memmove(p->text + i, p->text + i + 1, (size_t)(p->n - i) * sizeof *p->text);
    memmove(p->where + i, p->where + i + 1, (size_t)(p->n - i) * sizeof *p->where);
}

void prompts_free(prompt_list *p)
{
    for (int64_t i = 0; i < p->n_owned; i++)
        free(p->owned[i]);
    free(p->owned);
    free(p->text);
    free(p->where);
}
