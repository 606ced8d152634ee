/* backends.c - which backend runs a graph. */
#include "sampler/backends.h"

#include <stdio.h>
#include <string.h>

#include "cpu/backend.h"
#include "cuda/backend.h"
#include "cuda/open.h"

static const ht_backend *const backends[] = {&ht_cpu_backend, &ht_cuda_backend};

static bool is_auto(const char *name)
{
    return !name || !strcmp(name, "auto");
}

ht_status ht_find_backend(const char *name, const ht_backend **backend)
{
    char known[256] = "";
    size_t used = 0;
    if (is_auto(name)) {
        *backend = ht_cuda_is_there() ? &ht_cuda_backend : &ht_cpu_backend;
        return HT_OK;
    }
    for (size_t i = 0; i < sizeof backends / sizeof *backends; i++) {
        if (!strcmp(backends[i]->name, name)) {
            *backend = backends[i];
            return HT_OK;
        }
        used += (size_t)snprintf(known + used, sizeof known - used, "%s, ", backends[i]->name);
    }
    return ht_fail(HT_ERR_ARGUMENT, "no backend is called \"%s\"; there are %sauto", name, known);
}

ht_status ht_compile(const char *name, const ht_graph *g, const ht_backend_options *options, const ht_backend **backend,
                     ht_program **program)
{
    ht_status status = ht_find_backend(name, backend);
    if (status)
        return status;
    status = (*backend)->compile(g, options, program);
    bool lacking = status == HT_ERR_UNSUPPORTED || status == HT_ERR_MEMORY;
    if (!lacking || !is_auto(name) || *backend == &ht_cpu_backend)
        return status;
    *backend = &ht_cpu_backend;
    return (*backend)->compile(g, options, program);
}

ht_status ht_find_half(const char *dtype, bool *half)
{
    *half = !dtype || !strcmp(dtype, "float16");
    if (*half || !strcmp(dtype, "float32"))
        return HT_OK;
    return ht_fail(HT_ERR_ARGUMENT, "activations in \"%s\"; there are float16 and float32", dtype);
}
