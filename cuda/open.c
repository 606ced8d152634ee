/* open.c - finding libhalftone-cuda.so, and a device that it can use. */
#include "cuda/open.h"

#include <dlfcn.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char NAME[] = "libhalftone-cuda.so";

enum { OLDEST = 80 }; /* compute capability: Ampere has the instructions that the kernels are made of */

/* DIR/WAY/libhalftone-cuda.so, DIR the program's. */
static void *open_beside(const char *way)
{
    char path[PATH_MAX + 64];
    ssize_t n = readlink("/proc/self/exe", path, PATH_MAX);
    if (n <= 0)
        return NULL;
    path[n] = 0;
    char *slash = strrchr(path, '/');
    if (!slash)
        return NULL;
    snprintf(slash + 1, sizeof path - (size_t)(slash + 1 - path), "%s%s", way, NAME);
    return access(path, F_OK) ? NULL : dlopen(path, RTLD_NOW | RTLD_LOCAL);
}

static void *open_library(void)
{
    void *library = open_beside("");
    if (!library)
        library = open_beside("../lib/");
    return library ? library : dlopen(NAME, RTLD_NOW | RTLD_LOCAL);
}

static ht_status check_device(const ht_cuda_module *m, int index, ht_cuda_device *device)
{
    int n = m->devices();
    if (n < 0)
        return ht_fail(HT_ERR_UNSUPPORTED, "the CUDA driver cannot be used: %s; --backend cpu needs none", m->error());
    if (!n)
        return ht_fail(HT_ERR_UNSUPPORTED, "there is no NVIDIA GPU here; --backend cpu needs none");
    if (m->open(index % n, device))
        return ht_cuda_fail(m, "the GPU");
    if (device->major * 10 + device->minor >= OLDEST)
        return HT_OK;
    m->close();
    return ht_fail(HT_ERR_UNSUPPORTED, "%s has compute capability %d.%d; the CUDA kernels want 8.0 or more",
                   device->name, device->major, device->minor);
}

ht_status ht_cuda_open(int index, const ht_cuda_module **module, ht_cuda_device *device)
{
    void *library = open_library();
    if (!library)
        return ht_fail(HT_ERR_UNSUPPORTED, "the CUDA module cannot be opened (%s); `make cuda` builds it", dlerror());
    const ht_cuda_module *(*get)(void);
    *(void **)&get = dlsym(library, "ht_cuda_module_get");
    *module = get ? get() : NULL; /* the library stays open: drivers do not like to be unloaded */
    if (!*module || (*module)->version != HT_CUDA_VERSION)
        return ht_fail(HT_ERR_UNSUPPORTED, "%s is of another version of this program; `make cuda` builds it anew",
                       NAME);
    ht_status status = check_device(*module, index, device);
    if (status)
        *module = NULL;
    return status;
}

void ht_cuda_close(const ht_cuda_module *module)
{
    if (module)
        module->close();
}

ht_status ht_cuda_fail(const ht_cuda_module *module, const char *what)
{
    const char *words = module->error();
    return ht_fail(strstr(words, "cudaErrorMemoryAllocation") ? HT_ERR_MEMORY : HT_ERR_UNSUPPORTED, "%s: %s", what,
                   words);
}
