/* fuzz_spiece.c - any bytes as a SentencePiece model and a prompt: ids of the vocabulary, or an error.  The first two
 * bytes say how long the prompt at the end is. */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include "text/t5_tokenizer.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size);

static void check(int holds)
{
    if (!holds)
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    enum { EXTRA = 3 };
    ht_t5_tokenizer *t = NULL;
    ht_ids ids = {0};
    if (size < 2)
        return 0;
    size_t prompt = bytes[0] | (size_t)bytes[1] << 8;
    prompt = prompt < size - 2 ? prompt : size - 2;
    if (ht_t5_tokenizer_parse(bytes + 2, size - 2 - prompt, EXTRA, &t)) {
        check(!t && *ht_error_message());
        return 0;
    }
    if (ht_t5_tokenize(t, (const char *)bytes + size - prompt, prompt, &ids))
        check(*ht_error_message());
    for (size_t i = 0; i < ids.n; i++)
        check(ids.at[i] >= 0 && ids.at[i] <= ht_t5_tokenizer_tokens(t)->largest);
    ht_ids_free(&ids);
    ht_t5_tokenizer_close(t);
    return 0;
}
