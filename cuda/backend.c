/* backend.c - compiling a graph for a GPU and running its stages.
 *
 * Weights go to the device once, in the order that kernels want; memory is planned as on the CPU, with the widths that
 * values have there.  Stages are recorded, for a whole batch when the graph is compiled and for another number of
 * images when that is first run; from then on a run is one launch of what was recorded: addresses never change, for the
 * row of the table of timesteps is copied to where it is read. */
#include "cuda/backend.h"

#include <pthread.h>

#include "cuda/program.h"

/* ---- compiling ---- */

static ht_status list_stages(ht_program *p)
{
    int n = ht_graph_ops(p->graph);
    p->steps = ht_alloc_array(p->arena, (size_t)n + 1, sizeof *p->steps);
    if (!p->steps)
        return HT_ERR_MEMORY;
    for (int i = 0; i < HT_STAGES; i++)
        if (!(p->stages[i].steps = ht_alloc_array(p->arena, (size_t)n + 1, sizeof(int))))
            return HT_ERR_MEMORY;
    for (int i = 0; i < n; i++) {
        const ht_op *op = ht_graph_op(p->graph, i);
        ht_cuda_stage *stage = &p->stages[ht_stage_of(op->out->deps)];
        p->steps[i].op = op;
        if (!ht_op_is_view(op))
            stage->steps[stage->length++] = i;
    }
    return HT_OK;
}

static ht_status prepare(ht_program *p)
{
    ht_status status = HT_OK;
    for (int i = 0; !status && i < ht_graph_ops(p->graph); i++)
        status = ht_cuda_prepare(p, &p->steps[i]);
    return status;
}

static int batch_of(const ht_graph *g)
{
    for (int i = 0; i < ht_graph_values(g); i++)
        if (ht_graph_value(g, i)->batched)
            return (int)ht_graph_value(g, i)->shape[0];
    return 1;
}

/* Of any number of images: fewer may be cut into tiles that want more. */
static void measure_workspace(ht_program *p, int batch)
{
    for (int i = 0; i < ht_graph_ops(p->graph); i++)
        for (int n = 1; !ht_op_is_view(p->steps[i].op) && n <= batch; n++) {
            size_t bytes = ht_cuda_workspace(p, &p->steps[i], n);
            p->workspace_bytes = bytes > p->workspace_bytes ? bytes : p->workspace_bytes;
        }
}

static ht_status take_memory(ht_program *p)
{
    measure_workspace(p, batch_of(p->graph));
    for (int i = 0; i < ht_graph_values(p->graph); i++) {
        const ht_value *v = ht_graph_value(p->graph, i);
        bool crosses = !v->data && (v->tapped || !v->producer) && p->dtypes[i] == HT_CUDA_F16;
        size_t bytes = crosses ? (size_t)ht_value_count(v) * sizeof(float) : 0;
        p->staging_bytes = bytes > p->staging_bytes ? bytes : p->staging_bytes;
    }
    const ht_cuda_module *m = p->module;
    if (!(p->kept = m->alloc(p->plan.kept_bytes)) || !(p->work = m->alloc(p->plan.work_bytes)) ||
        !(p->row = m->alloc(p->plan.row_bytes)) || !(p->workspace = m->alloc(p->workspace_bytes)) ||
        !(p->staging = m->alloc(p->staging_bytes)))
        return ht_cuda_fail(m, "the GPU's memory for activations");
    return HT_OK;
}

/* ---- running ---- */

static ht_status launch_failed(const ht_program *p, const ht_cuda_step *s, int status)
{
    if (status == HT_CUDA_REFUSED)
        return ht_fail(HT_ERR_UNSUPPORTED, "there is no CUDA kernel for this %s (%s); --backend cpu has one",
                       ht_op_kind_name(s->op->kind), s->op->out->name);
    return ht_cuda_fail(p->module, ht_op_kind_name(s->op->kind));
}

/* timed: each operation by the device's clock. */
static ht_status launch_all(ht_program *p, const ht_cuda_stage *stage, int n, bool timed)
{
    for (int i = 0; i < stage->length; i++) {
        ht_cuda_step *s = &p->steps[stage->steps[i]];
        float milliseconds = 0;
        int status = timed ? p->module->mark(0) : 0;
        if (!status)
            status = ht_cuda_launch(p, s, n);
        if (!status && timed && !(status = p->module->mark(1)))
            status = p->module->elapsed(&milliseconds);
        if (status)
            return launch_failed(p, s, status);
        s->seconds += 1e-3 * (double)milliseconds;
    }
    return HT_OK;
}

