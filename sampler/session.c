/* session.c - compiling a model for a batch and a size. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sampler/backends.h"
#include "sampler/session_private.h"

static ht_status check_size(const char *what, int value, int own, int multiple, int *out)
{
    *out = value ? value : own;
    if (!*out)
        return ht_fail(HT_ERR_ARGUMENT, "config.json has no sample_size; say which height and width the sample has");
    if (*out < 1 || *out > 16384)
        return ht_fail(HT_ERR_ARGUMENT, "%s %d is out of range; wanted 1 to 16384", what, *out);
    if (*out % multiple)
        return ht_fail(HT_ERR_ARGUMENT, "%s %d does not fit this model; wanted a multiple of %d", what, *out, multiple);
    return HT_OK;
}

static ht_status check_options(ht_session *s, const ht_session_options *o)
{
    const ht_denoiser_info *info = &s->model->info;
    if (!s->model->family)
        return ht_fail(HT_ERR_UNSUPPORTED, "%s: is an autoencoder, %s; a denoiser is wanted", s->model->path,
                       s->model->class_name);
    ht_status status = HT_OK;
    s->batch = o->batch ? o->batch : 1;
    if (!status && (s->batch < 1 || s->batch > 65536))
        status = ht_fail(HT_ERR_ARGUMENT, "batch %d is out of range; wanted 1 to 65536", o->batch);
    s->tokens = o->tokens ? o->tokens : HT_DEFAULT_TOKENS;
    if (!status && (s->tokens < 1 || s->tokens > HT_MOST_TOKENS))
        status = ht_fail(HT_ERR_ARGUMENT, "tokens %d is out of range; wanted 1 to %d", o->tokens, HT_MOST_TOKENS);
    if (!status && (o->threads < 0 || o->threads > 1024))
        status = ht_fail(HT_ERR_ARGUMENT, "threads %d is out of range; wanted 0 (all) to 1024", o->threads);
    if (!status)
        status = check_size("height", o->height, info->height, info->size_multiple, &s->height);
    if (!status)
        status = check_size("width", o->width, info->width, info->size_multiple, &s->width);
    return status;
}

static ht_status build_graph(ht_session *s, const ht_session_extras *extras)
{
    s->graph = ht_graph_create(s->arena);
    if (!s->graph)
        return HT_ERR_MEMORY;
    s->model->family->build(
        s->model->network, s->graph,
        (ht_denoiser_size){s->batch, s->height, s->width, s->tokens, extras->depth, extras->branch});
    for (const char *const *tap = extras->taps; tap && *tap; tap++)
        ht_tap(s->graph, *tap);
    ht_graph_observe(s->graph, extras->observe);
    ht_graph_set_layers(s->graph, extras->layers ? extras->layers : &s->model->layers);
    ht_status status = ht_graph_finish(s->graph, !extras->unfused);
    if (status)
        return status;
    s->sample = ht_graph_input(s->graph, "sample");
    s->timestep = ht_graph_input(s->graph, "timestep");
    s->class_labels = ht_graph_input(s->graph, "class_labels");
    s->cached = extras->depth == HT_DEPTH_KEEPS     ? ht_graph_find(s->graph, HT_CACHED)
                : extras->depth == HT_DEPTH_SHALLOW ? ht_graph_input(s->graph, HT_CACHED)
                                                    : NULL;
    for (int i = 0; i < HT_CONDITIONS; i++)
        s->conditions[i] = ht_graph_input(s->graph, ht_conditions[i].name);
    return HT_OK;
}

/* Rows of what may be left out. */
static ht_status allocate_ones(ht_session *s)
{
    for (int i = 0; i < HT_CONDITIONS; i++) {
        size_t count = ht_conditions[i].optional && s->conditions[i] ? (size_t)ht_value_count(s->conditions[i]) : 0;
        if (!count)
            continue;
        s->ones = ht_alloc_array(s->arena, count, sizeof *s->ones);
        for (size_t j = 0; s->ones && j < count; j++)
            s->ones[j] = 1;
        return s->ones ? HT_OK : HT_ERR_MEMORY; /* there is one such row in the table */
    }
    return HT_OK;
}

/* What running needs besides the program's own memory. */
static ht_status allocate(ht_session *s)
{
    int64_t largest = 1;
    for (int i = 0; i < ht_graph_values(s->graph); i++) {
        const ht_value *v = ht_graph_value(s->graph, i);
        if (v->tapped && ht_value_count(v) > largest)
            largest = ht_value_count(v);
    }
    s->tap = ht_alloc_array(s->arena, (size_t)largest, sizeof *s->tap);
    s->row_bytes = s->backend->row_bytes(s->program);
    return s->tap ? allocate_ones(s) : HT_ERR_MEMORY;
}

ht_status ht_session_open_with(ht_model *model, const ht_session_options *options, const ht_session_extras *extras,
                               ht_session **session)
{
    static const ht_session_options defaults;
    const ht_session_options *o = options ? options : &defaults;
    ht_arena *arena = ht_arena_create();
    ht_session *s = arena ? ht_alloc(arena, sizeof *s) : NULL;
    ht_status status = HT_ERR_MEMORY;
    if (!s) {
        ht_arena_free(arena);
        return status;
    }
    *s = (ht_session){.arena = arena, .model = model};
    ht_backend_options backend = {.threads = o->threads, .isa = o->isa, .profile = o->profile, .device = o->device};
    status = ht_find_half(o->dtype, &backend.half);
    if (!status)
        status = check_options(s, o);
    if (!status && extras->depth && (extras->branch < 0 || extras->branch >= model->info.branches))
        status = model->info.branches ? ht_fail(HT_ERR_ARGUMENT, "%s: has branches 0 to %d to cache at, not %d",
                                                model->path, model->info.branches - 1, extras->branch)
                                      : ht_fail(HT_ERR_UNSUPPORTED, "%s: %s has no cache of deep features", model->path,
                                                model->class_name);
    if (!status)
        status = build_graph(s, extras);
    if (!status)
        status = ht_compile(o->backend, s->graph, &backend, &s->backend, &s->program);
    if (!status)
        status = allocate(s);
    if (!status)
        status = ht_session_describe(s);
    if (!status)
        status = s->backend->run(s->program, HT_STAGE_ONCE, s->batch, NULL);
    if (status)
        ht_session_close(s);
    else
        *session = s;
    return status;
}

ht_status ht_session_open(ht_model *model, const ht_session_options *options, ht_session **session)
{
    return ht_session_open_with(model, options, &(ht_session_extras){0}, session);
}

ht_status ht_session_open_taps(ht_model *model, const ht_session_options *options, const char *const *taps, bool fuse,
                               ht_session **session)
{
    return ht_session_open_with(model, options, &(ht_session_extras){.taps = taps, .unfused = !fuse}, session);
}

void ht_session_close(ht_session *s)
{
    if (!s)
        return;
    if (s->program) {
        s->backend->free(s->program, s->table);
        s->backend->close(s->program);
    }
    free(s->timesteps);
    ht_arena_free(s->arena);
}
