/* text.c - file names are bytes: they may hold escape sequences, and need not be UTF-8, which JSON must be. */
#include "cli/text.h"

#include <ctype.h>
#include <sha256.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static char clean(char c)
{
    return iscntrl((unsigned char)c) ? '?' : c;
}

void text_clean(char *text)
{
    for (; *text; text++)
        *text = clean(*text);
}

void text_print(const char *text)
{
    for (; *text; text++)
        putchar(clean(*text));
}

/* Bytes of the UTF-8 character at s, or 0 if it is none: jansson is who must accept it. */
static size_t character_length(const char *s)
{
    for (size_t n = 1; n <= 4 && s[n - 1]; n++) {
        json_t *character = json_stringn(s, n);
        json_decref(character);
        if (character)
            return n;
    }
    return 0;
}

json_t *text_json(const char *text)
{
    json_t *string = json_string(text);
    char *mended = string ? NULL : strdup(text);
    if (!mended)
        return string;
    for (char *s = mended; *s;) {
        size_t n = character_length(s);
        if (!n)
            *s = '?';
        s += n ? n : 1;
    }
    string = json_string(mended);
    free(mended);
    return string;
}

bool text_hash(char key[TEXT_KEY], const char *const *texts, int n)
{
    SHA256_CTX sha;
    char whole[SHA256_DIGEST_STRING_LENGTH];
    SHA256_Init(&sha);
    for (int i = 0; i < n; i++) {
        if (!texts[i])
            return false;
        SHA256_Update(&sha, (const unsigned char *)texts[i], strlen(texts[i]) + 1);
    }
    if (!SHA256_End(&sha, whole))
        return false;
    memcpy(key, whole, TEXT_KEY - 1);
    key[TEXT_KEY - 1] = '\0';
    return true;
}