static ht_status record(ht_program *p, ht_cuda_stage *stage, int n, ht_cuda_recording **recording)
{
    const ht_cuda_module *m = p->module;
    int at = stage->next;
    *recording = NULL;
    if (m->record())
        return ht_cuda_fail(m, "recording");
    ht_status status = launch_all(p, stage, n, false);
    if (m->recorded(recording) && !status)
        status = ht_cuda_fail(m, "recording");
    if (status) {
        m->forget(*recording);
        return status;
    }
    m->forget(stage->recording[at]);
    stage->recording[at] = *recording;
    stage->n[at] = n;
    stage->next = (at + 1) % HT_CUDA_RECORDINGS;
    return HT_OK;
}

static ht_status run_stage(ht_program *p, ht_stage which, int n)
{
    ht_cuda_stage *stage = &p->stages[which];
    if (p->profile || which == HT_STAGE_ONCE)
        return launch_all(p, stage, n, p->profile);
    ht_cuda_recording *recording = NULL;
    for (int i = 0; !recording && i < HT_CUDA_RECORDINGS; i++)
        if (stage->recording[i] && stage->n[i] == n)
            recording = stage->recording[i];
    ht_status status = recording ? HT_OK : record(p, stage, n, &recording);
    if (!status && p->module->replay(recording))
        status = ht_cuda_fail(p->module, ht_stage_name(which));
    return status;
}

static ht_status run(ht_program *p, ht_stage which, int n, void *row)
{
    const ht_cuda_module *m = p->module;
    size_t bytes = p->plan.row_bytes;
    ht_cuda_stage *stage = &p->stages[which];
    if (!stage->length)
        return HT_OK;
    for (int i = 0; i < stage->length; i++)
        p->steps[stage->steps[i]].runs++;
    bool reads = row && bytes && (which == HT_STAGE_T_COND || which == HT_STAGE_STEP);
    if (reads && m->copy(p->row, row, bytes))
        return ht_cuda_fail(m, "the row of a timestep");
    ht_status status = run_stage(p, which, n);
    if (!status && which == HT_STAGE_T && row && bytes && m->copy(row, p->row, bytes))
        status = ht_cuda_fail(m, "the row of a timestep");
    return status;
}

/* Every stage for a whole batch: what no kernel takes is found now, and a run of that many records nothing. */
static ht_status record_all(ht_program *p)
{
    ht_status status = HT_OK;
    for (int i = 0; !status && i < HT_STAGES; i++) {
        ht_cuda_recording *recording;
        if (p->stages[i].length)
            status = record(p, &p->stages[i], batch_of(p->graph), &recording);
    }
    return status;
}

/* ---- values in and out ---- */

/* count elements between a value and the staging area, where the value is float16. */
static int convert(const ht_program *p, ht_cuda_tensor from, ht_cuda_tensor to, int64_t count)
{
    ht_cuda_map m = {.kind = HT_CUDA_COPY, .rows = count, .rows_per_image = count, .channels = 1, .x = from, .out = to};
    return p->module->map(&m);
}

static ht_status upload(ht_program *p, const ht_value *input, const float *data, int n)
{
    const ht_cuda_module *m = p->module;
    if (p->plan.places[input->id].area != HT_AREA_KEPT) /* an input that nothing reads has no place */
        return HT_OK;
    ht_cuda_tensor to = ht_cuda_tensor_of(p, input), staging = {p->staging, HT_CUDA_F32};
    int64_t count = ht_cuda_count(input, n);
    bool halves = to.dtype == HT_CUDA_F16;
    int status = m->upload(halves ? staging.data : to.data, data, (size_t)count * sizeof *data);
    if (!status && halves)
        status = convert(p, staging, to, count);
    return status ? ht_cuda_fail(m, "copying to the GPU") : HT_OK;
}

static ht_status download(ht_program *p, const ht_value *value, float *data, int n)
{
    const ht_cuda_module *m = p->module;
    ht_cuda_tensor from = ht_cuda_tensor_of(p, value), staging = {p->staging, HT_CUDA_F32};
    int64_t count = ht_cuda_count(value, n);
    int status = 0;
    if (from.dtype == HT_CUDA_F16) {
        status = convert(p, from, staging, count);
        from = staging;
    }
    if (!status)
        status = m->download(data, from.data, (size_t)count * (from.dtype == HT_CUDA_F32 ? sizeof *data : 1));
    return status ? ht_cuda_fail(m, "copying from the GPU") : HT_OK;
}

/* ---- a program ---- */

static void close_program(ht_program *p)
{
    const ht_cuda_module *m = p->module;
    for (int i = 0; m && i < HT_STAGES; i++)
        for (int j = 0; j < HT_CUDA_RECORDINGS; j++)
            m->forget(p->stages[i].recording[j]);
    for (int i = 0; i < p->n_owned; i++)
        m->free(p->owned[i]);
    void *areas[] = {p->kept, p->work, p->row, p->workspace, p->staging};
    for (size_t i = 0; m && i < sizeof areas / sizeof *areas; i++)
        m->free(areas[i]);
    ht_cuda_close(m);
    ht_arena_free(p->arena);
}

