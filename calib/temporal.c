/* temporal.c - measuring temporal features (TFMQ-DM arXiv:2311.16503; Temporal Feature Matters arXiv:2407.19547): they
 * are a finite set, a row a timestep, so their error is no estimate. */
#include "calib/temporal.h"

#include <stdlib.h>

typedef struct features {
    int *product; /* [n]: of the products that depend on {t} alone */
    int n;
} features;

static ht_status list(ht_arena *arena, const ht_products *products, features *f)
{
    f->product = ht_alloc_array(arena, (size_t)products->n + 1, sizeof *f->product);
    for (int i = 0; f->product && i < products->n; i++)
        if (ht_product_is_temporal(&products->product[i]))
            f->product[f->n++] = i;
    return f->product ? HT_OK : HT_ERR_MEMORY;
}

/* Numbers that a layer makes at a timestep, all uses together. */
static size_t row_of(const ht_model_product *p)
{
    return (size_t)p->uses * (size_t)p->weight->shape[0];
}

static ht_status read_row(ht_session *session, const ht_model_product *p, float *row)
{
    ht_status status = HT_OK;
    for (int use = 0; !status && use < p->uses; use++) {
        const ht_op *op = ht_product_op(ht_session_graph(session), p, use);
        if (op && op->out->dtype == HT_F32)
            status = ht_session_read(session, op->out, row + use * p->weight->shape[0]);
    }
    return status;
}

/* Rows of all layers, timestep after timestep: rows[layer] [groups][uses][channels]. */
static ht_status gather(ht_model *model, const ht_calibration *c, const ht_products *products, const features *f,
                        const ht_layers *layers, float **rows)
{
    ht_session *session = NULL;
    ht_session_extras extras = {.observe = {.outputs = true}, .layers = layers};
    ht_status status =
        ht_session_open_with(model, &(ht_session_options){.batch = 1, .tokens = c->contexts.tokens}, &extras, &session);
    for (int g = 0; !status && g < c->groups; g++) {
        status = ht_session_set_timesteps(session, 1, &c->timesteps[g]);
        for (int i = 0; !status && i < f->n; i++) {
            const ht_model_product *p = &products->product[f->product[i]];
            status = read_row(session, p, rows[i] + (size_t)g * row_of(p));
        }
    }
    ht_session_close(session);
    return status;
}

static float **room_for(ht_arena *arena, const ht_products *products, const features *f, int groups)
{
    float **rows = ht_alloc_array(arena, (size_t)f->n + 1, sizeof(float *));
    for (int i = 0; rows && i < f->n; i++) {
        size_t row = row_of(&products->product[f->product[i]]);
        if (!(rows[i] = ht_alloc_array(arena, (size_t)groups * row, sizeof(float))))
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
        status = have && want ? gather(model, calibration, products, &f, layers, have) : HT_ERR_MEMORY;
    }
    if (!status)
        status = gather(model, calibration, products, &f, &none, want);
    for (int i = 0; i < products->n; i++)
        error[i] = 0;
    for (int i = 0; !status && i < f.n; i++) {
        size_t count = (size_t)calibration->groups * row_of(&products->product[f.product[i]]);
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
