/* identity.c - SHA-256 of a model's weights, by libmd. */
#include "calib/identity.h"

#include <sha256.h>
#include <string.h>

#include "core/safetensors.h"

static void add(SHA256_CTX *sha, const void *bytes, size_t n)
{
    SHA256_Update(sha, bytes, n);
}

ht_status ht_model_identity(ht_arena *arena, const ht_model *model, const char **hash)
{
    SHA256_CTX sha;
    char text[SHA256_DIGEST_STRING_LENGTH];
    SHA256_Init(&sha);
    for (size_t i = 0; i < ht_safetensors_count(model->file); i++) {
        const ht_tensor *t = ht_safetensors_at(model->file, i);
        const char *dtype = ht_dtype_name(t->dtype);
        add(&sha, t->name, strlen(t->name) + 1);
        add(&sha, dtype, strlen(dtype) + 1);
        add(&sha, t->shape, (size_t)t->ndim * sizeof *t->shape);
        add(&sha, t->data, t->bytes);
    }
    *hash = SHA256_End(&sha, text) ? ht_strdup(arena, text) : NULL;
    return *hash ? HT_OK : HT_ERR_MEMORY;
}
