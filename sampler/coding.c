/* coding.c - compiling and running an autoencoder.  Everything depends on what goes in, so there is one stage that
 * matters. */
#include "sampler/coding.h"

#include "sampler/backends.h"
#include "sampler/session_private.h"

struct ht_coding {
    ht_arena *arena;
    const ht_backend *backend;
    ht_program *program;
    ht_graph *graph;
    const ht_value *in, *out[HT_AUTOENCODER_OUTPUTS];
    int batch, n;
};

static ht_status check_options(const ht_model *model, const ht_session_options *o)
{
    if (!model->autoencoder)
        return ht_fail(HT_ERR_UNSUPPORTED, "%s: is a denoiser, %s; an autoencoder is wanted", model->path,
                       model->class_name);
    if (o->batch < 1 || o->batch > 65536)
        return ht_fail(HT_ERR_ARGUMENT, "batch %d is out of range; wanted 1 to 65536", o->batch);
    if (o->height < 1 || o->height > 16384 || o->width < 1 || o->width > 16384)
        return ht_fail(HT_ERR_ARGUMENT, "%dx%d is out of range; wanted 1x1 to 16384x16384", o->height, o->width);
    if (o->threads < 0 || o->threads > 1024)
        return ht_fail(HT_ERR_ARGUMENT, "threads %d is out of range; wanted 0 (all) to 1024", o->threads);
    return HT_OK;
}

static ht_status build(ht_coding *c, const ht_model *model, ht_direction direction, const ht_session_options *o)
{
    const ht_coded *outputs = direction == HT_DECODE ? model->coding.decoded : model->coding.encoded;
    c->graph = ht_graph_create(c->arena);
    if (!c->graph)
        return HT_ERR_MEMORY;
    (direction == HT_DECODE ? model->autoencoder->decode : model->autoencoder->encode)(model->network, c->graph,
                                                                                       c->batch, o->height, o->width);
    for (int i = 0; i < HT_AUTOENCODER_OUTPUTS && outputs[i].name; i++)
        ht_tap(c->graph, outputs[i].name);
    ht_graph_set_layers(c->graph, &model->layers);
    ht_status status = ht_graph_finish(c->graph, true);
    for (int i = 0; !status && i < HT_AUTOENCODER_OUTPUTS && outputs[i].name; i++)
        c->out[i] = ht_graph_find(c->graph, outputs[i].name);
    if (!status)
        c->in = ht_graph_input(c->graph, direction == HT_DECODE ? "z" : "x");
    return status;
}

ht_status ht_coding_open(ht_model *model, ht_direction direction, const ht_session_options *o, ht_coding **coding)
{
    ht_arena *arena = ht_arena_create();
    ht_coding *c = arena ? ht_alloc(arena, sizeof *c) : NULL;
    if (!c) {
        ht_arena_free(arena);
        return HT_ERR_MEMORY;
    }
    *c = (ht_coding){.arena = arena, .batch = o->batch};
    ht_backend_options backend = {.threads = o->threads, .isa = o->isa, .profile = o->profile, .device = o->device};
    ht_status status = check_options(model, o);
    if (!status)
        status = build(c, model, direction, o);
    if (!status)
        status = ht_compile(o->backend, c->graph, &backend, &c->backend, &c->program);
    if (!status)
        status = c->backend->run(c->program, HT_STAGE_ONCE, c->batch, NULL);
    if (status)
        ht_coding_close(c);
    else
        *coding = c;
    return status;
}

void ht_coding_close(ht_coding *c)
{
    if (!c)
        return;
    if (c->program)
        c->backend->close(c->program);
    ht_arena_free(c->arena);
}

int ht_coding_batch(const ht_coding *c)
{
    return c->batch;
}

ht_status ht_coding_run(ht_coding *c, int n, const float *in)
{
    c->n = n;
    ht_status status = c->backend->upload(c->program, c->in, in, n);
    return status ? status : c->backend->run(c->program, HT_STAGE_STEP, n, NULL);
}

const ht_value *ht_coding_output(const ht_coding *c, int i)
{
    return i < HT_AUTOENCODER_OUTPUTS ? c->out[i] : NULL;
}

ht_status ht_coding_read(ht_coding *c, int i, float *out)
{
    return c->backend->download(c->program, c->out[i], out, c->n);
}
