/* error.c - the thread's error sink: the only mutable state below cli/ that no object owns. */
#include "core/error.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static _Thread_local char message[1024];

static void clean(char *s)
{
    for (; *s; s++)
        if ((unsigned char)*s < 0x20 || *s == 0x7f)
            *s = '?';
}

const char *ht_error_message(void)
{
    return message;
}

ht_status ht_fail(ht_status status, const char *format, ...)
{
    char text[sizeof message]; /* the arguments may point into the old message */
    va_list args;
    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    clean(text);
    memcpy(message, text, sizeof message);
    return status;
}

ht_status ht_fail_in(ht_status status, const char *format, ...)
{
    char where[sizeof message / 2];
    va_list args;
    va_start(args, format);
    vsnprintf(where, sizeof where, format, args);
    va_end(args);
    return ht_fail(status, "%s: %.*s", where, (int)(sizeof message - sizeof where - 3), message);
}

const char *ht_version(void)
{
    return HT_VERSION;
}
