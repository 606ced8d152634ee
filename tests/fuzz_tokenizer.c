/* fuzz_tokenizer.c - any bytes as a tokenizer's files and as prompts: ids of the vocabulary and finite weights, or an
 * error.  The first byte says which: 0: a prompt for a small tokenizer; 1: vocab.json, merges.txt and a prompt, parted
 * by zero bytes; 2: tokenizer.json. */
#include <math.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "text/clip_tokenizer.h"
#include "text/prompt.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size);

static void check(int holds)
{
    if (!holds)
        abort();
}

static void read_prompt(const ht_clip_tokenizer *t, const char *text, size_t size)
{
    const ht_clip_tokens *tokens = ht_clip_tokenizer_tokens(t);
    ht_prompt p;
    if (tokens->length > 1000)
        return;
    if (ht_prompt_read(t, text, size, &p)) {
        check(*ht_error_message());
        return;
    }
    check(p.chunks > 0);
    for (int64_t i = 0; i < p.chunks * p.length; i++)
        check(p.ids[i] >= 0 && p.ids[i] <= tokens->largest && isfinite(p.weights[i]));
    ht_prompt_free(&p);
}

static void read_files(const ht_clip_files *files, const char *text, size_t size)
{
    ht_clip_tokenizer *t = NULL;
    if (ht_clip_tokenizer_parse(files, &t)) {
        check(!t && *ht_error_message());
        return;
    }
    read_prompt(t, text, size);
    ht_clip_tokenizer_close(t);
}

/* The part up to the next zero byte. */
static const char *part(const char **at, const char *end, size_t *size)
{
    const char *begin = *at, *zero = memchr(begin, 0, (size_t)(end - begin));
    *size = (size_t)((zero ? zero : end) - begin);
    *at = zero ? zero + 1 : end;
    return begin;
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    static const char vocab[] = "{\"a\":0,\"b\":1,\"b</w>\":2,\"ab</w>\":3,\"aab</w>\":4,\",</w>\":5,\"aa\":6,"
                                "\"<|startoftext|>\":7,\"<|endoftext|>\":8}";
    static const char merges[] = "#version: 0.2\na b</w>\na a\na ab</w>\n";
    const char *at = (const char *)bytes + 1, *end = (const char *)bytes + size;
    ht_clip_files files = {
        .vocab = vocab, .merges = merges, .vocab_size = sizeof vocab - 1, .merges_size = sizeof merges - 1};
    if (!size)
        return 0;
    if (bytes[0] % 3) {
        files.vocab = part(&at, end, &files.vocab_size);
        files.merges = bytes[0] % 3 == 1 ? part(&at, end, &files.merges_size) : NULL;
    }
    read_files(&files, at, (size_t)(end - at));
    return 0;
}