static void name_kernels(ht_program *p)
{
    for (int i = 0; i < ht_graph_ops(p->graph); i++)
        if (!ht_op_is_view(p->steps[i].op))
            ht_cuda_name_kernel(p, &p->steps[i], batch_of(p->graph));
}

static ht_status compile(const ht_graph *g, const ht_backend_options *options, ht_program **program)
{
    ht_arena *arena = ht_arena_create();
    ht_program *p = arena ? ht_alloc(arena, sizeof *p) : NULL;
    if (!p) {
        ht_arena_free(arena);
        return HT_ERR_MEMORY;
    }
    *p = (ht_program){.arena = arena, .graph = g, .half = options->half, .profile = options->profile};
    ht_status status = ht_cuda_open(options->device, &p->module, &p->device);
    if (!status && !(p->isa = ht_sprintf(arena, "%s, %s", p->device.name, p->half ? "float16" : "float32")))
        status = HT_ERR_MEMORY;
    if (!status)
        status = ht_cuda_choose_dtypes(p);
    if (!status)
        status = ht_plan_make(g, 0, p->widths, arena, &p->plan);
    if (!status)
        status = list_stages(p);
    if (!status)
        status = prepare(p);
    if (!status)
        status = take_memory(p);
    if (!status)
        status = record_all(p);
    if (!status)
        name_kernels(p);
    if (status)
        close_program(p);
    else
        *program = p;
    return status;
}

/* ---- the backend: one thread at a time talks to the device, so sessions side by side take turns ---- */

static pthread_mutex_t turn = PTHREAD_MUTEX_INITIALIZER;

static void begin(const ht_program *p)
{
    pthread_mutex_lock(&turn);
    if (p && p->module)
        p->module->use();
}

static ht_status end(ht_status status)
{
    pthread_mutex_unlock(&turn);
    return status;
}

static ht_status cuda_compile(const ht_graph *g, const ht_backend_options *options, ht_program **program)
{
    begin(NULL);
    return end(compile(g, options, program));
}

static void cuda_close(ht_program *p)
{
    if (!p)
        return;
    begin(p);
    close_program(p);
    end(HT_OK);
}

static ht_status cuda_upload(ht_program *p, const ht_value *input, const float *data, int n)
{
    begin(p);
    return end(upload(p, input, data, n));
}

static ht_status cuda_download(ht_program *p, const ht_value *value, float *data, int n)
{
    begin(p);
    return end(download(p, value, data, n));
}

static ht_status cuda_run(ht_program *p, ht_stage which, int n, void *row)
{
    begin(p);
    return end(run(p, which, n, row));
}

static void *cuda_alloc(ht_program *p, size_t bytes)
{
    begin(p);
    void *memory = p->module->alloc(bytes);
    if (!memory)
        ht_cuda_fail(p->module, "the GPU's memory for a table of timesteps");
    end(HT_OK);
    return memory;
}

static void cuda_free(ht_program *p, void *memory)
{
    begin(p);
    p->module->free(memory);
    end(HT_OK);
}

/* Of float32 no product uses tensor cores: there is no peak to compare with. */
static void cuda_peaks(ht_program *p, double *floats, double *codes)
{
    begin(p);
    *floats = p->half ? p->module->peak(HT_CUDA_W_F16) : 0;
    *codes = p->module->peak(HT_CUDA_W_S8);
    end(HT_OK);
}

static void cuda_info(const ht_program *p, ht_program_info *info)
{
    *info = (ht_program_info){.isa = p->isa,
                              .threads = 1,
                              .activation_bytes = (int64_t)(p->plan.kept_bytes + p->plan.work_bytes +
                                                            p->plan.row_bytes + p->workspace_bytes + p->staging_bytes),
                              .packed_bytes = (int64_t)p->weight_bytes};
}

static size_t cuda_row_bytes(const ht_program *p)
{
    return p->plan.row_bytes;
}

static void cuda_op(const ht_program *p, int i, const char **kernel, const char **refused, double *seconds,
                    int64_t *runs)
{
    *kernel = p->steps[i].kernel;
    *refused = "";
    *seconds = p->steps[i].seconds;
    *runs = p->steps[i].runs;
}

const ht_backend ht_cuda_backend = {
    .name = "cuda",
    .compile = cuda_compile,
    .close = cuda_close,
    .info = cuda_info,
    .row_bytes = cuda_row_bytes,
    .upload = cuda_upload,
    .download = cuda_download,
    .run = cuda_run,
    .alloc = cuda_alloc,
    .free = cuda_free,
    .op = cuda_op,
    .peaks = cuda_peaks,
};
