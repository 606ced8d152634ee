/* text.h - words that somebody else chose (names of files, what a model says of itself), made safe to print. */
#ifndef HALFTONE_CLI_TEXT_H
#define HALFTONE_CLI_TEXT_H

#include <jansson.h>
#include <stdbool.h>

enum { TEXT_KEY = 17 };

/* What would move a terminal's cursor becomes '?'. */
void text_clean(char *text);
/* The text, cleaned, on stdout. */
void text_print(const char *text);
/* As a JSON string: bytes that are not UTF-8 become '?'.  NULL: out of memory. */
json_t *text_json(const char *text);
/* The first 16 digits of the SHA-256 of n texts, each with its end; false if one is NULL. */
bool text_hash(char key[TEXT_KEY], const char *const *texts, int n);

#endif
