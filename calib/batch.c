/* batch.c - images at once, from the memory plans of graphs for one and for two. */
#include "calib/batch.h"

#include "graph/plan.h"
#include "sampler/conditions.h"

static const double MOST_BYTES = 2147483648.0;

/* What a session for n images keeps. */
static ht_status measure(const ht_model *model, int64_t n, const ht_session_options *o, const ht_session_extras *extras,
                         double *bytes)
{
    ht_arena *arena = ht_arena_create();
    ht_graph *g = arena ? ht_graph_create(arena) : NULL;
    ht_plan plan = {0};
    if (!g) {
        ht_arena_free(arena);
        return HT_ERR_MEMORY;
    }
    int64_t h = o->height ? o->height : model->info.height, w = o->width ? o->width : model->info.width,
            tokens = o->tokens ? o->tokens : HT_DEFAULT_TOKENS;
    model->family->build(model->network, g, (ht_denoiser_size){.n = n, .h = h, .w = w, .tokens = tokens});
    ht_graph_observe(g, extras->observe);
    ht_graph_set_layers(g, extras->layers ? extras->layers : &model->layers);
    ht_status status = ht_graph_finish(g, !extras->unfused);
    if (!status)
        status = ht_plan_make(g, 1, NULL, arena, &plan);
    *bytes = (double)plan.kept_bytes + (double)plan.work_bytes;
    ht_arena_free(arena);
    return status;
}

int ht_batch_within(const ht_model *model, const ht_session_options *options, const ht_session_extras *extras)
{
    double one, two, most = options->batch;
    if (!model->family || measure(model, 1, options, extras, &one) || measure(model, 2, options, extras, &two))
        return options->batch; /* what is wrong, the session will say */
    if (two > one)
        most = 1 + (MOST_BYTES - one) / (two - one); /* moments are kept once, whatever the batch */
    return most >= options->batch ? options->batch : most < 1 ? 1 : (int)most;
}
