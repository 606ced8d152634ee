/* device.cu - the device: one stream, memory, captured graphs, and the table of what the module offers. */
#include "cuda/device.h"

#include <stdio.h>
#include <string.h>

static struct {
    int opened; /* how often: programs share the device */
    int chosen; /* the device is this process's for good: what kernels' files remember is of it */
    int device, multiprocessors;
    cudaStream_t stream;
    cudaEvent_t marks[2];
    char words[256];
} the;

struct ht_cuda_recording {
    cudaGraph_t graph;
    cudaGraphExec_t exec;
};

cudaStream_t ht_cuda_stream(void)
{
    return the.stream;
}

int ht_cuda_multiprocessors(void)
{
    return the.multiprocessors;
}

int ht_cuda_check(cudaError_t error)
{
    if (error == cudaSuccess)
        return HT_CUDA_OK;
    snprintf(the.words, sizeof the.words, "%s (%s)", cudaGetErrorString(error), cudaGetErrorName(error));
    cudaGetLastError(); /* what can be forgotten is */
    return error;
}

int ht_cuda_launched(void)
{
    return ht_cuda_check(cudaGetLastError());
}

static const char *device_error(void)
{
    return the.words;
}

static int devices(void)
{
    int n = 0;
    return ht_cuda_check(cudaGetDeviceCount(&n)) ? -1 : n;
}

static int open_device(int device, ht_cuda_device *found)
{
    cudaDeviceProp p;
    device = the.chosen ? the.device : device;
    int status = ht_cuda_check(cudaGetDeviceProperties(&p, device));
    if (status)
        return status;
    snprintf(found->name, sizeof found->name, "%s", p.name);
    found->major = p.major;
    found->minor = p.minor;
    found->multiprocessors = p.multiProcessorCount;
    found->memory = p.totalGlobalMem;
    if (the.opened++)
        return HT_CUDA_OK;
    the.chosen = 1;
    the.device = device;
    the.multiprocessors = p.multiProcessorCount;
    status = ht_cuda_check(cudaSetDevice(device));
    if (!status)
        status = ht_cuda_check(cudaStreamCreateWithFlags(&the.stream, cudaStreamNonBlocking));
    for (int i = 0; !status && i < 2; i++)
        status = ht_cuda_check(cudaEventCreate(&the.marks[i]));
    if (status)
        the.opened = 0;
    return status;
}

static void close_device(void)
{
    if (!the.opened || --the.opened)
        return;
    for (int i = 0; i < 2; i++)
        cudaEventDestroy(the.marks[i]);
    cudaStreamDestroy(the.stream);
}

/* CUDA's current device is each thread's own. */
static int here(void)
{
    return ht_cuda_check(cudaSetDevice(the.device));
}

static int finish(void)
{
    return ht_cuda_check(cudaStreamSynchronize(the.stream));
}

static void *device_alloc(size_t bytes)
{
    void *memory;
    if (here() || ht_cuda_check(cudaMalloc(&memory, bytes ? bytes : 1)))
        return NULL;
    if (ht_cuda_check(cudaMemsetAsync(memory, 0, bytes ? bytes : 1, the.stream))) {
        cudaFree(memory);
        return NULL;
    }
    return memory;
}

static void device_free(void *memory)
{
    if (!memory)
        return;
    finish();
    cudaFree(memory);
}

static int upload(void *to, const void *from, size_t bytes)
{
    int status = here();
    if (!status)
        status = ht_cuda_check(cudaMemcpyAsync(to, from, bytes, cudaMemcpyHostToDevice, the.stream));
    return status ? status : finish();
}

static int download(void *to, const void *from, size_t bytes)
{
    int status = ht_cuda_check(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToHost, the.stream));
    return status ? status : finish();
}

static int copy(void *to, const void *from, size_t bytes)
{
    return ht_cuda_check(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToDevice, the.stream));
}

/* ---- captured graphs ---- */

static int record(void)
{
    int status = here();
    return status ? status : ht_cuda_check(cudaStreamBeginCapture(the.stream, cudaStreamCaptureModeThreadLocal));
}

static void forget(ht_cuda_recording *r)
{
    if (!r)
        return;
    if (r->exec)
        cudaGraphExecDestroy(r->exec);
    if (r->graph)
        cudaGraphDestroy(r->graph);
    delete r;
}

static int recorded(ht_cuda_recording **recording)
{
    ht_cuda_recording *r = new ht_cuda_recording();
    int status = ht_cuda_check(cudaStreamEndCapture(the.stream, &r->graph));
    if (!status)
        status = ht_cuda_check(cudaGraphInstantiate(&r->exec, r->graph, 0));
    if (status)
        forget(r);
    else
        *recording = r;
    return status;
}

static int replay(ht_cuda_recording *r)
{
    return ht_cuda_check(cudaGraphLaunch(r->exec, the.stream));
}

/* ---- time ---- */

static int mark(int which)
{
    return ht_cuda_check(cudaEventRecord(the.marks[which], the.stream));
}

static int elapsed(float *milliseconds)
{
    int status = ht_cuda_check(cudaEventSynchronize(the.marks[1]));
    return status ? status : ht_cuda_check(cudaEventElapsedTime(milliseconds, the.marks[0], the.marks[1]));
}

static const ht_cuda_module module = {
    HT_CUDA_VERSION,
    devices,
    open_device,
    close_device,
    device_error,
    device_alloc,
    device_free,
    upload,
    download,
    copy,
    here,
    finish,
    record,
    recorded,
    replay,
    forget,
    mark,
    elapsed,
    ht_cuda_product_layout,
    ht_cuda_product_pack,
    ht_cuda_product_name,
    ht_cuda_product_workspace,
    ht_cuda_product_run,
    ht_cuda_group_norm_workspace,
    ht_cuda_group_norm_run,
    ht_cuda_row_norm_run,
    ht_cuda_attention_run,
    ht_cuda_attention_name,
    ht_cuda_map_run,
    ht_cuda_move_run,
    ht_cuda_embedding_run,
    ht_cuda_input_scale_run,
    ht_cuda_input_range_run,
    ht_cuda_peak,
};

__attribute__((visibility("default"))) const ht_cuda_module *ht_cuda_module_get(void)
{
    return &module;
}
