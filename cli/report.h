/* report.h - how the program says that something failed: one line on stderr. */
#ifndef HALFTONE_CLI_REPORT_H
#define HALFTONE_CLI_REPORT_H

#include <stdarg.h>

/* "halftone: WORDS".  Returns 1, the exit code. */
int report(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* The library's message. */
int report_failure(void);
/* A wrong command line of a command: "halftone sample: WORDS (see halftone sample --help)".  Returns 2. */
int report_usage(const char *name, const char *format, va_list args) __attribute__((format(printf, 2, 0)));

#endif
