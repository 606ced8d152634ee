/* trajectory.c - the table of samplers, and from a configuration and options to rows of coefficients. */
#include "sampler/trajectory.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

/* A new sampler is a row here and a file with its make_row. */
static const ht_sampler *const samplers[] = {&ht_ddim, &ht_ddpm, NULL};

static bool serves(const ht_sampler *sampler, const char *class_name)
{
    const char *const *name = sampler->class_names;
    while (*name && strcmp(*name, class_name))
        name++;
    return *name != NULL;
}

const char *ht_sampler_for(const char *class_name)
{
    for (const ht_sampler *const *s = samplers; class_name && *s; s++)
        if (serves(*s, class_name))
            return (*s)->name;
    return ht_ddim.name;
}

static ht_status refuse_sampler(const char *name)
{
    char known[256] = "";
    size_t used = 0;
    for (const ht_sampler *const *s = samplers; *s && used < sizeof known; s++)
        used += (size_t)snprintf(known + used, sizeof known - used, "%s%s", used ? ", " : "", (*s)->name);
    return ht_fail(HT_ERR_ARGUMENT, "sampler \"%s\" is not known; this version has %s", name, known);
}

static ht_status find_sampler(const char *name, const ht_sampler **out)
{
    for (const ht_sampler *const *s = samplers; *s; s++) {
        if (!strcmp((*s)->name, name)) {
            *out = *s;
            return HT_OK;
        }
    }
    return refuse_sampler(name);
}

static ht_status find_spacing(const char *name, ht_spacing fallback, ht_spacing *out)
{
    int found = name ? ht_spacing_find(name) : (int)fallback;
    char known[256] = "";
    size_t used = 0;
    if (found >= 0) {
        *out = (ht_spacing)found;
        return HT_OK;
    }
    for (int i = 0; ht_spacing_name(i) && used < sizeof known; i++)
        used += (size_t)snprintf(known + used, sizeof known - used, "%s%s", used ? ", " : "", ht_spacing_name(i));
    return ht_fail(HT_ERR_ARGUMENT, "spacing \"%s\" is not known; this version has %s", name, known);
}

double ht_next_alpha(const ht_trajectory_source *source, int i)
{
    return i + 1 < source->steps.n ? source->alphas_cumprod[source->steps.timesteps[i + 1]] : 1;
}

ht_status ht_predict_x0(const ht_trajectory_source *source, int i, ht_step_row *row)
{
    int t = source->steps.timesteps[i];
    double a = source->alphas_cumprod[t];
    switch (source->config->prediction_type) {
    case HT_PREDICT_EPSILON: /* DDIM eq. 9 */
        if (a == 0)
            return ht_fail(HT_ERR_ARGUMENT,
                           "alphas_cumprod is 0 at timestep %d: a model that predicts epsilon cannot start there", t);
        row->x0_of_x = (float)(1 / sqrt(a));
        row->x0_of_out = (float)(-sqrt(1 - a) / sqrt(a));
        break;
    case HT_PREDICT_V: /* arXiv:2202.00512, appendix D */
        row->x0_of_x = (float)sqrt(a);
        row->x0_of_out = (float)-sqrt(1 - a);
        break;
    case HT_PREDICT_SAMPLE:
        row->x0_of_x = 0;
        row->x0_of_out = 1;
        break;
    }
    return HT_OK;
}

static ht_status make_rows(const ht_trajectory_source *source, ht_step_row *rows, ht_trajectory *trajectory)
{
    for (int i = 0; i < trajectory->n; i++) {
        rows[i].timestep = source->steps.timesteps[i];
        ht_status status = trajectory->sampler->make_row(source, i, &rows[i]);
        if (status)
            return status;
        trajectory->needs_variance |= rows[i].noise == HT_NOISE_LEARNED || rows[i].noise == HT_NOISE_LEARNED_RANGE;
    }
    return HT_OK;
}

ht_status ht_trajectory_make(ht_arena *arena, const ht_schedule_config *config, const ht_trajectory_options *options,
                             ht_trajectory *trajectory)
{
    ht_trajectory p = {.config = config};
    ht_trajectory_source source = {.config = config, .options = options};
    float *alphas_cumprod;
    const char *sampler = options->sampler ? options->sampler : ht_sampler_for(config->class_name);
    ht_status status = find_sampler(sampler, &p.sampler);
    status = status ? status : find_spacing(options->spacing, config->timestep_spacing, &source.spacing);
    status = status ? status : ht_steps_make(arena, config, source.spacing, options->steps, &source.steps);
    status = status ? status : ht_schedule_alphas(arena, config, &alphas_cumprod);
    if (status)
        return status;
    source.alphas_cumprod = alphas_cumprod;
    p.n = source.steps.n;
    ht_step_row *rows = ht_alloc_array(arena, (size_t)p.n, sizeof *rows);
    if (!rows)
        return HT_ERR_MEMORY;
    p.rows = rows;
    status = make_rows(&source, rows, &p);
    if (!status)
        *trajectory = p;
    return status;
}
