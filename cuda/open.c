/* open.c - finding libhalftone-cuda.so, and a device that it can use. */
#include "cuda/open.h"

#include <dlfcn.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static const char NAME[] = "libhalftone-cuda.so";

enum { OLDEST = 80 }; /* compute capability: Ampere has the instructions that the kernels are made of */

/* FOLDER of `path`, WAY, the module.  NULL where there is no such file, or with what is wrong with it in *wrong. */
static void *open_beside(const char *path, const char *way, const char **wrong)
{
    char name[PATH_MAX + 64];
    const char *slash = path ? strrchr(path, '/') : NULL;
    if (*wrong || !slash || slash - path >= PATH_MAX)
        return NULL;
    snprintf(name, sizeof name, "%.*s/%s%s", (int)(slash - path), path, way, NAME);
    struct stat is;
    if (stat(name, &is) || !S_ISREG(is.st_mode))
        return NULL;
    void *library = dlopen(name, RTLD_NOW | RTLD_LOCAL);
    *wrong = library ? NULL : dlerror();
    return library;
}

/* Beside the program, beside this library if it is one, in lib beside their folders, where the system looks. */
static void *open_library(const char **wrong)
{
    char program[PATH_MAX + 1];
    ssize_t n = readlink("/proc/self/exe", program, PATH_MAX);
    Dl_info self = {0};
    static const char *const ways[] = {"", "../lib/"};
    void *library = NULL;
    *wrong = NULL;
    program[n > 0 ? n : 0] = 0;
    if (!dladdr(NAME, &self))
        self.dli_fname = NULL;
    for (size_t i = 0; !library && i < sizeof ways / sizeof *ways; i++) {
        library = open_beside(program, ways[i], wrong);
        if (!library)
            library = open_beside(self.dli_fname, ways[i], wrong);
    }
    if (!library && !*wrong && !(library = dlopen(NAME, RTLD_NOW | RTLD_LOCAL)))
        *wrong = dlerror();
    return library;
}

/* The library stays open: drivers do not like to be unloaded. */
static ht_status open_module(const ht_cuda_module **module)
{
    const char *wrong;
    void *library = open_library(&wrong);
    *module = NULL;
    if (!library)
        return ht_fail(HT_ERR_UNSUPPORTED, "the CUDA module cannot be opened (%s); `make cuda` builds it", wrong);
    const ht_cuda_module *(*get)(void);
    *(void **)&get = dlsym(library, "ht_cuda_module_get");
    const ht_cuda_module *found = get ? get() : NULL;
    if (!found || found->version != HT_CUDA_VERSION)
        return ht_fail(HT_ERR_UNSUPPORTED, "%s is of another version of this program; `make cuda` builds it anew",
                       NAME);
    *module = found;
    return HT_OK;
}

static ht_status count_devices(const ht_cuda_module *m, int *n)
{
    *n = m->devices();
    if (*n < 0)
        return ht_fail(HT_ERR_UNSUPPORTED, "the CUDA driver cannot be used: %s; --backend cpu needs none", m->error());
    return *n ? HT_OK : ht_fail(HT_ERR_UNSUPPORTED, "there is no NVIDIA GPU here; --backend cpu needs none");
}

bool ht_cuda_is_there(void)
{
    const ht_cuda_module *module;
    int n;
    return open_module(&module) == HT_OK && count_devices(module, &n) == HT_OK;
}

ht_status ht_cuda_open(int index, const ht_cuda_module **module, ht_cuda_device *device)
{
    const ht_cuda_module *m;
    int n = 0;
    *module = NULL;
    ht_status status = open_module(&m);
    if (!status)
        status = count_devices(m, &n);
    if (status)
        return status;
    if (m->open(index % n, device))
        return ht_cuda_fail(m, "the GPU");
    if (device->major * 10 + device->minor >= OLDEST) {
        *module = m;
        return HT_OK;
    }
    m->close();
    return ht_fail(HT_ERR_UNSUPPORTED, "%s has compute capability %d.%d; the CUDA kernels want 8.0 or more",
                   device->name, device->major, device->minor);
}

void ht_cuda_close(const ht_cuda_module *module)
{
    if (module)
        module->close();
}

ht_status ht_cuda_fail(const ht_cuda_module *module, const char *what)
{
    const char *words = module->error();
    return ht_fail(strstr(words, "cudaErrorMemoryAllocation") ? HT_ERR_MEMORY : HT_ERR_IO, "%s: %s", what, words);
}
