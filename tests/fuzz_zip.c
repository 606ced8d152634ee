/* fuzz_zip.c - libFuzzer on the reading of zips: any bytes either open or do not, and what is read is as large as it
 * says. */
#include <stdlib.h>

#include "core/zip.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    enum { LIMIT = 1 << 20, MEMBERS = 64 };
    ht_zip *zip;
    if (ht_zip_open(&(ht_mapping){bytes, size}, "fuzz", &zip))
        return 0;
    int64_t n = ht_zip_count(zip);
    for (int64_t i = 0; i < n && i < MEMBERS; i++) {
        char *data;
        size_t length;
        if (ht_zip_read(zip, i, LIMIT, &data, &length))
            continue;
        if (length > LIMIT || data[length] != '\0')
            abort();
        free(data);
    }
    ht_zip_close(zip);
    return 0;
}
