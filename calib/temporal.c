/* temporal.c - measuring temporal features (TFMQ-DM arXiv:2311.16503; Temporal Feature Matters arXiv:2407.19547): they
 * are a finite set, a row a timestep, so their error is no estimate. */
#include "calib/temporal.h"

#include <stdlib.h>

typedef struct features {
    const char **names; /* of the layers that depend on {t} alone, NULL-terminated */
    int *product;       /* [names] */
    int n;
} features;

static bool is_temporal(const ht_product *p)
{
    return p->role == HT_ROLE_TEMPORAL || p->role == HT_ROLE_TEMPORAL_FIRST;
}

static ht_status list(ht_arena *arena, const ht_products *products, features *f)
{
    f->names = ht_alloc_array(arena, (size_t)products->n + 1, sizeof(char *));
    f->product = ht_alloc_array(arena, (size_t)products->n + 1, sizeof *f->product);
    if (!f->names || !f->product)
        return HT_ERR_MEMORY;
    for (int i = 0; i < products->n; i++)
        if (is_temporal(&products->product[i])) {
            f->product[f->n] = i;
            f->names[f->n++] = products->product[i].name;
        }
    return HT_OK;
}

/* Rows of all layers, timestep after timestep: rows[layer] [groups][channels]. */
static ht_status gather(ht_model *model, const ht_calibration *c, const features *f, const ht_layers *layers,
                        float **rows)
{
    ht_session *session = NULL;
    size_t pixels = (size_t)c->height * (size_t)c->width;
    float *out = malloc(pixels * (size_t)model->info.out_channels * sizeof *out);
    ht_cond cond = {.class_labels = c->class_labels};
    ht_session_extras extras = {.taps = f->names, .layers = layers};
    ht_status status = out ? ht_session_open_with(model, &(ht_session_options){.batch = 1}, &extras, &session)
                           : ht_fail(HT_ERR_MEMORY, "out of memory for a sample");
    if (!status)
        status = ht_session_set_timesteps(session, c->groups, c->timesteps);
    if (!status)
        status = ht_session_set_cond(session, 1, &cond);
    for (int g = 0; !status && g < c->groups; g++) {
        status = ht_session_step(session, g, c->sample, out); /* the row is there after a step that read it */
        for (int i = 0; !status && i < f->n; i++) {
            const ht_value *v = ht_graph_find(ht_session_graph(session), f->names[i]);
            status = ht_session_read(session, v, rows[i] + (size_t)g * (size_t)ht_value_count(v));
        }
    }
    ht_session_close(session);
    free(out);
    return status;
}

static float **room_for(ht_arena *arena, const ht_products *products, const features *f, int groups)
{
    float **rows = ht_alloc_array(arena, (size_t)f->n + 1, sizeof(float *));
    for (int i = 0; rows && i < f->n; i++) {
        size_t channels = (size_t)products->product[f->product[i]].weight->shape[0];
        if (!(rows[i] = ht_alloc_array(arena, (size_t)groups * channels, sizeof(float))))
            return NULL;
    }
    return rows;
}

ht_status ht_temporal_errors(ht_model *model, const ht_calibration *calibration, const ht_products *products,
                             const ht_layers *layers, double *error)
{
    static const ht_layers none = {0};
    features f = {0};
    ht_arena *arena = ht_arena_create();
    ht_status status = arena ? list(arena, products, &f) : HT_ERR_MEMORY;
    float **have = NULL, **want = NULL;
    if (!status) {
        have = room_for(arena, products, &f, calibration->groups);
        want = room_for(arena, products, &f, calibration->groups);
        status = have && want ? gather(model, calibration, &f, layers, have) : HT_ERR_MEMORY;
    }
    if (!status)
        status = gather(model, calibration, &f, &none, want);
    for (int i = 0; i < products->n; i++)
        error[i] = 0;
    for (int i = 0; !status && i < f.n; i++) {
        size_t count = (size_t)calibration->groups * (size_t)products->product[f.product[i]].weight->shape[0];
        double noise = 0, signal = 0;
        for (size_t k = 0; k < count; k++) {
            double d = (double)have[i][k] - (double)want[i][k];
            noise += d * d;
            signal += (double)want[i][k] * (double)want[i][k];
        }
        error[f.product[i]] = signal > 0 ? noise / signal : 0;
    }
    ht_arena_free(arena);
    return status;
}
