/* parameters.c - the text `parameters` of a picture, in the convention of AUTOMATIC1111's web UI, which viewers and
 * galleries know: the prompt (an empty line if there is none), the negative prompt, then one line of "Name: value" with
 * commas between; a value that holds one of , : " is a JSON string. */
#include "cli/parameters.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/text.h"
#include "halftone.h"

static void write_value(FILE *out, const char *name, const char *value)
{
    json_t *string = strpbrk(value, ",:\"\n") ? text_json(value) : NULL;
    char *quoted = string ? json_dumps(string, JSON_ENCODE_ANY) : NULL;
    fprintf(out, "%s: %s, ", name, quoted ? quoted : value);
    free(quoted);
    json_decref(string);
}

/* The folder's own name, also of "." and of a path with a slash at its end. */
static void write_model(FILE *out, const char *model)
{
    char path[PATH_MAX];
    const char *whole = realpath(model, path) ? path : model;
    const char *slash = strrchr(whole, '/');
    write_value(out, "Model", slash && slash[1] ? slash + 1 : whole);
}

/* On one line: a line's end in a prompt would begin the next part. */
static void write_line(FILE *out, const char *name, const char *text)
{
    fputs(name, out);
    for (; *text; text++)
        fputc(*text == '\n' || *text == '\r' ? ' ' : *text, out);
    fputc('\n', out);
}

char *parameters_text(const command *c, const void *settings, const picture_words *words)
{
    char *text = NULL, value[OPTION_MAX_TEXT];
    size_t size;
    FILE *out = open_memstream(&text, &size);
    if (!out)
        return NULL;
    for (int64_t i = 0; i < words->n; i++)
        write_line(out, "", words->prompts[i]);
    if (!words->n)
        fputc('\n', out);
    if (words->negative)
        write_line(out, "Negative prompt: ", words->negative);
    for (const option *o = c->options; !option_is_last(o); o++)
        if (o->record && *option_text(o, settings, value))
            write_value(out, o->record, value);
    fputs(words->results, out);
    write_model(out, words->model);
    fprintf(out, "Version: halftone %s", ht_version());
    if (fclose(out)) {
        free(text);
        return NULL;
    }
    return text;
}
