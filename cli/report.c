/* report.c - lines about failures.  Names of files and words of the command line stand in them, cleaned. */
#include "cli/report.h"

#include <stdio.h>
#include <stdlib.h>

#include "cli/options.h"
#include "cli/ranks.h"
#include "cli/text.h"
#include "halftone.h"

static void print_line(const char *before, const char *format, va_list args, const char *after)
{
    char text[1100]; /* the library's messages fit */
    vsnprintf(text, sizeof text, format, args);
    text_clean(text);
    char line[1300];
    snprintf(line, sizeof line, "halftone%s: %s%s\n", before, text, after);
    if (!ranks_keep(line))
        fputs(line, stderr);
}

int report(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    print_line("", format, args, "");
    va_end(args);
    return EXIT_FAILURE;
}

int report_failure(void)
{
    return report("%s", ht_error_message());
}

int report_usage(const char *name, const char *format, va_list args)
{
    char before[64], after[96];
    snprintf(before, sizeof before, " %s", name);
    snprintf(after, sizeof after, " (see halftone %s --help)", name);
    print_line(before, format, args, after);
    return EXIT_USAGE;
}
