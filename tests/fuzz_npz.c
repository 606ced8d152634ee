/* fuzz_npz.c - libFuzzer on whole .npz files: the zip, the members of statistics, and the arrays in them. */
#include <stdlib.h>

#include "eval/npz.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t size)
{
    static const char *const names[] = {"mu", "sigma", "n"};
    ht_npz *npz;
    if (ht_npz_parse(bytes, size, "fuzz", &npz))
        return 0;
    for (int i = 0; i < 3; i++) {
        ht_npy_array a;
        size_t count = 1;
        if (!ht_npz_has(npz, names[i]) || ht_npz_read(npz, names[i], &a))
            continue;
        for (int d = 0; d < a.ndim; d++)
            count *= (size_t)a.shape[d];
        if (count != a.count)
            abort();
        free(a.data);
    }
    ht_npz_close(npz);
    return 0;
}
